"""What a problem offers to the federation."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
from torch import Tensor

from hiso_bench.losses import Batch, Loss
from hiso_bench.points import Layout, Point


class Base(Protocol):
    """What a replay needs to know of a problem: no data."""

    name: str
    clients: int
    """M."""
    layout: Layout

    def initial(self) -> Point:
        """The base point x_0."""
        ...


@runtime_checkable
class Saves(Protocol):
    """A base whose points are models that other programs can load."""

    def save(self, x: Point, folder: Path, told: dict[str, Any]) -> str:
        """Write the model at x into a new folder, with `told` beside it; returns what was written, in a word."""
        ...


class PublicInputs(Protocol):
    """A problem whose parties all hold some examples: no client's training data, and none that results are reported on."""

    def layer_inputs(self, x: Point, examples: int, draw: int) -> Sequence[Tensor | None]:
        """What enters the linear layers at x on some of those examples.

        Args:
            x: the point.
            examples: how many, without replacement.
            draw: which of the draws; they come from the problem's own key.

        Returns:
            For each leaf of x (*replicates, ..., n): inputs (*replicates, rows, n), or without replicate axes where all have the
            same; None for a leaf that is no weight of a linear layer.

        Raises:
            ValueError: the parties do not share as many examples.
        """
        ...


class Problem(Base, Protocol):
    """What the federation needs to know of a problem. Every random choice inside it must come from its own key."""

    metric: str
    """The metric a person watches, one of those `evaluate` returns."""
    higher_is_better: bool

    @property
    def loss(self) -> Loss:
        """The clients' losses: what differs between clients comes in with the batch."""
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
