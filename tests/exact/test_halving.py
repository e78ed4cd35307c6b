"""Successive halving: one budget for all arms, never exceeded; the best rate wins; edges are tried or told."""

from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hiso_bench.halving import Rungs, at_edge, halve, rounds_spent
from hiso_bench.sweeps import Arm

ARMS = (Arm("a", "decomfl"), Arm("b", "hiso"))
START = 2.0**-10
KEY = 7


def scores_of(peaks, diverged=lambda cell: False):
    """Scores that fall with the distance from an arm's peak in octaves; the calls that were made."""
    seen = []

    def evaluate(cells):
        seen.append(list(cells))
        return pd.Series(
            [-np.inf if diverged(c) else -abs(np.log2(c.lr) - peaks[c.arm.name]) for c in cells], dtype=float
        )  # fmt: skip

    return evaluate, seen


def winners(grid):
    won = grid[grid["winner"]]
    assert (won["rounds"] == grid["rounds"].max()).all()
    return dict(zip(won["arm"], np.log2(won["lr"]), strict=True))


def tried(grid, arm, rounds):
    part = grid[(grid["arm"] == arm) & (grid["rounds"] == rounds)]
    return sorted(np.log2(part["lr"]))


def test_every_arm_gets_its_own_best_rate_from_one_grid_of_three_decades():
    evaluate, seen = scores_of({"a": -5, "b": -3})
    grid = halve(evaluate, ARMS, KEY, START)
    assert winners(grid) == {"a": -5, "b": -3} and not at_edge(grid)
    for arm in ("a", "b"):
        assert tried(grid, arm, 20) == list(range(-10, 1))
        assert [len(tried(grid, arm, rounds)) for rounds in (20, 70, 200)] == [11, 4, 2]
    assert rounds_spent(grid) == {"a": 680, "b": 680}
    assert {cell.key for call in seen for cell in call} == {KEY}
    assert len(seen) == 3  # a rung is one call, so that its runs go side by side


def test_only_the_best_of_a_rung_go_on():
    evaluate, _ = scores_of({"a": -5.1, "b": -3})
    grid = halve(evaluate, ARMS, KEY, START)
    for rung, n in ((20, 4), (70, 2)):
        part = grid[(grid["arm"] == "a") & (grid["rounds"] == rung)].sort_values("score")
        later = 70 if rung == 20 else 200
        assert tried(grid, "a", later) == sorted(np.log2(part["lr"][-n:]))


def test_a_winner_is_the_best_of_the_last_rung_not_of_an_earlier_one():
    def evaluate(cells):  # the larger of two rates is ahead until round 70
        return pd.Series([-abs(np.log2(c.lr) + (4 if c.rounds < 200 else 5)) for c in cells], dtype=float)

    assert winners(halve(evaluate, ARMS[:1], KEY, START)) == {"a": -5}


@pytest.mark.parametrize(("peak", "added"), [(1, [1, 2]), (3, [1, 2, 3]), (-11, [-11, -12]), (-13, [-11, -12, -13])])
def test_the_grid_grows_beyond_an_edge_for_all_arms_until_the_winner_is_interior_or_three_were_added(peak, added):
    evaluate, _ = scores_of({"a": peak, "b": -5})
    grid = halve(evaluate, ARMS, KEY, START)
    assert winners(grid) == {"a": peak, "b": -5}
    assert tried(grid, "a", 20) == tried(grid, "b", 20) == sorted([*range(-10, 1), *added])
    assert at_edge(grid) == (["a"] if abs(peak - added[-1]) == 0 else [])
    assert set(rounds_spent(grid).values()) == {680 + 20 * len(added)}


def test_a_winner_out_of_reach_is_told_and_no_error():
    evaluate, _ = scores_of({"a": 30, "b": -30})
    grid = halve(evaluate, ARMS, KEY, START)
    # Both edges are in question: they take turns, and the odd one falls to the upper edge.
    assert winners(grid) == {"a": 2, "b": -11} and at_edge(grid) == ["a", "b"]
    assert set(rounds_spent(grid).values()) == {740}


def test_an_edge_that_wins_on_a_later_rung_is_looked_beyond_as_far_as_the_last_rungs_leave_room():
    def evaluate(cells):
        return pd.Series([-abs(np.log2(c.lr) - (-1 if c.rounds == 20 else 5)) for c in cells], dtype=float)

    grid = halve(evaluate, ARMS, KEY, START)
    assert tried(grid, "a", 20)[-1] == 0 and tried(grid, "a", 70)[-1] == 1
    assert winners(grid) == {"a": 1, "b": 1} and at_edge(grid) == ["a", "b"]
    assert set(rounds_spent(grid).values()) == {750}


def test_a_rate_that_diverges_never_goes_on_and_never_wins():
    evaluate, seen = scores_of({"a": -4, "b": -4}, lambda c: c.arm.name == "a" and np.log2(c.lr) > -8 + (c.rounds == 20))
    grid = halve(evaluate, ARMS, KEY, START)
    assert winners(grid) == {"a": -8, "b": -4}
    assert tried(grid, "a", 70) == [-10, -9, -8, -7] and tried(grid, "a", 200) == [-9, -8]
    assert np.isneginf(grid.loc[(grid["arm"] == "a") & (grid["rounds"] == 70) & (grid["lr"] == 2.0**-7), "score"]).all()
    assert len(seen) == 3


def test_an_arm_of_which_every_rate_diverged_is_named():
    evaluate, _ = scores_of({"a": -4, "b": -4}, lambda c: c.arm.name == "b")
    with pytest.raises(ValueError, match=r"every rate of b from .* to 1 diverged within 20 rounds; lower start"):
        halve(evaluate, ARMS, KEY, START)


@given(st.data(), st.integers(0, 3), st.integers(0, 200))
def test_no_arm_exceeds_the_budget_and_all_spend_the_same_whatever_the_scores_are(data, growth, spare):
    rungs = Rungs(growth=growth, budget=680 + spare)
    drawn = {}

    def evaluate(cells):
        for c in cells:
            drawn.setdefault((c.arm.name, c.lr, c.rounds), data.draw(st.integers(-5, 5)))
        return pd.Series([drawn[c.arm.name, c.lr, c.rounds] for c in cells], dtype=float)

    grid = halve(evaluate, ARMS, KEY, START, rungs)
    spent = rounds_spent(grid)
    assert spent["a"] == spent["b"] <= rungs.budget
    assert tried(grid, "a", 20) == tried(grid, "b", 20)
    for arm in ARMS:  # every rate has a neighbour at ratio 2: no gaps
        rates = sorted(set(np.log2(grid.loc[grid["arm"] == arm.name, "lr"])))
        assert all(b - a == 1 for a, b in pairwise(rates)) and len(rates) <= 11 + growth
    assert grid.groupby("arm")["winner"].sum().eq(1).all()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"rounds": (20, 20, 200)}, "rounds"),
        ({"rounds": ()}, "rounds"),
        ({"survivors": (4,)}, "survivors"),
        ({"survivors": (2, 4)}, "survivors"),
        ({"survivors": (12, 2)}, "survivors"),
        ({"budget": 679}, "budget 679 is out of range; allowed: >= 680"),
        ({"growth": -1}, "growth"),
    ],
)
def test_rungs_out_of_range_are_refused(options, said):
    with pytest.raises(ValueError, match=said):
        Rungs(**options)
