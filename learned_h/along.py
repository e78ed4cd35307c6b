"""The learned H along training: what of it is curvature, what is layers, what is noise, and what it does for zeta.

HiSo runs on each subject at a rate that was tuned for it. After some rounds the curvature at that point is set beside H, beside
its null (the run's scalars replayed along directions that never saw the loss), and beside what could replace H: its mean, its
shuffled self, and oracles. The Hessian of a small subject is exact; that of a large one is estimated from products, and what is
attenuated by the noise of the estimate stands beside its reliability. Each subject has several keys: images, source or
pre-training, start and directions.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch

from hiso_bench import comparison, keys, methods, records, whiteness
from hiso_bench.curvature import unflatten
from hiso_bench.experiments import Plan, Profile
from hiso_bench.stats import mean_interval
from hiso_bench.theory import learned
from learned_h import gap, still, subjects
from learned_h.points import EMA, Place
from synthetic.learned import Learned, follow

VERSION = 2
ROUNDS = (20, 60, 200)
RIDGE = 0.1
"""The eps of the oracles, in units of the mean of the diagonal."""
PROBES = {"digits CNN": 400, "MNIST CNN": 200, "tiny-opt": 64}
"""Products per estimated diagonal: what each subject affords."""
KEYS = (11, 12, 13, 14, 15)
LANGUAGE_KEYS = (1, 2, 3, 4, 5)
"""Of the language model, whose key is that of its pre-training: those of the comparison on its task."""


class Run(NamedTuple):
    """One row of the table: a subject, P and a variant of the update."""

    subject: str
    P: int = 5
    variant: str = "hiso-c"

    @property
    def keys(self) -> tuple[int, ...]:
        """Those it runs on."""
        return LANGUAGE_KEYS if self.subject == "tiny-opt" else KEYS

    @property
    def grid(self) -> str:
        """The recorded grid of HiSo's rate: the stage's, or that of the subject's own comparison (smaller batches)."""
        return GRIDS.get(self.subject) or gap.grid_path(Path(), self.subject).stem


GRIDS = {"digits CNN": "fig5_digits_grid", "MNIST CNN": "ablation_mnist_grid", "tiny-opt": "llm_tiny-opt_toy-sst2_grid"}
RUNS = (
    *(Run(name) for name in gap.RUN),
    Run("digits MLP", P=80),
    *(Run("digits MLP", variant=variant) for variant in ("hiso-d", "hiso-e")),
    *(Run(name) for name in subjects.LARGE),
)
TARGETS = ("absolute", "gauss_newton", "gradient")
"""What H is compared with: diag |Sigma|, diag Gauss-Newton (or Fisher), g^2; and where it is formed diag Sigma if positive."""


def compare(place: Place, run: Learned, P: int, key: int) -> dict[str, float]:
    """H, its null and the point they stand at: the quantities of the table, by name.

    "log absolute" and the like are correlations of H with a target, "null log absolute" the null's. "share ..." is the variance
    of log H between and within layers, of H, its null and the fixed point of the gradient. "zeta ..." is zeta mean(h) and "bound
    ..." beta_u^2 zeta / beta_l, both over tr |Sigma| (tr Sigma where it is estimated): 1 for an H that is one number. "gain ..."
    is the decrease that the next round gives at its best step, over that of H = I. "loss" is f.
    """
    targets = {"absolute": place.absolute, "gauss_newton": place.gauss_newton, "gradient": place.gradient**2}
    if place.exact:
        targets["hessian"] = np.maximum(place.diagonal, 0.0)
    out: dict[str, float] = {"loss": place.curvature.value, "reliability": place.reliability}
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
    total, plain = place.weights.sum(), place.decrease(np.ones_like(run.h), P)
    for name, h in kinds.items():
        found = whiteness.whitening(place.weights, h)
        out |= {f"zeta {name}": found.times_mean / total, f"bound {name}": found.bound / total}
        out[f"gain {name}"] = place.decrease(h, P) / plain
    return out


def one(of: Run, rate: float, key: int) -> pd.DataFrame:
    """One run: subject, P, variant, key, round, quantity, value."""
    subject = subjects.subject(of.subject)
    problem = subject.build(key=key)
    method = methods.build(of.variant, lr=rate, perturbations=of.P, ema_new=EMA)
    dtype = torch.float64 if subject.exact else torch.float32
    rows = []
    for round_, run in zip(ROUNDS, follow(problem, method, ROUNDS, subjects.run_key(key)), strict=True):
        x = unflatten(torch.from_numpy(run.x.copy()).to(dtype), problem.layout)
        place = Place(problem, x, subject.exact, key, PROBES.get(of.subject, 0))
        rows += [(*of, key, round_, quantity, value) for quantity, value in compare(place, run, of.P, key).items()]
    return pd.DataFrame(rows, columns=[*INDEX[:-1], "key", "round", "quantity", "value"])


INDEX = ["subject", "P", "variant", "round"]


def summary(table: pd.DataFrame) -> pd.DataFrame:
    """Means over keys with 99.9 % intervals, and of H less its null where there is one ("excess ..."), paired by key."""
    rows = []
    for group, part in table.groupby(INDEX, sort=False):
        wide = part.pivot(index="key", columns="quantity", values="value")
        own = {str(column): wide[column].to_numpy(float) for column in wide.columns}
        own |= {f"excess {name}": own[name] - own[f"null {name}"] for name in list(own) if f"null {name}" in own}
        rows += [(*group, quantity, *mean_interval(values), len(values)) for quantity, values in own.items()]  # type: ignore[misc]
    return pd.DataFrame(rows, columns=[*INDEX, "quantity", "value", "low", "high", "keys"])


class Along:
    """The runs as an `experiments.Experiment`; rates come from recorded grids."""

    name = "along"
    profile: Profile = "standard"

    def plan(self) -> Plan:
        """Runs of some seconds to minutes, each with three looks at the curvature."""
        started = time.monotonic()
        still.measure(100, still.Setting(), 8)
        return Plan(sum(len(of.keys) for of in RUNS), 0, 20 * (time.monotonic() - started))

    def tune(self, results: Path, work: Path, jobs: int) -> None:
        """Nothing of its own to tune."""

    def compare(self, grids: Path, results: Path, work: Path, jobs: int) -> None:
        """Write along (means over keys), along_still (runs whose point stands still) and along_exact (their theory).

        Subjects whose data or packages are absent are left out, and the configuration says which ran.
        """
        here = [of for of in RUNS if subjects.subject(of.subject).available()]
        rates = {of.subject: comparison.rates(grids / f"{of.grid}.csv")["hiso"] for of in here}
        config: dict[str, Any] = {
            "rounds": ROUNDS, "runs": here, "keys": {of.subject: of.keys for of in here}, "rates": rates, "ema_new": EMA,
            "ridge": RIDGE, "probes": PROBES, "images": subjects.IMAGES,
        }  # fmt: skip
        about = {"settings": still.SETTINGS, "d": still.DIMENSIONS, "exact": still.EXACT, "key": still.KEY}
        for table, make in (("along_exact", still.exact), ("along_still", still.runs)):
            if not records.current(results / f"{table}.csv", about, VERSION):
                records.write(make(), results / f"{table}.csv", about, VERSION)
        target = results / "along.csv"
        if not records.current(target, config, VERSION):
            parts = [_kept(work, of, rates[of.subject], key) for of in here for key in of.keys]
            records.write(summary(pd.concat(parts, ignore_index=True)), target, config, VERSION)


def _kept(work: Path, of: Run, rate: float, key: int) -> pd.DataFrame:
    config = {"run": of, "rate": rate, "key": key, "rounds": ROUNDS, "images": subjects.IMAGES, "ridge": RIDGE, "probes": PROBES}
    path = work / f"along_{records.config_hash(config)}.csv"
    if not records.current(path, config, VERSION):
        records.write(one(of, rate, key), path, config, VERSION)
    return records.read(path)[0]


ALONG = Along()
