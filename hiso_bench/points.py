"""Points: a model's parameters as a tuple of tensors, with optional replicate axes in front of every leaf.

A *replicate* is an independent copy of the whole optimisation (another key, another learning rate). Every leaf has shape
`replicate_shape + leaf_shape`, so a grid of rates times keys is one call, and a large model is the case with no replicate axis.
Any hyper-parameter may carry the replicate axes too; `Layout.over_leaf` lines it up with a leaf.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

Point = tuple[Tensor, ...]
"""Leaves of one dtype and device, in a fixed order."""

Value = float | Tensor
"""A hyper-parameter or scalar: a number, or a tensor that broadcasts to the replicate shape."""


@dataclass(frozen=True)
class Layout:
    """The shape of a point: `leaf_shapes` per leaf, and the `replicate_shape` that stands in front of each of them."""

    leaf_shapes: tuple[tuple[int, ...], ...]
    replicate_shape: tuple[int, ...] = ()

    @classmethod
    def of(cls, point: Iterable[Tensor], replicate_axes: int = 0) -> Layout:
        """Read the layout off a point whose first `replicate_axes` axes are replicate axes."""
        leaves = tuple(point)
        replicate_shape = tuple(leaves[0].shape[:replicate_axes])
        if any(tuple(leaf.shape[:replicate_axes]) != replicate_shape for leaf in leaves):
            raise ValueError("all leaves of a point must have the same replicate axes")
        return cls(tuple(tuple(leaf.shape[replicate_axes:]) for leaf in leaves), replicate_shape)

    @property
    def dimension(self) -> int:
        """The number d of coordinates of one replicate."""
        return sum(math.prod(shape) for shape in self.leaf_shapes)

    @property
    def numel(self) -> int:
        """The number of stored values: d times the number of replicates."""
        return self.dimension * math.prod(self.replicate_shape)

    def shape(self, leaf: int) -> tuple[int, ...]:
        """The stored shape of a leaf, replicate axes included."""
        return self.replicate_shape + self.leaf_shapes[leaf]

    def empty(self, dtype: torch.dtype, device: torch.device | str = "cpu") -> Point:
        """An uninitialised point."""
        return tuple(torch.empty(self.shape(i), dtype=dtype, device=device) for i in range(len(self.leaf_shapes)))

    def over_leaf(self, value: Value, leaf: int) -> Value:
        """Line a number or a replicate-shaped tensor up with the axes of a leaf.

        A tensor of a run without replicates becomes a Python float, which keeps the fast scalar path of torch's kernels.
        """
        if not isinstance(value, Tensor):
            return value
        if not self.replicate_shape:
            return float(value)
        trailing = (1,) * len(self.leaf_shapes[leaf])
        return value.expand(self.replicate_shape).reshape(self.replicate_shape + trailing)


def flat(leaf: Tensor, replicate_axes: int) -> Tensor:
    """A leaf as (*replicate_shape, coordinates); a scalar leaf has one coordinate."""
    return leaf.reshape((*leaf.shape[:replicate_axes], -1))


def clone(point: Point) -> Point:
    """A copy that shares no memory with `point`."""
    return tuple(leaf.clone() for leaf in point)


def add_scaled(layout: Layout, x: Point, z: Point, scale: Value, out: Point) -> Point:
    """Write x + scale * z into `out` (which may be `x` itself); one pass, no temporary."""
    for i, (a, b, target) in enumerate(zip(x, z, out, strict=True)):
        factor = layout.over_leaf(scale, i)
        if isinstance(factor, Tensor):
            torch.addcmul(a, b, factor.to(a), out=target)
        else:
            torch.add(a, b, alpha=factor, out=target)
    return out


def scale_into(layout: Layout, z: Point, scale: Value, out: Point) -> Point:
    """Write scale * z into `out`."""
    for i, (b, target) in enumerate(zip(z, out, strict=True)):
        factor = layout.over_leaf(scale, i)
        torch.mul(b, factor.to(b) if isinstance(factor, Tensor) else factor, out=target)
    return out


def joined(x: Point, layout: Layout) -> Tensor:
    """The leaves of a point as one tensor (*replicates, d)."""
    return torch.cat([leaf.reshape((*layout.replicate_shape, -1)) for leaf in x], -1)


def cut(v: Tensor, layout: Layout) -> Point:
    """The leaves of a tensor (..., d), each (..., *leaf_shape)."""
    parts = v.split([math.prod(shape) for shape in layout.leaf_shapes], -1)
    return tuple(part.reshape((*v.shape[:-1], *shape)) for part, shape in zip(parts, layout.leaf_shapes, strict=True))


def fingerprint(points: Iterable[Point]) -> int:
    """A 64-bit integer of the exact bits of `points`, independent of the order in which it is summed.

    Each value's bit pattern is multiplied by an odd weight of its position, and the products are added modulo 2**64: integer
    sums are exact in any order, so the result depends neither on threads nor on vector width. Cost: one pass over the points.
    """
    total, position = 0, 0
    chunk = 1 << 20
    for point in points:
        for leaf in point:
            raw = leaf.detach().cpu().contiguous().reshape(-1).numpy()
            bits = raw.view({2: np.uint16, 4: np.uint32, 8: np.uint64}[raw.dtype.itemsize])
            for start in range(0, bits.size, chunk):
                part = bits[start : start + chunk].astype(np.uint64)
                index = np.arange(position + start, position + start + part.size, dtype=np.uint64)
                # 2**64 / golden ratio spreads neighbouring positions over all bits; `| 1` keeps the weight invertible.
                weight = (index * np.uint64(0x9E3779B97F4A7C15)) | np.uint64(1)
                total += int((part * weight).sum(dtype=np.uint64))
            position += bits.size
    return total % 2**64
