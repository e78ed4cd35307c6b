"""Almost-sure stability on equal eigenvalues, exactly: the growth rate of log |x| of a single run.

k modes of one eigenvalue lambda (any others zero), Gaussian directions, noise-free, x+ = (I - (c/P) W W') x with
c = eta lambda and W of k x P standard normals. Turned so that x is the first axis, with y the first row of W,

    |x+|^2 / |x|^2 = (1 - c s/P)^2 + (c/P)^2 s t,    s = |y|^2 ~ chi^2_P,    t ~ chi^2_{k-1} independent (t = 0 for k = 1),

independent from round to round and of where x points. By the law of large numbers (1/R) log |x_R| tends to the exponent

    ell(c) = (1/2) E ln[(1 - c s/P)^2 + (c/P)^2 s t]

for almost every run. ell < 0 is convergence of almost every run, and allows larger steps than mean-square stability,
ell <= (1/2) ln E |x+|^2/|x|^2 by Jensen: near eta* the mean is carried by ever rarer runs. Spectra that are not flat have no
such formula; there the sign of the exponent is simulated.
"""

import numpy as np
from numpy.typing import NDArray
from scipy import optimize, special

from hiso_bench.theory.stability import max_stable_step


def flat_exponent(c: float, k: int, P: int) -> float:
    """ell(c): natural logarithms of |x| per round, for k equal eigenvalues.

    The quadrature is the trapezoidal rule in ln t and in ln |ln (c s/P)|, on both sides of the zero of 1 - c s/P: in these
    variables the logarithm's singularities stay pi/2 away from the real axis, whatever c, k and P.

    Args:
        c: eta lambda, > 0.
        k: number of equal eigenvalues, >= 1.
        P: directions averaged in the step, >= 1.

    Returns:
        The exponent, to about 1e-10. Cost: milliseconds.

    Raises:
        ValueError: c <= 0, k < 1 or P < 1.
    """
    if not (np.isfinite(c) and c > 0):
        raise ValueError(f"c must be positive and finite, got {c}")
    if k < 1 or P < 1:
        raise ValueError(f"k and P must be at least 1, got {k} and {P}")
    step = min(0.04, 0.25 * np.sqrt(2 / P))
    w = np.arange(-40.0, 5.0, step)
    distance = np.exp(w)
    total = 0.0
    for side in (-1.0, 1.0):
        # ln(c s/P) = side * distance, so 1 - c s/P = -expm1(side * distance) without cancellation.
        log_s = np.log(P / c) + side * distance
        keep = np.abs(log_s) < 600
        weight = np.where(keep, _log_chi_square(np.where(keep, log_s, 0.0), P), -np.inf)
        density = step * distance * np.exp(weight)
        used = density > 0
        gap, s = np.expm1(side * distance[used]), np.exp(log_s[used])
        total += float(density[used] @ _inner(gap, (c / P) ** 2 * s, k))
    return total


def almost_sure_limit(k: int, P: int) -> float:
    """The c = eta lambda > 0 at which the exponent of k equal eigenvalues is 0: smaller steps converge almost surely.

    Args:
        k: number of equal eigenvalues.
        P: directions averaged in the step.

    Returns:
        c; the largest almost surely stable step times lambda, >= eta* lambda = 2P/(k + P + 1).

    Raises:
        ValueError: k < 1 or P < 1.
    """
    low = max_stable_step(np.ones(k), 1.0, P)
    high = low
    while flat_exponent(high, k, P) <= 0:
        low, high = high, 1.5 * high
    return float(optimize.root_scalar(lambda c: flat_exponent(c, k, P), bracket=(low, high), xtol=1e-13).root)


def _inner(gap: NDArray, scale: NDArray, k: int) -> NDArray:
    """(1/2) E ln(gap^2 + scale t) over t ~ chi^2_{k-1}."""
    if k == 1:
        return np.log(np.abs(gap))
    n = k - 1
    step = min(0.25, 0.7 * np.sqrt(2 / n))
    middle, width = np.log(n), np.sqrt(2 / n)
    log_t = np.arange(middle - 9 * width - 80 / n, middle + 9 * width + 3, step)
    weight = step * np.exp(_log_chi_square(log_t, n))
    return 0.5 * np.log(gap[:, None] ** 2 + scale[:, None] * np.exp(log_t)) @ weight


def _log_chi_square(v: NDArray, n: int) -> NDArray:
    """Log density of ln chi^2_n."""
    with np.errstate(over="ignore"):
        return n / 2 * v - np.exp(v) / 2 - n / 2 * np.log(2) - special.gammaln(n / 2)
