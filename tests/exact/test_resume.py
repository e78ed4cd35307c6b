"""A run that was killed at any byte and resumed is the uninterrupted run: the same file, the same state, bit for bit."""

import functools
import tempfile
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hiso_bench import snapshots
from hiso_bench.directions import Directions
from hiso_bench.federation import FederationOptions
from hiso_bench.ledger import Ledger, LedgerError
from hiso_bench.participation import participants
from hiso_bench.training import LEDGER_NAME, Run, Schedule, curve
from tests.helpers import PROBLEMS, bits, build, quadratic

ROUNDS = 12
RUNS = {
    "dropout": ("quadratic", "hiso", {"sampled": 2, "dropout": 0.5}, 1),
    "few fingerprints": ("quadratic", "hiso-a", {"sampled": 3, "local_steps": 2}, 0),
    "network": ("module", "hiso-e", {"sampled": 2, "dropout": 0.5, "independent": True}, 1),
    "second differences": ("module", "curvature", {"sampled": 2, "dropout": 0.5}, 1),
}


def start(folder, name, problem=None, **changed):
    kind, method, options, prints = RUNS[name]
    problem = problem or PROBLEMS[kind]()
    schedule = Schedule(rounds=ROUNDS, evaluate_every=3, snapshot_every=3, fingerprint_every=prints)
    return Run(
        problem,
        method,
        build(method, problem, momentum=0.5),
        FederationOptions(**options | {"key": 4} | changed),
        schedule,
        folder,
    )


@functools.cache
def uninterrupted(name):
    """(the ledger's bytes, the final state's bits, its clients' bookkeeping, every snapshot that was ever there)."""
    with tempfile.TemporaryDirectory() as folder:
        saved = {}
        keep = lambda run, _: saved.update({p.name: p.read_bytes() for p in Path(folder).glob("*snapshot*")})  # noqa: E731
        run = start(Path(folder), name).go(keep)
        keep(run, None)
        run.ledger.close()
        return (Path(folder) / LEDGER_NAME).read_bytes(), bits(run.federation.state), run.federation.last_seen.tolist(), saved


def header_end(data):
    return 14 + 9 + int.from_bytes(data[15:19], "little") + 20


def resume(name, data, files):
    """Finish a run from a cut file: (the ledger's bytes, the state's bits, the bookkeeping)."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / LEDGER_NAME).write_bytes(data)
        for file, content in files.items():
            (Path(folder) / file).write_bytes(content)
        run = start(Path(folder), name)
        assert run.resumed
        run.go()
        run.ledger.close()
        return (Path(folder) / LEDGER_NAME).read_bytes(), bits(run.federation.state), run.federation.last_seen.tolist()


@pytest.mark.parametrize("name", RUNS)
@given(cut=st.floats(0, 1), kept=st.sampled_from(["all snapshots", "some snapshots", "no snapshot"]))
def test_a_run_killed_at_any_byte_and_resumed_is_the_uninterrupted_run(name, cut, kept):
    data, state, last_seen, saved = uninterrupted(name)
    first = header_end(data)
    files = {"all snapshots": saved, "some snapshots": dict(list(saved.items())[:1]), "no snapshot": {}}[kept]
    assert resume(name, data[: first + round(cut * (len(data) - first))], files) == (data, state, last_seen)


def test_the_runs_above_hold_empty_rounds_and_snapshots():
    data, _, _, saved = uninterrupted("dropout")
    assert len(saved) == ROUNDS // 3
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "l").write_bytes(data)
        answered = [len(record.answered) for record in Ledger.read(Path(folder) / "l").rounds]
    assert {0, 1, 2} == set(answered)


def damaged(content, at, value):
    return content[:at] + bytes([content[at] ^ value]) + content[at + 1 :]


@settings(max_examples=60)
@given(at=st.floats(0, 1, exclude_max=True), value=st.integers(1, 255), cut=st.booleans())
def test_a_damaged_snapshot_is_passed_over(at, value, cut):
    data, state, last_seen, saved = uninterrupted("dropout")
    hurt = {name: s[: int(at * len(s))] if cut else damaged(s, int(at * len(s)), value) for name, s in saved.items()}
    assert resume("dropout", data[: round(0.8 * len(data))], hurt) == (data, state, last_seen)


def test_a_snapshot_spares_the_rounds_before_it_and_a_foreign_one_is_not_believed(monkeypatch, tmp_path):
    data, state, last_seen, saved = uninterrupted("dropout")
    drawn, draw = set(), Directions.draw
    monkeypatch.setattr(Directions, "draw", lambda self, key, out=None: (drawn.add(key.round), draw(self, key, out))[1])
    newest = max(saved)
    resume("dropout", data, {newest: saved[newest]})
    assert not drawn
    resume("dropout", data, {min(saved): saved[min(saved)]})
    assert drawn and min(drawn) >= 3
    drawn.clear()
    torch.save({"x": (torch.zeros(12, dtype=torch.float64),), "buffers": {}, "round": ROUNDS}, tmp_path / "zeros")
    assert resume("dropout", data, {newest: (tmp_path / "zeros").read_bytes()}) == (data, state, last_seen)
    assert min(drawn) < 3


def test_only_the_newest_two_snapshots_are_kept(tmp_path):
    start(tmp_path, "dropout").go().ledger.close()
    assert [p.name for p in sorted(tmp_path.glob("*snapshot*"))] == [f"{LEDGER_NAME}.snapshot-{r:09d}" for r in (9, 12)]
    assert snapshots.path_of(tmp_path / LEDGER_NAME, 9).exists()


def test_every_fingerprint_is_compared_on_the_way_to_the_end(tmp_path, monkeypatch):
    """A replay that goes wrong early is seen although the file does not end at a fingerprint."""
    data, *_ = uninterrupted("few fingerprints")
    (tmp_path / LEDGER_NAME).write_bytes(data[: round(0.9 * len(data))])
    draw = Directions.draw

    def other(self, key, out=None):
        out = draw(self, key, out)
        if key.round == 4:
            out[0][0] += 1e-9
        return out

    monkeypatch.setattr(Directions, "draw", other)
    with pytest.raises(LedgerError, match="after round 6 .* made with .*'sampler'"):
        start(tmp_path, "few fingerprints")


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"key": 5}, "federation.key is 4 there and 5 here"),
        ({"dropout": 0.25}, "federation.dropout is 0.5 there and 0.25 here"),
        ({"wire": "float64"}, "federation.wire is 'float32' there and 'float64' here"),
        ({"problem": quadratic(noise=0.1)}, "problem.noise is 0.05 there and 0.1 here"),
        ({"problem": quadratic(dimension=13)}, "problem.dimension is 12 there and 13 here"),
    ],
    ids=["key", "dropout", "wire", "noise", "dimension"],
)
def test_a_ledger_of_another_run_is_refused_and_the_option_named(tmp_path, changed, message):
    start(tmp_path, "dropout").go().ledger.close()
    before = (tmp_path / LEDGER_NAME).read_bytes()
    with pytest.raises(LedgerError, match=message):
        start(tmp_path, "dropout", **changed)
    assert (tmp_path / LEDGER_NAME).read_bytes() == before
    start(tmp_path, "dropout").ledger.close()  # and it is not left locked


def test_the_cache_and_the_length_of_the_run_may_change(tmp_path):
    start(tmp_path, "dropout").go().ledger.close()
    run = start(tmp_path, "dropout", cache_bytes=0)
    assert run.federation.state.round == ROUNDS
    run.ledger.close()


def test_bookkeeping_goes_on_after_a_resume(tmp_path):
    """The first messages after a resume hold what their clients missed, not the whole history."""
    (tmp_path / LEDGER_NAME).write_bytes(uninterrupted("dropout")[0])
    f = start(tmp_path, "dropout").federation
    answered = [max((r for r, record in enumerate(f.ledger.rounds) if c in record.answered), default=0) for c in range(6)]
    missed = [f.ledger.updates(answered[c], ROUNDS) for c in participants(4, ROUNDS, 6, 2)]
    assert f.round().record.bytes_down == sum(8 + len(updates) for updates in missed)
    f.ledger.close()


def test_the_curve_counts_everything_since_round_zero(tmp_path):
    run = start(tmp_path, "dropout").go()
    table = curve(run.ledger)
    assert table["round"].tolist() == [0, 3, 6, 9, 12]
    for r, up, down, forwards in table[["round", "bytes_up", "bytes_down", "forward_passes"]].itertuples(index=False):
        done = run.ledger.rounds[:r]
        assert (up, down) == (sum(x.bytes_up for x in done), sum(x.bytes_down for x in done))
        assert forwards == sum(len(x.answered) for x in done) * 4
    run.ledger.close()
