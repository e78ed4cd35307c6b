"""Quadratics with known spectra: f_i(x) = 1/2 sum_j s_j x_j^2 + b_i . x, with gradient noise, in float64."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from hiso_bench import keys
from hiso_bench.losses import Batch, Loss
from hiso_bench.methods.base import require
from hiso_bench.points import Layout, Point

SPECTRA = ("power", "flat", "lognormal")


def spectrum(family: str, d: int, parameter: float, key: int = 0) -> np.ndarray:
    """Eigenvalues of a family, largest 1 for "power" and "flat": float64 (d,).

    Args:
        family: "power": s_i = i^-parameter; "flat": ones; "lognormal": exp(parameter * N(0, 1)), drawn from `key`.
        d: dimension.
        parameter: exponent or standard deviation; unused for "flat".
        key: 64-bit key of a random family.

    Raises:
        ValueError: unknown family or d < 1.
    """
    require(family in SPECTRA, "spectrum", family, ", ".join(SPECTRA))
    require(d >= 1, "dimension", d, ">= 1")
    if family == "power":
        return np.arange(1, d + 1, dtype=np.float64) ** -parameter
    if family == "flat":
        return np.ones(d)
    return np.exp(parameter * keys.rng(keys.derive(key, "spectrum")).standard_normal(d))


class QuadraticLoss(Loss):
    """1/2 sum s x^2 + linear . x along the last axis; the batch is the linear term (*replicate_shape, d), or None."""

    def __init__(self, s: Tensor) -> None:
        self.s = s

    def __call__(self, x: Point, batch: Batch) -> Tensor:
        """Float64 of the replicate shape. Cost: one pass over x."""
        value = 0.5 * (self.s * x[0].square()).sum(-1)
        return value if batch is None else value + (batch * x[0]).sum(-1)


class Quadratic:
    """A federated quadratic with a known Hessian diag(s), minimum 0 of the mean loss at x = 0, started at x = 1.

    Args:
        dimension: d.
        spectrum_family: see `spectrum`.
        parameter: see `spectrum`.
        clients: M.
        heterogeneity: standard deviation of the coordinates of b_i; the b_i sum to zero over clients.
        noise: standard deviation of the coordinates of the gradient noise of a batch.
        replicates: replicate shape.
        key: 64-bit key of spectrum, heterogeneity and noise.

    Raises:
        ValueError: an option out of range.
    """

    name = "quadratic"
    metric = "loss"
    higher_is_better = False

    def __init__(
        self,
        dimension: int = 1000,
        spectrum_family: str = "power",
        parameter: float = 1.5,
        clients: int = 8,
        heterogeneity: float = 0.0,
        noise: float = 0.0,
        replicates: tuple[int, ...] = (),
        key: int = 0,
    ) -> None:
        require(clients >= 1, "clients", clients, ">= 1")
        require(heterogeneity >= 0, "heterogeneity", heterogeneity, ">= 0")
        require(noise >= 0, "noise", noise, ">= 0")
        self._options = dict(
            dimension=dimension, spectrum_family=spectrum_family, parameter=parameter, heterogeneity=heterogeneity,
            noise=noise, replicates=list(replicates), key=key,
        )  # fmt: skip
        self.clients, self.noise, self.key = clients, noise, key
        self.spectrum = spectrum(spectrum_family, dimension, parameter, key)
        self.layout = Layout(((dimension,),), tuple(replicates))
        self.loss = QuadraticLoss(torch.from_numpy(self.spectrum))
        self._shift = None
        if heterogeneity:
            shift = heterogeneity * keys.rng(keys.derive(key, "heterogeneity")).standard_normal((clients, dimension))
            self._shift = torch.from_numpy(shift - shift.mean(0))

    def initial(self) -> Point:
        """Ones."""
        return (torch.ones(self.layout.shape(0), dtype=torch.float64),)

    def batch(self, client: np.ndarray, round_: int, step: int) -> Batch:
        """The linear term b_i + noise, drawn per replicate; None if there is neither."""
        if self._shift is None and not self.noise:
            return None
        linear = torch.zeros(self.layout.shape(0), dtype=torch.float64)
        if self._shift is not None:
            linear += self._shift[torch.as_tensor(client)]
        if self.noise:
            # One stream per (slot of clients, round, step): replicates differ by their place in it.
            owner = int(client) if client.ndim == 0 else int.from_bytes(client.astype("<u4").tobytes()[:7], "little")
            draw = keys.rng(keys.derive(self.key, "batch", client=owner, round=round_, step=step))
            linear += self.noise * torch.from_numpy(draw.standard_normal(self.layout.shape(0)))
        return linear

    def evaluate(self, x: Point) -> dict[str, float]:
        """The mean over replicates of the mean loss."""
        return {"loss": float(self.loss(x, None).mean())}

    def oracle_h(self) -> Point:
        """The exact diagonal of the Hessian."""
        return (torch.from_numpy(self.spectrum),)

    def describe(self) -> dict[str, Any]:
        """The options."""
        return dict(self._options)
