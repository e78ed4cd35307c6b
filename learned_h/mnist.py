"""The ablation on real images: the CNN of HiSo's Figure 5 on MNIST, batch 8, every arm with the same budget for its rate.

64 clients, 8 sampled, Dirichlet 1, P = 5, forward difference, 500 rounds. Rates by successive halving (`halving`) on validation
images and a tuning key, at most four runs' worth of rounds per arm; results on test images and other keys, paired: all arms
see the same split, initial point, batches and directions (of twice as many directions, the first P are they).

    ablation_mnist.csv        arm, lr, key, round, bytes_up, bytes_down, forward_passes, metric, value
    ablation_mnist_grid.csv   every rate that was tried
"""

from __future__ import annotations

import functools
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from hiso_bench import comparison, records
from hiso_bench.experiments import Plan, Profile
from hiso_bench.federation import FederationOptions
from hiso_bench.halving import Rungs, at_edge, halve
from hiso_bench.sweeps import Arm, Cell, run
from hiso_bench.training import Schedule
from learned_h.arms import HISO, LEAVES, PLAIN, P
from vision.problems import ImageProblem

VERSION = 1
CLIENTS, SAMPLED, BATCH, ROUNDS, EVERY = 64, 8, 8, 500, 50
TUNING_KEY, KEYS = 101, (1, 2, 3, 4, 5)
START = 2.0**-14
RUNGS = Rungs(rounds=(40, 150, ROUNDS), survivors=(3, 2), octaves=11, budget=2000, growth=3)
ARMS = (*PLAIN, *HISO, *LEAVES, Arm("meazo", "meazo"), Arm("zo-rmsprop", "zo-rmsprop"))


class Mnist:
    """The comparison as an `experiments.Experiment`."""

    name = "ablation_mnist"
    profile: Profile = "standard"

    def plan(self) -> Plan:
        """Per arm the rungs' rounds and one run per key; P = 10 costs twice."""
        seconds = comparison.seconds(_problem("test", KEYS[0]), 1e-4, SAMPLED, ROUNDS, EVERY)
        tuning = (RUNGS.octaves * RUNGS.rounds[0] + RUNGS.ahead(0)) / ROUNDS
        arms = len(ARMS) + 1
        return Plan(arms * len(KEYS), arms * tuning, seconds)

    def tune(self, results: Path, work: Path, jobs: int) -> pd.DataFrame:
        """Choose every arm's rate by its mean validation loss; write ablation_mnist_grid.csv."""
        work_on = functools.partial(_work, work / "ledgers", "validation")
        evaluate = comparison.scores(work_on, _score, work / f"{self.name}_tuning", _config(), jobs)
        grid = halve(evaluate, ARMS, TUNING_KEY, START, RUNGS)
        config = _config() | {
            "tuning_key": TUNING_KEY, "rungs": asdict(RUNGS), "score": "minus mean validation loss, last half",
            "rule": "successive halving", "at_edge": at_edge(grid),
        }  # fmt: skip
        records.write(grid, results / f"{self.name}_grid.csv", config, VERSION)
        return grid

    def compare(self, grids: Path, results: Path, work: Path, jobs: int) -> None:
        """Run every arm at its recorded rate on the result keys, key by key."""
        chosen = comparison.rates(grids / f"{self.name}_grid.csv")
        config = _config() | {"keys": KEYS, "rates": chosen}
        target = results / f"{self.name}.csv"
        if records.current(target, config, VERSION):
            return
        cells = [Cell(arm, chosen[arm.name], key, ROUNDS) for key in KEYS for arm in ARMS]
        frame = run(functools.partial(_result, work / "ledgers"), cells, work / self.name, _config(), jobs)
        records.write(frame.drop(columns="rounds_run"), target, config, VERSION)


def _config() -> dict[str, Any]:
    return {
        "dataset": "mnist", "clients": CLIENTS, "sampled": SAMPLED, "batch_size": BATCH, "rounds": ROUNDS, "P": P,
        "evaluate_every": EVERY, "split": "dirichlet", "alpha": 1.0, "version": VERSION,
    }  # fmt: skip


def _problem(part: str, key: int) -> ImageProblem:
    return ImageProblem("mnist", CLIENTS, batch_size=BATCH, evaluate_on=part, key=key)


def _work(folder: Path, part: str, cell: Cell) -> pd.DataFrame:
    """One run, continued from its ledger if a shorter run of the same rate left one."""
    name = records.config_hash(_config() | {"arm": asdict(cell.arm), "lr": cell.lr, "key": cell.key, "on": part})
    arm = Arm(cell.arm.name, cell.arm.method, {"perturbations": P} | cell.arm.options)
    options = FederationOptions(sampled=SAMPLED, key=cell.key)
    schedule = Schedule(rounds=cell.rounds, evaluate_every=EVERY)
    return comparison.train(_problem(part, cell.key), arm, cell.lr, options, schedule, folder / name)[1]


def _result(folder: Path, cell: Cell) -> pd.DataFrame:
    frame = _work(folder, "test", cell)
    shutil.rmtree(
        folder / records.config_hash(_config() | {"arm": asdict(cell.arm), "lr": cell.lr, "key": cell.key, "on": "test"})
    )
    return frame


def _score(frame: pd.DataFrame, rounds: int) -> float:
    """Minus the mean validation loss over the last half of the budget; -inf for a run that did not reach the end."""
    loss = frame[frame["metric"] == "loss"].set_index("round")["value"]
    if rounds not in loss.index or not np.isfinite(loss.loc[rounds]):
        return -np.inf
    return -float(loss[loss.index >= rounds / 2].mean())


MNIST = Mnist()
