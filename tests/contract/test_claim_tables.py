"""Claims that read recorded tables, on tables made by hand: which arm is best, where two cross, what an interval tells."""

import numpy as np
import pandas as pd
import pytest

from claims import ablation as ablation_claims
from claims import fair_speed
from claims.equal_bytes import Compared
from hiso_bench import catalogue
from learned_h import ablation
from learned_h.pairs import LAST, Pair

MINE, THEIRS = ("hiso", "decomfl"), ("fedavg",)


@pytest.fixture
def tables():
    """Losses of two arms at three budgets; on the tuning keys "hiso" is best at its winner alone."""
    rows = [("hiso", b, key, loss) for b, losses in ((4, (1, 2)), (8, (1, 4)), (16, (4, 8))) for key, loss in enumerate(losses)]
    rows += [("fedavg", b, key, 2.0) for b in (4, 8, 16) for key in (0, 1)]
    found = pd.DataFrame(rows, columns=["arm", "budget", "key", "loss"]).assign(count="uplink")
    rows = [("hiso", 0.1, 1.0, True), ("decomfl", 0.1, 0.5, False), ("decomfl", 0.2, 1.5, True), ("fedavg", 0.1, 3.0, True)]
    rates = pd.DataFrame(rows, columns=["arm", "lr", "loss", "winner"]).assign(count="uplink")
    rates = pd.concat([rates.assign(budget=b) for b in (4, 8, 16)])
    return Compared(rates, found.sample(frac=1, random_state=0))


def test_the_best_arm_is_the_best_winner_of_the_grid(tables):
    assert tables.best("uplink", 8, MINE) == "hiso"
    np.testing.assert_allclose(tables.behind("uplink", 8, MINE, THEIRS), np.log([1 / 2, 4 / 2]))


def test_curves_cross_for_good_where_they_do_so_last(tables):
    # Key 0: log ratios -ln 2 at 8 and +ln 2 at 16, halfway between. Key 1: 0 at 4, behind from there on.
    np.testing.assert_allclose(tables.crossover("uplink", MINE, THEIRS), [3.5, 2.0])


def test_a_share_counts_the_comparisons_whose_interval_leaves_out_zero(monkeypatch):
    draw = np.random.default_rng(0).standard_normal(10)
    spread = (draw - draw.mean()) / draw.std(ddof=1)
    # At 99.9 % and ten keys an interval reaches 4.78 / sqrt(10) = 1.51 deviations to either side of the mean.
    found = [Pair("t", "p", LAST, {"a": mean + spread, "b": np.zeros(10)}) for mean in (1.6, 1.4, -1.4, -1.6)]
    found.append(Pair("t", "p", LAST, {"a": spread, "c": spread}))
    monkeypatch.setattr(fair_speed, "comparisons", lambda: tuple(found))
    assert fair_speed.share("a", "b", synthetic=False) == (0.25, 0.25, 4)
    assert fair_speed.share("a", "b", synthetic=False, level=0.95) == (0.5, 0.5, 4)


def test_gaps_have_the_root_of_the_sum_of_the_squared_errors():
    gap, spread = fair_speed.gaps()
    table = pd.read_csv(catalogue.ROOT / "paper" / "reported" / "hiso_table3.csv")
    cells = table[table["quantity"].isin(("accuracy", "f1"))].set_index(["model", "task", "method"]).sort_index()
    names = sorted({(model, task) for model, task, _ in cells.index})
    for (model, task), value, error in zip(names, gap, spread, strict=True):
        ours, theirs = (cells.loc[(model, task, method)] for method in ("hiso", "decomfl"))
        assert value == pytest.approx(ours["value"] - theirs["value"])
        assert error == pytest.approx((ours["error"] ** 2 + theirs["error"] ** 2) ** 0.5)


def test_the_better_rate_of_a_network_is_found_on_four_keys_and_measured_on_the_others(monkeypatch):
    """HiSo: the second rate is better on the first four keys, the first on the rest; the other arm: 8 rounds at either."""

    class Passage:
        def __init__(self, rounds):
            self.rounds = lambda target: rounds

    hiso = np.array([[3.0] * 4 + [1.0] * 12, [2.0] * 4 + [4.0] * 12])
    runs = {"hiso": Passage(hiso), "hiso-scalar": Passage(np.full((2, 16), 8.0))}
    monkeypatch.setattr(ablation, "run", lambda case, arm, *rest: runs[arm.name])
    measured = ablation_claims._network_gain().measured
    assert tuple(measured) == pytest.approx((np.log(2),) * 3)
