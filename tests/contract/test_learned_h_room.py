"""The room of the learned H: subjects are full-batch problems, places measure what they say, the gap compares like with like."""

import numpy as np
import pandas as pd
import pytest
import torch

from hiso_bench import catalogue, whiteness
from hiso_bench.sweeps import Arm
from hiso_bench.theory import learned, spectra
from learned_h import along, gap, points, stage, still, subjects
from synthetic import oracle
from synthetic.learned import follow


@pytest.mark.parametrize("name", subjects.SMALL)
def test_a_small_subject_is_one_full_batch_whose_later_point_has_less_loss(name):
    of = subjects.subject(name)
    problem = of.build(key=1)
    assert problem.clients == 1 and problem.layout.replicate_shape == ()
    x = subjects.start(problem)
    assert all(leaf.dtype == torch.float64 for leaf in x)
    first, lowest = subjects.around(problem, x), of.minimum(problem)
    assert first.value == pytest.approx(problem.evaluate(problem.initial())["loss"], rel=1e-6) and first.value > lowest
    later = subjects.around(problem, subjects.later(problem, x, lowest, fraction=0.8)).value - lowest
    assert 0.6 * (first.value - lowest) <= later <= 0.8 * (first.value - lowest)
    assert of.build(key=1, replicates=(2,)).layout.replicate_shape == (2,)


def test_an_unknown_subject_is_refused_with_those_that_are_known():
    with pytest.raises(ValueError, match="subject imagenet is out of range; allowed: flat, i"):
        subjects.subject("imagenet")
    with pytest.raises(ValueError, match="replicates"):
        subjects.subject("digits CNN").build(replicates=(2,))


def test_a_place_on_a_quadratic_has_the_numbers_of_its_spectrum():
    problem = subjects.subject("i^-1.5").build()
    s = problem.spectrum
    found = points.Place(problem, subjects.start(problem)).numbers()
    expected = {"d": 200, "trace": s.sum(), "top": 1.0, "kappa": s.sum(), "kappa_absolute": s.sum(), "off_diagonal": 0.0}
    expected |= {"n_eff": spectra.participation(s), "spread": s.sum() ** 2 / (s**2).sum(), "layers_5": 1.0, "rank_h_5": 1.0}
    expected |= {"loss": s.sum() / 2, "signal_5": 6 / spectra.participation(s)}
    for name, value in expected.items():
        assert found[name] == pytest.approx(value, rel=1e-9, abs=1e-9), name
    h = learned.fixed_point(s**2, 5)
    assert found["max_r_5"] == pytest.approx(h.max() / learned.floor(s**2, h, 5)) and found["std_log_5"] == pytest.approx(
        np.log(h).std()
    )


def test_estimated_places_agree_with_exact_ones():
    """Within five standard errors of the trace, and within the bounds that Lanczos gives."""
    problem = subjects.subject("logistic").build()
    exact, estimated = (points.Place(problem, subjects.start(problem), e).numbers() for e in (True, False))
    assert estimated["trace"] == pytest.approx(exact["trace"], abs=5 * estimated["trace_error"] + 1e-9)
    assert estimated["top"] == pytest.approx(exact["top"], rel=1e-3) and estimated["top"] <= exact["top"] * (1 + 1e-9)
    assert estimated["n_eff"] == exact["n_eff"] and estimated["off_diagonal"] == pytest.approx(exact["off_diagonal"], rel=0.5)


def test_the_exact_gap_of_an_axis_aligned_quadratic_is_that_of_the_oracle_sweep():
    table = oracle.sweep("i^-1.5")
    expected = table["rounds"].iloc[-1] / table["rounds"].iloc[:-1].min()
    found = gap.quadratic_gap("i^-1.5").set_index("arm")["value"]
    assert found["decomfl"] == 1 and found["oracle Hessian"] == pytest.approx(expected, rel=0.15)


def test_an_oracle_has_the_zeta_of_the_identity():
    problem = subjects.subject("logistic").build(key=3)
    place = points.Place(problem, subjects.start(problem))
    h = gap.oracle_h("logistic", 3, "gauss-newton", 0.1)
    assert whiteness.whitening(place.gauss_newton, h).zeta == pytest.approx(place.gauss_newton.sum(), rel=1e-12)
    assert np.ptp(h / (place.gauss_newton + 0.1 * place.gauss_newton.mean())) < 1e-12 * h.max() / h.min()
    layer = gap.oracle_h("logistic", 3, "layer", 0.1)
    assert np.ptp(layer) < 1e-12


def test_runs_begin_at_one_and_a_diverged_rate_is_infinite():
    found = gap.losses("rare tokens", Arm("decomfl", "decomfl"), [0.1, 1e6], 1, 20)
    assert found.shape == (20 // gap.EVERY + 1, 2)
    assert found[0] == pytest.approx(1) and 0 < found[-1, 0] < 1 and not found[-1, 1] < 1


def curves(**arms):
    rows = [(arm, 1, 0.1, 5 * i, v) for arm, values in arms.items() for i, v in enumerate(values)]
    return pd.DataFrame(rows, columns=["arm", "key", "lr", "round", "excess"])


def test_a_speed_up_is_rounds_over_rounds_both_ways_and_zero_after_divergence():
    plain, fast, slow = [1, 0.8, 0.6, 0.5, 0.4], [1, 0.7, 0.4, 0.3, 0.2], [1, 0.95, 0.9, 0.85, 0.8]
    table = gap.speed_ups(curves(decomfl=plain, fast=fast, slow=slow, lost=[1, 2, np.inf, np.inf, np.inf]))
    found = table.set_index("arm")["speed_up"]
    assert found.to_dict() == {"decomfl": 1, "fast": 2, "slow": 0.25, "lost": 0}
    again = gap.speed_ups(curves(decomfl=[1, 0.5, 0.4, 5, 9], arm=[1, 0.8, 0.6, 0.5, 0.4])).set_index("arm")["speed_up"]
    assert again.to_dict() == {"arm": 0.5, "decomfl": 1}
    assert table.set_index("arm")["log_ratio"]["fast"] == pytest.approx(np.log(2))
    summed = gap.summary(pd.concat([table, table.assign(key=2)])).set_index("arm")
    assert (
        summed.loc["fast", ["value", "low", "high"]].tolist() == pytest.approx([2, 2, 2]) and summed.loc["lost", "diverged"] == 2
    )


def test_speed_ups_are_averaged_as_logarithms():
    ups = pd.DataFrame({"arm": "a", "key": [1, 2, 3, 4], "speed_up": [1.0, 2.0, 4.0, 0.0], "log_ratio": 0.0})
    (row,) = gap.summary(ups).itertuples()
    reach = 31.599 * np.log(2) / np.sqrt(3)  # Student's at 99.9 % with two degrees of freedom
    assert row.value == pytest.approx(2) and [row.low, row.high] == pytest.approx(
        [2 / np.exp(reach), 2 * np.exp(reach)], rel=1e-3
    )
    assert (row.keys, row.diverged) == (4, 1)


def test_pick_takes_each_oracle_at_its_better_eps_and_no_other_choice():
    rows = [(arm.name, 0.1 * (i + 1), 200, float(i % 2), True) for i, arm in enumerate(gap.ARMS)]
    grid = pd.DataFrame(rows, columns=["arm", "lr", "rounds", "score", "winner"])
    found = gap.pick(grid)
    assert list(found)[:4] == ["decomfl", "hiso", "hiso-scalar", "hiso-shuffled"] and set(found) == {
        *list(found)[:4],
        *gap.ORACLES,
    }
    assert all(found[name][0] == f"{name}, eps 1" for name in gap.ORACLES)


def test_standing_still_runs_agree_with_theory_and_their_null_with_nothing():
    for of in (still.Setting(), still.Setting(P=80), still.Setting("hiso-e", ema_new=0.02)):
        table = still.measure(10, of, 48).set_index(["measure", "what"])
        row = table.loc[("log", "h")]
        assert row["low"] - 0.03 <= row["predicted"] <= row["high"] + 0.03, of  # to first order in ema_new
        null = table.loc[("log", "null")]
        assert null["low"] <= 0 <= null["high"]


def test_the_exact_table_falls_with_d_and_grows_with_p(monkeypatch):
    monkeypatch.setattr(still, "EXACT", {10: (5, 80), 1000: (5, 80)})
    table = still.exact().set_index(["d", "P"])
    assert table.loc[(10, 5), "snapshot"] > 3 * table.loc[(1000, 5), "snapshot"]
    assert table.loc[(1000, 80), "snapshot"] > 3 * table.loc[(1000, 5), "snapshot"]


def test_h_on_a_network_is_compared_with_its_null_and_what_could_replace_it(monkeypatch):
    monkeypatch.setattr(along, "ROUNDS", (2, 5))
    table = pd.concat([along.one(along.Run("logistic"), 0.25, key) for key in (1, 2)])
    assert set(table["round"]) == {2, 5} and np.isfinite(table["value"]).all()
    found = table[(table["key"] == 1) & (table["round"] == 5)].set_index("quantity")["value"]
    assert found["zeta scalar"] == pytest.approx(1, rel=1e-9) and found["bound scalar"] == pytest.approx(1, rel=1e-9)
    assert found["gain scalar"] == pytest.approx(1, rel=1e-9)
    # The gradient lies in the steep directions, which an oracle slows down for the sake of the flat ones.
    assert found["gain oracle"] < 0.5
    means = along.summary(table).set_index(["round", "quantity"])
    assert means.loc[(5, "excess log gradient"), "value"] == pytest.approx(
        means.loc[(5, "log gradient"), "value"] - means.loc[(5, "null log gradient"), "value"]
    )


def test_a_network_too_large_for_its_hessian_is_compared_by_estimates_that_say_how_reliable_they_are(monkeypatch):
    monkeypatch.setattr(along, "ROUNDS", (2,))
    monkeypatch.setitem(along.PROBES, "digits CNN", 8)
    found = along.one(along.Run("digits CNN"), 2.0**-8, 11).set_index("quantity")["value"]
    assert np.isfinite(found).all() and "log hessian" not in found.index
    assert found["zeta scalar"] == pytest.approx(1, rel=1e-9) and found["gain scalar"] == pytest.approx(1, rel=1e-6)
    assert 0 < found["reliability"] < 1


def test_estimates_at_a_point_agree_with_its_hessian():
    of = subjects.subject("digits MLP")
    problem = of.build(key=1)
    exact, estimated = (points.Place(problem, subjects.start(problem), formed, 1, probes=400) for formed in (True, False))
    assert exact.reliability == 1 and 0.3 < estimated.reliability < 0.9
    h = 1 + np.arange(len(exact.gradient)) / 100
    assert estimated.weights.sum() == pytest.approx(exact.diagonal.sum(), rel=0.05)
    signed = whiteness.next_round(exact.gradient, exact.curvature.hessian.numpy(), h, 5)
    assert estimated.decrease(h, 5) == pytest.approx(signed, rel=0.1)


def test_following_looks_at_the_rounds_that_were_asked_for():
    problem = subjects.subject("i^-1").build(replicates=(2,))
    from hiso_bench import methods

    seen = list(follow(problem, methods.build("hiso-c", lr=0.01), (0, 3), 1))
    assert len(seen) == 2 and np.all(seen[0].h == 1) and seen[1].h.shape == seen[1].null.shape == (2, 200)
    assert not np.allclose(seen[1].h, seen[1].null)


def test_the_experiments_are_in_the_catalogue_and_say_when_they_are_current(tmp_path, monkeypatch):
    assert catalogue.load(catalogue.EXPERIMENTS["stage"]) is stage.STAGE and stage.STAGE.profile == "quick"
    small = stage.Stage("stage", "quick", ("flat", "i^-1"), (1,))
    small.compare(tmp_path, tmp_path, tmp_path / "work", 1)
    before = (tmp_path / "stage_gap.csv").stat().st_mtime_ns
    small.compare(tmp_path, tmp_path, tmp_path / "work", 1)
    assert (tmp_path / "stage_gap.csv").stat().st_mtime_ns == before
    table = pd.read_csv(tmp_path / "stage_points.csv")
    assert set(table["subject"]) == {"flat", "i^-1"} and set(table["point"]) == {"start", "later"}
