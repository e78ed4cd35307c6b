"""HiSo's Table 1: its four entries beside the exact forms that they bound, and the evidence of the claims about it.

Reads printed_variance.csv and printed_verdicts.csv (`paper.printed`).
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from figures import printed
from figures.style import OKABE_ITO, SHADES, plt

ENTRIES = {"L d": ("s", "$L\\,d$"), "L kappa": ("D", "$L\\kappa$"), "2 d": ("s", "$2\\,d$"), "zeta": ("D", "$\\zeta$")}
HS = {"Sigma + eps": SHADES[0], "(Sigma + eps)/100": SHADES[1], "L I": SHADES[2]}
_EXACT = {"color": OKABE_ITO["black"], "linestyle": "none", "marker": "|", "markersize": 12, "markeredgewidth": 1.8}
_CLAIMS = ("table1", "table1-title")


def draw(results: Path, source: str, experiment: str = "") -> Figure:
    """Draw the figure.

    Args:
        results: folder with the tables.
        source: where they came from, printed at the foot.
        experiment: not used; the tables have one name.
    """
    variance, verdicts = printed.read(results, "variance", "verdicts")
    evidence = verdicts[verdicts["claim"].isin(_CLAIMS)]
    fig, axes = plt.subplot_mosaic([["u", "z"], ["claims", "claims"]], figsize=(10.5, 7.2), height_ratios=(1.15, 1))
    d = int(variance["d"].iloc[0])
    _entries(axes["u"], variance[variance["law"] == "u"], {"": OKABE_ITO["blue"]})
    axes["u"].set_title(f"(a) $u$: entries $L\\,d$ and $L\\kappa$ ($L$ = 1, $d$ = {d})")
    axes["u"].set_xlabel("$E\\,u^\\top\\Sigma u$ and its entries")
    _entries(axes["z"], variance[variance["law"] == "z"], HS)
    axes["z"].set_title("(b) $z=H^{-1/2}u$: entries $2d$ and $\\zeta$, three $H$")
    axes["z"].set_xlabel("$E\\,z^\\top\\Sigma z$ and its entries")
    axes["z"].tick_params(labelleft=False)
    names = {
        "Sigma + eps": f"$H=\\Sigma+{printed.config(results)['eps']:g}L$",
        "(Sigma + eps)/100": "this $H$ over 100: the same run",
        "L I": "$H=LI$",
    }
    boxed = {"loc": "upper left", "fontsize": 7, "frameon": True, "framealpha": 0.9}
    axes["u"].legend(handles=_handles(["L d", "L kappa"], {}), **boxed)
    axes["z"].legend(
        handles=_handles(["2 d", "zeta"], names), loc="upper left", fontsize=7, ncols=2, frameon=True, framealpha=0.9
    )
    _evidence(axes["claims"], evidence)
    told = "; ".join(printed.verdict(verdicts, claim) for claim in (*_CLAIMS, "eq17"))
    axes["claims"].set_title(
        f"(c) a bound has no ratio above 1: {told}\n"
        "lines: the smallest to the largest case; A4: HiSo's assumption that $H$ is between $\\beta_\\ell I$ and $\\beta_u I$"
    )
    what = "HiSo, Table 1: four bounds of the variance of a zeroth-order gradient, beside the exact forms"
    fig.suptitle(what, fontsize=10.5, x=0.01, ha="left")
    printed.foot(fig, results, source, ours=False, reported=False)
    return fig


def _entries(ax: Axes, table: pd.DataFrame, colours: dict[str, str]) -> None:
    """One row a spectrum; the values of H side by side within it."""
    families = list(dict.fromkeys(table["spectrum"]))
    known = table.assign(H=table["H"].fillna(""))
    for i, family in enumerate(families):
        for j, (h, colour) in enumerate(colours.items()):
            y = i + (j - (len(colours) - 1) / 2) * 0.26
            part = known[(known["spectrum"] == family) & (known["H"] == h)]
            for entry, value in part[["entry", "value"]].itertuples(index=False):
                ax.plot(value, y, marker=ENTRIES[entry][0], mfc="white", mec=colour, mew=1.3, ms=6, linestyle="none")
            ax.plot(part["exact"].iloc[0], y, **_EXACT)
    printed.rows(ax, [f"{family}" for family in families])
    ax.set_ylim(len(families) - 0.5, -2.0)
    ax.set_xscale("log")


def _handles(entries: list[str], names: dict[str, str]) -> list[Line2D]:
    shape = {"linestyle": "none", "markerfacecolor": "white", "markersize": 6}
    handles = [
        Line2D([], [], label=f"entry {ENTRIES[entry][1]}", marker=ENTRIES[entry][0], markeredgecolor="#444444", **shape)
        for entry in entries
    ]
    handles.append(Line2D([], [], label="exact form", **_EXACT))
    return handles + [Line2D([], [], label=label, color=HS[h], lw=3) for h, label in names.items()]


def _evidence(ax: Axes, table: pd.DataFrame) -> None:
    """What the claims measured, with its range, on a logarithmic axis: the limit of a bound is 1."""
    for i, (_, part) in enumerate(table.iterrows()):
        within = part["low"] >= part["allowed_low"] and part["high"] <= part["allowed_high"]
        colour = OKABE_ITO["blue"] if within else OKABE_ITO["vermillion"]
        ax.plot([part["low"], part["high"]], [i, i], color=colour, lw=2)
        ax.plot(part["measured"], i, color=colour, marker="o" if within else "X", ms=7)
    printed.rows(ax, [printed.wrapped(what, 48) for what in table["what"]], 7)
    ax.axvline(1, color=OKABE_ITO["black"], lw=1, linestyle="--")
    ax.set(xscale="log", xlabel="measured / entry (circle: within the bound; cross: above it)")
    ax.set_xlim(right=10 ** np.ceil(np.log10(table["high"].max())))
