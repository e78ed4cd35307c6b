"""The stage on which a learned H acts: curvature and gradient of every subject, and what an oracle would gain there.

`stage` covers what is quick: all subjects with exact Hessians, and the exact oracle gap of the quadratics. `stage_networks` adds
the large subjects, measured by estimates, and the tuned runs of the gap on networks; it is recorded.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from hiso_bench import records
from hiso_bench.experiments import Plan, Profile
from learned_h import gap, points, subjects

VERSION = 1


def at_points(name: str, key: int) -> pd.DataFrame:
    """The numbers of a subject at its initial point and later: subject, key, point, quantity, value."""
    of = subjects.subject(name)
    problem = of.build(key=key)
    x = subjects.start(problem, of.exact)
    rows = []
    for where in ("start", "later"):
        x = x if where == "start" else subjects.later(problem, x, of.minimum(problem))
        found = points.Place(problem, x, of.exact, key).numbers()
        rows += [(name, key, where, quantity, value) for quantity, value in found.items()]
    return pd.DataFrame(rows, columns=["subject", "key", "point", "quantity", "value"])


@dataclass(frozen=True)
class Stage:
    """One part of the stage: an `experiments.Experiment`.

    Attributes:
        name: of the experiment and of its tables, <name>_points and <name>_gap.
        profile: the smallest that recomputes it.
        measured: the subjects of the table of points; those whose data are absent are left out, and the configuration says so.
        keys: of those subjects.
        run: subjects whose gap is run; the quadratics among `measured` have theirs from theory.
    """

    name: str
    profile: Profile
    measured: tuple[str, ...]
    keys: tuple[int, ...]
    run: tuple[str, ...] = ()

    def plan(self) -> Plan:
        """Runs of the gap; or the points alone, counted as one."""
        if not self.run:
            return Plan(1, 0, 60.0)
        started = time.monotonic()
        gap.losses(self.run[0], gap.ARMS[0], [gap.START], gap.KEYS[0], gap.EVERY)
        seconds = (time.monotonic() - started) / gap.EVERY * gap.ROUNDS
        arms = len(gap.ARMS) * len(self.run)
        return Plan(arms * len(gap.KEYS), arms * len(gap.TUNING) * (gap.OCTAVES / 4 + gap.SURVIVORS + 3), seconds)

    def tune(self, results: Path, work: Path, jobs: int) -> None:
        """Choose every arm's rate on every subject whose gap is run, and write its grid."""
        for name in self.run:
            target = gap.grid_path(results, name)
            if not records.current(target, _tuning(name), VERSION):
                records.write(gap.tune(name), target, _tuning(name), VERSION)

    def compare(self, grids: Path, results: Path, work: Path, jobs: int) -> None:
        """Write <name>_points (long format) and <name>_gap (subject, arm, speed-up with its 99.9 % interval)."""
        here = [name for name in self.measured if subjects.subject(name).available()]
        rates = {name: gap.pick(records.read(gap.grid_path(grids, name))[0]) for name in self.run}
        config = _config() | {"subjects": here, "keys": self.keys, "rates": rates}
        target = results / f"{self.name}_gap.csv"
        if records.current(target, config, VERSION):
            return
        places = [_kept(at_points, work, "points", name, key) for name in here for key in self.keys]
        parts = [gap.quadratic_gap(name).assign(subject=name) for name in here if name in subjects.QUADRATICS]
        curves = []
        for name in self.run:
            found = _kept(_results, work, "gap", name, rates[name])
            curves.append(found.assign(subject=name))
            parts.append(gap.summary(gap.speed_ups(found)).assign(subject=name))
        records.write(pd.concat(places, ignore_index=True), results / f"{self.name}_points.csv", config, VERSION)
        if curves:
            records.write(pd.concat(curves, ignore_index=True), results / f"{self.name}_runs.csv", config, VERSION)
        records.write(pd.concat(parts, ignore_index=True), target, config, VERSION)


def _results(name: str, rates: dict[str, tuple[str, float]]) -> pd.DataFrame:
    return gap.results(name, rates)


def _config() -> dict[str, Any]:
    return {
        "P": gap.P, "rounds": gap.ROUNDS, "every": gap.EVERY, "arms": [asdict(arm) for arm in gap.ARMS], "ridges": gap.RIDGES,
        "images": subjects.IMAGES, "later": subjects.LATER, "budgets": points.BUDGETS, "ema_new": points.EMA,
        "probes": points.PROBES, "steps": points.STEPS, "result_keys": gap.KEYS, "version": VERSION,
    }  # fmt: skip


def _tuning(name: str) -> dict[str, Any]:
    grid = {"tuning_keys": gap.TUNING, "start": gap.START, "octaves": gap.OCTAVES, "survivors": gap.SURVIVORS}
    return _config() | {"subject": name} | grid


def _kept(make: Any, work: Path, kind: str, name: str, of: Any) -> pd.DataFrame:
    """A part of a table, kept in the work folder so that a stopped experiment goes on where it was."""
    config = _config() | {"kind": kind, "subject": name, "of": of}
    path = work / f"stage_{kind}_{records.config_hash(config)}.csv"
    if not records.current(path, config, VERSION):
        records.write(make(name, of), path, config, VERSION)
    return records.read(path)[0]


STAGE = Stage("stage", "quick", subjects.SMALL, (1, 2))
NETWORKS = Stage("stage_networks", "standard", subjects.LARGE, (1,), gap.RUN)


def median(table: pd.DataFrame, quantity: str, point: str = "start", names: Sequence[str] | None = None) -> dict[str, float]:
    """The median over keys of one quantity of the table of points, by subject."""
    part = table[(table["quantity"] == quantity) & (table["point"] == point)]
    found = part.groupby("subject", sort=False)["value"].median()
    return {str(name): float(value) for name, value in found.items() if names is None or name in names and np.isfinite(value)}
