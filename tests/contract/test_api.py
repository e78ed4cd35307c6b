"""The library as a user imports it: cheap to import, complete, documented, and its examples run."""

import doctest
import inspect
import pydoc
import subprocess
import sys

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import TensorDataset

import hiso_bench
from hiso_bench import api, catalogue, recorded_rates
from hiso_bench.federation import FederationOptions, NonFiniteScalarError
from hiso_bench.losses import NondeterministicLossError
from hiso_bench.methods import DeComFL
from hiso_bench.testing import Quadratics, federation_over, smolyak, take_round
from tests.helpers import bits, quadratic


def test_the_import_loads_neither_torch_nor_numpy_and_no_name_is_missing():
    code = "import sys, hiso_bench; assert not {'torch', 'numpy', 'tyro'} & set(sys.modules); print(*dir(hiso_bench))"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=catalogue.ROOT)
    assert set(hiso_bench.__all__) <= set(shown.stdout.split())
    for name in hiso_bench.__all__:
        found = getattr(hiso_bench, name)
        assert inspect.getdoc(found) or name in ("Batch", "Point"), name
        assert f"`{name}`" in (hiso_bench.__doc__ or ""), name
    with pytest.raises(AttributeError, match="has no attribute 'estimate_gradients'"):
        _ = hiso_bench.estimate_gradients


def test_help_shows_every_function_and_class():
    shown = pydoc.plain(pydoc.render_doc(hiso_bench))
    for name in hiso_bench.__all__:
        assert name in shown


@pytest.mark.parametrize("module", [hiso_bench, api])
def test_the_examples_run(module):
    with torch.random.fork_rng():  # a new layer draws its weights from torch's own generator
        net = nn.Linear(4, 3).eval()
        clients = [(torch.ones(8, 4), torch.zeros(8, dtype=torch.long)) for _ in range(6)]
        found = doctest.testmod(module, extraglobs={"net": net, "clients": clients, "ModuleProblem": hiso_bench.ModuleProblem})
    assert found.failed == 0 and found.attempted >= 5


# One estimate of a gradient.


@pytest.mark.parametrize("difference", ["forward", "central"])
def test_an_estimate_is_the_step_of_the_round_that_it_says_it_is(difference):
    problem = quadratic(noise=0.0, heterogeneity=0.0)
    f = DeComFL(lr=1.0, perturbations=4, difference=difference).federate(problem, FederationOptions(key=7, wire="float64"))
    f.round()
    x = f.state.x[0].clone()
    f.round()
    dx = hiso_bench.estimate_gradient(problem.loss, (x,), None, perturbations=4, difference=difference, key=7, round_=1)
    torch.testing.assert_close(x - f.state.x[0], dx[0], rtol=1e-12, atol=1e-13)


def test_an_estimate_with_h_is_hiso_s():
    rule, h = smolyak(3), np.array([4.0, 0.5, 1.0])
    problem = Quadratics.random(key=3, d=3)
    method = hiso_bench.build("hiso-oracle", lr=1.0, perturbations=1, mu=0.1, h=problem.point(h), eps=0.0)
    dx = rule.mean(take_round(federation_over(rule, problem, method)))
    at, value = torch.from_numpy(problem.start), lambda v: problem.loss((v,), tuple(p[0] for p in problem._batches))
    options = {"perturbations": 100, "mu": 0.1, "h": torch.from_numpy(h)}
    found = [hiso_bench.estimate_gradient(value, at, **options, round_=r).numpy() for r in range(20)]
    error = np.std(found, 0) / np.sqrt(20)
    assert (np.abs(np.mean(found, 0) - dx) < 4 * error).all() and (error < 0.2 * np.abs(dx).max()).all()


def test_an_h_is_taken_as_it_is_given():
    """No ridge is added: H = 1e-8 in every coordinate makes the step 1e8 times as long."""
    x = torch.tensor([1.0, -2.0], dtype=torch.float64)
    options = {"difference": "central", "mu": 1e-3, "perturbations": 3}
    plain, tiny = (
        hiso_bench.estimate_gradient(lambda v: (v**2).sum(), x, h=torch.full_like(x, h), **options) for h in (1.0, 1e-8)
    )
    torch.testing.assert_close(tiny, 1e8 * plain, rtol=1e-6, atol=0)


def test_an_estimate_leaves_the_point_and_the_generators_and_knows_tuples():
    x = (torch.ones(3, 2, requires_grad=True), torch.zeros(()))
    dx = hiso_bench.estimate_gradient(lambda point: (point[0] ** 2).sum() + point[1], x, law="sphere")
    assert [leaf.shape for leaf in dx] == [(3, 2), ()] and not dx[0].requires_grad
    assert torch.equal(x[0], torch.ones(3, 2)) and x[0].grad is None
    again = hiso_bench.estimate_gradient(lambda point: (point[0] ** 2).sum() + point[1], x, law="sphere")
    other = hiso_bench.estimate_gradient(lambda point: (point[0] ** 2).sum() + point[1], x, law="sphere", key=2**40)
    assert torch.equal(dx[0], again[0]) and not torch.equal(dx[0], other[0])


def test_what_cannot_be_estimated_is_refused():
    x = torch.ones(3)
    with pytest.raises(ValueError, match=r"the loss gave a tensor of shape \(3,\); allowed: a tensor of one number"):
        hiso_bench.estimate_gradient(lambda v: v**2, x)
    with pytest.raises(ValueError, match="the loss gave a float; allowed"):
        hiso_bench.estimate_gradient(lambda v: float(v.sum()), x)
    with pytest.raises(ValueError, match=r"x torch.int64 is out of range; allowed: tensors of a floating"):
        hiso_bench.estimate_gradient(torch.sum, torch.ones(3, dtype=torch.long))
    with pytest.raises(ValueError, match="perturbations 0"):
        hiso_bench.estimate_gradient(torch.sum, x, perturbations=0)
    with pytest.raises(FloatingPointError, match="difference quotient is not finite: nan"):
        hiso_bench.estimate_gradient(lambda v: (v - 2).log().sum(), x)


# Rounds, and back from the ledger.


def linear():
    draw = np.random.Generator(np.random.Philox(key=1))
    net = nn.Linear(4, 3, device="meta").to_empty(device="cpu").eval()
    for p in net.parameters():
        p.data.copy_(torch.from_numpy(draw.standard_normal(tuple(p.shape))))
    clients = [
        (torch.from_numpy(draw.standard_normal((9, 4))).float(), torch.from_numpy(draw.integers(0, 3, 9))) for _ in range(5)
    ]
    return net, clients


def accuracy(net, batch):
    return (net(batch[0]).argmax(-1) == batch[1]).float()


def test_a_model_of_one_s_own_trains_resumes_and_is_rebuilt_from_its_scalars(tmp_path):
    net, clients = linear()
    before = net.weight.clone()

    def at():
        sets = [TensorDataset(*clients[0]), *clients[1:]]
        of = {"metrics": {"accuracy": accuracy}, "metric": "accuracy", "batch_size": 6, "mode": "clients"}
        return hiso_bench.ModuleProblem(net, sets, **of)

    whole = hiso_bench.train(at(), "hiso", lr=0.05, rounds=40, evaluate_every=10)
    hiso_bench.train(at(), "hiso", lr=0.05, rounds=20, evaluate_every=10, folder=tmp_path / "run")
    run = hiso_bench.train(at(), "hiso", lr=0.05, rounds=40, evaluate_every=10, folder=tmp_path / "run")
    assert run.resumed and bits(run.federation.state) == bits(whole.federation.state)
    curve = hiso_bench.curve(hiso_bench.read_ledger(tmp_path / "run"))
    losses = curve[curve["metric"] == "loss"]["value"].tolist()
    assert len(losses) == 5 and losses[-1] < 0.9 * losses[0] and set(curve["metric"]) == {"loss", "accuracy"}
    state = hiso_bench.rebuild(hiso_bench.read_ledger(tmp_path / "run"), at())
    assert bits(state) == bits(run.federation.state)
    assert torch.equal(net.weight, before)
    trained = at().load(state.x)
    assert torch.equal(trained.weight, state.x[0]) and not torch.equal(net.weight, before)
    for change in ((1, 0), (0, 1)):
        others = [(inputs + change[0], (labels + change[1]) % 3) for inputs, labels in clients]
        with pytest.raises(hiso_bench.LedgerError, match="data_hash"):
            hiso_bench.train(
                hiso_bench.ModuleProblem(net, others, batch_size=6, mode="clients"),
                "hiso",
                lr=0.05,
                evaluate_every=10,
                folder=tmp_path / "run",
            )


def test_a_module_problem_evaluates_means_over_examples():
    net, clients = linear()
    point = tuple(p.detach() for p in net.parameters())
    uneven = [tuple(part[: 2 + i] for part in client) for i, client in enumerate(clients)]
    found = hiso_bench.ModuleProblem(net, uneven, metrics={"accuracy": accuracy}).evaluate(point)
    inputs, labels = (torch.cat(parts) for parts in zip(*uneven, strict=True))
    with torch.no_grad():
        assert found["loss"] == pytest.approx(float(nn.functional.cross_entropy(net(inputs), labels)), rel=1e-6)
        assert found["accuracy"] == pytest.approx(float(accuracy(net, (inputs, labels)).mean()))
        part = float(nn.functional.cross_entropy(net(inputs[:3]), labels[:3]))
    test = (inputs[:3], labels[:3])
    assert hiso_bench.ModuleProblem(net, uneven, test=test).evaluate(point)["loss"] == pytest.approx(part, rel=1e-6)


def test_batches_are_drawn_anew_every_round_step_and_client_and_never_otherwise():
    net, clients = linear()
    problem = hiso_bench.ModuleProblem(net, clients, batch_size=4, key=3)
    whole = hiso_bench.ModuleProblem(net, clients)
    first = problem.batch(np.array(1), 0, 0)[0]
    assert torch.equal(first, problem.batch(np.array(1), 0, 0)[0]) and first.shape == (4, 4)
    assert all((row == clients[1][0]).all(1).any() for row in first)
    for other in [(1, 1, 0), (1, 0, 1), (2, 0, 0)]:
        assert not torch.equal(first, problem.batch(np.array(other[0]), *other[1:])[0])
    assert not torch.equal(first, hiso_bench.ModuleProblem(net, clients, batch_size=4, key=4).batch(np.array(1), 0, 0)[0])
    assert torch.equal(whole.batch(np.array(1), 0, 0)[0], whole.batch(np.array(1), 5, 0)[0])


def test_a_module_problem_refuses_what_it_cannot_train():
    net, clients = linear()
    for given, told in [
        ({"clients": []}, "clients 0 is out of range; allowed: the data of at least one client"),
        ({"clients": [(torch.ones(3, 4), torch.ones(2))]}, r"client 0 hold \[3, 2\] examples"),
        ({"clients": [clients[0], (torch.ones(0, 4),)]}, r"client 1 hold \[0\] examples"),
        ({"clients": clients, "batch_size": -1}, "batch_size -1"),
        ({"clients": clients, "metric": "accuracy"}, "metric accuracy is out of range; allowed: loss"),
        ({"clients": clients, "mode": "both"}, "mode 'both' is unknown"),
    ]:
        with pytest.raises(ValueError, match=told):
            hiso_bench.ModuleProblem(net, **given)
    with pytest.raises(ValueError, match=r"training mode"):
        hiso_bench.ModuleProblem(nn.Dropout().train(), clients)


def test_train_refuses_what_it_cannot_run():
    with pytest.raises(ValueError, match="lr is not given; allowed: a finite number > 0, and `suggest_lr`"):
        hiso_bench.train(quadratic(), "hiso")
    with pytest.raises(ValueError, match="options lr are given with a method that is built"):
        hiso_bench.train(quadratic(), DeComFL(lr=0.1), lr=0.1)
    with pytest.raises(NonFiniteScalarError, match="lower lr"):
        hiso_bench.train(quadratic(), "decomfl", lr=1e200, rounds=9)
    net, clients = linear()
    with pytest.raises(NondeterministicLossError, match="not deterministic"):
        noisy = hiso_bench.ModuleProblem(net, clients, lambda net, batch: net(batch[0]).sum(1) * len(calls.append(0) or calls))
        hiso_bench.train(noisy, "hiso", lr=0.1)
    assert hiso_bench.train(quadratic(), DeComFL(lr=0.01), rounds=2).ledger.header["run"]["method"]["name"] == "DeComFL"


calls: list[int] = []


def test_a_named_problem_has_its_recorded_rate():
    run = hiso_bench.train("quadratic", "decomfl", rounds=1)
    assert run.federation.method.lr == recorded_rates.rate("quadratic", "decomfl", {})[0]
