"""Curvature of models too large for their Hessian, from products with it: diagonal, trace, extreme eigenvalues, density.

Every estimate carries its error. Random probes are Rademacher (Hutchinson 1990): of all laws with independent entries they have
the least variance, 2 (|A|_F^2 - |diag A|^2) for a trace, none at all for a diagonal matrix. Hutch++ (Meyer et al. 2021) takes the
trace on a sketched subspace exactly and probes only the rest. Lanczos is run with full reorthogonalisation.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from hiso_bench.curvature import NotFiniteError
from hiso_bench.methods.base import require
from hiso_bench.stats import LEVEL, Interval, mean_interval

Product = Callable[[Tensor], Tensor]
"""v -> A v for a symmetric A, (d,) to (d,)."""


class Diagonal(NamedTuple):
    """An estimated diagonal."""

    mean: Tensor
    """(d,), float64."""
    error: Tensor
    """Its standard error, coordinate by coordinate, (d,)."""


class Lanczos(NamedTuple):
    """Ritz values of one Krylov space."""

    values: Tensor
    """Ascending, float64."""
    weights: Tensor
    """Squared first components, which sum to one: with the values, a quadrature of the spectral measure of the start vector."""
    residuals: Tensor
    """|A y - theta y| of each Ritz pair: A has an eigenvalue within this distance of theta."""


def whitened(product: Product, h: Tensor) -> Product:
    """Products with Xi = H^{-1/2} A H^{-1/2} for a diagonal H, (d,): its trace is zeta, its top eigenvalue the largest step's."""
    root = h.rsqrt()
    return lambda v: root * product(root * v)


def diagonal(product: Product, d: int, probes: int, rng: np.random.Generator) -> Diagonal:
    """Hutchinson's diagonal, the mean of v * Av (Bekas et al. 2007).

    Raises:
        ValueError: fewer than two probes.
    """
    require(probes >= 2, "probes", probes, ">= 2")
    found = torch.stack([v * _of(product, v) for v in _probes(d, probes, rng)])
    return Diagonal(found.mean(0), found.std(0, unbiased=True) / probes**0.5)


def trace(product: Product, d: int, probes: int, rng: np.random.Generator, level: float = LEVEL) -> Interval:
    """Hutchinson's trace, with Student's interval over probes.

    Raises:
        ValueError: fewer than two probes.
    """
    require(probes >= 2, "probes", probes, ">= 2")
    return mean_interval([float(v @ _of(product, v)) for v in _probes(d, probes, rng)], level)


def hutch_pp(product: Product, d: int, products: int, rng: np.random.Generator, level: float = LEVEL) -> Interval:
    """Hutch++: a third of the products sketch the range, a third take the trace on it, a third probe the rest.

    Given the sketch the probes of the rest are independent, so their interval is that of the trace.

    Args:
        product: with a symmetric matrix.
        d: its size.
        products: to spend, >= 6.
        rng: of the probes.
        level: of the interval.

    Raises:
        ValueError: fewer than six products.
    """
    require(products >= 6, "products", products, ">= 6")
    third = products // 3
    Q = torch.linalg.qr(torch.stack([_of(product, v) for v in _probes(d, min(third, d), rng)], 1))[0]
    exact = sum(float(q @ _of(product, q)) for q in Q.T)
    if Q.shape[1] == d:
        return Interval(exact, exact, exact)
    rest = [v - Q @ (Q.T @ v) for v in _probes(d, third, rng)]
    found = mean_interval([float(v @ _of(product, v)) for v in rest], level)
    return Interval(*(exact + value for value in found))


def lanczos(product: Product, d: int, steps: int, rng: np.random.Generator) -> Lanczos:
    """Ritz values of the Krylov space of a Gaussian start vector.

    The largest one approaches the top eigenvalue from below. Cost: `steps` products, and steps^2 d to keep the basis orthogonal.

    Raises:
        ValueError: fewer than one step.
    """
    require(steps >= 1, "steps", steps, ">= 1")
    q = torch.from_numpy(rng.standard_normal(d))
    basis, on, off = [q / q.norm()], [], []
    for _ in range(min(steps, d)):
        w = _of(product, basis[-1])
        on.append(float(basis[-1] @ w))
        Q = torch.stack(basis, 1)
        for _ in range(2):  # twice is enough (Parlett)
            w = w - Q @ (Q.T @ w)
        off.append(float(w.norm()))
        if off[-1] <= 1e-12 * max(map(abs, (*on, *off))):  # the space is invariant: its Ritz values are eigenvalues
            off[-1] = 0.0
            break
        basis.append(w / off[-1])
    T = torch.diag(torch.tensor(on, dtype=torch.float64))
    if len(on) > 1:
        side = torch.tensor(off[: len(on) - 1], dtype=torch.float64)
        T += torch.diag(side, 1) + torch.diag(side, -1)
    values, vectors = torch.linalg.eigh(T)
    return Lanczos(values, vectors[0].square(), (off[-1] * vectors[-1]).abs())


def top_eigenvalue(product: Product, d: int, steps: int, rng: np.random.Generator) -> Interval:
    """The algebraically largest eigenvalue: the top Ritz value, which never exceeds it, and that plus its residual.

    The upper end holds where the Ritz value belongs to the top eigenvalue, as it does unless the start vector happens to miss it.
    """
    found = lanczos(product, d, steps, rng)
    value = float(found.values[-1])
    return Interval(value, value, value + float(found.residuals[-1]))


def spectral_density(product: Product, d: int, steps: int, probes: int, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    """Stochastic Lanczos quadrature: nodes and weights, (n,) each, of the density of eigenvalues; the weights sum to one.

    The mean of any smooth function of the eigenvalues is about its weighted sum over the nodes (Ubaru et al. 2017).

    Raises:
        ValueError: fewer than one probe or step.
    """
    require(probes >= 1, "probes", probes, ">= 1")
    runs = [lanczos(product, d, steps, rng) for _ in range(probes)]
    return torch.cat([run.values for run in runs]), torch.cat([run.weights for run in runs]) / probes


def _probes(d: int, count: int, rng: np.random.Generator) -> list[Tensor]:
    return [torch.from_numpy(2.0 * rng.integers(0, 2, d) - 1.0) for _ in range(count)]


def _of(product: Product, v: Tensor) -> Tensor:
    out = product(v).double()
    if not bool(torch.isfinite(out).all()):
        raise NotFiniteError("a product is not finite")
    return out
