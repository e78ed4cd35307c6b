"""HiSo's Corollary 1: the exponents in R and m, what heterogeneity costs, and P, which the corollary leaves out.

Exponents are those of exact curves (`synthetic.rates`) between neighbouring points; one point of each kind is simulated
through the federation (`synthetic.rate_points`).
"""

from __future__ import annotations

import numpy as np

from hiso_bench.claims import Control, Evidence, Finding, check
from hiso_bench.stats import exact, span
from synthetic import heterogeneity, rates
from synthetic.rate_points import PLACES, point
from synthetic.rates import FAR, Curve, find, local_slopes

HALF, MINUS_HALF, ONE, ZERO = (0.45, 0.55), (-0.55, -0.45), (0.95, 1.05), (-0.05, 0.05)
"""Where an exponent counts as 1/2, -1/2, 1 and 0."""
AGREES = (0.94, 1.06)
"""Where a simulated mean counts as the exact one, as a ratio."""


def exponents(
    what: str, curve: Curve, predicted: float, allowed: tuple[float, float], start: float = 0.0, stop: float = np.inf,
    shift: float = 0.0,
) -> Evidence:  # fmt: skip
    """The exponents between neighbouring points of a curve with start <= x <= stop, against x + shift."""
    chosen = (curve.x >= start) & (curve.x <= stop)
    return Evidence(what, span(local_slopes(curve.x[chosen] + shift, curve.y[chosen])), predicted, allowed)


def simulated(name: str) -> Evidence:
    """A simulated point over the exact value of its curve."""
    place = PLACES[name]
    where = f"{place.panel} = {place.x:g}, {place.variant}, {rates.SHOWN} rounds, {place.keys} keys"
    return Evidence(f"simulated over exact mean of |grad f|^2: {where}", point(name).ratio, 1.0, AGREES)


def confirmed(name: str) -> Control:
    """The same as a control: it says nothing of the statement, but without it nothing else would."""
    return Control("exact recursion -> the federation", "holds", simulated(name))


@check("cor1-rounds")
def rounds() -> Finding:
    """The exponent in R of the mean over rounds of |grad f|^2, best constant step."""
    curves = rates.in_rounds()
    settings = {"decomfl": rates.flat(20), "hiso-oracle": rates.spike(100, 0.1)}
    least = {name: 1000 * 2 / (setting.descent.N * setting.descent.limit**2) for name, setting in settings.items()}
    return Finding(
        evidence=(
            exponents(
                "exponent in R >= 1000 R0, DeComFL, 20 equal modes",
                find(curves, "decomfl", "mean over rounds"), -0.5, MINUS_HALF, least["decomfl"],
            ),
            exponents(
                "exponent in R >= 1000 R0, HiSo with H = S + 0.1, spike of 100, H^-1 norm",
                find(curves, "hiso-oracle", "mean over rounds"), -0.5, MINUS_HALF, least["hiso-oracle"],
            ),
            simulated("rounds"),
        ),
        controls=(
            Control("no noise (sigma = 0)", "fails", exponents(
                "exponent in R >= 1000 R0", find(curves, "decomfl", "no noise"), -1.0, MINUS_HALF, least["decomfl"])),
            Control("the last round in place of the mean over rounds", "fails", exponents(
                "exponent in R >= 1000 R0 (-1 up to a logarithm)", find(curves, "decomfl", "last round"), -1.0, MINUS_HALF,
                least["decomfl"])),
        ),
    )  # fmt: skip


@check("cor1-clients")
def clients() -> Finding:
    """The exponent in m of the same quantity, in the three regimes."""
    far, shown = rates.in_clients(FAR), rates.in_clients()
    own = exponents(
        "exponent in m P <= kappa/10, no noise, directions of one's own",
        find(shown, "decomfl", "no noise, own"), -1.0, MINUS_HALF, stop=4,
    )  # fmt: skip
    return Finding(
        evidence=(
            exponents("exponent in m, noise, R = 1e9 >> R0", find(far, "decomfl", "noise, many rounds"), -0.5, MINUS_HALF),
            exponents(
                "exponent in m >= 4, noise, R = 10 < R0 = 2.6 m (0 for R << R0)",
                find(far, "decomfl", "noise, 10 rounds"), 0.0, MINUS_HALF, start=4,
            ),
            exponents("exponent in m, no noise", find(far, "decomfl", "no noise, shared"), 0.0, MINUS_HALF),
        ),
        controls=(
            confirmed("clients"),
            Control("directions of one's own in place of shared ones, without noise: -1", "fails", own),
            Control(
                "the same, simulated: m clients with P directions each are m P directions", "holds", simulated("own directions")
            ),
        ),
    )  # fmt: skip


@check("cor1-heterogeneity")
def differences() -> Finding:
    """What sigma_G adds to the error, over what a variance sigma_G^2/m would add."""
    M = heterogeneity.CLIENTS
    charged = (0.9, 1.1)
    return Finding(
        evidence=tuple(
            Evidence(
                f"share of sigma_G^2/m that acts, m = {m} of M = {M}",
                heterogeneity.share(m), heterogeneity.exact_share(m), charged,
            )
            for m in (1, 2, M)
        ),
        controls=(
            Control("gradient noise (sigma_s) in place of heterogeneity, m = M", "holds", Evidence(
                f"share of sigma_s^2/m that acts, m = M = {M}", heterogeneity.share(M, "noise"), 1.0, charged)),
        ),
    )  # fmt: skip


@check("cor1-directions")
def directions() -> Finding:
    """The exponent in P at a fixed number of rounds."""
    curves = rates.in_directions(FAR)
    many, one = find(curves, "decomfl", "50 modes"), find(curves, "decomfl", "1 mode")
    root_n = local_slopes(many.x, np.sqrt(1 + 1 / many.x + 50 / many.x))
    few, plenty = float(np.median(root_n[many.x[1:] <= 4])), float(np.median(root_n[many.x[:-1] >= 512]))
    return Finding(
        evidence=(
            exponents("exponent in P <= 4, zeta = 50, noise, R = 1e9", many, few, ZERO, stop=4),
            exponents("exponent in P >= 512, zeta = 50", many, plenty, ZERO, start=512),
            Evidence("error at P = 1 over error at P = 4 (sqrt of N's ratio), zeta = 50", exact(many.y[0] / many.y[2]),
                     float(np.sqrt(52 / 13.75)), ONE),
        ),
        controls=(
            confirmed("directions"),
            Control("one mode (zeta = max lambda) in place of 50", "holds", exponents(
                "exponent in P >= 16", one, 0.0, ZERO, start=16)),
        ),
    )  # fmt: skip
