"""A first picture that needs no data: what H can and does buy on a quadratic of low effective rank.

f(x) = 1/2 sum_j j^-1.5 x_j^2, d = 1000, x_0 = 1, noise-free: effective rank Tr/L = 2.5. Arms: DeComFL; HiSo; HiSo with H
replaced by its mean (scalar) or shuffled over coordinates; the exact diagonal as H; DeComFL at half its exact stability
limit (no tuning), and with a decaying step. All replicates of an arm are one call. For arms whose H does not move the
expected loss is known exactly.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from hiso_bench import methods, records
from hiso_bench.experiments import Plan, Profile
from hiso_bench.federation import Federation, FederationOptions
from hiso_bench.sweeps import Arm, Cell, choose_rates, run
from hiso_bench.theory.recursion import expected_loss
from hiso_bench.theory.stability import max_stable_step
from synthetic.quadratic import Quadratic

VERSION = 2
DIMENSION, EXPONENT, ROUNDS = 1000, 1.5, 4000
P = 5
ORACLE_EPS = 0.01
"""H = diag(Sigma) + 0.01 L for the oracle; set beforehand, not tuned."""
TUNED = (
    Arm("decomfl", "decomfl"),
    Arm("decomfl-decay", "decomfl", {"lr_decay": 4 / ROUNDS}),
    Arm("hiso", "hiso"),
    Arm("hiso-scalar", "hiso-scalar"),
    Arm("hiso-shuffled", "hiso-shuffled"),
    Arm("hiso-oracle", "hiso-oracle", {"eps": ORACLE_EPS}),
)
THEORY = Arm("decomfl-theory", "decomfl")
TUNING_KEY, RESULT_KEY = 101, 1
TUNING_REPLICATES, REPLICATES = 8, 15
START = 2.0**-10
SHOWN = np.unique(np.round(np.concatenate([[0], np.geomspace(1, ROUNDS, 250)])).astype(int))


def _config() -> dict[str, Any]:
    return {"dimension": DIMENSION, "exponent": EXPONENT, "rounds": ROUNDS, "P": P, "mu": 1e-3, "version": VERSION}


def _curves(replicates: int, cell: Cell) -> pd.DataFrame:
    """Loss per shown round and replicate; NaN from where a replicate diverged."""
    problem = Quadratic(DIMENSION, "power", EXPONENT, clients=1, replicates=(replicates,))
    given = {"h": problem.oracle_h()} if cell.arm.method == "hiso-oracle" else {}
    method = methods.build(cell.arm.method, cell.arm.options, lr=cell.lr, perturbations=P, **given)
    federation = Federation(problem, method, FederationOptions(key=cell.key, wire="float64", on_divergence="freeze"))
    rows = []
    for r in range(cell.rounds + 1):
        if r in SHOWN or r == cell.rounds:
            loss = problem.loss(federation.state.x, None).where(federation.alive, torch.nan)
            rows += [(r, i, value) for i, value in enumerate(loss.tolist())]
        if r < cell.rounds:
            federation.round()
    return pd.DataFrame(rows, columns=["round", "replicate", "loss"])


def _score(frame: pd.DataFrame) -> float:
    last = frame[frame["round"] == frame["round"].max()]["loss"].to_numpy()
    return float(-np.log(last).mean()) if np.isfinite(last).all() else -np.inf


def theory_rate() -> float:
    """Half of DeComFL's exact largest mean-square stable step on this spectrum."""
    s = Quadratic(DIMENSION, "power", EXPONENT).spectrum
    return 0.5 * max_stable_step(s, np.ones_like(s), P)


def _exact(arms: Sequence[Arm], chosen: dict[str, float]) -> pd.DataFrame:
    s = Quadratic(DIMENSION, "power", EXPONENT).spectrum
    frames = []
    for arm in arms:
        if arm.method not in ("decomfl", "hiso-oracle"):
            continue
        h = s + ORACLE_EPS if arm.method == "hiso-oracle" else np.ones_like(s)
        eta = chosen[arm.name] / (1 + arm.options.get("lr_decay", 0.0) * np.arange(ROUNDS))
        exact = expected_loss(s, h, np.ones_like(s), eta, P, ROUNDS, mu=1e-3)
        frames.append(pd.DataFrame({"arm": arm.name, "round": SHOWN, "loss": exact[SHOWN]}))
    return pd.concat(frames, ignore_index=True)


class LowRank:
    """The comparison as an `experiments.Experiment`."""

    name = "low_rank"
    profile: Profile = "quick"

    def plan(self) -> Plan:
        """Per arm: twelve rates for a quarter of the rounds, about five of them to the end, two more around the winner."""
        started = time.monotonic()
        _curves(REPLICATES, Cell(TUNED[2], START, TUNING_KEY, 50))
        per_run = (time.monotonic() - started) / 50 * ROUNDS
        return Plan(len(TUNED) + 1, len(TUNED) * (12 / 4 + 5 * 3 / 4 + 2), per_run)

    def tune(self, results: Path, work: Path, jobs: int) -> pd.DataFrame:
        """Choose every tuned arm's rate by the mean log of its final loss; the whole grid goes to results/low_rank_grid.csv."""

        def evaluate(cells: Sequence[Cell]) -> pd.Series:
            if not cells:
                return pd.Series(dtype=float)
            frame = run(functools.partial(_curves, TUNING_REPLICATES), cells, work / "low_rank_tuning", _config(), jobs)
            groups = {name: part for name, part in frame.groupby(["arm", "lr", "rounds_run"])}
            return pd.Series([_score(groups[c.arm.name, c.lr, c.rounds]) for c in cells])

        grid = choose_rates(evaluate, TUNED, [TUNING_KEY], ROUNDS, START)
        config = _config() | {"tuning_key": TUNING_KEY, "replicates": TUNING_REPLICATES, "score": "minus mean log final loss"}
        records.write(grid, results / "low_rank_grid.csv", config, VERSION)
        return grid

    def compare(self, grids: Path, results: Path, work: Path, jobs: int) -> None:
        """Run every arm at its own rate on the result key; write the curves and the exact expectations of the fixed-H arms."""
        grid, _ = records.read(grids / "low_rank_grid.csv")
        won = grid[grid["winner"]]
        chosen = dict(zip(won["arm"], won["lr"], strict=True)) | {THEORY.name: theory_rate()}
        config = _config() | {"rates": chosen, "key": RESULT_KEY, "replicates": REPLICATES}
        target = results / "low_rank.csv"
        if records.current(target, config, VERSION):
            return
        arms = (*TUNED, THEORY)
        cells = [Cell(arm, chosen[arm.name], RESULT_KEY, ROUNDS) for arm in arms]
        frame = run(functools.partial(_curves, REPLICATES), cells, work / "low_rank", _config(), jobs)
        records.write(_exact(arms, chosen), results / "low_rank_exact.csv", config, VERSION)
        records.write(frame.drop(columns=["rounds_run", "key"]), target, config, VERSION)


LOW_RANK = LowRank()
