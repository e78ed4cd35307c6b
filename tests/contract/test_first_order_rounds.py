"""A round of vectors, by what is known of it beforehand: whose dice, whose directions, how far, how many bytes."""

import math

import numpy as np
import pytest
import torch

from hiso_bench import keys, methods
from hiso_bench.federation import FederationOptions
from hiso_bench.first_order.codecs import Quantised
from hiso_bench.first_order.federation import decode_payloads
from hiso_bench.first_order.fedzo import FedZO
from hiso_bench.points import joined
from hiso_bench.training import Run, Schedule
from tests.helpers import PROBLEMS, bits, quadratic


def federate(method, problem, **options):
    return method.federate(problem, FederationOptions(**{"sampled": 3, "wire": "float64"} | options))


def test_the_majority_moves_every_coordinate_by_the_rate_and_a_tie_by_nothing():
    vote = methods.build("fedavg-sign", lr=0.5, client_lr=1.0)
    assert vote.aggregate([np.array([1.0, -1, 1]), np.array([1.0, -1, -1]), np.array([-1.0, -1, 1])]).tolist() == [1, -1, 1]
    assert vote.aggregate([np.array([1.0, -1]), np.array([-1.0, -1])]).tolist() == [0, -1]
    f = federate(vote, quadratic())
    before = f.state.x[0].clone()
    f.round()
    torch.testing.assert_close((f.state.x[0] - before).abs(), torch.full((12,), 0.5, dtype=torch.float64))


def test_with_one_rate_a_client_steps_by_the_server_s():
    f = federate(methods.build("fedadagrad-code", lr=0.2), quadratic(heterogeneity=0.0, noise=0.0))
    gradient = torch.from_numpy(f.problem.spectrum) * f.state.x[0]
    f.round()
    torch.testing.assert_close(f.state.buffers["v"][0], (0.2 * gradient).square(), rtol=1e-9, atol=0)


@pytest.mark.parametrize("name", ["fedcom", "fedzo"])
def test_equal_clients_throw_dice_of_their_own(name):
    f = federate(methods.build(name, client_lr=0.1), quadratic(heterogeneity=0.0, noise=0.0))
    sent = [digest for _, digest in decode_payloads(f.round().record.update)]
    assert len(set(sent)) == 3
    plain = federate(methods.build("fedavg", client_lr=0.1), quadratic(heterogeneity=0.0, noise=0.0))
    assert len({digest for _, digest in decode_payloads(plain.round().record.update)}) == 1


def test_who_drops_out_has_had_the_model_and_sends_nothing():
    f = federate(methods.build("fedavg", client_lr=0.1), quadratic(), dropout=0.5, key=3)
    records = [f.round().record for _ in range(8)]
    assert {record.bytes_down for record in records} == {3 * (4 + 8 * 12)}
    assert [record.bytes_up for record in records] == [len(record.answered) * (8 + 8 * 12) for record in records]
    assert len({len(record.answered) for record in records}) > 1


def test_fedzo_looks_at_the_loss_at_a_distance_of_mu():
    problem = quadratic(noise=0.0)
    f, x, each, seen = federate(FedZO(client_lr=0.1, mu=0.25), problem), problem.initial(), problem.loss.each, []
    problem.loss.each = lambda at, batches: (seen.append(float((at[0] - x[0]).norm())), each(at, batches))[1]
    f.round()
    first = [distance for distance in seen[:6] if distance]
    assert len(first) == 5 and first == pytest.approx([0.25] * 5, rel=1e-6)


def remembering(**options):
    return methods.build("fedavg-topk", {"lr": 0.5, "client_lr": 0.05, "error_feedback": True} | options)


def test_what_a_client_has_sent_and_what_it_keeps_is_all_that_it_found(monkeypatch):
    f = federate(remembering(), quadratic(), dropout=0.3, key=3)
    found, sent, heard = np.zeros((6, 12)), np.zeros((6, 12)), []
    own = lambda r, client: keys.rng(10 * r + client).integers(-9, 10, 12).astype(float)  # noqa: E731 - sums of integers are exact
    monkeypatch.setattr(f, "_client", lambda r, client, start: (own(r, client), torch.zeros(())))
    monkeypatch.setattr(type(f.method), "aggregate", lambda self, changes: (heard.append(changes), changes[0])[1])
    rested = 0
    for r in range(12):
        answered = f.round().record.answered
        for client, payload in zip(answered, heard[-1] if answered else (), strict=True):
            found[client] += own(r, client)
            due = found[client] - sent[client]
            assert np.flatnonzero(payload).tolist() == [np.argmax(np.abs(due))] and np.abs(payload).max() == np.abs(due).max()
            sent[client] += payload
        for client in range(6):
            kept = f.state.buffers.get(f"unsent of client {client}")
            np.testing.assert_array_equal((found - sent)[client], joined(kept, f.problem.layout) if kept else np.zeros(12))
        rested += 6 - len(answered)
    assert rested > 12 and np.abs(found - sent).max() > 9


def test_what_is_not_kept_is_lost_and_nothing_is_kept_where_everything_is_sent():
    runs = {name: federate(remembering(**options), quadratic()) for name, options in {
        "kept": {}, "lost": {"error_feedback": False}, "all": {"share": 1.0}, "dense": {"share": 1.0, "error_feedback": False},
    }.items()}  # fmt: skip
    first = {name: f.round().record for name, f in runs.items()}
    assert first["kept"] == first["lost"]  # there is nothing to add yet
    later = {name: [f.round().record for _ in range(3)] for name, f in runs.items()}
    assert later["kept"] != later["lost"] and later["all"] == later["dense"]
    assert not runs["lost"].state.buffers and not runs["dense"].state.buffers
    assert not any(leaf.any() for point in runs["all"].state.buffers.values() for leaf in point)


@pytest.mark.parametrize("problem", PROBLEMS.values(), ids=PROBLEMS)
def test_what_is_kept_survives_a_resume_with_and_without_a_snapshot(problem, tmp_path):
    def go(rounds, folder):
        options = FederationOptions(sampled=3, dropout=0.3, local_steps=2)
        schedule = Schedule(rounds=rounds, evaluate_every=7, snapshot_every=2, fingerprint_every=1)
        run = Run(problem(), "fedavg-topk", remembering(), options, schedule, tmp_path / folder).go()
        run.ledger.close()
        return run

    whole = bits(go(7, "whole").federation.state)
    go(5, "parts")
    again = go(7, "parts")
    assert again.resumed and bits(again.federation.state) == whole
    for path in (tmp_path / "parts").glob("*.snapshot*"):
        path.unlink()
    assert bits(go(7, "parts").federation.state) == whole


def test_feedback_brings_top_k_to_an_optimum_that_it_misses_without():
    ends = {}
    for kept in (True, False):
        f = federate(remembering(error_feedback=kept), quadratic(noise=0.0), sampled=6)
        for _ in range(600):
            f.round()
        ends[kept] = float(f.problem.evaluate(f.state.x)["loss"])
    assert ends[True] < 0.1 * ends[False]


class Last:
    """Dice that show the largest number below one: nothing is rounded up that does not have to be."""

    def random(self, n):
        return np.full(n, math.nextafter(1.0, 0.0))


@pytest.mark.parametrize("sign", [1.0, -1.0])
@pytest.mark.parametrize("dice", [Last(), keys.rng(0)], ids=["last", "some"])
def test_the_largest_entry_survives_a_scale_that_float32_does_not_hold(sign, dice):
    largest = sign * (1 + 2.0**-25)  # the nearest float32 is 1, which is less
    codec = Quantised(4)
    found = codec.decode(codec.encode(np.array([largest, 0.0]), dice), 2)
    assert abs(found[0] - largest) <= 1.01 / codec.levels and found[1] == 0
