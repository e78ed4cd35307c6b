"""Second differences along one tensor at a time: a curvature per leaf, at any size of model.

Along z_b, z on leaf b and 0 elsewhere, c = z_b'Sz_b has mean tr S_bb / h_b whatever the other leaves do, and relative standard
deviation sqrt(2 / kappa_2), kappa_2 = (tr S_bb)^2 / |S_bb|_F^2, which is small for a large tensor: B observations say of all B
leaves what regression on full directions says after d. Every other second difference is along the whole z, for the safe step.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from hiso_bench.differences import Measurement, evaluations, measure
from hiso_bench.directions import DirectionKey, Warped
from hiso_bench.losses import Batch, Loss
from hiso_bench.methods.base import require
from hiso_bench.methods.hiso import whiten
from hiso_bench.methods.safe_step import SafeStep, dot
from hiso_bench.points import Layout, Point, flat
from hiso_bench.state import State, Warp


@dataclass(frozen=True, kw_only=True)
class CurvatureBlock(SafeStep):
    """H = sigma_b + floor mean sigma on leaf b, one number per leaf, and the safe step for it.

    Attributes:
        floor: added to sigma, in units of its mean over coordinates.
        leaf_horizon: second differences of a leaf that its average goes back.
    """

    floor: float = 0.1
    leaf_horizon: int = 50

    def __post_init__(self) -> None:
        super().__post_init__()
        require(0 < self.floor < math.inf, "floor", self.floor, "a finite number > 0")
        require(self.leaf_horizon >= 1, "leaf_horizon", self.leaf_horizon, ">= 1")

    @property
    def evaluations(self) -> int:
        """Every second difference is measured by itself: two evaluations, and f(x) where the slopes do without it."""
        nc = self.second_differences
        return evaluations(self.difference, self.perturbations) + 2 * nc + (self.difference == "central")

    def init(self, x: Point, layout: Layout) -> State:
        """H = I; per leaf the mean of sigma and how often it was seen."""
        state = super().init(x, layout)
        shape, leaves = layout.replicate_shape, layout.leaf_shapes
        state.buffers["sigma"] = tuple(torch.ones(shape, dtype=torch.float64) for _ in leaves)
        state.buffers["seen"] = tuple(torch.zeros(shape, dtype=torch.float64) for _ in leaves)
        state.buffers["h"] = tuple(leaf.new_ones(shape + (1,) * len(of)) for leaf, of in zip(x, leaves, strict=True))
        return state

    def warp(self, state: State) -> Warp:
        """U -> H^{-1/2} u."""
        return lambda u: tuple(map(whiten, u, state.buffers["h"]))

    def probed(self, key: DirectionKey, leaves: int) -> int | None:
        """The leaf along which a key's second difference is taken; None for all of z."""
        slot = (key.round + key.step) * self.second_differences + key.p
        return slot // 2 % leaves if slot % 2 else None

    def measure(
        self,
        loss: Loss,
        layout: Layout,
        x: Point,
        z: Callable[[DirectionKey], Point],
        directions: Sequence[DirectionKey],
        batches: Sequence[Batch],
        buffer: Point,
    ) -> Measurement:
        """P slopes as in DeComFL, then nc second differences, each along one leaf or all of them."""
        slopes = measure(loss, layout, x, z, directions, batches, self.mu, self.difference, buffer)
        base = slopes.loss if self.difference == "forward" else loss.each(x, batches).double()
        seconds = []
        for key in directions[: self.second_differences]:
            leaf = self.probed(key, len(x))
            ends = []
            for mu in (self.curvature_mu, -self.curvature_mu):
                there = list(x)
                for i in range(len(x)) if leaf is None else (leaf,):
                    there[i] = torch.addcmul(x[i], z(key)[i], torch.as_tensor(layout.over_leaf(mu, i)).to(x[i]), out=buffer[i])
                ends.append(loss.each(tuple(there), batches).double())
            seconds.append((ends[0] + ends[1] - 2 * base) / self.curvature_mu**2)
        return Measurement(torch.cat([slopes.scalars, torch.stack(seconds, 1)], 1), base)

    def average(self, state: State, key: DirectionKey, c: Tensor, z: Warped) -> None:
        """Where c is one leaf's: the leaf's mean. Else the statistics of the step."""
        leaf = self.probed(key, len(state.layout.leaf_shapes))
        if leaf is None:
            super().average(state, key, c, z)
            return
        n = math.prod(state.layout.leaf_shapes[leaf])
        seen, sigma, h = (state.buffers[name][leaf] for name in ("seen", "sigma", "h"))
        sample = c.clamp(min=0) * flat(h, c.ndim)[..., 0].double().cpu() / n
        sigma.lerp_(sample, torch.clamp(1 / (seen + 1), min=1 / self.leaf_horizon))
        seen.add_(1)

    def shape(self, state: State) -> None:
        """H <- sigma + floor mean, scaled to mean 1 / H = 1, once every leaf has been seen."""
        layout, h, sigma = state.layout, state.buffers["h"], state.buffers["sigma"]
        sizes = torch.tensor([math.prod(shape) for shape in layout.leaf_shapes], dtype=torch.float64)
        now = torch.stack(sigma, -1)
        mean = (now * sizes).sum(-1, keepdim=True) / sizes.sum()
        ready = (torch.stack(state.buffers["seen"], -1).amin(-1, keepdim=True) > 0) & (mean > 0)
        old = torch.stack([flat(k, len(layout.replicate_shape))[..., 0].double().cpu() for k in h], -1)
        new = torch.where(ready, now / mean + self.floor, old)
        new = new * ((sizes / new).sum(-1, keepdim=True) / sizes.sum())
        ratio = (sizes * now / new).sum(-1) / (sizes * now / old).sum(-1)
        ratio = torch.where(ready[..., 0], ratio, 1.0)
        for i, k in enumerate(h):
            k.copy_(new[..., i].reshape(k.shape))
        state.buffers["trace"][0].mul_(ratio)
        for name in ("variance", "error"):
            state.buffers[name][0].mul_(ratio.square())

    def inner(self, state: State, a: Point, b: Point) -> Tensor:
        """The product a'Cb of two gradients."""
        return dot(state.layout, a, b, tuple(k.reciprocal() for k in state.buffers["h"]))

    def dual(self, state: State, dx: Point) -> Point:
        """H dx, over dx."""
        return tuple(d.mul_(k) for d, k in zip(dx, state.buffers["h"], strict=True))
