"""Methods of vectors: the published server steps, honest bytes, resume by recomputing, what a ledger cannot do.

Longer than a page because every registered method goes through all of it: the fixture that runs over them stands here once.
"""

import dataclasses
import struct

import numpy as np
import pytest
import torch

from hiso_bench import keys, methods
from hiso_bench.audit import audit
from hiso_bench.directions import DirectionKey
from hiso_bench.federation import FederationOptions, NonFiniteScalarError
from hiso_bench.first_order.federation import decode_payloads
from hiso_bench.ledger import Ledger, LedgerError
from hiso_bench.losses import value_and_gradient
from hiso_bench.participation import participants
from hiso_bench.training import LEDGER_NAME, Run, Schedule
from synthetic.quadratic import Quadratic
from tests.helpers import PROBLEMS, bits, quadratic

NAMES = list(methods.VECTOR_PRESETS)


def build(name, **options):
    rates = {"lr": 0.05} if name.endswith("-code") else {"lr": 0.5, "client_lr": 0.05}
    return methods.build(name, rates | options)


def start(name, problem, ledger=None, method=None, **options):
    return build(name, **method or {}).federate(problem, FederationOptions(**{"sampled": 3, "wire": "float64"} | options), ledger)


def gradient(problem, x, client, round_=0, step=0):
    return value_and_gradient(problem.loss, x, problem.batch(np.array(client), round_, step))[1]


@pytest.fixture(params=NAMES)
def name(request):
    return request.param


@pytest.mark.parametrize("problem", PROBLEMS.values(), ids=PROBLEMS)
def test_the_gradient_is_the_limit_of_central_differences(problem):
    problem = problem()
    x, batch = problem.initial(), problem.batch(np.array(1), 0, 0)
    value, g = value_and_gradient(problem.loss, x, batch)
    assert value.dtype == torch.float64 and torch.equal(value, problem.loss(x, batch))
    assert all(leaf.grad is None and not leaf.requires_grad for leaf in x)
    u = tuple(torch.from_numpy(keys.rng(5).standard_normal(leaf.shape)).to(leaf) for leaf in x)
    mu = 1e-3 if x[0].dtype == torch.float64 else 1e-2
    plus, minus = (problem.loss(tuple(a + s * mu * b for a, b in zip(x, u, strict=True)), batch) for s in (1, -1))
    along = sum(float((a * b).sum()) for a, b in zip(g, u, strict=True))
    assert float(plus - minus) / (2 * mu) == pytest.approx(along, rel=2e-3, abs=1e-4)


def test_fedavg_with_every_client_and_one_step_is_gradient_descent_on_the_mean():
    problem = quadratic()
    f = start("fedavg", problem, sampled=6, method={"lr": 1.0})
    x = problem.initial()
    expected = x[0] - 0.05 * torch.stack([gradient(problem, x, c)[0] for c in range(6)]).mean(0)
    f.round()
    torch.testing.assert_close(f.state.x[0], expected, rtol=1e-13, atol=1e-13)


def test_fedavg_averages_the_end_points_of_the_sampled_clients():
    problem = quadratic()
    f = start("fedavg", problem, local_steps=3, method={"lr": 1.0}, key=4)
    ends = []
    for client in participants(4, 0, 6, 3):
        x = problem.initial()
        for k in range(3):
            x = (x[0] - 0.05 * gradient(problem, x, client, 0, k)[0],)
        ends.append(x[0])
    f.round()
    torch.testing.assert_close(f.state.x[0], torch.stack(ends).mean(0), rtol=1e-13, atol=1e-13)


def served(name, changes, **options):
    """x after the server has stepped along made-up changes, from zero."""
    method, problem = build(name, **options), quadratic()
    state = method.init((torch.zeros(12, dtype=torch.float64),), problem.layout)
    for change in changes:
        method.serve(state, (change,))
    return state.x[0]


CHANGES = [torch.from_numpy(keys.rng(i).standard_normal(12)) for i in range(4)]


@pytest.mark.parametrize("rule", ["adagrad", "yogi", "adam"])
@pytest.mark.parametrize("code", [False, True])
def test_server_steps_are_algorithm_2_or_the_official_code_written_again(rule, code):
    beta1, beta2, tau = (0.9, 0.999, 1e-8) if code else (0.0 if rule == "adagrad" else 0.9, 0.99, 1e-3)
    m, v, x = np.zeros(12), np.full(12, 0.0 if code else tau**2), np.zeros(12)
    for d in map(torch.Tensor.numpy, CHANGES):
        m = beta1 * m + (1 - beta1) * d
        v = {
            "adagrad": v + d**2,
            "yogi": v - (1 - beta2) * d**2 * np.sign(v - d**2),
            "adam": beta2 * v + (1 - beta2) * d**2,
        }[rule]
        x = x + 0.5 * m / (np.sqrt(v + tau) if code else np.sqrt(v) + tau)
    found = served(f"fed{rule}-code", CHANGES, lr=0.5) if code else served(f"fed{rule}", CHANGES)
    np.testing.assert_allclose(found.numpy(), x, rtol=1e-12)


def torch_steps(kind, **options):
    x = torch.zeros(12, dtype=torch.float64)
    optimiser = kind([x], lr=0.5, **options)
    for change in CHANGES:
        x.grad = -change
        optimiser.step()
    return x


def test_fedadagrad_is_torchs_adagrad_and_fedadam_is_not_torchs_adam():
    adagrad = torch_steps(torch.optim.Adagrad, eps=1e-3, initial_accumulator_value=1e-6)
    torch.testing.assert_close(served("fedadagrad", CHANGES), adagrad, rtol=1e-13, atol=0)
    adam = torch_steps(torch.optim.Adam, eps=1e-3, betas=(0.9, 0.99))
    # Bias correction divides the first step by (1 - beta1) / sqrt(1 - beta2) = 1.
    assert (served("fedadam", CHANGES) / adam - 1).abs().max() > 0.05


def test_fedzo_is_unbiased_over_the_sphere_in_expectation_of_its_own_directions():
    """On d = 2, the eight directions of a regular octagon stand for the sphere: exact to degree 7; f is a quadratic."""
    problem = quadratic(dimension=2)
    f = start("fedzo", problem, method={"perturbations": 1, "mu": 0.3})
    x, total, squares = problem.initial(), torch.zeros(2, dtype=torch.float64), 0.0
    angles = 2 * np.pi * (np.arange(8) + 0.3) / 8
    for angle in angles:
        z = torch.tensor([np.cos(angle), np.sin(angle)]) * np.sqrt(2)
        f._directions.draw = lambda key, out=None, z=z: (out[0].copy_(z),)
        _, g = f.method.estimate(
            problem.loss, x, problem.batch(np.array(0), 0, 0), DirectionKey(0, 0, 0, 0), f._directions, f._buffer
        )
        total += g[0] / 8
        squares += float(g[0].square().sum()) / 8
    expected = gradient(problem, x, 0)[0]
    torch.testing.assert_close(total, expected, rtol=1e-12, atol=1e-12)
    assert squares > 2 * 0.99 * float(expected.square().sum())  # d ||g||^2, and a term of mu


def test_bytes_are_those_of_the_messages(name):
    f = start(name, quadratic(), wire="float32", local_steps=2)
    record = f.round().record
    payload = {"fedavg-topk": 8 * 1, "fedcom": 4 + 12, "fedavg-sign": 2}.get(name, 4 * 12)
    assert record.bytes_up == 3 * (8 + payload) and record.bytes_down == 3 * (4 + 4 * 12)
    assert [size for size, _ in decode_payloads(record.update)] == [payload] * 3
    assert record.forward_passes == 3 * 2 * (6 if name == "fedzo" else 1)


@pytest.mark.parametrize("problem", PROBLEMS.values(), ids=PROBLEMS)
def test_a_run_is_resumed_from_its_snapshot_to_the_same_bytes(name, problem, tmp_path):
    def go(rounds, folder, **more):
        options = FederationOptions(sampled=3, dropout=0.3, local_steps=2)
        schedule = Schedule(rounds=rounds, evaluate_every=2, snapshot_every=2, fingerprint_every=1)
        run = Run(problem(), name, build(name), options, schedule, folder).go()
        run.ledger.close()
        return run

    whole = go(7, tmp_path / "whole")
    go(5, tmp_path / "parts")
    again = go(7, tmp_path / "parts")
    assert again.resumed and bits(again.federation.state) == bits(whole.federation.state)
    # Up to the evaluation with which the shorter run ended, which the longer one has not.
    assert [r for r in again.ledger.rounds] == whole.ledger.rounds
    for path in (tmp_path / "parts").glob("*.snapshot*"):
        path.unlink()
    assert bits(go(7, tmp_path / "parts").federation.state) == bits(whole.federation.state)


def test_a_client_keeps_its_momentum_between_its_rounds_as_torchs_sgd_does(tmp_path):
    problem, method = quadratic(), build("fedavg", client_momentum=0.5)
    options = FederationOptions(sampled=2, local_steps=3, wire="float64")
    server, own = problem.initial()[0].clone(), {}
    for r in range(6):
        ends = []
        for client in map(int, participants(options.key, r, problem.clients, 2)):
            x, optimiser = own.setdefault(client, (p := server.clone(), torch.optim.SGD([p], lr=0.05, momentum=0.5)))
            x.copy_(server)
            for k in range(3):
                x.grad = gradient(problem, (x,), client, r, k)[0]
                optimiser.step()
            ends.append(x.clone())
        server += 0.5 * (torch.stack(ends).mean(0) - server)
    assert len(own) > 2  # some client rested in between, or nothing is kept
    Run(problem, "fedavg", method, options, Schedule(rounds=3, snapshot_every=1), tmp_path).go().ledger.close()
    run = Run(problem, "fedavg", method, options, Schedule(rounds=6, snapshot_every=1), tmp_path).go()
    run.ledger.close()
    assert run.resumed
    torch.testing.assert_close(run.federation.state.x[0], server, rtol=1e-12, atol=1e-12)


def test_a_round_that_comes_out_otherwise_is_refused_by_its_hash(tmp_path, monkeypatch):
    options, schedule = FederationOptions(sampled=2), Schedule(rounds=4, evaluate_every=4, snapshot_every=0)
    Run(quadratic(), "fedavg", build("fedavg"), options, schedule, tmp_path).go().ledger.close()
    batch = Quadratic.batch
    monkeypatch.setattr(Quadratic, "batch", lambda self, client, r, k: batch(self, client, r + (r == 2), k))
    with pytest.raises(LedgerError, match=r"round 2, taken again, differs from its record .*: client \d's payload has"):
        Run(quadratic(), "fedavg", build("fedavg"), options, schedule, tmp_path)


def test_a_ledger_of_vectors_is_shown_and_not_audited(tmp_path):
    problem, options = quadratic(), FederationOptions(sampled=2)
    run = Run(problem, "fedavg", build("fedavg"), options, Schedule(rounds=2), tmp_path).go()
    run.ledger.close()
    ledger = Ledger.read(tmp_path / LEDGER_NAME)
    with pytest.raises(
        LedgerError, match="x cannot be rebuilt from ledger .*: its method sends vectors, of which it holds lengths"
    ):
        audit(ledger, problem, build("fedavg"), options)


def test_participation_and_dropout_are_those_of_the_methods_of_scalars():
    options = {"dropout": 0.4, "key": 11}
    vector = start("fedavg", quadratic(), **options)
    scalar = methods.build("decomfl", lr=0.01).federate(quadratic(), FederationOptions(sampled=3, **options))
    for _ in range(6):
        assert vector.round().record.answered == scalar.round().record.answered
    assert {len(record.answered) for record in vector.ledger.rounds} != {3}


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e300])
def test_a_change_that_is_not_finite_stops_the_run_and_names_round_and_client(name, value, monkeypatch):
    f = start(name, quadratic(), wire="float32")
    f.round()
    client = f._client
    wrong = np.array([1.0, value, *[0.5] * 10])
    monkeypatch.setattr(f, "_client", lambda r, c, x: (wrong, client(r, c, x)[1]))
    if value == 1e300 and name == "fedavg-sign":  # one bit has no range to exceed
        assert f.round().record.answered
        return
    with pytest.raises(NonFiniteScalarError, match=r"round 1, client \d: its loss is .*, in float32, holds a NaN or an infinity"):
        f.round()
    assert len(f.ledger.rounds) == 1


@pytest.mark.parametrize(
    ("name", "option", "value", "allowed"),
    [
        ("fedavg", "lr", 0, "a finite number > 0"),
        ("fedavg", "client_lr", 0.0, "a finite number > 0"),
        ("fedavg", "client_momentum", 1.0, "0 <= client_momentum < 1"),
        ("fedavg-topk", "share", 1.5, "0 < share <= 1"),
        ("fedcom", "bits", 1, ">= 2 and <= 16"),
        ("fedzo", "perturbations", 0, ">= 1"),
        ("fedzo", "mu", float("inf"), "a finite number > 0"),
        ("fedadam", "rule", "sgd", "adagrad, yogi, adam"),
        ("fedadam", "beta1", 1.0, "0 <= beta1 < 1"),
        ("fedadam", "beta2", -0.1, "0 <= beta2 < 1"),
        ("fedadam", "tau", 0.0, "a finite number > 0"),
        ("fedadam", "v0", float("nan"), "a finite number"),
        ("fedadam-code", "client_lr", 0.3, "none beside one_rate"),
    ],
)
def test_an_option_out_of_range_is_named_with_what_is_allowed(name, option, value, allowed):
    with pytest.raises(ValueError, match=f"{option} .*; allowed: {allowed}"):
        build(name, **{option: value})


@pytest.mark.parametrize(
    ("option", "value"), [("independent", True), ("law", "sphere"), ("on_divergence", "freeze"), ("sampled", 7)]
)
def test_options_about_shared_directions_are_refused(option, value):
    with pytest.raises(ValueError, match=f"{option} {value} is out of range; allowed: "):
        start("fedavg", quadratic(), **{option: value})


def test_replicates_are_refused():
    with pytest.raises(ValueError, match="replicates"):
        start("fedavg", quadratic((2,)))


def test_a_method_is_frozen_and_unknown_options_are_refused(name):
    with pytest.raises(dataclasses.FrozenInstanceError):
        build(name).lr = 1.0
    with pytest.raises(ValueError, match=rf"method {name} has no option 'learning_rate'; allowed: .*\blr\b"):
        build(name, learning_rate=0.1)
    with pytest.raises(ValueError, match="method 'fedavg' is already registered"):
        methods.register("fedavg", methods.DeComFL)


def test_clients_start_at_what_the_wire_made_of_the_model(monkeypatch):
    f = start("fedavg", quadratic(), wire="float32")
    f.round()
    seen, estimate = [], type(f.method).estimate

    def watched(self, loss, x, *rest):
        seen.append(x[0].clone())
        return estimate(self, loss, x, *rest)

    monkeypatch.setattr(type(f.method), "estimate", watched)
    before = f.state.x[0].clone()
    f.round()
    assert len(seen) == 3 and all(torch.equal(x, before.float().double()) for x in seen)
    assert not torch.equal(seen[0], before)


def test_payloads_are_listed_in_client_order_with_their_hashes():
    f = start("fedavg", quadratic())
    assert len(f.round().record.update) == 3 * struct.calcsize("<Q16s")
