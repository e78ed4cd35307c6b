"""Numbers of a comparison: rounds to a target both ways, scores at equal bytes, and differences paired by key."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pandas as pd

from hiso_bench.stats import LEVEL, Interval, mean_interval

SHOWN_LEVEL = 0.95
"""Of intervals over a handful of keys; whether two arms are told apart is decided at `stats.LEVEL`."""


@dataclass(frozen=True, eq=False)
class Curves:
    """One metric of a comparison, larger values being better.

    Attributes:
        keys: of the runs, ascending.
        rounds: int64 (N,), where the runs were evaluated, ascending.
        values: arm -> (keys, N), NaN after a run diverged.
        bytes_sent: arm -> (keys, N), what all clients and the server had sent by then.
    """

    keys: tuple[int, ...]
    rounds: np.ndarray
    values: Mapping[str, np.ndarray]
    bytes_sent: Mapping[str, np.ndarray]

    def mean(self, arm: str) -> np.ndarray:
        """The mean over keys (N,); NaN from where the first of them diverged."""
        return self.values[arm].mean(0)


def curves(frame: pd.DataFrame, metric: str, arms: Sequence[str], higher_is_better: bool = True) -> Curves:
    """The curves of some arms; a metric of which less is better is taken with its sign changed.

    Args:
        frame: arm, key, round, bytes_up, bytes_down, metric, value.
        metric: one of its metrics.
        arms: some of its arms.
        higher_is_better: of the metric.

    Raises:
        ValueError: an arm without this metric.
    """
    part = pd.DataFrame(frame[(frame["metric"] == metric) & frame["arm"].isin(list(arms))])
    part["sent"] = part["bytes_up"] + part["bytes_down"]
    for arm in arms:
        if arm not in set(part["arm"]):
            raise ValueError(f"arm {arm!r} has no {metric!r}; arms with it: {', '.join(sorted(set(part['arm']))) or 'none'}")
    keys, rounds = sorted(set(part["key"])), sorted(set(part["round"]))
    sign = 1.0 if higher_is_better else -1.0
    values, sent = {}, {}
    for arm in arms:
        own = pd.DataFrame(part[part["arm"] == arm])
        for column, into, factor in (("value", values, sign), ("sent", sent, 1.0)):
            wide = own.pivot(index="key", columns="round", values=column)
            into[arm] = factor * wide.reindex(index=keys, columns=rounds).to_numpy(float)
    return Curves(tuple(keys), np.array(rounds), values, sent)


class Reached(NamedTuple):
    """When one arm has what another one reaches at best."""

    target: float
    """The other arm's best value."""
    other_round: int
    """When the other arm has it first."""
    round: int | None
    """When this arm has it first; None if not within its budget."""
    last: int
    """The last round that was looked at: where `round` is None, it is later than this."""

    @property
    def speedup(self) -> float:
        """Rounds of the other arm over rounds of this one; NaN if it never gets there, or both start with it."""
        return self.other_round / self.round if self.round else np.nan

    @property
    def speedup_at_most(self) -> float:
        """What a censored speed-up stays below: the other arm's rounds over the budget."""
        return self.other_round / self.last


def rounds_to_best(of: Curves, arm: str, other: str) -> Reached:
    """Rounds that the mean curve of `arm` needs to the best value of the mean curve of `other` (HiSo's Table 2, either way)."""
    return _reached(of.rounds, of.mean(arm), of.mean(other))


def rounds_to_best_by_key(of: Curves, arm: str, other: str) -> list[Reached]:
    """The same for every key by itself, in the order of `of.keys`."""
    return [_reached(of.rounds, mine, its) for mine, its in zip(of.values[arm], of.values[other], strict=True)]


def _reached(rounds: np.ndarray, mine: np.ndarray, its: np.ndarray) -> Reached:
    if np.isnan(its).all():
        raise ValueError("a run without a single value has no best one")
    best = int(np.nanargmax(its))
    hits = np.flatnonzero(mine >= its[best])  # a NaN reaches nothing
    return Reached(float(its[best]), int(rounds[best]), int(rounds[hits[0]]) if len(hits) else None, int(rounds[-1]))


def at_bytes(of: Curves, arm: str, budget: float) -> np.ndarray:
    """Values (keys,) at the last evaluation by which a run had sent no more than `budget` bytes; NaN where it had diverged."""
    out = []
    for values, sent in zip(of.values[arm], of.bytes_sent[arm], strict=True):
        known = ~np.isnan(sent)
        within = np.flatnonzero(known & (np.where(known, sent, np.inf) <= budget))
        # A run that diverged within the budget has no value at its end.
        ended = not known.all() and within[-1] == np.flatnonzero(known)[-1]
        out.append(np.nan if ended else values[within[-1]])
    return np.array(out)


def least_bytes(of: Curves) -> float:
    """What the most frugal run of those that came to their end sent: the largest budget that is fair to all; 0 if none did."""
    ends = np.concatenate([sent[:, -1] for sent in of.bytes_sent.values()])
    return float(np.nanmin(ends)) if not np.isnan(ends).all() else 0.0


class Paired(NamedTuple):
    """The mean difference of two arms over the keys on which both have a value."""

    keys: int
    interval: Interval
    """Student's, at `SHOWN_LEVEL`; infinite with one key."""
    apart: bool
    """Whether the interval at `stats.LEVEL` leaves out zero."""


def paired(first: np.ndarray, second: np.ndarray) -> Paired:
    """The first minus the second, paired: both (keys,), NaN where a run has no value.

    Raises:
        ValueError: no key has both.
    """
    differences = (np.asarray(first) - np.asarray(second))[~np.isnan(first) & ~np.isnan(second)]
    if not len(differences):
        raise ValueError("no key has a value of both arms")
    if len(differences) == 1:
        return Paired(1, Interval(float(differences[0]), -np.inf, np.inf), False)
    strict = mean_interval(differences, LEVEL)
    return Paired(len(differences), mean_interval(differences, SHOWN_LEVEL), not strict.low <= 0 <= strict.high)
