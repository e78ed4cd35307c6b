"""Stable steps against explicit maps of second moments, the real round, closed forms and published conditions."""

import numpy as np
import pandas as pd
import pytest
from scipy import special, stats

from figures import stability as figure
from figures.style import plt
from hiso_bench.stats import mean_interval
from hiso_bench.theory import recursion, spectra
from hiso_bench.theory.lyapunov import almost_sure_limit, flat_exponent
from hiso_bench.theory.moments import LAWS
from hiso_bench.theory.operators import covariance_operator, mode_operator, spectral_radius
from hiso_bench.theory.stability import growth, max_stable_step, stable_step_bounds, tight_stable_step_bounds
from synthetic import stability_map
from synthetic.stability import Round, families, floor_of_map, growth_rates, measured_operator, published_step

SPECTRUM, PRECONDITIONER = np.array([3.0, 1.0, 0.5, 0.2]), np.array([2.0, 0.5, 1.0, 0.7])
MOMENTA = [0.0, 0.3, 0.9, 0.99]


# The closed form against the explicit maps.


@pytest.mark.parametrize("b", MOMENTA)
@pytest.mark.parametrize("P", [1, 2, 5, 50])
@pytest.mark.parametrize("law", LAWS)
def test_the_spectral_radius_is_one_at_the_stable_step(law, P, b):
    for s, h in [(SPECTRUM, PRECONDITIONER), (np.ones(5), 1.0), (np.array([2.0]), 0.5)]:
        step = max_stable_step(s, h, P, law, b)
        at = {factor: spectral_radius(mode_operator(s, h, factor * step, P, law, b)) for factor in (0.98, 1.0, 1.02)}
        assert at[0.98] < 1 < at[1.02]
        assert abs(at[1.0] - 1) < (1e-10 if b < 0.99 else 1e-9)  # the map is close to a Jordan block there
        assert abs(growth(s, h, step, P, law, b) - 1) < 1e-12


def test_steps_above_the_limit_are_unstable_however_large():
    # The proof says so for every step, not only near the limit.
    for law in LAWS:
        for b in MOMENTA:
            steps = max_stable_step(SPECTRUM, 1.0, 2, law, b) * np.geomspace(1.01, 1000, 25)
            assert all(spectral_radius(mode_operator(SPECTRUM, 1.0, step, 2, law, b)) > 1 for step in steps)


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("b", [0.0, 0.6])
@pytest.mark.parametrize("law", LAWS)
def test_the_whole_covariance_adds_no_condition(law, b, after):
    s, h, step = SPECTRUM[:3], PRECONDITIONER[:3], max_stable_step(SPECTRUM[:3], PRECONDITIONER[:3], 2, law, b)
    full = covariance_operator(s, 1 / h, step, 2, law, b, after)
    modes = mode_operator(s, h, step, 2, law, b, after)
    assert abs(spectral_radius(full) - 1) < 1e-10
    assert abs(spectral_radius(modes) - 1) < 1e-10
    # The second moments of each mode are the same numbers in both.
    n = 6 if b else 3
    place = {pair: a for a, pair in enumerate(zip(*np.triu_indices(n), strict=True))}
    picked = [place[j, j] for j in range(3)]
    if b:
        picked += [place[j, 3 + j] for j in range(3)] + [place[3 + j, 3 + j] for j in range(3)]
    np.testing.assert_allclose(full[np.ix_(picked, picked)], modes[: len(picked), : len(picked)], atol=1e-13)


# The real round.

CASES = [
    Round([2, 1, 0.3], 0.3, 1, [1, 2, 0.5]),
    Round([2, 1, 0.3], 0.1, 2, [1, 2, 0.5]),
    Round([2, 1, 0.3], 0.1, 1, [1, 2, 0.5], momentum=0.6),
    Round([2, 1, 0.3], 0.2, 2, [1, 2, 0.5], after=True),
    Round([2, 1], 0.3, 2, [1, 3], "sphere"),
    Round([2, 1], 0.3, 1, [1, 3], "sphere", momentum=0.5),
    Round([2, 1, 0.5], 0.3, 3, [1, 2, 0.5], "rademacher"),
    Round([2, 1, 0.5], 0.3, 1, 1.0, "rademacher", momentum=0.9),
    Round([2, 1], 0.3, 2, clients=2),
    Round([2, 1], 0.3, 1, [1, 3], momentum=0.4, clients=3),
]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_the_real_round_is_the_explicit_map(case):
    h = np.broadcast_to(np.asarray(case.h, dtype=float), len(np.asarray(case.s)))
    # Equal clients with directions of their own are m P directions.
    directions = case.P * case.clients
    exact = covariance_operator(case.s, 1 / h, case.eta, directions, case.law, case.momentum, case.after)
    np.testing.assert_allclose(measured_operator(case), exact, rtol=0, atol=1e-12)
    if not case.after:
        step = max_stable_step(case.s, h, directions, case.law, case.momentum)
        assert abs(spectral_radius(measured_operator(case._replace(eta=step))) - 1) < 1e-10


def test_control_the_wrong_number_of_directions_is_seen_through_the_real_round():
    case = Round([2, 1], max_stable_step([2, 1], 1.0, 2), clients=2)
    assert abs(spectral_radius(measured_operator(case)) - 1) < 1e-10
    assert abs(spectral_radius(measured_operator(case._replace(clients=1))) - 1) > 0.1


# Published conditions, limits and bounds.


@pytest.mark.parametrize("b", MOMENTA)
def test_the_published_condition_has_the_same_root(b):
    for s in families().values():
        np.testing.assert_allclose(max_stable_step(s, 1.0, 1, momentum=b), published_step(s, b), rtol=1e-12)


@pytest.mark.parametrize("b", [0.0, 0.5, 0.9])
def test_limits_of_the_stable_step(b):
    many, L, T = 10**10, SPECTRUM.max(), 10**4
    np.testing.assert_allclose(max_stable_step(SPECTRUM, 1.0, many, momentum=b), 2 * (1 + b) / L, rtol=1e-8)
    np.testing.assert_allclose(max_stable_step(np.ones(T), 1.0, 5, momentum=b), 2 * (1 - b) * 5 / T, rtol=1e-3)
    d, P, A = 7, 3, 1 + 1 / 3 - 2 * b / (1 + b)
    np.testing.assert_allclose(max_stable_step(np.ones(d), 1.0, P, momentum=b), 2 * (1 - b) / (d / P + A), rtol=1e-13)
    # Rademacher in one dimension is gradient descent.
    np.testing.assert_allclose(max_stable_step([4.0], 1.0, 1, "rademacher", b), 2 * (1 + b) / 4, rtol=1e-13)


def test_a_little_momentum_helps_only_above_rank_plus_one_directions():
    for k in (1, 4, 9):
        for P, helps in [(k, False), (k + 1, False), (k + 2, True)]:
            steps = [max_stable_step(np.ones(k), 1.0, P, momentum=b) for b in (0.0, 1e-3)]
            assert (steps[1] > steps[0]) == helps


@pytest.mark.parametrize("law", LAWS)
def test_bounds_enclose_the_stable_step(law):
    for s in families().values():
        for P in (1, 3, 20):
            for b in MOMENTA:
                step = max_stable_step(s, 1.0, P, law, b)
                low, high = stable_step_bounds(s, 1.0, P, law, b)
                tight_low, tight_high = tight_stable_step_bounds(s, 1.0, P, law, b)
                slack = 1 + 1e-12
                assert low <= tight_low * slack and tight_low <= step * slack
                assert step <= tight_high * slack and tight_high <= high * slack


def test_tight_bounds_are_attained():
    for s in (np.ones(6), spectra.blocks((1, 10**6), (1.0, 1e-6))):  # all modes equal; one, and next to nothing
        np.testing.assert_allclose(tight_stable_step_bounds(s, 1.0, 3)[0], max_stable_step(s, 1.0, 3), rtol=1e-5)
        if s[0] > s[-1]:
            assert stable_step_bounds(s, 1.0, 3)[0] < 0.9 * max_stable_step(s, 1.0, 3)


# H before or after.


def test_noise_floors_of_the_two_orders():
    case = Round(SPECTRUM, 0.4 * max_stable_step(SPECTRUM, PRECONDITIONER, 2), 2, PRECONDITIONER)
    for noise in (1.0, SPECTRUM):
        exact = recursion.noise_floor(SPECTRUM, PRECONDITIONER, case.eta, 2, 0.0, noise=noise)
        np.testing.assert_allclose(floor_of_map(case, noise), exact, rtol=1e-12)
    after = case._replace(after=True)
    np.testing.assert_allclose(floor_of_map(after, 1.0), floor_of_map(case, 1.0), rtol=1e-12)
    assert abs(floor_of_map(after, SPECTRUM) / floor_of_map(case, SPECTRUM) - 1) > 0.02


def test_the_order_matters_where_the_hessian_does_not_commute():
    Q = spectra.rotation(4, 1.0, np.random.default_rng(3))
    S, C = Q.T @ np.diag(SPECTRUM) @ Q, 1 / PRECONDITIONER
    whitened = np.linalg.eigvalsh(S * np.sqrt(np.outer(C, C)))
    step = max_stable_step(whitened, 1.0, 1)
    assert abs(spectral_radius(covariance_operator(S, C, step, 1)) - 1) < 1e-10
    assert abs(spectral_radius(covariance_operator(S, C, step, 1, after=True)) - 1) > 1e-3


# Almost-sure stability.


@pytest.mark.parametrize("c", [0.3, 1.7, 2.6845, 40.0])
def test_the_exponent_of_one_mode_at_two_directions_is_an_exponential_integral(c):
    assert abs(flat_exponent(c, 1, 2) + np.exp(-1 / c) * special.expi(1 / c)) < 1e-10


@pytest.mark.parametrize(("k", "P"), [(2, 1), (3, 1), (6, 1), (3, 4)])
def test_the_exponent_is_the_integral_over_both_chi_squares(k, P):
    # Gauss and Legendre in |y| and the root of t, split where 1 - c s/P is zero: another rule in other variables.
    c, (x, w) = 1.7, np.polynomial.legendre.leggauss(400)

    def segment(low, high):
        return (high - low) / 2 * (x + 1) + low, (high - low) / 2 * w

    zero, (b, b_weight) = np.sqrt(P / c), segment(0, 12)
    expected = 0.0
    for a, a_weight in (segment(0, zero), segment(zero, 12)):
        logs = 0.5 * np.log((1 - c * a[:, None] ** 2 / P) ** 2 + (c / P * a[:, None] * b) ** 2)
        expected += (a_weight * stats.chi(P).pdf(a)) @ logs @ (b_weight * stats.chi(k - 1).pdf(b))
    assert abs(flat_exponent(c, k, P) - expected) < 1e-5


def test_almost_sure_limits():
    np.testing.assert_allclose(flat_exponent(0.4, 3, 10**6), np.log(0.6), atol=1e-5)
    for k in (1, 2, 10, 100):
        for P in (1, 5, 30):
            star, limit = max_stable_step(np.ones(k), 1.0, P), almost_sure_limit(k, P)
            assert limit > star and abs(flat_exponent(limit, k, P)) < 1e-9
            assert flat_exponent(star, k, P) < 0 < flat_exponent(1.05 * limit, k, P)
    assert 3.6 < almost_sure_limit(1, 1) / max_stable_step([1.0], 1.0, 1) < 3.7


@pytest.mark.parametrize(("k", "P", "multiple"), [(1, 1, 2.0), (1, 5, 2.0), (3, 1, 1.2), (30, 2, 0.7)])
def test_single_runs_grow_at_the_exact_rate(k, P, multiple):
    # Sampling: 99.9 % intervals of fixed keys (false alarm 0.1 % each); they reject a rate that is off by 0.05.
    step = multiple * max_stable_step(np.ones(k), 1.0, P)
    rates = mean_interval(growth_rates(np.ones(k), [step], P, 200, 100, key=7)[0])
    assert rates.low < flat_exponent(step, k, P) < rates.high
    assert rates.high - rates.low < 0.1


# The map.


def test_the_map_is_computed_and_drawn(tmp_path, monkeypatch):
    monkeypatch.setattr(stability_map, "SHOWN", {"equal": (1, 10), "power": (1.5,)})
    monkeypatch.setattr(stability_map, "DRAWN", {"equal": (1, 10), "power": (0.0, 1.5)})
    monkeypatch.setattr(stability_map, "ROUNDS", 40)
    monkeypatch.setattr(stability_map, "SKIP", 10)
    stability_map.STABILITY.compare(tmp_path, tmp_path, tmp_path, 1)
    limits, runs = (pd.read_csv(tmp_path / f"stability_{name}.csv") for name in ("limits", "runs"))
    assert (limits[["low", "tight_low", "theorem1"]] <= 1 + 1e-12).all(axis=None)
    assert (limits[["high", "tight_high"]] >= 1 - 1e-12).all(axis=None)
    assert limits["almost_sure"].notna().equals(limits["family"] == "equal")
    counts = runs[(runs["family"] == "equal") & (runs["parameter"] == 10) & (runs["P"] == 1)].set_index("multiple")["diverged"]
    assert counts[0.5] == 0 and counts[4.5] == stability_map.RUNS
    drawn = figure.draw(tmp_path, "test")
    assert len(drawn.axes) == 4
    plt.close(drawn)


# Misuse.


@pytest.mark.parametrize(
    ("call", "reason"),
    [
        (lambda: max_stable_step(SPECTRUM, 1.0, 1, momentum=1.0), "momentum"),
        (lambda: growth(SPECTRUM, 1.0, 0.1, 1, momentum=-0.1), "momentum"),
        (lambda: flat_exponent(0.0, 1, 1), "c must"),
        (lambda: flat_exponent(1.0, 0, 1), "k and P"),
        (lambda: almost_sure_limit(1, 0), "P must"),
        (lambda: growth_rates([1.0], [0.1], 1, 1, 5, key=0, skip=5), "skip"),
    ],
)
def test_misuse_is_refused_with_the_reason(call, reason):
    with pytest.raises(ValueError, match=reason):
        call()


@pytest.mark.parametrize("law", LAWS)
def test_modes_without_curvature_count_in_the_dimension_of_the_law(law):
    s, P = np.array([2.0, 1.0, 0.0, 0.0]), 2
    eta = max_stable_step(s, 1.0, P, law)
    steep = mode_operator(s, 1.0, eta, P, law)[:2, :2]  # what the flat modes receive never comes back
    assert spectral_radius(steep) == pytest.approx(1, abs=1e-12)
