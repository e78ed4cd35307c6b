"""The neighbour methods and controls are their formulas, written out here once more in NumPy; H drawn at random is unbiased."""

import numpy as np
import pytest
import torch

from hiso_bench import methods
from hiso_bench.directions import DirectionKey, Directions
from hiso_bench.federation import Federation, FederationOptions
from hiso_bench.testing import Quadratics, federation_over, joined, smolyak, take_round

KEY, LR, MU, EMA, P = 11, 0.05, 0.1, 0.3, 3


class Meazo:
    """Dbouk et al.: g_t the mean scalar, v_t its squares' average corrected for its start, theta - eta dx / (sqrt(v) + zeta)."""

    def __init__(self, x):
        self.v, self.t = 0.0, 0

    def step(self, scalars, u, x, keep):
        v, t = (1 - EMA) * self.v + EMA * scalars.mean() ** 2, self.t + 1
        if keep:
            self.v, self.t = v, t
        return scalars @ u / P / (np.sqrt(v / (1 - (1 - EMA) ** t)) + 1e-8)


class Adam:
    """Kingma and Ba's moments of dx, both corrected for their start; b = 0 is RMSProp. `peaks`: AMSGrad's largest v."""

    def __init__(self, x, b=0.0, ema=EMA, peaks=False):
        self.m, self.v, self.t, self.b, self.ema = np.zeros_like(x), np.zeros_like(x), 0, b, ema
        self.peaks, self.top = peaks, np.zeros_like(x)

    def step(self, scalars, u, x, keep):
        dx, t = scalars @ u / P, self.t + 1
        m = self.b * self.m + (1 - self.b) * dx
        v = (1 - self.ema) * self.v + self.ema * dx**2
        top = np.maximum(self.top, v) if self.peaks else v
        if keep:
            self.m, self.v, self.t, self.top = m, v, t, top
        return m / (1 - self.b**t) / (np.sqrt(top / (1 - (1 - self.ema) ** t)) + 1e-8)


class LeastSquares:
    """HiSo whose directions z = H^{-1/2} u carry s / z'z; H learns from that very step."""

    def __init__(self, x):
        self.h = np.ones_like(x)

    def z(self, u):
        return u / np.sqrt(self.h)

    def step(self, scalars, u, x, keep):
        z = self.z(u)
        dx = (scalars / (z**2).sum(1)) @ z / P
        if keep:
            self.h = (1 - EMA) * self.h + EMA * (dx**2 + 1e-8)
        return dx


RULES = {
    "meazo": (Meazo, {"ema_new": EMA}),
    "zo-rmsprop": (Adam, {"ema_new": EMA}),
    "zo-adam": (lambda x: Adam(x, 0.8, 0.1), {"momentum": 0.8, "ema_new": 0.1}),
    "zo-adam with amsgrad": (lambda x: Adam(x, 0.8, 0.1, True), {"momentum": 0.8, "ema_new": 0.1, "amsgrad": True}),
    "hiso-exact-scalar": (LeastSquares, {"ema_new": EMA}),
}


def setting():
    return Quadratics.random(key=1, d=6, clients=3, leaf_shapes=((2, 1), (), (3,)))


def live(name, rounds, **more):
    problem = setting()
    method = methods.build(name.partition(" ")[0], RULES[name][1] | more, lr=LR, mu=MU, perturbations=P)
    federation = Federation(problem, method, FederationOptions(sampled=3, wire="float64", key=KEY))
    for _ in range(rounds):
        federation.round()
        yield joined(federation.state.x, problem.layout).numpy().copy()


def recurrence(rule, rounds):
    problem = setting()
    directions = Directions(problem.layout, KEY, dtype=torch.float64)
    S, b, x = problem.hessians, problem.linear, problem.start.copy()
    state = rule(x)
    for r in range(rounds):
        u = np.array([joined(directions.draw(DirectionKey(r, 0, p)), problem.layout).numpy() for p in range(P)])
        z = state.z(u) if hasattr(state, "z") else u
        g, mean = S @ x + b, S.mean(0)
        scalars = z @ g.mean(0) + MU / 2 * np.einsum("pi,ij,pj->p", z, mean, z)
        x = x - LR * state.step(scalars, u, x, keep=True)
        yield x


@pytest.mark.parametrize("name", RULES)
def test_rounds_follow_the_recurrence(name):
    rule, rounds = RULES[name][0], 8
    for found, expected in zip(live(name, rounds), recurrence(rule, rounds), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize(
    ("name", "other"),
    [
        ("meazo", "zo-rmsprop"),
        ("zo-adam", "zo-rmsprop"),
        ("zo-adam with amsgrad", "zo-adam"),
        ("hiso-exact-scalar", "meazo"),
    ],
)
def test_control_another_recurrence_does_not_agree(name, other):
    found, expected = list(live(name, 3))[-1], list(recurrence(RULES[other][0], 3))[-1]
    assert np.abs(found - expected).max() > 1e-3


def test_amsgrad_is_that_of_torch_given_the_same_directions():
    """The reference is not ours: torch's optimiser, fed the dx of the same directions."""
    problem, rounds = setting(), 6
    x = torch.nn.Parameter(torch.from_numpy(problem.start.copy()))
    other = torch.optim.Adam([x], lr=LR, betas=(0.8, 0.9), eps=1e-8, amsgrad=True)
    directions = Directions(problem.layout, KEY, dtype=torch.float64)
    for r, found in enumerate(live("zo-adam with amsgrad", rounds)):
        u = np.array([joined(directions.draw(DirectionKey(r, 0, p)), problem.layout).numpy() for p in range(P)])
        at, S = x.detach().numpy(), problem.hessians.mean(0)
        scalars = u @ (S @ at + problem.linear.mean(0)) + MU / 2 * np.einsum("pi,ij,pj->p", u, S, u)
        x.grad = torch.from_numpy(scalars @ u / P)
        other.step()
        np.testing.assert_allclose(found, x.detach().numpy(), rtol=0, atol=1e-7)  # eps stands beside another root


def test_the_first_round_of_an_adaptive_step_has_no_units():
    # dx / |mean scalar| and dx_j / |dx_j|: the loss times 1000 moves x as before.
    for name in ("meazo", "zo-rmsprop", "zo-adam"):
        ends = []
        for c in (1.0, 1000.0):
            one = setting()
            problem = Quadratics(c * one.hessians, c * one.linear, one.start, one.layout.leaf_shapes)
            method = methods.build(name, lr=LR, mu=MU, perturbations=P, eps=0.0)
            federation = Federation(problem, method, FederationOptions(sampled=3, wire="float64", key=KEY))
            for _ in range(3):
                federation.round()
            ends.append(joined(federation.state.x, problem.layout).numpy())
        np.testing.assert_allclose(ends[1], ends[0], rtol=1e-9)


def test_the_least_squares_scalar_undoes_the_size_of_h():
    # H -> 100 H changes no step: what HiSo's learned H does to the step size is gone.
    one, other = (list(live("hiso-exact-scalar", 1, h0=h0))[-1] for h0 in (1.0, 100.0))
    np.testing.assert_allclose(other - setting().start, one - setting().start, rtol=0, atol=MU * LR)
    plain, apart = (list(live_hiso(h0))[-1] for h0 in (1.0, 100.0))
    assert np.abs(apart - setting().start).max() < 0.1 * np.abs(plain - setting().start).max()


def live_hiso(h0):
    problem = setting()
    method = methods.build("hiso", lr=LR, mu=MU, perturbations=P, h0=h0)
    federation = Federation(problem, method, FederationOptions(sampled=3, wire="float64", key=KEY))
    federation.round()
    yield joined(federation.state.x, problem.layout).numpy()


def test_a_random_h_is_log_normal_and_its_step_unbiased():
    problem = setting()
    method = methods.build("hiso-lognormal", lr=0.5, mu=0.3, perturbations=1, spread=0.5, h_key=3)
    rule = smolyak(6)
    federation = federation_over(rule, problem, method)
    h = joined(federation.state.buffers["h"], federation.problem.layout).numpy()
    assert not np.array_equal(h[0], h[1])  # every replicate has its own
    logs = np.log(h)
    assert abs(logs.std() - 0.5) < 0.02 and abs(logs.mean()) < 0.02
    # The same H at every node: then the step is a polynomial in the directions.
    federation.state.buffers["h"] = tuple(leaf[:1].expand_as(leaf).clone() for leaf in federation.state.buffers["h"])
    rule.check(rule.mean(take_round(federation)), problem.gradients.mean(0) / h[0])
