"""HiSo's Theorem 1 and its Corollaries 1 and 2: both sides, the norm they are stated in, and the step they ask for."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from itertools import product

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hiso_bench import keys
from hiso_bench.claims import Control, Evidence, Finding, check
from hiso_bench.stats import Interval, exact, exponent, mean_interval, span
from hiso_bench.theory import bounds, spectra
from hiso_bench.theory.recursion import expected_squares
from hiso_bench.theory.stability import max_stable_step
from synthetic import stability, theorem1
from synthetic.quadratic import Quadratic

BELOW = (0.0, 1.0)
NEGATIVE = (-np.inf, 0.0)
SMALLER = (0.0, 0.99)
SAME = (1 - 1e-9, 1 + 1e-9)
NO_DEPENDENCE = (-0.05, 0.05)
TIGHTEST = 4 / 15
"""(1/(eta R)) / (1 - eta rho/2) over 4/(eta R) at the largest step, eta = 1/(8 rho): no left side inside can come closer."""


# Theorem 1, both sides


@check("thm1")
def both_sides() -> Finding:
    """Left over right at the learning rates that each reading of the condition admits."""
    grid = theorem1.grid()
    ratio = {reading: part["left"] / part["right"] for reading, part in grid.groupby("reading")}
    small = theorem1.rescaled(theorem1.case(spectra.flat(50), "identity", "none", 1, 300), 1e-3 / 52)
    parsed, third = (bounds.step_limit(small.setting, reading) for reading in ("parsed", "third"))
    beyond = 1.2 * small.descent.limit
    problem = Quadratic(50, "power", 1.5, 8, 0.05, 0.1, (1000,), keys.derive(theorem1.SEED, "thm1"))
    one, eta, seen = theorem1.simulate(problem, m=2, eps=theorem1.EPS, rounds=100)
    left = one.left(eta)
    simulated = Interval(*(value / left for value in mean_interval(seen.mean(0))))
    tightest = 0.25 / (1 - 1 / (16 * math.sqrt(102)))
    flat = "log10(left/right), flat, d = 50, H = I, no noise, R = 300, the loss rescaled to L (d+2) = 1e-3"
    return Finding(
        evidence=(
            Evidence(
                "largest left/right, root on the third entry only: 5 spectra, 4 H, 3 noises, m = 2 and 8 of 8, R = 10 and 1e5",
                _largest(ratio["third"]),
                TIGHTEST,
                BELOW,
            ),
            Evidence(
                "largest left/right, root on all entries, the same problems (L = 1, d = 100)",
                _largest(ratio["parsed"]),
                tightest,
                BELOW,
            ),
            Evidence(f"{flat}, root on all entries", exact(_log_ratio(small, parsed)), _flat_log_ratio(small, parsed), NEGATIVE),
        ),
        controls=(
            Control(
                "the admitted learning rate -> 1.2 eta*",
                "fails",
                Evidence(flat, exact(_log_ratio(small, beyond)), _flat_log_ratio(small, beyond), NEGATIVE),
            ),
            Control(
                "root on all entries -> on the third only",
                "holds",
                Evidence(flat, exact(_log_ratio(small, third)), _flat_log_ratio(small, third), NEGATIVE),
            ),
            Control(
                "exact recursion -> the federation, 1000 keys",
                "holds",
                Evidence(
                    "simulated over exact left side, d = 50, power 1.5, H = Sigma + 0.1, m = 2 of 8, R = 100, root on the third",
                    simulated,
                    1.0,
                    (0.95, 1.05),
                ),
            ),
        ),
        needed="more keys",
    )


def _largest(ratios: ArrayLike) -> Interval:
    """The largest of computed ratios that must all be below 1, and their range."""
    _, low, high = span(ratios)
    return Interval(high, low, high)


def _log_ratio(one: theorem1.Case, eta: float) -> float:
    return math.log10(one.left(eta) / one.right(eta))


def _flat_log_ratio(one: theorem1.Case, eta: float) -> float:
    """The same for a flat spectrum without noise in closed form: E|g|^2 is multiplied by one number every round."""
    L, d = one.s[0], len(one.s)
    growth = 1 - 2 * L * eta + (d + 2) * (L * eta) ** 2
    left = L**2 * d * math.expm1(one.R * math.log(growth)) / (growth - 1) / one.R
    return math.log10(left / (2 * L * d / (eta * one.R)))


# The norm of Corollaries 1 and 2


@check("C6")
def norms() -> Finding:
    """HiSo's bound over DeComFL's, and the exact averages behind them, in both norms."""
    drawn = [spectra.lognormal(200, 3.0, keys.rng(keys.derive(theorem1.SEED, "norms", draw=i))) for i in range(200)]
    whitened, euclidean = np.array([_bound_ratios(s, s + 1) for s in drawn]).T
    formulas = np.median([_ratio_formulas(s, s + 1) for s in drawn], axis=0)
    scalar = np.array([_bound_ratios(s, np.full_like(s, 7.0)) for s in drawn]).T
    measured = np.array([_exact_ratios(*at) for at in product(("power 1", "power 1.5"), ("curvature", "isotropic"))])
    (exact_whitened, exact_euclidean), (law_whitened, law_euclidean) = measured.T[:2], np.median(measured, axis=0)[2:]
    slow = _exact_ratios("power 1.5", "curvature", loss_on=-1.0)
    what = "exact average of |grad F|^2, HiSo (H = Sigma + 0.1 L) / DeComFL, each at its best constant step, d = 100, R = 1000"
    best = "HiSo's best bound / DeComFL's, 200 spectra as in Fig 4 (lognormal, std 3, d = 200)"
    return Finding(
        evidence=(
            Evidence(f"{best}, H = Sigma + 1, H^-1 norm", span(whitened), formulas[0], SMALLER),
            Evidence(f"{best}, H = Sigma + 1, Euclidean norm", span(euclidean), formulas[1], SMALLER),
            Evidence(f"{what}, H^-1 norm", span(exact_whitened), law_whitened, SMALLER),
            Evidence(f"{what}, Euclidean norm", span(exact_euclidean), law_euclidean, SMALLER),
        ),
        controls=(
            Control("H = Sigma + 1 -> 7 I", "fails", Evidence(f"{best}, H^-1 norm", span(scalar[0]), 1.0, SMALLER)),
            Control("H = Sigma + 1 -> 7 I", "fails", Evidence(f"{best}, Euclidean norm", span(scalar[1]), 1.0, SMALLER)),
            Control(
                "x_0 = 1 -> x_0 = 1/s: the loss starts in the slow modes, the noise (V ~ Sigma) stays in the steep ones",
                "holds",
                Evidence(f"{what}, H^-1 norm", exact(slow[0]), slow[2], SMALLER),
            ),
        ),
    )


def _bound_ratios(s: NDArray, h: NDArray) -> tuple[float, float]:
    """HiSo's Theorem 1 at its best step over DeComFL's (H = I) at its own: H^{-1} norm (DeComFL's over beta_l), Euclidean."""
    hiso, decomfl = (bounds.setting(s, x, s.sum() / 2, m=2, R=1000, sigma_s=1.0) for x in (h, np.ones_like(h)))
    ours, theirs = (bounds.theorem1(c, bounds.best_step(c)).total for c in (hiso, decomfl))
    return ours / (theirs / hiso.beta_l), ours * hiso.beta_u / theirs


def _ratio_formulas(s: NDArray, h: NDArray) -> tuple[float, float]:
    """sqrt(rho beta_l/rho_I) in [sqrt(beta_l/beta_u), 1], and beta_u sqrt(rho/(beta_l rho_I)) >= sqrt(beta_u/beta_l)."""
    low, high, ratio = h.min(), h.max(), bounds.rho(s, h) / bounds.rho(s, np.ones_like(s))
    return math.sqrt(ratio * low), high * math.sqrt(ratio / low)


def _exact_ratios(family: str, noise: str, loss_on: float = 1.0, d: int = 100, R: int = 1000) -> NDArray:
    """HiSo over DeComFL at their best constant steps in the oracle's H^{-1} norm and the Euclidean one, and their limits.

    For many rounds the average of sum_j w_j E x_j^2 at the best step goes to 2 sqrt(a b/R), a = sum w h x_0^2/(2 s),
    b = sum w (2 v/h + sum v/h)/(2 s). In the H^{-1} norm, but for the 2 v/h, the ratio of the two methods is therefore
    sqrt(E_v[1/h] / E_0[1/h]): 1/h averaged over where the noise is, and over where the loss is at the start.

    Args:
        family: of `theorem1.families`.
        noise: of `theorem1.case`.
        loss_on: the start's loss in mode j is proportional to s_j to this power.
        d: dimension.
        R: rounds.
    """
    s = theorem1.families(d)[family]
    oracle = theorem1.case(s, "oracle", noise, R=R)
    x0, v, norms = np.sqrt(s ** (loss_on - 1)), oracle.variances / oracle.m, np.stack([s**2 / oracle.h, s**2])
    (ours, limit), (theirs, their_limit) = (_best(s, h, x0, v, norms, R) for h in (oracle.h, np.ones(d)))
    return np.concatenate([ours / theirs, limit / their_limit])


def _best(s: NDArray, h: NDArray, x0: NDArray, v: NDArray, w: NDArray, R: int) -> tuple[NDArray, NDArray]:
    """The smallest average of sum_j w_j E x_j^2 over constant steps, for each row of w, and its limit for many rounds."""
    # 25 % apart: the minimum is flat, and the best of the grid is within 1 % of it.
    etas = np.geomspace(0.02, 0.6, 16) * max_stable_step(s, h, 1)
    sums = [sum(expected_squares(s, h, x0, eta, 1, R - 1, 0.0, noise=v), np.zeros_like(s)) for eta in etas]
    descent, noise = w @ (h * x0**2 / (2 * s)), w @ ((2 * v / h + np.sum(v / h)) / (2 * s))
    return (np.array(sums) @ w.T / R).min(0), 2 * np.sqrt(descent * noise / R)


# The step condition


@check("C7")
def step_condition() -> Finding:
    """Units of Theorem 1's condition and of Corollary 1's step, and whether the one admits the other."""
    s = spectra.power(100, 1.5)
    plain = bounds.setting(s, np.ones(100), s.sum() / 2, m=1, tau=1, R=1000, sigma_s=0.5)
    local = replace(plain, tau=5)
    by_beta, scales = [0.01, 0.1, 1.0], 10.0 ** np.arange(-6, 7)
    largest = "largest step admitted at tau = 1 over eta*, 15 spectra with the loss in units from 1e-6 to 1e6"
    hidden = exponent(by_beta, [_over_stated_rate(replace(plain, beta_l=b)) for b in by_beta])

    def unit(of: Callable[[bounds.Setting], float], c: bounds.Setting, f: float) -> Interval:
        """Eta of the problem with the loss f F, times f, over eta: 1 where both are the same run."""
        return exact(of(c.rescaled(f=f)) * f / of(c))

    def limit(reading: bounds.Reading) -> Callable[[bounds.Setting], float]:
        return lambda c: bounds.step_limit(c, reading)

    return Finding(
        evidence=(
            Evidence(
                "admitted step of 100 F, times 100, over that of F: root on all entries, tau = 1",
                unit(limit("parsed"), plain, 100),
                0.1,
                SAME,
            ),
            Evidence(
                "admitted step of F/100, over 100, over that of F: root on the third entry, tau = 5",
                unit(limit("third"), local, 0.01),
                0.1,
                SAME,
            ),
            Evidence(
                "Corollary 1's step of 100 F, times 100, over that of F", unit(bounds.corollary1_step, plain, 100), 10.0, SAME
            ),
            # The unit of 1e6 makes L (d+2) = 3e-6 of one mode, whose 1/(8 rho) is a sixteenth of eta*.
            Evidence(
                f"{largest}, root on all entries", exact(_over_stable("parsed", scales).max()), 1000 / 16 / math.sqrt(3), BELOW
            ),
            Evidence(
                "exponent in d of the rounds from which Cor 1's step is admitted, root on all entries; power 1.5, d = 1e2-1e5",
                exact(_rounds_exponent("parsed")),
                1.0,
                NO_DEPENDENCE,
            ),
            Evidence(
                "exponent in beta_l of Theorem 1 at Cor 1's step over sqrt(rho/(m R)), rho fixed",
                exact(hidden),
                -0.5,
                NO_DEPENDENCE,
            ),
        ),
        controls=(
            Control(
                "third entry -> beta_l/(4 (tau-1) L sqrt(d+2)), loss 100 F, tau = 1",
                "holds",
                Evidence("admitted steps", unit(limit("homogeneous"), plain, 100), 1.0, SAME),
            ),
            Control(
                "third entry -> beta_l/(4 (tau-1) L sqrt(d+2)), loss F/100, tau = 5",
                "holds",
                Evidence("admitted steps", unit(limit("homogeneous"), local, 0.01), 1.0, SAME),
            ),
            Control(
                "Cor 1's step -> the minimiser of the bound, which has Delta/sigma^2 in it",
                "holds",
                Evidence("steps", unit(bounds.best_step, plain, 100), 1.0, SAME),
            ),
            Control(
                "root on all entries -> on the third only",
                "holds",
                Evidence("exponent in d", exact(_rounds_exponent("third")), 0.0, NO_DEPENDENCE),
            ),
            Control(
                "root on all entries -> on the third only",
                "holds",
                Evidence(largest, _largest(_over_stable("third", scales)), 1 / 16, BELOW),
            ),
        ),
    )


def _over_stable(reading: bounds.Reading, scales: NDArray) -> NDArray:
    """Theorem 1's largest step at tau = m = 1 and H = I over eta* at P = 1: spectra with L = 1, losses in units of 1/scale."""
    cases = [c * s / s.max() for s in stability.families().values() for c in scales]
    settings = ((bounds.setting(s, np.ones(len(s)), 1.0), max_stable_step(s, 1.0, 1)) for s in cases)
    return np.array([bounds.step_limit(setting, reading) / step for setting, step in settings])


def _over_stated_rate(c: bounds.Setting) -> float:
    return bounds.theorem1(c, bounds.corollary1_step(c)).total / bounds.corollary1_rate(c.rho, c.m, c.R)


def _rounds_exponent(reading: bounds.Reading) -> float:
    dimensions = [100, 1000, 10_000, 100_000]
    settings = (bounds.setting(s := spectra.power(d, 1.5), np.ones(d), s.sum() / 2, m=2) for d in dimensions)
    return exponent(dimensions, [bounds.corollary1_rounds(c, reading) for c in settings])
