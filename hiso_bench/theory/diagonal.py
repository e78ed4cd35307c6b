"""The diagonal of the second moment of a step, in O(d), where S, H and the gradient noise are diagonal.

In the whitened coordinates y = H^{1/2} x the step is y+ = y - eta y', y' = H^{1/2} dx, and only lambda = s/h is left of the
problem. With p_j = E g_j^2 / h_j (random gradients included), t_k = sum_j lambda_j^k and the constants of `moments`,

    E y_j'^2 = A p_j + (k2/P) sum_i p_i + (mu^2/4P) c6 [(t1^2 + 2 t2) + 4 t1 lambda_j + 8 lambda_j^2],   A = 1 - 1/P + k1/P

(Rademacher: (mu^2/4P) t1^2 for the last term), the diagonal of `moments.second_moment`. The recursion of `recursion` is this
formula round by round.

m of M clients with one Hessian, g_i = g + b_i with sum b_i = 0, and a draw of gradient noise of covariance V each: with
n = V/H, b = mean_i b_ij^2 / h_j and shared directions, p gains n/m and b (M - m)/(m (M - 1)), the variance of a mean of m
of M without replacement. With independent directions the mean of m clients' steps has the variance of m P directions, the
noise adds (1/m) [A n_j + (k2/P) sum n], and a pair of clients has E b_i b_k = -b/(M - 1), so that heterogeneity adds
[A/m - (m - 1)/(m (M - 1))] b_j + (k2/mP) sum b, also at m = M.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hiso_bench.theory.moments import check_options, constants


class Step(NamedTuple):
    """E y_j'^2 = own p_j + spread sum(p) + kick_j for p_j = E g_j^2 / h_j, g the gradient of the clients' mean function."""

    own: float
    """A: what the mode's own gradient adds to it."""
    spread: float
    """k2/P: every direction carries the whole gradient's energy into every mode."""
    kick: NDArray[np.float64]
    """What does not depend on x: curvature (mu), gradient noise and the clients' differences; (d,)."""


def step(lam: ArrayLike, mu: float, P: int, law: str = "gaussian", difference: str = "forward") -> Step:
    """The coefficients for one client without noise (module docstring).

    Args:
        lam: lambda = s/h, any sign, shape (d,).
        mu: smoothing radius, >= 0; not used by the central difference.
        P: directions averaged in the step.
        law: "gaussian", "sphere" or "rademacher".
        difference: "forward" or "central".

    Raises:
        ValueError: mu < 0, P < 1, an unknown law or difference.
    """
    check_options(mu, P, law, difference)
    lam = np.asarray(lam, dtype=np.float64)
    k1, k2, c6 = constants(law, len(lam))
    t1 = np.sum(lam)
    if difference == "central" or mu == 0:
        shape = np.zeros_like(lam)
    elif law == "rademacher":  # w' B w = t1 for a diagonal B: the term is a constant times z
        shape = np.full_like(lam, t1**2)
    else:
        shape = (t1**2 + 2 * np.sum(lam**2)) + 4 * t1 * lam + 8 * lam**2
    return Step(1 - 1 / P + k1 / P, k2 / P, mu**2 / (4 * P) * c6 * shape)


def clients_step(
    lam: ArrayLike,
    mu: float,
    P: int,
    law: str = "gaussian",
    difference: str = "forward",
    noise: ArrayLike = 0.0,
    m: int = 1,
    clients: int | None = None,
    heterogeneity: ArrayLike = 0.0,
    independent: bool = False,
) -> Step:
    """The coefficients for m of M clients with one Hessian (module docstring).

    Args:
        lam: lambda = s/h, shape (d,).
        mu: as in `step`, and so are P, law and difference.
        P: directions, per client where they are independent.
        law: law of the directions.
        difference: "forward" or "central".
        noise: v_j / h_j, variances of one client's whitened gradient noise, shape (d,) or a scalar.
        m: clients sampled per round without replacement.
        clients: M; None for M = m.
        heterogeneity: mean_i b_ij^2 / h_j, shape (d,) or a scalar.
        independent: every client draws its own P directions.

    Returns:
        Coefficients of own, spread and kick; noise and heterogeneity are in the kick.

    Raises:
        ValueError: as `step`; noise or heterogeneity negative or of another shape; m < 1, M < m, or heterogeneity with M = 1.
    """
    one = step(lam, mu, P, law, difference)
    d = len(one.kick)
    n, b = _variances(noise, d, "noise"), _variances(heterogeneity, d, "heterogeneity")
    M = m if clients is None else clients
    if m < 1 or m != int(m):
        raise ValueError(f"m must be a whole number of clients >= 1, got {m}")
    if M < m or M != int(M):
        raise ValueError(f"clients must be a whole number >= m = {m}, got {M}")
    if M == 1 and np.any(b):
        raise ValueError("heterogeneity must be 0 where there is one client: the b_i sum to 0")
    if not independent:
        extra = n / m + b * sampling_variance(m, M)
        return one._replace(kick=one.kick + one.own * extra + one.spread * np.sum(extra))
    pooled = step(lam, mu, P * m, law, difference)
    kick = pooled.kick + (one.own * (n + b) + one.spread * np.sum(n + b)) / m
    if m > 1:
        kick = kick - (m - 1) / (m * (M - 1)) * b
    return pooled._replace(kick=kick)


def sampling_variance(m: int, M: int) -> float:
    """Variance of the mean of m of M numbers drawn without replacement, over the population's (with divisor M)."""
    return (M - m) / (m * (M - 1)) if M > 1 else 0.0


def _variances(values: ArrayLike, d: int, name: str) -> NDArray[np.float64]:
    values = np.broadcast_to(np.asarray(values, dtype=np.float64), (d,))
    if not np.all(np.isfinite(values)) or np.any(values < 0):
        raise ValueError(f"{name} holds variances: finite and not negative")
    return values
