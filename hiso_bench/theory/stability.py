"""The largest learning rate at which a diagonal quadratic is mean-square stable, exactly, with and without momentum.

The method is m+ = b m + dx, x+ = x - eta m+ (b = 0: x+ = x - eta dx) with dx as in `moments`. Write A = 1 - 1/P + k1/P.
Direction noise reaches mode j with variance (k2/P) Q / h_j, Q = sum_i s_i^2 E x_i^2 / h_i, whatever the mode, so the modes
of E x x', E x m', E m m' couple through the one number Q. With Q given, mode j settles where

    E x m = -(eta/2) E m^2 = -s E x^2 / ((1+b) h)    and    s_j^2 E x_j^2 / h_j = (k2/P) Q eta lambda_j / den_j,
    den_j = 2 (1-b) - eta lambda_j (A - 2b/(1+b)),

and Q reproduces itself iff F(eta) = (k2/P) sum_j eta lambda_j / den_j = 1. The map of second moments keeps the cone of
covariances, so by Krein and Rutman its spectral radius is an eigenvalue. It is below 1 iff

    F(eta) < 1    with every den_j > 0:

if it is below 1, noise of variance 1 in each step has a limit, a non-negative solution of the equations above with Q + 1 in
the place of Q, which needs den_j > 0 and F < 1; and from eta = 0 on it first reaches 1 where F does. F increases, so eta* is
its only root. Momentum is therefore the same condition with eta -> eta/(1-b) and A -> A_b = A - 2b/(1+b):

    eta*(b) -> (1-b) 2P / (k2 T)    where the trace T = sum lambda dominates,
    eta*(b) -> (1+b) 2 / max lambda    for P -> infinity, which is Polyak's heavy ball.

Off-diagonal second moments add no condition: |E x_i x_j| is at most the root of E x_i^2 E x_j^2. At P = 1 and Gaussian
directions these are Theorems 1 and 2 of Song et al. (arXiv 2604.14669); a diagonal preconditioner that commutes with S and
is applied after an isotropic estimate has the same eta* (Theorem 3, see `operators`). Modes with s_j = 0 never contract and
never enter the loss; they count only through d in the sphere constants. m equal clients with directions of their own are
mP directions: pass m * P for P.

For a full H or S and a rotation-invariant law (Gaussian, sphere) pass the eigenvalues of H^{-1/2} S H^{-1/2} as s and ones
as h. Mean-square stability is stricter than almost-sure convergence, see `lyapunov`.
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hiso_bench.theory.moments import check_options, constants


def max_stable_step(s: ArrayLike, h: ArrayLike, P: int, law: str = "gaussian", momentum: float = 0.0) -> float:
    """eta*, the root of F(eta) = 1: E f stays bounded for eta < eta* and grows without bound above.

    It depends neither on mu nor on gradient noise, which only set the floor. Flat spectra have a closed form, without
    momentum 2P / (lambda (d + P + 1)) for Gaussian directions; P -> infinity gives gradient descent's 2 / lambda_max.

    Args:
        s: Hessian eigenvalues, >= 0, at least one positive, shape (d,); units f / x^2.
        h: diagonal of H, positive, shape (d,) or a scalar.
        P: directions averaged in the step.
        law: "gaussian", "sphere" or "rademacher".
        momentum: b, 0 <= b < 1.

    Returns:
        eta*, in units of h x^2 / f, to the last bits of float64. Cost O(d) times about 55 halvings.

    Raises:
        ValueError: for a negative or all-zero s, an h that is not positive, P < 1, b outside [0, 1) or an unknown law.
    """
    lam = _spectrum(s, h)
    A, k2 = _constants(len(lam), P, law, momentum)
    low, high = _tight(_sums(lam), A, k2 / P)
    # F(low) <= 1 <= F(high) by the proof of the bounds; rounding may make the ends meet (flat spectrum).
    while low < (middle := (low + high) / 2) < high:
        if _growth(lam, middle, A, k2 / P) < 1:
            low = middle
        else:
            high = middle
    return (1 - momentum) * low


def stable_step_bounds(s: ArrayLike, h: ArrayLike, P: int, law: str = "gaussian", momentum: float = 0.0) -> tuple[float, float]:
    """Closed-form bounds low <= eta* <= high, equal on flat spectra.

    With T = sum lambda, L = max lambda, R = sum lambda^2 / T (lambda-weighted mean, R <= L) and A_+ = max(A_b, 0),

        2 / (k2 T/P + A_+ L)  <=  eta* / (1-b)  <=  min{ 2 / (k2 T/P + A_b R),  2 / (L (A_b + k2/P)) }.

    Left: replace every denominator of F by the smallest. Right: Jensen for the convex x -> 1/(2 - A eta x)
    under the weights lambda_j / T, and the single term of the largest mode. Gaussian without momentum: 2P/(T + (P+1) L) on
    the left, and the right is below both 2P/T and 2P/((P+2) L). At P = 1 the left and 2 (1-b)/T are Eqs 17 and 19 of
    Song et al.

    Args:
        s: as in `max_stable_step`, and so is the rest.
        h: diagonal of H.
        P: directions averaged in the step.
        law: law of w.
        momentum: b.

    Returns:
        (low, high).

    Raises:
        ValueError: as `max_stable_step`.
    """
    lam = _spectrum(s, h)
    A, k2 = _constants(len(lam), P, law, momentum)
    low = 2 / (k2 / P * np.sum(lam) + max(A, 0.0) * np.max(lam))
    return float((1 - momentum) * low), float((1 - momentum) * max(low, _highest(_sums(lam), A, k2 / P)))


def tight_stable_step_bounds(
    s: ArrayLike, h: ArrayLike, P: int, law: str = "gaussian", momentum: float = 0.0
) -> tuple[float, float]:
    """The bounds of `stable_step_bounds` with the best left side that T, L and R allow.

    1/(2 - A eta x) is convex, so on [0, L] it lies below its chord. Under the weights lambda_j / T, whose mean is R = r L,
    F <= tau eta [(1-r)/2 + r/(2 - alpha eta)] with tau = k2 T/P and alpha = A_b L, and equality where every mode is L or
    next to nothing. The right side reaches 1 at

        eta/(1-b) = 4 / (tau + alpha + sqrt((tau + alpha)^2 - 4 (1-r) alpha tau)).

    Args, errors and result as in `stable_step_bounds`.
    """
    lam = _spectrum(s, h)
    A, k2 = _constants(len(lam), P, law, momentum)
    low, high = _tight(_sums(lam), A, k2 / P)
    return (1 - momentum) * low, (1 - momentum) * high


def stable_step_from_sums(
    trace: float, top: float, squares: float, d: int, P: int, law: str = "gaussian", momentum: float = 0.0
) -> tuple[float, float]:
    """The bounds of `tight_stable_step_bounds` from three numbers, for spectra that are only estimated.

    Args:
        trace: T = sum lambda > 0, of H^{-1/2} S H^{-1/2}.
        top: L = max lambda > 0.
        squares: sum lambda^2; between L^2 and T L.
        d: dimension (the sphere's constants depend on it).
        P: directions averaged in the step.
        law: law of w.
        momentum: b.

    Returns:
        (low, high); both fall with T and with L, so the bounds of an interval of T and L are those at its ends.

    Raises:
        ValueError: numbers that no spectrum >= 0 has, and as `max_stable_step`.
    """
    if not (0 < top <= trace < np.inf and top**2 * (1 - 1e-9) <= squares <= trace * top * (1 + 1e-9)):
        raise ValueError(f"no spectrum >= 0 has trace {trace}, largest eigenvalue {top} and sum of squares {squares}")
    A, k2 = _constants(d, P, law, momentum)
    low, high = _tight((trace, top, min(squares, trace * top)), A, k2 / P)
    return (1 - momentum) * low, (1 - momentum) * high


def growth(s: ArrayLike, h: ArrayLike, eta: float, P: int, law: str = "gaussian", momentum: float = 0.0) -> float:
    """F(eta): below 1 iff mean-square stable; infinity where some den_j <= 0.

    Args:
        s: as in `max_stable_step`.
        h: diagonal of H.
        eta: learning rate, >= 0.
        P: directions averaged in the step.
        law: law of w.
        momentum: b.

    Returns:
        F(eta) >= 0, no units.

    Raises:
        ValueError: as `max_stable_step`, and for eta < 0.
    """
    if not eta >= 0:
        raise ValueError(f"eta must not be negative, got {eta}")
    lam = _spectrum(s, h)
    A, k2 = _constants(len(lam), P, law, momentum)
    return _growth(lam, eta / (1 - momentum), A, k2 / P)


def _growth(lam: NDArray, eta: float, A: float, noise: float) -> float:
    denominator = 2 - A * eta * lam
    if np.min(denominator) <= 0:
        return np.inf
    return float(noise * np.sum(eta * lam / denominator))


def _sums(lam: NDArray) -> tuple[float, float, float]:
    return float(np.sum(lam)), float(np.max(lam)), float(np.sum(lam**2))


def _highest(sums: tuple[float, float, float], A: float, noise: float) -> float:
    # Neither denominator can vanish: E dx^2 >= (E dx)^2 makes A_b + noise >= 1 - 2b/(1+b) > 0, and R <= T.
    T, L, squares = sums
    return min(2 / (noise * T + A * squares / T), 2 / (L * (A + noise)))


def _tight(sums: tuple[float, float, float], A: float, noise: float) -> tuple[float, float]:
    T, L, squares = sums
    r = squares / (T * L)
    tau, alpha = noise * T, A * L
    low = 4 / (tau + alpha + float(np.sqrt(max((tau + alpha) ** 2 - 4 * (1 - r) * alpha * tau, 0.0))))
    return low, max(low, _highest(sums, A, noise))


def _constants(d: int, P: int, law: str, momentum: float = 0.0) -> tuple[float, float]:
    """A_b and k2."""
    check_options(0.0, P, law, "central")
    if not 0 <= momentum < 1:
        raise ValueError(f"momentum must lie in [0, 1), got {momentum}")
    k1, k2, _ = constants(law, d)
    A = 1 - 1 / P + k1 / P
    return A - 2 * momentum / (1 + momentum), k2


def _spectrum(s: ArrayLike, h: ArrayLike) -> NDArray:
    s = np.asarray(s, dtype=np.float64)
    h = np.asarray(h, dtype=np.float64)
    if s.ndim != 1 or not np.all(np.isfinite(s)) or np.any(s < 0) or not np.any(s > 0):
        raise ValueError("s must be a finite vector of eigenvalues >= 0, at least one of them positive")
    if h.shape not in ((), s.shape) or not np.all(np.isfinite(h)) or np.any(h <= 0):
        raise ValueError(f"h must be positive, finite, a scalar or of shape {s.shape}; got shape {h.shape}")
    return s / h
