"""The experiment on learning rates: the basin of every arm, and what moves its best rate.

    learning_rates.csv             problem, arm, lr, key, target, rounds (NaN: more than CAP times the best, or diverged)
    learning_rates_width.csv       problem, arm, target, width and its interval in octaves, ratio to DeComFL's and its interval
    learning_rates_exact.csv       problem, target, lr, rounds: DeComFL's E f, exact (quadratics)
    learning_rates_transfer.csv    axis, setting, arm, key, log2_rate (best), rounds (best), cost (rounds at the base setting's
                                   best rate over the best; NaN: above MOST_COST, or diverged)
    learning_rates_exponents.csv   axis, part, arm, exponent and its interval; arm "theory" is DeComFL's, exact

Intervals are 99.9 %, over keys. The arms share directions, but at rates in units of their own, so little is won by pairing.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from hiso_bench import records
from hiso_bench.experiments import Plan, Profile
from hiso_bench.stats import exponent, mean_interval
from hiso_bench.sweeps import Arm
from learned_h import rates
from learned_h.arms import P

VERSION = 1
MOST_COST = 4.0
"""A rate from elsewhere that needs more than so many times the best rounds is told as NaN."""
HALF = 4
"""The grid of the transfer: two octaves to either side of the pilot's rate."""
AXES: dict[str, tuple[float, ...]] = {
    "c": (0.01, 0.1, 1, 10, 100),
    "P": (1, 5, 20),
    "d, trace 1": (50, 200, 3000),
    "d, flat": (50, 200, 3000),
}
"""Axis -> its settings. The spectrum is i^-1.5 with d = 200 and trace 1, but for "d, flat": d eigenvalues of 1."""
BASE = {"d, trace 1": 200, "d, flat": 200, "c": 1, "P": P}
PARTS = {"c": {"c <= 1": (0.01, 0.1, 1), "c >= 1": (1, 10, 100)}}
TARGET = {"d, flat": 0.5}


def spectrum(axis: str, value: float) -> NDArray[np.float64]:
    """The eigenvalues of a setting."""
    if axis == "d, flat":
        return np.ones(int(value))
    s = np.arange(1, (int(value) if axis.startswith("d") else 200) + 1) ** -1.5
    return s / s.sum() * (value if axis == "c" else 1)


def at(arm: Arm, axis: str, value: float) -> Arm:
    """The arm with a setting's P."""
    return Arm(arm.name, arm.method, {**arm.options, "perturbations": int(value)}) if axis == "P" else arm


def transfer(axis: str, arm: Arm) -> pd.DataFrame:
    """Best rate and rounds of an arm in every setting of an axis, and the cost of the base setting's rate there."""
    case = {v: rates.spectrum_case(spectrum(axis, v), (TARGET.get(axis, 0.1),)) for v in AXES[axis]}
    found = {v: rates.basin(case[v], at(arm, axis, v), HALF, cap=1.5) for v in AXES[axis]}
    chosen = {v: int(np.nan_to_num(b.rounds[0], nan=np.inf).mean(1).argmin()) for v, b in found.items()}
    base, rows = BASE[axis], []
    for v, b in found.items():
        fewest = b.rounds[0, chosen[v]]
        lr = found[base].rates[chosen[base]]
        most = int(MOST_COST * fewest.max())
        there = rates.rounds_at(case[v], at(arm, axis, v), lr, rates.KEYS, most) if v != base else fewest
        for k, best in enumerate(rates.best_rate(b.rates, b.rounds[0])):
            cost = there[k] / fewest[k]
            rows.append((axis, v, arm.name, k, best, fewest[k], cost if cost <= MOST_COST else np.nan))
    return pd.DataFrame(rows, columns=["axis", "setting", "arm", "key", "log2_rate", "rounds", "cost"])


def exponents(table: pd.DataFrame) -> pd.DataFrame:
    """Power of the best rate in the setting, per key, and the interval of its mean; DeComFL's of best rate and eta* exact."""
    rows = []
    for axis, values in AXES.items():
        own = table[table["axis"] == axis]
        for part, settings in ({"all": values} | PARTS.get(axis, {})).items():
            for arm in dict.fromkeys(own["arm"]):
                wide = own[own["arm"] == arm].pivot(index="key", columns="setting", values="log2_rate")[list(settings)]
                slopes = [exponent(settings, 2.0 ** row.to_numpy()) for _, row in wide.iterrows()]
                rows.append((axis, part, arm, *mean_interval(slopes)))
            best = [rates.exact_best(spectrum(axis, v), TARGET.get(axis, 0.1), int(v) if axis == "P" else P) for v in settings]
            for name, i in (("theory", 0), ("theory limit", 2)):
                slope = exponent(settings, [b[i] for b in best])
                rows.append((axis, part, name, slope, slope, slope))
    return pd.DataFrame(rows, columns=["axis", "part", "arm", "exponent", "low", "high"])


def curves(problem: str) -> pd.DataFrame:
    """The basins of all arms on one problem, in long format."""
    case, parts = rates.basins()[problem], []
    for arm in rates.ARMS:
        found = rates.basin(case, arm)
        t, n, k = (index.ravel() for index in np.indices(found.rounds.shape))
        about = {"problem": problem, "arm": arm.name, "lr": found.rates[n], "key": k, "target": np.array(case.targets)[t]}
        parts.append(pd.DataFrame(about | {"rounds": found.rounds.ravel()}))
    return pd.concat(parts, ignore_index=True)


def width(table: pd.DataFrame) -> pd.DataFrame:
    """Width of every basin with its interval, and its ratio to DeComFL's."""
    rows = []
    for (problem, target), part in table.groupby(["problem", "target"], sort=False):
        wide = {arm: own.pivot(index="lr", columns="key", values="rounds") for arm, own in part.groupby("arm", sort=False)}
        found = {arm: rates.widths(rates.slowdown(own.to_numpy())) for arm, own in wide.items()}
        for arm, octaves in found.items():
            ratio = np.exp(mean_interval(np.log(octaves / found["decomfl"])))
            rows.append((problem, arm, target, *mean_interval(octaves), *ratio))
    names = ["width", "low", "high", "ratio", "ratio_low", "ratio_high"]
    return pd.DataFrame(rows, columns=["problem", "arm", "target", *names])


def exact() -> pd.DataFrame:
    """DeComFL's expected loss on the quadratics: rounds against rate."""
    rows = []
    for problem, case in rates.basins().items():
        if not np.isfinite(case.theory):
            continue
        lr = case.theory * np.append(2.0 ** np.arange(-5, -0.4, 0.5), (0.8, 0.9, 0.95))
        for target in case.targets:
            rounds = rates.exact_rounds(case.make(()).spectrum, lr, target)
            rows += [(problem, target, *pair) for pair in zip(lr, rounds, strict=True)]
    return pd.DataFrame(rows, columns=["problem", "target", "lr", "rounds"])


class LearningRates:
    """As an `experiments.Experiment`: the grid is the result, so nothing is tuned beforehand."""

    name = "learning_rates"
    profile: Profile = "standard"

    def plan(self) -> Plan:
        """One call per arm and problem or setting."""
        started = time.monotonic()
        rates.pilot(rates.basins()["4 blocks"], rates.ARMS[0])
        runs = len(rates.ARMS) * (len(rates.basins()) + sum(map(len, AXES.values())))
        return Plan(runs, 0, 5 * (time.monotonic() - started))

    def tune(self, results: Path, work: Path, jobs: int) -> None:
        """Nothing to tune."""

    def compare(self, grids: Path, results: Path, work: Path, jobs: int) -> None:
        """Compute the tables; each problem's and each arm's part is kept as soon as it is done."""
        config, target = self._config(), results / f"{self.name}.csv"
        if records.current(target, config, VERSION):
            return
        found = pd.concat([self._kept(work, {"problem": p}, lambda p=p: curves(p)) for p in rates.basins()])
        moved = pd.concat(
            [
                self._kept(work, {"axis": axis, "arm": arm.name}, lambda a=axis, b=arm: transfer(a, b))
                for axis in AXES
                for arm in rates.ARMS
            ]
        )
        tables = {"_transfer": moved, "_exponents": exponents(moved), "_width": width(found), "_exact": exact(), "": found}
        for suffix, table in tables.items():
            records.write(table, results / f"{self.name}{suffix}.csv", config, VERSION)

    def _kept(self, work: Path, part: dict[str, Any], make: Any) -> pd.DataFrame:
        config = self._config() | part
        kept = work / self.name / f"{records.config_hash(config)}.csv"
        if not records.current(kept, config, VERSION):
            records.write(make(), kept, config, VERSION)
        return records.read(kept)[0]

    def _config(self) -> dict[str, Any]:
        problems = {
            name: {"targets": list(case.targets), "about": case.make(()).describe()} for name, case in rates.basins().items()
        }
        axes = {name: list(values) for name, values in AXES.items()}
        grid = {"within": rates.WITHIN, "cap": rates.CAP, "half": rates.HALF, "transfer_half": HALF, "most_cost": MOST_COST}
        arms = {arm.name: dict(arm.options) for arm in rates.ARMS}
        settled = {"base": BASE, "keys": rates.KEYS, "result_key": rates.RESULT_KEY, "pilot_key": rates.PILOT_KEY}
        return {"problems": problems, "axes": axes, "arms": arms, "P": P} | grid | settled


LEARNING_RATES = LearningRates()
