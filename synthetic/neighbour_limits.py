"""Where the neighbours cease to be stable, and where they hover, observed: growth of E |x|^2 over real rounds, and long runs.

A method whose step is proportional to g maps x_0 to A x_0, A depending on its directions alone, so rounds from d starts and the
nodes of a rule give E A (x) A and with it the growth of E |x|^2 a round, exactly: no rare run is missed. The observed edge is the
step at which that growth is one. What is kept over a window is a group of nodes: its operator is taken to the power of the
window, then averaged.

The others are run for a long time with many replicates. On |x|^2 / 2 only |g| / eta matters, so eta is 1.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import scipy
import torch
from torch import Tensor

from hiso_bench.directions import DirectionKey, Directions
from hiso_bench.federation import FederationOptions
from hiso_bench.points import Layout, joined
from hiso_bench.stats import Interval, exact, mean_interval, median_interval
from hiso_bench.testing import Cubature, circle, gauss_product, product, smolyak
from synthetic.neighbour_cases import CASES, SHAPE, Case, D, federation, problem

KEY, POOLS, POOL = 17, 12, 1024
WINDOW = 50
LEARNED, LEARNED_ROUNDS = 16, 6000
"""Replicates of a learned H, and the rounds that it learns for: six times 1 / ema_new."""
REPLICATES, SETTLED, ROUNDS = 256, 500, 1500
AROUND = (0.9, 1.1)


def maps(case: Case, rule: Cubature, lr: float, h: Tensor | None = None) -> np.ndarray:
    """A of every node (N, d, d), x_1 = A x_0, from one round of the core with d starts; `h` (d,) in the place of a fresh H."""
    n = len(rule.weights)
    run = federation(Cubature(np.tile(rule.nodes, (D, 1)), np.tile(rule.weights, D) / D), case.build(lr=lr), np.zeros(D))
    layout = run.problem.layout
    run.state.x[0].copy_(torch.from_numpy(np.repeat(np.eye(D), n, 0)).reshape(layout.shape(0)))
    if h is not None:
        run.state.buffers["h"][0].copy_(h.reshape(SHAPE).expand(layout.shape(0)))
    run.round()
    return joined(run.state.x, layout).numpy().reshape(D, n, D).transpose(1, 2, 0)


def growth(A: np.ndarray, rule: Cubature, held: Sequence[int] = (), window: int = 1) -> float:
    """The factor of E |x|^2 a round in the long run, from the first axis; the nodes' coordinates `held` are kept for a window."""
    group = np.unique(rule.nodes[:, held], axis=0, return_inverse=True)[1].ravel() if held else np.zeros(len(A), dtype=int)
    weights = np.bincount(group, rule.weights)
    pairs = np.einsum("n,nij,nkl->nikjl", rule.weights / weights[group], A, A).reshape(len(A), D * D, D * D)
    operators = np.zeros((len(weights), D * D, D * D))
    np.add.at(operators, group, pairs)
    step = np.tensordot(weights, np.linalg.matrix_power(operators, window), 1)
    second, trace = np.eye(D * D)[0], 1.0
    for _ in range(400):
        second = step @ second
        trace = second[:: D + 1].sum()
        second /= trace
    return trace ** (1 / window)


def edge(grows: Callable[[float], float], expected: float) -> float:
    """The step at which growth is one, sought from a twentieth of `expected` to three times it."""
    return float(scipy.optimize.brentq(lambda lr: math.log(grows(lr)), expected / 20, 3 * expected, rtol=1e-9, xtol=1e-12))


def around(case: Case) -> tuple[float, float]:
    """Growth at 0.9 and 1.1 times the predicted step."""
    rule = case.rule()
    low, high = (growth(maps(case, rule, at * case.limit), rule) for at in AROUND)
    return low, high


def run(case: Case, rounds: int = ROUNDS, settled: int = SETTLED, replicates: int = REPLICATES) -> np.ndarray:
    """|x| / eta after every round from `settled` on, (rounds - settled, replicates), from a point of no symmetry."""
    of = problem(np.array([2.0, -1.0, 0.5, 1.5]), (replicates,))
    started = case.build().federate(of, FederationOptions(law=case.law, wire="float64", key=KEY))
    found = []
    for r in range(rounds):
        started.round()
        if r >= settled:
            found.append(joined(started.state.x, of.layout).norm(dim=-1).numpy())
    return np.array(found)


def observed(case: Case) -> Interval:
    """The stable step or the mean |g| / eta of a case; the median at the end where the second moment has no bound."""
    if case.shrinks:
        rule = case.rule()
        return exact(edge(lambda lr: growth(maps(case, rule, lr), rule), case.limit))
    lengths = run(case)
    return median_interval(lengths[-1]) if math.isinf(case.widest) else mean_interval(lengths.mean(0))


class Kept(NamedTuple):
    """A method with what it keeps from round to round.

    Attributes:
        method: registered name.
        what: is kept, in words.
        predicted: stable step or floor; NaN: no formula.
        kind: "eta*" or "floor".
        observe: the same through real rounds.
    """

    method: str
    what: str
    predicted: float
    kind: str
    observe: Callable[[], Interval]


def lozo_edge(window: int, n: int = SHAPE[1], m: int = SHAPE[0]) -> float:
    """LOZO's stable step at rank one: y = X v obeys y <- (I - eta t U U') y with t = |v|^2 for a window, so E rho(t)^window = 1.

    rho(t) = 1 - 2 eta t + (m + 2) eta^2 t^2, t chi-square with n degrees of freedom; what is across v stands still.
    """

    def excess(eta: float) -> float:
        def density(t: float) -> float:
            log = window * math.log(1 - 2 * eta * t + (m + 2) * (eta * t) ** 2) + (n / 2 - 1) * math.log(t) - t / 2
            return math.exp(log - n / 2 * math.log(2) - math.lgamma(n / 2))

        far = 40.0 * (n + window)
        pieces = [scipy.integrate.quad(density, a, b, limit=200)[0] for a, b in ((1e-300, 20), (20, 200), (200, far))]
        return sum(pieces) - 1

    return float(scipy.optimize.brentq(excess, 1e-3 / window, 2 / (m + 2), rtol=1e-10))


def case_of(name: str) -> Case:
    """The first case of a method."""
    return next(case for case in CASES if case.method == name)


def _radial(window: int) -> Cubature:
    """N(0, I) on R^2 for functions of |v|^2 of degree 2 window + 2, times what is of degree 7 in the angle."""
    t, weights = np.polynomial.laguerre.laggauss(window + 2)
    on = circle(8)
    nodes = np.sqrt(t / 2)[:, None, None] * on.nodes  # the circle's length is 2 and |v|^2 is 2 t
    return Cubature(nodes.reshape(-1, 2), np.outer(weights, on.weights).ravel())


def _lozo() -> Interval:
    rule, case = product(gauss_product(2, 3), _radial(WINDOW)), case_of("lozo")
    return exact(edge(lambda lr: growth(maps(case, rule, lr), rule, (2, 3), WINDOW), lozo_edge(WINDOW)))


def _subzero() -> Interval:
    case = case_of("subzero")
    rule = case.rule()
    return exact(edge(lambda lr: growth(maps(case, rule, lr), rule, (0, 1, 2, 3), WINDOW), case.limit))


def _fedkseed() -> Interval:
    case, layout, found = case_of("fedkseed"), Layout((SHAPE,)), []
    for key in range(POOLS):
        source = Directions(layout, KEY + key, dtype=torch.float64)
        pool = np.array([joined(source.draw(DirectionKey(0, 0, k)), layout).numpy() for k in range(POOL)])
        rule = Cubature(pool, np.full(POOL, 1 / POOL))
        found.append(edge(lambda lr, rule=rule: growth(maps(case, rule, lr), rule), case.limit))
    return mean_interval(found)


def _learned(name: str) -> Interval:
    case, rule, found = case_of(name), smolyak(D), []
    of = problem(np.ones(D), (LEARNED,))
    started = case.build(lr=1e-9).federate(of, FederationOptions(wire="float64", key=KEY))
    for _ in range(LEARNED_ROUNDS):
        started.round()
    for h in joined(started.state.buffers["h"], of.layout):
        found.append(edge(lambda lr, h=h: growth(maps(case, rule, lr, h), rule), 0.5))
    return mean_interval(found)


def _remembered(name: str, longer: int = 1) -> Interval:
    kept = tuple(pair for pair in case_of(name).options if pair[0] != "ema_new")
    lengths = run(replace(case_of(name), options=kept), longer * ROUNDS, longer * SETTLED, REPLICATES // longer)
    return mean_interval(lengths.mean(0))


KEPT = (
    Kept("lozo", f"V, for {WINDOW} rounds", lozo_edge(WINDOW), "eta*", _lozo),
    Kept("subzero", f"U and V, for {WINDOW} rounds", case_of("subzero").limit, "eta*", _subzero),
    Kept("fedkseed", f"a pool of {POOL}", case_of("fedkseed").limit, "eta*", _fedkseed),
    Kept("hizoo", "H, learned", 1.0, "eta*", lambda: _learned("hizoo")),
    Kept("hizoo-stein", "H, learned", case_of("hizoo-stein").limit, "eta*", lambda: _learned("hizoo-stein")),
    Kept("meazo", "v, with ema_new = 0.05", math.nan, "floor", lambda: _remembered("meazo")),
    Kept("zo-rmsprop", "v, with ema_new = 0.05", math.nan, "floor", lambda: _remembered("zo-rmsprop")),
    Kept("zo-adam", "m and v, with ema_new = 0.001", math.nan, "floor", lambda: _remembered("zo-adam", 8)),
)
"""`hizoo` learns H = (1 + d/2) S, whose stable step 2 (1 + d/2) / (d + 2) is 1; `hizoo-stein` learns H = S = I."""
