"""Whether our curves lie within the spread of published ones: the interval of a mean of further seeds, and the verdict.

At a round, n published seeds have mean m and deviation s, k of our keys have mean o. Ours lies within the spread if
|o - m| <= t s sqrt(1/n + 1/k), t the 97.5 % point of Student's t with n - 1 degrees of freedom: where the mean of k more of their
seeds would lie with 95 % chance, were seeds normal and independent. Where there is one published seed, s is the deviation of our
k > 1 keys and t has k - 1 degrees of freedom: where their seed would lie, were it one of ours.
A curve is reproduced if that holds at 90 % of its rounds (neighbouring rounds are not independent, and one in twenty misses by
chance) and no run of ours ended early.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from scipy import stats

if TYPE_CHECKING:  # loaded where a table is made
    import pandas as pd

ENOUGH, CHANCE = 0.9, 0.95


def reach(sd: float, seeds: int, ours: Sequence[float]) -> float:
    """T s sqrt(1/n + 1/k): half the width of the interval.

    Args:
        sd: deviation of the published seeds; unused where there is one.
        seeds: n.
        ours: the k values of our keys.

    Returns:
        NaN where there is one of each: no deviation is known.
    """
    n, k = seeds, len(ours)
    if n < 2:
        sd, n, k = float(np.std(ours, ddof=1)) if k > 1 else math.nan, k, n
    return float(stats.t.ppf((1 + CHANCE) / 2, n - 1)) * sd * math.sqrt(1 / n + 1 / k) if n > 1 else math.nan


def verdicts(compared: pd.DataFrame, last: Mapping[str, int], first: int) -> pd.DataFrame:
    """One row per curve: how often it lies within the spread, and what that makes of it.

    Args:
        compared: arm, round, keys, ours, theirs, within, between; a curve that has no row for a round did not reach it.
        last: the last published round that each curve was to reach.
        first: the first round that counts.

    Returns:
        arm, rounds (how many count), within, between (shares of them; within is NaN where no interval is known), rms (of
        ours - theirs), reached, reproduced.
    """
    import pandas as pd

    rows = []
    for arm, part in compared.groupby("arm", sort=False):
        rounds, keys = part["round"].to_numpy(), part["keys"].to_numpy()
        whole = rounds.max() >= last[str(arm)] and (keys == keys.max()).all()
        counts = rounds >= first
        within, between, ours, theirs = (part[c].to_numpy(float)[counts] for c in ("within", "between", "ours", "theirs"))
        rms = float(np.sqrt(((ours - theirs) ** 2).mean()))
        told = (arm, int(counts.sum()), float(within.mean()), float(between.mean()), rms, int(rounds.max()))
        rows.append((*told, bool(whole and within.mean() >= ENOUGH)))
    return pd.DataFrame(rows, columns=["arm", "rounds", "within", "between", "rms", "reached", "reproduced"])
