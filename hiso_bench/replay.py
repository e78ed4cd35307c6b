"""The one place where a round changes the shared state."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from hiso_bench.directions import Directions, Warped
from hiso_bench.methods.base import Method, Step
from hiso_bench.points import Point
from hiso_bench.state import State


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
            method.move(state, method.direction(step, state.layout, warped, out=dx), step)
        method.learn(state, steps, warped, dx)
        if z is None:
            warped.close()
        if before is not None:
            state.keep_where(active, before)
    state.round += 1
