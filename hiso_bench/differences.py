"""Difference quotients along directions: the scalars of a zeroth-order round.

Forward (HiSo paper Eq 1): s_p = [f(x + mu z_p) - f(x)] / mu, one base loss shared by the P directions: P + 1 evaluations.
Central: s_p = [f(x + mu z_p) - f(x - mu z_p)] / (2 mu): 2 P evaluations, no mu-bias on quadratics.
Second difference, where it is asked for: c = [f(x + mu z) + f(x - mu z) - 2 f(x)] / mu^2 = z' (grad^2 f) z + O(mu^2), exact on
quadratics for every mu. Its direction's slope is then the central quotient of the same two evaluations.
The point is evaluated at x' = x + mu z in a second buffer; x itself is never written, so an estimate cannot drift it.
Exact: s_p = z_p' grad f(x), the limit mu -> 0 of both (DeComFL's "gradient projection", its Algorithm 5): one gradient a client
in place of 2 P losses. What a run gains or loses by finite differences is read off against it; where that is nothing, it is the
cheaper one to run.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple, get_args

import torch
from torch import Tensor

from hiso_bench.directions import DirectionKey
from hiso_bench.losses import Batch, Loss, value_and_gradient
from hiso_bench.points import Layout, Point, Value, add_scaled

Difference = Literal["forward", "central", "exact"]
DIFFERENCES: tuple[str, ...] = get_args(Difference)


class Measurement(NamedTuple):
    """What m clients measured along P directions, in float64."""

    scalars: Tensor
    """(m, P + nc, *replicate_shape): the P difference quotients, then nc second differences."""
    loss: Tensor
    """(m, *replicate_shape): f(x) where it is evaluated, or the mean of all evaluations (central without second differences)."""


def evaluations(difference: str, perturbations: int, curvatures: int = 0) -> int:
    """The number of loss evaluations per client and local step.

    A second difference costs one more where differences are forward; where they are central the first costs f(x), the others
    nothing. "exact" has none; its backward pass, about two evaluations more, is not counted.
    """
    if difference == "exact":
        return 1
    return perturbations + 1 + curvatures if difference == "forward" else 2 * perturbations + bool(curvatures)


def measure(
    loss: Loss,
    layout: Layout,
    x: Point,
    z: Callable[[DirectionKey], Point],
    directions: Sequence[DirectionKey],
    batches: Sequence[Batch],
    mu: Value,
    difference: str,
    buffer: Point,
    curvatures: int = 0,
    curvature_mu: Value = 1e-2,
) -> Measurement:
    """Difference quotients of the clients' losses at x along each direction.

    Args:
        loss: evaluated at one point for all the batches together (`Loss.each`).
        layout: of x.
        x: the point, left untouched bit for bit.
        z: direction key -> z; asked once per key and evaluation sign, and not used any more once x' is built.
        directions: the P direction keys.
        batches: one per client.
        mu: smoothing parameter, > 0.
        difference: "forward", "central" or "exact"; the last has no replicate axes, no second differences and no use for mu.
        buffer: where x' is built; must not share memory with x, and may be where z is.
        curvatures: nc <= P, second differences along the first nc directions.
        curvature_mu: their smoothing parameter, > 0, and that of the slopes along these directions. With rounding errors e in
            the loss a second difference is wrong by about 2 e / curvature_mu^2, against z' (grad^2 f) z: a float32 loss of
            order 1 has e = 6e-8 and needs 1e-2 rather than 1e-3; a bfloat16 loss (e = 4e-3) has no usable second differences.

    Returns:
        Measurement with m = len(batches).
    """

    def at(key: DirectionKey, step: Value) -> Tensor:
        return loss.each(add_scaled(layout, x, z(key), step, out=buffer), batches).double()

    if difference == "exact":
        found = [value_and_gradient(loss, x, batch) for batch in batches]
        along = [_inner([gradient for _, gradient in found], z(key)) for key in directions]
        return Measurement(torch.stack(along, dim=1), torch.stack([value for value, _ in found]).double())
    based = difference == "forward" or curvatures > 0
    base = loss.each(x, batches).double() if based else torch.zeros(())
    slopes, seconds, middles = [], [], []
    for number, key in enumerate(directions):
        if difference == "forward" and number >= curvatures:
            slopes.append((at(key, mu) - base) / mu)
            continue
        reach = curvature_mu if number < curvatures else mu
        plus, minus = at(key, reach), at(key, -reach)
        slopes.append((plus - minus) / (2 * reach))
        middles.append((plus + minus) / 2)
        if number < curvatures:
            seconds.append((plus + minus - 2 * base) / reach**2)
    return Measurement(torch.stack([*slopes, *seconds], dim=1), base if based else torch.stack(middles).mean(0))


def _inner(gradients: Sequence[Point], z: Point) -> Tensor:
    """The products z' g of z with every gradient, float64 (len(gradients),)."""
    leaves = [[(g * u).sum(dtype=torch.float64) for g, u in zip(gradient, z, strict=True)] for gradient in gradients]
    return torch.stack([torch.stack(parts).sum() for parts in leaves])
