"""HiSo's Table 3: scores with the printed errors beside ours, and three sums over its communication column.

Reads printed_scores.csv, printed_bytes.csv, printed_vectors.csv and printed_verdicts.csv (`paper.printed`).
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from figures import printed
from figures.style import OKABE_ITO, look, marked, plt
from hiso_bench.stats import mean_interval
from hiso_bench.summaries import SHOWN_LEVEL

SCALARS = ("decomfl", "hiso")
VECTORS = ("fedavg", "fedadam", "fedyogi", "fedadagrad", "fedzo")
OURS = ("first-order", *SCALARS)
"""What a row of ours shows; the start is a grey line."""
EQUAL = "equal bytes"
"""The source of the row of ours that has the methods of Table 3."""


def draw(results: Path, source: str, experiment: str = "") -> Figure:
    """Draw the figure; arguments as in `figures.hiso_table1.draw`."""
    scores, cells, vectors, verdicts = printed.read(results, "scores", "bytes", "vectors", "verdicts")
    reported = scores[(scores["file"] == "hiso_table3") & (scores["source"] == "reported")]
    ours = pd.concat([scores[scores["source"] == source_] for source_ in (EQUAL, "ours")])
    fig = plt.figure(figsize=(14, 9.4))
    fig.suptitle("HiSo, Table 3: scores, and communication until convergence", fontsize=10.5, x=0.01, ha="left")
    top, bottom = fig.subfigures(2, 1, height_ratios=(1.25, 1))
    upper, lower = ("sst2", "qqp", "squad", "ours"), ("rounds", "ratios", "millions")
    axes = dict(zip(upper, top.subplots(1, 4, width_ratios=(1, 1, 1, 1.1)), strict=True))
    axes |= dict(zip(lower, bottom.subplots(1, 3), strict=True))
    for letter, task in zip("abc", ("sst2", "qqp", "squad"), strict=True):
        _scores(axes[task], reported[reported["task"] == task])
        axes[task].set(title=f"({letter}) {printed.TASKS[task]}, printed", xlabel="F1, %" if task == "squad" else "accuracy, %")
        axes[task].tick_params(labelleft=task == "sst2")
    config = printed.config(results)
    equal = config["equal_bytes"]
    _scores(axes["ours"], ours, f"vectors: {equal['largest'] / 2**20:g} MiB" if equal else "")
    axes["ours"].set(title=f"(d) ours: keys, mean and its {SHOWN_LEVEL:.0%} interval", xlabel="score, %")
    _rounds(axes["rounds"], cells[cells["file"] == "hiso_table3"])
    axes["rounds"].set_xlabel(f"rounds (cross: no multiple of {config['evaluation']}, the rounds between evaluations)")
    axes["rounds"].set_title(f"(e) KB as rounds of {config['charges']['hiso']} B: {printed.verdict(verdicts, 'C14')}")
    _ratios(axes["ratios"], cells, verdicts)
    axes["ratios"].set_title(
        f"(f) HiSo's bytes over DeComFL's:\n{printed.verdict(verdicts, 'bytes-savings')}; {printed.verdict(verdicts, 'C22')}"
    )
    _millions(axes["millions"], vectors[vectors["file"] == "hiso_table3"], verdicts)
    axes["millions"].set_title(f"(g) bytes of the others over HiSo's:\n{printed.verdict(verdicts, 'bytes-90-million')}")
    handles = [*printed.method_handles([*VECTORS, *SCALARS], hiso="HiSo"), *printed.method_handles(["first-order"], "ours")]
    top.legend(
        handles=[*handles, *printed.source_handles("reported", "ours")], loc="outside upper center", ncols=10, columnspacing=1.2
    )
    printed.foot(fig, results, source, equal=True)
    return fig


def _scores(ax: Axes, table: pd.DataFrame, equal: str = "") -> None:
    """One row a model; in it the methods from top to bottom, each with what the paper or our keys say of its error.

    `equal` is the last line of the label of the row at equal bytes.
    """
    if table.empty:
        ax.text(0.5, 0.5, "nothing recorded", ha="center", transform=ax.transAxes, color="#777777")
        ax.set(xticks=[], yticks=[])
        return
    models = list(dict.fromkeys(zip(table["source"], table["model"], table["task"], strict=True)))
    heights = np.array([1.8 if source == EQUAL else 1.0 for source, _, _ in models])  # it has more methods than others of ours
    ends = np.cumsum(heights)
    for y, height, (source, model, task) in zip(ends - heights / 2, heights, models, strict=True):
        part = table[(table["source"] == source) & (table["model"] == model) & (table["task"] == task)]
        arms = OURS if source == "ours" else (*VECTORS, *SCALARS)
        for j, arm in enumerate(arms):
            _score(ax, y + 0.36 * height * (2 * j / (len(arms) - 1) - 1), arm, part[part["method"] == arm])
        start = part.loc[part["method"] == "zero-shot", "value"]
        if len(start):
            ax.plot([start.mean()] * 2, [y - 0.42 * height, y + 0.42 * height], color=OKABE_ITO["grey"], ls="--", lw=1.2)
            ax.text(start.mean(), y - 0.43 * height, "start", fontsize=6.5, ha="center", va="bottom", color="#555555")
    labels = []
    for source, model, task in models:
        label = model if source == "reported" else printed.row(model, task).replace(", ", "\n")
        labels.append(f"{label}\n{equal}" if source == EQUAL else label)
    ax.set_yticks(ends - heights / 2, labels, fontsize=8)
    ax.set_ylim(ends[-1], 0)
    for end in ends[:-1]:
        ax.axhline(end, color="#CCCCCC", lw=0.7)
    ax.grid(axis="y", visible=False)


def _score(ax: Axes, y: float, arm: str, part: pd.DataFrame) -> None:
    """A printed score with its error, or ours: keys as small marks, their mean, and its interval at `SHOWN_LEVEL`."""
    if part.empty:  # not run, or every key diverged
        return
    values = part["value"].to_numpy(float)
    colour = look(arm).color
    if part["source"].iloc[0] == "reported":
        error = float(part["error"].iloc[0])
        ax.plot([values[0] - error, values[0] + error], [y, y], color=colour, lw=2.5, alpha=0.5)
        ax.plot(values[0], y, **marked(arm, "reported"))
        return
    ax.plot(values, [y] * len(values), ls="none", marker=look(arm).marker, ms=2.5, color=colour, alpha=0.6)
    middle, low, high = mean_interval(values, SHOWN_LEVEL) if len(values) > 2 else (values.mean(), values.min(), values.max())
    ax.plot([max(low, 0), min(high, 100)], [y, y], color=colour, lw=1)
    ax.plot(middle, y, **marked(arm, "ours"))


def _rounds(ax: Axes, cells: pd.DataFrame) -> None:
    """The rounds that each scalar cell is at 40 bytes; crossed out where no number of evaluations gives its digits."""
    labels = list(dict.fromkeys(zip(cells["model"], cells["task"], strict=True)))
    for i, (model, task) in enumerate(labels):
        for arm, y in zip(SCALARS, (i - 0.16, i + 0.16), strict=True):
            one = cells[(cells["model"] == model) & (cells["task"] == task) & (cells["method"] == arm)].iloc[0]
            ax.plot(one["implied"], y, **marked(arm, "reported"))
            if not one["whole"]:
                ax.plot(one["implied"], y, ls="none", marker="x", color=OKABE_ITO["black"], ms=4)
    printed.rows(ax, [printed.row(*label) for label in labels])
    ax.set_xlim(left=0)


def _ratios(ax: Axes, cells: pd.DataFrame, verdicts: pd.DataFrame) -> None:
    """HiSo's bytes over DeComFL's in Table 2 and Table 3, and the range of savings that the text gives."""
    looks = {"hiso_table2": ("v", "Table 2: until DeComFL's best"), "hiso_table3": ("s", "Table 3: until convergence")}
    known = cells[cells["file"].isin(looks)].pivot(index=["file", "model", "task"], columns="method", values="bytes")
    ratio = known["hiso"] / known["decomfl"]
    printed_in = [cells[cells["file"] == file] for file in ("hiso_table3", "hiso_table2")]
    labels = list(dict.fromkeys(label for part in printed_in for label in zip(part["model"], part["task"], strict=True)))
    for file, (marker, text) in looks.items():
        values = [ratio.get((file, *label), np.nan) for label in labels]
        style = {"ls": "none", "marker": marker, "mfc": "white", "mew": 1.2, "ms": 6}
        ax.plot(values, range(len(labels)), color=OKABE_ITO["vermillion"] if marker == "s" else "#7A3B00", label=text, **style)
    claimed = 1 - verdicts.loc[verdicts["claim"] == "bytes-savings", "prediction"] / 100
    ax.axvspan(claimed.min(), claimed.max(), color=OKABE_ITO["sky"], alpha=0.2, lw=0, label="the range that the text gives")
    ax.axvline(1, color=OKABE_ITO["black"], lw=1, ls="--")
    printed.rows(ax, [printed.row(*label) for label in labels])
    ax.set_xlim(left=0)
    ax.set_xlabel("HiSo's KB over DeComFL's")
    ax.legend(loc="lower right", fontsize=7.5, frameon=True, framealpha=0.9)


def _millions(ax: Axes, table: pd.DataFrame, verdicts: pd.DataFrame) -> None:
    """Every cell of each method over HiSo's, as wide as the readings of TB and KB and the printed digits leave open."""
    for i, method in enumerate(VECTORS):
        part = table[table["method"] == method].sort_values("low").reset_index(drop=True)
        for j, (low, high) in enumerate(part[["low", "high"]].itertuples(index=False)):
            y = i + 0.32 * (2 * j / (len(part) - 1) - 1)
            ax.plot([low, high], [y, y], color=look(method).color, lw=2, solid_capstyle="butt")
            ax.plot((low + high) / 2, y, **marked(method, "reported") | {"markersize": 3.5})
    claimed = verdicts.loc[verdicts["claim"] == "bytes-90-million", "prediction"].iloc[0]
    ax.axvline(claimed, color=OKABE_ITO["black"], lw=1, ls="--")
    handle = Line2D(
        [], [], color=OKABE_ITO["black"], lw=1, ls="--", label=f"claimed of first-order\nmethods: {claimed:g} million"
    )
    ax.legend(handles=[handle], loc="lower left", fontsize=7.5, frameon=True, framealpha=0.9)
    printed.rows(ax, [look(method).label for method in VECTORS], 8)
    ax.set_xscale("log")
    ax.set_xlabel("million times HiSo's bytes, nine cells a method")
