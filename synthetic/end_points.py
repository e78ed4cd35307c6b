"""Is the server's model the mean of its clients' models? Each client's end point comes from a federation of that client alone."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hiso_bench.federation import Federation, FederationOptions
from hiso_bench.losses import Batch, Loss
from hiso_bench.methods.base import Method
from hiso_bench.methods.decomfl import DeComFL
from hiso_bench.participation import participants
from hiso_bench.points import Point
from hiso_bench.problems import Problem


class Median(DeComFL):
    """DeComFL with the median of the clients' scalars in the mean's place: no longer linear in them."""

    linear_in_scalars = False

    def combine(self, scalars: Tensor) -> Tensor:
        """The median over the clients (the lower one of an even number)."""
        return scalars.nanmedian(0, keepdim=True).values


class _One:
    """A problem with one client: the one that each replicate names."""

    def __init__(self, problem: Problem, client: NDArray[np.int64]) -> None:
        self.problem, self.client = problem, client
        self.name, self.metric, self.higher_is_better = problem.name, problem.metric, problem.higher_is_better
        self.clients, self.layout = 1, problem.layout
        self.loss: Loss = problem.loss

    def initial(self) -> Point:
        """The problem's."""
        return self.problem.initial()

    def batch(self, client: np.ndarray, round_: int, step: int) -> Batch:
        """The named client's."""
        return self.problem.batch(self.client, round_, step)

    def evaluate(self, x: Point) -> dict[str, float]:
        """The problem's."""
        return self.problem.evaluate(x)

    def describe(self) -> dict[str, Any]:
        """The problem's, and the client."""
        return self.problem.describe() | {"client": self.client.tolist()}


def end_point_gap(problem: Problem, method: Method, tau: int, sampled: int, rounds: int = 5, stale: bool = False) -> float:
    """Largest distance, over rounds, of the server's model from the mean of the end points of the clients it sampled.

    A client's end point is where a federation of that client alone stands after the round: from the same state, along the same
    directions, on its own scalars. In units of the round's move, max norm.

    Args:
        problem: with replicate axes.
        method: under test.
        tau: local steps.
        sampled: m.
        rounds: how many are compared.
        stale: clients start from the shared state of one round before: they skipped the replay of the last update.
    """
    key, shape = 11, problem.layout.replicate_shape
    options = FederationOptions(sampled=sampled, local_steps=tau, wire="float64", key=key)
    federation = Federation(problem, method, options)
    previous, worst = federation.state.copy(), 0.0
    for r in range(rounds):
        before = federation.state.copy()
        federation.round()
        ends = []
        for client in participants(key, r, problem.clients, sampled, shape):
            alone = Federation(_One(problem, client), method, FederationOptions(local_steps=tau, wire="float64", key=key))
            start = (previous if stale else before).copy()
            start.round = r
            alone.catch_up(start)
            alone.round()
            ends.append(alone.state.x)
        for now, then, own in zip(federation.state.x, before.x, zip(*ends, strict=True), strict=True):
            gap = (torch.stack(own).mean(0) - now).abs().max() / (now - then).abs().max()
            worst = max(worst, float(gap))
        previous = before
    return worst
