"""What the figures of the papers' tables share: reading `paper.printed`'s tables, names, legends, and the line of origin."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from textwrap import wrap
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from figures.style import SOURCES, look, marked, provenance
from hiso_bench import records

TASKS = {
    "sst2": "SST-2", "qqp": "QQP", "squad": "SQuAD", "cb": "CB", "wsc": "WSC", "wic": "WiC", "rte": "RTE", "boolq": "BoolQ",
    "toy-sst2": "toy-sst2", "toy-qqp": "toy-qqp", "toy-squad": "toy-squad",
}  # fmt: skip
OURS = {"tiny-opt": "tiny-opt (1 M)", "imdb-opt": "imdb-opt (7 M)", "minilm": "MiniLM (23 M)"}
"""Our models and their size in parameters, as `llm.models` has them (tested)."""
_SIGNS = {  # in this order
    "Sigma": "\N{GREEK CAPITAL LETTER SIGMA}", "kappa": "\N{GREEK SMALL LETTER KAPPA}", "zeta": "\N{GREEK SMALL LETTER ZETA}",
    "dx": "\N{GREEK CAPITAL LETTER DELTA}x", "^2": "\N{SUPERSCRIPT TWO}", " = ": "\N{NO-BREAK SPACE}=\N{NO-BREAK SPACE}",
    "Eq ": "Eq\N{NO-BREAK SPACE}", "10 I": "10\N{NO-BREAK SPACE}I",
    "|_\N{GREEK CAPITAL LETTER SIGMA}\N{SUPERSCRIPT TWO}": "|$_\\Sigma^2$",
}  # fmt: skip
"""What stands in the texts of claims, which are plain, and what is drawn for it."""


def read(results: Path, *names: str) -> list[pd.DataFrame]:
    """Tables of `paper.printed`; an empty field stays an empty text in columns of text.

    Raises:
        hiso_bench.records.RecordError: one is missing or was changed.
    """
    return [records.read(Path(results) / f"printed_{name}.csv")[0] for name in names]


def config(results: Path) -> dict[str, Any]:
    """What the tables were made from: the charges of the papers' tables, the recorded comparisons, ..."""
    return records.sidecar(Path(results) / "printed_variance.csv")["config"]


def row(model: str, task: str) -> str:
    """The label of a row."""
    return f"{OURS.get(model, model)}, {TASKS[task]}"


def rows(ax: Axes, labels: Sequence[str], size: float = 7.5) -> None:
    """One labelled row for each of them, the first on top."""
    ax.set_yticks(range(len(labels)), labels, fontsize=size)
    ax.set_ylim(len(labels) - 0.5, -0.5)


def verdict(table: pd.DataFrame, claim: str) -> str:
    """'claim C14: conditional', from the verdicts as they were decided."""
    return f"claim {claim}: {table.loc[table['claim'] == claim, 'verdict'].iloc[0]}"


def method_handles(methods: Sequence[str], source: str = "reported", **labels: str) -> list[Line2D]:
    """Legend entries of methods."""
    return [Line2D([], [], label=labels.get(name, look(name).label), **marked(name, source)) for name in methods]


def source_handles(*sources: str) -> list[Line2D]:
    """Legend entries that say how a printed, a recomputed and a measured number look; in grey, as they are of no method."""
    handles = []
    for source in sources:
        style: dict[str, Any] = marked("fedzo", source) | {"marker": "|" if source == "recomputed" else "o"}
        handles.append(Line2D([], [], label=SOURCES[source], **style))
    return handles


def foot(fig: Figure, results: Path, source: str, ours: bool = True, reported: bool = True, equal: bool = False) -> None:
    """The line of origin: of the tables, and of the printed and the measured numbers where the figure shows such.

    `equal`: the comparison at equal bytes is among those.
    """
    told = config(results)
    more = {told["equal_bytes"]["date"]} if equal and told["equal_bytes"] else set()
    dates = sorted({date for _, date, _ in told["recorded"].values()} | more)
    measured = f"; ours recorded {dates[0]}{f' to {dates[-1]}' if len(dates) > 1 else ''}" if ours and dates else ""
    said = "printed numbers: paper/reported/; " if reported else ""
    provenance(fig, f"{said}claims: results/claims.md{measured}; the rest {source}")


def wrapped(text: str, width: int) -> str:
    """A text of a claim in lines of at most so many letters, its formulas in signs; an equation is not broken."""
    for plain, sign in _SIGNS.items():
        text = text.replace(plain, sign)
    return "\n".join(wrap(text, width))
