"""The arms of the ablation: HiSo with one ingredient replaced at a time, and the neighbours that it is to be told from.

What HiSo's learned H could be: curvature per coordinate, one number that adapts the step, noise, or what any moving average of
squares does. Each arm keeps all of them but one, or only one. All have DeComFL's scalars except `decomfl-p10`, which is given
twice as many.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from hiso_bench import curvature, methods
from hiso_bench.directions import Warped
from hiso_bench.methods.base import Method, Step
from hiso_bench.methods.hiso import HiSo
from hiso_bench.points import Point, Value
from hiso_bench.preconditioners import Ema
from hiso_bench.problems import Problem
from hiso_bench.state import State
from hiso_bench.sweeps import Arm

P = 5
INFINITE = "hiso-infinite"
"""HiSo whose H learns without sampling noise; no registered method, as no client can know what it needs."""

PLAIN = (
    Arm("decomfl", "decomfl"),
    Arm("decomfl-p10", "decomfl", {"perturbations": 2 * P}),
    Arm("momentum", "decomfl", {"momentum": 0.9}),
)
ADAPTIVE = (Arm("meazo", "meazo"), Arm("zo-rmsprop", "zo-rmsprop"), Arm("hiso-exact-scalar", "hiso-exact-scalar"))
HISO = (Arm("hiso", "hiso"), Arm("hiso-scalar", "hiso-scalar"), Arm("hiso-shuffled", "hiso-shuffled"))
KNOWN = (Arm(INFINITE, INFINITE), Arm("hiso-oracle", "hiso-oracle", {"eps": 0.01}))
"""With knowledge that no client has: the exact gradient in H, the Hessian's diagonal (plus eps of its largest entry) as H."""
LEAVES = (Arm("hiso-shuffled-leaf", "hiso-shuffled-leaf"), Arm("hiso-leaf-mean", "hiso-leaf-mean"))
"""Where the point has several leaves; with one they are `hiso-shuffled` and `hiso-scalar`."""


def quadratic_arms(rounds: int) -> tuple[Arm, ...]:
    """The arms for points of one leaf; the decaying step falls to a fifth of its start in so many rounds."""
    decay = Arm("decomfl-decay", "decomfl", {"lr_decay": 4 / rounds})
    more = (Arm("hiso-frozen", "hiso-frozen"), Arm("hiso-lognormal", "hiso-lognormal"))
    return (*PLAIN, decay, *HISO, *more, *ADAPTIVE, *KNOWN)


@dataclass(frozen=True, kw_only=True)
class InfiniteSignal(HiSo):
    """HiSo whose H learns from E dx^2 of many directions: (g_j / h_j)^2 with the exact gradient g. x moves as in HiSo.

    P -> infinity of Eq 12: the budget of what H can single out is then as large as d. In the stationary state h_j = |g_j|^{2/3}.
    A simulation only: the gradient is no scalar.

    Attributes:
        gradient: x -> gradient of the mean loss, leaf by leaf.
    """

    gradient: Callable[[Point], Sequence[Tensor]] = tuple

    def learn(self, state: State, steps: Sequence[Step], z: Warped, dx: Point) -> None:
        """H <- (1 - ema_new) H + ema_new ((g / H)^2 + eps), with the gradient where the round ended."""
        ratio = tuple(g.to(h) / h for g, h in zip(self.gradient(state.x), state.buffers["h"], strict=True))
        Ema(self.ema_new, self.eps, self.clip_low, self.clip_high).update(state.layout, state.buffers["h"], [ratio])


def build(arm: Arm, lr: Value, problem: Problem, gradient: Callable[[Point], Sequence[Tensor]], oracle: Point) -> Method:
    """The method of an arm.

    Args:
        arm: one of those above.
        lr: learning rate, a number or replicate-shaped.
        problem: what it will run on.
        gradient: x -> gradient of the mean loss; used by the infinite signal alone.
        oracle: the diagonal that the oracle takes for H; the arm's eps is in units of its largest entry.

    Raises:
        ValueError: a method or an option that does not exist.
    """
    given: dict[str, Any] = {"perturbations": P} | dict(arm.options)
    if arm.method == INFINITE:
        return InfiniteSignal(lr=lr, gradient=gradient, **given)
    if arm.method == "hiso-oracle":
        largest = max(float(leaf.max()) for leaf in oracle)
        given |= {"h": oracle, "eps": given["eps"] * largest}
    return methods.build(arm.method, given, lr=lr)


def oracle(problem: Any) -> Point:
    """The Hessian's diagonal where it is constant or known at the minimum; else the Gauss-Newton matrix's at the start.

    Args:
        problem: with `oracle_h`, or a `classification.SoftmaxLoss` on `everything`; without replicates.
    """
    if hasattr(problem, "oracle_h"):
        return problem.oracle_h()
    inputs, weights = problem.everything
    inputs = None if inputs is None else inputs.double()
    x = curvature.double(problem.initial())
    found = curvature.gauss_newton_diagonal(lambda at: problem.loss.logits(at, inputs), x, weights.sum(-1))
    return curvature.unflatten(found, problem.layout)
