"""HiSo with the whole of its Eq 7: the scalar that solves Eq 5 keeps the factor (u' H^{-1} u)^{-1} that HiSo drops.

Every direction becomes a projection, dx = (1/P) sum_p z_p (z_p' g) / (z_p' z_p), which does not change under H -> c H: of a
learned H only the ratios between coordinates are left, and its step-size adaptation is gone.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from hiso_bench.directions import DirectionKey
from hiso_bench.methods import register
from hiso_bench.methods.base import Method, Step
from hiso_bench.methods.hiso import HiSo, OracleH
from hiso_bench.points import Layout, Point


class _Projected(Method):
    def direction(self, step: Step, layout: Layout, z: Callable[[DirectionKey], Point], out: Point) -> Point:
        """As `Method.direction`, every scalar divided by the squared length of its direction. Cost: one more pass over each z."""
        squares = {key: squared_length(layout, z(key)) for row in step.keys for key in row}
        lengths = torch.stack([torch.stack([squares[key] for key in row]) for row in step.keys])
        return super().direction(step._replace(weights=step.weights / lengths), layout, z, out)


@dataclass(frozen=True, kw_only=True)
class ExactScalar(_Projected, HiSo):
    """HiSo's learned H with the least-squares scalar.

    | | per round |
    |-|-|
    | scalars | P up, P down |
    | forwards | P + 1 (forward), 2 P (central) |
    | state beside x | d numbers |
    """


@dataclass(frozen=True, kw_only=True)
class Projection(_Projected, OracleH):
    """A known H with the least-squares scalar; costs as `ExactScalar`."""


def squared_length(layout: Layout, z: Point) -> Tensor:
    """|z|^2 of every replicate, float64 on the CPU, where scalars are."""
    axes = len(layout.replicate_shape)
    parts = [leaf.double().square().reshape((*leaf.shape[:axes], -1)).sum(-1) for leaf in z]
    return torch.stack(parts).sum(0).cpu()


register("hiso-exact-scalar", ExactScalar)
register("hiso-oracle-exact-scalar", Projection)
