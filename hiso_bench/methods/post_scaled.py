"""RMSProp and Adam on the reconstructed gradient: isotropic directions, every coordinate scaled after the estimate.

ZO-AdaMM (arXiv 1910.06513) is zo-adam with `amsgrad`, on the sphere's directions. Its projection is not here, and it leaves the
moments uncorrected for their start; here they are corrected as in torch.optim.Adam(amsgrad=True).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from hiso_bench.directions import Warped
from hiso_bench.methods import register
from hiso_bench.methods.base import Step
from hiso_bench.methods.moving_square import MovingSquare, zero
from hiso_bench.points import Layout, Point, Value
from hiso_bench.state import State


@dataclass(frozen=True, kw_only=True)
class PostScaled(MovingSquare):
    """V <- (1 - ema_new) v + ema_new dx^2, x <- x - eta m / (sqrt(v / w) + eps), with dx from H = I.

    m is the moving average of dx of weight 1 - momentum, corrected for its start as v is by w (Adam); at momentum 0 it is dx
    (RMSProp). With several local steps a step is scaled by the v of the round's start and itself.

    | | per round |
    |-|-|
    | scalars | P up, P down |
    | forwards | P + 1 (forward), 2 P (central) |
    | state beside x | d numbers and one; d more with momentum, and d more with `amsgrad` |

    Attributes:
        ema_new: weight of the new square; 1 - beta_2 of Adam.
        eps: added to the root.
        amsgrad: divide by the largest v so far (AMSGrad), so that a coordinate's v never falls again.
    """

    amsgrad: bool = False

    def init(self, x: Point, layout: Layout) -> State:
        """X, v = 0 and w = 0, and what momentum needs."""
        state = super().init(x, layout)
        for name in ("v", "peak") if self.amsgrad else ("v",):
            state.buffers[name] = tuple(torch.zeros_like(leaf) for leaf in x)
        for name in ("weight", "momentum_weight") if self.momentum else ("weight",):
            state.buffers[name] = (zero(layout),)
        return state

    def move(self, state: State, dx: Point, step: Step) -> None:
        """Move x by the scaled direction. Cost: a few passes over x, with a copy of one leaf at a time."""
        layout, eta = state.layout, self.rate(state, step)
        (w,) = state.buffers["weight"]
        w = w + self.ema_new * (1 - w)
        if self.momentum:
            (c,) = state.buffers["momentum_weight"]
            eta = eta * (1 - self.momentum) / (c + (1 - self.momentum) * (1 - c))
        for i, (x, d, v) in enumerate(zip(state.x, dx, state.buffers["v"], strict=True)):
            # The root is of dx alone: weight decay is no estimate.
            root = v.lerp(d.square(), _like(layout.over_leaf(self.ema_new, i), v))
            if self.amsgrad:
                root = torch.maximum(root, state.buffers["peak"][i])
            root = root.div_(_like(layout.over_leaf(w, i), v)).sqrt_().add_(_like(layout.over_leaf(self.eps, i), v))
            target = d.add(x, alpha=self.weight_decay) if self.weight_decay else d
            if self.momentum:
                target = state.buffers["momentum"][i].mul_(self.momentum).add_(target)
            x.sub_(target.div(root).mul_(_like(layout.over_leaf(eta, i), v)))

    def learn(self, state: State, steps: Sequence[Step], z: Warped, dx: Point) -> None:
        """V, its peak and the weights take in every step in order. Cost: a pass over z per direction of several steps."""
        (w,) = state.buffers["weight"]
        for step in steps:
            used = dx if len(steps) == 1 else self.direction(step, state.layout, z, out=dx)
            for i, (v, d) in enumerate(zip(state.buffers["v"], used, strict=True)):
                v.lerp_(d.square_(), _like(state.layout.over_leaf(self.ema_new, i), v))
                if self.amsgrad:
                    torch.maximum(state.buffers["peak"][i], v, out=state.buffers["peak"][i])
            w.add_(self.ema_new * (1 - w))
            if self.momentum:
                (c,) = state.buffers["momentum_weight"]
                c.add_((1 - self.momentum) * (1 - c))


def _like(value: Value, leaf: Tensor) -> Value:
    return value.to(leaf) if isinstance(value, Tensor) else value


register("zo-rmsprop", PostScaled)
register("zo-adam", PostScaled, momentum=0.9, ema_new=0.001)
