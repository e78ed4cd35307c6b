"""What the learned H contributes: the speed-up of every arm over DeComFL, problem by problem.

Reads `<experiment>.csv` and `<experiment>_ways.csv` of `learned_h.ablation`.
"""

import json
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, NullFormatter, NullLocator

from figures.style import SHADES, look, plt, provenance
from hiso_bench.stats import mean_interval
from hiso_bench.summaries import SHOWN_LEVEL

MARKERS = ("o", "s", "D")
ORDER = (
    "decomfl-theory", "decomfl-decay", "momentum", "decomfl-p10", "hiso", "hiso-scalar", "hiso-leaf-mean", "hiso-shuffled",
    "hiso-shuffled-leaf", "hiso-frozen", "hiso-lognormal", "hiso-exact-scalar", "meazo", "zo-rmsprop", "hiso-infinite",
    "hiso-oracle",
)  # fmt: skip


def draw(results: Path, source: str, experiment: str) -> Figure:
    """Draw one panel per problem.

    Args:
        results: folder with the tables.
        source: where they came from, printed at the foot.
        experiment: the tables' prefix.
    """
    table = pd.read_csv(Path(results) / f"{experiment}.csv")
    ways = pd.read_csv(Path(results) / f"{experiment}_ways.csv")
    about = json.loads((Path(results) / f"{experiment}.json").read_text())["config"]
    problems = list(dict.fromkeys(table["problem"]))
    arms = [arm for arm in ORDER if arm in set(table["arm"])]
    columns = min(4, len(problems))
    rows = -(-len(problems) // columns)
    fig, axes = plt.subplots(
        rows, columns, figsize=(1.4 + 3.5 * columns, 1.2 + 0.27 * rows * len(arms)), sharey=True, squeeze=False
    )
    for ax, letter, problem in zip(axes.flat, "abcdefghijkl", problems, strict=False):
        own = table[table["problem"] == problem]
        _panel(ax, own, ways[ways["problem"] == problem], arms)
        targets = ", ".join(f"{target:g}" for target in sorted(set(own["target"]), reverse=True))
        ax.set_title(f"({letter}) {problem}: to {targets}", fontsize=8.8)
    _limits(list(axes.flat[: len(problems)]))
    for ax in axes.flat[len(problems) :]:
        ax.set_axis_off()
    for ax in axes[:, 0]:
        ax.set_yticks(range(len(arms)), [look(arm).label for arm in arms])
        ax.set_ylim(len(arms) - 0.4, -0.6)
    for ax in axes.flat[max(0, len(problems) - columns) : len(problems)]:  # the lowest of every column
        ax.set_xlabel("speed-up over DeComFL in rounds")
    handles = [
        Line2D([], [], marker=m, ms=ms, color=c, mfc=f, linestyle="none", label=text)
        for m, ms, c, f, text in (
            *(
                (MARKERS[i], 5, SHADES[i], SHADES[i], f"to the {name} target")
                for i, name in enumerate(("loose", "middle", "tight"))
            ),
            ("<", 5, "#555555", "white", "some key misses the target: at most this"),
            ("|", 9, "black", "black", "to the other's last loss, whoever ends lower"),
            ("<", 5, "black", "black", "the same: some key ends no lower than it starts"),
        )
    ]
    fig.legend(handles=handles, loc="outside lower center", ncols=3, borderaxespad=2.4)  # above the origin
    fig.suptitle(
        f"Rounds to a share of the first excess loss (the targets), DeComFL's over the arm's; every arm at its own tuned rate; "
        f"{about['keys']} keys, paired,\n{SHOWN_LEVEL:.0%} intervals of the mean log. No coloured mark: DeComFL misses the "
        "target on a key. No black bar: who ends lower differs between the keys, or a key diverged.",
        fontsize=9, x=0.01, ha="left",
    )  # fmt: skip
    provenance(fig, source)
    return fig


def _panel(ax: Axes, table: pd.DataFrame, ways: pd.DataFrame, arms: list[str]) -> None:
    targets = sorted(table["target"].unique(), reverse=True)
    plain = table[table["arm"] == "decomfl"].pivot(index="key", columns="target", values="rounds")
    for row, arm in enumerate(arms):
        own = table[table["arm"] == arm]
        if own.empty:
            ax.annotate("-", (1, row), ha="center", va="center", color="#999999")
            continue
        wide, budget = own.pivot(index="key", columns="target", values="rounds"), own["budget"].iloc[0]
        for i, target in enumerate(targets):
            y = row + 0.22 * (i - 1)
            _speed(ax, y, plain[target].to_numpy(), wide[target].to_numpy(), budget, SHADES[i], MARKERS[i])
        both = ways[ways["arm"] == arm]
        # Forth and back: the arm to DeComFL's last loss in R / forth, DeComFL to the arm's in back / R; NaN where it never does.
        ratios = [(budget / both["forth"]).to_numpy(), (both["back"] / budget).to_numpy()]
        for ratio in ratios:
            if not np.isfinite(ratio).all():
                continue
            if (ratio > 0).all():
                ax.plot(np.exp(np.log(ratio).mean()), row, "|", ms=11, color="black", mew=1.2, zorder=1)
            else:
                ax.plot(0.015, row, "<", ms=5, color="black", transform=ax.get_yaxis_transform(), zorder=4)
    ax.axvline(1, **look("decomfl").line(), lw=1)
    ax.set_xscale("log")
    ax.xaxis.set_minor_locator(NullLocator())
    ax.xaxis.set_major_formatter("{x:g}")
    ax.xaxis.set_minor_formatter(NullFormatter())


def _limits(panels: list[Axes]) -> None:
    """One axis for all panels that holds every mark and interval of each."""
    low, high = min(ax.dataLim.x0 for ax in panels) / 1.8, max(ax.dataLim.x1 for ax in panels) * 1.3
    ticks = [0.001, 0.01, 0.1, 1, 10, 100] if high / low > 300 else [0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20]
    for ax in panels:
        ax.set_xlim(low, high)
        ax.xaxis.set_major_locator(FixedLocator([t for t in ticks if low <= t <= high]))


def _speed(ax: Axes, y: float, plain: np.ndarray, rounds: np.ndarray, budget: int, color: str, marker: str) -> None:
    """Mean log of the ratio with its interval; hollow at the bound where an arm's key is censored, nothing where DeComFL's is."""
    if np.isnan(plain).any():
        return
    if np.isnan(rounds).any():
        ax.plot(np.exp(np.log(np.maximum(plain, 1) / budget).mean()), y, "<", ms=4, mfc="white", color=color)
        return
    middle, low, high = np.exp(mean_interval(np.log(np.maximum(plain, 1) / np.maximum(rounds, 1)), SHOWN_LEVEL))
    shown = dict(markersize=3.8, color=color, capsize=0, lw=1.2, zorder=3)
    ax.errorbar(middle, y, xerr=[[middle - low], [high - middle]], fmt=marker, **shown)
