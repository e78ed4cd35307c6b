"""Claims about the smoothing radius mu: the order of its term in HiSo's Theorem 1, and how small it has to be."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from hiso_bench.claims import Control, Evidence, Finding, check
from hiso_bench.federation import Federation, FederationOptions
from hiso_bench.methods import DeComFL
from hiso_bench.stats import Interval, exact, exponent, mean_interval
from hiso_bench.theory import spectra
from hiso_bench.theory.recursion import expected_loss, noise_floor
from hiso_bench.theory.stability import max_stable_step
from synthetic.quadratic import Quadratic
from synthetic.smoothing import (
    FUNCTIONS,
    admissible_radius,
    exact_resting_slope,
    gradient_floor,
    printed_radius,
    resting_slope,
    settled_losses,
    settled_squares,
    third_absolute_moment,
)

P = 5


def _scaled(interval: Interval, by: float) -> Interval:
    return Interval(interval.value / by, interval.low / by, interval.high / by)


def _left_over(function: str, mu: float = 0.1) -> Evidence:
    """What is left of |f'| as the rate goes to zero; a term O(eta mu) leaves nothing."""
    L = FUNCTIONS[function].smoothness
    what = f"|f'| / (L mu) where the mean step is 0, the limit eta -> 0, {function}, mu = {mu}"
    return Evidence(
        what, exact(resting_slope(function, mu) / (L * mu)), exact_resting_slope(function, mu) / (L * mu), (0.0, 1e-6)
    )


@check("mu-order")
def order() -> Finding:
    """What mu adds to the gradient: its power of eta and of mu, on quadratics and beside them."""
    s, mus, top = spectra.power(20, 0.5), np.array([0.03, 0.1, 0.3]), 1.0
    largest = max_stable_step(s, 1.0, P)
    floors_mu = np.array([gradient_floor(s, largest / 2, P, mu) for mu in mus])
    etas = largest / np.array([64, 128])
    floors_eta = np.array([gradient_floor(s, eta, P, 0.3) for eta in etas])
    eta = largest / 3
    floor = noise_floor(s, 1.0, eta, P, 0.3)
    simulated = _scaled(mean_interval(settled_losses(20, 0.5, eta, P, 0.3, 100, 3000)), floor)
    kink = _scaled(mean_interval(settled_squares("kink", 0.1, 0.002, 4, 800, 2000)), exact_resting_slope("kink", 0.1) ** 2)
    powers = {f: exponent(mus, [resting_slope(f, mu) ** 2 for mu in mus]) for f in ("kink", "smooth")}
    central = gradient_floor(s, largest / 2, P, 0.3, "central") / top**2
    forward = "mu's floor of E |grad f|^2 at mu = 0.3, forward, d = 20"
    return Finding(
        evidence=(
            _left_over("kink"),
            _left_over("smooth"),
            Evidence(
                "E f'(x)^2 at eta = 0.002 over |f'(x_mu)|^2, kink, 2,000 runs of 800 rounds (1 in the limit eta -> 0)",
                kink,
                1.0,
                (0.0, 0.25),
            ),
            Evidence("power of eta in the floor, quadratic, eta -> 0", exact(exponent(etas, floors_eta)), 1.0, (0.95, np.inf)),
            Evidence("power of mu in the floor, quadratic", exact(exponent(mus, floors_mu)), 2.0, (0.95, np.inf)),
            Evidence("power of mu in |f'(x_mu)|^2, kink", exact(powers["kink"]), 2.0, (0.95, np.inf)),
            Evidence("power of mu in |f'(x_mu)|^2, smooth", exact(powers["smooth"]), 4.0, (0.95, np.inf)),
        ),
        controls=(
            Control("kink -> quadratic: the mean step is unbiased", "holds", _left_over("quadratic")),
            Control("forward -> central", "fails", Evidence(forward, exact(central), 0.0, (1e-6, np.inf))),
            Control(
                "exact recursion -> the federation, 3,000 runs", "holds",
                Evidence("simulated over exact floor of E f, quadratic, mu = 0.3, eta*/3", simulated, 1.0, (0.95, 1.05)),
            ),
        ),
        needed="more runs: the interval's width falls as their square root",
    )  # fmt: skip


def _radii(exponent_: float, law: str, dimensions: NDArray) -> float:
    return exponent(dimensions, [admissible_radius(spectra.power(d, exponent_), P, 2000, law) for d in dimensions])


DIMENSION, ROUNDS, KEYS = 1000, 300, 40


def _losses(mu: float, eta: float) -> NDArray[np.float64]:
    """Final losses, one per key; the keys' directions do not depend on mu."""
    problem = Quadratic(DIMENSION, "power", 1.5, clients=1, replicates=(KEYS,))
    federation = Federation(problem, DeComFL(lr=eta, mu=mu, perturbations=P), FederationOptions(wire="float64", key=10))
    for _ in range(ROUNDS):
        federation.round()
    return problem.loss(federation.state.x, None).numpy()


@check("mu-practice")
def practice() -> Finding:
    """The largest harmless mu against the dimension, and what a mu far above the printed bound does."""
    dimensions = np.array([100, 1000, 10_000])
    s = spectra.power(DIMENSION, 1.5)
    eta = max_stable_step(s, 1.0, P) / 3
    bound = printed_radius(DIMENSION, s.sum(), m=1, R=ROUNDS, P=P)
    small, usual, large = (_losses(mu, eta) for mu in (bound, 1e-3, 1.0))
    ones = np.ones(DIMENSION)
    base, *more = (expected_loss(s, 1.0, ones, eta, P, ROUNDS, mu)[-1] for mu in (bound, 1e-3, 1.0))
    needed, matters = (-1.75, -1.25), (0.1, np.inf)
    power = "power of d in the largest harmless mu"
    flat = power + ", flat spectrum (kappa = d); -1 where 2,000 rounds reach the floor"
    excess = f"relative excess of the loss after {ROUNDS} rounds at mu = %g over that at the printed {bound:.1e}, d = {DIMENSION}"
    bias = [1 / third_absolute_moment(d) for d in dimensions]
    return Finding(
        evidence=(
            Evidence(power + ", s_i = i^-1.5 (kappa < 2.7), gaussian", exact(_radii(1.5, "gaussian", dimensions)), 0.0, needed),
            Evidence(power + ", s_i = i^-1.5, sphere", exact(_radii(1.5, "sphere", dimensions)), 0.0, needed),
            Evidence(flat, exact(_radii(0, "gaussian", dimensions)), -1.0, needed),
            Evidence(
                excess % 1e-3 + f", {KEYS} keys", mean_interval((usual - small) / small.mean()), more[0] / base - 1, matters
            ),
        ),
        controls=(
            Control(
                "the exact second moment -> the smoothness bound (mu L / 2) E |u|^3 on the bias",
                "holds",
                Evidence(power, exact(exponent(dimensions, bias)), -1.5, needed),
            ),
            Control(
                "mu = 1e-3 -> 1",
                "holds",
                Evidence(excess % 1, mean_interval((large - small) / small.mean()), more[1] / base - 1, matters),
            ),
        ),
    )
