"""Second differences: exact on quadratics, counted, replayed, and without effect where nothing is learned from them."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hiso_bench import keys, methods
from hiso_bench.directions import DirectionKey, Warped
from hiso_bench.federation import Federation, FederationOptions, NonFiniteScalarError
from hiso_bench.methods import CurvatureBlock, DeComFL, Method
from hiso_bench.methods.curvature import Curvature
from hiso_bench.methods.safe_step import SafeStep
from hiso_bench.testing import Quadratics
from synthetic.quadratic import Quadratic
from tests.helpers import TinyNet, bits, federation, quadratic, run

NAMES = ["safe-step", "curvature", "curvature-block"]
LEAVES = ((2, 2), (3,), (1,))


def problem(d=8, scale=1.0, diagonal=False, clients=3, leaves=LEAVES):
    """Convex clients with Hessians and gradients of their own."""
    draw = keys.rng(keys.derive(5, "second differences"))
    roots = draw.standard_normal((clients, d, d))
    S = roots @ roots.transpose(0, 2, 1) / d
    if diagonal:
        S = np.tile(np.diag(np.geomspace(3, 0.1, d)), (clients, 1, 1))
    return Quadratics(scale * S, scale * draw.standard_normal((clients, d)), draw.standard_normal(d), leaves)


def fed(at, method, **options):
    return Federation(at, method, FederationOptions(**{"sampled": at.clients, "wire": "float64", "key": 2} | options))


def silent(kind):
    """A method that sends second differences and learns nothing."""
    return type("Silent", (kind,), {"rate": Method.rate, "learn": Method.learn})


@given(mu=st.floats(1e-2, 1e2), nc=st.integers(1, 3))
def test_a_second_difference_of_a_quadratic_is_exact_for_every_mu(mu, nc):
    at = problem()
    f = fed(at, SafeStep(perturbations=3, second_differences=nc, curvature_mu=mu))
    z = Warped(f.directions, f.method.warp(f.state))
    found, _ = f.measure(0, np.arange(3), [0, 1, 2], z)
    for p in range(nc):
        v = torch.cat([leaf.reshape(-1) for leaf in z(DirectionKey(0, 0, p))]).numpy()
        expected = np.einsum("j,ijk,k->i", v, at.hessians, v)
        np.testing.assert_allclose(found[:, 0, 3 + p].numpy(), expected, rtol=1e-9, atol=1e-11 / mu**2)


@pytest.mark.parametrize(
    ("kind", "difference"), [(SafeStep, "central"), (CurvatureBlock, "central"), (CurvatureBlock, "forward")]
)
@pytest.mark.parametrize("options", [{}, {"local_steps": 3}, {"local_steps": 2, "independent": True}], ids=str)
def test_with_learning_switched_off_it_is_decomfl_bit_for_bit(kind, difference, options):
    given_ = {"lr": 0.05, "perturbations": 3, "difference": difference, "momentum": 0.5}
    more = {"second_differences": 2, "curvature_mu": 1e-3}
    plain = run(fed(problem(), DeComFL(**given_), **options), 6)
    taught = run(fed(problem(), silent(kind)(**given_, **more), **options), 6)
    assert bits(taught.state)["x"] == bits(plain.state)["x"]
    assert [r.forward_passes for r in taught.ledger.rounds] > [r.forward_passes for r in plain.ledger.rounds]


def test_a_gate_of_zero_leaves_the_safe_step_alone():
    options = {"safe-step": {}, "curvature": {"gate": 0.0}}
    both = [run(federation(quadratic(), name, {"burn_in": 4} | more), 20) for name, more in options.items()]
    alone, gated = (bits(f.state) for f in both)
    assert {name: gated[name] for name in alone} == alone


@pytest.mark.parametrize("name", NAMES)
def test_the_scale_of_the_loss_changes_nothing(name):
    """f -> 4 f: T, L and sigma are four times as large, the step a quarter, and x and H the same to the last bit."""
    ends = []
    for scale in (1.0, 4.0):
        method = methods.build(name, perturbations=3, difference="central", burn_in=4)
        ends.append(run(fed(problem(scale=scale), method, local_steps=2), 40).state)
    one, four = (bits(state) for state in ends)
    assert all(torch.equal(4 * a, b) for a, b in zip(ends[0].buffers["trace"], ends[1].buffers["trace"], strict=True))
    assert all(one[part] == four[part] for part in ("x", "h") if part in one)
    if name != "safe-step":
        assert all(torch.equal(4 * a, b) for a, b in zip(ends[0].buffers["sigma"], ends[1].buffers["sigma"], strict=True))
        assert ends[0].buffers["h"][0].ne(1).any()


def taught(diagonal, rounds, **more):
    """A federation whose sigma is set to the exact diagonal after three rounds, and what sigma is `rounds` later."""
    at = problem(diagonal=diagonal)
    f = run(fed(at, Curvature(perturbations=3, burn_in=2, difference="central", **more)), 3)
    exact = at.point(np.diag(at.hessians.mean(0)).copy())
    for leaf, given_ in zip(f.state.buffers["sigma"], exact, strict=True):
        leaf.copy_(given_)
    run(f, rounds)
    return max(float((a / b - 1).abs().max()) for a, b in zip(f.state.buffers["sigma"], exact, strict=True))


@pytest.mark.parametrize("nc", [1, 3])
def test_the_exact_diagonal_is_a_fixed_point_of_a_diagonal_quadratic(nc):
    assert taught(True, 40, second_differences=nc) < 1e-6  # what rounding leaves of f differences over mu^2
    assert taught(False, 40, second_differences=nc) > 1e-2  # off-diagonal entries move it


def test_a_diagonal_is_learned_exactly():
    at = problem(diagonal=True)
    f = run(fed(at, Curvature(perturbations=2, difference="central", curvature_mu=1.0)), 600)
    sigma = torch.cat([leaf.reshape(-1) for leaf in f.state.buffers["sigma"]]).numpy()
    np.testing.assert_allclose(sigma, np.diag(at.hessians[0]), rtol=1e-4)


def test_a_leaf_is_seen_whatever_the_others_do():
    """c along a leaf's own direction is z_b'S_bb z_b: other blocks of the Hessian change nothing."""
    at, apart = problem(clients=1), problem(clients=1)
    mask = torch.block_diag(*(torch.ones(n, n) for n in (4, 3, 1))).numpy()
    apart.hessians = at.hessians * mask
    apart._batches = torch.from_numpy(apart.hessians), torch.from_numpy(apart.linear)
    found = []
    for one in (at, apart):
        f = fed(one, CurvatureBlock(perturbations=2, second_differences=2, curvature_mu=1.0))
        found.append(f.measure(0, np.arange(1), [0], Warped(f.directions, f.method.warp(f.state)))[0][0, 0, 2:])
    assert abs(float(found[0][0] - found[1][0])) > 1e-3  # the first is along all of z
    torch.testing.assert_close(found[0][1], found[1][1])


@pytest.mark.parametrize("memory", [0, 100])
def test_zero_modes_change_nothing_but_what_memory_makes_of_them(memory):
    ends = []
    for d, leaves in ((8, LEAVES), (20, (*LEAVES, (12,)))):
        small, at = problem(), problem()
        at = Quadratics(np.zeros((3, d, d)), np.zeros((3, d)), np.zeros(d), leaves)
        at.hessians[:, :8, :8], at.linear[:, :8], at.start[:8] = small.hessians, small.linear, small.start
        f = run(fed(at, SafeStep(perturbations=3, burn_in=4, memory=memory, difference="central")), 30)
        ends.append(torch.cat([leaf.reshape(-1) for leaf in f.state.x[:3]]))
    assert torch.allclose(*ends, rtol=1e-7) == (memory == 0)


@pytest.mark.parametrize(
    ("name", "difference", "passes"),
    [
        ("safe-step", "forward", 3 + 1 + 2), ("safe-step", "central", 6 + 1), ("curvature", "forward", 3 + 1 + 2),
        ("curvature-block", "forward", 3 + 1 + 4), ("curvature-block", "central", 6 + 1 + 4),
    ],
)  # fmt: skip
def test_scalars_and_forward_passes_are_counted(name, difference, passes):
    at = quadratic()
    calls, each = [], at.loss.each
    at.loss.each = lambda x, batches: (calls.append(len(batches)), each(x, batches))[1]
    f = run(federation(at, name, {"second_differences": 2, "difference": difference}, local_steps=2), 3)
    assert [r.forward_passes for r in f.ledger.rounds] == [3 * 2 * passes] * 3
    assert sum(calls) == 3 * 3 * 2 * passes
    assert [r.bytes_up for r in f.ledger.rounds] == [3 * (8 + 4 * 2 * (3 + 2))] * 3


@pytest.mark.parametrize("name", NAMES)
def test_x_waits_for_the_burn_in(name):
    f = federation(quadratic(), name, {"burn_in": 5, "second_differences": 2})
    start = bits(f.state)["x"]
    still = [bits(run(f, 1).state)["x"] == start for _ in range(12)]
    needed = 5 if name == "curvature-block" else 3  # every other one is along a leaf
    assert still == [r < needed for r in range(12)]


@pytest.mark.parametrize("nc", [1, 2])
def test_the_step_is_the_formula_of_the_second_differences_that_were_sent(nc):
    sent = []

    class Heard(SafeStep):
        def average(self, state, key, c, z):
            sent.append(float(c))
            super().average(state, key, c, z)

    f = run(fed(problem(), Heard(perturbations=3, second_differences=nc, burn_in=4, memory=0, difference="central")), 12)
    assert len(sent) == 12 * nc
    expected = 2 * 3 / (np.mean(sent) + (3 + 1) * np.sqrt(np.var(sent) / 2))
    np.testing.assert_allclose(float(f.state.buffers["step"][0]), expected, rtol=1e-9)


def test_memory_grows_under_noise_by_a_round_at_a_time_and_the_step_falls():
    ends = []
    for noise in (0.0, 3.0):
        at = Quadratic(20, "flat", clients=1, noise=noise, replicates=(8,), key=3)
        method = SafeStep(perturbations=4, memory=10, burn_in=10, difference="central")
        f, windows = fed(at, method), []
        for _ in range(150):
            windows.append(f.state.buffers["window"][0].clone())
            f.round()
        grown = torch.stack(windows).diff(dim=0)
        assert grown.max() < 1 + 1e-9
        ends.append((windows[-1], f.state.buffers["step"][0].mean()))
    (quiet, long), (noisy, short) = ends
    assert (quiet < 50).all() and (noisy > 50).all()
    assert short < long / 5


def test_a_second_difference_that_is_not_finite_is_named():
    method = type("Broken", (silent(SafeStep),), {"measure": _second_is_nan})(lr=0.1, perturbations=3, second_differences=2)
    named = r"round 0, client \d, DirectionKey\(round=0, step=0, p=1, client=-1\): the second difference is nan"
    with pytest.raises(NonFiniteScalarError, match=named):
        run(Federation(TinyNet(), method, FederationOptions(sampled=2)), 1)


def _second_is_nan(self, *arguments, buffer):
    found = SafeStep.measure(self, *arguments, buffer)
    found.scalars[:, self.perturbations + 1] = torch.nan
    return found
