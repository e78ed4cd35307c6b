"""The learned H along training: what of it is curvature, what is layers, what is noise, and what it does for zeta.

HiSo runs on the small subjects at the rate that won the stage's grid. After some rounds the exact Hessian at that point is set
beside H, beside its null (the run's scalars replayed along directions that never saw the loss), and beside what could replace H:
its mean, its shuffled self, and oracles. Each subject has several keys: images or source, start and directions.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from hiso_bench import comparison, keys, methods, records, whiteness
from hiso_bench.curvature import unflatten
from hiso_bench.experiments import Plan, Profile
from hiso_bench.stats import mean_interval
from hiso_bench.theory import learned
from learned_h import gap, still, subjects
from learned_h.points import EMA, Place
from synthetic.learned import Learned, follow

VERSION = 1
ROUNDS = (20, 60, 200)
RIDGE = 0.1
"""The eps of the oracles, in units of the mean of the diagonal."""
KEYS = (11, 12, 13, 14, 15)
BUDGETS = {name: (5,) for name in gap.RUN} | {"digits MLP": (5, 80)}
"""P of each subject."""
TARGETS = ("hessian", "absolute", "gauss_newton", "gradient")
"""What H is compared with: diag Sigma where it is positive, diag |Sigma|, diag Gauss-Newton (= Fisher), and g^2."""


def compare(place: Place, run: Learned, P: int, key: int) -> dict[str, float]:
    """H, its null and the point they stand at: the quantities of the table, by name.

    "log hessian" and the like are correlations of H with a target, "null log hessian" the null's. "share ..." is the variance of
    log H between and within layers, of H, its null and the fixed point of the gradient. "zeta ..." is zeta mean(h) and "bound
    ..." beta_u^2 zeta / beta_l, both over tr |Sigma|: 1 for an H that is one number. "gain ..." is the decrease that the next
    round gives at its best step, over that of H = I. "loss" is f.
    """
    targets = {
        "hessian": np.maximum(place.diagonal, 0.0), "absolute": place.absolute, "gauss_newton": place.gauss_newton,
        "gradient": place.gradient**2,
    }  # fmt: skip
    out: dict[str, float] = {"loss": place.curvature.value}
    for prefix, h in (("", run.h), ("null ", run.null)):
        for target, values in targets.items():
            out[f"{prefix}log {target}"] = whiteness.log_correlation(h, values)
            out[f"{prefix}rank {target}"] = whiteness.rank_correlation(h, values)
    fixed = place.fixed_point(P)
    for name, h in (("h", run.h), ("null", run.null), ("fixed point", fixed)):
        shares = whiteness.variance_of_log(h, place.sizes)
        out |= {f"share between {name}": shares.between, f"share within {name}": shares.within}
    out["noise"] = learned.width(P, EMA) ** 2
    shuffled = keys.rng(keys.derive(key, "shuffle")).permutation(run.h)
    ridge = RIDGE * place.gauss_newton.mean()
    kinds = {"learned": run.h, "null": run.null, "shuffled": shuffled, "scalar": np.full_like(run.h, run.h.mean())}
    kinds |= {"fixed point": fixed, "oracle": place.gauss_newton + ridge, "oracle root": np.sqrt(place.gauss_newton + ridge)}
    total, whole = place.absolute.sum(), place.curvature.absolute.numpy()
    plain = whiteness.next_round(place.gradient, whole, np.ones_like(run.h), P)
    for name, h in kinds.items():
        found = whiteness.whitening(place.absolute, h)
        out |= {f"zeta {name}": found.times_mean / total, f"bound {name}": found.bound / total}
        out[f"gain {name}"] = whiteness.next_round(place.gradient, whole, h, P) / plain
    return out


def one(name: str, P: int, rate: float, key: int) -> pd.DataFrame:
    """One run: subject, P, key, round, quantity, value."""
    of = subjects.subject(name)
    problem = of.build(key=key)
    method = methods.build("hiso-c", lr=rate, perturbations=P, ema_new=EMA)
    rows = []
    for round_, run in zip(ROUNDS, follow(problem, method, ROUNDS, subjects.run_key(key)), strict=True):
        place = Place(problem, unflatten(_tensor(run.x), problem.layout), key=key)
        rows += [(name, P, key, round_, quantity, value) for quantity, value in compare(place, run, P, key).items()]
    return pd.DataFrame(rows, columns=["subject", "P", "key", "round", "quantity", "value"])


def _tensor(x: NDArray[np.float64]) -> torch.Tensor:
    return torch.from_numpy(x.copy())


def summary(table: pd.DataFrame) -> pd.DataFrame:
    """Means over keys with 99.9 % intervals, and of H less its null where there is one ("excess ..."), paired by key."""
    index = ["subject", "P", "round"]
    rows = []
    for group, part in table.groupby(index, sort=False):
        wide = part.pivot(index="key", columns="quantity", values="value")
        own = {str(column): wide[column].to_numpy(float) for column in wide.columns}
        own |= {f"excess {name}": own[name] - own[f"null {name}"] for name in list(own) if f"null {name}" in own}
        rows += [(*group, quantity, *mean_interval(values), len(values)) for quantity, values in own.items()]  # type: ignore[misc]
    return pd.DataFrame(rows, columns=[*index, "quantity", "value", "low", "high", "keys"])


class Along:
    """The runs as an `experiments.Experiment`; rates come from the grids of `stage_networks`."""

    name = "along"
    profile: Profile = "standard"

    def plan(self) -> Plan:
        """Runs of a few seconds, each with three exact Hessians."""
        started = time.monotonic()
        still.measure(100, still.Setting(), 8)
        return Plan(sum(map(len, BUDGETS.values())) * len(KEYS), 0, 10 * (time.monotonic() - started))

    def tune(self, results: Path, work: Path, jobs: int) -> None:
        """Nothing of its own to tune."""

    def compare(self, grids: Path, results: Path, work: Path, jobs: int) -> None:
        """Write along (means over keys), along_still (runs whose point stands still) and along_exact (their theory)."""
        rates = {name: comparison.rates(gap.grid_path(grids, name))["hiso"] for name in BUDGETS}
        config: dict[str, Any] = {
            "rounds": ROUNDS, "keys": KEYS, "P": BUDGETS, "rates": rates, "ema_new": EMA, "ridge": RIDGE,
            "images": subjects.IMAGES, "still": [list(of) for of in still.SETTINGS], "dimensions": still.DIMENSIONS,
            "exact": {str(d): several for d, several in still.EXACT.items()}, "key": still.KEY,
        }  # fmt: skip
        target = results / "along.csv"
        if records.current(target, config, VERSION):
            return
        parts = []
        for name, several in BUDGETS.items():
            for P in several:
                parts += [_kept(work, name, P, rates[name], key) for key in KEYS]
        records.write(still.exact(), results / "along_exact.csv", config, VERSION)
        records.write(still.runs(), results / "along_still.csv", config, VERSION)
        records.write(summary(pd.concat(parts, ignore_index=True)), target, config, VERSION)


def _kept(work: Path, name: str, P: int, rate: float, key: int) -> pd.DataFrame:
    config = {"subject": name, "P": P, "rate": rate, "key": key, "rounds": ROUNDS, "images": subjects.IMAGES, "ridge": RIDGE}
    path = work / f"along_{records.config_hash(config)}.csv"
    if not records.current(path, config, VERSION):
        records.write(one(name, P, rate, key), path, config, VERSION)
    return records.read(path)[0]


ALONG = Along()
