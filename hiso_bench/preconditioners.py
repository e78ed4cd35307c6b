"""The diagonal H: how it is learned from the steps that everyone sees, and what controls may put in its place.

The paper prints several versions of the update and the official code has three more. They are points on three axes:

- which local steps are used: `first`, `last`, `each` (in order);
- over clients: `square_of_mean` (computable from the averaged scalars) or `mean_of_squares` (needs every client's scalars);
- over perturbations: `mean_then_square`, or `sequential` (one EMA step per perturbation);

and one quirk: whether z is regenerated from the H that is being changed (`moving`) or kept as it was used (frozen).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from hiso_bench import keys
from hiso_bench.points import Layout, Point, Value, flat

HStep = Literal["first", "last", "each"]
HClients = Literal["square_of_mean", "mean_of_squares"]
HPerturbations = Literal["mean_then_square", "sequential"]
Control = Literal["none", "mean", "shuffle", "shuffle_leaf", "leaf_mean"]


@dataclass(frozen=True)
class Ema:
    """H <- (1 - ema_new) H + ema_new (square + eps), then clipped to [clip_low, clip_high].

    `ema_new` is the weight of the NEW sample: the paper's nu in its printed formula, one minus the official code's
    `hessian_smooth`.
    """

    ema_new: Value
    eps: Value
    clip_low: float
    clip_high: float

    def update(self, layout: Layout, h: Point, directions: Sequence[Point]) -> None:
        """Move h in place towards the mean over `directions` of their squares; the directions are overwritten."""
        total, *others = directions
        for i, leaf in enumerate(h):
            square = total[i].square_()
            for other in others:
                square.addcmul_(other[i], other[i])
            if others:
                square.div_(len(directions))
            square.add_(layout.over_leaf(self.eps, i))
            weight = layout.over_leaf(self.ema_new, i)
            leaf.lerp_(square, weight.to(leaf) if isinstance(weight, Tensor) else weight)
            if self.clip_low > 0 or self.clip_high < float("inf"):
                leaf.clamp_(self.clip_low, self.clip_high)


def controlled(h: Point, layout: Layout, control: str, key: int) -> Point:
    """The H that a control puts in the learned one's place; the same size of step with some of the structure removed.

    Args:
        h: the learned H.
        layout: of h.
        control: "none"; "mean": one number per replicate; "leaf_mean": one number per leaf; "shuffle": h permuted over all
            coordinates; "shuffle_leaf": permuted within each leaf. A permutation is the same for all replicates. It must
            be drawn anew for every round: a fixed one gives some coordinates, for good, an H that does not answer to
            their own steps, which is no neutral control but a mismatch that can diverge.
        key: the 64-bit key of this round's permutation.

    Returns:
        A point whose leaves broadcast to those of h (means are not expanded).
    """
    axes = len(layout.replicate_shape)
    if control == "none":
        return h
    if control == "leaf_mean":
        return tuple(_mean([leaf], axes).to(leaf.dtype).reshape(layout.replicate_shape + (1,) * (leaf.ndim - axes)) for leaf in h)
    if control == "mean":
        mean = _mean(list(h), axes)
        return tuple(mean.to(leaf.dtype).reshape(layout.replicate_shape + (1,) * (leaf.ndim - axes)) for leaf in h)
    parts = [flat(leaf, axes) for leaf in h]
    if control == "shuffle_leaf":
        mixed = [part[..., _permutation(key, i, part.shape[-1])] for i, part in enumerate(parts)]
    else:
        joined = torch.cat(parts, -1)
        mixed = list(joined[..., _permutation(key, -1, joined.shape[-1])].split([part.shape[-1] for part in parts], -1))
    return tuple(part.reshape(leaf.shape) for part, leaf in zip(mixed, h, strict=True))


def _mean(leaves: list[Tensor], axes: int) -> Tensor:
    count = sum(leaf[(0,) * axes].numel() for leaf in leaves)
    return torch.stack([flat(leaf.double(), axes).sum(-1) for leaf in leaves]).sum(0) / count


def _permutation(key: int, leaf: int, size: int) -> Tensor:
    return torch.from_numpy(keys.rng(keys.derive(key, "leaf", leaf=leaf)).permutation(size))
