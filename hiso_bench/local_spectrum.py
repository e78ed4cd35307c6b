"""What is known of the eigenvalues of a loss at a point: all of them where they are few, else sums with intervals."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from hiso_bench import estimates
from hiso_bench.curvature import Curvature, differentiable
from hiso_bench.losses import Batch
from hiso_bench.points import Point
from hiso_bench.problems import Problem
from hiso_bench.stats import Interval, exact, mean_interval
from hiso_bench.theory.stability import max_stable_step, stable_step_from_sums

NEGATIVE = 0.005
"""The share of negative curvature from which on it is told, and counted as positive."""
_EXACT = 256
_PRODUCTS, _STEPS, _STARTS = 60, 20, 6


class Spectrum(NamedTuple):
    """What is known of the eigenvalues of Xi."""

    trace: Interval
    top: Interval
    negative: float
    eigenvalues: np.ndarray | None
    squares: float

    def limit(self, P: int, law: str, momentum: float, d: int) -> Interval:
        """eta*; the interval holds what estimated sums leave open."""
        if self.eigenvalues is not None:
            return exact(max_stable_step(np.abs(self.eigenvalues), 1.0, P, law, momentum))

        def bounds(T: float, L: float, squares: float) -> tuple[float, float]:
            T = max(T, L)
            return stable_step_from_sums(T, L, min(max(squares, L**2), T * L), d, P, law, momentum)

        (T, low_T, high_T), (L, low_L, high_L) = self.trace, self.top
        value = bounds(T, L, self.squares)[0]
        low = min(value, bounds(high_T, high_L, high_T * high_L)[0])
        # The upper bound falls with sum lambda^2, which is no less than L^2.
        return Interval(value, low, max(value, bounds(low_T, low_L, low_L**2)[1]))


def spectrum_of(local: Curvature, h: Tensor, draw: np.random.Generator) -> Spectrum:
    """The eigenvalues of Xi = H^{-1/2} S H^{-1/2}: exactly up to d = 256, else by Hutch++ and Lanczos.

    Args:
        local: the loss around a point.
        h: diagonal of H, (d,), positive.
        draw: of the probes.

    Raises:
        ValueError: no eigenvalue is positive.

    Cost: d Hessian-vector products up to d = 256, else about 180, and 400 d numbers.
    """
    d, product = local.dimension, estimates.whitened(local.product, h)
    if d <= _EXACT:
        root = h.rsqrt()
        values = torch.linalg.eigvalsh(root[:, None] * local.hessian.double() * root).numpy()
        size, top = float(np.abs(values).sum()), float(values.max())
        _require_positive(top)
        negative = float(-values[values < 0].sum())
        return Spectrum(exact(size), exact(max(top, -float(values.min()))), negative / size, values, 0.0)
    ritz = [estimates.lanczos(product, d, _STEPS, draw) for _ in range(_STARTS)]
    sums = lambda f: [d * float((run.weights * f(run.values)).sum()) for run in ritz]  # noqa: E731
    _require_positive(max(float(run.values[-1]) for run in ritz))
    value, error = max((float(run.values[i].abs()), float(run.residuals[i])) for run in ritz for i in (0, -1))
    top = Interval(value, value, value + error)
    trace, size = trace_of(product, d, draw), mean_interval(sums(torch.abs))
    negative = float(np.mean(sums(lambda v: v.clamp(max=0).abs()))) / size.value
    if negative > NEGATIVE:  # the trace is not the sum of absolute values, which has Lanczos' quadrature alone
        trace = Interval(size.value, max(size.low, trace.low), size.high)
    trace = Interval(*(max(value, top.value) for value in trace))
    return Spectrum(trace, top, negative, None, float(np.mean(sums(torch.square))))


def trace_of(product: estimates.Product, d: int, draw: np.random.Generator) -> Interval:
    """The trace of a symmetric matrix from products with it: exactly up to d = 256, else by Hutch++."""
    if d <= _EXACT:
        return exact(sum(float(product(e)[i]) for i, e in enumerate(torch.eye(d, dtype=torch.float64))))
    return estimates.hutch_pp(product, d, _PRODUCTS, draw)


def _require_positive(top: float) -> None:
    if not top > 0:
        raise ValueError(f"the loss has no positive curvature at the initial point (its largest eigenvalue is {top:.3g})")


def curvature_of(problem: Problem, x: Point, batches: list[Batch]) -> Curvature:
    """The mean loss over some batches, around x.

    Raises:
        ValueError: torch cannot differentiate it twice.
        NotFiniteError: it is not finite there.
    """
    parts = [differentiable(problem.loss, batch) for batch in batches]
    try:
        local = Curvature(lambda at: torch.stack([part(at) for part in parts]).mean(), x)
        local.product(torch.ones(local.dimension, dtype=torch.float64))
    except RuntimeError as error:
        raise ValueError(f"the loss cannot be differentiated twice by torch ({error}); suggest_lr needs its curvature") from error
    return local
