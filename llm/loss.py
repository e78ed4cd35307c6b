"""The loss of a causal language model on prompts: cross-entropy over verbalizers, or the mean NLL of an answer's tokens."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hiso_bench.losses import Batch, ModuleLoss
from hiso_bench.methods.base import require
from hiso_bench.points import Point

LOSS_MODES = ("loop", "clients")
IGNORED = -100
"""The target that fills up short answers; it enters no loss."""


class LanguageLoss(ModuleLoss):
    """f(x; batch): the mean over a batch, in float64, of a per-example loss.

    A batch is (input_ids (B, T), attention_mask (B, T), positions (B, A), targets (B, A)), int64, padded on the right: the logits
    at `positions` predict `targets`. Padding enters nothing: it is masked in the attention, no position points at it, and the
    targets that fill up short answers are `IGNORED`. The head runs at `positions` only.

    - classification (`verbalizers` given; A = 1): cross-entropy over the logits of the C verbalizer tokens; a target is a label.
    - generation (`verbalizers` None): the mean over the answer's tokens of their negative log-likelihood.

    The point is the float32 master. Where `dtype` is another one, each evaluation works on a copy of it in that dtype, and the
    logits go back to float32 before the softmax.

    Args:
        module: causal language model in eval mode; `module(input_ids=, attention_mask=, logits_to_keep=).logits`.
        verbalizers: (C,) token ids, or None for generation.
        dtype: in which the forward pass runs.
        mode: "loop" (one forward pass per client; memory does not grow with m), or "clients" (one for all of them, padded to one
            length). `vmap` cannot be had: the masks of these models are built with `vmap` themselves.

    Raises:
        ValueError: unknown or unsupported mode; a module that `ModuleLoss` refuses.
    """

    def __init__(
        self, module: nn.Module, verbalizers: Tensor | None = None, dtype: torch.dtype = torch.float32, mode: str = "loop"
    ) -> None:
        require(mode in LOSS_MODES, "mode", mode, ", ".join(LOSS_MODES))
        super().__init__(module, generation if verbalizers is None else classification(verbalizers), mode)
        self.dtype = dtype
        self.precision = str(dtype).removeprefix("torch.") if dtype.itemsize < 4 else ""

    def cast(self, x: Point) -> Point:
        """The point in the dtype of the forward pass; the point itself where it has it already. Cost: one copy."""
        return tuple(leaf.to(self.dtype) for leaf in x)

    def outputs(self, x: Point, *args: Any, **kwargs: Any) -> Any:
        """The model's output at a point without replicate axes."""
        return super().outputs(self.cast(x), *args, **kwargs)

    def each(self, x: Point, batches: Sequence[Batch]) -> Tensor:
        """Losses of several clients at one point, shape (len(batches),); cast once."""
        with torch.inference_mode():
            if self.mode == "clients" and len(batches) > 1:
                batches = padded(batches)
            return super().each(self.cast(x), batches)


def padded(batches: Sequence[Batch], fill: Sequence[int] = (0, 0, 0, IGNORED)) -> list[Batch]:
    """Batches padded on the right, along their parts' second axis, to one length each; `fill` has a number for every part.

    Which number stands under the mask does not matter: no position attends to it.
    """
    widths = [max(batch[part].shape[1] for batch in batches) for part in range(len(fill))]
    return [tuple(_wide(*each) for each in zip(batch, widths, fill, strict=True)) for batch in batches]


def _wide(part: Tensor, width: int, value: int) -> Tensor:
    return F.pad(part, (*[0] * (2 * part.ndim - 4), 0, width - part.shape[1]), value=value)


def classification(verbalizers: Tensor) -> Callable[[Callable[..., Any], Batch], Tensor]:
    """Per-example cross-entropy over the logits of the verbalizer tokens (C,) at the prompt's last position."""

    def loss(net: Callable[..., Any], batch: Batch) -> Tensor:
        return F.cross_entropy(logits_at(net, batch)[:, 0, verbalizers], batch[3][:, 0], reduction="none")

    return loss


def generation(net: Callable[..., Any], batch: Batch) -> Tensor:
    """Per-example mean over the answer's tokens of -log p(token | what stands before it)."""
    logits, targets = logits_at(net, batch), batch[3]
    nll = F.cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=IGNORED, reduction="none")
    return nll.reshape(targets.shape).double().sum(1) / (targets != IGNORED).sum(1)


def logits_at(net: Callable[..., Any], batch: Batch) -> Tensor:
    """Logits (B, A, V), at least float32, at the batch's positions."""
    ids, mask, positions, _ = batch
    logits = net(input_ids=ids, attention_mask=mask, logits_to_keep=positions).logits
    return logits.float() if logits.dtype in (torch.bfloat16, torch.float16) else logits
