"""What exact tests share: cubatures in place of the directions' law, and client quadratics whose moments are known.

On a quadratic a step is a polynomial in the directions, so its expectation is a weighted sum over the nodes of a
cubature. The nodes are the replicate axis of one run: the real code takes a round once, with every node in the place of a
draw.
"""

from __future__ import annotations

import itertools
import math
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from hiso_bench import keys
from hiso_bench.directions import DirectionKey, InjectedDirections
from hiso_bench.federation import Federation, FederationOptions
from hiso_bench.losses import Batch, Loss
from hiso_bench.methods.base import Method
from hiso_bench.points import Layout, Point, cut, joined


class Cubature(NamedTuple):
    """E p(w) = sum_k weights[k] p(nodes[k]) for the polynomials p of the rule."""

    nodes: np.ndarray
    """(N, n), float64."""
    weights: np.ndarray
    """(N,), float64; they sum to one and may be negative."""

    def mean(self, values: np.ndarray) -> np.ndarray:
        """The expectation of a function from its values (N, ...) at the nodes."""
        return np.tensordot(self.weights, values, 1)

    @property
    def tolerance(self) -> float:
        """What rounding may do to a mean of values of order one."""
        return 1e-12 * (1 + float(np.abs(self.weights).sum()))

    def check(self, actual: np.ndarray, expected: np.ndarray) -> None:
        """Raise AssertionError unless the two agree within the tolerance (times the largest expected entry, if above one)."""
        scale = max(1.0, float(np.abs(expected).max()))
        np.testing.assert_allclose(actual, expected, rtol=0, atol=self.tolerance * scale)


def smolyak(n: int) -> Cubature:
    """N(0, I) on R^n, exact to total degree 7, with (4 n^3 - 6 n^2 + 20 n + 3) / 3 nodes (n >= 3).

    Smolyak's sum over the one-dimensional Gauss-Hermite rules Q1, Q3, Q3, Q4 (exact to degree 1, 5, 5, 7) telescopes,
    with D = Q3 - Q1, to 1 + sum_i (Q4 - Q1)_i + sum_{i<j} D_i D_j + sum_{i<j<k} D_i D_j D_k. D weighs +-sqrt(3) by 1/6
    and 0 by -1/3; equal nodes are merged.
    """
    four, four_weights = _hermite(4)
    groups = [(np.zeros((1, n)), 1 - n + math.comb(n, 2) / 9 - math.comb(n, 3) / 27)]
    groups.append((_at(n, 1), -(n - 1) / 18 + math.comb(n - 1, 2) / 54))
    groups.append((_at(n, 2), 1 / 36 - (n - 2) / 108))
    groups.append((_at(n, 3), 1 / 216))
    groups.extend((x * np.eye(n), w) for x, w in zip(four, four_weights, strict=True))
    nodes = np.concatenate([group for group, _ in groups])
    weights = np.concatenate([np.full(len(group), weight) for group, weight in groups])
    return Cubature(nodes[weights != 0], weights[weights != 0])


def gauss_product(n: int, points: int = 4) -> Cubature:
    """N(0, I) on R^n, exact to degree 2 points - 1 in every coordinate, with points^n nodes."""
    nodes, weights = _hermite(points)
    return _power(nodes[:, None], weights, n)


def circles(n: int) -> Cubature:
    """Independent points on n circles of radius sqrt(2) (the sphere at d = 2), exact to degree 7 in each: 8^n nodes in R^(2n)."""
    angles = 2 * np.pi * (np.arange(8) + 0.3) / 8
    return _power(np.sqrt(2) * np.stack([np.cos(angles), np.sin(angles)], axis=1), np.full(8, 1 / 8), n)


def signs(n: int) -> Cubature:
    """Rademacher on R^n: all 2^n sign vectors, exact for every function."""
    return _power(np.array([[-1.0], [1.0]]), np.full(2, 1 / 2), n)


def half_hermite(n: int, freedom: int = 1) -> Cubature:
    """N(0, 1) for functions with a kink at 0: exact to degree 2n - 1 in |x|, times 1 or sign(x); from the moments of |x|.

    With more degrees of freedom |x| is the length of a Gaussian vector of as many coordinates, and its sign is random.
    """
    m = [2 ** (k / 2) * math.gamma((k + freedom) / 2) / math.gamma(freedom / 2) for k in range(2 * n + 1)]
    hankel = np.array([[m[i + j] for j in range(n + 1)] for i in range(n + 1)])
    r = np.linalg.cholesky(hankel).T
    alpha = [r[j, j + 1] / r[j, j] - (r[j - 1, j] / r[j - 1, j - 1] if j else 0.0) for j in range(n)]
    beta = [r[j + 1, j + 1] / r[j, j] for j in range(n - 1)]
    nodes, vectors = np.linalg.eigh(np.diag(alpha) + np.diag(beta, 1) + np.diag(beta, -1))
    weights = vectors[0] ** 2 / 2
    return Cubature(np.concatenate([nodes, -nodes])[:, None], np.concatenate([weights, weights]))


def product(*rules: Cubature) -> Cubature:
    """The product of rules on R^a, R^b, ...: independent parts."""
    nodes = [np.concatenate(parts) for parts in itertools.product(*(rule.nodes for rule in rules))]
    return Cubature(np.array(nodes), np.array([math.prod(parts) for parts in itertools.product(*(r.weights for r in rules))]))


def circle(points: int) -> Cubature:
    """Directions of length 2 at equal angles: orthonormalised, one column uniform on the circle, exact to degree 7."""
    angles = 2 * np.pi * (np.arange(points) + 0.3) / points
    return Cubature(2 * np.stack([np.cos(angles), np.sin(angles)], 1), np.full(points, 1 / points))


def rule_for(law: str, d: int, directions: int) -> Cubature:
    """The rule for independent directions in R^d: degree 7 in all (gaussian) or in each (sphere, d = 2); rademacher is exact."""
    if law == "sphere":
        if d != 2:
            raise ValueError(f"the sphere rule is for d = 2, not {d}")
        return circles(directions)
    return {"gaussian": smolyak, "rademacher": signs}[law](directions * d)


def _hermite(points: int) -> tuple[np.ndarray, np.ndarray]:
    nodes, weights = np.polynomial.hermite_e.hermegauss(points)
    return nodes, weights / weights.sum()


def _at(n: int, count: int) -> np.ndarray:
    """All points with `count` coordinates +-sqrt(3) and zeros elsewhere."""
    which = np.array(list(itertools.combinations(range(n), count)), dtype=int).reshape(-1, count)
    sign = np.array(list(itertools.product([-1.0, 1.0], repeat=count)))
    nodes = np.zeros((len(which), len(sign), n))
    np.put_along_axis(nodes, np.broadcast_to(which[:, None], (*nodes.shape[:2], count)), np.sqrt(3) * sign, axis=2)
    return nodes.reshape(-1, n)


def _power(nodes: np.ndarray, weights: np.ndarray, n: int) -> Cubature:
    index = np.indices((len(nodes),) * n).reshape(n, -1).T
    return Cubature(nodes[index].reshape(len(index), -1), weights[index].prod(1))


class _JoinedQuadratic(Loss):
    def __init__(self, layout: Layout) -> None:
        self._layout = layout

    def __call__(self, x: Point, batch: Batch) -> Tensor:
        hessian, linear = batch
        v = joined(x, self._layout)
        return (((hessian * v.unsqueeze(-2)).sum(-1) / 2 + linear) * v).sum(-1)


class Quadratics:
    """f_i(x) = 1/2 v' S_i v + b_i . v, with v the leaves of x joined: a Hessian and a gradient of its own for every client.

    Args:
        hessians: S_i, (clients, d, d), symmetric.
        linear: b_i, (clients, d).
        start: x_0, (d,).
        leaf_shapes: how v is cut into leaves; one leaf by default.
        replicates: replicate shape.
    """

    name = "quadratics"
    metric = "loss"
    higher_is_better = False

    def __init__(
        self,
        hessians: np.ndarray,
        linear: np.ndarray,
        start: np.ndarray,
        leaf_shapes: tuple[tuple[int, ...], ...] | None = None,
        replicates: tuple[int, ...] = (),
    ) -> None:
        self.hessians, self.linear, self.start = hessians, linear, start
        self.clients = len(hessians)
        self.layout = Layout(leaf_shapes or ((len(start),),), replicates)
        self.loss: Loss = _JoinedQuadratic(self.layout)
        self._batches = torch.from_numpy(hessians), torch.from_numpy(linear)

    @classmethod
    def random(
        cls, key: int, d: int, clients: int = 1, leaf_shapes: tuple[tuple[int, ...], ...] | None = None, diagonal: bool = False
    ) -> Quadratics:
        """Entries of order one from `key`; the Hessians are not diagonal unless asked, and not definite."""
        draw = keys.rng(keys.derive(key, "quadratics"))
        hessians = draw.standard_normal((clients, d, d))
        hessians = (hessians + hessians.transpose(0, 2, 1)) / 2
        if diagonal:
            hessians = hessians * np.eye(d)
        return cls(hessians, draw.standard_normal((clients, d)), draw.standard_normal(d), leaf_shapes)

    @property
    def gradients(self) -> np.ndarray:
        """The gradients of the f_i at x_0, (clients, d)."""
        return self.hessians @ self.start + self.linear

    def replicated(self, *shape: int) -> Quadratics:
        """The same problem with a replicate shape."""
        return Quadratics(self.hessians, self.linear, self.start, self.layout.leaf_shapes, shape)

    def point(self, v: np.ndarray) -> Point:
        """The float64 point whose joined leaves are v, (d,) or (*replicates, d); no replicate axes are added."""
        return cut(torch.as_tensor(v, dtype=torch.float64), self.layout)

    def initial(self) -> Point:
        """x_0 in every replicate."""
        return self.point(np.broadcast_to(self.start, (*self.layout.replicate_shape, len(self.start))).copy())

    def batch(self, client: np.ndarray, round_: int, step: int) -> Batch:
        """(S_i, b_i) of the client of each replicate."""
        return tuple(part[torch.as_tensor(client)] for part in self._batches)

    def evaluate(self, x: Point) -> dict[str, float]:
        """The mean loss over clients and replicates."""
        return {"loss": float(self.loss.each(x, list(zip(*self._batches, strict=True))).mean())}

    def describe(self) -> dict[str, Any]:
        """The options."""
        return {"hessians": self.hessians.tolist(), "linear": self.linear.tolist(), "start": self.start.tolist()}


def some_inputs(x: Point, examples: int, draw: int) -> tuple[Tensor, ...]:
    """Made-up inputs of layers (n,), (*replicates, examples, n): x under random factors that are the same for every replicate."""
    found = []
    for i, leaf in enumerate(x):
        factors = keys.rng(keys.derive(draw, "inputs", leaf=i)).standard_normal((examples, leaf.shape[-1]))
        found.append(leaf.unsqueeze(-2) * torch.from_numpy(factors).to(leaf))
    return tuple(found)


def federation_over(
    rule: Cubature,
    problem: Quadratics,
    method: Method,
    *,
    rounds: int = 1,
    local_steps: int = 1,
    independent: bool = False,
    grid: tuple[int, ...] = (),
) -> Federation:
    """A federation of all the problem's clients with one replicate per node, in float64 up to and including the wire.

    Args:
        rule: on R^(rounds * clients * local_steps * P * d), clients = 1 if directions are shared.
        problem: its replicate shape is replaced by (*grid, N).
        method: its options may carry the axes of `grid`.
        rounds: how many rounds the rule provides for.
        local_steps: tau.
        independent: every client has directions of its own.
        grid: replicate axes in front of the nodes.
    """
    problem = problem.replicated(*grid, len(rule.weights))
    owners = problem.clients if independent else 1
    table = torch.from_numpy(rule.nodes).reshape(
        len(rule.weights), rounds, owners, local_steps, method.perturbations, problem.layout.dimension
    )

    def look_up(key: DirectionKey) -> Point:
        return cut(table[:, key.round, key.client if independent else 0, key.step, key.p], problem.layout)

    options = FederationOptions(sampled=problem.clients, local_steps=local_steps, independent=independent, wire="float64")
    return Federation(problem, method, options, directions=InjectedDirections(problem.layout, look_up))


def take_round(federation: Federation) -> np.ndarray:
    """Run one round; dx (*replicates, d), summed over local steps, as read off the move of x: (before - after) / lr."""
    layout, before = federation.problem.layout, joined(federation.state.x, federation.problem.layout)
    federation.round()
    moved = before - joined(federation.state.x, layout)
    return (moved / torch.as_tensor(federation.method.lr).unsqueeze(-1)).numpy()


def injected(rule: Cubature, method: Method, layout: Layout) -> InjectedDirections:
    """What the method's directions are made from, a node for each replicate: the directions themselves, or their factors.

    Args:
        rule: on R^(P n) for sources of n coordinates; one client, one local step, one round.
        method: decides what its sources are.
        layout: of the point, with the nodes as its replicate axis.
    """
    table, sources = torch.from_numpy(rule.nodes).reshape(len(rule.weights), method.perturbations, -1), []

    def make(of: Layout) -> InjectedDirections:
        sources.append(InjectedDirections(of, lambda key: cut(table[:, key.p % method.perturbations], of)))
        return sources[-1]

    method.directions(layout, make)
    return sources[0]
