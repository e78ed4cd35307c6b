"""What the smoothing radius costs: the mean step of the core is the smoothed gradient, and the floors are what they say."""

import math

import numpy as np
import pytest
import torch

from hiso_bench.theory import spectra
from hiso_bench.theory.recursion import noise_floor
from hiso_bench.theory.stability import max_stable_step
from synthetic import smoothing
from synthetic.smoothing import FUNCTIONS


@pytest.mark.parametrize("name", FUNCTIONS)
def test_derivative_is_that_of_the_value(name):
    x = torch.linspace(-2, 2, 41, dtype=torch.float64, requires_grad=True)
    FUNCTIONS[name].value(x).sum().backward()
    np.testing.assert_allclose(FUNCTIONS[name].derivative(x.detach().numpy()), x.grad, rtol=1e-12, atol=1e-15)
    assert abs(FUNCTIONS[name].derivative(np.array(FUNCTIONS[name].minimum))) < 1e-16


@pytest.mark.parametrize("name", FUNCTIONS)
def test_derivative_is_as_smooth_as_it_is_said_to_be(name):
    x = np.linspace(-5, 5, 2001)
    steepest = (np.diff(FUNCTIONS[name].derivative(x)) / np.diff(x)).max()
    assert steepest == pytest.approx(FUNCTIONS[name].smoothness, rel=1e-3)


@pytest.mark.parametrize("mu", [0.02, 0.3])
@pytest.mark.parametrize("name", FUNCTIONS)
def test_mean_step_of_the_core_rests_where_the_smoothed_gradient_is_zero(name, mu):
    expected = smoothing.exact_resting_slope(name, mu)
    assert smoothing.resting_slope(name, mu) == pytest.approx(expected, rel=1e-8, abs=1e-12)
    assert (expected > 0) == (name != "quadratic")


@pytest.mark.parametrize("name", FUNCTIONS)
def test_mean_step_is_the_smoothed_gradient_everywhere(name):
    rule = smoothing.line()
    for x in (-1.0, -0.1, 0.7):
        smoothed = rule.mean(FUNCTIONS[name].derivative(x + 0.3 * rule.nodes[:, 0]))
        assert smoothing.mean_step(name, x, 0.3) == pytest.approx(float(smoothed), abs=1e-5)


def test_line_integrates_the_normal_law():
    rule = smoothing.line()
    for power, moment in [(0, 1), (1, 0), (2, 1), (4, 3), (6, 15)]:
        assert rule.mean(rule.nodes[:, 0] ** power) == pytest.approx(moment, abs=1e-12)


def test_unknown_function_is_refused():
    with pytest.raises(ValueError, match="function cubic is out of range; allowed: quadratic, kink, smooth"):
        smoothing.OneCoordinate("cubic", 0.0)


def test_runs_that_start_at_rest_stay_there_at_a_small_rate():
    found = smoothing.settled_squares("smooth", 0.3, 1e-6, 2, 5, 3)
    np.testing.assert_allclose(found, smoothing.exact_resting_slope("smooth", 0.3) ** 2, rtol=1e-3)


def test_gradient_floor_of_a_flat_spectrum_is_twice_its_loss_floor():
    s = spectra.flat(7)
    eta = max_stable_step(s, 1.0, 3) / 3
    floor = smoothing.gradient_floor(s, eta, 3, 0.2)
    assert floor == pytest.approx(2 * noise_floor(s, 1.0, eta, 3, 0.2), rel=1e-8)
    assert smoothing.gradient_floor(s, eta, 3, 0.2, "central") == 0


def test_harmless_radius_does_not_see_padding_but_sees_curvature():
    s = spectra.power(10, 1.5)
    padded = smoothing.admissible_radius(np.pad(s, (0, 90)), 5, 50)
    assert padded == pytest.approx(smoothing.admissible_radius(s, 5, 50), rel=1e-12)
    # At eta*/2 mu adds to |grad f|^2 in proportion to the square of the scale of f, and L f(x_0) to its first power.
    assert smoothing.admissible_radius(4 * s, 5, 50) == pytest.approx(smoothing.admissible_radius(s, 5, 50) / 2, rel=1e-9)


def test_printed_radius_falls_with_the_dimension_as_printed():
    assert smoothing.printed_radius(97, 16.0, 1, 1, 1) == pytest.approx(2e-3, rel=1e-12)
    assert smoothing.printed_radius(97, 16.0, 2, 2, 4) == pytest.approx(1e-3, rel=1e-12)


def test_third_absolute_moment_is_that_of_one_and_two_dimensions():
    assert smoothing.third_absolute_moment(1) == pytest.approx(2 * math.sqrt(2 / math.pi), rel=1e-12)
    assert smoothing.third_absolute_moment(2) == pytest.approx(3 * math.sqrt(math.pi / 2), rel=1e-12)
