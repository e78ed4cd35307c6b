"""The expected loss of zeroth-order descent on a diagonal quadratic, exactly, round by round.

f(x) = 1/2 sum_j s_j x_j^2, H = diag(h) fixed, x+ = x - eta dx with dx as in `moments`. The diagonal of E x x' closes. In
whitened squares y_j = h_j E x_j^2, with lambda = s/h and the coefficients own, spread, kick of `diagonal`,

    y_j+ = (1 - 2 eta lambda_j + own eta^2 lambda_j^2) y_j + eta^2 [spread sum_i lambda_i^2 y_i + kick_j],

    E f = 1/2 sum_j lambda_j y_j,   E |grad f|^2 in the H^{-1} norm = sum_j lambda_j^2 y_j,   Euclidean: sum_j h_j lambda_j^2 y_j.

The sum that couples the modes is the squared gradient norm itself; `whitened` takes many rounds at little cost.

The gradient noise is zero-mean, independent of x and from round to round, one draw per client and round for all P
directions. Several clients have one Hessian here; see `matrices` for different Hessians, full matrices, a linear term.
"""

import itertools
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hiso_bench.theory.diagonal import Step, clients_step
from hiso_bench.theory.stability import growth
from hiso_bench.theory.whitened import Whitened


class Curves(NamedTuple):
    """Expectations at rounds 0..R, each of shape (R + 1,); infinity from the round in which they overflow."""

    loss: NDArray[np.float64]
    """E f."""
    gradient: NDArray[np.float64]
    """E |grad f|^2 in the H^{-1} norm, on the left of HiSo's Theorem 1."""
    euclidean: NDArray[np.float64]
    """E |grad f|^2 in the Euclidean norm, on the left of DeComFL's theorems."""


class Floor(NamedTuple):
    """The limits of `Curves` for a constant stable learning rate; infinity for eta >= eta*."""

    loss: float
    gradient: float
    euclidean: float


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
    *,
    clients: int | None = None,
    heterogeneity: ArrayLike = 0.0,
    independent: bool = False,
) -> NDArray[np.float64]:
    """E f at rounds 0..R.

    Args:
        s: Hessian eigenvalues, any sign, shape (d,).
        h: diagonal of H, positive, shape (d,) or a scalar.
        x0: starting point (not random, or the roots of E x_j^2), shape (d,).
        eta: learning rate, a scalar or one per round, shape (rounds,).
        P: directions per round, per client where they are independent.
        rounds: R >= 0.
        mu: smoothing radius, >= 0; not used by the central difference.
        law: law of w: "gaussian", "sphere" or "rademacher".
        difference: "forward" or "central".
        noise: variances v_j of one client's gradient noise, shape (d,) or a scalar.
        m: clients sampled a round, without replacement, and averaged.
        clients: M, clients in all; None for M = m.
        heterogeneity: mean over the M clients of b_ij^2, where f_i = f + b_i.x and sum b_i = 0; shape (d,) or a scalar.
        independent: every client draws its own P directions; else they are shared.

    Returns:
        Shape (rounds + 1,), float64, in units of f; infinity from the round in which the moments overflow.
        Cost O(rounds d) time, a few milliseconds per round at d = 10^6, and 8 arrays of shape (d,).

    Raises:
        ValueError: for shapes that do not broadcast to (d,) or (rounds,), h <= 0, noise or heterogeneity < 0, m < 1, M < m,
            mu < 0, P < 1, or an unknown law or difference.
    """
    start = _start(s, h, x0, mu, P, law, difference, noise, m, clients, heterogeneity, independent)
    return _sums(start, eta, rounds, [start.lam / 2])[1]


def expected_curves(
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
    *,
    clients: int | None = None,
    heterogeneity: ArrayLike = 0.0,
    independent: bool = False,
) -> Curves:
    """E f and E |grad f|^2 in both norms at rounds 0..R; arguments, cost and errors as in `expected_loss`."""
    start = _start(s, h, x0, mu, P, law, difference, noise, m, clients, heterogeneity, independent)
    gradient, loss, euclidean = _sums(start, eta, rounds, [start.lam / 2, start.h * start.lam**2])
    return Curves(loss, gradient, euclidean)


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
    *,
    clients: int | None = None,
    heterogeneity: ArrayLike = 0.0,
    independent: bool = False,
) -> Iterator[NDArray[np.float64]]:
    """Iterate over a = (E x_j^2)_j at rounds 0..R, each a new array of shape (d,).

    Any quadratic functional that is diagonal follows. Arguments and errors as in `expected_loss`, checked on the first `next`.
    """
    start = _start(s, h, x0, mu, P, law, difference, noise, m, clients, heterogeneity, independent)
    state = Whitened(start.y, start.lam, start.step)
    yield state.y / start.h
    for step in _rates(eta, rounds):
        state.round(float(step))
        yield state.y / start.h


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
    *,
    clients: int | None = None,
    heterogeneity: ArrayLike = 0.0,
    independent: bool = False,
) -> float:
    """The limit of E f for a constant stable learning rate; see `floor`."""
    return floor(
        s, h, eta, P, mu, law, difference, noise, m, clients=clients, heterogeneity=heterogeneity, independent=independent
    ).loss


def floor(
    s: ArrayLike,
    h: ArrayLike,
    eta: float,
    P: int,
    mu: float,
    law: str = "gaussian",
    difference: str = "forward",
    noise: ArrayLike = 0.0,
    m: int = 1,
    *,
    clients: int | None = None,
    heterogeneity: ArrayLike = 0.0,
    independent: bool = False,
) -> Floor:
    """The limit of E f and of E |grad f|^2 for a constant stable learning rate: the fixed point of the recursion.

    With den_j = 2 - own eta lambda_j and F(eta) as in `stability`, Q = sum_j lambda_j^2 y_j and the floor are

        Q = [sum_j eta lambda_j kick_j / den_j] / (1 - F),     lambda_j y_j = eta (spread Q + kick_j) / den_j,

    summed over the modes with s_j > 0 (a flat mode wanders off without bound but never enters f). The mu term
    adds to the floor alone: it moves neither the stable range nor the rate.

    Args:
        s: Hessian eigenvalues, >= 0, at least one positive, shape (d,).
        h: diagonal of H, positive, shape (d,) or a scalar.
        eta: learning rate, > 0.
        P: directions per round, and the rest as in `expected_loss`.
        mu: smoothing radius, >= 0.
        law: law of w.
        difference: "forward" or "central".
        noise: variances v_j of one client's gradient noise.
        m: clients sampled a round.
        clients: M.
        heterogeneity: mean over the clients of b_ij^2.
        independent: every client draws its own directions.

    Returns:
        The three limits; infinite for eta >= eta*.

    Raises:
        ValueError: as `expected_loss`, for eta <= 0, and for an s that is negative or all zero.
    """
    lam, h, _, (own, spread, kick) = _start(s, h, None, mu, P, law, difference, noise, m, clients, heterogeneity, independent)
    if not eta > 0:
        raise ValueError(f"eta must be positive, got {eta}")
    F = growth(s, h, eta, P * m if independent else P, law)
    if F >= 1:
        return Floor(np.inf, np.inf, np.inf)
    steep = lam > 0
    lam, h, kick = lam[steep], h[steep], kick[steep]
    den = 2 - own * eta * lam
    Q = np.sum(eta * lam * kick / den) / (1 - F)
    lam_y = eta * (spread * Q + kick) / den
    return Floor(float(np.sum(lam_y) / 2), float(Q), float(np.sum(h * lam * lam_y)))


class _Start(NamedTuple):
    lam: NDArray[np.float64]
    h: NDArray[np.float64]
    y: NDArray[np.float64]
    step: Step


def _start(
    s: ArrayLike, h: ArrayLike, x0: ArrayLike | None, mu: float, P: int, law: str, difference: str, noise: ArrayLike,
    m: int, clients: int | None, heterogeneity: ArrayLike, independent: bool,
) -> _Start:  # fmt: skip
    """The problem in whitened coordinates, with everything checked."""
    s = np.asarray(s, dtype=np.float64)
    if s.ndim != 1 or len(s) == 0 or not np.all(np.isfinite(s)):
        raise ValueError(f"s must be a finite vector, got shape {s.shape}")
    h = np.broadcast_to(np.asarray(h, dtype=np.float64), s.shape)
    if not np.all(np.isfinite(h)) or np.any(h <= 0):
        raise ValueError("h must be positive and finite")
    x = np.zeros_like(s) if x0 is None else np.asarray(x0, dtype=np.float64)
    if x.shape != s.shape:
        raise ValueError(f"x0 must have shape {s.shape}, got {x.shape}")
    v, b = (np.asarray(a, dtype=np.float64) / h for a in (noise, heterogeneity))
    step = clients_step(s / h, mu, P, law, difference, v, m, clients, b, independent)
    return _Start(s / h, h, h * x**2, step)


def _rates(eta: ArrayLike, rounds: int) -> NDArray[np.float64]:
    if rounds < 0:
        raise ValueError(f"rounds must not be negative, got {rounds}")
    return np.broadcast_to(np.asarray(eta, dtype=np.float64), (rounds,))


def _sums(start: _Start, eta: ArrayLike, rounds: int, weights: Sequence[NDArray]) -> NDArray[np.float64]:
    """sum_j lambda_j^2 y_j and the weighted sums of y at rounds 0..R: (1 + len(weights), R + 1)."""
    etas = _rates(eta, rounds)
    found = np.full((rounds + 1, 1 + len(weights)), np.inf)
    stretches = [0, *(np.flatnonzero(np.diff(etas)) + 1), rounds] if rounds else []
    with np.errstate(over="ignore", invalid="ignore"):
        state = Whitened(start.y, start.lam, start.step, weights)
        found[0] = state.sums
        for first, last in itertools.pairwise(stretches):
            found[first + 1 : last + 1] = state.rounds(float(etas[first]), last - first)
            if not np.all(np.isfinite(state.sums)):
                break
    found[np.cumsum(~np.isfinite(found).all(1)) > 0] = np.inf
    return found.T
