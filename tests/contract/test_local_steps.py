"""The experiments on local steps measure what they say they measure."""

import numpy as np
import pytest
import torch

from hiso_bench import methods
from synthetic import local_steps as local
from synthetic.end_points import Median, end_point_gap
from tests.helpers import quadratic


def test_rounds_settle_where_a_long_run_of_gradient_descent_settles():
    problem, eta, tau = local.family(), 0.2, 4
    x = torch.zeros(local.ACTIVE, dtype=torch.float64)
    parts = [problem.client_part(np.array(i)) for i in range(problem.clients)]
    for _ in range(500):
        ends = []
        for part in parts:
            at = x.clone()
            for _ in range(tau):
                at -= eta * problem.loss.gradient(at, part)
            ends.append(at)
        x = torch.stack(ends).mean(0)
    torch.testing.assert_close(local.fixed_point(problem, eta, tau), x, rtol=0, atol=1e-12)
    slope, bend = local.mean_slope(problem, x + 0.3, eta, tau)
    nearby, _ = local.mean_slope(problem, x + 0.3 + 1e-6, eta, tau)
    torch.testing.assert_close((nearby - slope) / 1e-6, bend, rtol=1e-4, atol=1e-6)


def test_the_first_order_bias_is_the_limit_of_small_steps_and_vanishes_with_equal_hessians_or_one_step():
    problem = local.family()
    for tau in (2, 6):
        g = local.mean_gradient(problem, local.fixed_point(problem, 1e-4, tau))
        torch.testing.assert_close(g, local.first_order_bias(problem, 1e-4, tau), rtol=5e-3, atol=1e-9)
    assert local.squared_bias(local.family(spread=0.0), 0.01, 6) < 1e-28
    assert local.squared_bias(problem, 0.01, 1) < 1e-28


@pytest.mark.parametrize("name", ["decomfl", "hiso"])
def test_equal_hessians_make_local_steps_central_ones(name):
    assert local.drift_from_central(0.0, 4, 3, name) < 1e-11
    assert local.drift_from_central(0.3, 4, 3, name) > 1e-4


@pytest.mark.parametrize("tau", [1, 4])
def test_the_drift_of_one_round_has_its_exact_mean(tau):
    """400 replicates; the interval holds the exact value at 99.9 %, and not twice or half of it."""
    measured, predicted = local.drift_after_round(0.5, tau, 400)
    if tau == 1:
        assert predicted == 0 and measured.high < 1e-20
    else:
        assert measured.low < predicted < measured.high
        assert predicted / 2 < measured.low and measured.high < 2 * predicted


def test_flat_coordinates_are_invisible_unless_h_mixes_coordinates():
    assert local.padding_gap("hiso", tau=2, d=50, rounds=5) < 1e-11
    assert local.padding_gap("hiso-scalar", tau=2, d=50, rounds=5) > 1e-6


@pytest.mark.parametrize("name", ["decomfl", "hiso", "hiso-a"])
@pytest.mark.parametrize("more", [{}, {"momentum": 0.5, "weight_decay": 0.1}], ids=str)
def test_the_server_stands_at_the_mean_of_its_clients_end_points(name, more):
    problem = quadratic((3,))
    method = methods.build(name, lr=0.02, **more)
    assert end_point_gap(problem, method, 3, 4) < 1e-11
    assert end_point_gap(problem, method, 3, 4, stale=True) > 1e-3


def test_a_median_of_scalars_is_no_mean_of_models():
    assert end_point_gap(quadratic((3,)), Median(lr=0.02), 3, 4) > 1e-3


def test_the_table_over_tau_agrees_with_its_predictions():
    """Ten sampled rows at 99.9 %; what is not sampled is within 1 % of first order."""
    table = local.tau_table(replicates=100).set_index(["quantity", "tau"])
    assert list(table.columns) == ["predicted", "measured", "low", "high"]
    assert set(table.index.get_level_values("tau")) == set(local.TAUS)
    for (quantity, tau), row in table.iterrows():
        if quantity == "squared bias":
            assert row["measured"] == pytest.approx(row["predicted"], rel=0.01)
        elif not (quantity.startswith("drift") and tau == 1):
            assert row["low"] <= row["predicted"] <= row["high"], (quantity, tau)
