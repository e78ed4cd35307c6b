"""One-step moments of the neighbouring methods, exactly, through a real federated round in float64.

E dx and E dx dx' are compared with formulas (or with the rule written out again) on quadratics, where a central difference is
exact. Directions are injected: every node of a cubature, or every case of an enumeration, is a replicate.
"""

import itertools
import math

import numpy as np
import pytest

from hiso_bench import keys, methods
from hiso_bench.federation import Federation, FederationOptions
from hiso_bench.points import joined
from hiso_bench.testing import (
    Cubature,
    Quadratics,
    circle,
    federation_over,
    gauss_product,
    half_hermite,
    injected,
    product,
    signs,
    smolyak,
    take_round,
)

LR = 0.5


def build(name, **options):
    return methods.build(name, {"lr": LR, "mu": 0.3} | options)


def moments(rule, dx):
    """E dx and E dx dx'."""
    return rule.mean(dx), dx.T @ (rule.weights[:, None] * dx)


def axis_problem(d=3, m=2):
    """Clients whose gradients at the start all lie along the first axis: the sign of z.g is that of z_1."""
    problem = Quadratics.random(key=5, d=d, clients=m)
    problem.linear = -problem.hessians @ problem.start + np.array([1.5, 0.4][:m])[:, None] * np.eye(d)[0]
    return Quadratics(problem.hessians, problem.linear, problem.start)


@pytest.mark.parametrize("d", [2, 3])
def test_mezo_is_unbiased_and_its_second_moment_is_that_of_a_gaussian(d):
    problem = Quadratics.random(key=1, d=d)
    rule = smolyak(d)
    mean, second = moments(rule, take_round(federation_over(rule, problem, build("mezo"))))
    g = problem.gradients[0]
    rule.check(mean, g)
    rule.check(second, 2 * np.outer(g, g) + g @ g * np.eye(d))
    rule.check(np.trace(second), (d + 2) * (g @ g))  # the paper's (d + n - 1) / n, n = 1, is the sphere's


@pytest.mark.parametrize("m", [1, 2])
def test_feedsign_moves_along_the_normalised_gradient_by_a_step_that_does_not_shrink(m):
    problem = axis_problem(m=m)
    rule = product(half_hermite(4), gauss_product(2))
    mean, second = moments(rule, take_round(federation_over(rule, problem, build("feedsign"))))
    rule.check(mean, np.sqrt(2 / np.pi) * np.eye(3)[0])
    rule.check(second, np.eye(3))


def test_the_rule_for_feedsign_is_exact_for_even_and_odd_powers():
    rule = half_hermite(4)
    for k in range(8):
        expected = 2 ** (k / 2) * math.gamma((k + 1) / 2) / math.sqrt(math.pi)
        assert rule.mean(np.abs(rule.nodes[:, 0]) ** k) == pytest.approx(expected, rel=1e-11)


@pytest.mark.parametrize("name", ["zo-signsgd", "zo-rmsprop", "zo-adam"])
@pytest.mark.parametrize("ninth", range(1, 9))
def test_zo_signsgd_and_a_first_adaptive_step_move_by_the_arc_sine_of_the_normalised_gradient(ninth, name):
    """sign(dx) depends on the angle of z alone, and changes only at the axes and across g: the arcs between them are counted.

    A first step of RMSProp or Adam is dx / |dx| in every coordinate, whatever the weights of their averages.
    """
    angle = ninth * np.pi / 18
    g = np.array([np.cos(angle), np.sin(angle)])
    nodes = (np.arange(36) + 0.5) * np.pi / 18
    rule = Cubature(np.stack([np.cos(nodes), np.sin(nodes)], 1), np.full(36, 1 / 36))
    problem = Quadratics(np.zeros((1, 2, 2)), g[None] * 3.0, np.ones(2))
    mean, second = moments(rule, take_round(federation_over(rule, problem, build(name, perturbations=1))))
    np.testing.assert_allclose(mean, 2 / np.pi * np.arcsin(g), rtol=0, atol=1e-13 if name == "zo-signsgd" else 1e-6)
    np.testing.assert_allclose(np.diag(second), 1, rtol=1e-6)


@pytest.mark.parametrize("name", ["zo-signsgd", "zo-rmsprop", "zo-adam"])
@pytest.mark.parametrize("tenth", [1, 2, 3, 7, 9])
def test_with_two_directions_a_sign_is_unbiased_for_the_normalised_gradient(tenth, name):
    """dx_1 = (1 + c)/2 A - (1 - c)/2 B, c = g_1 / |g|: A and B are exponential, so A / (A + B) is uniform and is counted."""
    share = tenth / 10  # of A / (A + B): below it dx_1 < 0
    c = 1 - 2 * share
    g = np.array([c, np.sqrt(1 - c**2)])
    values, axes = np.linalg.eigh(np.array([[g[0], g[1] / 2], [g[1] / 2, 0.0]]))
    np.testing.assert_allclose(values, [(c - 1) / 2, (c + 1) / 2])
    a = (np.arange(10) + 0.5) / 10
    z = np.sqrt(a)[:, None] * axes[:, 1], np.sqrt(1 - a)[:, None] * axes[:, 0]
    rule = Cubature(np.concatenate(z, 1), np.full(10, 0.1))
    problem = Quadratics(np.zeros((1, 2, 2)), g[None] * 3.0, np.ones(2))
    mean, _ = moments(rule, take_round(federation_over(rule, problem, build(name, perturbations=2))))
    assert mean[0] == pytest.approx(g[0], abs=1e-6)


@pytest.mark.parametrize("P", [1, 2, 3])
def test_zo_signsgd_over_all_sign_vectors_is_the_rule_written_out(P):
    problem, rule = Quadratics.random(key=3, d=2, clients=2), signs(2 * P)
    dx = take_round(federation_over(rule, problem, build("zo-signsgd", perturbations=P, difference="central")))
    z = rule.nodes.reshape(-1, P, 2)
    np.testing.assert_array_equal(dx, np.sign(((z @ problem.gradients.mean(0))[..., None] * z).mean(1)))


def low_rank_round(name, shape, rank, rule, key=0):
    """dx at every node (N, m n), the gradient (m, n), of one m x n leaf whose factors are the rule's coordinates."""
    problem = Quadratics.random(key=key, d=math.prod(shape), leaf_shapes=(shape,)).replicated(len(rule.weights))
    method = build(name, rank=rank)
    directions = injected(rule, method, problem.layout)
    federation = Federation(problem, method, FederationOptions(wire="float64"), directions=directions)
    return take_round(federation), problem.gradients[0].reshape(shape)


@pytest.mark.parametrize(("shape", "rank"), [((2, 2), 1), ((3, 2), 1), ((2, 3), 1)])
def test_lozo_is_unbiased_and_its_second_moment_is_above_that_of_a_full_direction(shape, rank):
    m, n = shape
    rule = gauss_product((m + n) * rank)
    dx, G = low_rank_round("lozo", shape, rank, rule)
    mean, second = moments(rule, dx)
    rule.check(mean, G.ravel())
    expected = (m * n + 2 * (m + n + 1) / rank + 2) * (G**2).sum()
    rule.check(np.trace(second), expected)
    assert np.trace(second) > (m * n + 2) * (G**2).sum()


def test_lozo_of_rank_two_is_unbiased():
    rule = smolyak(12)
    dx, G = low_rank_round("lozo", (3, 3), 2, rule)
    rule.check(rule.mean(dx), G.ravel())


def test_subzero_of_rank_two_has_the_moments_of_its_formula():
    """Both moments are linear in the projectors UU' and VV', so the three coordinate planes stand for all planes of R^3."""
    planes = Cubature(np.array([np.eye(3)[:, pair].ravel() for pair in ((0, 1), (0, 2), (1, 2))]), np.full(3, 1 / 3))
    rule = product(planes, planes, gauss_product(4, 3))
    dx, G = low_rank_round("subzero", (3, 3), 2, rule)
    mean, second = moments(rule, dx)
    rule.check(mean, G.ravel())
    rule.check(np.trace(second), 9 * (1 + 2 / 2**2) * (G**2).sum())


def test_subzero_is_unbiased_over_its_subspaces_and_its_second_moment_is_above_that_of_a_full_direction():
    rule = product(circle(8), circle(8), gauss_product(1))
    dx, G = low_rank_round("subzero", (2, 2), 1, rule)
    mean, second = moments(rule, dx)
    rule.check(mean, G.ravel())
    rule.check(np.trace(second), 4 * (1 + 2) * (G**2).sum())


def test_subzero_within_one_subspace_sees_only_the_part_of_the_gradient_that_lies_there():
    u, v = np.array([2.0, 1.0]), np.array([1.0, -3.0])
    z = gauss_product(1)
    rule = Cubature(np.array([[*u, *v, *w] for w in z.nodes]), z.weights)
    dx, G = low_rank_round("subzero", (2, 2), 1, rule)
    u, v = u / np.linalg.norm(u), v / np.linalg.norm(v)
    rule.check(rule.mean(dx), 4 * (u @ G @ v) * np.outer(u, v).ravel())


@pytest.mark.parametrize("P", [1, 2, 3])
def test_fedkseed_given_its_pool_is_the_pools_own_second_moment_matrix(P):
    """The choice of seeds is enumerated: E dx = (1/K) sum_j z_j z_j' g, and two of P directions coincide with chance 1/K."""
    K, d = 3, 2
    pool = keys.rng(3).standard_normal((K, d))
    choices = np.array(list(itertools.product(range(K), repeat=P)))
    rule = Cubature(pool[choices].reshape(len(choices), -1), np.full(len(choices), 1 / len(choices)))
    problem = Quadratics.random(key=4, d=d)
    mean, second = moments(rule, take_round(federation_over(rule, problem, build("mezo", perturbations=P))))
    A, g = pool.T @ pool / K, problem.gradients[0]
    rule.check(mean, A @ g)
    single = np.mean([(z @ g) ** 2 * np.outer(z, z) for z in pool], axis=0)
    rule.check(second, (1 - 1 / P) * np.outer(A @ g, A @ g) + single / P)


@pytest.mark.parametrize("P", [2, 3])
def test_fedkseed_over_pools_repeats_directions_with_chance_one_in_k(P):
    """E |dx|^2 = [(1 - 1/P)(1 - 1/K) + (1/P + (1 - 1/P)/K) (d + 2)] |g|^2: a small pool wastes perturbations."""
    K, d = 2, 2
    problem = Quadratics.random(key=4, d=d)
    pool, total = smolyak(K * d), 0.0
    choices = list(itertools.product(range(K), repeat=P))
    for choice in choices:
        nodes = pool.nodes.reshape(-1, K, d)[:, list(choice)].reshape(len(pool.weights), -1)
        dx = take_round(federation_over(Cubature(nodes, pool.weights), problem, build("mezo", perturbations=P)))
        total += pool.mean((dx**2).sum(1)) / len(choices)
    g = problem.gradients[0]
    expected = ((1 - 1 / P) * (1 - 1 / K) + (1 / P + (1 - 1 / P) / K) * (d + 2)) * (g @ g)
    pool.check(np.array(total), np.array(expected))


@pytest.mark.parametrize("scale", ["code", "paper"])
@pytest.mark.parametrize("P", [2, 3])
def test_fzoo_over_all_sign_vectors_is_the_rule_written_out(P, scale):
    mu, problem, rule = 0.3, Quadratics.random(key=6, d=3, clients=2), signs(3 * P)
    dx = take_round(federation_over(rule, problem, build("fzoo", perturbations=P, scale=scale)))
    u = rule.nodes.reshape(-1, P, 3)
    g, S = problem.gradients.mean(0), problem.hessians.mean(0)
    losses = mu * (u @ g) + mu**2 / 2 * np.einsum("kpi,ij,kpj->kp", u, S, u)
    spread = losses.std(1, ddof=1)[:, None] / (1 if scale == "paper" else mu)
    expected = ((losses / mu)[..., None] * u).mean(1)
    same = np.ptp(losses, axis=1) < 1e-12  # equal losses: x does not move
    expected[~same] /= spread[~same]
    expected[same] = 0
    np.testing.assert_allclose(dx[~same], expected[~same], rtol=1e-9, atol=1e-9)
    assert same.any() and np.all(np.abs(dx[same]) < 1e16)


def test_fzoo_has_the_length_of_a_normalised_gradient_when_p_is_large():
    """For many directions dx -> g / |g|: the step no longer shrinks with the gradient, which is the point of the division."""
    problem = Quadratics(np.zeros((1, 4, 4)), np.array([[3.0, -1.0, 0.5, 2.0]]), np.ones(4))
    federation = build("fzoo", perturbations=4000).federate(problem, FederationOptions(law="rademacher", wire="float64", key=1))
    before = joined(federation.state.x, problem.layout)
    federation.round()
    dx = (before - joined(federation.state.x, problem.layout)).numpy() / LR
    g = problem.gradients[0]
    np.testing.assert_allclose(dx, g / np.linalg.norm(g), atol=0.1)


def learned(name, problem, h, **options):
    """E of H after one round with weight 1, from a diagonal H, and that H."""
    rule = smolyak(len(h))
    federation = federation_over(rule, problem, build(name, ema_new=1.0, **options))
    for leaf, start in zip(federation.state.buffers["h"], problem.point(h), strict=True):
        leaf.copy_(start.expand_as(leaf))
    take_round(federation)
    return rule, joined(federation.state.buffers["h"], federation.problem.layout).numpy()


@pytest.mark.parametrize("leaves", [None, ((2,), (1,))])
def test_hizoo_adds_half_the_trace_to_the_diagonal_of_the_hessian(leaves):
    """E of the published increment = S_ii + h_i tr(A) / 2: a curvature that is d/2 + 1 times too large at its fixed point."""
    draw, h = keys.rng(8).standard_normal((3, 3)), np.array([0.5, 1.0, 2.0])
    S = draw @ draw.T
    problem = Quadratics(S[None], keys.rng(9).standard_normal((1, 3)), np.ones(3), leaves)
    rule, found = learned("hizoo", problem, h)
    rule.check(rule.mean(found), np.diag(S) + h * np.trace(S / np.sqrt(np.outer(h, h))) / 2)
    fixed = (1 + 3 / 2) * np.diag(S)
    rule, found = learned("hizoo", problem, fixed)
    rule.check(rule.mean(found), np.diag(S) + fixed * (np.diag(S) / fixed).sum() / 2)
    np.testing.assert_allclose(rule.mean(found), fixed, rtol=1e-10)


def test_steins_form_is_unbiased_for_the_diagonal_of_any_hessian():
    problem, h = Quadratics.random(key=2, d=3, clients=2), np.array([0.5, 1.0, 2.0])
    # Without the floor, which would cut the negative estimates off: the increment is read off a small weight from far above it.
    rule = smolyak(3)
    federation = federation_over(rule, problem, build("hizoo-stein", ema_new=1e-6, h_floor=1e-12))
    for leaf, start in zip(federation.state.buffers["h"], problem.point(h), strict=True):
        leaf.copy_(start.expand_as(leaf))
    take_round(federation)
    after = joined(federation.state.buffers["h"], federation.problem.layout).numpy()
    np.testing.assert_allclose(rule.mean((after - (1 - 1e-6) * h) / 1e-6), np.diag(problem.hessians.mean(0)), rtol=0, atol=1e-7)


def test_hizoo_steps_like_hiso_with_the_h_that_it_drew_with():
    problem, h = Quadratics.random(key=3, d=3), np.array([0.5, 1.0, 2.0])
    rule = smolyak(3)
    federation = federation_over(rule, problem, build("hizoo"))
    for leaf, start in zip(federation.state.buffers["h"], problem.point(h), strict=True):
        leaf.copy_(start.expand_as(leaf))
    rule.check(rule.mean(take_round(federation)), problem.gradients[0] / h)
