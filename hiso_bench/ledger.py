"""The ledger: an append-only file of framed, checksummed, hash-chained records from which x and H can be rebuilt.

File = magic, then records: [kind u8, length u32, CRC-32 of these five bytes u32] [body] [CRC-32 of the body u32]
[chain, 16 bytes]. The chain is SHA-256(previous chain, kind, body), cut to 16 bytes, so no record can be changed,
dropped or reordered unseen.

Kinds: HEADER (JSON: method, options, layout, base-point hash, sampler, device, ...), ROUND (who answered, byte and
forward counts, the encoded update), FINGERPRINT (of the state after a round), EVALUATION (JSON metrics after a round).
No record holds a time, so an interrupted and resumed run writes the same file as an uninterrupted one.

A file that ends inside a record has a torn tail: it is cut off on opening (kept beside it with the suffix `.torn`) and
reported. Any other damage is an error; nothing is dropped silently.
"""

from __future__ import annotations

import fcntl
import hashlib
import io
import json
import os
import struct
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple

if TYPE_CHECKING:
    from hiso_bench.state import State

MAGIC = b"hiso-ledger/1\n"
HEADER, ROUND, FINGERPRINT, EVALUATION = 1, 2, 3, 4
_FRAME = struct.Struct("<BI")
_CRC = struct.Struct("<I")
_CHAIN = 16
_ROUND = struct.Struct("<IIQQQ")
_PRINT = struct.Struct("<IQ")


class LedgerError(ValueError):
    """A ledger that is corrupt, foreign, in use, or does not belong to this run."""


class Round(NamedTuple):
    """One round: the clients that answered, the traffic it caused, and the encoded update (see `messages.Wire`)."""

    round: int
    answered: tuple[int, ...]
    bytes_up: int
    bytes_down: int
    forward_passes: int
    update: bytes


class Ledger:
    """A ledger in memory, or in a file when opened with `create` or `open`.

    Attributes:
        header: the JSON header.
        rounds: every round's record, in order.
        fingerprints: round -> fingerprint of the state after that many rounds.
        evaluations: round -> metrics after that many rounds.
        torn_bytes: how many bytes of an unfinished record were cut off when the file was opened.
    """

    def __init__(self, header: dict[str, Any] | None = None) -> None:
        self.header: dict[str, Any] = header or {}
        self.rounds: list[Round] = []
        self.fingerprints: dict[int, int] = {}
        self.evaluations: dict[int, dict[str, float]] = {}
        self.path: Path | None = None
        self.torn_bytes = 0
        self.chain = bytes(_CHAIN)
        self._file: BinaryIO = io.BytesIO()

    @classmethod
    def create(cls, path: Path, header: dict[str, Any]) -> Ledger:
        """Start a new file.

        Raises:
            LedgerError: the file exists.
        """
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.exists():
            raise LedgerError(f"ledger {path} exists already; resume it, or choose another place")
        ledger = cls(header)
        ledger.path = path
        temporary = path.with_name(path.name + ".new")
        with open(temporary, "wb") as file:  # header and name appear together: a ledger without a header cannot exist
            ledger._file = file
            file.write(MAGIC)
            ledger._append(HEADER, json.dumps(header, sort_keys=True).encode())
            ledger.sync()
        os.replace(temporary, path)
        ledger._file = _lock(open(path, "ab"), path)
        return ledger

    @classmethod
    def open(cls, path: Path) -> Ledger:
        """Open a file to append to it; a torn tail is cut off and kept as `<name>.torn`."""
        if not path.is_file():
            raise LedgerError(f"ledger {path} does not exist")
        file = _lock(open(path, "r+b"), path)
        try:
            data = file.read()
            ledger, end = cls._parse(data, path)
        except LedgerError:
            file.close()
            raise
        if end < len(data):
            path.with_name(path.name + ".torn").write_bytes(data[end:])
            ledger.torn_bytes = len(data) - end
            file.truncate(end)
        file.seek(end)
        ledger._file = file
        return ledger

    @classmethod
    def read(cls, path: Path) -> Ledger:
        """Read a file without locking or changing it; a torn tail is passed over."""
        if not path.is_file():
            raise LedgerError(f"ledger {path} does not exist")
        data = path.read_bytes()
        ledger, end = cls._parse(data, path)
        ledger.torn_bytes = len(data) - end
        ledger._file.close()  # nothing can be appended
        return ledger

    @classmethod
    def _parse(cls, data: bytes, path: Path) -> tuple[Ledger, int]:
        if data[: len(MAGIC)] != MAGIC:
            raise LedgerError(f"{path} is not a hiso_bench ledger (or of another version): it does not begin with {MAGIC!r}")
        ledger, at, number = cls(), len(MAGIC), 0
        ledger.path = path
        head = _FRAME.size + _CRC.size
        while at < len(data):
            frame = data[at : at + head]
            if len(frame) < head or not (any(frame) or any(data[at:])):
                break  # torn: fewer bytes than a frame, or a tail of zeros that the file system added
            where = f"ledger {path} is corrupt at record {number}, byte {at}"
            if _CRC.unpack_from(frame, _FRAME.size)[0] != zlib.crc32(frame[: _FRAME.size]):
                raise LedgerError(f"{where}: the frame's checksum does not match")
            kind, length = _FRAME.unpack_from(frame)
            end = at + head + length + _CRC.size + _CHAIN
            if end > len(data):
                break  # torn: the record was not written to its end
            body = data[at + head : at + head + length]
            tail = data[at + head + length : end]
            if _CRC.unpack_from(tail)[0] != zlib.crc32(body):
                raise LedgerError(f"{where}: the body's checksum does not match")
            if tail[_CRC.size :] != ledger._link(kind, body):
                raise LedgerError(f"{where}: the hash chain is broken (a record was changed, dropped or moved)")
            if (number == 0) != (kind == HEADER):
                raise LedgerError(f"{where}: a header must be the first record and the only one")
            ledger._take(kind, body, where)
            ledger.chain = tail[_CRC.size :]
            at, number = end, number + 1
        if number == 0:
            raise LedgerError(f"ledger {path} has no complete header")
        return ledger, at

    def _take(self, kind: int, body: bytes, where: str) -> None:
        if kind == HEADER:
            self.header = json.loads(body)
        elif kind == ROUND:
            round_, count, up, down, forwards = _ROUND.unpack_from(body)
            if round_ != len(self.rounds):
                raise LedgerError(f"{where}: round {round_} where round {len(self.rounds)} is due")
            answered = struct.unpack_from(f"<{count}I", body, _ROUND.size)
            self.rounds.append(Round(round_, answered, up, down, forwards, body[_ROUND.size + 4 * count :]))
        elif kind == FINGERPRINT:
            round_, value = _PRINT.unpack(body)
            self.fingerprints[round_] = value
        elif kind == EVALUATION:
            metrics = json.loads(body)
            self.evaluations[metrics.pop("round")] = metrics
        else:
            raise LedgerError(f"{where}: unknown kind {kind}")

    def append_round(self, record: Round) -> None:
        """Append a round; it reaches the operating system before the call returns."""
        head = _ROUND.pack(record.round, len(record.answered), record.bytes_up, record.bytes_down, record.forward_passes)
        self._append(ROUND, head + struct.pack(f"<{len(record.answered)}I", *record.answered) + record.update)
        self.rounds.append(record)

    def append_fingerprint(self, round_: int, value: int) -> None:
        """Append the fingerprint of the state after `round_` rounds, and sync to disk."""
        self._append(FINGERPRINT, _PRINT.pack(round_, value))
        self.fingerprints[round_] = value
        self.sync()

    def compare(self, state: State) -> None:
        """Hold a state against the fingerprint that stands here for its round, if any.

        Raises:
            LedgerError: they differ.
        """
        expected = self.fingerprints.get(state.round)
        if expected is not None and expected != (found := state.fingerprint()):
            raise LedgerError(
                f"after round {state.round} the replayed state has fingerprint {found:016x}, ledger holds {expected:016x}: "
                f"another sampler, thread count or torch build; {self.path} was made with {self.header.get('made_with')}"
            )

    def append_evaluation(self, round_: int, metrics: dict[str, float]) -> None:
        """Append metrics of the state after `round_` rounds, and sync to disk."""
        self._append(EVALUATION, json.dumps({"round": round_, **metrics}, sort_keys=True).encode())
        self.evaluations[round_] = metrics
        self.sync()

    def updates(self, first: int, stop: int) -> bytes:
        """The encoded updates of rounds first .. stop - 1, joined."""
        return b"".join(record.update for record in self.rounds[first:stop])

    def _link(self, kind: int, body: bytes) -> bytes:
        return hashlib.sha256(self.chain + bytes([kind]) + body).digest()[:_CHAIN]

    def _append(self, kind: int, body: bytes) -> None:
        frame = _FRAME.pack(kind, len(body))
        self.chain = self._link(kind, body)
        record = frame + _CRC.pack(zlib.crc32(frame)) + body + _CRC.pack(zlib.crc32(body)) + self.chain
        if self.path is not None:
            self._file.write(record)
            self._file.flush()

    def sync(self) -> None:
        """Force what was written to disk."""
        if self.path is not None:
            self._file.flush()
            os.fsync(self._file.fileno())

    def close(self) -> None:
        """Sync, and release the file."""
        if not self._file.closed:
            if self._file.writable():
                self.sync()
            self._file.close()

    def __enter__(self) -> Ledger:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _lock(file: Any, path: Path) -> Any:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        file.close()
        raise LedgerError(f"ledger {path} is in use by another process") from error
    return file
