"""The recursion of diagonal problems: against one step's moments, and against itself where a part of it must not matter.

That several rounds are what a round does, is proved in test_theory_matrices (every case enumerated) and, through the real
core, in tests/expectation.
"""

import itertools

import numpy as np
import pytest

from hiso_bench.theory import whitened
from hiso_bench.theory.diagonal import clients_step, step
from hiso_bench.theory.moments import LAWS, mean, second_moment, second_moment_independent
from hiso_bench.theory.recursion import expected_curves, expected_loss, expected_squares, floor, noise_floor
from hiso_bench.theory.stability import max_stable_step

SPECTRUM = np.array([3.0, 1.0, 0.5, 0.2])
PRECONDITIONER = np.array([2.0, 0.5, 1.0, 0.7])
START = np.array([1.0, -2.0, 0.5, 3.0])
NOISE = np.array([0.3, 0.0, 0.1, 0.7])
SPREAD = np.array([0.2, 0.5, 0.0, 0.3])


def close(actual, expected, tolerance=1e-12):
    np.testing.assert_allclose(actual, expected, rtol=0, atol=tolerance * (1 + np.max(np.abs(expected))))


@pytest.mark.parametrize("difference", ["forward", "central"])
@pytest.mark.parametrize("law", LAWS)
def test_the_cheap_diagonal_is_the_diagonal_of_the_second_moment(law, difference):
    g = SPECTRUM * START
    whole = second_moment(g, 1 / PRECONDITIONER, SPECTRUM, 0.3, 3, law, difference, noise=NOISE)
    own, spread, kick = clients_step(SPECTRUM / PRECONDITIONER, 0.3, 3, law, difference, NOISE / PRECONDITIONER)
    p = g**2 / PRECONDITIONER
    close((own * p + spread * p.sum() + kick) / PRECONDITIONER, np.diag(whole))


@pytest.mark.parametrize("difference", ["forward", "central"])
@pytest.mark.parametrize("law", LAWS)
def test_one_round_is_the_moments(law, difference):
    s, C, eta, P, mu, m = SPECTRUM, 1 / PRECONDITIONER, 0.2, 3, 0.3, 2
    g = s * START
    second = second_moment(g, C, s, mu, P, law, difference, noise=NOISE / m)
    squares = START**2 - 2 * eta * START * mean(g, C) + eta**2 * np.diag(second)
    curves = expected_curves(s, PRECONDITIONER, START, eta, P, 1, mu, law, difference, NOISE, m)
    for curve, weights in zip(curves, (s / 2, s**2 * C, s**2), strict=True):
        close(curve, [weights @ START**2, weights @ squares])


@pytest.mark.parametrize("independent", [False, True])
@pytest.mark.parametrize("law", LAWS)
def test_sampled_clients_are_the_mean_over_all_samples(law, independent):
    # 2 of 4 clients, every pair equally likely; their gradients differ by b_i, which sum to zero.
    C, mu, P, m, M = 1 / PRECONDITIONER, 0.3, 3, 2, 4
    b = np.random.default_rng(3).normal(size=(M, 4))
    b -= b.mean(0)
    g = SPECTRUM * START
    found = []
    for pair in itertools.combinations(b, m):
        if independent:
            # Noise in a client's own estimate is one more gradient drawn for it alone.
            step_ = second_moment_independent([g + bi for bi in pair], C, [SPECTRUM] * m, mu, P, law)
        else:
            step_ = second_moment(g + np.mean(pair, axis=0), C, SPECTRUM, mu, P, law)
        found.append(np.diag(step_))
    lam = SPECTRUM / PRECONDITIONER
    own, spread, kick = clients_step(
        lam, mu, P, law, m=m, clients=M, heterogeneity=np.mean(b**2, axis=0) * C, independent=independent
    )
    p = g**2 * C
    close((own * p + spread * p.sum() + kick) * C, np.mean(found, axis=0))


@pytest.mark.parametrize("independent", [False, True])
def test_more_clients_than_are_sampled_matter_only_through_their_differences(independent):
    args = (SPECTRUM, PRECONDITIONER, START, 0.1, 3, 30, 0.2, "gaussian", "forward", NOISE, 2)
    close(expected_loss(*args, clients=9, independent=independent), expected_loss(*args, independent=independent), 0)
    different = expected_loss(*args, clients=9, heterogeneity=SPREAD, independent=independent)
    assert np.all(different[1:] > expected_loss(*args, independent=independent)[1:])
    # All of them sampled: nothing is left of b_i with shared directions, and something is with independent ones.
    every = expected_loss(*args, heterogeneity=SPREAD, independent=independent)
    assert np.array_equal(every, expected_loss(*args, independent=independent)) != independent


def test_independent_directions_of_equal_clients_are_m_times_the_directions():
    args = (SPECTRUM, PRECONDITIONER, START, 0.1)
    close(expected_loss(*args, 3, 30, 0.2, m=4, independent=True), expected_loss(*args, 12, 30, 0.2))


@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize("difference", ["forward", "central"])
def test_the_floor_is_the_fixed_point(law, difference):
    eta = 0.5 * max_stable_step(SPECTRUM, PRECONDITIONER, 2, law)
    options = (2, 0.3, law, difference, NOISE, 3)
    for more in ({}, {"clients": 7, "heterogeneity": SPREAD}, {"clients": 7, "heterogeneity": SPREAD, "independent": True}):
        found = floor(SPECTRUM, PRECONDITIONER, eta, *options, **more)
        curves = expected_curves(SPECTRUM, PRECONDITIONER, START, eta, 2, 2000, *options[1:], **more)
        np.testing.assert_allclose([curve[-1] for curve in curves], found, rtol=1e-12)
        assert noise_floor(SPECTRUM, PRECONDITIONER, eta, *options, **more) == found.loss


def test_the_floor_leaves_out_modes_without_curvature():
    s = np.append(SPECTRUM, 0.0)
    h, noise = np.append(PRECONDITIONER, 0.5), np.append(NOISE, 2.0)
    found = noise_floor(s, h, 0.1, 2, 0.3, noise=noise)
    losses = expected_loss(s, h, np.append(START, 1.0), 0.1, 2, 5000, 0.3, noise=noise)
    np.testing.assert_allclose(losses[-1], found, rtol=1e-12)
    assert found > noise_floor(SPECTRUM, PRECONDITIONER, 0.1, 2, 0.3, noise=NOISE)


def test_the_floor_is_infinite_from_the_stable_step_on():
    eta = max_stable_step(SPECTRUM, 1.0, 3)
    assert np.isfinite(noise_floor(SPECTRUM, 1.0, 0.999 * eta, 3, 0.1))
    assert noise_floor(SPECTRUM, 1.0, 1.001 * eta, 3, 0.1) == np.inf


def test_padding_with_flat_modes_changes_nothing_without_noise():
    padded = [np.append(v, np.full(6, fill)) for v, fill in [(SPECTRUM, 0), (PRECONDITIONER, 2), (START, 5)]]
    close(
        expected_loss(*padded, 0.1, 2, 50, 0.3),
        expected_loss(SPECTRUM, PRECONDITIONER, START, 0.1, 2, 50, 0.3),
    )


def test_a_schedule_of_constant_rates_is_the_constant_rate():
    args = (SPECTRUM, PRECONDITIONER, START)
    close(expected_loss(*args, np.full(20, 0.1), 2, 20, 0.1), expected_loss(*args, 0.1, 2, 20, 0.1), 0)


@pytest.mark.parametrize("noise", [0.0, NOISE])
@pytest.mark.parametrize("ahead", [1, 2, 3, 8])
def test_rounds_taken_together_are_rounds_taken_one_by_one(ahead, noise, monkeypatch):
    # Stretches of one rate shorter than a pass, as long as one, and longer.
    monkeypatch.setattr(whitened, "_AHEAD", ahead)
    etas = np.repeat([0.1, 0.02, 0.3, 0.1, 0.05], [1, 2, 8, 9, 21])
    args = (SPECTRUM, PRECONDITIONER, START, etas, 2, len(etas), 0.2, "gaussian", "forward", noise)
    squares = np.array(list(expected_squares(*args)))
    curves = expected_curves(*args)
    for curve, weights in zip(curves, (SPECTRUM / 2, SPECTRUM**2 / PRECONDITIONER, SPECTRUM**2), strict=True):
        np.testing.assert_allclose(curve, squares @ weights, rtol=1e-14)
    close(expected_loss(*args), curves.loss, 0)


def test_a_schedule_is_its_rates_one_after_the_other():
    # Rates that come back: what is kept for a rate must not outlive it.
    etas, a = [0.1, 0.3, 0.3, 0.1, 0.02], START
    for eta, squares in zip(etas, list(expected_squares(SPECTRUM, PRECONDITIONER, START, etas, 2, 5, 0.2))[1:], strict=True):
        a = np.sqrt(list(expected_squares(SPECTRUM, PRECONDITIONER, a, eta, 2, 1, 0.2))[1])
        close(a**2, squares)


@pytest.mark.parametrize("noise", [0.0, NOISE])
def test_blocks_change_nothing(noise, monkeypatch):
    args = (SPECTRUM, PRECONDITIONER, START, 0.1, 2, 20, 0.2)
    whole = expected_curves(*args, noise=noise)
    monkeypatch.setattr(whitened, "_BLOCK", 3)
    for cut, curve in zip(expected_curves(*args, noise=noise), whole, strict=True):
        close(cut, curve, 1e-14)


def test_the_blocked_recursion_is_the_printed_one():
    # The formula of one round as it stands in the paper's notation, more modes than a block holds.
    d, P, eta, mu = 20_000, 5, 1e-3, 0.1
    rng = np.random.default_rng(5)
    s, h, v, a = rng.exponential(size=d), 0.5 + rng.random(d), rng.random(d), rng.normal(size=d) ** 2
    losses = expected_loss(s, h, np.sqrt(a), eta, P, 3, mu, noise=v)
    own, spread, kick = step(s / h, mu, P)
    for expected in losses:
        close(expected, s @ a / 2)
        q = (s**2 * a + v) / h
        a = (1 - 2 * eta * s / h) * a + eta**2 * (own * q + spread * np.sum(q) + kick) / h


def test_divergence_ends_in_infinity_without_a_warning():
    with np.errstate(all="raise", under="ignore"):
        losses, gradient, euclidean = expected_curves(SPECTRUM, PRECONDITIONER, START, 10.0, 1, 2000, 0.1, "rademacher")
    assert np.isinf(losses[-1]) and not np.any(np.isnan(losses))
    assert np.all(np.diff(losses[np.isfinite(losses)]) > 0)
    assert np.array_equal(np.isinf(losses), np.isinf(gradient)) and np.array_equal(np.isinf(losses), np.isinf(euclidean))


def test_the_start_is_left_as_it_is():
    start = START.copy()
    expected_loss(SPECTRUM, PRECONDITIONER, start, 0.1, 2, 5, 0.1, noise=NOISE)
    assert np.array_equal(start, START)


ONES = np.ones(2)


@pytest.mark.parametrize(
    ("call", "reason"),
    [
        (lambda: list(expected_squares(ONES, 1.0, np.ones(3), 0.1, 1, 1, 0)), "x0"),
        (lambda: expected_loss(ONES, 1.0, ONES, 0.1, 1, -1, 0), "rounds"),
        (lambda: expected_loss(ONES, 1.0, ONES, 0.1, 1, 1, 0, noise=-1.0), "noise"),
        (lambda: expected_loss(ONES, 1.0, ONES, 0.1, 1, 1, 0, clients=3, heterogeneity=-1.0), "heterogeneity"),
        (lambda: expected_loss(ONES, 1.0, ONES, 0.1, 1, 1, 0, heterogeneity=1.0), "one client"),
        (lambda: expected_loss(ONES, 1.0, ONES, 0.1, 1, 1, 0, m=3, clients=2), "clients"),
        (lambda: expected_loss(ONES, 1.0, ONES, 0.1, 1, 1, 0, m=0), "m must"),
        (lambda: expected_loss(ONES, 0.0, ONES, 0.1, 1, 1, 0), "positive"),
        (lambda: noise_floor(ONES, 1.0, 0.0, 1, 0.1), "eta"),
        (lambda: noise_floor([1.0, -1.0], 1.0, 0.1, 1, 0.1), "eigenvalues"),
    ],
)
def test_misuse_is_refused_with_the_reason(call, reason):
    with pytest.raises(ValueError, match=reason):
        call()
