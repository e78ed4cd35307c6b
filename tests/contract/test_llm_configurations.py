"""The configurations at paper scale: each file is an experiment that runs as it stands, and what is wrong is said in a line."""

import dataclasses
import inspect
import math

import pandas as pd
import pytest

from hiso_bench import catalogue, cli, records
from hiso_bench.halving import Rungs
from llm import compare, configurations
from llm.compare import Ceiling
from llm.configurations import ConfigurationError, read
from llm.problem import LanguageProblem
from llm.tasks import TASKS
from tests import llm_helpers

NAMES = {"opt-" + size + "-" + task for size in ("125m", "350m", "1.3b", "2.7b") for task in ("sst2", "qqp", "squad")}
NAMES |= {f"decomfl-opt-{size}-{t}" for size in ("125m", "1.3b") for t in ("sst2", "cb", "wsc", "wic", "rte", "boolq")}
GOOD = (configurations.FOLDER / "opt-125m.toml").read_text()


def base(name):
    return name.removeprefix("decomfl-").rpartition("-")[0]


def every():
    return {name: found for file in configurations.files() for name, found in read(file).items()}


def test_every_file_is_an_experiment_of_the_catalogue_with_options_that_the_problem_takes():
    found = every()
    assert set(found) == NAMES == {name for name, target in catalogue.EXPERIMENTS.items() if "configurations" in target}
    allowed = inspect.signature(LanguageProblem).parameters
    for name, experiment in found.items():
        assert catalogue.load(catalogue.EXPERIMENTS[name]) == experiment
        assert (experiment.name, experiment.profile, experiment.problem) == (name, "paper", "lm")
        assert set(experiment.options) <= set(allowed) - {"key", "evaluate_on", "evaluate_limit"}
        assert experiment.options["task"] in TASKS and experiment.options["model"] == "facebook/" + base(name)
        assert experiment.tuning_key not in experiment.keys and len(experiment.keys) >= 3
        assert math.isnan(experiment.plan().seconds_per_run) and experiment.plan().runs > 0


def test_every_arm_searches_the_same_grid_of_three_decades():
    asked = {}

    def scores(cells):
        for cell in cells:
            asked.setdefault((cell.arm.name, cell.rounds), set()).add(cell.lr)
        return pd.Series([-abs(math.log(cell.lr / 2e-5)) for cell in cells])

    for experiment in every().values():
        asked.clear()
        compare.halve(scores, compare.ARMS, experiment.tuning_key, experiment.start, experiment.rungs)
        first = experiment.rungs.rounds[0]
        assert {name for name, _ in asked} == set(configurations.FIXED["arms"])
        assert all(rates == set(experiment.grid) for (_, rounds), rates in asked.items() if rounds == first)
        assert max(experiment.grid) / min(experiment.grid) >= 1000


def test_the_papers_rows_are_there():
    for experiment in every().values():
        rows = experiment.reported()
        theirs = {"decomfl-p5"} if experiment.name.startswith("decomfl") else {"decomfl", "hiso"}
        assert theirs <= set(rows["method"]) and (rows["value"].to_numpy() > 0).all(), experiment.name
        assert {f"table{n}" for n in rows["table"]} == {t.rpartition("_")[2] for t in experiment.reported_tables}


def test_decomfls_rounds_are_what_its_megabytes_come_to_but_for_two_cells_that_do_not_fit():
    from claims.bytes import DECOMFL_BYTES, TYPOS

    for name, experiment in every().items():
        if name.startswith("decomfl"):
            rows = experiment.reported().set_index(["method", "quantity"])
            assert rows.loc[("decomfl-p5", "communication"), "unit"] == "MB"
            told = rows.loc[("decomfl-p5", "communication"), "value"] * 1e6 / DECOMFL_BYTES
            fits = (experiment.reported_model, experiment.options["task"]) not in TYPOS
            assert math.isclose(told, experiment.rounds) == fits, name


def test_the_plan_is_printed_without_a_model(capsys):
    assert cli.main(["results", "opt-125m-sst2", "opt-2.7b-squad", "--profile", "paper", "--dry-run"]) == 0
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == ["opt-125m-sst2", "opt-2.7b-squad"]
    assert cli.main(["results", "opt-125m-sst2", "--dry-run"]) == 2
    assert "opt-125m-sst2 (paper)" in capsys.readouterr().err


WRONG = {
    "unknown key": ("alpha = 1.0", "alpha = 1.0\nbeta = 2", ["unknown key 'beta'", "alpha"]),
    "unknown key of a task": (
        "batch_size = 8",
        "batch_size = 8\nbatch = 2",
        ["[tasks.squad]", "key 'batch'", "max_length"],
    ),
    "missing key": ("octaves = 13", "", ["[search]", "key 'octaves' is missing", "smallest"]),
    "other arms": ('arms = ["decomfl", ', "arms = [", ["arms is ['hiso', 'hiso-scalar']", "'decomfl'"]),
    "another P": ("P = 5", "P = 10", ["P is 10", "allowed: 5"]),
    "no table": ("[reported]\n", "reported = 1\n[other]\n", ["other", "allowed"]),
    "impossible search": ("survivors = [4, 2]", "survivors = [4]", ["survivors (4,)", "2 numbers"]),
    "a key given twice": ("smallest = 2.5e-7", "rounds = 3", ["no TOML"]),
    "no TOML": ("P = 5", "P = five", ["no TOML"]),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_file_that_is_not_in_order_is_refused_by_file_key_and_what_is_allowed(case, tmp_path):
    old, new, words = WRONG[case]
    assert GOOD.count(old) == 1
    path = tmp_path / "mine.toml"
    path.write_text(GOOD.replace(old, new))
    with pytest.raises(ConfigurationError) as error:
        read(path)
    message = str(error.value)
    assert "mine.toml" in message and "\n" not in message
    assert all(word in message for word in words), message


def test_a_configuration_runs_from_its_grid_to_its_results_on_a_saved_model(tmp_path, monkeypatch):
    data = tmp_path / "data/sst2"
    data.mkdir(parents=True)
    for part in ("train", "dev"):
        lines = "".join(f"{('dull', 'fine')[i % 2]} film no {i}\t{i % 2}\n" for i in range(60))
        (data / f"{part}.tsv").write_text("sentence\tlabel\n" + lines)
    monkeypatch.setenv("HISO_BENCH_DATA", str(tmp_path / "data"))
    whole = every()["opt-125m-sst2"]
    here = {"model": llm_helpers.folder("opt"), "device": "cpu", "max_length": 64, "batch_size": 2}
    small = dataclasses.replace(
        whole, options=whole.options | here, rounds=2, evaluate_every=1, keys=(1,), ceiling=Ceiling((1e-3,), 1),
        rungs=Rungs((1, 2), (1,), octaves=2, budget=8, growth=0),
    )  # fmt: skip
    small.tune(tmp_path, tmp_path / "work", 1)
    small.compare(tmp_path, tmp_path, tmp_path / "work", 1)
    frame, about = records.read(tmp_path / "llm_opt-125m-sst2.csv")
    assert set(frame["arm"]) == {*configurations.FIXED["arms"], "first-order"}
    assert set(frame.loc[frame["arm"] == "hiso", "round"]) == {0, 1, 2}
    assert about["config"]["task"] == "sst2" and about["config"]["P"] == 5
