"""MEAZO (Dbouk et al., arXiv 2605.03869): one adaptive number, the running root mean square of the mean scalar."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from hiso_bench.directions import Warped
from hiso_bench.methods import register
from hiso_bench.methods.base import Step
from hiso_bench.methods.moving_square import MovingSquare, zero
from hiso_bench.points import Layout, Point, Value
from hiso_bench.state import State


@dataclass(frozen=True, kw_only=True)
class Meazo(MovingSquare):
    """V <- (1 - ema_new) v + ema_new s^2 with s the mean of the P scalars, x <- x - eta dx / (sqrt(v / w) + eps).

    w is the weight that v has gathered (Adam's bias correction), so the first round moves by eta dx / |s|. With several local
    steps a step is divided by what the round started from and itself; the v of a round is agreed afterwards.

    | | per round |
    |-|-|
    | scalars | P up, P down |
    | forwards | P + 1 (forward), 2 P (central) |
    | state beside x | two numbers |

    Attributes:
        ema_new: weight of the new square; 1 - beta of the paper.
        eps: added to the root.
    """

    def init(self, x: Point, layout: Layout) -> State:
        """X, v = 0 and w = 0."""
        state = super().init(x, layout)
        state.buffers |= {"v": (zero(layout),), "weight": (zero(layout),)}
        return state

    def rate(self, state: State, step: Step) -> Value:
        """Eta over the corrected root that holds with this step in it."""
        v, w = self._updated(state.buffers["v"][0], state.buffers["weight"][0], step)
        return super().rate(state, step) / ((v / w).sqrt() + self.eps)

    def learn(self, state: State, steps: Sequence[Step], z: Warped, dx: Point) -> None:
        """V and w take in every step of the round in order."""
        (v,), (w,) = state.buffers["v"], state.buffers["weight"]
        for step in steps:
            new_v, new_w = self._updated(v, w, step)
            v.copy_(new_v)
            w.copy_(new_w)

    def _updated(self, v: Tensor, w: Tensor, step: Step) -> tuple[Tensor, Tensor]:
        mean = step.weights.mean(0).sum(0)  # weights are scalars over P
        return v + self.ema_new * (mean.square() - v), w + self.ema_new * (1 - w)


register("meazo", Meazo)
