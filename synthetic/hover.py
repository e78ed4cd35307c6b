"""Does a learned H at worst fall back to DeComFL? Runs on a quadratic without noise, with and without the floor eps.

f(x) = 1/2 sum_j x_j^2 / j, x_0 = 1, where DeComFL converges linearly at every eta < eta*. HiSo's H follows the shrinking
gradient, so eta/h grows until it reaches the stability edge, and there the run hovers. Without eps the map

    (x, H, eta, mu) -> (c x, c^{2/3} H, c^{2/3} eta, c^{4/3} mu)

takes runs to runs, so the level of the hover is proportional to eta^{3/2}; with H = (|g|^2/P)^{1/3} at the edge eta/eta* it
is |g| = sqrt(P) (eta/eta*)^{3/2}. With eps, H tends to eps as the gradient vanishes, and DeComFL's step eta/eps decides.
Rates are in units of eta* of H = 1, and eps in units of eta/eta*.
"""

from __future__ import annotations

import functools
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from hiso_bench import methods, records
from hiso_bench.experiments import Plan, Profile
from hiso_bench.federation import Federation, FederationOptions
from hiso_bench.theory.stability import max_stable_step
from synthetic.quadratic import Quadratic

VERSION = 1
DIMENSION, EXPONENT, P = 50, 1.0, 5
TINY = 1e-8
"""HiSo's default eps; without a unit in the paper it is "a small number"."""


class Arm(NamedTuple):
    """One setting."""

    method: str
    rate: float
    """eta/eta*."""
    eps: float = 0.0
    """In units of eta/eta*; 0 stands for `TINY` itself."""


class Runs(NamedTuple):
    """Curves of one or more arms of a method."""

    rounds: NDArray[np.int64]
    """(n,)."""
    gradient: NDArray[np.float64]
    """|g| in the Euclidean norm, (n, arms, replicates)."""
    edge: NDArray[np.float64]
    """eta over the largest mean-square stable step of the H of that round, (n, arms, replicates)."""


def spectrum() -> NDArray[np.float64]:
    """The Hessian's eigenvalues."""
    return Quadratic(DIMENSION, "power", EXPONENT, clients=1).spectrum


@functools.cache
def limit() -> float:
    """eta* of H = 1."""
    return max_stable_step(spectrum(), 1.0, P)


@functools.cache
def hover(arms: tuple[Arm, ...], rounds: int, every: int, replicates: int, key: int) -> Runs:
    """Run arms of one method in one call. Central differences: exact on a quadratic, so mu adds no floor of its own.

    Raises:
        ValueError: arms of several methods.
    """
    names = {arm.method for arm in arms}
    if len(names) > 1:
        raise ValueError(f"arms {sorted(names)} must be of one method")
    problem = Quadratic(DIMENSION, "power", EXPONENT, clients=1, replicates=(len(arms), replicates))
    lr = limit() * torch.tensor([[arm.rate] for arm in arms], dtype=torch.float64)
    eps = torch.tensor([[arm.eps * arm.rate or TINY] for arm in arms], dtype=torch.float64)
    more = {} if names == {"decomfl"} else {"eps": eps}
    method = methods.build(arms[0].method, lr=lr, perturbations=P, mu=0.1, difference="central", **more)
    federation = Federation(problem, method, FederationOptions(wire="float64", key=key))
    s, shown, sizes, edges = spectrum(), np.arange(0, rounds + 1, every), [], []
    for r in range(rounds + 1):
        if r % every == 0:
            x = federation.state.x[0].numpy()
            h = federation.state.buffers["h"][0].numpy() if "h" in federation.state.buffers else np.ones_like(x)
            sizes.append(np.sqrt(np.square(s * x).sum(-1)))
            steps = [[max_stable_step(s, h[a, k], P) for k in range(replicates)] for a in range(len(arms))]
            edges.append(lr.numpy() / np.array(steps))
        if r < rounds:
            federation.round()
    return Runs(shown, np.array(sizes), np.array(edges))


def speed(runs: Runs, arm: int) -> NDArray[np.float64]:
    """Natural logarithm of |g| per round over the second half of the run, (replicates,): 0 hovers, < 0 converges."""
    n = len(runs.rounds)
    half = slice(n // 2, n)
    return np.polyfit(runs.rounds[half], np.log(runs.gradient[half, arm]), 1)[0]


def level(runs: Runs) -> NDArray[np.float64]:
    """The exponential of the mean of log |g| over the second half of the run, (arms, replicates)."""
    return np.exp(np.log(runs.gradient[len(runs.rounds) // 2 :]).mean(0))


def law(rate: float) -> float:
    """sqrt(P) (eta/eta*)^{3/2}: |g| where (|g|^2/P)^{1/3}, the learned H of a gradient without structure, is eta/eta*."""
    return float(np.sqrt(P) * rate**1.5)


CURVES = (Arm("hiso", 0.3), Arm("hiso", 0.3, 0.8), Arm("hiso", 0.3, 1.2))
PLAIN = (Arm("decomfl", 0.3),)
RATES = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5)
ROUNDS, EVERY, REPLICATES, KEY = 2400, 50, 24, 1


def _table(arms: tuple[Arm, ...]) -> pd.DataFrame:
    """One row per arm, round and replicate."""
    runs = hover(arms, ROUNDS, EVERY, REPLICATES, KEY)
    round_, arm, replicate = (index.ravel() for index in np.indices(runs.gradient.shape))
    about = pd.DataFrame(arms).iloc[arm].reset_index(drop=True)
    rest = {"round": runs.rounds[round_], "replicate": replicate, "gradient": runs.gradient.ravel(), "edge": runs.edge.ravel()}
    return about.assign(**rest)


class Hover:
    """The picture's numbers as an `experiments.Experiment`."""

    name = "hover"
    profile: Profile = "quick"

    def plan(self) -> Plan:
        """One call per method; nothing is tuned, all rates are multiples of eta*."""
        started = time.monotonic()
        hover(CURVES, 50, 50, REPLICATES, KEY)
        return Plan(4, 0, (time.monotonic() - started) / 50 * ROUNDS)

    def tune(self, results: Path, work: Path, jobs: int) -> None:
        """Nothing to tune."""

    def compare(self, grids: Path, results: Path, work: Path, jobs: int) -> None:
        """Write hover.csv (curves) and hover_level.csv (level of the hover against the rate)."""
        settings = {"rounds": ROUNDS, "every": EVERY, "replicates": REPLICATES, "key": KEY, "rates": list(RATES)}
        problem = {"dimension": DIMENSION, "exponent": EXPONENT, "P": P, "tiny": TINY, "eta_star": limit()}
        config, target = settings | problem, results / "hover.csv"
        if records.current(target, config, VERSION):
            return
        still = tuple(Arm("hiso", rate) for rate in RATES)
        level_ = level(hover(still, ROUNDS, EVERY, REPLICATES, KEY))
        rows = [(rate, k, value, law(rate)) for rate, row in zip(RATES, level_, strict=True) for k, value in enumerate(row)]
        levels = pd.DataFrame(rows, columns=["rate", "replicate", "gradient", "law"])
        records.write(levels, results / "hover_level.csv", config, VERSION)
        records.write(pd.concat([_table(CURVES), _table(PLAIN)]), target, config, VERSION)


HOVER = Hover()
