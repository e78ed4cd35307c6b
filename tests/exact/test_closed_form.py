"""The closed form of the recursion agrees with the recursion, and the steps it calls best are."""

import numpy as np
import pytest

from hiso_bench.theory import closed_form, spectra
from hiso_bench.theory.closed_form import Descent
from hiso_bench.theory.recursion import expected_squares, noise_floor
from hiso_bench.theory.stability import max_stable_step

S = np.array([3.0, 1, 1, 0.5, 0.5, 0.5, 0])
H = np.array([2.0, 1, 1, 0.3, 0.3, 0.3, 1])
X0 = np.array([0.3, -1, 2, 0.1, 0.7, -0.2, 1])
V = np.array([0.1, 0.2, 0.2, 0.3, 0.3, 0.3, 0.7])
WEIGHTS = {"whitened": S**2 / H, "euclidean": S**2, "loss": S / 2}


@pytest.mark.parametrize("law", ["gaussian", "sphere", "rademacher"])
@pytest.mark.parametrize("fraction", [1e-6, 0.3, 0.9])
@pytest.mark.parametrize("measure", closed_form.MEASURES)
def test_every_round_and_mean_is_the_recursion_s(law, fraction, measure):
    descent = Descent(S, H, X0, 3, V, 2, law)
    assert descent.limit == max_stable_step(S, H, 3, law)
    eta, rounds = fraction * descent.limit, 300
    squares = np.array(list(expected_squares(S, H, X0, eta, 3, rounds, 0.0, law, noise=V, m=2)))
    values = squares @ WEIGHTS[measure]
    for r in (0, 1, 17, rounds):
        np.testing.assert_allclose(descent.value(eta, r, measure), values[r], rtol=1e-11)
    for r in (1, 2, 40, rounds):
        np.testing.assert_allclose(descent.average(eta, r, measure), values[:r].mean(), rtol=1e-11)


def test_modes_that_are_equal_are_one():
    few, many = Descent(S, H, X0, 3, V), Descent(np.repeat(S, 50), np.repeat(H, 50), np.repeat(X0, 50), 3, np.repeat(V, 50))
    assert len(few._n) == len(many._n) == 3
    squares = expected_squares(np.repeat(S, 50), np.repeat(H, 50), np.repeat(X0, 50), 0.01, 3, 20, 0.0, noise=np.repeat(V, 50))
    last = list(squares)[-1]
    np.testing.assert_allclose(many.value(0.01, 20), 0.5 * np.repeat(S, 50) @ last, rtol=1e-12)


def test_the_limit_of_many_rounds_is_the_noise_floor():
    descent = Descent(S, H, X0, 3, V, 2)
    eta = 0.4 * descent.limit
    np.testing.assert_allclose(descent.value(eta, 1e9), noise_floor(S, H, eta, 3, 0.0, noise=V, m=2), rtol=1e-10)
    assert descent.rounds(eta, 1e-12) == np.inf


@pytest.mark.parametrize("noise", [0.0, 0.1])
def test_no_step_of_a_fine_grid_is_better_than_the_best(noise):
    s = spectra.spiked(31, 1, 20.0)
    descent = Descent(s, 1.0, np.ones(31), 5, noise)
    grid = descent.limit * np.unique(np.r_[np.geomspace(1e-7, 0.999, 4000), np.linspace(0.001, 0.999, 4000)])
    tasks = [
        (lambda eta: descent.average(eta, 1e4), descent.best_average(1e4)),
        (lambda e: descent.value(e, 100), descent.best_value(100)),
    ]
    if not noise:
        tasks.append((lambda eta: descent.rounds(eta, 0.01), descent.best_rounds(0.01)))
    for cost, (eta, found) in tasks:
        np.testing.assert_allclose(cost(eta), found, rtol=1e-12)
        assert found <= cost(grid).min() * (1 + 1e-9)


def test_the_error_of_many_rounds_is_the_square_root_law():
    for s, h in ((np.ones(20), 1.0), (spectra.spiked(101, 1, 100.0), spectra.spiked(101, 1, 100.0) + 0.1)):
        descent = Descent(s, h, np.ones_like(s), 5, 0.05, 3)
        c = 1 / (np.zeros_like(s) + h)
        N = ((1 + 1 / 5) * np.sum(c * s * c * 0.05) + np.sum(c * s) * np.sum(c * 0.05) / 5) / 3
        np.testing.assert_allclose(descent.N, N, rtol=1e-12)
        error = descent.best_average(1e11)[1]
        np.testing.assert_allclose(error, np.sqrt(2 * descent.start * N / 1e11), rtol=1e-3)
        assert abs(descent.best_average(1)[1] / np.sqrt(2 * descent.start * N) - 1) > 0.1  # not so below R0


def test_rounds_are_where_the_expected_loss_crosses_the_target():
    descent = Descent(S, H, X0, 3)
    eta = descent.limit / 2
    r = float(descent.rounds(eta, 0.05))
    assert descent.value(eta, np.floor(r)) > 0.05 * descent.start > descent.value(eta, np.ceil(r))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"x0": X0[:-1]}, "x0 must have shape"),
        ({"m": 0}, "m must be"),
        ({"P": 0}, "P must be"),
        ({"noise": -V}, "noise holds variances"),
        ({"s": -S}, "s must be"),
    ],
)
def test_bad_input_is_refused(change, said):
    with pytest.raises(ValueError, match=said):
        Descent(**{"s": S, "h": H, "x0": X0, "P": 3} | change)


def test_bad_steps_measures_and_targets_are_refused():
    descent = Descent(S, H, X0, 3)
    with pytest.raises(ValueError, match="out of range; allowed: 0 < eta < eta"):
        descent.value(descent.limit, 1)
    with pytest.raises(ValueError, match="unknown measure"):
        descent.value(0.01, 1, "sup")
    with pytest.raises(ValueError, match="target 1 is out of range"):
        descent.rounds(0.01, 1)
