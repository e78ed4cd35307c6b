"""The recorded comparison of methods: one grid, whole keys, resuming, and tables that say how far they got."""

import json
from dataclasses import replace

import numpy as np
import pytest

from hiso_bench import comparison, records, sweeps
from hiso_bench.halving import Rungs
from hiso_bench.sweeps import Arm
from llm import compare
from llm.compare import ARMS, CEILING, WHOLE, Ceiling, Comparison
from tests import llm_helpers

WORDS = {0: ("dull", "weak", "flat", "slow"), 1: ("fine", "warm", "bold", "rich")}


@pytest.fixture(scope="module")
def setting(tmp_path_factory):
    """A comparison of seconds: a random OPT of width 16, short reviews, five rounds."""
    data = tmp_path_factory.mktemp("data")
    for part, count in (("train", 120), ("dev", 40)):
        lines = [f"{WORDS[i % 2][i // 2 % 4]} film no {i}\t{i % 2}\n" for i in range(count)]
        (data / "sst2").mkdir(exist_ok=True)
        (data / f"sst2/{part}.tsv").write_text("sentence\tlabel\n" + "".join(lines))
    options = {"model": llm_helpers.folder("opt"), "task": "sst2", "batch_size": 4}
    rungs = Rungs(rounds=(1, 2), survivors=(1,), octaves=2, budget=3, growth=0)
    ceiling = Ceiling(rates=(1e-3, 1e-2), epochs=1, train_limit=40)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HISO_BENCH_DATA", str(data))
        yield Comparison(
            "small", "standard", "llm_small", "lm", options,
            start=1e-4, rounds=5, evaluate_every=2, evaluate_limit=20, keys=(1, 2), ceiling=ceiling, rungs=rungs,
        )  # fmt: skip


@pytest.fixture(scope="module")
def recorded(setting, tmp_path_factory):
    """The grid and the table of a comparison that ran through."""
    folder = tmp_path_factory.mktemp("results")
    setting.tune(folder, folder / "work", jobs=1)
    setting.compare(folder, folder, folder / "work", jobs=1)
    return folder


def test_the_grid_holds_every_arm_and_the_ceiling_and_one_winner_of_each(setting, recorded):
    grid, about = records.read(recorded / "llm_small_grid.csv")
    assert set(comparison.rates(recorded / "llm_small_grid.csv")) == {arm.name for arm in ARMS} | {CEILING.name}
    assert grid["winner"].sum() == len(ARMS) + 1
    spent = about["config"]["rounds_spent"]
    assert set(spent) == {arm.name for arm in ARMS} and max(spent.values()) <= setting.rungs.budget
    assert set(about["config"]["at_edge"]) <= {arm.name for arm in ARMS} | {CEILING.name}


def test_the_table_has_curves_on_the_sample_and_the_last_round_on_the_whole_test_part(setting, recorded):
    frame, about = records.read(recorded / "llm_small.csv")
    assert about["config"]["keys"] == about["config"]["planned"] == [1, 2]
    for (arm, _), part in frame.groupby(["arm", "key"]):
        whole = part[part["metric"] == f"{WHOLE}accuracy"]
        assert list(whole["round"]) == ([0, 1] if arm == CEILING.name else [setting.rounds])
        assert np.allclose((whole["value"] * 40) % 1, 0)
        assert list(part.loc[part["metric"] == "loss", "round"]) == ([0, 1] if arm == CEILING.name else [0, 2, 4, 5])
    arms = frame[frame["arm"] != CEILING.name]
    assert arms.groupby("round")["bytes_up"].nunique().eq(1).all()


def test_a_comparison_that_is_recorded_is_not_run_again(setting, recorded, tmp_path, monkeypatch):
    monkeypatch.setattr(compare, "run", lambda *args: pytest.fail("ran again"))
    setting.compare(recorded, recorded, tmp_path, jobs=1)


def test_a_stopped_comparison_leaves_its_whole_keys_and_goes_on_from_there(setting, recorded, tmp_path, monkeypatch):
    work = compare._result_work

    def stops(setting, config, folder, cell):
        if (cell.key, cell.arm.name) == (2, "hiso"):
            raise KeyboardInterrupt
        return work(setting, config, folder, cell)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(compare, "_result_work", stops)
        setting.compare(recorded, tmp_path, tmp_path / "work", jobs=1)
    frame, about = records.read(tmp_path / "llm_small.csv")
    assert (about["config"]["keys"], about["config"]["planned"]) == ([1], [1, 2])
    assert set(frame["key"]) == {1} and set(frame["arm"]) == {arm.name for arm in ARMS} | {CEILING.name}
    setting.compare(recorded, tmp_path, tmp_path / "work", jobs=1)
    assert (tmp_path / "llm_small.csv").read_bytes() == (recorded / "llm_small.csv").read_bytes()
    assert not list((tmp_path / "work/ledgers").glob("*"))


def test_a_cell_stopped_in_mid_run_goes_on_from_its_ledger_to_the_same_curve(setting, recorded, tmp_path):
    cell = sweeps.Cell(ARMS[1], comparison.rates(recorded / "llm_small_grid.csv")["hiso"], 1, setting.rounds)
    home = compare._home({}, cell, "test", tmp_path)
    compare._train(replace(setting, rounds=3), replace(cell, rounds=2), "test", home)  # type: ignore[arg-type]
    assert home.exists()
    resumed = compare._result_work(setting, {}, tmp_path, cell)
    whole = compare._result_work(setting, {}, tmp_path / "other", cell)
    assert resumed.equals(whole)


def test_a_run_that_diverges_is_scored_minus_infinity_and_has_no_score_on_the_whole_test_part(setting, tmp_path):
    cell = sweeps.Cell(Arm("decomfl", "decomfl"), 1e30, 1, 5)
    assert compare.minus_loss(compare._tuning_work(setting, {}, tmp_path, cell), 5) == -np.inf
    frame = compare._result_work(setting, {}, tmp_path, cell)
    assert frame["round"].max() < 5 and not frame["metric"].str.startswith(WHOLE).any()


def test_what_a_table_depends_on_names_the_weights_and_the_examples(setting, recorded):
    config = json.loads((recorded / "llm_small.json").read_text())["config"]
    assert len(config["base_hash"]) >= 16 and len(config["data_hash"]) == 32
    assert (config["clients"], config["sampled"], config["P"], config["mu"], config["difference"]) == (6, 2, 5, 1e-3, "forward")
