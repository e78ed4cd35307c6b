"""AGZO: the basis, what lies in its span, and the same basis for everyone: server, late joiner, resumed run, auditor."""

import re

import numpy as np
import pytest
import torch
from torch import nn

import hiso_bench
from hiso_bench import catalogue, keys, methods, training
from hiso_bench.audit import Client, audit
from hiso_bench.federation import Federation, FederationOptions, NonFiniteScalarError
from hiso_bench.ledger import Ledger
from hiso_bench.losses import value_and_gradient
from hiso_bench.methods.agzo import leading
from hiso_bench.module_problem import ModuleProblem
from hiso_bench.testing import Quadratics, some_inputs
from hiso_bench.training import LEDGER_NAME, Run, Schedule
from tests.helpers import TinyNet, bits, federation, quadratic, run
from vision.mlp import DigitsPerceptron

DIGITS = {"clients": 4, "hidden": 6, "examples": 80, "public": 40}


def digits(**more):
    return DigitsPerceptron(**DIGITS | more)


def filled(net):
    """A network on the meta device, with values from a generator of its own."""
    net, draw = net.to_empty(device="cpu").eval(), torch.Generator().manual_seed(3)
    with torch.no_grad():
        for p in net.parameters():
            p.copy_(torch.randn(p.shape, generator=draw))
    return net


def linear(n, m, **more):
    return nn.Linear(n, m, device="meta", **more)


def agzo(problem, **options):
    return catalogue.method("agzo", {"lr": 0.05, "rank": 4, "window": 2, "basis_examples": 10} | options, problem)


@pytest.mark.parametrize("shape", [(5, 7), (2, 9, 4)])
@pytest.mark.parametrize("rank", [1, 4])
def test_a_basis_is_orthonormal_and_leads(shape, rank):
    rows = torch.from_numpy(keys.rng(1).standard_normal(shape))
    A = leading(rows, rank)
    torch.testing.assert_close(A.mT @ A, torch.eye(rank, dtype=A.dtype).expand(*shape[:-2], -1, -1), rtol=0, atol=1e-13)
    held = (rows @ A).square().sum((-1, -2))  # Eckart and Young: no subspace holds more of the rows
    torch.testing.assert_close(held, torch.linalg.svdvals(rows)[..., :rank].square().sum(-1))


def test_the_basis_of_a_state_is_that_of_the_problem_s_inputs():
    problem = digits()
    state = agzo(problem).init(problem.initial(), problem.layout)
    rows = problem.layer_inputs(state.x, 10, 0)
    assert [of is None for of in rows] == [False, True, False, True]
    for A, of, leaf in zip(state.buffers["basis"], rows, state.x, strict=True):
        assert A.dtype == leaf.dtype
        torch.testing.assert_close(A, leading(of, 4).float()) if of is not None else pytest.approx(A.numel()) == 0
    assert [tuple(A.shape) for A in state.buffers["basis"]] == [(64, 4), (0, 0), (6, 4), (0, 0)]
    assert agzo(problem, rank=6).init(state.x, problem.layout).buffers["basis"][2].numel() == 0  # n <= rank: drawn whole


@pytest.mark.parametrize("where", ["digits", "module"])
def test_the_gradient_of_a_linear_layer_lies_in_the_span_of_the_batch_and_not_of_others(where):
    """Where the basis is of the batch itself nothing of the gradient is lost; of public examples, some is."""
    if where == "digits":
        problem = digits(examples=20, clients=2)
        x = tuple(leaf.double() for leaf in problem.initial())
        batch = problem.everything._replace(inputs=problem.everything.inputs.double())
        own = batch.inputs, None, problem.loss.hidden(x, batch.inputs), None
        public = problem.layer_inputs(x, 20, 0)
    else:
        problem = TinyNet()
        x = problem.initial()
        batch = problem.batch(np.array(0), 0, 0)
        batch = batch[0][:3], batch[1][:3]
        own = hiso_bench.layer_inputs.linear_inputs(problem.loss, x, batch)
        public = problem.layer_inputs(x, 3, 0)
    g = value_and_gradient(problem.loss, x, batch)[1]
    for part, mine, shared in zip(g, own, public, strict=True):
        if mine is not None and (rank := int(torch.linalg.matrix_rank(mine))) < part.shape[-1]:
            for rows, inside in ((mine, True), (shared, False)):
                A = leading(rows, rank).to(part)
                lost = float((part - part @ A @ A.T).norm() / part.norm())
                assert lost < 1e-6 if inside else lost > 1e-2
    assert where != "digits" or float((g[0] - g[0] @ (A := leading(own[0], 20)) @ A.T).norm()) < 1e-14


def test_a_module_s_inputs_are_those_of_its_layers_in_the_order_of_its_leaves():
    layers = linear(3, 4), nn.Tanh(), linear(4, 4, bias=False), nn.Unflatten(1, (1, 4)), nn.Conv1d(1, 2, 1, device="meta")
    net = filled(nn.Sequential(*layers))
    loss = hiso_bench.ModuleLoss(net, lambda f, batch: f(batch[0]).flatten(1).sum(1))
    rows = torch.from_numpy(keys.rng(1).standard_normal((6, 3))).float()
    found = hiso_bench.layer_inputs.linear_inputs(loss, loss.base_point(), (rows,))
    assert [of is None for of in found] == [False, True, False, True, True]
    assert torch.equal(found[0], rows)
    torch.testing.assert_close(found[2], torch.tanh(rows @ net[0].weight.T + net[0].bias))
    assert not net[0]._forward_pre_hooks
    tokens = torch.ones(2, 5, 3)  # axes in front of the features are rows
    alone = hiso_bench.ModuleLoss(filled(linear(3, 1)), lambda f, batch: f(batch[0]).sum((1, 2)))
    assert hiso_bench.layer_inputs.linear_inputs(alone, alone.base_point(), (tokens,))[0].shape == (10, 3)


def test_a_basis_stays_for_a_window_and_is_of_the_x_at_its_start():
    problem = digits()
    f = Federation(problem, agzo(problem, window=3), FederationOptions(sampled=2))
    seen = []
    for r in range(7):
        first = f.state.buffers["basis"][2].clone()
        if r % 3 == 0:
            torch.testing.assert_close(first, leading(problem.layer_inputs(f.state.x, 10, r // 3)[2], 4).float(), rtol=0, atol=0)
        seen.append(first)
        f.round()
    same = [torch.equal(a, b) for a, b in zip(seen, seen[1:], strict=False)]
    assert same == [True, True, False, True, True, False]


def test_an_unanswered_last_round_keeps_the_basis_for_another_window():
    problem = digits()
    f = Federation(problem, agzo(problem, window=1), FederationOptions(sampled=1, dropout=0.6, key=5))
    for _ in range(12):
        before = f.state.buffers["basis"][0].clone()
        answered = f.round().record.answered
        assert torch.equal(before, f.state.buffers["basis"][0]) == (not answered)
    assert 0 < sum(not record.answered for record in f.ledger.rounds) < 12


@pytest.mark.parametrize("kind", ["digits", "module"])
def test_late_joiners_auditors_and_resumed_runs_have_the_basis_to_the_bit(kind, tmp_path):
    def made():
        if kind == "digits":
            return digits(batch_size=4)
        draw, net = keys.rng(3), filled(nn.Sequential(linear(6, 5), nn.Tanh(), linear(5, 3)))
        images, labels = draw.standard_normal((4, 8, 6)).astype(np.float32), draw.integers(0, 3, (4, 8))
        parts = [(torch.from_numpy(x), torch.from_numpy(y)) for x, y in zip(images, labels, strict=True)]
        return ModuleProblem(net, parts[1:], public=parts[0], batch_size=3)

    options, rank = (
        FederationOptions(sampled=2, dropout=0.3, key=4),
        {"rank": 4, "basis_examples": 6, "window": 3, "momentum": 0.5},
    )

    def go(where, rounds, snapshot_every):
        problem = made()
        schedule = Schedule(rounds=rounds, evaluate_every=2, snapshot_every=snapshot_every)
        live = Run(problem, "agzo", agzo(problem, **rank), options, schedule, tmp_path / where)
        with live.ledger:
            return live.go().federation

    whole = go("whole", 9, 0)
    go("part", 4, 2)  # in the middle of a window
    part = go("part", 9, 2)
    assert bits(whole.state) == bits(part.state)
    assert (tmp_path / "whole" / LEDGER_NAME).read_bytes() == (tmp_path / "part" / LEDGER_NAME).read_bytes()
    ledger = Ledger.read(tmp_path / "whole" / LEDGER_NAME)
    assert bits(audit(ledger, made(), agzo(made(), **rank), options)) == bits(whole.state)
    assert bits(hiso_bench.rebuild(ledger, made())) == bits(whole.state)
    client = Client(made(), agzo(made(), **rank), options)
    client.receive(whole.wire.encode_downlink(9, 0, ledger.updates(0, 9)))
    assert bits(client.state) == bits(whole.state)


def test_the_header_pins_the_public_examples():
    """Another public batch is another run: its basis is part of the base fingerprint."""
    told = []
    for draw in (0, 1):
        problem = digits()
        shown = problem.layer_inputs
        problem.layer_inputs = lambda x, examples, of, shown=shown, draw=draw: shown(x, examples, of + draw)
        told.append(training.header(problem, "agzo", agzo(problem), FederationOptions(), Schedule())["run"])
    assert told[0]["method"] == told[1]["method"] and told[0]["method"]["inputs"] == "given by the problem"
    assert told[0]["base_fingerprint"] != told[1]["base_fingerprint"]
    parts = [(torch.full((3, 2), float(i)), torch.zeros(3, dtype=torch.int64)) for i in range(3)]
    hashes = [ModuleProblem(filled(linear(2, 2)), parts[:1], public=of).describe()["data_hash"] for of in (None, *parts[1:])]
    assert len(set(hashes)) == 3


def test_public_images_are_nobody_s_training_data_and_leave_the_others_where_they_were():
    with_public, without = digits(), digits(public=0)
    assert torch.equal(with_public.everything.inputs, without.everything.inputs)
    own = {row.numpy().tobytes() for row in with_public.everything.inputs}
    test = {row.float().numpy().tobytes() for row in with_public._test[0]}
    public = {row.numpy().tobytes() for row in with_public.layer_inputs(with_public.initial(), 40, 0)[0]}
    assert len(public) == 40 and not public & own and not public & test
    assert "public" not in without.describe() and with_public.describe()["public"] == 40
    everything = digits(examples=0, public=1000)
    assert len(everything.everything.inputs) == 438


def test_replicates_draw_public_images_of_their_own():
    problem = digits(replicates=(2,))
    first, second = problem.layer_inputs(problem.initial(), 10, 0)[0]
    assert not torch.equal(first, second)
    basis = agzo(problem).init(problem.initial(), problem.layout).buffers["basis"]
    assert basis[0].shape == (2, 64, 4) and basis[1].shape == (2, 0, 0)


@pytest.mark.parametrize(
    ("option", "value", "allowed"),
    [
        ("rank", 0, ">= 1"),
        ("window", 0, ">= 1"),
        ("basis_examples", 0, ">= 1"),
        ("inputs", None, "the layer_inputs of a problem whose parties share some examples"),
    ],
)
def test_an_option_out_of_range_is_named_with_what_is_allowed(option, value, allowed):
    told = "(none)" if value is None else value
    with pytest.raises(ValueError, match=re.escape(f"{option} {told} is out of range; allowed: {allowed}")):
        methods.build("agzo", **{"lr": 0.1, "inputs": some_inputs, option: value})


def test_what_a_problem_lacks_is_said_with_the_method_s_name():
    with pytest.raises(
        ValueError, match="method agzo needs the inputs of linear layers on examples .* holds; problem quadratic has none to tell"
    ):
        catalogue.method("agzo", {"lr": 0.1}, quadratic())
    few = digits(public=5)
    with pytest.raises(
        ValueError, match="public 5 is out of range; allowed: >= the 10 images, held by every party, that a method such as agzo"
    ):
        agzo(few).init(few.initial(), few.layout)
    module = ModuleProblem(filled(linear(2, 2)), [(torch.ones(3, 2), torch.zeros(3, dtype=torch.int64))])
    with pytest.raises(
        ValueError, match="public 0 is out of range; allowed: >= the 10 examples, held by every party, that a method such as agzo"
    ):
        agzo(module, rank=1).init(module.initial(), module.layout)
    problem = digits()
    with pytest.raises(ValueError, match="rank 11 is out of range; allowed: <= the 10 inputs of leaf 0"):
        agzo(problem, rank=11).init(problem.initial(), problem.layout)
    with pytest.raises(ValueError, match=r"public 1400 is out of range; allowed: >= 0 and <= images that no client needs = 1358"):
        digits(public=1400)


@pytest.mark.parametrize(
    ("rows", "told"),
    [
        ([], "inputs of 0 leaves are given for a point of 1; allowed: one, or None, for each"),
        ([torch.ones(4, 2)], "leaf 0 of shape (2, 3) has inputs of 2 features; allowed: a leaf (m, n) or (n,) and inputs of n"),
    ],
)
def test_inputs_that_do_not_fit_are_refused(rows, told):
    problem = Quadratics.random(1, 6, leaf_shapes=((2, 3),))
    method = methods.build("agzo", lr=0.1, rank=1, inputs=lambda x, examples, draw: rows)
    with pytest.raises(ValueError, match=re.escape(told)):
        method.init(problem.initial(), problem.layout)


def test_a_basis_of_what_is_not_finite_stops_the_run():
    problem = digits()
    f = Federation(problem, agzo(problem, window=1), FederationOptions(sampled=2))
    f.round()
    f.state.x[0].fill_(torch.inf)
    f.method.learn(f.state, (), None, ())
    assert f.state.buffers["basis"][2].isnan().all() and f.state.buffers["basis"][0].isfinite().all()
    with pytest.raises(NonFiniteScalarError, match="the scalar is nan"):
        f.round()


@pytest.mark.parametrize("law", ["sphere", "rademacher"])
def test_directions_are_gaussian(law):
    with pytest.raises(ValueError, match=f"law {law} is out of range; allowed: gaussian for this method"):
        federation(TinyNet(), "agzo", law=law)


def test_what_lies_outside_the_span_never_moves():
    problem = digits()
    f = Federation(problem, agzo(problem, window=100), FederationOptions(sampled=2))
    start, A = f.state.x[0].clone(), f.state.buffers["basis"][0]
    run(f, 20)
    moved = f.state.x[0] - start
    outside = moved - moved @ A @ A.T
    assert moved.norm() > 0.1 and outside.norm() < 1e-5 * moved.norm()
