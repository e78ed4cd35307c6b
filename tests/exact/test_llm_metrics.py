"""Metrics of examples are those of the published scripts, and intervals say what a test set of that size can say."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import f1_score

from hiso_bench import keys
from hiso_bench.stats import proportion
from llm import metrics

# SQuAD


@pytest.mark.parametrize(
    ("text", "normal"),
    [
        ("The Eiffel Tower!", "eiffel tower"),
        ("  an   apple,\ta  day ", "apple day"),
        ("U.S.A.", "usa"),
        ("Theatre and anthem", "theatre and anthem"),  # articles are whole words
        ("A.", ""),
        ("Beyoncé's", "beyoncés"),
        ("« 12 »", "« 12 »"),  # only ASCII punctuation goes
        ("the-end", "theend"),  # punctuation goes before articles
    ],
)
def test_normal_forms(text, normal):
    assert metrics.normalise(text) == normal


@pytest.mark.parametrize(
    ("prediction", "references", "exact", "f1"),
    [
        ("Denver Broncos", ["Denver Broncos", "Denver Broncos", "Denver Broncos"], 1, 1),
        ("the denver broncos.", ["Denver Broncos"], 1, 1),
        ("Broncos", ["Denver Broncos"], 0, 2 / 3),
        ("Santa Clara, California", ["Levi's Stadium", "Levi's Stadium in the San Francisco Bay Area at Santa Clara"], 0, 4 / 13),
        ("gold gold", ["gold"], 0, 2 / 3),  # words count as often as they occur
        ("gold", ["golden"], 0, 0),
        ("", ["gold"], 0, 0),
        ("the", ["a", "gold"], 1, 1),
        ("1976", ["1976"], 1, 1),
    ],
)
def test_squad_examples(prediction, references, exact, f1):
    assert metrics.exact_match(prediction, references) == exact
    assert math.isclose(metrics.f1(prediction, references), f1, rel_tol=1e-15)


texts = st.lists(st.sampled_from(["a", "The", "gold", "Gold.", "medal", "12", "!"]), max_size=5).map(" ".join)


@given(texts, st.lists(texts, min_size=1, max_size=3))
def test_f1_lies_between_exact_match_and_one_and_more_references_never_hurt(prediction, references):
    f1, exact = metrics.f1(prediction, references), metrics.exact_match(prediction, references)
    assert exact <= f1 <= 1
    assert f1 == max(metrics.f1(prediction, [reference]) for reference in references)
    assert metrics.f1(prediction, references[:1]) == metrics.f1(references[0], [prediction])


# Confusion counts


@pytest.mark.parametrize("classes", [2, 3, 5])
def test_f1_of_counts_is_that_of_scikit_learn(classes):
    draw = keys.rng(classes)
    labels, predictions = draw.integers(0, classes, (2, 60))
    counts = metrics.confusion(labels, predictions, classes)
    assert counts.sum() == 60
    assert math.isclose(metrics.macro_f1(counts), f1_score(labels, predictions, average="macro"), rel_tol=1e-12)
    assert math.isclose(metrics.positive_f1(counts), f1_score(labels == 1, predictions == 1), rel_tol=1e-12)


def test_three_classes_are_three_classes():
    """A third class scored as the first would make this 1."""
    labels, predictions = np.array([0, 1, 2, 2]), np.array([0, 1, 0, 0])
    assert math.isclose(metrics.macro_f1(metrics.confusion(labels, predictions, 3)), (0.5 + 1 + 0) / 3)


def test_no_prediction_is_wrong_for_every_class():
    labels = np.array([0, 1, 1])
    counts = metrics.confusion(labels, np.array([0, 1, -1]), 2)
    assert counts.tolist() == [[1, 0, 0], [0, 1, 1]]
    assert math.isclose(metrics.positive_f1(counts), 2 / 3)


def test_a_class_that_never_comes_up_is_left_out_of_the_mean():
    counts = metrics.confusion(np.array([0, 1]), np.array([0, 0]), 3)
    assert math.isclose(metrics.macro_f1(counts), (2 / 3 + 0) / 2)
    assert metrics.positive_f1(metrics.confusion(np.array([0]), np.array([0]), 2)) == 0


# Intervals


def scores(size, key=0):
    draw = keys.rng(key)
    return np.round(draw.random(size), 1) * (draw.random(size) < 0.7)


def test_the_interval_of_a_mean_is_near_the_normal_one_where_there_are_many_examples():
    values = scores(1000)
    interval = metrics.mean_interval(values)
    reach = 3.2905 * values.std() / math.sqrt(1000)
    assert math.isclose(interval.value, values.mean(), rel_tol=1e-12)
    # The third moment moves an end by about 2 % of the reach.
    assert math.isclose(interval.value - interval.low, reach, rel_tol=0.05)
    assert math.isclose(interval.high - interval.value, reach, rel_tol=0.05)


def test_the_interval_of_a_mean_is_that_of_all_resamplings_enumerated():
    values = np.array([0.0, 0.25, 0.25, 1.0, 0.5])
    sums = np.sort([sum(chosen) for chosen in itertools.product(values, repeat=5)]) / 5
    for level in (0.999, 0.9, 0.5):
        interval = metrics.mean_interval(values, level)
        for end, share in ((interval.low, (1 - level) / 2), (interval.high, (1 + level) / 2)):
            assert math.isclose(end, np.quantile(sums, share, method="inverted_cdf"), abs_tol=1e-12)


def test_scores_off_the_grid_and_in_any_order_have_the_interval_of_a_resampling_by_hand():
    draw = keys.rng(1)
    values = draw.random(3000) ** 3
    interval = metrics.mean_interval(values, 0.9)
    by_hand = draw.choice(values, (4000, 3000)).mean(1)
    # 4,000 resamples of spread 0.005 know their 5 % quantile to about 0.0002.
    assert np.allclose((interval.low, interval.high), np.quantile(by_hand, [0.05, 0.95]), atol=1e-3)
    again = metrics.mean_interval(values[::-1], 0.9)
    assert np.allclose(again, interval, rtol=1e-12)


def test_an_interval_at_a_lower_level_is_inside():
    wide, narrow = (metrics.mean_interval(scores(50), level=level) for level in (0.999, 0.9))
    assert wide.low < narrow.low < narrow.value == wide.value < narrow.high < wide.high


@pytest.mark.parametrize("value", [0.0, 0.5, 1.0])
def test_equal_scores_are_not_certainty(value):
    """Twenty equal scores leave room for what a share of the population, as large as the level allows, may score instead."""
    interval = metrics.mean_interval(np.full(20, value))
    missed = 1 - proportion(20, 20).low
    assert math.isclose(interval.low, value * (1 - missed), abs_tol=1e-12)
    assert math.isclose(interval.high, value * (1 - missed) + missed, abs_tol=1e-12)


def test_no_error_on_few_examples_is_not_certainty_either():
    counts = np.diag([23, 28, 5, 0])[:3]
    interval = metrics.bootstrap(counts, metrics.macro_f1)
    assert interval.value == interval.high == 1
    # The worst that may be hidden: examples of the smaller big class taken for the rare one.
    share = 1 - proportion(56, 56).low
    right = [2 * n * (1 - share) for n in (23, 28, 5)]
    low = (right[0] / (right[0] + 56 * share) + 1 + right[2] / (right[2] + 56 * share)) / 3
    assert math.isclose(interval.low, low, rel_tol=1e-12)


def test_the_interval_of_the_positive_f1_is_that_of_a_resampling_by_hand():
    draw = keys.rng(5)
    labels = draw.integers(0, 2, 80)
    predictions = np.where(draw.random(80) < 0.8, labels, 1 - labels)
    interval = metrics.bootstrap(metrics.confusion(labels, predictions, 2), metrics.positive_f1, level=0.9)
    chosen = draw.integers(0, 80, (4000, 80))
    both = (labels & predictions)[chosen].sum(1)
    by_hand = 2 * both / (labels[chosen].sum(1) + predictions[chosen].sum(1))
    low, high = np.quantile(by_hand, [0.05, 0.95])
    # 4,000 resamples of spread 0.04 know their 5 % quantile to about 0.001.
    assert abs(interval.low - low) < 0.01
    assert abs(interval.high - high) < 0.01


def test_no_examples_have_no_interval():
    with pytest.raises(ValueError, match="examples 0"):
        metrics.bootstrap(np.zeros((2, 3), dtype=np.int64), metrics.macro_f1)
