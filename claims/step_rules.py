"""What steps are admitted, and what they do: the scale of eta*, where single runs diverge, and HiSo's printed step condition."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from claims.stability import NEGATIVE, PERTURBATIONS, POSITIVE, SMALL, identity, of_runs, radius
from hiso_bench import keys
from hiso_bench.claims import Control, Evidence, Finding, check
from hiso_bench.stats import exact, exponent, mean_interval, span
from hiso_bench.theory import bounds, spectra
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
    """The step at which single runs stop converging, over eta*: exact on equal eigenvalues, its sign by runs elsewhere."""
    agree = (0.8, 1.25)

    def limit(k: int, P: int, predicted: float) -> Evidence:
        modes = "one mode" if k == 1 else f"{k} equal eigenvalues"
        ratio = almost_sure_limit(k, P) / max_stable_step(np.ones(k), 1.0, P)
        return Evidence(f"almost-sure limit/eta*, {modes}, P = {P}", exact(ratio), predicted, agree)

    s = families()[f"power {EXPONENT:g}"]
    step = max_stable_step(s, 1.0, 1)
    power = growth_rates(s, [0.9 * step, 1.4 * step], 1, 48, 500, keys.derive(0, "stability power law"), skip=100)
    one = of_runs(1, 1, 2.0, POSITIVE)
    doubled = 2 * max_stable_step([1.0], 1.0, 1)
    return Finding(
        evidence=(
            limit(1, 1, 3.632),
            limit(1, 5, 1.832),
            limit(3, 1, 1.483),
            limit(10, 1, 1.079),
            limit(100, 1, 1.001),
            limit(100, 5, 1.0025),
            one,
            of_runs(10, 1, 2.0, POSITIVE),
            Evidence("growth rate of single runs at 0.9 eta*, i^-1.5, d = 100", mean_interval(power[0]), np.nan, NEGATIVE),
            Evidence("growth rate of single runs at 1.4 eta*, i^-1.5, d = 100", mean_interval(power[1]), np.nan, POSITIVE),
        ),
        controls=(
            Control("P = 1000 directions: hardly random", "holds", limit(1, 1000, 1.004)),
            Control(
                "the mean of |x|^2 in the place of single runs", "holds",
                replace(
                    one, what="half the growth rate of E |x|^2 at 2 eta*, one mode, P = 1, through the real round",
                    measured=exact(0.5 * np.log(radius(Round([1.0], doubled)))), predicted=0.5 * np.log(1 - 8 / 3 + 3 * 16 / 9),
                ),
            ),
        ),
    )  # fmt: skip


@check("thm1-step")
def steps_that_theorem_1_admits() -> Finding:
    """The largest learning rate that Theorem 1 admits at tau = 1 and P = 1, over eta*: its range, and its exponent in d."""

    def fraction(s: np.ndarray, reading: bounds.Reading, m: int = 1) -> float:
        admitted = bounds.step_limit(bounds.setting(s, np.ones(len(s)), 1.0, m=m), reading)
        return admitted / max_stable_step(s, 1.0, 1)

    dimensions = (10**2, 10**3, 10**4, 10**5, 10**6)
    ten = [spectra.blocks((10, d - 10), (1.0, 0.0)) for d in dimensions]
    scales = 10.0 ** np.arange(-6, 7)

    def slope(reading: bounds.Reading) -> float:
        return exponent(dimensions, [fraction(s, reading) for s in ten])

    def largest(reading: bounds.Reading) -> float:
        return max(fraction(c * s / s.max(), reading) for s in families().values() for c in scales)

    steady = Evidence(
        "exponent in d of the admitted step/eta*, ten equal eigenvalues among d = 10^2 to 10^6 (kappa = 10), as printed",
        exact(slope("parsed")), -0.5, (-0.05, 0.05),
    )  # fmt: skip
    safe = Evidence(
        "largest admitted step/eta*, 15 spectra in units of f from 10^-6 to 10^6, as printed",
        exact(largest("parsed")), 1000 / 16 / np.sqrt(3), (0.0, 1.0),
    )  # fmt: skip
    readable = [fraction(s, "homogeneous") for s in families().values()]
    return Finding(
        evidence=(steady, safe),
        controls=(
            Control(
                "the square root on the third entry only, so that the step has the units of a step", "holds",
                replace(steady, what="the same exponent", measured=exact(slope("homogeneous")), predicted=0.0),
            ),
            Control(
                "the same: units of f", "holds",
                replace(safe, what="largest admitted step/eta*", measured=exact(largest("homogeneous")), predicted=1 / 16),
            ),
            Control(
                "the same: over 15 spectra it is between 1/32 and 1/16 of eta*", "holds",
                Evidence("admitted step/eta*", span(readable), 0.06, (1 / 32, (1 + 1e-12) / 16)),
            ),
        ),
    )  # fmt: skip
