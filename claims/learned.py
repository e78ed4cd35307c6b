"""Claims about the learned H: what it settles on, and what it says about the Hessian.

Where it takes a run is in `claims.hover`. Exact fixed points come from `hiso_bench.theory.learned`; every one is confirmed by
runs of the real round over independent keys, with 99.9 % intervals.
"""

from __future__ import annotations

import functools
import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hiso_bench import keys, methods, whiteness
from hiso_bench.claims import Control, Evidence, Finding, check
from hiso_bench.federation import Federation, FederationOptions
from hiso_bench.stats import Interval, exact, mean_interval
from hiso_bench.testing import Quadratics
from hiso_bench.theory import learned, spectra
from hiso_bench.theory.stability import max_stable_step
from learned_h import subjects
from learned_h.points import EMA, Place
from learned_h.still import shrunk
from synthetic.learned import EIGHT, STILL, Learned, Linear, RootH, log_correlation, settle, with_null
from synthetic.quadratic import Quadratic

P = 5
KEY = 20260101


def start_at(gradient: NDArray, P: int) -> float:
    """H before round 0 near its fixed point, so that little has to be forgotten."""
    return float(learned.fixed_point(gradient**2, P).mean())


# What H holds


def budget(name: str, P: int, ema: float, replicates: int, clients: int = 1) -> tuple[Interval, float]:
    """sum_j ((h_j/h_0)^2 - 1) of the time-averaged H, and its value to first order in ema; h_0 from idle coordinates."""
    v = np.concatenate([np.zeros(10), np.geomspace(1, 30, 20)])
    samples, size = (1, P ** (-2 / 3)) if name == "hiso-e" else (P * clients, 1.0)
    method = methods.build(name, lr=STILL, perturbations=P, ema_new=ema, h0=size * start_at(v, samples))
    problem = Linear(v, clients, replicates=(replicates,))
    run = settle(problem, method, 800, 200, KEY, sampled=clients, independent=clients > 1)
    expected = learned.scatter(v, samples, ema).mean
    found = mean_interval([learned.budget(h, h[:10].mean()) for h in run.h])
    return found, learned.budget(expected, expected[:10].mean())


@check("signal-budget")
def signal_budget() -> Finding:
    """sum_j ((h_j/h_0)^2 - 1) over P + 1, at the exact fixed point and in the time average of runs."""
    near = (0.95, 1.05)
    what = "sum_j ((h_j/h_0)^2 - 1) / %d of the time average, d = 30, %s"
    draw = keys.rng(keys.derive(KEY, "gradients"))
    off = []
    for d in (1, 10, 100, 10_000):
        for directions in (1, 5, 1000):
            energy = np.exp(3 * draw.standard_normal(d))
            h = learned.fixed_point(energy, directions)
            off.append(abs(learned.budget(h, learned.floor(energy, h, directions)) / (directions + 1) - 1))

    def drawn(name: str, P: int, ema: float, replicates: int, over: int, told: str, clients: int = 1) -> Evidence:
        found, predicted = budget(name, P, ema, replicates, clients)
        return Evidence(what % (over, told), Interval(*(value / over for value in found)), predicted / over, near)

    return Finding(
        evidence=(
            drawn("hiso-c", P, 0.01, 192, P + 1, "P = 5, ema_new 0.01"),
            drawn("hiso-c", P, 0.01, 128, 2 * P + 1, "2 clients with directions of their own: mP + 1 = 11", clients=2),
            Evidence("largest |budget/(P + 1) - 1| of the fixed point, 12 gradients, d to 10^4", exact(max(off)), 0.0, (0, 1e-9)),
        ),
        controls=(
            Control("P = 5 -> 15, over 6", "fails", drawn("hiso-c", 15, 0.01, 32, P + 1, "P = 15")),
            Control("H-c -> H-e, whose budget is 2 at every P", "fails", drawn("hiso-e", P, 0.002, 32, P + 1, "H-e, P = 5")),
        ),
        needed="more replicates",
    )


@functools.cache
def network() -> tuple[Place, Learned]:
    """The digits perceptron (d = 1,210) at its initial point, where H learned for 60 rounds with 16 keys of directions."""
    of = subjects.subject("digits MLP")
    place = Place(problem := of.build(key=1), subjects.start(problem))
    method = methods.build("hiso-c", lr=STILL, perturbations=P, ema_new=EMA, h0=start_at(place.gradient, P))
    return place, with_null(of.build(key=1, replicates=(16,)), method, 60, KEY)


def on_network() -> Evidence:
    """Correlation of log H with log diag |Sigma| above the null's, on a network."""
    place, run = network()
    h, null = (np.array([whiteness.log_correlation(row, place.absolute) for row in rows]) for rows in (run.h, run.null))
    fixed = place.fixed_point(P)
    expected = shrunk(whiteness.log_correlation(fixed, place.absolute), fixed, P, EMA)
    what = "corr(log H, log diag |Sigma|) less its null, digits perceptron of d = 1210 at its start, P = 5, ema_new 0.05"
    return Evidence(what, mean_interval(h - null), expected, (0.5, 2.0))


@check("C1")
def hessian() -> Finding:
    """Correlation of log H with log diag Sigma above the null's; the spread of H; H at 100 times the curvature."""
    # Five times the memory of the default, in the statement's favour: less noise in H.
    ema, similar = 0.01, (0.5, 2.0)
    what = "corr(log H, log diag Sigma) less its null, log-normal(1), P = 5, ema_new 0.01, d = %d, %s"

    def correlation(d: int, rate: float, rounds: int, told: str) -> Evidence:
        problem = Quadratic(d, "lognormal", 1.0, clients=1, replicates=(16 if d > 100 else 96,))
        s = problem.spectrum
        lr = rate * max_stable_step(s, 1.0, P)
        method = methods.build("hiso-c", lr=lr, perturbations=P, ema_new=ema, difference="central", h0=start_at(s, P))
        run = with_null(problem, method, rounds, KEY)
        fixed = np.array([learned.fixed_point((s * x) ** 2, P) for x in run.x])
        signal = np.log(fixed).std(-1)
        expected = log_correlation(fixed, s) * signal / np.hypot(signal, learned.width(P, ema))
        found = log_correlation(run.h, s) - log_correlation(run.null, s)
        return Evidence(what % (d, told), mean_interval(found), float(expected.mean()), similar)

    d = 1000
    s = Quadratic(d, "lognormal", 1.0, clients=1).spectrum
    ratio = np.log(learned.fixed_point(s**2, P)).std() / np.log(s).std()
    first_order = (P + 1) * (s**2 / np.sum(s**2)).std() / 2 / np.log(s).std()
    aligned, against = (float(log_correlation(learned.fixed_point((s * x) ** 2, 10**9), s)) for x in (np.ones(d), s**-2.0))
    return Finding(
        evidence=(
            correlation(d, 0.3, 400, "after 400 rounds at 0.3 eta*"),
            correlation(d, 1e-6, 300, "held at x_0 = 1, where the gradient is diag Sigma"),
            Evidence("std log H over std log diag Sigma, exact fixed point there", exact(ratio), first_order, similar),
            on_network(),
            Evidence("H at 100 Sigma over H at Sigma, one gradient, 60 rounds", exact(curvature()), 1.0, (50.0, 200.0)),
        ),
        controls=(
            Control("d = 1000 -> 10: P + 1 is no longer small", "holds", correlation(10, 1e-6, 300, "held at x_0 = 1")),
            Control(
                "P = 5 -> 10^9, exact fixed point at x = 1",
                "holds",
                Evidence("corr(log H, log diag Sigma)", exact(aligned), 1.0, similar),
            ),
            Control(
                "and x = 1 -> x_j = 1/Sigma_jj^2: one Hessian, another point",
                "fails",
                Evidence("corr(log H, log diag Sigma)", exact(against), -1.0, similar),
            ),
        ),
    )


def curvature() -> float:
    """Mean H learned where the Hessian is 100 Sigma, over that at Sigma: one gradient, one key, x held."""
    d, found = 50, []
    for scale in (1.0, 100.0):
        draw = keys.rng(keys.derive(KEY, "curvature"))
        problem = Quadratics(scale * np.diag(spectra.power(d, 1.0))[None], draw.standard_normal((1, d)), np.zeros(d))
        method = methods.build("hiso-c", lr=1e-12, perturbations=P, difference="central")
        federation = Federation(problem, method, FederationOptions(wire="float64", key=KEY))
        for _ in range(60):
            federation.round()
        found.append(federation.state.buffers["h"][0].mean().item())
    return found[1] / found[0]


@check("C15")
def long_tail() -> Finding:
    """Width and right tail of log H over its null's, and the width at ema_new 0.1 over that at 0.01."""
    structure = (1.2, math.inf)
    what = "%s of log H over its null's, gradient 1/j, P = 5, ema_new 0.01, d = %d"

    def logs(d: int, ema: float) -> tuple[NDArray, NDArray]:
        v = np.arange(1.0, d + 1) ** -1
        method = methods.build("hiso-c", lr=STILL, perturbations=P, ema_new=ema, h0=start_at(v, P))
        run = with_null(Linear(v, replicates=(16,)), method, round(4 / ema), KEY)
        return np.log(run.h), np.log(run.null)

    def tail(values: NDArray) -> NDArray:
        return np.quantile(values, 0.99, axis=-1) - np.median(values, axis=-1)

    (h, null), (short, _) = logs(2000, 0.01), logs(2000, 0.1)
    few, few_null = logs(20, 0.01)
    v = np.arange(1.0, 21) ** -1
    signal = np.log(learned.fixed_point(v**2, P)).std() / learned.width(P, 0.01)
    place, run = network()
    ratio = np.log(run.h).std(-1) / np.log(run.null).std(-1)
    expected = float(np.hypot(1, np.log(place.fixed_point(P)).std() / learned.width(P, EMA)))
    return Finding(
        evidence=(
            Evidence(what % ("width", 2000), mean_interval(h.std(-1) / null.std(-1)), 1.0, structure),
            Evidence(what % ("99 % quantile above the median", 2000), mean_interval(tail(h) / tail(null)), 1.0, structure),
            Evidence(
                "width of log H at ema_new 0.1 over 0.01; a property of the problem would not change",
                mean_interval(short.std(-1) / h.std(-1)),
                learned.width(P, 0.1) / learned.width(P, 0.01),
                (0.8, 1.25),
            ),
            Evidence(
                "width of log H over its null's, digits perceptron of d = 1210 at its start, P = 5, ema_new 0.05",
                mean_interval(ratio),
                expected,
                structure,
            ),
        ),
        controls=(
            Control(
                "d = 2000 -> 20: P + 1 is no longer small",
                "holds",
                Evidence(
                    what % ("width", 20), mean_interval(few.std(-1) / few_null.std(-1)), float(np.hypot(1, signal)), structure
                ),
            ),
        ),
    )


@check("scale-of-f")
def scale() -> Finding:
    """The exponent of the mean step in the size of the gradient, which is 0 for RMSProp."""
    v, sizes = np.geomspace(1.0, 10.0, 50), np.array([1.0, 10.0, 100.0, 1000.0])
    none, what = (-0.05, 0.05), "exponent of |E dx| in |gradient|, 1 to 1000, %s"

    def exponent(method: Any) -> Interval:
        run = settle(Linear(sizes[:, None, None] * v, replicates=(4, 32)), method, 600, 200, KEY)
        step = run.step @ v / np.linalg.norm(v)
        return mean_interval(np.polyfit(np.log(sizes), np.log(step), 1)[0])

    def scaled(power: int) -> float:
        method = methods.build("hiso-c", lr=STILL, perturbations=P, eps=0.0, h0=4.0**power)
        run = settle(Linear(EIGHT**power * v), method, 40, 0, KEY)
        return float(np.linalg.norm(run.step))

    exactly = math.log(scaled(3) / scaled(0)) / math.log(EIGHT**3)
    return Finding(
        evidence=(
            Evidence(what % "HiSo", exponent(methods.build("hiso-c", lr=STILL, perturbations=P)), 1 / 3, none),
            Evidence("the same from f -> 512 f with H_0 scaled along", exact(exactly), 1 / 3, none),
        ),
        controls=(
            Control(
                "H = mean of dx^2 -> root mean of (H dx)^2, RMSProp",
                "holds",
                Evidence(what % "RMSProp", exponent(RootH(lr=STILL, perturbations=P)), 0.0, none),
            ),
            Control(
                "HiSo -> DeComFL",
                "fails",
                Evidence(what % "DeComFL", exponent(methods.build("decomfl", lr=STILL, perturbations=P)), 1.0, none),
            ),
        ),
    )


@check("h-variants")
def variants() -> Finding:
    """The stationary mean of H of one version over that of another, for one gradient."""
    d, ema, same = 100, 0.02, (0.98, 1.02)
    v = np.ones(d)

    def ratio(one: str, other: str, what: str, P: int = P, noise: float = 0.0, clients: int = 1) -> Evidence:
        found, expected = [], []
        for name in (one, other):
            energy = v**2 + noise**2 / (1 if name == "hiso-a" else clients)
            samples, size = (1, P ** (-2 / 3)) if name == "hiso-e" else (P, 1.0)
            at = size * learned.scatter(np.sqrt(energy), samples, ema).mean.mean()
            method = methods.build(name, lr=STILL, perturbations=P, ema_new=ema, h0=float(at))
            problem = Linear(v, clients, noise, (16,), key=KEY)
            found.append(settle(problem, method, 400, 100, KEY, sampled=clients).h.mean(-1))
            expected.append(at)
        return Evidence(what, mean_interval(found[0] / found[1]), float(expected[0] / expected[1]), same)

    clients = "H of the mean of %d clients' squares over that of the square of their mean, noise std %g, |g_j| = 1, d = 100"
    code = "H of the official Batch class over Paramwise, P = %d, d = 100"
    return Finding(
        evidence=(
            ratio("hiso-a", "hiso-c", clients % (4, 3), noise=3.0, clients=4),
            ratio("hiso-d", "hiso-e", code % 5),
        ),
        controls=(
            Control("m = 4 -> 1", "holds", ratio("hiso-a", "hiso-c", clients % (1, 3), noise=3.0)),
            Control("noise 3 -> 0", "holds", ratio("hiso-a", "hiso-c", clients % (4, 0), clients=4)),
            Control("P = 5 -> 1", "holds", ratio("hiso-d", "hiso-e", code % 1, P=1)),
        ),
    )
