"""Several local steps (tau > 1): HiSo's Corollary 3, the drift term of its Theorem 1, and the server's model."""

from __future__ import annotations

import functools
import math
from dataclasses import replace

import numpy as np
import pandas as pd

from hiso_bench import methods
from hiso_bench.claims import Control, Evidence, Finding, check
from hiso_bench.stats import Interval, exact, exponent, span
from hiso_bench.theory.local_steps import LocalSteps
from synthetic import local_steps as local
from synthetic.end_points import Median, end_point_gap
from synthetic.logistic import Logistic
from synthetic.nonconvex import NonConvex
from synthetic.quadratic import Quadratic

NO_DEPENDENCE, DEPENDENCE, LINEAR, SQUARE = (-0.05, 0.05), (0.25, 1.5), (0.9, 1.1), (1.9, 2.1)
ZERO, THERE = (0.0, 1e-9), (1e-6, math.inf)
"""A relative distance that is rounding, or none."""


@functools.cache
def _dimensions() -> pd.DataFrame:
    return local.dimension_table()


def _in_d(family: str, arm: str, column: str) -> Interval:
    table = _dimensions()
    part = table[(table["family"] == family) & (table["arm"] == arm)]
    return exact(exponent(part["d"], part[column]))


# Corollary 3


@check("cor3")
def dimension_at_several_local_steps() -> Finding:
    """The exponent in d of what local steps do, in exact moments; runs of the federation with and without flat coordinates."""
    low, gradients = "kappa = 2.9, tau = 5", "(1/m) sum E |(S_i - S)(x_i - xbar)|^2"
    flat = "|x - x'| between d = 10 and 2000 by flat coordinates, in units of |x|, tau = 5"
    models = "L^2 (1/m) sum E |x_i - xbar|^2"
    return Finding(
        evidence=(
            Evidence(f"exponent in d of E f after 20 rounds, {low}, HiSo", _in_d("padded", "hiso", "loss"), 0, NO_DEPENDENCE),
            Evidence(f"exponent in d of {gradients}, {low}, HiSo", _in_d("padded", "hiso", "gradient_drift"), 0, NO_DEPENDENCE),
            Evidence(f"{flat}, HiSo with learned H", exact(local.padding_gap("hiso")), 0, ZERO),
            Evidence(
                f"exponent in d of E f after 20 rounds, {low}, DeComFL (the statement: it depends on d again)",
                _in_d("padded", "decomfl", "loss"),
                0,
                DEPENDENCE,
            ),
            Evidence(
                f"exponent in d of {gradients}, {low}, DeComFL", _in_d("padded", "decomfl", "gradient_drift"), 0, DEPENDENCE
            ),
        ),
        controls=(
            Control(
                "low rank replaced by s = 1 on all d coordinates, |x_0| and |b_i| fixed",
                "fails",
                Evidence(f"exponent in d of {gradients}, HiSo", _in_d("full", "hiso", "gradient_drift"), _full(), NO_DEPENDENCE),
            ),
            Control(
                "S_i - S replaced by L in the drift, as smoothness alone allows",
                "fails",
                Evidence(f"exponent in d of {models}, {low}, HiSo", _in_d("padded", "hiso", "model_drift"), 1, NO_DEPENDENCE),
            ),
            Control(
                "H replaced by its mean over all coordinates, the flat ones included",
                "fails",
                Evidence(f"{flat}, hiso-scalar", exact(local.padding_gap("hiso-scalar")), math.nan, ZERO),
            ),
            Control(
                "low rank replaced by s = 1 on all d coordinates",
                "holds",
                Evidence(
                    f"exponent in d of {gradients}, DeComFL", _in_d("full", "decomfl", "gradient_drift"), _full(), DEPENDENCE
                ),
            ),
        ),
    )


def _full() -> float:
    """E |sum of four G a|^2 is proportional to d + 4 P + 1 for flat spectra, to first order in eta; P = 5."""
    d = np.unique(_dimensions()["d"])
    return exponent(d, d + 21)


@check("cor3-tau")
def rounds_bought() -> Finding:
    """The loss after R rounds of tau local steps over the exact loss after tau R central steps."""
    measured, central = local.loss_after(0.0, 10, 10, 300)
    _, one = local.loss_after(0.0, 1, 10, 2)
    settled, predicted = _long_run()
    what = "loss after 10 rounds of 10 local steps over that after"
    return Finding(
        evidence=(
            Evidence(f"{what} 100 central ones, equal Hessians, sigma_G = 1", _over(measured, central), 1, (0.95, 1.05)),
            Evidence(
                "log10 of loss after 400 rounds of 20 local steps over that after 8000 central ones, Hessians (1 +- 1/2) S",
                exact(settled),
                predicted,
                (-0.02, 0.02),
            ),
        ),
        controls=(
            Control(
                "tau R central steps replaced by R",
                "fails",
                Evidence(f"{what} 10 central ones, equal Hessians", _over(measured, one), central / one, (0.95, 1.05)),
            ),
        ),
    )


def _over(measured: Interval, unit: float) -> Interval:
    return Interval(*(float(value / unit) for value in measured))


def _long_run(eta: float = 0.02, tau: int = 20, rounds: int = 400) -> tuple[float, float]:
    """Log10 of the settled loss of unequal clients over that of central steps: exactly, and with the first-order bias."""
    problem = Quadratic(20, "power", 1.0, local.CLIENTS, 1.0, key=2, heterogeneity_scale="mean", hessian_spread=0.5)
    s, b = local.moments_of(problem)
    S = problem.spectrum
    found = LocalSteps(s, b, 1.0, eta, 5, tau).expected_loss(1.0, rounds)[-1]
    central = LocalSteps([S], 0.0, 1.0, eta, 5, tau).expected_loss(1.0, rounds)[-1]
    gradient = eta * (tau - 1) / 2 * ((s - S) * b).mean(0)
    return math.log10(found / central), math.log10(0.5 * np.sum(gradient**2 / S) / central)


# Theorem 1's drift term


@check("thm1-drift")
def shape_of_the_drift() -> Finding:
    """Exponents of |grad f|^2 where rounds settle, in the limit of many directions; and one run of the federation."""
    problem, taus, etas = local.family(), np.array([2, 3, 5, 9]), np.array([1e-4, 2e-4, 4e-4, 8e-4])
    sizes = np.array([10.0, 20.0, 40.0, 80.0])
    in_tau = [local.squared_bias(problem, 1e-4, int(tau)) for tau in taus]
    in_eta = [local.squared_bias(problem, eta, 5) for eta in etas]
    printed = (taus - 1) ** 2 / taus
    in_sigma = [local.squared_bias(local.family(heterogeneity=size), 1e-4, 5) for size in sizes]
    settle = "of |grad f|^2 where rounds settle, unequal Hessians (the statement: %d)"
    run = "the federation's mean gradient over that of many directions, 30 rounds from the minimum, eta = 0.04, tau = P = 5"
    return Finding(
        evidence=(
            Evidence(f"exponent in sigma_G {settle % 2}", exact(exponent(sizes, in_sigma)), 2, SQUARE),
            Evidence(f"exponent in eta {settle % 1}", exact(exponent(etas, in_eta)), 2, LINEAR),
            Evidence(
                f"exponent in (tau-1)^2/tau, tau = 2-9, {settle % 1}",
                exact(exponent(printed, in_tau)),
                exponent(printed, (taus - 1) ** 2),
                LINEAR,
            ),
        ),
        controls=(
            Control(
                "(tau-1)^2/tau replaced by (tau-1)^2",
                "holds",
                Evidence(f"exponent in (tau-1)^2 {settle % 1}", exact(exponent((taus - 1) ** 2, in_tau)), 1, LINEAR),
            ),
            Control(
                "the limit of many directions replaced by the federation, 300 keys",
                "holds",
                Evidence(f"{run}, unequal Hessians", local.pushed(0.5, 0.04, 5, 5, 30, 300), 1, (0.9, 1.1)),
            ),
            Control(
                "the same, unequal Hessians replaced by equal ones, the b_i as before",
                "fails",
                Evidence(run, local.pushed(0.0, 0.04, 5, 5, 30, 50), 0, (0.9, 1.1)),
            ),
        ),
    )


@check("C9")
def local_against_central() -> Finding:
    """How far local steps of heterogeneous clients end from as many central steps along the same directions."""
    apart, predicted = local.drift_after_round(0.5, 5, 300)
    distance = "|x_local - x_central| over |x_central - x_0| after 10 rounds of 5 steps, sigma_G = 1"
    names = ("hiso-b", "hiso-d", "hiso-e", "hiso-f")
    versions = [local.drift_from_central(0.0, tau, rounds=5, method=name) for name in names for tau in (2, 20)]
    return Finding(
        evidence=(
            Evidence(
                "E |x_local - x_central|^2 over E |x_central - x_0|^2 after a round of 5 steps, Hessians (1 +- 1/2) S",
                apart,
                predicted,
                THERE,
            ),
            Evidence(f"{distance}, equal Hessians, DeComFL", exact(local.drift_from_central(0.0, 5)), 0, THERE),
            Evidence(
                f"{distance}, equal Hessians, HiSo with learned H",
                exact(local.drift_from_central(0.0, 5, method="hiso")),
                0,
                THERE,
            ),
            Evidence(
                "the same after 5 rounds of 2 and of 20 steps, HiSo in its versions b, d, e and f",
                span(versions),
                0,
                THERE,
            ),
            Evidence(
                "exponent in d of (1/m) sum E |(S_i - S)(x_i - xbar)|^2, kappa = 2.9, HiSo (the statement: that of Tr H^-1)",
                _in_d("padded", "hiso", "gradient_drift"),
                0,
                LINEAR,
            ),
        ),
        controls=(
            Control(
                "tau = 5 replaced by 1",
                "fails",
                Evidence("the same distance, Hessians (1 +- 1/2) S", exact(local.drift_from_central(0.5, 1)), 0, THERE),
            ),
            Control(
                "the square of the mean, from which H learns, replaced by the mean of squares (hiso-a)",
                "holds",
                Evidence(
                    f"{distance}, equal Hessians", exact(local.drift_from_central(0.0, 5, method="hiso-a")), math.nan, THERE
                ),
            ),
            Control(
                "the drift replaced by (Tr H^-1 + 2 |H^-1|)/beta_l, the bound on it",
                "holds",
                Evidence("exponent in d, kappa = 2.9, H = S + 0.01", _in_d("padded", "hiso", "bound"), 1, LINEAR),
            ),
        ),
    )


# The server's model


@check("server-mean")
def mean_of_end_points() -> Finding:
    """The server's model against the mean of the clients' end points, each from a federation of that client alone."""
    logistic = Logistic(20, clients=6, examples=40, batch_size=10, skew=0.5, replicates=(3,))
    cosine = NonConvex(20, "cosine", clients=6, heterogeneity=0.5, hessian_spread=0.5, centres=1.0, noise=0.1, replicates=(3,))
    decomfl, hiso = methods.build("decomfl", lr=0.02), methods.build("hiso", lr=0.02)
    heavy = replace(hiso, momentum=0.9, weight_decay=0.01)
    gaps = [end_point_gap(problem, method, 5, 3) for problem in (logistic, cosine) for method in (decomfl, hiso, heavy)]
    what = "distance of the server's model from the mean of end points over the round's move, 5 rounds of 5 steps, 3 of 6 clients"
    return Finding(
        evidence=(
            Evidence(f"{what}: logistic and non-convex; DeComFL, HiSo, HiSo with momentum and weight decay", span(gaps), 0, ZERO),
        ),
        controls=(
            Control(
                "the mean of the scalars replaced by their median",
                "fails",
                Evidence(f"{what}: non-convex", exact(end_point_gap(cosine, Median(lr=0.02), 5, 3)), math.nan, ZERO),
            ),
            Control(
                "clients that start one update behind (the replay skipped)",
                "fails",
                Evidence(f"{what}: non-convex, HiSo", exact(end_point_gap(cosine, hiso, 5, 3, stale=True)), math.nan, ZERO),
            ),
        ),
    )
