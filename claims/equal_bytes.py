"""The claim about communication that compares with first-order methods which compress: loss at equal bytes, as recorded."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hiso_bench import catalogue, records
from hiso_bench.claims import CannotRunError, Control, Evidence, Finding, check
from hiso_bench.stats import mean_interval
from vision.equal_bytes import ARMS, CLIENTS, TOTAL, UPLINK, WITH_BASE

SCALARS = tuple(arm.name for arm in ARMS if arm.scalars)
VECTORS = tuple(arm.name for arm in ARMS if not arm.scalars)
DENSE_MODEL = 4 * 610
AHEAD = (-math.inf, 0.0)
"""The log of a loss over another's: the first is ahead."""


@functools.cache
def _tables() -> tuple[Any, Any]:
    try:
        return records.read(catalogue.RESULTS / "equal_bytes.csv")[0], records.read(catalogue.RESULTS / "equal_bytes_rates.csv")[
            0
        ]
    except records.RecordError as error:
        raise CannotRunError(str(error)) from error


def best(count: str, budget: int, arms: Sequence[str]) -> str:
    """The arm with the smallest loss at a budget on the tuning keys."""
    rates = _tables()[1]
    own = rates[rates["winner"] & (rates["count"] == count) & (rates["budget"] == budget) & rates["arm"].isin(list(arms))]
    return str(own.loc[own["loss"].idxmin(), "arm"])


def losses(count: str, budget: int, arm: str) -> NDArray[np.float64]:
    """Training losses at a budget, by key.

    Raises:
        ValueError: a key diverged at the chosen rate.
    """
    table = _tables()[0]
    own = table[(table["count"] == count) & (table["budget"] == budget) & (table["arm"] == arm)].sort_values("key")
    if own["loss"].isna().any():
        raise ValueError(f"{arm} diverged on a key at the rate chosen for {budget} bytes ({count})")
    return own["loss"].to_numpy()


def behind(count: str, budget: int, others: Sequence[str] = VECTORS) -> NDArray[np.float64]:
    """Log of the loss of the best method of scalars over that of the best of the others, by key."""
    return np.log(losses(count, budget, best(count, budget, SCALARS)) / losses(count, budget, best(count, budget, others)))


def crossover(count: str) -> NDArray[np.float64]:
    """Log2 of the bytes from which the method of scalars is behind for good, by key; the ends of the ladder bound it."""
    budgets = sorted(_tables()[0].query("count == @count")["budget"].unique())
    logs = np.array([behind(count, b) for b in budgets])
    out = []
    for row in logs.T:
        ahead = np.flatnonzero(row <= 0)
        last = int(ahead[-1]) if len(ahead) else 0
        part = 0.0 if last == len(row) - 1 or not len(ahead) else row[last] / (row[last] - row[last + 1])
        out.append(math.log2(budgets[last]) + part * (math.log2(budgets[min(last + 1, len(row) - 1)]) - math.log2(budgets[last])))
    return np.array(out)


@check("C24")
def equal_bytes() -> Finding:
    """Methods of scalars against the best compressed first-order method, at equal bytes of three counts."""

    def at(count: str, budget: int, others: Sequence[str] = VECTORS) -> Evidence:
        mine, its = best(count, budget, SCALARS), best(count, budget, others)
        what = f"log of the training loss of {mine} over that of {its} at {budget:,} bytes ({count})"
        return Evidence(what, mean_interval(behind(count, budget, others)), math.nan, AHEAD)

    models = mean_interval(crossover(TOTAL) - math.log2(CLIENTS * DENSE_MODEL))
    return Finding(
        evidence=(
            Evidence("log2 of the total bytes from which methods of scalars are behind, over those of handing out the base model",
                     models, math.nan, (0.0, math.inf)),
            # 512 bytes of uplink are less than the ten rounds between two evaluations of a method of scalars.
            *(at(UPLINK, 2**i) for i in (10, 14)),
            *(at(TOTAL, 2**i) for i in (12, 15)),
            at(WITH_BASE, 2**15),
        ),
        controls=(
            Control("FedAvg, dense and with one local step, in place of the best", "holds", at(UPLINK, 2**14, ("fedavg",))),
            Control("the same, all bytes", "holds", at(TOTAL, 2**16, ("fedavg",))),
        ),
        needed="more keys",
    )  # fmt: skip
