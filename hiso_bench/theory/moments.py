"""Exact one-step moments of the scalar-only zeroth-order step on a quadratic.

The step of DeComFL (Alg. 3) and HiSo (Alg. 1) before the learning rate is

    dx = (1/P) sum_p s_p z_p,      z_p = H^{-1/2} w_p,      s_p = [f(x + mu z_p) - f(x)] / mu,

and on a quadratic s_p = z_p.g + (mu/2) z_p' S z_p exactly (the central difference drops the mu term). With
a = C^{1/2} g, B = C^{1/2} S C^{1/2} and t_k = tr B^k the odd moments of w vanish, which leaves

    E dx     = C g,                                                             for every mu,
    E dx dx' = (1 - 1/P) C g g' C + (1/P) C^{1/2} { M4 + (mu^2/4) M6 } C^{1/2},
    M4 = E (w.a)^2 w w',   M6 = E (w'Bw)^2 w w'.

Gaussian, by Isserlis:  M4 = |a|^2 I + 2 a a',   M6 = (t1^2 + 2 t2) I + 4 t1 B + 8 B^2.
Sphere of radius sqrt(d): the same, times the ratio of the radial moments E|w|^4 and E|w|^6 to the Gaussian's,
d/(d+2) and d^2/((d+2)(d+4)).
Rademacher: w_i^2 = 1 removes the diagonals. With off(.) the matrix without its diagonal and B0 = off(B):
M4 = |a|^2 I + 2 off(a a'),   M6 = (t1^2 + 2 |B0|_F^2) I + 4 t1 B0 + 8 off(B0^2).
Between two C^{1/2} no root is left: |a|^2 is tr C g g', a a' becomes C g g' C, B becomes C S C and t_k = tr (C S)^k.

A random gradient with mean g and covariance V, drawn once a step and shared by the P directions, replaces
g g' by g g' + V.

Where S, H and V are diagonal, the diagonal of E dx dx' closes and costs O(d): see the module `diagonal`.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

LAWS = ("gaussian", "sphere", "rademacher")
DIFFERENCES = ("forward", "central")


class Constants(NamedTuple):
    """What a law of w does to the diagonal of the second moment, in the eigenbasis of a diagonal problem.

    diag M4 = k1 a_i^2 + k2 |a|^2, and c6 scales M6 (Rademacher: c6 = 1 and B0 = 0, so M6 = t1^2 I).
    """

    k1: float
    k2: float
    c6: float


def constants(law: str, d: int) -> Constants:
    """Direction constants of a law in dimension d.

    Args:
        law: "gaussian", "sphere" (uniform on the sphere of radius sqrt(d)) or "rademacher".
        d: dimension, zero modes included (the sphere constants depend on it).

    Raises:
        ValueError: for an unknown law or d < 1.
    """
    if d < 1:
        raise ValueError(f"the dimension must be at least 1, got {d}")
    if law == "gaussian":
        return Constants(2.0, 1.0, 1.0)
    if law == "sphere":
        return Constants(2 * d / (d + 2), d / (d + 2), d * d / ((d + 2) * (d + 4)))
    if law == "rademacher":
        return Constants(0.0, 1.0, 1.0)
    raise ValueError(f"unknown law {law!r}: expected one of {LAWS}")


def mean(g: ArrayLike, C: ArrayLike) -> NDArray[np.float64]:
    """E dx = C g, for every law, difference, mu and P.

    Args:
        g: gradient at x, shape (d,).
        C: H^{-1}, symmetric positive definite, shape (d, d), or its diagonal, shape (d,).

    Returns:
        Shape (d,), float64.

    Raises:
        ValueError: where the shapes disagree or C is not symmetric positive definite.
    """
    g = _vector(g)
    return inverse_preconditioner(C, len(g)) @ g


def second_moment(
    g: ArrayLike,
    C: ArrayLike,
    S: ArrayLike,
    mu: float,
    P: int,
    law: str = "gaussian",
    difference: str = "forward",
    noise: ArrayLike | None = None,
) -> NDArray[np.float64]:
    """E dx dx' of one step (module docstring), exact for every mu and P.

    Traces of it are the papers' variance quantities. With M = E dx dx', at H = I and mu = 0:
    tr M = (d+P+1)/P |g|^2 (Gaussian), (d+P-1)/P |g|^2 (sphere), and <S, M> <= (1 + (kappa d + d - 2)/(P (d+2))) L |g|^2
    with kappa = tr S / L on the sphere: the factor of the sphere law, attained by a gradient along the steepest mode.
    For any H, Gaussian, P = 1 and mu = 0, <S, M> <= rho g'Cg with the rho of HiSo's Theorem 1.

    Args:
        g: (mean) gradient at x, shape (d,).
        C: H^{-1}, shape (d, d) or (d,) for a diagonal. Must be diagonal for "rademacher": the law of
            C^{1/2} w then depends on which root is taken.
        S: Hessian, symmetric, not necessarily positive, shape (d, d) or (d,).
        mu: smoothing radius, >= 0 (0 = directional derivative). Not used by the central difference.
        P: directions averaged in the step.
        law: law of w, see `constants`.
        difference: "forward" or "central".
        noise: covariance V of the gradient, shape (d, d) or (d,); one draw shared by the P directions.

    Returns:
        Shape (d, d), symmetric, float64. Cost O(d^3).

    Raises:
        ValueError: for shapes that disagree, an S or V that is not symmetric, a C that is not symmetric
            positive definite (or, for Rademacher, not diagonal), mu < 0, P < 1, an unknown law or difference.
    """
    g = _vector(g)
    d = len(g)
    check_options(mu, P, law, difference)
    C = inverse_preconditioner(C, d, law)
    S = symmetric(S, d, "S")
    G = np.outer(g, g) + (0.0 if noise is None else symmetric(noise, d, "noise"))
    total = gradient_part(G, C, P, law) + curvature_part(S, C, mu, P, law, difference)
    return (total + total.T) / 2  # the products are symmetric up to rounding only


def gradient_part(G: NDArray, C: NDArray, P: int, law: str) -> NDArray[np.float64]:
    """(1 - 1/P) C G C + (1/P) C^{1/2} M4 C^{1/2} for a random gradient with E g g' = G: linear in G, no check of arguments.

    Cost: two products of (d, d) matrices.
    """
    inner = C @ G @ C
    k2 = constants(law, len(C)).k2
    twice = inner - np.diag(np.diag(inner)) if law == "rademacher" else inner
    return (1 - 1 / P) * inner + k2 / P * (np.sum(C * G) * C + 2 * twice)


def curvature_part(S: NDArray, C: NDArray, mu: float, P: int, law: str, difference: str) -> NDArray[np.float64]:
    """(mu^2/4P) C^{1/2} M6 C^{1/2}, what the forward difference adds at any g: quadratic in S, no check of arguments."""
    if difference == "central" or mu == 0:
        return np.zeros_like(C)
    t1 = np.sum(C * S)
    if law == "rademacher":
        S = _off(S)
    once = C @ S @ C
    t2 = np.sum(once * S)
    twice = once @ S @ C
    if law == "rademacher":
        twice = _off(twice)
    return mu**2 / (4 * P) * constants(law, len(C)).c6 * ((t1**2 + 2 * t2) * C + 4 * t1 * once + 8 * twice)


def second_moment_shared(
    gs: Sequence[ArrayLike],
    C: ArrayLike,
    Ss: Sequence[ArrayLike],
    mu: float,
    P: int,
    law: str = "gaussian",
    difference: str = "forward",
) -> NDArray[np.float64]:
    """E dx dx' where m clients measure the SAME directions and the server averages their scalars.

    s is linear in f, so the step is that of the mean function: gradient and Hessian are the clients' means.
    Averaging over clients therefore removes nothing of the direction noise.

    Args:
        gs: the m clients' gradients, each of shape (d,).
        C: H^{-1}, as in `second_moment`.
        Ss: the m clients' Hessians, each of shape (d, d) or (d,).
        mu: as in `second_moment`, and so are P, law and difference.
        P: directions, in total.
        law: law of w.
        difference: "forward" or "central".

    Returns:
        Shape (d, d), float64.

    Raises:
        ValueError: as `second_moment`, and where gs and Ss differ in length or are empty.
    """
    gs, Ss = _clients(gs, Ss)
    return second_moment(np.mean(gs, axis=0), C, np.mean(Ss, axis=0), mu, P, law, difference)


def second_moment_independent(
    gs: Sequence[ArrayLike],
    C: ArrayLike,
    Ss: Sequence[ArrayLike],
    mu: float,
    P: int,
    law: str = "gaussian",
    difference: str = "forward",
) -> NDArray[np.float64]:
    """E dx dx' where each of m clients draws its OWN P directions and dx is the mean of the clients' steps.

    The clients' steps are independent: cov dx = (1/m^2) sum_i cov dx_i. For equal clients this is the second
    moment of m P shared directions.

    Args:
        gs: the m clients' gradients, each of shape (d,).
        C: H^{-1}, as in `second_moment`.
        Ss: the m clients' Hessians, each of shape (d, d) or (d,).
        mu: as in `second_moment`, and so are P, law and difference.
        P: directions per client.
        law: law of w.
        difference: "forward" or "central".

    Returns:
        Shape (d, d), float64. Cost O(m d^3).

    Raises:
        ValueError: as `second_moment`, and where gs and Ss differ in length or are empty.
    """
    gs, Ss = _clients(gs, Ss)
    covariance = 0.0
    for g, S in zip(gs, Ss, strict=True):
        step = mean(g, C)
        covariance = covariance + second_moment(g, C, S, mu, P, law, difference) - np.outer(step, step)
    step = mean(np.mean(gs, axis=0), C)
    return covariance / len(gs) ** 2 + np.outer(step, step)


def check_options(mu: float, P: int, law: str, difference: str) -> None:
    """Raise ValueError for mu < 0 or not finite, P not a whole number >= 1, an unknown law or difference."""
    if not (np.isfinite(mu) and mu >= 0):
        raise ValueError(f"mu must be finite and not negative, got {mu}")
    if P < 1 or P != int(P):
        raise ValueError(f"P must be a whole number of directions >= 1, got {P}")
    if law not in LAWS:
        raise ValueError(f"unknown law {law!r}: expected one of {LAWS}")
    if difference not in DIFFERENCES:
        raise ValueError(f"unknown difference {difference!r}: expected one of {DIFFERENCES}")


def _off(A: NDArray) -> NDArray:
    return A - np.diag(np.diag(A))


def _vector(g: ArrayLike) -> NDArray:
    g = np.asarray(g, dtype=np.float64)
    if g.ndim != 1 or not np.all(np.isfinite(g)):
        raise ValueError(f"a gradient must be a finite vector, got shape {g.shape}")
    return g


def symmetric(A: ArrayLike, d: int, name: str) -> NDArray[np.float64]:
    """A symmetric matrix (d, d) from itself or from its diagonal (d,).

    Raises:
        ValueError: another shape, not finite, not symmetric; the message calls it `name`.
    """
    A = np.asarray(A, dtype=np.float64)
    A = np.diag(A) if A.ndim == 1 else A
    if A.shape != (d, d) or not np.all(np.isfinite(A)):
        raise ValueError(f"{name} must be finite, of shape ({d},) or ({d}, {d}); got {A.shape}")
    if not np.allclose(A, A.T, rtol=1e-12, atol=1e-12 * np.max(np.abs(A))):
        raise ValueError(f"{name} must be symmetric")
    return A


def inverse_preconditioner(C: ArrayLike, d: int, law: str = "gaussian") -> NDArray[np.float64]:
    """C as a (d, d) matrix.

    Raises:
        ValueError: C is not symmetric positive definite; for "rademacher": not diagonal, as the law of C^{1/2} w then
            depends on which root is taken.
    """
    C = symmetric(C, d, "C")
    if np.linalg.eigvalsh(C)[0] <= 0:
        raise ValueError("C = H^{-1} must be positive definite")
    if law == "rademacher" and np.any(_off(C)):
        raise ValueError("Rademacher moments need a diagonal C: they depend on the root of a full matrix")
    return C


def _clients(gs: Sequence[ArrayLike], Ss: Sequence[ArrayLike]) -> tuple[list[NDArray], list[NDArray]]:
    if len(gs) == 0 or len(gs) != len(Ss):
        raise ValueError(f"need one gradient and one Hessian per client, got {len(gs)} and {len(Ss)}")
    vectors = [_vector(g) for g in gs]
    d = len(vectors[0])
    if any(len(g) != d for g in vectors):
        raise ValueError("the clients' gradients differ in length")
    return vectors, [symmetric(S, d, "S") for S in Ss]
