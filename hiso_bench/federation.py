"""One federated round (HiSo paper, Algorithm 1): sample, catch up, measure, combine, record, replay.

All sampled clients stand at the same x, so a simulation keeps one state for any number of clients. What each of them
would receive is still built, counted, decoded and compared with the ledger, and the state moves only through
`replay` of what went over the wire. After its local steps a client reverts to the round's start and replays the
agreed update when it next takes part.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from hiso_bench.differences import Measurement
from hiso_bench.directions import DEFAULT_CACHE_BYTES, LAWS, SHARED, DirectionKey, Directions, Law, Warped
from hiso_bench.ledger import Ledger, Round
from hiso_bench.losses import Batch
from hiso_bench.messages import MAX_ROWS, SIGN, WIRE_DTYPES, MessageError, Update, Wire, WireDtype
from hiso_bench.methods.base import Method, Step, require
from hiso_bench.participation import answering, participants
from hiso_bench.points import Layout
from hiso_bench.problems import Problem
from hiso_bench.replay import replay
from hiso_bench.state import State


class NonFiniteScalarError(FloatingPointError):
    """A scalar is NaN or infinite; the message names round, client and direction key."""


@dataclass(frozen=True, kw_only=True)
class FederationOptions:
    """Options of the federation.

    Attributes:
        sampled: m, clients sampled per round without replacement.
        local_steps: tau.
        independent: every client draws its own directions (the downlink then carries m rows of scalars instead of one).
        dropout: chance that a sampled client drops in mid-round: it was sent its downlink and answers nothing.
        law: law of the directions.
        wire: dtype of scalars in messages; "sign1" sends their signs, a bit each.
        key: the run's 64-bit root key.
        cache_bytes: budget for z within a round; 0 regenerates.
        on_divergence: "stop" raises at the first scalar that is not finite; "freeze" stops that replicate and marks it.

    Raises:
        ValueError: an option out of range.
    """

    sampled: int = 1
    local_steps: int = 1
    independent: bool = False
    dropout: float = 0.0
    law: Law = "gaussian"
    wire: WireDtype = "float32"
    key: int = 0
    cache_bytes: int = DEFAULT_CACHE_BYTES
    on_divergence: str = "stop"

    def __post_init__(self) -> None:
        require(1 <= self.sampled <= MAX_ROWS, "sampled", self.sampled, f">= 1 and <= {MAX_ROWS}")
        require(self.local_steps >= 1, "local_steps", self.local_steps, ">= 1")
        require(0 <= self.dropout < 1, "dropout", self.dropout, "0 <= dropout < 1")
        require(self.law in LAWS, "law", self.law, ", ".join(LAWS))
        require(self.wire in WIRE_DTYPES, "wire", self.wire, ", ".join(WIRE_DTYPES))
        require(0 <= self.key < 2**64, "key", self.key, "0 <= key < 2**64")
        require(self.cache_bytes >= 0, "cache_bytes", self.cache_bytes, ">= 0")
        require(self.on_divergence in ("stop", "freeze"), "on_divergence", self.on_divergence, "stop, freeze")


class Report(NamedTuple):
    """What a round did."""

    record: Round
    loss: Tensor
    """Mean over the answering clients of the loss they measured on their batches, replicate-shaped; NaN if nobody answered."""


class Federation:
    """The server and its simulated clients.

    Args:
        problem: the clients' losses and data.
        method: what a round does.
        options: the federation's options.
        ledger: where rounds are written; in memory by default. Rounds it already holds are replayed by `catch_up`.
        directions: replaces the keyed directions, for tests with exact expectations.

    Raises:
        ValueError: more clients sampled than there are; a law that the method does not admit; signs on the wire of a run with
            replicates.
    """

    def __init__(
        self,
        problem: Problem,
        method: Method,
        options: FederationOptions,
        ledger: Ledger | None = None,
        directions: Directions | None = None,
    ) -> None:
        require(options.sampled <= problem.clients, "sampled", options.sampled, f"<= clients = {problem.clients}")
        require(options.law in method.laws, "law", options.law, f"{', '.join(method.laws)} for this method")
        # A replicate that nobody answers, or that is frozen, is marked by a NaN.
        signs = bool(problem.layout.replicate_shape) and options.wire == SIGN
        require(not signs, "wire", options.wire, "float32, float64 with replicates")
        signs = method.curvatures > 0 and options.wire == SIGN
        require(not signs, "wire", options.wire, "float32, float64 for a method of second differences")
        self.problem, self.method, self.options = problem, method, options
        self.ledger = Ledger() if ledger is None else ledger
        x = problem.initial()
        self.state = method.init(x, problem.layout)
        dtype, device = x[0].dtype, x[0].device
        del x  # the state has its own
        self.wire = Wire(
            options.wire,
            options.local_steps,
            method.perturbations,
            method.curvatures,
            independent=options.independent,
            replicate_shape=problem.layout.replicate_shape,
        )

        def make(layout: Layout) -> Directions:
            return directions or Directions(layout, options.key, options.law, dtype, device, options.cache_bytes)

        self.directions = method.directions(problem.layout, make)
        self.alive = torch.ones(problem.layout.replicate_shape, dtype=torch.bool)
        """Which replicates have not diverged."""
        self.last_seen = np.zeros(problem.clients, dtype=np.int64)
        """Per client, the first round whose update it has not replayed (its last participation; 0 for a newcomer)."""
        # x' and the accumulator. A z that is not kept becomes x' in place; when it is replayed, x' is not needed any more.
        self._buffers = (problem.layout.empty(dtype, device), problem.layout.empty(dtype, device))
        self.directions.scratch = self._buffers[0]

    def catch_up(self, state: State | None = None) -> None:
        """Replay the ledger's rounds from the base point (or from a snapshot's `state`) up to its end.

        Raises:
            LedgerError: the state after a round differs from the fingerprint that the ledger holds for it.
        """
        if state is not None:
            self.state = state
        self._compare()
        for record in self.ledger.rounds:
            self.last_seen[list(record.answered)] = record.round
            if self.options.on_divergence == "freeze":
                self.alive &= self._survivors(record)
            if record.round >= self.state.round:
                self.replay(record)
                self._compare()

    def _compare(self) -> None:
        self.ledger.compare(self.state)

    def _survivors(self, record: Round) -> Tensor:
        """Which replicates a record does not freeze: a NaN does, unless no client stayed to answer for that replicate."""
        scalars = self.wire.decode_update(record.update).scalars
        if not len(scalars):
            return torch.ones_like(self.alive)
        stays = self._stays(record.round, (self.options.sampled, *self.wire.replicate_shape)).any(0)
        return torch.isfinite(scalars).flatten(0, 2).all(0) | ~torch.as_tensor(stays)

    def round(self) -> Report:
        """Run one round.

        Raises:
            NonFiniteScalarError: a client's scalar is NaN or infinite and `on_divergence` is "stop".
        """
        r = self.state.round
        options, shape = self.options, self.problem.layout.replicate_shape
        ids = participants(options.key, r, self.problem.clients, options.sampled, shape)
        stays = self._stays(r, ids.shape)
        down = 0 if shape else sum(len(self._catch_up_message(r, int(client))) for client in ids)
        slots = [slot for slot in range(len(ids)) if stays[slot].any()]
        # In a replicated run a slot holds another client in each replicate, so its number stands for the client.
        answered = tuple(slots) if shape else tuple(int(ids[slot]) for slot in slots)
        z = Warped(self.directions, self.method.warp(self.state))
        forwards, up, rows, losses = 0, 0, [], []
        if slots:
            measured, loss = self.measure(r, ids[slots], answered, z)
            forwards = len(slots) * options.local_steps * self.method.evaluations
            for position, slot in enumerate(slots):
                if options.wire == SIGN:  # which hides what is not finite
                    self._check_finite(r, answered[position], measured[position], stays[slot])
                message = self.wire.encode_uplink(r, answered[position], measured[position])
                up += len(message)
                round_, client, row = self.wire.decode_uplink(message)
                if (round_, client) != (r, answered[position]):
                    raise MessageError(
                        f"an uplink of round {round_}, client {client} where round {r}, {answered[position]} is due"
                    )
                self._check_finite(r, answered[position], row, stays[slot])
                rows.append(torch.where(torch.as_tensor(stays[slot]), row, torch.nan))
                losses.append(torch.where(torch.as_tensor(stays[slot]), loss[position], torch.nan))
        record = Round(r, answered, up, down, forwards, self.wire.encode_update(self._agree(rows, answered)))
        self.ledger.append_round(record)
        self.replay(record, z)
        if not shape:
            self.last_seen[list(answered)] = r
        mean = torch.stack(losses).nanmean(0) if losses else torch.full(shape, torch.nan, dtype=torch.float64)
        return Report(record, mean)

    def _stays(self, r: int, shape: tuple[int, ...]) -> np.ndarray:
        return answering(self.options.key, r, self.options.dropout, shape)

    def _catch_up_message(self, r: int, client: int) -> bytes:
        first = int(self.last_seen[client])
        message = self.wire.encode_downlink(r, first, self.ledger.updates(first, r))
        _, first, updates = self.wire.decode_downlink(message)
        if updates != [record.update for record in self.ledger.rounds[first:r]]:
            raise MessageError(f"the catch-up of client {client} in round {r} differs from the ledger")
        return message

    def measure(self, r: int, ids: np.ndarray, owners: Sequence[int], z: Warped) -> tuple[Tensor, Tensor]:
        """Scalars (n, tau, P + nc, *replicates) and losses (n, *replicates) of the clients, each from its own local steps."""
        if not self.options.independent:
            owners = [SHARED] * len(ids)
        if self.options.local_steps == 1 and not self.options.independent:
            batches = [self.problem.batch(client, r, 0) for client in ids]
            result = self._estimate(self.state, r, 0, SHARED, batches, z)
            return result.scalars.unsqueeze(1), result.loss
        found = [self._local(r, client, owner, z) for client, owner in zip(ids, owners, strict=True)]
        return torch.stack([scalars for scalars, _ in found]), torch.stack([loss for _, loss in found])

    def _local(self, r: int, client: np.ndarray, owner: int, z: Warped) -> tuple[Tensor, Tensor]:
        tau = self.options.local_steps
        state = self.state if tau == 1 else local_copy(self.state)
        scalars, losses = [], []
        for k in range(tau):
            result = self._estimate(state, r, k, owner, [self.problem.batch(client, r, k)], z)
            scalars.append(result.scalars[0])
            losses.append(result.loss[0])
            if k < tau - 1:
                keys_ = (self._keys(r, k, owner),)
                slopes, curvatures = result.scalars.tensor_split([self.method.perturbations], dim=1)
                step = Step(keys_, slopes / self.method.perturbations, curvatures)
                self.method.move(state, self.method.direction(step, state.layout, z, out=self._buffers[1]), step)
        return torch.stack(scalars), torch.stack(losses).mean(0)

    def _keys(self, r: int, k: int, owner: int) -> tuple[DirectionKey, ...]:
        return tuple(DirectionKey(r, k, p, owner) for p in range(self.method.perturbations))

    def _estimate(self, state: State, r: int, k: int, owner: int, batches: Sequence[Batch], z: Warped) -> Measurement:
        return self.method.measure(
            self.problem.loss, state.layout, state.x, z, self._keys(r, k, owner), batches, buffer=self._buffers[0]
        )

    def _check_finite(self, r: int, client: int, scalars: Tensor, stays: np.ndarray) -> None:
        bad = ~torch.isfinite(scalars) & torch.as_tensor(stays)
        if not bad.any():
            return
        if self.options.on_divergence == "freeze":
            self.alive &= ~bad.flatten(0, 1).any(0)
            return
        where = tuple(bad.nonzero()[0].tolist())
        second = where[1] >= (P := self.method.perturbations)
        key = DirectionKey(r, where[0], where[1] - P * second, client if self.options.independent else SHARED)
        what = "second difference" if second else "scalar"
        lower = self.problem.loss.precision
        raise NonFiniteScalarError(
            f"round {r}, client {client}, {key}: the {what} is {scalars[where].item()} in {self.options.wire}"
            f"{f' (of losses computed in {lower})' if lower else ''}; lower lr, or raise mu or eps"
            f"{', or compute in float32' if lower else ''}"
        )

    def _agree(self, rows: list[Tensor], answered: tuple[int, ...]) -> Update:
        """The server: combine in float64 and client order, round to the wire dtype."""
        if not rows:
            return Update((), torch.empty((0, *self.wire.row_shape), dtype=torch.float64))
        stacked = torch.stack(rows)
        combined = stacked if self.options.independent else self.method.combine(stacked)
        if self.wire.replicate_shape and self.options.dropout and len(combined) > 1:
            raise ValueError("dropout with replicates needs directions that are shared and a method that sends the mean")
        combined = torch.where(self.alive, combined, torch.nan)
        return Update(answered if self.options.independent else (), combined)

    def replay(self, record: Round, z: Warped | None = None) -> None:
        """Advance the state by one ledger record."""
        steps = self.wire.steps(record.round, self.wire.decode_update(record.update))
        replay(self.method, self.state, steps, self.directions, z, buffer=self._buffers[1])
        if z is not None:
            z.close()


def local_copy(state: State) -> State:
    """A scratch copy for local steps: x and momentum are copied, what only replay changes (H) is shared."""
    moved = {name: tuple(leaf.clone() for leaf in b) for name, b in state.buffers.items() if name == "momentum"}
    return State(state.layout, tuple(leaf.clone() for leaf in state.x), state.buffers | moved, state.round)
