"""Every recorded comparison of HiSo with DeComFL, paired over keys.

Tables of rounds (`learned_h.ablation`): log(rounds of one arm / rounds of the other) in the mean over a problem's targets, which
is what rates are chosen by, and to the last target; the budget counts where a target was not reached. Tables of curves: the last
accuracy, and the last loss with its sign changed. So a positive number always says that the first arm is better.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from hiso_bench import records

ROUNDS = ("ablation_quadratics", "ablation_networks", "federation_size")
CURVES = {
    "ablation_mnist": ("accuracy", "loss"),
    "fig5_mnist": ("accuracy", "loss"),
    "llm_imdb-opt_sst2": ("whole_accuracy", "whole_loss"),
    "llm_minilm_sst2": ("whole_accuracy", "whole_loss"),
    "llm_tiny-opt_toy-sst2": ("whole_accuracy", "whole_loss"),
}
"""Table -> accuracy and loss. The language models' are those on the whole test part."""
TWICE = "i^-1.5, linear terms 0"
"""The same runs as "i^-1.5, 6/6": with every client sampled linear terms cancel."""
SYNTHETIC = ("ablation_quadratics", "i^-1.5")
"""How tables or problems begin that are no networks: quadratics, and logistic regression on planted data."""


MEAN, LAST = "log rounds, mean of the targets", "log rounds, last target"


class Pair(NamedTuple):
    """One comparison."""

    table: str
    problem: str
    measure: str
    """`MEAN`, `LAST`, "accuracy" or "loss"."""
    values: dict[str, NDArray[np.float64]]
    """arm -> (keys,), more is better; -inf for a run that diverged."""

    @property
    def synthetic(self) -> bool:
        """Whether it is a quadratic or a problem of planted data."""
        return self.table.startswith(SYNTHETIC) or self.problem.startswith(SYNTHETIC)

    def difference(self, first: str, second: str) -> NDArray[np.float64]:
        """(keys,) of two arms, or of two halves of one arm's keys where they are the same arm; keys that both ended."""
        if first == second:
            half = len(self.values[first]) // 2
            one, other = self.values[first][:half], self.values[first][half : 2 * half]
        else:
            one, other = self.values[first], self.values[second]
        ended = np.isfinite(one) & np.isfinite(other)
        return one[ended] - other[ended]


def pairs(results: Path) -> Iterator[Pair]:
    """The comparisons of a results folder.

    Raises:
        records.RecordError: a table is missing or damaged.
    """
    for name in ROUNDS:
        table: Any = records.read(results / f"{name}.csv")[0]
        table["log"] = -np.log(table["rounds"].fillna(table["budget"]).clip(lower=1))
        for problem, own in table[table["problem"] != TWICE].groupby("problem", sort=False):
            for measure, part in ((MEAN, own), (LAST, own[own["target"] == own["target"].min()])):
                wide = part.pivot_table(index="key", columns="arm", values="log")
                yield Pair(name, str(problem), measure, {arm: wide[arm].to_numpy() for arm in wide})
    for name, metrics in CURVES.items():
        table = records.read(results / f"{name}.csv")[0]
        for measure, metric in zip(("accuracy", "loss"), metrics, strict=True):
            own = table[(table["metric"] == metric) & (table["arm"] != "first-order")]
            last = own[own["round"] == own["round"].max()]
            wide = last.pivot(index="key", columns="arm", values="value").fillna(np.inf if measure == "loss" else -np.inf)
            sign = -1.0 if measure == "loss" else 1.0
            yield Pair(name, "", measure, {arm: sign * wide[arm].to_numpy() for arm in wide})
