"""HiSo's Figure 4, redrawn: are the printed numbers typical, and what does the whitening rank depend on?

Reads from a results folder the tables of `synthetic.whitening.simulate`, saved under their stems:

    whitening_histogram.csv   whitening_match.csv   whitening_example.csv   whitening_dimension.csv

and the printed values from paper/reported/hiso_fig4.csv. (whitening_quantiles.csv and whitening_summary.csv
carry the numbers behind the figure and are not drawn.)

Top: the three quantities over all draws, under both readings of N(0, 3 I) and the spread in between.
Bottom: the paper's two histograms for the draw nearest to its printed values, and zeta against d.
"""

from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, NullLocator

from figures.style import SHADES, look, plt, provenance
from hiso_bench import quoted

READINGS = {  # reading -> (label, colour, line style, marker), in order of spread
    "variance 3": ("variance 3 (std 1.73)", SHADES[0], "-", "o"),
    "std 2.5": ("std 2.5 (neither reading)", SHADES[1], (0, (5, 1.5)), "s"),
    "std 3": ("std 3", SHADES[2], (0, (1.5, 1)), "D"),
}
EXAMPLE = "std 3"
TOP = (  # quantity, title, axis label
    ("Ld", "(a) bound from smoothness", r"$L\,d$"),
    ("Lkappa", "(b) bound from low effective rank", r"$L\kappa=\mathrm{Tr}\,\Sigma$"),
    ("zeta", r"(c) whitened with $H=\Sigma+1$", r"$\zeta=\mathrm{Tr}\,H^{-1/2}\Sigma H^{-1/2}$"),
)


def draw(results: Path, source: str, experiment: str = "whitening") -> Figure:
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
    histogram, match, example, dimension = (
        pd.read_csv(Path(results) / f"{experiment}_{name}.csv") for name in ("histogram", "match", "example", "dimension")
    )
    reported = quoted.table("hiso_fig4")
    printed = dict(zip(reported["quantity"], reported["value"].astype(float), strict=True))
    stds = dict(zip(example["reading"], example["std"], strict=True))
    example = _only(example, reading=EXAMPLE)
    d = len(example)

    fig, axes = plt.subplots(2, 3, figsize=(9.6, 6.2))
    for ax, (quantity, title, label) in zip(axes[0], TOP, strict=True):
        _distribution(ax, _only(histogram, quantity=quantity), printed[quantity])
        ax.set(title=title, xlabel=label, xscale="linear" if quantity == "zeta" else "log")
    axes[0, 0].set_ylabel("draws per bin (%)")
    axes[0, 2].axvline(d / 2, **look("theory").line())

    _spectra(axes[1, 0], axes[1, 1], example)
    _growth(axes[1, 2], dimension, printed["zeta"], d)
    _legend(fig, match, stds)
    provenance(fig, source)
    return fig


def _only(table: pd.DataFrame, **value: str) -> pd.DataFrame:
    """The rows of a table whose named column has the given value."""
    ((column, wanted),) = value.items()
    return table.loc[table[column] == wanted]


def _distribution(ax: Axes, bins: pd.DataFrame, printed: float) -> None:
    """One quantity's histogram over draws for each reading, and the printed value."""
    for reading, (_, color, linestyle, _) in READINGS.items():
        part = _only(bins, reading=reading)
        share = 100 * part["count"] / part["count"].sum()
        edges = np.append(part["low"], part["high"].max())
        ax.stairs(share, edges, color=color, linestyle=linestyle, linewidth=1.5)
        ax.stairs(share, edges, color=color, alpha=0.12, fill=True)
    ax.set_ylim(bottom=0)
    ax.axvline(printed, **look("reported").line())
    ax.plot(printed, 0, zorder=5, **look("reported").points())


def _spectra(left: Axes, right: Axes, example: pd.DataFrame) -> None:
    """The paper's two histograms for one draw, with that draw's own numbers."""
    sigma, whitened = example["eigenvalue"], example["whitened"]
    numbers = f"$L\\,d$ = {sigma.max() * len(sigma):,.0f}\n$L\\kappa$ = {sigma.sum():,.0f}"
    left.hist(sigma, bins=50, color=READINGS[EXAMPLE][1])
    left.text(0.95, 0.93, numbers, transform=left.transAxes, ha="right", va="top")
    left.set(title=f"(d) {EXAMPLE}: the draw nearest to print", ylabel="eigenvalues per bin")
    left.set_xlabel(r"eigenvalue of $\Sigma$")
    right.hist(whitened, bins=50, color=READINGS[EXAMPLE][1])
    number = f"$\\zeta$ = {whitened.sum():.1f}"
    right.text(0.5, 0.93, number, transform=right.transAxes, ha="center", va="top")
    right.set(title="(e) the same draw, whitened", xlabel=r"eigenvalue of $H^{-1/2}\Sigma H^{-1/2}$")


def _growth(ax: Axes, dimension: pd.DataFrame, printed: float, d: int) -> None:
    """Zeta against d: 5-95 % of draws for each reading, d/2, and what "independent of d" would look like."""
    dimensions = sorted(set(dimension["d"]))
    ax.plot(dimension["d"], dimension["expected"], **look("theory").line())
    for size, (reading, (_, color, _, marker)) in zip((9, 5.5, 2.5), READINGS.items(), strict=True):
        part = _only(dimension, reading=reading)  # nested markers: the readings coincide
        reach = [part["mean"] - part["q05"], part["q95"] - part["mean"]]
        ax.errorbar(part["d"], part["mean"], reach, color=color, fmt=marker, ms=size, elinewidth=size / 2)
    ax.axhline(printed, **look("reported").line())
    ax.plot(d, printed, zorder=5, **look("reported").points())
    ax.text(dimensions[0], printed * 1.08, "if independent of $d$", fontsize=8, va="bottom")
    ax.set(xscale="log", yscale="log", xlabel="$d$", ylabel=r"$\zeta$")
    ax.set_title(r"(f) $\zeta$ against $d$: mean, 5-95 % of draws")
    ax.xaxis.set_major_locator(FixedLocator(dimensions))
    ax.xaxis.set_major_formatter("{x:.0f}")
    ax.xaxis.set_minor_locator(NullLocator())
    ax.yaxis.set_major_formatter("{x:.0f}")


def _legend(fig: Figure, match: pd.DataFrame, stds: dict[str, float]) -> None:
    """One legend for all panels; each reading carries how many of its draws are like the printed one."""
    handles = []
    for reading, (label, color, linestyle, marker) in READINGS.items():
        row = match.iloc[(match["std"] - stds[reading]).abs().argmin()]
        label = f"{label}: {row['hits']:,.0f} of {row['draws']:,.0f} draws match*"
        line = {"color": color, "linestyle": linestyle, "marker": marker, "markersize": 4}
        handles.append(Line2D([], [], label=label, **line))
    handles.append(Line2D([], [], label=look("reported").label, **look("reported").points()))
    handles.append(Line2D([], [], label=r"$d/2$, the exact mean of $\zeta$", **look("theory").line()))
    rule = match.iloc[0]
    text = (
        f"* $L$ in {rule['L_low']:.0f}-{rule['L_high']:.0f} and "
        f"$\\mathrm{{Tr}}\\,\\Sigma$ in {rule['trace_low']:,.0f}-{rule['trace_high']:,.0f}"
    )
    handles.append(Line2D([], [], linestyle="none", label=text))
    fig.legend(handles=handles, loc="outside upper center", ncols=2)
