"""What the fair-speed claims rest on: Table 2's rule, federations that differ in one thing, paired tables."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from claims.fair_speed import detectable
from hiso_bench import records
from hiso_bench.stats import mean_interval
from hiso_bench.summaries import Curves
from learned_h import ablation, fair_speed, federation_size
from learned_h.pairs import LAST, MEAN, Pair, pairs


def _curves(**values):
    rows = {arm: np.array(v, dtype=float) for arm, v in values.items()}
    some = next(iter(rows.values()))
    return Curves(tuple(range(len(some))), 25 * np.arange(some.shape[1]), rows, {})


def test_table_2s_rule_and_the_same_both_ways_on_curves_made_by_hand():
    of = _curves(a=[[0, 5, 6, 9], [0, 1, 2, 3]], b=[[0, 3, 5, 5], [0, 2, 4, 4]])
    # Key 0: b has its best, 5, in round 50, and a has 5 in round 25. Key 1: a never has 4.
    np.testing.assert_allclose(fair_speed.one_way(of, "a", "b"), [np.log(2), np.nan])
    # Back: b never has 9 (75 of 75), and has 3 in round 50, a in 75. Where one does not get there the budget counts.
    np.testing.assert_allclose(
        fair_speed.both_ways(of, "a", "b"), [(np.log(2) - np.log(1)) / 2, (np.log(50 / 75) - np.log(75 / 50)) / 2]
    )
    np.testing.assert_allclose(fair_speed.both_ways(of, "b", "a"), -fair_speed.both_ways(of, "a", "b"))
    np.testing.assert_allclose(fair_speed.to_thresholds(of, "a", "b", [3]), [[0.0, np.log(50 / 75)]])


def test_a_run_stops_where_its_best_has_not_risen_for_the_patience():
    of = _curves(a=[[1, 2, 2, 2, 3, 3, 3], [1, 2, 3, 4, 5, 6, 7], [1, 1, 1, 2, 3, 4, 5]])
    np.testing.assert_array_equal(fair_speed.stops(of, "a", 50), [75, 150, 50])  # key 1 rises to the end of the budget
    np.testing.assert_array_equal(fair_speed.stops(of, "a", 75), [150, 150, 150])
    np.testing.assert_array_equal(fair_speed.stops(of, "a", 25), [50, 150, 25])


def test_arms_that_differ_by_nothing_are_equal_both_ways_whatever_one_way_says():
    rng = np.random.Generator(np.random.Philox(3))
    # Keys have luck: some are faster than others. Whoever reaches the other's best is the faster one.
    values = 1 - np.exp(-np.arange(32) / (8 * np.exp(0.2 * rng.standard_normal((24, 1)))))
    null = fair_speed.between_keys(_curves(a=values), "a")
    assert null.both_ways.low < 0 < null.both_ways.high < 0.3
    assert null.one_way.low > 0.05 and null.reached == 0.5
    # The same curve twelve times: nothing to choose from, and nothing comes out.
    same = fair_speed.between_keys(_curves(a=np.repeat(values[:1], 12, axis=0)), "a")
    assert same.one_way == (0, 0, 0) and same.reached == 1


def test_the_jackknife_deletes_a_key_with_all_its_pairs():
    rng = np.random.Generator(np.random.Philox(4))
    values = 1 - np.exp(-np.arange(20) / (6 * np.exp(0.3 * rng.standard_normal((5, 1)))))

    def mean(keys):
        pairs = [_curves(a=values[[i]], b=values[[j]]) for i in keys for j in keys if i != j]
        return np.nanmean([fair_speed.one_way(pair, "a", "b")[0] for pair in pairs])

    every = range(5)
    pseudo = [5 * mean(every) - 4 * mean([i for i in every if i != k]) for k in every]
    np.testing.assert_allclose(fair_speed.between_keys(_curves(a=values), "a").one_way, mean_interval(pseudo), rtol=1e-9)


@pytest.fixture(scope="module")
def few():
    return replace(federation_size.quadratic(6, 6), rounds=20)


def test_with_every_client_sampled_linear_terms_change_nothing(few):
    alike = replace(federation_size.quadratic(6, 6, heterogeneity=0.0), rounds=20)
    one, other = (ablation.run(c, c.arms[0], 0.3, (3,), 1, 20, stop=False).excess for c in (few, alike))
    np.testing.assert_allclose(one, other, rtol=1e-9)
    noisy = replace(federation_size.quadratic(6, 2), rounds=20)
    assert np.abs(ablation.run(noisy, noisy.arms[0], 0.3, (3,), 1, 20, stop=False).excess / other - 1).max() > 0.01


def test_looking_less_often_changes_the_resolution_alone(few):
    fine, coarse = (ablation.run(replace(few, every=n), few.arms[1], 0.1, (2,), 1, 20, stop=False).excess for n in (1, 5))
    assert fine.shape == coarse.shape
    np.testing.assert_array_equal(coarse[3], coarse[0])
    # The smallest excess of the rounds that were looked at is no smaller than that of all.
    assert np.all(coarse >= fine - 1e-15) and np.any(coarse[5] < coarse[0])


def test_every_setting_differs_from_the_base_in_one_thing():
    cases = federation_size.cases()
    assert list(cases)[0].endswith("6/2") and len(cases) == 16
    for name, case in cases.items():
        problem, options = case.make(()), case.federation
        if name.endswith("/2") or name.endswith("/6") or name.endswith("/20"):
            assert f"{problem.clients}/{options['sampled']}" == name.rpartition(" ")[2] and options["dropout"] == 0
        else:
            assert (problem.clients, options["sampled"]) == (6, 2)


def test_paired_tables_say_that_a_positive_number_is_better(tmp_path):
    from hiso_bench import catalogue

    found = list(pairs(catalogue.RESULTS))
    more = [p for p in found if "decomfl-p10" in p.values and p.table == "ablation_quadratics"]
    assert len(more) == 20 and all(p.difference("decomfl-p10", "decomfl").mean() > 0 for p in more)
    assert {p.measure for p in found} == {MEAN, LAST, "accuracy", "loss"}
    pair = Pair("t", "", "loss", {"a": np.array([1.0, 2.0, -np.inf, 4.0]), "b": np.zeros(4)})
    np.testing.assert_array_equal(pair.difference("a", "b"), [1, 2, 4])
    np.testing.assert_array_equal(pair.difference("a", "a"), [-2])  # 1 - (-inf) is left out, 2 - 4 is not


def test_pairs_of_tables_made_by_hand(tmp_path, monkeypatch):
    rows = [  # arm, key, target, rounds; the budget is 16
        ("hiso", 1, 0.3, 4.0), ("hiso", 1, 0.1, np.nan), ("hiso", 2, 0.3, 0.0), ("hiso", 2, 0.1, 4.0),
        ("decomfl", 1, 0.3, 8.0), ("decomfl", 1, 0.1, 16.0), ("decomfl", 2, 0.3, 8.0), ("decomfl", 2, 0.1, 8.0),
    ]  # fmt: skip
    rounds = pd.DataFrame(rows, columns=["arm", "key", "target", "rounds"]).assign(problem="p", budget=16)
    last = [
        ("hiso", 1, "accuracy", 3.0), ("hiso", 2, "accuracy", 5.0), ("hiso", 1, "loss", 3.0), ("hiso", 2, "loss", 5.0),
        ("decomfl", 1, "accuracy", 2.0), ("decomfl", 2, "accuracy", np.nan), ("decomfl", 1, "loss", 2.0),
        ("decomfl", 2, "loss", np.nan), ("first-order", 1, "loss", 0.0),
    ]  # fmt: skip
    rows = [(*names, r, value + 10 * r) for *names, value in last for r in (0, 5)]
    curves = pd.DataFrame(rows, columns=["arm", "key", "metric", "round", "value"])
    monkeypatch.setattr("learned_h.pairs.ROUNDS", ("rounds",))
    monkeypatch.setattr("learned_h.pairs.CURVES", {"curves": ("accuracy", "loss")})
    records.write(rounds, tmp_path / "rounds.csv", {}, 1)
    records.write(curves, tmp_path / "curves.csv", {}, 1)
    mean, last, accuracy, loss = pairs(tmp_path)
    # A target that is not reached counts the budget, round 0 counts as 1; fewer rounds, more accuracy, less loss are better.
    np.testing.assert_allclose(mean.difference("hiso", "decomfl"), np.log([(2 * 1) ** 0.5, (8 * 2) ** 0.5]))
    np.testing.assert_allclose(last.difference("hiso", "decomfl"), np.log([1, 2]), atol=1e-15)
    assert (mean.measure, last.measure, accuracy.measure, loss.measure) == (MEAN, LAST, "accuracy", "loss")
    assert accuracy.difference("hiso", "decomfl").tolist() == [1] and loss.difference("hiso", "decomfl").tolist() == [-1]
    assert "first-order" not in loss.values and loss.values["decomfl"].tolist() == [-52, -np.inf]


def test_what_three_runs_tell():
    # Simulated: the chance that three paired runs find a gap of that size at 95 % is about 80 %.
    rng, runs = np.random.Generator(np.random.Philox(1)), 3
    draws = detectable(runs) + rng.standard_normal((20_000, runs))
    t = draws.mean(1) / (draws.std(1, ddof=1) / np.sqrt(runs))
    assert 0.72 < (t > 4.3027).mean() < 0.86
