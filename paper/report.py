"""The numbers of `report.typ`: verdicts, theory beside measurement, tables beside what was printed, and how to redo figures."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pandas as pd

from hiso_bench import catalogue, drawings
from hiso_bench.quoted import table
from hiso_bench.stats import mean_interval
from hiso_bench.summaries import SHOWN_LEVEL, curves
from paper import learned_h
from paper.sources import SourceError, Sources, interval, number

VERDICTS = ("holds", "conditional", "fails", "undecided", "not_run")
CITED = (
    "eq9", "eq11", "cor1-rounds", "cor1-lipschitz", "cor1-clients", "cor1-dimension", "C7", "C17", "C2", "C5-learned", "padding",
    "information-floor", "C1", "C20", "C14", "C22", "bytes-units", "bytes-decomfl-protocol", "bytes-90-million",
    "bytes-dimension-free", "second-difference", "h-units", "late-joiner", "stability", "preconditioning-noise",
    "C4", "C10", "C18", "C24",
)  # fmt: skip
LANGUAGE = (("tiny-opt", "toy-sst2"), ("imdb-opt", "sst2"), ("minilm", "sst2"))
PRINTED = ("OPT-125M", "OPT-350M", "OPT-1.3B")


def numbers(sources: Sources) -> dict[str, object]:
    """Everything that the text asks for: strings, and tables as lists of rows of strings."""
    claims = sources.claims()
    count = Counter(claim["verdict"] for claim in claims)
    return {
        "count": {kind: str(count[kind]) for kind in VERDICTS} | {"all": str(len(claims))},
        "verdict": {id_: sources.claim(id_)["verdict"] for id_ in CITED},
        "sections": sections(claims),
        "learned": learned_h.verdicts(sources),
        "images": learned_h.images(sources),
        "saved": learned_h.saved(sources) + learned_h.saved_on_networks(sources),
        "language": language(sources),
        "printed": printed(),
        "figures": figures(),
    }


def sections(claims: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Every claim under its topic, in the order of the file: id, source, verdict, predicted, measured, and why."""
    found: dict[str, list[list[str]]] = {}
    for claim in claims:
        found.setdefault(claim["topic"], []).append(row(claim))
    return [{"topic": topic, "rows": rows} for topic, rows in found.items()]


def row(claim: dict[str, Any]) -> list[str]:
    """One claim: id, statement, verdict, headline measured (with its interval) and predicted, and why."""
    head = claim["evidence"][0]
    values = [head[name] for name in ("measured", "low", "high")]
    told = "-"
    if values[0] is not None:
        numbers_ = [float(value) for value in values]
        told = number(numbers_[0], 3) if numbers_[1] == numbers_[2] else interval(*numbers_)
    predicted = "" if head["prediction"] is None else f" (theory {number(float(head['prediction']), 3)})"
    return [claim["id"], claim["statement"], claim["verdict"], told + predicted, head["what"], claim["why"]]


def language(sources: Sources) -> list[list[str]]:
    """Model and task, rounds, keys, accuracy in % before round 0, every arm's last (mean, 95 % over keys), HiSo less its mean."""
    rows = []
    for model, task in LANGUAGE:
        table = sources.table(f"llm_{model}_{task}")
        of = {arm: curves(table, "accuracy", [arm]) for arm in ("decomfl", "hiso", "hiso-scalar", "first-order")}
        if len(of["hiso"].keys) < 2:
            raise SourceError(f"table llm_{model}_{task} holds one key; a comparison needs two")
        last = {arm: 100 * found.values[arm][:, -1] for arm, found in of.items()}
        told = [_spread(values) for values in last.values()]
        paired = interval(*mean_interval(last["hiso"] - last["hiso-scalar"]))
        start = f"{100 * of['hiso'].values['hiso'][:, 0].mean():.1f}"
        rows.append([f"{model}, {task}", str(int(of["hiso"].rounds[-1])), str(len(of["hiso"].keys)), start, *told, paired])
    return rows


def _spread(values: np.ndarray) -> str:
    middle, _, high = mean_interval(values, SHOWN_LEVEL)
    return f"{middle:.1f} ± {high - middle:.1f}"


def printed() -> list[list[str]]:
    """HiSo's Table 3 on SST-2: method, and per model the printed accuracy with its error."""
    cells = table("hiso_table3")
    part = cells[(cells["task"] == "sst2") & (cells["quantity"] == "accuracy")]
    rows = []
    for method, own in part.groupby("method", sort=False):
        by_model = own.set_index("model")
        cells = [_printed(by_model.loc[model]) if model in by_model.index else "-" for model in PRINTED]
        rows.append([str(method), *cells])
    return rows


def _printed(cell: pd.Series) -> str:
    return f"{cell['value']:g}" if pd.isna(cell["error"]) else f"{cell['value']:g} ± {cell['error']:g}"


def figures() -> list[list[str]]:
    """Every figure: name, whether its data are recorded or computed by `make figures`, and the command that makes it alone."""
    rows = []
    for name, entry in drawings.FIGURES.items():
        profile = catalogue.experiment(entry.experiment).profile
        kind = "computed" if profile == "quick" else "recorded"
        again = f"hiso-bench figures {name}" if profile == "quick" else f"hiso-bench results {entry.experiment}"
        rows.append([name, kind, again])
    return rows
