"""What HiSo's H learns where the gradient stands still, and beside it null models and RMSProp, through the real round.

On a linear loss the gradient never moves, so H settles where `hiso_bench.theory.learned` says.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from hiso_bench import keys
from hiso_bench.directions import Directions, Warped
from hiso_bench.federation import Federation, FederationOptions
from hiso_bench.losses import Batch, Loss
from hiso_bench.methods import HiSo, Method, Step
from hiso_bench.points import Layout, Point, flat
from hiso_bench.problems import Problem
from hiso_bench.state import State

STILL = 1e-9
"""The rate of runs on a linear loss: x must move, and its size does not matter."""
EIGHT = 8.0
"""Scaled by its powers, a run without eps keeps every bit: their cube roots are powers of two."""


class _LinearLoss(Loss):
    def __call__(self, x: Point, batch: Batch) -> Tensor:
        return (x[0] * batch).sum(-1)


class Linear:
    """f_i(x) = (v + noise) . x, x_0 = 0: a gradient that stands still.

    Args:
        gradient: v, shape (d,), or one per replicate: broadcasts to (*replicates, d).
        clients: M, all with this loss.
        noise: standard deviation of each coordinate of a batch's gradient noise.
        replicates: replicate shape.
        key: 64-bit key of the noise.
    """

    name = "linear"
    metric = "loss"
    higher_is_better = False
    loss: Loss = _LinearLoss()

    def __init__(
        self, gradient: ArrayLike, clients: int = 1, noise: float = 0.0, replicates: tuple[int, ...] = (), key: int = 0
    ) -> None:
        self.gradient = torch.as_tensor(np.asarray(gradient, dtype=np.float64))
        self.clients, self.noise, self.key = clients, noise, key
        self.layout = Layout(((self.gradient.shape[-1],),), tuple(replicates))

    def initial(self) -> Point:
        """Zeros."""
        return (torch.zeros(self.layout.shape(0), dtype=torch.float64),)

    def batch(self, client: np.ndarray, round_: int, step: int) -> Batch:
        """The gradient, with noise of its own for every client, round and step."""
        if not self.noise:
            return self.gradient
        normal = keys.batch_rng(self.key, client, round_, step).standard_normal(self.layout.shape(0))
        return self.gradient + self.noise * torch.from_numpy(normal)

    def evaluate(self, x: Point) -> dict[str, float]:
        """The mean loss."""
        return {"loss": float(self.loss(x, self.gradient).mean())}

    def describe(self) -> dict[str, Any]:
        """The options."""
        return {"gradient": self.gradient.tolist(), "clients": self.clients, "noise": self.noise, "key": self.key}


@dataclass(frozen=True, kw_only=True)
class RootH(HiSo):
    """RMSProp in HiSo's place: H^2 is the moving average of (H dx)^2, so H is the root mean square of the gradient estimates.

    Two things differ from HiSo: what is squared is H dx, an estimate of the gradient, in place of dx = H^{-1} gradient; and H
    is the root of the average, in place of the average.
    """

    def learn(self, state: State, steps: Sequence[Step], z: Warped, dx: Point) -> None:
        """H <- sqrt((1 - ema_new) H^2 + ema_new (H dx)^2)."""
        for h, step in zip(state.buffers["h"], dx, strict=True):
            h.mul_((1 + self.ema_new * (step.square() - 1)).sqrt())


class Settled(NamedTuple):
    """A run on a linear loss after its start is forgotten, per replicate."""

    h: NDArray[np.float64]
    """The time average of H, (*replicates, d)."""
    last: NDArray[np.float64]
    """H at the end, (*replicates, d)."""
    step: NDArray[np.float64]
    """The time average of dx, (*replicates, d)."""


def settle(
    problem: Linear, method: Method, rounds: int, burn: int, key: int, *, sampled: int = 1, independent: bool = False
) -> Settled:
    """Run, and average over the rounds after the first `burn`. DeComFL has H = 1.

    Args:
        problem: the frozen gradient.
        method: of rate `STILL`.
        rounds: in all.
        burn: forgotten rounds; H forgets its start by exp(-2 ema_new) a round.
        key: of the run.
        sampled: m.
        independent: whether clients draw directions of their own.
    """
    options = FederationOptions(wire="float64", key=key, sampled=sampled, independent=independent)
    federation = Federation(problem, method, options)
    total = torch.zeros(problem.layout.shape(0), dtype=torch.float64)
    start, h = federation.state.x[0].clone(), torch.ones_like(total)
    for r in range(rounds):
        if r == burn:
            start = federation.state.x[0].clone()
        federation.round()
        h = federation.state.buffers["h"][0] if "h" in federation.state.buffers else h
        if r >= burn:
            total += h
    kept = rounds - burn
    step = (start - federation.state.x[0]) / (kept * torch.as_tensor(method.lr))
    return Settled((total / kept).numpy(), h.numpy(), step.numpy())


class Learned(NamedTuple):
    """What a run holds after some round, (*replicates, d) each, leaves joined."""

    x: NDArray[np.float64]
    h: NDArray[np.float64]
    null: NDArray[np.float64]
    """H from the run's scalars along directions that never saw the loss: what the moving average makes of chance alone."""


def follow(problem: Problem, method: Method, rounds: Sequence[int], key: int, local_steps: int = 1) -> Iterator[Learned]:
    """Run from `key`, and replay every round's scalars along the directions of another key; look after each of `rounds`.

    Cost: twice that of a run.
    """
    options = FederationOptions(wire="float64", key=key, local_steps=local_steps)
    federation, null = (Federation(problem, method, options) for _ in range(2))
    null.directions = Directions(problem.layout, keys.derive(key, "null"), dtype=federation.state.x[0].dtype)
    axes = len(problem.layout.replicate_shape)
    for r in range(max(rounds) + 1):
        if r in rounds:
            held = (federation.state.x, federation.state.buffers["h"], null.state.buffers["h"])
            yield Learned(*(torch.cat([flat(leaf, axes) for leaf in point], -1).double().numpy() for point in held))
        if r < max(rounds):
            null.replay(federation.round().record)


def with_null(problem: Problem, method: Method, rounds: int, key: int) -> Learned:
    """What `follow` sees after the last of some rounds."""
    return next(follow(problem, method, (rounds,), key))


def log_correlation(h: NDArray, s: NDArray) -> NDArray[np.float64]:
    """Pearson's correlation of log h with log s over coordinates, (*replicates,); s has shape (d,), both are positive."""
    a, b = (np.log(values) - np.log(values).mean(-1, keepdims=True) for values in (h, s))
    return (a * b).sum(-1) / np.sqrt((a * a).sum(-1) * (b * b).sum(-1))
