"""Every command and code block of the README works as it stands."""

import re
import subprocess
from pathlib import Path

import pytest

from hiso_bench import catalogue, cli, methods
from llm.tiny import grammar

TEXT = (catalogue.ROOT / "README.md").read_text()
SHELL = [line.split("#")[0].strip() for block in re.findall(r"```sh\n(.*?)```", TEXT, re.S) for line in block.splitlines()]
PYTHON = re.findall(r"```python\n(.*?)```", TEXT, re.S)


def test_the_make_targets_exist():
    targets = [line.split()[1] for line in SHELL if line.startswith("make ")]
    assert targets == ["figures", "test", "llm"]
    for target in [*targets, *re.findall(r"`make (\w+)`", TEXT)]:
        subprocess.run(["make", "-n", target], cwd=catalogue.ROOT, check=True, capture_output=True)


def test_the_commands_run_in_the_order_in_which_they_stand(tmp_path, monkeypatch, capsys):
    """On a tiny-opt that was pre-trained on a hundredth of its corpus: the whole of it takes minutes."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    whole = grammar.corpus()
    monkeypatch.setattr(grammar, "corpus", lambda: whole[::100])
    commands = [line for line in SHELL if line and not line.startswith("make ")]
    assert len(commands) == 6
    for line in commands:
        program, *args = line.split()
        assert program == ".venv/bin/hiso-bench"
        assert cli.main([str(next(Path().glob(a))) if "*" in a else a for a in args]) == 0, capsys.readouterr().err


@pytest.mark.parametrize("block", range(len(PYTHON)))
def test_the_python_blocks_run(block, monkeypatch):
    monkeypatch.setattr(methods, "PRESETS", dict(methods.PRESETS))
    exec(compile(PYTHON[block], f"README block {block}", "exec"), {})


def test_the_pictures_and_links_exist():
    for target in re.findall(r"\]\((?!https?://)([^)#]+)\)", TEXT):
        assert (catalogue.ROOT / target).exists(), target


def test_the_verdicts_are_the_pinned_ones():
    told = re.findall(r"^\| `([\w-]+)` \| (\w+) \|", TEXT, re.M)
    assert len(told) >= 10
    pinned = catalogue.claims()
    for id_, verdict in told:
        assert pinned[id_].verdict == verdict, id_
