"""The rules that stand in for the law of the directions: known moments up to their degree, and not beyond."""

import math

import numpy as np
import pytest

from hiso_bench.testing import circles, gauss_product, rule_for, signs, smolyak


def double_factorial(k):
    return math.prod(range(k - 1, 0, -2)) if k % 2 == 0 else 0


def monomials(n, degree):
    """Every exponent vector of R^n with at most `degree` in total."""
    if n == 0:
        yield ()
        return
    for first in range(degree + 1):
        for rest in monomials(n - 1, degree - first):
            yield (first, *rest)


def error(rule, exponents, expected):
    value = rule.mean(np.prod(rule.nodes[:, : len(exponents)] ** np.array(exponents), axis=1))
    return abs(value - expected)


@pytest.mark.parametrize("n", [1, 2, 3, 4])
def test_smolyak_is_exact_to_total_degree_seven(n):
    rule = smolyak(n)
    for exponents in monomials(n, 7):
        expected = math.prod(map(double_factorial, exponents))  # E x^2 = 1, E x^4 = 3, E x^6 = 15
        assert error(rule, exponents, expected) < rule.tolerance, exponents


@pytest.mark.parametrize(("n", "nodes"), [(15, 4151), (40, 82401)])
def test_smolyak_of_many_directions_has_merged_nodes_and_stays_exact(n, nodes):
    rule = smolyak(n)
    assert rule.nodes.shape == (nodes, n)
    assert len(np.unique(np.round(rule.nodes[:1000], 6), axis=0)) == 1000
    assert np.abs(rule.mean(rule.nodes)).max() < rule.tolerance
    assert np.abs(rule.nodes.T @ (rule.weights[:, None] * rule.nodes) - np.eye(n)).max() < rule.tolerance
    for exponents, expected in [((), 1), ((4,), 3), ((6,), 15), ((2, 2), 1), ((4, 2), 3), ((2, 2, 2), 1), ((3, 3, 1), 0)]:
        assert error(rule, exponents, expected) < rule.tolerance


@pytest.mark.parametrize(
    ("exponents", "exact", "by_rule"),
    [((8,), 105, 81), ((6, 2), 15, 9), ((2, 2, 2, 2), 1, 0), ((4, 2, 2), 3, 3), ((4, 4), 9, 9)],
)
def test_control_smolyak_is_wrong_beyond_its_degree(exponents, exact, by_rule):
    # Degree 8. The four-point rule gives E x^8 - 4!; x^6 y^2 meets Q3 (E x^6 = 9); four coordinates meet no product of the sum.
    rule = smolyak(5)
    assert error(rule, exponents, by_rule) < rule.tolerance
    assert (error(rule, exponents, exact) > 0.9) == (exact != by_rule)


def test_gauss_product_is_exact_to_degree_seven_in_each_coordinate():
    rule = gauss_product(3)
    assert rule.nodes.shape == (64, 3)
    for exponents in [(6, 6, 6), (6, 4, 2), (7, 6, 6), (0, 0, 0)]:
        expected = math.prod(map(double_factorial, exponents))
        assert error(rule, exponents, expected) < 1e-12 * (1 + expected)
    assert abs(error(rule, (8, 2, 0), 105) - 24) < 1e-10


def test_circles_are_exact_to_degree_seven_in_each_direction():
    rule = circles(2)
    assert rule.nodes.shape == (64, 4) and circles(5).nodes.shape == (32768, 10)
    np.testing.assert_allclose(np.square(rule.nodes[:, :2]).sum(1), 2, rtol=1e-14)
    # E cos^a sin^b = (a-1)!! (b-1)!! / (a+b)!!, times sqrt(2)^(a+b).
    circle = {(2, 0): 1, (1, 1): 0, (4, 0): 3 / 2, (2, 2): 1 / 2, (6, 0): 5 / 2, (4, 2): 1 / 2, (3, 3): 0, (5, 2): 0}
    for one, expected_one in circle.items():
        for two, expected_two in circle.items():
            assert error(rule, (*one, *two), expected_one * expected_two) < rule.tolerance
    assert error(rule, (8,), 35 / 8) > 0.01  # control: degree 8 sees the octagon


def test_signs_are_every_sign_vector_once():
    rule = signs(6)
    assert len(np.unique(rule.nodes, axis=0)) == 64 and set(rule.nodes.flat) == {-1.0, 1.0}
    assert error(rule, (2, 4, 6, 8), 1) == 0 and error(rule, (1, 2, 4), 0) == 0


def test_a_sphere_rule_beyond_the_circle_is_refused():
    with pytest.raises(ValueError, match="d = 2"):
        rule_for("sphere", 3, 1)
