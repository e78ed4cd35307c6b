"""HiSo's Figure 5 (right): the entries of the learned H, beside what the EMA of squared noise gives by itself.

Reads `<experiment>_h.csv` (arm, key, of, index, value) and `<experiment>_h_summary.csv` (arm, key, of, statistic,
value), where `of` is "h" or "h_null": the same scalars and rounds replayed along directions that never saw the loss.
"""

import json
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter

from figures.fig5 import REPORTED
from figures.style import look, plt, provenance

ARMS = ("hiso-0.1", "hiso", "hiso-0.01")
P = 5


def draw(results: Path, source: str, experiment: str) -> Figure:
    """Draw entries against index, histograms of log H against the null, and the spread per key.

    Args:
        results: folder with the tables.
        source: where they came from, printed at the foot.
        experiment: the tables' prefix.
    """
    entries = pd.read_csv(results / f"{experiment}_h.csv")
    summary = pd.read_csv(results / f"{experiment}_h_summary.csv")
    about = json.loads((results / f"{experiment}_h.json").read_text())["config"]
    fig = plt.figure(figsize=(12, 6.4))
    grid = fig.add_gridspec(2, 3, width_ratios=(1, 1, 1))
    top = [fig.add_subplot(grid[0, i]) for i in range(3)]
    for ax, letter, arm in zip(top, "abc", ARMS, strict=True):
        _histogram(ax, entries[entries["arm"] == arm], summary, arm, letter)
    top[0].set_ylabel("share of entries per bin")
    _entries(fig.add_subplot(grid[1, :2]), entries, about["dataset"])
    _spread(fig.add_subplot(grid[1, 2]), summary)
    fig.suptitle(
        f"Learned H on {about['dataset']} after {about['rounds']} rounds, beside its null: the same scalars replayed along "
        f"directions that never saw the loss\n(a-d) the first of {summary['key'].nunique()} keys; (e) all",
        fontsize=10, x=0.01, ha="left",
    )  # fmt: skip
    provenance(fig, source)
    return fig


def _histogram(ax: Axes, entries: pd.DataFrame, summary: pd.DataFrame, arm: str, letter: str) -> None:
    """A histogram of the entries kept for pictures (first key); the spreads in the title are those of all entries."""
    first = summary[(summary["arm"] == arm) & (summary["key"] == entries["key"].iloc[0]) & (summary["statistic"] == "std_log")]
    spread = dict(first[["of", "value"]].itertuples(index=False))
    style = look(arm)
    values = {of: part["value"].to_numpy() for of, part in entries.groupby("of")}
    logs = {of: np.log(v / np.exp(np.log(v).mean())) for of, v in values.items()}
    reach = max(abs(v).max() for v in logs.values())
    bins = np.linspace(-reach, reach, 46)
    weights = {of: np.full(v.size, 1 / v.size) for of, v in logs.items()}
    ax.hist(logs["h"], bins, weights=weights["h"], color=style.color, alpha=0.45, label="learned H")
    ax.hist(
        logs["h_null"], bins, weights=weights["h_null"], histtype="step", color="black", lw=1.3, label="null: EMA noise alone"
    )
    ax.set(
        xlabel="log (entry / geometric mean)",
    )
    ax.set_title(f"({letter}) {style.label}: spread {spread['h']:.3f}, null {spread['h_null']:.3f}", fontsize=9)
    ax.legend(fontsize=7, loc="upper right")


def _entries(ax: Axes, entries: pd.DataFrame, dataset: str) -> None:
    """Value against index; on the paper's data set also where the paper's axis, which begins at 0, ends."""
    for arm in ARMS:
        style, part = look(arm), entries[(entries["arm"] == arm) & (entries["of"] == "h")]
        ax.plot(part["index"], part["value"], linestyle="none", marker=".", ms=2, color=style.color, label=style.label, alpha=0.6)
    ax.set(
        xlabel="index of the entry",
        ylabel="value of the entry of H",
        title="(d) drawn as in the paper: value against index",
        yscale="log",
    )
    top = 2.0 * entries.loc[entries["of"] == "h", "value"].max()
    if dataset == "mnist":
        reported = pd.read_csv(REPORTED).set_index("quantity")
        printed = float(reported.loc["h entry, end of the axis", "value"])
        text = f"the paper's axis: 0 to {printed:g} (approximate)"
        ax.axhline(printed, label=text, **look("reported").line())
        top = max(top, 2.0 * printed)
    ax.set_ylim(top=top)
    ax.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    ax.yaxis.set_major_formatter("{x:g}")
    ax.yaxis.set_minor_formatter(NullFormatter())
    ax.legend(fontsize=7, markerscale=5, loc="upper right", ncols=4, columnspacing=1.0)


def _spread(ax: Axes, summary: pd.DataFrame) -> None:
    """Standard deviation of log H per key, with its null and the width of the EMA noise in theory."""
    table = summary[summary["statistic"] == "std_log"]
    for i, arm in enumerate(ARMS):
        part = table[table["arm"] == arm]
        style = look(arm)
        for shift, of, face in ((-0.12, "h", style.color), (0.12, "h_null", "white")):
            values = part[part["of"] == of]["value"]
            ax.plot(
                np.full(len(values), i + shift), values, marker=style.marker, ms=6, mfc=face, mec=style.color, linestyle="none"
            )
        ema_new = {"hiso-0.1": 0.1, "hiso": 0.05, "hiso-0.01": 0.01}[arm]
        width = np.sqrt(ema_new * (1 + 2 / P) / 2)
        ax.hlines(width, i - 0.35, i + 0.35, label=r"theory: $\sqrt{\nu(1+2/P)/2}$" if i == 0 else None, **_theory())
    ax.plot([], [], marker="o", color="#555555", linestyle="none", label="learned H, per key")
    ax.plot([], [], marker="o", mfc="white", mec="#555555", linestyle="none", label="null, per key")
    ax.set_xticks(range(len(ARMS)), ["0.1", "0.05", "0.01"])
    ax.set(
        xlabel="EMA weight of the new sample",
        ylabel="standard deviation of log H",
        title="(e) spread of H, all entries",
        ylim=(0, None),
    )
    ax.legend(fontsize=7, loc="lower left")


def _theory() -> dict:
    style = look("theory")
    return {"color": style.color, "linestyle": style.linestyle}
