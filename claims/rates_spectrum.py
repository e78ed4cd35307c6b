"""HiSo's Corollaries 1 and 2: the exponents in d, L, zeta and kappa, each on a family that says what is held fixed."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from claims.rates import HALF, ONE, ZERO, confirmed, exponents, simulated
from hiso_bench.claims import Control, Evidence, Finding, check
from hiso_bench.stats import span
from synthetic import rates
from synthetic.rates import FAR, Curve, find, local_slopes


def slope_of_n(settings: Sequence[rates.Setting], x: NDArray) -> float:
    """The exponent of sqrt(2 f0 N / R) in x: the median over neighbouring settings."""
    return float(np.median(local_slopes(x, np.sqrt([setting.descent.N for setting in settings]))))


@check("cor1-dimension")
def dimension() -> Finding:
    """The exponent in d of the error and, as a control, of noise-free rounds."""
    curves = rates.in_dimension(FAR)
    flat, padded = find(curves, "decomfl", "flat"), find(curves, "decomfl", "padded")
    growing = find(curves, "hiso-oracle", "j^-1.5")
    known = slope_of_n([rates.power(int(d), 1.5, 0.01) for d in growing.x], growing.x)
    rounds = find(rates.rounds_in_dimension(), "hiso-oracle", "H = S")
    return Finding(
        evidence=(
            exponents("exponent in kappa + P + 1 = d + 6 where H = S: O(sqrt(d/(mR)))", flat, 0.5, HALF, shift=6),
            exponents("exponent in d at kappa = 20 (padding): O(sqrt(zeta/(mR)))", padded, 0.0, ZERO),
            exponents(
                "exponent in d of 16..128, eigenvalues j^-1.5 (kappa = 2.1..2.4), H = S + 0.01 (zeta = 13..34)",
                growing, known, ZERO,
            ),
        ),
        controls=(
            confirmed("dimension"),
            confirmed("padded"),
            Control("d equal modes (kappa = d) in place of padding", "fails", exponents(
                "exponent in d", flat, slope_of_n([rates.flat(int(d)) for d in flat.x], flat.x), ZERO)),
            Control("noise-free rounds to the target in place of the noisy error: 1", "fails", exponents(
                "exponent in kappa + P + 1 of rounds", rounds, 1.0, HALF, shift=6)),
        ),
    )  # fmt: skip


@check("cor1-lipschitz")
def lipschitz() -> Finding:
    """The exponent in L with all else of the problem fixed, in both norms and for noise-free rounds."""
    shown, quiet, far = rates.in_lipschitz(), rates.rounds_in_lipschitz(), rates.in_lipschitz(FAR)
    steep = 1000
    return Finding(
        evidence=(
            exponents("exponent in L, error in the H^-1 norm, H = S + 0.1, R = 300",
                      find(shown, "hiso-oracle", "H^-1 norm"), 0, ZERO),
            exponents("the same, R = 1e9", find(far, "hiso-oracle", "H^-1 norm"), 0, ZERO),
            exponents("exponent in L, noise-free rounds, H = S + 0.1", find(quiet, "hiso-oracle", "best step"), 0, ZERO),
            exponents("exponent in L >= 1000, error in the Euclidean norm, H = S + 0.1, R = 300",
                      find(shown, "hiso-oracle", "Euclidean norm"), 1, ZERO, steep),
        ),
        controls=(
            confirmed("spike, HiSo"),
            confirmed("spike, HiSo, Euclidean"),
            Control("DeComFL, noise-free rounds, L >= 1e4: 1", "fails", exponents(
                "exponent in L of rounds", find(quiet, "decomfl", "best step"), 1, ZERO, 1e4)),
            Control("DeComFL, error, L >= 1e4, R = 1e9: 1/2", "fails", exponents(
                "exponent in L of the error", find(far, "decomfl", "Euclidean norm"), 0.5, ZERO, 1e4)),
        ),
    )  # fmt: skip


@check("cor1-zeta")
def zeta() -> Finding:
    """The exponent in zeta, which depends on what the noise does when H changes; and the law that does not."""
    curves = {curve.variant: curve for curve in rates.in_zeta()}
    settings = [rates.blocks(eps, geometry) for geometry in rates.GEOMETRIES for eps in rates.EPS]
    law = [rates.error(s, FAR) / np.sqrt(2 * s.zeta * np.sum(s.noise / s.h) / (s.P * s.m * FAR)) for s in settings]
    in_n = [
        slope
        for variant in rates.GEOMETRIES
        for slope in local_slopes(
            [rates.blocks(eps, variant).descent.N for eps in rates.EPS], curves[variant].y
        )
    ]  # fmt: skip
    return Finding(
        evidence=(
            exponents("exponent in zeta with tr(H^-1 V) fixed (V ~ H)", curves["whitened"], 0.5, HALF),
            exponents("exponent in zeta, label noise (V ~ S)", curves["label"], 1.0, HALF),
            exponents("exponent in zeta, isotropic noise (V ~ I), zeta >= 300", curves["isotropic"], 1.0, HALF, 300),
        ),
        controls=(
            Control("zeta tr(H^-1 V) in place of zeta: the law of all three noises", "holds", Evidence(
                "error over sqrt(2 f0 zeta tr(H^-1 V) / (P m R))", span(law), 1.0, ONE)),
            Control("zeta changed by H -> cH: the iterates, and so the Euclidean error, stay", "fails", exponents(
                "exponent in zeta = zeta_1/c", curves["scale of H"], 0.0, HALF)),
            Control("N in place of zeta: 1/2 whatever the noise", "holds", Evidence(
                "exponent in N, three noises", span(in_n), 0.5, HALF)),
        ),
    )  # fmt: skip


def _trace(curve: Curve, per_mode: bool) -> Curve:
    """The spike family's error against L kappa = L + 100, or against L d = 101 L."""
    return curve._replace(x=101 * curve.x if per_mode else curve.x + 100)


@check("cor2-smooth")
def smooth() -> Finding:
    """Whether sqrt(L d) is attained: the exponent in L d of DeComFL's error."""
    growing, spikes = rates.in_dimension(FAR), find(rates.in_lipschitz(FAR), "decomfl", "Euclidean norm")
    flat = find(growing, "decomfl", "flat")
    low = spikes.x[spikes.x <= 10]
    gentle = slope_of_n([rates.spike(L) for L in low], low)
    return Finding(
        evidence=(
            exponents("exponent in L d, equal modes (kappa = d), against d + P + 1", flat, 0.5, HALF, shift=6),
            exponents("exponent in L d, kappa = 20 padded", find(growing, "decomfl", "padded"), 0.0, HALF),
            exponents("exponent in L d, spike of L <= 10 over 100 modes", _trace(spikes, True), gentle, HALF, stop=1011),
        ),
        controls=(
            Control("L kappa in place of L d on the spike family", "holds", exponents(
                "exponent in L kappa", _trace(spikes, False), 0.5, HALF)),
            Control("no noise, rounds in place of error", "fails", exponents(
                "exponent in d + P + 1", find(rates.rounds_in_dimension(), "hiso-oracle", "H = S"), 1.0, HALF, shift=6)),
        ),
    )  # fmt: skip


@check("cor2-low-rank")
def low_rank() -> Finding:
    """Whether sqrt(L kappa) is attained: the exponent in L kappa of DeComFL's error on every family."""
    growing, spikes = rates.in_dimension(FAR), find(rates.in_lipschitz(FAR), "decomfl", "Euclidean norm")
    flat, padded = find(growing, "decomfl", "flat"), find(growing, "decomfl", "padded")
    normalised = padded.y / float(np.interp(20, flat.x, flat.y))
    quiet = find(rates.rounds_in_lipschitz(), "decomfl", "best step")
    return Finding(
        evidence=(
            exponents("exponent in L kappa + P + 1, equal modes", flat, 0.5, HALF, shift=6),
            exponents("exponent in L kappa = L + 100, spike family", _trace(spikes, False), 0.5, HALF),
            Evidence("error at L kappa = 20, d = 20 ... 1000, over that of d = 20", span(normalised), 1.0, ONE),
            simulated("dimension"),
            simulated("spike, DeComFL"),
        ),
        controls=(
            Control("noise-free rounds in place of the noisy error: 1", "fails", exponents(
                "exponent in L kappa, L >= 1e4", _trace(quiet, False), 1.0, HALF, start=1e4)),
            Control("L d in place of L kappa on the padded family", "fails", exponents("exponent in L d", padded, 0.0, HALF)),
        ),
    )  # fmt: skip
