"""E of one update of H, exactly, through a real federated round that starts from a given H.

H-c: h + ema (E dx_j^2 + eps - h) with the step of the mean; H-a: the clients' own second moments, averaged. For tau = 2 H
is frozen while the steps are taken; H-b then learns from the first, H-d from the last, H-c from each in order.
"""

import numpy as np
import pytest

from hiso_bench.methods import HiSo, build
from hiso_bench.testing import Quadratics, federation_over, gauss_product, joined, rule_for, smolyak, take_round
from hiso_bench.theory import moments

LAWS = ["gaussian", "sphere", "rademacher"]
DIMENSION = {"gaussian": 3, "sphere": 2, "rademacher": 3}
SEVERAL = {2: ((1,), ()), 3: ((2, 1), ())}
LR, EMA, EPS = 0.5, 0.3, 0.01


def given_h(d):
    """H before the round: two decades."""
    return np.geomspace(10.0, 0.1, d)


def start(rule, problem, method, h, **how):
    """A federation whose H stands at h."""
    federation = federation_over(rule, problem, method, **how)
    federation.state.buffers["h"] = tuple(
        value.expand_as(leaf).clone() for value, leaf in zip(problem.point(h), federation.state.x, strict=True)
    )
    return federation


def learned(federation):
    return joined(federation.state.buffers["h"], federation.problem.layout).numpy()


def update(h, square, eps=EPS, ema=EMA):
    return h + ema * (square + eps - h)


def clients_squares(problem, h, mu, P, law, difference):
    """Each client's diag E dx_i dx_i', (clients, d)."""
    pairs = zip(problem.gradients, problem.hessians, strict=True)
    return np.array([np.diag(moments.second_moment(g, 1 / h, S, mu, P, law, difference)) for g, S in pairs])


@pytest.mark.parametrize("mu", [0.1, 0.3])
@pytest.mark.parametrize("difference", ["forward", "central"])
@pytest.mark.parametrize("P", [1, 2, 3, 5])
@pytest.mark.parametrize("law", LAWS)
def test_shared_directions(law, P, difference, mu):
    d, m = DIMENSION[law], 3
    h, rule = given_h(d), rule_for(law, d, P)
    problem = Quadratics.random(key=P, d=d, clients=m, leaf_shapes=SEVERAL[d], diagonal=law == "rademacher")
    options = dict(lr=LR, mu=mu, perturbations=P, difference=difference, ema_new=EMA, eps=EPS)
    g, S = problem.gradients, problem.hessians
    of_mean = np.diag(moments.second_moment_shared(g, 1 / h, S, mu, P, law, difference))
    of_each = clients_squares(problem, h, mu, P, law, difference)
    for name, square in [("hiso-c", of_mean), ("hiso-a", of_each.mean(0))]:
        federation = start(rule, problem, build(name, options), h)
        dx = take_round(federation)
        rule.check(rule.mean(learned(federation)), update(h, square))
        rule.check(rule.mean(dx), g.mean(0) / h)  # x moved with the old H
    # Control: the square of the mean is less than the mean of squares by the clients' spread.
    apart = Quadratics(S - S.mean(0), problem.linear - problem.linear.mean(0), problem.start)
    spread = clients_squares(apart, h, mu, P, law, difference).mean(0)
    np.testing.assert_allclose(of_each.mean(0) - of_mean, spread, rtol=0, atol=1e-11)
    assert np.all(EMA * spread > 1e-3) and np.max(EMA * spread) > 0.1


@pytest.mark.parametrize(("law", "P", "m"), [("gaussian", 1, 4), ("gaussian", 3, 2), ("sphere", 2, 2), ("rademacher", 2, 3)])
def test_independent_directions(law, P, m):
    d, mu, h = 2, 0.3, given_h(2)
    problem = Quadratics.random(key=m, d=d, clients=m, diagonal=law == "rademacher")
    rule = rule_for(law, d, P * m)
    options = dict(lr=LR, mu=mu, perturbations=P, ema_new=EMA, eps=EPS)
    of_mean = np.diag(moments.second_moment_independent(problem.gradients, 1 / h, problem.hessians, mu, P, law))
    of_each = clients_squares(problem, h, mu, P, law, "forward").mean(0)
    for name, square in [("hiso-c", of_mean), ("hiso-a", of_each)]:
        federation = start(rule, problem, build(name, options), h, independent=True)
        federation.round()
        rule.check(rule.mean(learned(federation)), update(h, square))
    assert np.max(EMA * (of_each - of_mean)) > 1  # the two rules are far apart


@pytest.mark.parametrize("law", ["gaussian", "rademacher"])
@pytest.mark.parametrize("P", [1, 2])
@pytest.mark.parametrize("difference", ["forward", "central"])
def test_local_steps_are_learned_first_last_or_each(law, P, difference):
    # The second step's square has degree 6 in each of the two steps' directions: a product rule.
    d, mu, h = 2, 0.3, np.array([3.0, 0.5])
    problem = Quadratics.random(key=20, d=d, diagonal=law == "rademacher")
    rule = gauss_product(2 * P * d) if law == "gaussian" else rule_for(law, d, 2 * P)
    (g,), (S,), C = problem.gradients, problem.hessians, np.diag(1 / h)
    one = moments.second_moment(g, C, S, mu, P, law, difference)
    # The second step starts at x - eta dx: a gradient with mean g - eta S C g and covariance eta^2 S cov(dx) S.
    cov = LR**2 * S @ (one - np.outer(C @ g, C @ g)) @ S
    two = moments.second_moment(g - LR * S @ C @ g, C, S, mu, P, law, difference, noise=cov)
    first, last = np.diag(one), np.diag(two)
    expected = {
        "hiso-b": update(h, first),
        "hiso-c": update(update(h, first), last),
        "hiso-d": update(h, last, eps=0.0),
        "hiso-a": update(update(h, first), last),  # one client: its square is the mean's
    }
    for name, value in expected.items():
        options = dict(lr=LR, mu=mu, perturbations=P, difference=difference, ema_new=EMA)
        options |= {} if name == "hiso-d" else {"eps": EPS}
        federation = start(rule, problem, build(name, options), h, local_steps=2)
        federation.round()
        rule.check(rule.mean(learned(federation)), value)
    # Control: the three differ.
    values = [expected[name] for name in ("hiso-b", "hiso-c", "hiso-d")]
    assert min(np.abs(a - b).max() for i, a in enumerate(values) for b in values[:i]) > 0.05


def test_control_a_rule_of_degree_seven_misses_the_second_local_step():
    # The check above needs its product rule: Smolyak's is exact for the first step's square and wrong for the second's.
    problem, h, P = Quadratics.random(key=20, d=2), np.array([3.0, 0.5]), 1
    means = {}
    for rule in (smolyak(4), gauss_product(4)):
        for name in ("hiso-b", "hiso-d"):
            method = build(name, lr=LR, mu=0.3, perturbations=P, ema_new=EMA)
            federation = start(rule, problem, method, h, local_steps=2)
            federation.round()
            means.setdefault(name, []).append(rule.mean(learned(federation)))
    np.testing.assert_allclose(*means["hiso-b"], rtol=1e-11)
    assert np.abs(np.subtract(*means["hiso-d"])).max() > 0.01


# Controls: one ingredient replaced.


class SquaresU(HiSo):
    """H learns from (1/P) sum s_p u_p, with u in z's place."""

    def learn(self, state, steps, z, dx):
        self.direction(steps[0], state.layout, z.directions.draw, out=dx)
        super().learn(state, steps, z, dx)


class LearnsPerDirection(HiSo):
    """The mean over P of (s_p z_p)^2 in place of the square of the mean."""

    def learn(self, state, steps, z, dx):
        squares = [0.0] * len(dx)
        for part in steps[0].perturbations():
            self.direction(part, state.layout, z, out=dx)
            squares = [total + self.perturbations * leaf**2 for total, leaf in zip(squares, dx, strict=True)]
        for leaf, square in zip(dx, squares, strict=True):
            leaf.copy_(square.sqrt())
        super().learn(state, steps, z, dx)


# name -> (method, changed options, H after the round as a function of h, P and the square for a number of directions)
CONTROLS = {
    "eps forgotten": (HiSo, {"eps": 0.0}, lambda h, P, square: update(h, square(P), eps=0.0)),
    "weights exchanged": (HiSo, {"ema_new": 1 - EMA}, lambda h, P, square: update(h, square(P), ema=1 - EMA)),
    "u in place of z": (SquaresU, {}, lambda h, P, square: update(h, h * square(P))),
    "mean of squares over P": (LearnsPerDirection, {}, lambda h, P, square: update(h, square(1))),
}
MISS = {"eps forgotten": EMA * EPS, "weights exchanged": 1, "u in place of z": 1, "mean of squares over P": 1}


@pytest.mark.parametrize("name", CONTROLS)
def test_control_a_broken_update_is_off_by_the_predicted_amount(name):
    kind, changed, predict = CONTROLS[name]
    d, P, mu, h = 3, 3, 0.3, given_h(3)
    problem, rule = Quadratics.random(key=12, d=d, clients=2), rule_for("gaussian", d, P)

    def square(directions):
        return np.diag(moments.second_moment_shared(problem.gradients, 1 / h, problem.hessians, mu, directions))

    method = kind(**(dict(lr=LR, mu=mu, perturbations=P, ema_new=EMA, eps=EPS) | changed))
    federation = start(rule, problem, method, h)
    federation.round()
    predicted, correct = predict(h, P, square), update(h, square(P))
    rule.check(rule.mean(learned(federation)), predicted)
    assert np.abs(predicted - correct).max() > 0.99 * MISS[name]
