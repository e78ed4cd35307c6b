"""Pre-training of the models that this project makes itself: one pass of AdamW over documents.

The weights are a function of the initial ones, of the documents and of the recipe, on one kind of machine: the number of threads
is the recipe's, whatever the caller's is.
"""

from __future__ import annotations

import contextlib
import math
import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from tqdm import tqdm
from transformers import OPTForCausalLM

from hiso_bench import keys
from llm.encoding import pad

if TYPE_CHECKING:
    from llm.tiny.model import Shape

_SORTED_TOGETHER = 2048
_SAVED_EVERY = 120.0  # seconds


@dataclass(frozen=True)
class Recipe:
    """How a model is trained.

    Attributes:
        shape: sizes and initial values.
        threads: of torch.
        batch_tokens: most tokens of a batch, padding included.
        rate: largest rate; it rises linearly, then falls along a cosine.
        last_rate: rate at the end.
        warmup: share of the steps in which the rate rises.
        betas: of AdamW.
        weight_decay: of AdamW.
        clip: largest norm of a batch's gradient.
    """

    shape: Shape
    threads: int
    batch_tokens: int
    rate: float
    last_rate: float
    warmup: float
    betas: tuple[float, float]
    weight_decay: float
    clip: float


class Text(NamedTuple):
    """A document as tokens, from "</s>" on, and how many of them are given."""

    ids: list[int]
    given: int


def train(
    net: OPTForCausalLM,
    texts: Sequence[Text],
    recipe: Recipe,
    loss_of: Callable[[OPTForCausalLM, Sequence[Text]], Tensor],
    order_key: int,
    name: str,
    quiet: bool = False,
    saved: Path | None = None,
) -> list[float]:
    """One pass of AdamW over the documents, in place, with a cosine rate.

    Args:
        net: the model, in eval mode.
        texts: the documents.
        recipe: batches and rates.
        loss_of: the loss of a batch of documents, with a graph.
        order_key: 64-bit key of the documents' order.
        name: of the model, on the progress bar.
        quiet: no progress bar.
        saved: a file that keeps the state every two minutes, from which a later call with the same arguments goes on to the same
            weights; it is removed at the end. None keeps nothing.

    Returns:
        The loss of every batch before its step. Weights and losses are the same for the same arguments on one machine; global
        random state and the number of threads are left as they were.

    Cost: a forward and a backward pass per batch.
    """
    batches = _batches(texts, recipe.batch_tokens, keys.rng(order_key))
    optimiser = torch.optim.AdamW(net.parameters(), recipe.rate, recipe.betas, weight_decay=recipe.weight_decay, fused=True)
    losses = _resume(saved, net, optimiser) if saved else []
    # disable=None shows the bar on a terminal only.
    bar = tqdm(
        batches[len(losses) :],
        desc=f"pre-training {name}",
        unit="step",
        dynamic_ncols=True,
        disable=True if quiet else None,
        initial=len(losses),
        total=len(batches),
    )
    kept = time.monotonic()
    with _threads(recipe.threads), bar:
        for step, batch in enumerate(bar, len(losses)):
            for group in optimiser.param_groups:
                group["lr"] = recipe.rate * _shape((step + 0.5) / len(batches), recipe)
            loss = loss_of(net, [texts[i] for i in batch])
            loss.backward()
            torch.nn.utils.clip_grad_norm_(net.parameters(), recipe.clip)
            optimiser.step()
            optimiser.zero_grad()
            losses.append(float(loss.detach()))
            if saved and time.monotonic() - kept > _SAVED_EVERY:
                _save(saved, net, optimiser, losses)
                kept = time.monotonic()
    if saved:
        saved.unlink(missing_ok=True)
    return losses


def next_token(net: OPTForCausalLM, texts: Sequence[Text], given_weight: float) -> Tensor:
    """Mean cross-entropy of the next token, those that are given weighing `given_weight`; padding enters nothing."""
    ids, mask = pad([text.ids for text in texts])
    weights = torch.zeros(ids.shape)
    for row, text in enumerate(texts):
        weights[row, : len(text.ids)] = 1.0
        weights[row, : text.given] = given_weight
    logits = net(input_ids=ids, attention_mask=mask).logits[:, :-1]
    nll = F.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten(), reduction="none")
    each = weights[:, 1:].flatten()
    return (nll * each).sum() / each.sum()


def _shape(progress: float, recipe: Recipe) -> float:
    """The rate over its largest: linear warm-up, then a cosine down to the last rate."""
    if progress < recipe.warmup:
        return progress / recipe.warmup
    last = recipe.last_rate / recipe.rate
    return last + (1 - last) * 0.5 * (1 + math.cos(math.pi * (progress - recipe.warmup) / (1 - recipe.warmup)))


def _batches(texts: Sequence[Text], tokens: int, rng: np.random.Generator) -> list[list[int]]:
    """Every document once, in batches of about one length and at most `tokens` tokens, in random order."""
    batches: list[list[int]] = []
    for block in np.array_split(rng.permutation(len(texts)), -(-len(texts) // _SORTED_TOGETHER)):
        inside: list[list[int]] = [[]]
        for i in sorted(block.tolist(), key=lambda i: len(texts[i].ids)):
            if (len(inside[-1]) + 1) * len(texts[i].ids) > tokens:
                inside.append([])
            inside[-1].append(i)
        batches += [inside[i] for i in rng.permutation(len(inside))]
    return batches


def _save(path: Path, net: OPTForCausalLM, optimiser: torch.optim.Optimizer, losses: list[float]) -> None:
    """The state after some steps, whole or not at all."""
    temporary = path.with_suffix(".new")
    torch.save({"net": net.state_dict(), "optimiser": optimiser.state_dict(), "losses": losses}, temporary)
    os.replace(temporary, path)


def _resume(path: Path, net: OPTForCausalLM, optimiser: torch.optim.Optimizer) -> list[float]:
    """Take up the state that `_save` kept, and return the losses so far; none if there is no file."""
    if not path.is_file():
        return []
    state = torch.load(path, weights_only=True)
    net.load_state_dict(state["net"])
    optimiser.load_state_dict(state["optimiser"])
    return state["losses"]


@contextlib.contextmanager
def _threads(n: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(n)
    try:
        yield
    finally:
        torch.set_num_threads(before)
