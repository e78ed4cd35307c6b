"""What one more scalar a round buys: second differences against DeComFL, HiSo and a known diagonal, on quadratics.

f(x) = 1/2 x'Sx from ones in the eigenbasis. A case is a spectrum, an angle by which its axes are turned and a geometry of the
gradient noise. DeComFL has its best constant step, from exact theory, and so has the oracle H = diag S + eps over a grid of eps.
The methods with second differences have ONE setting, their defaults, in every case. HiSo's rates are chosen on keys of their own.

"Rounds" of a key are those after which f stays below target f(x_0) until its run ends; those of exact arms refer to E f. A
scalar is a number on one client's uplink. At equal scalars and forward passes a round has P slopes and nc second differences
with P + nc = 5, against DeComFL's P = 5.

The floor: n scalars are n linear functionals of an unknown x, so on a whitened isotropic problem no method that sends nothing
but scalars gets to a share t of the loss with fewer than (1 - t) d_active of them.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from hiso_bench import methods, records
from hiso_bench.experiments import Plan, Profile
from hiso_bench.federation import Federation, FederationOptions
from hiso_bench.losses import Batch, Loss
from hiso_bench.points import Layout, Point
from hiso_bench.problems import Problem
from synthetic import oracle
from synthetic.declared import Declared, Setting
from synthetic.oracle import P
from synthetic.quadratic import QuadraticLoss

VERSION, KEY, KEYS, TUNING = 3, 71, 6, 2
TARGETS = (0.1, 0.01)
PATIENCE = 1.15
"""A run ends once all keys have been below the last target for this factor of the rounds."""
HISO_RATES = tuple(np.geomspace(0.003, 3, 7))
DEFAULTS: dict[str, tuple[str, dict[str, Any]]] = {
    "safe-step": ("safe-step", {"perturbations": 4}),
    "curvature-1": ("curvature", {"perturbations": 4}),
    "curvature-2": ("curvature", {"perturbations": 3, "second_differences": 2}),
    "curvature-5": ("curvature", {"perturbations": 5, "second_differences": 5}),
    "curvature-block": ("curvature-block", {"perturbations": 4}),
}
"""Arms with second differences: P and nc alone are given, the rest is default."""


class Case(NamedTuple):
    """A spectrum, the angle of its rotation, the geometry of the noise, and d."""

    family: str
    angle: float = 0.0
    geometry: str = "none"
    d: int = oracle.DIMENSION

    @property
    def setting(self) -> Setting:
        """Spectrum, start and noise, with H = I."""
        s = oracle.spectrum(self.family, self.d)
        return oracle.setting(s, 1.0, oracle.noise(s, self.geometry))

    def turned(self, replicates: tuple[int, ...] = ()) -> oracle.Rotated:
        """A power law with its axes turned."""
        return oracle.rotated(self.angle, self.d, replicates, float(self.family.removeprefix("i^-")))


LARGE = tuple(Case(family, 0.0, geometry, 1000) for geometry in ("none", "hessian") for family in ("i^-1.5", "10 spikes"))
ALIGNED = tuple(Case(family) for family in oracle.FAMILIES)
NOISY = tuple(Case(family, 0.0, geometry) for family in ("i^-1.5", "10 spikes") for geometry in ("hessian", "isotropic"))
TURNED = tuple(Case("i^-1.5", angle) for angle in (0.1, 0.3, np.inf))
CASES = (*LARGE, *ALIGNED, *NOISY, *TURNED)
TUNED = (Case("i^-1.5"), Case("10 spikes"), Case("log-normal 1"))
"""Cases on which HiSo's rates are tuned."""
CURVES = (Case("i^-1.5", d=1000), Case("i^-1.5", np.inf))


class LeavesLoss(Loss):
    """A loss of one vector, which the point holds in several leaves."""

    def __init__(self, inner: Loss) -> None:
        self.inner = inner

    def __call__(self, x: Point, batch: Batch) -> Tensor:
        """The inner loss of the joined leaves."""
        return self.inner((torch.cat(x, -1),), batch)


class Leaves(Declared):
    """A declared quadratic of equal leaves, one per block of its spectrum."""

    def __init__(self, setting: Setting, leaves: int, replicates: tuple[int, ...], key: int) -> None:
        super().__init__(setting, replicates, key)
        self.size = len(setting.s) // leaves
        self.layout = Layout(((self.size,),) * leaves, replicates)
        self.loss = LeavesLoss(QuadraticLoss(torch.from_numpy(setting.s)))

    def initial(self) -> Point:
        """The setting's x_0, cut."""
        start = self._start.expand((*self.layout.replicate_shape, len(self._start)))
        return tuple(part.clone() for part in start.split(self.size, -1))


def problem(case: Case, arm: str, replicates: tuple[int, ...], key: int) -> Problem:
    """The case's problem; in one leaf per block for the method that learns per leaf."""
    if case.angle:
        return case.turned(replicates).problem
    if arm == "curvature-block":
        return Leaves(case.setting, 4, replicates, key)
    return Declared(case.setting, replicates, key)


def trajectory(case: Case, arm: str, method: methods.Method, keys: int, key: int, cap: int) -> NDArray[np.float64]:
    """f/f(x_0) at rounds 0, 1, ... of a method with `keys` keys as the last replicate axis: (rounds + 1, ..., keys)."""
    rates = torch.as_tensor(method.lr)
    shape = (*rates.shape[:-1], keys)
    at = problem(case, arm, shape, key)
    federation = Federation(at, method, FederationOptions(key=key, wire="float64", on_divergence="freeze"))
    values, start = [], case.setting.descent.start
    below: int | None = None
    for r in range(cap + 1):
        value = at.loss(federation.state.x, None).numpy() / start
        values.append(value)
        below = (r if below is None else below) if value.max() < TARGETS[-1] else None
        if below is not None and r >= PATIENCE * below:
            break
        if r < cap:
            federation.round()
    return np.array(values)


def stays_below(values: NDArray[np.float64], target: float) -> NDArray[np.float64]:
    """Rounds after which each column stays below a target; infinity where its last row does not."""
    above = ~(values < target)  # a NaN is above
    last = len(values) - np.argmax(above[::-1], axis=0).astype(np.float64)
    last = np.where(above.any(0), last, 0.0)
    return np.where(above[-1], np.inf, last)


@cache
def best_plain(case: Case, target: float, directions: int = P) -> tuple[float, float]:
    """(rate, rounds) of DeComFL at its best constant step, exact; no rotation changes them."""
    of = case.setting
    return oracle.fewest(Setting(of.s, of.h, of.x0, of.noise, directions).descent, target)


@cache
def best_oracle(case: Case, target: float) -> float:
    """Rounds of the best H = diag S + eps, each at its best constant step, exact."""
    of, grid = case.setting, np.geomspace(1e-4, 0.1, 7)
    if case.angle:
        turned = case.turned()
        return min(oracle.fewest(turned.seen(np.diag(turned.S) + eps).descent, target)[1] for eps in grid)
    return min(oracle.fewest(oracle.setting(of.s, of.s + eps, of.noise).descent, target)[1] for eps in grid)


def floor(case: Case, target: float) -> float:
    """(1 - target) d_active, in scalars (module docstring)."""
    of = case.setting
    return float((1 - target) * oracle.active(of.s, of.h, of.x0, target).sum())


def cap(case: Case) -> int:
    """Rounds at which a run is given up: with noise at d = 200 at 1.2 times what DeComFL costs, at d = 1000 at a third of it."""
    if case.d > oracle.DIMENSION:
        return 4000 if case.geometry == "none" else int(best_plain(case, TARGETS[-1])[1] / 3)
    return max(3000, int(1.2 * best_plain(case, TARGETS[-1])[1]) if case.geometry != "none" else 0)


def arm_method(arm: str, **more: Any) -> methods.Method:
    """An arm with second differences, at its defaults; central, as f is quadratic."""
    name, given = DEFAULTS[arm]
    return methods.build(name, given, difference="central", **more)


def passes(method: methods.Method) -> int:
    """Forward passes a round with forward differences, as a network would take them."""
    return type(method)(**{**vars(method), "difference": "forward"}).evaluations


def rows(case: Case, arm: str, values: NDArray[np.float64], scalars: int, forwards: int) -> Iterator[tuple]:
    """One row per target and key."""
    for target in TARGETS:
        for key, rounds in enumerate(stays_below(values, target)):
            yield (*case, arm, target, key, rounds, rounds * scalars, rounds * forwards)


def exact_rows(case: Case) -> Iterator[tuple]:
    """DeComFL, the same with 2 P and 5 P directions, the oracle and the floor; key -1.

    5 P shared directions of one client cost 5 P scalars. Without noise and with equal clients they are what 5 clients with P
    directions of their own have for P scalars each.
    """
    for target in TARGETS:
        plain = best_plain(case, target)[1]
        yield (*case, "decomfl", target, -1, plain, P * plain, (P + 1) * plain)
        if case.geometry == "none":
            wide = best_plain(case, target, 2 * P)[1]
            yield (*case, "decomfl-2P", target, -1, wide, 2 * P * wide, (2 * P + 1) * wide)
            many = best_plain(case, target, 5 * P)[1]
            yield (*case, "decomfl-5-clients", target, -1, many, P * many, (P + 1) * many)
        known = best_oracle(case, target)
        yield (*case, "oracle", target, -1, known, P * known, (P + 1) * known)
        least = floor(case, target)
        yield (*case, "floor", target, -1, least / P, least, (P + 1) * least / P)


def hiso_rows(case: Case) -> Iterator[tuple]:
    """HiSo and its scalar control, at the rate that took fewest rounds (median) to the last target on the tuning keys."""
    for arm in ("hiso", "hiso-scalar"):
        build = lambda lr: methods.build(arm, lr=lr, perturbations=P, difference="central")  # noqa: B023, E731
        grid = torch.tensor(HISO_RATES, dtype=torch.float64)[:, None]
        tried = stays_below(trajectory(case, arm, build(grid), TUNING, KEY + 1, cap(case)), TARGETS[-1])
        rate = float(grid[int(np.argmin(np.median(tried, -1))), 0])
        yield from rows(case, arm, trajectory(case, arm, build(rate), KEYS, KEY, cap(case)), P, P + 1)


def arms(case: Case) -> list[str]:
    """The arms with second differences that a case has."""
    if case.d > oracle.DIMENSION:
        return ["safe-step", "curvature-1"]
    return [arm for arm in DEFAULTS if arm != "curvature-block" or "blocks" in case.family]


def compute(cases: tuple[Case, ...] = CASES, hiso: tuple[Case, ...] = TUNED) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The table of rounds, and the curves of `CURVES` (the geometric mean over keys)."""
    found: list[tuple] = []
    curves: list[pd.DataFrame] = []
    for case in cases:
        found.extend(exact_rows(case))
        if case in hiso:
            found.extend(hiso_rows(case))
        for arm in arms(case):
            method = arm_method(arm)
            values = trajectory(case, arm, method, KEYS, KEY, cap(case))
            found.extend(rows(case, arm, values, method.perturbations + method.curvatures, passes(method)))
            if case in CURVES:
                curves.append(_curve(case, arm, np.exp(np.log(values).mean(-1)), method))
        if case in CURVES:
            eta, rounds = best_plain(case, TARGETS[-1])
            at = np.unique(np.geomspace(1, rounds, 80).astype(int))
            plain = methods.build("decomfl", lr=eta, perturbations=P)
            exact = case.setting.descent.value(eta, at) / case.setting.descent.start
            curves.append(_curve(case, "decomfl", exact, plain, at))
    columns = [*Case._fields, "arm", "target", "key", "rounds", "scalars", "forwards"]
    return pd.DataFrame(found, columns=columns), pd.concat(curves, ignore_index=True)


def _curve(case: Case, arm: str, loss: NDArray, method: methods.Method, at: NDArray | None = None) -> pd.DataFrame:
    if at is None:
        at = np.unique(np.geomspace(1, len(loss) - 1, 120).astype(int))
        loss = loss[at]
    scalars = at * (method.perturbations + method.curvatures)
    return pd.DataFrame({**case._asdict(), "arm": arm, "round": at, "scalars": scalars, "loss": loss})


class SecondOrder:
    """The comparison as an `experiments.Experiment`; nothing is tuned but HiSo, within the comparison and on keys of its own."""

    name = "second_order"
    profile: Profile = "standard"

    def plan(self) -> Plan:
        """One run of some minutes."""
        return Plan(1, 0, 700.0)

    def tune(self, results: Path, work: Path, jobs: int) -> None:
        """Nothing to choose beforehand."""

    def compare(self, grids: Path, results: Path, work: Path, jobs: int) -> None:
        """Write second_order.csv and second_order_curves.csv."""
        config = {
            "cases": [[str(field) for field in case] for case in CASES], "P": P, "targets": list(TARGETS), "key": KEY,
            "keys": KEYS, "noise": oracle.NOISE, "hiso_rates": [float(rate) for rate in HISO_RATES], "tuning_keys": TUNING,
            "arms": {arm: [name, given] for arm, (name, given) in DEFAULTS.items()},
        }  # fmt: skip
        if records.current(results / "second_order.csv", config, VERSION):
            return
        table, curves = compute()
        records.write(curves, results / "second_order_curves.csv", config, VERSION)
        records.write(table, results / "second_order.csv", config, VERSION)


SECOND_ORDER = SecondOrder()
