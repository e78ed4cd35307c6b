"""FedAdagrad, FedYogi and FedAdam (Reddi et al., arXiv 2003.00295, Algorithm 2), and as the official DeComFL code has them.

torch.optim.Adagrad with initial_accumulator_value = v0 and eps = tau is FedAdagrad at beta1 = 0 (a test holds the two
together); it has no momentum. torch.optim.Adam divides both moments by 1 - beta^t, which Algorithm 2 does not do, and torch
has no Yogi. So the three rules stand here, in one place.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, get_args

import torch

from hiso_bench.first_order.base import FirstOrder
from hiso_bench.methods import register
from hiso_bench.methods.base import require
from hiso_bench.points import Layout, Point
from hiso_bench.state import State

Rule = Literal["adagrad", "yogi", "adam"]


@dataclass(frozen=True, kw_only=True)
class FedAdaptive(FirstOrder):
    """m <- beta1 m + (1 - beta1) D, v by the rule, x <- x + lr m / (sqrt(v) + tau).

    adagrad: v + D^2; yogi: v - (1 - beta2) D^2 sign(v - D^2); adam: beta2 v + (1 - beta2) D^2.

    The official DeComFL code (fed_avg/server.py) differs, and is had by the names fedadagrad-code, fedyogi-code, fedadam-code:
    tau = 1e-8 inside the root, v0 = 0, beta1 = 0.9 and beta2 = 0.999 for all three, one rate for server and clients.

    Attributes:
        rule: adagrad, yogi or adam: how an adaptive server averages squares.
        beta1: of an adaptive server's momentum, 0 <= beta1 < 1.
        beta2: of its squares, 0 <= beta2 < 1; adagrad has none.
        tau: degree of adaptivity, > 0.
        tau_inside: sqrt(v + tau) in place of the published sqrt(v) + tau.
        v0: squares before round 0; negative: tau^2, the smallest that Algorithm 2 admits.
        one_rate: clients step by lr too; client_lr is then not given.
    """

    rule: Rule = "adam"
    beta1: float = 0.9
    beta2: float = 0.99
    tau: float = 1e-3
    tau_inside: bool = False
    v0: float = -1.0
    one_rate: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.rule in get_args(Rule), "rule", self.rule, ", ".join(get_args(Rule)))
        require(0 <= self.beta1 < 1, "beta1", self.beta1, "0 <= beta1 < 1")
        require(0 <= self.beta2 < 1, "beta2", self.beta2, "0 <= beta2 < 1")
        require(0 < self.tau < math.inf, "tau", self.tau, "a finite number > 0")
        require(-math.inf < self.v0 < math.inf, "v0", self.v0, "a finite number")
        require(
            not (self.one_rate and self.client_lr), "client_lr", self.client_lr, "none beside one_rate, which takes lr for it"
        )

    @property
    def local_rate(self) -> float:
        """The clients' own, or the server's."""
        return self.lr if self.one_rate else self.client_lr

    def init(self, x: Point, layout: Layout) -> State:
        """X, m = 0, v = v0."""
        state = super().init(x, layout)
        state.buffers["m"] = tuple(torch.zeros_like(leaf) for leaf in x)
        start = self.tau**2 if self.v0 < 0 else self.v0
        state.buffers["v"] = tuple(torch.full_like(leaf, start) for leaf in x)
        return state

    def serve(self, state: State, change: Point) -> None:
        """Moments, then x."""
        for x, m, v, d in zip(state.x, state.buffers["m"], state.buffers["v"], change, strict=True):
            m.mul_(self.beta1).add_(d, alpha=1 - self.beta1)
            square = d.square()
            if self.rule == "adagrad":
                v.add_(square)
            elif self.rule == "yogi":
                v.addcmul_(square, (v - square).sign(), value=self.beta2 - 1)
            else:
                v.mul_(self.beta2).add_(square, alpha=1 - self.beta2)
            scale = (v + self.tau).sqrt_() if self.tau_inside else v.sqrt().add_(self.tau)
            x.addcdiv_(m, scale, value=self.lr)


_CODE = {"tau_inside": True, "tau": 1e-8, "v0": 0.0, "beta2": 0.999, "one_rate": True}
for _rule in get_args(Rule):
    register(f"fed{_rule}", FedAdaptive, rule=_rule, **{"beta1": 0.0} if _rule == "adagrad" else {})
    register(f"fed{_rule}-code", FedAdaptive, rule=_rule, **_CODE)
