"""Both sides of the printed convergence theorems, with every constant explicit.

HiSo (arXiv 2506.02370), Theorem 1, under Assumptions 1-4, for every eta below its step condition and P = 1:

    avg_{r,k} E |grad F|^2_{H^{-1}}  <=  4 Delta / (eta tau R)  +  32 eta (tau-1)^2 L phi (sigma_G^2 + sigma_s^2) / (beta_l tau m)
                                         + 16 eta rho (sigma_G^2 + sigma_s^2) / (beta_l m)  +  O(eta mu),

    rho = Tr H^{-1/2} Sigma H^{-1/2} + 2 |H^{-1/2} Sigma H^{-1/2}|,      phi = Tr H^{-1} + 2 |H^{-1}|.

The left side is exact from `recursion.expected_squares` (fixed diagonal H, tau = 1); mu = 0 here, so the last term is absent.
The condition is printed as min(beta_l/(m L), 1/(8 rho), beta_l/(4 (tau-1))) sqrt(1/(L (d+2))): see `step_limit`.

DeComFL (arXiv 2405.15861) states rates, sqrt(d/(m P K R)) in Theorem 1 (Gaussian directions) and sqrt(kappa/(m P R)) in
Theorem 2 (sphere, one local step). No constants are quoted for it here: `hiso_bench.theory.descent` has a bound of our own.
"""

import math
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple, Self, get_args

import numpy as np
from numpy.typing import ArrayLike

from hiso_bench.theory.spectra import total, whitening_rank

Reading = Literal["parsed", "third", "homogeneous"]
READINGS: tuple[Reading, ...] = get_args(Reading)


@dataclass(frozen=True, kw_only=True)
class Setting:
    """The constants of HiSo's Theorem 1. Units: f of the loss, x of the point, h of H (which may be chosen freely).

    Attributes:
        L: smoothness, f/x^2.
        beta_l: lower bound on H (Assumption 4), h.
        beta_u: upper bound on H, h.
        rho: Tr + 2 norm of the whitened Hessian, f/(x^2 h).
        phi: Tr + 2 norm of H^{-1}, 1/h.
        d: dimension.
        Delta: F(x_1) - F*, f.
        m: clients sampled per round.
        tau: local steps.
        R: rounds.
        sigma_s: root of the variance of a client's stochastic gradient (Assumption 2), f/x.
        sigma_G: bound on |grad f_i - grad F| (Assumption 3), f/x.

    Raises:
        ValueError: a constant out of range.
    """

    L: float
    beta_l: float
    beta_u: float
    rho: float
    phi: float
    d: int
    Delta: float
    m: int = 1
    tau: int = 1
    R: int = 1
    sigma_s: float = 0.0
    sigma_G: float = 0.0

    def __post_init__(self) -> None:
        for name in ("L", "beta_l", "beta_u", "rho", "phi", "Delta"):
            if not 0 < getattr(self, name) < math.inf:
                raise ValueError(f"{name} {getattr(self, name)} is out of range; allowed: a finite number > 0")
        for name in ("sigma_s", "sigma_G"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"{name} {getattr(self, name)} is out of range; allowed: a finite number >= 0")
        for name in ("d", "m", "tau", "R"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} {getattr(self, name)} is out of range; allowed: >= 1")
        if self.beta_l > self.beta_u:
            raise ValueError(f"beta_l {self.beta_l} is out of range; allowed: <= beta_u = {self.beta_u}")

    @property
    def variance(self) -> float:
        """sigma_G^2 + sigma_s^2."""
        return self.sigma_G**2 + self.sigma_s**2

    def rescaled(self, f: float = 1.0, x: float = 1.0, h: float = 1.0) -> Self:
        """The same problem in units that make losses f, points x and H h times as large a number.

        A change of x alone leaves u standard normal only if H ~ 1/x^2 goes with it; as a check of units any three do. The
        learning rate of the same run is then eta h x^2/f.
        """
        return replace(
            self,
            L=self.L * f / x**2,
            beta_l=self.beta_l * h,
            beta_u=self.beta_u * h,
            rho=self.rho * f / (x**2 * h),
            phi=self.phi / h,
            Delta=self.Delta * f,
            sigma_s=self.sigma_s * f / x,
            sigma_G=self.sigma_G * f / x,
        )


class Bound(NamedTuple):
    """The right side of Theorem 1, term by term, in f^2/(x^2 h)."""

    descent: float
    drift: float
    noise: float

    @property
    def total(self) -> float:
        """The bound on the averaged |grad F|^2 in the H^{-1} norm; times beta_u, in the Euclidean norm."""
        return self.descent + self.drift + self.noise


def rho(s: ArrayLike, h: ArrayLike) -> float:
    """Tr + 2 norm of H^{-1/2} Sigma H^{-1/2} for Sigma = diag(s), H = diag(h): HiSo Theorem 1.

    Raises:
        ValueError: as `spectra.whitening_rank`.
    """
    return whitening_rank(s, h) + 2 * float(np.max(np.asarray(s, dtype=np.float64) / np.asarray(h, dtype=np.float64)))


def phi(h: ArrayLike) -> float:
    """Tr + 2 norm of H^{-1} for H = diag(h): HiSo Theorem 1. At least (d+2)/beta_u for every h.

    Args:
        h: positive, shape (d,).

    Raises:
        ValueError: an h that is no positive vector.
    """
    h = np.asarray(h, dtype=np.float64)
    if h.ndim != 1 or len(h) == 0 or not np.all(np.isfinite(h)) or np.any(h <= 0):
        raise ValueError(f"h must be a finite positive vector, got shape {h.shape}")
    return total(1 / h) + 2 / float(h.min())


def setting(
    s: ArrayLike,
    h: ArrayLike,
    Delta: float,
    m: int = 1,
    tau: int = 1,
    R: int = 1,
    sigma_s: float = 0.0,
    sigma_G: float = 0.0,
) -> Setting:
    """The constants of a diagonal quadratic with a fixed diagonal H: L = max s, beta_l = min h, beta_u = max h.

    Args:
        s: eigenvalues >= 0, shape (d,).
        h: diagonal of H, positive, shape (d,).
        Delta: as in `Setting`, and so is the rest.
        m: clients sampled per round.
        tau: local steps.
        R: rounds.
        sigma_s: root of the gradient's variance.
        sigma_G: heterogeneity.

    Raises:
        ValueError: shapes that disagree, or a constant out of range.
    """
    s, h = np.asarray(s, dtype=np.float64), np.asarray(h, dtype=np.float64)
    return Setting(
        L=float(s.max()), beta_l=float(h.min()), beta_u=float(h.max()), rho=rho(s, h), phi=phi(h), d=len(s), Delta=Delta,
        m=m, tau=tau, R=R, sigma_s=sigma_s, sigma_G=sigma_G,
    )  # fmt: skip


def step_limit(c: Setting, reading: Reading) -> float:
    """The largest learning rate that Theorem 1 admits.

    - "parsed": as printed, the root multiplies the whole minimum. Its units are those of eta only where L has none.
    - "third": the root belongs to the third entry, beta_l/(4 (tau-1)) sqrt(1/(L (d+2))), which still misses 1/sqrt(L).
    - "homogeneous": the third entry is beta_l/(4 (tau-1) L sqrt(d+2)), the one reading with the units of eta.

    At tau = 1 the third entry is infinite, and the last two are equal.

    Raises:
        ValueError: an unknown reading.
    """
    if reading not in READINGS:
        raise ValueError(f"reading {reading!r} is unknown; allowed: {', '.join(READINGS)}")
    first, second = c.beta_l / (c.m * c.L), 1 / (8 * c.rho)
    third = c.beta_l / (4 * (c.tau - 1)) if c.tau > 1 else math.inf
    root = math.sqrt(1 / (c.L * (c.d + 2)))
    if reading == "parsed":
        return min(first, second, third) * root
    return min(first, second, third * (root if reading == "third" else root / math.sqrt(c.L)))


def theorem1(c: Setting, eta: float) -> Bound:
    """The right side of HiSo's Theorem 1 without O(eta mu); it says something only for eta <= `step_limit`.

    Raises:
        ValueError: eta not positive.
    """
    if not eta > 0:
        raise ValueError(f"eta {eta} is out of range; allowed: > 0")
    return Bound(
        4 * c.Delta / (eta * c.tau * c.R),
        32 * eta * (c.tau - 1) ** 2 * c.L * c.phi / (c.beta_l * c.tau * c.m) * c.variance,
        16 * eta * c.rho / (c.beta_l * c.m) * c.variance,
    )


def best_step(c: Setting) -> float:
    """The eta that minimises the right side of Theorem 1, whatever its condition says; infinity without noise."""
    at_one = theorem1(c, 1.0)
    slope = at_one.drift + at_one.noise
    return math.sqrt(at_one.descent / slope) if slope > 0 else math.inf


def corollary1_step(c: Setting) -> float:
    """Corollary 1's eta = sqrt(m beta_l/(rho R)). It has the units of eta only if Delta = sigma^2; compare `best_step`."""
    return math.sqrt(c.m * c.beta_l / (c.rho * c.R))


def corollary1_rounds(c: Setting, reading: Reading) -> float:
    """The smallest R for which Corollary 1's step obeys Theorem 1's condition (tau = 1).

    64 m beta_l rho and m^3 L^2/(beta_l rho), whichever is larger; both times L (d+2) as parsed.

    Raises:
        ValueError: an unknown reading.
    """
    limit = step_limit(replace(c, tau=1), reading)
    return c.m * c.beta_l / (c.rho * limit**2)


def corollary1_rate(dimension: float, m: int, R: int) -> float:
    """Corollary 1: sqrt(d/(m R)), or sqrt(zeta/(m R)) for low effective rank; constants, beta_l among them, are not stated."""
    return math.sqrt(dimension / (m * R))
