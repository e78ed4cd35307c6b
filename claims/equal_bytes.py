"""The claim about communication that compares with first-order methods which compress: loss at equal bytes, as recorded."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from claims.recorded import needed
from hiso_bench import catalogue, records
from hiso_bench.claims import Control, Evidence, Finding, check
from hiso_bench.equal_bytes import TOTAL, UPLINK, WITH_BASE, Sender
from hiso_bench.stats import mean_interval
from llm.equal_bytes import ARMS as LANGUAGE
from llm.equal_bytes import LanguageSender
from vision.equal_bytes import ARMS as DIGITS
from vision.equal_bytes import CLIENTS, model_bytes

AHEAD = (-math.inf, 0.0)
"""The log of a loss over another's: the first is ahead."""


@dataclass(frozen=True, eq=False)
class Compared:
    """A comparison at equal bytes as recorded.

    Attributes:
        rates: the grid of the tuning keys: arm, lr, count, budget, loss, winner.
        table: the results: arm, lr, count, budget, key, rounds, loss.
    """

    rates: pd.DataFrame
    table: pd.DataFrame

    def best(self, count: str, budget: int, arms: Sequence[str]) -> str:
        """The arm with the smallest loss at a budget on the tuning keys."""
        rates = self.rates
        here = (rates["count"] == count) & (rates["budget"] == budget)
        own: Any = rates[rates["winner"] & here & rates["arm"].isin(list(arms))]
        return str(own.loc[own["loss"].idxmin(), "arm"])

    def losses(self, count: str, budget: int, arm: str) -> NDArray[np.float64]:
        """Losses at a budget, by key.

        Raises:
            ValueError: a key diverged at the chosen rate.
        """
        table: Any = self.table
        own = table[(table["count"] == count) & (table["budget"] == budget) & (table["arm"] == arm)].sort_values("key")
        if own["loss"].isna().any():
            raise ValueError(f"{arm} diverged on a key at the rate chosen for {budget} bytes ({count})")
        return own["loss"].to_numpy()

    def behind(self, count: str, budget: int, arms: Sequence[str], others: Sequence[str]) -> NDArray[np.float64]:
        """Log of the loss of the best of some arms over that of the best of the others, by key."""
        mine, its = self.best(count, budget, arms), self.best(count, budget, others)
        return np.log(self.losses(count, budget, mine) / self.losses(count, budget, its))

    def crossover(self, count: str, arms: Sequence[str], others: Sequence[str]) -> NDArray[np.float64]:
        """Log2 of the bytes from which the arms are behind for good, by key; the ends of the ladder bound it."""
        budgets = sorted(self.table.loc[self.table["count"] == count, "budget"].unique())
        logs = np.array([self.behind(count, b, arms, others) for b in budgets])
        out = []
        for row in logs.T:
            ahead = np.flatnonzero(row <= 0)
            last = int(ahead[-1]) if len(ahead) else 0
            part = 0.0 if last == len(row) - 1 or not len(ahead) else row[last] / (row[last] - row[last + 1])
            low, high = (math.log2(budgets[i]) for i in (last, min(last + 1, len(row) - 1)))
            out.append(low + part * (high - low))
        return np.array(out)

    def at(self, count: str, budget: int, arms: Sequence[str], others: Sequence[str], where: str) -> Evidence:
        """Whether the best of some arms is ahead of the best of the others."""
        mine, its = self.best(count, budget, arms), self.best(count, budget, others)
        what = f"log of the loss of {mine} over that of {its} at {budget:,} bytes ({count}), {where}"
        return Evidence(what, mean_interval(self.behind(count, budget, arms, others)), math.nan, AHEAD)


@functools.cache
def recorded(name: str) -> Compared:
    """A recorded comparison.

    Raises:
        hiso_bench.claims.CannotRunError: one of its tables is missing or damaged.
    """
    with needed():
        rates, table = (records.read(catalogue.RESULTS / f"{name}{part}.csv")[0] for part in ("_rates", ""))
    return Compared(rates, table)


def _names(arms: Sequence[Sender], scalars: bool) -> tuple[str, ...]:
    return tuple(arm.name for arm in arms if arm.scalars == scalars)


LORA = tuple(arm.name for arm in LANGUAGE if isinstance(arm, LanguageSender) and arm.lora_rank and not arm.scalars)


@check("C24")
def equal_bytes() -> Finding:
    """Methods of scalars against the best first-order method, at equal bytes of three counts, on two subjects.

    On the language model the budgets are those at which the first tuning key tells the two apart; it does not at 8 KiB of
    uplink. At 128 KiB both ways the scalars' rounds are over: their loss is an upper bound, which can only speak against
    them. For the same reason nothing is asked there with the base model counted: it costs as much as 130,000 rounds of
    scalars, and FedLoRA pays it as well.
    """
    digits, language = recorded("equal_bytes"), recorded("equal_bytes_llm")
    mine, vectors = (_names(DIGITS, scalars) for scalars in (True, False))
    ours, all_vectors = (_names(LANGUAGE, scalars) for scalars in (True, False))

    def perceptron(count: str, budget: int, others: Sequence[str] = vectors) -> Evidence:
        return digits.at(count, budget, mine, others, "digits perceptron")

    def tiny(count: str, budget: int, others: Sequence[str] = all_vectors) -> Evidence:
        return language.at(count, budget, ours, others, "tiny-opt")

    models = mean_interval(digits.crossover(TOTAL, mine, vectors) - math.log2(CLIENTS * model_bytes()))
    return Finding(
        evidence=(
            Evidence("log2 of the total bytes from which methods of scalars are behind, over those of handing out the base model",
                     models, math.nan, (0.0, math.inf)),
            # 512 bytes of uplink are less than the ten rounds between two evaluations of a method of scalars.
            *(perceptron(UPLINK, 2**i) for i in (10, 14)),
            *(perceptron(TOTAL, 2**i) for i in (12, 15)),
            perceptron(WITH_BASE, 2**15),
            tiny(UPLINK, 2**11),
            *(tiny(TOTAL, 2**i) for i in (13, 15, 17)),
        ),
        controls=(
            Control("dense FedAvg with one local step in place of the best", "holds", perceptron(UPLINK, 2**14, ("fedavg",))),
            Control("the same, all bytes", "holds", perceptron(TOTAL, 2**16, ("fedavg",))),
            Control("tiny-opt, scalars stopped and all of FedLoRA's rounds taken", "fails", tiny(UPLINK, 2**21, LORA)),
        ),
        needed="more keys",
    )  # fmt: skip
