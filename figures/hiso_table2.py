"""HiSo's Table 2: bytes and rounds that it prints, what the arithmetic and ledgers give, and speed-ups on our models both ways.

Reads printed_bytes.csv, printed_ledgers.csv, printed_sent.csv, printed_rounds.csv and printed_verdicts.csv (`paper.printed`).
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, NullLocator

from figures import printed
from figures.style import OKABE_ITO, marked, plt

ARMS = ("decomfl", "hiso")
_LEDGER = (("scalars", ":", "scalars alone"), ("messages", "-", "whole messages"), ("with_seeds", "-.", "scalars and seeds"))
_TARGETS = {  # whose best score is the target -> marker, colour of no method, arrow, the other, legend texts
    "decomfl": ("h", "#222222", "<", "hiso", "target: DeComFL's best (as printed)", "HiSo misses it: at most this"),
    "hiso": ("X", "#8A8A8A", ">", "decomfl", "target: HiSo's best", "DeComFL misses it: at least this"),
}


def draw(results: Path, source: str, experiment: str = "") -> Figure:
    """Draw the figure; arguments as in `figures.hiso_table1.draw`."""
    cells, ledgers, sent, rounds, verdicts = printed.read(results, "bytes", "ledgers", "sent", "rounds", "verdicts")
    cells = cells[cells["file"] == "hiso_table2"]
    mean = rounds[rounds["key"].isna()]
    labels = list(dict.fromkeys(zip(mean["model"], mean["task"], strict=True)))
    fig, axes = plt.subplots(1, 3, figsize=(12.6, 6.8), width_ratios=(1.05, 1, 1.05), sharey=True)
    _bytes(axes[0], labels, cells, sent, ledgers)
    axes[0].set_title(f"(a) bytes a round: {printed.verdict(verdicts, 'C14')}")
    _rounds(axes[1], labels, mean)
    axes[1].set_title("(b) rounds to DeComFL's best score")
    _speedups(axes[2], labels, rounds)
    axes[2].set_title("(c) HiSo's speed-up, by whose best score is the target")
    printed.rows(axes[0], [printed.row(*label) for label in labels], 8)
    split = sum(source == "reported" for source in mean.drop_duplicates(["model", "task"])["source"]) - 0.5
    for ax in axes:
        ax.axhline(split, color="#999999", lw=0.8)
    handles = [*printed.method_handles(ARMS, hiso="HiSo"), *printed.source_handles("reported", "ours")]
    axes[1].legend(handles=handles, loc="lower left", bbox_to_anchor=(-0.02, 1.06), fontsize=7.5)
    fig.suptitle("HiSo, Table 2: rounds to DeComFL's best score, and what they cost", fontsize=10.5, x=0.01, ha="left")
    printed.foot(fig, results, source)
    return fig


def _bytes(ax: Axes, labels: list[tuple[str, str]], cells: pd.DataFrame, sent: pd.DataFrame, ledgers: pd.DataFrame) -> None:
    """Printed KB over printed rounds; messages of our runs; what the table charges, and what ledgers of its federation hold."""
    for i, (model, task) in enumerate(labels):
        for arm, y in zip(ARMS, (i - 0.14, i + 0.14), strict=True):
            here = cells[(cells["model"] == model) & (cells["task"] == task) & (cells["method"] == arm)]
            ax.plot(here["bytes"] / here["rounds"], [y] * len(here), **marked(arm, "reported"))
            ours = sent[(sent["model"] == model) & (sent["task"] == task) & (sent["arm"] == arm)]
            ax.plot(ours["messages"], [y] * len(ours), **marked(arm, "ours"))
    first = ledgers[ledgers["method"] == "hiso"].sort_values("sampled").iloc[0]
    lines = [("charged", "--", "charged by most cells"), *_LEDGER]
    for column, style, label in lines:
        colour = OKABE_ITO["black"] if column == "charged" else OKABE_ITO["green"]
        where = "" if column == "charged" else f"ledger, {first['sampled']} of {first['clients']} clients: "
        ax.axvline(first[column], color=colour, ls=style, lw=1.3, zorder=1, label=f"{where}{label}, {first[column]:.0f} B")
    ax.set_xlim(0, 1.25 * first["with_seeds"])
    ax.set_xlabel("bytes per client and round, up and down")
    ax.legend(loc="lower left", bbox_to_anchor=(-0.02, 1.06), fontsize=7.5, ncols=1)


def _rounds(ax: Axes, labels: list[tuple[str, str]], mean: pd.DataFrame) -> None:
    """Two marks a row, DeComFL's own best and where HiSo first has it; a row without a gain says so."""
    part = mean[mean["other"] == "decomfl"].set_index(["model", "task", "arm"])
    for i, label in enumerate(labels):
        ends = [part.loc[(*label, arm)] for arm in ARMS]
        values = [end["rounds"] for end in ends]
        if not any(values):
            ax.text(20, i, "the start is the best score", fontsize=7, va="center", color="#555555")
            continue
        ax.plot(values, [i, i], color="#BBBBBB", lw=1.5, zorder=1)
        for arm, end in zip(ARMS, ends, strict=True):
            ax.plot(end["rounds"], i, **marked(arm, end["source"]))
    ax.set_xlim(left=0)
    ax.set_xlabel("communication rounds (ours: mean curve)")


def _speedups(ax: Axes, labels: list[tuple[str, str]], rounds: pd.DataFrame) -> None:
    """DeComFL's rounds over HiSo's, for either target: of the mean curve, and of single keys as small marks."""
    for i, (model, task) in enumerate(labels):
        here = rounds[(rounds["model"] == model) & (rounds["task"] == task)]
        for target, (_, colour, _, arm, *_) in _TARGETS.items():
            part = here[(here["other"] == target) & (here["arm"] == arm)]
            y = i + (-0.2 if target == "decomfl" else 0.2) * (part["source"].iloc[0] == "ours") if len(part) else i
            drawn = [_speedup(ax, each, y, target) for _, each in part.iterrows()]
            if not all(drawn):
                there = part["key"].notna() & np.array(drawn)
                mean = "" if np.array(drawn)[part["key"].isna()].any() else ", no mean"
                text = f"{there.sum()} of {part['key'].count()} keys{mean}"
                place = {"transform": ax.get_yaxis_transform(), "ha": "left", "va": "center"}
                ax.text(1.01, y, text, fontsize=6.5, color=colour, **place)
    ax.axvline(1, color=OKABE_ITO["black"], lw=1, ls="--", zorder=1)
    ax.set_xscale("log")
    ax.xaxis.set_major_locator(FixedLocator([0.5, 1, 2, 4]))
    ax.xaxis.set_minor_locator(NullLocator())
    ax.xaxis.set_major_formatter("{x:g}x")
    ax.set_xlabel("DeComFL's rounds over HiSo's (small: single keys;\nthere is no ratio where the start has the target)")
    handles = []
    for marker, colour, arrow, _, text, missed in _TARGETS.values():
        for shape, label in ((marker, text), (arrow, missed)):
            handles.append(Line2D([], [], ls="none", marker=shape, color=colour, label=label))
    ax.legend(handles=handles, loc="lower left", bbox_to_anchor=(-0.02, 1.06), fontsize=7.5)


def _speedup(ax: Axes, each: pd.Series, y: float, target: str) -> bool:
    """One speed-up; where the target is not reached, its limit and an arrow. False where one starts with it: there is none."""
    if not each["other_rounds"] or each["rounds"] == 0:
        return False
    marker, colour, arrow, *_ = _TARGETS[target]
    missed = np.isnan(each["rounds"])
    ratio = (each["last"] if missed else each["rounds"]) / each["other_rounds"]
    printed_one, single = each["source"] == "reported", not pd.isna(each["key"])
    ax.plot(
        1 / ratio if target == "decomfl" else ratio, y, ls="none", marker=arrow if missed else marker, color=colour,
        mfc="white" if printed_one else colour, ms=3 if single else 6, alpha=0.7 if single else 1,
    )  # fmt: skip
    return True
