"""DeComFL's Theorems 1 and 2 (one local step): the rates of the exact recursion at the step that the descent bound asks for.

Only the rates are the paper's; the bound and its step are our own (`hiso_bench.theory.descent.descent_bound`). The start has
loss 1, a client's gradient noise has sigma^2 = 1 and lies along the curvature, V = Sigma/Tr Sigma, where it harms most.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from hiso_bench import keys
from hiso_bench.claims import Control, Evidence, Finding, check
from hiso_bench.stats import exact, exponent, span
from hiso_bench.theory import descent, spectra
from hiso_bench.theory.closed_form import Descent
from hiso_bench.theory.moments import second_moment
from hiso_bench.theory.stability import max_stable_step
from synthetic import theorem1

HALF, MINUS_HALF, NO_DEPENDENCE = (0.45, 0.55), (-0.55, -0.45), (-0.05, 0.05)
FOURS = (1, 2, 4, 8)


def average(s: NDArray, law: str, P: int = 1, m: int = 1, R: int = 100_000, noise: float = 1.0) -> float:
    """The exact average of E|grad f|^2 over R rounds at `descent.descent_step`, for H = I."""
    c = descent.curvature_factor(s, 1.0, P, law)
    eta = descent.descent_step(c, 1.0, R, noise / m)
    x0 = np.full(len(s), math.sqrt(2 / s.sum()))
    return float(Descent(s, 1.0, x0, P, noise * s / s.sum(), m, law).average(eta, R, "euclidean"))


def padded(kappa: int, d: int) -> NDArray:
    """Kappa eigenvalues 1 and d - kappa zeros: effective rank kappa."""
    return spectra.blocks((kappa, d - kappa), (1.0, 0.0))


def _in_d(of: Sequence[NDArray], law: str) -> float:
    return exponent([len(s) for s in of], [average(s, law) for s in of])


def _in_clients(s: NDArray, law: str, noise: float) -> float:
    return exponent(FOURS, [average(s, law, m=m, noise=noise) for m in FOURS])


def _in_rounds(s: NDArray, law: str) -> float:
    rounds = (10_000, 100_000, 1_000_000)
    return exponent(rounds, [average(s, law, R=R) for R in rounds])


def _in_directions(s: NDArray, law: str, P: Sequence[int]) -> float:
    return exponent(P, [average(s, law, P) for P in P])


@check("decomfl-thm1")
def any_rank() -> Finding:
    """Exponents of the exact average in d, m, P and R, Gaussian directions."""
    dimensions = (100, 200, 400, 800)
    flat, power = [spectra.flat(d) for d in dimensions], [spectra.power(d, 1.5) for d in dimensions]
    law = "gaussian"
    at = "exact average of |grad f|^2 at the bound's step"
    return Finding(
        evidence=(
            Evidence(f"exponent in d of the {at}, flat spectrum", exact(_in_d(flat, law)), 0.5, HALF),
            Evidence(f"exponent in R of the {at}, flat, d = 100", exact(_in_rounds(flat[0], law)), -0.5, MINUS_HALF),
            Evidence(
                f"exponent in P of the {at}, flat, d = 800, P = 1-8", exact(_in_directions(flat[3], law, FOURS)), -0.5, MINUS_HALF
            ),
            Evidence(f"exponent in m of the {at}, flat, d = 100", exact(_in_clients(flat[0], law, 1.0)), -0.5, MINUS_HALF),
            Evidence(
                f"the same without gradient noise: the clients share their directions and measure the same (m = 1-8), {at}",
                exact(_in_clients(flat[0], law, 0.0)),
                0.0,
                MINUS_HALF,
            ),
        ),
        controls=(
            Control(
                "flat -> Sigma = j^-1.5, where kappa stays below 2.7: the rate is then an upper bound only",
                "fails",
                Evidence(f"exponent in d of the {at}", exact(_in_d(power, law)), 0.0, HALF),
            ),
        ),
    )


@check("decomfl-thm2")
def low_rank() -> Finding:
    """The sphere's second moment against the factor, and exponents of the exact average in kappa, d, m, P and R."""
    law, ranks, many = "sphere", (50, 100, 200, 400), (10, 20, 40, 80)
    low = padded(100, 1000)
    wide = [padded(100, d) for d in (200, 400, 800, 1600)]
    factors, fractions = _sphere_factors(law), _step_fractions()
    at = "exact average of |grad f|^2 at the bound's step, sphere"
    by_rank = exponent(ranks, [average(padded(k, 1000), law) for k in ranks])
    factor = "<S, E dx dx'>/(L |g|^2) over 1 + (kappa d + d - 2)/(P (d+2)), its largest over g; 5 spectra, d = 30, P = 1, 5, 50"
    return Finding(
        evidence=(
            Evidence(f"exponent in kappa of the {at}; kappa = 50-400 equal modes, d = 1000, P = 1", exact(by_rank), 0.5, HALF),
            Evidence(f"exponent in d of the {at}; kappa = 100, d = 200-1600", exact(_in_d(wide, law)), 0.0, NO_DEPENDENCE),
            Evidence(f"exponent in m of the {at}; kappa = 100", exact(_in_clients(low, law, 1.0)), -0.5, MINUS_HALF),
            Evidence(f"exponent in R of the {at}; kappa = 100", exact(_in_rounds(low, law)), -0.5, MINUS_HALF),
            Evidence(
                f"exponent in P of the {at}; kappa = 400, P = 1-8",
                exact(_in_directions(padded(400, 1000), law, FOURS)),
                -0.5,
                MINUS_HALF,
            ),
            Evidence(
                f"exponent in P of the {at}; kappa = 10, P = 10-80",
                exact(_in_directions(padded(10, 1000), law, many)),
                # The bound goes as the root of the factor, which has a term without P.
                exponent(many, [math.sqrt(descent.curvature_factor(padded(10, 1000), 1.0, P, law)) for P in many]),
                MINUS_HALF,
            ),
        ),
        controls=(
            # The bound whose step is taken: its factor bounds the second moment, and the step is stable.
            Control("rate -> second moment", "holds", Evidence(factor, span(factors), 1.0, (0.0, 1 + 1e-12))),
            Control(
                "and sphere -> Gaussian directions",
                "fails",
                Evidence(factor, span(_sphere_factors("gaussian")), _gaussian_over_sphere(), (0.0, 1 + 1e-12)),
            ),
            Control(
                "rate -> step, which half of eta* bounds",
                "holds",
                Evidence(
                    "1/(L factor) over the exact eta*; 5 spectra, d = 100, P = 1, 5, 50", span(fractions), 0.5, (0.0, 0.5 + 1e-12)
                ),
            ),
            Control(
                "kappa = 100 -> the flat spectrum, kappa = d",
                "fails",
                Evidence(
                    f"exponent in d of the {at}", exact(_in_d([spectra.flat(len(s)) for s in wide], law)), 0.5, NO_DEPENDENCE
                ),
            ),
        ),
    )


def _sphere_factors(law: str, d: int = 30) -> list[float]:
    """The largest ratio over g for each spectrum and P: over random g, and g along the steepest mode, where it is attained."""
    rng = keys.rng(keys.derive(theorem1.SEED, "sphere factor"))
    found = []
    for s in theorem1.families(d).values():
        for P in (1, 5, 50):
            factor = 1 + (spectra.effective_rank(s) * d + d - 2) / (P * (d + 2))
            tried = [np.eye(d)[0], *rng.standard_normal((5, d))]
            found.append(
                max(np.trace(np.diag(s) @ second_moment(g, np.ones(d), s, 0.0, P, law)) / (s.max() * g @ g) for g in tried)
                / factor
            )
    return found


def _gaussian_over_sphere(d: int = 30) -> float:
    """The median over spectra and P of the Gaussian's factor over the sphere's, by their formulas."""
    cases = [(s, P) for s in theorem1.families(d).values() for P in (1, 5, 50)]
    gaussian, sphere = (np.array([descent.curvature_factor(s, 1.0, P, law) for s, P in cases]) for law in ("gaussian", "sphere"))
    return float(np.median(gaussian / sphere))


def _step_fractions(d: int = 100) -> list[float]:
    """1/c over eta*, for each spectrum and P."""
    spectra_ = theorem1.families(d).values()
    return [
        1 / descent.curvature_factor(s, 1.0, P, "sphere") / max_stable_step(s, 1.0, P, "sphere")
        for s in spectra_
        for P in (1, 5, 50)
    ]
