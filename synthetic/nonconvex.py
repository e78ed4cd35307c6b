"""Smooth problems beyond quadratics, with known L and bounded heterogeneity: what assumptions A1 and A3 of HiSo ask for.

    f_i(x) = sum_j s_j [ phi(x_j) + delta_i log cosh(x_j - c_ij) ] + b_i . x,    (1/M) sum_i b_i = 0, sum_i delta_i = 0.

The gradients of clients differ by s_j delta_i tanh(.) + b_ij, which is bounded on the whole space although their Hessians
differ. (On quadratics A3 for all x forces equal Hessians, and with these local steps do not drift at all.)
The phi, with the range of phi'', all with phi(0) = phi'(0) = 0:

    quadratic   t^2/2                                            1           convex
    saturating  t^2 / (2 (1 + t^2))                              [-1/4, 1]   non-convex, bounded, flat far away
    cosine      t^2/2 + (a/w^2) (1 - cos w t), a = 2, w = 4      [-1, 3]     non-convex, many stationary points
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import softplus

from hiso_bench import keys
from hiso_bench.losses import Batch, Loss
from hiso_bench.methods.base import require
from hiso_bench.points import Layout, Point
from hiso_bench.theory import spectra
from synthetic.quadratic import Scale, linear_terms

_A, _W = 2.0, 4.0


class Shape(NamedTuple):
    """One phi with its derivatives, as functions of tensors, and the exact range of phi''."""

    value: Callable[[Tensor], Tensor]
    slope: Callable[[Tensor], Tensor]
    curvature: Callable[[Tensor], Tensor]
    least: float
    most: float


SHAPES: dict[str, Shape] = {
    "quadratic": Shape(lambda t: t.square() / 2, lambda t: t, torch.ones_like, 1.0, 1.0),
    "saturating": Shape(
        lambda t: t.square() / (2 * (1 + t.square())),
        lambda t: t / (1 + t.square()).square(),
        lambda t: (1 - 3 * t.square()) / (1 + t.square()) ** 3,
        -0.25,
        1.0,
    ),
    "cosine": Shape(
        lambda t: t.square() / 2 + _A / _W**2 * (1 - torch.cos(_W * t)),
        lambda t: t + _A / _W * torch.sin(_W * t),
        lambda t: 1 + _A * torch.cos(_W * t),
        1 - _A,
        1 + _A,
    ),
}


class ClientPart(NamedTuple):
    """The batch: what makes a client, each broadcastable to (*replicate_shape, d)."""

    delta: Tensor
    centre: Tensor
    linear: Tensor


class SeparableLoss(Loss):
    """sum_j s_j [phi(x_j) + delta log cosh(x_j - centre_j)] + linear . x along the last axis."""

    def __init__(self, s: Tensor, shape: Shape) -> None:
        self.s, self.shape = s, shape

    def __call__(self, x: Point, batch: Batch) -> Tensor:
        """Float64 of the replicate shape. Cost: a few passes over x."""
        t = x[0]
        return (self.s * (self.shape.value(t) + batch.delta * log_cosh(t - batch.centre)) + batch.linear * t).sum(-1)

    def gradient(self, t: Tensor, part: ClientPart) -> Tensor:
        """Its gradient, the shape of t."""
        return self.s * (self.shape.slope(t) + part.delta * torch.tanh(t - part.centre)) + part.linear

    def curvature(self, t: Tensor, part: ClientPart) -> Tensor:
        """The diagonal of its (diagonal) Hessian, the shape of t."""
        return self.s * (self.shape.curvature(t) + part.delta * (1 - torch.tanh(t - part.centre).square()))


def log_cosh(t: Tensor) -> Tensor:
    """Log cosh t without overflow, and with its full relative accuracy near 0: 1-smooth, slope tanh t."""
    near, far = 0.5 * torch.log1p(torch.sinh(t.clamp(-1, 1)).square()), t.abs() + softplus(-2 * t.abs()) - math.log(2)
    return torch.where(t.abs() < 1, near, far)


class NonConvex:
    """The problem of the module docstring, started at x = `start` in every coordinate.

    Args:
        dimension: d.
        shape: phi.
        exponent: s_j = j^-exponent.
        clients: M.
        heterogeneity: size of the b_i; what it is the size of is `heterogeneity_scale`, as for the quadratic problem.
        noise: standard deviation of the active coordinates of the gradient noise of a batch.
        replicates: replicate shape.
        key: 64-bit key of b, c and noise.
        hessian_spread: delta_i = +-hessian_spread in turn (0 for the last of an odd number of clients).
        centres: standard deviation of the c_ij; 0 puts the whole family at c = 0, and the mean loss is sum_j s_j phi(x_j).
        padding: coordinates j > d - padding are flat: s_j = 0 and b_ij = 0. They change nothing that a loss can see.
        heterogeneity_scale: "coordinate", "mean" or "max".
        start: every coordinate of x_0.

    Raises:
        ValueError: an option out of range.
    """

    name = "nonconvex"
    metric = "gradient"
    higher_is_better = False

    def __init__(
        self,
        dimension: int = 100,
        shape: str = "saturating",
        exponent: float = 1.0,
        clients: int = 8,
        heterogeneity: float = 0.0,
        noise: float = 0.0,
        replicates: tuple[int, ...] = (),
        key: int = 0,
        hessian_spread: float = 0.0,
        centres: float = 0.0,
        padding: int = 0,
        heterogeneity_scale: Scale = "coordinate",
        start: float = 1.0,
    ) -> None:
        require(dimension >= 1, "dimension", dimension, ">= 1")
        require(shape in SHAPES, "shape", shape, ", ".join(SHAPES))
        require(clients >= 1, "clients", clients, ">= 1")
        require(heterogeneity >= 0, "heterogeneity", heterogeneity, ">= 0")
        require(noise >= 0, "noise", noise, ">= 0")
        require(hessian_spread >= 0, "hessian_spread", hessian_spread, ">= 0")
        require(centres >= 0, "centres", centres, ">= 0")
        require(0 <= padding < dimension, "padding", padding, f">= 0 and < dimension = {dimension}")
        differ = bool(hessian_spread or heterogeneity)
        require(clients > 1 or not differ, "clients", clients, ">= 2 where clients are to differ")
        self._options = dict(
            dimension=dimension, shape=shape, exponent=exponent, heterogeneity=heterogeneity, noise=noise,
            replicates=list(replicates), key=key, hessian_spread=hessian_spread, centres=centres, padding=padding,
            heterogeneity_scale=heterogeneity_scale, start=start,
        )  # fmt: skip
        self.clients, self.noise, self.key, self.start = clients, noise, key, start
        active = dimension - padding
        self.spectrum = np.concatenate([spectra.power(active, exponent), np.zeros(padding)])
        signs = np.resize([1.0, -1.0], clients) * (np.arange(clients) < clients - clients % 2)
        self.delta = torch.from_numpy(hessian_spread * signs)
        """delta_i, (M,)."""
        self.centres, self.linear = (torch.zeros((clients, dimension), dtype=torch.float64) for _ in range(2))
        """c_ij and b_ij, (M, d)."""
        if centres:
            drawn = keys.rng(keys.derive(key, "centres")).standard_normal((clients, active))
            self.centres[:, :active] = torch.from_numpy(centres * drawn)
        if heterogeneity:
            self.linear[:, :active] = linear_terms(clients, active, heterogeneity, heterogeneity_scale, key)
        self.layout = Layout(((dimension,),), tuple(replicates))
        self.loss = SeparableLoss(torch.from_numpy(self.spectrum), SHAPES[shape])

    @property
    def smoothness(self) -> float:
        """An L that bounds |f_i''| for every client: max_j s_j (max |phi''| + |delta_i|)."""
        shape = self.loss.shape
        return float(self.spectrum.max() * (max(abs(shape.least), shape.most) + self.delta.abs().max()))

    @property
    def sigma_g(self) -> float:
        """A bound on |grad f_i - grad f| for every client and x (HiSo A3): max |b_i| + |s| (max |delta_i| + mean |delta_i|).

        tanh is at most 1 in size, so s_j (|delta_i| + (1/M) sum_i |delta_i|) bounds coordinate j; with all centres equal the
        mean's part is exactly 0 and is left out.
        """
        same = bool((self.centres == self.centres[0]).all())
        reach = float(self.delta.abs().max()) + (0.0 if same else float(self.delta.abs().mean()))
        return float(self.linear.square().sum(1).sqrt().max()) + reach * float(np.linalg.norm(self.spectrum))

    def client_part(self, client: np.ndarray) -> ClientPart:
        """What makes the client of each replicate, without gradient noise."""
        who = torch.as_tensor(client)
        return ClientPart(self.delta[who].unsqueeze(-1), self.centres[who], self.linear[who])

    def gradients(self, x: Tensor) -> Tensor:
        """The gradient of every f_i at x, of shape (..., d): (M, ..., d). Their mean is the gradient of f."""
        return torch.stack([self.loss.gradient(x, self.client_part(np.array(i))) for i in range(self.clients)])

    def curvatures(self, x: Tensor) -> Tensor:
        """The Hessians' diagonals (they are diagonal), as `gradients`."""
        return torch.stack([self.loss.curvature(x, self.client_part(np.array(i))) for i in range(self.clients)])

    def initial(self) -> Point:
        """`start` in every coordinate."""
        return (torch.full(self.layout.shape(0), float(self.start), dtype=torch.float64),)

    def batch(self, client: np.ndarray, round_: int, step: int) -> Batch:
        """The client's part, its linear term with the batch's gradient noise."""
        part = self.client_part(client)
        if not self.noise:
            return part
        draw = keys.batch_rng(self.key, client, round_, step).standard_normal(self.layout.shape(0))
        return part._replace(linear=part.linear + torch.from_numpy(self.noise * (self.spectrum > 0) * draw))

    def evaluate(self, x: Point) -> dict[str, float]:
        """Loss and |grad f|^2 (what the non-convex theorems bound), means over replicates."""
        parts = [self.client_part(np.array(i)) for i in range(self.clients)]
        gradient = self.gradients(x[0]).mean(0).square().sum(-1)
        return {"loss": float(self.loss.each(x, parts).mean()), "gradient": float(gradient.mean())}

    def oracle_h(self) -> Point:
        """s_j max |phi''|, plus 0: a diagonal that bounds the Hessian of sum_j s_j phi everywhere."""
        shape = self.loss.shape
        return (torch.from_numpy(self.spectrum) * max(abs(shape.least), shape.most),)

    def describe(self) -> dict[str, Any]:
        """The options."""
        return dict(self._options)
