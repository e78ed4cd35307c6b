"""The oracle gap of a subject: what a known H buys there, every arm tuned alike.

Quadratics have exact theory (`synthetic.oracle`): rounds of DeComFL at its best constant step over those of the best
diag Sigma + eps. Elsewhere the arms run through the core: every arm's rate is chosen by `sweeps.choose_rates` on tuning keys
from one grid, and compared on other keys. A key decides images or source, initial point and directions. Every oracle H is
scaled to the zeta of H = I, so that one grid of rates suits all arms.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from hiso_bench import methods
from hiso_bench.curvature import unflatten
from hiso_bench.federation import Federation, FederationOptions
from hiso_bench.stats import exact, mean_interval
from hiso_bench.sweeps import Arm, Cell, choose_rates
from learned_h import subjects
from learned_h.points import Place
from synthetic import oracle

P = 5
ROUNDS, EVERY = 400, 5
TUNING, KEYS = (101, 102, 103), tuple(range(1, 13))
START, OCTAVES, SURVIVORS = 2.0**-7, 11, 3
RIDGES = (0.1, 1.0)
"""The eps of an oracle, in units of the mean of its diagonal; the one with the better score on the tuning keys is compared."""
ORACLES = {
    "oracle Hessian": "hessian",
    "oracle Gauss-Newton": "gauss-newton",
    "oracle Gauss-Newton, later": "gauss-newton later",
    "oracle per layer": "layer",
}
ARMS = (
    *(Arm(name, name) for name in ("decomfl", "hiso", "hiso-scalar", "hiso-shuffled")),
    *(Arm(f"{name}, eps {eps:g}", "hiso-oracle", {"h": h, "eps": eps}) for name, h in ORACLES.items() for eps in RIDGES),
)
"""Oracles have twice the tuning of the others, in their favour: the gap is what could be gained at most."""
RUN = ("logistic", "rare tokens", "digits MLP", "digits MLP, scaled features")


@functools.cache
def oracle_h(name: str, key: int, kind: str, eps: float) -> NDArray[np.float64]:
    """An oracle's h for the problem of a key, (d,): diag |Sigma| or diag Gauss-Newton plus eps, with the zeta of H = I.

    Args:
        name: of the subject.
        key: of the problem.
        kind: "hessian", "gauss-newton" or "layer" (a constant per leaf), all at the initial point; "gauss-newton later" is the
            second one after descent.
        eps: in units of the mean of the diagonal.
    """
    curvature = _diagonal(name, key, kind.endswith("later"), False)
    diagonal = _diagonal(name, key, False, True) if kind == "hessian" else curvature
    if kind == "layer":
        sizes = subjects.layer_sizes(subjects.subject(name).build(key=key))
        parts = np.split(diagonal, np.cumsum(sizes)[:-1])
        diagonal = np.concatenate([np.full(len(part), part.mean()) for part in parts])
    h = diagonal + eps * diagonal.mean()
    return h * float(np.sum(curvature / h) / np.sum(curvature))


@functools.cache
def _diagonal(name: str, key: int, later: bool, hessian: bool) -> NDArray[np.float64]:
    of = subjects.subject(name)
    problem = of.build(key=key)
    x = subjects.start(problem)
    place = Place(problem, subjects.later(problem, x, of.minimum(problem)) if later else x)
    return place.absolute if hessian else place.gauss_newton


def losses(name: str, arm: Arm, rates: Sequence[float], key: int, rounds: int) -> NDArray[np.float64]:
    """Excess loss over its value at the start, every `EVERY` rounds: (rounds / EVERY + 1, rates); infinite after divergence."""
    of = subjects.subject(name)
    problem = of.build(key=key, replicates=(len(rates),))
    options = dict(arm.options)
    if "h" in options:
        h = torch.from_numpy(oracle_h(name, key, options["h"], options["eps"]))
        options |= {"h": unflatten(h, of.build(key=key).layout), "eps": 0.0}
    method = methods.build(arm.method, options, lr=torch.tensor(rates, dtype=torch.float64), perturbations=P)
    federation = Federation(problem, method, FederationOptions(key=subjects.run_key(key), on_divergence="freeze"))
    batch = problem.batch(np.zeros(len(rates), dtype=np.int64), 0, 0)
    values = []
    for r in range(rounds + 1):
        if r % EVERY == 0:
            value = problem.loss(federation.state.x, batch).numpy() - of.minimum(problem)
            values.append(np.where(federation.alive.numpy() & np.isfinite(value), value, np.inf))
        if r < rounds:
            federation.round()
    return np.array(values) / values[0]


def tune(name: str, rounds: int = ROUNDS, tuning: Sequence[int] = TUNING) -> pd.DataFrame:
    """The grid of a subject: arm, lr, rounds, score (minus the mean log excess over the last fifth), winner."""

    def evaluate(cells: Sequence[Cell]) -> pd.Series:
        scores: dict[tuple[str, float, int, int], float] = {}
        groups: dict[tuple[str, int, int], list[Cell]] = {}
        for cell in cells:
            groups.setdefault((cell.arm.name, cell.key, cell.rounds), []).append(cell)
        for (_, key, length), group in groups.items():
            found = losses(name, group[0].arm, [cell.lr for cell in group], key, length)
            last = found[-max(1, len(found) // 5) :]
            with np.errstate(divide="ignore"):
                score = -np.log(last).mean(0)
            scores |= {_id(cell): value for cell, value in zip(group, score, strict=True)}
        return pd.Series([scores[_id(cell)] for cell in cells])

    return choose_rates(evaluate, ARMS, tuning, rounds, START, OCTAVES, SURVIVORS)


def pick(grid: pd.DataFrame) -> dict[str, tuple[str, float]]:
    """What is compared: DeComFL, the HiSo arms and each oracle at its better eps: name -> (arm of the grid, rate)."""
    won = grid[grid["winner"]].set_index("arm")
    chosen: dict[str, tuple[str, float]] = {}
    for arm in ARMS:
        name = arm.name.rsplit(", eps", 1)[0]
        if name not in chosen or won.loc[arm.name, "score"] > won.loc[chosen[name][0], "score"]:
            chosen[name] = (arm.name, float(won.loc[arm.name, "lr"]))
    return chosen


def _id(cell: Cell) -> tuple[str, float, int, int]:
    return cell.arm.name, cell.lr, cell.key, cell.rounds


def results(name: str, chosen: dict[str, tuple[str, float]], rounds: int = ROUNDS, wanted: Sequence[int] = KEYS) -> pd.DataFrame:
    """Everything that `pick` chose on the result keys: arm, key, lr, round, excess (over its value at the start)."""
    by_name, rows = {arm.name: arm for arm in ARMS}, []
    for label, (arm, lr) in chosen.items():
        for key in wanted:
            found = losses(name, by_name[arm], [lr], key, rounds)[:, 0]
            rows += [(label, key, lr, i * EVERY, value) for i, value in enumerate(found)]
    return pd.DataFrame(rows, columns=["arm", "key", "lr", "round", "excess"])


def speed_ups(table: pd.DataFrame) -> pd.DataFrame:
    """How many times faster than DeComFL each arm is, key by key: arm, key, speed_up, log_ratio.

    Curves are taken at their best value so far, so that a run that loses what it had is not slower than one that never had it.
    The target is the best value of the arm whose best is the worse; the speed-up is DeComFL's rounds to it over the arm's.
    It is 0 for a run that diverged. `log_ratio` is the logarithm of DeComFL's best excess over the arm's.
    """
    wide = table.pivot(index=["arm", "key"], columns="round", values="excess")
    rounds = wide.columns.to_numpy(float)
    curves = dict(zip(wide.index, np.minimum.accumulate(wide.to_numpy(float), axis=1), strict=True))
    ended = dict(zip(wide.index, np.isfinite(wide.to_numpy(float)[:, -1]), strict=True))
    rows = []
    for (arm, key), mine in curves.items():
        plain = curves["decomfl", key]
        if not ended[arm, key]:
            rows.append((arm, key, 0.0, -np.inf))
            continue
        target = max(mine[-1], plain[-1])
        needed, taken = (max(rounds[int(np.argmax(curve <= target))], EVERY) for curve in (plain, mine))
        rows.append((arm, key, needed / taken, float(np.log(plain[-1] / mine[-1]))))
    return pd.DataFrame(rows, columns=["arm", "key", "speed_up", "log_ratio"])


def summary(ups: pd.DataFrame) -> pd.DataFrame:
    """Geometric mean of the speed-up over keys with its 99.9 % interval: arm, value, low, high, keys, diverged."""
    rows = []
    for arm, part in ups.groupby("arm", sort=False):
        good = part.loc[part["speed_up"] > 0, "speed_up"].to_numpy()
        found = np.exp(mean_interval(np.log(good))) if len(good) > 1 else np.full(3, np.nan)
        rows.append((arm, *found, len(part), len(part) - len(good)))
    return pd.DataFrame(rows, columns=["arm", "value", "low", "high", "keys", "diverged"])


def quadratic_gap(name: str) -> pd.DataFrame:
    """Exact speed-up of the best diag Sigma + eps over DeComFL on a quadratic subject to f/f0 = 0.01, as `summary`."""
    problem = subjects.subject(name).build()
    s = problem.spectrum / problem.spectrum.max()
    Q = np.eye(len(s)) if problem.Q is None else problem.Q.numpy()
    case = oracle.Rotated(problem, (Q.T * s) @ Q, Q.T @ np.ones(len(s)), 0.0)
    plain = oracle.fewest(oracle.setting(s, 1.0).descent, oracle.TARGET)[1]
    on = np.diag(case.S)
    best = min(oracle.fewest(case.seen(on + eps).descent, oracle.TARGET)[1] for eps in np.geomspace(1e-4, 0.1, 7))
    rows = [("oracle Hessian", *exact(plain / best), 1, 0), ("decomfl", 1.0, 1.0, 1.0, 1, 0)]
    return pd.DataFrame(rows, columns=["arm", "value", "low", "high", "keys", "diverged"])


def grid_path(folder: Path, name: str) -> Path:
    """Where a subject's grid is recorded."""
    return folder / f"stage_{name.replace(' ', '_').replace(',', '')}_grid.csv"
