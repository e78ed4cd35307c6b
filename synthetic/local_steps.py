"""What tau > 1 local steps do: when they drift, by how much, and on what the drift depends (HiSo Theorem 1, Corollary 3).

A round's clients share their directions, so with equal Hessians tau local steps are tau central steps of the mean function,
whatever the clients' gradients. Where Hessians differ, the clients' mean is pushed, in the mean over directions and to first
order, by eta^2 tau (tau-1)/2 C Q a round, with

    Q = (1/M) sum_i (S_i - S) C (grad f_i - grad f),

so the rounds settle where grad f = eta (tau-1)/2 Q: a squared bias (eta (tau-1)/2)^2 |Q|^2. Everything here is either exact
(`hiso_bench.theory.local_steps`, or the limit of many directions) or a run of the real federation.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from hiso_bench import methods
from hiso_bench.directions import DirectionKey, Directions, InjectedDirections
from hiso_bench.federation import Federation, FederationOptions
from hiso_bench.points import Layout, Point
from hiso_bench.stats import Interval, mean_interval
from hiso_bench.theory.local_steps import LocalSteps
from synthetic.nonconvex import NonConvex
from synthetic.quadratic import Quadratic

ACTIVE, CLIENTS = 10, 4
TAUS = (1, 2, 5, 10, 20)


def family(
    spread: float = 0.5, heterogeneity: float = 1.0, dimension: int = ACTIVE, replicates: tuple[int, ...] = ()
) -> NonConvex:
    """f_i = sum_j s_j [x_j^2/2 + delta_i log cosh(x_j - c_ij)] + b_i . x with s_j = 1/j on ten coordinates, flat on the others.

    Args:
        spread: |delta_i|.
        heterogeneity: the root of (1/M) sum |b_i|^2.
        dimension: d >= 10.
        replicates: replicate shape.

    Returns:
        Four clients, centres of standard deviation 1/2, started at x = 0; A3 holds on the whole space.
    """
    return NonConvex(
        dimension, "quadratic", 1.0, CLIENTS, heterogeneity, 0.0, replicates, key=5,
        hessian_spread=spread, centres=0.5, padding=dimension - ACTIVE, heterogeneity_scale="mean", start=0.0,
    )  # fmt: skip


# The limit of many directions: every local step is an exact gradient step (H = I), and a round is a map of x.


def mean_slope(problem: NonConvex, x: Tensor, eta: float, tau: int) -> tuple[Tensor, Tensor]:
    """G(x) = (x - round(x)) / (eta tau), the mean of the gradients met on the way, and its derivative in x: each (d,).

    The problem is separable, so the derivative is a diagonal.
    """
    totals, bends = [], []
    for i in range(problem.clients):
        part = problem.client_part(np.array(i))
        total, bend = torch.zeros_like(x), torch.zeros_like(x)
        for _ in range(tau):
            at, rest = x - eta * total, 1 - eta * bend
            total = total + problem.loss.gradient(at, part)
            bend = bend + problem.loss.curvature(at, part) * rest
        totals.append(total)
        bends.append(bend)
    return torch.stack(totals).mean(0) / tau, torch.stack(bends).mean(0) / tau


def fixed_point(problem: NonConvex, eta: float, tau: int) -> Tensor:
    """Where the rounds settle: (d,), by Newton's method on G(x) = 0. At tau = 1 it is the minimum.

    Raises:
        ArithmeticError: Newton's method does not converge.
    """
    x = torch.zeros(problem.layout.dimension, dtype=torch.float64)
    active = torch.from_numpy(problem.spectrum) > 0
    for _ in range(50):
        slope, bend = mean_slope(problem, x, eta, tau)
        step = torch.where(active, slope / bend, 0.0)
        x = x - step
        if float(step.abs().max()) < 1e-13:
            return x
    raise ArithmeticError(f"no fixed point within 50 steps: the last one was {float(step.abs().max()):.3g}")


def mean_gradient(problem: NonConvex, x: Tensor) -> Tensor:
    """The gradient of f at x, (..., d)."""
    return problem.gradients(x).mean(0)


def squared_bias(problem: NonConvex, eta: float, tau: int) -> float:
    """|grad f|^2 where the rounds settle."""
    return float(mean_gradient(problem, fixed_point(problem, eta, tau)).square().sum())


def first_order_bias(problem: NonConvex, eta: float, tau: int) -> Tensor:
    """The vector eta (tau-1)/2 Q at the minimum: the gradient at the fixed point to first order in eta, (d,)."""
    x = fixed_point(problem, eta, 1)
    gradients, curvatures = problem.gradients(x), problem.curvatures(x)
    Q = ((curvatures - curvatures.mean(0)) * (gradients - gradients.mean(0))).mean(0)
    return eta * (tau - 1) / 2 * Q


def pushed(spread: float, eta: float, tau: int, P: int, rounds: int, replicates: int) -> Interval:
    """The federation's mean gradient after some rounds from the minimum, along the one that many directions give, in its units.

    Returns:
        The 99.9 % interval of <E grad f(x_R), g> / |g|^2, where g is the gradient to which `mean_slope` leads `family(0.5)` in
        as many rounds: 1 says that the federation is pushed off the minimum as far, 0 that it is not pushed.
    """
    target = family()
    x = fixed_point(target, eta, 1)
    for _ in range(rounds):
        x = x - eta * tau * mean_slope(target, x, eta, tau)[0]
    g = mean_gradient(target, x)
    problem = family(spread, replicates=(replicates,))
    method = methods.build("decomfl", lr=eta, perturbations=P, difference="central")
    federation = Federation(problem, method, FederationOptions(sampled=CLIENTS, local_steps=tau, wire="float64", key=1))
    federation.state.x[0].copy_(fixed_point(problem, eta, 1).expand_as(federation.state.x[0]))
    for _ in range(rounds):
        federation.round()
    along = (mean_gradient(problem, federation.state.x[0]) * g).sum(-1) / g.square().sum()
    return mean_interval(along.numpy())


# Local against central steps, through the federation


def drift_from_central(
    spread: float, tau: int, rounds: int = 10, method: str = "decomfl", heterogeneity: float = 1.0, **options: Any
) -> float:
    """|x_local - x_central| / |x_central - x_0| after some rounds: M clients with tau local steps against the mean function.

    Quadratics, s_j = 1/j, d = 20, four clients with gradients that differ by `heterogeneity` and Hessians that differ by the
    share `spread`. The central run is one client that holds the mean function and takes the same steps along the same
    directions. 0.0 to rounding says that there is no drift at all.
    """
    common: dict[str, Any] = {"dimension": 20, "spectrum_family": "power", "parameter": 1.0}
    many = Quadratic(**common, clients=CLIENTS, heterogeneity=heterogeneity, heterogeneity_scale="mean", hessian_spread=spread)
    one = Quadratic(**common, clients=1)
    ends = []
    for problem in (many, one):
        chosen = methods.build(method, {"lr": 0.05, "perturbations": 5} | options)
        wired = FederationOptions(sampled=problem.clients, local_steps=tau, wire="float64", key=3)
        federation = Federation(problem, chosen, wired)
        for _ in range(rounds):
            federation.round()
        ends.append(federation.state.x[0])
    return float((ends[0] - ends[1]).norm() / (ends[1] - one.initial()[0]).norm())


def drift_after_round(spread: float, tau: int, replicates: int, eta: float = 0.05) -> tuple[Interval, float]:
    """The mean over directions of |x_local - x_central|^2 after one round, in units of E |x_central - x_0|^2.

    Both as in `drift_from_central`, at sigma_G = 1.

    Returns:
        The federation's 99.9 % interval, and the exact value: a fifth client that holds the mean function, and is not averaged,
        takes the central steps.
    """
    common: dict[str, Any] = {"dimension": 20, "spectrum_family": "power", "parameter": 1.0, "replicates": (replicates,)}
    many = Quadratic(**common, clients=CLIENTS, heterogeneity=1.0, heterogeneity_scale="mean", hessian_spread=spread)
    ends = []
    for problem in (many, Quadratic(**common, clients=1)):
        method = methods.build("decomfl", lr=eta, perturbations=5, difference="central")
        options = FederationOptions(sampled=problem.clients, local_steps=tau, wire="float64", key=3)
        federation = Federation(problem, method, options)
        federation.round()
        ends.append(federation.state.x[0])
    s, b = moments_of(many)
    own = LocalSteps(np.vstack([s, many.spectrum]), np.vstack([b, 0 * b[0]]), 1.0, eta, 5, tau)
    at = own.local(own.start(1.0), tau)
    weights = np.array([1 / CLIENTS] * CLIENTS + [-1.0])
    apart = float(np.einsum("i,k,ikj->", weights, weights, at.square)) if tau > 1 else 0.0  # all measured at one point
    moved = float(np.sum(at.square[-1, -1] - 2 * at.mean[-1] + 1))
    return mean_interval((ends[0] - ends[1]).square().sum(-1).numpy() / moved), apart / moved


def moments_of(problem: Quadratic) -> tuple[np.ndarray, np.ndarray]:
    """What theory needs of an axis-aligned quadratic without noise: the clients' eigenvalues and linear terms, each (M, d)."""
    spectra = np.tile(problem.spectrum, (problem.clients, 1))
    s = spectra if problem.client_spectra is None else problem.client_spectra.numpy()
    return s, np.zeros_like(s) if problem.shifts is None else problem.shifts.numpy()


def padding_gap(method: str, tau: int = 5, d: int = 2000, rounds: int = 30, **options: Any) -> float:
    """How far d - 10 flat coordinates move the ten others: max |x - x'| / max |x - x_0| between d = 10 and d, same directions."""
    short, pad = Layout(((ACTIVE,),)), Layout(((d - ACTIVE,),))
    draw, fill = Directions(short, 7, dtype=torch.float64), Directions(pad, 8, dtype=torch.float64)

    def wide(key: DirectionKey) -> Point:
        return (torch.cat([draw.draw(key)[0], fill.draw(key)[0]]),)

    ends = []
    for size, table in ((ACTIVE, draw.draw), (d, wide)):
        problem = family(dimension=size)
        chosen = methods.build(method, {"lr": 0.02, "perturbations": 5} | options)
        wired = FederationOptions(sampled=CLIENTS, local_steps=tau, wire="float64")
        federation = Federation(problem, chosen, wired, directions=InjectedDirections(problem.layout, table))
        for _ in range(rounds):
            federation.round()
        ends.append(federation.state.x[0][:ACTIVE])
    return float((ends[0] - ends[1]).abs().max() / ends[0].abs().max())


def dimension_table(dimensions: tuple[int, ...] = (160, 640, 2560), tau: int = 5) -> pd.DataFrame:
    """What depends on d at tau local steps, exactly (no sampling).

    Quadratics of two clients with S_i = (1 +- 1/2) S and b = +-b_1, P = 5, eta = 0.0005, x_0 = 1 where s > 0. Families: "padded",
    s_j = 1/j on ten coordinates and flat elsewhere (kappa = 2.93 for every d); "full", s = 1 on all d coordinates with
    |x_0|^2 = |b_1|^2 = 10 (kappa = d). Arms: decomfl, H = I; hiso, H = S + 0.01.

    Returns:
        Columns family, arm, d and
        loss: E f after 20 rounds;
        gradient_drift: (1/m) sum_i E |(S_i - S)(x_i - xbar)|^2 after the first tau - 1 steps, how local steps reach the loss;
        model_drift: (1/m) sum_i L^2 E |x_i - xbar|^2, what a proof from smoothness alone has in its place;
        bound: phi / beta_l = (Tr H^-1 + 2 |H^-1|) / beta_l, the part of Theorem 1's drift term that can depend on d.
    """
    rows = []
    for name in ("padded", "full"):
        for d in dimensions:
            s = np.ones(d) if name == "full" else np.concatenate([1 / np.arange(1.0, ACTIVE + 1), np.zeros(d - ACTIVE)])
            x0 = np.sqrt(ACTIVE / np.sum(s > 0)) * (s > 0)
            b = np.stack([x0, -x0]) * np.resize([1.0, -1.0], d)
            own = np.stack([1.5 * s, 0.5 * s])
            for arm, h in (("decomfl", np.ones(d)), ("hiso", s + 0.01)):
                steps = LocalSteps(own, b, h, 0.0005, 5, tau)
                apart = steps.local(steps.start(x0), tau - 1)
                rows.append(
                    {
                        "family": name,
                        "arm": arm,
                        "d": d,
                        "loss": steps.expected_loss(x0, 20)[-1],
                        "gradient_drift": apart.deviation((own - s) ** 2),
                        "model_drift": apart.deviation(s.max() ** 2),
                        "bound": (np.sum(1 / h) + 2 / h.min()) / h.min(),
                    }
                )
    return pd.DataFrame(rows)


# One table over tau


def tau_table(replicates: int = 300) -> pd.DataFrame:
    """What changes with tau at a fixed learning rate, predicted and measured.

    Returns:
        Columns tau, quantity, predicted, measured, low, high (99.9 %; equal to `measured` where nothing is sampled). Quantities:

        - "loss, equal Hessians": mean loss of the federation after 10 rounds in units of the first loss, four clients,
          sigma_G = 1, d = 20, P = 5, eta = 0.02; predicted by the recursion with 10 tau central steps;
        - "drift, unequal Hessians": E |x_local - x_central|^2 / E |x_central - x_0|^2 after one round, see
          `drift_after_round`; S_i = (1 +- 1/2) S, eta = 0.05. It is 0 for equal Hessians, and at tau = 1;
        - "squared bias": |grad f|^2 where rounds settle, for `family()` in the limit of many directions at eta = 0.002;
          predicted to first order, (eta (tau-1)/2)^2 |Q|^2.

    Cost: about five seconds on one thread.
    """
    rows: list[tuple[int, str, float, float, float, float]] = []
    problem, eta = family(), 0.002
    for tau in TAUS:
        measured, predicted = loss_after(0.0, tau, 10, replicates)
        rows.append((tau, "loss, equal Hessians", predicted, *measured))
        measured, predicted = drift_after_round(0.5, tau, replicates)
        rows.append((tau, "drift, unequal Hessians", predicted, *measured))
        found = squared_bias(problem, eta, tau) if tau > 1 else 0.0
        rows.append((tau, "squared bias", float(first_order_bias(problem, eta, tau).square().sum()), found, found, found))
    table = pd.DataFrame(rows, columns=["tau", "quantity", "predicted", "measured", "low", "high"])
    return table.sort_values(["quantity", "tau"], ignore_index=True)


def loss_after(spread: float, tau: int, rounds: int, replicates: int, eta: float = 0.02) -> tuple[Interval, float]:
    """Mean loss of the federation after some rounds over the first loss, with its interval, and the exact expectation of it."""
    problem = Quadratic(
        20, "power", 1.0, CLIENTS, 1.0, replicates=(replicates,), key=2, heterogeneity_scale="mean", hessian_spread=spread
    )
    method = methods.build("decomfl", lr=eta, perturbations=5, difference="central")
    federation = Federation(problem, method, FederationOptions(sampled=CLIENTS, local_steps=tau, wire="float64", key=4))
    first = 0.5 * problem.spectrum.sum()
    for _ in range(rounds):
        federation.round()
    losses = problem.loss(federation.state.x, None).numpy() / first
    s, b = moments_of(problem)
    return mean_interval(losses), LocalSteps(s, b, 1.0, eta, 5, tau).expected_loss(1.0, rounds)[-1] / first
