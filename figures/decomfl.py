"""DeComFL's image figures: test accuracy against round, theirs under ours: FedAvg and DeComFL at 1, 4, 10 local steps; over P.

Reads `<experiment>.csv` (arm, lr, key, round, bytes_up, bytes_down, metric, value) and `<experiment>_against.csv` (ours beside
theirs at the published rounds, with the interval that decides), which may hold some of the planned runs only, and the published
curves from paper/reported/decomfl_mnist.csv.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, NullFormatter, NullLocator

from figures.style import OKABE_ITO, look, plt, provenance
from hiso_bench import records
from hiso_bench.reproduction import verdicts

REPORTED = Path(__file__).resolve().parent.parent / "paper" / "reported" / "decomfl_mnist.csv"
BATCHES = {
    "32": (OKABE_ITO["orange"], (0, (2, 1)), "^"),
    "64": (OKABE_ITO["green"], (0, (5, 1.5)), "s"),
    "256": (OKABE_ITO["blue"], "-", "o"),
    "256 or 88": (OKABE_ITO["purple"], (0, (6, 1, 1, 1)), "D"),
    "32, momentum": (OKABE_ITO["sky"], (0, (4, 1, 1, 1)), "v"),
}
ACCURACIES = (0.1, 0.3, 0.5, 0.7, 0.8, 0.9, 0.95, 0.97, 0.98, 0.99)
FIRST_COMPARED = 20
MARKERS = {1: "o", 4: "s", 10: "^"}
NAMES = {"fedavg": "FedAvg", "decomfl": "DeComFL"}
_SPREAD = "#C9C9C9"
LETTERS = "abcdefghijkl"
# Method, local steps, rate, P: what a panel of MNIST shows, row by row.
PANELS = (
    *(("fedavg", tau, 0.1, 0) for tau in (1, 4, 10)),
    *(("decomfl", tau, 1e-3, 20) for tau in (1, 4, 10)),
    *(("decomfl", 4, 5e-4, P) for P in (10, 20, 40)),
)


def draw(results: Path, source: str, experiment: str = "decomfl_mnist") -> Figure:
    """Nine panels of curves on MNIST; below, Fashion-MNIST, what a finite difference changes, and what the rule says.

    Args:
        results: folder with the tables.
        source: where they came from, printed at the foot.
        experiment: the tables' prefix.
    """
    frame, about = records.read(results / f"{experiment}.csv")
    compared, _ = records.read(results / f"{experiment}_against.csv")
    accuracy = pd.DataFrame(frame[frame["metric"] == "accuracy"])
    config, reported = about["config"], pd.read_csv(REPORTED)
    series = pd.DataFrame(config["series"]).T.rename_axis("arm").reset_index()
    kept = (series["method"] == "fedavg") & (series["momentum"] > 0)
    short = series["short"].astype(bool)
    series["batch"] = (
        series["batch_size"].astype(str) + short.map({True: " or 88", False: ""}) + kept.map({True: ", momentum", False: ""})
    )
    fig, axes = plt.subplots(4, 3, figsize=(13, 15.2), height_ratios=(1, 1, 1, 1.12))
    letters = iter(LETTERS)
    for ax, (method, tau, lr, P) in zip(axes.flat, PANELS, strict=False):
        own = series[(series["dataset"] == "mnist") & (series["method"] == method) & (series["difference"] != "central")]
        own = own[(own["tau"] == tau) & (own["lr"] == lr) & (own["P"] == P)]
        _panel(ax, method, tau, own, accuracy, compared, reported, next(letters))
    _fashion(axes[3, 0], series, accuracy, reported, next(letters))
    _differences(axes[3, 1], series, accuracy, next(letters))
    _verdicts(axes[3, 2], series, compared, next(letters))
    done, planned = len(config["done"]), len(config["planned"])
    partial = f"; PARTIAL: {done} of {planned} runs" if done < planned else ""
    extent = f"{config['clients']} clients, {config['sampled']} sampled, IID{partial}"
    fig.suptitle(
        f"DeComFL's figures on MNIST, its CNN (28,938 parameters), the first rounds of those published; {extent}\n"
        "Rates, P and DeComFL's momentum (0.9) are the published ones, nothing was tuned; derivatives stand for central "
        "differences (see k).\nFedAvg: rate 0.1, plain SGD; and with a momentum of 0.5 kept by every client, which no label "
        "names, added after plain SGD missed in (a).",
        fontsize=9.5, x=0.01, ha="left",
    )  # fmt: skip
    provenance(fig, source)
    return fig


def _published(reported: pd.DataFrame, dataset: str, method: str, tau: int, lr: float, P: int = 0) -> pd.DataFrame:
    match = (reported["dataset"] == dataset) & (reported["method"] == method) & (reported["tau"] == tau)
    return pd.DataFrame(reported[match & (reported["lr"] == lr) & (reported["P"].fillna(0) == P)])


def _theirs(ax: Axes, theirs: pd.DataFrame, label: str) -> None:
    """Their mean and the range of their seeds, if there are several."""
    style = look("reported")
    if theirs["seeds"].max() > 1:
        ax.fill_between(theirs["round"], theirs["min"], theirs["max"], color=_SPREAD, linewidth=0, zorder=1)
    ax.plot(theirs["round"], theirs["mean"], **style.line(), lw=1.3, label=label, zorder=2)


def _ours(ax: Axes, table: pd.DataFrame, batch: str, last: int, published: set[int], what: str = "") -> None:
    """Mean and range over our keys at the published rounds; a cross where a run diverged."""
    color, line, marker = BATCHES[batch]
    wide = table.pivot(index="key", columns="round", values="value")
    ends = wide.apply(lambda run: run.last_valid_index(), axis=1)
    wide = wide[[r for r in wide.columns if r in published or (ends == r).any()]]
    rounds = wide.columns.to_numpy()
    keys = len(wide)
    whole = wide.dropna(axis=1)
    ax.fill_between(whole.columns, whole.min(), whole.max(), color=color, alpha=0.2, linewidth=0, zorder=3)
    lost = int((wide[rounds[-1]].isna() | (rounds[-1] < last)).sum())
    told = f"ours, batch {batch}{what}, {keys} key{'s' * (keys > 1)}" + (f": {lost} diverged" if lost else "")
    ax.plot(rounds, wide.mean(), color=color, ls=line, marker=marker, markevery=0.12, ms=4, lw=1.5, label=told, zorder=4)
    for _, run in wide.iterrows():
        known = run.dropna()
        if known.index[-1] < last:
            ax.plot(known.index[-1], max(known.iloc[-1], 0.22), marker="x", ms=8, mew=2, color=color, zorder=5)


def _panel(
    ax: Axes, method: str, tau: int, own: pd.DataFrame, accuracy: pd.DataFrame, compared: pd.DataFrame, reported: pd.DataFrame,
    letter: str,
) -> None:  # fmt: skip
    """One setting: their band and interval, our curves of every batch."""
    first = own.iloc[0]
    last = int(first["rounds"])
    theirs = _published(reported, "mnist", method, tau, float(first["lr"]), int(first["P"]))
    theirs = theirs[theirs["round"] <= last]
    seeds = int(theirs["seeds"].max())
    _theirs(ax, theirs, f"published: mean and range of {seeds} seeds" if seeds > 1 else "published: one seed")
    some = pd.DataFrame(compared[compared["arm"].isin(own["arm"])].dropna(subset="low"))
    if len(some):
        # The interval depends on how many keys there are; drawn is that of the series that fits best.
        off = (some["ours"] - some["theirs"]) ** 2
        best = some[some["arm"] == off.groupby(some["arm"]).mean().idxmin()].sort_values("round")
        edge = {"color": "#888888", "lw": 0.7, "zorder": 2}
        told = f"within the spread (95 %), {best['keys'].max()} key{'s' * int(best['keys'].max() > 1)}"
        ax.plot(best["round"], best["high"].clip(upper=0.9985), label=told, **edge)
        ax.plot(best["round"], best["low"].clip(lower=0.02), **edge)
    for row in own.sort_values(["batch_size", "short"]).itertuples():
        table = pd.DataFrame(accuracy[(accuracy["arm"] == row.arm) & (accuracy["round"] > 0)])
        if len(table):
            _ours(ax, table, str(row.batch), last, set(theirs["round"]))
    limits = (0.5, 0.994) if method == "fedavg" else (0.2, 0.985)
    _axis(ax, last, limits, "lower right" if method == "fedavg" else "upper left")
    told = f", P = {first['P']}, rate {first['lr']:g}" if first["P"] else ""
    ax.set_title(f"({letter}) {NAMES[method]}, {tau} local step{'s' * (tau > 1)}{told}")


def _axis(ax: Axes, last: int, limits: tuple[float, float], legend: str) -> None:
    """Accuracy on a scale that opens up towards one; rounds from the first evaluations on."""
    ax.set_yscale("function", functions=(lambda a: -np.log10(np.clip(1 - a, 1e-4, None)), lambda v: 1 - 10.0**-v))
    ax.yaxis.set_major_locator(FixedLocator(ACCURACIES))
    ax.yaxis.set_minor_locator(NullLocator())
    ax.set(ylim=limits, xscale="log", xlim=(9, last * 1.08), xlabel="communication round", ylabel="test accuracy")
    ticks = [t for t in (10, 20, 50, 100, 200, 500, 1000) if t <= last]
    ax.set_xticks(ticks, [str(t) for t in ticks])
    ax.xaxis.set_minor_formatter(NullFormatter())
    ax.legend(loc=legend, fontsize=7, frameon=True, framealpha=0.85, edgecolor="none")


def _fashion(ax: Axes, series: pd.DataFrame, accuracy: pd.DataFrame, reported: pd.DataFrame, letter: str) -> None:
    """Published curves on Fashion-MNIST, and short runs of ours."""
    shown = (
        ("fedavg", 5, 1e-3, 0, "published FedAvg, 5 local steps", "-"),
        ("decomfl", 5, 5e-4, 25, "published DeComFL, 5 local steps, P = 25", ":"),
        ("decomfl", 1, 1e-4, 50, "published DeComFL, 1 local step, P = 50", "--"),
    )
    for method, tau, lr, P, label, line in shown:
        theirs = _published(reported, "fashion", method, tau, lr, P)
        theirs = theirs[theirs["round"] <= 1000]
        if theirs["seeds"].max() > 1:
            ax.fill_between(theirs["round"], theirs["min"], theirs["max"], color=_SPREAD, linewidth=0)
        ax.plot(theirs["round"], theirs["mean"], color="black", ls=line, lw=1.3, label=label)
    told = {"fedavg": ", FedAvg, plain SGD", "decomfl": ", DeComFL, 5 steps, P = 25"}
    for row in series[series["dataset"] == "fashion"].itertuples():
        table = pd.DataFrame(accuracy[(accuracy["arm"] == row.arm) & (accuracy["round"] > 0)])
        if len(table):
            _ours(ax, table, str(row.batch), int(row.rounds), set(reported["round"]), told[str(row.method)])
    _axis(ax, 1000, (0.02, 0.98), "upper left")
    ax.set_title(f"({letter}) Fashion-MNIST, CNN of 1,206,590 parameters:\nfirst rounds (PROFILE=paper has the whole)")


def _differences(ax: Axes, series: pd.DataFrame, accuracy: pd.DataFrame, letter: str) -> None:
    """Accuracy with the central difference minus accuracy with the derivative, same key, in points."""
    drawn = False
    for row in series[series["difference"] == "central"].itertuples():
        twin = series[(series["difference"] == "exact") & (series["batch"] == row.batch)]
        twin = twin[(twin["tau"] == row.tau) & (twin["lr"] == row.lr) & (twin["P"] == row.P)]
        tables = [accuracy[accuracy["arm"] == arm].set_index(["key", "round"])["value"] for arm in (row.arm, *twin["arm"])]
        if len(tables) < 2 or tables[0].empty:
            continue
        gap = (100 * (tables[0] - tables[1])).dropna()
        drawn = True
        for key, run in gap.groupby(level="key"):
            x = run.index.get_level_values("round").to_numpy()
            told = f"{row.tau} local step{'s' * (row.tau > 1)}, batch {row.batch}, key {key}"
            ax.plot(x, run.to_numpy(), color=BATCHES[str(row.batch)][0], marker=MARKERS[int(row.tau)], ms=4, label=told)
    ax.axhline(0, color="black", lw=0.8)
    ax.set(xlabel="communication round", ylabel="points of test accuracy")
    ax.set_title(f"({letter}) central difference ($\\mu$ = 1e-4) minus derivative,\nsame key, directions and batches")
    if drawn:
        ax.legend(loc="best", fontsize=7)
    else:
        ax.text(0.5, 0.5, "not recorded yet", ha="center", va="center", transform=ax.transAxes, color="#777777")


def _share(value: float) -> str:
    return "-" if np.isnan(value) else f"{value:.0%}"


def _verdicts(ax: Axes, series: pd.DataFrame, compared: pd.DataFrame, letter: str) -> None:
    """A table: per panel and batch, keys, root mean square difference, share of rounds within, verdict."""
    last = {str(row.arm): int(row.rounds) for row in series.itertuples()}
    mnist = series[(series["dataset"] == "mnist") & (series["difference"] != "central")].set_index("arm")
    most = compared.groupby("arm")[["keys", "seeds"]].max()
    rows = []
    for found in verdicts(compared, last, FIRST_COMPARED).itertuples():
        if found.arm not in mnist.index:
            continue
        one: Any = mnist.loc[found.arm]
        verdict = "yes" if found.reproduced else "-" if np.isnan(found.within) else "no"
        if found.reached < last[str(found.arm)]:
            verdict = "diverged"
        batch = str(one["batch"]).replace(" or ", "/").replace(", momentum", ", mom.")
        panel = PANELS.index((one["method"], one["tau"], one["lr"], one["P"]))
        keys, seeds = most.loc[found.arm]
        shares = (_share(found.within), _share(found.between if seeds > 1 else np.nan))
        name = f"({LETTERS[panel]}) {NAMES[str(one['method'])]}, {one['tau']}"
        rows.append((name, batch, keys, f"{100 * found.rms:.1f}", *shares, verdict))
    rows.sort(key=lambda row: (row[0], len(row[1]), row[1]))
    ax.axis("off")
    ax.set_title(f"({letter}) ours against theirs, from round {FIRST_COMPARED} on")
    heads = ("panel, steps", "batch", "keys", "rms,\npoints", "within\n95 %", "within\nrange", "reproduced")
    height = min(1.0, 0.044 * (len(rows) + 1.5))
    table = ax.table(
        [[str(cell) for cell in row] for row in rows],
        colLabels=list(heads),
        cellLoc="center",
        bbox=(0, 1 - height, 1, height),  # type: ignore[arg-type]
        colWidths=[0.27, 0.22, 0.09, 0.12, 0.12, 0.12, 0.2],
    )
    table.auto_set_font_size(False)
    table.set_fontsize(7)
    for (r, _), cell in table.get_celld().items():
        cell.set_linewidth(0.4)
        if r == 0:
            cell.set_height(1.7 * cell.get_height())
        if r and rows[r - 1][-1] == "yes":
            cell.set_facecolor("#E4F2EA")
