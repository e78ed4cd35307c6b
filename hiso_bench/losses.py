"""Losses: functions of a point and a batch that own the replicate axes and say how several clients are evaluated.

The three evaluation modes differ in how a set of clients (and replicates) that stand at one point is evaluated:

- `loop`: one forward pass per client and replicate;
- `clients`: one forward pass over all the clients' batches put together, then a mean per client;
- `vmap`: `torch.func.vmap` over clients and over replicates.

They are equal in exact arithmetic; in floating point a scalar of one mode differs from that of another by at most about
8 eps |f| / mu. A problem declares its mode and the ledger records it, because replaying live evaluations needs the same one.
"""

from __future__ import annotations

import itertools
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap
from torch.nn import functional as F

from hiso_bench.points import Layout, Point

Mode = Literal["loop", "clients", "vmap"]
MODES: tuple[str, ...] = get_args(Mode)
Batch = Any
"""What a loss needs besides the point; for `ModuleLoss` a tuple of tensors: replicate axes, then examples, then the rest."""


class NondeterministicLossError(ValueError):
    """The loss gives two values at one point: differences of it would be noise."""


class Loss(ABC):
    """A loss f(x; batch). Subclasses implement `__call__`; `each` may be overridden where clients can share work."""

    mode: str = "loop"
    precision: str = ""
    """In which dtype it is computed, where that is not the point's."""

    @abstractmethod
    def __call__(self, x: Point, batch: Batch) -> Tensor:
        """Return f(x; batch): float64, of the replicate shape."""

    def each(self, x: Point, batches: Sequence[Batch]) -> Tensor:
        """Return f at one point for several clients' batches: float64, shape (len(batches), *replicate_shape)."""
        return torch.stack([self(x, batch) for batch in batches])

    def differentiable(self, x: Point, batch: Batch) -> Tensor:
        """f(x; batch) as a node of an autograd graph: overridden where `__call__` builds none. Points without replicate axes."""
        return self(x, batch)


def value_and_gradient(loss: Loss, x: Point, batch: Batch) -> tuple[Tensor, Point]:
    """f(x; batch), float64, and its gradient, shaped like x and of its dtype.

    Args:
        loss: on points without replicate axes.
        x: the point; neither it nor its `grad` is touched.
        batch: as the loss takes it.

    Cost: one forward and one backward pass (about two forward passes), and the activations between them.
    """
    with torch.enable_grad():
        leaves = tuple(leaf.detach().requires_grad_() for leaf in x)
        value = loss.differentiable(leaves, batch)
        # A leaf that this batch does not reach has gradient zero.
        return value.detach(), torch.autograd.grad(value, leaves, allow_unused=True, materialize_grads=True)


class ModuleLoss(Loss):
    """The mean over a batch of a per-example loss of a torch module.

    The point holds the module's trainable parameters, tied ones once, in the order of `named_parameters`. One module serves any
    number of clients: it is called with the point's tensors in place of its own (`torch.func.functional_call`).

    Args:
        module: in eval mode. Its own parameters are only read, as the base point.
        per_example: (module-like callable, batch) -> losses of shape (examples,).
        mode: an evaluation mode; `clients` and `vmap` need batches of equal shape.
        replicate_axes: the number of replicate axes of the points.

    Raises:
        ValueError: unknown mode; no trainable parameter; a submodule in training mode; a batch-norm layer.
    """

    def __init__(
        self,
        module: nn.Module,
        per_example: Callable[[Callable[..., Any], Batch], Tensor],
        mode: str = "loop",
        replicate_axes: int = 0,
    ) -> None:
        if mode not in MODES:
            raise ValueError(f"mode {mode!r} is unknown; allowed: {', '.join(MODES)}")
        _refuse_stateful(module)
        self.module, self.per_example, self.mode = module, per_example, mode
        self.replicate_axes = replicate_axes
        self.names = tuple(name for name, p in module.named_parameters() if p.requires_grad)
        if not self.names:
            raise ValueError("the module has no trainable parameter (requires_grad is False for all of them)")

    def base_point(self) -> Point:
        """A copy of the module's trainable parameters."""
        return tuple(self.module.get_parameter(name).detach().clone() for name in self.names)

    def outputs(self, x: Point, *args: Any, **kwargs: Any) -> Any:
        """The module's output at a point without replicate axes."""
        return functional_call(self.module, dict(zip(self.names, x, strict=True)), args, kwargs)

    def __call__(self, x: Point, batch: Batch) -> Tensor:
        """Mean loss, float64, of the replicate shape. Cost: one forward pass per replicate (one vectorised pass for `vmap`)."""
        with torch.inference_mode():
            if not self.replicate_axes:
                return self.differentiable(x, batch)
            shape = x[0].shape[: self.replicate_axes]
            if self.mode == "vmap":
                single: Callable[..., Tensor] = lambda point, part: self._examples(point, part).mean()  # noqa: E731
                for _ in shape:
                    single = vmap(single)
                return single(x, batch)
            values = [
                self._examples(tuple(leaf[i] for leaf in x), tuple(part[i] for part in batch)).mean()
                for i in itertools.product(*map(range, shape))
            ]
            return torch.stack(values).reshape(shape)

    def differentiable(self, x: Point, batch: Batch) -> Tensor:
        """The mean loss at a point without replicate axes, with a graph that autograd can follow: for curvature, not for runs."""
        return self._examples(x, batch).mean()

    def each(self, x: Point, batches: Sequence[Batch]) -> Tensor:
        """Losses of several clients at one point; `clients` and `vmap` evaluate them together.

        Raises:
            ValueError: clients that are to be evaluated together have batches of different sizes.
        """
        if self.mode == "loop" or self.replicate_axes or len(batches) == 1:
            return super().each(x, batches)
        if len(sizes := {len(batch[0]) for batch in batches}) > 1:
            raise ValueError(f"mode {self.mode!r} needs batches of one size, and there are {sorted(sizes)}; use mode 'loop'")
        with torch.inference_mode():
            if self.mode == "vmap":
                stacked = tuple(torch.stack(parts) for parts in zip(*batches, strict=True))
                return vmap(lambda batch: self._examples(x, batch).mean())(stacked)
            joined = tuple(torch.cat(parts) for parts in zip(*batches, strict=True))
            return self._examples(x, joined).reshape(len(batches), -1).mean(1)

    def _examples(self, x: Point, batch: Batch) -> Tensor:
        # float64 before the mean: the sum over examples then adds no rounding of its own to the difference quotient.
        return self.per_example(lambda *args, **kwargs: self.outputs(x, *args, **kwargs), batch).double()


class FunctionLoss(Loss):
    """A function of a torch point as a loss, for points without replicate axes.

    Args:
        function: point -> scalar tensor, or (point, batch) -> scalar tensor where batches are given; deterministic. The point is
            the tuple of leaves, or the one tensor if `single`.
        single: the function takes the one leaf of a point of one leaf.

    Raises:
        ValueError: when called, if the function gives no scalar tensor.
    """

    def __init__(self, function: Callable[..., Tensor], single: bool = False) -> None:
        self.function, self.single = function, single

    def __call__(self, x: Point, batch: Batch = None) -> Tensor:
        """The value, float64, without a graph."""
        with torch.no_grad():
            return self.differentiable(x, batch)

    def differentiable(self, x: Point, batch: Batch = None) -> Tensor:
        """The value, float64, with the graph that the function makes."""
        at = x[0] if self.single else x
        value = self.function(at) if batch is None else self.function(at, batch)
        if not isinstance(value, Tensor) or value.numel() != 1:
            raise ValueError(f"the loss gave {_told(value)}; allowed: a tensor of one number")
        return value.reshape(()).double()


def _told(value: object) -> str:
    return f"a tensor of shape {tuple(value.shape)}" if isinstance(value, Tensor) else f"a {type(value).__name__}"


def cross_entropy(net: Callable[..., Any], batch: Batch) -> Tensor:
    """Per-example cross-entropy (examples,) of (inputs, labels): a `per_example` of `ModuleLoss`."""
    inputs, labels = batch
    return F.cross_entropy(net(inputs), labels, reduction="none")


def layout_of(loss: ModuleLoss, replicate_shape: tuple[int, ...] = ()) -> Layout:
    """The layout of a module loss's points."""
    return Layout(tuple(tuple(p.shape) for p in loss.base_point()), replicate_shape)


def check_deterministic(loss: Loss, x: Point, batch: Batch) -> None:
    """Evaluate twice and compare bit for bit, before anything is trusted. Cost: two evaluations.

    Raises:
        NondeterministicLossError: the two values differ; the message gives both.
    """
    first, second = loss(x, batch), loss(x, batch)
    if not torch.equal(first.nan_to_num(), second.nan_to_num()):
        raise NondeterministicLossError(
            f"the loss is not deterministic: the same point and batch gave {first.tolist()} and {second.tolist()}; "
            "switch off dropout, sampling and atomics before taking differences of it"
        )


def _refuse_stateful(module: nn.Module) -> None:
    for name, part in module.named_modules():
        if isinstance(part, nn.modules.batchnorm._BatchNorm):
            raise ValueError(
                f"layer {name!r} is batch norm: its running statistics are state that the ledger does not carry; use group norm"
            )
        if part.training:
            raise ValueError(
                f"layer {name or 'module'!r} is in training mode (dropout would make the loss random); call module.eval()"
            )
