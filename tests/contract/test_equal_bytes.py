"""Loss at equal bytes: what a budget buys by the ledger, what a base costs, whose keys choose rates, the claim's measures."""

from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from claims.equal_bytes import Compared
from hiso_bench import records, training
from hiso_bench.equal_bytes import TOTAL, UPLINK, WITH_BASE, choose
from hiso_bench.federation import NonFiniteScalarError
from llm.equal_bytes import Language, LanguageSender
from tests import llm_helpers
from vision.equal_bytes import BUDGETS, CLIENTS, EQUAL_BYTES, SAMPLED, model_bytes

WORDS = {0: ("dull", "weak", "flat", "slow"), 1: ("fine", "warm", "bold", "rich")}
TUNING, KEYS = (101, 102), (1, 2)


def test_bytes_are_those_of_the_ledger_and_budgets_are_kept():
    arm = replace(EQUAL_BYTES.arms[2], rounds=8)
    found = EQUAL_BYTES.curve(arm, 1.0, 1).set_index(["count", "budget"])
    d = 610
    assert model_bytes() == 4 * d
    for budget in BUDGETS[UPLINK]:
        assert found.loc[(UPLINK, budget), "rounds"] == budget // (SAMPLED * (8 + 4 * d))
    both = SAMPLED * (8 + 4 * d + 4 + 4 * d)
    for budget in BUDGETS[TOTAL]:
        assert found.loc[(TOTAL, budget), "rounds"] == budget // both
        if (WITH_BASE, budget) in found.index:  # a first-order client is sent the model anyway
            assert found.loc[(WITH_BASE, budget), "rounds"] == budget // both
    with pytest.raises(ValueError, match="needed"):
        EQUAL_BYTES.curve(replace(arm, rounds=2), 1.0, 1)


def test_a_run_that_diverged_has_no_loss_at_any_budget_beyond_its_end(monkeypatch):
    go = training.Run.go

    def stop(run, report):
        if report.record.round == 24:
            raise NonFiniteScalarError

    monkeypatch.setattr(training.Run, "go", lambda run: go(run, stop))
    found = EQUAL_BYTES.curve(EQUAL_BYTES.arms[0], 0.05, 1)
    uplink = found[found["count"] == UPLINK].set_index("budget")  # 560 bytes in ten rounds
    assert uplink["rounds"].to_dict() == {512: 0, 1024: 10} | {2**i: 20 for i in range(11, 15)}
    assert uplink["loss"].isna().to_dict() == {512: False, 1024: False} | {2**i: True for i in range(11, 15)}
    assert (uplink["accuracy"].isna() == uplink["loss"].isna()).all()


def test_a_method_of_scalars_is_charged_with_the_base_model():
    arm = EQUAL_BYTES.arms[0]
    assert arm.needs_base and not EQUAL_BYTES.arms[2].needs_base
    found: Any = EQUAL_BYTES.curve(arm, 0.05, 1).set_index(["count", "budget"])["rounds"]
    smallest = BUDGETS[WITH_BASE][0]
    assert found[WITH_BASE, smallest] <= (smallest - CLIENTS * model_bytes()) / 100 < found[TOTAL, smallest]
    assert found[UPLINK, 512] == 0 and found[UPLINK, 1024] == 10  # 56 bytes a round, looked at every ten


def test_the_recorded_tables_are_those_of_todays_configuration():
    from hiso_bench import catalogue

    rates = records.sidecar(catalogue.RESULTS / "equal_bytes_rates.csv")
    assert rates["config_hash"] == records.config_hash(EQUAL_BYTES.described())
    with records.asking(catalogue.FRESH / "asked") as asked:
        EQUAL_BYTES.compare(catalogue.RESULTS, catalogue.FRESH / "asked", catalogue.FRESH / "work", 1)
    assert asked["equal_bytes.csv"][0] == records.sidecar(catalogue.RESULTS / "equal_bytes.csv")["config"]


def test_a_budget_below_one_round_takes_the_rate_of_the_next():
    rows = [
        ("a", 0.1, "uplink", 10, 1, 0, 2.0), ("a", 0.1, "uplink", 20, 1, 3, 1.5), ("a", 0.1, "uplink", 40, 1, 6, np.nan),
        ("a", 0.2, "uplink", 10, 1, 0, 2.0), ("a", 0.2, "uplink", 20, 1, 3, 1.2), ("a", 0.2, "uplink", 40, 1, 6, 1.0),
        ("a", 0.4, "uplink", 10, 1, 0, 2.0), ("a", 0.4, "uplink", 20, 1, 3, 1.1), ("a", 0.4, "uplink", 40, 1, 6, 1.3),
    ]  # fmt: skip
    found = pd.DataFrame(rows, columns=["arm", "lr", "count", "budget", "key", "rounds", "loss"])
    grid = choose(found.assign(client_lr=1.0))
    won = grid[grid["winner"]].set_index("budget")["lr"]
    assert won.to_dict() == {10: 0.4, 20: 0.4, 40: 0.2}
    assert np.isinf(grid.loc[(grid["lr"] == 0.1) & (grid["budget"] == 40), "loss"]).all()


def test_a_server_s_rate_wins_together_with_the_clients():
    rows = [(lr, c, budget, key, 1, loss + 0.1 * key) for lr, c, budget, loss in (
        (0.1, 0.5, 10, 3.0), (0.1, 2.0, 10, 1.0), (0.2, 0.5, 10, 2.0), (0.2, 2.0, 10, 4.0),
        (0.1, 0.5, 20, 3.0), (0.1, 2.0, 20, 1.5), (0.2, 0.5, 20, 1.4), (0.2, 2.0, 20, 4.0),
    ) for key in (1, 2)]  # fmt: skip
    found = pd.DataFrame(rows, columns=["lr", "client_lr", "budget", "key", "rounds", "loss"]).assign(arm="a", count="uplink")
    grid = choose(found)
    won: Any = grid[grid["winner"]]
    won = won.sort_values("budget")
    assert won[["budget", "lr", "client_lr"]].to_numpy().tolist() == [[10, 0.1, 2.0], [20, 0.2, 0.5]]


def test_every_rate_of_the_server_meets_every_one_of_the_clients_and_results_take_the_pair_that_won(tmp_path, monkeypatch):
    arm, ran = replace(EQUAL_BYTES.arms[2], name="s", method="fedadam", options={}, client_rates=(0.5, 1.0)), []
    small = replace(EQUAL_BYTES, arms=(arm, EQUAL_BYTES.arms[0]), tuning_keys=(101,), keys=(1,), octaves=2)

    def curve(self, arm, lr, key):
        client_lr = arm.options.get("client_lr", 0.0)
        ran.append((arm.name, lr, client_lr, key))
        columns = {"client_lr": client_lr, "count": UPLINK, "budget": 512, "rounds": 1, "loss": 1.0 + abs(client_lr - 0.5) + lr}
        return pd.DataFrame(columns | {"accuracy": 0.5}, index=[0])

    monkeypatch.setattr(type(EQUAL_BYTES), "curve", curve)
    grid = small.tune(tmp_path, tmp_path / "work", 1)
    scalar = EQUAL_BYTES.arms[0].start
    pairs = [("s", 0.25 * i, c, 101) for c in (0.5, 1.0) for i in (1, 2)]
    assert ran == [*pairs, *(("decomfl", scalar * i, 0.0, 101) for i in (1, 2))]
    won: Any = grid[grid["winner"]]
    assert won[["lr", "client_lr"]].to_numpy().tolist() == [[0.25, 0.5], [scalar, 0.0]]
    ran.clear()
    small.compare(tmp_path, tmp_path, tmp_path / "work", 1)
    assert ran == [("s", 0.25, 0.5, 1), ("decomfl", scalar, 0.0, 1)]
    ran.clear()
    replace(small, arms=(small.arms[1],), octaves=3).tune(tmp_path, tmp_path / "work", 1)
    assert ran == [("decomfl", 4 * scalar, 0.0, 101)]  # what is kept of an arm does not depend on the others, nor on the grid


# A model of width 16 and two layers whose queries and values have adapters: 4 layers, (16 + 16) numbers each at rank 1.
ADAPTERS = 4 * 4 * (16 + 16)
PACKED = 4 + 4 * (16 + 16) * 4 // 8
LORA = LanguageSender("fedlora", "fedavg", {"client_lr": 1.0}, 0.01, 6, every=1, lora_rank=1)
FOUR_BITS = LanguageSender("fedlora-4bit", "fedcom", {"client_lr": 1.0, "bits": 4}, 0.01, 6, every=1, lora_rank=1)
DENSE = LanguageSender("fedavg", "fedavg", {"client_lr": 1.0}, 0.01, 2, every=1)
SCALARS = LanguageSender("decomfl", "decomfl", {"perturbations": 5}, 0.001, 4, every=1, lora_rank=1)


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """A random OPT, short reviews, budgets about a few rounds of its adapters."""
    data = tmp_path_factory.mktemp("data")
    for part, count in (("train", 120), ("dev", 40)):
        lines = [f"{WORDS[i % 2][i // 2 % 4]} film no {i}\t{i % 2}\n" for i in range(count)]
        (data / "sst2").mkdir(exist_ok=True)
        (data / f"sst2/{part}.tsv").write_text("sentence\tlabel\n" + "".join(lines))
    base = 6 * 4 * sum(p.numel() for p in llm_helpers.model("opt").parameters())
    up, both = 2 * (8 + ADAPTERS), 2 * (8 + ADAPTERS + 4 + ADAPTERS)
    budgets = {
        UPLINK: (up - 1, up, 3 * up + 1, 10**9),
        TOTAL: (both, 2 * both - 1, 2 * both),
        WITH_BASE: (base + both - 1, base + both, base + 3 * both),
    }
    options = {"model": llm_helpers.folder("opt"), "task": "sst2", "batch_size": 4, "evaluate_limit": 20}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HISO_BENCH_DATA", str(data))
        yield Language("small", (LORA, FOUR_BITS, SCALARS), TUNING, KEYS, budgets=budgets, options=options)


def rounds(small, arm, lr=0.01) -> dict[str, list[int]]:
    """The rounds that every budget of a count pays for."""
    found = small.curve(arm, lr, 1)
    assert np.isfinite(found["loss"]).all()
    return {str(count): part["rounds"].tolist() for count, part in found.groupby("count")}


def test_an_adapters_round_costs_the_adapters_both_ways_and_the_base_is_handed_out_once(small):
    assert rounds(small, LORA) == {UPLINK: [0, 1, 3, 6], TOTAL: [1, 1, 2], WITH_BASE: [0, 1, 3]}


def test_quantised_adapters_are_smaller_on_the_uplink_alone(small):
    up = 2 * (8 + PACKED)
    assert rounds(small, FOUR_BITS)[UPLINK] == [min(6, b // up) for b in small.budgets[UPLINK]]
    both = up + 2 * (4 + ADAPTERS)
    assert rounds(small, FOUR_BITS)[TOTAL] == [b // both for b in small.budgets[TOTAL]]


def test_a_dense_arm_holds_the_base_in_its_rounds_and_scalars_on_adapters_do_not(small):
    dense = sum(p.numel() for p in llm_helpers.model("opt").parameters())
    both = 2 * (8 + 4 * dense + 4 + 4 * dense)
    assert rounds(small, DENSE)[WITH_BASE] == [min(2, b // both) for b in small.budgets[WITH_BASE]] != [0, 0, 0]
    assert SCALARS.needs_base and LORA.needs_base and not DENSE.needs_base
    # A round of scalars costs at most 56 bytes up and the missed rounds' scalars down; before the base nothing is left over.
    poor = replace(small, budgets={WITH_BASE: (small.budgets[WITH_BASE][1] - 2 * (8 + ADAPTERS + 4 + ADAPTERS),)})
    assert rounds(poor, SCALARS, 0.001) == {WITH_BASE: [0]}
    with pytest.raises(ValueError, match="the smallest budget is"):
        replace(poor, budgets={WITH_BASE: (poor.budgets[WITH_BASE][0] - 1,)}).curve(SCALARS, 0.001, 1)


def test_rates_are_chosen_on_validation_examples_of_tuning_keys_and_results_are_of_others(small, tmp_path, monkeypatch):
    ran, curve = [], Language.curve

    def watched(self, arm, lr, key):
        ran.append((key, self.problem(key, arm.lora_rank).evaluate_on))
        return curve(self, arm, lr, key)

    monkeypatch.setattr(Language, "curve", watched)
    grid = small.tune(tmp_path, tmp_path / "work", 1)
    assert set(ran) == {(key, "validation") for key in TUNING} and len(ran) == 3 * 5 * len(TUNING)
    ran.clear()
    small.compare(tmp_path, tmp_path, tmp_path / "work", 1)
    assert set(ran) == {(key, "test") for key in KEYS}
    table = records.read(tmp_path / "small.csv")[0]
    won = grid[grid["winner"]].set_index(["arm", "count", "budget"])["lr"]
    assert len(won) == 3 * 10 and len(table) == len(won) * len(KEYS)
    for _, row in table.iterrows():
        assert won[row["arm"], row["count"], row["budget"]] == row["lr"]
    ran.clear()
    small.compare(tmp_path, tmp_path, tmp_path / "work", 1)  # current: nothing runs
    assert not ran
    config = records.sidecar(tmp_path / "small.csv")["config"]
    assert config["dimension"] == sum(p.numel() for p in llm_helpers.model("opt").parameters())
    assert len(set(config["data_hash"])) == 2 and "model" not in config["problem"]


def table_of(curves: dict[str, dict[int, list[float]]]) -> pd.DataFrame:
    """Losses by arm, budget and key as a table of results."""
    rows = [
        (arm, 0.1, UPLINK, budget, key, 1, loss)
        for arm, own in curves.items()
        for budget, losses in own.items()
        for key, loss in enumerate(losses)
    ]
    return pd.DataFrame(rows, columns=["arm", "lr", "count", "budget", "key", "rounds", "loss"])


def test_the_best_arm_is_that_of_the_tuning_keys_and_losses_are_paired():
    table = table_of({"s": {2: [1.0, 2.0], 4: [1.0, 2.0], 8: [1.0, 2.0]}, "v": {2: [4, 4], 4: [2, 2], 8: [0.5, 0.5]},
                      "w": {2: [0.1, 0.1], 4: [0.1, 0.1], 8: [0.1, 0.1]}})  # fmt: skip
    tuned = {"s": 1.0, "v": 0.2, "w": 0.3}
    rates = pd.DataFrame([(a, 0.1, UPLINK, b, x, True) for a, x in tuned.items() for b in (2, 4, 8)],
                         columns=["arm", "lr", "count", "budget", "loss", "winner"])  # fmt: skip
    of = Compared(rates, table)
    assert of.best(UPLINK, 4, ("v", "w")) == "v"  # w is better on the result keys, and was not known to be
    np.testing.assert_allclose(of.behind(UPLINK, 4, ("s",), ("v", "w")), np.log([1 / 2, 1]))
    # Key 0: log ratios log(1/4), log(1/2), log 2, zero half-way from 4 to 8. Key 1: log(1/2), 0, log 4: at 4.
    np.testing.assert_allclose(of.crossover(UPLINK, ("s",), ("v", "w")), [2.5, 2.0])
    with pytest.raises(ValueError, match="s diverged on a key"):
        Compared(rates, table.replace({"loss": {2.0: np.nan}})).losses(UPLINK, 4, "s")
