"""The rates of HiSo's Corollaries 1 and 2: exact curves on declared families.

Everything is normalised to f(x_0) = 1 and, where there is noise, sigma^2 = tr V = 1 (assumption A2 bounds the trace). "Error"
is the corollaries' quantity, the uniform average over R rounds of E |grad f|^2 in the H^{-1} norm, at the best constant step;
"rounds" are those until E f = TARGET, without noise, at the best constant step. For R >> R0 = 2 f0 / (N eta*^2)

    error = sqrt(2 f0 N / R),     N = [(1 + 1/P) tr(C S C V) + zeta tr(C V) / P] / m,     C = H^{-1},

and rounds are proportional to (zeta + (P+1) max lambda) / (P min lambda). Curves and N come from `theory.closed_form`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from hiso_bench.theory import spectra
from synthetic.declared import Setting

TARGET = 0.01
SHOWN, SLOW, FAR = 300, 1e5, 1e9
"""Rounds of the curves that a simulation confirms, of those with slow modes, and rounds that are far above every R0 here."""
GEOMETRIES = ("whitened", "label", "isotropic")
"""V proportional to H (tr H^{-1}V the same for every H), to S (label noise), or to I."""


class Curve(NamedTuple):
    """One exact curve of a panel."""

    panel: str
    arm: str
    """A name of `figures.style.METHODS`."""
    variant: str
    x: NDArray[np.float64]
    y: NDArray[np.float64]
    slope: float
    """Its exponent in the limit; NaN where it has none."""


def flat(d: int, P: int = 5, m: int = 1, sigma2: float = 1.0, independent: bool = False, active: int | None = None) -> Setting:
    """`active` eigenvalues 1 (all d by default), the others 0; start and noise live on the active modes: kappa = active."""
    active = d if active is None else active
    s = spectra.blocks((active, d - active), (1.0, 0.0))
    return Setting(s, np.ones(d), s * np.sqrt(2 / active), s * sigma2 / active, P, m, independent)


def spike(L: float, eps: float | None = None, sigma2: float = 1.0, bulk: int = 100, P: int = 5) -> Setting:
    """One eigenvalue L over a bulk of ones, half of the loss in each; H = S + eps, or I (None); isotropic noise."""
    s = spectra.spiked(bulk + 1, 1, L)
    x0 = np.sqrt(np.r_[1 / L, np.full(bulk, 1 / bulk)])
    h = np.ones(bulk + 1) if eps is None else s + eps
    return Setting(s, h, x0, np.full(bulk + 1, sigma2 / (bulk + 1)), P)


def power(d: int, exponent: float, eps: float) -> Setting:
    """s_j = j^-exponent with H = S + eps, the same loss in every mode, isotropic noise."""
    s = spectra.power(d, exponent)
    return Setting(s, s + eps, np.sqrt(2 / (d * s)), np.full(d, 1 / d))


def blocks(eps: float, geometry: str, sizes: tuple[int, int] = (10, 990), scale: float = 1.0, P: int = 1) -> Setting:
    """Eigenvalues 1 and 0.01 with H = scale (S + eps), the same loss in every mode, and V as in `GEOMETRIES`.

    Raises:
        ValueError: unknown geometry.
    """
    s = spectra.blocks(sizes, (1.0, 0.01))
    d, h = len(s), scale * (s + eps)
    if geometry not in GEOMETRIES:
        raise ValueError(f"geometry {geometry!r} is unknown; allowed: {', '.join(GEOMETRIES)}")
    noise = {"whitened": h / d, "label": s / d, "isotropic": np.full(d, 1 / d)}[geometry]
    return Setting(s, h, np.sqrt(2 / (d * s)), noise, P)


def error(setting: Setting, rounds: float, measure: str = "whitened") -> float:
    """The corollaries' quantity at the best constant step, exactly."""
    return setting.descent.best_average(rounds, measure)[1]


def rounds_to_target(setting: Setting) -> float:
    """Rounds until E f = TARGET f0 at the best constant step, exactly."""
    return setting.descent.best_rounds(TARGET)[1]


def local_slopes(x: Sequence[float] | NDArray, y: Sequence[float] | NDArray) -> NDArray[np.float64]:
    """Exponents between neighbouring points of a curve."""
    return np.diff(np.log(y)) / np.diff(np.log(x))


def _curve(
    panel: str, arm: str, variant: str, x: Sequence[float] | NDArray, f: Callable[[float], float], slope: float = np.nan
) -> Curve:
    x = np.asarray(x, dtype=np.float64)
    return Curve(panel, arm, variant, x, np.array([f(value) for value in x]), slope)


R = np.geomspace(1, 1e6, 19)
M = 2.0 ** np.arange(7)
PERTURBATIONS = 2.0 ** np.arange(13)
D = np.array([5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10_000], dtype=float)
L = np.geomspace(1, 1e5, 11)
EPS = np.geomspace(3e-4, 0.3, 10)
GROWING = np.array([16.0, 32.0, 64.0, 128.0])


@cache
def in_rounds() -> tuple[Curve, ...]:
    """Error against R, d = 20 and the spike family."""
    noisy, quiet, oracle = flat(20).descent, flat(20, sigma2=0), spike(100, 0.1)
    return (
        _curve("rounds", "decomfl", "mean over rounds", R, lambda r: error(flat(20), r), -0.5),
        _curve("rounds", "hiso-oracle", "mean over rounds", R, lambda r: error(oracle, r), -0.5),
        _curve("rounds", "decomfl", "no noise", R, lambda r: error(quiet, r), -1),
        _curve("rounds", "decomfl", "last round", R, lambda r: noisy.best_value(r, "whitened")[1], -1),
    )


@cache
def in_clients(rounds: float = SHOWN) -> tuple[Curve, ...]:
    """Error against m."""
    return (
        _curve("clients", "decomfl", "noise, many rounds", M, lambda m: error(flat(20, m=int(m)), rounds), -0.5),
        _curve("clients", "decomfl", "noise, 10 rounds", M, lambda m: error(flat(20, m=int(m)), 10), 0),
        _curve("clients", "decomfl", "no noise, shared", M, lambda m: error(flat(200, m=int(m), sigma2=0), rounds), 0),
        _curve("clients", "decomfl", "no noise, own", M, lambda m: error(flat(200, 5, int(m), 0, True), rounds), -1),
    )


@cache
def in_directions(rounds: float = SHOWN) -> tuple[Curve, ...]:
    """Error against P: N falls as 1/P until P ~ zeta / max lambda = 50 (the exponent is that of few directions)."""
    return (
        _curve("directions", "decomfl", "50 modes", PERTURBATIONS, lambda P: error(flat(50, int(P)), rounds), -0.5),
        _curve("directions", "decomfl", "1 mode", PERTURBATIONS, lambda P: error(flat(1, int(P)), rounds)),
    )


@cache
def in_dimension(rounds: float = SHOWN) -> tuple[Curve, ...]:
    """Error against d: kappa = d, kappa = 20 at any d, and eigenvalues j^-1.5 with H = S + 0.01."""
    small = D[D <= (1000 if rounds >= FAR else 200)]  # R0 grows with d
    wide = D[(D >= 20) & (D <= 1000)]
    return (
        _curve("dimension", "decomfl", "flat", small, lambda d: error(flat(int(d)), rounds), 0.5),
        _curve("dimension", "decomfl", "padded", wide, lambda d: error(flat(int(d), active=20), rounds), 0),
        _curve("dimension", "hiso-oracle", "j^-1.5", GROWING, lambda d: error(power(int(d), 1.5, 0.01), max(rounds, SLOW))),
    )


def two_scales(d: int, whitened: bool) -> Setting:
    """Half of the eigenvalues 1, half 0.1, without noise, the same loss in every mode; H = S or I."""
    s = spectra.blocks((d // 2, d - d // 2), (1.0, 0.1))
    return Setting(s, s if whitened else np.ones(d), np.sqrt(2 / (d * s)), np.zeros(d))


@cache
def rounds_in_dimension() -> tuple[Curve, ...]:
    """Rounds against d, and the floor of any scalar-only method (`synthetic.floor`)."""
    return (
        _curve("floor", "decomfl", "condition 10", D, lambda d: rounds_to_target(two_scales(int(d), False)), 1),
        _curve("floor", "hiso-oracle", "H = S", D, lambda d: rounds_to_target(two_scales(int(d), True)), 1),
        _curve("floor", "theory", "floor", D, lambda d: (1 - TARGET) * d / 5, 1),
    )


@cache
def in_zeta(rounds: float = FAR) -> tuple[Curve, ...]:
    """Error against zeta, varied by the eps of H = S + eps under three noise geometries, and by the scale of H."""
    curves = []
    for geometry, slope in zip(GEOMETRIES, (0.5, 1.0, 1.0), strict=True):
        settings = [blocks(eps, geometry) for eps in EPS]
        y = np.array([error(setting, rounds) for setting in settings])
        curves.append(Curve("zeta", "hiso-oracle", geometry, np.array([setting.zeta for setting in settings]), y, slope))
    scaled = [blocks(0.01, "isotropic", scale=scale) for scale in (0.5, 1, 2, 4, 8)]
    y = np.array([error(setting, rounds, "euclidean") for setting in scaled])
    curves.append(Curve("zeta", "hiso-oracle", "scale of H", np.array([setting.zeta for setting in scaled]), y, 0))
    return tuple(curves)


@cache
def rounds_in_lipschitz() -> tuple[Curve, ...]:
    """Rounds against L on the spike family."""
    quiet, safe = [spike(value, sigma2=0) for value in L], "at half the stability limit"
    half = np.array([float(setting.descent.rounds(setting.descent.limit / 2, TARGET)) for setting in quiet])
    return (
        _curve("rounds in L", "decomfl", "best step", L, lambda value: rounds_to_target(spike(value, sigma2=0)), 1),
        Curve("rounds in L", "decomfl", safe, L, half, 1),
        _curve("rounds in L", "hiso-oracle", "best step", L, lambda value: rounds_to_target(spike(value, 0.1, 0)), 0),
    )


@cache
def in_lipschitz(rounds: float = SHOWN) -> tuple[Curve, ...]:
    """Error against L on the spike family, in both norms; DeComFL's R0 grows with L, so 1/2 needs many rounds."""
    slope = 0.5 if rounds >= FAR else np.nan
    return (
        _curve("error in L", "decomfl", "Euclidean norm", L, lambda value: error(spike(value), rounds), slope),
        _curve("error in L", "hiso-oracle", "H^-1 norm", L, lambda value: error(spike(value, 0.1), rounds), 0),
        _curve(
            "error in L", "hiso-oracle", "Euclidean norm", L, lambda value: error(spike(value, 0.1), rounds, "euclidean"), 1
        ),
    )  # fmt: skip


PANELS = (in_rounds, in_clients, in_directions, in_dimension, rounds_in_dimension, in_zeta, rounds_in_lipschitz, in_lipschitz)


def find(curves: Sequence[Curve], arm: str, variant: str) -> Curve:
    """The curve of an arm and variant.

    Raises:
        StopIteration: there is none.
    """
    return next(curve for curve in curves if (curve.arm, curve.variant) == (arm, variant))
