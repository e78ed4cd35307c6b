"""Results on disk: whole, of the configuration that they say, and of a source that is named."""

import os
import shutil
import subprocess

import pandas as pd
import pytest

import hiso_bench
from hiso_bench import records

FRAME = pd.DataFrame({"arm": ["null", "b"], "loss": [0.1, float("nan")]})
CONFIG = {"keys": [1, 2], "rounds": 10}


@pytest.fixture
def table(tmp_path):
    records.write(FRAME, tmp_path / "table.csv", CONFIG, 3)
    return tmp_path / "table.csv"


def test_a_table_is_read_as_it_was_written(table):
    frame, about = records.read(table)
    pd.testing.assert_frame_equal(frame, FRAME)
    assert about["config"] == CONFIG and about["version"] == 3 and about["file"] == "table.csv"


def test_a_table_is_current_for_its_own_configuration_and_version_alone(table):
    assert records.current(table, dict(reversed(CONFIG.items())), 3)  # the order of entries is no configuration
    assert not records.current(table, CONFIG | {"rounds": 11}, 3)
    assert not records.current(table, CONFIG | {"new": 1}, 3)
    assert not records.current(table, CONFIG, 4)
    assert not records.current(table.with_name("other.csv"), CONFIG, 3)


def test_a_table_that_was_changed_is_refused_and_not_current(table):
    table.write_text(table.read_text().replace("0.1", "0.2"))
    with pytest.raises(records.RecordError, match="was changed after it was written"):
        records.read(table)
    assert not records.current(table, CONFIG, 3)


def test_who_is_stopped_while_writing_leaves_the_old_table_as_it_was(table, monkeypatch):
    def stopped(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", stopped)  # what was written so far is in the file that is open
    with pytest.raises(KeyboardInterrupt):
        records.write(FRAME.assign(loss=0.3), table, CONFIG, 3)
    assert records.current(table, CONFIG, 3)
    pd.testing.assert_frame_equal(records.read(table)[0], FRAME)


def test_a_table_without_its_sidecar_is_not_current(tmp_path, monkeypatch):
    """The table is written first: a sidecar never describes what is not there."""
    written = []
    monkeypatch.setattr(records, "write_bytes", lambda path, content: written.append(path.name))
    records.write(FRAME, tmp_path / "table.csv", CONFIG, 3)
    assert written == ["table.csv", "table.json"]


def test_the_source_is_a_commit_marked_where_code_was_changed_but_not_where_a_result_was(tmp_path, monkeypatch):
    def git(*args):
        who = ("-c", "user.name=n", "-c", "user.email=e@example.org")
        return subprocess.run(["git", *who, *args], cwd=tmp_path, check=True, capture_output=True, text=True).stdout.strip()

    for name in ("hiso_bench/__init__.py", "results/table.csv", "figures/gallery/a.png", "paper/text.pdf"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("1")
    monkeypatch.setattr(hiso_bench, "__file__", str(tmp_path / "hiso_bench/__init__.py"))
    git("init")
    git("add", "-A")
    git("commit", "-m", "one")
    clean = f"{hiso_bench.__version__} ({git('rev-parse', '--short=9', 'HEAD')})"
    for name in ("results/table.csv", "figures/gallery/a.png", "paper/text.pdf", "untracked.py"):
        (tmp_path / name).write_text("2")
    assert records.source_version() == clean
    (tmp_path / "hiso_bench/__init__.py").write_text("2")
    assert records.source_version() == clean[:-1] + "+)"
    shutil.rmtree(tmp_path / ".git")
    assert records.source_version() == hiso_bench.__version__
