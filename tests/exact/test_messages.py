"""Messages survive the wire bit for bit; bytes that are not a message are refused; what is counted is what was sent."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from hiso_bench.messages import MessageError, Update, Wire
from hiso_bench.participation import participants
from tests.helpers import federation, quadratic, run, update

SHAPES = st.sampled_from([(), (1,), (2,), (2, 3)])
WIRES = st.builds(
    Wire, st.sampled_from(["float32", "float64"]), st.integers(1, 3), st.integers(1, 4), st.integers(0, 2), st.booleans(), SHAPES
)


@st.composite
def updates(draw):
    """(wire, an update whose scalars are exact in the wire dtype): any bits, NaN and infinities included."""
    wire, rows = draw(WIRES), draw(st.integers(0, 4))
    values = draw(arrays(wire.dtype, (rows, *wire.row_shape), elements=st.floats(width=int(wire.dtype[-2:]))))
    clients = draw(st.lists(st.integers(0, 2**32 - 1), min_size=rows, max_size=rows)) if wire.independent else []
    return wire, Update(tuple(clients), torch.from_numpy(values.astype(np.float64)))


def same(a, b):
    return (
        a.dtype == b.dtype == torch.float64 and torch.equal(a.isnan(), b.isnan()) and torch.equal(a.nan_to_num(), b.nan_to_num())
    )


@given(updates())
def test_an_update_survives_the_wire(case):
    wire, sent = case
    data = wire.encode_update(sent)
    got = wire.decode_update(data)
    assert got.clients == sent.clients
    assert same(got.scalars, sent.scalars)
    assert wire.encode_update(got) == data
    assert len(data) == 2 + len(sent.scalars) * (wire.row_bytes + 4 * wire.independent)


@given(updates(), st.integers(0, 2**32 - 1), st.integers(0, 2**32 - 1))
def test_an_uplink_survives_the_wire(case, round_, client):
    wire, sent = case
    for row in sent.scalars:
        data = wire.encode_uplink(round_, client, row)
        got = wire.decode_uplink(data)
        assert got[:2] == (round_, client)
        assert same(got[2], row)
        assert len(data) == 8 + wire.row_bytes


@given(WIRES, st.data())
def test_a_downlink_survives_the_wire(wire, data):
    counts = data.draw(st.lists(st.integers(0, 3), max_size=4))
    parts = [
        wire.encode_update(Update(tuple(range(n)), torch.full((n, *wire.row_shape), 0.5, dtype=torch.float64))) for n in counts
    ]
    first = data.draw(st.integers(0, 1000))
    message = wire.encode_downlink(first + len(parts), first, b"".join(parts))
    assert wire.decode_downlink(message) == (first + len(parts), first, parts)


@given(arrays(np.float64, (1, 2, 3), elements=st.floats(width=64)))
def test_a_float32_wire_rounds_to_nearest_and_rounding_again_changes_nothing(values):
    wire = Wire("float32", 2, 3)
    once = wire.decode_scalars(wire.encode_scalars(torch.from_numpy(values)), 1)
    with np.errstate(over="ignore"):
        assert same(once, torch.from_numpy(values.astype(np.float32).astype(np.float64)))
    assert same(wire.decode_scalars(wire.encode_scalars(once), 1), once)


def one_of_each(wire):
    row = torch.full(wire.row_shape, 0.5, dtype=torch.float64)
    one = wire.encode_update(Update((3,) * wire.independent, row[None]))
    return {
        "uplink": (wire.decode_uplink, wire.encode_uplink(7, 3, row)),
        "update": (wire.decode_update, one),
        "downlink": (wire.decode_downlink, wire.encode_downlink(7, 5, one + one)),
    }


@pytest.mark.parametrize("independent", [False, True], ids=["shared", "independent"])
@pytest.mark.parametrize("kind", ["uplink", "update", "downlink"])
def test_a_cut_or_extended_message_is_refused(kind, independent):
    decode, data = one_of_each(Wire("float32", 2, 3, independent=independent))[kind]
    decode(data)
    for n in range(len(data)):
        with pytest.raises(MessageError):
            decode(data[:n])
    for extra in (b"\0", b"\0\0", b"\1\0", data):
        with pytest.raises(MessageError):
            decode(data + extra)


@pytest.mark.parametrize("independent", [False, True], ids=["shared", "independent"])
@pytest.mark.parametrize(
    ("kind", "at"), [("update", 0), ("update", 1), ("downlink", 8), ("downlink", 9), ("downlink", 0), ("downlink", 4)]
)
def test_a_wrong_count_or_round_is_refused(kind, at, independent):
    decode, data = one_of_each(Wire("float32", 2, 3, independent=independent))[kind]
    for bit in range(8):
        wrong = bytearray(data)
        wrong[at] ^= 1 << bit
        with pytest.raises(MessageError):
            decode(bytes(wrong))


def test_rows_of_independent_directions_need_their_clients():
    wire = Wire("float32", 1, 1, independent=True)
    with pytest.raises(ValueError, match="2 rows of independent directions need 2 client ids, not 1"):
        wire.encode_update(Update((1,), torch.zeros((2, *wire.row_shape), dtype=torch.float64)))


@pytest.mark.parametrize("tau", [1, 3])
@pytest.mark.parametrize(("name", "independent"), [("hiso", False), ("hiso-a", False), ("decomfl", True)])
def test_the_bytes_counted_follow_their_closed_forms(name, independent, tau):
    """Up: 8 + 4 tau P per answer. Down: 8, and per missed round 2 + 4 tau P per row (4 more where the row names its client)."""
    f = run(
        federation(quadratic(), name, {"perturbations": 5}, local_steps=tau, independent=independent, dropout=0.4, sampled=2), 30
    )
    row, last = 4 * tau * 5, [0] * 6
    for r, record in enumerate(f.ledger.rounds):
        rows = [len(update(f, k).scalars) for k in range(r + 1)]
        everyone = name == "hiso-a" or independent
        assert rows[r] == (len(record.answered) if everyone else min(1, len(record.answered)))
        assert record.bytes_up == len(record.answered) * (8 + row)
        sampled = participants(f.options.key, r, 6, 2)
        assert record.bytes_down == sum(8 + sum(2 + n * (row + 4 * independent) for n in rows[last[c] : r]) for c in sampled)
        for c in record.answered:
            last[c] = r
    assert {len(record.answered) for record in f.ledger.rounds} == {0, 1, 2}
