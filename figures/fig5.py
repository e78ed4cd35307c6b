"""HiSo's Figure 5 (left) on real images: test accuracy against round, every arm at its own best learning rate.

Reads `<experiment>.csv` (arm, lr, key, round, bytes_up, bytes_down, forward_passes, metric, value) and its grid
`results/<experiment>_grid.csv` (arm, lr, rounds, score, winner), and the range of the paper's axes from paper/reported/.
"""

import json
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter

from figures.style import curve, look, plt, provenance

RECORDED = Path(__file__).resolve().parent.parent / "results"
REPORTED = Path(__file__).resolve().parent.parent / "paper" / "reported" / "hiso_fig5.csv"
SHORT = {
    "decomfl": "DeComFL",
    "decomfl-decay": "DeComFL\ndecaying",
    "hiso-0.1": "HiSo\n0.1",
    "hiso": "HiSo\n0.05",
    "hiso-0.01": "HiSo\n0.01",
    "hiso-scalar": "HiSo\nmean",
}
DATA_NAMES = {
    "digits": "scikit-learn digits (8x8), a scaled-down stand-in for MNIST",
    "mnist": "MNIST, the paper's CNN (28,938 parameters)",
}


def draw(results: Path, source: str, experiment: str) -> Figure:
    """Draw curves, final accuracies by key, and the learning-rate grid.

    Args:
        results: folder with the curves.
        source: where they came from, printed at the foot.
        experiment: the tables' prefix.
    """
    runs = pd.read_csv(results / f"{experiment}.csv")
    about = json.loads((results / f"{experiment}.json").read_text())["config"]
    grid = pd.read_csv(RECORDED / f"{experiment}_grid.csv")
    accuracy = runs[runs["metric"] == "accuracy"]
    arms = list(dict.fromkeys(accuracy["arm"]))
    fig, (left, middle, right) = plt.subplots(1, 3, figsize=(13, 4.7), width_ratios=(1.5, 0.95, 1))
    for arm in arms:
        table = accuracy[accuracy["arm"] == arm].pivot(index="key", columns="round", values="value")
        curve(
            left,
            table.columns,
            table.to_numpy(),
            arm,
            centre="mean",
            label=f"{look(arm).label}, $\\eta$ = {about['rates'][arm]:.3g}",
        )
    _printed(left, about["dataset"])
    left.set(xlabel="communication round", ylabel="test accuracy", title="(a) mean and range over keys", ylim=(0, 1))
    left.legend(loc="lower right", fontsize=7)
    _final(middle, accuracy, arms)
    _grid(right, grid, arms)
    keys = accuracy["key"].nunique()
    fig.suptitle(
        f"{DATA_NAMES[about['dataset']]}; {about['clients']} clients, {about['sampled']} sampled, Dirichlet {about['alpha']:g}, "
        f"batch {about['batch_size']}, P = 5, forward difference, {keys} keys\n"
        f"EMA weight 0.1, 0.05, 0.01 of the new sample: the paper's $\\nu$ = 0.9, 0.95, 0.99{_beside_print(accuracy, about)}",
        fontsize=10, x=0.01, ha="left",
    )  # fmt: skip
    provenance(fig, source)
    return fig


def _beside_print(accuracy: pd.DataFrame, about: dict) -> str:
    """How many rounds ours and the printed curves have, and DeComFL's accuracy at the end of each; empty for other data."""
    if about["dataset"] != "mnist":
        return ""
    reported = pd.read_csv(REPORTED)
    row = reported[(reported["quantity"] == "accuracy") & (reported["method"] == "decomfl")].iloc[0]
    last = accuracy["round"].max()
    ours = accuracy[(accuracy["round"] == last) & (accuracy["arm"] == "decomfl")]["value"]
    return (
        f"\nDeComFL's accuracy at our last round, {last}: {ours.mean():.3f} (keys {ours.min():.3f} to {ours.max():.3f}); "
        f"printed, at about round {row['round']:.0f}: {row['value']:g}"
    )


def _printed(ax: Axes, dataset: str) -> None:
    """Accuracies read off the paper's figure, at the round of its right edge; only where the data set is the paper's."""
    if dataset != "mnist":
        return
    reported = pd.read_csv(REPORTED)
    for row in reported[reported["quantity"] == "accuracy"].itertuples():
        text = f"read off the paper's Fig. 5, about round {row.round:.0f}: {row.label} {row.value:g}"
        ax.axhline(row.value, color=look(str(row.method)).color, lw=1, ls=":", zorder=1, label=text)


def _final(ax: Axes, accuracy: pd.DataFrame, arms: list[str]) -> None:
    """Accuracy at the last evaluation, one point per key, joined by key: what a paired comparison sees."""
    last = accuracy[accuracy["round"] == accuracy["round"].max()].pivot(index="key", columns="arm", values="value")
    for _, row in last.iterrows():
        ax.plot(range(len(arms)), [row[arm] for arm in arms], color="#BBBBBB", lw=0.7, zorder=1)
    for i, arm in enumerate(arms):
        style = look(arm)
        ax.plot(np.full(len(last), i), last[arm], ms=5, color=style.color, marker=style.marker, linestyle="none")
    ax.set_xticks(range(len(arms)), [SHORT[arm] for arm in arms], fontsize=7)
    ax.set(title=f"(b) at round {accuracy['round'].max()}, joined by key", ylabel="test accuracy")


def _grid(ax: Axes, grid: pd.DataFrame, arms: list[str]) -> None:
    """The whole learning-rate grid at the full number of rounds; the winners are ringed."""
    full = grid[grid["rounds"] == grid["rounds"].max()].replace([np.inf, -np.inf], np.nan)
    for arm in arms:
        style, part = look(arm), full[full["arm"] == arm].sort_values("lr")
        ax.plot(part["lr"], part["score"], marker=style.marker, ms=4, **style.line())
        won = part[part["winner"]]
        ax.plot(won["lr"], won["score"], marker="o", ms=11, mfc="none", mec=style.color, mew=1.4, linestyle="none")
    ax.set(
        xscale="log",
        xlabel=r"learning rate $\eta$",
        ylabel="validation accuracy (last fifth)",
        title="(c) tuning keys, whole runs; diverged: not shown",
    )
    ax.xaxis.set_major_locator(LogLocator(subs=(1, 3)))
    ax.xaxis.set_minor_formatter(NullFormatter())
