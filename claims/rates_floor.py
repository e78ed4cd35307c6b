"""What no scalar-only method can beat, and what perfect whitening buys."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from claims.rates import AGREES, ONE, ZERO, exponents
from hiso_bench.claims import Control, Evidence, Finding, check
from hiso_bench.stats import exact, mean_interval, span
from synthetic import floor, rates
from synthetic.rate_points import rounds_point

NOT_BELOW = (0.0, np.inf)
ATTAINED = (-0.02, 0.02)


@check("information-floor")
def information_floor() -> Finding:
    """How far above (1 - n/d) f0 the expected loss is after n scalars."""
    grid = [floor.scalars_over_floor(d, P, t) for d in (10, 100, 10_000) for P in (1, 5, 50) for t in (0.5, 0.1, 0.01)]
    law = [
        P * np.log(t) / np.log1p(-P / (d + P + 1)) / ((1 - t) * d)
        for d in (10, 100, 10_000) for P in (1, 5, 50) for t in (0.5, 0.1, 0.01)
    ]  # fmt: skip
    s, half = floor.spectrum(), floor.DIMENSION // 2
    rounds = floor.DIMENSION // floor.PERTURBATIONS
    best = {H: floor.excess(floor.whitened(s, H=H), rounds) for H in ("hessian", "identity")}
    left = mean_interval(floor.least_squares()[half] - 0.5)
    identity, whitened = floor.whitened(s, H="identity"), floor.whitened(s)
    at_half = rounds // 2
    predictions = {
        "decomfl": float(identity.descent.value(identity.descent.limit / 2, at_half)) - 0.5,
        "hiso-oracle": float(whitened.descent.value(whitened.descent.limit / 2, at_half)) - 0.5,
        "hiso": np.nan,  # what a learned H leaves is not known exactly
    }
    aligned = np.zeros_like(s)
    aligned[0] = np.sqrt(2 / s[0])
    guessed, lucky = replace(whitened, x0=aligned), replace(identity, x0=aligned)
    return Finding(
        evidence=(
            Evidence("scalars over floor, H = S at the best step; d 10..1e4, P 1..50, target .5...01; exact", span(grid),
                     float(np.median(law)), (1.0, np.inf)),
            *(Evidence(f"E f/f0 - (1 - n/d) after n scalars, {name} at its best step for every n; exact", span(values),
                       float(np.median(values)), NOT_BELOW)
              for name, values in (("HiSo with H = S", best["hessian"]), ("DeComFL on 1/j", best["identity"]))),
            *(Evidence(f"f/f0 - 1/2 after d/2 scalars, {name}, simulated, {floor.KEYS} keys",
                       mean_interval(floor.simulated_excess(name)), float(prediction), NOT_BELOW)
              for name, prediction in predictions.items()),
            Evidence(f"f/f0 - 1/2 after d/2 scalars, least squares from wire and keys, {floor.KEYS} keys", left, 0.0, ATTAINED),
        ),
        controls=(
            Control("a start that is known (all loss in the steepest mode) in place of an isotropic one", "fails", Evidence(
                "E f/f0 - (1 - n/d), DeComFL at its best step; exact",
                span(floor.excess(lucky, 4)), float(np.median(floor.excess(lucky, 4))), NOT_BELOW)),
            Control("whitening that does not know the start gains nothing from it", "holds", Evidence(
                "E f/f0 - (1 - n/d), H = S, all loss in one mode; exact", span(floor.excess(guessed, rounds)),
                float(np.median(best["hessian"])), NOT_BELOW)),
        ),
        needed="more keys",
    )  # fmt: skip


@check("whitened-rate")
def whitened_rate() -> Finding:
    """The contraction of E f with H = S, against conditioning and dimension."""
    conditions, dimensions = (1.0, 1e2, 1e4, 1e6), np.array([100.0, 1000.0, 10_000.0])
    worst = [floor.contraction(d, condition, P) for d in (10, 50) for condition in conditions for P in (1, 5)]
    fold = np.array([-1 / np.log1p(-5 / (d + 6)) for d in dimensions])
    in_d = rates.Curve("", "", "", dimensions + 6, fold, 1.0)
    simulated = rounds_point("floor")

    def against_condition(H: str) -> rates.Curve:
        settings = [floor.whitened(np.array([1.0, condition]), H=H) for condition in conditions]
        return rates.Curve("", "", "", np.array(conditions), np.array([rates.rounds_to_target(s) for s in settings]), np.nan)

    return Finding(
        evidence=(
            Evidence("largest relative deviation from 1 - P/(d+P+1), 50 rounds, condition 1..1e6, d 10 and 50, P 1 and 5",
                     exact(max(worst)), 0.0, (0.0, 1e-12)),
            exponents("exponent in d + P + 1 >= 106 of the rounds for a factor e", in_d, 1.0, ONE),
            exponents("exponent in the condition number of the rounds to 0.01 f0", against_condition("hessian"), 0.0, ZERO),
            Evidence(f"simulated over exact rounds to 0.01 f0, d = 50, {simulated.place.keys} keys",
                     simulated.ratio, 1.0, AGREES),
        ),
        controls=(
            Control("H = I in place of H = S", "fails", exponents(
                "exponent in the condition number 100..1e6 of the rounds", against_condition("identity"), 1.0, ZERO, 100)),
        ),
    )  # fmt: skip
