"""A control: HiSo's step with an H that knows nothing, drawn once from a log-normal law."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from hiso_bench import keys
from hiso_bench.methods import register
from hiso_bench.methods.base import Method, require
from hiso_bench.methods.hiso import whiten
from hiso_bench.points import Layout, Point
from hiso_bench.state import State, Warp


@dataclass(frozen=True, kw_only=True)
class LogNormalH(Method):
    """H = exp(spread N(0, 1)) in every coordinate and replicate, drawn once from a key and never learned.

    | | per round |
    |-|-|
    | scalars | P up, P down |
    | forwards | P + 1 (forward), 2 P (central) |
    | state beside x | d numbers |

    Attributes:
        spread: standard deviation of log H; 0.2 is about the noise of a learned H at ema_new = 0.05.
        h_key: 64-bit key of H.
    """

    spread: float = 1.0
    h_key: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        require(0 <= self.spread < math.inf, "spread", self.spread, "a finite number >= 0")
        require(0 <= self.h_key < 2**64, "h_key", self.h_key, "0 <= key < 2**64")

    def init(self, x: Point, layout: Layout) -> State:
        """X and H, a leaf at a time."""
        state = super().init(x, layout)
        draws = [
            keys.rng(keys.derive(self.h_key, "log-normal h", leaf=i)).standard_normal(leaf.shape) for i, leaf in enumerate(x)
        ]
        state.buffers["h"] = tuple(torch.as_tensor(d).to(leaf).mul_(self.spread).exp_() for d, leaf in zip(draws, x, strict=True))
        return state

    def warp(self, state: State) -> Warp:
        """U -> H^{-1/2} u."""
        return lambda u: tuple(map(whiten, u, state.buffers["h"]))


register("hiso-lognormal", LogNormalH)
