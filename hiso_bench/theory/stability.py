"""The largest learning rate at which a diagonal quadratic is mean-square stable, exactly.

With a_j = E x_j^2 the recursion of one round (see `recursion`) is a+ = N(eta) a + constants, where

    N(eta) = diag(1 - 2 eta lambda_j + A eta^2 lambda_j^2) + eta^2 (k2/P) h^{-1} (lambda s)',

A = 1 - 1/P + k1/P. N is entrywise non-negative, so its spectral radius is below 1 iff I - N, a diagonal minus
a rank-one matrix, is a non-singular M-matrix; by the determinant lemma that is

    F(eta) = (k2/P) sum_j eta lambda_j / (2 - A eta lambda_j) < 1     with every A eta lambda_j < 2.

F increases, so eta* is its root. Off-diagonal second moments add no condition: |E x_i x_j| is at most
sqrt(a_i a_j). At P = 1 and Gaussian directions this is the edge of stability of Song et al.
(arXiv 2604.14669). Modes with s_j = 0 never contract and never enter the loss; they count only through d in
the sphere constants.

For a full H or S and a rotation-invariant law (Gaussian, sphere) pass the eigenvalues of H^{-1/2} S H^{-1/2}
as s and ones as h. Mean-square stability is stricter than almost-sure convergence: in one mode with P = 1 and
Gaussian directions single trajectories still contract at 3 eta*, while E f diverges.
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hiso_bench.theory.moments import check_options, constants


def max_stable_step(s: ArrayLike, h: ArrayLike, P: int, law: str = "gaussian") -> float:
    """eta*, the root of F(eta) = 1: E f stays bounded for eta < eta* and grows without bound above.

    It depends neither on mu nor on gradient noise, which only set the floor. Flat spectra have a closed form,
    2P / (lambda (d + P + 1)) for Gaussian directions; P -> infinity gives gradient descent's 2 / lambda_max.

    Args:
        s: Hessian eigenvalues, >= 0, at least one positive, shape (d,); units f / x^2.
        h: diagonal of H, positive, shape (d,) or a scalar.
        P: directions averaged in the step.
        law: "gaussian", "sphere" or "rademacher".

    Returns:
        eta*, in units of h x^2 / f, to the last bits of float64. Cost O(d) times about 55 halvings.

    Raises:
        ValueError: for a negative or all-zero s, an h that is not positive, P < 1 or an unknown law.
    """
    lam = _spectrum(s, h)
    low, high = _bounds(lam, P, law)
    # F(low) <= 1 <= F(high) by the proof of the bounds; rounding may make the ends meet (flat spectrum).
    while low < (middle := (low + high) / 2) < high:
        if _growth(lam, middle, P, law) < 1:
            low = middle
        else:
            high = middle
    return low


def stable_step_bounds(s: ArrayLike, h: ArrayLike, P: int, law: str = "gaussian") -> tuple[float, float]:
    """Closed-form bounds low <= eta* <= high, equal on flat spectra.

    With T = sum lambda, L = max lambda and R = sum lambda^2 / T (lambda-weighted mean, R <= L),

        2 / (k2 T/P + A L)  <=  eta*  <=  min{ 2 / (k2 T/P + A R),  2 / (L (A + k2/P)) }.

    Left: replace every denominator of F by the smallest. Right: Jensen for the convex x -> 1/(2 - A eta x)
    under the weights lambda_j / T, and the single term of the largest mode. Gaussian: 2P/(T + (P+1) L) on the
    left, and the right is below both 2P/T and 2P/((P+2) L).

    Args:
        s: as in `max_stable_step`, and so is the rest.
        h: diagonal of H.
        P: directions averaged in the step.
        law: law of w.

    Returns:
        (low, high).

    Raises:
        ValueError: as `max_stable_step`.
    """
    return _bounds(_spectrum(s, h), P, law)


def growth(s: ArrayLike, h: ArrayLike, eta: float, P: int, law: str = "gaussian") -> float:
    """F(eta): below 1 iff mean-square stable; infinity where some A eta lambda_j >= 2.

    Args:
        s: as in `max_stable_step`.
        h: diagonal of H.
        eta: learning rate, >= 0.
        P: directions averaged in the step.
        law: law of w.

    Returns:
        F(eta) >= 0, no units.

    Raises:
        ValueError: as `max_stable_step`, and for eta < 0.
    """
    if not eta >= 0:
        raise ValueError(f"eta must not be negative, got {eta}")
    return _growth(_spectrum(s, h), eta, P, law)


def _growth(lam: NDArray, eta: float, P: int, law: str) -> float:
    A, k2 = _constants(len(lam), P, law)
    denominator = 2 - A * eta * lam
    if np.min(denominator) <= 0:
        return np.inf
    return float(k2 / P * np.sum(eta * lam / denominator))


def _bounds(lam: NDArray, P: int, law: str) -> tuple[float, float]:
    A, k2 = _constants(len(lam), P, law)
    T, L = np.sum(lam), np.max(lam)
    R = np.sum(lam**2) / T
    low = 2 / (k2 * T / P + A * L)
    high = min(2 / (k2 * T / P + A * R), 2 / (L * (A + k2 / P)))
    return float(low), float(max(low, high))


def _constants(d: int, P: int, law: str) -> tuple[float, float]:
    check_options(0.0, P, law, "central")
    k1, k2, _ = constants(law, d)
    return 1 - 1 / P + k1 / P, k2


def _spectrum(s: ArrayLike, h: ArrayLike) -> NDArray:
    s = np.asarray(s, dtype=np.float64)
    h = np.asarray(h, dtype=np.float64)
    if s.ndim != 1 or not np.all(np.isfinite(s)) or np.any(s < 0) or not np.any(s > 0):
        raise ValueError("s must be a finite vector of eigenvalues >= 0, at least one of them positive")
    if h.shape not in ((), s.shape) or not np.all(np.isfinite(h)) or np.any(h <= 0):
        raise ValueError(f"h must be positive, finite, a scalar or of shape {s.shape}; got shape {h.shape}")
    return s / h
