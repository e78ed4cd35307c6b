"""The rates' settings are what they declare, the curves cover what the figure draws, and the floor's least squares is exact."""

import dataclasses

import numpy as np
import pytest

from figures import rates as figure
from hiso_bench.stats import mean_interval
from synthetic import floor, rate_points, rates
from synthetic.declared import Declared, Setting, simulate


def test_a_declared_problem_has_the_declared_start_and_noise():
    setting = Setting(np.array([2.0, 1.0]), np.ones(2), np.array([1.0, -3.0]), np.array([0.25, 4.0]), m=2)
    problem = Declared(setting, (20_000,), key=1)
    assert problem.clients == 2
    assert problem.initial()[0][7].tolist() == [1.0, -3.0]
    assert setting.descent.start == problem.loss(problem.initial(), None)[0].item() == 5.5
    batch = problem.batch(np.zeros(20_000, dtype=int), 0, 0)
    # The relative standard deviation of a variance of 20,000 normals is 0.01: 5 of them, alpha 1e-6.
    np.testing.assert_allclose(batch.square().mean(0).numpy(), setting.noise, rtol=0.05)
    quiet = dataclasses.replace(setting, noise=np.zeros(2))
    assert Declared(quiet).batch(np.array(0), 0, 0) is None


def test_a_simulated_setting_has_the_exact_mean_and_not_that_of_half_the_noise():
    setting = rates.spike(4.0, 0.1, bulk=6)
    eta, rounds = setting.descent.limit / 3, 40
    run = simulate(setting, eta, rounds, 400, key=5)
    assert run.losses.shape == (rounds + 1, 400)
    for measure in ("whitened", "euclidean"):
        _, low, high = mean_interval(getattr(run, measure))
        assert low < setting.descent.average(eta, rounds, measure) < high
        wrong = dataclasses.replace(setting, noise=setting.noise / 2).descent.average(eta, rounds, measure)
        assert not low < wrong < high


def test_settings_that_theory_does_not_cover_are_refused():
    with pytest.raises(ValueError, match="x0"):
        Setting(np.ones(3), np.ones(3), np.ones(2), np.zeros(3))
    with pytest.raises(ValueError, match="noise > 0 is out of range; allowed: 0 where directions are independent"):
        rates.flat(3, independent=True)
    with pytest.raises(ValueError, match="geometry 'round' is unknown"):
        rates.blocks(0.1, "round")


def test_families_are_normalised_and_hold_fixed_what_they_say():
    for setting in (
        rates.flat(7),
        rates.flat(9, active=3),
        rates.spike(50.0),
        rates.power(12, 1.5, 0.1),
        rates.two_scales(6, True),
    ):
        assert setting.descent.start == pytest.approx(1.0)
        assert setting.noise.sum() == pytest.approx(1.0) or not setting.noise.any()
    fixed = [rates.blocks(eps, "whitened") for eps in (0.001, 0.1)]
    traces = [np.sum(setting.noise / setting.h) for setting in fixed]
    assert traces[0] == pytest.approx(traces[1]) and fixed[0].zeta > 2 * fixed[1].zeta


def test_every_curve_of_the_figure_exists_and_every_point_lies_on_one():
    curves = {(c.panel, c.arm, c.variant): c for panel in rates.PANELS for c in panel()}
    drawn = {(name, *key) for name, panel in figure.PANELS.items() for key in panel.curves}
    assert drawn == set(curves)
    for place in rate_points.PLACES.values():
        curve = curves[place.panel, place.arm, place.variant]
        assert curve.x.min() <= place.x <= curve.x.max()
        if place.x in curve.x:
            exact = rates.error(place.setting, rates.SHOWN, place.measure)
            assert curve.y[list(curve.x).index(place.x)] == pytest.approx(exact)


def test_least_squares_leaves_a_share_of_n_over_d_and_nothing_at_the_end():
    left = floor.least_squares()
    assert np.all(np.diff(left, axis=0) <= 1e-12)
    assert left[-1].max() < 1e-12
    for n in (10, 30):
        _, low, high = mean_interval(left[n])
        assert low < 1 - n / floor.DIMENSION < high
