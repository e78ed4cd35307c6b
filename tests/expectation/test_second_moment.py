"""E dx dx', exactly, through a real federated round: the theory's formula, and the same written out again here.

This is where P, m, the law of the directions and mu show themselves; the mean of dx sees none of them.
"""

import numpy as np
import pytest

from hiso_bench.methods import OracleH
from hiso_bench.testing import Quadratics, federation_over, gauss_product, joined, rule_for, signs, take_round
from hiso_bench.theory import moments
from hiso_bench.theory.recursion import expected_squares

LAWS = ["gaussian", "sphere", "rademacher"]
DIMENSION = {"gaussian": 3, "sphere": 2, "rademacher": 3}
SEVERAL = {2: ((1,), ()), 3: ((2, 1), ())}
LR = 0.5


def scaled(d):
    """The diagonal of an H that spans two decades."""
    return np.geomspace(10.0, 0.1, d)


def second_moment_of_round(rule, problem, h, P, mu, difference="forward", independent=False, kind=OracleH):
    method = kind(lr=LR, mu=mu, perturbations=P, difference=difference, h=problem.point(h), eps=0.0)
    dx = take_round(federation_over(rule, problem, method, independent=independent))
    return dx.T @ (rule.weights[:, None] * dx)


def written_out(g, h, S, mu, P, law):
    """E dx dx' of one function measured by forward differences (mu = 0: central)."""
    d, C = len(g), np.diag(1 / h)
    k2 = {"gaussian": 1, "sphere": d / (d + 2), "rademacher": 1}[law]
    c6 = {"gaussian": 1, "sphere": d**2 / ((d + 2) * (d + 4)), "rademacher": 1}[law]
    t1, t2 = np.trace(S @ C), np.trace(S @ C @ S @ C)
    rank_one = C @ np.outer(g, g) @ C
    if law == "rademacher":  # a diagonal S: z'Sz is the constant t1, and z_i^2 = 1/h_i takes the diagonal's second term away
        curvature, twice = t1**2 * C, 2 * (rank_one - np.diag(np.diag(rank_one)))
    else:
        curvature, twice = c6 * ((t1**2 + 2 * t2) * C + 4 * t1 * C @ S @ C + 8 * C @ S @ C @ S @ C), 2 * k2 * rank_one
    return (1 - 1 / P) * rank_one + (twice + k2 * (g @ C @ g) * C + mu**2 / 4 * curvature) / P


@pytest.mark.parametrize("difference", ["forward", "central"])
@pytest.mark.parametrize("P", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("law", LAWS)
def test_shared_directions(law, P, difference):
    d = DIMENSION[law]
    rule = rule_for(law, d, P)
    for m in (1, 2, 4):
        for h, leaves, mu in [(np.ones(d), None, 0.1), (scaled(d), SEVERAL[d], 0.3)]:
            problem = Quadratics.random(key=m, d=d, clients=m, leaf_shapes=leaves, diagonal=law == "rademacher")
            g, S = problem.gradients, problem.hessians
            found = second_moment_of_round(rule, problem, h, P, mu, difference)
            rule.check(found, moments.second_moment_shared(g, 1 / h, S, mu, P, law, difference))
            used = mu if difference == "forward" else 0.0
            rule.check(found, written_out(g.mean(0), h, S.mean(0), used, P, law))


@pytest.mark.parametrize("difference", ["forward", "central"])
@pytest.mark.parametrize(
    ("law", "P", "m"),
    [("gaussian", P, m) for P in (1, 2, 3, 4, 5) for m in (1, 2, 3, 4)]
    + [("sphere", P, m) for P, m in [(1, 2), (1, 4), (2, 2), (1, 5)]]
    + [("rademacher", P, m) for P, m in [(1, 2), (1, 4), (2, 2), (3, 2), (2, 4)]],
)
def test_independent_directions(law, P, m, difference):
    d, mu = 2, 0.3
    h, rule = scaled(d), rule_for(law, d, P * m)
    problem = Quadratics.random(key=m, d=d, clients=m, leaf_shapes=SEVERAL[d], diagonal=law == "rademacher")
    g, S = problem.gradients, problem.hessians
    found = second_moment_of_round(rule, problem, h, P, mu, difference, independent=True)
    rule.check(found, moments.second_moment_independent(g, 1 / h, S, mu, P, law, difference))
    used, mean = mu if difference == "forward" else 0.0, g.mean(0) / h
    spread = [written_out(gi, h, Si, used, P, law) - np.outer(gi / h, gi / h) for gi, Si in zip(g, S, strict=True)]
    rule.check(found, np.sum(spread, axis=0) / m**2 + np.outer(mean, mean))


def test_rademacher_with_hessians_that_are_not_diagonal():
    problem, h, P, mu = Quadratics.random(key=5, d=4, clients=2), scaled(4), 2, 0.3
    rule = signs(4 * P)
    found = second_moment_of_round(rule, problem, h, P, mu)
    rule.check(found, moments.second_moment_shared(problem.gradients, 1 / h, problem.hessians, mu, P, "rademacher"))


# What averaging over clients buys.


def equal_clients(key, d, m):
    one = Quadratics.random(key, d)
    return Quadratics(np.repeat(one.hessians, m, 0), np.repeat(one.linear, m, 0), one.start)


@pytest.mark.parametrize(("P", "m"), [(1, 2), (1, 4), (2, 3), (5, 4)])
def test_equal_clients_with_their_own_directions_are_m_times_the_directions(P, m):
    problem, h, mu = equal_clients(6, 2, m), scaled(2), 0.3
    rule = rule_for("gaussian", 2, P * m)
    found = second_moment_of_round(rule, problem, h, P, mu, independent=True)
    g, S = problem.gradients[0], problem.hessians[0]
    rule.check(found, moments.second_moment(g, 1 / h, S, mu, m * P))
    rule.check(found, second_moment_of_round(rule, equal_clients(6, 2, 1), h, m * P, mu))
    # Control: P directions are not enough; the variance is m times as large.
    mean = np.outer(g / h, g / h)
    few = moments.second_moment(g, 1 / h, S, mu, P)
    rule.check(few - mean, m * (found - mean))
    assert np.abs(few - found).max() > 1


def test_equal_clients_with_shared_directions_take_the_step_of_one():
    rule, h, P = rule_for("gaussian", 3, 2), scaled(3), 2
    method = OracleH(lr=LR, mu=0.3, perturbations=P, h=equal_clients(7, 3, 1).point(h), eps=0.0)
    alone, *others = [take_round(federation_over(rule, equal_clients(7, 3, m), method)) for m in (1, 2, 4, 3)]
    for dx in others[:2]:
        assert np.array_equal(dx, alone)  # a mean over 2 or 4 equal numbers rounds to the number
    np.testing.assert_allclose(others[2], alone, rtol=1e-12, atol=1e-12)


# Two rounds: the recursion of the expected loss is what the code does.


@pytest.mark.parametrize(("law", "P"), [("gaussian", 1), ("gaussian", 2), ("sphere", 2), ("rademacher", 2)])
@pytest.mark.parametrize("difference", ["forward", "central"])
def test_two_rounds_follow_the_recursion(law, P, difference):
    # The second round squares the first's square: degree 12 in all and 6 in every coordinate, so a product rule.
    s, h, start, mu, eta = np.array([3.0, 0.5]), np.array([2.0, 0.5]), np.array([1.0, -2.0]), 0.3, 0.25
    rule = gauss_product(4 * P) if law == "gaussian" else rule_for(law, 2, 2 * P)
    # Two clients whose gradients differ by a constant that cancels: the mean function is 1/2 sum s x^2.
    problem = Quadratics(np.array([np.diag(s)] * 2), np.array([[1.0, 2.0], [-1.0, -2.0]]), start)
    method = OracleH(lr=eta, mu=mu, perturbations=P, difference=difference, h=problem.point(h), eps=0.0)
    federation = federation_over(rule, problem, method, rounds=2)
    for expected in list(expected_squares(s, h, start, eta, P, 2, mu, law, difference))[1:]:
        federation.round()
        x = joined(federation.state.x, federation.problem.layout).numpy()
        rule.check(rule.mean(x**2), expected)


# Controls: one ingredient replaced; the second moment is off by exactly what the replacement predicts.


class SumOverDirections(OracleH):
    """The 1/P is forgotten."""

    def direction(self, step, layout, z, out):
        return super().direction(step._replace(weights=step.weights * self.perturbations), layout, z, out)


class MovesAlongU(OracleH):
    """Measured along z, moved along u."""

    def direction(self, step, layout, z, out):
        return super().direction(step, layout, z.directions.draw, out)


class WithoutBase(OracleH):
    """f(x + mu z) / mu: unbiased still, as the base loss only centres the scalars."""

    def measure(self, loss, layout, x, z, directions, batches, buffer):
        measured = super().measure(loss, layout, x, z, directions, batches, buffer)
        return measured._replace(scalars=measured.scalars + measured.loss[:, None] / self.mu)


class OneDirection(OracleH):
    """The first direction's scalar and z stand in for all P."""

    def direction(self, step, layout, z, out):
        first = tuple((row[0],) * len(row) for row in step.keys)
        return super().direction(step._replace(keys=first, weights=step.weights[:, :1].expand_as(step.weights)), layout, z, out)


P_CONTROL, MU_CONTROL = 3, 0.3


def _root(h):
    return np.diag(np.sqrt(h))


def _without_base(true, one, g, h, S, f):
    # s becomes s + f/mu: add (f/mu)^2 C and 2 (f/mu) E s z z', of which only the mu term of s survives.
    C = np.diag(1 / h)
    return true + (f**2 / MU_CONTROL**2 * C + f * (np.trace(S @ C) * C + 2 * C @ S @ C)) / P_CONTROL


CONTROLS = {
    SumOverDirections: lambda true, one, g, h, S, f: P_CONTROL**2 * true,
    MovesAlongU: lambda true, one, g, h, S, f: _root(h) @ true @ _root(h),
    WithoutBase: _without_base,
    OneDirection: lambda true, one, g, h, S, f: one,
}


@pytest.mark.parametrize("kind", CONTROLS)
def test_control_a_broken_step_is_off_by_the_predicted_amount(kind):
    d, h = 3, scaled(3)
    problem, rule = Quadratics.random(key=8, d=d, clients=2), rule_for("gaussian", d, P_CONTROL)
    g, S = problem.gradients.mean(0), problem.hessians.mean(0)
    loss = problem.evaluate(problem.initial())["loss"]
    true, one = (moments.second_moment(g, 1 / h, S, MU_CONTROL, P) for P in (P_CONTROL, 1))
    predicted = CONTROLS[kind](true, one, g, h, S, loss)
    if kind is WithoutBase:  # the clients' losses are added to their own scalars; the mean of the losses is what remains
        assert abs(loss) > 0.1
    rule.check(second_moment_of_round(rule, problem, h, P_CONTROL, MU_CONTROL, kind=kind), predicted)
    assert np.abs(predicted - true).max() > 0.5


@pytest.mark.parametrize("law", LAWS)
def test_control_the_curvature_term_of_the_forward_difference_is_seen(law):
    d, P, mu = DIMENSION[law], 2, 0.3
    problem, h, rule = Quadratics.random(key=9, d=d, diagonal=law == "rademacher"), scaled(d), rule_for(law, d, P)
    g, S = problem.gradients[0], problem.hessians[0]
    found = second_moment_of_round(rule, problem, h, P, mu)
    without = moments.second_moment(g, 1 / h, S, mu, P, law, "central")
    rule.check(found - without, written_out(0 * g, h, S, mu, P, law))
    assert np.abs(found - without).max() > 0.1


def test_control_one_law_is_not_another():
    # At d = 2 and mu = 0 (central) with P = 1, the sphere's second moment is d/(d+2) = 1/2 of the Gaussian's.
    problem, h, rule = Quadratics.random(key=10, d=2), scaled(2), rule_for("sphere", 2, 1)
    found = second_moment_of_round(rule, problem, h, 1, 0.3, "central")
    gaussian = moments.second_moment(problem.gradients[0], 1 / h, problem.hessians[0], 0.3, 1, "gaussian", "central")
    rule.check(found, gaussian / 2)


def test_control_shared_directions_are_not_independent_ones():
    P, m, mu, h = 2, 3, 0.3, scaled(2)
    problem, rule = Quadratics.random(key=11, d=2, clients=m), rule_for("gaussian", 2, P)
    g, S = problem.gradients, problem.hessians
    shared = second_moment_of_round(rule, problem, h, P, mu)
    independent = moments.second_moment_independent(g, 1 / h, S, mu, P)
    gap = moments.second_moment_shared(g, 1 / h, S, mu, P) - independent
    rule.check(shared - independent, gap)
    assert np.abs(gap).max() > 1
