"""Least squares on fresh minibatches: a problem with real minibatch noise whose expected loss is known exactly.

Features a ~ N(0, diag(s)), labels N(0, label): the minimum is at x = 0, the excess loss is 1/2 sum s x^2, and the noise of a
batch's gradient is in proportion to the Hessian (`hiso_bench.theory.minibatch`). All clients draw from this one law.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from hiso_bench import keys
from hiso_bench.losses import Batch, Loss
from hiso_bench.methods.base import require
from hiso_bench.points import Layout, Point


class SquaredLoss(Loss):
    """Half the mean of (a'x - y)^2 over a batch of (features (*replicates, B, d), labels (*replicates, B))."""

    def __call__(self, x: Point, batch: Batch) -> Tensor:
        """Float64 of the replicate shape. Cost: one pass over the features."""
        features, labels = batch
        return 0.5 * (torch.einsum("...bd,...d->...b", features, x[0]) - labels).square().mean(-1)


class LeastSquares:
    """Streaming least squares, started at x = 1.

    Args:
        spectrum: s, the eigenvalues of the features' covariance, > 0, (d,).
        batch: B, examples per client and step.
        label: variance of the labels.
        clients: M.
        replicates: replicate shape; every replicate has batches of its own.
        key: 64-bit key of the examples.

    Raises:
        ValueError: an option out of range.
    """

    name = "least-squares"
    metric = "loss"
    higher_is_better = False

    def __init__(
        self,
        spectrum: np.ndarray,
        batch: int = 16,
        label: float = 0.01,
        clients: int = 1,
        replicates: tuple[int, ...] = (),
        key: int = 0,
    ) -> None:
        self.spectrum = np.asarray(spectrum, dtype=np.float64)
        require(self.spectrum.ndim == 1 and bool((self.spectrum > 0).all()), "spectrum", self.spectrum.shape, "a positive vector")
        require(batch >= 1, "batch", batch, ">= 1")
        require(label >= 0, "label", label, ">= 0")
        require(clients >= 1, "clients", clients, ">= 1")
        self.examples, self.label, self.clients, self.key = batch, label, clients, key
        self.layout = Layout(((len(self.spectrum),),), tuple(replicates))
        self.loss: Loss = SquaredLoss()
        self._scale = torch.from_numpy(np.sqrt(self.spectrum))

    def initial(self) -> Point:
        """Ones."""
        return (torch.ones(self.layout.shape(0), dtype=torch.float64),)

    def batch(self, client: np.ndarray, round_: int, step: int) -> Batch:
        """B fresh examples for every replicate."""
        draw = keys.batch_rng(self.key, client, round_, step)
        shape = (*self.layout.replicate_shape, self.examples)
        features = torch.from_numpy(draw.standard_normal((*shape, self.layout.dimension))).mul_(self._scale)
        return features, torch.from_numpy(self.label**0.5 * draw.standard_normal(shape))

    def excess(self, x: Point) -> Tensor:
        """1/2 sum s x^2, the expected loss above its minimum: float64 of the replicate shape."""
        return 0.5 * (self._scale * x[0]).square().sum(-1)

    def evaluate(self, x: Point) -> dict[str, float]:
        """The mean over replicates of the excess loss."""
        return {"loss": float(self.excess(x).mean())}

    def oracle_h(self) -> Point:
        """The exact diagonal of the Hessian."""
        return (torch.from_numpy(self.spectrum),)

    def describe(self) -> dict[str, Any]:
        """The options."""
        return {
            "spectrum": self.spectrum.tolist(), "batch": self.examples, "label": self.label, "key": self.key,
            "replicates": list(self.layout.replicate_shape),
        }  # fmt: skip
