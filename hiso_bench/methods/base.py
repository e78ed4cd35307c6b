"""What a scalar-representable method is: how it warps, measures, combines, moves and learns.

A round's shared state is changed by scalars and keys alone. A new method is one short file in this folder: subclass
`Method`, override what differs, and `register` it (see `hiso_bench/methods/__init__.py`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import torch
from torch import Tensor

from hiso_bench.differences import DIFFERENCES, Difference, Measurement, evaluations, measure
from hiso_bench.directions import LAWS, DirectionKey, Directions, Warped
from hiso_bench.losses import Batch, Loss
from hiso_bench.points import Layout, Point, Value, add_scaled, scale_into
from hiso_bench.state import State, Warp

if TYPE_CHECKING:  # the federation needs the methods
    from hiso_bench.federation import Federation, FederationOptions
    from hiso_bench.ledger import Ledger
    from hiso_bench.problems import Problem


class Step(NamedTuple):
    """One agreed local step: n rows of P weighted directions, dx = (1/n) sum over rows and p of weight * z(key)."""

    keys: tuple[tuple[DirectionKey, ...], ...]
    """(n, P); the rows are equal when the clients share their directions."""
    weights: Tensor
    """(n, P, *replicate_shape), float64: the scalars divided by P."""
    curvatures: Tensor
    """(n, nc, *replicate_shape), float64: the second differences; along the first nc keys of a row."""

    @property
    def active(self) -> Tensor:
        """Which replicates move: bool, replicate-shaped."""
        return torch.isfinite(torch.cat([self.weights, self.curvatures], 1)).all(0).all(0)

    def rows(self) -> list[Step]:
        """The step of each row alone: what each client would do by itself."""
        return [Step(self.keys[i : i + 1], self.weights[i : i + 1], self.curvatures[i : i + 1]) for i in range(len(self.keys))]

    def perturbations(self) -> list[Step]:
        """The contribution of each perturbation to the direction alone (still divided by P), without second differences."""
        none = self.curvatures[:, :0]
        return [
            Step(tuple(row[p : p + 1] for row in self.keys), self.weights[:, p : p + 1], none) for p in range(len(self.keys[0]))
        ]


def positive(value: Value) -> bool:
    """Whether every number is finite and > 0."""
    return non_negative(value) and bool((torch.as_tensor(value, dtype=torch.float64) > 0).all())


def non_negative(value: Value) -> bool:
    """Whether every number is finite and >= 0."""
    values = torch.as_tensor(value, dtype=torch.float64)
    return bool(((values >= 0) & torch.isfinite(values)).all())


def weight(value: Value) -> bool:
    """Whether every number is the weight of a moving average, 0 < value <= 1."""
    values = torch.as_tensor(value, dtype=torch.float64)
    return bool(((values > 0) & (values <= 1)).all())


def require(condition: bool, option: str, value: object, allowed: str) -> None:
    """Raise ValueError naming the option, its value and what is allowed, unless `condition` holds."""
    if not condition:
        raise ValueError(f"{option} {value} is out of range; allowed: {allowed}")


@dataclass(frozen=True, kw_only=True)
class Method:
    """Options that every method has, and the behaviour of plain ZO-SGD (DeComFL, H = I).

    `lr`, `mu` and other numbers may be tensors that broadcast to the replicate shape.

    Attributes:
        lr: step size eta of round 0.
        lr_decay: eta_r = lr / (1 + lr_decay * r).
        perturbations: P, directions per local step.
        mu: smoothing parameter.
        difference: "forward" (P + 1 evaluations), "central" (2 P), or their limit "exact" (a gradient; see `differences`).
        momentum: b in m <- b m + dx, x <- x - eta m.
        weight_decay: added to the direction as weight_decay * x (not seen by what H learns).

    Raises:
        ValueError: an option out of range, named with its value and what is allowed.
    """

    scalar_only: ClassVar[bool] = True
    """Only scalars and keys are exchanged."""
    linear_in_scalars: ClassVar[bool] = True
    """The move of x is linear in the scalars while H is frozen: averaging scalars is averaging end points."""
    federation_options: ClassVar[Mapping[str, Any]] = {}
    """Options of the federation that the method asks for where none is given."""
    laws: ClassVar[tuple[str, ...]] = LAWS
    """Laws of the directions that the method admits."""

    lr: Value
    lr_decay: Value = 0.0
    perturbations: int = 5
    mu: Value = 1e-3
    difference: Difference = "forward"
    momentum: float = 0.0
    weight_decay: float = 0.0

    def __post_init__(self) -> None:
        require(positive(self.lr), "lr", self.lr, "a finite number > 0")
        require(non_negative(self.lr_decay), "lr_decay", self.lr_decay, "a finite number >= 0")
        require(self.perturbations >= 1, "perturbations", self.perturbations, ">= 1")
        require(positive(self.mu), "mu", self.mu, "a finite number > 0")
        require(self.difference in DIFFERENCES, "difference", self.difference, ", ".join(DIFFERENCES))
        if self.curvatures:
            require(self.difference != "exact", "difference", "exact", "forward, central where there are second differences")
        require(0 <= self.momentum < 1, "momentum", self.momentum, "0 <= momentum < 1")
        require(0 <= self.weight_decay < math.inf, "weight_decay", self.weight_decay, ">= 0")

    def federate(self, problem: Problem, options: FederationOptions, ledger: Ledger | None = None) -> Federation:
        """The server and the simulated clients that run this method."""
        from hiso_bench.federation import Federation

        return Federation(problem, self, options, ledger)

    @property
    def curvatures(self) -> int:
        """nc: second differences that every local step adds to its P scalars."""
        return 0

    @property
    def evaluations(self) -> int:
        """Loss evaluations per client and local step."""
        return evaluations(self.difference, self.perturbations, self.curvatures)

    def init(self, x: Point, layout: Layout) -> State:
        """The shared state before round 0. `x` is copied."""
        state = State(layout, tuple(leaf.clone() for leaf in x))
        if self.momentum:
            state.buffers["momentum"] = tuple(torch.zeros_like(leaf) for leaf in x)
        return state

    def directions(self, layout: Layout, make: Callable[[Layout], Directions]) -> Directions:
        """Where u comes from. `make(layout)` gives independent coordinates under the run's key: what others are built from."""
        return make(layout)

    def warp(self, state: State) -> Warp:
        """The map u -> z that holds for one round; it overwrites u."""
        return lambda u: u

    def measure(
        self,
        loss: Loss,
        layout: Layout,
        x: Point,
        z: Callable[[DirectionKey], Point],
        directions: Sequence[DirectionKey],
        batches: Sequence[Batch],
        buffer: Point,
    ) -> Measurement:
        """The clients' scalars along the directions; see `differences.measure`."""
        return measure(loss, layout, x, z, directions, batches, self.mu, self.difference, buffer)

    def combine(self, scalars: Tensor) -> Tensor:
        """Clients' scalars (n, tau, P + nc, *replicate_shape) in float64 and client order -> what the server sends on, same axes.

        The default is the mean (n = 1) over the clients that answered (a NaN says that a client did not answer for a replicate).
        A method that needs every client's scalars returns them all.
        """
        return scalars.nanmean(0, keepdim=True)

    def direction(self, step: Step, layout: Layout, z: Callable[[DirectionKey], Point], out: Point) -> Point:
        """Write the step's direction dx = (1/n) sum_i (1/P) sum_p s_ip z_ip into `out`. Cost: one pass over z per direction."""
        n = len(step.keys)
        if all(row == step.keys[0] for row in step.keys):
            terms = list(zip(step.keys[0], step.weights.mean(0), strict=True))
        else:
            terms = [(key, step.weights[i, p] / n) for i, row in enumerate(step.keys) for p, key in enumerate(row)]
        for number, (key, weight) in enumerate(terms):
            if number == 0:
                scale_into(layout, z(key), weight, out)
            else:
                add_scaled(layout, out, z(key), weight, out)
        return out

    def rate(self, state: State, step: Step) -> Value:
        """The step size eta of an agreed step."""
        return self.lr / (1 + self.lr_decay * state.round)

    def move(self, state: State, dx: Point, step: Step) -> None:
        """Move x <- x - eta (dx + weight_decay x), in place, with momentum if any. Local steps and replay share it.

        Args:
            state: x and momentum are changed in place.
            dx: the direction of `step`.
            step: the agreed scalars, for methods whose step size depends on them.
        """
        eta = self.rate(state, step)
        target = dx
        if self.momentum:
            target = state.buffers["momentum"]
            for m, d, x in zip(target, dx, state.x, strict=True):
                m.mul_(self.momentum).add_(d).add_(x, alpha=self.weight_decay)
        elif self.weight_decay:
            add_scaled(state.layout, state.x, state.x, -eta * self.weight_decay, state.x)
        add_scaled(state.layout, state.x, target, -eta, state.x)

    def learn(self, state: State, steps: Sequence[Step], z: Warped, dx: Point) -> None:
        """Update what the method learns, in place, after the moves; `dx` holds the last direction and may be overwritten."""
