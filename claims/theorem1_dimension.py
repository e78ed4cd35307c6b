"""What HiSo says of the dimension: Eq 17's condition on H, and Corollary 3's rate for several local steps."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from hiso_bench.claims import Control, Evidence, Finding, check
from hiso_bench.stats import exact, exponent, span
from hiso_bench.theory import bounds, spectra
from synthetic import theorem1

NO_DEPENDENCE = (-0.05, 0.05)
SAME = (1 - 1e-9, 1 + 1e-9)
DIMENSIONS = (1000, 10_000, 100_000, 1_000_000)


# Corollary 3


@check("C17")
def drift() -> Finding:
    """What Theorem 1's drift term, with phi as printed, leaves of Corollary 3's independence of d."""
    what = "exponent in d of Theorem 1's right side at its best step, tau = 5, Sigma = j^-1.5, d = 1e3-1e6"
    units = "Theorem 1's drift term for 100 H and 100 eta, times 100, over that for H and eta (the left side gives 1)"
    return Finding(
        evidence=(
            Evidence(f"{what}, H = Sigma + 0.1 L", exact(_bound_exponent("oracle")), 0.5, NO_DEPENDENCE),
            Evidence(f"{what}, H = beta_u I, which has the least phi", exact(_bound_exponent("identity")), 0.5, NO_DEPENDENCE),
            Evidence(f"{units}, phi = Tr H + 2 |H| as in the prose", exact(_drift_units(_prose)), 1e4, SAME),
        ),
        controls=(
            Control(
                "L phi -> rho, the whitened Hessian",
                "holds",
                Evidence(f"{what}, H = Sigma + 0.1 L", exact(_bound_exponent("oracle", whitened=True)), 0.0, NO_DEPENDENCE),
            ),
            Control(
                "phi of the prose -> phi of the formula", "holds", Evidence(units, exact(_drift_units(bounds.phi)), 1.0, SAME)
            ),
        ),
    )


def _bound_exponent(H: str, whitened: bool = False) -> float:
    """Of the right side at its best step; `whitened`: with rho in the place of L phi in the drift term."""
    values = []
    for d in DIMENSIONS:
        s = spectra.power(d, 1.5)
        c = bounds.setting(s, theorem1.preconditioner(H, s), s.sum() / 2, m=2, tau=5, R=1000, sigma_s=1.0)
        c = replace(c, phi=c.rho / c.L) if whitened else c
        values.append(bounds.theorem1(c, bounds.best_step(c)).total)
    return exponent(DIMENSIONS, values)


def _prose(h: NDArray) -> float:
    """Phi as "the sum of approximate Hessian eigenvalues"."""
    return float(h.sum() + 2 * h.max())


def _drift_units(phi: Callable[[NDArray], float], scale: float = 100.0) -> float:
    s = spectra.power(100, 1.5)
    h = theorem1.preconditioner("oracle", s)
    drifts = []
    for factor in (1.0, scale):
        c = replace(bounds.setting(s, factor * h, s.sum() / 2, m=2, tau=5, R=1000, sigma_s=1.0), phi=phi(factor * h))
        drifts.append(bounds.theorem1(c, factor * 1e-3).drift)
    return drifts[1] * scale / drifts[0]


# Equation 17


@check("eq17")
def well_approximate() -> Finding:
    """Whether an H that knows nothing of the Hessian, or the wrong thing, violates Eq 17."""
    families = theorem1.families(1000)
    families.pop("flat")  # there H = L I is the Hessian
    unlearned = [spectra.whitening_rank(s, np.full_like(s, s.max())) / (2 * len(s)) for s in families.values()]
    kappas = [spectra.effective_rank(s) / (2 * len(s)) for s in families.values()]
    s = families["power 1.5"]
    scale_free = spectra.whitening_speed(s, np.full_like(s, s.max())) / (2 * len(s))
    rank = "exponent in d of zeta for the oracle's entries in reversed order, Sigma = j^-1.5, d = 1e3-1e6"
    twice = "Tr Xi/(2 d) for H = L I, 4 spectra that are not flat, d = 1000"
    return Finding(
        evidence=(
            Evidence(
                f"{twice}: above 1 if Eq 17 (L-smoothness) refuses it", span(unlearned), float(np.median(kappas)), (1.0, math.inf)
            ),
            Evidence(
                f"{rank}: above 0 if Eq 17 (low effective rank) refuses it",
                exact(_rank_exponent(spectra.whitening_rank)),
                0.0,
                (0.05, math.inf),
            ),
        ),
        controls=(
            Control(
                "Tr Xi -> the scale-free Tr Xi max_j h_j/s_j, Sigma = j^-1.5",
                "holds",
                Evidence("Z/(2 d) for H = L I, d = 1000", exact(scale_free), s.sum() * 1000**1.5 / 2000, (1.0, math.inf)),
            ),
            Control(
                "Tr Xi -> the scale-free Tr Xi max_j h_j/s_j",
                "holds",
                Evidence(rank, exact(_rank_exponent(spectra.whitening_speed)), 1.5, (0.05, math.inf)),
            ),
        ),
    )


def _rank_exponent(of: Callable[[NDArray, NDArray], float]) -> float:
    values = [of(s, theorem1.preconditioner("reversed", s)) for s in (spectra.power(d, 1.5) for d in DIMENSIONS)]
    return exponent(DIMENSIONS, values)
