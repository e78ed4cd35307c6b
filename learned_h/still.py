"""H where the point stands still: from theory for every d and P, and by runs for every version of the update.

The gradient is that of a log-normal quadratic at x = 1, where g = diag Sigma: no gradient could tell an H more about the
curvature. What a snapshot of H can then show is the correlation of the fixed point, shrunk by the noise of the moving average,

    corr(log H, log diag Sigma) = corr(log h*, log diag Sigma) std(log h*) / sqrt(std(log h*)^2 + width^2).

The null replays the same scalars along directions that never saw the loss.
"""

from __future__ import annotations

import functools
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from hiso_bench import methods, whiteness
from hiso_bench.stats import mean_interval
from hiso_bench.theory import learned, spectra
from learned_h import subjects
from synthetic.learned import STILL, follow
from synthetic.quadratic import Quadratic

KEY = 7
MANY = (1, 5, 20, 80, 320)
EXACT = {10: MANY, 100: MANY, 1000: MANY, 10_000: MANY, 100_000: (5, 80), 10**6: (5,)}
"""d -> P of the exact table."""
DIMENSIONS = (10, 100, 1000)
"""Of the runs."""


class Setting(NamedTuple):
    """One version of the update, and what differs from the default."""

    variant: str = "hiso-c"
    P: int = 5
    ema_new: float = 0.05
    local_steps: int = 1
    eps: float = 0.0
    """In units of the h that the gradient leads to."""


SETTINGS = (
    Setting(),
    Setting("hiso-d"),
    Setting("hiso-e"),
    Setting(ema_new=0.01),
    Setting(ema_new=0.2),
    Setting(P=1),
    Setting(P=20),
    Setting(P=80),
    Setting(local_steps=5),
    Setting(eps=1.0),
)


def shrunk(correlation: float, h: NDArray, P: int, ema_new: float) -> float:
    """The correlation of a snapshot, from that of the fixed point h: the formula above."""
    signal = float(np.log(h).std())
    return correlation * signal / float(np.hypot(signal, learned.width(P, ema_new)))


@functools.cache
def still(d: int) -> NDArray[np.float64]:
    """The gradient, which is diag Sigma."""
    return Quadratic(d, "lognormal", 1.0, clients=1, key=KEY).spectrum


def exact() -> pd.DataFrame:
    """Theory: d, P, n_eff, signal (std log h*), noise, log_h (of the fixed point), snapshot (with the noise of ema_new 0.05)."""
    rows = []
    for d, several in EXACT.items():
        s = still(d)
        for P in several:
            h = learned.fixed_point(s**2, P)
            fixed = whiteness.log_correlation(h, s)
            signal, noise = float(np.log(h).std()), learned.width(P, 0.05)
            rows.append((d, P, spectra.participation(s), signal, noise, fixed, shrunk(fixed, h, P, 0.05)))
    return pd.DataFrame(rows, columns=["d", "P", "n_eff", "signal", "noise", "log_h", "snapshot"])


def measure(d: int, of: Setting, replicates: int) -> pd.DataFrame:
    """Runs that stand still: the correlations of H and of its null with diag Sigma, with 99.9 % intervals over replicates.

    Returns:
        d, variant, P, ema_new, local_steps, eps, measure ("log" or "rank"), what ("h", "null" or "difference"), value, low, high,
        predicted (NaN where theory has none: with eps).
    """
    s = still(d)
    problem = Quadratic(d, "lognormal", 1.0, clients=1, key=KEY, replicates=(replicates,))
    samples, size = (1, of.P ** (-2 / 3)) if of.variant == "hiso-e" else (of.P, 1.0)
    fixed = learned.fixed_point(s**2, samples)
    level = size * float(fixed.mean())
    method = methods.build(
        of.variant,
        lr=STILL,
        perturbations=of.P,
        ema_new=of.ema_new,
        difference="central",
        h0=level * (1 + of.eps),
        eps=of.eps * level,
    )
    rounds = int(np.ceil(3 / of.ema_new / of.local_steps))
    run = next(follow(problem, method, (rounds,), subjects.run_key(KEY), of.local_steps))
    rows = []
    for name, correlation in (("log", whiteness.log_correlation), ("rank", whiteness.rank_correlation)):
        h, null = (np.array([correlation(row, s) for row in rows_]) for rows_ in (run.h, run.null))
        predicted = shrunk(correlation(fixed, s), fixed, samples, of.ema_new) if name == "log" and not of.eps else np.nan
        for what, values, expected in (("h", h, predicted), ("null", null, 0.0), ("difference", h - null, predicted)):
            rows.append((d, *of, name, what, *mean_interval(values), expected))
    columns = ["d", *Setting._fields, "measure", "what", "value", "low", "high", "predicted"]
    return pd.DataFrame(rows, columns=columns)


def runs() -> pd.DataFrame:
    """Every setting at every d."""
    parts = [measure(d, of, 64 if d < 1000 else 16) for d in DIMENSIONS for of in SETTINGS]
    return pd.concat(parts, ignore_index=True)
