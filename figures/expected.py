"""The exact expected loss against the simulated mean, on six families of spectra, and their ratio.

Reads `<experiment>.csv` (family, regime, round, exact) and `<experiment>_simulated.csv` (family, regime, round, exact, mean, low,
high: 99.9 % intervals).
"""

from pathlib import Path

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, MultipleLocator, NullFormatter

from figures.style import SHADES, look, plt, provenance
from hiso_bench import records

TITLES = {
    "flat": "(a) flat: 60 equal eigenvalues",
    "power": r"(b) power law: $j^{-1}$, d = 100",
    "spiked": "(c) spiked: 3 of 10, 57 of 1",
    "lognormal": r"(d) log-normal: std of $\log s$ = 1, d = 60",
    "blocks": "(e) blocks: 6 of 4, 18 of 1, 36 of 0.1",
    "rotated": r"(f) rotated: $j^{-1}$, d = 60, Haar axes",
}
REGIMES = {  # regime -> (label, colour, marker)
    "noise-free": ("one client, no noise", SHADES[2], "o"),
    "noisy": ("2 of 4 different clients a round, gradient noise", SHADES[0], "s"),
}
SHIFT = 0.9
"""Rounds by which the second regime's ratios are moved aside, so that intervals do not cover one another."""


def draw(results: Path, source: str, experiment: str = "expected") -> Figure:
    """Draw six curves with their ratios below.

    Args:
        results: folder with the tables.
        source: where they came from, printed at the foot.
        experiment: the tables' prefix.
    """
    exact = pd.read_csv(results / f"{experiment}.csv")
    simulated, about = records.read(results / f"{experiment}_simulated.csv")
    fig, axes = plt.subplots(4, 3, figsize=(10.5, 7.6), height_ratios=(2.4, 1, 2.4, 1), sharex=True)
    for number, (family, title) in enumerate(TITLES.items()):
        row, column = 2 * (number // 3), number % 3
        top, bottom = axes[row, column], axes[row + 1, column]
        _losses(top, exact[exact["family"] == family], simulated[simulated["family"] == family])
        _ratios(bottom, simulated[simulated["family"] == family])
        top.set_title(title)
        if column == 0:
            top.set_ylabel(r"loss $E f(x_r)$")
            bottom.set_ylabel("simulated\n/ exact")
        if row == 2:
            bottom.set_xlabel("round $r$")
    handles = [Line2D([], [], label="exact recursion", **look("theory").line())]
    for label, color, marker in REGIMES.values():
        handles.append(Line2D([], [], color=color, marker=marker, linestyle="none", label=f"simulated: {label}"))
    replicates = about["config"]["replicates"]
    text = (
        rf"DeComFL (H = I), P = 5, $\eta = \eta^*/2$; simulated: the mean of {replicates} replicates with its 99.9 % interval. "
        f"{_outside(simulated)}"
    )
    fig.legend(handles=handles, loc="outside upper left", ncols=3, title=text, title_fontsize=9, alignment="left")
    provenance(fig, source)
    return fig


def _losses(ax: Axes, exact: pd.DataFrame, simulated: pd.DataFrame) -> None:
    for regime, (_, color, marker) in REGIMES.items():
        line, points = exact[exact["regime"] == regime], simulated[simulated["regime"] == regime]
        reach = [points["mean"] - points["low"], points["high"] - points["mean"]]
        ax.errorbar(points["round"], points["mean"], reach, color=color, fmt=marker, ms=5, elinewidth=1.2, capsize=2)
        ax.plot(line["round"], line["exact"], zorder=4, lw=1.2, **look("theory").line())
    ax.set_yscale("log")
    ax.yaxis.set_major_locator(LogLocator(10, subs=(1, 3)))
    ax.yaxis.set_major_formatter("{x:g}")
    ax.yaxis.set_minor_formatter(NullFormatter())


def _ratios(ax: Axes, simulated: pd.DataFrame) -> None:
    ax.axhline(1, lw=1.2, **look("theory").line())
    for (_, color, marker), regime, shift in zip(REGIMES.values(), REGIMES, (-SHIFT, SHIFT), strict=True):
        points = simulated[simulated["regime"] == regime]
        ratio = points["mean"] / points["exact"]
        reach = [ratio - points["low"] / points["exact"], points["high"] / points["exact"] - ratio]
        ax.errorbar(points["round"] + shift, ratio, reach, color=color, fmt=marker, ms=3.5, elinewidth=1.2, capsize=2)
    ax.set_ylim(0.92, 1.08)
    ax.yaxis.set_major_locator(MultipleLocator(0.05))


def _outside(simulated: pd.DataFrame) -> str:
    """How many intervals miss the exact value; one in a thousand should."""
    missed = int(((simulated["exact"] < simulated["low"]) | (simulated["exact"] > simulated["high"])).sum())
    return f"{missed} of {len(simulated)} intervals miss the exact value."
