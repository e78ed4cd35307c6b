"""The problems of the ablation: what is minimised, by which arms, within how many rounds, to which targets."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hiso_bench.points import Point
from hiso_bench.problems import Problem
from hiso_bench.sweeps import Arm
from hiso_bench.theory.stability import max_stable_step
from learned_h.arms import ADAPTIVE, HISO, KNOWN, LEAVES, PLAIN, quadratic_arms
from synthetic.logistic import Logistic
from synthetic.quadratic import Quadratic
from synthetic.rare_tokens import RareTokens
from vision.mlp import DigitsPerceptron

OCTAVES = 19


@dataclass(frozen=True, eq=False)
class Case:
    """A problem of the ablation.

    Attributes:
        make: replicate shape -> problem; with one client and no gradient noise in the ablation itself.
        value: (problem, x) -> f(x), replicate-shaped.
        least: f*, or a lower bound of it.
        arms: what runs on it.
        rounds: budget R of a run.
        start: smallest learning rate of the first grid.
        targets: excess, descending.
        tuning_keys: replicates of the tuning key.
        theory: DeComFL's largest mean-square stable step, where it is exact; NaN: it is not.
        federation: options of the federation beside key and wire: clients sampled, drop-out.
        octaves: rates of the first grid.
        every: rounds between two looks at the loss; a first round is known to so many.
    """

    make: Callable[[tuple[int, ...]], Problem]
    value: Callable[[Any, Point], Tensor]
    least: float
    arms: tuple[Arm, ...]
    rounds: int
    start: float
    targets: tuple[float, ...] = (0.3, 0.1, 0.03)
    tuning_keys: int = 3
    theory: float = float("nan")
    federation: Mapping[str, Any] = field(default_factory=dict)
    octaves: int = OCTAVES
    every: int = 1

    def gradient(self, problem: Problem, x: Point) -> Sequence[Tensor]:
        """The gradient of f in every replicate."""
        at = tuple(leaf.detach().clone().requires_grad_() for leaf in x)
        return torch.autograd.grad(self.value(problem, at).sum(), at)


def quadratic(rounds: int, d: int = 300, **options: Any) -> Case:
    """A noise-free quadratic; the grid starts at 2^-10 of its stable step."""
    make = functools.partial(_quadratic, d, options)
    limit = max_stable_step(make(()).spectrum, 1.0, 5)
    return Case(make, _loss, 0.0, quadratic_arms(rounds), rounds, limit * 2.0**-10, theory=limit)


def _quadratic(d: int, options: dict[str, Any], replicates: tuple[int, ...]) -> Quadratic:
    return Quadratic(d, clients=1, replicates=replicates, key=7, **options)


def _loss(problem: Quadratic, x: Point) -> Tensor:
    return problem.loss(x, None)


@functools.cache
def quadratics() -> dict[str, Case]:
    """Axis-aligned spectra from a few large modes to many equal ones, and one turned away from the axes; logistic regression."""
    # H starts at 1, so the unit of f matters to HiSo: two spectra stand here in two units.
    four = {"block_sizes": (75,) * 4, "block_values": (1.0, 10.0, 100.0, 1000.0)}
    four_small = four | {"block_values": (0.001, 0.01, 0.1, 1.0)}
    spikes_small = {"block_sizes": (10, 290), "block_values": (1.0, 0.001)}
    data = functools.partial(Logistic, 100, clients=1, examples=512)
    logistic = data()
    x, limit = logistic.minimiser, max_stable_step(np.linalg.eigvalsh(logistic.hessian(np.zeros(100))), 1.0, 5)
    return {
        "i^-1": quadratic(800, parameter=1.0),
        "i^-1.5": quadratic(1600, parameter=1.5),
        "i^-2": quadratic(1000, parameter=2.0),
        "10 spikes": quadratic(1300, spectrum_family="spiked", parameter=1000.0),
        "log-normal": quadratic(700, spectrum_family="lognormal", parameter=1.0),
        "4 blocks": quadratic(600, spectrum_family="blocks", **four),
        "10 spikes, L = 1": quadratic(1300, spectrum_family="blocks", **spikes_small),
        "4 blocks, L = 1": quadratic(600, spectrum_family="blocks", **four_small),
        "i^-1.5 rotated": quadratic(1500, 150, parameter=1.5, angle=float("inf")),
        "logistic": Case(
            lambda replicates: data(replicates=replicates),
            _on_all_data,
            logistic.value(x),
            quadratic_arms(600),
            600,
            limit * 2.0**-10,
        ),
    }


def _on_all_data(problem: Logistic, x: Point) -> Tensor:
    return problem.loss(x, torch.from_numpy(problem.signed[0]))


@functools.cache
def networks() -> dict[str, Case]:
    """Small smooth networks: digits, the same with features of different scales, and tokens of different frequencies."""
    arms = (*PLAIN, *HISO, *LEAVES, *ADAPTIVE, *KNOWN)

    def case(make: Callable[..., Any], rounds: int, start: float, targets: tuple[float, ...], least: float = 0.0) -> Case:
        return Case(lambda shape: make(replicates=shape), _objective, least, arms, rounds, start, targets, tuning_keys=2)

    digits = functools.partial(DigitsPerceptron, examples=256)
    tokens = functools.partial(RareTokens, vocabulary=32, width=6)
    return {
        "digits MLP": case(digits, 400, 2.0**-11, (0.3, 0.1, 0.05)),
        "digits MLP, scaled features": case(functools.partial(digits, feature_scale=1.5), 600, 2.0**-13, (0.7, 0.5, 0.35)),
        "rare tokens": case(tokens, 500, 2.0**-9, (0.3, 0.1, 0.05), tokens().entropy),
    }


def _objective(problem: Any, x: Point) -> Tensor:
    return problem.objective(x)
