"""How wide is the basin of learning rates of an arm, and does a rate that was tuned in one setting serve in another?

An arm with a wide basin reaches the target in nearly its best rounds at rates that differ by a large factor; the width is
told in octaves, so it does not depend on the unit of the rate. It does depend on what a rate is: an arm that took the square
of its option for the step would have half the width. DeComFL and HiSo both multiply the step by the rate.

The grid of an arm has ratio sqrt(2) and is centred on the arm's own pilot: of rates at ratio 4 over 2^-16..2^6, the first that
brings all pilot keys to the target. All rates and keys of an arm run in one call, on the same directions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hiso_bench.sweeps import Arm
from hiso_bench.theory.recursion import expected_loss
from hiso_bench.theory.stability import max_stable_step
from learned_h.ablation import run
from learned_h.arms import ADAPTIVE, HISO, PLAIN, P
from learned_h.cases import Case, networks, quadratic
from synthetic.quadratic import Quadratic
from vision.mlp import DigitsPerceptron

PILOT_KEY, RESULT_KEY, KEYS, PILOT_KEYS = 105, 5, 8, 2
PILOT = 4.0 ** np.arange(-8, 4)
WITHIN, CAP = 2.0, 3.0
"""A rate is in the basin within so many times the best rounds; runs go on for `CAP` times the best rounds of the slowest key."""
HALF = 10
"""Steps of sqrt(2) to either side of the pilot: three decades."""
MOST = 20_000
"""Rounds of any run: a pilot that needs more has no rate that works."""
SETTLED = 8
"""Power of rounds in the weights of `best_rate`."""
ARMS: tuple[Arm, ...] = (PLAIN[0], *HISO[:2], *ADAPTIVE[:2], Arm("safe-step", "safe-step"))
"""DeComFL, HiSo, HiSo with its mean for H, MEAZO, ZO-RMSProp, and the step that is a fraction of what is safe."""


class Basin(NamedTuple):
    """Rounds of one arm against its rate.

    Attributes:
        rates: ascending, (n,).
        rounds: to each target, (targets, n, keys); NaN where CAP times the best rounds do not suffice, or the run diverged.
    """

    rates: NDArray[np.float64]
    rounds: NDArray[np.float64]


def spectrum_case(s: Sequence[float] | NDArray, targets: tuple[float, ...]) -> Case:
    """The noise-free quadratic with eigenvalues s, from ones; its `theory` is eta* at P = 5."""
    s = np.asarray(s, dtype=np.float64)
    options = {"spectrum_family": "blocks", "block_sizes": (1,) * len(s), "block_values": tuple(s.tolist())}
    return replace(quadratic(MOST, len(s), **options), targets=targets)


def basins() -> dict[str, Case]:
    """Three spectra with largest eigenvalue 1, d = 200, and the digits perceptron (64 images)."""
    j = np.arange(1, 201)
    lognormal = np.sort(Quadratic(200, "lognormal", 1.0, clients=1, key=7).spectrum)[::-1]
    mlp = partial(DigitsPerceptron, examples=64)
    return {
        "i^-1.5": spectrum_case(j**-1.5, (0.1, 0.03)),
        "log-normal": spectrum_case(lognormal / lognormal[0], (0.1, 0.03)),
        "4 blocks": spectrum_case(np.repeat(10.0 ** -np.arange(4), 50), (0.1, 0.03)),
        "digits MLP": replace(networks()["digits MLP"], make=lambda shape: mlp(replicates=shape), targets=(0.3,)),
    }


class _Until:
    """Stop `cap` times the slowest key's rounds after some rate has brought all its keys to the last target."""

    def __init__(self, cap: float) -> None:
        self.cap, self.last = cap, np.inf

    def __call__(self, r: int, arrived: Tensor) -> bool:
        if self.last == np.inf and bool(arrived.all(-1).any()):
            self.last = self.cap * r
        return r >= self.last


def pilot(case: Case, arm: Arm) -> float:
    """The first rate of `PILOT` that brings both pilot keys to the last target.

    Raises:
        ValueError: none does in `MOST` rounds.
    """
    lr = torch.from_numpy(PILOT)[:, None]
    found = run(case, arm, lr, (len(PILOT), PILOT_KEYS), PILOT_KEY, MOST, _Until(1.0)).rounds(case.targets[-1])
    slowest = found.max(-1)
    if np.isnan(slowest).all():
        raise ValueError(f"no rate of {PILOT[0]:.2g}..{PILOT[-1]:.2g} brings {arm.name} to {case.targets[-1]} in {MOST} rounds")
    return float(PILOT[np.nanargmin(slowest)])


def basin(case: Case, arm: Arm, half: int = HALF, keys: int = KEYS, key: int = RESULT_KEY, cap: float = CAP) -> Basin:
    """Rounds to the targets at 2 half + 1 rates of ratio sqrt(2) about the pilot's, all keys in one call."""
    rates = pilot(case, arm) * 2.0 ** (np.arange(-half, half + 1) / 2)
    return Basin(rates, sweep(case, arm, rates, keys, key, cap))


def sweep(case: Case, arm: Arm, rates: NDArray[np.float64], keys: int, key: int, cap: float) -> NDArray[np.float64]:
    """Rounds to the targets (targets, rates, keys), until `cap` times the best; 1 at least."""
    found = run(case, arm, torch.from_numpy(rates)[:, None], (len(rates), keys), key, MOST, _Until(cap))
    return np.maximum(np.stack([found.rounds(target) for target in case.targets]), 1)


def slowdown(rounds: NDArray[np.float64]) -> NDArray[np.float64]:
    """log2 of rounds (rates, keys) over the best rounds, for each key the geometric mean of the other keys' at their best rate.

    A key's own rounds at the best rate would add their noise to its width, as directions differ from rate to rate; and the best
    of many noisy rates, chosen on the same key, would be too good. NaN stays.
    """
    logs = np.log2(rounds)
    means = np.stack([np.delete(np.where(np.isnan(logs), np.inf, logs), k, 1).mean(1) for k in range(logs.shape[1])])
    return logs - means.min(1)


def widths(found: NDArray[np.float64], step: float = 0.5) -> NDArray[np.float64]:
    """Octaves of rates within `WITHIN` times the best rounds, per key.

    Args:
        found: `slowdown`, (rates, keys); linear between rates, and NaN counts as `CAP`.
        step: octaves from one rate to the next.

    Raises:
        ValueError: the basin of a key reaches an end of the grid, so that its width is not known.
    """
    y, edge = np.fmin(np.where(np.isnan(found), np.inf, found), np.log2(CAP)), np.log2(WITHIN)
    if np.any(y[[0, -1]] <= edge):
        raise ValueError("the basin reaches an end of the grid of rates; allowed: a grid that holds it")
    a, b = y[:-1], y[1:]
    low, high = np.minimum(a, b), np.maximum(a, b)
    share = np.where(high <= edge, 1.0, np.clip((edge - low) / np.where(high > low, high - low, 1.0), 0.0, 1.0))
    return step * np.where(low > edge, 0.0, share).sum(0)


def best_rate(rates: NDArray[np.float64], rounds: NDArray[np.float64]) -> NDArray[np.float64]:
    """log2 of the best rate per key: the mean of log2 rate with weights (best / rounds)^8, steadier than the argmin.

    Args:
        rates: (n,).
        rounds: (n, keys), NaN counts as infinity.
    """
    weight = np.where(np.isnan(rounds), 0.0, (np.nanmin(rounds, 0) / rounds) ** SETTLED)
    return (np.log2(rates)[:, None] * weight).sum(0) / weight.sum(0)


def exact_rounds(s: NDArray, rates: NDArray, target: float, perturbations: int = P, most: int = 3000) -> NDArray[np.float64]:
    """DeComFL's rounds until E f = target f(x_0), interpolated; NaN if not within `most` rounds. Cost O(rates rounds d)."""
    out = np.full(len(rates), np.nan)
    for i, eta in enumerate(rates):
        loss = expected_loss(s, 1.0, np.ones(len(s)), float(eta), perturbations, most, 0.0)
        below = np.flatnonzero(loss <= target * loss[0])
        if len(below):
            r = int(below[0])
            logs = np.log(loss[[r - 1, r]] / loss[0])
            out[i] = r - 1 + (logs[0] - np.log(target)) / (logs[0] - logs[1])
    return out


def exact_best(s: NDArray, target: float, perturbations: int = P, most: int = 1500) -> tuple[float, float, float]:
    """DeComFL's best rate and rounds to the target of E f, and eta*: on 25 rates within (0.06, 1) eta*, through a parabola."""
    limit = max_stable_step(s, 1.0, perturbations)
    rates = limit * np.geomspace(0.06, 0.96, 25)
    rounds = exact_rounds(s, rates, target, perturbations, most)
    i = int(np.clip(np.nanargmin(rounds), 1, len(rates) - 2))
    c = np.polyfit(np.log(rates[i - 1 : i + 2]), np.log(rounds[i - 1 : i + 2]), 2)
    at = -c[1] / (2 * c[0])
    return float(np.exp(at)), float(np.exp(np.polyval(c, at))), limit


def rounds_at(case: Case, arm: Arm, lr: float, keys: int, most: int) -> NDArray[np.float64]:
    """Rounds to the last target at one rate, on the result key: (keys,), NaN where `most` rounds do not suffice."""
    return np.maximum(run(case, arm, lr, (keys,), RESULT_KEY, most).rounds(case.targets[-1]), 1)
