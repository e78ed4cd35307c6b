"""Who knows only the base point and what went over the wire: a client with its own state, and the audit of a ledger."""

from __future__ import annotations

from typing import cast

import numpy as np

from hiso_bench.directions import Warped
from hiso_bench.federation import Federation, FederationOptions
from hiso_bench.ledger import Ledger, LedgerError, Round
from hiso_bench.messages import MessageError
from hiso_bench.methods.base import Method
from hiso_bench.problems import Base, Problem
from hiso_bench.state import State


class Client:
    """A client with a state of its own, which it advances by messages alone: a late joiner, or an auditor.

    The simulation needs no such object; tests hold it against the server's state bit for bit.

    Args:
        problem: for the base point and the loss.
        method: as agreed.
        options: as agreed; `key` lets the client regenerate the directions.
    """

    def __init__(self, problem: Problem, method: Method, options: FederationOptions) -> None:
        self._inner = Federation(problem, method, options)

    @property
    def state(self) -> State:
        """The client's x, H and momentum."""
        return self._inner.state

    def receive(self, message: bytes) -> None:
        """Decode a downlink and replay the missed rounds.

        A client that dropped in mid-round stands further than the server knows: the updates it has already are passed over.

        Raises:
            MessageError: the message begins after, or ends before, the round at which this client stands.
        """
        round_, first, updates = self._inner.wire.decode_downlink(message)
        stands = self.state.round
        if not first <= stands <= round_:
            raise MessageError(f"a downlink of rounds {first} to {round_} cannot advance a client that stands at round {stands}")
        for number in range(stands, round_):
            self._inner.replay(Round(number, (), 0, 0, 0, updates[number - first]))

    def answer(self, client: int) -> bytes:
        """Measure for this round and encode the uplink; the state is left as it was (the revert rule)."""
        z = Warped(self._inner.directions, self._inner.method.warp(self.state))
        scalars, _ = self._inner.measure(self.state.round, np.array([client]), [client], z)
        z.close()
        return self._inner.wire.encode_uplink(self.state.round, client, scalars[0])


def audit(ledger: Ledger, problem: Base, method: Method, options: FederationOptions) -> State:
    """Rebuild x and H from the base point and the ledger alone, checking every fingerprint on the way.

    Raises:
        LedgerError: the method sends vectors, which the ledger does not hold; the base point is not the ledger's; or a
            fingerprint differs, and the message names the round.
    """
    if not method.scalar_only:
        raise LedgerError(
            f"x cannot be rebuilt from ledger {ledger.path}: its method sends vectors, of which it holds lengths and hashes. The "
            "command that made the run recomputes the rounds after the newest snapshot and compares every payload with its hash"
        )
    inner = Federation(cast(Problem, problem), method, options, ledger)  # a replay measures nothing and evaluates nothing
    there, here = ledger.header.get("run", {}).get("base_fingerprint"), f"{inner.state.fingerprint():016x}"
    if there not in (None, here):
        raise LedgerError(f"ledger {ledger.path} begins at another base point: its fingerprint is {there} there and {here} here")
    inner.catch_up()
    return inner.state
