"""Loss at equal bytes: DeComFL and HiSo against compressed first-order methods, on a digits perceptron.

6 clients, 2 sampled, Dirichlet 1, 32 images per client and step; d = 610, so a dense vector has 2,440 bytes and the P = 5 scalars
of a zeroth-order uplink have 20. Bytes are those of the ledgers, frames included, in three counts:

- "uplink": what the clients sent.
- "total": what clients and server sent. Compression is of the uplink; the downlink of a first-order round is the dense model.
- "total with base": the same, and the dense base model for every client of a method of scalars. A first-order client receives
  the model whenever it is sampled, so nothing is added.

Every arm runs at five rates of ratio 2, about its own pilot's, on the tuning keys; for every count and budget it takes the rate
with the smallest mean training loss there. Results come from other keys.

    equal_bytes.csv        arm, lr, count, budget, key, rounds, loss, accuracy at the last evaluation within the budget; the last
                           two are missing where the run had diverged by then
    equal_bytes_rates.csv  arm, lr, count, budget, loss (mean over tuning keys; inf: a key diverged), winner
"""

from __future__ import annotations

import functools
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from hiso_bench import methods, records, sweeps, training
from hiso_bench.experiments import Plan, Profile
from hiso_bench.federation import FederationOptions, NonFiniteScalarError
from hiso_bench.sweeps import Cell
from hiso_bench.training import Schedule
from vision.mlp import DigitsPerceptron

VERSION = 1
CLIENTS, SAMPLED, BATCH, HIDDEN = 6, 2, 32, 8
OCTAVES = 5
"""Rates of an arm, of ratio 2."""
TUNING_KEYS, KEYS = (101, 102), (1, 2, 3, 4, 5)
UPLINK, TOTAL, WITH_BASE = "uplink", "total", "total with base"
BUDGETS: dict[str, tuple[int, ...]] = {
    UPLINK: tuple(2**i for i in range(9, 15)),
    TOTAL: tuple(2**i for i in range(11, 17)),
    WITH_BASE: tuple(2**i for i in range(14, 17)),
}
"""Count -> bytes of all clients and the server together, ascending."""
DENSE = 4


@dataclass(frozen=True)
class Sender(sweeps.Arm):
    """An arm of the comparison.

    Attributes:
        start: smallest rate.
        rounds: enough for the largest budget of every count.
        local_steps: tau.
        tuned: which option the swept rate is: the server's, or the clients' where there are several local steps.
        every: rounds between evaluations.
    """

    start: float = 2.0**-6
    rounds: int = 340
    local_steps: int = 1
    tuned: str = "lr"
    every: int = 10

    @property
    def rates(self) -> tuple[float, ...]:
        """The rates that are tried."""
        return tuple(self.start * 2.0**i for i in range(OCTAVES))

    @property
    def scalars(self) -> bool:
        """Whether the method sends scalars, so that its clients need the base model."""
        return self.method in methods.PRESETS


ONE = {"client_lr": 1.0}
"""With one local step the clients' rate is a factor of the server's."""
ARMS = (
    Sender("decomfl", "decomfl", {"perturbations": 5}),
    Sender("hiso", "hiso", {"perturbations": 5}),
    Sender("fedavg", "fedavg", ONE, 2.0**-2, 8, every=1),
    Sender("fedavg-10", "fedavg", {"lr": 1.0}, 2.0**-3, 8, 10, "client_lr", 1),
    Sender("fedcom", "fedcom", ONE | {"bits": 4}, 2.0**-2, 28, every=1),
    Sender("fedcom-10", "fedcom", {"lr": 1.0, "bits": 4}, 2.0**-3, 28, 10, "client_lr", 1),
    Sender("fedavg-topk", "fedavg-topk", ONE | {"share": 0.01}, 2.0**-1, 150, every=1),
    Sender("fedavg-sign", "fedavg-sign", ONE, 2.0**-7, 98, every=1),
)


def curve(arm: Sender, lr: float, key: int) -> pd.DataFrame:
    """One run: count, budget, rounds, loss, accuracy for every budget; NaN where the run had diverged by then.

    Raises:
        ValueError: the arm's rounds do not reach the largest budget of a count, or the smallest does not hold the base model.
    """
    problem = DigitsPerceptron(CLIENTS, HIDDEN, "dirichlet", batch_size=BATCH, key=key)
    options = FederationOptions(sampled=SAMPLED, local_steps=arm.local_steps, key=key)
    schedule = Schedule(rounds=arm.rounds, evaluate_every=arm.every, snapshot_every=0)
    method = methods.build(arm.method, arm.options, **{arm.tuned: lr})
    live = training.Run(problem, arm.method, method, options, schedule)
    diverged = False
    try:
        live.go()
    except NonFiniteScalarError:
        diverged = True
    seen: Any = training.curve(live.ledger).pivot(index="round", columns="metric", values="value")
    told: Any = training.curve(live.ledger).drop_duplicates("round").set_index("round")
    base = CLIENTS * DENSE * problem.layout.dimension if arm.scalars else 0
    sent = {UPLINK: told["bytes_up"], TOTAL: told["bytes_up"] + told["bytes_down"]}
    sent[WITH_BASE] = sent[TOTAL] + base
    rows = []
    for count, budgets in BUDGETS.items():
        spent = sent[count].to_numpy()
        if not diverged and spent[-1] < budgets[-1]:
            raise ValueError(f"{arm.name} sends {spent[-1]} bytes ({count}) in {arm.rounds} rounds; needed: {budgets[-1]}")
        if spent[0] > budgets[0]:
            raise ValueError(
                f"{arm.name} has sent {spent[0]} bytes ({count}) before round 0, the smallest budget is {budgets[0]}"
            )
        for budget in budgets:
            last = int(np.searchsorted(spent, budget, "right")) - 1
            over = diverged and last == len(spent) - 1
            values = (np.nan, np.nan) if over else tuple(seen.iloc[last][["loss", "accuracy"]])
            rows.append((count, budget, int(told.index[last]), *values))
    return pd.DataFrame(rows, columns=["count", "budget", "rounds", "loss", "accuracy"])


def _work(cell: Cell) -> pd.DataFrame:
    assert isinstance(cell.arm, Sender)
    return curve(cell.arm, cell.lr, cell.key)


def choose(found: pd.DataFrame) -> pd.DataFrame:
    """The grid: mean loss of every arm, rate, count and budget, and which rate won.

    A budget below one round tells rates not apart: there the rate of the next larger budget is taken.
    """
    index = ["arm", "lr", "count", "budget"]
    filled = found.assign(loss=found["loss"].fillna(np.inf))
    grid: Any = filled.groupby(index, sort=False, as_index=False)[["loss", "rounds"]].mean()
    grid["winner"] = False
    for _, part in grid.groupby(["arm", "count"], sort=False):
        best = None
        for budget in sorted(part["budget"].unique(), reverse=True):
            own = part[part["budget"] == budget]
            if best is None or (own["rounds"].max() > 0 and np.isfinite(own["loss"].min())):
                best = own.loc[own["loss"].idxmin(), "lr"]
            grid.loc[own.index[own["lr"] == best], "winner"] = True
    return grid.drop(columns="rounds")


@dataclass(frozen=True)
class EqualBytes:
    """The comparison as an `experiments.Experiment`."""

    name: str = "equal_bytes"
    profile: Profile = "standard"

    def plan(self) -> Plan:
        """Every arm at every rate on the tuning keys, and at about three rates on the others."""
        started = time.monotonic()
        curve(ARMS[-1], ARMS[-1].start, TUNING_KEYS[0])
        return Plan(len(ARMS) * 3 * len(KEYS), len(ARMS) * OCTAVES * len(TUNING_KEYS), time.monotonic() - started)

    def _run(self, cells: list[Cell], work: Path, jobs: int) -> pd.DataFrame:
        return sweeps.run(_work, cells, work / self.name, _config(), jobs).drop(columns="rounds_run")

    def tune(self, results: Path, work: Path, jobs: int) -> pd.DataFrame:
        """Run the grid; write equal_bytes_rates.csv."""
        cells = [Cell(arm, lr, key, arm.rounds) for arm in ARMS for key in TUNING_KEYS for lr in arm.rates]
        grid = choose(self._run(cells, work, jobs))
        records.write(grid, results / f"{self.name}_rates.csv", _config(), VERSION)
        return grid

    def compare(self, grids: Path, results: Path, work: Path, jobs: int) -> None:
        """Run every arm on the result keys at the rates that won somewhere; keep what each count and budget's rate gives."""
        grid, about = records.read(grids / f"{self.name}_rates.csv")
        config = _config() | {"keys": KEYS, "grid": about["sha256"]}
        target = results / f"{self.name}.csv"
        if records.current(target, config, VERSION):
            return
        won: Any = grid[grid["winner"]][["arm", "lr", "count", "budget"]]
        pairs = won[["arm", "lr"]].drop_duplicates()
        arms = {arm.name: arm for arm in ARMS}
        cells = [Cell(arms[a], lr, key, arms[a].rounds) for key in KEYS for a, lr in pairs.itertuples(index=False)]
        found = self._run(cells, work, jobs)
        records.write(won.merge(found, on=["arm", "lr", "count", "budget"], how="left"), target, config, VERSION)


@functools.cache
def _config() -> dict[str, Any]:
    problem = DigitsPerceptron(CLIENTS, HIDDEN, "dirichlet", batch_size=BATCH).describe() | {"clients": CLIENTS}
    arms = {arm.name: asdict(arm) for arm in ARMS}
    budgets = {count: list(values) for count, values in BUDGETS.items()}
    return {
        "problem": problem, "sampled": SAMPLED, "arms": arms, "octaves": OCTAVES, "budgets": budgets,
        "tuning_keys": list(TUNING_KEYS), "score": "mean training loss at the budget", "version": VERSION,
    }  # fmt: skip


EQUAL_BYTES = EqualBytes()
