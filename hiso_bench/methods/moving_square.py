"""What methods share that divide a step by the root of a moving average of squares, corrected for its start (Adam)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from hiso_bench.methods.base import Method, non_negative, require, weight
from hiso_bench.points import Layout, Value


@dataclass(frozen=True, kw_only=True)
class MovingSquare(Method):
    """Divides by sqrt(v / w) + eps, with v <- (1 - ema_new) v + ema_new (the new square) and w the weight that v has gathered.

    Attributes:
        ema_new: weight of the new square.
        eps: added to the root.
    """

    linear_in_scalars = False

    ema_new: Value = 0.05
    eps: Value = 1e-8

    def __post_init__(self) -> None:
        super().__post_init__()
        require(weight(self.ema_new), "ema_new", self.ema_new, "0 < ema_new <= 1")
        require(non_negative(self.eps), "eps", self.eps, "a finite number >= 0")


def zero(layout: Layout) -> Tensor:
    """A zero for every replicate: float64 of the replicate shape."""
    return torch.zeros(layout.replicate_shape, dtype=torch.float64)
