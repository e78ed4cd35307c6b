"""One step and the stable rate against brute force: quadrature over every direction, explicit operators, closed forms."""

import itertools

import numpy as np
import pytest

from hiso_bench.theory.moments import (
    LAWS,
    mean,
    second_moment,
    second_moment_independent,
    second_moment_shared,
)
from hiso_bench.theory.stability import growth, max_stable_step, stable_step_bounds

TOLERANCE = 1e-12


# Brute force: every direction of a rule exact for polynomials of degree 7, and losses at real points.


def rule(law, d):
    """Nodes (n, d) and weights (n,) exact for the law of w up to total degree 7."""
    if law == "gaussian":
        nodes, weights = np.polynomial.hermite_e.hermegauss(4)
        nodes, weights = [nodes] * d, [weights / weights.sum()] * d
        return (
            np.array(list(itertools.product(*nodes))),
            np.array([np.prod(w) for w in itertools.product(*weights)]),
        )
    if law == "sphere":
        assert d == 2
        angles = 2 * np.pi * (np.arange(8) + 0.3) / 8
        return np.sqrt(2) * np.stack([np.cos(angles), np.sin(angles)], axis=1), np.full(8, 1 / 8)
    nodes = np.array(list(itertools.product([-1.0, 1.0], repeat=d)))
    return nodes, np.full(2**d, 0.5**d)


def power(nodes, weights, n):
    """The rule for n independent directions: nodes (N, n, d), weights (N,)."""
    index = np.array(list(itertools.product(range(len(nodes)), repeat=n)))
    return nodes[index], np.prod(weights[index], axis=1)


def brute_force(gs, C, Ss, mu, P, law, difference, independent):
    """E dx and E dx dx' of the clients' mean step, from values of f_i(x) = g_i.x + x'S_i x/2 around x = 0."""
    d, m = len(gs[0]), len(gs)
    w, weight = power(*rule(law, d), P * m if independent else P)
    values, vectors = np.linalg.eigh(C)
    z = w @ ((vectors * np.sqrt(values)) @ vectors.T)
    dx = 0.0
    for i, (g, S) in enumerate(zip(gs, Ss, strict=True)):
        zi = z[:, i * P : (i + 1) * P] if independent else z

        def f(x, g=g, S=S):
            return x @ g + 0.5 * np.einsum("...i,ij,...j", x, S, x)

        if mu == 0:
            scalars = zi @ g
        elif difference == "forward":
            scalars = f(mu * zi) / mu
        else:
            scalars = (f(mu * zi) - f(-mu * zi)) / (2 * mu)
        dx = dx + np.einsum("np,npd->nd", scalars, zi) / (P * m)
    return weight @ dx, np.einsum("n,ni,nj", weight, dx, dx)


def problem(d, key, diagonal):
    rng = np.random.default_rng(key)
    g = rng.normal(size=d)
    S = rng.normal(size=(d, d))
    S = S @ S.T + 0.1 * np.eye(d)
    C = rng.normal(size=(d, d))
    C = C @ C.T + 0.2 * np.eye(d)
    return (g, np.diag(np.diag(C)), S) if diagonal else (g, C, S)


def close(actual, expected, tolerance=TOLERANCE):
    np.testing.assert_allclose(actual, expected, rtol=0, atol=tolerance * (1 + np.max(np.abs(expected))))


@pytest.mark.parametrize("P", [1, 2, 3])
@pytest.mark.parametrize(("mu", "difference"), [(0.0, "forward"), (0.3, "forward"), (0.3, "central")])
@pytest.mark.parametrize("law", LAWS)
def test_moments_equal_the_sum_over_all_directions(law, mu, difference, P):
    g, C, S = problem(2, key=3, diagonal=law == "rademacher")
    first, second = brute_force([g], C, [S], mu, P, law, difference, independent=False)
    close(mean(g, C), first)
    close(second_moment(g, C, S, mu, P, law, difference), second)


@pytest.mark.parametrize("law", ["gaussian", "rademacher"])
def test_moments_hold_in_more_dimensions(law):
    g, C, S = problem(4, key=5, diagonal=law == "rademacher")
    _, second = brute_force([g], C, [S], 0.3, 1, law, "forward", independent=False)
    close(second_moment(g, C, S, 0.3, 1, law), second)


def test_rademacher_off_diagonal_is_that_of_other_laws():
    # Only the diagonal loses its k1 term: dropping it from the whole matrix is wrong for any d >= 2.
    g = np.array([1.0, 2.0])
    second = second_moment(g, np.ones(2), np.ones(2), 0.0, 1, "rademacher")
    close(second, [[5.0, 4.0], [4.0, 5.0]])


@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize("independent", [False, True])
def test_client_moments_equal_the_sum_over_all_directions(law, independent):
    g1, C, S1 = problem(2, key=7, diagonal=law == "rademacher")
    g2, _, S2 = problem(2, key=8, diagonal=True)
    P = 2 if law != "gaussian" else 1
    _, second = brute_force([g1, g2], C, [S1, S2], 0.3, P, law, "forward", independent)
    formula = second_moment_independent if independent else second_moment_shared
    close(formula([g1, g2], C, [S1, S2], 0.3, P, law), second)


def test_equal_clients_with_independent_directions_are_m_times_the_directions():
    g, C, S = problem(5, key=9, diagonal=False)
    close(second_moment_independent([g] * 4, C, [S] * 4, 0.2, 3), second_moment(g, C, S, 0.2, 12))


def test_gradient_noise_enters_as_the_average_over_gradients():
    g, C, S = problem(3, key=11, diagonal=False)
    shift = np.array([0.4, -1.0, 0.3])
    averaged = (second_moment(g + shift, C, S, 0.2, 3) + second_moment(g - shift, C, S, 0.2, 3)) / 2
    close(second_moment(g, C, S, 0.2, 3, noise=np.outer(shift, shift)), averaged)


def test_traces_are_the_factors_of_the_laws():
    d, P = 7, 3
    g, _, S = problem(d, key=13, diagonal=True)
    g2 = g @ g
    close(np.trace(second_moment(g, np.ones(d), S, 0, P)), (d + P + 1) / P * g2)
    close(np.trace(second_moment(g, np.ones(d), S, 0, P, "sphere")), (d + P - 1) / P * g2)
    # The factor of the sphere law: attained where g is along the top eigenvector.
    values, vectors = np.linalg.eigh(S)
    kappa = values.sum() / values[-1]
    weighted = np.sum(S * second_moment(vectors[:, -1], np.ones(d), S, 0, P, "sphere"))
    close(weighted, values[-1] * (1 + (kappa * d + d - 2) / (P * (d + 2))))


SPECTRUM = np.array([3.0, 1.0, 0.5, 0.2])
PRECONDITIONER = np.array([2.0, 0.5, 1.0, 0.7])


# Stability.


def spectral_radius(C, S, eta, P, law):
    """Radius of M -> M - eta (C S M + M S C) + eta^2 E[dx dx' | cov x = M] over the symmetric matrices M."""
    d = len(S)
    pairs = [(i, j) for i in range(d) for j in range(i, d)]
    columns = []
    for i, j in pairs:
        M = np.zeros((d, d))
        M[i, j] = M[j, i] = 1.0
        moved = M - eta * (C @ S @ M + M @ S @ C)
        moved = moved + eta**2 * second_moment(np.zeros(d), C, S, 0.0, P, law, noise=S @ M @ S)
        columns.append([moved[p] for p in pairs])
    return np.max(np.abs(np.linalg.eigvals(np.array(columns).T)))


@pytest.mark.parametrize("P", [1, 2, 5, 100])
@pytest.mark.parametrize("law", LAWS)
def test_the_stable_step_is_where_the_operator_has_radius_one(law, P):
    s, h = SPECTRUM, PRECONDITIONER
    eta = max_stable_step(s, h, P, law)
    assert abs(spectral_radius(np.diag(1 / h), np.diag(s), eta, P, law) - 1) < 1e-9
    assert spectral_radius(np.diag(1 / h), np.diag(s), 0.99 * eta, P, law) < 1
    assert spectral_radius(np.diag(1 / h), np.diag(s), 1.01 * eta, P, law) > 1


@pytest.mark.parametrize("law", ["gaussian", "sphere"])
def test_a_full_preconditioner_enters_through_the_whitened_spectrum(law):
    _, C, S = problem(4, key=19, diagonal=False)
    spectrum = np.sort(np.linalg.eigvals(C @ S).real)
    eta = max_stable_step(spectrum, 1.0, 3, law)
    assert abs(spectral_radius(C, S, eta, 3, law) - 1) < 1e-9


@pytest.mark.parametrize("P", [1, 5, 50])
@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize("power_law", [0.0, 0.5, 1.0, 3.0])
def test_the_bounds_hold_and_meet_on_flat_spectra(law, P, power_law):
    s = np.arange(1.0, 301) ** -power_law
    low, high = stable_step_bounds(s, 1.0, P, law)
    eta = max_stable_step(s, 1.0, P, law)
    assert low <= eta <= high
    if power_law == 0:
        np.testing.assert_allclose([low, high], eta, rtol=1e-14)
    if law == "gaussian":
        T, L = s.sum(), s[0]
        np.testing.assert_allclose(low, 2 * P / (T + (P + 1) * L), rtol=1e-14)
        assert high <= 2 * P / T and high <= 2 * P / ((P + 2) * L) * (1 + 1e-14)


def test_closed_forms_of_the_stable_step():
    np.testing.assert_allclose(max_stable_step([4.0], 2.0, 1), 2 / (3 * 2.0), rtol=1e-14)
    np.testing.assert_allclose(max_stable_step(np.full(9, 2.0), 2.0, 5), 2 * 5 / (9 + 5 + 1), rtol=1e-14)
    np.testing.assert_allclose(max_stable_step(SPECTRUM, 1.0, 10**12), 2 / SPECTRUM.max(), rtol=1e-9)
    np.testing.assert_allclose(growth(SPECTRUM, 1.0, max_stable_step(SPECTRUM, 1.0, 3), 3), 1, rtol=1e-13)


# Misuse.

ONES, TILTED = np.ones(2), [[1.0, 0.1], [0.1, 1.0]]


@pytest.mark.parametrize(
    ("call", "reason"),
    [
        (lambda: second_moment(ONES, TILTED, ONES, 0, 1, "rademacher"), "diagonal C"),
        (lambda: second_moment(ONES, [[1, 2], [2, 1]], ONES, 0, 1), "positive definite"),
        (lambda: second_moment(ONES, ONES, [[1, 0], [1, 1]], 0, 1), "symmetric"),
        (lambda: second_moment(ONES, np.ones(3), ONES, 0, 1), "shape"),
        (lambda: second_moment(ONES, ONES, ONES, -0.1, 1), "mu"),
        (lambda: second_moment(ONES, ONES, ONES, 0, 0), "P must"),
        (lambda: second_moment(ONES, ONES, ONES, 0, 1, "cauchy"), "unknown law"),
        (lambda: second_moment(ONES, ONES, ONES, 0, 1, difference="back"), "unknown difference"),
        (lambda: second_moment_independent([], ONES, [], 0, 1), "per client"),
        (lambda: max_stable_step([1.0, -1.0], 1.0, 1), "eigenvalues"),
        (lambda: max_stable_step([1.0, 1.0], 0.0, 1), "positive"),
    ],
)
def test_misuse_is_refused_with_the_reason(call, reason):
    with pytest.raises(ValueError, match=reason):
        call()
