"""What a known H buys: zeta and speed against eps, what predicts the rounds, and what a rotation takes away.

Reads `<experiment>_eps.csv` (family, geometry, target, eps, zeta, predicted, rounds, eta, limit; eps infinite is H = I),
`<experiment>_points.csv` (geometry, eps, rounds, low, high, exact: simulated, i^-1.5) and `<experiment>_rotation.csv`.
"""

import json
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter

from figures.style import OKABE_ITO, SHADES, look, plt, provenance

GEOMETRIES = {  # geometry -> (label, colour, line style, marker)
    "none": ("no noise", SHADES[2], "-", "o"),
    "hessian": ("noise $V\\sim\\Sigma$", SHADES[1], (0, (5, 1.5)), "s"),
    "isotropic": ("noise $V\\sim I$, same trace", SHADES[0], (0, (1.5, 1)), "D"),
}
MARKERS = ("o", "s", "D", "^", "v", "P", "X")
NAMES = {"i^-1": "$j^{-1}$", "i^-1.5": "$j^{-1.5}$", "i^-2": "$j^{-2}$"}
RAMP = LinearSegmentedColormap.from_list("ramp", SHADES)


def draw(results: Path, source: str, experiment: str) -> Figure:
    """Draw the figure.

    Args:
        results: folder with the tables named in the module docstring.
        source: where they came from, printed at the foot.
        experiment: the tables' prefix.
    """
    sweep, points, rotation = (pd.read_csv(results / f"{experiment}_{name}.csv") for name in ("eps", "points", "rotation"))
    about = json.loads((results / f"{experiment}_eps.json").read_text())["config"]
    tight, loose = about["targets"]
    families = list(dict.fromkeys(sweep["family"]))
    quiet = sweep[sweep["target"] == tight]
    fig, axes = plt.subplots(2, 3, figsize=(11.4, 7.4))

    _zeta(axes[0, 0], quiet, families, about["dimension"])
    drawn = list(dict.fromkeys(sweep[sweep["target"] == loose]["family"]))
    for ax, family, letter in zip(axes[0, 1:], drawn, "bc", strict=True):
        part = sweep[(sweep["family"] == family) & (sweep["target"] == loose)]
        _speed(ax, part, points if family == "i^-1.5" else points[:0], about, loose)
        ax.set_title(f"({letter}) rounds to $f/f_0$ = {loose}, {NAMES.get(family, family)}")
    axes[0, 1].set_ylabel("rounds, best constant step")
    axes[0, 1].legend(fontsize=6.8, loc="upper left", ncols=2, columnspacing=1.0, handlelength=2.2)

    for ax, measure, letter in ((axes[1, 0], "zeta", "d"), (axes[1, 1], "predicted", "e")):
        _scatter(ax, quiet, families, measure)
        off = np.abs(np.log(quiet["rounds"] / quiet["predicted"]))
        told = "rounds against $\\zeta$" if measure == "zeta" else f"$Z$: {(off <= np.log(2)).mean():.0%} within a factor of 2"
        ax.set_title(f"({letter}) {told} (to $f/f_0$ = {tight})")
    _rotation(axes[1, 2], rotation)
    axes[1, 2].set_title(f"(f) rotated $j^{{-1.5}}$: speed-up to $f/f_0$ = {tight}")
    fig.suptitle(
        f"What a known $H$ buys: d = {about['dimension']}, P = {about['P']}; lines exact, dots simulated with 99.9 % intervals; "
        f"noise tr $V$ = {about['noise']:g} tr $\\Sigma$",
        fontsize=10, x=0.01, ha="left",
    )  # fmt: skip
    for ax in axes.flat:  # what stands inside the axes needs no room around them
        for inside in (ax.get_legend(), *ax.texts):
            if inside is not None:
                inside.set_in_layout(False)
    provenance(fig, source)
    return fig


def _style(i: int, families: list[str]) -> dict:
    return {"color": RAMP(i / (len(families) - 1)), "marker": MARKERS[i]}


def _zeta(ax: Axes, table: pd.DataFrame, families: list[str], d: int) -> None:
    """The whitening rank of S + eps; d at eps = 0 whatever the spectrum."""
    for i, family in enumerate(families):
        part = table[(table["family"] == family) & np.isfinite(table["eps"])]
        ax.plot(part["eps"], part["zeta"], markersize=3.5, lw=1.2, label=NAMES.get(family, family), **_style(i, families))
    ax.axhline(d, **look("theory").line())
    ax.annotate("$d$: $H=\\Sigma$", (8, d), xytext=(0, 4), textcoords="offset points", ha="right", fontsize=7.5)
    ax.set(xscale="log", yscale="log", xlabel=r"$\varepsilon$ in $H=\Sigma+\varepsilon$ (largest eigenvalue 1)")
    ax.set(ylabel=r"whitening rank $\zeta$ (HiSo Eq 16)", title=r"(a) $\zeta$ against $\varepsilon$")
    ax.legend(fontsize=6.8, loc="lower left", title="spectrum", title_fontsize=7)


def _speed(ax: Axes, table: pd.DataFrame, points: pd.DataFrame, about: dict, target: float) -> None:
    """Exact rounds against eps for each noise, H = I at the right edge, and simulated points."""
    d, P = about["dimension"], about["P"]
    edge = 10 * table.loc[np.isfinite(table["eps"]), "eps"].max()
    for geometry, (label, color, linestyle, marker) in GEOMETRIES.items():
        part = table[table["geometry"] == geometry]
        finite = part[np.isfinite(part["eps"])]
        ax.plot(finite["eps"], finite["rounds"], color=color, linestyle=linestyle, label=label)
        best = finite.loc[finite["rounds"].idxmin()]
        ax.plot(best["eps"], best["rounds"], marker="|", ms=11, mew=2, color=color, linestyle="none")
        plain = part[np.isinf(part["eps"])]["rounds"]
        ax.plot(edge, plain, marker="_", ms=13, mew=2, color=color, linestyle="none", clip_on=False)
        mine = points[points["geometry"] == geometry]
        if mine.empty:
            continue
        x = mine["eps"].where(np.isfinite(mine["eps"]), edge)
        reach = np.abs(mine[["low", "high"]].to_numpy().T - mine["rounds"].to_numpy())
        ax.plot(x, mine["exact"], marker=marker, ms=9, mfc="white", color=color, linestyle="none", zorder=4, clip_on=False)
        ax.errorbar(x, mine["rounds"], reach, fmt=".", ms=4, color="black", capsize=3.5, lw=1.3, zorder=5, clip_on=False)
    perfect = np.log(target) / np.log(1 - P / (d + P + 1))
    ax.axhline(perfect, label=r"$H=\Sigma$, no noise", lw=1, **look("theory").line())
    quiet = table[(table["geometry"] == "none") & np.isfinite(table["eps"])]
    ax.plot(quiet["eps"], quiet["predicted"], color=OKABE_ITO["grey"], lw=1, linestyle="-.", label="predicted by $Z$, no noise")
    ax.plot([], [], marker="|", ms=9, mew=2, color="#555555", linestyle="none", label=r"best $\varepsilon$")
    if len(points):
        ax.plot([], [], marker="o", ms=8, mfc="white", mec=SHADES[2], linestyle="none", label="exact, at the simulated rate")
        ax.errorbar([], [], [], fmt=".", ms=4, color="black", capsize=3.5, label="simulated, 99.9 % interval")
    ax.set(xscale="log", yscale="log", xlabel=r"$\varepsilon$ in $H=\Sigma+\varepsilon$")
    ax.set_ylim(quiet["predicted"].min() / 1.4, table["rounds"].max() * 6)
    ticks = [1e-4, 1e-2, 1, edge]
    ax.set_xticks(ticks, ["$10^{-4}$", "$10^{-2}$", "1", "$\\infty$\n($H=I$)"])
    ax.minorticks_off()


def _scatter(ax: Axes, table: pd.DataFrame, families: list[str], measure: str) -> None:
    """Rounds against a measure of H, over families and eps; H = I is blue."""
    for i, family in enumerate(families):
        part = table[table["family"] == family]
        ax.plot(part[measure], part["rounds"], lw=0.7, markersize=3.5, **_style(i, families))
        plain = part[np.isinf(part["eps"])]
        ax.plot(plain[measure], plain["rounds"], marker=MARKERS[i], ms=6, color=look("decomfl").color, linestyle="none")
    ax.plot([], [], marker="o", color=look("decomfl").color, linestyle="none", label="$H=I$ (DeComFL)")
    ax.set(xscale="log", yscale="log", ylabel="rounds, best constant step")
    ax.yaxis.set_minor_formatter(NullFormatter())
    ax.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    ax.yaxis.set_major_formatter("{x:.0f}")
    correlation = np.corrcoef(np.log(table[measure]), np.log(table["rounds"]))[0, 1]
    if measure == "zeta":
        ax.set_xlabel(r"whitening rank $\zeta$")
        place = {"x": 0.03, "y": 0.05, "ha": "left"}
    else:
        ends = np.array([table[measure].min(), table[measure].max()])
        ax.plot(ends, ends, label="rounds = prediction", **look("theory").line())
        ax.fill_between(ends, ends / 2, ends * 2, color="black", alpha=0.06, lw=0, label="within a factor of 2")
        ax.set_xlabel(r"prediction $Z/(2P)\,\ln(f_0/f)$, $Z=\zeta\,\max_j h_j/\sigma_j$ over active modes")
        place = {"x": 0.97, "y": 0.05, "ha": "right"}
    ax.text(s=f"correlation of logs: {correlation:+.2f}", transform=ax.transAxes, fontsize=8, **place)
    ax.legend(fontsize=7, loc="upper right" if measure == "zeta" else "upper left")


def _rotation(ax: Axes, table: pd.DataFrame) -> None:
    """The speed-up of the diagonal of a rotated Hessian over H = I."""
    names = ["0" if a == 0 else f"{a:g}" if np.isfinite(a) else "Haar" for a in table["angle"]]
    style = look("hiso-oracle")
    ax.plot(range(len(table)), table["speed_up"], color=style.color, marker=style.marker, ms=7, linestyle=style.linestyle)
    for i, row in enumerate(table.itertuples()):
        ax.annotate(f"{row.speed_up:.1f}", (i, row.speed_up), xytext=(6, 5), textcoords="offset points", fontsize=8)
    ax.axhline(1, **look("decomfl").line())
    ax.annotate("DeComFL", (0, 1), xytext=(0, 4), textcoords="offset points", fontsize=8, color=look("decomfl").color)
    labels = [f"{name}\n({off:.2g})" for name, off in zip(names, table["off_diagonal"].round(3), strict=True)]
    ax.set_xticks(range(len(table)), labels)
    ax.set_xlabel("angle of every axis, radians\n(norm of $\\Sigma$ off the diagonal / on it)")
    ax.set_ylabel("rounds of $H=I$ / of the best diagonal $H$")
    ax.set(ylim=(0, 1.12 * table["speed_up"].max()), xlim=(-0.3, len(table) - 0.5))
