"""Classification losses with replicate axes of their own: one batched pass for a grid of rates times keys.

The data of a loss are rows (examples, or contexts of a language) with a joint weight w_nc of row n and class c; they sum to one:

    f(x) = - sum_nc w_nc log softmax(a_n(x))_c,

so that one-hot labels of N examples (w = 1/N at the label), a known distribution, and clients of unequal size (rows of weight 0)
are the same thing. Because the logits a_n are named, the generalised Gauss-Newton matrix is defined too: see
`hiso_bench.curvature`.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import NamedTuple

import torch
from torch import Tensor

from hiso_bench.losses import Loss
from hiso_bench.points import Point


class Rows(NamedTuple):
    """A batch: what the logits are computed from, and the weights. Replicate axes may be absent: then all replicates share it."""

    inputs: Tensor | None
    """(*replicates, n, features) or (n, features); None where the rows are all there is (one row per token)."""
    weights: Tensor
    """w, (*replicates, n, classes) or (n, classes), not negative; the sum over the last two axes is 1."""


class SoftmaxLoss(Loss):
    """The cross-entropy above; subclasses say what the logits are."""

    @abstractmethod
    def logits(self, x: Point, inputs: Tensor | None) -> Tensor:
        """The logits a, (*replicates, n, classes), in the dtype of x, differentiable in x."""

    def __call__(self, x: Point, batch: Rows) -> Tensor:
        """Float64 of the replicate shape. Cost: the logits, and a few passes over them."""
        inputs = None if batch.inputs is None else batch.inputs.to(x[0].dtype)
        logs = torch.log_softmax(self.logits(x, inputs), -1)
        # Float64 before the sum: it then adds no rounding of its own to the difference quotient.
        return -(logs.double() * batch.weights).sum((-1, -2))


def one_hot(labels: Tensor, classes: int, weight: Tensor | float) -> Tensor:
    """Weights of labelled rows: float64 (*labels.shape, classes), `weight` (broadcasts to labels) at the label, 0 elsewhere."""
    weight = torch.as_tensor(weight, dtype=torch.float64).expand(labels.shape)
    zeros = torch.zeros((*labels.shape, classes), dtype=torch.float64)
    return zeros.scatter_(-1, labels.unsqueeze(-1), weight.unsqueeze(-1))
