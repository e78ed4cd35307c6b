"""Claims about what makes HiSo faster: its mechanism, by ablation at recorded rates, and its hyper-parameters."""

from __future__ import annotations

import functools
import math
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from claims.recorded import recorded_table
from hiso_bench.claims import Control, Evidence, Finding, check
from hiso_bench.stats import mean_interval
from hiso_bench.sweeps import Arm
from learned_h import ablation, cases
from vision.mlp import DigitsPerceptron

KEY, KEYS = 20260103, 16
GAIN = (math.log(1.15), math.inf)
"""A gain is a factor of 1.15 in rounds, in logs."""


@functools.cache
def _rates(group: str) -> dict[tuple[str, str], float]:
    """(problem, arm) -> the rate that won the recorded grid."""
    grid = recorded_table(f"{group}_grid", f"the learning rates of {group} are not recorded")
    won = grid[grid["winner"]]
    return {(p, a): lr for p, a, lr in zip(won["problem"], won["arm"], won["lr"], strict=True)}


@functools.cache
def _rounds(problem: str, arm: str) -> NDArray[np.float64]:
    """Rounds to the last target per key at the recorded rate; the budget for a key that does not get there."""
    case = cases.quadratics()[problem]
    chosen = next(a for a in case.arms if a.name == arm)
    found = ablation.run(case, chosen, _rates("ablation_quadratics")[problem, arm], (KEYS,), KEY, case.rounds).rounds(
        case.targets[-1]
    )
    return np.where(np.isnan(found), case.rounds, found)


def _gain(problem: str, arm: str, over: str) -> Evidence:
    """Log of the rounds of one arm over those of another, paired by key."""
    logs = np.log(_rounds(problem, over) / _rounds(problem, arm))
    return Evidence(f"log(rounds of {over} / rounds of {arm}), {problem}", mean_interval(logs), math.nan, GAIN)


def _perceptron() -> cases.Case:
    """Digits with 128 images, for a check of seconds."""
    mlp = cases.networks()["digits MLP"]
    return replace(mlp, make=lambda shape: DigitsPerceptron(examples=128, replicates=shape), targets=(0.1,), rounds=250)


def _network_gain() -> Evidence:
    """The same where no rates are recorded: the better of two, chosen on four keys for each arm and measured on twelve others."""
    case, ends = _perceptron(), []
    for arm in ("hiso", "hiso-scalar"):
        rates = torch.tensor([[0.05], [0.075]], dtype=torch.float64)
        found = ablation.run(case, Arm(arm, arm), rates, (2, KEYS), KEY, case.rounds).rounds(case.targets[-1])
        logs = np.log(np.where(np.isnan(found), case.rounds, found))
        ends.append(logs[logs[:, :4].mean(1).argmin(), 4:])
    return Evidence("log(rounds of hiso-scalar / rounds of hiso), digits MLP", mean_interval(ends[1] - ends[0]), math.nan, GAIN)


@check("C3")
def mechanism() -> Finding:
    """The gain of the learned H over its own mean, where a diagonal has much and where it has little to give."""
    return Finding(
        evidence=(
            _gain("i^-1.5", "hiso", "hiso-scalar"),
            _gain("log-normal", "hiso", "hiso-scalar"),
            _network_gain(),
        ),
        controls=(
            Control("the learned H shuffled over coordinates", "fails", _gain("i^-1.5", "hiso-shuffled", "hiso-scalar")),
            Control("the true diagonal in its place", "holds", _gain("log-normal", "hiso-oracle", "hiso-scalar")),
        ),
        needed="more keys",
    )


SAME = (-math.log(1.5), math.log(1.5))
"""Insensitive: within a factor of 1.5 of the rounds, in logs."""
DEFAULT = {"lr": 1.0, "ema_new": 0.05, "mu": 1e-3, "eps": 1e-8}
QUADRATIC_RATE, MLP_RATE = 0.12, 0.08
"""HiSo's rate, in units of eta* and of itself: about what is best for the default options."""


def _changed(case: cases.Case, method: str, lr: float, changes: list[dict[str, float]], keys: int, **fixed: Any) -> NDArray:
    """Log rounds to the last target with each change of the default, less those of the default: (changes, keys), in one call."""
    settings = [DEFAULT, *(DEFAULT | change for change in changes)]
    columns = {name: torch.tensor([[s[name]] for s in settings], dtype=torch.float64) for name in DEFAULT}
    rates = lr * columns.pop("lr")
    found = ablation.run(case, Arm("changed", method, columns | fixed), rates, (len(settings), keys), KEY, case.rounds)
    rounds = found.rounds(case.targets[-1])
    logs = np.log(np.where(np.isnan(rounds), case.rounds, rounds))
    return logs[1:] - logs[0]


def _told(change: dict[str, float]) -> str:
    return ", ".join(f"{name} x {value:g}" if name == "lr" else f"{name} {value:g}" for name, value in change.items())


@check("C11")
def insensitive() -> Finding:
    """Log rounds after one option is changed, over those of the default, at one learning rate."""
    quadratic = replace(cases.quadratic(600, 100, parameter=1.5), targets=(0.03,))
    small = _perceptron()
    one: list[dict[str, float]] = [
        {"ema_new": 0.1}, {"ema_new": 0.01}, {"mu": 1e-4}, {"mu": 1e-2}, {"eps": 1e-2}, {"lr": 0.5}, {"lr": 4.0},
        {"ema_new": 0.95},
    ]  # fmt: skip
    few: list[dict[str, float]] = [{"ema_new": 0.1}, {"ema_new": 0.01}]
    lr = QUADRATIC_RATE * quadratic.theory
    logs = _changed(quadratic, "hiso", lr, one, 24)
    scalar = _changed(quadratic, "hiso-scalar", lr / 2, few, 24)
    network, its_scalar = (_changed(small, method, MLP_RATE, few, 8) for method in ("hiso", "hiso-scalar"))
    what = "log of rounds over those of the default (ema_new 0.05, mu 1e-3, eps 1e-8), %s, %s"

    def told(values: NDArray, change: dict[str, float], where: str) -> Evidence:
        return Evidence(what % (_told(change), where), mean_interval(values), math.nan, SAME)

    at, net = "i^-1.5, d = 100, HiSo", "digits MLP, HiSo"
    return Finding(
        evidence=(
            *(told(row, change, at) for row, change in zip(logs[:-1], one[:-1], strict=True)),
            *(told(row, change, net) for row, change in zip(network, few, strict=True)),
        ),
        controls=(
            Control("Fig 5's nu = 0.95 in the printed formula", "fails", told(logs[-1], one[-1], at)),
            Control("HiSo -> its mean H, which has no coordinates to learn", "holds", told(scalar[0], few[0], f"{at}, mean H")),
            Control("the same", "holds", told(its_scalar[0], few[0], f"{net}, mean H")),
        ),
        needed="more keys",
    )
