"""The recursion of `recursion` for full matrices: different Hessians, rotated axes, linear terms, sampled clients.

M clients hold f_i(x) = 1/2 x' S_i x + b_i.x, the mean function f has S = mean S_i and b = mean b_i, and a client's gradient
carries zero-mean noise of covariance V_i, drawn once a round. With u = E x, X = E x x' and C = H^{-1},

    u+ = u - eta C (S u + b),
    X+ = X - eta [C (S X + b u') + its transpose] + eta^2 E dx dx'.

Let Q(g, S) = (1 - 1/P) C gg' C + (1/P) C^{1/2} {M4 + (mu^2/4) M6} C^{1/2} be the second moment of the step of one function
(`moments`): a quadratic form in (g, S). m of M clients are sampled without replacement, and the mean of a sample has
E Q(sample mean) = (1 - phi) Q(mean) + phi mean_i Q(client i), phi = (M - m)/(m (M - 1)), for every quadratic form Q. So

    shared directions:       E dx dx' = (1 - phi) Q(g, S) + phi mean_i Q(g_i, S_i) + Q(noise of covariance mean_i V_i / m)
    independent directions:  E dx dx' = (1/m) mean_i [Q(g_i, S_i) + Q(noise V_i)] + (1 - 1/m) C mean_{i != k} [g_i g_k'] C

with mean_{i != k} g_i g_k' = (M g g' - mean_i g_i g_i')/(M - 1), all averaged over x: E g_i g_i' is linear in u and X.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hiso_bench.theory.diagonal import sampling_variance
from hiso_bench.theory.moments import check_options, curvature_part, gradient_part, inverse_preconditioner, symmetric
from hiso_bench.theory.recursion import Curves, Floor


class Moments(NamedTuple):
    """What is known of x in a round."""

    mean: NDArray[np.float64]
    """u = E x, (d,)."""
    second: NDArray[np.float64]
    """X = E x x', (d, d)."""


class MatrixRecursion:
    """Zeroth-order descent with tau = 1, no momentum and a fixed H, in expectation.

    Args:
        hessians: S_i, symmetric, any sign, shape (M, d, d); (d, d) or (d,) for one Hessian that all clients have.
        C: H^{-1}, shape (d, d) or (d,) for a diagonal. Must be diagonal for "rademacher".
        P: directions per round, per client where they are independent.
        mu: smoothing radius, >= 0; not used by the central difference.
        law: "gaussian", "sphere" or "rademacher".
        difference: "forward" or "central".
        linear: b_i, shape (M, d), or (d,) for all clients; None for 0.
        noise: V_i, shape (M, d, d); (d, d) or (d,) for all clients; None for 0.
        clients: M, needed only where no argument has a client axis.
        sampled: m, clients sampled per round without replacement; None for all.
        independent: every client draws its own directions; else they are shared.

    Raises:
        ValueError: shapes that disagree, matrices that are not symmetric, a C that is not positive definite (or, for
            Rademacher, not diagonal), m outside 1..M, mu < 0, P < 1, an unknown law or difference.
    """

    def __init__(
        self,
        hessians: ArrayLike,
        C: ArrayLike,
        P: int,
        mu: float,
        law: str = "gaussian",
        difference: str = "forward",
        *,
        linear: ArrayLike | None = None,
        noise: ArrayLike | None = None,
        clients: int | None = None,
        sampled: int | None = None,
        independent: bool = False,
    ) -> None:
        check_options(mu, P, law, difference)
        S = np.asarray(hessians, dtype=np.float64)
        d = S.shape[-1] if S.ndim else 0
        b = np.zeros(d) if linear is None else np.asarray(linear, dtype=np.float64)
        V = np.zeros(d) if noise is None else np.asarray(noise, dtype=np.float64)
        counts = {len(a) for a, axes in ((S, 3), (b, 2), (V, 3)) if a.ndim == axes} | (set() if clients is None else {clients})
        if len(counts) > 1:
            raise ValueError(f"hessians, linear, noise and clients must agree on the number of clients, got {sorted(counts)}")
        M: int = counts.pop() if counts else 1
        m = M if sampled is None else sampled
        if not 1 <= m <= M:
            raise ValueError(f"sampled {m} is out of range; allowed: 1 to {M} clients")
        if b.shape not in ((d,), (M, d)) or not np.all(np.isfinite(b)):
            raise ValueError(f"linear must be finite, of shape ({d},) or ({M}, {d}); got {b.shape}")
        self.C = inverse_preconditioner(C, d, law)
        self.P, self.law = P, law
        self._S = np.stack([symmetric(A, d, "a Hessian") for A in (S if S.ndim == 3 else [S])])
        self._b = np.broadcast_to(b, (M, d))
        self.hessian, self.linear = self._S.mean(0), self._b.mean(0)
        V = np.mean([symmetric(A, d, "noise") for A in (V if V.ndim == 3 else [V])], axis=0)
        every = np.mean([curvature_part(A, self.C, mu, P, law, difference) for A in self._S], axis=0)
        # E dx dx' = Q(whole g g' + each mean_i g_i g_i') + C (whole_pair g g' + each_pair mean_i g_i g_i') C + constant.
        if independent:
            self._whole, self._each, noisy = 0.0, 1 / m, V / m
            pairs = 1 - 1 / m
            self._pairs = (pairs * M / (M - 1), -pairs / (M - 1)) if M > 1 else (0.0, 0.0)
            curvature = every / m
        else:
            phi = sampling_variance(m, M)
            self._whole, self._each, noisy = 1 - phi, phi, V / m
            self._pairs = (0.0, 0.0)
            curvature = (1 - phi) * curvature_part(self.hessian, self.C, mu, P, law, difference) + phi * every
        self._constant = gradient_part(noisy, self.C, P, law) + curvature

    def round(self, now: Moments, eta: float) -> Moments:
        """The moments after one round. Cost: O(d^3), per client where Hessians differ and directions or clients do."""
        pull = self.C @ (self.hessian @ now.second + np.outer(self.linear, now.mean))
        second = now.second - eta * (pull + pull.T) + eta**2 * self._step(now)
        mean = now.mean - eta * self.C @ (self.hessian @ now.mean + self.linear)
        return Moments(mean, (second + second.T) / 2)

    def moments(self, x0: ArrayLike, eta: ArrayLike, rounds: int, covariance: ArrayLike | None = None) -> Iterator[Moments]:
        """Iterate over the moments at rounds 0..R.

        Args:
            x0: E x_0, shape (d,).
            eta: learning rate, a scalar or one per round, shape (rounds,).
            rounds: R >= 0.
            covariance: of x_0, shape (d, d) or (d,); None for a start that is not random.

        Raises:
            ValueError: for another shape or rounds < 0, on the first `next`.
        """
        x = np.asarray(x0, dtype=np.float64)
        d = len(self.C)
        if x.shape != (d,):
            raise ValueError(f"x0 must have shape ({d},), got {x.shape}")
        if rounds < 0:
            raise ValueError(f"rounds must not be negative, got {rounds}")
        etas = np.broadcast_to(np.asarray(eta, dtype=np.float64), (rounds,))
        now = Moments(x, np.outer(x, x) + (0.0 if covariance is None else symmetric(covariance, d, "covariance")))
        yield now
        for step in etas:
            now = self.round(now, float(step))
            yield now

    def curves(self, x0: ArrayLike, eta: ArrayLike, rounds: int, covariance: ArrayLike | None = None) -> Curves:
        """E f and E |grad f|^2 of the mean function at rounds 0..R; arguments and errors as in `moments`."""
        with np.errstate(over="ignore", invalid="ignore"):
            table = np.array([self.measure(now) for now in self.moments(x0, eta, rounds, covariance)]).T
        table[:, np.cumsum(~np.isfinite(table).all(0)) > 0] = np.inf
        return Curves(*table)

    def measure(self, now: Moments) -> Floor:
        """E f, E |grad f|^2 in the H^{-1} norm and in the Euclidean one."""
        G = _gradient(self.hessian, self.linear, now)
        loss = np.sum(self.hessian * now.second) / 2 + self.linear @ now.mean
        return Floor(float(loss), float(np.sum(self.C * G)), float(np.trace(G)))

    def floor(self, eta: float) -> Floor:
        """The limits of `curves` for a constant stable learning rate; infinity where E x x' does not settle.

        The fixed point of an affine map X -> L(X) + c on symmetric matrices. L maps positive matrices to positive ones, so
        it is stable iff X - L(X) = I has a positive definite solution.

        Args:
            eta: learning rate, > 0.

        Raises:
            ValueError: eta <= 0, or a mean Hessian that is not positive definite.

        Cost: O(d^5) to write L down and O(d^6) to solve; seconds at d = 40.
        """
        if not eta > 0:
            raise ValueError(f"eta must be positive, got {eta}")
        if np.linalg.eigvalsh(self.hessian)[0] <= 0:
            raise ValueError("a floor needs a positive definite mean Hessian")
        d = len(self.C)
        i, j = np.triu_indices(d)
        still = Moments(np.linalg.solve(self.hessian, -self.linear), np.zeros((d, d)))
        offset = self.round(still, eta).second
        columns = []
        for p, q in zip(i, j, strict=True):
            unit = np.zeros((d, d))
            unit[p, q] = unit[q, p] = 1.0
            columns.append((unit - self.round(Moments(still.mean, unit), eta).second + offset)[i, j])
        solved = np.linalg.solve(np.array(columns).T, np.stack([offset[i, j], np.eye(d)[i, j]], axis=1))
        X, certificate = np.zeros((2, d, d))
        for matrix, values in ((X, solved[:, 0]), (certificate, solved[:, 1])):
            matrix[i, j] = matrix[j, i] = values
        if np.linalg.eigvalsh(certificate)[0] <= 0:
            return Floor(np.inf, np.inf, np.inf)
        return self.measure(Moments(still.mean, X))

    def _step(self, now: Moments) -> NDArray:
        """E dx dx'."""
        whole = _gradient(self.hessian, self.linear, now)
        each = self._each_gradient(now) if self._each or self._pairs[1] else 0.0
        total = gradient_part(self._whole * whole + self._each * each, self.C, self.P, self.law) + self._constant
        if self._pairs[0]:
            total = total + self.C @ (self._pairs[0] * whole + self._pairs[1] * each) @ self.C
        return total

    def _each_gradient(self, now: Moments) -> NDArray:
        """mean_i E g_i g_i'."""
        if len(self._S) == 1:  # one Hessian: the clients differ by the b_i alone
            spread = self._b.T @ self._b / len(self._b) - np.outer(self.linear, self.linear)
            return _gradient(self.hessian, self.linear, now) + spread
        return np.mean([_gradient(S, b, now) for S, b in zip(self._S, self._b, strict=True)], axis=0)


def _gradient(S: NDArray, b: NDArray, now: Moments) -> NDArray:
    """E g g' for g = S x + b."""
    cross = np.outer(S @ now.mean, b)
    return S @ now.second @ S + cross + cross.T + np.outer(b, b)
