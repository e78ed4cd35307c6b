"""How H moves: its fixed point, its memory, quiet rounds, and problems that change in the middle of a run.

Reads the tables of `learned_h.dynamics` named in its module docstring.
"""

import json
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from figures.style import SHADES, look, plt, provenance
from hiso_bench.stats import mean_interval

ARMS = {
    "decomfl": ("DeComFL", look("decomfl").line()),
    "hiso": ("HiSo", look("hiso").line()),
    "hiso-0.01": ("HiSo, EMA weight 0.01", look("hiso-0.01").line()),
    "hiso-forget": ("HiSo, $H$ made even at the change", {"color": "black", "linestyle": (0, (1, 1.2))}),
    "hiso-frozen": ("HiSo, $H$ frozen at the change", look("hiso-frozen").line()),
    "meazo": (look("meazo").label, look("meazo").line()),
}


def draw(results: Path, source: str, experiment: str = "dynamics") -> Figure:
    """Draw the figure.

    Args:
        results: folder with the tables.
        source: where they came from, printed at the foot.
        experiment: the tables' prefix.
    """
    names = ("fixed_point", "relax", "map", "quiet", "drift")
    tables = {name: pd.read_csv(Path(results) / f"{experiment}_{name}.csv") for name in names}
    about = json.loads((Path(results) / f"{experiment}_drift.json").read_text())["config"]
    fig, axes = plt.subplots(2, 4, figsize=(15.2, 7.2))
    _fixed_point(axes[0, 0], tables["fixed_point"])
    _relax(axes[0, 1], tables["relax"])
    _map(axes[0, 2], tables["map"])
    _quiet(axes[0, 3], tables["quiet"])
    titles = {
        "scale up": r"loss $\times$ 100", "scale down": "loss / 100",
        "reversal": "spectrum reversed", "minimum": "minimum moved",
    }  # fmt: skip
    for ax, (kind, title), letter in zip(axes[1], titles.items(), "efgh", strict=True):
        _drift(ax, tables["drift"][tables["drift"]["kind"] == kind])
        ax.set_title(f"({letter}) {title} at the dotted line")
    axes[1, 0].set_ylabel(r"$(f - f^*)\,/$ current $s_{\max}$")
    axes[1, 0].set_ylim(1e-3, 1e9)
    handles, labels = axes[1, 0].get_legend_handles_labels()
    fig.legend(handles, labels, loc="outside lower center", ncols=6, borderaxespad=2.4)  # above the origin
    keys = tables["drift"]["key"].nunique()
    fig.suptitle(
        rf"How $H$ moves ($P={about['P']}$); (e-h): $\Sigma_{{jj}}=j^{{-1.5}}$, d = 100, medians of {keys} keys with 10-90 % "
        "bands (none where keys diverged), one untuned rate before and after", fontsize=10, x=0.01, ha="left",
    )  # fmt: skip
    provenance(fig, source)
    return fig


def _fixed_point(ax: Axes, table: pd.DataFrame) -> None:
    """Measured over exact, with 99.9 % intervals, and the shift that scatter gives H to second order."""
    groups = list(table.groupby(["d", "P", "ema_new"], sort=False))
    for i, (_, part) in enumerate(groups):
        middle, low, high = mean_interval(part["measured"] / part["predicted"])
        ax.errorbar(i, middle, [[middle - low], [high - middle]], fmt="s", color=look("hiso").color, capsize=3)
        ax.plot(i, (part["second_order"] / part["predicted"]).iloc[0], "_", ms=14, mew=1.6, color="black")
    ax.axhline(1, **look("theory").line())
    ax.set_xticks(range(len(groups)), [f"{d:g}\n{P:g}\n{ema:g}" for (d, P, ema), _ in groups])
    ax.set_xlabel("d, P, EMA weight")
    ax.set_ylabel("mean $H$ / exact fixed point")
    ax.set_title("(a) where $H$ settles, 99.9 % intervals\n(dash: with scatter, 1st order)")


def _relax(ax: Axes, table: pd.DataFrame) -> None:
    part = table[table["ema_new"] == 0.05]
    for color, (factor, own) in zip(("#D3C6EC", "#A98FD6", *SHADES[1:]), part.groupby("factor"), strict=True):
        start = own["log_h"].iloc[0]
        mean = own.groupby("round")[["log_h", "law"]].mean() - start
        ax.plot(mean.index, np.exp(mean["log_h"]), color=color, label=rf"$|g|\times{factor:g}$")
        ax.plot(mean.index, np.exp(mean["law"]), lw=1, **look("theory").line())
    ax.plot([], [], label="mean recursion", **look("theory").line())
    ax.set(
        yscale="log",
        xlabel="rounds after the jump",
        ylabel="mean $H$ / before",
        title="(b) a jump of the gradient, EMA weight 0.05",
    )
    ax.set_ylim(top=3e3)
    ax.legend(fontsize=7, ncols=2, loc="upper right")


def _map(ax: Axes, table: pd.DataFrame) -> None:
    for name, color, label in (
        ("dx", look("hiso").color, r"$H$ from $\Delta x$ (HiSo)"),
        ("h dx", look("zo-rmsprop").color, r"from $H\Delta x$ (RMSProp)"),
    ):
        part = table[table["recursion"] == name]
        ax.fill_between(part["ema_new"], part["low"], part["high"], color=color, alpha=0.3, linewidth=0)
        ax.plot(part["ema_new"], part["low"], color=color, label=label)
    for level in (-1, 0, 1):
        ax.axhline(level, color="black", lw=0.8, ls="--" if level else "-")
    ax.axvspan(0.9, 0.99, color="black", alpha=0.08, lw=0)
    ax.annotate("Fig 5's $\\nu$ taken literally", (0.89, -1.93), ha="right", fontsize=7.5)
    ax.axvline(0.05, color="black", lw=0.8, ls=":")
    ax.annotate("official code", (0.07, -1.93), fontsize=7.5)
    ax.set(
        xlabel="EMA weight of the new sample",
        ylabel="multipliers of one round",
        title="(c) the mean recursion's multipliers,\nsmallest (line) to largest; stable within $\\pm1$",
        ylim=(-2, 1.1),
    )
    ax.legend(fontsize=7, loc="lower left", bbox_to_anchor=(0.08, 0.09))


def _quiet(ax: Axes, table: pd.DataFrame) -> None:
    for color, (ema, own) in zip(SHADES, table.groupby("ema_new"), strict=True):
        for eps, line in ((0.0, "-"), (1e-8, "--")):
            part = own[own["eps"] == eps]
            label = f"{ema:g}" if eps == 0 else None
            ax.plot(part["round"], part["perturbation"], color=color, linestyle=line, label=label)
    ax.plot([], [], color="#555555", linestyle="--", label=r"with $\epsilon=10^{-8}$")
    ax.set(yscale="log", ylim=(0.8, 1e8), xlabel="rounds without gradient", ylabel="perturbation / its first")
    ax.set_title(r"(d) quiet rounds: $(1-\nu)^{-n/2}$")
    ax.legend(fontsize=7, title="EMA weight", title_fontsize=7)


def _drift(ax: Axes, table: pd.DataFrame) -> None:
    """Median and band of the excess; the arms that lost keys are named."""
    lost = []
    for arm, (label, line) in ARMS.items():
        wide = table[table["arm"] == arm].pivot(index="round", columns="key", values="excess").to_numpy()
        rounds = np.sort(table["round"].unique())
        low, middle, high = np.quantile(np.minimum(wide, 1e12), (0.1, 0.5, 0.9), axis=1)
        diverged = int(np.isinf(wide[-1]).sum())
        if diverged:  # a band would cover the panel
            lost.append(f"{label}: {diverged} of {wide.shape[1]}")
        else:
            ax.fill_between(rounds, low, high, color=line["color"], alpha=0.15, linewidth=0)
        ax.plot(rounds, middle, label=label, **line)
    if lost:
        ax.text(0.98, 0.98, "\n".join(("diverged", *lost)), transform=ax.transAxes, ha="right", va="top", fontsize=7.5)
    ax.axvline(150, color="black", lw=0.8, ls=":")
    ax.set(yscale="log", xlabel="round", ylim=(2e-3, 100))
