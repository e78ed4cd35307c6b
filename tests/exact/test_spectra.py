"""Spectra and their numbers against closed forms."""

import re

import numpy as np
import pytest
from scipy import special

from hiso_bench.theory import spectra


def rng(seed=0):
    return np.random.default_rng(seed)


def test_at_ten_million_eigenvalues_the_numbers_equal_zeta_functions():
    d, exponent = 10**7, 1.5
    s = spectra.power(d, exponent)
    partial = special.zeta(exponent) - special.zeta(exponent, d + 1.0)
    assert spectra.effective_rank(s) == pytest.approx(partial, rel=4e-15)
    # N_eff of the vector j^-(3/4): (sum j^-1.5)^2 / sum j^-3.
    cubes = special.zeta(3.0) - special.zeta(3.0, d + 1.0)
    assert spectra.participation(np.sqrt(s)) == pytest.approx(partial**2 / cubes, rel=4e-14)


def test_sums_lose_nothing_where_a_running_sum_would():
    values = np.full(10**6, 0.1)
    assert spectra.total(values) == 100000.0
    assert spectra.total(np.array([1e16, 1.0, -1e16])) == 1.0


@pytest.mark.parametrize(
    ("s", "kappa"),
    [
        (spectra.flat(7), 7),
        (spectra.power(3, 1.0), 11 / 6),
        (spectra.spiked(10, 2, 4.0), 4),
        (spectra.blocks((2, 3, 1), (4.0, 2.0, 0.0)), 3.5),
    ],
)
def test_effective_rank_of_the_families(s, kappa):
    assert spectra.effective_rank(s) == pytest.approx(kappa, rel=1e-15)


def test_lognormal_is_a_function_of_its_generator():
    np.testing.assert_array_equal(spectra.lognormal(200, 3.0, rng()), np.exp(3.0 * rng().standard_normal(200)))


def test_whitening_rank_of_full_matrices_is_the_trace_of_the_whitened_spectrum():
    d = 6
    Q, R = spectra.haar(d, rng(1)), spectra.haar(d, rng(2))
    s, h = spectra.power(d, 1.0), spectra.lognormal(d, 1.0, rng(3))
    S, H = (Q.T * s) @ Q, (R.T * h) @ R
    expected = np.linalg.eigvals(np.linalg.solve(H, S)).real.sum()
    assert spectra.whitening_rank(S, H) == pytest.approx(expected, rel=1e-12)
    assert spectra.whitening_rank(s, np.diag(h)) == pytest.approx(spectra.whitening_rank(s, h), rel=1e-14)
    assert spectra.whitening_rank(np.diag(s), h) == pytest.approx(np.sum(s / h), rel=1e-14)
    assert spectra.whitening_rank(S, 1.0) == pytest.approx(s.sum(), rel=1e-13)


def test_only_whitening_speed_is_free_of_scale():
    s, h = spectra.power(50, 1.5), spectra.lognormal(50, 1.0, rng())
    assert spectra.whitening_rank(s, 8 * h) == pytest.approx(spectra.whitening_rank(s, h) / 8, rel=1e-14)
    for c in (1e-3, 8.0):
        assert spectra.whitening_speed(s, c * h) == pytest.approx(spectra.whitening_speed(s, h), rel=1e-13)
    assert spectra.whitening_speed(s, s) == pytest.approx(50, rel=1e-14)
    assert spectra.whitening_speed(s, 1.0) == pytest.approx(s.sum() / s[-1], rel=1e-14)
    assert spectra.whitening_speed(s, 1.0, np.arange(50) < 10) == pytest.approx(s.sum() / s[9], rel=1e-14)
    assert spectra.whitening_speed(np.append(s, 0.0), 1.0) == pytest.approx(s.sum() / s[-1], rel=1e-14)


def test_participation_counts_equal_entries():
    assert spectra.participation([0, 3, -3, 3, 0]) == pytest.approx(3, rel=1e-15)
    assert spectra.participation([1e200, 1e200]) == pytest.approx(2, rel=1e-15)


@pytest.mark.parametrize("angle", [0.0, 0.1, 3.0])
def test_a_rotation_is_orthogonal_with_determinant_one(angle):
    Q = spectra.rotation(40, angle, rng())
    np.testing.assert_allclose(Q @ Q.T, np.eye(40), atol=1e-13)
    assert np.linalg.slogdet(Q)[0] == 1
    if angle == 0:
        np.testing.assert_array_equal(Q, np.eye(40))


@pytest.mark.parametrize("d", [20, 200])
def test_a_small_rotation_turns_every_axis_by_about_its_angle(d):
    turned = np.arccos(np.diag(spectra.rotation(d, 0.05, rng())))
    # |tangent|^2 is angle^2/d chi^2_(d-1): its mean over d axes has a relative standard deviation of about 2/d.
    assert np.mean(turned**2) == pytest.approx(0.05**2 * (d - 1) / d, rel=8 / d + 0.01)


def test_haar_matrices_are_orthogonal_and_their_entries_have_no_preferred_sign():
    draws = np.stack([spectra.haar(3, rng(seed)) for seed in range(400)])
    np.testing.assert_allclose(draws @ draws.transpose(0, 2, 1), np.broadcast_to(np.eye(3), draws.shape), atol=1e-14)
    # Entries have mean 0 and variance 1/3: 5.5 standard errors, all nine entries; without the sign fix the diagonal fails.
    assert np.abs(draws.mean(0)).max() < 5.5 / np.sqrt(3 * 400)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: spectra.flat(0), "dimension 0 is out of range; allowed: >= 1"),
        (lambda: spectra.power(3, np.inf), "exponent inf is out of range"),
        (lambda: spectra.spiked(3, 4, 2.0), "spikes 4 is out of range; allowed: 0 <= spikes <= 3"),
        (lambda: spectra.lognormal(3, -1.0, rng()), "std -1.0 is out of range"),
        (lambda: spectra.blocks((1, 2), (1.0,)), "need one value per block, got 2 sizes and 1 values"),
        (lambda: spectra.blocks((0,), (1.0,)), "sizes [0] is out of range"),
        (lambda: spectra.blocks((1,), (-1.0,)), "values [-1.0] is out of range"),
        (lambda: spectra.rotation(3, np.nan, rng()), "angle nan is out of range"),
        (lambda: spectra.effective_rank([0.0, 0.0]), "at least one positive"),
        (lambda: spectra.whitening_rank([1.0, 2.0], [1.0, 0.0]), "h must be positive, finite"),
        (lambda: spectra.whitening_rank([1.0, 2.0], np.diag([1.0, -1.0])), "h must be positive definite"),
        (lambda: spectra.whitening_rank(np.eye(2), np.eye(3)), "s and h must be of one size"),
        (lambda: spectra.whitening_rank([[1.0, 1.0], [0.0, 1.0]], 1.0), "s must be symmetric"),
        (lambda: spectra.whitening_speed([1.0, 0.0], 1.0, [True, True]), "only modes with s > 0"),
        (lambda: spectra.participation([0.0]), "v must be a finite vector that is not 0"),
    ],
)
def test_bad_input_is_refused_with_the_reason(call, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        call()
