"""Simulated points on the exact curves of `synthetic.rates`, and the tables of the figure.

A point runs the real federation at the best constant step of its curve, or at half of the stability limit where that is
smaller: near the limit E f has no finite variance, and no interval of a mean would be valid.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from hiso_bench import records
from hiso_bench.experiments import Plan, Profile
from hiso_bench.stats import Interval, mean_interval
from synthetic import floor, rates
from synthetic.declared import Setting, simulate
from synthetic.local_steps import tau_table
from synthetic.rates import SHOWN, TARGET, flat, spike

VERSION, KEY = 2, 2506
SPIKE = float(rates.L[4])
"""L = 100: the spike family's simulated point."""


class Place(NamedTuple):
    """Where a curve is confirmed: its panel, arm and variant, the place on it, the setting there, and the norm."""

    panel: str
    arm: str
    variant: str
    x: float
    setting: Setting
    keys: int
    measure: str = "whitened"


class Point(NamedTuple):
    """A simulated point, and what exact theory says at the same step."""

    place: Place
    measured: Interval
    exact: float

    @property
    def ratio(self) -> Interval:
        """Measured over exact."""
        return Interval(*(value / self.exact for value in self.measured))


PLACES: dict[str, Place] = {
    "rounds": Place("rounds", "decomfl", "mean over rounds", SHOWN, flat(20), 256),
    "clients": Place("clients", "decomfl", "noise, many rounds", 4, flat(20, m=4), 192),
    "own directions": Place("clients", "decomfl", "no noise, own", 4, flat(200, 5, 4, 0, True), 32),
    "directions": Place("directions", "decomfl", "50 modes", 4, flat(50, 4), 192),
    "dimension": Place("dimension", "decomfl", "flat", 50, flat(50), 192),
    "padded": Place("dimension", "decomfl", "padded", 100, flat(100, active=20), 128),
    "spike, DeComFL": Place("error in L", "decomfl", "Euclidean norm", SPIKE, spike(SPIKE), 128),
    "spike, HiSo": Place("error in L", "hiso-oracle", "H^-1 norm", SPIKE, spike(SPIKE, 0.1), 128),
    "spike, HiSo, Euclidean": Place("error in L", "hiso-oracle", "Euclidean norm", SPIKE, spike(SPIKE, 0.1), 128, "euclidean"),
}


@cache
def point(name: str) -> Point:
    """Simulate one of `PLACES` for SHOWN rounds. Cost: a second or two."""
    place = PLACES[name]
    descent = place.setting.descent
    eta = min(descent.best_average(SHOWN, place.measure)[0], descent.limit / 2)
    run = simulate(place.setting, eta, SHOWN, place.keys, KEY)
    return Point(place, mean_interval(getattr(run, place.measure)), float(descent.average(eta, SHOWN, place.measure)))


@cache
def rounds_point(name: str) -> Point:
    """Rounds until the mean loss is TARGET f0 at half of the stability limit: "floor" (H = S) or "rounds in L" (DeComFL).

    The interval is where the 99.9 % band of the mean loss over keys crosses the target.
    """
    places = {
        "floor": Place("floor", "hiso-oracle", "H = S", 50, rates.two_scales(50, True), 128),
        "rounds in L": Place("rounds in L", "decomfl", "at half the stability limit", SPIKE, spike(SPIKE, sigma2=0), 64),
    }
    place = places[name]
    descent = place.setting.descent
    exact = float(descent.rounds(descent.limit / 2, TARGET))
    losses = simulate(place.setting, descent.limit / 2, int(1.3 * exact) + 5, place.keys, KEY).losses
    bands = np.array([mean_interval(row) if row.std() > 0 else (row[0],) * 3 for row in losses])
    return Point(place, Interval(*(_crossing(bands[:, i]) for i in (0, 1, 2))), exact)


def _crossing(curve: np.ndarray) -> float:
    """The round, interpolated in the log, at which a curve first falls to TARGET; infinity if it never does."""
    below = np.flatnonzero(curve <= TARGET)
    if not len(below):
        return np.inf
    r = int(below[0])
    before, after = np.log(curve[r - 1]), np.log(max(curve[r], 1e-300))
    return float(r - 1 + (before - np.log(TARGET)) / (before - after))


def floor_point() -> Point:
    """Rounds of P scalars after which least squares on the wire's scalars has the target, in the mean over keys."""
    d = floor.DIMENSION
    bands = np.array([mean_interval(row) if 0 < n < d else (row[0],) * 3 for n, row in enumerate(floor.least_squares())])
    place = Place("floor", "theory", "floor", d, floor.whitened(np.ones(d)), floor.KEYS)
    # It falls by 1/d a scalar: linear between scalars.
    scalars = [np.interp(-TARGET, -bands[:, i], np.arange(d + 1.0)) for i in (0, 1, 2)]
    return Point(place, Interval(*(float(n) / floor.PERTURBATIONS for n in scalars)), (1 - TARGET) * d / floor.PERTURBATIONS)


def tables() -> dict[str, pd.DataFrame]:
    """What the figure shows, by file stem.

    - rates_curves: panel, arm, variant, x, y, slope (its exponent in the limit; empty where it has none)
    - rates: panel, arm, variant, x, y, low, high, exact, keys: the simulated points
    - rates_tau: tau, quantity, predicted, measured, low, high: `local_steps.tau_table`
    """
    curves = [pd.DataFrame(curve._asdict()) for panel in rates.PANELS for curve in panel()]
    points = [point(name) for name in PLACES] + [rounds_point("floor"), rounds_point("rounds in L"), floor_point()]
    rows = [
        (p.place.panel, p.place.arm, p.place.variant, p.place.x, *p.measured, p.exact, p.place.keys) for p in points
    ]  # fmt: skip
    columns = ["panel", "arm", "variant", "x", "y", "low", "high", "exact", "keys"]
    return {
        "rates_curves": pd.concat(curves, ignore_index=True),
        "rates": pd.DataFrame(rows, columns=columns),
        "rates_tau": tau_table(),
    }


class Rates:
    """The curves and points as an `experiments.Experiment`; every step is the best one by theory, so there is no grid."""

    name = "rates"
    profile: Profile = "quick"

    def plan(self) -> Plan:
        """One run of about twenty seconds."""
        return Plan(1, 0, 20.0)

    def tune(self, results: Path, work: Path, jobs: int) -> None:
        """Nothing to choose."""

    def compare(self, grids: Path, results: Path, work: Path, jobs: int) -> None:
        """Compute and write the tables."""
        config = {"key": KEY, "rounds": SHOWN, "target": TARGET, "places": {name: p.keys for name, p in PLACES.items()}}
        if records.current(results / "rates.csv", config, VERSION):
            return
        found = tables()
        for stem in sorted(found, reverse=True):  # the one that is asked about above comes last
            records.write(found[stem], results / f"{stem}.csv", config, VERSION)


RATES = Rates()
