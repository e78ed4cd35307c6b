"""E dx = H^{-1} grad f(x), exactly, through a real federated round: every law, P, m, difference, mu and H.

A direction is injected for every node of a cubature; dx is read off the move of x. The clients differ in Hessian and gradient.
"""

import numpy as np
import pytest
import torch

from hiso_bench.methods import HiSo, OracleH
from hiso_bench.testing import Quadratics, federation_over, joined, rule_for, smolyak, take_round
from hiso_bench.theory import moments

LAWS = ["gaussian", "sphere", "rademacher"]
DIMENSION = {"gaussian": 3, "sphere": 2, "rademacher": 2}
SEVERAL = {2: ((1,), ()), 3: ((2, 1), ()), 4: ((2,), (1, 2))}  # how d coordinates are cut into leaves
LR = 0.5


def scaled(d):
    """The diagonal of an H that spans two decades."""
    return np.geomspace(10.0, 0.1, d)


def oracle(problem, h, P, mu, difference="forward", kind=OracleH):
    return kind(lr=LR, mu=mu, perturbations=P, difference=difference, h=problem.point(h), eps=0.0)


@pytest.mark.parametrize("difference", ["forward", "central"])
@pytest.mark.parametrize("P", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("law", LAWS)
def test_shared_directions(law, P, difference):
    d = DIMENSION[law]
    rule = rule_for(law, d, P)
    for m in (1, 2, 3, 4):
        for h, leaves, mu in [(np.ones(d), None, 0.1), (scaled(d), SEVERAL[d], 0.3)]:
            problem = Quadratics.random(key=m, d=d, clients=m, leaf_shapes=leaves, diagonal=law == "rademacher")
            dx = take_round(federation_over(rule, problem, oracle(problem, h, P, mu, difference)))
            rule.check(rule.mean(dx), problem.gradients.mean(0) / h)


@pytest.mark.parametrize("difference", ["forward", "central"])
@pytest.mark.parametrize(
    ("law", "P", "m"),
    [("gaussian", P, m) for P in (1, 2, 3, 4, 5) for m in (2, 3, 4)]
    + [("sphere", P, m) for P, m in [(1, 2), (1, 4), (2, 2), (1, 5)]]
    + [("rademacher", P, m) for P, m in [(1, 2), (1, 4), (2, 2), (3, 2), (2, 4)]],
)
def test_independent_directions(law, P, m, difference):
    d = 2
    rule = rule_for(law, d, P * m)
    problem = Quadratics.random(key=m, d=d, clients=m, leaf_shapes=SEVERAL[d], diagonal=law == "rademacher")
    method = oracle(problem, scaled(d), P, 0.3, difference)
    dx = take_round(federation_over(rule, problem, method, independent=True))
    rule.check(rule.mean(dx), problem.gradients.mean(0) / scaled(d))


@pytest.mark.parametrize("law", ["gaussian", "rademacher"])
def test_several_leaves_in_more_dimensions(law):
    # Rademacher too with Hessians that are not diagonal.
    problem = Quadratics.random(key=7, d=4, clients=3, leaf_shapes=SEVERAL[4])
    rule = rule_for(law, 4, 2)
    dx = take_round(federation_over(rule, problem, oracle(problem, scaled(4), 2, 0.3)))
    rule.check(rule.mean(dx), moments.mean(problem.gradients.mean(0), 1 / scaled(4)))


def test_a_grid_of_rates_and_radii_is_unbiased_everywhere():
    problem, h, P = Quadratics.random(key=8, d=2, clients=2), scaled(2), 2
    rule = smolyak(P * 2)
    lr, mu = torch.tensor([0.25, 1.0]).double()[:, None, None], torch.tensor([0.1, 0.3, 1.0]).double()[:, None]
    method = OracleH(lr=lr, mu=mu, perturbations=P, h=problem.point(h), eps=0.0)
    dx = take_round(federation_over(rule, problem, method, grid=(2, 3)))
    assert dx.shape == (2, 3, len(rule.weights), 2)
    for cell in dx.reshape(6, -1, 2):
        rule.check(rule.mean(cell), problem.gradients.mean(0) / h)


@pytest.mark.parametrize("control", ["mean", "leaf_mean"])
def test_a_control_replaces_h_by_its_mean(control):
    problem = Quadratics.random(key=9, d=3, leaf_shapes=((1,), (2,)))
    rule, learned = smolyak(3), np.array([4.0, 0.5, 1.5])
    federation = federation_over(rule, problem, HiSo(lr=LR, mu=0.3, perturbations=1, control=control))
    federation.state.buffers["h"] = tuple(
        h.expand_as(leaf).clone() for h, leaf in zip(problem.point(learned), federation.state.x, strict=True)
    )
    used = {"mean": [2.0, 2.0, 2.0], "leaf_mean": [4.0, 1.0, 1.0]}[control]
    rule.check(rule.mean(take_round(federation)), problem.gradients[0] / used)


# Local steps. In expectation every client descends its own f_i, and the server averages the paths.


def mean_path(problem, h, tau):
    """Sum over tau steps of the clients' mean H^{-1} grad f_i, each at its own expected point."""
    total = np.zeros_like(h)
    for S, b in zip(problem.hessians, problem.linear, strict=True):
        x = problem.start
        for _ in range(tau):
            dx = (S @ x + b) / h
            total, x = total + dx / problem.clients, x - LR * dx
    return total


LOCAL = [("gaussian", False, 2, 3), ("gaussian", True, 2, 2), ("rademacher", True, 1, 3), ("sphere", False, 2, 2)]


@pytest.mark.parametrize(("law", "independent", "P", "tau"), LOCAL)
def test_local_steps_average_the_clients_own_descents(law, independent, P, tau):
    # Total degree 2 tau + 1 (forward): tau = 3 is the most that a rule of degree 7 carries.
    problem, h = Quadratics.random(key=10, d=2, clients=2, diagonal=law == "rademacher"), np.array([3.0, 0.5])
    rule = rule_for(law, 2, tau * P * (2 if independent else 1))
    method = oracle(problem, h, P, 0.3)
    dx = take_round(federation_over(rule, problem, method, local_steps=tau, independent=independent))
    rule.check(rule.mean(dx), mean_path(problem, h, tau))
    # Control: tau steps on the mean function miss the clients' drift, eta C (mean S_i C g_i - mean S mean C g) at tau = 2.
    S, g = problem.hessians, problem.gradients
    merged = Quadratics(S.mean(0)[None], problem.linear.mean(0)[None], problem.start)
    drift = LR * (np.mean([s @ (v / h) for s, v in zip(S, g, strict=True)], 0) - S.mean(0) @ (g.mean(0) / h)) / h
    miss = mean_path(merged, h, 2) - mean_path(problem, h, 2)
    np.testing.assert_allclose(miss, drift, atol=1e-12)
    assert np.abs(mean_path(merged, h, tau) - rule.mean(dx)).max() > 0.05


# Controls: one ingredient replaced; the expectation is off by exactly what the replacement predicts.


class SumOverDirections(OracleH):
    """The 1/P is forgotten."""

    def direction(self, step, layout, z, out):
        return super().direction(step._replace(weights=step.weights * self.perturbations), layout, z, out)


class MovesAlongU(OracleH):
    """Measured along z, moved along u."""

    def direction(self, step, layout, z, out):
        return super().direction(step, layout, z.directions.draw, out)


class MeasuresAlongU(OracleH):
    """Measured along u, moved along z."""

    def measure(self, loss, layout, x, z, directions, batches, buffer):
        return super().measure(loss, layout, x, z.directions.draw, directions, batches, buffer)


class SumOverClients(OracleH):
    """The server adds where it should average."""

    def combine(self, scalars):
        return scalars.sum(0, keepdim=True)


class FirstClient(OracleH):
    """The server uses one client's scalars."""

    def combine(self, scalars):
        return scalars[:1]


CONTROLS = {
    SumOverDirections: lambda g, h, P: P * g.mean(0) / h,
    MovesAlongU: lambda g, h, P: g.mean(0) / np.sqrt(h),
    MeasuresAlongU: lambda g, h, P: g.mean(0) / np.sqrt(h),
    SumOverClients: lambda g, h, P: g.sum(0) / h,
    FirstClient: lambda g, h, P: g[0] / h,
}


@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize("kind", CONTROLS)
def test_control_a_broken_step_is_biased_by_the_predicted_amount(kind, law):
    d, P, m = DIMENSION[law], 3, 3
    rule, h = rule_for(law, d, P), scaled(d)
    problem = Quadratics.random(key=11, d=d, clients=m, diagonal=law == "rademacher")
    dx = take_round(federation_over(rule, problem, oracle(problem, h, P, 0.3, kind=kind)))
    predicted = CONTROLS[kind](problem.gradients, h, P)
    rule.check(rule.mean(dx), predicted)
    assert np.abs(rule.mean(dx) - problem.gradients.mean(0) / h).max() > 0.1


def test_control_a_cubic_loss_is_biased_by_the_third_derivative():
    # The identity is one of quadratics: f = x^3 gives E s z = (3 x^2 + mu^2 E w^4 / h) / h.
    problem, mu, h = Quadratics(np.zeros((1, 1, 1)), np.zeros((1, 1)), np.array([2.0])), 0.3, np.array([0.5])
    rule = smolyak(1)
    federation = federation_over(rule, problem, oracle(problem, h, 1, mu))
    federation.problem.loss = Cubic(federation.problem.layout)
    rule.check(rule.mean(take_round(federation)), (3 * 2.0**2 + 3 * mu**2 / h) / h)


class Cubic:
    def __init__(self, layout):
        self.layout = layout

    def each(self, x, batches):
        return (joined(x, self.layout) ** 3).sum(-1).expand(len(batches), -1)
