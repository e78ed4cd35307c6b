"""How fair the comparison of HiSo with DeComFL is: Table 2's rule, the federation, and the spread over keys.

Reads `fair_speed.csv`, `federation_size.csv` and, through `learned_h.pairs`, every recorded comparison.
"""

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from figures.style import OKABE_ITO, look, plt, provenance
from hiso_bench import records
from hiso_bench.stats import LEVEL, Interval, mean_interval
from learned_h import fair_speed
from learned_h.pairs import MEAN, Pair, pairs

SHOWN = 3.0
"""Panel c is linear up to so many half-widths, and logarithmic beyond."""
TABLES = {
    "ablation_quadratics": "ablation, quadratics", "ablation_networks": "ablation, small networks",
    "federation_size": "federations of (b)", "ablation_mnist": "ablation, MNIST", "fig5_mnist": "HiSo's Figure 5, MNIST",
    "llm_imdb-opt_sst2": "imdb-opt, SST-2", "llm_minilm_sst2": "MiniLM, SST-2", "llm_tiny-opt_toy-sst2": "tiny-opt, toy-sst2",
}  # fmt: skip
"""Recorded table -> what was compared."""


def draw(results: Path, source: str, experiment: str = "fair_speed") -> Figure:
    """Draw three panels.

    Args:
        results: folder with the tables named in the module docstring.
        source: where they came from, printed at the foot.
        experiment: the name of the first table.

    Raises:
        records.RecordError: a table is missing or damaged.
    """
    found = list(pairs(results))
    fig = plt.figure(figsize=(11.4, 7.6))
    grid = fig.add_gridspec(2, 2)
    of, about = records.read(Path(results) / f"{experiment}.csv")
    (problem,) = about["config"]["problems"]
    _rule(fig.add_subplot(grid[0, 0]), fair_speed.best_so_far(of), f"{problem}, {about['config']['keys']} keys")
    _spread(fig.add_subplot(grid[1, 0]), found)
    _federation(fig.add_subplot(grid[:, 1]), found)
    shown = [look(arm) for arm in ("decomfl", "hiso", "hiso-scalar", "decomfl-p10")]
    handles = [Line2D([], [], color=one.color, marker=one.marker, linestyle="none", label=one.label) for one in shown]
    fig.legend(handles=handles, loc="outside lower center", ncols=4, borderaxespad=2.2)
    fig.suptitle(f"Is the comparison fair? {LEVEL:.1%} intervals, paired over keys; every arm at its own tuned rate",
                 fontsize=10, x=0.01, ha="left")  # fmt: skip
    provenance(fig, source)
    return fig


def _dot(ax: Axes, y: float, interval: Interval, arm: str, filled: bool = True) -> None:
    value, low, high = np.exp(interval)
    style = look(arm)
    ax.errorbar(value, y, xerr=[[value - low], [high - value]], fmt=style.marker, color=style.color, lw=1.4,
                mfc=style.color if filled else "white", markersize=5)  # fmt: skip


def _rule(ax: Axes, of: Any, what: str) -> None:
    null = fair_speed.between_keys(of, "decomfl")
    rows = [("DeComFL over itself, other keys", "decomfl", null.one_way, False, null.reached)]
    for arm, name in (("hiso", "HiSo"), ("decomfl-p10", "DeComFL, P = 10")):
        one = fair_speed.one_way(of, arm, "decomfl")
        there = np.isfinite(one)
        rows.append((f"{name}, to DeComFL's best", arm, mean_interval(one[there]), False, there.mean()))
        rows.append((f"{name}, both ways", arm, mean_interval(fair_speed.both_ways(of, arm, "decomfl")), True, None))
        logs = fair_speed.to_thresholds(of, arm, "decomfl", fair_speed.THRESHOLDS).mean(0)
        rows.append((f"{name}, to 60 to 85 %", arm, mean_interval(logs), True, None))
    for y, (_, arm, interval, filled, reached) in enumerate(rows):
        _dot(ax, y, interval, arm, filled)
        if reached is not None:
            ax.annotate(f"reached by {reached:.0%}", (np.exp(interval.high), y), xytext=(5, 0), textcoords="offset points",
                        va="center", fontsize=7, color="#555555")  # fmt: skip
    ax.axvline(1, color="#888888", lw=1)
    ax.set(xscale="log", ylim=(len(rows) - 0.4, -0.6), xlabel="DeComFL's rounds over the arm's, test accuracy")
    ax.set_yticks(range(len(rows)), [name for name, *_ in rows])
    ax.set_title(f"(a) {what}:\nTable 2's rule (hollow), and fair ones (filled)")
    ax.set_xlim(right=1.25 * ax.get_xlim()[1])
    _ticks(ax)


def _ticks(ax: Axes) -> None:
    ticks = [t for t in (0.5, 0.6, 0.7, 0.8, 0.9, 1, 1.2, 1.4, 1.6, 2, 3, 4) if ax.get_xlim()[0] <= t <= ax.get_xlim()[1]]
    ax.set_xticks(ticks, [f"{t:g}" for t in ticks])
    ax.set_xticks([], minor=True)


def _federation(ax: Axes, found: list[Pair]) -> None:
    names = []
    for pair in (p for p in found if p.table == "federation_size" and p.measure == MEAN):
        for arm, shift in (("hiso", 0.0), ("hiso-scalar", 0.25)):
            if arm in pair.values:
                _dot(ax, len(names) + shift, mean_interval(pair.difference(arm, "decomfl")), arm)
        names.append(pair.problem)
    ax.axvline(1, color="#888888", lw=1)
    ax.set(xscale="log", ylim=(len(names) - 0.4, -0.6))
    ax.set_xlabel("DeComFL's rounds over the arm's,\ngeometric mean over three losses")
    ax.set_yticks(range(len(names)), names)
    ax.set_title("(b) clients/sampled, drop-out, their data")
    _ticks(ax)


def _spread(ax: Axes, found: list[Pair]) -> None:
    names = list(dict.fromkeys(p.table for p in found))
    for y, table in enumerate(names):
        told = [mean_interval(p.difference("hiso", "decomfl")) for p in found if p.table == table]
        units = np.array([i.value / (i.high - i.value) for i in told])
        places = y + 0.5 * (np.arange(len(units)) / max(1, len(units) - 1) - 0.5) * (len(units) > 1)
        colors = [OKABE_ITO["vermillion"] if u > 1 else OKABE_ITO["blue"] if u < -1 else "#999999" for u in units]
        ax.scatter(units, places, c=colors, s=16, zorder=3, clip_on=False)
    ax.axvspan(-1, 1, color="#EEEEEE", zorder=0)
    ax.axvline(0, color="#888888", lw=1)
    ax.set_xscale("symlog", linthresh=SHOWN, linscale=2.0)
    reach = 1.25 * np.abs(ax.dataLim.intervalx).max()
    ax.set(xlim=(-reach, reach), ylim=(len(names) - 0.4, -0.6))
    ax.set_xticks(ticks := [t for t in (-30, -10, -3, -1, 0, 1, 3, 10, 30) if abs(t) <= reach], [f"{t}" for t in ticks])
    ax.set_xticks([], minor=True)
    ax.set_xlabel("HiSo less DeComFL, in half-widths of its interval; right: HiSo better")
    ax.set_yticks(range(len(names)), [TABLES[name] for name in names])
    ax.set_title("(c) every recorded comparison, by each of its measures;\ngrey: not told apart; blue: DeComFL better")
