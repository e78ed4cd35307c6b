"""HiSo (arXiv 2506.02370): search directions warped by a learned diagonal H, in all the versions of its update.

z = H^{-1/2} u, scalars s_p along z_p, dx = (1/P) sum_p s_p z_p (Eq 8-10); x moves by dx, then H by an EMA of squares.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import get_args

import torch
from torch import Tensor

from hiso_bench import keys
from hiso_bench.directions import Warped
from hiso_bench.methods.base import Method, Step, non_negative, require, weight
from hiso_bench.points import Layout, Point, Value, clone
from hiso_bench.preconditioners import Control, Ema, HClients, HPerturbations, HStep, controlled
from hiso_bench.state import State, Warp

_BLOCK, _DEVICE_BLOCK = 1 << 20, 1 << 26


@dataclass(frozen=True, kw_only=True)
class HiSo(Method):
    """The learned H. The defaults are H-c: section 4.3's rule, applied to every local step in order after the round.

    Attributes:
        ema_new: weight of the new sample (the official code's nu = 0.95 is ema_new = 0.05).
        eps: floor added to the square (Eq 12).
        h0: the value of H before round 0.
        clip_low: beta_l of assumption A4; 0 switches it off.
        clip_high: beta_u of assumption A4; inf switches it off.
        h_step: which local steps H learns from.
        h_clients: square of the clients' mean, or mean of their squares (then all clients' scalars are sent on).
        h_perturbations: one EMA step for the mean over P, or P steps in sequence.
        h_moving: regenerate z from the H that is being changed (a quirk of the official code).
        control: what stands in H's place when directions are warped; see `preconditioners.controlled`.
        control_key: the key of a control's permutations, one per round.
        freeze_after: H stops learning after this many rounds; negative: never.

    Source: the printed and coded versions are registered as hiso-a ... hiso-f.
    """

    ema_new: Value = 0.05
    eps: Value = 1e-8
    h0: float = 1.0
    clip_low: float = 0.0
    clip_high: float = math.inf
    h_step: HStep = "each"
    h_clients: HClients = "square_of_mean"
    h_perturbations: HPerturbations = "mean_then_square"
    h_moving: bool = False
    control: Control = "none"
    control_key: int = 0
    freeze_after: int = -1

    def __post_init__(self) -> None:
        super().__post_init__()
        require(weight(self.ema_new), "ema_new", self.ema_new, "0 < ema_new <= 1")
        require(non_negative(self.eps), "eps", self.eps, "a finite number >= 0")
        require(0 < self.h0 < math.inf, "h0", self.h0, "a finite number > 0")
        require(0 <= self.clip_low <= self.clip_high, "clip_low", self.clip_low, f"0 <= clip_low <= clip_high = {self.clip_high}")
        for option, kind in (
            ("h_step", HStep),
            ("h_clients", HClients),
            ("h_perturbations", HPerturbations),
            ("control", Control),
        ):
            require(getattr(self, option) in get_args(kind), option, getattr(self, option), ", ".join(get_args(kind)))

    def init(self, x: Point, layout: Layout) -> State:
        """X and H = h0."""
        state = super().init(x, layout)
        state.buffers["h"] = tuple(torch.full_like(leaf, self.h0) for leaf in x)
        return state

    def warp(self, state: State) -> Warp:
        """U -> H^{-1/2} u, with the H that the state holds when it is called; no copy of H is kept."""
        key = keys.derive(self.control_key, "shuffle", round=state.round)
        h = controlled(state.buffers["h"], state.layout, self.control, key)
        return lambda u: tuple(map(whiten, u, h))

    def combine(self, scalars: Tensor) -> Tensor:
        """The mean over clients; all of them where H needs the mean of squares."""
        return scalars if self.h_clients == "mean_of_squares" else super().combine(scalars)

    def learn(self, state: State, steps: Sequence[Step], z: Warped, dx: Point) -> None:
        """H <- EMA of the squares of the chosen steps.

        Cost: one pass over z per direction, none if `dx` is that very step; a copy of H where it moves more than once.
        """
        if 0 <= self.freeze_after <= state.round:
            return
        ema = Ema(self.ema_new, self.eps, self.clip_low, self.clip_high)
        chosen = {"first": steps[:1], "last": steps[-1:], "each": steps}[self.h_step]
        if not self.h_moving and len(chosen) * (len(chosen[0].keys[0]) if self.h_perturbations == "sequential" else 1) > 1:
            # A z that is drawn again after H's first move is still the z of the round.
            z.warp = self.warp(State(state.layout, state.x, state.buffers | {"h": clone(state.buffers["h"])}, state.round))
        for step in chosen:
            for group in step.perturbations() if self.h_perturbations == "sequential" else [step]:
                parts = group.rows() if self.h_clients == "mean_of_squares" else [group]
                if parts[0] is step and len(steps) == 1 and not self.h_moving:
                    ema.update(state.layout, state.buffers["h"], [dx])  # dx is this very direction: nothing to recompute
                    continue
                used = Warped(z.directions, self.warp(state), cache_bytes=0) if self.h_moving else z
                outs = [dx, *(tuple(torch.empty_like(leaf) for leaf in dx) for _ in parts[1:])]
                roots = [self.direction(part, state.layout, used, out) for part, out in zip(parts, outs, strict=True)]
                ema.update(state.layout, state.buffers["h"], roots)
                if self.h_moving:
                    used.close()


@dataclass(frozen=True, kw_only=True)
class OracleH(Method):
    """HiSo's step with an H that is given from outside and never learned: what perfect knowledge would buy.

    Attributes:
        h: the diagonal of H, shaped like x (without replicate axes), such as the exact diagonal of the Hessian.
            Problems that know
            theirs provide it.
        eps: added to h: H = h + eps (the paper's Diag(Sigma + eps I)).
    """

    h: Point = ()
    eps: Value = 1e-8

    def __post_init__(self) -> None:
        super().__post_init__()
        require(bool(self.h), "h", "(none)", "the problem must provide an oracle H, and this one has none")

    def init(self, x: Point, layout: Layout) -> State:
        """X and H = h + eps.

        Raises:
            ValueError: h + eps is not positive everywhere.
        """
        state = super().init(x, layout)
        state.buffers["h"] = tuple(
            (given.to(leaf) + torch.as_tensor(layout.over_leaf(self.eps, i)).to(leaf)).expand_as(leaf).clone()
            for i, (given, leaf) in enumerate(zip(self.h, x, strict=True))
        )
        require(all(bool((leaf > 0).all()) for leaf in state.buffers["h"]), "h", "+ eps", "positive in every coordinate")
        return state

    def warp(self, state: State) -> Warp:
        """U -> H^{-1/2} u."""
        return lambda u: tuple(map(whiten, u, state.buffers["h"]))


def whiten(u: Tensor, h: Tensor) -> Tensor:
    """U <- h^{-1/2} u, in place; h broadcasts to u. In blocks: fresh memory for a whole embedding costs more than its roots."""
    size = _BLOCK if u.is_cpu else _DEVICE_BLOCK
    if h.shape != u.shape or h.numel() <= size:
        return u.mul_(h.rsqrt())
    for part, of_h in zip(u.view(-1).split(size), h.reshape(-1).split(size), strict=True):
        part.mul_(of_h.rsqrt())
    return u
