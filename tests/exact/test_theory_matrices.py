"""The recursion of full matrices: every direction, noise and sample of clients enumerated over two rounds; then the core."""

import itertools

import numpy as np
import pytest

from hiso_bench.methods import OracleH
from hiso_bench.testing import Quadratics, circles, federation_over, gauss_product, joined, rule_for, signs
from hiso_bench.theory.matrices import MatrixRecursion, Moments
from hiso_bench.theory.moments import LAWS
from hiso_bench.theory.recursion import expected_curves, expected_squares
from hiso_bench.theory.recursion import floor as diagonal_floor
from hiso_bench.theory.stability import max_stable_step

MU, ETA = 0.3, 0.15


def close(actual, expected, tolerance=1e-12):
    np.testing.assert_allclose(actual, expected, rtol=0, atol=tolerance * (1 + np.max(np.abs(expected))))


def product_rule(law, n):
    """Exact to degree 6 in every coordinate: the second round squares what the first has squared."""
    return {"gaussian": lambda: gauss_product(2 * n), "sphere": lambda: circles(n), "rademacher": lambda: signs(2 * n)}[law]()


def clients(M, d=2, key=0, diagonal=False):
    rng = np.random.default_rng(key)
    A = rng.normal(size=(M, d, d))
    S = A @ A.transpose(0, 2, 1) / d + 0.2 * np.eye(d)
    C = rng.normal(size=(d, d))
    C = np.diag(0.5 + rng.random(d)) if diagonal else C @ C.T + 0.3 * np.eye(d)
    return S, rng.normal(size=(M, d)), rng.normal(size=(M, d)), C, rng.normal(size=d)


def enumerate_round(x, weight, S, b, noise, C, P, law, difference, m, independent):
    """All points after one round from all points before it, with their weights; client i's noise is +-noise[i]."""
    M, d = b.shape
    rule = product_rule(law, P * (m if independent else 1))
    values, vectors = np.linalg.eigh(C)
    root = (vectors * np.sqrt(values)) @ vectors.T
    z = (rule.nodes.reshape(len(rule.nodes), -1, P, d) @ root)[None]
    points, weights = [], []
    samples = list(itertools.combinations(range(M), m))
    flips = list(itertools.product([-1.0, 1.0], repeat=m)) if noise is not None else [(0.0,) * m]
    for sample, flip in itertools.product(samples, flips):
        dx = 0.0
        for slot, (i, sign) in enumerate(zip(sample, flip, strict=True)):
            zi = z[:, :, slot if independent else 0]
            linear = b[i] + (0.0 if noise is None else sign * noise[i])

            def f(x, S=S[i], linear=linear):
                return 0.5 * np.einsum("...i,ij,...j", x, S, x) + x @ linear

            here = x[:, None, None]
            if difference == "forward":
                scalars = (f(here + MU * zi) - f(here)) / MU
            else:
                scalars = (f(here + MU * zi) - f(here - MU * zi)) / (2 * MU)
            dx = dx + np.einsum("xnp,znpd->xnd", scalars, zi) / (P * m)
        points.append((x[:, None] - ETA * dx).reshape(-1, d))
        weights.append(np.outer(weight, rule.weights).ravel() / len(samples) / len(flips))
    return np.concatenate(points), np.concatenate(weights)


CASES = [
    # law, difference, P, M, m, independent, noise, rounds
    *[(law, "forward", 2, 1, 1, False, False, 2) for law in LAWS],
    *[(law, "forward", 1, 3, 2, False, True, 2) for law in LAWS],
    *[(law, "forward", 1, 3, 2, True, False, 2) for law in LAWS],
    *[(law, "central", 1, 3, 2, True, True, 1) for law in LAWS],
    ("gaussian", "forward", 1, 3, 3, False, True, 2),
    ("gaussian", "central", 1, 3, 1, False, True, 2),
    ("gaussian", "forward", 1, 3, 1, True, True, 2),
    ("sphere", "forward", 2, 2, 2, True, True, 1),
]


@pytest.mark.parametrize(("law", "difference", "P", "M", "m", "independent", "noisy", "rounds"), CASES)
def test_the_recursion_is_the_sum_over_all_that_can_happen(law, difference, P, M, m, independent, noisy, rounds):
    S, b, v, C, start = clients(M, key=len(law) + P + M + m, diagonal=law == "rademacher")
    noise = v if noisy else None
    theory = MatrixRecursion(
        S, C, P, MU, law, difference, linear=b, noise=v[:, :, None] * v[:, None] if noisy else None, sampled=m,
        independent=independent,
    )  # fmt: skip
    x, weight = start[None], np.ones(1)
    for now in list(theory.moments(start, ETA, rounds))[1:]:
        x, weight = enumerate_round(x, weight, S, b, noise, C, P, law, difference, m, independent)
        close(now.mean, weight @ x)
        close(now.second, (x * weight[:, None]).T @ x)
        gradient = x @ S.mean(0) + b.mean(0)
        losses = 0.5 * np.einsum("ni,ij,nj->n", x, S.mean(0), x) + x @ b.mean(0)
        norms = np.einsum("ni,ij,nj->n", gradient, C, gradient), np.sum(gradient**2, axis=1)
        close(theory.measure(now), [weight @ losses, weight @ norms[0], weight @ norms[1]])


@pytest.mark.parametrize("independent", [False, True])
@pytest.mark.parametrize("law", LAWS)
def test_two_rounds_of_the_core_follow_it(law, independent):
    # Two clients with full Hessians and gradients of their own, two leaves, through messages, ledger and replay.
    h = np.array([2.0, 0.5])
    problem = Quadratics.random(key=21, d=2, clients=2, leaf_shapes=((1,), ()))
    rule = product_rule(law, 2 * (2 if independent else 1))
    method = OracleH(lr=ETA, mu=MU, perturbations=1, h=problem.point(h), eps=0.0)
    federation = federation_over(rule, problem, method, rounds=2, independent=independent)
    theory = MatrixRecursion(problem.hessians, 1 / h, 1, MU, law, linear=problem.linear, independent=independent)
    for now in list(theory.moments(problem.start, ETA, 2))[1:]:
        federation.round()
        x = joined(federation.state.x, federation.problem.layout).numpy()
        rule.check(rule.mean(x), now.mean)
        rule.check((x * rule.weights[:, None]).T @ x, now.second)


def test_one_round_of_the_core_in_five_dimensions():
    h = np.geomspace(3, 0.3, 5)
    problem = Quadratics.random(key=22, d=5, clients=3)
    rule = rule_for("gaussian", 5, 3)
    federation = federation_over(rule, problem, OracleH(lr=ETA, mu=MU, perturbations=3, h=problem.point(h), eps=0.0))
    theory = MatrixRecursion(problem.hessians, 1 / h, 3, MU, linear=problem.linear)
    federation.round()
    x = joined(federation.state.x, federation.problem.layout).numpy()
    rule.check((x * rule.weights[:, None]).T @ x, list(theory.moments(problem.start, ETA, 1))[1].second)


SPECTRUM = np.array([3.0, 1.0, 0.5, 0.2])
PRECONDITIONER = np.array([2.0, 0.5, 1.0, 0.7])
START = np.array([1.0, -2.0, 0.5, 3.0])
NOISE = np.array([0.3, 0.0, 0.1, 0.7])


def differences(M, d=4):
    b = np.random.default_rng(4).normal(size=(M, d))
    return b - b.mean(0)


@pytest.mark.parametrize("independent", [False, True])
@pytest.mark.parametrize("law", LAWS)
def test_a_diagonal_problem_is_the_diagonal_recursion(law, independent):
    b, args = differences(5), (START, 0.1, 2, 60, MU, law, "forward", NOISE, 3)
    theory = MatrixRecursion(SPECTRUM, 1 / PRECONDITIONER, 2, MU, law, linear=b, noise=NOISE, sampled=3, independent=independent)
    more = {"clients": 5, "heterogeneity": np.mean(b**2, axis=0), "independent": independent}
    for found, expected in zip(
        theory.curves(START, 0.1, 60), expected_curves(SPECTRUM, PRECONDITIONER, *args, **more), strict=True
    ):
        close(found, expected)
    squares = list(expected_squares(SPECTRUM, PRECONDITIONER, *args, **more))
    for now, a in zip(theory.moments(START, 0.1, 60), squares, strict=True):
        close(np.diag(now.second), a)
    found = theory.floor(0.1)
    expected = diagonal_floor(SPECTRUM, PRECONDITIONER, 0.1, *args[2:3], MU, law, "forward", NOISE, 3, **more)
    np.testing.assert_allclose(found, expected, rtol=1e-11)


@pytest.mark.parametrize("independent", [False, True])
@pytest.mark.parametrize("law", ["gaussian", "sphere"])
def test_a_rotation_changes_nothing_where_the_law_has_no_axes(law, independent):
    # Different Hessians, full C and V, sampled clients.
    S, b, v, C, start = clients(4, d=3, key=9)
    V = v[:, :, None] * v[:, None]
    Q, _ = np.linalg.qr(np.random.default_rng(1).normal(size=(3, 3)))
    options = {"law": law, "sampled": 2, "independent": independent}
    plain = MatrixRecursion(S, C, 2, MU, linear=b, noise=V, **options)
    turned = MatrixRecursion(Q @ S @ Q.T, Q @ C @ Q.T, 2, MU, linear=b @ Q.T, noise=Q @ V @ Q.T, **options)
    curves, same = plain.curves(start, 0.02, 40), turned.curves(Q @ start, 0.02, 40)
    close(same.loss, curves.loss)
    close(same.gradient, curves.gradient)
    close(same.euclidean, curves.euclidean)
    np.testing.assert_allclose(turned.floor(0.02), plain.floor(0.02), rtol=1e-10)


def test_rademacher_directions_do_know_the_axes():
    S = np.diag(SPECTRUM)
    Q, _ = np.linalg.qr(np.random.default_rng(2).normal(size=(4, 4)))
    plain = MatrixRecursion(S, np.ones(4), 2, MU, "rademacher").curves(START, 0.1, 10).loss
    turned = MatrixRecursion(Q @ S @ Q.T, np.ones(4), 2, MU, "rademacher").curves(Q @ START, 0.1, 10).loss
    assert abs(turned[-1] / plain[-1] - 1) > 1e-3


@pytest.mark.parametrize("independent", [False, True])
@pytest.mark.parametrize("sampled", [2, 4])
def test_the_floor_is_where_the_rounds_end(sampled, independent):
    S, b, v, C, start = clients(4, d=3, key=11)
    theory = MatrixRecursion(S, C, 3, MU, linear=b, noise=v[:, :, None] * v[:, None], sampled=sampled, independent=independent)
    curves = theory.curves(start, 0.04, 6000)
    np.testing.assert_allclose([curve[-1] for curve in curves], theory.floor(0.04), rtol=1e-10)


def test_the_floor_is_infinite_from_the_stable_step_on():
    Q, _ = np.linalg.qr(np.random.default_rng(3).normal(size=(4, 4)))
    theory = MatrixRecursion(Q @ np.diag(SPECTRUM) @ Q.T, np.eye(4), 3, MU)
    eta = max_stable_step(SPECTRUM, 1.0, 3)
    assert np.isfinite(theory.floor(0.999 * eta).loss)
    assert np.isinf(theory.floor(1.001 * eta).loss)


def test_different_hessians_lower_the_stable_step():
    # Two clients, one of which has all of the curvature: sampling one of them at a time is not descent on the mean.
    S = np.array([np.diag([2.0, 0.1]), np.diag([0.0, 0.1])])
    eta = 0.97 * max_stable_step([1.0, 0.1], 1.0, 2)
    assert np.isfinite(MatrixRecursion(S, np.ones(2), 2, MU).floor(eta).loss)
    assert np.isinf(MatrixRecursion(S, np.ones(2), 2, MU, sampled=1).floor(eta).loss)


def test_a_random_start_is_the_mean_over_starts():
    S, b, _, C, start = clients(2, d=3, key=12)
    theory, shift = MatrixRecursion(S, C, 2, MU, linear=b, sampled=1), np.array([0.3, -1.0, 0.2])
    pair = [theory.curves(start + sign * shift, 0.05, 10).loss for sign in (1, -1)]
    close(theory.curves(start, 0.05, 10, covariance=np.outer(shift, shift)).loss, np.mean(pair, axis=0))


def test_divergence_ends_in_infinity_without_a_warning():
    curves = MatrixRecursion(SPECTRUM, np.ones(4), 1, MU).curves(START, 10.0, 1000)
    assert np.isinf(curves.loss[-1]) and not np.any(np.isnan(curves.loss))


ONES = np.ones(2)


@pytest.mark.parametrize(
    ("call", "reason"),
    [
        (lambda: MatrixRecursion(np.ones((2, 2, 2)), ONES, 1, 0.1, linear=np.ones((3, 2))), "number of clients"),
        (lambda: MatrixRecursion([[1, 0], [1, 1]], ONES, 1, 0.1), "symmetric"),
        (lambda: MatrixRecursion(ONES, [[1, 2], [2, 1]], 1, 0.1), "positive definite"),
        (lambda: MatrixRecursion(ONES, [[1, 0.1], [0.1, 1]], 1, 0.1, "rademacher"), "diagonal C"),
        (lambda: MatrixRecursion(ONES, ONES, 1, 0.1, linear=np.ones(3)), "linear"),
        (lambda: MatrixRecursion(ONES, ONES, 1, 0.1, clients=3, sampled=4), "sampled 4"),
        (lambda: MatrixRecursion(ONES, ONES, 1, -0.1), "mu"),
        (lambda: MatrixRecursion(ONES, ONES, 1, 0.1).curves(np.ones(3), 0.1, 1), "x0"),
        (lambda: MatrixRecursion(ONES, ONES, 1, 0.1).curves(ONES, 0.1, -1), "rounds"),
        (lambda: MatrixRecursion(ONES, ONES, 1, 0.1).floor(0.0), "eta"),
        (lambda: MatrixRecursion([1.0, 0.0], ONES, 1, 0.1).floor(0.1), "positive definite"),
    ],
)
def test_misuse_is_refused_with_the_reason(call, reason):
    with pytest.raises(ValueError, match=reason):
        call()


def test_moments_are_symmetric():
    S, b, _, C, start = clients(3, d=3, key=13)
    now = Moments(start, np.outer(start, start))
    second = MatrixRecursion(S, C, 2, MU, linear=b, sampled=2).round(now, 0.1).second
    assert np.array_equal(second, second.T)
