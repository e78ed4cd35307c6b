"""Intervals: a number and how far it can be trusted, at 99.9 % unless it says otherwise.

Sixty claims at 95 % would give three verdicts by luck. scipy.stats, which every command would pay for, is loaded when it is
first used.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import scipy
from numpy.typing import ArrayLike

LEVEL = 0.999


class Interval(NamedTuple):
    """A measured number with its confidence interval, in the units of the number."""

    value: float
    low: float
    high: float


def exact(value: float) -> Interval:
    """The interval of a number that was computed, not sampled: zero width."""
    return Interval(float(value), float(value), float(value))


def span(values: ArrayLike) -> Interval:
    """The median of computed numbers that must all obey the same statement, and their smallest and largest.

    Raises:
        ValueError: no values, or one that is not finite.
    """
    values = _finite(values, 1)
    return Interval(float(np.median(values)), float(values.min()), float(values.max()))


def mean_interval(samples: ArrayLike, level: float = LEVEL) -> Interval:
    """Student's t interval of the mean of independent samples, near normal or many.

    Args:
        samples: shape (n,), n >= 2. Paired comparisons pass the differences.
        level: confidence level.

    Raises:
        ValueError: fewer than two samples, or one that is not finite.
    """
    samples = _finite(samples, 2)
    middle = float(samples.mean())
    reach = float(scipy.stats.t.ppf((1 + level) / 2, len(samples) - 1) * samples.std(ddof=1) / np.sqrt(len(samples)))
    return Interval(middle, middle - reach, middle + reach)


def median_interval(samples: ArrayLike, level: float = LEVEL) -> Interval:
    """Interval of the median from order statistics: right for every continuous distribution, heavy tails included.

    Args:
        samples: shape (n,); at 99.9 % at least 11 of them.
        level: confidence level.

    Raises:
        ValueError: too few samples for the level, or one that is NaN.
    """
    samples = np.sort(np.asarray(samples, dtype=np.float64).ravel())
    if np.isnan(samples).any():
        raise ValueError("a sample is NaN")
    below = int(scipy.stats.binom.ppf((1 - level) / 2, len(samples), 0.5)) if len(samples) else 0
    if below < 1:
        raise ValueError(f"the {level} interval of a median needs more than {len(samples)} samples")
    # P(fewer than `below` samples under the median) <= (1 - level) / 2, and so from above.
    return Interval(float(np.median(samples)), float(samples[below - 1]), float(samples[-below]))


def proportion(hits: int, n: int, level: float = LEVEL) -> Interval:
    """Clopper and Pearson's interval of a proportion: never covers less than its level.

    Raises:
        ValueError: n < 1 or hits outside 0..n.
    """
    if n < 1 or not 0 <= hits <= n:
        raise ValueError(f"hits must lie in 0..n with n >= 1, got {hits} of {n}")
    low, high = scipy.stats.binomtest(int(hits), int(n)).proportion_ci(level, method="exact")
    return Interval(hits / n, float(low), float(high))


def exponent(x: ArrayLike, y: ArrayLike) -> float:
    """The power of y ~ x^p: the least-squares slope of log y against log x.

    Args:
        x: positive, shape (n,), at least two different values.
        y: positive, shape (n,).

    Raises:
        ValueError: fewer than two points, or a value that is not positive and finite.
    """
    x, y = _finite(x, 2), _finite(y, 2)
    if np.any(x <= 0) or np.any(y <= 0) or len(x) != len(y):
        raise ValueError("an exponent needs as many x as y, all positive")
    return float(np.polyfit(np.log(x), np.log(y), 1)[0])


def _finite(values: ArrayLike, least: int) -> np.ndarray:
    values = np.asarray(values, dtype=np.float64).ravel()
    if len(values) < least:
        raise ValueError(f"needs at least {least} values, got {len(values)}")
    if not np.isfinite(values).all():
        raise ValueError("a value is not finite")
    return values
