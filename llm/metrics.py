"""Metrics of single examples, metrics of confusion counts, and how far a test set's size lets them be trusted."""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np
import scipy
from numpy.typing import NDArray

from hiso_bench import keys
from hiso_bench.methods.base import require
from hiso_bench.stats import LEVEL, Interval, proportion

RESAMPLES = 20_000
"""At the 99.9 % level, ten resamples lie beyond each end."""
_GRID_POINTS = 1 << 18
_ARTICLES = re.compile(r"\b(a|an|the)\b")
_PUNCTUATION = str.maketrans("", "", string.punctuation)
Floats = NDArray[np.float64]
Counts = NDArray[np.int64] | Floats
Statistic = Callable[[Counts], Floats]


def normalise(text: str) -> str:
    """SQuAD's normal form of an answer: lower case, then without ASCII punctuation, articles and extra white space."""
    return " ".join(_ARTICLES.sub(" ", text.lower().translate(_PUNCTUATION)).split())


def exact_match(prediction: str, references: Sequence[str]) -> float:
    """1 if the prediction has the normal form of one of the references, else 0 (Rajpurkar et al. 2016, arXiv 1606.05250)."""
    return float(any(normalise(prediction) == normalise(reference) for reference in references))


def f1(prediction: str, references: Sequence[str]) -> float:
    """The best F1 of the bag of words of the prediction against those of the references, in 0..1.

    Where a side has no word left after normalisation: 1 if both have none, else 0, as in SQuAD's evaluation script 2.0. F1 is
    then never below exact match.
    """
    return max(_bag_f1(normalise(prediction).split(), normalise(reference).split()) for reference in references)


def _bag_f1(prediction: list[str], reference: list[str]) -> float:
    if not prediction or not reference:
        return float(prediction == reference)
    common = sum((Counter(prediction) & Counter(reference)).values())
    return 2 * common / (len(prediction) + len(reference))


def confusion(labels: NDArray[np.int64], predictions: NDArray[np.int64], classes: int) -> NDArray[np.int64]:
    """Counts (C, C + 1): row is the label, column the prediction; the last column is for none (-1)."""
    counts = np.zeros((classes, classes + 1), dtype=np.int64)
    np.add.at(counts, (labels, predictions), 1)
    return counts


def class_f1(counts: Counts) -> Floats:
    """F1 of each class, (..., C), of confusion counts (..., C, C + 1); NaN for a class that neither occurs nor is predicted."""
    hits = np.diagonal(counts, axis1=-2, axis2=-1).astype(float)
    total = counts.sum(-1) + counts[..., :-1].sum(-2)
    return np.divide(2 * hits, total, out=np.full(hits.shape, np.nan), where=total > 0)


def macro_f1(counts: Counts) -> Floats:
    """The mean over the classes that occur or are predicted of their F1 (SuperGLUE's second metric for CB)."""
    return np.nanmean(class_f1(counts), axis=-1)


def positive_f1(counts: Counts) -> Floats:
    """F1 of class 1, 0 where it neither occurs nor is predicted (GLUE's for QQP; F1a of MultiRC)."""
    return np.nan_to_num(class_f1(counts)[..., 1])


def bootstrap(counts: Counts, statistic: Statistic, key: int = 0, level: float = LEVEL) -> Interval:
    """Percentile interval of a statistic over resampled test sets (Efron 1979).

    A test set of N examples is a draw of N outcomes; counts of the outcomes are all that the statistic sees, so resampling is one
    multinomial draw. Where no resample changes the statistic (say, all outcomes are equal), the ends are what it could be if a
    share q of the population had an outcome that all N examples missed: 1 - q is the lower end of the exact interval of N in N.

    Args:
        counts: how often each outcome occurs, any shape; outcomes that could have occurred are there too, with 0.
        statistic: counts (B, *counts.shape) -> (B,).
        key: of the resamples.
        level: confidence level.

    Raises:
        ValueError: no example.
    """
    n = int(counts.sum())
    require(n >= 1, "examples", n, "at least one")
    value = float(statistic(counts[None])[0])
    draws = keys.rng(keys.derive(key, "bootstrap")).multinomial(n, counts.ravel() / n, size=RESAMPLES)
    values = statistic(draws.reshape(-1, *counts.shape))
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
    if low == high:
        known = proportion(n, n, level).low
        # Each outcome in turn.
        other = np.eye(counts.size).reshape(-1, *counts.shape)
        possible = statistic(known * counts + (1 - known) * n * other)
        low, high = min(value, possible.min()), max(value, possible.max())
    return Interval(value, float(low), float(high))


def mean_interval(values: Floats, level: float = LEVEL) -> Interval:
    """The bootstrap's interval of the mean of per-example scores in 0..1, of all resampled test sets instead of some.

    The sum over a resampled test set is distributed as the N-fold convolution of the scores' own distribution, which is a power
    of its Fourier transform. Scores are rounded to a grid of at least 1 / 64, far below the interval's width; where all of them
    are equal, the ends are those of `bootstrap`.

    Raises:
        ValueError: no example.

    Cost: two Fourier transforms of 64 numbers per example, or of 260,000 where these are fewer than 4,000.
    """
    n = len(values)
    require(n >= 1, "examples", n, "at least one")
    value = float(values.mean())
    if values.min() == values.max():
        known = proportion(n, n, level).low
        return Interval(value, known * value, known * value + 1 - known)
    grid = int(np.clip(_GRID_POINTS // n, 64, 1024))
    steps = np.rint(values * grid).astype(np.int64)
    size = scipy.fft.next_fast_len(n * grid + 1, real=True)
    law = scipy.fft.irfft(scipy.fft.rfft(np.bincount(steps, minlength=grid + 1) / n, size) ** n, size)
    low, high = np.searchsorted(np.cumsum(law), [(1 - level) / 2, (1 + level) / 2]) / (n * grid)
    rounded = value - steps.mean() / grid
    return Interval(value, float(low + rounded), float(high + rounded))
