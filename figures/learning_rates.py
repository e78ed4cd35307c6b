"""The basin of learning rates of every arm, how wide it is, what moves its best rate, and what a rate from elsewhere costs.

Reads `<experiment>.csv`, `_width.csv`, `_exact.csv`, `_transfer.csv` and `_exponents.csv` of `learned_h.rate_study`.
"""

import json
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from figures.style import OKABE_ITO, look, plt, provenance
from hiso_bench.stats import mean_interval

AXES = {
    "d, trace 1": "dimension, trace fixed ($i^{-1.5}$)",
    "d, flat": "dimension, flat spectrum",
    "c": "scale of the loss, $f \\to cf$",
    "P": "directions per round $P$",
}


def draw(results: Path, source: str, experiment: str) -> Figure:
    """Draw the figure.

    Args:
        results: folder with the tables.
        source: where they came from, printed at the foot.
        experiment: the tables' prefix.
    """
    names = ("", "_width", "_exact", "_transfer", "_exponents")
    found, width, exact, transfer, exponents = (pd.read_csv(Path(results) / f"{experiment}{name}.csv") for name in names)
    about = json.loads((Path(results) / f"{experiment}.json").read_text())["config"]
    arms, problems = list(dict.fromkeys(found["arm"])), list(dict.fromkeys(found["problem"]))
    fig, axes = plt.subplots(3, 4, figsize=(14.5, 10.6), gridspec_kw={"height_ratios": (1.15, 1, 1)})
    for ax, letter, problem in zip(axes[0], "abcd", problems, strict=True):
        tight = about["problems"][problem]["targets"][-1]
        own, theory = (t[(t["problem"] == problem) & (t["target"] == tight)] for t in (found, exact))
        _basin(ax, own, theory, arms, about)
        ax.set_title(f"({letter}) {problem}, to {tight}")
    axes[0, 0].set_ylabel("rounds / best rounds of the arm")
    for ax, letter, axis in zip(axes[1], "efgh", AXES, strict=True):
        _cost(ax, transfer[transfer["axis"] == axis], axis, arms, about)
        ax.set_title(f"({letter}) rate tuned at {axis.split(',')[0]} = {about['base'][axis]}")
    axes[1, 0].set_ylabel("rounds / rounds at the best rate there")
    _widths(axes[2, 0], width, problems, arms, about)
    axes[2, 0].set_title("(i) width of the basin")
    for ax, letter, (part, label) in zip(axes[2, 1:], "jkl", (("d", "$d$"), ("c", "$c$"), ("P", "$P$")), strict=True):
        _exponents(ax, exponents[exponents["axis"].str.split(",").str[0] == part], arms, part == "d")
        ax.set_title(f"({letter}) power of the best rate in {label}")
    handles, labels = axes[0, 0].get_legend_handles_labels()
    fig.legend(handles, labels, loc="outside lower left", ncols=4)
    fig.suptitle(
        f"How much does the learning rate matter? {about['keys']} keys; P = {about['P']} and no gradient noise unless said; "
        "(a-d) bands from the lowest to the highest key, (e-l) 99.9 % intervals",
        fontsize=10, x=0.01, ha="left",
    )  # fmt: skip
    provenance(fig, source)
    return fig


def _basin(ax: Axes, own: pd.DataFrame, theory: pd.DataFrame, arms: list[str], about: dict) -> None:
    """Rounds against the rate, both in units of the arm's best; band: the extremes of the keys; above: rates that lose a key."""
    strip = np.geomspace(1.06, 1.7, len(arms)) * about["cap"]
    for y, arm in zip(strip, arms, strict=True):
        wide = own[own["arm"] == arm].pivot(index="lr", columns="key", values="rounds")
        complete = wide.dropna()
        means = np.log(complete).mean(axis=1)
        best, fewest = means.idxmin(), float(np.exp(means.min()))
        x, style = complete.index.to_numpy() / best, look(arm)
        ax.fill_between(x, complete.min(axis=1) / fewest, complete.max(axis=1) / fewest, color=style.color, alpha=0.12, lw=0)
        ax.plot(x, np.exp(means) / fewest, label=style.label, marker=style.marker, markersize=3.5, **style.line())
        lost = wide.index[wide.isna().any(axis=1)].to_numpy() / best
        ax.plot(lost, np.full(len(lost), y), marker=style.marker, ms=3.5, ls="none", color=style.color, mfc="white", zorder=5)
    if len(theory):
        i = theory["rounds"].idxmin()
        shown = theory[theory["rounds"] <= about["cap"] * theory["rounds"][i]]
        ax.plot(
            shown["lr"] / theory["lr"][i], shown["rounds"] / theory["rounds"][i],
            label="DeComFL, exact $\\mathrm{E} f$", zorder=4, lw=1.2, **look("theory").line(),
        )  # fmt: skip
    ax.axhline(about["within"], color=OKABE_ITO["grey"], lw=0.8, ls=(0, (2, 2)))
    ax.axhspan(about["cap"], 1.8 * about["cap"], color="#F2F2F2", zorder=1.5)  # over the ends of curves that go on above it
    ax.set(xscale="log", yscale="log", ylim=(0.75, 1.8 * about["cap"]), xlim=(0.078, 9.2))
    ax.set_xlabel("learning rate / best rate of the arm")
    ax.set_xticks((0.125, 0.25, 0.5, 1, 2, 4, 8), ("1/8", "1/4", "1/2", "1", "2", "4", "8"))
    ax.set_yticks((1, 1.5, 2, 3, 1.35 * about["cap"]), ("1", "1.5", "2", "3", "a key\nlost"))
    ax.minorticks_off()


def _cost(ax: Axes, own: pd.DataFrame, axis: str, arms: list[str], about: dict) -> None:
    """Geometric mean of the cost; at the top where a key needs more than the most that is told, or diverged."""
    most, settings = about["most_cost"], about["axes"][axis]
    for i, arm in enumerate(arms):
        wide = own[own["arm"] == arm].pivot(index="setting", columns="key", values="cost").loc[settings].to_numpy()
        lost, style = np.isnan(wide).any(axis=1), look(arm)
        x = np.arange(len(settings)) + 0.09 * (i - (len(arms) - 1) / 2)
        middle, low, high = (
            np.array(row)
            for row in zip(
                *(_log_interval(w) if not gone else (most * 1.25,) * 3 for w, gone in zip(wide, lost, strict=True)), strict=True
            )
        )
        ax.errorbar(x, middle, (middle - low, high - middle), color=style.color, lw=1.1, ls="none", zorder=2)
        ax.plot(x[~lost], middle[~lost], marker=style.marker, ms=4.5, ls="none", color=style.color)
        ax.plot(x[lost], middle[lost], marker=style.marker, ms=4.5, ls="none", color=style.color, mfc="white")
    ax.axhline(1, color=OKABE_ITO["grey"], lw=0.8)
    ax.axhspan(most, most * 1.6, color="#F2F2F2", zorder=0)
    ax.set(yscale="log", ylim=(0.4, most * 1.6), xlabel=AXES[axis])
    ax.set_xticks(range(len(settings)), [f"{v:g}" for v in settings])
    ax.set_yticks((0.5, 1, 2, 4, most * 1.25), ("0.5", "1", "2", "4", "> 4 or\nlost"))
    ax.minorticks_off()


def _log_interval(values: np.ndarray) -> np.ndarray:
    return np.exp(mean_interval(np.log(values)))


def _widths(ax: Axes, width: pd.DataFrame, problems: list[str], arms: list[str], about: dict) -> None:
    """Bars of octaves with intervals."""
    step = 0.8 / len(arms)
    for i, arm in enumerate(arms):
        own = width[width["arm"] == arm]
        tight = {p: about["problems"][p]["targets"][-1] for p in problems}
        own = pd.concat([own[(own["problem"] == p) & (own["target"] == t)] for p, t in tight.items()])
        x = np.arange(len(problems)) + step * (i - (len(arms) - 1) / 2)
        reach = (own["width"] - own["low"], own["high"] - own["width"])
        ax.bar(x, own["width"], 0.9 * step, color=look(arm).color)
        ax.errorbar(x, own["width"], reach, fmt="none", ecolor="black", elinewidth=1)
    ax.set_xticks(range(len(problems)), [p.replace(" ", "\n").replace("-n", "-\nn") for p in problems])
    ax.set_ylabel("octaves within 2x of best")


def _exponents(ax: Axes, own: pd.DataFrame, arms: list[str], named: bool) -> None:
    """One row per arm; the parts of an axis beside each other. The broken line is DeComFL's exact power."""
    parts = list(dict.fromkeys(zip(own["axis"], own["part"], strict=True)))
    faces = ("full", "none", "left")
    for j, (axis, part) in enumerate(parts):
        rows = own[(own["axis"] == axis) & (own["part"] == part)].set_index("arm")
        told = part if part != "all" else AXES[axis].split(", ")[-1] if axis.startswith("d") else "all"
        for i, arm in enumerate(["theory", *arms]):
            middle, low, high = rows.loc[arm, ["exponent", "low", "high"]].to_numpy(float)
            y, style = i + 0.22 * (j - (len(parts) - 1) / 2), look(arm)
            marker = style.marker or "|"
            ax.plot([low, high], [y, y], color=style.color, lw=1.3)
            ax.plot(middle, y, marker=marker, ms=6, color=style.color, fillstyle=faces[j], ls="none")
        ax.plot([], [], marker="s", fillstyle=faces[j], color=OKABE_ITO["grey"], ls="none", label=told)
    if len(parts) > 1:
        ax.legend(fontsize=7, loc="best")
    ax.axvline(0, color=OKABE_ITO["grey"], lw=0.8)
    names = [look(arm).label.split(" (")[0].replace(", H replaced by", ",\n") for arm in arms]
    ax.set_yticks(range(len(arms) + 1), ["DeComFL,\nexact", *names] if named else [""] * (len(arms) + 1), fontsize=7)
    ax.set_ylim(len(arms) + 0.6, -0.6)
