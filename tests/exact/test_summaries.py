"""Numbers of comparisons, on curves whose answers can be counted by hand."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from hiso_bench.summaries import at_bytes, curves, least_bytes, paired, rounds_to_best, rounds_to_best_by_key

NAN = np.nan


def table(**arms):
    """arm -> (bytes a round, rows of values at rounds 0, 25, 50, ... per key); a NaN ends the run."""
    rows = []
    for arm, (rate, values) in arms.items():
        for key, row in enumerate(values, 1):
            rows += [
                (arm, key, 25 * i, 10 * rate * i, 15 * rate * i, "accuracy", v) for i, v in enumerate(row) if not np.isnan(v)
            ]
    return pd.DataFrame(rows, columns=["arm", "key", "round", "bytes_up", "bytes_down", "metric", "value"])


SLOW = (1, [[0.5, 0.6, 0.7, 0.8, 0.8], [0.5, 0.5, 0.6, 0.7, 0.6]])
FAST = (1, [[0.5, 0.8, 0.7, 0.7, 0.9], [0.5, 0.7, 0.7, 0.7, 0.7]])


def test_rounds_to_the_other_arms_best_mean_both_ways_and_censored():
    both = curves(table(slow=SLOW, fast=FAST), "accuracy", ["slow", "fast"])
    assert np.array_equal(both.rounds, [0, 25, 50, 75, 100]) and both.keys == (1, 2)
    there = rounds_to_best(both, "fast", "slow")
    assert there[:3] == (pytest.approx(0.75), 75, 25) and there.speedup == 3
    back = rounds_to_best(both, "slow", "fast")
    assert back == (pytest.approx(0.8), 100, None, 100) and np.isnan(back.speedup) and back.speedup_at_most == 1
    assert [r.round for r in rounds_to_best_by_key(both, "fast", "slow")] == [25, 25]
    assert [r.round for r in rounds_to_best_by_key(both, "slow", "fast")] == [None, 75]


def test_a_target_that_a_run_starts_with_is_reached_at_once_and_is_no_speedup():
    both = curves(table(a=(1, [[0.5, 0.4]]), b=(1, [[0.5, 0.6]])), "accuracy", ["a", "b"])
    reached = rounds_to_best(both, "b", "a")
    assert reached.round == 0 and reached.other_round == 0 and np.isnan(reached.speedup)


def test_less_is_better_changes_the_sign_of_a_loss():
    loss = curves(table(a=(1, [[0.9, 0.4]]), b=(1, [[0.9, 0.3]])), "accuracy", ["a", "b"], higher_is_better=False)
    assert rounds_to_best(loss, "b", "a")[:3] == (-0.4, 25, 25)


def test_values_at_equal_bytes_are_those_of_the_last_evaluation_within_the_budget():
    both = curves(table(cheap=SLOW, dear=(2, FAST[1])), "accuracy", ["cheap", "dear"])
    assert least_bytes(both) == 4 * 25
    assert np.array_equal(at_bytes(both, "cheap", 100), [0.8, 0.6])
    assert np.array_equal(at_bytes(both, "dear", 100), [0.7, 0.7])
    assert np.array_equal(at_bytes(both, "dear", 99), [0.8, 0.7])
    assert np.array_equal(at_bytes(both, "cheap", 0), [0.5, 0.5])


def test_a_run_that_diverged_has_no_value_after_its_end_and_reaches_nothing_there():
    broken = (1, [[0.5, 0.9, NAN, NAN, NAN], [0.5, 0.6, 0.7, 0.8, 0.8]])
    both = curves(table(broken=broken, slow=SLOW), "accuracy", ["broken", "slow"])
    assert np.array_equal(at_bytes(both, "broken", 100), [NAN, 0.8], equal_nan=True)
    assert at_bytes(both, "broken", 0)[0] == 0.5
    assert rounds_to_best(both, "broken", "slow").round == 25  # both keys are there at round 25, with 0.75 in the mean
    assert rounds_to_best(both, "slow", "broken").other_round == 25
    assert least_bytes(both) == 100
    found = paired(at_bytes(both, "broken", 100), at_bytes(both, "slow", 100))
    assert found.keys == 1 and found.interval == (pytest.approx(0.2), -np.inf, np.inf) and not found.apart


def test_paired_differences_have_students_interval_and_are_told_apart_at_99_9_percent_only():
    first, second = np.array([0.8, 0.7, 0.9, 0.8, 0.85]), np.array([0.7, 0.62, 0.78, 0.69, 0.75])
    found = paired(first, second)
    low, high = stats.t.interval(0.95, 4, (first - second).mean(), stats.sem(first - second))
    assert found.interval == pytest.approx(((first - second).mean(), low, high)) and found.apart
    wider = paired(first, second - np.array([0, 0.1, 0, 0.05, 0]))
    assert wider.interval.low > 0 and not wider.apart
    with pytest.raises(ValueError, match="no key"):
        paired(np.array([NAN, 1.0]), np.array([1.0, NAN]))


def test_an_arm_without_the_metric_is_named():
    with pytest.raises(ValueError, match="arm 'c' has no 'accuracy'; arms with it: a"):
        curves(table(a=SLOW), "accuracy", ["a", "c"])
