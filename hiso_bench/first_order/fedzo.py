"""FedZO (arXiv 2201.09531): local zeroth-order steps along directions of each client's own, and vectors on the wire."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from hiso_bench.differences import evaluations, measure
from hiso_bench.directions import DirectionKey, Directions
from hiso_bench.first_order.base import FirstOrder
from hiso_bench.losses import Batch, Loss
from hiso_bench.methods import register
from hiso_bench.methods.base import require
from hiso_bench.points import Point, add_scaled


@dataclass(frozen=True, kw_only=True)
class FedZO(FirstOrder):
    """g = (d / (P mu)) sum_p [f(x + mu v_p) - f(x)] v_p, v_p uniform on the unit sphere; x <- x + lr mean_i D_i.

    With z = sqrt(d) v this is the forward difference of every other method here along z with mu / sqrt(d) in mu's place. P is the
    paper's b2, the batch its b1. Nobody else has to know a client's directions, which is why vectors are sent.

    Attributes:
        lr: the server's step size; 1 is averaging.
        perturbations: P.
        mu: distance from x at which the loss is evaluated, in the Euclidean norm.
    """

    lr: float = 1.0
    perturbations: int = 5
    mu: float = 1e-3

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.perturbations >= 1, "perturbations", self.perturbations, ">= 1")
        require(0 < self.mu < math.inf, "mu", self.mu, "a finite number > 0")

    @property
    def evaluations(self) -> int:
        """P + 1."""
        return evaluations("forward", self.perturbations)

    def estimate(
        self, loss: Loss, x: Point, batch: Batch, key: DirectionKey, directions: Directions, buffer: Point
    ) -> tuple[Tensor, Point]:
        """The loss at x and the mean of s_p z_p."""
        layout, used = directions.layout, [key._replace(p=p) for p in range(self.perturbations)]
        z = directions.layout.empty(directions.dtype, directions.device)
        mu = self.mu / math.sqrt(layout.dimension)
        found = measure(loss, layout, x, lambda k: directions.draw(k, out=z), used, [batch], mu, "forward", buffer)
        g = tuple(torch.zeros_like(leaf) for leaf in x)
        for one, s in zip(used, found.scalars[0], strict=True):
            add_scaled(layout, g, directions.draw(one, out=z), s / self.perturbations, out=g)
        return found.loss[0], g


register("fedzo", FedZO)
