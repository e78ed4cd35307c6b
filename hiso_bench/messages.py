"""What goes over the wire: encoded, counted and decoded in every round, in simulation too.

Numbers are little-endian. A run's `Wire` (dtype, local steps, perturbations, second differences, whose directions) is
agreed once, so messages carry no shapes: an uplink is (round, client, scalars); a downlink is (round, first missed round) and
the missed rounds' updates, as they stand in the ledger. Direction keys follow from the run's root key and the round number,
so no seed is sent.
"""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass
from typing import Literal, NamedTuple, get_args

import numpy as np
import torch
from torch import Tensor

from hiso_bench.directions import SHARED, DirectionKey
from hiso_bench.methods.base import Step

WireDtype = Literal["float32", "float64", "sign1"]
WIRE_DTYPES: tuple[str, ...] = get_args(WireDtype)
SIGN = "sign1"
"""One bit a scalar: +1 where it is >= 0, else -1. It says neither zero nor NaN."""

_UPLINK = struct.Struct("<II")
_DOWNLINK = struct.Struct("<II")
_ROWS = struct.Struct("<H")
MAX_ROWS = 2**16 - 1
_CLIENT = struct.Struct("<I")


class MessageError(ValueError):
    """Bytes that are not a message of this run."""


class Update(NamedTuple):
    """What a round agreed on: rows of scalars, and whose rows they are if each client has its own directions."""

    clients: tuple[int, ...]
    """The rows' clients when directions are independent; empty when they are shared."""
    scalars: Tensor
    """(n, tau, P + nc, *replicate_shape), float64 values that are exact in the wire dtype; n = 0 for an empty round."""


@dataclass(frozen=True)
class Wire:
    """The shapes and the dtype that both ends know before the first message.

    Raises:
        ValueError: unknown dtype.
    """

    dtype: str
    local_steps: int
    perturbations: int
    curvatures: int = 0
    """nc: second differences per local step, sent after its P slopes."""
    independent: bool = False
    replicate_shape: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if self.dtype not in WIRE_DTYPES:
            raise ValueError(f"wire {self.dtype!r} is unknown; allowed: {', '.join(WIRE_DTYPES)}")

    @property
    def row_shape(self) -> tuple[int, ...]:
        """(tau, P + nc, *replicate_shape)."""
        return (self.local_steps, self.perturbations + self.curvatures, *self.replicate_shape)

    @property
    def row_bytes(self) -> int:
        """Bytes of one row of scalars; bits are filled up to whole bytes."""
        if self.dtype == SIGN:
            return (math.prod(self.row_shape) + 7) // 8
        return math.prod(self.row_shape) * np.dtype(self.dtype).itemsize

    def encode_scalars(self, scalars: Tensor) -> bytes:
        """Round rows of float64 scalars, or one of them, to the wire dtype and give their bytes.

        Raises:
            MessageError: a NaN on a wire of signs.
        """
        if self.dtype == SIGN:
            values = scalars.detach().cpu().numpy().reshape(-1, math.prod(self.row_shape))
            if np.isnan(values).any():
                raise MessageError(f"a scalar is NaN, which {SIGN} cannot say")
            return np.packbits(values >= 0, axis=1).tobytes()
        with np.errstate(over="ignore"):  # what overflows becomes infinite, and the server's check reports it
            return scalars.detach().cpu().numpy().astype(np.dtype(self.dtype).newbyteorder("<")).tobytes()

    def decode_scalars(self, data: bytes, rows: int) -> Tensor:
        """The float64 tensor (rows, *row_shape) of what `encode_scalars` wrote."""
        if len(data) != rows * self.row_bytes:
            raise MessageError(f"{len(data)} bytes of scalars where {rows} x {self.row_bytes} are due")
        if self.dtype == SIGN:
            bits = np.frombuffer(data, np.uint8).reshape(rows, self.row_bytes)
            signs = np.unpackbits(bits, axis=1, count=math.prod(self.row_shape)) * 2.0 - 1
            return torch.from_numpy(signs).reshape(rows, *self.row_shape)
        values = np.frombuffer(data, dtype=np.dtype(self.dtype).newbyteorder("<")).astype(np.float64)
        return torch.from_numpy(values).reshape(rows, *self.row_shape)

    def encode_uplink(self, round_: int, client: int, scalars: Tensor) -> bytes:
        """A client's answer; `scalars` has the row shape."""
        return _UPLINK.pack(round_, client) + self.encode_scalars(scalars)

    def decode_uplink(self, data: bytes) -> tuple[int, int, Tensor]:
        """(round, client, scalars of the row shape).

        Raises:
            MessageError: wrong length.
        """
        if len(data) != _UPLINK.size + self.row_bytes:
            raise MessageError(f"an uplink has {_UPLINK.size + self.row_bytes} bytes, not {len(data)}")
        round_, client = _UPLINK.unpack_from(data)
        return round_, client, self.decode_scalars(data[_UPLINK.size :], 1)[0]

    def encode_update(self, update: Update) -> bytes:
        """An update as it stands in the ledger and in downlinks."""
        rows = len(update.scalars)
        if self.independent and len(update.clients) != rows:
            raise ValueError(f"{rows} rows of independent directions need {rows} client ids, not {len(update.clients)}")
        ids = b"".join(map(_CLIENT.pack, update.clients)) if self.independent else b""
        return _ROWS.pack(rows) + ids + self.encode_scalars(update.scalars)

    def split_updates(self, data: bytes) -> list[bytes]:
        """Cut a run of encoded updates into single ones.

        Raises:
            MessageError: the last one is incomplete.
        """
        parts, at = [], 0
        while at < len(data):
            if at + _ROWS.size > len(data):
                raise MessageError("an update ends inside its row count")
            (rows,) = _ROWS.unpack_from(data, at)
            size = _ROWS.size + rows * (self.row_bytes + (_CLIENT.size if self.independent else 0))
            if at + size > len(data):
                raise MessageError(f"an update of {rows} rows has {size} bytes, and only {len(data) - at} are left")
            parts.append(data[at : at + size])
            at += size
        return parts

    def decode_update(self, data: bytes) -> Update:
        """The update of its bytes.

        Raises:
            MessageError: wrong length.
        """
        if self.split_updates(data) != [data]:
            raise MessageError(f"{len(data)} bytes are not one update")
        (rows,) = _ROWS.unpack_from(data)
        start = _ROWS.size + (rows * _CLIENT.size if self.independent else 0)
        clients = struct.unpack_from(f"<{rows}I", data, _ROWS.size) if self.independent else ()
        return Update(tuple(clients), self.decode_scalars(data[start:], rows))

    def encode_downlink(self, round_: int, first: int, updates: bytes) -> bytes:
        """What the server sends a participant of `round_`: the encoded updates of rounds first .. round_ - 1."""
        return _DOWNLINK.pack(round_, first) + updates

    def decode_downlink(self, data: bytes) -> tuple[int, int, list[bytes]]:
        """(round, first missed round, one encoded update per missed round).

        Raises:
            MessageError: wrong length, or a number of updates that does not reach the round.
        """
        if len(data) < _DOWNLINK.size:
            raise MessageError(f"a downlink has at least {_DOWNLINK.size} bytes, not {len(data)}")
        round_, first = _DOWNLINK.unpack_from(data)
        updates = self.split_updates(data[_DOWNLINK.size :])
        if first + len(updates) != round_:
            raise MessageError(f"a downlink of round {round_} from round {first} on carries {len(updates)} updates")
        return round_, first, updates

    def steps(self, round_: int, update: Update) -> list[Step]:
        """The update as local steps for `replay`; an empty list for an empty round."""
        rows = len(update.scalars)
        if not rows:
            return []
        owners = update.clients if self.independent else (SHARED,) * rows
        weights = update.scalars[:, :, : self.perturbations] / self.perturbations
        curvatures = update.scalars[:, :, self.perturbations :]
        return [
            Step(
                tuple(tuple(DirectionKey(round_, k, p, owner) for p in range(self.perturbations)) for owner in owners),
                weights[:, k],
                curvatures[:, k],
            )
            for k in range(self.local_steps)
        ]
