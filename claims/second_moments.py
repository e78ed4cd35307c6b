"""Claims about the size of a step: the factor of HiSo's Theorem 1, Table 1's title, the law of the directions, the best step.

The second moment E dx dx' is measured through the real round over a cubature; f(x) = 1/2 x'Sx + b.x, g its gradient,
C = H^{-1}. Only the spheres of d = 10 and d = 1000 are sampled.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from claims.estimator import ROUNDING, deviation, hessian
from hiso_bench.claims import Control, Evidence, Finding, check
from hiso_bench.differences import Difference
from hiso_bench.directions import Law
from hiso_bench.federation import Federation, FederationOptions
from hiso_bench.methods import DeComFL, OracleH
from hiso_bench.stats import exact, mean_interval, span
from hiso_bench.testing import Quadratics, federation_over, joined, rule_for, take_round
from hiso_bench.theory import moments
from synthetic.quadratic import Quadratic

H = np.geomspace(10.0, 0.1, 3)


def second_moment(
    g: NDArray, h: NDArray, S: NDArray, P: int, mu: float = 0.1, difference: Difference = "central", law: Law = "gaussian"
) -> NDArray[np.float64]:
    """E dx dx' of a round at a point where the gradient is g, shape (d, d); exact."""
    problem = Quadratics(S[None], g[None], np.zeros(len(g)))
    method = OracleH(lr=1.0, mu=mu, perturbations=P, difference=difference, h=problem.point(h), eps=0.0)
    rule = rule_for(law, len(g), P)
    dx = take_round(federation_over(rule, problem, method))
    return dx.T @ (rule.weights[:, None] * dx)


def whitened(h: NDArray, S: NDArray) -> NDArray[np.float64]:
    """The matrix Xi = H^{-1/2} S H^{-1/2}."""
    return S / np.sqrt(np.outer(h, h))


def worst_gradient(h: NDArray, S: NDArray) -> NDArray[np.float64]:
    """The gradient for which E |dx|_S^2 / g'Cg is largest: C^{1/2} g along the top eigenvector of Xi."""
    return np.sqrt(h) * np.linalg.eigh(whitened(h, S))[1][:, -1]


def factor(g: NDArray, h: NDArray, S: NDArray, P: int) -> float:
    """E |dx|_S^2 over g'Cg at mu = 0 (a central difference has no mu term on a quadratic)."""
    return float((S * second_moment(g, h, S, P)).sum() / (g / h @ g))


@check("rho")
def rho() -> Finding:
    """E |z|_S^2 (z'v)^2 = E |dx|_S^2 at P = 1 and v = g, against its closed form and its bound rho g'Cg."""
    gaps, over, predicted, shrunk = [], [], [], []
    for key in range(4):
        S = hessian(3, key)
        Xi = whitened(H, S)
        zeta, top = np.trace(Xi), np.linalg.eigvalsh(Xi)[-1]
        for v in (Quadratics.random(key, 3).gradients[0], worst_gradient(H, S)):
            a = v / np.sqrt(H)
            closed = zeta + 2 * a @ Xi @ a / (a @ a)
            gaps.append(deviation(np.array(factor(v, H, S, 1)), closed))
            over.append(factor(v, H, S, 1) / (zeta + 2 * top))
            predicted.append(closed / (zeta + 2 * top))
        worst = factor(worst_gradient(H, S), H, S, 5)
        closed = zeta / 5 + (1 + 1 / 5) * top
        gaps.append(deviation(np.array(worst), closed))
        shrunk.append((worst / (zeta + 2 * top), closed / (zeta + 2 * top)))
    S = hessian(3)
    zeta, top = np.trace(whitened(H, S)), np.linalg.eigvalsh(whitened(H, S))[-1]
    least, fewer = zip(*shrunk, strict=True)
    bound = (0.0, 1 + 1e-11)
    what = "largest factor over %s"
    return Finding(
        evidence=(
            Evidence("E |z|_S^2 (z'v)^2 / (rho v'Cv), 8 v, 1 for the worst v", span(over), float(np.median(predicted)), bound),
            Evidence(
                "largest relative deviation from zeta/P + (1 + 1/P) v'C S C v / v'Cv, P = 1 and 5",
                exact(max(gaps)),
                0.0,
                ROUNDING,
            ),
            Evidence("P = 5: " + what % "rho, which has no P", span(least), float(np.median(fewer)), bound),
        ),
        controls=(
            Control(
                "rho = zeta + 2 |Xi| -> zeta",
                "fails",
                Evidence(what % "zeta", exact(factor(worst_gradient(H, S), H, S, 1) / zeta), 1 + 2 * top / zeta, bound),
            ),
        ),
    )


@check("table1-title")
def title() -> Finding:
    """The variance of the step over L kappa |g|^2, which Table 1 calls its bound (H = I)."""
    S, one, bound = hessian(3), np.ones(3), (0.0, 1 + 1e-11)
    values, vectors = np.linalg.eigh(S)
    g, trace = vectors[:, -1], values.sum()
    kappa = trace / values[-1]

    def variance(weight: NDArray, S: NDArray, P: int) -> float:
        return float((weight * (second_moment(g, one, S, P) - np.outer(g, g))).sum())

    weighted = "E |dx - g|_Sigma^2 / (L kappa |g|^2), g the top eigenvector, P = %d"
    euclidean = variance(np.eye(3), S / 100, 1) / (trace / 100)
    rho_ = trace + 2 * values[-1]
    return Finding(
        evidence=(
            Evidence(weighted % 1, exact(variance(S, S, 1) / trace), 1 + 1 / kappa, bound),
            Evidence(weighted % 5, exact(variance(S, S, 5) / trace), (1 + 1 / kappa) / 5, bound),
            Evidence(
                "E |dx - g|^2 / (L kappa |g|^2) at Sigma/100, P = 1: the numerator does not change", exact(euclidean),
                400 / trace, bound,
            ),
        ),
        controls=(
            Control(
                "L kappa -> L kappa + 2 L, the rho of Theorem 1",
                "holds",
                Evidence(weighted % 1 + " with rho", exact(variance(S, S, 1) / rho_), (trace + values[-1]) / rho_, bound),
            ),
        ),
    )  # fmt: skip


# Sphere and Gaussian


def _ratio(P: int) -> float:
    """E |dx|^2 of the sphere over the Gaussian's at d = 2, by both rules."""
    g, S, one = np.array([1.0, -2.0]), hessian(2), np.ones(2)
    return float(np.trace(second_moment(g, one, S, P, law="sphere")) / np.trace(second_moment(g, one, S, P)))


def sampled(law: Law, d: int, P: int, n: int) -> NDArray[np.float64]:
    """|dx|^2 over its Gaussian expectation (d + P + 1)/P |g|^2, n keyed rounds: shape (n,). Cost: n d P random numbers."""
    parts = []
    for part, size in enumerate([n // 10] * 10):  # in parts, for memory
        problem = Quadratic(d, "flat", clients=1, replicates=(size,))
        method = DeComFL(lr=1.0, mu=1e-2, perturbations=P, difference="central")
        dx = take_round(Federation(problem, method, FederationOptions(law=law, wire="float64", key=part)))
        parts.append((dx**2).sum(-1) * P / ((d + P + 1) * d))
    return np.concatenate(parts)


@check("sphere-gaussian")
def laws() -> Finding:
    """E |dx|^2 on the sphere over the Gaussian one, at H = I and mu = 0."""
    smaller = (0.0, 0.95)
    what = "E |dx|^2 over the Gaussian (d + P + 1)/P |g|^2: %s, d = %d, P = %d"

    def formula(d: int, P: int) -> float:
        return (d + P - 1) / (d + P + 1)

    def drawn(law: Law, d: int, P: int, n: int) -> Evidence:
        predicted = formula(d, P) if law == "sphere" else 1.0
        return Evidence(what % (law, d, P) + f", {n} rounds", mean_interval(sampled(law, d, P, n)), predicted, smaller)

    exactly = [Evidence(what % ("sphere", 2, P), exact(_ratio(P)), formula(2, P), smaller) for P in (1, 2, 3)]
    gap = max(abs(_ratio(P) / formula(2, P) - 1) for P in (1, 2, 3))
    return Finding(
        evidence=(
            *exactly,
            Evidence("largest relative deviation from (d + P - 1)/(d + P + 1), d = 2", exact(gap), 0.0, ROUNDING),
            drawn("sphere", 10, 1, 100_000),
            drawn("sphere", 10, 5, 50_000),
        ),
        controls=(
            Control("sphere -> gaussian", "fails", drawn("gaussian", 10, 5, 50_000)),
            Control("d = 10 -> 1000: the laws cannot be told apart", "fails", drawn("sphere", 1000, 5, 4_000)),
        ),
        needed="more rounds: the interval's width falls as their square root",
    )


# The best step


def decreases(problem: Quadratics, P: int, mu: float, etas: NDArray) -> NDArray[np.float64]:
    """E f(x+) - f(x) after one round at every eta, exact: shape (len(etas),)."""
    rule = rule_for("gaussian", len(H), P)
    method = OracleH(lr=torch.from_numpy(etas)[:, None], mu=mu, perturbations=P, h=problem.point(H), eps=0.0)
    federation = federation_over(rule, problem, method, grid=(len(etas),))
    S, b = problem.hessians.mean(0), problem.linear.mean(0)

    def f(x: NDArray) -> NDArray:
        return np.einsum("...i,ij,...j->...", x, S, x) / 2 + x @ b

    before = f(problem.start)
    federation.round()
    after = f(joined(federation.state.x, federation.problem.layout).numpy())
    return after @ rule.weights - before


@check("greedy")
def greedy() -> Finding:
    """E f(x+) - f(x) against -eta g'Cg + eta^2/2 E |dx|_S^2, and where it is smallest."""
    P, mu = 2, 0.3
    Ss = np.stack([hessian(3, 1), hessian(3, 2)])
    random = Quadratics.random(3, 3, 2)
    problem = Quadratics(Ss, random.linear, random.start)
    g, S = problem.gradients.mean(0), Ss.mean(0)
    slope = g / H @ g

    def errors(size: float) -> tuple[float, float]:
        """Deviation of the decrease over a grid of rates, and of its minimum, from what E |dx|_S^2 = size would give."""
        best = slope / size
        etas = best * np.array([0.25, 0.5, 1.0, 1.5, 2.0])
        found = decreases(problem, P, mu, etas)
        a, b, _ = np.polyfit(etas, found, 2)
        return deviation(found, -etas * slope + etas**2 / 2 * size), abs(-b / (2 * a) / best - 1)

    M = moments.second_moment(g, 1 / H, S, mu, P)
    size = float((S * M).sum())
    smooth = float(np.linalg.eigvalsh(S)[-1] * np.trace(M))
    without = float((S * moments.second_moment(g, 1 / H, S, 0.0, P)).sum())
    curve, best = errors(size)
    where = "relative distance of the best eta from g'Cg / %s"
    return Finding(
        evidence=(
            Evidence(where % "E |dx|_S^2", exact(best), 0.0, (0.0, 1e-9)),
            Evidence("relative deviation of E f(x+) - f from -eta g'Cg + eta^2/2 E |dx|_S^2", exact(curve), 0.0, ROUNDING),
        ),
        controls=(
            Control(
                "E |dx|_S^2 -> L E |dx|^2, the smoothness bound",
                "fails",
                Evidence(where % "(L E |dx|^2)", exact(errors(smooth)[1]), smooth / size - 1, (0.0, 1e-9)),
            ),
            Control(
                "E |dx|_S^2 -> its value at mu = 0",
                "fails",
                Evidence(where % "E |dx|_S^2 at mu = 0", exact(errors(without)[1]), 1 - without / size, (0.0, 1e-9)),
            ),
        ),
    )
