"""HiSo's Figures 1 to 3 as drawings of our own: a path made of keys and lengths, one round of two clients, and who does what.

Reads the tables of `synthetic.schematic`: schematic.csv (round, x, y, key, length) and schematic_round.csv (who, step, x, y, key,
scalar). Every point and number in the drawings is one of a real run of the core in two dimensions.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch

from figures.style import OKABE_ITO, plt, provenance

LOOKS = {
    "client 0": (OKABE_ITO["sky"], "-", "client 1"),
    "client 1": (OKABE_ITO["orange"], "-", "client 2"),
    "everyone": (OKABE_ITO["blue"], "-", "everyone: the averaged scalars"),
}


def draw_path(results: Path, source: str, experiment: str) -> Figure:
    """Figure 1: a zeroth-order path is its start, and a key and a length per step.

    Args:
        results: folder with the tables.
        source: where they came from, printed at the foot.
        experiment: the tables' prefix.
    """
    steps = pd.read_csv(results / f"{experiment}.csv", dtype={"key": str})
    points = steps[["x", "y"]].to_numpy()
    fig, ax = plt.subplots(figsize=(7.2, 4.6))
    _contours(ax, _config(results, experiment), points, clients=1)
    ax.plot(*points.T, "o", color=OKABE_ITO["black"], markersize=4)
    lines = []
    for r in range(1, len(points)):
        _arrow(ax, points[r - 1], points[r], OKABE_ITO["blue"])
        lines.append(f"$x_{r}$:  key {steps['key'][r]}, length {steps['length'][r]:+.3f}")
    for r, point in enumerate(points):
        # An arrow that comes from above on the right ends where the label of the others stands.
        below = r > 0 and (point < points[r - 1] - 0.1).all()
        ax.annotate(f"$x_{r}$", point, xytext=(5, -14 if below else 6), textcoords="offset points", fontsize=11)
    ax.text(
        0.03, 0.97, "\n".join(["all that describes it:", *lines]), transform=ax.transAxes, va="top", fontsize=8, linespacing=1.5,
        bbox={"facecolor": "white", "edgecolor": "#BBBBBB", "boxstyle": "round,pad=0.5"},
    )  # fmt: skip
    ax.set_title("After HiSo, Figure 1: a path of zeroth-order steps is a start, and a key and a length for each step")
    provenance(fig, source)
    return fig


def draw_round(results: Path, source: str, experiment: str) -> Figure:
    """Figure 2: three local steps of two clients along shared directions, the reset, and the replay of averaged scalars.

    Args: as `draw_path`.
    """
    moves = pd.read_csv(results / f"{experiment}_round.csv", dtype={"key": str})
    fig, axes = plt.subplots(1, 2, figsize=(11, 4.6), sharex=True, sharey=True)
    config = _config(results, experiment)
    for ax, shown in zip(axes, (("client 0", "client 1"), ("everyone",)), strict=True):
        _contours(ax, config, moves[["x", "y"]].to_numpy(), clients=config["clients"])
        for who in shown:
            part = moves[moves["who"] == who]
            points = part[["x", "y"]].to_numpy()
            for k in range(1, len(points)):
                width = 3.4 if who == "client 0" else 1.6  # the first steps lie on one line
                _arrow(ax, points[k - 1], points[k], LOOKS[who][0], width)
            ax.plot(*points[1:].T, "o", color=LOOKS[who][0], markersize=4, label=LOOKS[who][2])
        ax.plot(*moves[["x", "y"]].to_numpy()[0], "o", color="black", markersize=5)
        ax.annotate("$x_r$", moves[["x", "y"]].to_numpy()[0], xytext=(6, 5), textcoords="offset points", fontsize=11)
    ends = moves[moves["step"] == moves["step"].max()].set_index("who")[["x", "y"]]
    axes[1].plot(*ends.drop("everyone").T.to_numpy(), "x", color="#555555", label="where the clients had got to")
    axes[1].plot(*ends.drop("everyone").T.to_numpy(), "--", color="#999999", linewidth=0.8)
    axes[1].annotate("$x_{r+1}$: their mean", ends.loc["everyone"], xytext=(8, -12), textcoords="offset points", fontsize=9)
    axes[0].set_title("(a) three local steps each, along shared directions; then both reset to $x_r$")
    axes[1].set_title("(b) three more steps: the same directions, the averaged scalars")
    for ax in axes:
        ax.legend(loc="upper left", frameon=True, framealpha=0.9)
    fig.suptitle("After HiSo, Figure 2: one round of two clients", x=0.01, ha="left", fontsize=10)
    provenance(fig, source)
    return fig


def draw_protocol(results: Path, source: str, experiment: str) -> Figure:
    """Figure 3: what server and clients do in a round, with the scalars of that round.

    Args: as `draw_path`.
    """
    moves = pd.read_csv(results / f"{experiment}_round.csv", dtype={"key": str})
    numbers = {who: part["scalar"].dropna().tolist() for who, part in moves.groupby("who")}
    fig, ax = plt.subplots(figsize=(11, 4.7))
    ax.set(xlim=(0, 11), ylim=(0, 4.7))
    ax.axis("off")
    agreed = "  ".join(f"{g:+.3f}" for g in numbers["everyone"])
    _box(
        ax, (3.1, 3.35), (4.8, 1.2), "Server",
        f"the ledger: round, scalars (directions follow from run key and round)\n... $r-1$: replayed by whoever returns\n"
        f"$r$: $g_k$ = mean of the clients' = {agreed}",
    )  # fmt: skip
    for i, x in enumerate((0.1, 5.65)):
        sent = "  ".join(f"{g:+.3f}" for g in numbers[f"client {i}"])
        _box(
            ax, (x, 0.15), (5.25, 2.1), f"Client {i + 1}",
            "1  replay the missed rounds: $x \\leftarrow x - \\eta\\,g_k\\,H^{-1/2}u_k$, then\n"
            "    $H \\leftarrow (1-\\nu)\\,H + \\nu\\,(\\Delta x^2 + \\epsilon)$: everyone has the same $x$, $H$\n"
            "2  for $k = 1 \\ldots \\tau$:  $u_k$ from the shared key,  $z_k = H^{-1/2}u_k$\n"
            "        $g_k = [f_i(x + \\mu z_k) - f_i(x)]\\,/\\,\\mu$\n"
            "        $x \\leftarrow x - \\eta\\,g_k\\,z_k$     (scratch)\n"
            f"3  reset $x$;  send  $g_k$ =  {sent}",
        )  # fmt: skip
        middle = x + 2.6
        _arrow(ax, (middle - 0.25, 2.3), (4.4 + 1.9 * i, 3.32), LOOKS[f"client {i}"][0])
        _arrow(ax, (4.75 + 1.9 * i, 3.32), (middle + 0.15, 2.3), OKABE_ITO["blue"])
    ax.text(0.15, 3.0, "up: $\\tau P$ scalars", color="#333333", fontsize=9)
    ax.text(0.15, 2.72, "down: the scalars of the rounds it missed", color="#333333", fontsize=9)
    ax.set_title("After HiSo, Figure 3: who does what in a round (two clients, three local steps, $P=1$; the numbers are real)")
    provenance(fig, source)
    return fig


def _config(results: Path, experiment: str) -> dict:
    return json.loads((results / f"{experiment}.json").read_text())["config"]


def _contours(ax: Axes, config: dict, points: np.ndarray, clients: int) -> None:
    """Level lines of the mean loss of the first clients, around the points."""
    low, high = points.min(0) - 0.25, points.max(0) + 0.25
    grid = np.stack(np.meshgrid(np.linspace(low[0], high[0], 120), np.linspace(low[1], high[1], 120)), -1)
    S, c = np.array(config["hessians"])[:clients], np.array(config["minima"])[:clients]
    away = grid[None] - c[:, None, None]
    f = 0.5 * np.einsum("cxyi,cij,cxyj->xy", away, S, away) / clients
    ax.contour(grid[..., 0], grid[..., 1], f, levels=12, colors="#D8D8D8", linewidths=0.7)
    ax.set(xlabel="$x_1$", ylabel="$x_2$")
    ax.grid(False)


def _arrow(ax: Axes, start: Any, end: Any, color: str, width: float = 1.6) -> None:
    style = {"arrowstyle": "-|>", "mutation_scale": 11, "color": color, "linewidth": width, "shrinkA": 2, "shrinkB": 2}
    ax.add_patch(FancyArrowPatch(start, end, **style))


def _box(ax: Axes, corner: tuple[float, float], size: tuple[float, float], title: str, text: str) -> None:
    ax.add_patch(FancyBboxPatch(corner, *size, boxstyle="round,pad=0.04", facecolor="#F6F6F6", edgecolor="#777777"))
    ax.text(corner[0] + 0.1, corner[1] + size[1] - 0.08, title, va="top", fontsize=9.5, fontweight="bold")
    ax.text(corner[0] + 0.1, corner[1] + size[1] - 0.38, text, va="top", fontsize=9, linespacing=1.5)
