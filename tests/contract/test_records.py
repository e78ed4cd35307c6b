"""Results on disk: which source made them."""

import shutil
import subprocess

import hiso_bench
from hiso_bench import records


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
