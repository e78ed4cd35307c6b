"""The recursion of `recursion` solved for all rounds at once, and the best constant learning rate that follows.

Modes of equal (s, h, v) are one: their sums of E x_j^2 close among themselves. With n_k modes of kind k, b_k the
sum of E x_j^2 over them times s_k / sqrt(n_k), and lambda = s / h, the recursion of one round (mu = 0) is

    b+ = (I - G) b + c,     G = diag(2 eta lambda - A eta^2 lambda^2) - eta^2 (k2/P) y y',   y_k = sqrt(n_k) lambda_k,
    c_k = eta^2 [A v_k / h_k^2 + (k2/P) (sum_j v_j/h_j) / h_k] s_k sqrt(n_k),

symmetric. G = Q diag(g) Q' makes every round and every sum over rounds a sum of powers of 1 - g: the cost does not
depend on the number of rounds. All eigenvalues g are positive iff eta < eta* (see `stability`), below 2, and at most 1 but for
Rademacher directions (A < 1): there a part of E f may change its sign every round.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import minimize_scalar

from hiso_bench.theory.moments import check_options, constants
from hiso_bench.theory.stability import max_stable_step

MEASURES = ("whitened", "euclidean", "loss")
_GRID = 41
_SMALLEST = 1e-9


class Descent:
    """Zeroth-order descent on f(x) = 1/2 sum_j s_j x_j^2 with H = diag(h) fixed and mu = 0, in expectation.

    Args:
        s: Hessian eigenvalues, >= 0, at least one positive, shape (d,).
        h: diagonal of H, positive, shape (d,) or a scalar.
        x0: starting point, shape (d,); only its squares matter, so the root of E x_j^2 serves for a random start.
        P: directions per round.
        noise: variances v_j of one client's gradient noise, shape (d,) or a scalar.
        m: clients averaged; they share their directions, so m divides the noise and nothing else.
        law: law of the directions, see `moments.constants`.

    Attributes:
        limit: eta*, the largest mean-square stable learning rate.
        start: f(x0).
        N: [(1+1/P) tr(C S C V) + tr(CS) tr(CV)/P] / m, Gaussian: what the noise adds to E |dx|_S^2 (C = H^{-1}).

    Raises:
        ValueError: as `recursion.expected_loss` and `stability.max_stable_step`.

    Cost: k^3 for a learning rate, with k the number of distinct (s, h, v).
    """

    def __init__(
        self,
        s: ArrayLike,
        h: ArrayLike,
        x0: ArrayLike,
        P: int,
        noise: ArrayLike = 0.0,
        m: int = 1,
        law: str = "gaussian",
    ) -> None:
        s, x0 = np.asarray(s, dtype=np.float64), np.asarray(x0, dtype=np.float64)
        if x0.shape != s.shape:
            raise ValueError(f"x0 must have shape {s.shape}, got {x0.shape}")
        if m < 1 or m != int(m):
            raise ValueError(f"m must be a whole number of clients >= 1, got {m}")
        check_options(0.0, P, law, "central")
        self.limit = max_stable_step(s, h, P, law)
        h = np.broadcast_to(np.asarray(h, dtype=np.float64), s.shape)
        v = np.broadcast_to(np.asarray(noise, dtype=np.float64), s.shape) / m
        if not np.all(np.isfinite(v)) or np.any(v < 0):
            raise ValueError("noise holds variances: finite and not negative")
        k1, k2, _ = constants(law, len(s))
        self._A, self._share = 1 - 1 / P + k1 / P, k2 / P
        self._V = float(np.sum(v / h))  # noise on flat modes moves the steep ones too
        steep = s > 0
        kinds, which = np.unique(np.stack([s, h, v])[:, steep], axis=1, return_inverse=True)
        self._s, self._h, self._v = kinds
        self._lam = self._s / self._h
        self._n = np.bincount(which.ravel()).astype(np.float64)
        squares = np.bincount(which.ravel(), weights=x0[steep] ** 2)
        self._b0 = squares * self._s / np.sqrt(self._n)
        self.start = float(0.5 * np.sum(self._s * squares))
        traces = np.sum(self._n * self._lam * self._v / self._h), np.sum(self._n * self._lam) * self._V
        self.N = float(self._A * traces[0] + self._share * traces[1])

    def value(self, eta: ArrayLike, r: ArrayLike, measure: str = "loss") -> NDArray[np.float64]:
        """The expectation of a measure after r rounds.

        Args:
            eta: learning rates in (0, eta*), shape (e,) or a scalar.
            r: rounds >= 0, fractions allowed (powers of 1 - g), broadcasting with eta.
            measure: "whitened": |grad f|^2 in the H^{-1} norm (the left of HiSo's Theorem 1); "euclidean": |grad f|^2;
                "loss": f.

        Returns:
            float64, shape of eta.

        Raises:
            ValueError: unknown measure, or an eta outside (0, eta*).
        """
        g, start, kick = self._solve(eta, measure)
        return np.sum(start * _power(g, _column(r)) + kick * _sum(g, _column(r)), axis=-1)

    def average(self, eta: ArrayLike, rounds: ArrayLike, measure: str = "whitened") -> NDArray[np.float64]:
        """The expectation of the mean of a measure over rounds 0 .. rounds - 1; arguments and errors as in `value`."""
        g, start, kick = self._solve(eta, measure)
        return np.sum(start * _sum(g, _column(rounds)) + kick * _sum_of_sums(g, _column(rounds)), axis=-1) / np.asarray(rounds)

    def best_average(self, rounds: float, measure: str = "whitened") -> tuple[float, float]:
        """The constant learning rate in (0, eta*) with the smallest `average`, and that average.

        For many rounds it is sqrt(2 f(x0) N / rounds) at eta = sqrt(2 f(x0) / (N rounds)) in the H^{-1} norm: the sum of
        E f(x+) - f(x) = -eta |g|_C^2 + eta^2/2 E|dx|_S^2 over rounds.
        """
        return self._best(lambda eta: self.average(eta, rounds, measure))

    def best_value(self, r: float, measure: str = "loss") -> tuple[float, float]:
        """The constant learning rate in (0, eta*) with the smallest `value` after r rounds, and that value."""
        return self._best(lambda eta: self.value(eta, r, measure))

    def rounds(self, eta: ArrayLike, target: float) -> NDArray[np.float64]:
        """Rounds until E f = target f(x0), interpolated; infinity where the floor is above it. Shape of eta.

        Raises:
            ValueError: target outside (0, 1), or an eta outside (0, eta*).
        """
        if not 0 < target < 1:
            raise ValueError(f"target {target} is out of range; allowed: 0 < target < 1")
        g, start, kick = self._solve(eta, "loss")
        floor = np.sum(kick / g, axis=-1)
        goal = target * self.start

        def above(r: NDArray) -> NDArray[np.bool_]:
            r = r[..., None]
            return np.sum(start * _power(g, r) + kick * _sum(g, r), axis=-1) > goal

        return crossing(above, floor < goal)

    def best_rounds(self, target: float) -> tuple[float, float]:
        """The constant learning rate in (0, eta*) with the fewest `rounds` to the target, and those rounds."""
        return self._best(lambda eta: self.rounds(eta, target))

    def _solve(self, eta: ArrayLike, measure: str) -> tuple[NDArray, NDArray, NDArray]:
        """Eigenvalues g of G, and the measure's coefficients of the start and of the noise in that basis; (..., k) each."""
        weights = {"whitened": self._lam, "euclidean": self._s, "loss": np.full_like(self._s, 0.5)}
        if measure not in weights:
            raise ValueError(f"unknown measure {measure!r}: expected one of {MEASURES}")
        eta = np.asarray(eta, dtype=np.float64)
        if not np.all((eta > 0) & (eta < self.limit)):
            raise ValueError(f"eta {eta} is out of range; allowed: 0 < eta < eta* = {self.limit}")
        lam, step = self._lam, eta[..., None]
        y = np.sqrt(self._n) * lam
        G = (2 * step * lam - self._A * step**2 * lam**2)[..., None] * np.eye(len(lam))
        G = G - (step**2)[..., None] * self._share * np.outer(y, y)
        c = step**2 * (self._A * self._v / self._h**2 + self._share * self._V / self._h) * self._s * np.sqrt(self._n)
        g, Q = np.linalg.eigh(G)
        seen = np.einsum("...kq,k->...q", Q, weights[measure] * np.sqrt(self._n))
        return g, seen * np.einsum("...kq,k->...q", Q, self._b0), seen * np.einsum("...kq,...k->...q", Q, c)

    def _best(self, cost: Callable[[ArrayLike], NDArray]) -> tuple[float, float]:
        """The smallest cost over eta: a grid even in log(eta), refined around its winner."""
        tried = np.geomspace(_SMALLEST * self.limit, self.limit * (1 - _SMALLEST), _GRID)
        # Near the limit the steps are small in the distance to it, not in log(eta).
        tried = np.unique(np.concatenate([tried, self.limit * np.linspace(0.02, 0.995, _GRID)]))
        costs = cost(tried)
        i = int(np.argmin(costs))
        ends = np.log(tried[max(i - 1, 0)]), np.log(tried[min(i + 1, len(tried) - 1)])
        found = minimize_scalar(lambda log: float(cost(np.exp(log))), bounds=ends, method="bounded", options={"xatol": 1e-9})
        if found.fun < costs[i]:
            return float(np.exp(found.x)), float(found.fun)
        return float(tried[i]), float(costs[i])


def crossing(above: Callable[[NDArray], NDArray[np.bool_]], reached: NDArray[np.bool_]) -> NDArray[np.float64]:
    """The round r > 0, fractions allowed, at which a curve falls to its target: by doubling, then 48 halvings.

    Args:
        above: whether the curves are above their target at r, shape of `reached`.
        reached: which curves ever fall to it.

    Returns:
        r, infinity where it is never reached; shape of `reached`.
    """
    low, high = np.zeros(np.shape(reached)), np.ones(np.shape(reached))
    while np.any(grow := reached & above(high)):
        low, high = np.where(grow, high, low), np.where(grow, 2 * high, high)
    for _ in range(48):
        middle = (low + high) / 2
        up = above(middle)
        low, high = np.where(up, middle, low), np.where(up, high, middle)
    return np.where(reached, high, np.inf)


def _column(r: ArrayLike) -> NDArray:
    return np.asarray(r, dtype=np.float64)[..., None]


def _power(g: NDArray, r: NDArray) -> NDArray:
    """(1 - g)^r, also where g is tiny; the real part where 1 - g is negative and r a fraction."""
    return np.where(g > 1, np.cos(np.pi * (r % 2)) * np.exp(_logs(g, r)), np.exp(_logs(g, r)))


def _sum(g: NDArray, r: NDArray) -> NDArray:
    """The sum of (1 - g)^t over t < r."""
    return np.where(g > 1, 1 - _power(g, r), -np.expm1(_logs(g, r))) / g


def _logs(g: NDArray, r: NDArray) -> NDArray:
    """The logarithm of |1 - g|^r; 0 at r = 0."""
    with np.errstate(divide="ignore", invalid="ignore"):
        log = np.where(g > 1, np.log(np.abs(g - 1)), np.log1p(-np.minimum(g, 1.0)))
        return np.where(r == 0, 0.0, r * log)


def _sum_of_sums(g: NDArray, r: NDArray) -> NDArray:
    """The sum of `_sum(g, t)` over t < r; the series where r g is small and the formula cancels."""
    series = r * (r - 1) / 2 * (1 - (r - 2) * g / 3 * (1 - (r - 3) * g / 4))
    return np.where(r * g < 1e-3, series, (r - _sum(g, r)) / g)
