"""The learning-rate-free step: every party reads T = tr(H^-1 S) and a bound on its largest eigenvalue off second differences.

With c = z'Sz and z = H^{-1/2} u, Gaussian: E c = T and Var c = 2 |Xi|_F^2, Xi = H^{-1/2} S H^{-1/2}. ZO-SGD on a quadratic is
stable in mean square for eta <= 2P / (T + (P + 1) L) (`theory.stability`), and L <= |Xi|_F: two averages of a scalar that is
sent bound the step. The step that decreases the expected loss most is at least half of that, times the share of the gradient
in what the slopes measure, g'Cg / (g'Cg + tr CV), C = H^-1; the rest is gradient noise V.

That share needs no further scalar. Every party knows the directions, so it can predict a round's slopes from the mean of
earlier steps: the share is how much of their square the prediction explains. A mean over w rounds resolves shares above
sqrt(d) / (w P). A fixed w so leaves a step, and a noise floor, below which no run gets. But a step in proportion to the share
makes the gradient keep for 1 / share as many rounds: w = memory max(1, resolution / share), at most one more every round,
resolves every share to the same relative error sqrt(d) / (memory P resolution), and the step falls as the noise comes to
dominate. `memory = 0` saves the buffer of one point that this takes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from hiso_bench.differences import Measurement, measure
from hiso_bench.directions import DirectionKey, Warped
from hiso_bench.losses import Batch, Loss
from hiso_bench.methods.base import Method, Step, positive, require
from hiso_bench.points import Layout, Point, Value, flat
from hiso_bench.state import State

STATISTICS = ("count", "trace", "variance", "error", "explained", "square", "step")
"""Second differences seen; mean and variance of c; mean square of what H's model of c leaves; means of slope times predicted
slope and of slope^2; the step at lr = 1. Buffers of one replicate-shaped float64 leaf each."""
SHARE_FLOOR = 1e-3


@dataclass(frozen=True, kw_only=True)
class SafeStep(Method):
    """DeComFL (H = I) whose step follows from nc second differences; `lr` is the fraction of the safe step.

    Attributes:
        lr: theta in eta = theta 2P / (T + (P + 1) L) times the share of the gradient; without unit, stable on quadratics for
            theta <= 1 but for the error of the averages.
        second_differences: nc, directions of each local step along which the second difference is sent as well.
        curvature_mu: smoothing parameter of these directions; see `differences.measure` for which is sensible.
        burn_in: second differences that are averaged before x moves.
        horizon: second differences that the averages of c go back.
        memory: rounds that the prediction of the slopes goes back at least; 0 assumes that there is no gradient noise.
        resolution: the share of the gradient below which the prediction goes back further; 0: never.

    Raises:
        ValueError: an option out of range.
    """

    lr: Value = 0.7
    second_differences: int = 1
    curvature_mu: Value = 1e-2
    burn_in: int = 20
    horizon: int = 100
    memory: int = 50
    resolution: float = 0.25

    def __post_init__(self) -> None:
        super().__post_init__()
        nc, P = self.second_differences, self.perturbations
        require(1 <= nc <= P, "second_differences", nc, f">= 1 and <= perturbations = {P}")
        require(positive(self.curvature_mu), "curvature_mu", self.curvature_mu, "a finite number > 0")
        require(self.burn_in >= 1, "burn_in", self.burn_in, ">= 1")
        require(self.horizon >= 1, "horizon", self.horizon, ">= 1")
        require(self.memory >= 0, "memory", self.memory, ">= 0")
        require(0 <= self.resolution <= 1, "resolution", self.resolution, ">= 0 and <= 1")

    @property
    def curvatures(self) -> int:
        """Nc."""
        return self.second_differences

    def init(self, x: Point, layout: Layout) -> State:
        """X, statistics of nothing, and a gradient of zero."""
        state = super().init(x, layout)
        for name in STATISTICS:
            state.buffers[name] = (torch.zeros(layout.replicate_shape, dtype=torch.float64),)
        if self.memory:
            state.buffers["gradient"] = tuple(torch.zeros_like(leaf) for leaf in x)
            state.buffers["share"] = (torch.ones(layout.replicate_shape, dtype=torch.float64),)
            state.buffers["window"] = (torch.zeros(layout.replicate_shape, dtype=torch.float64),)
        return state

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
        """P slopes, then nc second differences."""
        nc, mu = self.second_differences, self.curvature_mu
        return measure(loss, layout, x, z, directions, batches, self.mu, self.difference, buffer, nc, mu)

    def rate(self, state: State, step: Step) -> Value:
        """Lr times the step that the statistics allow; 0 during the burn-in. Momentum b multiplies it by 1 - b."""
        return super().rate(state, step) * (1 - self.momentum) * state.buffers["step"][0]

    def learn(self, state: State, steps: Sequence[Step], z: Warped, dx: Point) -> None:
        """Update gradient, statistics and step. Cost: a pass over z per direction, and one per second difference to model it."""
        if self.memory:
            for step in steps:
                self._remember(state, step, z, dx if len(steps) == 1 else self.direction(step, state.layout, z, dx))
        for step in steps:
            for keys_, values in rows(step):
                for key, c in zip(keys_, values, strict=False):
                    self.average(state, key, c, z)
        self.shape(state)
        state.buffers["step"][0].copy_(self._safe(state))

    def model(self, state: State, key: DirectionKey, c: Tensor, z: Warped) -> Tensor:
        """What H makes c along the key's direction to be; here its mean. A method that learns H learns from c here."""
        return state.buffers["trace"][0]

    def shape(self, state: State) -> None:
        """Put what the round taught into H, and the statistics into its units. H = I has nothing to do."""

    def largest(self, state: State) -> tuple[Tensor | float, Tensor | float]:
        """(T, L) of H's model of the curvature; 0 and infinity say nothing."""
        return 0.0, torch.inf

    def inner(self, state: State, a: Point, b: Point) -> Tensor:
        """The product a'Cb of two gradients."""
        return dot(state.layout, a, b)

    def average(self, state: State, key: DirectionKey, c: Tensor, z: Warped) -> None:
        """Take one second difference into the statistics."""
        error = c - self.model(state, key, c, z)
        count, trace, variance, left, *_ = (state.buffers[name][0] for name in STATISTICS)
        weight = torch.clamp(1 / (count + 1), min=1 / self.horizon)
        difference = c - trace
        trace.addcmul_(weight, difference)
        variance.mul_(1 - weight).addcmul_(weight * (1 - weight), difference.square())
        left.copy_(torch.where(count < self.burn_in, variance, left + weight * (error.square() - left)))
        count.add_(1)

    def _remember(self, state: State, step: Step, z: Warped, dx: Point) -> None:
        """What the slopes of a step are and what they were predicted to be; then the step itself, H dx."""
        gradient, layout = state.buffers["gradient"], state.layout
        explained, square = state.buffers["explained"][0], state.buffers["square"][0]
        window, share = state.buffers["window"][0], state.buffers["share"][0]
        window.copy_(torch.minimum(window + 1, self.memory * (self.resolution / share).clamp(min=1)))
        weight = 1 / window
        products, squares = [], []
        for keys_, slopes in slope_rows(step):
            for key, slope in zip(keys_, slopes, strict=True):
                products.append(slope * dot(layout, z(key), gradient))
                squares.append(slope.square())
        explained.lerp_(torch.stack(products).mean(0), weight)
        square.lerp_(torch.stack(squares).mean(0), weight)
        for i, (g, d) in enumerate(zip(gradient, self.dual(state, dx), strict=True)):
            g.lerp_(d, torch.as_tensor(layout.over_leaf(weight, i)).to(g))

    def dual(self, state: State, dx: Point) -> Point:
        """H dx, the gradient that a step stands for; may overwrite dx."""
        return dx

    def _safe(self, state: State) -> Tensor:
        count, trace, variance, error, explained, square, _ = (state.buffers[name][0] for name in STATISTICS)
        P = self.perturbations
        T, L = self.largest(state)
        T = torch.clamp(trace, min=T)
        L = torch.minimum((variance / 2).sqrt(), L + (error / 2).sqrt())
        bound = T + (P + 1) * L
        step = torch.where((count >= self.burn_in) & (bound > 0), 2 * P / bound, 0.0)
        if self.memory:
            gradient, share, window = state.buffers["gradient"], state.buffers["share"][0], state.buffers["window"][0]
            # One standard deviation of the mean of the products, were the slopes nothing but noise.
            doubt = (self.inner(state, gradient, gradient) * square / (P * window)).sqrt()
            share.copy_(torch.where(square > 0, (explained + doubt) / square, 1.0).clamp(SHARE_FLOOR, 1.0))
            step = step * share
        return step


def rows(step: Step) -> list[tuple[tuple[DirectionKey, ...], Tensor]]:
    """(keys, second differences): one row if directions are shared (the clients' mean), else one per client."""
    if all(row == step.keys[0] for row in step.keys):
        return [(step.keys[0], step.curvatures.mean(0))]
    return list(zip(step.keys, step.curvatures, strict=True))


def slope_rows(step: Step) -> list[tuple[tuple[DirectionKey, ...], Tensor]]:
    """(keys, slopes), likewise."""
    slopes = step.weights * step.weights.shape[1]
    if all(row == step.keys[0] for row in step.keys):
        return [(step.keys[0], slopes.mean(0))]
    return list(zip(step.keys, slopes, strict=True))


def dot(layout: Layout, *points: Point) -> Tensor:
    """The sum over coordinates of the points' products, float64 and replicate-shaped, on the CPU like all scalars."""
    axes, total = len(layout.replicate_shape), torch.zeros((), dtype=torch.float64)
    for leaves in zip(*points, strict=True):
        product = leaves[0]
        for other in leaves[1:]:
            product = product * other
        total = total + flat(product, axes).sum(-1, dtype=torch.float64).cpu()
    return total
