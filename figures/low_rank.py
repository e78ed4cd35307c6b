"""A quadratic of low effective rank: loss against round, with the exact expectation where there is one, and rounds to targets.

Reads `<experiment>.csv` (arm, lr, round, replicate, loss) and `<experiment>_exact.csv` (arm, round, loss).
"""

from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from figures.style import curve, look, plt, provenance

TARGETS = (0.3, 0.1, 0.03, 0.01)


def draw(results: Path, source: str, experiment: str) -> Figure:
    """Draw both panels.

    Args:
        results: folder with the tables.
        source: where they came from, printed at the foot.
        experiment: the tables' prefix.
    """
    runs = pd.read_csv(results / f"{experiment}.csv")
    exact = pd.read_csv(results / f"{experiment}_exact.csv")
    start = runs[runs["round"] == 0]["loss"].iloc[0]
    arms = list(dict.fromkeys(runs["arm"]))
    fig, (left, right) = plt.subplots(1, 2, figsize=(10.5, 4.6), width_ratios=(1.5, 1))
    for arm in arms:
        table = runs[runs["arm"] == arm].pivot(index="replicate", columns="round", values="loss") / start
        shown = table.columns.to_numpy() > 0
        rate = runs[runs["arm"] == arm]["lr"].iloc[0]
        curve(left, table.columns[shown], table.to_numpy()[:, shown], arm, label=f"{look(arm).label}, $\\eta$ = {rate:.3g}")
    theory = look("theory")
    for number, (arm, part) in enumerate(exact.groupby("arm")):
        part = part[part["round"] > 0]
        label = "exact expected loss where H is fixed (hollow: whose)" if number == 0 else None
        left.plot(part["round"], part["loss"] / start, lw=1.1, zorder=4, label=label, **theory.line())
        for x in (3 * 1.7**number, 600 * 1.5**number):  # one beside the other: some of the lines coincide
            at = part.iloc[(part["round"] - x).abs().argmin()]
            hollow = {"marker": look(str(arm)).marker, "ms": 6, "mfc": "white", "mec": "black", "mew": 0.9, "ls": "none"}
            left.plot(at["round"], at["loss"] / start, zorder=5, **hollow)
    left.set(xscale="log", yscale="log", xlabel="round (log)", title="(a) loss: median and range")
    left.set_ylabel(r"loss $f(x_r)\,/\,f(x_0)$")
    left.set_ylim(runs["loss"].min() / start / 8, 3)  # room for the legend; a blow-up leaves the picture
    left.legend(loc="lower left", fontsize=7)
    _targets(right, runs, arms, start)
    replicates = runs["replicate"].nunique()
    fig.suptitle(
        f"Quadratic with eigenvalues $j^{{-1.5}}$, d = 1000, effective rank 2.5, P = 5, noise-free; {replicates} keys per arm",
        fontsize=10, x=0.01, ha="left",
    )  # fmt: skip
    provenance(fig, source)
    return fig


def _targets(ax: Axes, runs: pd.DataFrame, arms: list[str], start: float) -> None:
    """Rounds until the loss first falls below a share of its start, per arm: median and range over keys."""
    for position, arm in enumerate(arms):
        part = runs[runs["arm"] == arm]
        style = look(arm)
        for i, target in enumerate(TARGETS):
            hit = part[part["loss"] <= target * start].groupby("replicate")["round"].min()
            hit = hit.reindex(part["replicate"].unique(), fill_value=np.inf).to_numpy()
            y = i + (position - (len(arms) - 1) / 2) * 0.11
            if np.isfinite(np.median(hit)):
                high = min(hit.max(), part["round"].max())
                ax.plot([hit.min(), high], [y, y], color=style.color, lw=1.2)
                ax.plot(np.median(hit), y, ms=5, color=style.color, marker=style.marker, linestyle="none")
            else:
                ax.plot(part["round"].max(), y, marker=">", ms=5, mfc="white", color=style.color, linestyle="none")
    last = runs["round"].max()
    ax.set(xscale="log", xlabel=f"rounds (median and range;\nhollow: half of the keys are not there by round {last})")
    ax.set_title("(b) rounds until the loss is below a share of its start")
    ax.set_xlim(right=1.2 * last)
    ax.set_yticks(range(len(TARGETS)), [f"{target:g}" for target in TARGETS])
    ax.set_ylabel(r"share of $f(x_0)$")
    ax.invert_yaxis()
