"""HiSo's Figure 5 on real images: DeComFL (constant and decaying step), HiSo at three EMA weights, HiSo with a scalar H.

64 clients, 8 sampled, Dirichlet 1, P = 5, forward difference (the paper's set-up; batch, rounds, rates and mu are not
printed there). The paper's nu = 0.9 / 0.95 / 0.99 are read in the official code's sense: ema_new = 0.1 / 0.05 / 0.01.
Every arm has its own learning rate, chosen by `sweeps.choose_rates` on validation images and tuning keys; curves are
test accuracy on other keys.
"""

from __future__ import annotations

import functools
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from hiso_bench import comparison, records, training
from hiso_bench.directions import Directions
from hiso_bench.experiments import Plan, Profile
from hiso_bench.federation import Federation, FederationOptions
from hiso_bench.sweeps import Arm, Cell, choose_rates, run
from hiso_bench.training import Schedule
from vision.problems import ImageProblem

VERSION = 1
CLIENTS, SAMPLED = 64, 8
_NULL_SALT = 0x9E3779B97F4A7C15


@dataclass(frozen=True)
class Fig5:
    """One comparison: an `experiments.Experiment`. Tuning keys and result keys are disjoint."""

    name: str
    profile: Profile

    dataset: str
    rounds: int
    batch_size: int
    evaluate_every: int
    tuning_keys: tuple[int, ...]
    keys: tuple[int, ...]
    start: float = 2.0**-14
    """Smallest rate of the first grid."""
    survivors: int = 5
    """Rates per arm that are run to the end."""

    @property
    def arms(self) -> tuple[Arm, ...]:
        """DeComFL with a constant and with a decaying step (a fifth of it at the end); HiSo; HiSo with its mean for H."""
        return (
            Arm("decomfl", "decomfl"),
            Arm("decomfl-decay", "decomfl", {"lr_decay": 4 / self.rounds}),
            Arm("hiso-0.1", "hiso", {"ema_new": 0.1}),
            Arm("hiso", "hiso", {"ema_new": 0.05}),
            Arm("hiso-0.01", "hiso", {"ema_new": 0.01}),
            Arm("hiso-scalar", "hiso-scalar", {"ema_new": 0.05}),
        )

    def plan(self) -> Plan:
        """Per arm: twelve rates for a quarter of the rounds, about five of them to the end, two more around the winner."""
        arms = len(self.arms)
        problem = ImageProblem(self.dataset, CLIENTS, batch_size=self.batch_size)
        seconds = comparison.seconds(problem, 1e-4, SAMPLED, self.rounds, self.evaluate_every)
        return Plan(arms * len(self.keys), arms * len(self.tuning_keys) * (12 / 4 + 5 * 3 / 4 + 2), seconds)

    def tune(self, results: Path, work: Path, jobs: int) -> pd.DataFrame:
        """Choose every arm's rate and write the whole grid to results/<name>_grid.csv."""
        work_on = functools.partial(_tuning_work, self, work / "ledgers")
        evaluate = comparison.scores(work_on, _score, work / f"{self.name}_tuning", _config(self), jobs)
        grid = choose_rates(evaluate, self.arms, self.tuning_keys, self.rounds, self.start, survivors=self.survivors)
        config = _config(self) | {
            "rounds": self.rounds,
            "tuning_keys": self.tuning_keys,
            "score": "validation accuracy, last fifth",
        }
        records.write(grid, results / f"{self.name}_grid.csv", config, VERSION)
        return grid

    def rates(self, results: Path) -> dict[str, float]:
        """The chosen rate of each arm, from the recorded grid."""
        return comparison.rates(results / f"{self.name}_grid.csv")

    def compare(self, grids: Path, results: Path, work: Path, jobs: int) -> None:
        """Run every arm at its own rate on the result keys; write curves, H's entries (first key) and statistics (all)."""
        chosen = self.rates(grids)
        config = _config(self) | {"rounds": self.rounds, "keys": self.keys, "rates": chosen}
        target = results / f"{self.name}.csv"
        if records.current(target, config, VERSION):
            return
        # Key by key, so that a stopped sweep has whole keys.
        cells = [Cell(arm, chosen[arm.name], key, self.rounds) for key in self.keys for arm in self.arms]
        folder = work / f"{self.name}"
        frame = run(functools.partial(_result_work, self, work / "ledgers"), cells, folder, _config(self), jobs)
        entries = frame["metric"].isin(["h", "h_null"])
        first = frame[entries & (frame["key"] == self.keys[0])]
        h = first.rename(columns={"round": "index", "metric": "of"})[["arm", "key", "of", "index", "value"]]
        # A picture needs no more than some thousand entries; the statistics are over all of them.
        h = h[h["index"] % max(1, int(h["index"].max()) // 2000) == 0].assign(value=lambda f: f["value"].round(6))
        records.write(h, results / f"{self.name}_h.csv", config, VERSION)
        records.write(_summary_of_h(frame), results / f"{self.name}_h_summary.csv", config, VERSION)
        records.write(frame[~entries].drop(columns="rounds_run"), target, config, VERSION)


DIGITS = Fig5("fig5_digits", "quick", "digits", 1500, 8, 25, tuning_keys=(101, 102, 103), keys=(1, 2, 3, 4, 5))
MNIST = Fig5("fig5_mnist", "standard", "mnist", 1000, 32, 50, tuning_keys=(101,), keys=(1, 2, 3), survivors=3)
MNIST_PAPER = Fig5("fig5_mnist_paper", "paper", "mnist", 2500, 32, 50, tuning_keys=(101, 102, 103), keys=tuple(range(1, 11)))


def _config(setting: Fig5) -> dict[str, Any]:
    fixed = {"clients": CLIENTS, "sampled": SAMPLED, "split": "dirichlet", "alpha": 1.0, "version": VERSION}
    return {k: v for k, v in asdict(setting).items() if k in ("dataset", "batch_size", "evaluate_every")} | fixed


def _train(setting: Fig5, cell: Cell, evaluate_on: str, folder: Path) -> tuple[training.Run, pd.DataFrame]:
    """One run up to `cell.rounds`, continued from its ledger if a shorter run of the same cell left one."""
    problem = ImageProblem(setting.dataset, CLIENTS, batch_size=setting.batch_size, evaluate_on=evaluate_on, key=cell.key)
    schedule = Schedule(rounds=cell.rounds, evaluate_every=setting.evaluate_every)
    name = records.config_hash(_config(setting) | {"arm": asdict(cell.arm), "lr": cell.lr, "key": cell.key, "on": evaluate_on})
    options = FederationOptions(sampled=SAMPLED, key=cell.key)
    return comparison.train(problem, cell.arm, cell.lr, options, schedule, folder / name)


def _tuning_work(setting: Fig5, folder: Path, cell: Cell) -> pd.DataFrame:
    return _train(setting, cell, "validation", folder)[1]


def _score(frame: pd.DataFrame, rounds: int) -> float:
    """Mean validation accuracy over the last fifth of the budget; -inf for a run that did not reach the end."""
    accuracy = frame[frame["metric"] == "accuracy"].set_index("round")["value"]
    if rounds not in accuracy.index:
        return -np.inf
    return float(accuracy[accuracy.index > 0.8 * rounds].mean())


def _result_work(setting: Fig5, folder: Path, cell: Cell) -> pd.DataFrame:
    live, frame = _train(setting, cell, "test", folder)
    if "h" in live.federation.state.buffers and live.federation.state.round == cell.rounds:
        frame = pd.concat([frame, _learned_h(live)], ignore_index=True)
    shutil.rmtree(live.ledger.path.parent if live.ledger.path else folder, ignore_errors=True)
    return frame


def _learned_h(live: training.Run) -> pd.DataFrame:
    """The final H, and its null: the run's own scalars replayed along directions that never saw the loss.

    The null has every scalar, EMA weight and round of the run, so its spread is what the EMA of squared Gaussians gives
    by itself; what the learned H has beyond it is information about coordinates.
    """
    federation = live.federation
    options = federation.options
    null = Federation(federation.problem, federation.method, options)
    other = Directions(null.directions.layout, options.key ^ _NULL_SALT, options.law, cache_bytes=options.cache_bytes)
    null.directions = other
    for record in live.ledger.rounds:
        null.replay(record)
    parts = []
    for metric, state in (("h", federation.state), ("h_null", null.state)):
        flat = torch.cat([leaf.flatten() for leaf in state.buffers["h"]]).double().numpy()
        parts.append(pd.DataFrame({"round": np.arange(flat.size), "metric": metric, "value": flat}))
    return pd.concat(parts, ignore_index=True)


def _summary_of_h(frame: pd.DataFrame) -> pd.DataFrame:
    """Per arm and key: mean, standard deviation of log H, and quantiles, of H and of its null."""
    rows = []
    for (arm, key, metric), part in frame[frame["metric"].isin(["h", "h_null"])].groupby(["arm", "key", "metric"]):
        values = part["value"].to_numpy()
        rows.append((arm, key, metric, "mean", values.mean()))
        rows.append((arm, key, metric, "std_log", np.log(values).std()))
        for q in (0.001, 0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99, 0.999):
            rows.append((arm, key, metric, f"q{q}", np.quantile(values, q)))
    return pd.DataFrame(rows, columns=["arm", "key", "of", "statistic", "value"])
