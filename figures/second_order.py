"""What a second difference a round buys over DeComFL at equal scalars, at equal forward passes, and along a run.

Reads from a results folder the tables of `synthetic.second_order`:

    second_order.csv (family, angle, geometry, d, arm, target, key, rounds, scalars, forwards; key -1 is exact)
    second_order_curves.csv (family, angle, geometry, d, arm, round, scalars, loss)

Speed-ups divide the exact cost of DeComFL at its best constant step by a key's; a dot is the geometric mean over keys with its
99.9 % interval. A key that does not arrive within the run makes the arm's mark an arrow at the left edge.
"""

from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from figures.style import look, plt, provenance
from hiso_bench.stats import mean_interval

TARGET = 0.01
ARMS = ("safe-step", "curvature-1", "curvature-5", "curvature-block", "hiso")
EXACT = ("decomfl-2P", "oracle", "floor")
CASE = ["family", "angle", "geometry", "d"]
NAMES = {"none": "", "hessian": r", $V\sim\Sigma$", "isotropic": r", $V\sim I$"}
SHOWN = (0.1, 2000.0)


def draw(results: Path, source: str, experiment: str = "second_order") -> Figure:
    """Draw both speed-ups for every case, and two runs.

    Args:
        results: folder with the tables named in the module docstring.
        source: where they came from, printed at the foot.
        experiment: the tables' prefix.

    Returns:
        The figure, not saved.

    Raises:
        FileNotFoundError: where a table is missing.
    """
    table, curves = (pd.read_csv(Path(results) / f"{name}.csv") for name in (experiment, f"{experiment}_curves"))
    part = table[table["target"] == TARGET]
    cases = list(part.groupby(CASE, sort=False))
    fig = plt.figure(figsize=(12.6, 1.6 + 0.42 * len(cases)))
    grid = fig.add_gridspec(2, 3, width_ratios=(1.0, 1.0, 0.85))
    for column, (price, what) in enumerate((("scalars", "scalars"), ("forwards", "forward passes"))):
        ax = fig.add_subplot(grid[:, column])
        _speed_ups(ax, cases, price)
        ax.set_title(f"({'ab'[column]}) at equal {what}")
        ax.set_xlabel(rf"DeComFL's {what} over the method's, to $f/f_0={TARGET:g}$")
        ax.set_yticks(range(len(cases)), [_name(case) for case, _ in cases] if column == 0 else [""] * len(cases))
    for row, (case, lines) in enumerate(curves.groupby(CASE, sort=False)):
        _curves(fig.add_subplot(grid[row, 2]), lines, f"({'cd'[row]}) {_name(case)}")
    title = (
        r"Quadratics from $x_0=1$ in the eigenbasis, $P$ directions and $n_c$ second differences a round, $P+n_c=5$ if not said;"
        "\nDeComFL at its best constant step, exact; second differences at one default setting; "
        f"{part.loc[part['key'] >= 0, 'key'].nunique()} keys, 99.9 % intervals"
    )
    fig.legend(handles=_handles(part), title=title, loc="outside upper center", ncols=4)
    provenance(fig, source)
    return fig


def _handles(part: pd.DataFrame) -> list[Line2D]:
    """An entry for every arm that is drawn, for the floor, and for what did not arrive."""
    shown = [arm for arm in (*ARMS, *EXACT[:-1]) if arm in set(part["arm"])]
    handles = []
    for arm in shown:
        style = look("hiso-oracle" if arm == "oracle" else arm)
        points = style.points() | ({"markerfacecolor": "white"} if arm in EXACT else {})
        handles.append(Line2D([], [], label=style.label + (" (exact)" if arm in EXACT else ""), **points))
    handles.append(Line2D([], [], color="black", linewidth=1.2, label="information floor"))
    arrow = {"marker": "<", "color": "#555555", "linestyle": "none"}
    return [*handles, Line2D([], [], label="at the left edge: some key did not arrive", **arrow)]


def _name(case: tuple) -> str:
    family, angle, geometry, d = case
    turned = "" if not angle else ", Haar rotation" if np.isinf(angle) else rf", turned by {angle:g}"
    return f"{family}, d = {d}{turned}{NAMES[geometry]}"


def _speed_ups(ax: Axes, cases: list, price: str) -> None:
    ax.axvline(1, color="#555555", linewidth=0.9)
    for place, (_, part) in enumerate(cases):
        plain = float(part.loc[part["arm"] == "decomfl", price].iloc[0])
        for number, arm in enumerate((*ARMS, *EXACT)):
            found = part.loc[part["arm"] == arm, price].to_numpy()
            if not len(found):
                continue
            style = look("theory" if arm == "floor" else "hiso-oracle" if arm == "oracle" else arm)
            y = place + 0.095 * (number - 3.5)
            if arm == "floor":
                ax.plot([min(plain / found[0], SHOWN[1])] * 2, [place - 0.42, place + 0.42], color="black", linewidth=1.2)
            elif not np.isfinite(found).all():
                ax.plot([SHOWN[0]], [y], **{**style.points(), "marker": "<"})
            elif len(found) == 1:
                ax.plot(plain / found, [y], **{**style.points(), "markerfacecolor": "white"})
            else:
                middle, low, high = np.exp(mean_interval(np.log(plain / found)))
                ax.errorbar([middle], [y], xerr=[[middle - low], [high - middle]], capsize=2, **style.points())
    ax.set(xscale="log", xlim=SHOWN, ylim=(len(cases) - 0.5, -0.5))
    ax.grid(visible=False, axis="y")
    for place in range(1, len(cases)):
        ax.axhline(place - 0.5, color="#E3E3E3", linewidth=0.6)


def _curves(ax: Axes, lines: pd.DataFrame, title: str) -> None:
    for arm, line in lines.groupby("arm", sort=False):
        if arm in (*ARMS, "decomfl"):
            ax.plot(line["scalars"], line["loss"], label=look(str(arm)).label, **look(str(arm)).line())
    ax.axhline(TARGET, color="#555555", linewidth=0.9)
    ax.set(xscale="log", yscale="log", xlabel="scalars on a client's uplink", ylabel=r"$f/f_0$", title=title)
    ax.set_ylim(TARGET / 2, 3)
    if title.startswith("(c"):
        ax.legend(loc="upper right", fontsize=7)
