"""Difference quotients along directions: the scalars of a zeroth-order round.

Forward (HiSo paper Eq 1): s_p = [f(x + mu z_p) - f(x)] / mu, one base loss shared by the P directions: P + 1 evaluations.
Central: s_p = [f(x + mu z_p) - f(x - mu z_p)] / (2 mu): 2 P evaluations, no mu-bias on quadratics.
The point is evaluated at x' = x + mu z in a second buffer; x itself is never written, so an estimate cannot drift it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple, get_args

import torch
from torch import Tensor

from hiso_bench.directions import DirectionKey
from hiso_bench.losses import Batch, Loss
from hiso_bench.points import Layout, Point, Value, add_scaled

Difference = Literal["forward", "central"]
DIFFERENCES: tuple[str, ...] = get_args(Difference)


class Measurement(NamedTuple):
    """What m clients measured along P directions, in float64."""

    scalars: Tensor
    """(m, P, 1, *replicate_shape): the difference quotients."""
    loss: Tensor
    """(m, *replicate_shape): f(x) (forward), or the mean of all evaluations (central)."""


def evaluations(difference: str, perturbations: int) -> int:
    """The number of loss evaluations per client and local step."""
    return perturbations + 1 if difference == "forward" else 2 * perturbations


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
        difference: "forward" or "central".
        buffer: where x' is built; must not share memory with x, and may be where z is.

    Returns:
        Measurement with m = len(batches).
    """

    def at(key: DirectionKey, step: Value) -> Tensor:
        return loss.each(add_scaled(layout, x, z(key), step, out=buffer), batches).double()

    if difference == "forward":
        base = loss.each(x, batches).double()
        scalars = torch.stack([(at(key, mu) - base) / mu for key in directions], dim=1)
        return Measurement(scalars.unsqueeze(2), base)
    pairs = [(at(key, mu), at(key, -mu)) for key in directions]
    scalars = torch.stack([(plus - minus) / (2 * mu) for plus, minus in pairs], dim=1)
    middle = torch.stack([(plus + minus) / 2 for plus, minus in pairs]).mean(0)
    return Measurement(scalars.unsqueeze(2), middle)
