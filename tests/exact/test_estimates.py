"""A difference quotient has its closed form on a quadratic, touches nothing, and costs the forward passes that are counted."""

import numpy as np
import pytest
import torch

from hiso_bench.audit import Client
from hiso_bench.differences import evaluations, measure
from hiso_bench.directions import DirectionKey, Directions, Warped
from tests.helpers import PROBLEMS, bits, federation, quadratic, run

WHERE = [DirectionKey(3, 0, p) for p in range(4)]


@pytest.mark.parametrize("replicates", [(), (2, 3)])
@pytest.mark.parametrize("mu", [1e-3, 0.3])
@pytest.mark.parametrize("difference", ["forward", "central"])
def test_two_point_values_are_their_closed_form(difference, mu, replicates):
    problem = quadratic(replicates)
    directions = Directions(problem.layout, 1, dtype=torch.float64)
    x = directions.draw(DirectionKey(0, 0, 0))
    clients = [np.full(replicates, c) for c in (1, 4)]
    batches = [problem.batch(client, 3, 0) for client in clients]
    step = torch.full(replicates, mu, dtype=torch.float64) if replicates else mu
    found = measure(
        problem.loss, problem.layout, x, directions.draw, WHERE, batches, step, difference, problem.layout.empty(torch.float64)
    )
    s = torch.from_numpy(problem.spectrum)
    for i, linear in enumerate(batches):
        gradient = s * x[0] + linear
        for p, key in enumerate(WHERE):
            z = directions.draw(key)[0]
            expected = (gradient * z).sum(-1) + (mu / 2 * (s * z * z).sum(-1) if difference == "forward" else 0)
            torch.testing.assert_close(found.scalars[i, p], expected, rtol=1e-9, atol=1e-11 / mu)
        if difference == "forward":
            torch.testing.assert_close(found.loss[i], (0.5 * s * x[0] ** 2 + linear * x[0]).sum(-1))


@pytest.mark.parametrize("problem", PROBLEMS)
@pytest.mark.parametrize("independent", [False, True], ids=["shared", "independent"])
@pytest.mark.parametrize("tau", [1, 3])
@pytest.mark.parametrize("difference", ["forward", "central"])
def test_measuring_leaves_the_state_bit_for_bit(problem, independent, tau, difference):
    f = federation(
        PROBLEMS[problem](),
        "hiso",
        {"momentum": 0.5, "difference": difference},
        local_steps=tau,
        independent=independent,
        cache_bytes=0,
    )
    run(f, 2)
    before = bits(f.state)
    for _ in range(3):
        f.measure(f.state.round, np.array([1, 4]), [1, 4], Warped(f.directions, f.method.warp(f.state)))
    assert bits(f.state) == before
    client = Client(f.problem, f.method, f.options)
    before = bits(client.state)
    assert client.answer(2) == client.answer(2)
    assert bits(client.state) == before


@pytest.mark.parametrize("independent", [False, True], ids=["shared", "independent"])
@pytest.mark.parametrize("tau", [1, 2])
@pytest.mark.parametrize("difference", ["forward", "central"])
def test_the_forward_passes_counted_are_those_taken(difference, tau, independent, monkeypatch):
    f = federation(quadratic(), "hiso", {"difference": difference}, local_steps=tau, independent=independent, dropout=0.3)
    taken, loss = [], type(f.problem.loss).__call__
    monkeypatch.setattr(type(f.problem.loss), "__call__", lambda self, x, batch: (taken.append(1), loss(self, x, batch))[1])
    run(f, 8)
    assert len(taken) == sum(record.forward_passes for record in f.ledger.rounds)
    per_client = tau * {"forward": 4, "central": 6}[difference]
    assert [record.forward_passes for record in f.ledger.rounds] == [
        per_client * len(record.answered) for record in f.ledger.rounds
    ]
    assert evaluations(difference, 3) * tau == per_client
