"""How H moves: where it settles, how fast, what it does in quiet rounds and after a sudden change, and what that costs.

dynamics_fixed_point.csv   d, P, ema_new, key, measured, predicted: mean H over coordinates, over the exact fixed point's
dynamics_quiet.csv         ema_new, eps, round, perturbation: root mean square of z in rounds without gradient, over the first
dynamics_relax.csv         ema_new, factor, round, key, log_h, law: log mean H after |g| jumps by a factor
dynamics_map.csv           recursion, ema_new, low, high: multipliers of the mean recursion, exact
dynamics_drift.csv         kind, arm, round, key, excess: a quadratic that changes in the middle of a run
"""

from __future__ import annotations

import functools
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from hiso_bench import methods, records
from hiso_bench.experiments import Plan, Profile
from hiso_bench.federation import Federation, FederationOptions
from hiso_bench.losses import Batch
from hiso_bench.methods.base import Method
from hiso_bench.theory import learned
from hiso_bench.theory.stability import max_stable_step
from synthetic.learned import STILL, Linear, settle
from synthetic.quadratic import ClientQuadratic, Quadratic

VERSION, KEY, P = 1, 31, 5
EMAS = (0.01, 0.05, 0.2)


class Changing(Linear):
    """A linear loss whose gradient is multiplied by a number of each round: f(x) = c_r v . x.

    Args:
        gradient: v, (d,).
        factors: c_r of rounds 0 ..., (rounds,); the last one stays.
        replicates: replicate shape.
    """

    name = "changing"

    def __init__(self, gradient: NDArray[np.float64], factors: NDArray[np.float64], replicates: tuple[int, ...] = ()) -> None:
        super().__init__(gradient, replicates=replicates)
        self.factors = factors

    def batch(self, client: np.ndarray, round_: int, step: int) -> Batch:
        """The gradient of the round."""
        return float(self.factors[min(round_, len(self.factors) - 1)]) * self.gradient


def mean_h(method: Method, gradient: NDArray, factors: NDArray, replicates: int, key: int) -> NDArray:
    """The mean of H over coordinates before every round and at the end, (rounds + 1, replicates); x does not matter.

    Args:
        method: HiSo or one like it, of rate `STILL`.
        gradient: v, (d,).
        factors: what the gradient is multiplied by in each round, (rounds,).
        replicates: independent keys.
        key: 64-bit key.
    """
    federation = Federation(Changing(gradient, factors, (replicates,)), method, FederationOptions(wire="float64", key=key))
    found = [federation.state.buffers["h"][0].mean(-1).clone()]
    for _ in range(len(factors)):
        federation.round()
        found.append(federation.state.buffers["h"][0].mean(-1).clone())
    return torch.stack(found).numpy()


def learner(ema: float, h0: float, eps: float = 0.0) -> Method:
    """HiSo that hardly moves x."""
    return methods.build("hiso", lr=STILL, perturbations=P, ema_new=ema, eps=eps, h0=h0)


def fixed_points() -> pd.DataFrame:
    """Where H settles against the exact fixed point, for a log-normal(1) gradient, over d, P and ema_new."""
    rows = []
    for d, directions, ema in (
        (30, 5, 0.05),
        (300, 1, 0.05),
        (300, 5, 0.01),
        (300, 5, 0.05),
        (300, 5, 0.2),
        (300, 20, 0.05),
        (3000, 5, 0.05),
    ):
        v = np.exp(np.random.Generator(np.random.Philox(d)).standard_normal(d))
        at = learned.fixed_point(v**2, directions)
        method = methods.build("hiso", lr=STILL, perturbations=directions, ema_new=ema, h0=float(at.mean()), eps=0.0)
        burn = int(3 / ema)
        found = settle(Linear(v, replicates=(8,)), method, burn + 300, burn, KEY).h.mean(-1)
        second = learned.scatter(v, directions, ema).mean.mean() if d <= 300 else np.nan
        rows += [(d, directions, ema, k, h, at.mean(), second) for k, h in enumerate(found)]
    return pd.DataFrame(rows, columns=["d", "P", "ema_new", "key", "measured", "predicted", "second_order"])


def quiet(rounds: int = 300) -> pd.DataFrame:
    """Root mean square of a perturbation mu H^{-1/2} u in rounds whose scalars are all zero, over that of the first."""
    v, rows = np.ones(50), []
    for ema in EMAS:
        for eps in (0.0, 1e-8):
            h = mean_h(learner(ema, 1.0, eps), v, np.zeros(rounds), 1, KEY)[:, 0]
            rows += [(ema, eps, r, float(h[r] ** -0.5)) for r in range(0, rounds + 1, 10)]
    return pd.DataFrame(rows, columns=["ema_new", "eps", "round", "perturbation"])


def relax(rounds: int = 200) -> pd.DataFrame:
    """Mean H after the gradient jumps by a factor, from where it had settled, and the mean recursion."""
    d, rows = 300, []
    v = np.ones(d)
    start = float(learned.fixed_point(v**2, P).mean())
    for ema in EMAS[:2]:
        for factor in (0.01, 0.1, 10.0, 100.0):
            found = mean_h(learner(ema, start), v, np.full(rounds, factor), 8, KEY)
            law = learned.relaxation(start, factor**2 * d, P, ema, rounds)
            shown = sorted({0, 1, 2, 3, 5, 8, *range(10, rounds + 1, 10)})
            rows += [(ema, factor, r, k, np.log(found[r, k]), np.log(law[r])) for r in shown for k in range(8)]
    return pd.DataFrame(rows, columns=["ema_new", "factor", "round", "key", "log_h", "law"])


def multipliers() -> pd.DataFrame:
    """Smallest and largest multiplier of the mean recursion over ema_new, H from dx and H from h dx (its own factor undone)."""
    g, rows = np.arange(1.0, 101) ** -1, []
    for ema in np.linspace(0.02, 0.98, 25):
        for name, of in (("dx", learned.multipliers), ("h dx", learned.multipliers_undone)):
            found = of(g**2, P, float(ema))
            rows.append((name, float(ema), found[0], found[-1]))
    return pd.DataFrame(rows, columns=["recursion", "ema_new", "low", "high"])


class Drift(Quadratic):
    """f = 1/2 sum_j s_j (x_j - a_j)^2 whose scale, spectrum or minimum changes at one round.

    Args:
        kind: "scale up", "scale down" (f times 100 or 1/100), "reversal" (the spectrum in reverse order), or "minimum" (a from
            0 to 1).
        at: the round of the change.
        d: dimension; s_j = j^-1.5 before.
        replicates: replicate shape.
    """

    name = "drift"

    def __init__(self, kind: str, at: int, d: int = 100, replicates: tuple[int, ...] = ()) -> None:
        super().__init__(d, "power", 1.5, clients=1, replicates=replicates)
        s = torch.from_numpy(self.spectrum)
        after = {"scale up": 100 * s, "scale down": s / 100, "reversal": s.flip(0), "minimum": s}[kind]
        shift = -after if kind == "minimum" else None
        self.at, self.after, self._goal = at, ClientQuadratic(after, shift), float(kind == "minimum")

    def batch(self, client: np.ndarray, round_: int, step: int) -> Batch:
        """The spectrum and linear term of the round."""
        return None if round_ < self.at else self.after

    def excess(self, x: Tensor, round_: int) -> Tensor:
        """F above its minimum over its largest eigenvalue, so that a jump of scale is none: (*replicates,)."""
        s, goal = (self.loss_spectrum, 0.0) if round_ < self.at else (self.after.s, self._goal)
        return (s * (x - goal).square()).sum(-1) / s.max() / 2

    @property
    def loss_spectrum(self) -> Tensor:
        """The eigenvalues before the change, (d,)."""
        return torch.from_numpy(self.spectrum)


KINDS = ("scale up", "scale down", "reversal", "minimum")
DRIFT_RATE = {"decomfl": 0.5, "hiso": 0.2, "hiso-0.01": 0.2, "hiso-forget": 0.2, "hiso-frozen": 0.2, "meazo": 0.02}
"""Learning rates, DeComFL's and HiSo's in units of eta*: not tuned, and the same before and after the change."""

LOST = 1e9
"""Excess of a run that has diverged: so far out a difference of two losses is rounding."""


@functools.cache
def drift(kind: str, arm: str, at: int = 150, rounds: int = 500, replicates: int = 12) -> NDArray[np.float64]:
    """The excess before every round and at the end, (rounds + 1, replicates); infinite once a run has diverged.

    Arms: DeComFL, MEAZO and HiSo as registered; "hiso-0.01" with the longer memory; "hiso-frozen", whose H stops learning at the
    change; "hiso-forget", whose H is replaced by its own mean there: what it had learned about coordinates is gone.
    """
    problem = Drift(kind, at, replicates=(replicates,))
    limit = max_stable_step(problem.spectrum, 1.0, P)
    federation = Federation(problem, _arm(arm, at, limit), FederationOptions(wire="float64", key=KEY, on_divergence="freeze"))
    out = []
    for r in range(rounds + 1):
        excess = problem.excess(federation.state.x[0], r)
        lost = ~federation.alive | ~(excess < LOST) | (out[-1].isinf() if out else False)
        out.append(excess.where(~lost, torch.inf))
        if r == at and arm == "hiso-forget":
            (h,) = federation.state.buffers["h"]
            h.copy_(h.mean(-1, keepdim=True).expand_as(h))
        if r < rounds:
            federation.round()
    return torch.stack(out).numpy()


def _arm(arm: str, at: int, limit: float) -> Method:
    options: dict[str, Any] = {"hiso-0.01": {"ema_new": 0.01}, "hiso-frozen": {"freeze_after": at}}.get(arm, {})
    name = arm if arm in ("decomfl", "meazo") else "hiso"
    rate = DRIFT_RATE[arm] * (1.0 if arm == "meazo" else limit)
    return methods.build(name, options, lr=rate, perturbations=P, mu=1e-6 if name == "hiso" else 1e-3, difference="central")


def drifts() -> pd.DataFrame:
    """Every kind and arm, at every fifth round."""
    rows = []
    for kind in KINDS:
        for arm in DRIFT_RATE:
            found = drift(kind, arm)
            rows += [(kind, arm, r, k, found[r, k]) for r in range(0, len(found), 5) for k in range(found.shape[1])]
    return pd.DataFrame(rows, columns=["kind", "arm", "round", "key", "excess"])


class Dynamics:
    """The tables as an `experiments.Experiment`; nothing is tuned."""

    name = "dynamics"
    profile: Profile = "quick"

    def plan(self) -> Plan:
        """About seventy short runs; one is timed."""
        started = time.monotonic()
        mean_h(learner(0.05, 1.0), np.ones(50), np.ones(100), 8, KEY)
        return Plan(70, 0, 4 * (time.monotonic() - started))

    def tune(self, results: Path, work: Path, jobs: int) -> None:
        """Nothing to tune."""

    def compare(self, grids: Path, results: Path, work: Path, jobs: int) -> None:
        """Write the tables of the module docstring."""
        config = {"P": P, "key": KEY, "ema_new": list(EMAS), "kinds": list(KINDS), "rates": DRIFT_RATE}
        target = results / "dynamics_drift.csv"
        if records.current(target, config, VERSION):
            return
        parts = {"fixed_point": fixed_points, "quiet": quiet, "relax": relax, "map": multipliers, "drift": drifts}
        for name, part in parts.items():
            records.write(part(), results / f"dynamics_{name}.csv", config, VERSION)


DYNAMICS = Dynamics()
