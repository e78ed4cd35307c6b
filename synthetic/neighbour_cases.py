"""One round of every registered neighbour at one point: cost, bias, first and second moment, by formula and through a real round.

The point is a 2 x 2 matrix (d = 4), the loss |x|^2 / 2, the start on the first axis, so g = x = |g| e_1. A round with
injected directions gives E dx and E |dx|^2 exactly. A method whose dx is proportional to g has a stable step eta* = 2 a / M,
where a = E dx.g / |g|^2 and M = E |dx|^2 / |g|^2: there E |x|^2 neither grows nor falls. One whose dx does not shrink with g
has a = E dx.g / |g| and M = E |dx|^2. Once E |x|^2 has settled, 2 eta E a |g| = eta^2 E M, so where a and M are the same for
every g the mean of |g| is exactly M / (2 a) times eta.

Methods with a memory start from a fresh state, or have no memory (`ema_new` = 1, `window` = 1), so that every round is a first.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch

from hiso_bench import methods
from hiso_bench.directions import Law
from hiso_bench.federation import Federation, FederationOptions
from hiso_bench.methods.base import Method
from hiso_bench.testing import (
    Cubature,
    Quadratics,
    circle,
    gauss_product,
    half_hermite,
    injected,
    product,
    signs,
    smolyak,
    take_round,
)

D, SHAPE = 4, (2, 2)
MU = 1e-4
"""Small beside the steps: forward differences are exact but for mu^2."""


@dataclass(frozen=True)
class Case:
    """How a method is measured, and what is known of it.

    Attributes:
        method: registered name.
        rule: on the coordinates of its directions, or of the factors that they are made from.
        along: a.
        square: M.
        bias: of E dx, in words.
        shrinks: whether dx is proportional to g.
        options: of the method.
        law: of the directions.
        widest: the largest floor over directions of g, where it depends on them; infinite: E |dx|^2 has no bound.
        settles: whether a run hovers where M / (2 a) says: not so with momentum.
    """

    method: str
    rule: Callable[[], Cubature]
    along: float
    square: float
    bias: str
    shrinks: bool = True
    options: tuple[tuple[str, Any], ...] = ()
    law: Law = "gaussian"
    widest: float = math.nan
    settles: bool = True

    @property
    def name(self) -> str:
        """Method, P, and the law where the method asks for one itself."""
        method = self.build()
        return f"{self.method}, P = {method.perturbations}" + (f", {self.law}" if "law" in method.federation_options else "")

    @property
    def limit(self) -> float:
        """The stable step 2 a / M, or the floor M / (2 a) of |g| / eta."""
        return 2 * self.along / self.square if self.shrinks else self.square / (2 * self.along)

    def build(self, **more: Any) -> Method:
        """The method, with lr = 1 unless told."""
        return methods.build(self.method, {"lr": 1.0, "mu": MU} | dict(self.options) | more)


def problem(start: np.ndarray, replicates: tuple[int, ...] = ()) -> Quadratics:
    """|x|^2 / 2 of a 2 x 2 matrix, from `start` (4,)."""
    return Quadratics(np.eye(D)[None], np.zeros((1, D)), start, (SHAPE,), replicates)


def federation(rule: Cubature, method: Method, start: np.ndarray) -> Federation:
    """A node of the rule in every replicate."""
    of = problem(start, (len(rule.weights),))
    return Federation(of, method, FederationOptions(wire="float64"), directions=injected(rule, method, of.layout))


def _kink() -> Cubature:
    """Gaussian directions for functions of the sign of z.g = |g| z_1."""
    return product(half_hermite(4), gauss_product(D - 1))


def _any_size() -> Cubature:
    """Two directions with every sign at some sizes: for dx with dx_1 > 0 and the other signs even, whatever the sizes are."""
    return Cubature(signs(2 * D).nodes * np.linspace(0.4, 1.9, 2 * D), signs(2 * D).weights)


def _spread(P: int) -> Cubature:
    """P Gaussian directions for functions of the mean and the spread of z_p.g, quadratic in the rest.

    The P numbers c_p = z_p1 are mean + spread along a fixed contrast; the spread's rule has two degrees of freedom less and its
    weights times spread^2, for the sake of 1 / spread^2.
    """
    length = half_hermite(4, P - 3)
    length = Cubature(length.nodes, length.weights * length.nodes[:, 0] ** 2 / (P - 3))
    n = P * (D - 1)
    rest = Cubature(math.sqrt(n) * np.concatenate([np.eye(n), -np.eye(n)]), np.full(2 * n, 1 / (2 * n)))
    rule = product(gauss_product(1), length, rest)
    contrast = np.where(np.arange(P) % 2, 1, -1) / math.sqrt(P)
    c = rule.nodes[:, :1] / math.sqrt(P) + rule.nodes[:, 1:2] * contrast
    others = rule.nodes[:, 2:].reshape(-1, P, D - 1)
    return Cubature(np.concatenate([c[..., None], others], 2).reshape(len(c), -1), rule.weights)


def fzoo_on_an_axis(P: int) -> tuple[float, float]:
    """FZOO's a and M with Rademacher directions, g on an axis: k of the P scalars are +|g| with chance C(P, k) / 2^P.

    Their spread is |g| sqrt(4 k (P - k) / (P (P - 1))), and where k is 0 or P x does not move.
    """
    k = np.arange(1, P)
    chance = np.array([math.comb(P, i) for i in k]) / 2**P
    squared = P * (P - 1) / (4 * k * (P - k))
    return float(chance @ np.sqrt(squared)), float(chance @ squared) * (1 + (D - 1) / P)


def fzoo_gaussian(P: int) -> tuple[float, float]:
    """FZOO's a and M with Gaussian directions, P >= 4: the scalars' mean and spread are independent.

    With s the spread of P standard Gaussians a = ((P - 1) E s + E 1/s) / P; E 1/s^2 = (P - 1) / (P - 3) is in M.
    """
    n = P - 1
    s = math.sqrt(2 / n) * math.gamma((n + 1) / 2) / math.gamma(n / 2)
    inverse = math.sqrt(n / 2) * math.gamma((n - 1) / 2) / math.gamma(n / 2)
    square = n / (n - 2)
    return (n * s + inverse) / P, (n**2 + 2 * n + 3 * square + (D - 1) * (n + square)) / P**2


_INPUT = torch.tensor([[1.0, 0.0]], dtype=torch.float64)
"""Of AGZO's layer: the rows of G lie in its span, as they do where the basis is that of the batch."""
_PLAIN = "none"
_LENGTH = math.sqrt(2 / math.pi)
_DIAGONAL = math.sqrt(D) * math.pi / (4 * math.asin(1 / math.sqrt(D)))
"""d / 2 over sum_i (2/pi) arcsin(g_i / |g|) g_i / |g| at equal g_i; convex in the g_i^2, the sum is least there, most on axes."""
_TWO, _NO_MEMORY = ("perturbations", 2), ("ema_new", 1.0)
_RANK_ONE = (("rank", 1), ("window", 1))
CASES = (
    Case("decomfl", lambda: smolyak(5 * D), 1, (D + 6) / 5, _PLAIN),
    Case("mezo", lambda: smolyak(D), 1, D + 2, _PLAIN),
    Case("fedkseed", lambda: smolyak(D), 1, D + 2, "none over pools; within one, sum_j z_j z_j' g / K"),
    Case("lozo", lambda: gauss_product(D), 1, D + 2 * (2 + 2 + 1) + 2, _PLAIN, True, _RANK_ONE),
    Case("subzero", lambda: product(circle(8), circle(8), gauss_product(1)), 1, D * (1 + 2),
         "none over subspaces; within one, its part of g", True, _RANK_ONE),
    Case("agzo", lambda: smolyak(D), 1, 2 * 1 + 2, "none where the rows of G lie in span(A); else G A A'", True,
         (("rank", 1), ("inputs", lambda x, examples, draw: [_INPUT]))),
    Case("hizoo", lambda: smolyak(D), 1, D + 2, "x none at H = 1; H: S_ii + h_i tr(A) / 2"),
    Case("hizoo-stein", lambda: smolyak(D), 1, D + 2, "none; H: none but for its floor"),
    Case("feedsign", _kink, _LENGTH, D, "along g / norm(g)", False),
    Case("zo-signsgd", _kink, 1, D, "(2/pi) arcsin(g_i / norm(g))", False,
         (("perturbations", 1), ("difference", "central")), widest=_DIAGONAL),
    Case("zo-signsgd", _any_size, 1, D, "g / norm(g)", False, (_TWO, ("difference", "central"))),
    Case("fzoo", lambda: signs(3 * D), *fzoo_on_an_axis(3), "about g / norm(g)", False, (("perturbations", 3),), "rademacher",
         widest=math.inf),
    Case("fzoo", lambda: _spread(8), *fzoo_gaussian(8), "along g / norm(g)", False, (("perturbations", 8),)),
    Case("meazo", _kink, _LENGTH, D, "along g / norm(g)", False, (("perturbations", 1), _NO_MEMORY)),
    Case("zo-rmsprop", _any_size, 1, D, "g / norm(g)", False, (_TWO, _NO_MEMORY)),
    Case("zo-adam", _any_size, 1, D, "g / norm(g)", False, (_TWO,), settles=False),
)  # fmt: skip
"""`meazo` sends |s z| / |s| = z sign(s) at P = 1. At P >= 2 its a is E |sum of squares / sum|, of Gaussians, and infinite."""

HEADER = 8
"""Bytes of a message's round and client."""


class Row(NamedTuple):
    """What a case costs in a round, and its moments."""

    scalars: int
    """Numbers that a client sent in a round of one local step, as float32."""
    payload: int
    """Their bytes on the wire that the method asks for."""
    evaluations: int
    along: float
    square: float


def measure(case: Case) -> Row:
    """One round through the federation, with a direction injected for every node; and one more whose messages are counted."""
    rule, length = case.rule(), 3.0
    start = length * np.eye(D)[0]
    dx = take_round(federation(rule, case.build(), start))
    power = 2 if case.shrinks else 1
    asked = case.build().federation_options.get("wire", "float32")
    counted = [case.build().federate(problem(start), FederationOptions(wire=wire)).round().record for wire in ("float32", asked)]
    return Row(
        (counted[0].bytes_up - HEADER) // 4,
        counted[1].bytes_up - HEADER,
        counted[0].forward_passes,
        float(rule.mean(dx @ start)) / length**power,
        float(rule.mean((dx**2).sum(1))) / (length**2 if case.shrinks else 1),
    )


def expected_row(case: Case) -> Row:
    """What the method's own account and the formulas say."""
    method = case.build()
    sent = method.perturbations + method.curvatures
    payload = -(-sent // 8) if method.federation_options.get("wire") == "sign1" else 4 * sent
    return Row(sent, payload, method.evaluations, case.along, case.square)
