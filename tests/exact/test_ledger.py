"""The ledger's file: nothing in it can change unseen, a torn tail is cut and reported, and only one process writes."""

import hashlib
import struct
import subprocess
import sys
import zlib

import pytest

from hiso_bench.ledger import Ledger, LedgerError, Round

MAGIC = b"hiso-ledger/1\n"
ROUNDS = [Round(r, tuple(range(r)), 20 * r, 30 + r, 4 * r, bytes([r]) * (5 + r)) for r in range(4)]


@pytest.fixture
def path(tmp_path):
    """A ledger of 4 rounds, 5 fingerprints and 2 evaluations."""
    path = tmp_path / "run.ledger"
    with Ledger.create(path, {"run": {"name": "test"}}) as ledger:
        ledger.append_fingerprint(0, 17)
        ledger.append_evaluation(0, {"loss": 1.0})
        for record in ROUNDS:
            ledger.append_round(record)
            ledger.append_fingerprint(record.round + 1, 2**64 - 1 - record.round)
        ledger.append_evaluation(4, {"loss": 0.1 + 0.2, "accuracy": float("inf")})
    return path


def records(data):
    """The records of a file, cut by the documented format: kind u8, length u32, CRC, body, CRC, chain."""
    parts, at = [], len(MAGIC)
    while at < len(data):
        (length,) = struct.unpack_from("<I", data, at + 1)
        end = at + 9 + length + 20
        parts.append(data[at:end])
        at = end
    assert at == len(data)
    return parts


def content(ledger):
    return ledger.header, ledger.rounds, ledger.fingerprints, ledger.evaluations, ledger.chain


def test_what_was_written_is_read(path):
    with Ledger.open(path) as opened, Ledger.read(path) as read:
        for ledger in (opened, read):
            assert ledger.header == {"run": {"name": "test"}}
            assert ledger.rounds == ROUNDS
            assert ledger.fingerprints == {0: 17} | {r + 1: 2**64 - 1 - r for r in range(4)}
            assert ledger.evaluations == {0: {"loss": 1.0}, 4: {"loss": 0.1 + 0.2, "accuracy": float("inf")}}
            assert ledger.torn_bytes == 0
            assert ledger.updates(1, 3) == ROUNDS[1].update + ROUNDS[2].update


def test_the_file_has_the_documented_format(path):
    data, chain = path.read_bytes(), bytes(16)
    assert data.startswith(MAGIC)
    for record in records(data):
        body = record[9:-20]
        chain = hashlib.sha256(chain + record[:1] + body).digest()[:16]
        assert record[5:9] == struct.pack("<I", zlib.crc32(record[:5]))
        assert record[-20:] == struct.pack("<I", zlib.crc32(body)) + chain


def test_any_changed_byte_is_refused(path):
    data = bytearray(path.read_bytes())
    for at in range(len(data)):
        data[at] ^= 1 << at % 8
        path.write_bytes(data)
        with pytest.raises(LedgerError, match="corrupt at record|is not a hiso_bench ledger"):
            Ledger.read(path)
        data[at] ^= 1 << at % 8


def test_a_file_cut_anywhere_loses_its_torn_tail_and_nothing_else(path):
    data = path.read_bytes()
    ends = [len(MAGIC)]
    for record in records(data):
        ends.append(ends[-1] + len(record))
    for n in sorted({*range(0, len(data), 5), *(end + step for end in ends[:-1] for step in (-1, 0, 1))}):
        path.write_bytes(data[:n])
        if n < ends[1]:
            with pytest.raises(LedgerError):
                Ledger.open(path)
            assert path.read_bytes() == data[:n]
            continue
        whole = max(end for end in ends if end <= n)
        assert Ledger.read(path).torn_bytes == n - whole
        assert path.read_bytes() == data[:n]
        with Ledger.open(path) as ledger:
            assert ledger.torn_bytes == n - whole
        torn = path.with_name("run.ledger.torn")
        assert torn.exists() == (n > whole)
        if n > whole:
            assert torn.read_bytes() == data[whole:n]
            torn.unlink()
        assert path.read_bytes() == data[:whole]


def test_zeros_that_a_file_system_appends_are_a_torn_tail(path):
    data = path.read_bytes()
    path.write_bytes(data + bytes(4096))
    with Ledger.open(path) as ledger:
        assert (ledger.torn_bytes, ledger.rounds) == (4096, ROUNDS)
    assert path.read_bytes() == data


def test_writing_goes_on_after_a_torn_tail(path):
    whole = path.read_bytes()
    parts = records(whole)
    path.write_bytes(whole[: -len(parts[-1]) - len(parts[-2]) - 3])  # into the last round's record
    with Ledger.open(path) as ledger:
        ledger.append_round(ROUNDS[3])
        ledger.append_fingerprint(4, 2**64 - 4)
        ledger.append_evaluation(4, {"loss": 0.1 + 0.2, "accuracy": float("inf")})
    assert path.read_bytes() == whole


@pytest.mark.parametrize("change", ["drop", "swap", "repeat", "second header", "foreign"])
def test_records_cannot_be_dropped_moved_or_replaced(path, tmp_path, change):
    parts = records(path.read_bytes())
    with Ledger.create(tmp_path / "other", {"run": {"name": "other"}}) as other:
        other.append_fingerprint(0, 17)
    foreign = records((tmp_path / "other").read_bytes())
    for i in range(1, len(parts) - 1):
        changed = {
            "drop": parts[:i] + parts[i + 1 :],
            "swap": [*parts[:i], parts[i + 1], parts[i], *parts[i + 2 :]],
            "repeat": parts[: i + 1] + parts[i:],
            "second header": [*parts[:i], parts[0], *parts[i:]],
            "foreign": [*parts[:i], foreign[1], *parts[i + 1 :]],
        }[change]
        path.write_bytes(MAGIC + b"".join(changed))
        with pytest.raises(LedgerError, match="hash chain is broken"):
            Ledger.read(path)


def test_a_second_writer_is_refused_in_this_process_and_in_another(path):
    with Ledger.open(path):
        with pytest.raises(LedgerError, match="in use"):
            Ledger.open(path)
        code = f"import fcntl; fcntl.flock(open({str(path)!r}, 'ab'), fcntl.LOCK_EX | fcntl.LOCK_NB)"
        assert b"BlockingIOError" in subprocess.run([sys.executable, "-c", code], capture_output=True).stderr
        assert Ledger.read(path).rounds == ROUNDS
    Ledger.open(path).close()


def test_a_new_ledger_is_locked_and_never_overwrites(path, tmp_path):
    before = path.read_bytes()
    with pytest.raises(LedgerError, match="exists already"):
        Ledger.create(path, {})
    assert path.read_bytes() == before
    with Ledger.create(tmp_path / "new", {}), pytest.raises(LedgerError, match="in use"):
        Ledger.open(tmp_path / "new")


@pytest.mark.parametrize(
    "data", [b"", b"round,loss\n0,1.0\n", b"hiso-ledger/2\n", bytes(100)], ids=["empty", "csv", "version", "zeros"]
)
def test_a_foreign_file_is_refused_and_left_alone(tmp_path, data):
    path = tmp_path / "file"
    path.write_bytes(data)
    for read in (Ledger.open, Ledger.read):
        with pytest.raises(LedgerError, match="is not a hiso_bench ledger"):
            read(path)
    assert path.read_bytes() == data
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_a_missing_file_is_named(tmp_path):
    for read in (Ledger.open, Ledger.read):
        with pytest.raises(LedgerError, match="nothing does not exist"):
            read(tmp_path / "nothing")


def test_a_ledger_that_was_only_read_takes_no_records(path):
    before = path.read_bytes()
    ledger = Ledger.read(path)
    with pytest.raises(ValueError):
        ledger.append_fingerprint(5, 5)
    ledger.close()
    assert path.read_bytes() == before
