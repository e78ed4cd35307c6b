"""Exact derivatives of a torch loss at a point: gradient, Hessian-vector products, the Hessian and its diagonals.

One object holds the graph of the gradient, so that a Hessian-vector product (Pearlmutter 1994) is one backward pass,

    Sigma v = d/dx <grad f(x), v>,

and the Hessian is d of them. Coordinates are those of the point's leaves, flattened one after the other. Everything here is exact
to rounding (use a point in float64), for d up to some thousands; for larger models see `hiso_bench.estimates`.

Written here and not taken from curvlinops, whose operators need a module with its own parameters (a point of this project is not
one) and whose dependency backpack brings torchvision, which breaks transformers beside a CPU build of torch.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterable, Iterator

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from hiso_bench.losses import Batch, Loss, ModuleLoss
from hiso_bench.points import Layout, Point

_CHUNK = 64


class NotFiniteError(FloatingPointError):
    """A loss, a gradient or a curvature is NaN or infinite."""


def double(point: Point) -> Point:
    """The point in float64, detached; shares memory where it is float64 already."""
    return tuple(leaf.detach().double() for leaf in point)


def flatten(point: Point) -> Tensor:
    """Leaves of a point without replicate axes as one vector (d,)."""
    return torch.cat([leaf.reshape(-1) for leaf in point])


def unflatten(vector: Tensor, layout: Layout) -> Point:
    """The leaves of one vector (d,): the inverse of `flatten`."""
    sizes = [math.prod(shape) for shape in layout.leaf_shapes]
    return tuple(part.reshape(shape) for part, shape in zip(vector.split(sizes), layout.leaf_shapes, strict=True))


def differentiable(loss: Loss, batch: Batch) -> Callable[[Point], Tensor]:
    """The loss as a function that autograd can follow; a module loss is evaluated outside its inference mode.

    Floating-point parts of a module's batch follow the dtype of the point.
    """
    if not isinstance(loss, ModuleLoss):
        return lambda x: loss.differentiable(x, batch)

    def value(x: Point) -> Tensor:
        cast = tuple(part.to(x[0].dtype) if part.is_floating_point() else part for part in batch)
        with sdpa_kernel(SDPBackend.MATH):  # the one attention kernel that has second derivatives on a CPU
            return loss.differentiable(x, cast)

    return value


class Curvature:
    """A loss around a point.

    Args:
        f: point -> scalar, twice differentiable; see `differentiable`.
        x: the point, without replicate axes.

    Raises:
        NotFiniteError: the loss or its gradient is not finite there.
        ValueError: f is not a scalar (a point with replicate axes).
    """

    def __init__(self, f: Callable[[Point], Tensor], x: Point) -> None:
        self.layout = Layout.of(x)
        self.x = tuple(leaf.detach().clone().requires_grad_() for leaf in x)
        value = f(self.x)
        if value.ndim:
            raise ValueError(f"the loss has shape {tuple(value.shape)}; curvature needs a point without replicate axes")
        self.value = float(value.detach())
        """f(x)."""
        found = torch.autograd.grad(value, self.x, create_graph=True, allow_unused=True)
        self._graph = flatten(tuple(torch.zeros_like(x) if g is None else g for g, x in zip(found, self.x, strict=True)))
        self.gradient = self._graph.detach()
        """(d,), in the dtype of the point."""
        if not math.isfinite(self.value) or not bool(torch.isfinite(self.gradient).all()):
            raise NotFiniteError(f"the loss is {self.value} and its gradient has norm {float(self.gradient.norm())}")

    @property
    def dimension(self) -> int:
        """The number of coordinates d."""
        return len(self.gradient)

    def product(self, v: Tensor) -> Tensor:
        """Sigma v, (d,). Cost: a backward pass through the gradient.

        Raises:
            NotFiniteError: it is not finite.
        """
        if not self._graph.requires_grad:  # a linear loss
            return torch.zeros_like(v)
        found = torch.autograd.grad(self._graph, self.x, v.to(self.gradient), retain_graph=True, allow_unused=True)
        out = flatten(tuple(torch.zeros_like(x) if g is None else g for g, x in zip(found, self.x, strict=True)))
        if not bool(torch.isfinite(out).all()):
            raise NotFiniteError("a Hessian-vector product is not finite")
        return out

    @functools.cached_property
    def hessian(self) -> Tensor:
        """Sigma, (d, d), made symmetric (its rounding errors are averaged). Cost: d products and d^2 numbers."""
        out = torch.stack([self.product(e) for e in torch.eye(self.dimension, dtype=self.gradient.dtype)])
        return (out + out.T) / 2

    @functools.cached_property
    def eigen(self) -> tuple[Tensor, Tensor]:
        """Eigenvalues, ascending, and eigenvectors as columns. Cost O(d^3)."""
        values, vectors = torch.linalg.eigh(self.hessian)
        return values, vectors

    @property
    def diagonal(self) -> Tensor:
        """Diag Sigma, (d,): may be negative."""
        return self.hessian.diagonal()

    @functools.cached_property
    def absolute(self) -> Tensor:
        """|Sigma|, (d, d), which has the absolute eigenvalues (HiSo's footnote 3 for losses that are not convex)."""
        values, vectors = self.eigen
        return (vectors * values.abs()) @ vectors.T

    @property
    def absolute_diagonal(self) -> Tensor:
        """Diag |Sigma|, (d,)."""
        return self.absolute.diagonal()


def gauss_newton_diagonal(logits: Callable[[Point], Tensor], x: Point, weights: Tensor) -> Tensor:
    """Diag of the generalised Gauss-Newton matrix of a cross-entropy, which is its Fisher information too (labels of the model).

    With logits a_n(x), p_n = softmax(a_n) and row weights w_n,

        G_jj = sum_n w_n [ sum_c p_nc J_ncj^2 - (sum_c p_nc J_ncj)^2 ],    J_ncj = d a_nc / d x_j,

    exact, column by column; never negative. J'u is linear in u, so its derivative along u is a column of J.

    Args:
        logits: point -> (n, classes).
        x: the point, without replicate axes.
        weights: w, (n,), not negative; they sum to one.

    Returns:
        (d,), in the dtype of the point. Cost: d backward passes, in chunks.

    Raises:
        NotFiniteError: an entry is not finite.
    """
    leaves = tuple(leaf.detach().clone().requires_grad_() for leaf in x)
    scores = logits(leaves)
    p = torch.softmax(scores.detach(), -1)
    u = torch.zeros_like(scores, requires_grad=True)
    pulled = flatten(torch.autograd.grad(scores, leaves, u, create_graph=True))
    parts = []
    for rows in _basis(len(pulled), p.dtype):
        J = torch.autograd.grad(pulled, u, rows, retain_graph=True, is_grads_batched=True)[0]
        parts.append(((p * J.square()).sum(-1) - (p * J).sum(-1).square()) @ weights.to(p))
    out = torch.cat(parts)
    if not bool(torch.isfinite(out).all()):
        raise NotFiniteError("an entry of the Gauss-Newton diagonal is not finite")
    return out.clamp_min(0.0)


def empirical_fisher_diagonal(losses: Iterable[Callable[[Point], Tensor]], x: Point) -> Tensor:
    """The mean over examples of squared gradients of their losses, (d,): what second moments of gradients estimate.

    Args:
        losses: point -> scalar, one function per example.
        x: the point, without replicate axes.

    Cost: one gradient per example.
    """
    leaves = tuple(leaf.detach().clone().requires_grad_() for leaf in x)
    total, count = torch.zeros(sum(leaf.numel() for leaf in x), dtype=x[0].dtype), 0
    for loss in losses:
        total += flatten(torch.autograd.grad(loss(leaves), leaves)).square()
        count += 1
    return total / count


def _basis(d: int, dtype: torch.dtype) -> Iterator[Tensor]:
    """The unit vectors, (up to `_CHUNK`, d) at a time."""
    for start in range(0, d, _CHUNK):
        rows = torch.zeros(min(_CHUNK, d - start), d, dtype=dtype)
        rows[torch.arange(len(rows)), torch.arange(start, start + len(rows))] = 1.0
        yield rows
