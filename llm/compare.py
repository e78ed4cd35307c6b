"""Methods compared on fine-tuning a language model: DeComFL, HiSo, and HiSo with H replaced by its mean.

6 clients, 2 sampled, Dirichlet 1, P = 5, tau = 1, mu = 1e-3, forward difference, 16 examples per client: the papers' set-up (the
batch is that of the official scripts). Rates are chosen by `halving.halve` on validation examples and one tuning key; results are
scores on test examples with other keys. Beside them stand the score before fine-tuning and what AdamW makes of the same model
with gradients. A key is the key of split, batches and directions, and of the pre-training too where `pretrained_by_key` says so.
"""

from __future__ import annotations

import functools
import json
import shutil
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from hiso_bench import catalogue, comparison, methods, records
from hiso_bench.experiments import Plan, Profile
from hiso_bench.federation import FederationOptions
from hiso_bench.halving import Rungs, at_edge, halve, rounds_spent
from hiso_bench.sweeps import Arm, Cell, kept, run
from hiso_bench.training import Schedule
from llm import first_order

VERSION = 1
SAMPLED = 2
ARMS = (
    Arm("decomfl", "decomfl"),
    Arm("hiso", "hiso", {"ema_new": 0.05}),
    Arm("hiso-scalar", "hiso-scalar", {"ema_new": 0.05}),
)
CEILING = Arm("first-order", "adamw")
"""No method of the federation: `llm.first_order` on all clients' examples pooled."""
WHOLE = "whole_"
"""Before the name of a metric: on the whole test part, where the curves are on a sample of it."""
_SNAPSHOT_EVERY = 100


@dataclass(frozen=True)
class Ceiling:
    """How far gradients are let go: rates tried on the tuning key, epochs, and the most training examples (0: the arms')."""

    rates: tuple[float, ...] = (3e-4, 1e-3, 3e-3)
    epochs: int = 2
    train_limit: int = 0


@dataclass(frozen=True)
class Comparison:
    """One comparison: an `experiments.Experiment`. The tuning key is none of the result keys.

    Attributes:
        name: of the experiment.
        profile: the smallest profile that recomputes it.
        table: stem of its files, results/<table>.csv and <table>_grid.csv.
        problem: a problem of the catalogue that fine-tunes: `lm`, or one with the same evaluation and pooled batches.
        options: of the problem, but for key, evaluate_on and evaluate_limit.
        start: smallest rate of the first grid.
        rounds: R.
        evaluate_every: rounds between the points of a curve.
        evaluate_limit: most test examples for these points (0: all); the last round is scored on all of them as well.
        tuning_key: the rates'.
        keys: the results'.
        pretrained_by_key: the base model is tiny-opt, pre-trained anew from each key.
        ceiling: the first-order runs.
        rungs: of the halving.
    """

    name: str
    profile: Profile
    table: str
    problem: str
    options: dict[str, Any]
    start: float = 2.0**-16
    rounds: int = 600
    evaluate_every: int = 25
    evaluate_limit: int = 500
    tuning_key: int = 0
    keys: tuple[int, ...] = (1, 2, 3, 4, 5)
    pretrained_by_key: bool = False
    ceiling: Ceiling = field(default_factory=Ceiling)
    rungs: Rungs = field(default_factory=Rungs)

    def plan(self) -> Plan:
        """Per arm: a run per key, and the rungs; a first-order run counts for the forward passes that it costs."""
        problem = self.build(self.tuning_key, "test", self.evaluate_limit)
        seconds = comparison.seconds(problem, self.start, SAMPLED, self.rounds, self.evaluate_every)
        steps = -(-min(len(problem.train), self.ceiling.train_limit or len(problem.train)) // problem.batch_size)
        # An epoch's step is a forward and a backward pass, about three forward passes; a round is 2 (P + 1) of them.
        first_order_runs = self.ceiling.epochs * steps * 3 / (self.rounds * SAMPLED * 6)
        return Plan(
            round(len(self.keys) * (len(ARMS) + first_order_runs)),
            len(ARMS) * self.rungs.budget / self.rounds + len(self.ceiling.rates) * first_order_runs,
            seconds,
        )

    def build(self, key: int, evaluate_on: str, evaluate_limit: int = 0, **more: Any) -> Any:
        """The problem of a key: a `LanguageProblem`, or one like it."""
        options = self.options | more
        if self.pretrained_by_key:
            from llm.tiny import folder

            options |= {"model": str(folder(key))}
        options |= {"key": key, "evaluate_on": evaluate_on, "evaluate_limit": evaluate_limit}
        return _built(self.problem, json.dumps(options, sort_keys=True))

    def tune(self, results: Path, work: Path, jobs: int) -> pd.DataFrame:
        """Choose every arm's rate, the ceiling's as well, and write the whole grid to results/<table>_grid.csv."""
        config = self._config("validation")
        of = functools.partial(_tuning_work, self, config, work / "ledgers")
        evaluate = comparison.scores(of, minus_loss, work / f"{self.name}_tuning", config, jobs)
        grid = pd.concat([self._ceiling_grid(evaluate), halve(evaluate, ARMS, self.tuning_key, self.start, self.rungs)])
        told = {
            "rule": "successive halving",
            "rungs": asdict(self.rungs),
            "rounds": self.rungs.rounds[-1],
            "rounds_spent": rounds_spent(pd.DataFrame(grid[grid["arm"] != CEILING.name])),
            "at_edge": at_edge(grid),
            "tuning_key": self.tuning_key,
            "score": "minus the validation loss at the last round",
        }
        records.write(grid, results / f"{self.table}_grid.csv", config | told, VERSION)
        return grid

    def _ceiling_grid(self, evaluate: Any) -> pd.DataFrame:
        """The ceiling's rates, run to the end; the column `rounds` counts epochs."""
        epochs = self.ceiling.epochs
        found = evaluate([Cell(CEILING, lr, self.tuning_key, epochs) for lr in self.ceiling.rates])
        best = int(np.argmax(found))
        rows = [(CEILING.name, lr, epochs, s, i == best) for i, (lr, s) in enumerate(zip(self.ceiling.rates, found, strict=True))]
        return pd.DataFrame(rows, columns=["arm", "lr", "rounds", "score", "winner"])

    def compare(self, grids: Path, results: Path, work: Path, jobs: int) -> None:
        """Run every arm at its own rate, key by key; the table is written anew whenever a key is whole."""
        chosen = comparison.rates(grids / f"{self.table}_grid.csv")
        config = self._config("test")
        told = {"rounds": self.rounds, "rates": chosen, "planned": self.keys}
        target = results / f"{self.table}.csv"
        if records.current(target, config | told | {"keys": self.keys}, VERSION):
            return
        # The ceiling first: it is short, and says early how far there is to go.
        cells = {
            key: [
                Cell(CEILING, chosen[CEILING.name], key, self.ceiling.epochs),
                *(Cell(arm, chosen[arm.name], key, self.rounds) for arm in ARMS),
            ]
            for key in self.keys
        }
        folder = work / self.name
        written: list[int] = []

        def write_whole_keys() -> None:
            frames = {key: found for key, part in cells.items() if (found := kept(part, folder, config)) is not None}
            if list(frames) != written:
                written[:] = frames
                frame = pd.concat(frames.values(), ignore_index=True).drop(columns="rounds_run")
                records.write(frame, target, config | told | {"keys": written}, VERSION)

        write_whole_keys()
        of = functools.partial(_result_work, self, config, work / "ledgers")
        run(of, [cell for part in cells.values() for cell in part], folder, config, jobs, write_whole_keys)

    def _config(self, evaluate_on: str) -> dict[str, Any]:
        """What every cell depends on, the examples and the tuning key's weights by their hashes."""
        problem = self.build(self.tuning_key, evaluate_on)
        described = problem.describe()
        reference = methods.build("decomfl", lr=1.0)
        return {
            "problem": self.problem,
            **self.options,
            **{name: described[name] for name in ("split", "alpha", "batch_size", "base_hash", "data_hash") if name in described},
            "clients": problem.clients,
            "sampled": SAMPLED,
            "P": reference.perturbations,
            "mu": reference.mu,
            "difference": reference.difference,
            "evaluate_every": self.evaluate_every,
            "evaluate_limit": self.evaluate_limit,
            "ceiling": {"epochs": self.ceiling.epochs, "train_limit": self.ceiling.train_limit},
            "pretrained_by_key": self.pretrained_by_key,
            "version": VERSION,
        }


@functools.lru_cache(maxsize=1)
def _built(problem: str, options: str) -> Any:
    """A problem by its options; the runs of a rung that follow one another in a process share one. None of them changes it."""
    return catalogue.problem(problem, json.loads(options))


def minus_loss(frame: pd.DataFrame, rounds: int) -> float:
    """Minus the loss after the last round; -inf for a run that did not get there, or to a loss that is no number."""
    loss = frame.loc[(frame["metric"] == "loss") & (frame["round"] == rounds), "value"]
    return -float(loss.iloc[0]) if len(loss) and np.isfinite(loss.iloc[0]) else -np.inf


def _train(setting: Comparison, cell: Cell, evaluate_on: str, home: Path) -> tuple[Any, pd.DataFrame]:
    """One run of an arm up to `cell.rounds`, and its curve."""
    limit, every, snapshots = setting.evaluate_limit, setting.evaluate_every, _SNAPSHOT_EVERY
    if evaluate_on == "validation":  # a rung is scored where it ends, and so short that its ledger is replayed in no time
        limit, every, snapshots = 0, 1 << 30, 0
    problem = setting.build(cell.key, evaluate_on, limit)
    schedule = Schedule(rounds=cell.rounds, evaluate_every=every, snapshot_every=snapshots)
    options = FederationOptions(sampled=SAMPLED, key=cell.key)
    return comparison.train(problem, cell.arm, cell.lr, options, schedule, home)


def _home(config: dict[str, Any], cell: Cell, evaluate_on: str, folder: Path) -> Path:
    """The folder of a run's ledger: that of every rung of a rate."""
    return folder / records.config_hash(config | {"arm": asdict(cell.arm), "lr": cell.lr, "key": cell.key, "on": evaluate_on})


def _tuning_work(setting: Comparison, config: dict[str, Any], folder: Path, cell: Cell) -> pd.DataFrame:
    if cell.arm == CEILING:
        return _ceiling(setting, cell, "validation")
    return _train(setting, cell, "validation", _home(config, cell, "validation", folder))[1]


def _result_work(setting: Comparison, config: dict[str, Any], folder: Path, cell: Cell) -> pd.DataFrame:
    if cell.arm == CEILING:
        return _ceiling(setting, cell, "test")
    home = _home(config, cell, "test", folder)
    live, frame = _train(setting, cell, "test", home)
    if live.federation.state.round == cell.rounds:
        last = pd.DataFrame(frame[frame["round"] == cell.rounds])
        scored = dict(zip(last["metric"], last["value"], strict=True))
        if setting.evaluate_limit:
            scored = setting.build(cell.key, "test").evaluate(live.federation.state.x)
        at_end = {name: last[name].iloc[0] for name in ("round", "bytes_up", "bytes_down", "forward_passes")}
        frame = pd.concat([frame, _rows(at_end, scored)])
    shutil.rmtree(home, ignore_errors=True)
    # A ledger read from its file gives metrics in another order than one in use.
    return frame.sort_values(["round", "metric"], ignore_index=True)


def _ceiling(setting: Comparison, cell: Cell, evaluate_on: str) -> pd.DataFrame:
    """First-order training; `round` counts epochs, and nothing is sent. Epoch 0 is the model as it was pre-trained."""
    limited = {"train_limit": setting.ceiling.train_limit} if setting.ceiling.train_limit else {}
    problem = setting.build(cell.key, evaluate_on, **limited)
    try:
        _, epochs = first_order.train(problem, cell.lr, cell.rounds, key=cell.key)
    except FloatingPointError:  # a rate too large, as any arm's may be
        epochs = []
    parts = [
        _rows({"round": epoch.epoch, "bytes_up": 0, "bytes_down": 0, "forward_passes": 0}, epoch.metrics, part)
        for epoch in epochs
        for part in ("", WHOLE)
    ]
    return pd.concat(parts, ignore_index=True) if parts else _rows({"round": 0}, {})


def _rows(at: dict[str, int], scored: dict[str, float], prefix: str = WHOLE) -> pd.DataFrame:
    """Evaluations at one point of a run, in the columns of `training.curve`."""
    columns = ["round", "bytes_up", "bytes_down", "forward_passes", "metric", "value"]
    return pd.DataFrame([at | {"metric": prefix + name, "value": value} for name, value in scored.items()], columns=columns)


def _tiny(task: str, evaluate_limit: int) -> Comparison:
    """tiny-opt on a generated task, every key with its own pre-training."""
    name, options = f"llm_{task.replace('-', '_')}", {"model": "tiny-opt", "task": task}
    table = f"llm_tiny-opt_{task}"
    return Comparison(name, "standard", table, "lm", options, evaluate_limit=evaluate_limit, pretrained_by_key=True)


def _real(name: str, problem: str, model: str, rounds: int, rungs: Rungs) -> Comparison:
    """A pretrained model on real SST-2, every evaluation on the whole development set; fewer rounds than the generated tasks."""
    return Comparison(
        name, "standard", f"llm_{model}_sst2", problem, {"model": model, "task": "sst2"}, rounds=rounds, evaluate_limit=0,
        keys=(1, 2, 3), ceiling=Ceiling((1e-4, 3e-4, 1e-3), epochs=1, train_limit=4000), rungs=rungs,
    )  # fmt: skip


TOY_SST2, TOY_QQP, TOY_SQUAD = _tiny("toy-sst2", 1000), _tiny("toy-qqp", 1000), _tiny("toy-squad", 500)
IMDB_SST2 = _real("llm_imdb_sst2", "lm", "imdb-opt", 200, Rungs(rounds=(6, 22, 64), budget=250))
MINILM_SST2 = _real("llm_minilm_sst2", "minilm", "minilm", 300, Rungs(rounds=(10, 35, 100), budget=375))
