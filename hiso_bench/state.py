"""The state that every participant shares (x, H, momentum) and the one place where a round changes it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from hiso_bench.directions import Directions, Warped
from hiso_bench.points import Layout, Point, clone, fingerprint

if TYPE_CHECKING:
    from hiso_bench.methods.base import Method, Step


@dataclass
class State:
    """Everything a replay needs: the point x, a method's own points by name ("h", "momentum"), and the number of rounds done."""

    layout: Layout
    x: Point
    buffers: dict[str, Point] = field(default_factory=dict)
    round: int = 0

    def copy(self) -> State:
        """A state that shares no memory with this one."""
        return State(self.layout, clone(self.x), {name: clone(b) for name, b in self.buffers.items()}, self.round)

    def fingerprint(self) -> int:
        """A 64-bit integer of the exact bits of x and every buffer, and of the round."""
        names = sorted(self.buffers)
        return (fingerprint([self.x, *(self.buffers[name] for name in names)]) + self.round) % 2**64

    def keep_where(self, active: Tensor, before: State) -> None:
        """Undo what happened to the replicates that are not `active` (bool, replicate-shaped)."""
        for name in self.buffers:
            self._keep(active, self.buffers[name], before.buffers[name])
        self._keep(active, self.x, before.x)

    def _keep(self, active: Tensor, now: Point, then: Point) -> None:
        for leaf, old in zip(now, then, strict=True):
            mask = active.reshape(active.shape + (1,) * (leaf.ndim - active.ndim))
            torch.where(mask, leaf, old, out=leaf)


def replay(
    method: Method,
    state: State,
    steps: Sequence[Step],
    directions: Directions,
    z: Warped | None = None,
    buffer: Point | None = None,
) -> None:
    """Advance `state` in place by one round of agreed steps: move for every step, then learn.

    Server, clients, late joiners, auditors, resumed runs and figures all call this. H is frozen while the steps move x;
    it changes afterwards (HiSo paper, section 4.3: x_{t+1} first, then H_{t+1}).

    Args:
        method: decides the direction, the move and what is learned.
        state: changed in place.
        steps: one per local step, in order; none for a round that nobody answered (only the round counter moves). A
            replicate whose scalars hold a NaN does not move in this round: that is how an unanswered or diverged
            replicate is written.
        directions: where u comes from.
        z: the round's warped directions, if the caller has them; their cache saves drawing again.
        buffer: scratch point for the accumulated direction.

    Cost: len(steps) * P random points if z is not cached, and as many passes over x.
    """
    if steps:
        active = torch.stack([step.active for step in steps]).all(0)
        before = None if bool(active.all()) else state.copy()
        warped = Warped(directions, method.warp(state)) if z is None else z
        dx = state.layout.empty(directions.dtype, directions.device) if buffer is None else buffer
        for step in steps:
            method.move(state, method.direction(step, state.layout, warped, out=dx))
        method.learn(state, steps, warped, dx)
        if z is None:
            warped.close()
        if before is not None:
            state.keep_where(active, before)
    state.round += 1


Warp = Callable[[Point], Point]
"""Overwrites u with z and returns it."""
