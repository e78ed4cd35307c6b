"""Sweeps keep what is done and nothing else, and the rule that chooses rates is the same for every arm."""

import numpy as np
import pandas as pd
import pytest

from hiso_bench.sweeps import Arm, Cell, choose_rates, run

ROUNDS = 100


def counted(folder):
    """Work that leaves a trace of each run in a folder and returns what the cell says."""

    def work(cell):
        trace = folder / f"{len(list(folder.glob('*')))}"
        trace.write_text(cell.arm.name)
        return pd.DataFrame({"value": [cell.arm.options.get("value", 0) + cell.lr]})

    return work


def sweep(tmp_path, cells, config=None):
    (tmp_path / "traces").mkdir(exist_ok=True)
    frame = run(counted(tmp_path / "traces"), cells, tmp_path / "cells", config or {}, jobs=1)
    return frame, len(list((tmp_path / "traces").glob("*")))


def test_a_finished_cell_is_not_run_again_and_a_changed_one_is(tmp_path):
    first = [Cell(Arm("a", "hiso", {"value": 1}), 0.5, key, 10) for key in (1, 2)]
    frame, runs = sweep(tmp_path, first)
    assert runs == 2 and frame.to_dict("list") == {
        "arm": ["a", "a"], "lr": [0.5, 0.5], "key": [1, 2], "rounds_run": [10, 10], "value": [1.5, 1.5],
    }  # fmt: skip
    assert sweep(tmp_path, first)[1] == 2
    for other in (
        Cell(Arm("a", "hiso", {"value": 2}), 0.5, 1, 10),
        Cell(Arm("a", "decomfl", {"value": 1}), 0.5, 1, 10),
        Cell(Arm("a", "hiso", {"value": 1}), 0.25, 1, 10),
        Cell(Arm("a", "hiso", {"value": 1}), 0.5, 3, 10),
        Cell(Arm("a", "hiso", {"value": 1}), 0.5, 1, 20),
    ):
        before = sweep(tmp_path, first)[1]
        frame, runs = sweep(tmp_path, [*first, other])
        assert runs == before + 1
        assert frame["value"].iloc[-1] == other.arm.options["value"] + other.lr
    assert sweep(tmp_path, first, {"dimension": 3})[1] == before + 3


def scores_of(peaks, keys=(0,), diverged=lambda cell: False):
    """Scores that fall with the distance from an arm's peak in octaves; the calls that were made."""
    seen = []

    def evaluate(cells):
        seen.extend(cells)
        return pd.Series(
            [-np.inf if diverged(cell) else -abs(np.log2(cell.lr / peaks[cell.arm.name])) for cell in cells], dtype=float
        )

    return evaluate, seen


def winners(grid):
    won = grid[grid["winner"]]
    return dict(zip(won["arm"], won["lr"], strict=True))


ARMS = (Arm("a", "decomfl"), Arm("b", "hiso"))


def test_every_arm_gets_its_own_best_rate_from_one_grid():
    evaluate, seen = scores_of({"a": 2**-5, "b": 2**-3 * 1.4})
    grid = choose_rates(evaluate, ARMS, [0], ROUNDS, 2**-10)
    assert winners(grid) == pytest.approx({"a": 2**-5, "b": 2**-3 * 1.4})
    tried = {arm.name: {c.lr for c in seen if c.arm == arm and c.rounds == ROUNDS // 4} for arm in ARMS}
    assert tried["a"] == tried["b"] and len(tried["a"]) == 11
    assert all(b / a == 2 for a, b in zip(sorted(tried["a"]), sorted(tried["a"])[1:], strict=False))


@pytest.mark.parametrize("peak", [2**-12, 2**3])
def test_the_grid_grows_for_all_arms_until_every_winner_is_interior(peak):
    evaluate, seen = scores_of({"a": peak, "b": 2**-5})
    grid = choose_rates(evaluate, ARMS, [0], ROUNDS, 2**-10, refine=False)
    assert winners(grid) == {"a": peak, "b": 2**-5}
    quick = {arm.name: {c.lr for c in seen if c.arm == arm and c.rounds == ROUNDS // 4} for arm in ARMS}
    assert quick["a"] == quick["b"] and min(quick["a"]) < peak < max(quick["a"])


def test_a_rate_that_diverges_on_one_tuning_key_cannot_win():
    evaluate, _ = scores_of({"a": 2**-5, "b": 2**-5}, diverged=lambda c: c.arm.name == "a" and c.lr > 2**-6 and c.key == 2)
    assert winners(choose_rates(evaluate, ARMS, [1, 2, 3], ROUNDS, 2**-10)) == pytest.approx({"a": 2**-6, "b": 2**-5})


def test_a_winner_that_never_becomes_interior_is_an_error():
    evaluate, _ = scores_of({"a": 2.0**60, "b": 1.0})
    with pytest.raises(ValueError, match="still lie at the edge"):
        choose_rates(evaluate, ARMS, [0], ROUNDS, 2**-10)
