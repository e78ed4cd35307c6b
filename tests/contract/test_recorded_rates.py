"""Which recorded rate a run takes: that of the method with its options, then of its name, then of the nearest one."""

import pandas as pd
import pytest

from hiso_bench import catalogue, recorded_rates, records


@pytest.fixture
def grid(tmp_path, monkeypatch):
    rows = [("hiso", 1.0), ("hiso", 2.0), ("hiso-0.01", 3.0), ("decomfl", 4.0), ("hiso-scalar", 5.0)]
    table = pd.DataFrame(rows, columns=["arm", "lr"]).assign(winner=[True, False, True, True, True])
    monkeypatch.setattr(catalogue, "RESULTS", tmp_path)
    records.write(table, tmp_path / "low_rank_grid.csv", {"rounds": 7}, 1)


@pytest.mark.parametrize(
    ("method", "options", "lr"),
    [
        ("hiso", {}, 1.0),
        ("hiso", {"ema_new": 0.01}, 3.0),
        ("hiso", {"ema_new": 0.5}, 1.0),
        ("hiso-shuffled", {}, 1.0),
        ("hiso-leaf-mean", {}, 5.0),
        ("decomfl", {}, 4.0),
    ],
)
def test_the_nearest_winner_is_taken(grid, method, options, lr):
    found, told = recorded_rates.rate("quadratic", method, options)
    assert found == lr and "low_rank_grid.csv: rounds 7" in told


def test_a_method_without_a_rate_is_refused_with_those_that_have_one(grid):
    with pytest.raises(ValueError, match="holds no rate for method mezo; it has hiso, hiso-0.01, decomfl, hiso-scalar"):
        recorded_rates.rate("quadratic", "mezo", {})
    with pytest.raises(ValueError, match="no recorded grid for problem mnist"):
        recorded_rates.rate("mnist", "hiso", {})
