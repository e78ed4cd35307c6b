"""Scores of a model on encoded examples: one number per example and metric, and what a test set of that size can say.

Nothing is averaged per batch, padding is masked, and positions are each example's own; so every batch size gives the same scores,
but for rounding in the logits: two tokens whose logits tie to the last digits may change places.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from hiso_bench.losses import Batch
from hiso_bench.methods.base import require
from hiso_bench.stats import LEVEL, Interval, proportion
from hiso_bench.stats import mean_interval as student_interval
from llm import metrics
from llm.encoding import Encoded, collate, pad
from llm.loss import generation, logits_at

Net = Callable[..., Any]
"""Called as a causal language model is: `net(input_ids=, attention_mask=, logits_to_keep=).logits`."""
BATCH_SIZE = 32
NO_CLASS = -1
"""The prediction where a logit is NaN: it is right for no label."""


@dataclass(frozen=True, eq=False)
class Scores:
    """Scores of N examples.

    Attributes:
        encoded: the examples.
        predictions: N class ids (`NO_CLASS` where the logits are NaN), or N generated answers.
        each: "loss" and "accuracy", or "loss", "f1" and "exact_match": float64 (N,), losses in nats, the rest in 0..1.
    """

    encoded: Encoded
    predictions: tuple[Any, ...]
    each: dict[str, np.ndarray]

    def values(self) -> dict[str, float]:
        """The loss and the task's metrics over all examples."""
        return {"loss": float(self.each["loss"].mean())} | {name: self._value(name) for name in self.encoded.task.metrics}

    def interval(self, name: str, key: int = 0, level: float = LEVEL) -> Interval:
        """A metric with the uncertainty of drawing N examples: what another test set of that size could have said of this model.

        Shares of examples (accuracy, exact match) have the interval of `hiso_bench.stats.proportion`, F1 of every kind a
        bootstrap interval (of class counts from `key`), the loss Student's.

        Raises:
            ValueError: the task has no such metric; a loss that is not finite, or of a single example.
        """
        task = self.encoded.task
        require(name in ("loss", *task.metrics), "metric", repr(name), ", ".join(("loss", *task.metrics)))
        if name == "loss":
            return student_interval(self.each[name], level)
        if name in ("accuracy", "exact_match"):
            return proportion(int(self.each[name].sum()), len(self.predictions), level)
        if name == "f1":
            return metrics.mean_interval(self.each[name], level)
        return metrics.bootstrap(self._confusion(), _OF_COUNTS[name], key, level)

    def _value(self, name: str) -> float:
        return float(self.each[name].mean()) if name in self.each else float(_OF_COUNTS[name](self._confusion()))

    def _confusion(self) -> np.ndarray:
        return metrics.confusion(self.encoded.labels, np.array(self.predictions), len(self.encoded.task.labels))


_OF_COUNTS: dict[str, metrics.Statistic] = {"macro_f1": metrics.macro_f1, "positive_f1": metrics.positive_f1}


def evaluate(net: Net, encoded: Encoded, batch_size: int = BATCH_SIZE, device: torch.device | str = "cpu") -> Scores:
    """Score a model on all the examples: what it makes most of, and its loss.

    Args:
        net: the model at the point that is evaluated, such as `functools.partial(loss.outputs, loss.cast(x))`.
        encoded: the examples.
        batch_size: examples at a time; prompts of about one length go together.
        device: where the model is.

    Raises:
        ValueError: `batch_size` < 1.

    Cost: one forward pass per example; for generation one more per generated token, over prompt and answer so far.
    """
    require(batch_size >= 1, "batch_size", batch_size, ">= 1")
    if encoded.verbalizers is not None:
        verbalizers = encoded.verbalizers.to(device)
        return classify(lambda chunk: logits_at(net, _collated(encoded, chunk, device))[:, 0, verbalizers], encoded, batch_size)
    losses, texts = np.zeros(len(encoded)), [""] * len(encoded)
    with torch.inference_mode():
        for chunk in _chunks(encoded, batch_size):
            losses[chunk] = generation(net, _collated(encoded, chunk, device)).numpy(force=True)
            for i, text in zip(chunk, generate(net, encoded, chunk, device), strict=True):
                texts[i] = text
    scored = {
        name: np.array([score(text, given) for text, given in zip(texts, encoded.references, strict=True)])
        for name, score in (("f1", metrics.f1), ("exact_match", metrics.exact_match))
    }
    return Scores(encoded, tuple(texts), {"loss": losses, **scored})


def classify(logits: Callable[[np.ndarray], Tensor], encoded: Encoded, batch_size: int = BATCH_SIZE) -> Scores:
    """Score a classifier on all the examples.

    Args:
        logits: gives the classes' logits (B, C) of the examples of some indices (B,).
        encoded: the examples, with labels.
        batch_size: examples at a time; texts of about one length go together.

    Raises:
        ValueError: `batch_size` < 1.
    """
    require(batch_size >= 1, "batch_size", batch_size, ">= 1")
    losses, classes = np.zeros(len(encoded)), np.zeros(len(encoded), dtype=np.int64)
    with torch.inference_mode():
        for chunk in _chunks(encoded, batch_size):
            scores = logits(chunk).double()
            labels = torch.from_numpy(encoded.labels[chunk]).to(scores.device)
            losses[chunk] = F.cross_entropy(scores, labels, reduction="none").numpy(force=True)
            classes[chunk] = scores.argmax(-1).masked_fill(scores.isnan().any(-1), NO_CLASS).numpy(force=True)
    return Scores(encoded, tuple(classes.tolist()), {"loss": losses, "accuracy": (classes == encoded.labels).astype(float)})


def generate(net: Net, encoded: Encoded, chunk: np.ndarray, device: torch.device | str = "cpu") -> list[str]:
    """Greedy answers to some of the prompts, each up to a line break, the end-of-sequence token or `task.max_new_tokens`.

    An example that has stopped leaves the batch. Keys and values are not cached: a forward pass sees the whole text so far.
    """
    rows = [list(encoded.prompts[i]) for i in chunk]
    starts = [len(row) for row in rows]
    answers = [""] * len(rows)
    going = list(range(len(rows)))
    for _ in range(encoded.task.max_new_tokens):
        if not going:
            break
        ids, mask = (part.to(device) for part in pad([rows[i] for i in going]))
        last = mask.sum(1, keepdim=True) - 1
        best = logits_at(net, (ids, mask, last, last))[:, 0].argmax(-1).tolist()
        still = []
        for i, token in zip(going, best, strict=True):
            rows[i].append(token)
            answers[i], stopped = _read(encoded.tokenizer, rows[i][starts[i] :])
            if not stopped:
                still.append(i)
        going = still
    return answers


def _read(tokenizer: Any, ids: list[int]) -> tuple[str, bool]:
    """The answer in the generated tokens, and whether it has ended."""
    ended = ids[-1] == tokenizer.eos_token_id
    # The text decides, not the ids: one token may hold a line break and more.
    text = tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
    first, line_break, _ = text.partition("\n")
    return first.strip(), ended or bool(line_break)


def _collated(encoded: Encoded, chunk: np.ndarray, device: torch.device | str) -> Batch:
    return tuple(part.to(device) for part in collate(encoded, chunk))


def _chunks(encoded: Encoded, size: int) -> Iterator[np.ndarray]:
    """Indices in batches of `size`, by the length of the prompt."""
    order = np.argsort([len(prompt) for prompt in encoded.prompts], kind="stable")
    return iter(np.split(order, range(size, len(order), size)))
