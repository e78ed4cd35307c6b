"""What second differences mean, exactly: E c = tr(H^-1 S), Var c = 2 |Xi|_F^2, and the bound on the step that follows from them.

The scalars are those of a real federated round, with a direction injected for every node of a cubature.
"""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hiso_bench import keys
from hiso_bench.directions import Warped
from hiso_bench.methods import Curvature
from hiso_bench.testing import Quadratics, federation_over, joined, rule_for, take_round
from hiso_bench.theory import stability

H = np.array([10.0, 1.0, 0.1])


def measured(S, h, nc=1, P=1, rule=None):
    """The second differences (N, nc) of a client-mean Hessian S under H, with the rule of its nodes."""
    rule = rule or rule_for("gaussian", len(S), P)
    at = Quadratics(S[None], np.zeros((1, len(S))), np.ones(len(S)))
    f = federation_over(rule, at, Curvature(perturbations=P, second_differences=nc, curvature_mu=0.5))
    f.state.buffers["h"][0].copy_(joined(at.point(h), at.layout))
    z = Warped(f.directions, f.method.warp(f.state))
    scalars, _ = f.measure(0, np.zeros((1, len(rule.weights)), dtype=int), [0], z)
    return rule, scalars[0, 0, P:].numpy().T


@pytest.mark.parametrize(("P", "nc"), [(1, 1), (2, 1), (3, 3)])
@pytest.mark.parametrize("key", range(3))
def test_mean_and_variance(key, P, nc):
    S = Quadratics.random(key, 3).hessians[0]
    rule, c = measured(S, H, nc, P)
    xi = S / np.sqrt(np.outer(H, H))
    T, frobenius = np.trace(xi), np.sum(xi**2)
    rule.check(rule.mean(c), np.full(nc, T))
    rule.check(rule.mean((c - T) ** 2), np.full(nc, 2 * frobenius))
    rule.check(rule.mean(c * (c - T)[:, :1]), np.eye(nc)[0] * 2 * frobenius)  # different directions say different things


def test_what_the_diagonal_leaves_is_the_rest_of_the_matrix():
    """Var (c - sum sigma_j z_j^2) = 2 |Xi - diag sigma/h|_F^2 for any sigma of the right trace."""
    S = Quadratics.random(4, 3).hessians[0]
    rule = rule_for("gaussian", 3, 1)
    _, c = measured(S, H, rule=rule)
    sigma = np.diag(S) + H * np.array([0.3, -0.5, 0.2])
    e = c[:, 0] - (rule.nodes**2) @ (sigma / H)
    xi = S / np.sqrt(np.outer(H, H))
    rule.check(rule.mean(e), np.zeros(()))
    rule.check(rule.mean(e**2), np.asarray(2 * np.sum((xi - np.diag(sigma / H)) ** 2)))


@pytest.mark.parametrize("nc", [1, 2])
def test_the_direction_is_unbiased_for_every_h(nc):
    """The probed slopes are central: no curvature_mu, however large, enters E dx = H^-1 g."""
    at = Quadratics.random(2, 3, clients=2)
    rule = rule_for("gaussian", 3, 2)
    f = federation_over(
        rule, at, Curvature(lr=1.0, perturbations=2, second_differences=nc, curvature_mu=0.7, difference="forward")
    )
    f.state.buffers["h"][0].copy_(joined(at.point(H), at.layout))
    f.state.buffers["step"][0].fill_(1.0)
    rule.check(rule.mean(take_round(f)), at.gradients.mean(0) / H)


@given(st.integers(0, 2**32), st.integers(1, 8), st.integers(1, 20), st.floats(0, 1))
def test_the_safe_step_is_stable_in_mean_square(key, d, P, known):
    """2P / (T + (P+1) L) <= eta* for both bounds on L: |Xi|_F, and max diag + |the rest|_F with any diagonal model."""
    draw = keys.rng(keys.derive(key, "safe"))
    root = draw.standard_normal((d, d)) * np.exp(2 * draw.standard_normal(d))
    xi = root @ root.T
    lam = np.linalg.eigvalsh(xi)
    model = known * np.diag(xi) + (1 - known) * np.trace(xi) / d
    limit = stability.max_stable_step(np.maximum(lam, 0), np.ones(d), P)
    for L in (np.linalg.norm(xi), model.max() + np.linalg.norm(xi - np.diag(model))):
        assert lam.max() <= L * (1 + 1e-12)
        assert 2 * P / (np.trace(xi) + (P + 1) * L) <= limit * (1 + 1e-9)
