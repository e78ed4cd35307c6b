"""Loss against bytes: methods of scalars beside first-order ones, dense, compressed and on adapters; two subjects, three counts.

Reads `equal_bytes.csv` (a digits perceptron), `equal_bytes_llm.csv` (a small language model that is fine-tuned) and their
`_rates.csv`, which say by the tuning keys what is the best arm of a family. A curve has an interval for that one only; the column
on the right, where every arm has a row, has all of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, NullLocator
from numpy.typing import NDArray

from figures.style import look, plt, provenance
from hiso_bench import records
from hiso_bench.equal_bytes import NUMBER, TOTAL, UPLINK, WITH_BASE
from hiso_bench.stats import LEVEL, mean_interval
from vision.equal_bytes import model_bytes

COUNTS = {UPLINK: "uplink", TOTAL: "both ways"}
UNITS = ((2**20, "MiB"), (2**10, "KiB"), (1, "B"))
FAMILIES = {
    "scalars": ("decomfl", "hiso", "decomfl-lora"),
    "dense": ("fedavg", "fedavg-10", "fedadam", "fedyogi", "fedadagrad", "fedzo"),
    "compressed": ("fedcom", "fedcom-10", "fedavg-topk", "fedavg-topk-10", "fedavg-sign", "fedavg-sign-10"),
    "adapters": ("fedlora-8", "fedlora", "fedlora-10", "fedlora-4bit", "fedlora-sign"),
}


def draw(results: Path, source: str, experiment: str = "equal_bytes") -> Figure:
    """Draw six panels, a row per subject.

    Args:
        results: folder with the tables named in the module docstring.
        source: where they came from, printed at the foot.
        experiment: the name of the first table; the other's is this and "_llm".

    Raises:
        records.RecordError: a table is missing or damaged.
    """
    fig, grid = plt.subplots(2, 3, figsize=(14, 10), width_ratios=(1.15, 1.15, 1), height_ratios=(14, 18))
    for row, (name, loss) in enumerate(((experiment, "training loss"), (f"{experiment}_llm", "test loss"))):
        table, about = records.read(Path(results) / f"{name}.csv")
        rates = records.read(Path(results) / f"{name}_rates.csv")[0]
        subject, letters = _subject(about["config"]), "abcdef"[3 * row :]
        ends: Any = table["loss"].dropna()
        means: Any = np.exp(np.log(table["loss"]).groupby([table["arm"], table["count"], table["budget"]]).mean())
        limits = 0.8 * means.min(), 1.25 * ends.quantile(0.99)
        for letter, ax, (count, what) in zip(letters, grid[row], COUNTS.items(), strict=False):
            own = table[table["count"] == count]
            _curves(ax, own, about["config"]["arms"], best(rates, count, sorted(own["budget"].unique())))
            ax.set_title(f"({letter}) {what}" + (f": {subject}" if ax is grid[row, 0] else ""))
            ax.set_ylim(*limits)
            _ticks(ax.yaxis, limits)
            ax.set_ylabel(loss if ax is grid[row, 0] else "")
        own = table[table["count"] == WITH_BASE]
        _rows(grid[row, 2], own, about["config"]["arms"], limits)
        grid[row, 2].set_title(f"({letters[2]}) both ways and the base model, {_size(own['budget'].max())}")
        grid[row, 2].set_xlabel(f"{loss}; bars: {', '.join(map(_size, sorted(own['budget'].unique())[:-1]))}")
    fig.suptitle(
        f"Loss at equal bytes, geometric mean over keys; in (c, f) with {LEVEL:.1%} intervals; hollow: all its rounds are "
        f"taken.\n(a, b, d, e) bold, with {LEVEL:.1%} intervals: by the tuning keys the best arm that sends scalars, dense "
        "vectors, compressed ones, adapters.",
        fontsize=10, x=0.01, ha="left",
    )  # fmt: skip
    provenance(fig, source)
    return fig


def best(rates: pd.DataFrame, count: str, budgets: Sequence[int]) -> set[str]:
    """The best arm of every family: the smallest sum of log losses on the tuning keys over the budgets of a count."""
    here: Any = rates[rates["winner"] & (rates["count"] == count) & rates["budget"].isin(budgets)]
    scores = np.log(here["loss"]).groupby(here["arm"]).sum()
    families = [[arm for arm in arms if arm in scores.index] for arms in FAMILIES.values()]
    return {str(scores[arms].idxmin()) for arms in families if arms}


def _subject(config: dict[str, Any]) -> str:
    if "dimension" in config:
        return f"{config['model']} fine-tuned on {config['problem']['task']}, d = {config['dimension']:,}"
    return f"digits perceptron, d = {model_bytes() // NUMBER:,}"


def _told(own: pd.DataFrame) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Budgets, geometric means of an arm's losses there, and the ends of their intervals; NaN where a key had diverged."""
    losses = own.pivot(index="key", columns="budget", values="loss")
    told = np.array([mean_interval(np.log(losses[b])) if losses[b].notna().all() else (np.nan,) * 3 for b in losses])
    middle, low, high = np.exp(told.T)
    return losses.columns.to_numpy(), middle, low, high


def _curves(ax: Axes, table: pd.DataFrame, arms: dict[str, Any], bold: set[str]) -> None:
    """Draw one count, what is bold on top."""
    for name, own in sorted(table.groupby("arm", sort=False), key=lambda item: item[0] in bold):
        style, strong = look(str(name)), name in bold
        budgets, middle, low, high = _told(own)
        rounds = own.pivot(index="key", columns="budget", values="rounds").min()
        over = (rounds >= arms[str(name)]["rounds"]).to_numpy()
        # Before its first evaluated round an arm is where it started, and after its last one where it ended.
        moving = (rounds > 0).to_numpy() & ~over
        first, last = int(np.argmax(rounds > 0)), len(budgets) - int(over.sum())
        part = slice(max(0, first - 1), min(len(budgets), last + 1))
        if strong:
            ax.fill_between(budgets[part], low[part], high[part], color=style.color, alpha=0.16, linewidth=0)
        weight = {"lw": 2.2, "alpha": 1.0} if strong else {"lw": 0.8, "alpha": 0.75}
        dots = {"ls": "none", "marker": style.marker, "color": style.color, "zorder": 3 if strong else 2.5}
        ax.plot(budgets[part], middle[part], **style.line() | weight)
        ax.plot(budgets[moving], middle[moving], ms=5.5 if strong else 3.5, **dots)
        end = [last] if last < len(budgets) else []
        ax.plot(budgets[end], middle[end], mfc="white", ms=6.5 if strong else 4.5, **dots)
    budgets = sorted(table["budget"].unique())
    ax.set(xscale="log", yscale="log", xlim=(budgets[0] / 1.3, budgets[-1] * 1.3))
    ax.xaxis.set_major_locator(FixedLocator(budgets))
    ax.xaxis.set_minor_locator(NullLocator())
    ax.xaxis.set_major_formatter(lambda value, _: _size(value))


def _rows(ax: Axes, table: pd.DataFrame, arms: dict[str, Any], limits: tuple[float, float]) -> None:
    """One row an arm, family by family: the loss at the largest budget and its interval, bars at the smaller ones."""
    names = [arm for family in FAMILIES.values() for arm in family if arm in arms]
    y = 0.0
    places = []
    for i, name in enumerate(names):
        y += 0.6 * (i > 0 and _family(name) != _family(names[i - 1]))
        style, own = look(name), table[table["arm"] == name]
        _, middle, low, high = _told(own)
        spent: Any = own.loc[own["budget"] == own["budget"].max(), "rounds"]
        face = "white" if spent.min() >= arms[name]["rounds"] else style.color
        ax.plot(np.clip([low[-1], high[-1]], *limits), [y, y], color=style.color, lw=1.4)
        ax.plot(middle[:-1], [y] * len(middle[:-1]), ls="none", marker="|", ms=7, mew=1, color=style.color)
        ax.plot(middle[-1], y, ls="none", marker=style.marker, ms=6, mfc=face, color=style.color)
        if not np.isfinite(middle[-1]):
            ax.text(limits[1], y, "a key diverged ", fontsize=7, ha="right", va="center", color=style.color)
        places.append(y)
        y += 1
    ax.set_yticks(places, [look(name).label for name in names])
    for label, name in zip(ax.get_yticklabels(), names, strict=True):
        label.set_color(look(name).color)
    ax.set(xscale="log", xlim=limits, ylim=(y - 0.4, -0.6))
    _ticks(ax.xaxis, limits)
    ax.grid(axis="y", visible=False)


def _ticks(axis: Axis, limits: tuple[float, float]) -> None:
    """Few enough to be read: two a decade, three where there are not two decades."""
    steps = (1, 2, 5) if limits[1] < 100 * limits[0] else (1, 3)
    ticks = [step * 10.0**power for power in range(-8, 4) for step in steps]
    axis.set_major_locator(FixedLocator(ticks))
    axis.set_major_formatter(lambda value, _: f"{value:g}")
    axis.set_minor_locator(NullLocator())


def _family(arm: str) -> str:
    return next(name for name, arms in FAMILIES.items() if arm in arms)


def _size(value: float) -> str:
    for unit, name in UNITS:
        if value >= unit:
            return f"{value / unit:g} {name}"
    return f"{value:g} B"
