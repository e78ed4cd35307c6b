"""What does HiSo's learned H contribute? Every arm of `arms` on problems with different room for a diagonal, equally tuned.

Loss is told as excess = (f - f*)/(f_0 - f*). Each arm has one learning rate per problem: the one with the smallest mean log
rounds to the targets on tuning keys, by `sweeps.choose_rates`, on one grid and budget for all arms of a problem. Results come
from other keys, paired: replicate k of every arm draws the same directions (with twice the directions, the first P are they).

    ablation_<group>.csv        problem, arm, lr, key, target, rounds (NaN: not within the budget), budget
    ablation_<group>_ways.csv   problem, arm, key, forth, back, budget: rounds of the arm to DeComFL's last excess, and of DeComFL
                                to the arm's
    ablation_<group>_grid.csv   every rate that was tried
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from hiso_bench import records
from hiso_bench.experiments import Plan, Profile
from hiso_bench.federation import Federation, FederationOptions
from hiso_bench.sweeps import Arm, Cell, choose_rates
from learned_h.arms import build, oracle
from learned_h.cases import Case, networks, quadratics

VERSION = 1
TUNING_KEY, RESULT_KEY = 104, 4
KEYS = 12
"""Replicates of the result key, where an ablation does not say otherwise."""
THEORY = "decomfl-theory"


class Passage(NamedTuple):
    """Runs of one arm, per replicate."""

    excess: NDArray[np.float64]
    """The smallest excess so far, (rounds + 1, *replicates); NaN from where a replicate diverged."""

    def rounds(self, target: float | NDArray[np.float64]) -> NDArray[np.float64]:
        """First rounds at or below a target (which broadcasts to the replicates); NaN if never."""
        hit = self.excess <= target
        return np.where(hit.any(0), hit.argmax(0), np.nan)


def run(
    case: Case, arm: Arm, lr: float | Tensor, replicates: tuple[int, ...], key: int, rounds: int,
    stop: bool | Callable[[int, Tensor], bool] = True,
) -> Passage:  # fmt: skip
    """Run one arm with all its rates and keys in one call; with `stop`, until every replicate has the last target or diverged.

    A function of the round and of which replicates have the last target may say when to stop instead.
    """
    problem = case.make(replicates)
    method = build(
        arm, lr, problem, functools.partial(case.gradient, problem), oracle(case.make(())) if arm.method == "hiso-oracle" else ()
    )
    options = FederationOptions(**case.federation, wire="float64", key=key, on_divergence="freeze")
    federation = Federation(problem, method, options)
    first = case.value(problem, federation.state.x)
    found = []
    for r in range(rounds + 1):
        if r % case.every and r < rounds:
            found.append(found[-1])
            federation.round()
            continue
        now = (case.value(problem, federation.state.x) - case.least) / (first - case.least)
        # A loss that is not finite or a thousand times the first is no run that a user would have kept.
        lost = ~federation.alive | ~(now < 1e3)
        now = now.where(~lost, torch.nan)
        found.append(torch.fmin(now, found[-1]).where(~lost, torch.nan) if found else now)
        arrived = found[-1] <= case.targets[-1]
        done = stop(r, arrived) if callable(stop) else stop and bool((lost | arrived).all())
        if r == rounds or bool(lost.all()) or done:
            break
        federation.round()
    return Passage(torch.stack(found).numpy())


def score(case: Case, passage: Passage, rounds: int) -> NDArray[np.float64]:
    """Minus the mean log rounds to the targets, per replicate; a target out of reach counts the budget times what is missing."""
    last = passage.excess[-1]
    missing = np.log(rounds) + np.log(np.maximum(last, 1e-300)[..., None] / case.targets)
    logs = [np.log(np.maximum(passage.rounds(target), 1)) for target in case.targets]
    logs = np.where(np.isnan(logs), np.moveaxis(missing, -1, 0), logs)
    return np.where(np.isnan(last), -np.inf, -np.mean(logs, axis=0))


def tune(case: Case, arms: Sequence[Arm]) -> pd.DataFrame:
    """Choose the rates of arms, all rates that one step of the rule asks for in one call per arm; see `sweeps.choose_rates`."""

    def evaluate(cells: Sequence[Cell]) -> pd.Series:
        keys, out = case.tuning_keys, []
        for arm in dict.fromkeys(cell.arm.name for cell in cells):
            mine = [cell for cell in cells if cell.arm.name == arm]
            rates = torch.tensor([[cell.lr] for cell in mine], dtype=torch.float64)
            found = run(case, mine[0].arm, rates, (len(mine), keys), TUNING_KEY, mine[0].rounds)
            out += score(case, found, mine[0].rounds).mean(-1).tolist()
        return pd.Series(out, dtype=float)

    # The replicates of a call are its keys: one call is one cell per rate.
    return choose_rates(evaluate, arms, [TUNING_KEY], case.rounds, case.start, case.octaves, survivors=4)


def compare(case: Case, rates: dict[str, float], keys: int = KEYS) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Every arm at its rate on replicates of the result key: rounds to the targets, and both ways between it and DeComFL."""
    arms = list(case.arms)
    if np.isfinite(case.theory):
        arms.append(Arm(THEORY, "decomfl"))
        rates = rates | {THEORY: case.theory / 2}
    runs = {arm.name: run(case, arm, rates[arm.name], (keys,), RESULT_KEY, case.rounds, stop=False) for arm in arms}
    rows, ways, plain = [], [], runs["decomfl"]
    for name, found in runs.items():
        for target in case.targets:
            rows += [(name, rates[name], k, target, r, case.rounds) for k, r in enumerate(found.rounds(target))]
        forth, back = found.rounds(plain.excess[-1]), plain.rounds(found.excess[-1])
        ways += [(name, k, f, b, case.rounds) for k, (f, b) in enumerate(zip(forth, back, strict=True))]
    return (
        pd.DataFrame(rows, columns=["arm", "lr", "key", "target", "rounds", "budget"]),
        pd.DataFrame(ways, columns=["arm", "key", "forth", "back", "budget"]),
    )


@dataclass(frozen=True)
class Ablation:
    """A group of problems as an `experiments.Experiment`. Tuning keeps each problem's grid as soon as it is done."""

    name: str
    cases: Callable[[], dict[str, Case]]
    profile: Profile = "standard"
    keys: int = KEYS

    def plan(self) -> Plan:
        """Per arm and problem a quarter of the rounds for the grid, about ten rates to the end, and the result."""
        seconds = 0.0
        for case in self.cases().values():
            started = time.monotonic()
            run(case, case.arms[0], case.start, (self.keys,), RESULT_KEY, 10, stop=False)
            seconds += (time.monotonic() - started) / 10 * case.rounds
        arms = sum(len(case.arms) for case in self.cases().values())
        return Plan(arms, 3.0 * arms, seconds / len(self.cases()))

    def _grid(self, problem: str, case: Case, work: Path) -> pd.DataFrame:
        config = _about(case) | {"problem": problem, "tuning_key": TUNING_KEY}
        kept = work / self.name / f"{records.config_hash(config)}.csv"
        if not records.current(kept, config, VERSION):
            records.write(tune(case, case.arms), kept, config, VERSION)
        return records.read(kept)[0].assign(problem=problem)

    def tune(self, results: Path, work: Path, jobs: int) -> pd.DataFrame:
        """Choose every arm's rate on every problem; write <name>_grid.csv."""
        grid = pd.concat([self._grid(name, case, work) for name, case in self.cases().items()], ignore_index=True)
        records.write(grid, results / f"{self.name}_grid.csv", self._config(), VERSION)
        return grid

    def compare(self, grids: Path, results: Path, work: Path, jobs: int) -> None:
        """Run every arm at its recorded rate on the result keys."""
        grid, _ = records.read(grids / f"{self.name}_grid.csv")
        won = grid[grid["winner"]]
        config = self._config() | {
            "rates": {f"{p}: {a}": lr for p, a, lr in zip(won["problem"], won["arm"], won["lr"], strict=True)}
        }
        target = results / f"{self.name}.csv"
        if records.current(target, config, VERSION):
            return
        parts: list[tuple[pd.DataFrame, pd.DataFrame]] = []
        for name, case in self.cases().items():
            own = won[won["problem"] == name]
            found = compare(case, dict(zip(own["arm"], own["lr"], strict=True)), self.keys)
            parts.append((found[0].assign(problem=name), found[1].assign(problem=name)))
        records.write(pd.concat([b for _, b in parts]), results / f"{self.name}_ways.csv", config, VERSION)
        records.write(pd.concat([a for a, _ in parts]), target, config, VERSION)

    def _config(self) -> dict[str, Any]:
        about = {name: _about(case) for name, case in self.cases().items()}
        return {"problems": about, "tuning_key": TUNING_KEY, "result_key": RESULT_KEY, "keys": self.keys}


def _about(case: Case) -> dict[str, Any]:
    arms = {arm.name: dict(arm.options) for arm in case.arms}
    problem = case.make(()).describe()
    settings = {"rounds": case.rounds, "start": case.start, "targets": list(case.targets), "tuning_keys": case.tuning_keys}
    # A federation of one client is not told: recorded tables have no word for it.
    several = {"clients": case.make(()).clients, "federation": dict(case.federation), "every": case.every}
    return {"problem": problem, "arms": arms, "octaves": case.octaves} | settings | (several if case.federation else {})


QUADRATICS = Ablation("ablation_quadratics", quadratics)
NETWORKS = Ablation("ablation_networks", networks)
