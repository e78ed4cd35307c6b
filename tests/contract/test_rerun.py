"""`rerun`: the experiment behind a table is found, asked for its configuration, repeated, and compared number by number."""

import json
import math

import pandas as pd
import pytest

from hiso_bench import catalogue, cli, records, reruns
from hiso_bench.experiments import Plan


def test_every_recorded_table_has_a_writer():
    for path in catalogue.RESULTS.glob("*.csv"):
        name, part = reruns.writer(path.stem)
        assert name in catalogue.EXPERIMENTS
        assert part == "compare" or path.stem.endswith("_grid")
    assert reruns.writer("fig5_mnist_h_summary") == ("fig5_mnist", "compare")
    assert reruns.writer("second_order_digits_grid") == ("second_order_digits", "compare")
    assert reruns.writer("llm_tiny-opt_toy-sst2_grid") == ("llm_toy_sst2", "tune")
    assert reruns.writer("federation_size")[0] == "federation_size"  # which the figure of another experiment shows as well
    assert reruns.writer("equal_bytes_llm")[0] == reruns.writer("equal_bytes_llm_rates")[0] == "equal_bytes_llm"
    with pytest.raises(ValueError, match="no experiment writes nothing.csv; allowed: a table of results/"):
        reruns.writer("nothing")


def test_configurations_are_compared_by_path():
    then = {"rounds": 4, "rates": {"hiso": 0.1, "decomfl": 0.2}, "gone": None}
    now = {"rounds": 4, "rates": {"hiso": 0.1, "decomfl": 0.3}, "new": list(range(99))}
    first, second, third = reruns.differences(then, now)
    assert first == "gone: recorded None, now absent"
    assert second.startswith("new: recorded absent, now [0, 1, 2") and len(second) < 100
    assert third == "rates.decomfl: recorded 0.2, now 0.3"
    assert reruns.differences(then, then) == []


FRAME = pd.DataFrame({"arm": ["a", "b"], "loss": [1.0, float("nan")], "round": [1, 2]})


def put(folder, frame, name="table.csv"):
    records.write(frame, folder / name, {}, 1)
    return folder / name


@pytest.mark.parametrize(
    ("changed", "verdict", "largest", "column", "rows"),
    [
        (FRAME, "equal", 0.0, "", 0),
        (FRAME.assign(loss=[1.0 + 1e-12, float("nan")]), "close", 1e-12, "loss", 1),
        (FRAME.assign(loss=[1.1, float("nan")]), "differs", 0.1 / 1.1, "loss", 1),
        (FRAME.assign(loss=[1.0, 2.0]), "differs", math.inf, "loss", 1),
        (FRAME.assign(arm=["a", "c"]), "differs", math.inf, "arm", 1),
        (FRAME.head(1), "differs", math.inf, "2 rows recorded, 1 now", 1),
        (FRAME.rename(columns={"arm": "way"}), "differs", math.inf, "columns arm, way", 2),
    ],
)
def test_tables_are_compared_number_by_number(tmp_path, changed, verdict, largest, column, rows):
    found = reruns.compare(put(tmp_path / "a", FRAME), put(tmp_path / "b", changed), 1e-9)
    assert (found.verdict, found.column, found.rows) == (verdict, column, rows)
    assert found.largest == pytest.approx(largest, rel=1e-3)


class Doubling:
    """An experiment of two tables and a grid."""

    name, profile, version, factor = "doubling", "quick", 1, 2.0

    def plan(self):
        return Plan(3, 2, 60.0)

    def tune(self, results, work, jobs):
        records.write(FRAME.assign(loss=0.5), results / "doubling_grid.csv", {"start": 1}, self.version)

    def compare(self, grids, results, work, jobs):
        config = {"factor": 2, "keys": (1, 2)}
        if records.current(results / "doubling.csv", config, self.version):
            return
        assert records._ASKING.get() is None, "it computed while it was only asked"
        records.write(FRAME.assign(loss=self.factor * 3), results / "doubling_h.csv", config, self.version)
        records.write(FRAME.assign(loss=self.factor), results / "doubling.csv", config, self.version)


@pytest.fixture
def doubling(tmp_path, monkeypatch):
    experiment = Doubling()
    monkeypatch.setattr(catalogue, "EXPERIMENTS", {"doubling": "tests:none"})
    monkeypatch.setattr(catalogue, "load", lambda target: experiment)
    monkeypatch.setattr(catalogue, "RESULTS", tmp_path / "results")
    experiment.compare(None, tmp_path / "results", None, 1)
    experiment.tune(tmp_path / "results", None, 1)
    monkeypatch.chdir(tmp_path)
    return experiment


def rerun(capsys, *args):
    status = cli.main(["rerun", *args, "--to", "again"])
    told = capsys.readouterr()
    return status, told.out, told.err


def test_a_result_is_repeated_from_its_name_or_sidecar_to_the_bit(doubling, capsys, tmp_path):
    for name in ("doubling", "doubling.csv", "results/doubling_h.json"):
        status, out, _ = rerun(capsys, name)
        assert status == 0 and "written by `compare` of experiment doubling" in out and "configuration as recorded" in out
        assert "about 3 min in 1 process(es)" in out and "equal to the recorded table, to the bit" in out
    status, out, _ = rerun(capsys, "doubling_grid")
    assert status == 0 and "written by `tune`" in out and "compared afterwards" in out and "about 120 s" not in out
    assert (tmp_path / "again" / "doubling.csv").exists()


def test_other_numbers_are_found(doubling, capsys):
    doubling.factor = 2.2
    status, out, _ = rerun(capsys, "doubling")
    assert status == 1 and "differs: largest relative difference 0.091, in column loss (2 rows)" in out
    status, out, err = rerun(capsys, "doubling", "--tolerance", "0.2", "--json")
    assert status == 0 and json.loads(out)["verdict"] == "close" and "differs" not in err


def test_another_configuration_stops_the_rerun_and_is_named(doubling, capsys, tmp_path):
    doubling.version = 2
    status, out, _ = rerun(capsys, "doubling")
    assert status == 1 and "configuration differs: version: recorded 1, now 2" in out and "stopped: --anyway" in out
    assert not (tmp_path / "again" / "doubling.csv").exists()
    status, out, _ = rerun(capsys, "doubling", "--anyway")
    assert status == 0 and "to the bit" in out


def test_a_dry_run_computes_nothing(doubling, capsys, tmp_path):
    status, out, _ = rerun(capsys, "doubling", "--dry-run")
    assert status == 0 and "about 3 min" in out and not (tmp_path / "again").exists()


def test_what_cannot_be_repeated_is_refused(doubling, capsys):
    assert cli.main(["rerun", "nothing"]) == 2
    assert "file nothing does not exist; allowed: a table with a sidecar" in capsys.readouterr().err
    assert cli.main(["rerun", "results/doubling.csv", "--to", "results"]) == 2
    assert "to results holds the recorded table; allowed: another folder" in capsys.readouterr().err


def test_experiments_tell_their_configuration_and_compute_nothing():
    for name in ("oracle", "hover", "second_order_safety"):
        experiment = catalogue.load(catalogue.EXPERIMENTS[name])
        with records.asking(catalogue.FRESH / "asked") as asked:
            experiment.compare(catalogue.RESULTS, catalogue.FRESH / "asked", catalogue.FRESH / "work", 1)
        assert asked and not (catalogue.FRESH / "asked").exists()
    path = catalogue.RESULTS / "second_order_safety.csv"
    assert asked[path.name][0] == records.sidecar(path)["config"]
