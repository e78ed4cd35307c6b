"""The state that every participant shares: x, H, momentum."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from hiso_bench.points import Layout, Point, clone, fingerprint

Warp = Callable[[Point], Point]
"""Overwrites u with z and returns it."""


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
