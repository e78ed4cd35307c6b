"""Intervals cover what they say, and refuse what they cannot tell."""

import numpy as np
import pytest
from scipy import stats as reference

from hiso_bench import keys
from hiso_bench.stats import Interval, exact, exponent, mean_interval, median_interval, proportion, span

DRAW = keys.rng(keys.derive(0, "stats"))


def test_mean_interval_is_students():
    samples = DRAW.standard_normal(40)
    value, low, high = mean_interval(samples, 0.95)
    expected = reference.t.interval(0.95, 39, samples.mean(), reference.sem(samples))
    assert value == samples.mean() and (low, high) == pytest.approx(expected)


@pytest.mark.parametrize("n", [11, 30, 101])
def test_median_interval_covers_at_least_its_level_and_no_more_than_it_must(n):
    _, low, high = median_interval(np.arange(n))
    below = int(low)  # samples under the interval: it misses where at most `below` of n lie under the true median
    assert high == n - 1 - below
    assert 2 * reference.binom.cdf(below, n, 0.5) <= 0.001 < 2 * reference.binom.cdf(below + 1, n, 0.5)


def test_median_interval_refuses_too_few():
    with pytest.raises(ValueError, match="needs more than 10 samples"):
        median_interval(np.arange(10))


def test_proportion_is_clopper_pearson():
    value, low, high = proportion(3, 20, 0.95)
    assert value == 0.15
    assert (low, high) == pytest.approx((reference.beta.ppf(0.025, 3, 18), reference.beta.ppf(0.975, 4, 17)))


def test_exponent_finds_a_power():
    x = np.array([1.0, 3.0, 10.0])
    assert exponent(x, 7 * x**-0.5) == pytest.approx(-0.5, abs=1e-14)


def test_exact_and_span():
    assert exact(2) == Interval(2.0, 2.0, 2.0)
    assert span([3, 1, 2]) == Interval(2.0, 1.0, 3.0)


@pytest.mark.parametrize(
    "call",
    [lambda: mean_interval([1.0]), lambda: mean_interval([1.0, np.nan]), lambda: median_interval([np.nan] * 20),
     lambda: proportion(3, 2), lambda: exponent([1, 2], [0, 1]), lambda: span([])],
)  # fmt: skip
def test_what_no_interval_can_be_given_for_is_an_error(call):
    with pytest.raises(ValueError):
        call()
