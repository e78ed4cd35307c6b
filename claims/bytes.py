"""Claims about printed communication: the arithmetic of the papers' tables, from paper/reported/; one has a recorded control."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd

from claims.recorded import recorded_table
from hiso_bench.claims import Control, Evidence, Finding, check
from hiso_bench.quoted import number, printed, table
from hiso_bench.stats import Interval, exact, mean_interval, proportion, span
from learned_h import fair_speed

HISO, DECOMFL = "hiso_text", "decomfl_text"
"""Where the numbers of the papers' texts stand."""
PARAMETERS = {model: number(DECOMFL, f"parameters {model}").value for model in ("OPT-125M", "OPT-1.3B")}
"""What the tables charge a model with, LoRA or not."""
TYPOS = [("OPT-1.3B", "rte"), ("OPT-1.3B", "boolq")]
HISO_BYTES = 2 * int(number(HISO, "perturbations").value) * 4
"""A round of HiSo and DeComFL in HiSo's tables: P scalars of four bytes, up and down."""
DECOMFL_BYTES = 3 * int(number(DECOMFL, "perturbations").value) * 4
"""A round of DeComFL in its own tables: P scalars up, P scalars and P seeds down."""
STEP = 500
"""The rounds that DeComFL's megabytes give are multiples of it."""
FEDZO_MODELS = 0.2
"""A round of FedZO in DeComFL's tables, in models of 4 d bytes: printed nowhere, it is what the terabytes of OPT-125M imply."""
EVALUATION = 25
"""Rounds between evaluations in HiSo's tables."""
FIRST_ORDER = ("fedavg", "fedadam", "fedyogi", "fedadagrad")
ITEMS = 872
"""Sentences of SST-2's validation split."""


def _column(file: str, method: str, quantity: str = "communication") -> Any:
    return printed(file, quantity, method).droplevel("method")


def decomfl_rounds(file: str, corrected: bool = False) -> Any:
    """The rounds that DeComFL's megabytes at P = 5 are, by (model, task), if each costs `DECOMFL_BYTES`.

    `corrected` takes the typos of Table 2 for a tenth of what is printed.
    """
    mega = _column(file, "decomfl-p5").copy()
    if corrected and file == "decomfl_table2":
        mega[TYPOS] /= 10
    return mega * 1e6 / DECOMFL_BYTES


def fedzo_ratios(file: str, corrected: bool = False) -> Any:
    """FedZO's printed number over DeComFL's, P = 5, over its median in the model: both are proportional to the rounds."""
    ratio = _column(file, "fedzo-p5") / decomfl_rounds(file, corrected)
    return ratio / ratio.groupby("model").transform("median")


@check("bytes-decomfl")
def decomfl_table() -> Finding:
    """The megabytes of DeComFL's columns against each other and against FedZO's."""
    files = ("decomfl_table2", "decomfl_lora")
    doubled = pd.concat([_column(f, "decomfl-p10") / _column(f, "decomfl-p5") for f in files])
    rounds = pd.concat([decomfl_rounds(f) for f in files]).drop(TYPOS)
    away = np.abs(rounds / STEP - np.round(rounds / STEP)) * STEP
    plain, lora = (fedzo_ratios(f) for f in files)
    what = "FedZO's number over DeComFL's, over its median in the model, %s"
    same = (0.94, 1.06)  # two printed digits
    return Finding(
        evidence=(
            Evidence(what % "RTE and BoolQ of OPT-1.3B", span(plain[TYPOS]), 1.0, same),
            Evidence(what % "the other 16 rows, LoRA included", span([*plain.drop(TYPOS), *lora]), 1.0, same),
            Evidence("P = 10 over P = 5, 18 rows", span(doubled), 2.0, (2 - 1e-9, 2 + 1e-9)),
            Evidence("rounds from 3 P R 4 bytes, away from a multiple of 500, 16 rows", span(away), 0.0, (0.0, 1e-6)),
        ),
        controls=(
            Control("0.90 MB read as 0.09", "holds",
                    Evidence(what % "those two", span(fedzo_ratios(files[0], True)[TYPOS]), 1.0, same)),
        ),
    )  # fmt: skip


def fedzo_over_arithmetic(file: str, unit: float) -> Any:
    """Printed FedZO traffic in a unit of bytes over `FEDZO_MODELS` R models of 4 d bytes, R from DeComFL's column."""
    rounds = decomfl_rounds(file, corrected=True)
    each = pd.Series({at: 4 * PARAMETERS[at[0]] for at in rounds.index})
    return _column(file, "fedzo-p5") * unit / (FEDZO_MODELS * rounds * each)


def _over_fifth(file: str, model: str, unit: float) -> Interval:
    return span(fedzo_over_arithmetic(file, unit)[model])


@check("bytes-units")
def units() -> Finding:
    """The terabytes of FedZO's columns over the bytes of the transfers that they count."""
    what = "printed TB, as TiB, over 0.2 R models of 4 d bytes, %s"
    same = (0.94, 1.06)
    full, gibi = _over_fifth("decomfl_table2", "OPT-1.3B", 2**40), _over_fifth("decomfl_table2", "OPT-1.3B", 2**30)
    return Finding(
        evidence=(
            Evidence(what % "OPT-1.3B", full, 1.0, same),
            Evidence(what % "OPT-125M", _over_fifth("decomfl_table2", "OPT-125M", 2**40), 1.0, same),
            Evidence(what % "OPT-125M with LoRA, d all of its parameters",
                     _over_fifth("decomfl_lora", "OPT-125M", 2**40), 1.0, same),
        ),
        controls=(Control("TB read as GiB", "holds", Evidence(what % "OPT-1.3B, as GiB", gibi, 1.0, same)),),
    )  # fmt: skip


def hiso_bytes(models: tuple[str, ...]) -> Any:
    """Printed KB of Table 2, in bytes per printed round."""
    both = ("decomfl", "hiso")
    return (
        printed("hiso_table2", "communication", *both)[list(models)]
        * 1024
        / printed("hiso_table2", "rounds", *both)[list(models)]
    )


def as_rounds(kilobytes: Any) -> Any:
    """The rounds of `HISO_BYTES` that printed KB are."""
    return kilobytes * 1024 / HISO_BYTES


def whole_evaluations(kilobytes: Any) -> Any:
    """Whether printed KB are, to their two digits, a whole number of evaluations of `HISO_BYTES` a round: a Series of bool."""
    rounds = np.round(as_rounds(kilobytes) / EVALUATION) * EVALUATION
    return np.abs(rounds * HISO_BYTES / 1024 - kilobytes) <= 0.0051


def multiples_of_25(models: tuple[str, ...]) -> tuple[int, int]:
    """How many scalar cells of Table 3 are a multiple of 25 rounds of 40 bytes to the printed digits, and of how many."""
    kilobytes = printed("hiso_table3", "communication", "decomfl", "hiso")[list(models)]
    return int(whole_evaluations(kilobytes).sum()), len(kilobytes)


def cell_in_words(model: str, task: str, method: str, file: str = "hiso_table3") -> str:
    """A scalar cell as printed, and the rounds that it is: '96.67 KB, 2,474.8 rounds of 40 bytes'."""
    kilobytes = float(printed(file, "communication", method)[(model, task, method)])
    return f"{kilobytes:.2f} KB, {as_rounds(kilobytes):,.1f} rounds of {HISO_BYTES} bytes"


def _times(row: str, over: str, models: tuple[str, ...] | None = None) -> Any:
    both = printed("hiso_table3", "communication", row, over).unstack("method")
    return (both[row] / both[over]).loc[list(models) if models else slice(None)]


@check("C22")
def qqp() -> Finding:
    """HiSo's communication over DeComFL's: on QQP with OPT-1.3B, in Table 3 and in Table 2, and elsewhere."""
    cell, little = ("OPT-1.3B", "qqp"), (0.0, 1.25)
    table3 = _times("hiso", "decomfl")
    table2 = printed("hiso_table2", "communication", "decomfl", "hiso").unstack("method")
    other = exact(table2.loc[cell, "hiso"] / table2.loc[cell, "decomfl"])
    twice = float(printed("hiso_table3", "communication", "hiso")[(*cell, "hiso")] / table2.loc[cell, "hiso"])
    what = "HiSo's KB over DeComFL's, %s, %s"
    ours, theirs = (cell_in_words(*cell, method) for method in ("hiso", "decomfl"))
    return Finding(
        evidence=(
            Evidence(what % ("QQP, OPT-1.3B", f"Table 3 ({ours}, over {theirs})"), exact(table3[cell]), 1.0, little),
            Evidence("HiSo's KB in Table 3 over its KB in Table 2, QQP, OPT-1.3B", exact(twice), 1.0, little),
        ),
        controls=(
            Control("the eight other cells of Table 3", "holds",
                    Evidence(what % ("other cells", "Table 3"), span(table3.drop([cell])), 1.0, little)),
            Control("Table 2 in place of Table 3", "holds",
                    Evidence(what % ("QQP, OPT-1.3B", "Table 2"), other, 1.0, little)),
            *(
                Control("a stated stopping rule, on recorded runs of ours", "holds", stopped(patience, little))
                for patience in (50, 100)
            ),
        ),
    )  # fmt: skip


def stopped(patience: int, allowed: tuple[float, float]) -> Evidence:
    """HiSo's rounds over DeComFL's, each until its best accuracy has not risen for `patience` rounds, paired over keys."""
    of = fair_speed.best_so_far(recorded_table("fair_speed"))
    hiso, decomfl = (fair_speed.stops(of, arm, patience) for arm in ("hiso", "decomfl"))
    ratio = Interval(*map(float, np.exp(mean_interval(np.log(hiso / decomfl)))))
    what = f"HiSo's rounds over DeComFL's until no higher accuracy for {patience} rounds, digits perceptron, {len(hiso)} keys"
    return Evidence(what, ratio, math.nan, allowed)


def millions_of_hiso(*methods: str) -> Any:
    """Traffic over HiSo's in millions, Table 3: a frame by (model, task, method) with columns low and high.

    They span both readings of TB and KB, and what the printed digits leave open.
    """
    tera = printed("hiso_table3", "communication", *methods)
    kilo = printed("hiso_table3", "communication", "hiso").droplevel("method").reindex(tera.index.droplevel("method")).to_numpy()
    low, high = (tera - 0.005) * 1e12 / ((kilo + 0.005) * 1e3), (tera + 0.005) * 2**40 / ((kilo - 0.005) * 2**10)
    return pd.DataFrame({"low": low / 1e6, "high": high / 1e6})


def _millions(methods: tuple[str, ...]) -> Interval:
    """The largest ratio of the methods' traffic to HiSo's, in millions, over all cells."""
    low, high = millions_of_hiso(*methods).max()
    return Interval((low + high) / 2, low, high)


@check("bytes-90-million")
def ninety_million() -> Finding:
    """The largest ratio of Table 3 with first-order methods; with FedZO."""
    what = "millions, largest ratio of %s to HiSo's communication, Table 3, either reading of TB and KB"
    told = number(HISO, "first_order_ratio")
    claimed = (told.low, np.inf)
    return Finding(
        evidence=(Evidence(what % "a first-order method's", _millions(FIRST_ORDER), told.value, claimed),),
        controls=(
            Control("FedZO, which is zeroth-order, in their place", "holds",
                    Evidence(what % "FedZO's", _millions(("fedzo",)), told.value, claimed)),
        ),
    )  # fmt: skip


@check("bytes-savings")
def savings() -> Finding:
    """The smallest and the largest saving over DeComFL in either table, against the printed range."""
    table3 = 100 * (1 - _times("hiso", "decomfl"))
    table2 = printed("hiso_table2", "communication", "decomfl", "hiso").unstack("method")
    table2 = 100 * (1 - table2["hiso"] / table2["decomfl"])
    least, largest = (number(HISO, f"{which}_saving") for which in ("least", "largest"))
    what, claimed = "percent, %s saving over DeComFL, %s", (least.low, largest.high)
    rest = table2.drop([("OPT-350M", "squad")])
    return Finding(
        evidence=(
            Evidence(what % ("smallest", "Table 3"), exact(table3.min()), least.value, claimed),
            Evidence(what % ("largest", "Table 3"), exact(table3.max()), largest.value, claimed),
            Evidence(what % ("smallest", "Table 2"), exact(table2.min()), least.value, claimed),
            Evidence(what % ("largest", "Table 2"), exact(table2.max()), largest.value, claimed),
        ),
        controls=(
            Control("without SQuAD on OPT-350M", "holds",
                    Evidence(what % ("largest", "Table 2"), exact(rest.max()), largest.value, claimed)),
        ),
    )  # fmt: skip


def on_grid(items: int) -> Interval:
    """The share of the committed accuracies that are a whole number of `items`, to float32."""
    values = table("decomfl_scale")["value"].to_numpy()
    return proportion(int((np.abs(np.round(values * items) / items - values) < 2e-7).sum()), len(values))


def consistent(runs: int, values: np.ndarray) -> tuple[int, int]:
    """How many accuracies in percent, of two decimals, can be the mean of `runs` runs scored on all the items."""
    possible = np.round(values / 100 * ITEMS * runs) / (ITEMS * runs) * 100
    return int((np.abs(possible - values) <= 0.005 + 1e-9).sum()), len(values)


@check("bytes-sst2-items")
def sst2_items() -> Finding:
    """Whether printed accuracies can be counts of 872 sentences: DeComFL's committed curves, HiSo's Table 3."""
    cells = table("hiso_table3")
    values = cells[(cells["quantity"] == "accuracy") & (cells["task"] == "sst2")]["value"].to_numpy()
    rng = np.random.default_rng(0)
    made = np.round(rng.integers(700 * 3, 820 * 3, len(values)) / (ITEMS * 3) * 100, 2)
    whole = (0.99, 1.0)

    def share(hits: int, n: int) -> Interval:
        return exact(hits / n)  # the cells are all there are: not a sample

    curve = "share of 320 evaluations that are whole numbers of %d sentences"
    cell = "share of Table 3's 21 SST-2 cells that can be a mean of %d run%s on 872 sentences"
    return Finding(
        evidence=(
            Evidence(curve % ITEMS, on_grid(ITEMS), 1.0, whole),
            *(Evidence(cell % (n, "s" * (n > 1)), share(*consistent(n, values)), 1.0, whole) for n in (1, 2, 3, 5)),
        ),
        controls=(
            Control("14 batches of 64 in place of 872 sentences", "holds",
                    Evidence(curve % 896, on_grid(896), 1.0, (0.97, 1.0))),
            Control("21 made-up means of 3 runs on 872 sentences", "holds",
                    Evidence(cell % (3, "s"), share(*consistent(3, made)), 1.0, whole)),
        ),
    )  # fmt: skip
