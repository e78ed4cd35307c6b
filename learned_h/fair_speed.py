"""What "rounds of HiSo to DeComFL's best accuracy" (HiSo's Table 2) measures: runs long enough to level off, many keys.

Digits perceptron (d = 610), 6 clients of which 2 are sampled, Dirichlet 1, 32 images per client, test accuracy every 25 rounds
as in the paper's runs. Every arm has one rate, chosen as in `learned_h.ablation` on the error in place of the loss, and 160 keys:
an arm with one key and the same arm with another are two arms that differ by nothing.

    fair_speed.csv        arm, lr, key, round, accuracy: the best so far on the 359 test images, where it changed and at the end
    fair_speed_grid.csv   every rate that was tried
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from hiso_bench import records
from hiso_bench.stats import Interval, mean_interval
from hiso_bench.summaries import Curves, rounds_to_best_by_key
from learned_h import ablation
from learned_h.ablation import RESULT_KEY, Ablation
from learned_h.arms import HISO, PLAIN
from learned_h.cases import Case
from vision.mlp import DigitsPerceptron

VERSION = 1
KEYS, EVERY, ROUNDS = 160, 25, 800
ARMS = (*PLAIN[:2], HISO[0])
"""DeComFL, DeComFL with twice the directions, and HiSo."""
CASE = "digits MLP, 6/2"
THRESHOLDS = (0.6, 0.7, 0.8, 0.85)
"""Accuracies to which rounds are counted beside those to the best of an arm."""


def _make(replicates: tuple[int, ...]) -> DigitsPerceptron:
    return DigitsPerceptron(6, 8, "dirichlet", batch_size=32, replicates=replicates)


@functools.cache
def cases() -> dict[str, Case]:
    """The one case; its excess is the error on the test images over that at the start."""
    return {
        CASE: Case(
            _make, lambda p, x: 1 - p.accuracy(x), 0.0, ARMS, ROUNDS, 2.0**-9, (0.3, 0.2, 0.15),
            federation={"sampled": 2}, octaves=10, every=EVERY,
        )
    }  # fmt: skip


class FairSpeed(Ablation):
    """The runs as an `experiments.Experiment`."""

    def compare(self, grids: Path, results: Path, work: Path, jobs: int) -> None:
        """Run every arm at its recorded rate on the result keys.

        Raises:
            FloatingPointError: a run diverged.
        """
        grid, about = records.read(grids / f"{self.name}_grid.csv")
        config = self._config() | {"grid": about["sha256"]}
        target, case = results / f"{self.name}.csv", cases()[CASE]
        if records.current(target, config, VERSION):
            return
        problem, rates = case.make(()), dict(grid.loc[grid["winner"], ["arm", "lr"]].itertuples(index=False))
        first = float(case.value(problem, problem.initial()))
        parts = []
        for arm in case.arms:
            excess = ablation.run(case, arm, rates[arm.name], (KEYS,), RESULT_KEY, ROUNDS, stop=False).excess[::EVERY]
            if np.isnan(excess).any():
                raise FloatingPointError(f"{arm.name} diverged at its chosen rate {rates[arm.name]:g}")
            told = np.diff(excess, axis=0, prepend=np.inf) < 0
            told[-1] = True
            rounds, keys = np.nonzero(told)
            about = {"arm": arm.name, "lr": rates[arm.name], "key": keys, "round": EVERY * rounds}
            parts.append(pd.DataFrame(about | {"accuracy": np.round(1 - first * excess[told], 6)}))
        records.write(pd.concat(parts, ignore_index=True), target, config, VERSION)


FAIR_SPEED = FairSpeed("fair_speed", cases, keys=KEYS)


def best_so_far(table: pd.DataFrame) -> Curves:
    """The recorded table as curves; no bytes."""
    wide: Any = {arm: own.pivot(index="key", columns="round", values="accuracy") for arm, own in table.groupby("arm")}
    some = next(iter(wide.values()))
    rounds = np.arange(0, table["round"].max() + EVERY, EVERY)
    values = {arm: own.reindex(columns=rounds).ffill(axis=1).to_numpy() for arm, own in wide.items()}
    return Curves(tuple(some.index), rounds, values, {})


def one_way(of: Curves, arm: str, other: str) -> NDArray[np.float64]:
    """Log of Table 2's speed-up, key by key: other's rounds to its best over the arm's to the same; NaN if not in its budget."""
    return np.log([reached.speedup for reached in rounds_to_best_by_key(of, arm, other)])


def both_ways(of: Curves, arm: str, other: str) -> NDArray[np.float64]:
    """Half the log of Table 2's speed-up, less half that of the other arm over this one: changes its sign with the arms.

    Where one does not get there the budget counts for its rounds.
    """
    logs = []
    for a, b in ((arm, other), (other, arm)):
        found = rounds_to_best_by_key(of, a, b)
        logs.append(np.log([r.speedup_at_most if r.round is None else r.speedup for r in found]))
    return (logs[0] - logs[1]) / 2


def to_thresholds(of: Curves, arm: str, other: str, thresholds: Sequence[float]) -> NDArray[np.float64]:
    """Log of other's rounds over the arm's to each threshold: (thresholds, keys); the budget counts where one is not reached."""

    def rounds(name: str) -> NDArray[np.float64]:
        hit = of.values[name][None] >= np.reshape(thresholds, (-1, 1, 1))
        return np.where(hit.any(-1), of.rounds[hit.argmax(-1)], of.rounds[-1]).astype(float)

    return np.log(rounds(other) / rounds(arm))


def stops(of: Curves, arm: str, patience: int) -> NDArray[np.float64]:
    """The round at which the best accuracy has not risen for `patience` rounds, key by key; the budget where that never was."""
    values = of.values[arm]
    rose = np.diff(values, axis=1, prepend=-np.inf) > 0
    last = np.maximum.accumulate(np.where(rose, of.rounds, 0), axis=1)
    over = of.rounds - last >= patience
    return np.where(over.any(1), of.rounds[over.argmax(1)], of.rounds[-1]).astype(float)


class Null(NamedTuple):
    """One arm against itself, over pairs of its keys: all ordered ones where nothing else is said."""

    one_way: Interval
    """Mean of the log speed-up over the pairs where it is reached; 99.9 %, jackknife over keys."""
    both_ways: Interval
    """Mean of the same both ways, 99.9 %, over pairs no two of which share a key: over all ordered pairs it is 0 by its form."""
    reached: float
    """Share of the pairs where the one has the other's best within the budget."""
    largest: float
    """What 95 % of the speed-ups stay below, as a factor."""


def between_keys(of: Curves, arm: str) -> Null:
    """What Table 2's rule says of two arms that differ by nothing but their keys."""
    values, n = of.values[arm], len(of.keys)
    one = np.full((n, n), np.nan)

    def pairs(shift: int) -> Curves:
        return Curves(of.keys, of.rounds, {"mine": values, "its": np.roll(values, -shift, axis=0)}, {})

    for shift in range(1, n):
        one[np.arange(n), (np.arange(n) + shift) % n] = one_way(pairs(shift), "mine", "its")
    both = both_ways(pairs(1), "mine", "its")[: n - 1 : 2]
    whole = np.nanmean(one)
    # Delete a key with all its pairs; the pseudo-values are as good as independent.
    left = [np.nanmean(np.delete(np.delete(one, k, 0), k, 1)) for k in range(n)]
    pseudo = n * whole - (n - 1) * np.array(left)
    reached = float(np.isfinite(one).sum() / (n * (n - 1)))
    return Null(mean_interval(pseudo), mean_interval(both), reached, float(np.exp(np.nanquantile(one, 0.95))))
