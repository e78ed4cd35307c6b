"""The expected loss of zeroth-order descent on a diagonal quadratic, exactly, round by round.

f(x) = 1/2 sum_j s_j x_j^2, H = diag(h) fixed, x+ = x - eta dx with dx as in `moments`. The diagonal of E x x'
closes: with a_j = E x_j^2, v_j/m the variance of the averaged gradient noise and
q_j = (s_j^2 a_j + v_j/m) / h_j,

    a_i+ = (1 - 2 eta lambda_i) a_i + eta^2 [ A q_i/h_i + (k2/P) (sum_j q_j)/h_i + (mu^2/4P) U_i ],
    U_i  = c6 [ (t1^2 + 2 t2) + 4 t1 lambda_i + 8 lambda_i^2 ] / h_i       (Rademacher: t1^2 / h_i),

A = 1 - 1/P + k1/P, t_k = sum_j lambda_j^k; E f = 1/2 sum_j s_j a_j. One round costs O(d).

The gradient noise is zero-mean, independent of x and from round to round, one draw per client and round for
all P directions. The m clients measure the same directions, so m divides the noise and nothing else.
"""

from collections.abc import Iterator

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hiso_bench.theory.moments import check_options, constants
from hiso_bench.theory.stability import growth


def expected_loss(
    s: ArrayLike,
    h: ArrayLike,
    x0: ArrayLike,
    eta: ArrayLike,
    P: int,
    rounds: int,
    mu: float,
    law: str = "gaussian",
    difference: str = "forward",
    noise: ArrayLike = 0.0,
    m: int = 1,
) -> NDArray[np.float64]:
    """E f at rounds 0..R.

    Args:
        s: Hessian eigenvalues, any sign, shape (d,).
        h: diagonal of H, positive, shape (d,) or a scalar.
        x0: starting point (not random), shape (d,).
        eta: learning rate, a scalar or one per round, shape (rounds,).
        P: directions per round.
        rounds: R >= 0.
        mu: smoothing radius, >= 0; not used by the central difference.
        law: law of w: "gaussian", "sphere" or "rademacher".
        difference: "forward" or "central".
        noise: variances v_j of one client's gradient noise, shape (d,) or a scalar.
        m: clients averaged.

    Returns:
        Shape (rounds + 1,), float64, in units of f; infinity from the round in which the moments overflow.
        Cost O(rounds d) time, O(d + rounds) memory.

    Raises:
        ValueError: for shapes that do not broadcast to (d,) or (rounds,), h <= 0, noise < 0, m < 1, mu < 0,
            P < 1, or an unknown law or difference.
    """
    s = np.asarray(s, dtype=np.float64)
    losses = np.full(rounds + 1, np.inf)
    squares = expected_squares(s, h, x0, eta, P, rounds, mu, law, difference, noise, m)
    with np.errstate(over="ignore", invalid="ignore"):
        for r, a in enumerate(squares):
            loss = 0.5 * np.dot(s, a)
            if not np.isfinite(loss):
                break
            losses[r] = loss
    return losses


def expected_squares(
    s: ArrayLike,
    h: ArrayLike,
    x0: ArrayLike,
    eta: ArrayLike,
    P: int,
    rounds: int,
    mu: float,
    law: str = "gaussian",
    difference: str = "forward",
    noise: ArrayLike = 0.0,
    m: int = 1,
) -> Iterator[NDArray[np.float64]]:
    """Iterate over a = (E x_j^2)_j at rounds 0..R, each a new array of shape (d,).

    Any quadratic functional follows: E |grad f|^2 in the H^{-1} norm, on the left of HiSo's Theorem 1, is
    sum_j s_j^2 a_j / h_j. Arguments and errors as in `expected_loss`, checked on the first `next`.
    """
    s, h, v = _problem(s, h, noise, m)
    x0 = np.asarray(x0, dtype=np.float64)
    if x0.shape != s.shape:
        raise ValueError(f"x0 must have shape {s.shape}, got {x0.shape}")
    if rounds < 0:
        raise ValueError(f"rounds must not be negative, got {rounds}")
    check_options(mu, P, law, difference)
    etas = np.broadcast_to(np.asarray(eta, dtype=np.float64), (rounds,))
    A, k2 = _weights(law, len(s), P)
    lam = s / h
    kick = _kick(lam, h, mu, P, law, difference)

    a = x0**2
    yield a
    for step in etas:
        q = (s**2 * a + v) / h
        a = (1 - 2 * step * lam) * a + step**2 * (A * q / h + k2 / P * np.sum(q) / h + kick)
        yield a


def noise_floor(
    s: ArrayLike,
    h: ArrayLike,
    eta: float,
    P: int,
    mu: float,
    law: str = "gaussian",
    difference: str = "forward",
    noise: ArrayLike = 0.0,
    m: int = 1,
) -> float:
    """The limit of E f for a constant stable learning rate: the fixed point of the recursion.

    With den_j = 2 - A eta lambda_j, V1 = sum_j v_j/(m h_j),
    N_j = A v_j/(m h_j) + (k2/P) V1 + mu^2/(4P) h_j U_j and F(eta) as in `stability`, the weighted sum
    Q = sum_j lambda_j s_j a_j and the floor are

        Q = [sum_j eta lambda_j N_j / den_j] / (1 - F),     E f = 1/2 sum_j eta [(k2/P) Q + N_j] / den_j,

    summed over the modes with s_j > 0 (a flat mode wanders off without bound but never enters f). The mu term
    adds to the floor alone: it moves neither the stable range nor the rate.

    Args:
        s: Hessian eigenvalues, >= 0, at least one positive, shape (d,).
        h: diagonal of H, positive, shape (d,) or a scalar.
        eta: learning rate, > 0.
        P: directions per round.
        mu: smoothing radius, >= 0.
        law: law of w.
        difference: "forward" or "central".
        noise: variances v_j of one client's gradient noise, shape (d,) or a scalar.
        m: clients averaged.

    Returns:
        The floor in units of f; infinity for eta >= eta*.

    Raises:
        ValueError: as `expected_loss`, for eta <= 0, and for an s that is negative or all zero.
    """
    s, h, v = _problem(s, h, noise, m)
    check_options(mu, P, law, difference)
    if not eta > 0:
        raise ValueError(f"eta must be positive, got {eta}")
    F = growth(s, h, eta, P, law)
    if F >= 1:
        return np.inf
    A, k2 = _weights(law, len(s), P)
    lam = s / h
    N = A * v / h + k2 / P * np.sum(v / h) + h * _kick(lam, h, mu, P, law, difference)
    steep = s > 0
    lam, N = lam[steep], N[steep]
    den = 2 - A * eta * lam
    Q = np.sum(eta * lam * N / den) / (1 - F)
    return float(0.5 * np.sum(eta * (k2 / P * Q + N) / den))


def _weights(law: str, d: int, P: int) -> tuple[float, float]:
    k1, k2, _ = constants(law, d)
    return 1 - 1 / P + k1 / P, k2


def _kick(lam: NDArray, h: NDArray, mu: float, P: int, law: str, difference: str) -> NDArray | float:
    """(mu^2/4P) U: what the curvature term of the forward difference adds to every round."""
    if difference == "central":
        return 0.0
    t1 = np.sum(lam)
    if law == "rademacher":  # w' B w = t1 for a diagonal B: the term is a constant times z
        U = t1**2 / h
    else:
        U = constants(law, len(lam)).c6 * (t1**2 + 2 * np.sum(lam**2) + 4 * t1 * lam + 8 * lam**2) / h
    return mu**2 / (4 * P) * U


def _problem(s: ArrayLike, h: ArrayLike, noise: ArrayLike, m: int) -> tuple[NDArray, NDArray, NDArray]:
    s = np.asarray(s, dtype=np.float64)
    if s.ndim != 1 or len(s) == 0 or not np.all(np.isfinite(s)):
        raise ValueError(f"s must be a finite vector, got shape {s.shape}")
    h = np.broadcast_to(np.asarray(h, dtype=np.float64), s.shape)
    v = np.broadcast_to(np.asarray(noise, dtype=np.float64), s.shape)
    if not np.all(np.isfinite(h)) or np.any(h <= 0):
        raise ValueError("h must be positive and finite")
    if not np.all(np.isfinite(v)) or np.any(v < 0):
        raise ValueError("noise holds variances: finite and not negative")
    if m < 1 or m != int(m):
        raise ValueError(f"m must be a whole number of clients >= 1, got {m}")
    return s, h, v / m
