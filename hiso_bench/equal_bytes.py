"""Loss at equal bytes, whatever is trained: what every experiment that compares methods byte by byte has in common.

Bytes are those of the ledgers, frames included, in three counts:

- "uplink": what the clients sent.
- "total": what clients and server sent. Compression is of the uplink; the downlink of a first-order round is the dense point.
- "total with base": the same, and the dense base model for every client of a method that needs it and does not send it. A client
  that is sent the whole model whenever it is sampled needs no other, so nothing is added.

Every arm runs at equally many rates of ratio 2, about its own pilot's, on the tuning keys; for every count and budget it takes
the rate with the smallest mean loss there. An arm with a server's rate beside its clients' tries every rate of the one at a few
of the other, so more pairs than the rest have rates. Results come from other keys.

    <name>.csv        arm, lr, client_lr, count, budget, key, rounds, loss, accuracy at the last evaluation within the budget; the
                      last two are missing where the run had diverged by then
    <name>_rates.csv  arm, lr, client_lr, count, budget, loss (mean over tuning keys; inf: a key diverged), winner

lr is the rate on the grid, the server's or the clients'; client_lr the clients', 0 for a method whose clients have none.
"""

from __future__ import annotations

import functools
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from hiso_bench import methods, records, sweeps, training
from hiso_bench.experiments import Plan, Profile
from hiso_bench.federation import FederationOptions, NonFiniteScalarError
from hiso_bench.first_order.base import FirstOrder
from hiso_bench.problems import Problem
from hiso_bench.sweeps import Cell
from hiso_bench.training import Schedule

UPLINK, TOTAL, WITH_BASE = "uplink", "total", "total with base"
NUMBER = 4
"""Bytes of a dense number."""
RATES = ["lr", "client_lr"]
"""The columns that tell an arm's runs on one key apart."""
Budgets = Mapping[str, tuple[int, ...]]
"""Count -> bytes of all clients and the server together, ascending."""


@dataclass(frozen=True)
class Sender(sweeps.Arm):
    """An arm of a comparison.

    Attributes:
        start: smallest rate.
        rounds: how many it takes.
        local_steps: tau.
        tuned: which option the swept rate is: the server's, or the clients' where there are several local steps.
        every: rounds between evaluations.
        client_rates: the clients' rates at each of which it tries every rate of the server's; none: its options hold the one.
    """

    start: float = 2.0**-6
    rounds: int = 340
    local_steps: int = 1
    tuned: str = "lr"
    every: int = 10
    client_rates: tuple[float, ...] = ()

    def rates(self, octaves: int) -> tuple[float, ...]:
        """So many rates of ratio 2."""
        return tuple(self.start * 2.0**i for i in range(octaves))

    def variants(self) -> tuple[Sender, ...]:
        """The arm at each of its clients' rates."""
        told = [replace(self, options=self.options | {"client_lr": rate}, client_rates=()) for rate in self.client_rates]
        return tuple(told) or (self,)

    @property
    def scalars(self) -> bool:
        """Whether the method sends scalars."""
        return self.method in methods.PRESETS

    @property
    def needs_base(self) -> bool:
        """Whether its clients have to be handed the base model, because no message of a round holds it."""
        return self.scalars


def curve(
    problem: Problem, arm: Sender, lr: float, options: FederationOptions, budgets: Budgets, base: int, ends: bool = False
) -> pd.DataFrame:
    """One run: client_lr, count, budget, rounds, loss, accuracy for every budget; NaN where the run had diverged by then.

    Args:
        problem: what is trained; its evaluation has a loss and an accuracy.
        arm: the arm.
        lr: the rate that `arm.tuned` names.
        options: the federation's, with the arm's local steps.
        budgets: of every count.
        base: bytes of handing out the base model to every client; counted in "total with base" if the arm needs it.
        ends: an arm whose rounds are over sends no more, and at larger budgets is where it was then: there its loss is an upper
            bound of what these bytes could buy. Otherwise its rounds must reach the largest budget of every count.

    Raises:
        ValueError: the arm's rounds do not reach a budget that they must reach, or the smallest does not hold the base model.
    """
    schedule = Schedule(rounds=arm.rounds, evaluate_every=arm.every, snapshot_every=0)
    method = methods.build(arm.method, arm.options, **{arm.tuned: lr})
    client_lr = method.local_rate if isinstance(method, FirstOrder) else 0.0
    live = training.Run(problem, arm.method, method, options, schedule)
    diverged = False
    try:
        live.go()
    except NonFiniteScalarError:
        diverged = True
    points = training.curve(live.ledger)
    seen: Any = points.pivot(index="round", columns="metric", values="value")
    told: Any = points.drop_duplicates("round").set_index("round")
    sent = {UPLINK: told["bytes_up"], TOTAL: told["bytes_up"] + told["bytes_down"]}
    sent[WITH_BASE] = sent[TOTAL] + (base if arm.needs_base else 0)
    rows = []
    for count, own in budgets.items():
        spent = sent[count].to_numpy()
        if not (diverged or ends) and spent[-1] < own[-1]:
            raise ValueError(f"{arm.name} sends {spent[-1]} bytes ({count}) in {arm.rounds} rounds; needed: {own[-1]}")
        if spent[0] > own[0]:
            raise ValueError(f"{arm.name} has sent {spent[0]} bytes ({count}) before round 0, the smallest budget is {own[0]}")
        for budget in own:
            last = int(np.searchsorted(spent, budget, "right")) - 1
            over = diverged and last == len(spent) - 1
            values = (np.nan, np.nan) if over else tuple(seen.iloc[last][["loss", "accuracy"]])
            rows.append((client_lr, count, budget, int(told.index[last]), *values))
    return pd.DataFrame(rows, columns=["client_lr", "count", "budget", "rounds", "loss", "accuracy"])


def choose(found: pd.DataFrame) -> pd.DataFrame:
    """The grid: mean loss of every arm, rate, count and budget, and which rate won.

    A budget below one round tells rates not apart: there the rate of the next larger budget is taken.
    """
    index = ["arm", *RATES, "count", "budget"]
    filled = found.assign(loss=found["loss"].fillna(np.inf))
    grid: Any = filled.groupby(index, sort=False, as_index=False)[["loss", "rounds"]].mean()
    grid["winner"] = False
    for _, part in grid.groupby(["arm", "count"], sort=False):
        best = None
        for budget in sorted(part["budget"].unique(), reverse=True):
            own = part[part["budget"] == budget]
            if best is None or (own["rounds"].max() > 0 and np.isfinite(own["loss"].min())):
                best = own.loc[own["loss"].idxmin(), RATES]
            grid.loc[own.index[(own[RATES] == best).all(axis=1)], "winner"] = True
    return grid.drop(columns="rounds")


@dataclass(frozen=True)
class EqualBytes(ABC):
    """A comparison as an `experiments.Experiment`; a subclass says what is trained.

    Attributes:
        name: of the experiment and its tables.
        arms: the arms; a run of the last one stands for all in an estimate of time.
        tuning_keys: the rates'; none of the result keys.
        keys: the results'.
        octaves: rates of an arm, of ratio 2.
        version: of the tables.
        profile: the smallest profile that recomputes it.
    """

    name: str
    arms: tuple[Sender, ...]
    tuning_keys: tuple[int, ...]
    keys: tuple[int, ...]
    octaves: int = 5
    version: int = 1
    profile: Profile = "standard"

    @abstractmethod
    def curve(self, arm: Sender, lr: float, key: int) -> pd.DataFrame:
        """One run, as `curve` of this module tells it."""

    @abstractmethod
    def config(self) -> dict[str, Any]:
        """Everything that a run depends on beside arm, rate and key, and whether it is one of the grid."""

    def plan(self) -> Plan:
        """Every arm at every rate on the tuning keys, and at about three rates on the others."""
        started = time.monotonic()
        self.curve(self.arms[-1], self.arms[-1].start, self.tuning_keys[0])
        variants = sum(len(arm.variants()) for arm in self.arms)
        runs, tuning = len(self.arms) * 3 * len(self.keys), variants * self.octaves * len(self.tuning_keys)
        return Plan(runs, tuning, time.monotonic() - started)

    def described(self) -> dict[str, Any]:
        """The configuration of the grid."""
        return self.config() | {"tuning_keys": list(self.tuning_keys)}

    def _run(self, cells: list[Cell], folder: Path, jobs: int) -> pd.DataFrame:
        # A cell names its own arm: another arm, or more rates, leave what is kept valid.
        shared = {name: value for name, value in self.config().items() if name not in ("arms", "octaves")}
        return sweeps.run(functools.partial(_work, self), cells, folder, shared, jobs).drop(columns="rounds_run")

    def tune(self, results: Path, work: Path, jobs: int) -> pd.DataFrame:
        """Run the grid; write <name>_rates.csv."""
        variants = [variant for arm in self.arms for variant in arm.variants()]
        cells = [Cell(arm, lr, key, arm.rounds) for key in self.tuning_keys for arm in variants for lr in arm.rates(self.octaves)]
        grid = choose(self._run(cells, work / f"{self.name}_tuning", jobs))
        records.write(grid, results / f"{self.name}_rates.csv", self.described(), self.version)
        return grid

    def compare(self, grids: Path, results: Path, work: Path, jobs: int) -> None:
        """Run every arm on the result keys at the rates that won somewhere; keep what each count and budget's rate gives."""
        grid, about = records.read(grids / f"{self.name}_rates.csv")
        config = self.described() | {"keys": self.keys, "grid": about["sha256"]}
        target = results / f"{self.name}.csv"
        if records.current(target, config, self.version):
            return
        won: Any = grid[grid["winner"]][["arm", *RATES, "count", "budget"]]
        arms = {arm.name: arm for arm in self.arms}
        cells = [
            Cell(_at(arms[name], client_lr), lr, key, arms[name].rounds)
            for key in self.keys
            for name, lr, client_lr in won[["arm", *RATES]].drop_duplicates().itertuples(index=False)
        ]
        found = self._run(cells, work / self.name, jobs)
        records.write(won.merge(found, on=["arm", *RATES, "count", "budget"], how="left"), target, config, self.version)


def _at(arm: Sender, client_lr: float) -> Sender:
    """The variant of an arm with a rate of the clients'."""
    told = [variant for variant in arm.variants() if variant.options.get("client_lr") == client_lr]
    return told[0] if told else arm


def _work(experiment: EqualBytes, cell: Cell) -> pd.DataFrame:
    assert isinstance(cell.arm, Sender)
    return experiment.curve(cell.arm, cell.lr, cell.key)
