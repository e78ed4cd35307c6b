"""Quadratics declared mode by mode: spectrum, preconditioner, start and noise, in exact theory and through the core.

A rate means nothing before these are fixed: f(x) = 1/2 sum_j s_j x_j^2, H = diag(h), x_0, and the variances v_j of one
client's gradient noise, all of them vectors, with P directions a round and m clients.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from hiso_bench import methods
from hiso_bench.federation import Federation, FederationOptions
from hiso_bench.methods.base import Method, require
from hiso_bench.points import Point
from hiso_bench.theory.closed_form import Descent
from synthetic.quadratic import Quadratic, QuadraticLoss

Vector = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Setting:
    """A quadratic, a fixed H and the noise; everything a rate depends on except the learning rate and the rounds.

    Attributes:
        s: Hessian eigenvalues, (d,).
        h: diagonal of H, (d,); ones are DeComFL.
        x0: start, (d,).
        noise: variances of the coordinates of one client's gradient noise, (d,); their sum is sigma^2 of assumption A2.
        P: directions per round (and client, if they are independent).
        m: clients, all of which take part in every round.
        independent: every client draws its own directions. The exact theory is that of m P shared ones, for equal clients
            without noise.

    Raises:
        ValueError: vectors of unequal lengths, or independent directions with noise.
    """

    s: Vector
    h: Vector
    x0: Vector
    noise: Vector
    P: int = 5
    m: int = 1
    independent: bool = False

    def __post_init__(self) -> None:
        for name in ("h", "x0", "noise"):
            require(getattr(self, name).shape == self.s.shape, name, getattr(self, name).shape, f"shape {self.s.shape}")
        require(not (self.independent and self.noise.any()), "noise", "> 0", "0 where directions are independent")

    @cached_property
    def descent(self) -> Descent:
        """The exact expectation at any learning rate and number of rounds."""
        P = self.P * self.m if self.independent else self.P
        return Descent(self.s, self.h, self.x0, P, self.noise, 1 if self.independent else self.m)

    @property
    def zeta(self) -> float:
        """The whitening rank tr H^{-1/2} S H^{-1/2} (HiSo Eq 16)."""
        return float(np.sum(self.s / self.h))


class Declared(Quadratic):
    """The problem of a `Setting`; all clients have its loss, and gradient noise of their own.

    Args:
        setting: its s, x0, noise and m.
        replicates: replicate shape.
        key: 64-bit key of the noise.
    """

    name = "declared"

    def __init__(self, setting: Setting, replicates: tuple[int, ...] = (), key: int = 0) -> None:
        noisy = bool(setting.noise.any())
        super().__init__(len(setting.s), "flat", clients=setting.m, noise=1.0 if noisy else 0.0, replicates=replicates, key=key)
        self.spectrum, self.noise_variances = setting.s, setting.noise
        self.loss = QuadraticLoss(torch.from_numpy(setting.s))
        self._deviations = torch.from_numpy(np.sqrt(setting.noise))
        self._start = torch.from_numpy(setting.x0)
        self._options = {name: getattr(setting, name).tolist() for name in ("s", "x0", "noise")} | {"key": key}

    def initial(self) -> Point:
        """The setting's x_0 in every replicate."""
        return (self._start.expand(self.layout.shape(0)).clone(),)

    def describe(self) -> dict[str, Any]:
        """The vectors of the setting."""
        return dict(self._options)


class Run(NamedTuple):
    """A simulated setting; one column per key."""

    whitened: NDArray[np.float64]
    """|grad f|^2 in the H^{-1} norm, averaged over rounds 0 .. R-1: (keys,)."""
    euclidean: NDArray[np.float64]
    """|grad f|^2 averaged over the same rounds: (keys,)."""
    losses: NDArray[np.float64]
    """f at rounds 0 .. R: (R + 1, keys)."""


def step(setting: Setting, eta: float) -> Method:
    """DeComFL, or HiSo with the setting's H if that is not the identity; central differences, which have no mu term here."""
    fixed = {"lr": eta, "perturbations": setting.P, "difference": "central"}
    if np.all(setting.h == 1):
        return methods.build("decomfl", fixed)
    return methods.build("hiso-oracle", fixed, h=(torch.from_numpy(setting.h),), eps=0.0)


def simulate(setting: Setting, eta: float, rounds: int, keys: int, key: int) -> Run:
    """Run a setting through the federation with the keys as replicates.

    Args:
        setting: what to run.
        eta: learning rate. At most eta*/2 for an interval of a mean: near eta* the loss has no finite variance.
        rounds: R.
        keys: independent replicates.
        key: 64-bit key of directions and noise.

    Cost: about a millisecond per round at d keys P = 10^4.
    """
    problem = Declared(setting, (keys,), key)
    options = FederationOptions(sampled=setting.m, independent=setting.independent, wire="float64", key=key)
    federation = Federation(problem, step(setting, eta), options)
    weights = torch.from_numpy(np.stack([setting.s**2 / setting.h, setting.s**2, setting.s / 2], axis=1))
    seen = torch.empty((rounds + 1, keys, 3), dtype=torch.float64)
    for r in range(rounds + 1):
        seen[r] = federation.state.x[0].square() @ weights
        if r < rounds:
            federation.round()
    values = seen.numpy()
    return Run(values[:rounds, :, 0].mean(0), values[:rounds, :, 1].mean(0), values[:, :, 2])
