"""FZOO (arXiv 2506.09034): Rademacher directions, forward differences, and a step divided by the spread of the losses."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, get_args

import torch

from hiso_bench.directions import DirectionKey
from hiso_bench.methods import register
from hiso_bench.methods.base import Method, Step, require
from hiso_bench.points import Layout, Point

Scale = Literal["code", "paper"]


@dataclass(frozen=True, kw_only=True)
class Fzoo(Method):
    """dx = (1/P) sum_p s_p u_p / std(s), about g / ||g||; in the paper's formula that over mu.

    std, over P - 1, is that of the agreed scalars s_p = (l_p - l_0) / mu: it is std(l) / mu, so every participant has it without
    a further number. Where all s_p are equal nothing was learned of any direction, and x does not move.

    Attributes:
        scale: "code": dx is divided by std(s), as the official code does; "paper": by std(l) = mu std(s). Rates differ by mu.
    """

    linear_in_scalars = False
    federation_options = {"law": "rademacher"}

    scale: Scale = "code"

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.perturbations >= 2, "perturbations", self.perturbations, ">= 2 for a spread")
        require(self.scale in get_args(Scale), "scale", self.scale, ", ".join(get_args(Scale)))

    def direction(self, step: Step, layout: Layout, z: Callable[[DirectionKey], Point], out: Point) -> Point:
        """The plain direction over the spread; rows of independent directions are each divided by their own."""
        scalars = step.weights * step.weights.shape[1]
        spread = scalars.std(1, keepdim=True) * (self.mu if self.scale == "paper" else 1)
        weights = torch.where(spread > 0, step.weights / spread, torch.where(spread.isnan(), spread, 0.0))
        return super().direction(step._replace(weights=weights), layout, z, out)


register("fzoo", Fzoo)
