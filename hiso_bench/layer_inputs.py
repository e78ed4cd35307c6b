"""What enters the linear layers of a torch module: the rows in whose span the gradients of their weights lie."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from hiso_bench.losses import Batch, ModuleLoss
from hiso_bench.points import Point


def linear_inputs(loss: ModuleLoss, x: Point, batch: Batch) -> tuple[Tensor | None, ...]:
    """The inputs of every `nn.Linear` while the loss of a batch is computed.

    Args:
        loss: of a module.
        x: a point without replicate axes.
        batch: as the loss takes it.

    Returns:
        For each leaf of x: inputs (rows, n) of the layer whose weight it is, the axes in front of the features made one and the
        calls put together; None for what is no weight of a linear layer that was called. A weight that another kind of layer
        shares has a gradient outside the span.

    Cost: a forward pass.
    """
    found: dict[str, list[Tensor]] = {}
    handles = []
    for name, part in loss.module.named_modules():
        if isinstance(part, nn.Linear):
            weight = f"{name}.weight" if name else "weight"

            def keep(_: nn.Module, args: tuple[Tensor, ...], weight: str = weight) -> None:
                found.setdefault(weight, []).append(args[0].detach().flatten(0, -2))

            handles.append(part.register_forward_pre_hook(keep))
    try:
        with torch.no_grad():
            loss.differentiable(x, batch)
    finally:
        for handle in handles:
            handle.remove()
    return tuple(torch.cat(found[name]) if name in found else None for name in loss.names)
