"""What a known H buys: H = diag(S) + eps against H = I, each at its own best constant step, from exact theory.

f(x) = 1/2 x'Sx, started at ones in the eigenbasis, P = 5. "Rounds" are those until E f = target f(x_0), at the best constant
learning rate in (0, eta*): nothing is drawn or tuned. The whitening rank of HiSo's Eq 16, zeta = sum_j s_j / (s_j + eps), is
the paper's measure of what H is worth; Z (`spectra.whitening_speed`) is the one that does not change under H -> cH.

A rotated problem is an axis-aligned one again: with Xi = H^{-1/2} S H^{-1/2} = U diag(lam) U' and y = U' H^{1/2} x, f is
1/2 sum lam y^2, and the directions of y, U' u, are as Gaussian as u. So `closed_form` holds for it with s = lam, h = 1.

Simulated points run the same problems through the federation, at no more than half of eta* (near eta* the loss has no finite
variance), and are compared with the exact expectation at that rate.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
import pandas as pd
import torch
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import minimize_scalar
from torch import Tensor

from hiso_bench import keys, methods, records
from hiso_bench.experiments import Plan, Profile
from hiso_bench.federation import Federation, FederationOptions
from hiso_bench.methods.base import Method
from hiso_bench.points import Point
from hiso_bench.problems import Problem
from hiso_bench.stats import Interval, mean_interval
from hiso_bench.theory import spectra
from synthetic.declared import Setting, simulate
from synthetic.quadratic import Quadratic

VERSION, KEY = 1, 2023
P, DIMENSION = 5, 200
TARGET, LOOSE = 0.01, 0.03
"""Targets f/f0 without noise, and with noise."""
EPS = np.geomspace(1e-4, 10, 11)
NOISE = 1e-3
"""sigma_s^2 = tr V over tr S, the same for every geometry."""
SIMULATED = {"none": (2, 6, len(EPS)), "hessian": (2, 6), "isotropic": (4, 8)}
"""Rows of a sweep that the figure's simulated points confirm: eps = 0.001, 0.01, 0.1, 1, and H = I in the last row."""
REPLICATES = 64
ANGLES = (0.0, 0.03, 0.1, 0.3, 1.0, np.inf)
FAMILIES = ("i^-1", "i^-1.5", "i^-2", "10 spikes", "log-normal 1", "log-normal 2.5", "4 blocks")
DRAWN = ("i^-1.5", "log-normal 2.5")
GEOMETRIES = ("none", "hessian", "isotropic")


class Curve(Protocol):
    """An exact expectation that knows its stable range and how many rounds a rate takes."""

    limit: float

    def rounds(self, eta: ArrayLike, target: float) -> NDArray[np.float64]:
        """Rounds until E f = target f(x_0); infinity if never."""
        ...


@cache
def spectrum(family: str, d: int = DIMENSION) -> NDArray[np.float64]:
    """The eigenvalues of a family, largest 1.

    Raises:
        ValueError: unknown family.
    """
    draw = keys.rng(keys.derive(KEY, "oracle spectrum"))
    made = {
        **{f"i^-{decay:g}": partial(spectra.power, d, decay) for decay in (1.0, 1.25, 1.5, 1.75, 2.0)},
        "10 spikes": lambda: spectra.spiked(d, 10, 1000.0),
        "20 spikes": lambda: spectra.spiked(d, 20, 300.0),
        "log-normal 1": lambda: spectra.lognormal(d, 1.0, draw),
        "log-normal 2.5": lambda: spectra.lognormal(d, 2.5, draw),
        "4 blocks": lambda: spectra.blocks([d // 4] * 4, (1.0, 10.0, 100.0, 1000.0)),
        "flat": lambda: spectra.flat(d),
    }
    if family not in made:
        raise ValueError(f"family {family!r} is unknown; allowed: {', '.join(made)}")
    s = made[family]()
    return s / s.max()


def noise(s: NDArray, geometry: str, level: float = NOISE) -> NDArray[np.float64]:
    """Variances of the gradient noise with tr V = level tr S: "none", "hessian" (V ~ S) or "isotropic" (V ~ I).

    Raises:
        ValueError: unknown geometry.
    """
    shapes = {"none": np.zeros_like(s), "hessian": s, "isotropic": np.full_like(s, s.mean())}
    if geometry not in shapes:
        raise ValueError(f"geometry {geometry!r} is unknown; allowed: {', '.join(shapes)}")
    return level * shapes[geometry]


def setting(s: NDArray, h: ArrayLike, v: NDArray | None = None) -> Setting:
    """The quadratic diag(s) from ones, with H = diag(h) and noise v."""
    h = np.broadcast_to(np.asarray(h, dtype=np.float64), s.shape).copy()
    return Setting(s, h, np.ones_like(s), np.zeros_like(s) if v is None else v, P)


def fewest(curve: Curve, target: float) -> tuple[float, float]:
    """The best constant learning rate and its rounds to a target, right to 0.1 %.

    `closed_form.Descent.best_rounds` is right to the last digit for five times the cost; the two agree (tested).
    """
    rates = curve.limit * np.append(np.geomspace(1e-6, 0.1, 6)[:-1], np.geomspace(0.1, 0.99, 6))
    found = curve.rounds(rates, target)
    i = int(np.argmin(found))
    ends = np.log(rates[max(i - 1, 0)]), np.log(rates[min(i + 1, len(rates) - 1)])
    # A rate that never gets there counts as a very slow one: the search interpolates.
    cost = lambda x: min(float(curve.rounds(np.exp(x), target)), 1e3 * found[i])  # noqa: E731
    tried = minimize_scalar(cost, bounds=ends, method="bounded", options={"xatol": 0.02})
    return (float(np.exp(tried.x)), float(tried.fun)) if tried.fun < found[i] else (float(rates[i]), float(found[i]))


def active(s: NDArray, h: NDArray, x0: NDArray, target: float) -> NDArray[np.bool_]:
    """The modes that must shrink: all but the slowest ones that together hold no more than target f(x_0), bool (d,)."""
    lam, share = s / h, s * x0**2 / np.sum(s * x0**2)
    order = np.argsort(lam)
    mask = np.ones(len(s), dtype=bool)
    mask[order[np.cumsum(share[order]) <= target]] = False
    return mask


def predicted_rounds(of: Setting, target: float) -> float:
    """Z/(2P) ln(1/target), the scale-free prediction without noise."""
    Z = spectra.whitening_speed(of.s, of.h, active(of.s, of.h, of.x0, target))
    return Z / (2 * of.P) * float(np.log(1 / target))


@cache
def sweep(family: str, geometry: str = "none", target: float = TARGET, d: int = DIMENSION, level: float = NOISE) -> pd.DataFrame:
    """H = S + eps over the grid of eps, and H = I in the last row (eps infinite).

    Returns:
        eps, zeta (of S + eps; of I in the last row), predicted (rounds by Z), rounds, eta, limit: one row per H.
    """
    s = spectrum(family, d)
    v = noise(s, geometry, level)
    rows = []
    for eps in (*EPS, np.inf):
        of = setting(s, 1.0 if np.isinf(eps) else s + eps, v)
        eta, rounds = fewest(of.descent, target)
        rows.append((eps, of.zeta, predicted_rounds(of, target), rounds, eta, of.descent.limit))
    return pd.DataFrame(rows, columns=["eps", "zeta", "predicted", "rounds", "eta", "limit"])


def speed_up(table: pd.DataFrame) -> tuple[float, float]:
    """Rounds of H = I over those of the best eps, and that eps."""
    best = table.iloc[int(table["rounds"].iloc[:-1].argmin())]
    return float(table["rounds"].iloc[-1] / best["rounds"]), float(best["eps"])


class Rotated(NamedTuple):
    """A rotated power-law quadratic, with the diagonal of its Hessian."""

    problem: Quadratic
    S: NDArray[np.float64]
    x0: NDArray[np.float64]
    off_diagonal: float
    """Frobenius norm of S off the diagonal over that on it."""

    def seen(self, h: NDArray[np.float64]) -> Setting:
        """The axis-aligned problem that H = diag(h), or a full H (d, d), makes of it (module docstring)."""
        if h.ndim == 2:
            values, vectors = np.linalg.eigh(h)
            root = (vectors * np.sqrt(values)) @ vectors.T
        else:
            root = np.diag(np.sqrt(h))
        inverse = np.linalg.inv(root) if h.ndim == 2 else np.diag(1 / np.sqrt(h))
        lam, U = np.linalg.eigh(inverse @ self.S @ inverse)
        return Setting(np.maximum(lam, 0.0), np.ones_like(lam), U.T @ root @ self.x0, np.zeros_like(lam))


@cache
def rotated(angle: float, d: int = DIMENSION, replicates: tuple[int, ...] = (), decay: float = 1.5) -> Rotated:
    """The i^-decay quadratic with every axis turned by about `angle` radians; infinity is a Haar rotation."""
    problem = Quadratic(d, "power", decay, clients=1, angle=angle, key=KEY, replicates=replicates)
    Q = np.eye(d) if problem.Q is None else problem.Q.numpy()
    S = (Q.T * problem.spectrum) @ Q
    on = np.diag(np.diag(S))
    return Rotated(problem, S, Q.T @ np.ones(d), float(np.linalg.norm(S - on) / np.linalg.norm(on)))


@cache
def rotation_sweep(target: float = TARGET, d: int = DIMENSION) -> pd.DataFrame:
    """DeComFL (which no rotation changes) against the best H = diag(S) + eps: angle, off_diagonal, eps, rounds, speed_up."""
    plain = fewest(setting(spectrum("i^-1.5", d), 1.0).descent, target)[1]
    rows = []
    for angle in ANGLES:
        case = rotated(angle, d)
        tried = [(fewest(case.seen(np.diag(case.S) + eps).descent, target)[1], eps) for eps in np.geomspace(1e-4, 0.1, 7)]
        rounds, eps = min(tried)
        rows.append((angle, case.off_diagonal, eps, rounds, plain / rounds))
    return pd.DataFrame(rows, columns=["angle", "off_diagonal", "eps", "rounds", "speed_up"])


def losses(problem: Problem, method: Method, rounds: int, key: int, seen: Callable[[Point], Tensor]) -> NDArray[np.float64]:
    """Run a replicated problem through the federation: what `seen` gives of x at rounds 0 .. rounds, (rounds + 1, ...)."""
    federation = Federation(problem, method, FederationOptions(key=key, wire="float64"))
    values: list[Tensor] = []
    for r in range(rounds + 1):
        values.append(seen(federation.state.x))
        if r < rounds:
            federation.round()
    return torch.stack(values).numpy()


def oracle_method(h: ArrayLike, eta: float) -> Method:
    """HiSo's step with H = diag(h) known; central differences, which have no mu term on a quadratic."""
    h = torch.as_tensor(np.asarray(h), dtype=torch.float64)
    return methods.build("hiso-oracle", lr=eta, perturbations=P, difference="central", h=(h,), eps=0.0)


def crossing(values: NDArray[np.float64], target: float) -> Interval:
    """Rounds after which the mean over replicates, and the ends of its 99.9 % interval, stay below a target.

    Args:
        values: f/f0, (rounds + 1, replicates); its last row must lie below the target, interval included.
        target: f/f0.

    Raises:
        ValueError: the last row does not.
    """
    band = np.array([mean_interval(row) for row in values])
    if band[-1, 2] >= target:
        raise ValueError(f"after {len(values) - 1} rounds the interval still reaches {band[-1, 2]:.3g}, above {target}")
    mean, low, high = (float(len(values) - np.argmax(column[::-1] >= target)) for column in band.T)
    return Interval(mean, low, high)


def points() -> pd.DataFrame:
    """Simulated rounds to the loose target for some eps, with the exact rounds at the same rate.

    Returns:
        geometry, eps, eta, rounds, low, high, exact.
    """
    s, rows = spectrum("i^-1.5"), []
    for geometry, numbers in SIMULATED.items():
        table = sweep("i^-1.5", geometry, LOOSE)
        for i in numbers:
            row = table.iloc[i]
            of = setting(s, 1.0 if np.isinf(row["eps"]) else s + row["eps"], noise(s, geometry))
            eta = min(row["eta"], 0.5 * row["limit"])
            exact = float(of.descent.rounds(eta, LOOSE))
            values = simulate(of, eta, int(1.25 * exact), REPLICATES // 2, KEY).losses / of.descent.start
            rows.append((geometry, row["eps"], eta, *crossing(values, LOOSE), exact))
    return pd.DataFrame(rows, columns=["geometry", "eps", "eta", "rounds", "low", "high", "exact"])


class Oracle:
    """The sweeps and their simulated points as an `experiments.Experiment`; theory chooses the rates."""

    name = "oracle"
    profile: Profile = "quick"

    def plan(self) -> Plan:
        """One run of about half a minute."""
        return Plan(1, 0, 30.0)

    def tune(self, results: Path, work: Path, jobs: int) -> None:
        """Nothing to choose."""

    def compare(self, grids: Path, results: Path, work: Path, jobs: int) -> None:
        """Compute the tables: oracle_eps (family, geometry, target, ...), oracle_points and oracle_rotation."""
        config = {
            "dimension": DIMENSION, "P": P, "targets": [TARGET, LOOSE], "noise": NOISE, "replicates": REPLICATES, "key": KEY,
            "eps": EPS.tolist(), "families": FAMILIES, "simulated": SIMULATED, "angles": [str(angle) for angle in ANGLES],
        }  # fmt: skip
        if records.current(results / "oracle_eps.csv", config, VERSION):
            return
        wanted = [(family, "none", TARGET) for family in FAMILIES]
        wanted += [(family, geometry, LOOSE) for family in DRAWN for geometry in GEOMETRIES]
        parts = [sweep(*key).assign(family=key[0], geometry=key[1], target=key[2]) for key in wanted]
        records.write(points(), results / "oracle_points.csv", config, VERSION)
        records.write(rotation_sweep(), results / "oracle_rotation.csv", config, VERSION)
        records.write(pd.concat(parts, ignore_index=True), results / "oracle_eps.csv", config, VERSION)


ORACLE = Oracle()
