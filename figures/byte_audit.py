"""What every method sends: bytes per client and round by direction, beside what the papers charge, and the price of absence.

Reads byte_audit.csv, byte_audit_methods.csv and byte_audit_charges.csv (`paper.byte_audit`). Methods whose messages have the same
bytes share a row. A number that is the same at both dimensions is drawn once, any other twice, pale at the smaller.
"""

from __future__ import annotations

from pathlib import Path
from textwrap import fill
from typing import Any, NamedTuple

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator
from matplotlib.transforms import blended_transform_factory

from figures.style import OKABE_ITO, SHADES, look, plt, provenance
from hiso_bench import records

_SIDE = {"lw": 0, "alpha": 0.07, "zorder": 0}
_NEEDS = {"the exact diagonal of the Hessian": "*", "public inputs of the layers": "†"}
"""What else a client must have -> the sign behind the method's name."""


class Row(NamedTuple):
    """Methods that send the same, and what they send."""

    kind: str
    title: str
    names: str
    methods: tuple[str, ...]
    values: pd.DataFrame
    """Quantity by dimension, ascending; of the federation in which clients are sampled."""


class Mark(NamedTuple):
    """How a quantity is drawn."""

    marker: str
    color: str
    label: str
    y: float
    """Above the middle of its row, in rows."""
    hollow: bool = False

    def style(self) -> dict[str, Any]:
        """For `Axes.plot`."""
        face = "white" if self.hollow else self.color
        return {"ls": "none", "marker": self.marker, "color": self.color, "mfc": face, "mew": 1.3, "ms": 6.5}


_WAYS = {
    "up": Mark("^", OKABE_ITO["blue"], "up", -0.2),
    "down": Mark("v", OKABE_ITO["orange"], "down", 0.03),
    "catch_up": Mark("D", OKABE_ITO["green"], "of the down: catch-up of the absent", 0.26, True),
}
_BOTH = {
    "numbers": Mark("|", OKABE_ITO["black"], "numbers alone, as the papers count", -0.2),
    "messages": Mark("o", OKABE_ITO["vermillion"], "whole messages, as sent", 0.03),
    "seeded": Mark("s", OKABE_ITO["purple"], "numbers, and 4 bytes of seed a direction", 0.26, True),
}


def draw(results: Path, source: str, experiment: str = "byte_audit") -> Figure:
    """Draw the figure.

    Args:
        results: folder with the tables.
        source: where they came from, printed at the foot.
        experiment: their stem.
    """
    folder = Path(results)
    table, about, charges = (records.read(folder / f"{experiment}{part}.csv")[0] for part in ("", "_methods", "_charges"))
    config = records.sidecar(folder / f"{experiment}.csv")["config"]
    rows = grouped(table, about)
    d, clients, sampled = config["federations"][-2]
    fig = plt.figure(figsize=(14, 1.9 + 0.62 * len(rows)))
    left, *axes = fig.subplots(1, 4, width_ratios=(1.5, 1, 1, 1), sharey=True)
    _names(left, rows)
    _marks(axes[0], rows, _WAYS)
    axes[0].set(title="(a) each way", xlabel="bytes per client and round")
    _marks(axes[1], rows, _BOTH)
    _charges(axes[1], rows, charges)
    axes[1].set(title="(b) both ways, and what tables charge", xlabel="bytes per client and round")
    waits = {
        **{
            f"absent {k}": Mark(marker, shade, f"after {k} rounds of absence", y)
            for k, marker, shade, y in zip(config["absent"], "<>", SHADES, (-0.2, 0.03), strict=False)
        },
        "entry": Mark("P", OKABE_ITO["black"], f"newcomer, round {config['rounds']}: base model, all updates", 0.26),
    }
    _marks(axes[2], rows, waits)
    axes[2].set(title="(c) before a client may take part, once", xlabel="bytes to be downloaded")
    for ax, marks in zip(axes, (_WAYS, _BOTH, waits), strict=True):
        handles = [Line2D([], [], label=mark.label, **mark.style()) for mark in marks.values()]
        handles += ax.get_legend_handles_labels()[0]
        ax.legend(handles=handles, loc="lower left", bbox_to_anchor=(-0.03, 1.04), fontsize=7.5, labelspacing=0.3)
    for ax in (left, *axes):
        _sides(ax, rows)
    small = config["federations"][0][0]
    fig.suptitle(
        f"What every method sends: real messages, {clients} clients of which {sampled} are sampled.\n"
        f"Pale: d = {small:,}; full: d = {d:,}; drawn once where the two are equal.",
        fontsize=10.5, x=0.01, ha="left",
    )  # fmt: skip
    provenance(fig, f"{source}; charges: paper/reported/")
    return fig


def grouped(table: pd.DataFrame, about: pd.DataFrame) -> list[Row]:
    """Rows of the figure, scalars first, each kind by its bytes at the larger dimension."""
    part = table[table["sampled"] < table["clients"]]
    wide = part.pivot(index="method", columns=["quantity", "d"], values="value")
    told = about.set_index("method")
    shared = [column for column in wide if column[0] not in ("base", "replay", "state")]
    found = []
    for _, names in wide.groupby(shared, sort=False).groups.items():
        methods = tuple(name for name in about["method"] if name in set(names))
        one = wide.loc[methods[0]].unstack("d")
        values = pd.DataFrame(one).T if one.ndim == 1 else one
        values = values[sorted(values.columns)].T
        values["messages"] = values["up"] + values["down"]
        values["seeded"] = (values["numbers"] + values["seeds"]).where(values["seeds"] > 0)
        # A vector's newcomer needs the model that every message holds.
        values["entry"] = (values["base"] + values["replay"]).where(values["base"] > 0, values["state"])
        values["catch_up"] = values["catch_up"].where(values["catch_up"] > 0)
        listed = ", ".join(name + _sign(told.loc[name, "needs"]) for name in methods)
        found.append(Row(str(told.loc[methods[0], "kind"]), _title(told.loc[methods[0]], values), listed, methods, values))
    return sorted(found, key=lambda row: (row.kind, row.values["messages"].iloc[-1]))


def _sign(needs: Any) -> str:
    return "".join(sign for what, sign in _NEEDS.items() if what in str(needs))


def _title(of: pd.Series, values: pd.DataFrame) -> str:
    """What a client sends in a round, in words."""
    if of["kind"] == "vectors":
        share = values["up"].iloc[-1] / values["down"].iloc[-1]
        return "a vector up, model down" if share > 0.99 else f"{share:.0%} of a vector up, model down"
    slopes, second = int(of["directions"]), int(of["scalars"] - of["directions"])
    said = f"{slopes} {'sign' if of['wire'] == 'sign1' else 'scalar'}{'s' * (slopes > 1)}"
    said += f" and {second} second difference" if second else ""
    return said + (" up, those of every client down" if of["rows"] > 1 else "")


def _names(ax: Axes, rows: list[Row]) -> None:
    """What a row sends, and who sends it."""
    for i, row in enumerate(rows):
        listed = fill(row.names, 88, break_on_hyphens=False)
        ax.text(0.02, i - 0.2, row.title, fontsize=8.5, fontweight="bold", va="bottom", transform=_across(ax))
        ax.text(0.02, i - 0.13, listed, fontsize=6, va="top", color="#444444", transform=_across(ax), linespacing=1.1)
    kinds = {
        "scalars": ("#2A6F97", "scalars: a client needs\nthe base model"),
        "vectors": ("#A33B00", "vectors: every downlink\nis the model"),
    }
    for kind, (colour, text) in kinds.items():
        i = next(i for i, row in enumerate(rows) if row.kind == kind)
        ax.text(0.98, i - 0.42, text, color=colour, fontsize=7.5, ha="right", va="top", transform=_across(ax))
    notes = ["a row: methods whose messages have the same bytes", *(f"{sign} also needs {what}" for what, sign in _NEEDS.items())]
    ax.set_title("\n".join(notes), fontsize=7, color="#444444")
    ax.set_ylim(len(rows) - 0.5, -0.5)
    ax.set(xticks=[], yticks=[])
    ax.spines[:].set_visible(False)


def _across(ax: Axes) -> Any:
    return blended_transform_factory(ax.transAxes, ax.transData)


def _marks(ax: Axes, rows: list[Row], marks: dict[str, Mark]) -> None:
    """Every quantity of every row; at the smaller dimension pale, and once where the dimension does not matter."""
    for i, row in enumerate(rows):
        for name, mark in marks.items():
            small, large = row.values[name].iloc[0], row.values[name].iloc[-1]
            if small != large:
                ax.plot([small, large], [i + mark.y] * 2, color=mark.color, lw=0.8, alpha=0.35, zorder=1)
                ax.plot(small, i + mark.y, alpha=0.4, zorder=2, **mark.style())
            ax.plot(large, i + mark.y, zorder=3, **mark.style())
    ax.set_xscale("log")
    ax.xaxis.set_major_locator(LogLocator(numticks=9))
    ax.grid(axis="y", visible=False)
    ax.tick_params(labelleft=False, left=False)


def _charges(ax: Axes, rows: list[Row], charges: pd.DataFrame) -> None:
    """Lines over the rows of scalars for a charge that has no dimension, stars in its method's row for one that has."""
    scalars = sum(row.kind == "scalars" for row in rows)
    for (_, one), style in zip(charges[charges["d"].isna()].iterrows(), ("--", ":"), strict=True):
        label = f"{one['paper']}'s tables: {one['charged']:.0f} B"
        if pd.notna(one["low"]):
            label += f" (Table 2 prints {one['low']:.0f} to {one['high']:.0f})"
            ax.fill_betweenx([-0.5, scalars - 0.5], one["low"], one["high"], color=OKABE_ITO["yellow"], alpha=0.45, lw=0)
        ax.plot([one["charged"]] * 2, [-0.5, scalars - 0.5], color=OKABE_ITO["black"], ls=style, lw=1.3, label=label)
    sized = charges[charges["d"].notna()].sort_values("d")
    for j, (_, one) in enumerate(sized.iterrows()):
        i = next(i for i, row in enumerate(rows) if one["method"] in row.methods)
        last = j == len(sized) - 1
        style = {"ls": "none", "marker": "*", "color": OKABE_ITO["black"], "mfc": OKABE_ITO["yellow"], "ms": 11}
        label = f"{one['paper']}'s Table 2 for {look(one['method']).label}" if last else None
        ax.plot(one["charged"], i - 0.2, alpha=1 if last else 0.4, label=label, zorder=4, **style)


def _sides(ax: Axes, rows: list[Row]) -> None:
    """A tint for either kind, and lines between rows."""
    scalars = sum(row.kind == "scalars" for row in rows)
    ax.axhspan(-0.5, scalars - 0.5, color=OKABE_ITO["sky"], **_SIDE)
    ax.axhspan(scalars - 0.5, len(rows) - 0.5, color=OKABE_ITO["vermillion"], **_SIDE)
    for i in range(1, len(rows)):
        ax.axhline(i - 0.5, color="#666666" if i == scalars else "#D5D5D5", lw=1 if i == scalars else 0.6, zorder=1)
