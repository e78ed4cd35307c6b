"""Successive halving: how learning rates are chosen where a whole run is too expensive to be repeated for every rate.

The rule, the same for all arms of a comparison: a grid of ratio 2 runs for a few rounds, the best few rates go on, and fewer of
them again, on one tuning key. A rate that goes on pays for its additional rounds only, because runs resume from their ledgers. If
an arm's best rate of a rung lies at an edge of the grid, the grid grows beyond that edge, for every arm, one rate at a time and
as long as what the remaining rungs need stays in the budget. So all arms have the same rates on the first rung, run for the same
number of rounds in all, and none has more than the budget.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from hiso_bench.methods.base import require
from hiso_bench.sweeps import Arm, Cell, Scores


@dataclass(frozen=True)
class Rungs:
    """How long the rates run.

    Attributes:
        rounds: of each rung, ascending.
        survivors: rates per arm that go on after each rung but the last.
        octaves: rates of the first grid, of ratio 2; 11 span three decades.
        budget: rounds per arm, in all rungs together.
        growth: most rates added beyond an edge.

    Raises:
        ValueError: as many survivors as steps between rungs are needed; a budget that does not hold the rungs.
    """

    rounds: tuple[int, ...] = (20, 70, 200)
    survivors: tuple[int, ...] = (4, 2)
    octaves: int = 11
    budget: int = 750
    growth: int = 3

    def __post_init__(self) -> None:
        ascending = all(a < b for a, b in zip((0, *self.rounds), self.rounds, strict=False))
        require(bool(self.rounds) and ascending, "rounds", self.rounds, "positive and ascending")
        steps, widths = len(self.rounds) - 1, (self.octaves, *self.survivors)
        falling = len(self.survivors) == steps and all(a >= b >= 1 for a, b in zip(widths, self.survivors, strict=False))
        require(falling, "survivors", self.survivors, f"{steps} numbers, not ascending, from {self.octaves} down to 1")
        planned = self.octaves * self.rounds[0] + self.ahead(0)
        require(self.budget >= planned, "budget", self.budget, f">= {planned}, what the rungs need")
        require(self.growth >= 0, "growth", self.growth, ">= 0")

    def ahead(self, rung: int) -> int:
        """Rounds per arm that the rungs after this one need."""
        return sum(n * (b - a) for n, a, b in list(zip(self.survivors, self.rounds, self.rounds[1:], strict=False))[rung:])


def halve(
    evaluate: Callable[[Sequence[Cell]], pd.Series], arms: Sequence[Arm], key: int, start: float, rungs: Rungs = Rungs()
) -> pd.DataFrame:
    """Choose each arm's learning rate by the rule above.

    Args:
        evaluate: cells -> one score per cell, in order, higher is better (-inf for a diverged run, which never goes on).
        arms: the arms.
        key: the tuning key.
        start: the smallest rate of the grid.
        rungs: how long the rates run.

    Returns:
        As `sweeps.choose_rates`: arm, lr, rounds, score, winner. A winner may lie at an edge where the budget let the grid grow
        no further; `at_edge` says which do.

    Raises:
        ValueError: every rate of an arm diverged; the message names it.
    """
    tried = Scores(evaluate, [key])
    grid = [start * 2.0**i for i in range(rungs.octaves)]
    alive = {arm.name: list(grid) for arm in arms}
    spent, before, grown = 0, 0, 0
    for rung, length in enumerate(rungs.rounds):
        spent += (length - before) * (rungs.octaves if rung == 0 else rungs.survivors[rung - 1])
        tried.score([(arm, lr) for arm in arms for lr in alive[arm.name]], length)
        while grown < rungs.growth and spent + length + rungs.ahead(rung) <= rungs.budget:
            winners = {tried.best(arm, alive[arm.name], length)[0] for arm in arms}
            if grid[-1] not in winners and grid[0] not in winners:
                break
            # Where both edges are in question, they take turns.
            up = grid[-1] in winners and (grid[0] not in winners or grown % 2 == 0)
            grid = [*grid, grid[-1] * 2] if up else [grid[0] / 2, *grid]
            new = grid[-1] if up else grid[0]
            tried.score([(arm, new) for arm in arms], length)
            alive = {name: sorted([*rates, new]) for name, rates in alive.items()}
            spent, grown = spent + length, grown + 1
        for arm in arms:
            finite = [lr for lr in tried.best(arm, alive[arm.name], length) if tried.values[arm.name, lr, length] > -np.inf]
            if not finite:
                ends = f"from {min(alive[arm.name]):g} to {max(alive[arm.name]):g}"
                raise ValueError(f"every rate of {arm.name} {ends} diverged within {length} rounds; lower start")
            alive[arm.name] = finite[: rungs.survivors[rung]] if rung < len(rungs.survivors) else finite[:1]
        before = length
    return tried.frame({name: rates[0] for name, rates in alive.items()}, rungs.rounds[-1])


def at_edge(grid: pd.DataFrame) -> list[str]:
    """The arms of a grid whose winner is the smallest or the largest rate that they tried."""
    out = []
    for arm, part in grid.groupby("arm", sort=False):
        if part.loc[part["winner"], "lr"].iloc[0] in (part["lr"].min(), part["lr"].max()):
            out.append(str(arm))
    return out


def rounds_spent(grid: pd.DataFrame) -> dict[str, int]:
    """Rounds that each arm of a grid ran, a rate that went on counted once."""
    longest: dict[tuple[str, float], int] = {}
    for arm, lr, rounds in zip(grid["arm"], grid["lr"], grid["rounds"], strict=True):
        longest[arm, lr] = max(rounds, longest.get((arm, lr), 0))
    return {name: int(sum(r for (arm, _), r in longest.items() if arm == name)) for name in dict.fromkeys(grid["arm"])}
