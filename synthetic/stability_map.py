"""The stability map: step size against spectrum, with exact limits, bounds, a published step, and what single runs do.

Two families of effective rank kappa = 1 to 100, P = 1 and 5 Gaussian directions: k equal eigenvalues, where the almost-sure
limit is exact as well, and power laws j^-p with 100 modes. Every step is given as a multiple of the exact mean-square limit
eta*. Runs go through the real round; a run counts as diverging if |x|_S grew from round `SKIP` to the end.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from hiso_bench import keys, records
from hiso_bench.experiments import Plan, Profile
from hiso_bench.stats import proportion
from hiso_bench.theory import bounds, spectra
from hiso_bench.theory.lyapunov import almost_sure_limit
from hiso_bench.theory.stability import max_stable_step, stable_step_bounds, tight_stable_step_bounds
from synthetic.stability import DIMENSION, growth_rates

VERSION, KEY = 1, 20260416
PERTURBATIONS = (1, 5)
MULTIPLES = (0.5, 0.7, 0.85, 1.0, 1.2, 1.5, 2.0, 3.0, 4.5)
RUNS, ROUNDS, SKIP = 20, 300, 60
SHOWN = {"equal": (1, 2, 3, 5, 10, 30, 100), "power": (0.5, 1.0, 1.5, 2.0)}
DRAWN = {
    "equal": tuple(int(k) for k in np.unique(np.round(np.geomspace(1, DIMENSION, 40)))),
    "power": tuple(float(p) for p in np.round(np.linspace(0.0, 6.0, 61), 2)),
}


def spectrum(family: str, parameter: float) -> np.ndarray:
    """`parameter` equal eigenvalues, or 100 of a power law with that exponent; the largest is 1."""
    return spectra.flat(int(parameter)) if family == "equal" else spectra.power(DIMENSION, parameter)


def limits() -> pd.DataFrame:
    """The exact limits, the bounds and a published step, along both families.

    Returns:
        Columns family, P, parameter, kappa, eta_star (in 1/L) and, as multiples of eta*: low, high, tight_low, tight_high,
        theorem1 (HiSo's 1/(8 rho): the square root on the third entry), almost_sure (equal eigenvalues only, else empty).
    """
    rows = []
    for family, parameters in DRAWN.items():
        for P in PERTURBATIONS:
            for parameter in parameters:
                s = spectrum(family, parameter)
                eta = max_stable_step(s, 1.0, P)
                T, L = s.sum(), s.max()
                low, high = stable_step_bounds(s, 1.0, P)[0], min(2 * P / T, 2 * P / ((P + 1) * L))
                theorem1 = bounds.step_limit(bounds.setting(s, np.ones(len(s)), 1.0), "homogeneous")
                almost_sure = almost_sure_limit(len(s), P) if family == "equal" else np.nan
                steps = np.array([low, high, *tight_stable_step_bounds(s, 1.0, P), theorem1, almost_sure]) / eta
                rows.append((family, P, parameter, T / L, eta, *steps))
    names = ["low", "high", "tight_low", "tight_high", "theorem1", "almost_sure"]
    return pd.DataFrame(rows, columns=["family", "P", "parameter", "kappa", "eta_star", *names])


def outcomes(runs: int, rounds: int, skip: int) -> pd.DataFrame:
    """How many runs diverge at each multiple of eta*.

    Returns:
        Columns family, P, parameter, kappa, multiple, runs, diverged, and low, high: the 99.9 % interval of their share.
    """
    rows = []
    for family, parameters in SHOWN.items():
        for P in PERTURBATIONS:
            for parameter in parameters:
                rows += _outcomes(family, P, parameter, runs, rounds, skip)
    return pd.DataFrame(rows, columns=["family", "P", "parameter", "kappa", "multiple", "runs", "diverged", "low", "high"])


def _outcomes(family: str, P: int, parameter: float, runs: int, rounds: int, skip: int) -> list[tuple[Any, ...]]:
    s = spectrum(family, parameter)
    steps = max_stable_step(s, 1.0, P) * np.array(MULTIPLES)
    key = keys.derive(KEY, f"stability map {family}", P=P, parameter=round(10 * parameter))
    grown = (growth_rates(s, steps.tolist(), P, runs, rounds, key, skip) > 0).sum(1)
    kappa = spectra.effective_rank(s)
    rows = []
    for multiple, count in zip(MULTIPLES, grown.tolist(), strict=True):
        _, low, high = proportion(count, runs)
        rows.append((family, P, parameter, kappa, multiple, runs, count, low, high))
    return rows


class Stability:
    """The map as an `experiments.Experiment`; every step is a multiple of an exact one, so there is nothing to tune."""

    name = "stability"
    profile: Profile = "quick"

    def plan(self) -> Plan:
        """One run per family, parameter and P; a run holds all steps and keys."""
        started = time.monotonic()
        _outcomes("power", 1, 1.5, RUNS, 12, 2)
        per_run = (time.monotonic() - started) / 12 * ROUNDS
        return Plan(len(PERTURBATIONS) * sum(len(parameters) for parameters in SHOWN.values()), 0, per_run)

    def tune(self, results: Path, work: Path, jobs: int) -> None:
        """Nothing to choose."""

    def compare(self, grids: Path, results: Path, work: Path, jobs: int) -> None:
        """Compute the limits and run the runs."""
        config = {
            "key": KEY, "runs": RUNS, "rounds": ROUNDS, "skip": SKIP, "multiples": list(MULTIPLES), "P": list(PERTURBATIONS),
            "shown": {family: list(parameters) for family, parameters in SHOWN.items()}, "dimension": DIMENSION,
        }  # fmt: skip
        target = results / "stability_runs.csv"
        if records.current(target, config, VERSION):
            return
        records.write(limits(), results / "stability_limits.csv", config, VERSION)
        records.write(outcomes(RUNS, ROUNDS, SKIP), target, config, VERSION)


STABILITY = Stability()
