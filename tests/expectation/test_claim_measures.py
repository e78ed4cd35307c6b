"""The measures behind the claims about estimator and identities, against what can be written down independently."""

import numpy as np
import pytest

from claims import estimator, identities, second_moments, sharing
from hiso_bench.methods import OracleH


def test_the_settings_of_the_step_are_72_different_ones():
    cases = list(estimator.cases())
    assert len(cases) == len(set(cases)) == 72


@pytest.mark.parametrize("d", [2, 3, 6])
def test_the_hessian_is_full_and_positive_semi_definite(d):
    S = estimator.hessian(d)
    values = np.linalg.eigvalsh(S)
    np.testing.assert_allclose(values.max(), 4, rtol=1e-12)
    assert values.min() > -1e-12 and (values.min() < 1e-12) == (d > 2)
    assert np.abs(S - np.diag(np.diag(S))).max() > 0.1


class HalfStep(OracleH):
    def direction(self, step, layout, z, out):
        out = super().direction(step, layout, z, out)
        for leaf in out:
            leaf.mul_(0.5)
        return out


def test_bias_of_half_a_step_is_one_half():
    assert estimator.bias(HalfStep) == pytest.approx(0.5, rel=1e-10)


@pytest.mark.parametrize("mu", [0.1, 0.3])
def test_second_differences_are_those_of_the_quadratic(mu):
    S = estimator.hessian(3) + np.eye(3)
    rule, found = estimator.second_differences(S, mu)
    expected = mu**2 * np.einsum("ni,ij,nj->n", rule.nodes, S, rule.nodes)
    np.testing.assert_allclose(found, expected, rtol=1e-9)
    np.testing.assert_allclose(estimator.stein(S, mu), S, atol=1e-10)


def test_no_gradient_has_a_larger_factor_than_the_worst():
    S = estimator.hessian(3)
    worst = second_moments.factor(second_moments.worst_gradient(second_moments.H, S), second_moments.H, S, 2)
    others = [second_moments.factor(g, second_moments.H, S, 2) for g in np.vstack([np.eye(3), [[1, 1, 1], [1, -2, 3]]])]
    assert max(others) < worst


def test_padding_shows_curvature_and_nothing_else():
    assert identities._padding("decomfl", 1) < 1e-13
    small, large = (identities._padding("decomfl", 1, height=height) for height in (1e-6, 1e-4))
    assert 1e-9 < small < large / 10


def test_paths_scale_with_the_loss_only_under_their_own_rule():
    for method, powers in [("decomfl", {"lr": -1.0}), ("hiso", identities.LEARNED)]:
        assert identities._scaled(method, powers, c=7.0)[0] < 1e-12
        assert identities._scaled(method, powers | {"lr": powers["lr"] + 1e-3}, c=7.0)[0] > 1e-5


def test_first_client_does_not_depend_on_how_many_there_are():
    one, three = identities.clients(3, 1), identities.clients(3, 3)
    assert np.array_equal(one.hessians[0], three.hessians[0]) and np.array_equal(one.linear[0], three.linear[0])
    assert np.array_equal(one.start, three.start) and not np.array_equal(three.linear[0], three.linear[1])


def test_a_client_with_the_updates_of_another_time_is_a_stranger():
    assert sharing._strangers("hiso", patterns=1) == 0
    assert sharing._strangers("hiso", shift=1, patterns=1) == 1
