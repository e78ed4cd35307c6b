"""Spectra of quadratics, rotations of their eigenvectors, and the numbers that say how hard they are.

A spectrum is the vector s of the eigenvalues of a Hessian S; h is the diagonal of a preconditioner H. The papers' numbers are

    kappa = tr S / max s                 effective rank: DeComFL (arXiv 2405.15861) Theorem 2, HiSo (arXiv 2506.02370) Eq 15;
    zeta  = tr H^{-1/2} S H^{-1/2}       whitening rank: HiSo Eq 16;

neither of which predicts speed: zeta is not invariant under H -> cH. Without noise Z(H) = zeta max_j h_j/s_j is, see
`whitening_speed`. Everything costs O(d) memory and about a second at d = 10^7, sums are exact to one rounding, except where
full matrices are named.
"""

import itertools
import math
from collections.abc import Sequence

import numpy as np
import scipy
from numpy.typing import ArrayLike, NDArray

_CHUNK = 1 << 16


def flat(d: int) -> NDArray[np.float64]:
    """All eigenvalues 1: kappa = d.

    Args:
        d: dimension, >= 1.

    Returns:
        Shape (d,), float64, as for every family.

    Raises:
        ValueError: d < 1.
    """
    return np.ones(_dimension(d))


def power(d: int, exponent: float) -> NDArray[np.float64]:
    """s_j = j^-exponent, largest 1: kappa is the partial sum of Riemann's zeta function.

    Raises:
        ValueError: d < 1, or an exponent that is not finite.
    """
    if not math.isfinite(exponent):
        raise ValueError(f"exponent {exponent} is out of range; allowed: a finite number")
    return np.arange(1, _dimension(d) + 1, dtype=np.float64) ** -exponent


def spiked(d: int, spikes: int, height: float) -> NDArray[np.float64]:
    """The first `spikes` eigenvalues are `height`, the others 1.

    Raises:
        ValueError: d < 1, spikes outside 0..d, height not positive and finite.
    """
    if not 0 <= spikes <= _dimension(d):
        raise ValueError(f"spikes {spikes} is out of range; allowed: 0 <= spikes <= {d}")
    return blocks((spikes, d - spikes), (height, 1.0))


def lognormal(d: int, std: float, rng: np.random.Generator) -> NDArray[np.float64]:
    """exp(std N(0, 1)), independent; HiSo's Figure 4 is this with d = 200.

    Raises:
        ValueError: d < 1, or std negative or not finite.
    """
    if not 0 <= std < math.inf:
        raise ValueError(f"std {std} is out of range; allowed: a finite number >= 0")
    return np.exp(std * rng.standard_normal(_dimension(d)))


def blocks(sizes: Sequence[int], values: Sequence[float]) -> NDArray[np.float64]:
    """`sizes[b]` eigenvalues equal to `values[b]`, block after block.

    Raises:
        ValueError: unequal lengths, a negative size, no eigenvalue at all, a value that is negative or not finite.
    """
    if len(sizes) != len(values):
        raise ValueError(f"need one value per block, got {len(sizes)} sizes and {len(values)} values")
    if any(size < 0 for size in sizes) or sum(sizes) < 1:
        raise ValueError(f"sizes {list(sizes)} is out of range; allowed: numbers >= 0, not all 0")
    if not all(0 <= value < math.inf for value in values):
        raise ValueError(f"values {list(values)} is out of range; allowed: finite numbers >= 0")
    return np.repeat(np.asarray(values, dtype=np.float64), np.asarray(sizes))


def rotation(d: int, angle: float, rng: np.random.Generator) -> NDArray[np.float64]:
    """Q = expm(angle A / sqrt(2 d)), A = G - G' with G standard normal: each axis turns by about `angle` radians.

    The mean square of the tangent vector of a coordinate axis is angle^2 (d-1)/d, so small angles have the same meaning in
    every dimension. At angle = 0 it is the identity; no angle gives the Haar measure, for which there is `haar`.

    Args:
        d: dimension.
        angle: in radians.
        rng: G is its next d^2 standard normals.

    Returns:
        Shape (d, d), float64, orthogonal to rounding, determinant 1. Cost O(d^3) time: seconds at d = 1000.

    Raises:
        ValueError: d < 1, or an angle that is not finite.
    """
    if not math.isfinite(angle):
        raise ValueError(f"angle {angle} is out of range; allowed: a finite number")
    G = rng.standard_normal((_dimension(d), d))
    return np.asarray(scipy.linalg.expm(angle / math.sqrt(2 * d) * (G - G.T)), dtype=np.float64)


def haar(d: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """An orthogonal matrix from the Haar measure: (d, d), float64. Cost O(d^3).

    It is the Q of the QR factorisation of a Gaussian matrix, with the signs that make the diagonal of R positive (Mezzadri,
    arXiv math-ph/0609050).

    Raises:
        ValueError: d < 1.
    """
    Q, R = np.linalg.qr(rng.standard_normal((_dimension(d), d)))
    return Q * np.sign(np.diag(R))


def total(values: ArrayLike) -> float:
    """The sum of an array, exact to one rounding (Shewchuk's algorithm, in chunks). Cost: about 0.1 s per 10^6 values."""
    flattened = np.ravel(np.asarray(values, dtype=np.float64))
    parts = (flattened[i : i + _CHUNK].tolist() for i in range(0, flattened.size, _CHUNK))
    return math.fsum(itertools.chain.from_iterable(parts))


def effective_rank(s: ArrayLike) -> float:
    """Kappa = tr S / max s (DeComFL, low effective rank; HiSo Eq 15). In [1, d] for a spectrum of d values >= 0.

    Args:
        s: eigenvalues >= 0, at least one positive, shape (d,).

    Raises:
        ValueError: s is not such a vector; as in the functions below.
    """
    s = _spectrum(s)
    return total(s) / float(s.max())


def whitening_rank(s: ArrayLike, h: ArrayLike) -> float:
    """Zeta = tr H^{-1/2} S H^{-1/2} = tr H^{-1} S, for diagonals sum_j s_j/h_j (HiSo Eq 16). zeta(cH) = zeta(H)/c.

    Args:
        s: eigenvalues >= 0, shape (d,), or the symmetric S, shape (d, d).
        h: diagonal of H, positive, shape (d,) or a scalar, or the symmetric positive definite H, shape (d, d).

    Returns:
        zeta; units of s/h. Cost O(d), or O(d^3) where H is a full matrix.

    Raises:
        ValueError: shapes that do not go together, or an H that is not positive definite.
    """
    S, H = np.asarray(s, dtype=np.float64), np.asarray(h, dtype=np.float64)
    if H.ndim < 2:
        diagonal = np.diag(_square(S, "s")) if S.ndim == 2 else _spectrum(S)
        return total(diagonal / _positive(H, diagonal.shape))
    H = _square(H, "h")
    S = _square(S, "s") if S.ndim == 2 else np.diag(_spectrum(S))
    if S.shape != H.shape:
        raise ValueError(f"s and h must be of one size, got {S.shape} and {H.shape}")
    try:
        factor = scipy.linalg.cho_factor(H)
    except scipy.linalg.LinAlgError as error:
        raise ValueError("h must be positive definite") from error
    return total(np.diag(scipy.linalg.cho_solve(factor, S)))


def whitening_speed(s: ArrayLike, h: ArrayLike, active: ArrayLike | None = None) -> float:
    """Z(H) = zeta max_{active j} h_j/s_j, unchanged by H -> cH: it predicts noise-free rounds.

    At eta = P/zeta, half of the trace bound 2P/zeta on the stable step, the loss falls by a factor between exp(-P/Z) and
    exp(-2P/Z) a round in the end: Z/(2P) ln(f_0/f) rounds where the slowest modes hold little of zeta, twice as many where
    they hold all (H = S). This is the rank-one recursion of `stability` without its term A eta^2 lambda^2: it assumes
    zeta >> P max_j s_j/h_j (else the step is limited by the largest mode, not by the trace).

    Args:
        s: eigenvalues >= 0, shape (d,).
        h: diagonal of H, positive, shape (d,) or a scalar.
        active: which modes have to shrink, bool, shape (d,); by default those with s_j > 0.

    Returns:
        Z, no units.

    Raises:
        ValueError: as above; no mode is active, or an active one has s_j = 0.
    """
    s = _spectrum(s)
    h = _positive(np.asarray(h, dtype=np.float64), s.shape)
    mask = s > 0 if active is None else np.broadcast_to(np.asarray(active, dtype=bool), s.shape)
    if not mask.any() or not (s[mask] > 0).all():
        raise ValueError("active must hold at least one mode, and only modes with s > 0")
    return whitening_rank(s, h) * float((h[mask] / s[mask]).max())


def participation(v: ArrayLike) -> float:
    """N_eff = (sum_j v_j^2)^2 / sum_j v_j^4: over how many coordinates a vector is spread, in [1, d].

    Args:
        v: any vector with an entry that is not 0, such as a gradient, shape (d,).

    Raises:
        ValueError: v is not a finite vector, or is 0.
    """
    v = np.asarray(v, dtype=np.float64)
    if v.ndim != 1 or not np.all(np.isfinite(v)) or not np.any(v):
        raise ValueError(f"v must be a finite vector that is not 0, got shape {v.shape}")
    squares = np.square(v / np.abs(v).max())
    return total(squares) ** 2 / total(np.square(squares))


def _dimension(d: int) -> int:
    if d < 1:
        raise ValueError(f"dimension {d} is out of range; allowed: >= 1")
    return d


def _spectrum(s: ArrayLike) -> NDArray[np.float64]:
    s = np.asarray(s, dtype=np.float64)
    if s.ndim != 1 or not np.all(np.isfinite(s)) or np.any(s < 0) or not np.any(s > 0):
        raise ValueError(f"s must be a finite vector of eigenvalues >= 0, at least one positive; got shape {s.shape}")
    return s


def _positive(h: NDArray, shape: tuple[int, ...]) -> NDArray[np.float64]:
    if h.shape not in ((), shape) or not np.all(np.isfinite(h)) or np.any(h <= 0):
        raise ValueError(f"h must be positive, finite, a scalar or of shape {shape}; got shape {h.shape}")
    return np.broadcast_to(h, shape)


def _square(A: NDArray, name: str) -> NDArray[np.float64]:
    if A.ndim != 2 or A.shape[0] != A.shape[1] or not np.all(np.isfinite(A)):
        raise ValueError(f"{name} must be finite and square, got shape {A.shape}")
    if not np.allclose(A, A.T, rtol=1e-12, atol=1e-12 * np.max(np.abs(A))):
        raise ValueError(f"{name} must be symmetric")
    return A
