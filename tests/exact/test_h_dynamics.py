"""The recursion of H about its fixed point: exact multipliers, against differences of the exact moments and against runs."""

import numpy as np
import pytest
import torch

from hiso_bench.theory import learned, moments
from learned_h.arms import InfiniteSignal
from learned_h.dynamics import Drift, drift, learner, mean_h
from synthetic.quadratic import Quadratic

G = np.array([0.0, 0.3, 1.0, 2.0, 5.0])


def drive(h, P):
    """E dx_j^2 of a step with H = diag(h), from the general second moment."""
    return np.diag(moments.second_moment(G, 1 / h, np.eye(len(G)), 0.0, P))


@pytest.mark.parametrize("P", [1, 5])
def test_the_jacobian_is_the_derivative_of_the_exact_second_moment(P):
    h = learned.fixed_point(G**2, P)
    found = np.empty((len(G), len(G)))
    for k, step in enumerate(1e-6 * h * np.eye(len(G))):
        found[:, k] = (drive(h + step, P) - drive(h - step, P)) / (2 * step[k])
    np.testing.assert_allclose(learned.jacobian(G**2, P), found - np.eye(len(G)), rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("P", [1, 5])
def test_the_size_of_h_settles_at_three_times_the_weight_for_every_gradient(P):
    h = learned.fixed_point(G**2, P)
    np.testing.assert_allclose(learned.jacobian(G**2, P) @ h, -3 * h, rtol=1e-10)
    found = learned.multipliers(G**2, P, 0.1)
    assert found[0] == pytest.approx(0.7, rel=1e-10) and found[-1] == pytest.approx(0.8, rel=1e-6)


def test_in_gradient_units_the_size_settles_at_the_weight_itself():
    found = learned.multipliers_undone(G**2, 5, 0.1)
    assert found[0] == pytest.approx(0.9, rel=1e-9) and 0.9 < found[-1] < 0.951


def test_runs_of_the_real_round_follow_the_mean_recursion():
    v, start = np.ones(2000), float(learned.fixed_point(np.ones(2000), 5).mean())
    for factor in (0.1, 2.0):
        found = np.log(mean_h(learner(0.02, start), v, np.full(40, factor), 16, 3).mean(1))
        law = np.log(learned.relaxation(start, factor**2 * 2000, 5, 0.02, 40))
        assert np.abs(found - law).max() < 0.12 < np.abs(law - law[0]).max()


def test_quiet_rounds_shrink_h_geometrically_and_eps_is_its_floor():
    quiet = mean_h(learner(0.05, 1.0), np.ones(5), np.zeros(30), 2, 0)
    np.testing.assert_allclose(quiet[:, 0], 0.95 ** np.arange(31), rtol=1e-12)
    floored = mean_h(learner(0.5, 1.0, 1e-3), np.ones(5), np.zeros(60), 1, 0)
    assert floored[-1, 0] == pytest.approx(1e-3, rel=1e-9)


def test_the_infinite_signal_settles_where_many_directions_do():
    problem = Quadratic(4, parameter=1.0, clients=1)
    s = torch.from_numpy(problem.spectrum)
    method = InfiniteSignal(lr=1e-9, perturbations=2, gradient=lambda x: (s * x[0],))
    state = method.init(problem.initial(), problem.layout)
    for _ in range(400):
        method.learn(state, [], None, ())
    np.testing.assert_allclose(state.buffers["h"][0], problem.spectrum ** (2 / 3), rtol=1e-6)
    np.testing.assert_allclose(learned.fixed_point(problem.spectrum**2, 10**9), problem.spectrum ** (2 / 3), rtol=1e-6)


def test_a_change_of_the_problem_changes_the_loss_that_clients_see_at_its_round():
    x = (torch.full((4,), 2.0, dtype=torch.float64),)
    for kind, ratio in (("scale up", 100.0), ("scale down", 0.01)):
        problem = Drift(kind, 3, d=4)
        before, after = (float(problem.loss(x, problem.batch(np.array(0), r, 0))) for r in (2, 3))
        assert after == pytest.approx(ratio * before, rel=1e-12)
        assert problem.excess(x[0], 2) == pytest.approx(float(problem.excess(x[0], 3)), rel=1e-12)
    moved = Drift("minimum", 3, d=4)
    ones = torch.ones(4, dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad(moved.loss((ones,), moved.batch(np.array(0), 3, 0)), ones)
    assert torch.equal(gradient, torch.zeros(4)) and float(moved.excess(ones.detach(), 3)) == 0


def test_forgetting_leaves_the_size_of_h_and_freezing_stops_it():
    same, forgot = (drift("minimum", arm, at=5, rounds=5, replicates=2) for arm in ("hiso", "hiso-forget"))
    assert np.array_equal(same, forgot)  # nothing differs before the change
    assert not np.array_equal(*(drift("minimum", a, at=5, rounds=12, replicates=2) for a in ("hiso", "hiso-frozen")))
