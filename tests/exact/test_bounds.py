"""The printed bounds: their units, their steps, and that they (and ours) lie above the exact left side."""

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hiso_bench.stats import mean_interval
from hiso_bench.theory import bounds, descent, spectra
from hiso_bench.theory.closed_form import Descent
from hiso_bench.theory.moments import LAWS, second_moment
from hiso_bench.theory.recursion import expected_squares
from hiso_bench.theory.stability import max_stable_step
from synthetic import theorem1
from synthetic.quadratic import Quadratic

SIZES = st.floats(0.1, 10.0)
SETTING = bounds.setting(
    spectra.power(20, 1.0), spectra.power(20, 1.0) + 0.1, 3.0, m=2, tau=4, R=50, sigma_s=0.7, sigma_G=0.3
)  # fmt: skip


@given(SIZES, SIZES, SIZES, st.floats(1e-3, 1.0))
def test_every_term_of_theorem_1_has_the_units_of_its_left_side(f, x, h, eta):
    ours = bounds.theorem1(SETTING, eta)
    theirs = bounds.theorem1(SETTING.rescaled(f, x, h), eta * h * x**2 / f)
    assert theirs == pytest.approx([term * f**2 / (x**2 * h) for term in ours], rel=1e-12)


@given(SIZES, SIZES, SIZES, st.sampled_from([1, 4]))
def test_only_the_homogeneous_condition_has_the_units_of_a_step(f, x, h, tau):
    c = replace(SETTING, tau=tau)
    scaled = c.rescaled(f, x, h)
    unit = h * x**2 / f
    assert bounds.step_limit(scaled, "homogeneous") == pytest.approx(bounds.step_limit(c, "homogeneous") * unit, rel=1e-12)
    root = 1 / math.sqrt(f / x**2)
    plain = replace(c, tau=1)
    assert bounds.step_limit(plain.rescaled(f, x, h), "parsed") == pytest.approx(
        bounds.step_limit(plain, "parsed") * unit * root, rel=1e-12
    )
    assert bounds.best_step(scaled) == pytest.approx(bounds.best_step(c) * unit, rel=1e-12)
    assert bounds.corollary1_step(scaled) == pytest.approx(bounds.corollary1_step(c) * unit * math.sqrt(f) / x, rel=1e-12)


def test_the_third_entry_binds_only_for_several_local_steps():
    many = replace(SETTING, tau=10_000)
    root = math.sqrt(1 / (many.L * (many.d + 2)))
    assert bounds.step_limit(many, "third") == pytest.approx(many.beta_l / (4 * 9999) * root)
    assert bounds.step_limit(many, "homogeneous") == pytest.approx(many.beta_l / (4 * 9999 * many.L * math.sqrt(many.d + 2)))
    one = replace(SETTING, tau=1)
    assert bounds.step_limit(one, "third") == bounds.step_limit(one, "homogeneous") == min(one.beta_l / 2, 1 / (8 * one.rho))
    assert bounds.step_limit(one, "parsed") == pytest.approx(bounds.step_limit(one, "third") * root)


def test_many_clients_bind_by_the_first_entry():
    many = replace(SETTING, tau=1, m=1000)
    assert bounds.step_limit(many, "third") == pytest.approx(many.beta_l / (1000 * many.L))


@pytest.mark.parametrize("reading", bounds.READINGS)
@pytest.mark.parametrize("m", [1, 100])
def test_corollary_1_is_admitted_from_exactly_its_rounds_on(reading, m):
    c = replace(SETTING, tau=1, m=m)
    enough = bounds.corollary1_rounds(c, reading)
    at = replace(c, R=math.ceil(enough))
    assert bounds.corollary1_step(at) <= bounds.step_limit(at, reading) * (1 + 1e-12)
    fewer = replace(c, R=max(math.floor(0.99 * enough), 1))
    assert fewer.R == 1 or bounds.corollary1_step(fewer) > bounds.step_limit(fewer, reading)


def test_the_best_steps_minimise_their_bounds():
    best = bounds.best_step(SETTING)
    ours = descent.descent_step(3.0, 2.0, 40, 0.5)
    for factor in (0.99, 1.01):
        assert bounds.theorem1(SETTING, best * factor).total > bounds.theorem1(SETTING, best).total
        assert descent.descent_bound(3.0, ours * factor, 2.0, 40, 0.5) > descent.descent_bound(3.0, ours, 2.0, 40, 0.5)
    assert descent.descent_step(3.0, 2.0, 40, 0.0) == pytest.approx(1 / 3)
    assert bounds.best_step(replace(SETTING, sigma_s=0.0, sigma_G=0.0)) == math.inf


@given(st.lists(st.floats(0.1, 10.0), min_size=1, max_size=20))
def test_phi_is_linear_in_d_for_every_h(h):
    assert bounds.phi(h) * max(h) >= (len(h) + 2) * (1 - 1e-12)
    assert bounds.phi(np.full(len(h), max(h))) * max(h) == pytest.approx(len(h) + 2)


@given(st.integers(0, 2**32 - 1), st.sampled_from(LAWS), st.integers(1, 5))
def test_the_curvature_factor_is_the_largest_ratio(seed, law, P):
    rng = np.random.default_rng(seed)
    s, h = rng.exponential(size=6), rng.uniform(0.3, 3.0, size=6)
    c = descent.curvature_factor(s, h, P, law)
    steepest = np.eye(6)[np.argmax(s / h)]
    ratios = [
        np.trace(np.diag(s) @ second_moment(g, 1 / h, s, 0.0, P, law)) / np.sum(g**2 / h)
        for g in (steepest, rng.standard_normal(6))
    ]
    assert ratios[0] == pytest.approx(c, rel=1e-12) and ratios[1] <= c * (1 + 1e-12)
    assert max_stable_step(s, h, P, law) >= 2 / c * (1 - 1e-12)


def test_the_curvature_factor_is_rho_and_that_of_the_sphere_law():
    s, h, d = spectra.power(30, 1.0), spectra.power(30, 1.0) + 0.1, 30
    assert descent.curvature_factor(s, h, 1) == pytest.approx(bounds.rho(s, h))
    kappa = spectra.effective_rank(s)
    for P in (1, 7):
        assert descent.curvature_factor(s, 1.0, P, "sphere") == pytest.approx(1 + (kappa * d + d - 2) / (P * (d + 2)))


@given(st.integers(0, 2**32 - 1), st.sampled_from(LAWS), st.integers(1, 4), st.floats(1e-3, 0.99), st.integers(1, 300))
def test_our_bound_lies_above_the_exact_average(seed, law, P, fraction, R):
    rng = np.random.default_rng(seed)
    s, h, x0, v = rng.exponential(size=8), rng.uniform(0.3, 3.0, size=8), rng.standard_normal(8), rng.exponential(size=8)
    c = descent.curvature_factor(s, h, P, law)
    eta = fraction * 2 / c
    exact = Descent(s, h, x0, P, v, 3, law).average(eta, R)
    assert exact <= descent.descent_bound(c, eta, np.sum(s * x0**2) / 2, R, np.sum(v / h) / 3) * (1 + 1e-9)


def test_our_bound_is_reached_on_a_flat_spectrum_without_noise():
    s = spectra.flat(12)
    for law, P in itertools.product(("gaussian", "sphere"), (1, 3)):
        c = descent.curvature_factor(s, 2.0, P, law)
        exact = Descent(s, 2.0, np.ones(12), P, law=law).average(0.7 * 2 / c, 10_000)
        assert exact == pytest.approx(descent.descent_bound(c, 0.7 * 2 / c, 6.0, 10_000, 0.0), rel=1e-9)


def test_theorem_1_holds_as_read_and_its_tightest_case_is_4_over_15():
    table = theorem1.grid(20, (10, 100_000))
    inside = table[table["reading"] == "third"]
    ratio = inside["left"] / inside["right"]
    assert ratio.max() <= 4 / 15 * (1 + 1e-9) and ratio.max() == pytest.approx(4 / 15, rel=1e-3)
    assert (table["left_euclidean"] <= table["right_euclidean"]).all()


def test_theorem_1_as_printed_admits_a_step_at_which_the_loss_diverges():
    one = theorem1.rescaled(theorem1.case(spectra.flat(50), "identity", "none", 1, 300), 1e-3 / 52)
    eta = bounds.step_limit(one.setting, "parsed")
    assert eta > 1.9 * max_stable_step(one.s, one.h, 1)
    assert one.left(eta) > 1e10 * one.right(eta)
    assert one.left(bounds.step_limit(one.setting, "third")) < one.right(bounds.step_limit(one.setting, "third"))


def test_a_rescaled_case_is_the_same_run():
    one = theorem1.case(spectra.power(20, 1.0), "identity")
    scaled = theorem1.rescaled(one, 100.0)
    assert scaled.left(1e-4) == pytest.approx(1e4 * one.left(1e-2), rel=1e-9)
    assert scaled.setting.variance == pytest.approx(1e4 * one.setting.variance)


@pytest.mark.parametrize("m", [1, 3, 5])
def test_sampled_clients_vary_by_what_the_case_says(m):
    one = theorem1.case(spectra.power(6, 1.0), noise="none", m=m, clients=5)
    shifts = np.random.default_rng(0).standard_normal((5, 6))
    one = replace(one, shifts=shifts - shifts.mean(0))
    means = [one.shifts[list(chosen)].mean(0) for chosen in itertools.combinations(range(5), m)]
    np.testing.assert_allclose(one.variances / m, np.mean(np.square(means), axis=0), atol=1e-14)


@pytest.mark.parametrize("measure", ["whitened", "euclidean"])
def test_the_left_side_is_the_recursion_s_average(measure):
    one = theorem1.case(spectra.power(20, 1.0), R=40)
    weights = one.s**2 / (one.h if measure == "whitened" else 1.0)
    run = expected_squares(one.s, one.h, np.ones(20), 0.01, 1, 39, 0.0, noise=one.variances, m=one.m)
    assert one.left(0.01, measure) == pytest.approx(np.mean([weights @ a for a in run]), rel=1e-10)


def test_the_core_s_left_side_is_the_exact_one():
    # alpha = 1e-5 by Student's t; the keys are fixed. Doubled noise is detected.
    problem = Quadratic(20, "power", 1.0, 4, heterogeneity=0.1, noise=0.1, replicates=(2000,), key=5)
    one, eta, seen = theorem1.simulate(problem, 2, 0.1, 60)
    middle, low, high = mean_interval(seen.mean(0), 1 - 1e-5)
    assert low <= one.left(eta) <= high and high - low < 0.1 * middle
    assert not low <= replace(one, noise=2 * one.noise, shifts=2 * one.shifts).left(eta) <= high


@given(st.integers(0, 2**32 - 1))
def test_the_norm_decides_which_bound_is_smaller(seed):
    rng = np.random.default_rng(seed)
    s, h = rng.exponential(size=10) ** 2, np.exp(rng.standard_normal(10))
    hiso, decomfl = (bounds.setting(s, x, 1.0, R=10, sigma_s=1.0) for x in (h, np.ones(10)))
    ours, theirs = (bounds.theorem1(c, bounds.best_step(c)).total for c in (hiso, decomfl))
    spread = math.sqrt(hiso.beta_u / hiso.beta_l)
    assert ours * hiso.beta_u / theirs >= spread * (1 - 1e-12)
    assert 1 / spread * (1 - 1e-12) <= ours / (theirs / hiso.beta_l) <= 1 + 1e-12


def test_corollary_1_s_rate_is_the_printed_one():
    assert bounds.corollary1_rate(8.0, 2, 100) == pytest.approx(0.2)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: replace(SETTING, L=0.0), "L 0.0 is out of range; allowed: a finite number > 0"),
        (lambda: replace(SETTING, sigma_s=-1.0), "sigma_s -1.0 is out of range"),
        (lambda: replace(SETTING, m=0), "m 0 is out of range; allowed: >= 1"),
        (lambda: replace(SETTING, beta_l=9.0), "beta_l 9.0 is out of range; allowed: <= beta_u"),
        (lambda: bounds.step_limit(SETTING, "printed"), "reading 'printed' is unknown; allowed: parsed, third, homogeneous"),
        (lambda: bounds.theorem1(SETTING, 0.0), "eta 0.0 is out of range; allowed: > 0"),
        (lambda: descent.descent_bound(1.0, -1.0, 1.0, 1, 0.0), "eta -1.0 is out of range; allowed: > 0"),
        (lambda: bounds.phi([1.0, 0.0]), "h must be a finite positive vector"),
        (lambda: descent.curvature_factor(np.ones(3), 1.0, 0), "P 0 is out of range; allowed: >= 1"),
        (lambda: theorem1.case(np.ones(3), noise="white"), "noise 'white' is unknown; allowed: isotropic, curvature, none"),
    ],
)
def test_bad_input_is_named(call, words):
    with pytest.raises(ValueError) as error:
        call()
    assert words in str(error.value)


@pytest.mark.parametrize("tau", [1, 2, 5])
def test_the_right_side_is_the_printed_sum(tau):
    c = bounds.Setting(L=2, beta_l=0.5, beta_u=4, rho=7, phi=11, d=9, Delta=3, m=2, tau=tau, R=10, sigma_s=3, sigma_G=4)
    found = bounds.theorem1(c, 0.1)
    assert found.descent == pytest.approx(4 * 3 / (0.1 * tau * 10))
    assert found.drift == pytest.approx(32 * 0.1 * (tau - 1) ** 2 * 2 * 11 * 25 / (0.5 * tau * 2))
    assert found.noise == pytest.approx(16 * 0.1 * 7 * 25 / (0.5 * 2))
    assert found.total == pytest.approx(sum(found))
