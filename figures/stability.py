"""The stability map: which steps are stable on which spectrum, and in which sense.

Reads from a results folder the tables of `synthetic.stability_map`:

    stability_limits.csv   stability_runs.csv

Every step is drawn as a multiple of eta*, the exact mean-square limit. Columns: equal eigenvalues, where the limit of almost
every run is exact too, and power laws; rows: P = 1 and 5 directions.
"""

from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import FixedLocator, NullLocator

from figures.style import OKABE_ITO, look, plt, provenance

FAMILIES = {"equal": r"$\kappa$ equal eigenvalues", "power": r"$\lambda_j=j^{-p}$, $d=100$"}
LIMIT = {"color": OKABE_ITO["black"], "linestyle": "-", "linewidth": 2.0}
ALMOST_SURE = {"color": OKABE_ITO["purple"], "linestyle": (0, (6, 1.5)), "linewidth": 1.8}
THEOREM_1 = {"color": look("hiso").color, "linestyle": (0, (2, 1.2)), "linewidth": 1.8}
BOUNDS = {"facecolor": OKABE_ITO["sky"], "alpha": 0.35, "linewidth": 0}
TIGHT = {"color": OKABE_ITO["blue"], "linestyle": (0, (1, 1)), "linewidth": 1.1}
HIGHEST = 6.3
OUTCOMES = {  # name -> (face, legend text); a run diverges if |x|_S grew
    "contracted": ("white", "most runs contract"),
    "open": (OKABE_ITO["grey"], "undecided"),
    "diverged": (OKABE_ITO["orange"], "most runs diverge"),
}


def draw(results: Path, source: str, experiment: str = "stability") -> Figure:
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
    limits, runs = (pd.read_csv(Path(results) / f"{experiment}_{name}.csv") for name in ("limits", "runs"))
    perturbations = sorted(set(limits["P"]))
    # The published step is stated for one direction, so only that row needs room far below the limit.
    lowest = [0.026 if P == 1 else 0.4 for P in perturbations]
    heights = [np.log(HIGHEST / low) for low in lowest]
    shape = {"sharex": True, "sharey": "row", "height_ratios": heights}
    fig, axes = plt.subplots(len(perturbations), 2, figsize=(8.6, 7.0), **shape)
    letters = iter("abcdefgh")
    for row, P, low in zip(axes, perturbations, lowest, strict=True):
        for ax, (family, name) in zip(row, FAMILIES.items(), strict=True):
            _panel(ax, _only(limits, family, P), _only(runs, family, P))
            ax.set_ylim(low, HIGHEST)
            ax.set_title(f"({next(letters)}) {name}, P = {P}")
        row[0].set_ylabel(r"step $\eta\,/\,\eta^*$")
    for ax in axes[-1]:
        ax.set_xlabel(r"effective rank $\kappa=\mathrm{Tr}\,\Sigma/L$")
    _legend(fig, runs)
    provenance(fig, source)
    return fig


def _only(table: pd.DataFrame, family: str, P: int) -> pd.DataFrame:
    """The rows of one panel, in order of the effective rank."""
    return table[(table["family"] == family) & (table["P"] == P)].sort_values("kappa")


def _panel(ax: Axes, limits: pd.DataFrame, runs: pd.DataFrame) -> None:
    kappa = limits["kappa"]
    ax.fill_between(kappa, limits["low"], limits["high"], **BOUNDS)
    for side in ("tight_low", "tight_high"):
        ax.plot(kappa, limits[side], **TIGHT)
    ax.axhline(1.0, **LIMIT)
    if set(limits["P"]) == {1}:
        ax.plot(kappa, limits["theorem1"], **THEOREM_1)
    ax.plot(kappa, limits["almost_sure"], **ALMOST_SURE)
    for outcome, part in runs.groupby(_outcome(runs)):
        face = OUTCOMES[str(outcome)][0]
        ax.plot(part["kappa"], part["multiple"], "o", markerfacecolor=face, **_marker())
    ax.set(xscale="log", yscale="log", xlim=(0.88, 125))
    ax.xaxis.set_major_locator(FixedLocator([1, 3, 10, 30, 100]))
    ax.yaxis.set_major_locator(FixedLocator([1 / 32, 1 / 16, 1 / 8, 0.25, 0.5, 1, 2, 4]))
    ax.yaxis.set_major_formatter(lambda value, _: f"1/{1 / value:.0f}" if value < 1 else f"{value:.0f}")
    ax.xaxis.set_major_formatter("{x:.0f}")
    ax.xaxis.set_minor_locator(NullLocator())
    ax.yaxis.set_minor_locator(NullLocator())


def _outcome(runs: pd.DataFrame) -> pd.Series:
    """Which side of one half the 99.9 % interval of the share of diverging runs lies on."""
    decided = pd.Series("open", index=runs.index)
    decided[runs["low"] > 0.5] = "diverged"
    decided[runs["high"] < 0.5] = "contracted"
    return decided


def _marker() -> dict:
    return {"markeredgecolor": OKABE_ITO["black"], "markeredgewidth": 0.7, "markersize": 5.5, "linestyle": "none"}


def _legend(fig: Figure, runs: pd.DataFrame) -> None:
    count = int(runs["runs"].iloc[0])
    handles = [
        Line2D([], [], label=r"$\eta^*$, mean-square limit: E$\,f$ diverges above (exact)", **LIMIT),
        Patch(label=r"$2P/(T+(P+1)L)$ to $\min(2P/T,\,2P/((P+1)L))$, $T$ = Tr $\Sigma$", **BOUNDS),
        Line2D([], [], label=r"bounds that also know $\sum\lambda^2$", **TIGHT),
        Line2D([], [], label="almost every run diverges above (exact)", **ALMOST_SURE),
        Line2D([], [], label=r"HiSo Theorem 1: $1/(8\rho)$, $\rho=T+2L$; as printed $\times\sqrt{1/(L(d+2))}$", **THEOREM_1),
    ]
    for outcome, (face, text) in OUTCOMES.items():
        more = f" ({count} runs: 99.9 % interval holds 1/2)" if outcome == "open" else ""
        handles.append(Line2D([], [], marker="o", markerfacecolor=face, label=text + more, **_marker()))
    fig.legend(handles=handles, loc="outside upper center", ncols=2)
