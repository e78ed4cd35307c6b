"""The exact moments of local steps: against the one-client recursion, and against the core over cubature nodes."""

import numpy as np
import pytest
import torch

from hiso_bench import methods
from hiso_bench.testing import Quadratics, federation_over, gauss_product, joined
from hiso_bench.theory.local_steps import LocalSteps
from hiso_bench.theory.recursion import expected_loss

S = np.array([1.0, 0.5, 0.25])


@pytest.mark.parametrize("law", ["gaussian", "sphere", "rademacher"])
def test_clients_of_one_hessian_take_the_central_steps_of_their_mean(law):
    b = np.array([[1.0, -2.0, 0.5], [-1.0, 2.0, -0.5]])
    h, eta, P, tau, rounds = np.array([1.0, 2.0, 0.5]), 0.1, 3, 4, 5
    local = LocalSteps([S, S], b, h, eta, P, tau, noise=0.1, law=law).expected_loss(1.0, rounds)
    central = expected_loss(S, h, np.ones(3), eta, P, rounds * tau, 0.0, law, "central", noise=0.1, m=2)
    np.testing.assert_allclose(local, central[::tau], rtol=1e-13)
    apart = LocalSteps([1.5 * S, 0.5 * S], b, h, eta, P, tau, noise=0.1, law=law).expected_loss(1.0, rounds)
    assert np.abs(apart[1:] / local[1:] - 1).min() > 1e-3


@pytest.mark.parametrize(("tau", "P", "rounds"), [(2, 1, 1), (2, 2, 1), (4, 1, 1), (2, 1, 2)])
def test_the_core_s_local_steps_have_these_moments(tau, P, rounds):
    """Exact: the loss after local steps is a polynomial of degree 4 in every coordinate of every direction."""
    d, eta = 2, 0.3
    problem = Quadratics.random(3, d, clients=2, diagonal=True)
    method = methods.build(
        "hiso-oracle", lr=eta, perturbations=P, difference="central", h=(torch.tensor([0.5, 2.0]).double(),), eps=0.0
    )
    rule = gauss_product(rounds * tau * P * d)
    f = federation_over(rule, problem, method, rounds=rounds, local_steps=tau)
    for _ in range(rounds):
        f.round()
    x = joined(f.state.x, f.problem.layout).numpy()
    s = np.stack([np.diag(hessian) for hessian in problem.hessians])
    theory = LocalSteps(s, problem.linear, np.array([0.5, 2.0]), eta, P, tau)
    at = theory.start(problem.start)
    for _ in range(rounds):
        at = theory.round(at)
    rule.check(rule.mean(x), at.mean[0])
    rule.check(rule.mean(x**2), at.square[0, 0])
    value = 0.5 * (x**2 * s.mean(0)).sum(1) + x @ problem.linear.mean(0)
    assert rule.mean(value) == pytest.approx(theory.loss(at), rel=1e-11)


def test_the_deviation_of_the_clients_is_that_of_their_models():
    """Sampled: 40,000 draws of one step; each number within 5 standard errors."""
    rng = np.random.default_rng(0)
    s, eta, P = np.array([[1.0, 0.2, 0.0], [0.3, 0.6, 0.0], [0.1, 0.1, 0.0]]), 0.2, 2
    b = np.array([[0.5, 0.1, 0.0], [-0.5, -0.1, 0.0], [0.0, 0.0, 0.0]])
    theory = LocalSteps(s, b, 1.0, eta, P, 2)
    z = rng.standard_normal((40_000, 2, P, 3))
    x = np.ones((40_000, len(s), 3))
    for k in range(2):
        scalars = np.einsum("npd,nid->nip", z[:, k], s * x + b)
        x = x - eta / P * np.einsum("nip,npd->nid", scalars, z[:, k])
    at = theory.local(theory.start(1.0), 2)
    for weights in (1.0, (s - s.mean(0)) ** 2, np.array([[1.0], [0.0], [0.0]])):
        draws = (weights * (x - x.mean(1, keepdims=True)) ** 2).sum(-1).mean(1)
        assert abs(draws.mean() - at.deviation(weights)) < 5 * draws.std() / 200
    assert at.deviation([0.0, 0.0, 1.0]) > 0  # directions carry the clients apart where their losses are flat


def test_flat_coordinates_change_no_loss_for_any_tau():
    def losses(padding):
        pad = np.zeros((2, padding))
        s, b = np.hstack([[S, 0.5 * S], pad]), np.hstack([[[0.3, 0.1, -0.2], [-0.3, -0.1, 0.2]], pad])
        return LocalSteps(s, b, np.append([1.0, 0.5, 2.0], np.full(padding, 0.01)), 0.1, 2, 3).expected_loss(1.0, 20)

    np.testing.assert_allclose(losses(500), losses(0), rtol=1e-13)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"s": [1.0]}, "one row per client"),
        ({"h": 0.0}, "h must be positive"),
        ({"noise": -1.0}, "noise holds variances"),
        ({"eta": 0.0}, "eta must be positive"),
        ({"tau": 0}, "tau at least 1"),
        ({"P": 0}, "P must be a whole number"),
        ({"law": "cauchy"}, "unknown law"),
    ],
)
def test_bad_input_is_refused_with_the_reason(change, message):
    given = {"s": [[1.0]], "b": 0.0, "h": 1.0, "eta": 0.1, "P": 1, "tau": 1} | change
    with pytest.raises(ValueError, match=message):
        LocalSteps(**given)
    with pytest.raises(ValueError, match="rounds must not be negative"):
        LocalSteps([[1.0]], 0.0, 1.0, 0.1, 1, 1).expected_loss(1.0, -1)
