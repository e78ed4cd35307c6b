"""Planted bugs of the protocol: messages, ledger, snapshots, state, replay, federation and audit."""

from __future__ import annotations

import torch

from tests.mutants.mutant import Mutant, patched

MUTANTS: list[Mutant] = []


def mutant(name, module, what):
    """Enter a function that installs a bug into the list."""
    return lambda install: MUTANTS.append(Mutant(name, module, what, install))


@mutant("lost-one-over-p", "hiso_bench.messages", "the P directions are summed, not averaged")
def _():
    from hiso_bench.messages import Wire

    steps = Wire.steps

    def summed(self, round_, update):
        return [step._replace(weights=step.weights * self.perturbations) for step in steps(self, round_, update)]

    return patched(Wire, "steps", summed)


@mutant("first-local-step-repeated", "hiso_bench.messages", "every local step is replayed with the first one's scalars")
def _():
    from hiso_bench.messages import Wire

    steps = Wire.steps

    def first(self, round_, update):
        found = steps(self, round_, update)
        return [step._replace(weights=found[0].weights) for step in found]

    return patched(Wire, "steps", first)


@mutant("half-precision-wire", "hiso_bench.messages", "scalars pass through 16 bits on their way")
def _():
    from hiso_bench.messages import Wire

    encode = Wire.encode_scalars
    return patched(Wire, "encode_scalars", lambda self, scalars: encode(self, scalars.half().double()))


@mutant("nobody-answered", "hiso_bench.ledger", "the ledger forgets which clients answered")
def _():
    from hiso_bench.ledger import Ledger

    append = Ledger.append_round
    return patched(Ledger, "append_round", lambda self, record: append(self, record._replace(answered=())))


@mutant("fingerprint-without-h", "hiso_bench.state", "the fingerprint of a state covers x alone")
def _():
    from hiso_bench import state

    return patched(state.State, "fingerprint", lambda self: (state.fingerprint([self.x]) + self.round) % 2**64)


@mutant("h-of-the-diverged-moves", "hiso_bench.state", "a frozen replicate keeps its x and loses its H")
def _():
    from hiso_bench.state import State

    return patched(State, "keep_where", lambda self, active, before: self._keep(active, self.x, before.x))


@mutant("fingerprint-without-position", "hiso_bench.points", "two coordinates that trade places go unseen")
def _():
    from hiso_bench import state

    def total(points):
        return sum(int(leaf.detach().reshape(-1).view(torch.uint8).long().sum()) for point in points for leaf in point)

    return patched(state, "fingerprint", total)


@mutant("foreign-snapshot", "hiso_bench.snapshots", "a snapshot is taken without a look at its fingerprint")
def _():
    from hiso_bench import snapshots

    def newest(ledger, layout):
        if ledger.path is None:
            return None
        for path in sorted(ledger.path.parent.glob(f"{ledger.path.name}.snapshot-*[0-9]"), reverse=True):
            try:
                return snapshots._load(path, layout)
            except Exception:
                continue
        return None

    return patched(snapshots, "newest_valid", newest)


@mutant("snapshots-pile-up", "hiso_bench.snapshots", "old snapshots are never removed")
def _():
    from hiso_bench import snapshots

    return patched(snapshots, "KEEP", 10**6)


@mutant("h-before-x", "hiso_bench.replay", "H learns from the round before x has moved by it")
def _():
    from hiso_bench import federation
    from hiso_bench.directions import Warped

    def replay(method, state, steps, directions, z=None, buffer=None):
        if steps:
            active = torch.stack([step.active for step in steps]).all(0)
            before = None if bool(active.all()) else state.copy()
            dx = state.layout.empty(directions.dtype, directions.device)
            warped = Warped(directions, method.warp(state))
            for step in steps:
                method.direction(step, state.layout, warped, out=dx)
            method.learn(state, steps, warped, dx)
            moved = Warped(directions, method.warp(state))
            for step in steps:
                method.move(state, method.direction(step, state.layout, moved, out=dx), step)
            if before is not None:
                state.keep_where(active, before)
        state.round += 1

    return patched(federation, "replay", replay)


@mutant("empty-round-does-not-count", "hiso_bench.replay", "a round that nobody answered leaves the round number")
def _():
    from hiso_bench import federation

    replay = federation.replay

    def lazy(method, state, steps, directions, z=None, buffer=None):
        if steps:
            replay(method, state, steps, directions, z, buffer)

    return patched(federation, "replay", lazy)


@mutant("stale-h-in-replay", "hiso_bench.replay", "whoever replays a ledger warps with the H of the round before")
def _():
    from hiso_bench import federation
    from hiso_bench.directions import Warped

    replay, last = federation.replay, {}

    def stale(method, state, steps, directions, z=None, buffer=None):
        if z is None and "h" in state.buffers:
            kept = last.get(id(state), state).copy()
            last[id(state)] = state.copy()
            z = Warped(directions, method.warp(kept))
        replay(method, state, steps, directions, z, buffer)

    return patched(federation, "replay", stale)


@mutant("same-clients-every-round", "hiso_bench.federation", "participation does not depend on the round")
def _():
    from hiso_bench import federation

    draw = federation.participants
    return patched(federation, "participants", lambda key, round_, *rest: draw(key, 0, *rest))


@mutant("no-revert", "hiso_bench.federation", "local steps move the shared x, and the replay moves it again")
def _():
    from hiso_bench import federation

    return patched(federation, "local_copy", lambda state: state)


@mutant("one-direction-for-all-local-steps", "hiso_bench.federation", "local step k measures the directions of step 0")
def _():
    from hiso_bench.federation import Federation

    keys = Federation._keys
    return patched(Federation, "_keys", lambda self, r, k, owner: keys(self, r, 0, owner))


@mutant("absence-off-by-one", "hiso_bench.federation", "a returning client is not sent the first round that it missed")
def _():
    from hiso_bench.federation import Federation

    message = Federation._catch_up_message

    def short(self, r, client):
        kept = self.last_seen.copy()
        self.last_seen[client] = min(r, kept[client] + 1)
        try:
            return message(self, r, client)
        finally:
            self.last_seen = kept

    return patched(Federation, "_catch_up_message", short)


@mutant("rounds-replayed-twice", "hiso_bench.audit", "a client that got an update again replays it again")
def _():
    from hiso_bench.audit import Client
    from hiso_bench.ledger import Round

    def receive(self, message):
        _, first, updates = self._inner.wire.decode_downlink(message)
        for number, update in enumerate(updates):
            self._inner.replay(Round(first + number, (), 0, 0, 0, update))

    return patched(Client, "receive", receive)


@mutant("audit-that-believes", "hiso_bench.audit", "an audit does not compare the fingerprints")
def _():
    from hiso_bench import audit
    from hiso_bench.federation import Federation

    class Trusting(Federation):
        def _compare(self):
            pass

    return patched(audit, "Federation", Trusting)
