"""What comparisons share: the score of every cell is that of its own curve, and a recorded rate is the winner's."""

import numpy as np
import pandas as pd
import pytest

from hiso_bench import comparison, records
from hiso_bench.sweeps import Arm, Cell

A, B = Arm("a", "decomfl"), Arm("b", "hiso")


def work(cell):
    start = 1000.0 * cell.key + 100 * (cell.arm.name == "b") + cell.lr
    return pd.DataFrame({"value": np.arange(cell.rounds) + start})


def last(curve, rounds):
    assert len(curve) == rounds
    return float(curve["value"].iloc[-1])


def test_every_cell_has_the_score_of_its_own_curve_in_the_order_of_the_cells(tmp_path):
    cells = [Cell(arm, lr, key, rounds) for rounds in (3, 5) for key in (2, 1) for arm in (B, A) for lr in (8.0, 4.0)]
    found = comparison.scores(work, last, tmp_path, {}, 1)(cells)
    assert list(found) == [1000 * c.key + 100 * (c.arm is B) + c.lr + c.rounds - 1 for c in cells]
    assert len(comparison.scores(work, last, tmp_path, {}, 1)([])) == 0


def test_the_rates_of_a_grid_are_its_winners(tmp_path):
    grid = pd.DataFrame(
        [("a", 1.0, False), ("a", 2.0, True), ("a", 4.0, False), ("b", 1.0, True), ("b", 2.0, False)],
        columns=["arm", "lr", "winner"],
    )
    records.write(grid, tmp_path / "grid.csv", {}, 1)
    assert comparison.rates(tmp_path / "grid.csv") == {"a": 2.0, "b": 1.0}
    with pytest.raises(records.RecordError):
        comparison.rates(tmp_path / "none.csv")
