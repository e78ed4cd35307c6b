"""What a method of vectors is: how a client steps, how its change is sent, and what the server makes of the mean."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from torch import Tensor

from hiso_bench.directions import DirectionKey, Directions
from hiso_bench.first_order.codecs import Codec, Dense
from hiso_bench.ledger import Ledger
from hiso_bench.losses import Batch, Loss, value_and_gradient
from hiso_bench.methods.base import require
from hiso_bench.points import Layout, Point
from hiso_bench.problems import Problem
from hiso_bench.state import State

if TYPE_CHECKING:  # the federation needs the methods
    from hiso_bench.federation import FederationOptions
    from hiso_bench.first_order.federation import VectorFederation


@dataclass(frozen=True, kw_only=True)
class FirstOrder:
    """FedOpt (arXiv 2003.00295, Algorithm 1): local SGD, and a server step along the mean of the clients' changes.

    A sampled client receives x, takes tau steps x_i <- x_i - client_lr g_i and sends D_i = x_i - x; the server moves x by
    a function of D, the mean of the D_i over the clients that answered (all weigh the same).

    Attributes:
        lr: the server's step size; 1 is averaging.
        client_lr: step size of the local steps of a method that sends vectors (FedAvg, ...; the methods of scalars have none).
        client_momentum: b in v <- b v + g of the local steps. A client keeps its v between the rounds for which it is sampled, as
            the official DeComFL code does (fed_avg/client.py: an optimiser a client), so its memory is stale by then.

    Raises:
        ValueError: an option out of range.
    """

    scalar_only: ClassVar[bool] = False
    linear_in_scalars: ClassVar[bool] = False
    federation_options: ClassVar[Mapping[str, Any]] = {}
    """Options of the federation that the method asks for where none is given."""

    lr: float
    client_lr: float = 0.0
    client_momentum: float = 0.0

    def __post_init__(self) -> None:
        require(0 < self.lr < math.inf, "lr", self.lr, "a finite number > 0")
        require(0 < self.local_rate < math.inf, "client_lr", self.client_lr, "a finite number > 0")
        require(0 <= self.client_momentum < 1, "client_momentum", self.client_momentum, "0 <= client_momentum < 1")

    @property
    def local_rate(self) -> float:
        """The step size of the local steps."""
        return self.client_lr

    @property
    def remembers(self) -> bool:
        """Error feedback: whether a client keeps what the server has not learned of its change, and adds it when next sampled.

        A client sends C(D + e) and keeps e <- D + e - decoded(C(D + e)), from e = 0, in float64. So what all its payloads said
        and its e add up to all its changes. One that is not sampled, or drops out, keeps its e.
        """
        return False

    @property
    def evaluations(self) -> int:
        """Forward passes per client and local step; a gradient's backward pass, about two more, is not counted."""
        return 1

    def federate(self, problem: Problem, options: FederationOptions, ledger: Ledger | None = None) -> VectorFederation:
        """The server and the simulated clients that run this method."""
        from hiso_bench.first_order.federation import VectorFederation

        return VectorFederation(problem, self, options, ledger)

    def init(self, x: Point, layout: Layout) -> State:
        """The server's state before round 0. `x` is copied."""
        return State(layout, tuple(leaf.clone() for leaf in x))

    def codec(self, wire: str) -> Codec:
        """How a client's change becomes bytes; `wire` is the dtype of numbers in messages."""
        return Dense(wire)

    def estimate(
        self, loss: Loss, x: Point, batch: Batch, key: DirectionKey, directions: Directions, buffer: Point
    ) -> tuple[Tensor, Point]:
        """The loss at x and what a local step takes for the gradient; `key` names round, step and client."""
        return value_and_gradient(loss, x, batch)

    def aggregate(self, changes: Sequence[np.ndarray]) -> np.ndarray:
        """The decoded changes, float64 (d,), in client order -> what the server steps along."""
        return np.mean(changes, axis=0)

    def serve(self, state: State, change: Point) -> None:
        """Move the server's state in place; `change` has the dtype of x."""
        for x, d in zip(state.x, change, strict=True):
            x.add_(d, alpha=self.lr)
