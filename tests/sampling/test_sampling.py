"""Tests of what is truly random: fixed keys, stated false-alarm rates, no retries, and a planted bug for each."""

import pytest

import tests.sampling.recursion  # noqa: F401 - registers its tests
from hiso_bench import keys
from tests.sampling.registry import BUDGET, POWER, TESTS, SamplingTest, Twin, register

KEY = 20250606


@pytest.mark.parametrize("name", TESTS)
def test_what_is_drawn_is_what_theory_says(name):
    assert TESTS[name].statistic(keys.derive(KEY, name)) >= TESTS[name].alpha


@pytest.mark.parametrize("name", TESTS)
def test_a_planted_bug_is_seen(name):
    twin = TESTS[name].planted(keys.derive(KEY, name))
    assert twin.power >= POWER
    assert twin.p < TESTS[name].alpha


def test_the_suite_raises_a_false_alarm_once_in_ten_thousand_runs():
    assert sum(test.alpha for test in TESTS.values()) <= BUDGET == 1e-4


def test_the_registry_refuses_what_is_too_much():
    name, *_ = TESTS
    known, nothing = TESTS[name], (lambda key: 1.0, lambda key: Twin(0.0, 1.0))
    with pytest.raises(ValueError, match="already"):
        register(known)
    with pytest.raises(ValueError, match="too much"):
        register(SamplingTest("greedy", BUDGET, "none", *nothing))
    with pytest.raises(ValueError, match="alpha 0"):
        register(SamplingTest("blind", 0, "none", *nothing))
    assert "greedy" not in TESTS and "blind" not in TESTS
