"""Every command and code block of the README and of the guide works as it stands; what they point at is there."""

import ast
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from hiso_bench import catalogue, claims, cli, methods
from llm.tiny import grammar

README = catalogue.ROOT / "README.md"
GUIDE = sorted((catalogue.ROOT / "docs").glob("*.md"))
PAGES = {path.name: path.read_text() for path in (README, *GUIDE)}
TEXT = PAGES["README.md"]
PROGRAM = ".venv/bin/hiso-bench"
COMMANDS = {"README.md": 7, "concepts.md": 3, "extending.md": 3, "figures.md": 4, "determinism.md": 0, "step-sizes.md": 1}


def shell(page):
    blocks = re.findall(r"```sh\n(.*?)```", PAGES[page], re.S)
    return [line.split("#")[0].strip() for block in blocks for line in block.splitlines() if line.split("#")[0].strip()]


def python(page):
    return re.findall(r"```python\n(.*?)```", PAGES[page], re.S)


BLOCKS = [(page, number) for page in PAGES for number in range(len(python(page)))]


@pytest.fixture(autouse=True)
def own_registries(monkeypatch):
    catalogue.checks()  # what a block imports first must not be registered here alone
    monkeypatch.setattr(methods, "PRESETS", dict(methods.PRESETS))
    monkeypatch.setattr(claims, "_CHECKS", dict(claims._CHECKS))


def test_the_make_targets_exist():
    targets = [line.split()[1] for line in shell("README.md") if line.startswith("make ")]
    assert targets == ["figures", "test", "llm"]
    named = {target for text in PAGES.values() for target in re.findall(r"`make (\w+)`", text)}
    for target in {*targets, *named}:
        subprocess.run(["make", "-n", target], cwd=catalogue.ROOT, check=True, capture_output=True)


@pytest.mark.parametrize("page", PAGES)
def test_the_commands_run_in_the_order_in_which_they_stand(page, tmp_path, monkeypatch, capsys):
    """On a tiny-opt that was pre-trained on a hundredth of its corpus: the whole of it takes minutes."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    whole = grammar.corpus()
    monkeypatch.setattr(grammar, "corpus", lambda: whole[::100])
    for block in python(page):  # a block that begins with the name of a file is that file
        if name := re.match(r"# (\w+\.py)\n", block):
            Path(name[1]).write_text(block)
    commands = [line for line in shell(page) if not line.startswith("make ")]
    assert len(commands) == COMMANDS[page]
    for line in commands:
        program, *args = line.split()
        assert program == PROGRAM
        assert cli.main([str(next(Path().glob(a))) if "*" in a else a for a in args]) == 0, capsys.readouterr().err


@pytest.mark.parametrize(("page", "number"), BLOCKS)
def test_the_python_blocks_run(page, number, monkeypatch):
    name = f"{page}_block_{number}"
    module = type(sys)(name)  # a dataclass looks its module up
    monkeypatch.setitem(sys.modules, name, module)
    with torch.random.fork_rng():
        exec(compile(python(page)[number], f"{page} block {number}", "exec"), vars(module))


def test_commands_in_the_text_are_commands(capsys):
    """Every `hiso-bench NAME` between backticks, and every option after it, exists."""
    for text in PAGES.values():
        for name, rest in re.findall(r"`(?:\.venv/bin/)?hiso-bench ([a-z-]+)([^`]*)`", text):
            assert cli.main([name, "--help"]) == 0
            told = capsys.readouterr().out
            for option in re.findall(r"--[a-z][a-z-]*", rest):
                assert option in told, (name, option)


@pytest.mark.parametrize("page", PAGES)
def test_the_pictures_and_links_exist(page):
    folder = README.parent if page == "README.md" else README.parent / "docs"
    for target in re.findall(r"\]\((?!https?://)([^)#]+)\)", PAGES[page]):
        assert (folder / target).exists(), target


def test_pages_of_the_guide_are_short_linked_and_name_tests_that_exist():
    for path in GUIDE:
        text = path.read_text()
        assert len(text.splitlines()) < 150 and f"docs/{path.name}" in TEXT
        for file, test in re.findall(r"`(tests/[\w/]+\.py)(?:::(\w+))?`", text):
            found = [node.name for node in ast.walk(ast.parse((README.parent / file).read_text())) if hasattr(node, "name")]
            assert not test or test in found, f"{path.name}: {file}::{test}"
    rows = [line for line in PAGES["determinism.md"].splitlines() if line.startswith("| ") and "test |" not in line]
    told = [row for row in rows if "tests/" in row or "ntested" in row]
    assert len(told) >= 20 and len(rows) - len(told) <= 2  # the head of a table of two columns


def test_the_method_of_the_readme_is_found_by_its_file(tmp_path):
    (block,) = [block for block in python("README.md") if "register(" in block]
    path = tmp_path / "sign_vote.py"
    path.write_text(block)
    assert methods.load(path) == ["sign-vote"]
    sys.modules.pop("hiso_bench_file_sign_vote", None)
    shutil.rmtree(tmp_path)


def test_the_verdicts_are_the_pinned_ones():
    told = re.findall(r"^\| `([\w-]+)` \| (\w+) \|", TEXT, re.M)
    assert len(told) >= 10
    pinned = catalogue.claims()
    for id_, verdict in told:
        assert pinned[id_].verdict == verdict, id_
