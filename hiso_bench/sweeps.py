"""Sweeps: cells in parallel, each kept as soon as it is done, and the one rule by which every arm's learning rate is chosen.

The rule, the same for all arms of a comparison: a grid of ratio 2 over at least three decades; after a quarter of the
budget only the best few rates go on; if the winner lies at the edge of the grid, the grid grows for every arm; then two
more rates at ratio 1.4 around each winner. Rates are chosen on tuning keys; results come from other keys.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pandas as pd
from tqdm import tqdm

from hiso_bench import records

MAX_GROWTHS = 4
REFINED_RATIO = 1.4


@dataclass(frozen=True)
class Arm:
    """One line of a comparison: a registered method with its options."""

    name: str
    method: str
    options: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Cell:
    """One run of a sweep."""

    arm: Arm
    lr: float
    key: int
    rounds: int


def run(
    work: Callable[[Cell], pd.DataFrame],
    cells: Sequence[Cell],
    folder: Path,
    config: dict[str, Any],
    jobs: int,
    on_done: Callable[[], None] = lambda: None,
) -> pd.DataFrame:
    """Run cells in parallel processes of one torch thread each, keeping each cell's result as a file.

    Args:
        work: Cell -> long-format frame; must be picklable and depend on the cell and `config` alone.
        cells: in the order in which they should be done (a stopped sweep has done the first ones).
        folder: where finished cells are kept; a cell found there is not run again.
        config: part of every cell's name: what else `work` depends on.
        jobs: number of processes.
        on_done: called after every cell that was run, in this process; `kept` says what there is by then.

    Returns:
        The frames joined, with columns arm, lr, key and rounds_run in front.
    """
    paths = [_path(cell, folder, config) for cell in cells]
    todo = [i for i, path in enumerate(paths) if not path.exists()]
    if todo:
        parallel = joblib.Parallel(n_jobs=jobs, return_as="generator_unordered", pre_dispatch="n_jobs")
        with tqdm(total=len(todo), unit="run", desc=folder.name, dynamic_ncols=True) as bar:
            for _ in parallel(joblib.delayed(_work)(work, cells[i], paths[i]) for i in todo):
                bar.update()
                on_done()
    found = kept(cells, folder, config)
    assert found is not None
    return found


def kept(cells: Sequence[Cell], folder: Path, config: dict[str, Any]) -> pd.DataFrame | None:
    """The joined frames of cells that `run` has kept; None as long as one of them is missing."""
    paths = [_path(cell, folder, config) for cell in cells]
    if not all(path.exists() for path in paths):
        return None
    frames = []
    for cell, path in zip(cells, paths, strict=True):
        frame = pd.DataFrame(json.loads(path.read_text()))
        frame.insert(0, "rounds_run", cell.rounds)
        frame.insert(0, "key", cell.key)
        frame.insert(0, "lr", cell.lr)
        frame.insert(0, "arm", cell.arm.name)
        frames.append(frame)
    return pd.concat(frames, ignore_index=True)


def _path(cell: Cell, folder: Path, config: dict[str, Any]) -> Path:
    return folder / f"{records.config_hash({'config': config, 'cell': asdict(cell)})}.json"


def _work(work: Callable[[Cell], pd.DataFrame], cell: Cell, path: Path) -> None:
    import torch

    torch.set_num_threads(1)
    records.write_bytes(path, json.dumps(work(cell).to_dict("list")).encode())


class Scores:
    """The scores of a grid, each (arm, rate, rounds) asked for once.

    Args:
        evaluate: cells -> one score per cell, in order, higher is better (-inf for a diverged run).
        keys: tuning keys; a rate's score is the mean over them.

    Attributes:
        values: (arm's name, rate, rounds) -> score.
    """

    def __init__(self, evaluate: Callable[[Sequence[Cell]], pd.Series], keys: Sequence[int]) -> None:
        self._evaluate, self._keys = evaluate, keys
        self.values: dict[tuple[str, float, int], float] = {}

    def score(self, wanted: Sequence[tuple[Arm, float]], length: int) -> None:
        """Score rates at a number of rounds, in one call of `evaluate`."""
        new = [(arm, lr) for arm, lr in wanted if (arm.name, lr, length) not in self.values]
        found = self._evaluate([Cell(arm, lr, key, length) for arm, lr in new for key in self._keys])
        for i, (arm, lr) in enumerate(new):
            values = np.asarray(found)[i * len(self._keys) : (i + 1) * len(self._keys)]
            self.values[arm.name, lr, length] = float(values.mean())

    def best(self, arm: Arm, rates: Sequence[float], length: int) -> list[float]:
        """Rates of an arm, the best first; of equal ones the first given."""
        return sorted(rates, key=lambda lr: -self.values.get((arm.name, lr, length), -np.inf))

    def frame(self, winners: dict[str, float], rounds: int) -> pd.DataFrame:
        """One row per arm, rate and number of rounds: arm, lr, rounds, score, winner (of the arm, at `rounds`)."""
        rows = [
            (name, lr, length, value, lr == winners[name] and length == rounds)
            for (name, lr, length), value in sorted(self.values.items())
        ]
        return pd.DataFrame(rows, columns=["arm", "lr", "rounds", "score", "winner"])


def choose_rates(
    evaluate: Callable[[Sequence[Cell]], pd.Series],
    arms: Sequence[Arm],
    keys: Sequence[int],
    rounds: int,
    start: float,
    octaves: int = 11,
    survivors: int = 5,
    refine: bool = True,
) -> pd.DataFrame:
    """Choose each arm's learning rate by the rule above.

    Args:
        evaluate: cells -> one score per cell, in order, higher is better (-inf for a diverged run).
        arms: the arms.
        keys: tuning keys; a rate's score is the mean over them.
        rounds: the budget R.
        start: the smallest rate of the grid.
        octaves: the number of rates of the first grid; 11 spans three decades.
        survivors: rates per arm that go on after a quarter of the budget; the neighbours of a winner always do.
        refine: add the two rates around each winner.

    Returns:
        One row per arm, rate and number of rounds, with its score and whether it won: arm, lr, rounds, score, winner.
    """
    tried = Scores(evaluate, keys)
    score, best = tried.score, tried.best
    low, high = 0, octaves - 1
    short = max(1, rounds // 4)
    for _ in range(MAX_GROWTHS + 1):
        grid = [start * 2.0**i for i in range(low, high + 1)]
        score([(arm, lr) for arm in arms for lr in grid], short)
        alive = {arm.name: set(best(arm, grid, short)[:survivors]) for arm in arms}
        while True:  # the winner must have both neighbours run to the end
            score([(arm, lr) for arm in arms for lr in sorted(alive[arm.name])], rounds)
            winners = {arm.name: best(arm, sorted(alive[arm.name]), rounds)[0] for arm in arms}
            missing = False
            for arm in arms:
                for neighbour in (winners[arm.name] / 2, winners[arm.name] * 2):
                    if neighbour in grid and neighbour not in alive[arm.name]:
                        alive[arm.name].add(neighbour)
                        missing = True
            if not missing:
                break
        grow_down = any(lr == grid[0] for lr in winners.values())
        grow_up = any(lr == grid[-1] for lr in winners.values())
        if not (grow_down or grow_up):
            break
        low, high = low - 3 * grow_down, high + 3 * grow_up
    else:
        raise ValueError(f"the best rates still lie at the edge of a grid from {grid[0]} to {grid[-1]}: {winners}")
    if refine:
        score([(arm, winners[arm.name] * factor) for arm in arms for factor in (1 / REFINED_RATIO, REFINED_RATIO)], rounds)
        for arm in arms:
            rates = [lr for name, lr, length in tried.values if name == arm.name and length == rounds]
            winners[arm.name] = best(arm, rates, rounds)[0]
    return tried.frame(winners, rounds)
