"""What HiSo's H settles on where the gradient stands still, and how far its moving average scatters there.

With dx of P directions z = H^{-1/2} w and H = diag(h), Gaussian w (`moments`), G_j = E g_j^2 and a = sum_j G_j / h_j,

    E dx_j^2 = (1 + 1/P) G_j / h_j^2 + (a/P) / h_j,

and H+ = (1 - nu) H + nu dx^2 (HiSo section 4.3, eps = 0) stands still in the mean, for small nu, where h_j = E dx_j^2:

    h_j^2 = A + (1 + 1/P) G_j / h_j,    A = (1/P) sum_i G_i / h_i.

Curvature does not enter. A coordinate without gradient has h_j = sqrt(A); with r_j = h_j / sqrt(A), the sum over j is

    sum_j (r_j^2 - 1) = P + 1    for every G and every d,    r_j^2 - 1 = (P + 1) (G_j/h_j) / sum_i (G_i/h_i).

That is all H can say about coordinates: the rest is one number, (|g|^2/P)^{1/3} where no coordinate stands out. Scales: g -> c g
takes h to c^{2/3} h and the mean step g/h to c^{1/3} g/h.

Variants: m equal clients with directions of their own are mP directions. The official code's Paramwise class (P moving averages
in sequence, each of (g_p z_p / P)^2) has the samples of one direction divided by P^2, so h = P^{-2/3} fixed_point(G, 1), and a
budget of 2 whatever P. The mean of the clients' squares has G_j = g_j^2 + V_j, the square of their mean G_j = g_j^2 + V_j / m.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import linalg

from hiso_bench.theory.moments import check_options


class Scatter(NamedTuple):
    """The stationary law of the learned h to first order in the weight nu of a new sample."""

    mean: NDArray[np.float64]
    """E h, shape (d,): the fixed point and what its curvature makes of the scatter."""
    covariance: NDArray[np.float64]
    """Cov h, shape (d, d)."""


def fixed_point(energy: ArrayLike, P: int) -> NDArray[np.float64]:
    """The h with h_j = E dx_j^2.

    Args:
        energy: G_j = E g_j^2 >= 0, at least one positive, shape (d,); units (f/x)^2.
        P: directions averaged in the step; mP for m equal clients with directions of their own.

    Returns:
        h, shape (d,), in units of energy^{1/3} (its unit is fixed by dx = g/h: h is (dx)^2). Unique: at a given A every h_j is
        the one positive root of a cubic, and the budget decreases in A. Accurate to about 1e-13. Cost O(d) times about 600.

    Raises:
        ValueError: an energy that is negative, not finite or all zero, or P < 1.
    """
    energy = _energy(energy, P)
    drive = (1 + 1 / P) * energy / energy.max()

    def excess(log_a: float) -> float:
        return float(np.sum(_root(drive * np.exp(-1.5 * log_a)) ** 2 - 1)) - (P + 1)

    # At log A = high all r_j^2 - 1 <= t_j sum to at most P + 1; the largest r alone has more than P + 1 at low.
    high = float(2 / 3 * np.log(drive.sum() / (P + 1))) + 1e-9
    low = float(-2 / 3 * np.log((P + 2) ** 1.5 / drive.max()))
    while low < (log_a := (low + high) / 2) < high:
        low, high = (log_a, high) if excess(log_a) > 0 else (low, log_a)
    return np.cbrt(energy.max()) * np.exp(log_a / 2) * _root(drive * np.exp(-1.5 * log_a))


def floor(energy: ArrayLike, h: ArrayLike, P: int) -> float:
    """sqrt(A) = ((1/P) sum_j G_j / h_j)^{1/2}: where a coordinate without gradient settles, given the others' h."""
    return float(np.sqrt(np.sum(_energy(energy, P) / np.asarray(h, dtype=np.float64)) / P))


def budget(h: ArrayLike, level: float) -> float:
    """sum_j ((h_j / level)^2 - 1): P + 1 at the fixed point, with `floor` for the level."""
    return float(np.sum((np.asarray(h, dtype=np.float64) / level) ** 2 - 1))


def width(P: int, ema_new: float) -> float:
    """The standard deviation of log h_j over coordinates in one snapshot, where d is large and no coordinate stands out.

    Given the scalars dx_j is N(0, Q/h_j) with Q = (1/P^2) sum_p s_p^2 common to all coordinates, so dx_j^2 varies over
    coordinates by 2 E Q^2 = 2 (1 + 2/P) (E Q)^2, and e_j = log h_j by e_j+ = (1 - 2 nu) e_j + nu noise: to first order in nu

        std = sqrt(nu (1 + 2/P) / 2 / (1 - nu)).

    Args:
        P: directions.
        ema_new: nu, the weight of the new sample, 0 < nu < 1.

    Returns:
        The standard deviation. It assumes scalars of one size: where recent scalars differ in size, it is a lower value.

    Raises:
        ValueError: P < 1 or nu outside (0, 1).
    """
    check_options(0.0, P, "gaussian", "central")
    _check_ema(ema_new)
    return float(np.sqrt(ema_new * (1 + 2 / P) / (2 * (1 - ema_new))))


def jacobian(energy: ArrayLike, P: int) -> NDArray[np.float64]:
    """The derivative of E dx_j^2 - h_j in h_k at the fixed point, shape (d, d).

    Near the fixed point the mean of H moves by h+ - h* = (I + nu J) (h - h*). E dx_j^2 is of degree -2 in h, so J h* = -3 h* for
    every gradient (Euler): the size of H settles at 3 nu a round. Ratios of coordinates settle at 2 nu where there is no
    gradient, a little faster where there is.

    Args:
        energy: G_j, as in `fixed_point`.
        P: directions.

    Raises:
        ValueError: as `fixed_point`.
    """
    energy = _energy(energy, P)
    h = fixed_point(energy, P)
    own, level = (1 + 1 / P) * energy, floor(energy, h, P) ** 2
    return -np.outer(1 / h, energy / h**2) / P - np.diag(2 * own / h**3 + level / h**2 + 1)


def multipliers(energy: ArrayLike, P: int, ema_new: float) -> NDArray[np.float64]:
    """The eigenvalues of one round of the mean of H about its fixed point, 1 + nu eig J, ascending, shape (d,).

    HiSo's own feedback, dx ~ 1/H, sets them: from 1 - 3 nu (the size of H, exactly) to 1 - 2 nu. So H settles two to three times
    faster than a plain moving average, swings past its mark for nu > 1/3, and has no stable mean for nu > 2/3.

    Raises:
        ValueError: as `fixed_point`, or nu outside (0, 1).
    """
    _check_ema(ema_new)
    return np.sort(1 + ema_new * np.linalg.eigvals(jacobian(energy, P)).real).astype(np.float64)


def multipliers_undone(energy: ArrayLike, P: int, ema_new: float) -> NDArray[np.float64]:
    """The same for the recursion on gradient units, v+ = (1 - nu) v + nu (h dx)^2 with h = sqrt(v) (RMSProp in the directions).

    E (h_j dx_j)^2 = (1 + 1/P) G_j + (a/P) h_j is of degree 0 in h: the size of v settles at nu (exactly), as in any moving
    average, and the feedback that is left only slows the ratios, down to nu/2. Ascending, shape (d,).

    Raises:
        ValueError: as `fixed_point`, nu outside (0, 1), or no convergence of the fixed point's iteration.
    """
    energy = _energy(energy, P)
    _check_ema(ema_new)
    h = np.full(len(energy), float(np.sqrt(energy.sum() / P)))
    for _ in range(10_000):
        new = np.sqrt((1 + 1 / P) * energy + np.sum(energy / h) / P * h)
        if np.max(np.abs(new / h - 1)) < 1e-14:
            break
        h = new
    else:
        raise ValueError("the fixed point in gradient units did not converge")
    a = np.sum(energy / h)
    # d v_j+ / d v_k with d h = d v / (2 h).
    J = (np.diag(np.full(len(h), a / P)) - np.outer(h, energy / h**2) / P) / (2 * h) - np.eye(len(h))
    return np.sort(1 + ema_new * np.linalg.eigvals(J).real).astype(np.float64)


def relaxation(h0: float, energy: float, P: int, ema_new: float, rounds: int) -> NDArray[np.float64]:
    """The mean of H after 0 .. rounds rounds where no coordinate stands out: h+ = (1 - nu) h + nu (|g|^2/P) / h^2.

    To first order in nu, h^3 goes to |g|^2/P as exp(-3 nu t). A gradient that grows by c with nu c^2 >> 1 overshoots: h jumps to
    nu c^2 times what it was and then falls only as (1 - nu)^t, as it does while the gradient vanishes.

    Args:
        h0: H before.
        energy: |g|^2 from the first round on, >= 0.
        P: directions.
        ema_new: nu, 0 < nu < 1.
        rounds: how many.

    Returns:
        shape (rounds + 1,).

    Raises:
        ValueError: nu outside (0, 1).
    """
    _check_ema(ema_new)
    out = [float(h0)]
    for _ in range(rounds):
        out.append((1 - ema_new) * out[-1] + ema_new * energy / P / out[-1] ** 2)
    return np.array(out)


def scatter(g: ArrayLike, P: int, ema_new: float) -> Scatter:
    """Mean and covariance of the learned h for a gradient that never moves, to first order in nu.

    With a = g'Cg and chi = sum_p s_p^2 / a ~ chi^2_P, given the scalars dx is Gaussian:

        dx = C g chi / P + (sqrt(a chi) / P) xi,    xi ~ N(0, C - C g g' C / a),

    which gives the covariance Q of the squares. b(h) = E dx^2 - h has the Jacobian J at the fixed point; nu S with
    J S + S J' + Q = 0 is the covariance, and -J^{-1} (1/2) (second derivatives of b : nu S) the shift of the mean.

    Args:
        g: the gradient, shape (d,).
        P: directions.
        ema_new: nu, the weight of the new sample, 0 < nu < 1.

    Returns:
        `Scatter`. Cost O(d^3).

    Raises:
        ValueError: g not finite or zero, P < 1, nu outside (0, 1).
    """
    g = np.asarray(g, dtype=np.float64)
    _check_ema(ema_new)
    energy = g**2
    h = fixed_point(energy, P)
    level = floor(energy, h, P) ** 2  # A
    own = (1 + 1 / P) * energy
    J = jacobian(energy, P)
    S = linalg.solve_continuous_lyapunov(J, -_covariance_of_squares(g, h, P))
    sums = np.sum(energy * np.diag(S) / h**3) / (P * h) + S @ (energy / h**2) / (P * h**2)
    bend = sums + np.diag(S) * (3 * own / h**4 + level / h**3)
    return Scatter(h - ema_new * np.linalg.solve(J, bend), ema_new * S)


def _covariance_of_squares(g: NDArray, h: NDArray, P: int) -> NDArray:
    """Cov(dx_j^2, dx_k^2), shape (d, d)."""
    a, mean = np.sum(g**2 / h), g / (h * P)
    K = a / P**2 * (np.diag(1 / h) - np.outer(g / h, g / h) / a)
    chi2, chi3, chi4 = P * (P + 2.0), P * (P + 2.0) * (P + 4), P * (P + 2.0) * (P + 4) * (P + 6)
    k, m2 = np.diag(K), mean**2
    cross = np.outer(m2, k) + np.outer(k, m2) + 4 * np.outer(mean, mean) * K
    second = chi4 * np.outer(m2, m2) + chi3 * cross + chi2 * (np.outer(k, k) + 2 * K**2)
    first = chi2 * m2 + P * k
    return second - np.outer(first, first)


def _root(t: NDArray) -> NDArray:
    """The root r >= 1 of r^3 - r = t >= 0, by Newton's method from above, where the cubic is convex: it only falls."""
    r = 1 + np.cbrt(t)
    for _ in range(100):
        step = (r**3 - r - t) / (3 * r**2 - 1)
        r = np.maximum(r - step, 1.0)
        if np.max(np.abs(step)) < 1e-15:
            break
    return r


def _energy(energy: ArrayLike, P: int) -> NDArray:
    check_options(0.0, P, "gaussian", "central")
    energy = np.asarray(energy, dtype=np.float64)
    if energy.ndim != 1 or not np.all(np.isfinite(energy)) or np.any(energy < 0) or not np.any(energy > 0):
        raise ValueError("energy must be a finite vector of E g_j^2 >= 0, at least one of them positive")
    return energy


def _check_ema(ema_new: float) -> None:
    if not 0 < ema_new < 1:
        raise ValueError(f"ema_new must lie between 0 and 1, got {ema_new}")
