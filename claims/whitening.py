"""Claims about HiSo's whitening rank zeta (Eq 16, 17, Figure 4): what it depends on, and what it says about speed."""

from __future__ import annotations

from functools import cache

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from scipy.stats import norm

from hiso_bench import methods
from hiso_bench.claims import Control, Evidence, Finding, check
from hiso_bench.curvature import unflatten
from hiso_bench.problems import Problem
from hiso_bench.stats import LEVEL, Interval, exact, exponent, mean_interval, proportion, span
from hiso_bench.theory import spectra
from learned_h import subjects
from learned_h.points import Place
from synthetic import oracle, whitening
from synthetic.declared import simulate
from synthetic.quadratic import Quadratic

TYPICAL = (1e-3, 1.0)
"""A printed draw is typical of a law if at least one draw in a thousand is like it."""


@cache
def _figure4() -> dict[str, pd.DataFrame]:
    return whitening.simulate(whitening.SEED)


def _match(reading: str) -> Evidence:
    """The share of draws in the table's window."""
    std, table = whitening.READINGS[reading], _figure4()["whitening_match"]
    row = table.iloc[int((table["std"] - std).abs().argmin())]
    L, trace = (f"{row[f'{of}_low']:.0f}-{row[f'{of}_high']:.0f}" for of in ("L", "trace"))
    what = f"share of draws like the printed one (L {L}, trace {trace}), {reading}, {row['draws']:.0f} draws"
    measured = proportion(int(row["hits"]), int(row["draws"]))
    return Evidence(what, measured, whitening.match_probability(std), TYPICAL)


def _growth(active: int | None) -> Evidence:
    """The exponent of zeta in d, H = Sigma + 1, log-normal std 3 of which `active` eigenvalues are not zero (all by default)."""
    ends, rng = (50, 800), np.random.default_rng(whitening.SEED)
    found = []
    for _ in range(200):
        s = np.exp(3 * rng.standard_normal(ends[1]))
        if active is not None:
            s[active:] = 0
        found.append(np.log(whitening.whitened(s).sum() / whitening.whitened(s[: ends[0]]).sum()) / np.log(ends[1] / ends[0]))
    predicted = 1.0 if active is None else 0.0
    return Evidence("exponent of zeta in d, 50 to 800, 200 spectra", mean_interval(found), predicted, (-0.05, 0.05))


@check("C16")
def figure_4() -> Finding:
    """How often the printed law gives the printed numbers; what zeta depends on when H = Sigma + 1."""
    summary = _figure4()["whitening_summary"]
    zeta = summary[summary["quantity"] == "zeta"].set_index("reading")[["mean", "standard_error"]]
    (narrow, narrow_error), (wide, wide_error) = (zeta.loc[name].to_numpy() for name in ("variance 3", "std 3"))
    ratio = float(wide / narrow)
    reach = float(norm.ppf((1 + LEVEL) / 2) * ratio * np.hypot(narrow_error / narrow, wide_error / wide))
    return Finding(
        evidence=(
            _match("variance 3"),
            _match("std 3"),
            _growth(None),
            Evidence(
                "mean zeta at std 3 over that at std 1.73: below 1 if few large eigenvalues made it small",
                Interval(ratio, ratio - reach, ratio + reach), 1.0, (0.0, 0.9),
            ),
        ),
        controls=(
            Control("std 2.5 in place of the printed spread", "holds", _match("std 2.5")),
            Control("all but 50 eigenvalues set to zero: then zeta does not grow with d", "holds", _growth(50)),
        ),
        needed="more draws",
    )  # fmt: skip


@cache
def _families() -> pd.DataFrame:
    return pd.concat([oracle.sweep(family).assign(family=family) for family in oracle.FAMILIES], ignore_index=True)


def _follows(measure: str) -> Evidence:
    """The correlation of ln rounds with ln of a measure of H, over all families and eps."""
    table = _families()
    logs = np.log(table[["rounds", "predicted", measure]].to_numpy())
    value, by_Z = (float(np.corrcoef(logs[:, i], logs[:, 2])[0, 1]) for i in (0, 1))
    name = "Z" if measure == "predicted" else measure
    what = f"correlation of ln rounds to f/f0 = 0.01 with ln {name}, 7 spectra x 12 H, d = 200"
    return Evidence(what, exact(value), by_Z, (0.5, 1.0))


def _over_perfect(target: float) -> Evidence:
    """Rounds of H = S over those of the best H = S + eps, i^-1.5."""
    d, P = oracle.DIMENSION, oracle.P
    perfect = np.log(target) / np.log(1 - P / (d + P + 1))
    best = float(oracle.sweep("i^-1.5", "none", target)["rounds"].iloc[:-1].min())
    what = f"rounds to f/f0 = {target} of H = S over those of the best S + eps, i^-1.5"
    return Evidence(what, exact(perfect / best), np.nan, (1.1, np.inf))


def _smaller_zeta() -> Evidence:
    """H = S + 1 simulated for the rounds that H = S + 0.001, of 60 times its zeta, needs."""
    s = oracle.spectrum("i^-1.5")
    enough = oracle.fewest(oracle.setting(s, s + 1e-3).descent, oracle.TARGET)[1]
    of = oracle.setting(s, s + 1)
    eta, rounds = of.descent.limit / 2, int(np.ceil(enough))
    values = simulate(of, eta, rounds, oracle.REPLICATES, oracle.KEY).losses[-1] / of.descent.start
    predicted = float(of.descent.value(eta, rounds)) / of.descent.start
    what = f"f/f0 with H = S + 1 (zeta 1.8) after the {rounds} rounds that H = S + 0.001 (zeta 111) needs for 0.01, simulated"
    return Evidence(what, mean_interval(values), predicted, (0.0, oracle.TARGET))


@check("C23")
def zeta_and_speed() -> Finding:
    """Zeta of the perfect H; what eps > 0 gains over it; whether rounds follow zeta."""
    perfect = [spectra.whitening_rank(oracle.spectrum(f), oracle.spectrum(f)) / oracle.DIMENSION for f in oracle.FAMILIES]
    ratios = _families()["rounds"] / _families()["predicted"]
    return Finding(
        evidence=(
            _follows("zeta"),
            _smaller_zeta(),
            Evidence("zeta(H = S) / d, 7 spectra", span(perfect), 1.0, (1 - 1e-12, 1 + 1e-12)),
            _over_perfect(0.1),
            _over_perfect(oracle.TARGET),
        ),
        controls=(
            Control("Z = zeta max h/s over active modes in place of zeta", "holds", _follows("predicted")),
            Control(
                "the number of rounds that Z predicts in place of a correlation", "holds",
                Evidence("rounds over Z/(2P) ln 100, 7 spectra x 12 H", span(ratios), 1.0, (0.2, 5.0)),
            ),
        ),
    )  # fmt: skip


def _tokens() -> tuple[Problem, NDArray[np.float64]]:
    """A small language model and an H from its Gauss-Newton diagonal at the start, of mean 1."""
    of = subjects.subject("rare tokens")
    diagonal = Place(problem := of.build(), subjects.start(problem)).gauss_newton
    return of.build(replicates=(4,)), diagonal / diagonal.mean() + 0.1


def _quadratic() -> tuple[Problem, NDArray[np.float64]]:
    problem = Quadratic(50, "power", 1.0, clients=1, noise=0.1, replicates=(8,), key=oracle.KEY)
    return problem, problem.spectrum + 0.1


def _twins(c: float, rescale: bool, case: tuple[Problem, NDArray[np.float64]] | None = None) -> float:
    """Largest relative difference of the points of (H, eta, mu) and (c H, c eta, sqrt(c) mu) over 100 rounds through the core."""
    problem, h = case or _quadratic()
    eta, mu = 0.05, 1e-3
    runs = []
    for factor in (1.0, c):
        lr = eta * factor if rescale else eta
        given = unflatten(torch.from_numpy(h * factor), problem.layout)
        method = methods.build("hiso-oracle", lr=lr, perturbations=5, mu=mu * factor**0.5, h=given, eps=0.0)
        runs.append(oracle.losses(problem, method, 100, oracle.KEY, lambda x: x[0].clone()))
    return float(np.max(np.abs(runs[1] - runs[0])) / np.max(np.abs(runs[0])))


@check("C2")
def scale_of_h() -> Finding:
    """Zeta of two H that give the same run, and of the bound that is left when the scale is divided out."""
    s, c = oracle.spectrum("i^-1.5"), 100.0
    h = s + 0.01
    scales = (1e-2, 1.0, 1e2)
    zeta = [spectra.whitening_rank(s, factor * h) for factor in scales]
    rounds = [oracle.fewest(oracle.setting(s, factor * h).descent, oracle.TARGET)[1] for factor in scales]
    free = [factor * h.max() * np.sqrt(z / (factor * h.min())) for factor, z in zip(scales, zeta, strict=True)]
    same = (1 - 1e-9, 1 + 1e-9)
    return Finding(
        evidence=(
            Evidence("zeta(100 H) / zeta(H), two H with the same run", exact(zeta[2] / zeta[1]), 1 / c, same),
            Evidence("exponent of rounds in zeta along c H, c = 0.01 to 100", exact(exponent(zeta, rounds)), 0.0, (0.5, 1.5)),
            Evidence(
                "largest relative difference of the points of (H, eta, mu) and (100 H, 100 eta, 10 mu), 100 rounds, core",
                exact(_twins(c, rescale=True)), 0.0, (1e-3, np.inf),
            ),
            Evidence(
                "the same on a network, rare tokens with d = 1088, H = diag Gauss-Newton + eps",
                exact(_twins(c, True, _tokens())), 0.0, (1e-3, np.inf),
            ),
        ),
        controls=(
            Control(
                "beta_u sqrt(zeta / beta_l) in place of zeta", "holds",
                Evidence("its ratio between the two H", exact(free[2] / free[1]), 1.0, same),
            ),
            Control(
                "eta left as it was", "holds",
                Evidence("largest relative difference of the points", exact(_twins(c, rescale=False)), 1.0, (1e-3, np.inf)),
            ),
        ),
    )  # fmt: skip
