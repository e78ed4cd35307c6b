"""The expected loss of zeroth-order least squares on fresh minibatches, exactly, round by round.

Examples a ~ N(0, diag(s)) with labels y = a'x* + N(0, label); a batch holds B of them, its loss is the mean of (a'x - y)^2 / 2.
The excess loss is f = 1/2 sum_j s_j (x - x*)_j^2, its Hessian diag(s), and by Isserlis a batch's gradient g has

    E g g' = (1 + 1/B) S e e' S + (1/B) (2 f + label) S,      e = x - x*, S = diag(s):

minibatch noise is V = (2 f + label)/B S plus a rank-one part, in proportion to the Hessian. The diagonal of E e e' closes as
in `recursion`: with b_i = s_i E e_i^2, lambda = s/h and A = 1 + 1/P (Gaussian directions, mu = 0 or central differences),

    b+ = (1 - 2 eta lambda + A' eta^2 lambda^2) b + eta^2 (1 + 1/B)/P lambda (lambda.b)
         + eta^2/B (sum_j b_j + label) (A lambda^2 + lambda T/P),

A' = A (1 + 1/B), T = sum lambda, E f = 1/2 sum b. A mean over m clients with batches of their own is a batch of m B.
"""

from collections.abc import Iterator

import numpy as np
from numpy.typing import ArrayLike, NDArray

_RATES = 25


def expected_loss(
    s: ArrayLike, h: ArrayLike, x0: ArrayLike, eta: float, P: int, rounds: int, batch: int, label: float = 0.0
) -> NDArray[np.float64]:
    """E f, the excess loss, at rounds 0..R.

    Args:
        s: eigenvalues of the features' covariance, >= 0, shape (d,).
        h: diagonal of H, positive, shape (d,) or a scalar.
        x0: the start's distance from x*, shape (d,).
        eta: learning rate.
        P: directions per round.
        rounds: R >= 0.
        batch: B, examples per round.
        label: variance of the labels' noise.

    Returns:
        Shape (rounds + 1,), float64. Cost O(rounds d).

    Raises:
        ValueError: shapes that differ, h <= 0, or P, batch, rounds or label out of range.
    """
    losses = _losses(s, h, x0, np.array([float(eta)]), P, batch, label)
    if rounds < 0:
        raise ValueError(f"rounds must not be negative, got {rounds}")
    return np.array([next(losses)[0] for _ in range(rounds + 1)])


def fewest_rounds(
    s: ArrayLike, h: ArrayLike, x0: ArrayLike, P: int, batch: int, label: float, target: float, most: int = 20_000
) -> tuple[float, float]:
    """The constant learning rate that brings E f to target f(x0) in the fewest rounds, and those rounds (interpolated).

    A grid of rates goes on together until the first is there, then a finer grid around it: the rounds are right to 0.1 %.

    Args:
        s: as in `expected_loss`, and so are h, x0, P, batch and label.
        h: diagonal of H.
        x0: the start's distance from x*.
        P: directions per round.
        batch: B.
        label: variance of the labels' noise.
        target: in (0, 1).
        most: rounds after which the search ends.

    Raises:
        ValueError: as `expected_loss`; a target outside (0, 1); no rate reaches it within `most` rounds.
    """
    if not 0 < target < 1:
        raise ValueError(f"target {target} is out of range; allowed: 0 < target < 1")
    lam = np.asarray(s, dtype=np.float64) / np.asarray(h, dtype=np.float64)
    top = 2 * P / np.sum(lam)  # the stable range ends below this trace bound
    rates = top * np.geomspace(1e-3, 1, 4 * _RATES)
    found = (np.nan, np.inf)
    for _ in range(2):
        curve = _losses(s, h, x0, rates, P, batch, label)
        start = next(curve)
        share, before, r = start / start, start / start, 0
        while not np.any(share <= target):
            if (r := r + 1) > most:
                raise ValueError(f"no learning rate reaches {target} within {most} rounds")
            share, before = next(curve) / start, share
        there = np.flatnonzero(share <= target)
        part = np.log(before[there] / target) / np.log(before[there] / share[there])
        best = int(np.argmin(part))
        found = float(rates[there[best]]), float(r - 1 + part[best])
        ratio = (rates[1] / rates[0]) ** 2
        rates = found[0] * np.geomspace(1 / ratio, ratio, _RATES)
    return found


def _losses(
    s: ArrayLike, h: ArrayLike, x0: ArrayLike, eta: NDArray, P: int, batch: int, label: float
) -> Iterator[NDArray[np.float64]]:
    """E f for every rate, shape (e,), at rounds 0, 1, ...; infinite or NaN where it diverged."""
    s, x0 = np.asarray(s, dtype=np.float64), np.asarray(x0, dtype=np.float64)
    h = np.broadcast_to(np.asarray(h, dtype=np.float64), s.shape)
    if s.ndim != 1 or x0.shape != s.shape or not np.all(np.isfinite(s)) or np.any(s < 0):
        raise ValueError(f"s must be a finite vector >= 0 and x0 of its shape, got {s.shape} and {x0.shape}")
    if not np.all(np.isfinite(h)) or np.any(h <= 0):
        raise ValueError("h must be positive and finite")
    if P < 1 or batch < 1 or not (np.isfinite(label) and label >= 0):
        raise ValueError(f"need P >= 1, batch >= 1 and a finite label variance >= 0, got {P}, {batch}, {label}")
    lam, step = s / h, eta[:, None]
    A, fresh = 1 + 1 / P, 1 + 1 / batch
    stay = 1 - 2 * step * lam + A * fresh * step**2 * lam**2
    shared = step**2 * fresh / P * lam
    noisy = step**2 / batch * (A * lam**2 + lam * np.sum(lam) / P)

    def advance() -> Iterator[NDArray[np.float64]]:
        b = np.broadcast_to(s * x0**2, stay.shape)
        with np.errstate(over="ignore", invalid="ignore"):
            while True:
                total = b.sum(axis=1, keepdims=True)
                yield total[:, 0] / 2
                b = stay * b + shared * (b @ lam)[:, None] + noisy * (total + label)

    return advance()
