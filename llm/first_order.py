"""The first-order ceiling: what AdamW with gradients makes of the same model on all the clients' examples pooled.

No federation, no messages: it stands beside the zeroth-order runs to say how far fine-tuning can get. It uses the same point,
loss, batch size and evaluation as they do.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from tqdm import tqdm

from hiso_bench import keys
from hiso_bench.losses import value_and_gradient
from hiso_bench.methods.base import require
from hiso_bench.points import Point
from llm.clients import TaskProblem


class Epoch(NamedTuple):
    """The point after some epochs, seen from the evaluation examples."""

    epoch: int
    """How often every training example has been used; 0 before the first step."""
    steps: int
    """Optimiser steps so far."""
    train_loss: float
    """Mean loss of the epoch's batches before each step; NaN at epoch 0."""
    metrics: dict[str, float]
    """As `TaskProblem.evaluate` gives them."""


def train(
    problem: TaskProblem,
    lr: float,
    epochs: int = 3,
    weight_decay: float = 0.0,
    warmup: float = 0.1,
    clip: float = 1.0,
    key: int = 0,
    quiet: bool = True,
) -> tuple[Point, list[Epoch]]:
    """Fine-tune by AdamW (arXiv 1711.05101), the rate rising linearly to lr and falling linearly to 0.

    Args:
        problem: the task, its model and its batch size.
        lr: largest rate, > 0.
        epochs: passes over the pooled training examples, each in an order of its own.
        weight_decay: decoupled, >= 0.
        warmup: share of the steps in which the rate rises, in [0, 1).
        clip: largest norm of a batch's gradient, > 0.
        key: 64-bit key of the orders.
        quiet: no progress bar.

    Returns:
        The last point, and the evaluations after 0 .. epochs epochs.

    Raises:
        ValueError: an option out of range.
        FloatingPointError: a loss is not finite; the message names the step.

    Cost: a forward and a backward pass per batch; memory for x, its gradient, two moments, and the activations of a batch.
    """
    require(lr > 0, "lr", lr, "> 0")
    require(epochs >= 1, "epochs", epochs, ">= 1")
    require(weight_decay >= 0, "weight_decay", weight_decay, ">= 0")
    require(0 <= warmup < 1, "warmup", warmup, "0 <= warmup < 1")
    require(clip > 0, "clip", clip, "> 0")
    x = tuple(leaf.requires_grad_() for leaf in problem.initial())
    optimiser = torch.optim.AdamW(x, lr=lr, weight_decay=weight_decay)
    per_epoch = -(-len(problem.train) // problem.batch_size)
    total, step = epochs * per_epoch, 0
    seen = [Epoch(0, 0, float("nan"), problem.evaluate(_detached(x)))]
    with tqdm(total=total, unit="step", disable=quiet, dynamic_ncols=True) as bar:
        for epoch in range(1, epochs + 1):
            losses = []
            for indices in _batches(len(problem.train), problem.batch_size, keys.derive(key, "first order", epoch=epoch)):
                for group in optimiser.param_groups:
                    group["lr"] = lr * _shape((step + 0.5) / total, warmup)
                loss, gradient = value_and_gradient(problem.loss, x, problem.pooled(indices))
                if not bool(torch.isfinite(loss)):
                    raise FloatingPointError(f"first order, step {step}: the loss is {loss.item()} at lr {lr:g}; lower lr")
                for leaf, part in zip(x, gradient, strict=True):
                    leaf.grad = part
                torch.nn.utils.clip_grad_norm_(x, clip)
                optimiser.step()
                losses.append(float(loss))
                step += 1
                bar.update()
            seen.append(Epoch(epoch, step, float(np.mean(losses)), problem.evaluate(_detached(x))))
    return _detached(x), seen


def _detached(x: Point) -> Point:
    return tuple(leaf.detach() for leaf in x)


def _batches(examples: int, size: int, key: int) -> Iterator[np.ndarray]:
    """All examples in a random order; the last batch may be smaller."""
    return iter(np.split(keys.rng(key).permutation(examples), range(size, examples, size)))


def _shape(progress: float, warmup: float) -> float:
    """The rate over its largest, at a share of the steps in (0, 1)."""
    return progress / warmup if progress < warmup else (1 - progress) / (1 - warmup)
