"""What a known H buys: the theory behind the oracle's claims, against theory and code that were written without it."""

import numpy as np
import pandas as pd
import pytest
import torch

from figures import oracle as picture
from hiso_bench import records
from hiso_bench.methods.exact_scalar import Projection
from hiso_bench.testing import Quadratics, federation_over, gauss_product, smolyak, take_round
from hiso_bench.theory import minibatch, moments, spectra
from hiso_bench.theory.closed_form import Descent
from hiso_bench.theory.projection import ProjectedDescent, factor_spread, projection_moments
from synthetic import minibatches, oracle, whitening
from synthetic.exact_scalar import concentrated, saved
from synthetic.least_squares import LeastSquares

S = spectra.power(12, 1.5)
H = np.linspace(0.3, 2.0, 12)


def test_the_factors_spread_is_that_of_a_quadratic_form():
    h = np.array([0.2, 1.0, 5.0])
    rule = smolyak(3)
    q = (rule.nodes**2 / h).sum(1)
    variance = rule.mean(q**2) - rule.mean(q) ** 2
    assert factor_spread(h) == pytest.approx(variance**0.5 / rule.mean(q), rel=1e-12)
    assert factor_spread(np.ones(50)) == pytest.approx((2 / 50) ** 0.5, rel=1e-12)


@pytest.mark.parametrize("h", [np.array([1.0, 0.05]), np.array([1.0, 300.0])])
def test_projection_moments_in_the_plane_are_means_over_the_circle(h):
    angle = (np.arange(40_000) + 0.5) * 2 * np.pi / 40_000
    squares = np.stack([np.cos(angle) ** 2, np.sin(angle) ** 2]) / h[:, None]
    share = squares / squares.sum(0)
    m, K = projection_moments(h)
    np.testing.assert_allclose(m, share.mean(1), rtol=1e-8)
    np.testing.assert_allclose(K, share @ share.T / len(angle), rtol=1e-8)


@pytest.mark.parametrize("h", [np.geomspace(1e-6, 1e6, 30), np.linspace(1, 2, 300), concentrated(100, 2)[1]])
def test_projection_moments_sum_to_one_and_do_not_see_the_scale(h):
    m, K = projection_moments(h)
    assert m.sum() == pytest.approx(1, abs=1e-8) and K.sum() == pytest.approx(1, abs=1e-8)
    np.testing.assert_allclose(projection_moments(7 * h)[1], K, rtol=1e-9, atol=1e-15)
    # E z_i^2 (z'z) / q^2 = E z_i^2 / q.
    np.testing.assert_allclose(K.sum(1), m, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("P", [1, 4])
def test_without_h_keeping_the_factor_is_the_sphere(P):
    d, x0 = len(S), np.linspace(1, 2, len(S))
    kept, sphere = ProjectedDescent(S, np.ones(d), x0, P), Descent(S, np.ones(d), x0, P, law="sphere")
    assert kept.limit == pytest.approx(d * sphere.limit, rel=1e-8)
    rates = sphere.limit * np.array([0.1, 0.5, 0.9])
    np.testing.assert_allclose(kept.rounds(d * rates, 0.02), sphere.rounds(rates, 0.02), rtol=1e-7)
    assert kept.value(d * rates[1], 9) == pytest.approx(float(sphere.value(rates[1], 9)), rel=1e-8)


def test_a_factor_that_hardly_varies_saves_nothing_and_one_that_does_saves_rounds():
    ones = np.ones(200)
    assert saved(oracle.spectrum("i^-1.5"), ones, ones, 0.01) == pytest.approx(1, abs=0.02)
    # On k coordinates with S = I the two contract by 1 - P/(k+P+1) and 1 - P/(k+P-1) a round.
    k, P = 40, 3
    expected = np.log1p(-P / (k + P - 1)) / np.log1p(-P / (k + P + 1))
    assert saved(np.ones(k), np.ones(k), np.ones(k), 1e-3, P) == pytest.approx(expected, rel=2e-3)
    assert saved(*concentrated(60, 2), 0.01) > 1.5


def test_a_projection_leaves_a_residual_that_its_direction_does_not_see():
    problem = Quadratics.random(3, 3, leaf_shapes=((2,), (1,)))
    h = np.array([0.5, 1.0, 4.0])
    method = Projection(lr=0.5, perturbations=1, difference="central", h=problem.point(h), eps=0.0)
    rule = gauss_product(3)
    dx = take_round(federation_over(rule, problem, method))
    z = rule.nodes / np.sqrt(h)
    np.testing.assert_allclose((dx * z).sum(1), z @ problem.gradients[0], rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(dx - (dx * z).sum(1, keepdims=True) / (z**2).sum(1, keepdims=True) * z, 0, atol=1e-9)


def test_projections_of_several_clients_and_directions_average():
    problem = Quadratics.random(5, 2, clients=2)
    h = np.array([0.5, 2.0])
    method = Projection(lr=0.5, perturbations=2, difference="central", h=problem.point(h), eps=0.0)
    rule = gauss_product(4)
    dx = take_round(federation_over(rule, problem, method))
    z = rule.nodes.reshape(-1, 2, 2) / np.sqrt(h)
    g = problem.gradients.mean(0)
    expected = ((z @ g) / (z**2).sum(-1))[..., None] * z
    np.testing.assert_allclose(dx, expected.mean(1), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("batch, label", [(1, 0.0), (4, 0.7)])
def test_a_minibatch_round_is_the_exact_second_moment(batch, label):
    x0, P, eta = np.linspace(0.5, 1.5, 12), 3, 0.05
    g, f = S * x0, 0.5 * np.sum(S * x0**2)
    V = (np.outer(g, g) + (2 * f + label) * np.diag(S)) / batch
    second = moments.second_moment(g, 1 / H, S, 0.0, P, noise=V)
    expected = f - eta * np.sum(g**2 / H) + eta**2 / 2 * np.trace(np.diag(S) @ second)
    assert minibatch.expected_loss(S, H, x0, eta, P, 1, batch, label)[1] == pytest.approx(expected, rel=1e-12)


def test_a_huge_batch_has_no_noise():
    x0, exact = np.ones(12), Descent(S, H, np.ones(12), 5)
    eta = exact.limit / 3
    found = minibatch.expected_loss(S, H, x0, eta, 5, 40, 10**12)
    np.testing.assert_allclose(found, exact.value(eta, np.arange(41)), rtol=1e-9)
    assert minibatch.fewest_rounds(S, H, x0, 5, 10**12, 0.0, 0.05)[1] == pytest.approx(exact.best_rounds(0.05)[1], rel=3e-3)


def test_the_fewest_minibatch_rounds_are_the_fewest():
    eta, rounds = minibatch.fewest_rounds(S, H, np.ones(12), 5, 8, 0.05, 0.05)
    for rate in eta * np.array([0.7, 0.9, 1.0, 1.1, 1.4]):
        curve = minibatch.expected_loss(S, H, np.ones(12), rate, 5, int(rounds) - 1, 8, 0.05)
        assert np.all(curve > 0.05 * curve[0])
    # The rounds at that rate: where the logarithm of the loss, straight between rounds, crosses the target's.
    curve = minibatch.expected_loss(S, H, np.ones(12), eta, 5, int(np.ceil(rounds)), 8, 0.05)
    down = -np.log(curve[-2:] / curve[0])
    assert rounds == pytest.approx(np.interp(-np.log(0.05), down, [len(curve) - 2, len(curve) - 1]), abs=1e-9)
    with pytest.raises(ValueError, match="no learning rate reaches"):
        minibatch.fewest_rounds(S, H, np.ones(12), 5, 8, 5.0, 1e-6, most=50)


def test_least_squares_has_its_minimum_at_zero_and_batches_of_its_own():
    problem = LeastSquares(S, 3, 0.0, clients=2, replicates=(4,), key=1)
    zero, one = (torch.zeros(4, 12, dtype=torch.float64),), problem.initial()
    batch = problem.batch(np.zeros(4, dtype=int), 0, 0)
    assert torch.equal(problem.loss(zero, batch), torch.zeros(4, dtype=torch.float64))
    np.testing.assert_allclose(problem.loss(one, batch), 0.5 * batch[0].sum(-1).square().mean(-1))
    np.testing.assert_allclose(problem.excess(one), S.sum() / 2)
    assert not torch.equal(batch[0][0], batch[0][1])
    for other in (problem.batch(np.ones(4, dtype=int), 0, 0), problem.batch(np.zeros(4, dtype=int), 1, 0)):
        assert not torch.equal(batch[0], other[0])
    assert torch.equal(batch[0], problem.batch(np.zeros(4, dtype=int), 0, 0)[0])


@pytest.mark.parametrize("geometry", oracle.GEOMETRIES)
def test_the_quick_search_finds_the_best_constant_rate(geometry):
    s = oracle.spectrum("i^-1.5", 40)
    for h in (np.ones(40), s + 0.01):
        of = oracle.setting(s, h, oracle.noise(s, geometry))
        assert oracle.fewest(of.descent, 0.03)[1] == pytest.approx(of.descent.best_rounds(0.03)[1], rel=1e-3)


def test_active_modes_hold_all_but_the_target_of_the_loss():
    s = np.array([1.0, 0.1, 0.01, 0.001])
    mask = oracle.active(s, np.ones(4), np.ones(4), 0.05)
    assert mask.tolist() == [True, True, False, False]
    assert oracle.active(s, s, np.ones(4), 1e-4).all()


def test_a_rotated_problem_is_an_axis_aligned_one():
    """E f of full second moments, round by round, against the modes of Xi."""
    case = oracle.rotated(0.5, 6)
    h = np.diag(case.S) + 0.02
    of = case.seen(h)
    eta, M, C = of.descent.limit / 3, np.outer(case.x0, case.x0), np.diag(1 / h)
    for r in range(6):
        assert float(of.descent.value(eta, r)) == pytest.approx(0.5 * np.trace(case.S @ M), rel=1e-9)
        step = moments.second_moment(np.zeros(6), C, case.S, 0.0, oracle.P, noise=case.S @ M @ case.S)
        M = M - eta * (C @ case.S @ M + M @ case.S @ C) + eta**2 * step


def test_the_full_matrix_does_not_see_the_rotation():
    s = oracle.spectrum("i^-1.5", 30)
    case = oracle.rotated(np.inf, 30)
    found = oracle.fewest(case.seen(case.S + 0.01 * np.eye(30)).descent, 0.01)[1]
    assert found == pytest.approx(oracle.fewest(oracle.setting(s, s + 0.01).descent, 0.01)[1], rel=1e-6)
    assert case.off_diagonal > 1 and oracle.rotated(0.0, 30).off_diagonal == 0


def test_a_crossing_is_the_last_one():
    values = np.array([[1.0, 1.0], [0.4, 0.4], [0.6, 0.6], [0.3, 0.3], [0.2, 0.2]])
    assert oracle.crossing(values, 0.5) == (3, 3, 3)
    with pytest.raises(ValueError, match="still reaches"):
        oracle.crossing(values, 0.1)


def test_figure_4s_probability_is_the_share_of_draws():
    """10 eigenvalues and a wide window. A wrong value passes a 99.9 % interval (false alarm 0.001) if it is off by < 5 %."""
    window = whitening.Window(L=(10.0, 100.0), trace=(30.0, 120.0))
    table = whitening.simulate(5, draws=20_000, d=10, window=window)["whitening_match"]
    row = table[np.isclose(table["std"], 2.5)].iloc[0]
    assert row["low"] < whitening.match_probability(2.5, 10, window) < row["high"]
    wrong = whitening.match_probability(2.2, 10, window)
    assert not row["low"] < wrong < row["high"]


@pytest.mark.parametrize("call", [
    lambda: factor_spread(np.array([1.0, 0.0])),
    lambda: ProjectedDescent(S, H[:3], np.ones(12), 5),
    lambda: ProjectedDescent(S, H, np.ones(12), 0),
    lambda: ProjectedDescent(S, H, np.ones(12), 5).rounds(1e9, 0.1),
    lambda: ProjectedDescent(S, H, np.ones(12), 5).rounds(1e-3, 1.5),
    lambda: minibatch.expected_loss(S, -H, np.ones(12), 0.1, 5, 3, 4),
    lambda: minibatch.expected_loss(S, H, np.ones(12), 0.1, 5, 3, 0),
    lambda: minibatch.fewest_rounds(S, H, np.ones(12), 5, 4, 0.1, 2.0),
    lambda: oracle.spectrum("cubic"),
    lambda: oracle.noise(S, "white"),
    lambda: whitening.match_probability(0.0),
    lambda: LeastSquares(-S),
    lambda: LeastSquares(S, batch=0),
])  # fmt: skip
def test_misuse_is_refused(call):
    with pytest.raises(ValueError):
        call()


def test_the_figure_is_drawn_from_its_tables(tmp_path):
    frames = [
        oracle.sweep(family, geometry, target, 20).assign(family=family, geometry=geometry, target=target)
        for family, geometry, target in [("i^-1.5", "none", 0.01), ("i^-1", "none", 0.01)]
        + [(family, geometry, 0.03) for family in oracle.DRAWN for geometry in oracle.GEOMETRIES]
    ]
    config = {"dimension": 20, "P": 5, "targets": [0.01, 0.03], "noise": 1e-3}
    points = pd.DataFrame([("none", 0.1, 0.1, 50, 40, 60, 51)], columns="geometry eps eta rounds low high exact".split())
    rotation = pd.DataFrame([(0.0, 0.0, 2.0), (np.inf, 3.0, 1.1)], columns=["angle", "off_diagonal", "speed_up"])
    for name, frame in (("eps", pd.concat(frames)), ("points", points), ("rotation", rotation)):
        records.write(frame, tmp_path / f"oracle_{name}.csv", config, 1)
    fig = picture.draw(tmp_path, "fresh", "oracle")
    assert len(fig.axes) == 6 and fig.texts[-1].get_text() == "fresh"


def test_minibatch_gain_is_like_that_of_noise_in_proportion_to_the_hessian():
    value, eps = oracle.speed_up(minibatches.sweep("i^-1", 0.1))
    assert 1.2 < value < 3 and np.isfinite(eps)
