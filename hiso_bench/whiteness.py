"""What a diagonal H is worth for a Hessian, and what a vector of d numbers looks like: the measures of learned H.

H is diagonal, so HiSo's whitening rank (Eq 16) needs the diagonal of Sigma only: zeta = sum_j Sigma_jj / h_j. Where Sigma is
indefinite, the paper's footnote 3 takes absolute eigenvalues: hand in diag |Sigma|.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hiso_bench.theory import spectra


class Whitening(NamedTuple):
    """Zeta of one H, and what of it does not change under H -> c H."""

    zeta: float
    """tr H^{-1/2} Sigma H^{-1/2}; zeta(c H) = zeta(H)/c."""
    times_mean: float
    """zeta * mean(h): tr Sigma for any H that is one number, the smaller the more an H puts its large entries on curvature."""
    bound: float
    """beta_u^2 zeta / beta_l: what is left of Corollary 1's bound in the Euclidean norm, squared; L kappa for H = I."""


def whitening(diagonal: ArrayLike, h: ArrayLike) -> Whitening:
    """The three forms for a diagonal of Sigma (or |Sigma|), (d,), and H = diag(h), (d,).

    Raises:
        ValueError: not vectors of one length, not finite, or an h that is not positive.
    """
    diagonal, h = _vector(diagonal, "diagonal"), _vector(h, "h")
    if diagonal.shape != h.shape or not np.all(h > 0):
        raise ValueError(f"h must be positive and as long as the diagonal, got {h.shape} for {diagonal.shape}")
    zeta = float(np.sum(diagonal / h))
    return Whitening(zeta, zeta * float(h.mean()), float(h.max()) ** 2 * zeta / float(h.min()))


def next_round(g: ArrayLike, matrix: ArrayLike, h: ArrayLike, P: int) -> float:
    """The decrease of a quadratic model that one round with H = diag(h) gives in expectation at its own best step size.

    With C = H^{-1} and P Gaussian directions dx has E dx = C g and E dx'S dx = (1 + 1/P) g'CSCg + zeta g'Cg / P, so that
    max over eta of eta g'Cg - (eta^2/2) E dx'S dx is

        (g'Cg)^2 / (2 ((1 + 1/P) g'CSCg + zeta g'Cg / P)).

    It does not change under H -> c H, which zeta does; and unlike zeta mean(h), which is tr S for H = diag S as for a scalar, it
    tells the two apart. It looks one round ahead: while the gradient lies in steep directions, an H that slows them down loses.

    Args:
        g: gradient, (d,).
        matrix: S, symmetric and not negative, (d, d).
        h: positive, (d,).
        P: directions.

    Raises:
        ValueError: shapes that do not go together, a number that is not finite, or an h that is not positive.
    """
    g, h, matrix = _vector(g, "g"), _vector(h, "h"), np.asarray(matrix, dtype=np.float64)
    if g.shape != h.shape or matrix.shape != (len(g), len(g)) or not np.all(h > 0) or not np.isfinite(matrix).all():
        raise ValueError(f"h must be positive, and all finite and of one size: g {g.shape}, h {h.shape}, matrix {matrix.shape}")
    step = g / h
    return best_decrease(float(g @ step), float(step @ matrix @ step), float(np.sum(np.diag(matrix) / h)), P)


def best_decrease(slope: float, curved: float, zeta: float, P: int) -> float:
    """`next_round` from its parts, where the matrix is known by products alone: slope = g'Cg, curved = g'CSCg, and zeta.

    Raises:
        ValueError: parts by which the model has no best step, because it is not curved upwards along the step.
    """
    curvature = (1 + 1 / P) * curved + zeta * slope / P
    if not curvature > 0:
        raise ValueError(f"curvature along the step must be positive, got {curvature} from {curved} and zeta {zeta}")
    return slope**2 / (2 * curvature)


def off_diagonal_share(matrix: ArrayLike) -> float:
    """Frobenius norm of a square matrix off its diagonal over that of the diagonal: 0 where a diagonal H can whiten it fully.

    Raises:
        ValueError: not a square matrix of finite numbers, or a zero diagonal.
    """
    matrix = np.asarray(matrix, dtype=np.float64)
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1] or not np.isfinite(matrix).all():
        raise ValueError(f"matrix must be square and finite, got shape {matrix.shape}")
    on = np.diag(matrix)
    if not np.any(on):
        raise ValueError("matrix has a zero diagonal")
    return float(np.linalg.norm(matrix - np.diag(on)) / np.linalg.norm(on))


def spread(values: ArrayLike) -> float:
    """Over how many coordinates a diagonal is spread, (sum |s|)^2 / sum s^2, in [1, d]."""
    return spectra.participation(np.sqrt(np.abs(_vector(values, "values"))))


class Shares(NamedTuple):
    """The variance of log h over coordinates, in its parts."""

    between: float
    """Variance of the layers' means of log h, weighted by their sizes."""
    within: float
    """Mean over layers of the variance inside them, weighted by their sizes."""

    @property
    def total(self) -> float:
        """The variance of log h over all coordinates."""
        return self.between + self.within


def variance_of_log(h: ArrayLike, sizes: Sequence[int]) -> Shares:
    """Split the variance of log h, (d,), between layers of the given sizes and inside them.

    A learned H's sampling noise is part of both; a null of the same run says how large it is.

    Raises:
        ValueError: an h that is not positive and finite, or sizes that do not sum to d.
    """
    h = _vector(h, "h")
    if not np.all(h > 0) or sum(sizes) != len(h):
        raise ValueError(f"h must be positive and its length {len(h)} the sum of the layers' sizes, {sum(sizes)}")
    logs = np.log(h)
    parts = np.split(logs, np.cumsum(sizes)[:-1])
    share = np.array([len(part) for part in parts]) / len(h)
    means = np.array([part.mean() for part in parts])
    between = float(share @ (means - logs.mean()) ** 2)
    return Shares(between, float(share @ np.array([part.var() for part in parts])))


def rank_correlation(a: ArrayLike, b: ArrayLike) -> float:
    """Spearman's correlation of two vectors (d,); NaN-free: a constant vector has correlation 0 with everything.

    Raises:
        ValueError: vectors of different length, or a number that is not finite.
    """
    from scipy.stats import rankdata

    return correlation(rankdata(_vector(a, "a")), rankdata(_vector(b, "b")))


def log_correlation(a: ArrayLike, b: ArrayLike) -> float:
    """Pearson's correlation of log a and log b over the coordinates where both are positive (rounding's zeros left out)."""
    a, b = _vector(a, "a"), _vector(b, "b")
    both = (a > 0) & (b > 0)
    return correlation(np.log(a[both]), np.log(b[both])) if both.sum() > 1 else 0.0


def correlation(a: NDArray, b: NDArray) -> float:
    """Pearson's correlation; 0 where a vector is constant."""
    if a.shape != b.shape:
        raise ValueError(f"vectors of one length are needed, got {a.shape} and {b.shape}")
    a, b = a - a.mean(), b - b.mean()
    size = math.sqrt(float(a @ a) * float(b @ b))
    return float(a @ b) / size if size > 0 else 0.0


def _vector(values: ArrayLike, name: str) -> NDArray[np.float64]:
    values = np.asarray(values, dtype=np.float64)
    if values.ndim != 1 or not len(values) or not np.isfinite(values).all():
        raise ValueError(f"{name} must be a vector of finite numbers, got shape {values.shape}")
    return values
