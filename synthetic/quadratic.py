"""Quadratics whose answer is known: f_i(x) = 1/2 x' S_i x + b_i . x, with gradient noise, in float64.

S = Q' diag(s) Q is the mean of the clients' S_i. What theory needs of a problem is exact here: the spectrum s
(`hiso_bench.theory.spectra`), the covariance of the gradient noise and sigma_s^2 = tr V, the heterogeneity
sigma_G^2 = (1/M) sum_i |b_i|^2, and how far the S_i are from S.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
import torch
from torch import Tensor

from hiso_bench import keys
from hiso_bench.losses import Batch, Loss
from hiso_bench.methods.base import require
from hiso_bench.points import Layout, Point
from hiso_bench.theory import spectra

SPECTRA = ("power", "flat", "lognormal", "spiked", "blocks")
Geometry = Literal["isotropic", "hessian"]
Scale = Literal["coordinate", "mean", "max"]
_BLOCK = 1 << 15  # values: 256 KiB, half of a small second-level cache


class ClientQuadratic(NamedTuple):
    """The batch of a client whose Hessian is not the mean one."""

    s: Tensor
    """Eigenvalues in the basis Q, (*replicate_shape, d)."""
    linear: Tensor | None
    """The linear term, (*replicate_shape, d)."""


class QuadraticLoss(Loss):
    """1/2 sum s (Q x)^2 + linear . x along the last axis.

    The batch is the linear term (*replicate_shape, d), None, or a `ClientQuadratic` with eigenvalues of its own.
    """

    def __init__(self, s: Tensor, Q: Tensor | None = None) -> None:
        self.s, self.Q = s, Q

    def __call__(self, x: Point, batch: Batch) -> Tensor:
        """Float64 of the replicate shape. Cost: one pass over x, and a product with Q if there is one."""
        y = x[0] if self.Q is None else x[0] @ self.Q.T
        s, linear = batch if isinstance(batch, ClientQuadratic) else (self.s, batch)
        if s is not self.s or y.requires_grad:
            value = 0.5 * (s * y.square()).sum(-1)
        else:
            value = 0.5 * _row_sums(y, lambda rows, out: torch.square(rows, out=out).mul_(s))
        return value if linear is None else value + (linear * x[0]).sum(-1)


def _row_sums(x: Tensor, terms: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    """terms(x).sum(-1), a few rows at a time so that the terms stay in the cache: the same bits, a third of the time.

    A block has at least two rows: torch divides a sum with a single result among threads, which changes its last bits.
    """
    rows = x.reshape(-1, x.shape[-1])
    count = max(1, min(len(rows) // 2, rows.numel() // _BLOCK))
    blocks = rows.tensor_split(count)
    scratch = torch.empty_like(blocks[0])
    return torch.cat([terms(block, scratch[: len(block)]).sum(-1) for block in blocks]).reshape(x.shape[:-1])


class Quadratic:
    """A federated quadratic, minimum 0 of the mean loss at x = 0, started at x = 1 (in the eigenbasis).

    Args:
        dimension: d.
        spectrum_family: "power": s_j = j^-parameter; "flat": ones; "lognormal": exp(parameter N(0, 1)), drawn from `key`;
            "spiked": `spikes` eigenvalues `parameter`, the others 1; "blocks": see `block_sizes`.
        parameter: the number of the family: exponent, standard deviation or height; unused for "flat" and "blocks".
        clients: M.
        heterogeneity: size of the b_i, which sum to zero over clients; what it is the size of is `heterogeneity_scale`.
        noise: standard deviation of the gradient noise of a batch, see `noise_geometry`.
        replicates: replicate shape.
        key: 64-bit key of spectrum, rotation, heterogeneity and noise.
        spikes: number of large eigenvalues of "spiked".
        block_sizes: multiplicities of the eigenvalues of "blocks"; they sum to d.
        block_values: the eigenvalues of "blocks".
        angle: Q turns every axis by about this many radians (`spectra.rotation`); 0 is axis-aligned, inf a Haar rotation.
        noise_geometry: "isotropic": V = noise^2 I; "hessian": V = noise^2 S, as label noise gives.
        heterogeneity_scale: "coordinate": standard deviation of a coordinate before centring; "mean": exactly
            sqrt((1/M) sum_i |b_i|^2); "max": exactly max_i |b_i|, the sigma_G of HiSo's assumption A3.
        hessian_spread: S_i = Q' diag((1 + hessian_spread e_ij) s_j) Q with e_ij in {-1, 0, 1}, which sums to zero over clients
            (0 for one client of an odd number): |S_i - S| = hessian_spread S elsewhere. 0 <= hessian_spread <= 1.

    Cost: a rotation needs d x d floats, and a product with them per evaluation; without one d = 10^6 is no burden.

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
        spikes: int = 10,
        block_sizes: tuple[int, ...] = (),
        block_values: tuple[float, ...] = (),
        angle: float = 0.0,
        noise_geometry: Geometry = "isotropic",
        heterogeneity_scale: Scale = "coordinate",
        hessian_spread: float = 0.0,
    ) -> None:
        angle = float(angle)  # a description holds infinity as text
        require(dimension >= 1, "dimension", dimension, ">= 1")
        require(spectrum_family in SPECTRA, "spectrum", spectrum_family, ", ".join(SPECTRA))
        require(clients >= 1, "clients", clients, ">= 1")
        require(heterogeneity >= 0, "heterogeneity", heterogeneity, ">= 0")
        require(noise >= 0, "noise", noise, ">= 0")
        require(angle >= 0, "angle", angle, ">= 0, and inf for a Haar rotation")
        require(noise_geometry in get_args(Geometry), "noise_geometry", noise_geometry, ", ".join(get_args(Geometry)))
        require(heterogeneity_scale in get_args(Scale), "heterogeneity_scale", heterogeneity_scale, ", ".join(get_args(Scale)))
        require(0 <= hessian_spread <= 1, "hessian_spread", hessian_spread, ">= 0 and <= 1")
        several = clients > 1 or not (hessian_spread or (heterogeneity and heterogeneity_scale != "coordinate"))
        require(several, "clients", clients, ">= 2 where clients are to differ by a known amount")
        self._options = dict(
            dimension=dimension, spectrum_family=spectrum_family, parameter=parameter, heterogeneity=heterogeneity,
            noise=noise, replicates=list(replicates), key=key,
        )  # fmt: skip
        # Ledgers name the options of their run: those that came later are named where they are used.
        later = dict(
            spikes=(spikes, 10), block_sizes=(list(block_sizes), []), block_values=(list(block_values), []),
            angle=("inf" if angle == math.inf else angle, 0.0), noise_geometry=(noise_geometry, "isotropic"),
            heterogeneity_scale=(heterogeneity_scale, "coordinate"), hessian_spread=(hessian_spread, 0.0),
        )  # fmt: skip
        self._options |= {name: value for name, (value, default) in later.items() if value != default}
        self.clients, self.noise, self.key = clients, noise, key
        draw = keys.rng(keys.derive(key, "spectrum"))
        if spectrum_family == "spiked":
            self.spectrum = spectra.spiked(dimension, spikes, parameter)
        elif spectrum_family == "blocks":
            require(sum(block_sizes) == dimension, "block_sizes", block_sizes, f"sizes that sum to dimension = {dimension}")
            self.spectrum = spectra.blocks(block_sizes, block_values)
        elif spectrum_family == "lognormal":
            self.spectrum = spectra.lognormal(dimension, parameter, draw)
        else:
            self.spectrum = spectra.power(dimension, parameter) if spectrum_family == "power" else spectra.flat(dimension)
        self.Q = rotation(dimension, angle, key)
        self.layout = Layout(((dimension,),), tuple(replicates))
        self.loss = QuadraticLoss(torch.from_numpy(self.spectrum), self.Q)
        self.noise_variances = noise**2 * (self.spectrum if noise_geometry == "hessian" else np.ones(dimension))
        """The eigenvalues of V, in the basis Q: float64 (d,); their sum is sigma_s^2."""
        self._deviations = torch.from_numpy(np.sqrt(self.noise_variances)) if noise_geometry == "hessian" else None
        self.shifts = linear_terms(clients, dimension, heterogeneity, heterogeneity_scale, key) if heterogeneity else None
        """The b_i, (M, d); None if all are 0."""
        self.client_spectra: Tensor | None = None
        """The eigenvalues of the S_i in the basis Q, (M, d); None if all are S."""
        if hessian_spread:
            signs = np.resize([1.0, -1.0], clients) * (np.arange(clients) < clients - clients % 2)
            signs = keys.rng(keys.derive(key, "hessian spread")).permuted(np.tile(signs[:, None], dimension), axis=0)
            self.client_spectra = torch.from_numpy((1 + hessian_spread * signs) * self.spectrum)

    @property
    def sigma_g(self) -> float:
        """The root of (1/M) sum_i |b_i|^2: where the S_i are equal this is sigma_G for every x, in the mean over clients."""
        return 0.0 if self.shifts is None else float(self.shifts.square().sum(1).mean().sqrt())

    def initial(self) -> Point:
        """Ones; for a rotated problem the point whose coordinates in the eigenbasis are ones."""
        ones = torch.ones(self.layout.shape(0), dtype=torch.float64)
        return (ones if self.Q is None else ones @ self.Q,)

    def batch(self, client: np.ndarray, round_: int, step: int) -> Batch:
        """The linear term b_i + noise, drawn per replicate; None if there is neither. With the client's s if that is its own."""
        linear = self._linear(client, round_, step)
        return linear if self.client_spectra is None else ClientQuadratic(self.client_spectra[torch.as_tensor(client)], linear)

    def _linear(self, client: np.ndarray, round_: int, step: int) -> Tensor | None:
        if self.shifts is None and not self.noise:
            return None
        linear = torch.zeros(self.layout.shape(0), dtype=torch.float64)
        if self.shifts is not None:
            linear += self.shifts[torch.as_tensor(client)]
        if self.noise:
            normal = torch.from_numpy(keys.batch_rng(self.key, client, round_, step).standard_normal(self.layout.shape(0)))
            if self._deviations is None:
                linear += self.noise * normal
            else:
                normal *= self._deviations
                linear += normal if self.Q is None else normal @ self.Q
        return linear

    def evaluate(self, x: Point) -> dict[str, float]:
        """The mean over replicates of the mean loss."""
        return {"loss": float(self.loss(x, None).mean())}

    def oracle_h(self) -> Point:
        """The exact diagonal of the Hessian S."""
        s = torch.from_numpy(self.spectrum)
        return (s if self.Q is None else s @ self.Q.square(),)

    def describe(self) -> dict[str, Any]:
        """The options; those that came after the first recorded results only where they differ from their defaults."""
        return dict(self._options)


def rotation(d: int, angle: float, key: int) -> Tensor | None:
    """Q of a problem, (d, d) float64 from `key`: None at angle 0, Haar at infinity, else `spectra.rotation`. Cost O(d^3)."""
    if not angle:
        return None
    draw = keys.rng(keys.derive(key, "rotation"))
    return torch.from_numpy(spectra.haar(d, draw) if angle == math.inf else spectra.rotation(d, angle, draw))


def linear_terms(clients: int, d: int, size: float, scale: Scale, key: int) -> Tensor:
    """Clients' b_i from `key`, normal, summing to zero over clients: (M, d) float64; `scale` as in `Quadratic`."""
    shift = size * keys.rng(keys.derive(key, "heterogeneity")).standard_normal((clients, d))
    shift -= shift.mean(0)
    if scale != "coordinate":
        norms = np.sqrt(np.square(shift).sum(1))
        shift *= size / (norms.max() if scale == "max" else np.sqrt(np.mean(norms**2)))
    return torch.from_numpy(shift)
