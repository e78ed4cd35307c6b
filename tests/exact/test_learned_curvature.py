"""What second differences teach, written out once more in NumPy from the numbers that were sent.

In whitened coordinates, phi_j = h_j z_j^2 and lambda_j = sigma_j / h_j, a second difference is modelled as c = lambda . phi.
"""

import numpy as np
import pytest
import torch

from hiso_bench import keys
from hiso_bench.federation import Federation, FederationOptions
from hiso_bench.methods import Curvature, CurvatureBlock, SafeStep
from hiso_bench.testing import Quadratics

LEAVES, SIZES, P, D = ((2, 2), (3,), (1,)), np.array([4, 3, 1]), 3, 8
PRIOR, DAMPING, FLOOR, GATE, BURN, HORIZON, LEAF_HORIZON = 0.2, 0.5, 0.15, 1.5, 4, 12, 5


def vector(leaves):
    return torch.cat([leaf.reshape(-1) for leaf in leaves]).numpy().copy()


def heard(kind, rounds, **more):
    """A run whose second differences and directions are written down: per round (sent, state after it)."""
    draw = keys.rng(keys.derive(6, "learned curvature"))
    S = np.diag(np.geomspace(4, 0.05, D)) + 0.05
    sent, found = [], []

    class Heard(kind):
        def average(self, state, key, c, z):
            sent.append((key, float(c), vector(z(key))))
            super().average(state, key, c, z)

    at = Quadratics(np.stack([S, 2 * S]), draw.standard_normal((2, D)), draw.standard_normal(D), LEAVES)
    options = {"perturbations": P, "second_differences": 2, "memory": 0, "difference": "central", "curvature_mu": 1.0}
    method = Heard(**options, burn_in=BURN, horizon=HORIZON, floor=FLOOR, **more)
    f = Federation(at, method, FederationOptions(sampled=2, wire="float64", key=8))
    for _ in range(rounds):
        f.round()
        found.append((list(sent), {name: vector(leaves) for name, leaves in f.state.buffers.items()}))
        sent.clear()
    return found


class Statistics:
    """Mean, variance and unexplained part of the second differences, and the step that they allow."""

    def __init__(self):
        self.count, self.mean, self.variance, self.left, self.step = 0, 0.0, 0.0, 0.0, 0.0

    def take(self, c, predicted):
        w = max(1 / (self.count + 1), 1 / HORIZON)
        # Weighted mean and variance of the old sample, of weight 1 - w at its mean, and of c.
        self.variance = (1 - w) * self.variance + w * (1 - w) * (c - self.mean) ** 2
        self.mean = (1 - w) * self.mean + w * c
        self.left = self.variance if self.count < BURN else (1 - w) * self.left + w * (c - predicted) ** 2
        self.count += 1

    def rescale(self, ratio):
        """C is in units of 1/H."""
        self.mean, self.variance, self.left = self.mean * ratio, self.variance * ratio**2, self.left * ratio**2

    def allow(self, trace=0.0, top=np.inf):
        T, L = max(self.mean, trace), min(np.sqrt(self.variance / 2), top + np.sqrt(self.left / 2))
        self.step = 2 * P / (T + (P + 1) * L) if self.count >= BURN else 0.0

    def check(self, buffers):
        now = [float(buffers[name][0]) for name in ("count", "trace", "variance", "error", "step")]
        np.testing.assert_allclose(now, [self.count, self.mean, self.variance, self.left, self.step], rtol=1e-9, atol=1e-14)


def test_a_diagonal_follows_the_damped_projection():
    sigma, h, of = np.ones(D), np.ones(D), Statistics()
    powers = []
    for sent, buffers in heard(Curvature, 40, prior=PRIOR, damping=DAMPING, gate=GATE):
        burning = of.step == 0
        for _, c, z in sent:
            phi, lam = h * z**2, sigma / h
            predicted = lam @ phi
            deviation = (lam + PRIOR * lam.mean()) ** 2
            change = deviation * phi * (c - predicted) / (1 + DAMPING) / (phi @ (deviation * phi)) / lam
            if not burning:
                sigma = sigma * np.where(change > 0, 1 + np.minimum(change, 1), 1 / (1 - np.minimum(change, 0)))
            of.take(c, of.mean if burning else predicted)
        sigma = np.maximum(sigma, 1e-8 * sigma.mean())
        if burning:
            sigma = np.full(D, of.mean / D)
        powers.append(0.0 if burning else np.clip(GATE * (1 - of.left / of.variance), 0, 1))
        new = (sigma / sigma.mean() + FLOOR) ** powers[-1]
        new = new * np.mean(1 / new)
        of.rescale(np.sum(sigma / new) / np.sum(sigma / h))
        h = new
        of.allow(np.sum(sigma / h), np.max(sigma / h))
        np.testing.assert_allclose(buffers["sigma"], sigma, rtol=1e-9)
        np.testing.assert_allclose(buffers["h"], h, rtol=1e-9)
        of.check(buffers)
    assert np.mean(1 / h) == pytest.approx(1) and h.max() > 2 * h.min()
    assert any(0 < power < 1 for power in powers)  # the gate has been neither shut nor open


def test_leaves_follow_their_means():
    sigma, seen, h, of = np.ones(3), np.zeros(3), np.ones(3), Statistics()
    for r, (sent, buffers) in enumerate(heard(CurvatureBlock, 30, leaf_horizon=LEAF_HORIZON)):
        for key, c, _ in sent:
            number = 2 * r + key.p
            if number % 2 == 0:
                of.take(c, of.mean)
                continue
            leaf = number // 2 % 3
            # c = z_b' S_bb z_b has the mean tr S_bb / h_b.
            w = max(1 / (seen[leaf] + 1), 1 / LEAF_HORIZON)
            sigma[leaf] += w * (max(c, 0) * h[leaf] / SIZES[leaf] - sigma[leaf])
            seen[leaf] += 1
        if seen.all():
            new = sigma / (SIZES @ sigma / D) + FLOOR
            new = new * (SIZES @ (1 / new) / D)
            of.rescale((SIZES @ (sigma / new)) / (SIZES @ (sigma / h)))
            h = new
        of.allow()
        np.testing.assert_allclose(buffers["sigma"], sigma, rtol=1e-9)
        np.testing.assert_allclose(buffers["h"], h, rtol=1e-9)
        of.check(buffers)
    assert seen.all() and h.max() > 2 * h.min()


def test_momentum_carries_a_constant_direction_as_far_in_the_long_run():
    state = {}
    for momentum in (0.0, 0.75):
        method = SafeStep(lr=0.5, momentum=momentum)
        at = method.init((torch.zeros(1, dtype=torch.float64),), Quadratics.random(0, 1).layout)
        at.buffers["step"][0].fill_(2.0)
        for _ in range(200):
            method.move(at, (torch.ones(1, dtype=torch.float64),), None)
        before = float(at.x[0])
        method.move(at, (torch.ones(1, dtype=torch.float64),), None)
        state[momentum] = float(at.x[0]) - before
    assert state[0.0] == pytest.approx(-1.0) and state[0.75] == pytest.approx(-1.0)
