"""Clients that know only the base point and their messages stand where the server stands bit for bit, and answer as simulated."""

import functools
import itertools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hiso_bench.audit import Client
from hiso_bench.messages import MessageError, Update
from hiso_bench.participation import participants
from tests.helpers import PROBLEMS, bits, federation, quadratic, run

ROUNDS = 10
RUNS = {
    "momentum": ("quadratic", "decomfl", {"momentum": 0.6, "weight_decay": 0.01}, {}),
    "network": ("module", "hiso", {}, {"local_steps": 3}),
    "dropout": ("quadratic", "hiso", {}, {"sampled": 2, "dropout": 0.5}),
    "all scalars": ("quadratic", "hiso-a", {"momentum": 0.6}, {"local_steps": 2, "dropout": 0.3}),
    "independent": ("quadratic", "hiso-f", {}, {"local_steps": 2, "independent": True, "dropout": 0.3, "law": "sphere"}),
    "curvature": ("quadratic", "curvature", {"second_differences": 2}, {"local_steps": 2, "dropout": 0.3}),
    "block curvature": ("module", "curvature-block", {"momentum": 0.6}, {"independent": True, "dropout": 0.3}),
}


@functools.cache
def course(name):
    """The federation after its run, and the server's bits before every round and at the end."""
    problem, method, more, options = RUNS[name]
    f = federation(PROBLEMS[problem](), method, more, key=1, **options)
    states = [bits(f.state)]
    for _ in range(ROUNDS):
        f.round()
        states.append(bits(f.state))
    return f, states


def missed(f, first, round_):
    return f.wire.encode_downlink(round_, first, f.ledger.updates(first, round_))


@pytest.mark.parametrize("name", RUNS)
@given(present=st.lists(st.booleans(), min_size=ROUNDS, max_size=ROUNDS))
def test_a_client_absent_in_any_pattern_stands_where_the_server_stands(name, present):
    f, states = course(name)
    client = Client(f.problem, f.method, f.options)
    for r in [r for r, here in enumerate(present) if here] + [ROUNDS]:
        client.receive(missed(f, client.state.round, r))
        assert bits(client.state) == states[r]


@given(heard=st.lists(st.integers(0, ROUNDS), min_size=1, max_size=4).map(sorted), known=st.integers(0, ROUNDS))
def test_updates_that_a_client_has_already_are_passed_over(heard, known):
    """A client that dropped in mid-round has replayed more than the server knows of."""
    f, states = course("dropout")
    client = Client(f.problem, f.method, f.options)
    for r in heard:
        client.receive(missed(f, min(known, client.state.round), r))
        assert bits(client.state) == states[r]


@pytest.mark.parametrize(("first", "round_"), [(5, 7), (4, 4), (0, 2), (1, 1)])
def test_a_gap_or_an_old_message_is_refused_and_changes_nothing(first, round_):
    f, states = course("momentum")
    client = Client(f.problem, f.method, f.options)
    client.receive(missed(f, 0, 3))
    with pytest.raises(MessageError, match=f"rounds {first} to {round_} cannot advance a client that stands at round 3"):
        client.receive(missed(f, first, round_))
    assert bits(client.state) == states[3]


@pytest.mark.parametrize("wire", ["float32", "float64"])
@pytest.mark.parametrize("tau", [1, 3])
@pytest.mark.parametrize("independent", [False, True], ids=["shared", "independent"])
@pytest.mark.parametrize(
    ("problem", "name"), [*itertools.product(PROBLEMS, ["decomfl", "hiso", "hiso-a"]), ("quadratic", "hiso-e")]
)
def test_clients_that_answer_by_messages_reproduce_the_ledger(problem, name, independent, tau, wire):
    problem, method = PROBLEMS[problem](), {"momentum": 0.6}
    options = dict(local_steps=tau, independent=independent, dropout=0.3, key=2, sampled=4, wire=wire)
    f = federation(problem, name, method, **options)
    server = federation(problem, name, method, **options)  # for its codec: it takes no round of its own
    clients = [Client(problem, server.method, server.options) for _ in range(problem.clients)]
    known, updates = [0] * problem.clients, []
    for r in range(ROUNDS // 2):
        record = f.round().record
        down = up = 0
        answers = {}
        for client in participants(f.options.key, r, problem.clients, 4):
            message = server.wire.encode_downlink(r, known[client], b"".join(updates[known[client] :]))
            clients[client].receive(message)
            down += len(message)
            if client in record.answered:  # who drops in mid-round is as drawn; it has heard the downlink
                before = bits(clients[client].state)
                answer = clients[client].answer(int(client))
                assert bits(clients[client].state) == before
                answered_round, sender, scalars = server.wire.decode_uplink(answer)
                assert (answered_round, sender) == (r, client)
                up += len(answer)
                known[client], answers[int(client)] = r, scalars
        ids = tuple(sorted(answers))
        combined = torch.stack([answers[i] for i in ids]) if ids else torch.empty((0, *server.wire.row_shape))
        if ids and not independent:
            combined = server.method.combine(combined)
        updates.append(server.wire.encode_update(Update(ids if independent else (), combined)))
        assert updates[-1] == record.update
        assert (up, down, ids) == (record.bytes_up, record.bytes_down, record.answered)
    assert any(0 < len(record.answered) < 4 for record in f.ledger.rounds)


def test_a_late_joiner_needs_the_whole_history_and_no_more():
    f = run(federation(quadratic(), "hiso"), 50)
    late = Client(f.problem, f.method, f.options)
    message = missed(f, 0, 50)
    late.receive(message)
    assert bits(late.state) == bits(f.state)
    assert len(message) == 8 + 50 * (2 + 4 * 3)
