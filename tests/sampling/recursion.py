"""The core's mean loss after some rounds against the exact recursion, one ingredient of the core at a time.

The p-value is that of Student's t after Hall's transformation (J. R. Stat. Soc. B 54, 1992), which removes the effect of the
samples' skewness up to O(1/n): losses are skewed to the right, and the plain t would raise many times alpha's false alarms far
out in the tails. No rate is above eta*/2: near eta* losses have no finite variance, and no test of their mean is valid.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import fields, replace
from unittest.mock import patch

import numpy as np
from scipy import stats

from hiso_bench import federation, keys
from hiso_bench.directions import SHARED, Directions
from hiso_bench.methods import DeComFL, Method, OracleH
from hiso_bench.theory.recursion import expected_loss
from synthetic.expected import Case, exact, simulate
from synthetic.quadratic import Quadratic, linear_terms
from tests.sampling.registry import SamplingTest, Twin, register

ALPHA = 8e-6
REPLICATES = 1500


def p_value(samples: np.ndarray, expected: float) -> np.ndarray:
    """Two-sided p-values of "the mean is `expected`", along the last axis."""
    n = samples.shape[-1]
    t = (samples.mean(-1) - expected) / samples.std(-1, ddof=1) * np.sqrt(n)
    skew = stats.skew(samples, axis=-1) / np.sqrt(n)
    straight = t + skew * (t**2 / 3 + 1 / 6) + skew**2 * t**3 / 27
    return 2 * stats.t.sf(np.abs(straight), n - 1)


def agreement(
    name: str,
    case: Case,
    bug: str,
    broken: Callable[[Case], float],
    *,
    method: Callable[[Case], Method] | None = None,
    context: Callable[[], AbstractContextManager] = nullcontext,
    instead: Callable[[Case], Case] | None = None,
) -> None:
    """Register the test of a case with its planted bug.

    Args:
        name: of the test.
        case: what is run; its problem's key is drawn anew for every key.
        bug: in words.
        broken: the exact expected loss of the code with the bug.
        method: the method with the bug.
        context: patches the code.
        instead: the case that a wrong option makes of it.
    """

    def keyed(key: int) -> tuple[Case, int]:
        return replace(case, key=keys.derive(key, "problem")), keys.derive(key, "run")

    def statistic(key: int) -> float:
        one, run = keyed(key)
        return float(p_value(simulate(one, run, REPLICATES)[0], exact(one).loss[-1]))

    def planted(key: int) -> Twin:
        one, run = keyed(key)
        with context():
            samples = simulate(instead(one) if instead else one, run, REPLICATES, method=method(one) if method else None)[0]
        expected = exact(one).loss[-1]
        effect = abs(broken(one) - expected) / samples.std(ddof=1) * np.sqrt(REPLICATES)
        return Twin(float(p_value(samples, expected)), float(stats.norm.cdf(effect - stats.norm.isf(ALPHA / 2))))

    register(SamplingTest(name, ALPHA, bug, statistic, planted))


def changed(**options: object) -> Callable[[Case], Case]:
    """The case with other options at the same learning rate."""
    return lambda case: replace(case, lr=case.eta, **options)


def loss_of(**options: object) -> Callable[[Case], float]:
    """Its exact loss."""
    return lambda case: exact(changed(**options)(case)).loss[-1]


def faster(factor: float) -> Callable[[Case], float]:
    """The exact loss at `factor` times the learning rate."""
    return lambda case: exact(replace(case, lr=factor * case.eta)).loss[-1]


# Bugs


class SumOverDirections(DeComFL):
    """The 1/P is forgotten."""

    def direction(self, step, layout, z, out):
        return super().direction(step._replace(weights=step.weights * self.perturbations), layout, z, out)


class OneDirection(DeComFL):
    """The first direction and its scalar stand for all P."""

    def direction(self, step, layout, z, out):
        first = tuple((row[0],) * len(row) for row in step.keys)
        return super().direction(step._replace(keys=first, weights=step.weights[:, :1].expand_as(step.weights)), layout, z, out)


class NotHalved(DeComFL):
    """The central difference is divided by mu in place of 2 mu."""

    def measure(self, loss, layout, x, z, directions, batches, buffer):
        measured = super().measure(loss, layout, x, z, directions, batches, buffer)
        return measured._replace(scalars=2 * measured.scalars)


class WrongPower(OracleH):
    """H in the place of H^{-1/2}."""

    def warp(self, state):
        return lambda u: tuple(leaf.mul_(h) for leaf, h in zip(u, state.buffers["h"], strict=True))


def as_bug(kind: type[Method]) -> Callable[[Case], Method]:
    """The case's method with the bug in it."""

    def build(case: Case) -> Method:
        plain = case.method()
        return kind(**{name: getattr(plain, name) for name in [field.name for field in fields(plain)]})

    return build


def wrong_power(case: Case) -> float:
    s = case.alone.spectrum
    return expected_loss(s, 1 / case.h**2, np.ones_like(s), case.eta, case.P, case.rounds, case.mu)[-1]


def radius_one():
    def shrink(self, u):
        sphere(self, u)
        for leaf in u:
            leaf.div_(np.sqrt(self.layout.dimension))

    sphere = Directions._to_sphere
    return patch.object(Directions, "_to_sphere", shrink)


def one_batch_for_all():
    batch = Quadratic.batch
    return patch.object(Quadratic, "batch", lambda self, client, round_, step: batch(self, np.zeros_like(client), round_, step))


def no_batch():
    return patch.object(Quadratic, "batch", lambda self, client, round_, step: None)


def with_replacement():
    def draw(key, round_, clients, sampled, shape=()):
        return keys.rng(keys.derive(key, "participation", round=round_)).integers(clients, size=(sampled, *shape))

    return patch.object(federation, "participants", draw)


def replaced_clients(case: Case) -> float:
    # Each draw is one more independent "gradient noise" of covariance mean b_i b_i'.
    s, problem = case.alone.spectrum, case.problem
    b = linear_terms(problem["clients"], len(s), problem["heterogeneity"], "coordinate", case.key).numpy()
    args = (s, case.h, np.ones_like(s), case.eta, case.P, case.rounds, case.mu)
    return expected_loss(*args, noise=np.mean(b**2, axis=0), m=case.sampled)[-1]


def shared_after_all():
    draw = Directions.draw
    return patch.object(Directions, "draw", lambda self, key, out=None: draw(self, key._replace(client=SHARED), out))


# Tests: every family of spectra, law of directions and source of noise


def family(kind: str, d: int = 40, **options: object) -> dict:
    return {"dimension": d, "spectrum_family": kind} | options


BLOCKS = {"block_sizes": (5, 15, 20), "block_values": (1.0, 0.5, 0.1)}

agreement(
    "flat", Case(family("flat"), 30, share=0.1), "the step is the sum over directions, not the mean",
    faster(5), method=as_bug(SumOverDirections),
)  # fmt: skip
agreement(
    "power, on the sphere", Case(family("power", parameter=1.0), 30, law="sphere"), "the sphere has radius 1, not sqrt(d)",
    faster(1 / 40), context=radius_one,
)  # fmt: skip
agreement(
    "spiked", Case(family("spiked", parameter=10.0, spikes=3), 30, share=0.1), "all P directions are the first",
    loss_of(P=1), method=as_bug(OneDirection),
)  # fmt: skip
agreement(
    "lognormal, central difference", Case(family("lognormal", parameter=1.0), 30, share=0.25, difference="central"),
    "the difference is not halved", faster(2), method=as_bug(NotHalved),
)  # fmt: skip
agreement(
    "blocks, given H", Case(family("blocks", **BLOCKS), 30, h_eps=0.2), "directions are warped by H, not by H^{-1/2}",
    wrong_power, method=as_bug(WrongPower),
)  # fmt: skip
agreement(
    "rotated", Case(family("power", 10, parameter=0.5, angle=float("inf")), 30, P=2), "directions lie on the sphere",
    loss_of(law="sphere"), instead=changed(law="sphere"),
)  # fmt: skip
agreement(
    "power, rademacher", Case(family("power", parameter=1.0), 30, P=2, law="rademacher"), "directions are Gaussian",
    loss_of(law="gaussian"), instead=changed(law="gaussian"),
)  # fmt: skip
agreement(
    "gradient noise", Case(family("power", parameter=1.0, clients=3, noise=0.5, noise_geometry="hessian"), 30, sampled=3),
    "all clients have one batch", lambda case: loss_of(sampled=1, problem=case.problem | {"clients": 1})(case),
    context=one_batch_for_all,
)  # fmt: skip
agreement(
    "heterogeneity", Case(family("flat", clients=4, heterogeneity=0.5), 40, sampled=2),
    "clients are sampled with replacement", replaced_clients, context=with_replacement,
)  # fmt: skip
agreement(
    "independent directions", Case(family("flat", clients=3), 20, sampled=3, independent=True),
    "the clients' directions are one", loss_of(independent=False), context=shared_after_all,
)  # fmt: skip
agreement(
    # A quarter of the mean function's eta*: sampling different Hessians has a smaller limit of its own.
    "different Hessians", Case(family("power", parameter=1.0, clients=4, hessian_spread=0.5), 30, share=0.25),
    "clients have the mean Hessian", lambda case: loss_of(problem=case.problem | {"hessian_spread": 0.0})(case), context=no_batch,
)  # fmt: skip
agreement(
    "large mu", Case(family("flat"), 40, mu=0.5), "the difference is central", loss_of(difference="central"),
    instead=changed(difference="central"),
)  # fmt: skip


# The p-value itself: exponential samples have the skewness 2, and losses less.

SAMPLES, TESTS_OF_IT, LEVEL, TAIL_ALPHA = 100, 40_000, 1e-3, 3e-6


def tail(rule: Callable[[np.ndarray, float], np.ndarray]) -> Callable[[int], float]:
    """Key -> p-value of "a true mean gets a p-value below LEVEL with chance LEVEL"."""

    def statistic(key: int) -> float:
        samples = keys.rng(key).exponential(size=(TESTS_OF_IT, SAMPLES))
        return float(stats.binomtest(int(np.sum(rule(samples, 1.0) < LEVEL)), TESTS_OF_IT, LEVEL).pvalue)

    return statistic


def plain(samples: np.ndarray, expected: float) -> np.ndarray:
    """Student's t without Hall's transformation."""
    return stats.ttest_1samp(samples, expected, axis=-1).pvalue


def seen(key: int) -> Twin:
    """The plain t gives such p-values 3.9 times as often as it should (measured on 200,000 others)."""
    least = stats.binom.isf(TAIL_ALPHA / 2, TESTS_OF_IT, LEVEL)
    return Twin(tail(plain)(key), float(stats.binom.sf(least, TESTS_OF_IT, 3.5 * LEVEL)))


register(SamplingTest("p-values of skewed samples", TAIL_ALPHA, "the plain t", tail(p_value), seen))
