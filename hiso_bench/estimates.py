"""Curvature of models too large for their Hessian, from products with it: trace, and eigenvalues by Lanczos.

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


def _probes(d: int, count: int, rng: np.random.Generator) -> list[Tensor]:
    return [torch.from_numpy(2.0 * rng.integers(0, 2, d) - 1.0) for _ in range(count)]


def _of(product: Product, v: Tensor) -> Tensor:
    out = product(v).double()
    if not bool(torch.isfinite(out).all()):
        raise NotFiniteError("a product is not finite")
    return out
