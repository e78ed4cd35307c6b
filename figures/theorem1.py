"""HiSo's Theorem 1, both sides: how far the bound lies above the truth, and which learning rates its condition admits.

Reads from a results folder the tables of `synthetic.theorem1`, saved under their stems:

    theorem1_rounds.csv   theorem1_rate.csv   theorem1_dimension.csv
"""

from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from figures.style import OKABE_ITO, SHADES, look, plt, provenance

ARMS = {"identity": "decomfl", "oracle": "hiso-oracle"}  # H of the tables -> method whose look it has
LABELS = {"identity": "$H=I$ (DeComFL)", "oracle": r"$H=\Sigma+0.1L$ (HiSo, oracle)"}
NORMS = {"H^-1": (r"$H^{-1}$ norm", "-"), "Euclidean": ("Euclidean norm", (0, (2, 1.2)))}
TOP = 1e4
BELOW: dict = {"loc": "upper center", "bbox_to_anchor": (0.5, -0.16)}


def draw(results: Path, source: str, experiment: str = "theorem1") -> Figure:
    """Draw the figure.

    Args:
        results: folder with the tables named in the module docstring.
        source: where they came from, printed at the foot.
        experiment: the tables' prefix.

    Returns:
        The figure, not saved.

    Raises:
        FileNotFoundError: where a table is missing.
    """
    rounds, rate, dimension = (
        pd.read_csv(Path(results) / f"{experiment}_{name}.csv") for name in ("rounds", "rate", "dimension")
    )
    fig, axes = plt.subplots(1, 3, figsize=(11.0, 5.0))
    _sides(axes[0], rounds)
    _condition(axes[1], rate)
    _looseness(axes[2], dimension)
    provenance(fig, source)
    return fig


def _sides(ax: Axes, rounds: pd.DataFrame) -> None:
    """Exact left and printed right side against R, and the simulated left side."""
    for H, method in ARMS.items():
        part, style = rounds[rounds["H"] == H], look(method)
        ax.plot(part["R"], part["left"], color=style.color, linestyle="-")
        ax.plot(part["R"], part["right"], color=style.color, linestyle="--")
        ax.fill_between(part["R"], part["left"], part["right"], color=style.color, alpha=0.08, linewidth=0)
    seen = rounds[rounds["mean"].notna()]
    reach = [seen["mean"] - seen["low"], seen["high"] - seen["mean"]]
    style = look("hiso-oracle")
    ax.errorbar(seen["R"], seen["mean"], reach, color=style.color, fmt=style.marker, mec="black", ms=5, capsize=2, zorder=5)
    ax.set(xscale="log", yscale="log", xlabel="rounds $R$")
    ax.set_ylabel(r"average of $E\,\|\nabla F\|^2$ in the arm's own $H^{-1}$ norm")
    ax.set_title("(a) both sides at the largest admitted $\\eta$\n     (root on the third entry, $\\tau=1$)")
    handles = [Line2D([], [], color=look(method).color, label=LABELS[H]) for H, method in ARMS.items()]
    handles += [
        Line2D([], [], color="black", linestyle="--", label="Theorem 1, right side"),
        Line2D([], [], color="black", label="left side, exact"),
        Line2D([], [], color=style.color, marker=style.marker, mec="black", linestyle="none", label="left, simulated (99.9 %)"),
    ]
    ax.legend(handles=handles, **BELOW)


def _condition(ax: Axes, rate: pd.DataFrame) -> None:
    """Both sides against the learning rate, and the limits that the readings set for three scales of one loss."""
    curve, limits = rate[rate["kind"] == "curve"], rate[rate["kind"] == "limit"]
    ax.plot(curve["stable"], curve["right"], color="black", linestyle="--")
    ax.plot(curve["stable"], curve["left"].where(curve["left"] < 10 * TOP), color="black")
    ax.axvspan(1, 3, color=OKABE_ITO["grey"], alpha=0.18, linewidth=0)
    ax.text(2.45, 3e2, r"$\eta>\eta^*$: diverges", fontsize=8, rotation=90, ha="center", va="center")
    third = limits[limits["reading"] == "third"].iloc[0]
    ax.axvline(third["stable"], color=OKABE_ITO["orange"], linewidth=3.5)
    parsed = limits[limits["reading"] == "parsed"]
    for (_, row), color in zip(parsed.iterrows(), SHADES, strict=True):
        ax.axvline(row["stable"], color=color, linestyle=(0, (4, 1.5)), linewidth=1.3)
    handles = [
        Line2D([], [], color="black", linestyle="--", label="Theorem 1, right side"),
        Line2D([], [], color="black", label="left side, exact"),
    ]
    handles += [
        Line2D([], [], color=color, linestyle=(0, (4, 1.5)), label=f"limit, root on all entries, $L(d+2)$ = {row['Ld']:g}")
        for (_, row), color in zip(parsed.iterrows(), SHADES, strict=True)
    ]
    handles.append(Line2D([], [], color=OKABE_ITO["orange"], linewidth=3.5, label="limit, root on the third entry, every scale"))
    ax.legend(handles=handles, **BELOW)
    ax.set(xscale="log", yscale="log", xlim=(1e-3, 3), ylim=(3e-2, TOP))
    ax.set_xlabel(r"learning rate $\eta/\eta^*$")
    ax.set_ylabel(r"the same average over its value at $r=0$")
    ax.set_title("(b) as printed, the condition admits\n     divergence of a loss with small $L$")


def _looseness(ax: Axes, dimension: pd.DataFrame) -> None:
    """Right over left side against d, at each reading's limit, in both norms."""
    for H, method in ARMS.items():
        style = look(method)
        for norm, (_, linestyle) in NORMS.items():
            for reading, face in (("third", style.color), ("parsed", "white")):
                chosen = (dimension["H"] == H) & (dimension["norm"] == norm) & (dimension["reading"] == reading)
                part = dimension[chosen]
                if H == "identity" and norm == "Euclidean":
                    continue  # the two norms are one
                ax.plot(part["d"], part["looseness"], color=style.color, linestyle=linestyle, marker=style.marker, mfc=face)
    ax.axhline(15 / 4, **look("theory").line(), linewidth=1)
    ax.text(dimension["d"].min(), 15 / 4 * 0.93, "15/4: the least with the root on the third entry", fontsize=8, va="top")
    handles = [Line2D([], [], color=look(m).color, marker=look(m).marker, label=LABELS[H]) for H, m in ARMS.items()]
    handles += [Line2D([], [], color="black", linestyle=line, label=label) for label, line in NORMS.values()]
    handles += [
        Line2D([], [], color="black", marker="o", linestyle="none", label="root on the third entry"),
        Line2D([], [], color="black", marker="o", mfc="white", linestyle="none", label="root on all entries"),
    ]
    ax.legend(handles=handles, **BELOW)
    ax.set(
        xscale="log",
        yscale="log",
        xlabel="dimension $d$",
        ylabel="right side / left side",
        ylim=(2.2, 1.5 * np.nanmax(dimension["looseness"])),
    )
    ax.yaxis.set_major_formatter("{x:g}")
    ax.set_title(f"(c) looseness at the limit of each reading\n     ($L=1$, $R$ = {dimension['R'].iloc[0]:,})")
