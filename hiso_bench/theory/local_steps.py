"""Local steps with shared directions on diagonal quadratics, exactly: the moments of every client's model, step by step.

Client i holds f_i(x) = 1/2 sum_j s_ij x_j^2 + b_i . x. In local step k all clients draw the same P directions, so

    x_i <- x_i - eta G_k (S_i x_i + b_i + n_i),      G_k = (1/P) sum_p z_p z_p',      z_p ~ N(0, C),

for the central difference (or mu = 0), n_i the gradient noise of its batch; after tau steps every client stands at the mean.
With v_i the gradient of client i and V_ij = E v_i v_j', E x_i x_j' is moved by

    E G v_i v_j' G = (1 - 1/P) C V_ij C + (1/P) [ (k1/2) C (V_ij + V_ij') C + k2 tr(C V_ij) C ],

whose diagonal closes for diagonal S_i and H: means (m, d) and mixed squares (m, m, d) suffice. If all S_i are equal, the
clients' mean takes exactly the central steps of the mean function; the b_i may differ at will.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hiso_bench.theory.moments import check_options, constants


class Clients(NamedTuple):
    """The clients' moments between two local steps."""

    mean: NDArray[np.float64]
    """E x_i, (m, d)."""
    square: NDArray[np.float64]
    """E x_ij x_kj for clients i, k: (m, m, d)."""

    def deviation(self, weights: ArrayLike) -> float:
        """(1/m) sum_i E sum_j w_ij (x_ij - xbar_j)^2: how far the clients are apart, xbar the mean of their models.

        Args:
            weights: w, broadcast to (m, d); (s_i - s)^2 measures it in gradients, L^2 is what smoothness alone allows.
        """
        own = np.einsum("iij->ij", self.square) - 2 * self.square.mean(1) + self.square.mean((0, 1))
        return float(np.sum(np.broadcast_to(weights, own.shape) * own) / len(own))


class LocalSteps:
    """A method and m clients on a diagonal quadratic.

    Args:
        s: the clients' Hessian eigenvalues, any sign, (m, d).
        b: the clients' linear terms, (m, d) or a scalar.
        h: diagonal of H, positive, (d,) or a scalar.
        eta: learning rate, > 0.
        P: directions per local step.
        tau: local steps per round.
        noise: variances of one client's gradient noise, one draw per local step, (d,) or a scalar.
        law: law of the directions, see `moments.constants`.

    Raises:
        ValueError: shapes that do not go together, or an option out of range.
    """

    def __init__(
        self,
        s: ArrayLike,
        b: ArrayLike,
        h: ArrayLike,
        eta: float,
        P: int,
        tau: int,
        noise: ArrayLike = 0.0,
        law: str = "gaussian",
    ) -> None:
        self.s = np.asarray(s, dtype=np.float64)
        if self.s.ndim != 2 or not self.s.size or not np.all(np.isfinite(self.s)):
            raise ValueError(f"s must be finite, one row per client; got shape {self.s.shape}")
        self.b = np.broadcast_to(np.asarray(b, dtype=np.float64), self.s.shape)
        self.h = np.broadcast_to(np.asarray(h, dtype=np.float64), self.s.shape[1:])
        self.noise = np.broadcast_to(np.asarray(noise, dtype=np.float64), self.s.shape[1:])
        if not np.all(np.isfinite(self.h)) or np.any(self.h <= 0):
            raise ValueError("h must be positive and finite")
        if not np.all(np.isfinite(self.noise)) or np.any(self.noise < 0):
            raise ValueError("noise holds variances: finite and not negative")
        if not (eta > 0 and tau >= 1):
            raise ValueError(f"eta must be positive and tau at least 1, got {eta} and {tau}")
        check_options(0.0, P, law, "central")
        k1, self.k2, _ = constants(law, self.s.shape[1])
        self.A = 1 - 1 / P + k1 / P
        self.eta, self.P, self.tau = eta, P, tau

    def start(self, x: ArrayLike) -> Clients:
        """All clients at x, (d,)."""
        m, d = self.s.shape
        x = np.broadcast_to(np.asarray(x, dtype=np.float64), (d,))
        return Clients(np.tile(x, (m, 1)), np.tile(x**2, (m, m, 1)))

    def step(self, at: Clients) -> Clients:
        """One local step. Cost O(m^2 d)."""
        s, b, h, eta = self.s, self.b, self.h, self.eta
        cross = s[None] * at.square + at.mean[:, None] * b[None]  # E x_i v_k
        tilted = s * at.mean * b[:, None]  # E [s_k x_k] b_i
        V = s[:, None] * s[None] * at.square + tilted + tilted.transpose(1, 0, 2) + b[:, None] * b[None]
        V[np.arange(len(s)), np.arange(len(s))] += self.noise
        kick = self.A * V / h**2 + self.k2 / self.P * np.sum(V / h, axis=-1, keepdims=True) / h
        square = at.square - eta * (cross + cross.transpose(1, 0, 2)) / h + eta**2 * kick
        return Clients(at.mean - eta * (s * at.mean + b) / h, square)

    def local(self, at: Clients, steps: int) -> Clients:
        """Several local steps without averaging."""
        for _ in range(steps):
            at = self.step(at)
        return at

    def round(self, at: Clients) -> Clients:
        """Tau local steps, then everyone stands at the mean."""
        at = self.local(at, self.tau)
        return Clients(np.broadcast_to(at.mean.mean(0), at.mean.shape), np.broadcast_to(at.square.mean((0, 1)), at.square.shape))

    def loss(self, at: Clients) -> float:
        """E f of the mean function at the mean of the clients' models."""
        return float(0.5 * np.sum(self.s.mean(0) * at.square.mean((0, 1))) + np.sum(self.b.mean(0) * at.mean.mean(0)))

    def expected_loss(self, x0: ArrayLike, rounds: int) -> NDArray[np.float64]:
        """E f after rounds 0..R, (R + 1,). Cost O(R tau m^2 d).

        Raises:
            ValueError: rounds < 0.
        """
        if rounds < 0:
            raise ValueError(f"rounds must not be negative, got {rounds}")
        at = self.start(x0)
        losses = [self.loss(at)]
        for _ in range(rounds):
            at = self.round(at)
            losses.append(self.loss(at))
        return np.array(losses)
