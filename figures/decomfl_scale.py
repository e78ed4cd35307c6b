"""DeComFL's model-scale figure: accuracy on SST-2 against rounds, the official repository's four curves under ours.

Reads printed_curves.csv, printed_scores.csv, printed_bytes.csv and printed_verdicts.csv (`paper.printed`). Every curve of the
repository is one run.
"""

from __future__ import annotations

from pathlib import Path

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from figures import printed
from figures.style import SHADES, plt
from hiso_bench.summaries import SHOWN_LEVEL

SIZES = {  # model -> colour, line style: light to dark with the size, none of them a method's
    "OPT-125M": ("#A0A0A0", "-"),
    "OPT-350M": ("#747474", (0, (6, 1.5))),
    "OPT-1.3B": ("#484848", (0, (3, 1, 1, 1))),
    "OPT-2.7B": ("#000000", (0, (1, 1))),
}
OURS = {  # every curve is DeComFL's: a model has a shade of no method's colour, and a marker
    ("tiny-opt", "toy-sst2"): (SHADES[0], "o"),
    ("imdb-opt", "sst2"): (SHADES[1], "s"),
    ("minilm", "sst2"): (SHADES[2], "D"),
}
TABLES = {
    "decomfl_table2": ("decomfl-p5", "^", "DeComFL, Table 2"),
    "hiso_table3": ("decomfl", "v", "HiSo, Table 3, DeComFL's row"),
}
"""Printed end points: the table's name for DeComFL at P = 5, a marker, a legend text."""


def draw(results: Path, source: str, experiment: str = "") -> Figure:
    """Draw the figure; arguments as in `figures.hiso_table1.draw`."""
    curves, scores, cells, verdicts = printed.read(results, "curves", "scores", "bytes", "verdicts")
    fig, (left, right) = plt.subplots(1, 2, figsize=(12, 4.9), sharey=True, width_ratios=(1.25, 1))
    _published(left, curves[curves["source"] == "reported"])
    _ends(left, scores, cells)
    left.set_title(
        f"(a) printed: curves of one run each, and the end points of two tables\n{printed.verdict(verdicts, 'bytes-sst2-items')}"
    )
    left.set(xlabel="communication round (end points: the rounds that their bytes are)", ylabel="accuracy, %")
    left.set_xlim(0, 1.12 * left.dataLim.x1)
    left.legend(fontsize=7.5, ncols=2, loc="lower right")
    _published(right, curves[curves["source"] == "reported"], faint=True)
    last = _ours(right, curves[curves["source"] == "ours"])
    right.set(xlabel="communication round", xlim=(0, last or None))
    right.set_title(f"(b) ours: DeComFL, P = 5, mean and its {SHOWN_LEVEL:.0%} interval over keys\nthin: the curves of (a)")
    if last:
        right.legend(fontsize=7.5, loc="lower right", frameon=True, framealpha=0.85, edgecolor="none")
    fig.suptitle("DeComFL, model scale: SST-2 with OPT of four sizes, beside our small models", fontsize=10.5, x=0.01, ha="left")
    printed.foot(fig, results, source)
    return fig


def _published(ax: Axes, table: pd.DataFrame, faint: bool = False) -> None:
    for model, part in table.groupby("model", sort=False):
        colour, style = SIZES[str(model)]
        label = "" if faint else f"{model}, published curve"
        ax.plot(part["round"], 100 * part["value"], color=colour, ls=style, lw=0.8 if faint else 1.5, label=label or None)


def _ends(ax: Axes, scores: pd.DataFrame, cells: pd.DataFrame) -> None:
    """Printed accuracies on SST-2 at the rounds that the same cell's bytes are at the table's own charge."""
    count = 0
    for file, (method, marker, text) in TABLES.items():
        here = (scores["file"] == file) & (scores["task"] == "sst2") & (scores["method"] == method)
        implied = cells[(cells["file"] == file) & (cells["task"] == "sst2") & (cells["method"] == method)].set_index("model")[
            "implied"
        ]
        for i, (model, value) in enumerate(scores.loc[here, ["model", "value"]].itertuples(index=False)):
            style = {"marker": marker, "ms": 8, "mfc": "white", "mec": "black", "mew": 1.3, "ls": "none", "zorder": 4}
            ax.plot(implied[model], value, label=text if not i else None, **style)
            side = count % 2  # below every curve, right and left in turn: names do not meet
            ax.annotate(
                model, (implied[model], value), xytext=(4 - 8 * side, -62 - 14 * side), textcoords="offset points",
                ha="right" if side else "left", fontsize=7,
                arrowprops={"arrowstyle": "-", "lw": 0.5, "color": "#555555", "relpos": (side, 1)},
            )  # fmt: skip
            count += 1


def _ours(ax: Axes, table: pd.DataFrame) -> int:
    """Mean curves with their intervals; returns the last round, 0 if nothing is recorded."""
    for (model, task), part in table.groupby(["model", "task"], sort=False):
        colour, marker = OURS[str(model), str(task)]
        label = f"{printed.row(str(model), str(task))}, {part['keys'].iloc[0]} keys"
        ax.fill_between(part["round"], 100 * part["low"], 100 * part["high"].clip(upper=1), color=colour, alpha=0.15, lw=0)
        ax.plot(part["round"], 100 * part["value"], color=colour, marker=marker, ms=4, markevery=0.15, label=label)
    return int(table["round"].max()) if len(table) else 0
