"""What a stable step scales with, and what single runs do on both sides of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from claims.stability import NEGATIVE, PERTURBATIONS, POSITIVE, SMALL, identity, of_runs, radius
from hiso_bench import keys
from hiso_bench.claims import Control, Evidence, Finding, check
from hiso_bench.stats import exact, exponent, mean_interval
from hiso_bench.theory import spectra
from hiso_bench.theory.lyapunov import almost_sure_limit
from hiso_bench.theory.stability import max_stable_step
from synthetic.stability import DIMENSION, EXPONENT, Round, families, growth_rates, measured_operator


@check("stability-scale")
def stability_scales_with_the_trace() -> Finding:
    """Exponent of eta* in d on low-rank spectra, eta* T/P over spectra, and the real round with zero modes added."""
    dimensions = (10**2, 10**3, 10**4, 10**5, 10**6)
    low_rank = spectra.power(DIMENSION, EXPONENT)

    def padded(d: int) -> np.ndarray:
        return spectra.blocks((1,) * len(low_rank) + (d - len(low_rank),), (*low_rank, 0.0))

    def power_law(d: int) -> np.ndarray:
        return spectra.power(d, EXPONENT)

    def slope(family: Callable[[int], np.ndarray], law: str = "gaussian", P: int = 1) -> float:
        return exponent(dimensions, [max_stable_step(family(d), 1.0, P, law) for d in dimensions])

    several = [*families().values(), spectra.flat(1000), spectra.blocks((100, 9900), (1.0, 0.0))]
    cases = [(s / s.max(), P) for s in several for P in PERTURBATIONS if spectra.effective_rank(s) >= 10 * (P + 1)]
    steps = np.array([max_stable_step(s, 1.0, P) for s, P in cases])
    trace = steps * [s.sum() / P for s, P in cases]
    root = steps * [np.sqrt(len(s)) for s, _ in cases]
    sqrt_d = (100 * 10 / 106) / (1000**0.5 * 2 / 1002)  # 100 equal eigenvalues among 10^4 at P = 5; 1000 of 1000 at P = 1
    two, step = SMALL[:2], 0.4
    bare, more = measured_operator(Round(two, step)), measured_operator(Round([*two, 0.0], step))
    active = np.ix_([0, 1, 3], [0, 1, 3])  # the moments of the first two coordinates in the upper triangle of 3 x 3
    flat_slope = Evidence("exponent of eta* in d = 10^2 to 10^6, zero modes added", exact(slope(padded)), 0.0, (-0.05, 0.05))
    spread = Evidence(
        "largest/smallest eta* T/P, spectra with kappa >= 10 (P+1) and L = 1, d = 100 to 10^4",
        exact(trace.max() / trace.min()),
        (1000 / 1002) / (100 / 106),
        (1.0, 1.1),
    )
    return Finding(
        evidence=(
            flat_slope,
            replace(flat_slope, what="the same, P = 5 and directions on the sphere", measured=exact(slope(padded, "sphere", 5))),
            replace(flat_slope, what="exponent of eta* in d, power law i^-1.5", measured=exact(slope(power_law))),
            spread,
            identity("a zero mode added to the real round: largest change in the others' map", np.abs(bare - more[active]).max()),
        ),
        controls=(
            Control(
                "flat spectra: the rank grows with d", "fails",
                replace(flat_slope, what="exponent of eta* in d, flat", measured=exact(slope(spectra.flat)), predicted=-1.0),
            ),
            Control(
                "sqrt(d) in the place of T/P", "fails",
                replace(spread, what="largest/smallest eta* sqrt(d)", measured=exact(root.max() / root.min()), predicted=sqrt_d),
            ),
        ),
    )  # fmt: skip


@check("almost-sure")
def where_runs_diverge() -> Finding:
    """Growth rates of single runs at 1.25 eta* and at the other edge, and the exact step at which they change their sign."""
    agree = (0.8, 1.25)

    def limit(k: int, P: int) -> Evidence:
        modes = "one mode" if k == 1 else f"{k} equal eigenvalues"
        ratio = almost_sure_limit(k, P) / max_stable_step(np.ones(k), 1.0, P)
        # Exact theory is what is told here; the runs above it confirm the sign.
        return Evidence(f"almost-sure limit/eta*, {modes}, P = {P}, exact", exact(ratio), np.nan, agree)

    s = families()[f"power {EXPONENT:g}"]
    step = max_stable_step(s, 1.0, 1)
    power = growth_rates(s, [0.8 * step, 1.25 * step], 1, 64, 800, keys.derive(0, "stability power law"), skip=100)
    one, above = of_runs(1, 1, 1.25, POSITIVE), 1.25 * max_stable_step([1.0], 1.0, 1)
    return Finding(
        evidence=(
            one,
            *(of_runs(k, P, 1.25, POSITIVE) for k, P in ((1, 5), (3, 1), (10, 1), (100, 1))),
            *(of_runs(k, 1, 0.8, NEGATIVE) for k in (1, 10)),
            *(limit(k, P) for k, P in ((1, 1), (1, 5), (3, 1), (10, 1), (100, 1), (100, 5))),
            Evidence("growth rate of single runs at 0.8 eta*, i^-1.5, d = 100", mean_interval(power[0]), np.nan, NEGATIVE),
            Evidence("growth rate of single runs at 1.25 eta*, i^-1.5, d = 100", mean_interval(power[1]), np.nan, POSITIVE),
        ),
        controls=(
            Control("P = 1 -> 1000 directions: hardly random", "holds", limit(1, 1000)),
            Control(
                "the mean of |x|^2 in the place of single runs", "holds",
                replace(
                    one, what="half the growth rate of E |x|^2 at 1.25 eta*, one mode, P = 1, through the real round",
                    measured=exact(0.5 * np.log(radius(Round([1.0], above)))),
                    predicted=0.5 * np.log(1 - 2 * above + 3 * above**2),
                ),
            ),
        ),
    )  # fmt: skip
