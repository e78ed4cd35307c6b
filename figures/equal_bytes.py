"""Loss against bytes: methods of scalars beside first-order ones, dense, compressed and on adapters; two subjects, three counts.

Reads `equal_bytes.csv` (a digits perceptron) and `equal_bytes_llm.csv` (a small language model that is fine-tuned).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, NullLocator

from figures.style import look, plt, provenance
from hiso_bench import records
from hiso_bench.equal_bytes import NUMBER, TOTAL, UPLINK, WITH_BASE
from hiso_bench.stats import LEVEL, mean_interval
from vision.equal_bytes import model_bytes

COUNTS = {UPLINK: "uplink", TOTAL: "both ways", WITH_BASE: "both ways and the base model"}
UNITS = ((2**20, "MiB"), (2**10, "KiB"), (1, "B"))


def draw(results: Path, source: str, experiment: str = "equal_bytes") -> Figure:
    """Draw six panels, a row per subject.

    Args:
        results: folder with the tables named in the module docstring.
        source: where they came from, printed at the foot.
        experiment: the name of the first table; the other's is this and "_llm".

    Raises:
        records.RecordError: a table is missing or damaged.
    """
    fig, grid = plt.subplots(2, 3, figsize=(13.2, 8.4), width_ratios=(1.3, 1.3, 0.8))
    shown: dict[str, Any] = {}
    for row, (name, ylabel) in enumerate(((experiment, "training loss"), (f"{experiment}_llm", "test loss"))):
        table, about = records.read(Path(results) / f"{name}.csv")
        subject = _subject(about["config"])
        own = table.dropna(subset="loss")
        for column, (count, what) in enumerate(COUNTS.items()):
            ax = grid[row, column]
            shown |= _panel(ax, table[table["count"] == count], about["config"]["arms"])
            ax.set_title(f"({'abcdef'[3 * row + column]}) {what}" + (f": {subject}" if column == 0 else ""))
            ax.set_ylim(0.8 * own["loss"].quantile(0.01), 1.25 * own["loss"].quantile(0.99))
            ax.set_ylabel(ylabel if column == 0 else "")
    handles = [Line2D([], [], marker=look(a).marker, markersize=4, label=look(a).label, **look(a).line()) for a in shown]
    fig.legend(handles=handles, loc="outside lower center", ncols=6, borderaxespad=2.2)
    fig.suptitle(
        f"Loss at equal bytes, {LEVEL:.1%} intervals over keys; hollow: its rounds are over and it sends no more",
        fontsize=10, x=0.01, ha="left",
    )  # fmt: skip
    provenance(fig, source)
    return fig


def _subject(config: dict[str, Any]) -> str:
    if "dimension" in config:
        return f"{config['model']} fine-tuned on {config['problem']['task']}, d = {config['dimension']:,}"
    return f"digits perceptron, d = {model_bytes() // NUMBER:,}"


def _panel(ax: Axes, table: Any, arms: dict[str, Any]) -> dict[str, None]:
    """Draw one count; the arms drawn, in order."""
    for arm, own in table.groupby("arm", sort=False):
        style, name = look(str(arm)), str(arm)
        losses = own.pivot(index="key", columns="budget", values="loss")
        rounds = own.pivot(index="key", columns="budget", values="rounds").min()
        told = np.array([mean_interval(np.log(losses[b])) if losses[b].notna().all() else (np.nan,) * 3 for b in losses])
        middle, low, high = np.exp(told.T)
        budgets = losses.columns.to_numpy()
        over = (rounds >= arms[name]["rounds"]).to_numpy()
        # Before its first evaluated round an arm is where it started, and after its last one where it ended.
        moving = (rounds > 0).to_numpy() & ~over
        first, last = np.argmax(rounds > 0), len(budgets) - int(over.sum())
        part = slice(max(0, first - 1), min(len(budgets), last + 1))
        ax.fill_between(budgets[part], low[part], high[part], color=style.color, alpha=0.10, linewidth=0)
        ax.plot(budgets[part], middle[part], **style.line())
        ax.plot(budgets[moving], middle[moving], ls="none", marker=style.marker, markersize=4, color=style.color)
        end = [last] if last < len(budgets) else []
        ax.plot(budgets[end], middle[end], ls="none", marker=style.marker, markersize=5, mfc="white", color=style.color)
    ax.set(xscale="log", yscale="log")
    budgets = sorted(table["budget"].unique())
    ax.xaxis.set_major_locator(FixedLocator(budgets))
    ax.xaxis.set_minor_locator(NullLocator())
    ax.xaxis.set_major_formatter(lambda value, _: _size(value))
    ticks = (0.02, 0.05, 0.1, 0.2, 0.5, 1, 2)
    ax.set_yticks(ticks, [f"{t:g}" for t in ticks])
    ax.set_yticks([], minor=True)
    return dict.fromkeys(map(str, table["arm"].unique()))


def _size(value: float) -> str:
    for unit, name in UNITS:
        if value >= unit:
            return f"{value / unit:g} {name}"
    return f"{value:g} B"
