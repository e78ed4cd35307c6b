"""What HiSo drops: the factor (u' H^{-1} u)^{-1} of its Eq 7, and the expected loss of the method that keeps it.

With z = H^{-1/2} u, the scalar that solves HiSo's Eq 5 is z'g / z'z: the step is the projection of the gradient on z,

    dx = (1/P) sum_p z_p z_p' g / z_p' z_p.

Eq 8 leaves q = z'z = u' H^{-1} u out and calls it independent of x. It is, but it is random. For Gaussian u, C = H^{-1} =
diag(c): E q = sum c and Var q = 2 sum c^2 exactly, so q has the coefficient of variation sqrt(2 sum c^2) / sum c.

The moments with q kept are one-dimensional integrals: E e^{-tq} = prod_k (1 + 2 t c_k)^{-1/2} =: F(t), 1/q is the integral of
e^{-tq} over t and 1/q^2 that of t e^{-tq}, and with phi_i = c_i / (1 + 2 t c_i)

    m_i  = E z_i^2 / q         = int F phi_i dt,                     sum_i m_i = 1,
    K_ij = E z_i^2 z_j^2 / q^2 = (1 + 2 [i = j]) int t F phi_i phi_j dt,      sum_ij K_ij = 1.

Hence E dx = diag(m) g, no longer H^{-1} g, and on f = 1/2 sum s x^2 the numbers b_i = s_i E x_i^2 obey a recursion as closed as
that of `recursion`, with a symmetric matrix:

    b+ = (I - 2 eta diag(m s) + eta^2 [(1 - 1/P) diag(m^2 s^2) + (1/P) diag(s) K diag(s)]) b.
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hiso_bench.theory.closed_form import crossing

_NODES = 400


def factor_spread(h: ArrayLike) -> float:
    """The coefficient of variation of u' H^{-1} u, Gaussian u, exactly: sqrt(2 sum h^-2) / sum h^-1.

    Between sqrt(2/d), reached by H = I, and sqrt(2), where one coordinate holds all of H^{-1}.

    Args:
        h: diagonal of H, positive, shape (d,).

    Raises:
        ValueError: h is not a positive finite vector.
    """
    c = 1 / _positive(h)
    return float(np.sqrt(2 * np.sum(c**2)) / np.sum(c))


def projection_moments(h: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The moments m, shape (d,), and K, shape (d, d), of the module's docstring.

    The integrals over ln t are sums over even nodes; the integrands are analytic and vanish at both ends, so the error falls
    exponentially with the nodes (1e-9 here). Cost: O(nodes d^2).

    Args:
        h: diagonal of H, positive, shape (d,); its scale does not matter.

    Raises:
        ValueError: h is not a positive finite vector.
    """
    c = 1 / _positive(h)
    c = c / np.sum(c)
    # t F phi_i is below 1e-9 outside these ends: F t^2 falls as t^-1/2 at worst beyond t = 1 / min c.
    y = np.linspace(np.log(1e-10), np.log(1e20 / np.min(c) ** 0.5), _NODES)
    t = np.exp(y)
    weight = (y[1] - y[0]) * t
    damped = 1 + 2 * np.outer(t, c)
    F, phi = np.exp(-0.5 * np.sum(np.log(damped), axis=1)), c / damped
    m = (weight * F) @ phi
    K = (phi * (weight * t * F)[:, None]).T @ phi
    return m, K + 2 * np.diag(np.diag(K))


class ProjectedDescent:
    """Descent on f(x) = 1/2 sum_j s_j x_j^2 by projections on z = H^{-1/2} u, in expectation; Gaussian u, no noise, mu = 0.

    Args:
        s: Hessian eigenvalues, positive, shape (d,).
        h: diagonal of H, positive, shape (d,).
        x0: starting point, shape (d,).
        P: directions per round.

    Attributes:
        limit: the largest mean-square stable learning rate: the matrix of the recursion is entrywise non-negative, so it
            contracts iff 2 diag(m s) - eta [...] is positive definite.

    Raises:
        ValueError: shapes that differ, s or h not positive, P < 1.

    Cost: O(d^3) for the limit and for every learning rate, whatever the number of rounds.
    """

    def __init__(self, s: ArrayLike, h: ArrayLike, x0: ArrayLike, P: int) -> None:
        s, h, x0 = _positive(s), _positive(h), np.asarray(x0, dtype=np.float64)
        if not s.shape == h.shape == x0.shape:
            raise ValueError(f"s, h and x0 must have one shape, got {s.shape}, {h.shape} and {x0.shape}")
        if P < 1 or P != int(P):
            raise ValueError(f"P must be a whole number of directions >= 1, got {P}")
        m, K = projection_moments(h)
        self._drift = m * s
        self._spread = (1 - 1 / P) * np.diag(self._drift**2) + np.outer(s, s) * K / P
        self._b0 = s * x0**2
        root = np.sqrt(2 * self._drift)
        self.limit = float(1 / np.linalg.eigvalsh(self._spread / np.outer(root, root))[-1])

    def rounds(self, eta: ArrayLike, target: float) -> NDArray[np.float64]:
        """Rounds until E f = target f(x0), fractions allowed; as `closed_form.Descent.rounds`.

        Args:
            eta: learning rates in (0, limit), shape (e,) or a scalar.
            target: in (0, 1).

        Raises:
            ValueError: an argument out of range.
        """
        if not 0 < target < 1:
            raise ValueError(f"target {target} is out of range; allowed: 0 < target < 1")
        found = [self._rounds(*self._powers(rate), target) for rate in np.ravel(eta)]
        return np.reshape(found, np.shape(eta))

    def value(self, eta: float, r: float) -> float:
        """E f after r rounds. Raises ValueError for an eta outside (0, limit)."""
        decay, share = self._powers(eta)
        return float(0.5 * share @ decay**r)

    def _powers(self, eta: float) -> tuple[NDArray, NDArray]:
        """E f = 1/2 sum share decay^r."""
        if not 0 < eta < self.limit:
            raise ValueError(f"eta {eta} is out of range; allowed: 0 < eta < {self.limit}")
        decay, Q = np.linalg.eigh(np.diag(1 - 2 * eta * self._drift) + eta**2 * self._spread)
        return np.maximum(decay, 0.0), np.sum(Q, axis=0) * (Q.T @ self._b0)

    def _rounds(self, decay: NDArray, share: NDArray, target: float) -> float:
        goal = target * np.sum(self._b0)
        return float(crossing(lambda r: np.asarray(share @ decay**r > goal), np.asarray(True)))


def _positive(values: ArrayLike) -> NDArray[np.float64]:
    values = np.asarray(values, dtype=np.float64)
    if values.ndim != 1 or len(values) == 0 or not np.all(np.isfinite(values)) or np.any(values <= 0):
        raise ValueError(f"expected a vector of positive finite numbers, got shape {values.shape}")
    return values
