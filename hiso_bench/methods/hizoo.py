"""HiZOO (arXiv 2402.15173): a diagonal H from second differences, three losses a step; its biased rule and the unbiased one."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import torch

from hiso_bench.differences import Measurement, measure
from hiso_bench.directions import DirectionKey, Warped
from hiso_bench.losses import Batch, Loss
from hiso_bench.methods import register
from hiso_bench.methods.base import Method, Step, require
from hiso_bench.methods.hiso import whiten
from hiso_bench.methods.safe_step import rows
from hiso_bench.points import Layout, Point, clone
from hiso_bench.state import State, Warp

Estimate = Literal["published", "stein"]


@dataclass(frozen=True, kw_only=True)
class HiZoo(Method):
    """z = H^{-1/2} u, dx = (1/P) sum_p s_p z_p, and H <- (1 - a) H + a E_p (a = ema_new), E_p from c_p = z_p' S z_p.

    "published": E_p = |c_p| h u^2 / 2 (with c = D2f / mu^2; the paper's D2f / (2 mu^2)). With A = H^{-1/2} S H^{-1/2}, S >= 0,
    its mean is S_ii + h_i tr(A) / 2: right in shape along S_ii, and in mean field at h = (1 + d/2) S_ii, for which tr A is the
    same in every coordinate.
    "stein": E_p = c_p h (u^2 - 1) / 2, whose mean is S_ii exactly; it may be negative, and H is kept at `h_floor` or above.

    Every direction sends its second difference too, so P directions cost 2 P numbers and 2 P + 1 losses. The official code
    divides the step by the H just updated; here it is the H that the direction was drawn with.

    Attributes:
        ema_new: weight of a new sample of the curvature.
        estimate: of the diagonal: published or stein.
        h_floor: smallest entry of H under stein.
    """

    ema_new: float = 1e-3
    estimate: Estimate = "published"
    h_floor: float = 1e-3

    def __post_init__(self) -> None:
        super().__post_init__()
        require(0 < self.ema_new <= 1, "ema_new", self.ema_new, "0 < ema_new <= 1")
        require(self.estimate in get_args(Estimate), "estimate", self.estimate, ", ".join(get_args(Estimate)))
        require(0 < self.h_floor < math.inf, "h_floor", self.h_floor, "a finite number > 0")
        require(self.difference == "central", "difference", self.difference, "central, which second differences give anyway")

    @property
    def curvatures(self) -> int:
        """P: one for every direction."""
        return self.perturbations

    def init(self, x: Point, layout: Layout) -> State:
        """X and H = 1."""
        state = super().init(x, layout)
        state.buffers["h"] = tuple(torch.ones_like(leaf) for leaf in x)
        return state

    def warp(self, state: State) -> Warp:
        """U -> H^{-1/2} u."""
        return lambda u: tuple(map(whiten, u, state.buffers["h"]))

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
        """P slopes and P second differences, at the same mu."""
        return measure(loss, layout, x, z, directions, batches, self.mu, self.difference, buffer, self.curvatures, self.mu)

    def learn(self, state: State, steps: Sequence[Step], z: Warped, dx: Point) -> None:
        """One EMA step per local step, with the mean over its directions. Cost: a pass over z per direction."""
        layout, h = state.layout, state.buffers["h"]
        old = clone(h)
        # A z that is drawn again after H's first move is still the z of the round.
        z.warp = self.warp(State(layout, state.x, state.buffers | {"h": old}, state.round))
        for step in steps:
            found = [(key, c) for row, values in rows(step) for key, c in zip(row, values, strict=True)]
            for leaf in dx:
                leaf.zero_()
            for key, c in found:
                for i, (total, part, then) in enumerate(zip(dx, z(key), old, strict=True)):
                    weight = torch.as_tensor(layout.over_leaf(c, i)).to(part) / (2 * len(found))
                    if self.estimate == "published":
                        total.add_(weight.abs() * (then * part).square_())
                    else:
                        total.add_(weight * ((then * part).square_() - then))
            for leaf, total in zip(h, dx, strict=True):
                leaf.mul_(1 - self.ema_new).add_(total, alpha=self.ema_new)
                if self.estimate == "stein":
                    leaf.clamp_(min=self.h_floor)


register("hizoo", HiZoo, perturbations=1, difference="central", mu=1e-2)
register("hizoo-stein", HiZoo, perturbations=1, difference="central", mu=1e-2, estimate="stein")
