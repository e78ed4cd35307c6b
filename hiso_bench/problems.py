"""What a problem offers to the federation."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np

from hiso_bench.losses import Batch, Loss
from hiso_bench.points import Layout, Point


class Problem(Protocol):
    """What the federation needs to know of a problem. Every random choice inside it must come from its own key."""

    name: str
    clients: int
    """M."""
    layout: Layout
    metric: str
    """The metric a person watches, one of those `evaluate` returns."""
    higher_is_better: bool

    @property
    def loss(self) -> Loss:
        """The clients' losses: what differs between clients comes in with the batch."""
        ...

    def initial(self) -> Point:
        """The base point x_0."""
        ...

    def batch(self, client: np.ndarray, round_: int, step: int) -> Batch:
        """The batch of a client (an integer array of the replicate shape: which client each replicate has in this slot)."""
        ...

    def evaluate(self, x: Point) -> dict[str, float]:
        """Metrics at x; must hold "loss"."""
        ...

    def describe(self) -> dict[str, Any]:
        """JSON-able options from which the problem can be built again."""
        ...
