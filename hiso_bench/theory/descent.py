"""A bound of our own with the rates of DeComFL's theorems (arXiv 2405.15861), from exact second moments and the descent lemma.

With c = `curvature_factor`,

    <S, E dx dx'> <= c g'H^{-1}g      so      avg E|g|^2_{H^{-1}} <= [Delta/(eta R) + eta c N/2] / (1 - eta c/2),   eta < 2/c,

N = Tr(H^{-1} V)/m for gradient noise of covariance V. On quadratics every step of the proof but the first is an equality.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike

from hiso_bench.theory.moments import constants
from hiso_bench.theory.spectra import whitening_rank


def curvature_factor(s: ArrayLike, h: ArrayLike, P: int, law: str = "gaussian") -> float:
    """The least c with <S, E dx dx'> <= c g'H^{-1}g for every g (mu = 0), attained in the top eigenspace of the whitened S.

    c = (1 - 1/P + k1/P) |Xi| + (k2/P) zeta with the constants of the law: Gaussian and P = 1, the rho of HiSo's Theorem 1;
    sphere and H = I, L (1 + (kappa d + d - 2)/(P (d+2))). The stable step eta* is at least 2/c, with equality on flat
    spectra.

    Args:
        s: eigenvalues >= 0, shape (d,), zero modes included.
        h: diagonal of H, positive, shape (d,) or a scalar.
        P: directions averaged in a step.
        law: as in `moments.constants`.

    Raises:
        ValueError: bad shapes, P < 1 or an unknown law.
    """
    s = np.asarray(s, dtype=np.float64)
    zeta = whitening_rank(s, h)
    if P < 1:
        raise ValueError(f"P {P} is out of range; allowed: >= 1")
    k1, k2, _ = constants(law, len(s))
    return (1 - 1 / P + k1 / P) * float(np.max(s / np.asarray(h, dtype=np.float64))) + k2 / P * zeta


def descent_bound(c: float, eta: float, Delta: float, R: int, noise: float) -> float:
    """Our bound on the average over rounds of E|g|^2_{H^{-1}} (module docstring); infinity for eta >= 2/c.

    Args:
        c: `curvature_factor`.
        eta: learning rate, > 0.
        Delta: f(x_0) - f*.
        R: rounds.
        noise: N = Tr(H^{-1} V)/m.

    Raises:
        ValueError: eta not positive.
    """
    if not eta > 0:
        raise ValueError(f"eta {eta} is out of range; allowed: > 0")
    return (Delta / (eta * R) + eta * c * noise / 2) / (1 - eta * c / 2) if eta * c < 2 else math.inf


def descent_step(c: float, Delta: float, R: int, noise: float) -> float:
    """The eta that minimises `descent_bound`: 1/c without noise, about sqrt(2 Delta/(R c N)) where noise decides; <= 1/c."""
    start, slope = Delta / R, c * noise / 2
    half = start * c / 2
    return start / (half + math.sqrt(half**2 + start * slope))
