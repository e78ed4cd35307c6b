"""A federated round of vectors: the dense model goes down to every sampled client, a payload of each comes back.

Participation, batches and dropout come from the same keys as those of `hiso_bench.federation`, so at equal options the same
clients see the same examples. Messages are encoded, counted and decoded; clients start at the decoded model and the server
knows the decoded payloads only.

A round's record holds the length and hash of every payload, not the payload: x cannot be rebuilt from such a ledger. A resumed
run starts from the newest valid snapshot (or the base point), takes the later rounds again and compares each with its record.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from hiso_bench import keys
from hiso_bench.directions import DirectionKey, Directions
from hiso_bench.federation import FederationOptions, NonFiniteScalarError, Report
from hiso_bench.first_order.base import FirstOrder
from hiso_bench.first_order.codecs import Dense
from hiso_bench.ledger import Ledger, LedgerError, Round
from hiso_bench.messages import MessageError
from hiso_bench.methods.base import require
from hiso_bench.participation import answering, participants
from hiso_bench.points import Point, cut, joined
from hiso_bench.problems import Problem
from hiso_bench.state import State

_UPLINK = struct.Struct("<II")
_DOWNLINK = struct.Struct("<I")
_PAYLOAD = struct.Struct("<Q16s")


class VectorFederation:
    """The server and its simulated clients.

    Args:
        problem: the clients' losses and data; no replicates.
        method: what a round does.
        options: the federation's options; those about shared directions keep their defaults.
        ledger: where rounds are written; in memory by default.

    Raises:
        ValueError: an option that a method of vectors does not have.
    """

    def __init__(self, problem: Problem, method: FirstOrder, options: FederationOptions, ledger: Ledger | None = None) -> None:
        require(options.sampled <= problem.clients, "sampled", options.sampled, f"<= clients = {problem.clients}")
        require(not problem.layout.replicate_shape, "replicates", problem.layout.replicate_shape, "none for a method of vectors")
        require(options.wire in ("float32", "float64"), "wire", options.wire, "float32, float64 for a method of vectors")
        require(not options.independent, "independent", options.independent, "False: a method of vectors shares no directions")
        require(
            options.law == "gaussian", "law", options.law, "gaussian, the default: a method of vectors agrees on no directions"
        )
        require(options.on_divergence == "stop", "on_divergence", options.on_divergence, "stop for a method of vectors")
        self.problem, self.method, self.options = problem, method, options
        self.ledger = Ledger() if ledger is None else ledger
        x = problem.initial()
        self.state = method.init(x, problem.layout)
        dtype, device = x[0].dtype, x[0].device
        self._model, self._codec = Dense(options.wire), method.codec(options.wire)
        self._directions = Directions(problem.layout, keys.derive(options.key, "own"), "sphere", dtype, device, cache_bytes=0)
        self._buffer = problem.layout.empty(dtype, device)

    def catch_up(self, state: State | None = None) -> None:
        """Take the ledger's rounds again, from the base point or from a snapshot's `state`, up to its end.

        Raises:
            LedgerError: a round or a state differs from what the ledger holds; the message names the round.
        """
        if state is not None:
            self.state = state
        self.ledger.compare(self.state)
        for record in self.ledger.rounds[self.state.round :]:
            found = self._take().record
            if found != record:
                raise LedgerError(
                    f"round {record.round}, taken again, differs from its record in {self.ledger.path}: "
                    f"{_difference(record, found)}; another device, thread count or torch build than "
                    f"{self.ledger.header.get('made_with')}"
                )
            self.ledger.compare(self.state)

    def round(self) -> Report:
        """Run one round and append its record.

        Raises:
            NonFiniteScalarError: a client's change or loss is NaN or infinite.
        """
        report = self._take()
        self.ledger.append_round(report.record)
        return report

    def _take(self) -> Report:
        r, options, d = self.state.round, self.options, self.problem.layout.dimension
        ids = participants(options.key, r, self.problem.clients, options.sampled)
        present = ids[answering(options.key, r, options.dropout, ids.shape)]
        message = _DOWNLINK.pack(r) + self._model.encode(joined(self.state.x, self.problem.layout).double().cpu().numpy(), _NEVER)
        (named,) = _DOWNLINK.unpack_from(message)
        start = self._point(self._model.decode(message[_DOWNLINK.size :], d))
        up, told, changes, losses = 0, [], [], []
        for client in map(int, present):
            change, loss = self._client(named, client, start)
            self._check(r, client, change, loss)
            kept = f"unsent of client {client}"
            if self.method.remembers and kept in self.state.buffers:
                change = change + joined(self.state.buffers[kept], self.problem.layout).numpy()
            rng = keys.rng(keys.derive(options.key, "codec", round=r, client=client))
            sent = _UPLINK.pack(r, client) + self._codec.encode(change, rng)
            up += len(sent)
            if _UPLINK.unpack_from(sent) != (r, client):
                raise MessageError(f"an uplink of {_UPLINK.unpack_from(sent)} where round {r}, client {client} is due")
            payload = sent[_UPLINK.size :]
            told.append((len(payload), hashlib.sha256(payload).digest()[:16]))
            changes.append(self._codec.decode(payload, d))
            losses.append(loss)
            self._check(r, client, changes[-1], loss)
            if self.method.remembers:  # the client's own; with the state, so that snapshots hold it
                self.state.buffers[kept] = cut(torch.from_numpy(change - changes[-1]), self.problem.layout)
        if changes:
            self.method.serve(self.state, self._point(self.method.aggregate(changes)))
        self.state.round += 1
        forwards = len(present) * options.local_steps * self.method.evaluations
        record = Round(r, tuple(map(int, present)), up, len(ids) * len(message), forwards, encode_payloads(told))
        mean = torch.stack(losses).mean() if losses else torch.tensor(torch.nan, dtype=torch.float64)
        return Report(record, mean)

    def _client(self, r: int, client: int, start: Point) -> tuple[np.ndarray, Tensor]:
        """The change, float64 (d,), and mean loss of a client's local steps."""
        x, losses = tuple(leaf.clone() for leaf in start), []
        for k in range(self.options.local_steps):
            batch = self.problem.batch(np.array(client), r, k)
            key = DirectionKey(r, k, 0, client)
            loss, g = self.method.estimate(self.problem.loss, x, batch, key, self._directions, self._buffer)
            losses.append(loss)
            if self.method.client_momentum:
                # The client's own, which nobody sends; it is kept with the state so that snapshots hold it.
                v = self.state.buffers.setdefault(f"momentum of client {client}", tuple(torch.zeros_like(leaf) for leaf in x))
                for kept, part in zip(v, g, strict=True):
                    kept.mul_(self.method.client_momentum).add_(part)
                g = v
            for leaf, part in zip(x, g, strict=True):
                leaf.sub_(part, alpha=self.method.local_rate)
        change = joined(x, self.problem.layout).double() - joined(start, self.problem.layout).double()
        return change.cpu().numpy(), torch.stack(losses).mean()

    def _check(self, r: int, client: int, change: np.ndarray, loss: Tensor) -> None:
        finite = bool(np.isfinite(change).all())
        if not finite or not bool(torch.isfinite(loss)):
            raise NonFiniteScalarError(
                f"round {r}, client {client}: its loss is {float(loss)} and its change, in {self.options.wire}, "
                f"{'is finite' if finite else 'holds a NaN or an infinity'}; lower client_lr or lr"
            )

    def _point(self, vector: np.ndarray) -> Point:
        like = self.state.x[0]
        return cut(torch.from_numpy(vector).to(like.device, like.dtype), self.problem.layout)


def encode_payloads(told: Sequence[tuple[int, bytes]]) -> bytes:
    """A round's entry in the ledger: (length, first 16 bytes of the SHA-256) of every payload, in client order."""
    return b"".join(_PAYLOAD.pack(*one) for one in told)


def decode_payloads(update: bytes) -> list[tuple[int, bytes]]:
    """What `encode_payloads` wrote."""
    return list(_PAYLOAD.iter_unpack(update))


_NEVER = keys.rng(0)
"""For a dense encoding, which rounds to nearest and draws nothing."""


def _difference(record: Round, found: Round) -> str:
    for client, then, now in zip(record.answered, decode_payloads(record.update), decode_payloads(found.update), strict=False):
        if then != now:
            return f"client {client}'s payload has {now[0]} bytes, hash {now[1].hex()} now, and {then[0]}, {then[1].hex()} there"
    name = next(name for name in Round._fields if getattr(record, name) != getattr(found, name))
    return f"{name} is {getattr(found, name)!r} now and {getattr(record, name)!r} there"
