"""The tables of the neighbours: moments of their first steps, stable steps and floors are what the formulas say."""

import math

import numpy as np
import pytest
import torch

from hiso_bench import catalogue, records
from hiso_bench.directions import InjectedDirections
from hiso_bench.federation import Federation, FederationOptions
from hiso_bench.points import cut, joined
from hiso_bench.testing import Cubature, Quadratics, federation_over, gauss_product, half_hermite, product, signs, take_round
from synthetic import neighbour_cases, neighbour_limits, neighbours

CASES = {case.name: case for case in neighbour_cases.CASES}
STABLE = [case for case in CASES.values() if case.shrinks]
RECORDED = records.read(catalogue.RESULTS / "neighbours.csv")[0]


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_a_round_costs_and_moves_as_the_formulas_predict(case):
    found, expected = neighbour_cases.measure(case), neighbour_cases.expected_row(case)
    assert found[:3] == expected[:3]
    assert found[3:] == pytest.approx(expected[3:], rel=1e-6)


def test_the_page_of_the_methods_holds_the_tables_of_the_recorded_results():
    assert neighbours.README.read_text() == neighbours.page(RECORDED)


def test_the_recorded_numbers_are_those_of_the_code():
    recorded_rows = {(row["case"], row["quantity"]): row for row in RECORDED.to_dict("records")}
    for case in CASES.values():
        fresh = list(neighbours.one_round(case)) + (list(neighbours.long_run(case)) if case.shrinks else [])
        for name, quantity, *values in fresh:
            recorded = [recorded_rows[name, quantity][column] for column in neighbours.COLUMNS[2:]]
            np.testing.assert_allclose(recorded, values, rtol=1e-7)


@pytest.mark.parametrize("case", STABLE, ids=[case.name for case in STABLE])
def test_the_second_moment_falls_below_the_edge_and_grows_above_it(case):
    below, above = neighbour_limits.around(case)
    assert below < 1 < above
    assert neighbour_limits.observed(case).value == pytest.approx(case.limit, rel=1e-6)


def test_recorded_floors_and_kept_edges_hold_their_predictions():
    rows = [
        row
        for row in RECORDED.dropna().to_dict("records")
        if row["quantity"] == "floor" or (row["quantity"] == "eta*" and " with " in row["case"])
    ]
    assert len(rows) == 12
    for row in rows:
        slack = 1e-6 * row["predicted"]
        if math.isfinite(row["predicted_high"]):
            assert row["low"] - slack <= row["predicted_high"] and row["predicted"] <= row["high"] + slack, row["case"]
    # Rademacher FZOO with three directions is not where one step from an axis would have it.
    (fzoo,) = (row for row in rows if row["case"] == "fzoo, P = 3, rademacher")
    assert fzoo["low"] > 2 * fzoo["predicted"]


def test_a_run_hovers_at_its_floor():
    case = CASES["feedsign, P = 1"]
    lengths = neighbour_limits.run(case, 300, 100, 64).mean(0)
    assert abs(lengths.mean() - case.limit) < 4 * lengths.std() / 8
    assert lengths.std() / 8 < 0.05 * case.limit


@pytest.mark.parametrize("lr", [0.02, 0.1, 0.2])
def test_lozo_over_a_window_of_two_rounds_is_the_power_of_its_operator(lr):
    """Two real rounds, U drawn in each and V in the first alone, from a point of no symmetry."""
    rule = product(gauss_product(2, 3), gauss_product(2, 3), gauss_product(2, 5))
    table = torch.from_numpy(np.stack([rule.nodes[:, [0, 1, 4, 5]], rule.nodes[:, [2, 3, 4, 5]]], 1))
    table[:, 1, 2:] = torch.nan  # what is drawn for V in the second round is not used
    method, start = CASES["lozo, P = 1"].build(lr=lr, window=2), np.array([1.0, -2.0, 0.5, 3.0])
    problem = neighbour_cases.problem(start, (len(rule.weights),))
    sources = []

    def make(layout):
        sources.append(InjectedDirections(layout, lambda key: cut(table[:, key.round], layout)))
        return sources[-1]

    method.directions(problem.layout, make)
    federation = Federation(problem, method, FederationOptions(wire="float64"), directions=sources[0])
    for _ in range(2):
        federation.round()
    found = rule.mean((joined(federation.state.x, problem.layout).numpy() ** 2).sum(1)) / (start @ start)
    once = product(gauss_product(2, 3), gauss_product(2, 5))
    A = neighbour_limits.maps(CASES["lozo, P = 1"], once, lr)
    assert neighbour_limits.growth(A, once, (2, 3), 2) ** 2 == pytest.approx(found, rel=1e-9)
    assert abs(neighbour_limits.growth(A, once) ** 2 - found) > 1e-4 * found  # control: V anew in every round


def test_the_edge_of_lozo_is_that_of_one_round_for_a_window_of_one_and_falls_with_the_window():
    edges = [neighbour_limits.lozo_edge(window) for window in (1, 2, 5, 20)]
    assert edges[0] == pytest.approx(1 / 8, rel=1e-8)
    assert np.all(np.diff(edges) < 0)


@pytest.mark.parametrize("P", [2, 3, 4])
def test_fzoo_on_an_axis_is_a_count_of_signs(P):
    problem = Quadratics(np.zeros((1, 4, 4)), np.array([[3.0, 0, 0, 0]]), np.ones(4))
    rule = signs(4 * P)
    dx = take_round(federation_over(rule, problem, CASES["fzoo, P = 3, rademacher"].build(perturbations=P)))
    assert (rule.mean(dx[:, 0]), rule.mean((dx**2).sum(1))) == pytest.approx(neighbour_cases.fzoo_on_an_axis(P), rel=1e-9)


def test_the_second_moment_of_fzoo_has_no_bound_near_an_axis():
    """Directions that agree on the axis differ by delta alone: M -> 1 / (4 delta^2), while on the axis itself it is 9/8."""
    for delta in (1e-2, 1e-3):
        problem = Quadratics(np.zeros((1, 4, 4)), np.array([[1.0, delta, 0, 0]]), np.ones(4))
        rule = signs(12)
        dx = take_round(federation_over(rule, problem, CASES["fzoo, P = 3, rademacher"].build()))
        assert rule.mean((dx**2).sum(1)) * delta**2 == pytest.approx(1 / 4, rel=2 * delta)


def test_the_rule_of_a_length_is_exact():
    rule = half_hermite(4, 5)
    for k in range(8):
        expected = 2 ** (k / 2) * math.gamma((k + 5) / 2) / math.gamma(5 / 2)
        assert rule.mean(np.abs(rule.nodes[:, 0]) ** k) == pytest.approx(expected, rel=1e-11)


def test_meazo_with_two_directions_has_a_first_step_without_bound():
    """dx = g sum c_p^2 / |sum c_p|: of the order 1 / gap where c = (1, gap - 1), which no interval around gap = 0 averages."""
    gaps = np.array([1e-1, 1e-2, 1e-3])
    nodes = np.stack([np.ones(3), np.zeros(3), gaps - 1, np.zeros(3)], 1)
    problem = Quadratics(np.zeros((1, 2, 2)), np.array([[2.0, 0.0]]), np.ones(2))
    method = CASES["meazo, P = 1"].build(perturbations=2, eps=0.0)
    dx = take_round(federation_over(Cubature(nodes, np.full(3, 1 / 3)), problem, method))
    np.testing.assert_allclose(dx[:, 0], (1 + (gaps - 1) ** 2) / gaps, rtol=1e-5)
