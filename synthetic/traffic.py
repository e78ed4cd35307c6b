"""What a method really sends: a federation of quadratics of any method by name, and the bytes of its ledger, taken apart.

Every message is built, encoded and counted by the federation. Here the ledger's rounds are read again - who answered, how long
each update is, when each client last took part - and the bytes of every message follow from them a second time; a total that
differs from the ledger's own is an error. No message depends on the loss, so the loss is the cheapest one that learns.
"""

from __future__ import annotations

from collections import Counter
from typing import Any, NamedTuple

import numpy as np
import torch

from hiso_bench import catalogue, keys, methods
from hiso_bench.federation import Federation, FederationOptions
from hiso_bench.first_order.codecs import Dense
from hiso_bench.first_order.federation import VectorFederation, decode_payloads
from hiso_bench.ledger import LedgerError
from hiso_bench.points import joined
from hiso_bench.testing import some_inputs
from synthetic.quadratic import Quadratic

SEED = 4
"""Bytes of a seed, if each direction had one of its own."""
NUMBER = "float32"
"""What a model or a state is handed out in."""
_RATE = 1e-3


class Layer(Quadratic):
    """A quadratic with made-up inputs of a layer, on which no message depends, for the methods that ask for them."""

    layer_inputs = staticmethod(some_inputs)


class Traffic(NamedTuple):
    """Bytes per client and round, in the mean over clients and rounds."""

    up: float
    """What clients sent."""
    down: float
    """What the server sent."""
    catch_up: float
    """Of `down`, the updates that a client which took part in the round before would have had already."""
    numbers: float
    """The scalars alone (or the payloads of vectors), up and down, as the papers count."""
    seeds: float
    """Not sent: what four bytes for every direction that a client is told of would add. The key of a run replaces them."""

    @property
    def messages(self) -> float:
        """Everything that was encoded."""
        return self.up + self.down


class Entry(NamedTuple):
    """Bytes that a newcomer needs before it may take part."""

    base: int
    """The base model; 0 where a round's message holds the model."""
    replay: int
    """The downlink with every update so far."""
    state: int
    """What could be sent in the place of both: x, H and whatever else all parties keep."""


def run(name: str, d: int, clients: int, sampled: int, rounds: int, key: int, **options: Any) -> Federation | VectorFederation:
    """A federation of a registered method after so many rounds; `options` are the method's.

    Cost: a millisecond or two a round at d = 10,000.

    Raises:
        ValueError: unknown method, or an option out of range.
    """
    problem = Layer(d, clients=clients)
    own_rate = name not in methods.PRESETS and not methods.options(name).get("one_rate")
    method = catalogue.method(name, {"lr": _RATE, **({"client_lr": _RATE} if own_rate else {}), **options}, problem)
    asked: dict[str, Any] = {"sampled": sampled, "key": key, **method.federation_options}
    federation = method.federate(problem, FederationOptions(**asked))
    for _ in range(rounds):
        federation.round()
    return federation


def counted(of: Federation | VectorFederation, first: int = 0) -> Traffic:
    """What the rounds from `first` on cost, by kind.

    `first` = 1 leaves out the round before which there is no update: with every client in every round the mean is exact then.

    Raises:
        ValueError: no round is left, or clients dropped in mid-round, whose downlinks the ledger does not name.
        hiso_bench.ledger.LedgerError: the parts do not sum to a record's own total.
    """
    if not 0 <= first < len(of.ledger.rounds) or of.options.dropout:
        raise ValueError(f"first {first} of {len(of.ledger.rounds)} rounds, dropout {of.options.dropout}: nothing can be counted")
    parts = _scalars(of, first) if isinstance(of, Federation) else _vectors(of, first)
    share = 1 / (of.problem.clients * (len(of.ledger.rounds) - first))
    return Traffic(*(parts[name] * share for name in Traffic._fields))


def _scalars(of: Federation, first: int) -> Counter[str]:
    wire, rounds, total = of.wire, of.ledger.rounds, Counter[str]()
    uplink = len(wire.encode_uplink(0, 0, torch.zeros(wire.row_shape, dtype=torch.float64)))
    head = len(wire.encode_downlink(0, 0, b""))
    seeds = SEED * wire.local_steps * wire.perturbations
    decoded = [wire.decode_update(record.update) for record in rounds]
    last_seen = Counter[int]()
    for r, record in enumerate(rounds):
        here = Counter[str](up=uplink * len(record.answered), numbers=wire.row_bytes * len(record.answered))
        for client in record.answered:
            missed = range(last_seen[client], r)
            sizes = [len(rounds[i].update) for i in missed]
            here["down"] += head + sum(sizes)
            here["catch_up"] += sum(sizes[:-1])
            here["numbers"] += wire.row_bytes * sum(len(decoded[i].scalars) for i in missed)
            here["seeds"] += seeds * sum(len(decoded[i].clients) if wire.independent else 1 for i in missed)
            last_seen[client] = r
        if (here["up"], here["down"]) != (record.bytes_up, record.bytes_down):
            raise LedgerError(
                f"round {r} has {record.bytes_up} bytes up and {record.bytes_down} down in the ledger, "
                f"and its messages {here['up']} and {here['down']}"
            )
        if r >= first:
            total.update(here)
    return total


def _vectors(of: VectorFederation, first: int) -> Counter[str]:
    model = len(Dense(of.options.wire).encode(np.zeros(of.problem.layout.dimension), keys.rng(0)))
    total = Counter[str]()
    for record in of.ledger.rounds[first:]:
        payloads = sum(length for length, _ in decode_payloads(record.update))
        models = model * len(record.answered)
        if payloads > record.bytes_up or models > record.bytes_down:
            raise LedgerError(
                f"round {record.round} has {record.bytes_up} bytes up and {record.bytes_down} down in the ledger, "
                f"and its payloads {payloads} and {models}"
            )
        total.update(up=record.bytes_up, down=record.bytes_down, numbers=payloads + models)
    return total


def absent(of: Federation | VectorFederation, k: int) -> int:
    """Bytes that a client which was away for the last k rounds is sent before it takes part in the next.

    Raises:
        ValueError: it was not there before, as there were not k + 1 rounds.
    """
    r = of.state.round
    if not 0 <= k < r:
        raise ValueError(f"absent rounds must be >= 0 and < {r}, the rounds so far; got {k}")
    if isinstance(of, Federation):
        return len(of.wire.encode_downlink(r, r - 1 - k, of.ledger.updates(r - 1 - k, r)))
    return of.ledger.rounds[-1].bytes_down // len(of.ledger.rounds[-1].answered)


def newcomer(of: Federation | VectorFederation) -> Entry:
    """What a client needs that joins now."""
    if not isinstance(of, Federation):
        return Entry(0, 0, absent(of, 0))
    layout, r, dense = of.problem.layout, of.state.round, Dense(NUMBER)

    def size(vector: np.ndarray) -> int:
        return len(dense.encode(vector, keys.rng(0)))

    kept = sum(size(leaf.double().numpy().ravel()) for point in (of.state.x, *of.state.buffers.values()) for leaf in point)
    base = size(joined(of.problem.initial(), layout).double().numpy())
    return Entry(base, len(of.wire.encode_downlink(r, 0, of.ledger.updates(0, r))), kept)
