"""`hiso-bench runs` and `hiso-bench doctor`: what a person looks at before and after a run."""

import json

import pytest

from hiso_bench import catalogue, cli, datafiles, doctor

QUADRATIC = ("train", "--problem", "quadratic", "--dimension", "30", "--quiet", "--evaluate-every", "5", "--rounds", "20")


@pytest.fixture
def command(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)

    def run(*args: str) -> tuple[int, str, str]:
        status = cli.main(list(args))
        told = capsys.readouterr()
        return status, told.out, told.err

    return run


def test_runs_are_listed_compared_and_drawn(command, tmp_path):
    for method in ("decomfl", "hiso"):
        assert command(*QUADRATIC, "--method", method, "--lr", "0.02")[0] == 0
    status, out, _ = command("runs", "--json")
    rows = json.loads(out)
    assert status == 0 and [row["method"] for row in rows] == ["decomfl", "hiso"]
    for row in rows:
        _, shown, _ = command("ledger", "show", f"runs/{row['run']}", "--json")
        about = json.loads(shown)
        assert row["value"] == about["evaluation"]["loss"] and row["rounds"] == 20
        assert row["KiB"] == (about["bytes_up"] + about["bytes_down"]) / 1024
        assert row["best"] <= row["value"]
    status, out, _ = command("runs", "--plot", "curves.png")
    assert status == 0 and max(map(len, out.splitlines())) <= 80
    assert (tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG") and not (tmp_path / "curves.pdf").exists()


def test_what_cannot_be_listed_is_one_line(command, tmp_path):
    status, _, err = command("runs")
    assert status == 2 and "there is no run" in err
    command(*QUADRATIC, "--method", "decomfl", "--lr", "0.02", "--out", "runs/one")
    (tmp_path / "runs" / "broken").mkdir()
    (tmp_path / "runs" / "broken" / "run.ledger").write_bytes(b"nothing")
    status, out, err = command("runs")
    assert status == 0 and "broken" in err and "one" in out
    for args, told in (
        (("--metric", "speed"), "'speed'"),
        (("--plot", "curves.jpg"), "'.jpg'"),
        (("runs/broken",), "not a hiso_bench ledger"),
    ):
        status, _, err = command("runs", *(("runs/one", *args) if args[0].startswith("--") else args))
        assert status == 2 and told in err and len(err.splitlines()) == 1, err


def test_the_doctor_says_what_is_lacking(command, tmp_path, monkeypatch):
    monkeypatch.delenv(datafiles.ENV, raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(doctor, "EXTRAS", {"llm": ("no-such-package",)})
    status, out, _ = command("doctor", "--json")
    found = {finding["name"]: finding for finding in json.loads(out)}
    assert status == 0 and "no-such-package" in found["extra llm"]["lacking"]
    assert "mnist" in found["data files"]["lacking"] and found["data files"]["found"] == "none"
    assert found["results"]["lacking"] == "" or "skipped by make figures" in found["results"]["lacking"]
    status, out, _ = command("doctor")
    assert status == 0 and max(map(len, out.splitlines())) <= 80 and "! " in out


def test_the_doctor_names_a_damaged_result_and_an_unusable_data_folder(tmp_path, monkeypatch):
    table = next(catalogue.RESULTS.glob("*_grid.csv"))
    for name, text in ((table.name, table.read_text() + "\n"), (f"{table.stem}.json", table.with_suffix(".json").read_text())):
        (tmp_path / name).write_text(text)
    monkeypatch.setattr(catalogue, "RESULTS", tmp_path)
    monkeypatch.setenv(datafiles.ENV, str(tmp_path / "nowhere"))
    found = {finding.name: finding for finding in doctor.findings()}
    assert table.name in found["results"].lacking
    assert "nowhere" in found["data"].lacking
