"""Explicit linear operators on second moments: what `stability` solves in closed form, as matrices with eigenvalues.

One round of m+ = b m + dx, x+ = x - eta m+ maps the second moments of (x, m) linearly. Stable in the mean square means a
spectral radius below 1. Two forms, each independent of the algebra in `stability`:

- `mode_operator`: diagonal S and H, the 3d numbers E x_j^2, E x_j m_j, E m_j^2;
- `covariance_operator`: any S and H, the whole covariance of (x, m), built from `moments.second_moment`.

Both also know the frozen ZO-Adam of Song et al. (arXiv 2604.14669, Theorem 3): H^{-1} applied after an isotropic estimate,
dx = H^{-1} (1/P) sum_p (w_p.g) w_p, in place of directions H^{-1/2} w_p.
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hiso_bench.theory.moments import constants, second_moment


def spectral_radius(operator: ArrayLike) -> float:
    """The largest modulus of an eigenvalue of a square matrix. Cost O(n^3)."""
    return float(np.max(np.abs(np.linalg.eigvals(np.asarray(operator, dtype=np.float64)))))


def mode_operator(
    s: ArrayLike, h: ArrayLike, eta: float, P: int, law: str = "gaussian", momentum: float = 0.0, after: bool = False
) -> NDArray[np.float64]:
    """The map of (E x_j^2, E x_j m_j, E m_j^2) over one round, all modes coupled.

    In each mode, with lambda = s/h and n_j the share of direction noise,

        E m+^2 = b^2 E m^2 + 2 b lambda E x m + A lambda^2 E x^2 + n_j,    E x m+ = b E x m + lambda E x^2,
        E x+m+ = E x m+ - eta E m+^2,    E x+^2 = E x^2 - 2 eta E x m+ + eta^2 E m+^2,

    n_j = (k2/P) (sum_i s_i^2 E x_i^2 / h_i) / h_j, or (k2/P) (sum_i s_i^2 E x_i^2) / h_j^2 where H acts after the estimate.

    Args:
        s: Hessian eigenvalues, shape (d,).
        h: diagonal of H, positive, shape (d,) or a scalar.
        eta: learning rate.
        P: directions averaged in the step.
        law: "gaussian", "sphere" or "rademacher".
        momentum: b.
        after: H^{-1} is applied after an isotropic estimate (frozen ZO-Adam).

    Returns:
        Shape (3d, 3d): rows and columns (all E x^2, all E x m, all E m^2). Without momentum the first d rows and columns
        are the whole map.

    Raises:
        ValueError: unknown law, or shapes that do not broadcast.
    """
    s = np.asarray(s, dtype=np.float64)
    h = np.broadcast_to(np.asarray(h, dtype=np.float64), s.shape)
    d, b, lam = len(s), momentum, s / h
    k1, k2, _ = constants(law, d)
    eye, zero = np.eye(d), np.zeros((d, d))
    heard, given = (s**2, 1 / h**2) if after else (s**2 / h, 1 / h)
    squares = np.diag((1 - 1 / P + k1 / P) * lam**2) + k2 / P * np.outer(given, heard)
    m_next = np.hstack([squares, np.diag(2 * b * lam), b**2 * eye])
    cross = np.hstack([np.diag(lam), b * eye, zero])
    x_next = np.hstack([eye, zero, zero]) - 2 * eta * cross + eta**2 * m_next
    return np.vstack([x_next, cross - eta * m_next, m_next])


def covariance_operator(
    S: ArrayLike, C: ArrayLike, eta: float, P: int, law: str = "gaussian", momentum: float = 0.0, after: bool = False
) -> NDArray[np.float64]:
    """The map of the covariance of (x, m) over one round, for any S and C = H^{-1}.

    E y+ y+' for y = (x, m), from E dx and E dx dx' of `moments`: nothing here assumes that modes decouple.

    Args:
        S: Hessian, shape (d, d) or (d,).
        C: H^{-1}, shape (d, d) or (d,); diagonal for "rademacher".
        eta: learning rate.
        P: directions averaged in the step.
        law: law of w.
        momentum: b; 0 leaves m out.
        after: C is applied after an isotropic estimate (frozen ZO-Adam).

    Returns:
        Shape (n (n+1)/2, n (n+1)/2) in the coordinates of symmetric n x n matrices (upper triangle, off-diagonals once),
        n = 2d with momentum, else d. Cost O(d^5): for d <= 10.

    Raises:
        ValueError: as `moments.second_moment`.
    """
    S, C = (np.asarray(M, dtype=np.float64) for M in (S, C))
    S, C = (np.diag(M) if M.ndim == 1 else M for M in (S, C))
    d = len(S)
    inner, outer = (np.eye(d), C) if after else (C, np.eye(d))
    drift = C @ S
    mean, push = np.eye(d) - eta * drift, -eta * np.eye(d)
    if momentum:
        mean = np.block([[mean, -eta * momentum * np.eye(d)], [drift, momentum * np.eye(d)]])
        push = np.vstack([push, np.eye(d)])
    n = len(mean)
    upper = np.triu_indices(n)
    columns = []
    for i, j in zip(*upper, strict=True):
        M = np.zeros((n, n))
        M[i, j] = M[j, i] = 1.0
        G = S @ M[:d, :d] @ S
        second = outer @ second_moment(np.zeros(d), inner, S, 0.0, P, law, noise=G) @ outer.T
        spread = second - drift @ M[:d, :d] @ drift.T
        columns.append((mean @ M @ mean.T + push @ spread @ push.T)[upper])
    return np.array(columns).T
