"""What comparisons share, whatever is trained: one run of an arm, the scores of a grid, and the rates that won it."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from hiso_bench import methods, records, sweeps, training
from hiso_bench.federation import Federation, FederationOptions, NonFiniteScalarError
from hiso_bench.problems import Problem
from hiso_bench.sweeps import Arm, Cell
from hiso_bench.training import Schedule


def train(
    problem: Problem, arm: Arm, lr: float, options: FederationOptions, schedule: Schedule, home: Path
) -> tuple[training.Run, pd.DataFrame]:
    """One run up to the schedule's last round, continued from its ledger if a shorter or a stopped run left one in `home`.

    Returns:
        The run, its ledger closed, and its evaluations as `training.curve` gives them. A sweep records divergence: the curve of
        a run whose scalars stopped being finite ends where the run did.
    """
    live = training.Run(problem, arm.method, methods.build(arm.method, arm.options, lr=lr), options, schedule, home)
    try:
        live.go()
    except NonFiniteScalarError:
        pass
    finally:
        live.ledger.close()
    frame = training.curve(live.ledger)
    return live, pd.DataFrame(frame[frame["round"] <= schedule.rounds])


def seconds(problem: Problem, lr: float, sampled: int, rounds: int, evaluate_every: int, sample: int = 5) -> float:
    """Estimate of a run's seconds on this machine and thread: rounds of HiSo, and an evaluation every so many of them."""
    federation = Federation(problem, methods.build("hiso", lr=lr), FederationOptions(sampled=sampled))
    federation.round()
    started = time.monotonic()
    for _ in range(sample):
        federation.round()
    per_round = (time.monotonic() - started) / sample
    started = time.monotonic()
    problem.evaluate(federation.state.x)
    return rounds * (per_round + (time.monotonic() - started) / evaluate_every)


def scores(
    work: Callable[[Cell], pd.DataFrame],
    score: Callable[[pd.DataFrame, int], float],
    folder: Path,
    config: dict[str, Any],
    jobs: int,
) -> Callable[[Sequence[Cell]], pd.Series]:
    """What the rules that choose rates ask for: a function that runs cells (see `sweeps.run`) and scores each one's curve.

    Args:
        work: Cell -> curve.
        score: (curve, rounds of the cell) -> score, higher is better.
        folder: where finished cells are kept.
        config: what else `work` depends on.
        jobs: number of processes.
    """

    def evaluate(cells: Sequence[Cell]) -> pd.Series:
        if not cells:
            return pd.Series(dtype=float)
        frame = sweeps.run(work, cells, folder, config, jobs)
        groups = {name: part for name, part in frame.groupby(["arm", "lr", "key", "rounds_run"])}
        return pd.Series([score(groups[c.arm.name, c.lr, c.key, c.rounds], c.rounds) for c in cells])

    return evaluate


def rates(grid: Path) -> dict[str, float]:
    """The chosen rate of each arm, from a recorded grid.

    Raises:
        records.RecordError: there is no intact grid.
    """
    table, _ = records.read(grid)
    won = table[table["winner"]]
    return dict(zip(won["arm"], won["lr"], strict=True))
