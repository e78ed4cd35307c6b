"""What one more scalar a round, a second difference, teaches: the curvature, and a step that needs no rate."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hiso_bench import methods
from hiso_bench.claims import Control, Evidence, Finding, check
from hiso_bench.federation import Federation, FederationOptions
from hiso_bench.stats import Interval, mean_interval, proportion, span
from hiso_bench.theory import spectra
from hiso_bench.theory.stability import max_stable_step
from synthetic import oracle, second_order
from synthetic.oracle import P
from synthetic.quadratic import Quadratic
from synthetic.second_order import Case
from synthetic.stability import families

KEY, KEYS, DIMENSION = 20911, 6, 400
TWICE = (2.0, np.inf)
"""Spectra, keys and dimension of both claims are held out: no default was chosen on them."""


def gain(case: Case, target: float, arm: str = "curvature-1", patience: float = 0.6, **more: Any) -> tuple[Interval, Interval]:
    """DeComFL's scalars at its best constant step, exact, over an arm's; and what sigma knows at the end of its run.

    An arm that has cost `patience` of what DeComFL costs is given up: its gain is then at most 1 / patience.

    Returns:
        The gain, and the correlation of log sigma with log diag S over the tenth of the coordinates with the largest diagonal,
        NaN where these are equal; each as mean and 99.9 % interval over keys.
    """
    method = second_order.arm_method(arm, **more)
    at = second_order.problem(case, arm, (KEYS,), KEY)
    federation = Federation(at, method, FederationOptions(key=KEY, wire="float64"))
    start, plain = case.setting.descent.start, second_order.best_plain(case, target)[1]
    values: list[NDArray] = []
    for _ in range(int(np.ceil(patience * plain))):
        values.append(at.loss(federation.state.x, None).numpy() / start)
        if len(values) > 25 and np.max(values[-25:]) < target:
            break
        federation.round()
    rounds = np.minimum(second_order.stays_below(np.array(values), target), len(values))
    scalars = method.perturbations + method.curvatures
    ratio = mean_interval(np.log(P * plain / (scalars * rounds)))
    fit = Interval(np.nan, np.nan, np.nan)
    diagonal = at.oracle_h()[0].numpy()  # type: ignore[attr-defined]
    top = np.argsort(diagonal)[-case.d // 10 :]
    if "sigma" in federation.state.buffers and np.ptp(diagonal[top]) > 0:
        learned = federation.state.buffers["sigma"][0][:, top].log().numpy()
        fit = mean_interval([float(np.corrcoef(row, np.log(diagonal[top]))[0, 1]) for row in learned])
    return Interval(*map(float, np.exp(ratio))), fit


@check("second-difference")
def one_more_scalar() -> Finding:
    """Scalars of DeComFL over those of the method at its defaults, and how well sigma knows the diagonal, on held-out spectra."""
    steep, fit = gain(Case("i^-1.75", d=DIMENSION), oracle.TARGET)
    spikes, _ = gain(Case("20 spikes", d=DIMENSION), oracle.TARGET)
    mild, _ = gain(Case("i^-1.25", d=DIMENSION), oracle.TARGET)
    turned, _ = gain(Case("i^-1.75", np.inf), oracle.TARGET)  # d = 200: products with a rotation are dear
    without, _ = gain(Case("i^-1.75"), oracle.TARGET, "safe-step")
    told = "scalars of DeComFL at its best step over curvature's (P = 4 and one second difference), to f/f0 = 0.01"
    faster = Evidence(f"{told}, i^-1.75", steep, np.nan, TWICE)
    return Finding(
        evidence=(
            faster,
            replace(faster, what="the same, 20 spikes of height 300", measured=spikes),
            replace(faster, what="the same, i^-1.25", measured=mild, allowed=(1.0, np.inf)),
            Evidence("correlation of log sigma with log diag S, tenth of largest, end of the first", fit, np.nan, (0.8, np.inf)),
        ),
        controls=(
            Control("a Haar rotation", "fails", replace(faster, what="the same, i^-1.75 rotated, d = 200", measured=turned)),
            Control("H = I kept", "fails", replace(faster, what="the safe step alone, i^-1.75, d = 200", measured=without)),
        ),
    )


@check("second-difference-noise")
def noise_lengthens_the_memory() -> Finding:
    """What the method costs against DeComFL where the gradient noise is isotropic, with and without a memory that grows."""
    cases = [Case(family, geometry="isotropic", d=100) for family in ("i^-1.75", "20 spikes")]
    told = "scalars of DeComFL at its best step over curvature's to f/f0 = 0.01, V ~ I, d = 100"
    evidence = [
        Evidence(f"{told}, {case.family}", gain(case, oracle.TARGET, patience=1.6)[0], np.nan, (1 / 1.5, np.inf))
        for case in cases
    ]
    fixed = gain(cases[1], oracle.TARGET, patience=1.6, resolution=0.0)[0]
    return Finding(
        evidence=tuple(evidence),
        controls=(
            Control("a memory of fixed length", "fails", replace(evidence[1], what="the same, resolution = 0", measured=fixed)),
        ),
        needed="About 48 keys.",
    )


def _share(rule: Callable[[NDArray, int], float]) -> Interval:
    """Smallest and largest of a step over eta*, over spectra of effective rank 1 to 200 and P = 1, 5, 20."""
    held_out = (oracle.spectrum(family, DIMENSION) for family in ("i^-1.25", "i^-1.75", "20 spikes"))
    several = [*families().values(), *map(oracle.spectrum, oracle.FAMILIES), *held_out, spectra.flat(50), np.ones(1)]
    return span([rule(s / s.max(), P) / max_stable_step(s / s.max(), 1.0, P) for s in several for P in (1, 5, 20)])


def _safe(s: NDArray, P: int) -> float:
    return float(2 * P / (s.sum() + (P + 1) * np.sqrt(np.sum(s**2))))


def _trace_alone(s: NDArray, P: int) -> float:
    return float(2 * P / s.sum())


WILD = {
    "i^-1.75": {"parameter": 1.75},
    "i^-1.75, rotated": {"parameter": 1.75, "angle": np.inf},
    "i^-1.25": {"parameter": 1.25},
    "20 spikes": {"spectrum_family": "spiked", "spikes": 20, "parameter": 300.0},
    "log-normal 2": {"spectrum_family": "lognormal", "parameter": 2.0},
    "other Hessians": {"parameter": 1.25, "hessian_spread": 1.0, "heterogeneity": 0.3},
    "noise, V ~ S": {"parameter": 1.25, "noise": 0.3, "noise_geometry": "hessian"},
    "noise, V ~ I": {"parameter": 1.25, "noise": 0.3},
    "flat": {"spectrum_family": "flat"},
}
"""Problems with four clients on which a step that is too long shows at once."""


def rising(name: str, options: dict, tau: int, replicates: int = 48, rounds: int = 70) -> tuple[int, int]:
    """(runs that end above their start, runs) over `WILD`."""
    bad = total = 0
    for changed in WILD.values():
        at = Quadratic(60, clients=4, replicates=(replicates,), key=KEY, **changed)
        method = methods.build(name, options, perturbations=4, difference="central")
        federation = Federation(at, method, FederationOptions(sampled=2, local_steps=tau, key=KEY, on_divergence="freeze"))
        first = at.loss(federation.state.x, None)
        for _ in range(rounds):
            federation.round()
        last = at.loss(federation.state.x, None)
        bad += int((~(last <= first)).sum())
        total += replicates
    return bad, total


@check("safe-step")
def two_averages_bound_the_step() -> Finding:
    """The step of exact averages against eta*, and runs at the defaults that end above their start."""
    told = "2P/(T + (P+1)|S|_F) over eta*, smallest and largest over 29 spectra, P = 1, 5, 20"
    exactly = Evidence(told, _share(_safe), np.nan, (0.0, 1 + 1e-12))
    told = "share of runs at the defaults that end above their start, 9 families, safe-step"
    runs = Evidence(told, Interval(0, 0, 0), 0.0, (0.0, 0.05))

    def share(name: str, tau: int = 1, **options: object) -> Interval:
        return proportion(*rising(name, options, tau))

    return Finding(
        evidence=(
            exactly,
            replace(runs, measured=share("safe-step")),
            replace(runs, what="the same, curvature", measured=share("curvature")),
            replace(runs, what="the same, curvature, tau = 3", measured=share("curvature", 3)),
        ),
        controls=(
            Control("the trace alone, 2P/T", "fails", replace(exactly, what="2P/T over eta*", measured=_share(_trace_alone))),
            Control("four times the step", "fails", replace(runs, what="the same, lr = 4", measured=share("safe-step", lr=4.0))),
        ),
    )
