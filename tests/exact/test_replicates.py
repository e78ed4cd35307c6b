"""Replicates are independent runs: nothing of one reaches another, and one that diverges is frozen, marked and left behind."""

import json

import numpy as np
import pytest
import torch

from hiso_bench.audit import audit
from hiso_bench.federation import FederationOptions, NonFiniteScalarError
from hiso_bench.participation import participants
from hiso_bench.training import LEDGER_NAME, Run, Schedule
from synthetic.quadratic import Quadratic
from tests.helpers import TinyNet, bits, build, federation, quadratic, run, update

MOVES_AT_ONCE = ["decomfl", "hiso", "hiso-a", "hiso-e", "hiso-f", "hiso-scalar", "hiso-shuffled", "hiso-oracle"]
METHODS = [*MOVES_AT_ONCE, "safe-step", "curvature", "curvature-block"]
EVERYTHING = {"momentum": 0.5, "weight_decay": 0.01}


def slices(state, *index):
    """The bits of one replicate."""
    return {name: [leaf[index].numpy().tobytes() for leaf in point] for name, point in {"x": state.x, **state.buffers}.items()}


def tensor(*values):
    return torch.tensor(values, dtype=torch.float64)


@pytest.mark.parametrize("options", [{}, {"local_steps": 2, "independent": True}, {"local_steps": 2, "law": "sphere"}], ids=str)
@pytest.mark.parametrize("name", METHODS)
def test_another_rate_of_one_replicate_leaves_the_others_bit_for_bit(name, options):
    def end(*rates):
        return run(federation(quadratic((3, 2)), name, EVERYTHING | {"lr": tensor(*rates)[:, None]}, **options), 4).state

    before, after = end(0.01, 0.05, 0.1), end(0.01, 0.07, 0.1)
    for i in range(3):
        for j in range(2):
            assert (slices(before, i, j) == slices(after, i, j)) == (i != 1)


@pytest.mark.parametrize("option", ["lr", "mu", "lr_decay", "ema_new", "eps"])
def test_every_rate_may_differ_between_replicates(option):
    values = {"lr": (0.05, 0.1), "mu": (1e-3, 0.1), "lr_decay": (0.0, 1.0), "ema_new": (0.05, 0.5), "eps": (1e-8, 0.1)}[option]
    name = "decomfl" if option == "lr" else "hiso"

    def end(*chosen):
        return run(federation(quadratic((2,)), name, {option: tensor(*chosen)}, wire="float64"), 4).state

    both = end(*values)
    for i, value in enumerate(values):
        assert slices(both, i) == slices(end(value, value), i)
        assert slices(both, 1 - i) != slices(end(value, value), 1 - i)


def test_each_replicate_has_its_own_clients_directions_and_noise():
    problem = quadratic((2, 3), heterogeneity=1.0, noise=0.0)
    f = federation(problem, "decomfl", key=8)
    x = problem.initial()[0][0, 0]
    ids = participants(8, 0, 6, 3, (2, 3))
    loss = f.round().loss
    for i in range(2):
        for j in range(3):
            alone = [
                0.5 * (torch.from_numpy(problem.spectrum) * x * x).sum() + (problem.shifts[c] * x).sum() for c in ids[:, i, j]
            ]
            torch.testing.assert_close(loss[i, j], torch.stack(alone).mean())
    noisy = problem = quadratic((2, 3), noise=1.0)
    batch = noisy.batch(np.full((2, 3), 1), 0, 0)
    assert len({row.numpy().tobytes() for row in batch.reshape(6, 12)}) == 6
    assert len({leaf.numpy().tobytes() for leaf in f.state.x[0].reshape(6, 12)}) == 6


@pytest.mark.parametrize("replicates", [(), (2, 3)])
def test_a_quadratic_is_built_again_from_its_description(replicates):
    problem = quadratic(replicates, spectrum_family="lognormal", key=2**63)
    again = Quadratic(clients=problem.clients, **json.loads(json.dumps(problem.describe())))
    first, second = (bits(run(federation(p, "hiso"), 2).state) for p in (problem, again))
    assert first == second


@pytest.mark.parametrize("tau", [1, 2])
def test_a_run_without_replicates_is_a_run_of_one(tau):
    """Where everyone takes part the draws are the same too; only the kernels differ."""
    options = {"sampled": 6, "local_steps": tau, "wire": "float64"}
    plain = run(federation(quadratic(), "hiso", EVERYTHING, **options), 5).state
    one = run(federation(quadratic((1,)), "hiso", EVERYTHING, **options), 5).state
    for name in ("h", "momentum"):
        torch.testing.assert_close(one.buffers[name][0][0], plain.buffers[name][0], rtol=1e-9, atol=1e-11)
    torch.testing.assert_close(one.x[0][0], plain.x[0], rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("name", ["decomfl", "hiso"])
def test_a_network_s_replicates_run_alike_in_loop_and_vmap(name):
    method = {"lr": torch.tensor([0.01, 0.05]), "mu": 1e-2}
    loop, vmapped = (run(federation(TinyNet((2,), mode), name, method, local_steps=2), 4) for mode in ("loop", "vmap"))
    moved = max((a - b).abs().max().item() for a, b in zip(loop.state.x, loop.problem.initial(), strict=True))
    for a, b in zip(loop.state.x, vmapped.state.x, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-3 * moved)


@pytest.mark.parametrize("tau", [1, 2])
@pytest.mark.parametrize("name", MOVES_AT_ONCE)
def test_a_replicate_that_diverges_is_frozen_and_marked_and_the_others_go_on(name, tau):
    rates = {"lr": tensor(0.01, 1e200, 0.05)}

    def end(rounds, **options):
        return run(federation(quadratic((3,)), name, EVERYTHING | rates, local_steps=tau, on_divergence="freeze"), rounds)

    first, last = end(1), end(6)
    stayed = first if tau == 1 else end(0)  # with two local steps the first round's second one is not finite already
    assert last.alive.tolist() == [True, False, True]
    assert slices(last.state, 1) == slices(stayed.state, 1)
    assert update(last, 5).scalars.isnan().flatten(0, 2).all(0).tolist() == [False, True, False]
    tame = run(federation(quadratic((3,)), name, EVERYTHING | {"lr": tensor(0.01, 0.02, 0.05)}, local_steps=tau), 6)
    for i in (0, 2):
        assert slices(last.state, i) == slices(tame.state, i)
    assert bits(audit(last.ledger, last.problem, last.method, last.options)) == bits(last.state)


def test_divergence_stops_a_training_run():
    f = federation(quadratic((3,)), "decomfl", {"lr": tensor(0.01, 1e200, 0.05)})
    f.round()
    with pytest.raises(NonFiniteScalarError, match="round 1, client 0, "):
        f.round()


@pytest.mark.parametrize("name", ["decomfl", "hiso"])
def test_dropping_out_is_drawn_per_replicate(name):
    """A replicate that nobody answered for stands still and stays alive; its neighbours do not notice."""
    f = federation(quadratic((4,)), name, EVERYTHING, dropout=0.6, sampled=2, on_divergence="freeze")
    still = np.zeros(4, dtype=int)
    for r in range(8):
        before = [slices(f.state, i) for i in range(4)]
        report = f.round()
        stays = f._stays(r, (2, 4)).any(0)
        for i in range(4):
            assert (slices(f.state, i) == before[i]) == (not stays[i]) == bool(report.loss[i].isnan())
            still[i] += not stays[i]
    assert f.alive.all()
    assert still.all() and len(set(still)) > 1


def end_of(data, records):
    """Where so many records end: each has a frame of 9 bytes that holds its length, and 20 bytes behind."""
    at = 14
    for _ in range(records):
        at += 29 + int.from_bytes(data[at + 1 : at + 5], "little")
    return at


@pytest.mark.parametrize("dropout", [0.0, 0.5])
@pytest.mark.parametrize("records", [4, 12, 21])
def test_a_resumed_run_knows_which_replicates_are_frozen(tmp_path, records, dropout):
    problem = quadratic((3,))

    def start():
        method = build("hiso", problem, lr=tensor(0.01, 1e200, 0.05))
        options = FederationOptions(sampled=2, dropout=dropout, on_divergence="freeze")
        return Run(
            problem,
            "hiso",
            method,
            options,
            Schedule(rounds=10, evaluate_every=5, snapshot_every=5, fingerprint_every=1),
            tmp_path,
        )

    run = start().go()
    run.ledger.close()
    path = tmp_path / LEDGER_NAME
    whole, alive = path.read_bytes(), run.federation.alive
    assert alive.tolist() == [True, False, True]
    path.write_bytes(whole[: end_of(whole, records) + 7])
    resumed = start()
    assert resumed.ledger.torn_bytes == 7
    assert torch.equal(resumed.federation.alive, alive) == (records > 4)
    resumed.go()
    resumed.ledger.close()
    assert path.read_bytes() == whole
    assert torch.equal(resumed.federation.alive, alive)


def test_dropout_of_replicates_needs_a_method_that_sends_the_mean():
    f = federation(quadratic((2,)), "hiso-a", dropout=0.1, sampled=6)
    with pytest.raises(
        ValueError, match="dropout with replicates needs directions that are shared and a method that sends the mean"
    ):
        run(f, 3)
