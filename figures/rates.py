"""The exponents of HiSo's Corollaries 1 to 3: exact curves, their slopes in the limit, and simulated points.

Reads <experiment>_curves.csv (panel, arm, variant, x, y, slope), <experiment>.csv (panel, arm, variant, x, y, low, high, exact,
keys) and <experiment>_tau.csv (tau, quantity, predicted, measured, low, high).
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from figures.style import SHADES, look, plt, provenance

BOTH = "$|\\nabla f|^2$, mean over rounds (dotted: last)"
ERROR, ROUNDS = "mean over rounds of $|\\nabla f|^2$", "rounds to $f = 0.01\\,f_0$"
STYLES = ("-", (0, (5, 1.5)), (0, (1.5, 1.2)), (0, (6, 1.2, 1, 1.2)))
"""Line styles of the variants of one method; its colour and marker stay."""


class Panel(NamedTuple):
    """What a panel says about itself, and its curves in drawing order."""

    title: str
    x: str
    y: str
    curves: dict[tuple[str, str], tuple[str, str]]
    """(Arm, variant) -> legend text, and where the exponent is drawn: at the "left" or "right" end, "below" the left, or not."""
    place: str


PANELS = {
    "rounds": Panel("(a) rounds: $-1/2$ with noise, else $-1$", "rounds $R$", BOTH, {
        ("decomfl", "mean over rounds"): ("DeComFL, 20 modes", "right"),
        ("hiso-oracle", "mean over rounds"): ("HiSo, $H = S + 0.1$, spike of 100", ""),
        ("decomfl", "no noise"): ("DeComFL, no noise", "right"),
        ("decomfl", "last round"): ("DeComFL, last round", ""),
    }, "lower left"),
    "clients": Panel("(b) clients: only with noise and many rounds", "clients $m$", ERROR, {
        ("decomfl", "noise, many rounds"): ("noise, $R = 300$", "below"),
        ("decomfl", "noise, 10 rounds"): ("noise, $R = 10$", "right"),
        ("decomfl", "no noise, shared"): ("no noise, shared directions", ""),
        ("decomfl", "no noise, own"): ("no noise, own directions", "left"),
    }, "lower left"),
    "directions": Panel("(c) directions: not in the paper's rate", "directions $P$", ERROR, {
        ("decomfl", "50 modes"): ("DeComFL, 50 modes ($\\zeta = 50$)", "left"),
        ("decomfl", "1 mode"): ("DeComFL, 1 mode", ""),
    }, "upper right"),
    "dimension": Panel("(d) dimension, with noise", "dimension $d$", ERROR, {
        ("decomfl", "flat"): ("$\\kappa = d$", "right"),
        ("decomfl", "padded"): ("$\\kappa = 20$, padded", "right"),
        ("hiso-oracle", "j^-1.5"): ("$s_j = j^{-1.5}$, $H = S + 0.01$, $R = 10^5$", ""),
    }, "lower right"),
    "floor": Panel("(e) dimension, no noise, and the floor", "dimension $d$", ROUNDS, {
        ("decomfl", "condition 10"): ("DeComFL, condition 10", "right"),
        ("hiso-oracle", "H = S"): ("perfect whitening, $H = S$", ""),
        ("theory", "floor"): ("floor of scalar-only methods\n(reached by least squares)", "right"),
    }, "upper left"),
    "zeta": Panel("(f) $\\zeta$ is no knob: the noise decides", "whitening rank $\\zeta$", ERROR, {
        ("hiso-oracle", "whitened"): ("$V \\propto H$", "left"),
        ("hiso-oracle", "label"): ("$V \\propto S$", ""),
        ("hiso-oracle", "isotropic"): ("$V \\propto I$", "right"),
        ("hiso-oracle", "scale of H"): ("$H \\to cH$, Euclidean norm", "right"),
    }, "lower right"),
    "rounds in L": Panel("(g) smoothness, no noise", "$L$ (one spike, bulk fixed)", ROUNDS, {
        ("decomfl", "best step"): ("DeComFL", ""),
        ("decomfl", "at half the stability limit"): ("DeComFL at half its limit", "right"),
        ("hiso-oracle", "best step"): ("HiSo, $H = S + 0.1$", "right"),
    }, "upper left"),
    "error in L": Panel("(h) smoothness, with noise, $R = 300$", "$L$ (one spike, bulk fixed)", ERROR, {
        ("decomfl", "Euclidean norm"): ("DeComFL", ""),
        ("hiso-oracle", "H^-1 norm"): ("HiSo, $H^{-1}$ norm", "right"),
        ("hiso-oracle", "Euclidean norm"): ("HiSo, Euclidean norm", "right"),
    }, "upper left"),
}  # fmt: skip
TAU = {
    "loss, equal Hessians": ("loss after 10 rounds, equal Hessians", SHADES[2], "o"),
    "drift, unequal Hessians": ("drift of a round, unequal Hessians", SHADES[1], "s"),
    "squared bias": ("squared bias of the fixed point", SHADES[0], "^"),
}


def draw(results: Path, source: str, experiment: str) -> Figure:
    """Draw the nine panels.

    Args:
        results: folder with the tables.
        source: where they came from, printed at the foot.
        experiment: the tables' prefix.
    """
    curves, points, tau = (pd.read_csv(results / f"{experiment}{part}.csv") for part in ("_curves", "", "_tau"))
    fig, axes = plt.subplots(3, 3, figsize=(11.5, 10.4))
    for ax, (name, panel) in zip(axes.flat, PANELS.items(), strict=False):
        _panel(ax, panel, curves[curves["panel"] == name], points[points["panel"] == name])
    _tau(axes[2, 2], tau)
    _legend(fig, points["keys"])
    provenance(fig, source)
    return fig


def _panel(ax: Axes, panel: Panel, curves: pd.DataFrame, points: pd.DataFrame) -> None:
    """Curves by variant, a slope beside each that has one, and the simulated points."""
    styles: dict[str, int] = {}
    for (arm, variant), (label, side) in panel.curves.items():
        part = curves[(curves["arm"] == arm) & (curves["variant"] == variant)]
        method, number = look(arm), styles.get(arm, 0)
        styles[arm] = number + 1
        line = method.linestyle if arm == "theory" else STYLES[number]
        ax.plot(part["x"], part["y"], color=method.color, linestyle=line, label=label)
        if side:
            _slope(ax, part, side)
    for _, point in points.iterrows():
        method = look(point["arm"])
        reach = [[point["y"] - point["low"]], [point["high"] - point["y"]]]
        marker = method.marker or "D"
        ax.errorbar(
            point["x"], point["y"], reach, color=method.color, marker=marker, ms=5.5, mec="black", mew=0.7, capsize=5, zorder=5
        )
    ax.set(xscale="log", yscale="log", title=panel.title, xlabel=panel.x, ylabel=panel.y)
    ax.margins(x=0.2 if {"left", "below"} & {side for _, side in panel.curves.values()} else 0.13, y=0.12)
    ax.legend(loc=panel.place, fontsize=7, handlelength=3)


def _slope(ax: Axes, part: pd.DataFrame, side: str) -> None:
    """The predicted exponent as a line beside one end of the curve."""
    x, y, slope = part["x"].to_numpy(), part["y"].to_numpy(), float(part["slope"].iloc[0])
    order = np.argsort(x)
    x, y = x[order], y[order]
    near, at = (x[-1], y[-1]) if side == "right" else (x[0], y[0])
    far = x[0] ** 0.4 * x[-1] ** 0.6 if side == "right" else x[0] ** 0.6 * x[-1] ** 0.4
    shift = 0.75 if side == "below" else 1.25
    ends = np.array([near, far])
    guide = shift * at * (ends / near) ** slope
    ax.plot(ends, guide, color="black", lw=0.8, zorder=4)
    text = {0.5: "1/2", -0.5: "\N{MINUS SIGN}1/2", -1.0: "\N{MINUS SIGN}1"}.get(slope, f"{slope:g}")
    right = side == "right"  # beyond the end of the curve, where no line passes
    ax.annotate(
        text, (near, guide[0]), xytext=(4 if right else -4, 0), textcoords="offset points", fontsize=8,
        ha="left" if right else "right", va="center", annotation_clip=False,
    )  # fmt: skip


def _tau(ax: Axes, table: pd.DataFrame) -> None:
    """What local steps change, predicted and measured; what is exactly zero at tau = 1 is not on a log axis."""
    for quantity, (label, color, marker) in TAU.items():
        part = table[(table["quantity"] == quantity) & ((table["tau"] > 1) | (table["measured"] > 1e-6))]
        reach = [part["measured"] - part["low"], part["high"] - part["measured"]]
        ax.plot(part["tau"], part["predicted"], color=color)
        ax.errorbar(part["tau"], part["measured"], reach, color=color, fmt=marker, ms=6, mec="black", capsize=3, label=label)
    bias = table[(table["quantity"] == "squared bias") & (table["tau"] > 1)]
    steps = bias["tau"].to_numpy(dtype=float)
    guide = bias["predicted"].iloc[-1] * ((steps - 1) / (steps[-1] - 1)) ** 2
    ax.plot(steps, guide * 3, color="black", lw=0.8)
    ax.annotate("$(\\tau-1)^2$", (steps[1], guide[1] * 3), xytext=(-6, 3), textcoords="offset points", fontsize=8, ha="right")
    ax.set(xscale="log", yscale="log", xlabel="local steps $\\tau$", ylabel="loss / $f_0$; relative drift; $|\\nabla f|^2$")
    ax.set_title("(i) local steps: drift only where Hessians differ")
    ax.set_xticks(sorted(set(table["tau"])), [f"{tau}" for tau in sorted(set(table["tau"]))])
    ax.minorticks_off()
    ax.set_ylim(top=2e3)
    ax.legend(loc="upper left", fontsize=7)


def _legend(fig: Figure, keys: pd.Series) -> None:
    handles = [
        Line2D([], [], color=look("decomfl").color, label="DeComFL ($H = I$), exact"),
        Line2D([], [], color=look("hiso-oracle").color, label="HiSo with $H$ from the true Hessian, exact"),
        Line2D([], [], color="black", lw=0.8, label="predicted exponent"),
        Line2D([], [], color="grey", marker="o", mec="black", ms=7, linestyle="none",
               label=f"simulated federation, {keys.min()}-{keys.max()} keys, 99.9 % interval"),
    ]  # fmt: skip
    fig.legend(handles=handles, loc="outside upper center", ncols=4)
