"""Second differences teach every party the diagonal of the Hessian: regression of c = z'Sz on the squares z_j^2.

The model is c = sum_j sigma_j z_j^2, and it learns from its own prediction error e (a damped affine projection, "NLMS", with a
multiplicative prior), so that its noise vanishes with the error: a diagonal S is learned exactly, after about d / nc rounds and
sooner where few coordinates matter. An average by Stein's identity, c (z_j^2 - 1) / 2, has noise |S|_F whatever it knows.

Off-diagonal entries of S are noise to the model. The share of Var c that it explains is known to everyone from e, and it gates H:
nothing explained gives H = I. Rademacher directions have z_j^2 = 1 / h_j and carry no diagonal information.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from hiso_bench.directions import DirectionKey, Warped
from hiso_bench.methods.base import require
from hiso_bench.methods.hiso import whiten
from hiso_bench.methods.safe_step import SafeStep, dot
from hiso_bench.points import Layout, Point, flat
from hiso_bench.state import State, Warp

SMALLEST = 1e-8
"""The smallest sigma_j in units of their mean."""


@dataclass(frozen=True, kw_only=True)
class Curvature(SafeStep):
    """H = (sigma + floor mean sigma)^w with sigma learned from second differences, and the safe step for it.

    H is scaled to mean 1 / H_j = 1, so that directions are as long as DeComFL's and mu means the same.

    Attributes:
        floor: added to sigma, in units of its mean.
        damping: a new second difference corrects 1 / (1 + damping) of its prediction error.
        prior: in (sigma_j / h_j + prior mean)^2, the prior variance of coordinate j: how fast a small one can grow.
        gate: w = gate times the share of Var c that the model explains, cut to [0, 1]; 0 keeps H = I.
    """

    floor: float = 0.1
    damping: float = 1.0
    prior: float = 0.1
    gate: float = 2.0

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("floor", "prior"):
            require(0 < getattr(self, name) < torch.inf, name, getattr(self, name), "a finite number > 0")
        for name in ("damping", "gate"):
            require(0 <= getattr(self, name) < torch.inf, name, getattr(self, name), "a finite number >= 0")

    def init(self, x: Point, layout: Layout) -> State:
        """Flat sigma and H = I."""
        state = super().init(x, layout)
        state.buffers["sigma"] = tuple(torch.ones_like(leaf) for leaf in x)
        state.buffers["h"] = tuple(torch.ones_like(leaf) for leaf in x)
        return state

    def warp(self, state: State) -> Warp:
        """U -> H^{-1/2} u."""
        return lambda u: tuple(map(whiten, u, state.buffers["h"]))

    def model(self, state: State, key: DirectionKey, c: Tensor, z: Warped) -> Tensor:
        """The prediction of c, which then corrects sigma unless this is the burn-in."""
        if not self.gate:
            return super().model(state, key, c, z)
        layout, h, sigma = state.layout, state.buffers["h"], state.buffers["sigma"]
        burning = state.buffers["step"][0] == 0
        squares = tuple(leaf.square() for leaf in z(key))
        predicted = dot(layout, squares, sigma)
        mean = self.prior * self._trace(state) / layout.dimension
        # In the coordinates of u: phi_j = h_j z_j^2, lambda_j = sigma_j / h_j; `gain` is sqrt(D_j) h_j.
        gain = tuple(torch.addcmul(s, k, _over(layout, mean, i, k)) for i, (s, k) in enumerate(zip(sigma, h, strict=True)))
        power = dot(layout, squares, squares, gain, gain)
        scale = torch.where(burning | (power <= 0), 0.0, (c - predicted) / ((1 + self.damping) * power))
        for i, (s, square, g) in enumerate(zip(sigma, squares, gain, strict=True)):
            change = square.mul_(g).mul_(g).mul_(_over(layout, scale, i, s)).div_(s)
            # 1 + q up, at most twofold; 1 / (1 + |q|) down, which stays positive.
            s.mul_(1 + change.clamp(0, 1)).div_(1 - change.clamp(max=0))
        return torch.where(burning, state.buffers["trace"][0], predicted)

    def shape(self, state: State) -> None:
        """H <- (sigma + floor mean)^w. Cost: a few passes over H."""
        if not self.gate:
            return
        layout, h, sigma = state.layout, state.buffers["h"], state.buffers["sigma"]
        trace, variance, error = (state.buffers[name][0] for name in ("trace", "variance", "error"))
        burning, d = state.buffers["step"][0] == 0, layout.dimension
        flat_value = torch.where(trace > 0, trace, float(d)) / d
        mean = dot(layout, sigma) / d
        for i, s in enumerate(sigma):
            s.copy_(torch.maximum(s, _over(layout, SMALLEST * mean, i, s)))
            s.copy_(torch.where(_over(layout, burning.double(), i, s) > 0, _over(layout, flat_value, i, s), s))
        mean = dot(layout, sigma) / d
        share = torch.where(burning | (variance <= 0), 0.0, 1 - error / variance)
        exponent = (self.gate * share).clamp(0, 1)
        before = self._trace(state)
        for i, (s, k) in enumerate(zip(sigma, h, strict=True)):
            k.copy_((s / _over(layout, mean, i, s) + self.floor) ** _over(layout, exponent, i, s))
        scale = dot(layout, tuple(k.reciprocal() for k in h)) / d
        for i, k in enumerate(h):
            k.mul_(_over(layout, scale, i, k))
        ratio = self._trace(state) / before
        trace.mul_(ratio)
        variance.mul_(ratio.square())
        error.mul_(ratio.square())

    def largest(self, state: State) -> tuple[Tensor | float, Tensor | float]:
        """T and L of diag(sigma / h); |Xi - diag|_F, which `error` bounds, is added to L by the caller."""
        if not self.gate:
            return super().largest(state)
        axes = len(state.layout.replicate_shape)
        pairs = zip(state.buffers["sigma"], state.buffers["h"], strict=True)
        return self._trace(state), torch.stack([flat(s / k, axes).amax(-1).double().cpu() for s, k in pairs]).amax(0)

    def inner(self, state: State, a: Point, b: Point) -> Tensor:
        """The product a'Cb of two gradients."""
        return dot(state.layout, a, b, tuple(k.reciprocal() for k in state.buffers["h"]))

    def dual(self, state: State, dx: Point) -> Point:
        """H dx, over dx."""
        return tuple(d.mul_(k) for d, k in zip(dx, state.buffers["h"], strict=True))

    def _trace(self, state: State) -> Tensor:
        return dot(state.layout, state.buffers["sigma"], tuple(k.reciprocal() for k in state.buffers["h"]))


def _over(layout: Layout, value: Tensor, leaf: int, like: Tensor) -> Tensor:
    """A replicate-shaped tensor lined up with a leaf, in its dtype and on its device."""
    return value.reshape(layout.replicate_shape + (1,) * len(layout.leaf_shapes[leaf])).to(like)
