"""LOZO (arXiv 2410.07698) and SubZero (arXiv 2410.08989): directions of low rank for matrices.

A leaf with two axes or more is a matrix of m rows (its first axis) and n columns. z has E vec(z) vec(z)' = I in both, so the
estimate s z is unbiased; where m or n is at most the rank, and for vectors, z is an ordinary Gaussian direction.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from hiso_bench.directions import DirectionKey, Directions
from hiso_bench.methods import register
from hiso_bench.methods.base import Method, require
from hiso_bench.points import Layout, Point


@dataclass(frozen=True, kw_only=True)
class LowRank(Method, ABC):
    """The plain step along directions that are built from smaller random factors.

    Attributes:
        rank: r, of a low-rank direction of a matrix.
        window: rounds for which the factors that are kept stay the same.
    """

    laws = ("gaussian",)

    rank: int = 2
    window: int = 50

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.rank >= 1, "rank", self.rank, ">= 1")
        require(self.window >= 1, "window", self.window, ">= 1")

    def directions(self, layout: Layout, make: Callable[[Layout], Directions]) -> Directions:
        """Products of factors whose coordinates come from `make`."""
        return Products(self, layout, make)

    @abstractmethod
    def factors(self, m: int, n: int) -> tuple[tuple[int, int], ...]:
        """Shapes of the factors of an m x n matrix."""

    @abstractmethod
    def product(self, fresh: list[Tensor], kept: list[Tensor], m: int, n: int) -> Tensor:
        """The m x n matrix of Gaussian factors, some of this key and some of the first round of its window."""


class Lozo(LowRank):
    """z = U V' / sqrt(r), U (m x r) drawn every time and V (n x r) kept for a window.

    E|s z|^2 = (mn + 2 (m + n + 1) / r + 2) |G|^2 for a matrix with gradient G: above the mn + 2 of a full Gaussian direction.
    """

    def factors(self, m: int, n: int) -> tuple[tuple[int, int], ...]:
        """U and V."""
        return (m, self.rank), (n, self.rank)

    def product(self, fresh: list[Tensor], kept: list[Tensor], m: int, n: int) -> Tensor:
        """U V' / sqrt(r)."""
        return fresh[0] @ kept[1].mT / math.sqrt(self.rank)


class SubZero(LowRank):
    """z = (sqrt(mn) / r) U Z V', Z (r x r) drawn every time, U and V with orthonormal columns kept for a window.

    Over the subspaces E|s z|^2 = mn (1 + 2 / r^2) |G|^2: above the mn + 2 of a full Gaussian direction, as r^2 < mn. Within one
    subspace the estimate is biased: it sees the part of G that lies there.
    """

    def factors(self, m: int, n: int) -> tuple[tuple[int, int], ...]:
        """What U and V are made from, and Z."""
        return (m, self.rank), (n, self.rank), (self.rank, self.rank)

    def product(self, fresh: list[Tensor], kept: list[Tensor], m: int, n: int) -> Tensor:
        """U and V from QR factorisations in float64."""
        u, v = (torch.linalg.qr(kept[i].double())[0].to(kept[i]) for i in (0, 1))
        return u @ fresh[2] @ v.mT * (math.sqrt(m * n) / self.rank)


class Products(Directions):
    """Directions that a `LowRank` method makes from factors; other leaves are drawn whole.

    Args:
        method: how factors become a matrix.
        layout: of a point.
        make: gives independent Gaussian coordinates of any layout.
    """

    def __init__(self, method: LowRank, layout: Layout, make: Callable[[Layout], Directions]) -> None:
        self._method = method
        self._shapes = [(shape[0], math.prod(shape[1:])) if len(shape) > 1 else (0, 0) for shape in layout.leaf_shapes]
        parts = [
            method.factors(m, n) if min(m, n) > method.rank else (shape,)
            for (m, n), shape in zip(self._shapes, layout.leaf_shapes, strict=True)
        ]
        self._counts = [len(part) for part in parts]
        self._factors = source = make(Layout(tuple(shape for part in parts for shape in part), layout.replicate_shape))
        super().__init__(layout, source.root, source.law, source.dtype, source.device, source.cache_bytes)

    def draw(self, key: DirectionKey, out: Point | None = None) -> Point:
        """Return z for `key`. Cost: (m + n) r random numbers a matrix instead of mn, twice within a window, and the products."""
        out = self.layout.empty(self.dtype, self.device) if out is None else out
        first = key._replace(round=key.round - key.round % self._method.window)
        fresh = self._factors.draw(key)
        kept = fresh if first == key else self._factors.draw(first)
        at = 0
        for target, (m, n), count in zip(out, self._shapes, self._counts, strict=True):
            here = slice(at, at + count)
            made = fresh[at] if count == 1 else self._method.product(list(fresh[here]), list(kept[here]), m, n)
            target.copy_(made.reshape(target.shape))
            at += count
        return out


register("lozo", Lozo, perturbations=1, difference="central")
register("subzero", SubZero, perturbations=1, difference="central")
