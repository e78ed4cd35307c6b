"""The ablation: its arms are what they say, its cases start at excess 1, and a rate is chosen the same way for each."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from hiso_bench.methods import HiSo
from hiso_bench.sweeps import Arm
from learned_h import ablation, arms, cases
from synthetic.quadratic import Quadratic


@pytest.fixture(scope="module")
def case():
    return replace(cases.quadratic(40, 20, parameter=1.0), targets=(0.5, 0.3))


def test_every_arm_runs_and_starts_at_excess_one(case):
    for arm in (*case.arms, *arms.LEAVES):
        found = ablation.run(case, arm, case.theory / 50, (2,), 1, 3)
        assert found.excess.shape == (4, 2)
        assert np.all(found.excess[0] == 1) and np.all(np.diff(found.excess, axis=0) <= 0)


def test_arms_with_the_same_directions_are_paired(case):
    # HiSo with H never learned is DeComFL, key by key.
    still = Arm("still", "hiso", {"freeze_after": 0})
    one, other = (ablation.run(case, arm, 0.1, (3,), 5, 10, stop=False).excess for arm in (case.arms[0], still))
    np.testing.assert_allclose(one, other, rtol=1e-12)


def test_first_passages_and_their_score():
    excess = np.array([[1.0, 1.0], [0.4, 1.0], [0.2, 0.9], [0.2, 0.8]])
    found = ablation.Passage(excess)
    np.testing.assert_array_equal(found.rounds(0.5), [1, np.nan])
    case = replace(cases.quadratic(3, 4, parameter=1.0), targets=(0.5, 0.25))
    expected = [np.log([1, 2]).mean(), np.log(3) + np.log(0.8 / np.array([0.5, 0.25])).mean()]
    np.testing.assert_allclose(ablation.score(case, found, 3), -np.array(expected))
    diverged = ablation.Passage(np.array([[1.0], [np.nan]]))
    assert ablation.score(case, diverged, 1)[0] == -np.inf and np.isnan(diverged.rounds(0.5))[0]


def test_a_diverged_run_never_counts_as_arrived(case):
    found = ablation.run(case, case.arms[0], 1e3, (2,), 1, 40)
    assert np.isnan(found.excess[-1]).all() and np.isnan(found.rounds(0.5)).all()


def test_the_gradient_of_a_case_is_that_of_every_replicate(case):
    problem = case.make((2,))
    x = (torch.tensor(np.random.Generator(np.random.Philox(1)).standard_normal((2, 20))),)
    (found,) = case.gradient(problem, x)
    assert isinstance(problem, Quadratic)
    np.testing.assert_allclose(found, problem.spectrum * x[0].numpy(), rtol=1e-12)


def test_the_infinite_signal_is_hiso_but_for_what_h_learns_from(case):
    method = arms.build(Arm(arms.INFINITE, arms.INFINITE), 0.1, case.make(()), lambda x: x, ())
    assert isinstance(method, HiSo) and method.perturbations == arms.P


def test_rates_come_from_one_key_and_results_from_another(case, monkeypatch):
    run, used = ablation.run, []
    monkeypatch.setattr(ablation, "run", lambda *args, **more: (used.append(args[4]), run(*args, **more))[1])
    few = replace(case, arms=case.arms[:1], rounds=8, theory=float("nan"), octaves=4, start=2.0**-6)
    rates = ablation.tune(few, few.arms).query("winner").set_index("arm")["lr"].to_dict()
    assert set(used) == {ablation.TUNING_KEY} != {ablation.RESULT_KEY}
    used.clear()
    ablation.compare(few, rates, 2)
    assert set(used) == {ablation.RESULT_KEY}


def test_rates_are_chosen_on_one_grid_for_all_arms(case):
    two = (case.arms[0], Arm("hiso", "hiso"))
    grid = ablation.tune(replace(case, rounds=40), two)
    first = {arm.name: set(grid[(grid["arm"] == arm.name) & (grid["rounds"] == 10)]["lr"]) for arm in two}
    assert first["decomfl"] == first["hiso"] and len(first["hiso"]) >= cases.OCTAVES
    assert set(grid[grid["winner"]]["arm"]) == {"decomfl", "hiso"}
