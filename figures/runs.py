"""Curves of any runs, from their ledgers: a metric against rounds, and against the bytes that went over the wire."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd
from matplotlib.figure import Figure

from figures.style import METHODS, OKABE_ITO, plt

_MORE = [color for name, color in OKABE_ITO.items() if name not in ("yellow", "black")]


def draw(curves: Sequence[tuple[str, str, pd.DataFrame]], metric: str) -> Figure:
    """Draw one line a run.

    A method's first run has the method's own look; further ones, and methods without a look, take other colours.

    Args:
        curves: (method, legend text, evaluations of `metric` as `training.curve` gives them) per run.
        metric: what is drawn; a loss gets a logarithmic axis where all of it is positive.
    """
    fig, axes = plt.subplots(1, 2, figsize=(10, 4.2), sharey=True)
    taken: set[str] = set()
    for number, (method, label, frame) in enumerate(curves):
        known = METHODS[method] if method in METHODS and method not in taken else None
        taken.add(method)
        line = known.line() if known else {"color": _MORE[number % len(_MORE)], "linestyle": (0, (1 + number, 1))}
        kibibytes = (frame["bytes_up"] + frame["bytes_down"]) / 1024
        for ax, x in zip(axes, (frame["round"], kibibytes), strict=True):
            ax.plot(x, frame["value"], label=label, marker=known.marker if known else "", markevery=0.15, markersize=4, **line)
    axes[0].set(xlabel="communication round", ylabel=metric)
    axes[1].set(xlabel="bytes up and down, all clients [KiB]")
    if metric == "loss" and all((frame["value"] > 0).all() for _, _, frame in curves):
        axes[0].set_yscale("log")
    axes[0].legend(fontsize=7)
    return fig
