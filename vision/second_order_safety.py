"""How often the methods with second differences end above where they began, at ONE setting, on every family of problems here.

Four clients, two of them sampled: quadratics (axis-aligned, rotated, with other Hessians and linear terms per client, with
gradient noise), streaming least squares, logistic regression, non-convex losses, rare tokens and a perceptron on digits; with
one and three local steps, and with clients that drop out. Beside them DeComFL at the best of a grid of constant steps, chosen
for every family and regime on keys of its own: it is tuned and they are not. A run is a key; some hundred rounds show a step
that is too long, not the slow drift of one that is a little too long. The non-convex losses are bounded, so that no run ends at
ten times its start there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from hiso_bench import methods, records
from hiso_bench.experiments import Plan, Profile
from hiso_bench.federation import Federation, FederationOptions
from hiso_bench.methods import Method
from hiso_bench.points import Point
from hiso_bench.problems import Problem
from hiso_bench.theory import spectra
from synthetic.least_squares import LeastSquares
from synthetic.logistic import Logistic
from synthetic.nonconvex import NonConvex
from synthetic.quadratic import Quadratic
from synthetic.rare_tokens import RareTokens
from synthetic.second_order import DEFAULTS
from vision.mlp import DigitsPerceptron

VERSION, KEY, KEYS, TUNING, ROUNDS, D = 1, 6143, 16, 4, 120, 60
CLIENTS, SAMPLED, TENFOLD = 4, 2, 10.0
RATES = tuple(np.geomspace(1e-4, 3, 10))
REGIMES = ((1, 0.0), (3, 0.0), (1, 0.3))
"""Local steps, and the chance that a client drops out."""
TAUGHT = ("safe-step", "curvature-1")


class Family(NamedTuple):
    """A kind of problem and its options, all but the replicates."""

    kind: Callable[..., Any]
    options: dict[str, Any]

    def build(self, replicates: tuple[int, ...]) -> Problem:
        """The problem, with replicates."""
        return self.kind(**self.options, clients=CLIENTS, replicates=replicates, key=KEY)


def quadratic(**options: Any) -> Family:
    """A quadratic of d = 60."""
    return Family(Quadratic, {"dimension": D, **options})


FAMILIES: dict[str, Family] = {
    "quadratic, i^-1": quadratic(parameter=1.0),
    "quadratic, i^-2": quadratic(parameter=2.0),
    "quadratic, flat": quadratic(spectrum_family="flat"),
    "quadratic, 10 spikes": quadratic(spectrum_family="spiked", spikes=10, parameter=1e3),
    "quadratic, one spike": quadratic(spectrum_family="spiked", spikes=1, parameter=1e3),
    "quadratic, log-normal": quadratic(spectrum_family="lognormal", parameter=2.5),
    "quadratic, 4 blocks": quadratic(spectrum_family="blocks", block_sizes=(15,) * 4, block_values=(1.0, 0.1, 0.01, 0.001)),
    "quadratic, i^-2, turned by 0.3": quadratic(parameter=2.0, angle=0.3),
    "quadratic, i^-2, Haar": quadratic(parameter=2.0, angle=np.inf),
    "quadratic, other Hessians": quadratic(parameter=1.5, hessian_spread=1.0, heterogeneity=0.3),
    "quadratic, noise V ~ I": quadratic(parameter=1.5, noise=0.3),
    "quadratic, noise V ~ S": quadratic(parameter=1.5, noise=0.3, noise_geometry="hessian"),
    "quadratic, noise V ~ S, Haar": quadratic(parameter=1.5, noise=0.3, noise_geometry="hessian", angle=np.inf),
    "least squares, 16 examples": Family(LeastSquares, {"spectrum": spectra.power(D, 1.5), "batch": 16}),
    "logistic, all examples": Family(Logistic, {"dimension": D}),
    "logistic, 16 examples, skewed": Family(Logistic, {"dimension": D, "batch_size": 16, "skew": 0.5, "label_noise": 0.1}),
    "non-convex": Family(NonConvex, {"dimension": D, "heterogeneity": 0.1, "hessian_spread": 0.3}),
    "non-convex, noise": Family(NonConvex, {"dimension": D, "noise": 0.3}),
    "rare tokens": Family(RareTokens, {"vocabulary": 16, "width": 4, "skew": 0.5}),
    "rare tokens, 32 pairs": Family(RareTokens, {"vocabulary": 16, "width": 4, "batch_size": 32}),
    "digits perceptron": Family(DigitsPerceptron, {"hidden": 8, "examples": 80}),
    "digits perceptron, 8 images, skewed": Family(
        DigitsPerceptron, {"hidden": 8, "examples": 160, "batch_size": 8, "split": "dirichlet"}
    ),
}


def objective(problem: Problem, x: Point) -> Tensor:
    """The loss whose rise counts, float64 of the replicate shape: f, without what no x can change where that is known."""
    if isinstance(problem, LeastSquares):
        return problem.excess(x)
    if isinstance(problem, (RareTokens, DigitsPerceptron)):
        return problem.objective(x).double()
    if isinstance(problem, NonConvex):
        parts = [problem.client_part(np.array(i)) for i in range(problem.clients)]
        return torch.stack([problem.loss(x, part) for part in parts]).mean(0)
    if isinstance(problem, Logistic):
        return problem.loss(x, torch.from_numpy(problem.signed.reshape(-1, problem.layout.dimension)))
    return problem.loss(x, None)


def ends(family: str, method: Method, tau: int, dropout: float, keys: int, key: int) -> tuple[Tensor, Tensor]:
    """(last loss over first, whether a scalar was not finite) of every run: (..., keys)."""
    rates = torch.as_tensor(method.lr)
    problem = FAMILIES[family].build((*rates.shape[:-1], keys))
    options = FederationOptions(
        sampled=SAMPLED, local_steps=tau, dropout=dropout, key=key, wire="float64", on_divergence="freeze"
    )
    federation = Federation(problem, method, options)
    first = objective(problem, federation.state.x)
    for _ in range(ROUNDS):
        federation.round()
    last = objective(problem, federation.state.x)
    return last / first, ~federation.alive | ~last.isfinite()


def best_rate(family: str, tau: int, dropout: float) -> float:
    """DeComFL's: the least mean end over the tuning keys; a run that is not finite ends at infinity."""
    grid = torch.tensor(RATES, dtype=torch.float64)[:, None]
    last, lost = ends(family, methods.build("decomfl", lr=grid, perturbations=5), tau, dropout, TUNING, KEY + 1)
    return RATES[int(torch.where(lost, torch.inf, last).mean(-1).argmin())]


def rows(family: str) -> Iterator[tuple]:
    """One row per regime and arm."""
    for tau, dropout in REGIMES:
        rate = best_rate(family, tau, dropout)
        arms = [("decomfl", rate, methods.build("decomfl", lr=rate, perturbations=5))]
        arms += [(arm, np.nan, methods.build(DEFAULTS[arm][0], DEFAULTS[arm][1])) for arm in TAUGHT]
        for arm, lr, method in arms:
            last, lost = ends(family, method, tau, dropout, KEYS, KEY)
            above = [int((lost | (last > limit)).sum()) for limit in (1.0, TENFOLD)]
            shown = torch.where(lost, torch.inf, last)
            yield family, tau, dropout, arm, lr, KEYS, *above, int(lost.sum()), float(shown.median()), float(shown.max())


COLUMNS = ["family", "tau", "dropout", "arm", "lr", "runs", "above_start", "above_tenfold", "not_finite", "median", "worst"]


def compute(families: tuple[str, ...] = tuple(FAMILIES)) -> pd.DataFrame:
    """The table: runs, those that end above their start, above ten times it and not finite (counted in all three)."""
    return pd.DataFrame([row for family in families for row in rows(family)], columns=COLUMNS)


class SecondOrderSafety:
    """The table as an `experiments.Experiment`; DeComFL's grid is part of it."""

    name = "second_order_safety"
    profile: Profile = "standard"

    def plan(self) -> Plan:
        """One run of some minutes."""
        return Plan(1, 0, 180.0)

    def tune(self, results: Path, work: Path, jobs: int) -> None:
        """Nothing to choose beforehand."""

    def compare(self, grids: Path, results: Path, work: Path, jobs: int) -> None:
        """Write second_order_safety.csv."""
        config = {
            "families": list(FAMILIES), "key": KEY, "keys": KEYS, "tuning_keys": TUNING, "rounds": ROUNDS, "d": D,
            "rates": [float(rate) for rate in RATES], "regimes": [list(regime) for regime in REGIMES], "arms": list(TAUGHT),
        }  # fmt: skip
        if not records.current(results / "second_order_safety.csv", config, VERSION):
            records.write(compute(), results / "second_order_safety.csv", config, VERSION)


SECOND_ORDER_SAFETY = SecondOrderSafety()
