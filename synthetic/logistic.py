"""Federated logistic regression with planted low effective rank, labels and label noise; smooth, convex, and fully known.

f_i(x) = (1/n) sum_k log(1 + exp(-y_ik a_ik . x)) + (ridge/2) |x|^2 over the n examples of client i, f their mean over clients.
Features are normal with variances j^-exponent, so the Hessian (1/Mn) A' diag(p(1-p)) A + ridge I inherits their effective rank.
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import scipy
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import softplus

from hiso_bench import keys
from hiso_bench.losses import Batch, Loss
from hiso_bench.methods.base import require
from hiso_bench.points import Layout, Point
from hiso_bench.theory import spectra


class LogisticLoss(Loss):
    """The mean of log(1 + exp(-b . x)) plus (ridge/2) |x|^2; the batch holds the signed features b = y a (*replicates, n, d)."""

    def __init__(self, ridge: float) -> None:
        self.ridge = ridge

    def __call__(self, x: Point, batch: Batch) -> Tensor:
        """Float64 of the replicate shape. Cost: one pass over the batch."""
        margins = (batch @ x[0].unsqueeze(-1)).squeeze(-1)
        return softplus(-margins).mean(-1) + self.ridge / 2 * x[0].square().sum(-1)


class Logistic:
    """Logistic regression on planted data, started at x = 0.

    Args:
        dimension: d.
        feature_exponent: features have variances j^-feature_exponent.
        clients: M.
        examples: n, examples per client.
        batch_size: examples per client and local step, drawn without replacement; 0 takes all n (no gradient noise).
        label_noise: chance that a label is flipped after it was drawn from the planted model.
        skew: clients' planted vectors are the common one plus `skew` times a normal vector of their own.
        ridge: > 0, which makes the minimum unique.
        replicates: replicate shape.
        key: 64-bit key of data and batches.

    Raises:
        ValueError: an option out of range.
    """

    name = "logistic"
    metric = "excess"
    higher_is_better = False

    def __init__(
        self,
        dimension: int = 100,
        feature_exponent: float = 1.5,
        clients: int = 8,
        examples: int = 128,
        batch_size: int = 0,
        label_noise: float = 0.0,
        skew: float = 0.0,
        ridge: float = 1e-3,
        replicates: tuple[int, ...] = (),
        key: int = 0,
    ) -> None:
        require(dimension >= 1, "dimension", dimension, ">= 1")
        require(clients >= 1, "clients", clients, ">= 1")
        require(examples >= 1, "examples", examples, ">= 1")
        require(0 <= batch_size <= examples, "batch_size", batch_size, f">= 0 (0: all) and <= examples = {examples}")
        require(0 <= label_noise <= 0.5, "label_noise", label_noise, ">= 0 and <= 0.5")
        require(skew >= 0, "skew", skew, ">= 0")
        require(ridge > 0, "ridge", ridge, "> 0")
        self._options = dict(
            dimension=dimension, feature_exponent=feature_exponent, examples=examples, batch_size=batch_size,
            label_noise=label_noise, skew=skew, ridge=ridge, replicates=list(replicates), key=key,
        )  # fmt: skip
        self.clients, self.batch_size, self.ridge, self.key = clients, batch_size, ridge, key
        self.layout = Layout(((dimension,),), tuple(replicates))
        self.loss = LogisticLoss(ridge)
        self.feature_variances = spectra.power(dimension, feature_exponent)
        draw = keys.rng(keys.derive(key, "data"))
        features = draw.standard_normal((clients, examples, dimension)) * np.sqrt(self.feature_variances)
        planted = draw.standard_normal(dimension) + skew * draw.standard_normal((clients, dimension))
        chances = scipy.special.expit(np.einsum("mnd,md->mn", features, planted))
        labels = np.where(draw.random((clients, examples)) < chances, 1.0, -1.0)
        flips = draw.random((clients, examples)) < label_noise
        self.signed: NDArray[np.float64] = features * np.where(flips, -labels, labels)[..., None]
        """y a, all that a loss needs of the data: (M, n, d)."""
        self._signed = torch.from_numpy(self.signed)

    @functools.cached_property
    def smoothness(self) -> float:
        """L of the mean loss: the largest eigenvalue of A'A / (4 M n), plus ridge. Attained at x = 0. Cost O(M n d^2)."""
        return float(np.linalg.norm(self._stacked, 2) ** 2 / (4 * len(self._stacked)) + self.ridge)

    @property
    def _stacked(self) -> NDArray[np.float64]:
        return self.signed.reshape(-1, self.layout.dimension)

    def value(self, x: NDArray[np.float64]) -> float:
        """f(x), x of shape (d,)."""
        return float(np.logaddexp(0, -self._stacked @ x).mean() + self.ridge / 2 * (x @ x))

    def gradient(self, x: NDArray[np.float64], client: int | None = None) -> NDArray[np.float64]:
        """The gradient of f, or of a client's f_i, at x: (d,)."""
        rows = self._stacked if client is None else self.signed[client]
        return self.ridge * x - rows.T @ scipy.special.expit(-rows @ x) / len(rows)

    def hessian(self, x: NDArray[np.float64]) -> NDArray[np.float64]:
        """The Hessian of f at x: (d, d). Its effective rank, diagonal and whitening ranks are those of `theory.spectra`."""
        p = scipy.special.expit(self._stacked @ x)
        return (self._stacked.T * (p * (1 - p))) @ self._stacked / len(self._stacked) + self.ridge * np.eye(len(x))

    @functools.cached_property
    def minimiser(self) -> NDArray[np.float64]:
        """x* with a gradient below 1e-12 in every coordinate: SciPy's trust-region Newton method, then Newton steps.

        Raises:
            ArithmeticError: rounding does not let the gradient fall that far.
        """
        start = np.zeros(self.layout.dimension)
        x = scipy.optimize.minimize(self.value, start, jac=self.gradient, hess=self.hessian, method="trust-exact").x
        for _ in range(20):
            if np.abs(gradient := self.gradient(x)).max() < 1e-12:
                return x
            x = x - np.linalg.solve(self.hessian(x), gradient)
        raise ArithmeticError(f"the gradient stays at {np.abs(gradient).max():.3g}")

    @functools.cached_property
    def minimum(self) -> float:
        """f(x*)."""
        return self.value(self.minimiser)

    def initial(self) -> Point:
        """Zeros."""
        return (torch.zeros(self.layout.shape(0), dtype=torch.float64),)

    def batch(self, client: np.ndarray, round_: int, step: int) -> Batch:
        """The signed features of the client's batch, drawn anew for every (round, step) and replicate."""
        who = torch.as_tensor(client)
        if not self.batch_size:
            return self._signed[who]
        draw = keys.batch_rng(self.key, client, round_, step)
        order = draw.random((*self.layout.replicate_shape, self.signed.shape[1])).argsort(-1)
        return self._signed[who.unsqueeze(-1), torch.from_numpy(order[..., : self.batch_size])]

    def evaluate(self, x: Point) -> dict[str, float]:
        """Loss on all data, and its excess over the minimum, means over replicates."""
        loss = self.loss(x, self._signed.reshape(-1, self.layout.dimension)).mean()
        return {"loss": float(loss), "excess": float(loss) - self.minimum}

    def oracle_h(self) -> Point:
        """The exact diagonal of the Hessian at the minimum."""
        return (torch.from_numpy(np.diag(self.hessian(self.minimiser)).copy()),)

    def describe(self) -> dict[str, Any]:
        """The options."""
        return dict(self._options)
