"""The estimator of HiSo's Eqs 1-11 and the quantities of Eqs 13-16, through the real round.

Expectations are sums over the nodes of a cubature that stand in the place of the drawn directions: nothing is sampled
unless a check says so. All in float64 up to and including the wire; the clients' Hessians are full matrices.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from hiso_bench.claims import Control, Evidence, Finding, check
from hiso_bench.differences import Difference
from hiso_bench.directions import DirectionKey, Directions, Warped
from hiso_bench.methods import DeComFL, OracleH
from hiso_bench.points import Layout
from hiso_bench.stats import exact, mean_interval, span
from hiso_bench.testing import Cubature, Quadratics, federation_over, joined, rule_for, smolyak, take_round

ROUNDING = (0.0, 1e-11)
"""Largest relative deviation that counts as an identity: rounding leaves 1e-13 after the cubatures' negative weights."""
LAWS = {"gaussian": 3, "sphere": 2, "rademacher": 3}
"""Laws of the directions, and the dimension in which each has an exact rule."""


def deviation(found: NDArray, expected: NDArray | float) -> float:
    """Largest absolute difference, over the largest expected absolute value."""
    return float(np.abs(found - expected).max() / np.abs(expected).max())


# Eqs 8-10


class Case(NamedTuple):
    """One setting of a step."""

    law: str
    P: int
    m: int
    independent: bool
    mu: float
    difference: Difference


def cases() -> Iterator[Case]:
    """Every law, P = 1, 2, 3, one client and several, both differences and radii, shared and independent directions."""
    settings: list[tuple[float, Difference]] = [(0.1, "forward"), (0.3, "forward"), (0.3, "central")]
    for mu, difference in settings:
        for law in LAWS:
            yield from (Case(law, P, m, False, mu, difference) for P in (1, 2, 3) for m in (1, 3))
            yield from (Case(law, P, m, True, mu, difference) for P, m in [(1, 3), (2, 2)])


def bias(kind: type[OracleH] = OracleH) -> float:
    """Largest relative deviation of E dx from H^{-1} grad f over the cases, with H over two decades."""
    worst = 0.0
    for number, case in enumerate(cases()):
        d = 2 if case.independent else LAWS[case.law]
        problem, h = Quadratics.random(number, d, case.m, leaf_shapes=((1,), (d - 1,))), np.geomspace(10.0, 0.1, d)
        method = kind(lr=0.5, mu=case.mu, perturbations=case.P, difference=case.difference, h=problem.point(h), eps=0.0)
        rule = rule_for(case.law, d, case.P * (case.m if case.independent else 1))
        dx = take_round(federation_over(rule, problem, method, independent=case.independent))
        worst = max(worst, deviation(rule.mean(dx), problem.gradients.mean(0) / h))
    return worst


class _WithoutP(OracleH):
    """The sum over directions in the place of their mean."""

    def direction(self, step, layout, z, out):
        return super().direction(step._replace(weights=step.weights * self.perturbations), layout, z, out)


class _InverseForRoot(OracleH):
    """z = H^{-1} u."""

    def warp(self, state):
        inverse = tuple(1 / leaf for leaf in state.buffers["h"])
        return lambda u: tuple(leaf.mul_(w) for leaf, w in zip(u, inverse, strict=True))


@check("eq9")
def unbiased() -> Finding:
    """E dx against H^{-1} grad f."""
    what = "largest relative deviation of E dx from H^-1 grad f, 72 settings"
    return Finding(
        evidence=(Evidence(what, exact(bias()), 0.0, ROUNDING),),
        controls=(
            Control("the mean over P directions -> their sum", "fails", Evidence(what, exact(bias(_WithoutP)), 2.0, ROUNDING)),
            # H^{-1} in the place of H^{-1/2} squares the preconditioner: H^{-2} grad f.
            Control("H^-1/2 -> H^-1", "fails", Evidence(what, exact(bias(_InverseForRoot)), 9.0, ROUNDING)),
        ),
    )


# Eqs 13-16


def hessian(d: int, key: int = 0) -> NDArray[np.float64]:
    """A full positive semi-definite matrix with the eigenvalues 4, 1, 1/4, ... in a random basis; the last is 0 for d > 2."""
    basis = np.linalg.eigh(Quadratics.random(key, d).hessians[0])[1]
    values = 4.0 ** (1 - np.arange(d))
    values[2:][-1:] = 0
    return np.asarray((basis * values) @ basis.T, dtype=np.float64)


def form(law: str, h: NDArray, S: NDArray, kind: type[OracleH] = OracleH, scale: float = 1.0) -> float:
    """E z'Sz over a cubature that the core warps; `scale` multiplies the directions."""
    d, rule = len(h), rule_for(law, len(h), 1)
    problem = Quadratics(S[None], np.zeros((1, d)), np.zeros(d))
    method = kind(lr=1.0, perturbations=1, h=problem.point(h), eps=0.0)
    federation = federation_over(Cubature(scale * rule.nodes, rule.weights), problem, method)
    z = joined(Warped(federation.directions, method.warp(federation.state))(DirectionKey(0, 0, 0)), federation.problem.layout)
    return float(rule.mean(np.einsum("ni,ij,nj->n", z.numpy(), S, z.numpy())))


def _zeta(h: NDArray, S: NDArray) -> float:
    return float(np.trace(S / np.sqrt(np.outer(h, h))))


def _form_deviation(warped: bool, kind: type[OracleH] = OracleH, unit: bool = False) -> float:
    worst = 0.0
    for law, d in LAWS.items():
        h, S = np.geomspace(10.0, 0.1, d) if warped else np.ones(d), hessian(d)
        found = form(law, h, S, kind, scale=d**-0.5 if unit else 1.0)
        worst = max(worst, deviation(np.array(found), _zeta(h, S)))
    return worst


def _drawn(law: str, d: int, n: int) -> NDArray:
    """The values of z'Sz over zeta for n keyed directions: S a diagonal (power 1.5) plus rank one, H over two decades."""
    h, S = np.geomspace(10.0, 0.1, d), np.diag(np.arange(1, d + 1) ** -1.5) + np.full((d, d), 1 / d)
    layout = Layout(((d,),), (n,))
    method = OracleH(lr=1.0, h=(torch.from_numpy(h),), eps=0.0)
    state = method.init((torch.zeros(n, d, dtype=torch.float64),), layout)
    z = Warped(Directions(layout, 16, law, torch.float64), method.warp(state))(DirectionKey(0, 0, 0))[0].numpy()
    return np.einsum("ni,ij,nj->n", z, S, z) / _zeta(h, S)


@check("eq13-16")
def forms() -> Finding:
    """E u'Sigma u and E z'Sigma z against the traces."""
    z, u = (
        f"largest relative deviation of {form}, three laws" for form in ("E z'Sigma z from zeta", "E u'Sigma u from Tr Sigma")
    )
    matrices = [(law, S) for law, d in LAWS.items() for S in (hessian(d), np.eye(d))]
    worst_case = [len(S) * np.linalg.eigvalsh(S)[-1] for _, S in matrices]
    ratios = [form(law, np.ones(len(S)), S) / most for (law, S), most in zip(matrices, worst_case, strict=True)]
    traces = [np.trace(S) / most for (_, S), most in zip(matrices, worst_case, strict=True)]
    drawn = [
        Evidence(
            f"mean of z'Sigma z / zeta, d = 40, 100,000 drawn {law}", mean_interval(_drawn(law, 40, 100_000)), 1.0, (0.97, 1.03)
        )
        for law in LAWS
    ]
    squared = max(_zeta(h**2, S) / _zeta(h, S) - 1 for h, S in ((np.geomspace(10.0, 0.1, d), hessian(d)) for d in LAWS.values()))
    return Finding(
        evidence=(
            Evidence(z, exact(_form_deviation(True)), 0.0, ROUNDING),
            Evidence(u, exact(_form_deviation(False)), 0.0, ROUNDING),
            Evidence("E u'Sigma u / (L d), 1 for Sigma = I", span(ratios), float(np.median(traces)), (0.0, 1 + 1e-12)),
            *drawn,
        ),
        controls=(
            Control("H^-1/2 -> H^-1", "fails", Evidence(z, exact(_form_deviation(True, _InverseForRoot)), squared, ROUNDING)),
            Control(
                "directions of mean square length d -> 1",
                "fails",
                Evidence(u, exact(_form_deviation(False, unit=True)), 2 / 3, ROUNDING),
            ),
        ),
    )


@check("table1")
def table() -> Finding:
    """E u'Sigma u and E z'Sigma z over each of the four entries, which are bounds if no ratio exceeds 1."""
    spectra = [hessian(3), np.eye(3), np.diag([10.0, 0.1, 0.1])]
    bound, one = (0.0, 1 + 1e-12), np.ones(3)
    h = np.geomspace(10.0, 0.1, 3)
    largest = [np.linalg.eigvalsh(S)[-1] for S in spectra]
    plain = np.array([form("gaussian", one, S) for S in spectra])
    traces = np.array([np.trace(S) for S in spectra])

    def over_2d(h: NDArray, S: NDArray) -> float:
        return form("gaussian", h, S) / (2 * len(S))

    matched = [over_2d(np.diag(S) / 2, S) for S in spectra] + [over_2d(np.diag(S) + 1, S) for S in spectra]
    expected = [_zeta(np.diag(S) / 2, S) / 6 for S in spectra] + [_zeta(np.diag(S) + 1, S) / 6 for S in spectra]
    rank = [form("gaussian", h, S) / _zeta(h, S) for S in spectra]
    second = [np.linalg.eigvalsh(S)[-2] for S in spectra]
    entry = "E z'Sigma z / (2 d), H = I inside A4, Sigma = %s I (Eq 17 %s)"
    return Finding(
        evidence=(
            Evidence(
                "E u'Sigma u / (L d), three spectra",
                span(plain / (3 * np.array(largest))),
                float(np.median(traces / largest)) / 3,
                bound,
            ),
            Evidence("E u'Sigma u / (L kappa)", span(plain / traces), 1.0, bound),
            Evidence("E z'Sigma z / zeta, H over two decades", span(rank), 1.0, bound),
            Evidence(
                "E z'Sigma z / (2 d) where Eq 17 holds: H = diag(Sigma)/2, diag(Sigma) + I",
                span(matched),
                float(np.median(expected)),
                bound,
            ),
            Evidence(entry % (10, "fails"), exact(over_2d(one, 10 * np.eye(3))), 5.0, bound),
        ),
        controls=(
            Control(
                "L -> the second eigenvalue",
                "fails",
                Evidence("E u'Sigma u / (L d), one spike", exact(plain[2] / (3 * second[2])), traces[2] / (3 * second[2]), bound),
            ),
            Control("Sigma = 10 I -> I", "holds", Evidence(entry % (1, "holds"), exact(over_2d(one, np.eye(3))), 0.5, bound)),
        ),
    )


# Eq 11


def second_differences(S: NDArray, mu: float) -> tuple[Cubature, NDArray[np.float64]]:
    """F(x + mu u) + F(x - mu u) - 2 F(x) at the nodes u of a rule, by the core's scalars along u and -u.

    Args:
        S: Hessian of F, shape (3, 3).
        mu: smoothing radius.

    Returns:
        The rule without its node 0 and the second differences, shape (N,); at the node 0 they are 0.
    """
    rule = smolyak(3)
    rule = Cubature(rule.nodes[rule.nodes.any(1)], rule.weights[rule.nodes.any(1)])
    mirrored = Cubature(np.hstack([rule.nodes, -rule.nodes]), rule.weights)
    problem = Quadratics(S[None], np.array([[1.0, -2.0, 0.5]]), np.array([0.3, 0.2, -1.0]))
    federation = federation_over(mirrored, problem, DeComFL(lr=1.0, mu=mu, perturbations=2))
    z = Warped(federation.directions, federation.method.warp(federation.state))
    scalars, _ = federation.measure(0, np.zeros((1, len(rule.weights)), dtype=int), [0], z)
    return rule, mu * scalars.sum((0, 1, 2)).numpy()


def stein(S: NDArray, mu: float) -> NDArray[np.float64]:
    """E [second difference / (2 mu^2)] (u u' - I), shape (3, 3): the scalar of Eq 11 where its factor 1/2 belongs."""
    rule, differences = second_differences(S, mu)
    weighted = rule.weights * differences / (2 * mu**2)
    return np.einsum("n,ni,nj->ij", weighted, rule.nodes, rule.nodes) - weighted.sum() * np.eye(3)


@check("eq11")
def curvature() -> Finding:
    """The printed curvature scalar over u' Hess u, at every node."""
    S = hessian(3) + np.eye(3)
    halves, wholes = [], []
    for mu in (0.1, 0.3):
        rule, differences = second_differences(S, mu)
        along = np.einsum("ni,ij,nj->n", rule.nodes, S, rule.nodes)
        halves.extend(differences / (2 * mu**2) / along)
        wholes.extend(differences / mu**2 / along)
    what = "curvature scalar over u' Hess u, all directions, mu = 0.1 and 0.3"
    corrected = float(np.linalg.norm(stein(S, 0.3)) / np.linalg.norm(S))
    return Finding(
        evidence=(Evidence(what, span(halves), 0.5, (0.99, 1.01)),),
        controls=(
            Control("2 mu^2 -> mu^2", "holds", Evidence(what, span(wholes), 1.0, (0.99, 1.01))),
            Control(
                "u' Hess u -> Stein's form",
                "holds",
                Evidence("|E (printed scalar)(uu' - I)| over |Hess|", exact(corrected), 1.0, (0.99, 1.01)),
            ),
        ),
    )
