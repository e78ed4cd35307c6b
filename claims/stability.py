"""Published conditions for a stable step against the exact limit eta*, explicit maps of second moments, and the real round.

Where a radius is "through the real round", the expectation is a sum over the nodes of a cubature: nothing is sampled.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import ArrayLike

from hiso_bench import keys
from hiso_bench.claims import Control, Evidence, Finding, check
from hiso_bench.directions import Law
from hiso_bench.stats import exact, mean_interval, span
from hiso_bench.theory import spectra
from hiso_bench.theory.lyapunov import flat_exponent
from hiso_bench.theory.operators import covariance_operator, mode_operator, spectral_radius
from hiso_bench.theory.stability import max_stable_step, stable_step_bounds
from synthetic.stability import DIMENSION, Round, families, floor_of_map, growth_rates, measured_operator, published_step

IDENTITY = (0.0, 1e-10)
"""Largest deviation that counts as an identity: eigenvalues of matrices of order 100 keep eleven digits or more."""
NEGATIVE, POSITIVE = (-np.inf, 0.0), (0.0, np.inf)
SMALL = np.array([2.0, 1.0, 0.3])
"""A spectrum for the maps that are measured through the real round."""
GIVEN = np.array([0.5, 2.0, 1.5])
"""A preconditioner for it, which changes the order of the eigenvalues."""
PERTURBATIONS = (1, 2, 5, 20, 100)


def radius(case: Round) -> float:
    """Spectral radius of the map of second moments, as the real round performs it."""
    return spectral_radius(measured_operator(case))


def explicit_radius(s: np.ndarray, eta: float, P: int = 1, momentum: float = 0.0) -> float:
    """Spectral radius of the explicit map on the modes that have curvature (the others never contract)."""
    s = s[s > 0]
    # Scaled by the eigenvalues the part without momentum is symmetric, and its own eigenvalues keep all their digits.
    scale = np.tile(s, 3)
    return spectral_radius(mode_operator(s, 1.0, eta, P, momentum=momentum) * scale[:, None] / scale)


def identity(what: str, value: float) -> Evidence:
    """A deviation that is zero up to rounding if the statement is true."""
    return Evidence(what, exact(value), 0.0, IDENTITY)


def of_runs(k: int, P: int, multiple: float, allowed: tuple[float, float]) -> Evidence:
    """Growth rate of |x| a round over 200 single runs with k equal eigenvalues, at a multiple of eta*; its exact value."""
    step = multiple * max_stable_step(np.ones(k), 1.0, P)
    key = keys.derive(0, "stability runs", k=k, P=P, percent=round(100 * multiple))
    measured = mean_interval(growth_rates(np.ones(k), [step], P, 200, 100, key)[0])
    modes = "one mode" if k == 1 else f"{k} equal eigenvalues"
    return Evidence(
        f"growth rate of single runs at {multiple:g} eta*, {modes}, P = {P}", measured, flat_exponent(step, k, P), allowed
    )


@check("stability")
def edge_of_stability() -> Finding:
    """The published condition against our eta*, the explicit map, the map of the real round, and runs on both sides."""
    agreement = max(abs(max_stable_step(s, 1.0, 1) / published_step(s) - 1) for s in families().values())
    explicit = max(abs(explicit_radius(s, published_step(s)) - 1) for s in families().values())
    root = published_step(SMALL)
    real = "through the real round at the published step"

    def near(factor: float, allowed: tuple[float, float]) -> Evidence:
        expected = explicit_radius(SMALL, factor * root)
        return Evidence(f"radius {real} times {factor}", exact(radius(Round(SMALL, factor * root))), expected, allowed)

    return Finding(
        evidence=(
            identity("largest |radius - 1| of the explicit map at the published step, 15 spectra, d = 1 and 100", explicit),
            identity("largest |eta*/published step - 1|, 15 spectra, P = 1", agreement),
            identity(f"|radius - 1| {real}, d = 3, P = 1", abs(radius(Round(SMALL, root)) - 1)),
            near(0.99, (0.0, 1 - 1e-6)),
            near(1.01, (1 + 1e-6, np.inf)),
            of_runs(30, 1, 0.8, NEGATIVE),
            of_runs(30, 1, 1.25, POSITIVE),
        ),
        controls=(
            Control(
                "gradient descent's limit 2/max lambda in the condition's place", "fails",
                identity("|radius - 1| through the real round at 2/max lambda", abs(radius(Round(SMALL, 2 / SMALL.max())) - 1)),
            ),
            Control(
                "P = 2 directions in the round", "fails", identity(f"|radius - 1| {real}", abs(radius(Round(SMALL, root, 2)) - 1))
            ),
        ),
    )  # fmt: skip


@check("stability-bounds")
def stable_step_between_bounds() -> Finding:
    """Both bounds over eta* on 15 spectra and P from 1 to 100, and the map of the real round at both."""

    def simple(s: np.ndarray, P: int) -> tuple[float, float]:
        return stable_step_bounds(s, 1.0, P)[0], min(2 * P / s.sum(), 2 * P / ((P + 1) * s.max()))

    cases = [(s, P) for s in families().values() for P in PERTURBATIONS]
    steps = np.array([max_stable_step(s, 1.0, P) for s, P in cases])
    low, high = np.array([simple(s, P) for s, P in cases]).T
    ends = [(P, *simple(SMALL, P)) for P in (1, 2)]
    below, above = ([radius(Round(SMALL, end[side], int(end[0]))) for end in ends] for side in (1, 2))
    expected = [np.median([explicit_radius(SMALL, end[side], int(end[0])) for end in ends]) for side in (1, 2)]
    trace = max(2 * P / s.sum() / step for (s, P), step in zip(cases, steps, strict=True))
    return Finding(
        evidence=(
            Evidence("largest lower bound/eta* (1 on flat spectra)", exact((low / steps).max()), 1.0, (0.0, 1 + 1e-12)),
            Evidence("smallest upper bound/eta*", exact((high / steps).min()), 1 + 1 / 101, (1 - 1e-12, np.inf)),
            Evidence("radius through the real round at the lower bound, P = 1, 2", span(below), float(expected[0]), (0.0, 1.0)),
            Evidence("the same at the upper bound", span(above), float(expected[1]), (1.0, np.inf)),
            Evidence("largest upper bound/lower bound (2 at T = (P+1) L)", exact((high / low).max()), 1 + 100 / 101, (1.0, 2.0)),
        ),
        controls=(
            Control(
                "the lower bound without (P+1) L: the trace alone", "fails",
                Evidence("largest (2P/T)/eta*", exact(trace), 102.0, (0.0, 1 + 1e-12)),
            ),
        ),
    )  # fmt: skip


@check("momentum-stability")
def momentum_shrinks_the_step() -> Finding:
    """eta*(b)/eta*(0) at P = 1, the published condition with momentum, and the map of (x, m) of the real round."""

    def ratio(s: np.ndarray, b: float, P: int = 1) -> float:
        return max_stable_step(s, 1.0, P, momentum=b) / max_stable_step(s, 1.0, P)

    values = (0.1, 0.5, 0.9, 0.99)
    ratios = [ratio(s, b) for s in families().values() for b in values]
    published = [published_step(s, b) / published_step(s) for s in families().values() for b in values]
    agreement = max(
        abs(max_stable_step(s, 1.0, 1, momentum=b) / published_step(s, b) - 1) for s in families().values() for b in values
    )
    case = Round(SMALL, published_step(SMALL, 0.9), momentum=0.9)
    flat, d = families()["flat"], DIMENSION
    closed = 0.1 * (d + 2) / (d + 2 - 1.8 / 1.9)
    shrunk = Evidence("eta*(0.9)/eta*(0), 100 equal eigenvalues, P = 1", exact(ratio(flat, 0.9)), closed, (0.0, 1.0))
    one = families()["one mode"]
    return Finding(
        evidence=(
            shrunk,
            Evidence("the same over 1 - b = 0.1", exact(ratio(flat, 0.9) / 0.1), closed / 0.1, (0.95, 1.05)),
            Evidence(
                "eta*(b)/eta*(0), 15 spectra, b = 0.1 to 0.99, P = 1", span(ratios), float(np.median(published)), (0.0, 1.0)
            ),
            identity("largest |eta*/published step - 1|, 15 spectra, b = 0.1 to 0.99, P = 1", agreement),
            identity("|radius - 1| through the real round at the published step, b = 0.9, d = 3", abs(radius(case) - 1)),
            Evidence(
                "radius through the real round at gradient descent's share of eta*(0), (1+b) eta*(0), b = 0.9",
                exact(radius(case._replace(eta=1.9 * published_step(SMALL)))),
                explicit_radius(SMALL, 1.9 * published_step(SMALL), momentum=0.9), (1 + 1e-6, np.inf),
            ),
        ),
        controls=(
            Control(
                "exact gradients (P = 10^9)", "fails",
                replace(shrunk, what="eta*(0.9)/eta*(0), P = 10^9", measured=exact(ratio(flat, 0.9, 10**9)), predicted=1.9),
            ),
            Control(
                "P = 5 directions and one mode, so that P > kappa + 1", "fails",
                replace(shrunk, what="eta*(0.1)/eta*(0)", measured=exact(ratio(one, 0.1, 5)), predicted=1.26 / (1.4 - 0.2 / 1.1)),
            ),
        ),
    )  # fmt: skip


@check("frozen-adam")
def preconditioner_before_or_after() -> Finding:
    """A frozen diagonal P applied after an isotropic estimate against the same P in the directions: the map of a real round."""
    lam = SMALL / GIVEN
    step = published_step(lam)
    after = Round(SMALL, step, h=GIVEN, after=True)
    inside = after._replace(after=False)
    momentum = covariance_operator(SMALL, 1 / GIVEN, published_step(lam, 0.9), 1, momentum=0.9, after=True)

    half = after._replace(eta=0.5 * step)

    def floors(noise: ArrayLike) -> float:
        """Of the real round: relative difference of the floors of the two orders."""
        return floor_of_round(half, noise) / floor_of_round(half._replace(after=False), noise) - 1

    same = identity("|noise floor after/in the directions - 1| at eta*/2", abs(floors(1.0)))
    coloured = floor_of_map(half, SMALL) / floor_of_map(half._replace(after=False), SMALL) - 1

    Q = spectra.rotation(3, 1.0, keys.rng(keys.derive(0, "stability rotation")))
    S = Q.T @ np.diag(SMALL) @ Q
    turned = np.linalg.eigvalsh(S / np.sqrt(np.outer(GIVEN, GIVEN)))

    def rotated(after: bool) -> float:
        return abs(spectral_radius(covariance_operator(S, 1 / GIVEN, published_step(turned), 1, after=after)) - 1)

    return Finding(
        evidence=(
            identity("|radius - 1| at the published step, P^-1 after the estimate, real round, d = 3", abs(radius(after) - 1)),
            identity("|radius - 1| at the same step, P^-1/2 in the directions (HiSo)", abs(radius(inside) - 1)),
            identity("|radius - 1|, P^-1 after, momentum 0.9, explicit map", abs(spectral_radius(momentum) - 1)),
        ),
        controls=(
            Control(
                "a Hessian turned by one radian, which does not commute with P; P^-1 after", "fails",
                identity("|radius - 1| at the step of the eigenvalues of P^-1 S", rotated(True)),
            ),
            Control(
                "the same Hessian, P^-1/2 in the directions", "holds",
                identity("|radius - 1| at the step of the eigenvalues of P^-1 S", rotated(False)),
            ),
            Control(
                "the eigenvalues of S in the place of those of P^-1 S", "fails",
                identity("|radius - 1| through the real round", abs(radius(after._replace(eta=published_step(SMALL))) - 1)),
            ),
            Control("the spectral radius -> the floor under isotropic gradient noise", "holds", same),
            Control(
                "and isotropic noise -> noise of covariance S", "fails",
                replace(same, measured=exact(abs(floors(SMALL))), predicted=abs(coloured)),
            ),
        ),
    )  # fmt: skip


def floor_of_round(case: Round, noise: ArrayLike) -> float:
    """`synthetic.stability.floor_of_map` with the map that the real round performs."""
    squares = [a for a, (i, j) in enumerate(zip(*np.triu_indices(len(SMALL)), strict=True)) if i == j]
    return floor_of_map(case, noise, measured_operator(case)[np.ix_(squares, squares)])


@check("neighbours-rademacher")
def law_through_its_constants() -> Finding:
    """|radius - 1| of the real round at the formula's eta*, for three laws, P = 1, 2, 3, with H and with momentum."""
    sizes: dict[Law, int] = {"gaussian": 3, "sphere": 2, "rademacher": 3}

    def deviation(law: Law, P: int, b: float = 0.0, formula: str = "") -> float:
        s, h = SMALL[: sizes[law]], GIVEN[: sizes[law]]
        return abs(radius(Round(s, max_stable_step(s, h, P, formula or law, b), P, h, law, b)) - 1)

    settings = [(1, 0.0), (2, 0.0), (3, 0.0), (1, 0.5), (2, 0.5)]
    worst = {law: max(deviation(law, P, b) for P, b in settings) for law in sizes}
    ratios = [max_stable_step(s, 1.0, 1, "rademacher") / max_stable_step(s, 1.0, 1) for s in families().values()]
    # Rademacher's step is 2/T and the Gaussian's at most 2/(T + 2 sum lambda^2/T), with equality on flat spectra.
    least = min(1 + 2 * float(np.sum(s**2) / np.sum(s) ** 2) for s in families().values())
    what = "largest |radius - 1| through the real round at the formula's eta*, {}, P = 1, 2, 3, momentum 0 and 0.5"
    return Finding(
        evidence=(
            identity(what.format("Rademacher, d = 3"), worst["rademacher"]),
            identity(what.format("sphere, d = 2"), worst["sphere"]),
            identity(what.format("Gaussian, d = 3"), worst["gaussian"]),
            Evidence("smallest eta* of Rademacher/Gaussian, 15 spectra, P = 1", exact(min(ratios)), least, (1 + 1e-6, np.inf)),
        ),
        controls=(
            Control(
                "the Gaussian's constants for Rademacher directions", "fails",
                identity("|radius - 1| through the real round", deviation("rademacher", 1, formula="gaussian")),
            ),
            Control(
                "the Gaussian's constants for directions on the sphere", "fails",
                identity("|radius - 1| through the real round", deviation("sphere", 1, formula="gaussian")),
            ),
        ),
    )  # fmt: skip
