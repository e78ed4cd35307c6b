"""Federated fine-tuning of a causal language model: a task's examples split over clients, and the loss of prompts."""

from __future__ import annotations

import dataclasses
import functools

import numpy as np

from hiso_bench.losses import Batch
from hiso_bench.methods.base import require
from hiso_bench.points import Point
from llm import memory
from llm.checkpoint import BaseModel
from llm.clients import EVALUATION_BATCH, TaskProblem
from llm.encoding import Encoded, collate, encode
from llm.evaluation import Scores, evaluate
from llm.examples import Examples
from llm.hub import EMBEDDED, library
from llm.loss import LOSS_MODES, LanguageLoss
from llm.tasks import get


class LanguageProblem(TaskProblem, BaseModel):
    """A model, a task, and its clients.

    Args:
        model: "tiny-opt" or "imdb-opt" (made here), the folder of a saved model, or a name on the Hugging Face hub.
        task: sst2, qqp, rte, cb, boolq, wic, wsc, multirc, squad, drop, or a generated one: toy-sst2, toy-qqp, toy-squad.
        clients: M.
        split: "dirichlet" (label-skewed, every client at least 4 examples; answers in free text count as one label) or "iid".
        alpha: concentration of the Dirichlet split.
        batch_size: examples per client and local step; drawn with replacement where a client holds fewer.
        max_length: most tokens of a prompt (with its answer, where it is generated); 0 takes the model's context.
        truncate: shorten the longest field of a prompt that is too long, which is an error otherwise.
        train_limit: most training examples, drawn the same way in every run; 0 takes all.
        evaluate_limit: most evaluation examples, drawn the same way in every run; 0 takes all.
        evaluate_on: "test", or "validation": examples set aside from training in every run.
        mode: evaluation mode of the loss, loop or clients.
        dtype: of the forward pass: float32, bf16 or fp16; the point is float32.
        lora_rank: rank of the adapters, which are then the point; 0 trains all weights.
        lora_alpha: the adapters' output is scaled by lora_alpha / lora_rank.
        device: where the point and the forward pass live, such as cpu or cuda.
        base_hash: of the base model's weights, if others are to be refused.
        data_hash: of the examples, if others are to be refused.
        key: 64-bit key of split, batches and adapters.

    Raises:
        ValueError: an option out of range; a prompt that is too long; a verbalizer that is not one token; the hash of other
            weights or other examples.
        hiso_bench.datafiles.DataError: the examples are not at hand.
        llm.hub.ModelError: the model cannot be had, or needs more memory than there is.
    """

    def __init__(
        self,
        model: str = EMBEDDED,
        task: str = "toy-sst2",
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
        dtype: str = "float32",
        lora_rank: int = 0,
        lora_alpha: float = 16.0,
        device: str = "cpu",
        base_hash: str = "",
        data_hash: str = "",
        key: int = 0,
    ) -> None:
        require(mode in LOSS_MODES, "mode", mode, ", ".join(LOSS_MODES))
        require(max_length >= 0, "max_length", max_length, ">= 0 (0: no limit)")
        # What fails quickly comes first: the packages, the examples, then the model.
        library("transformers")
        shared = (clients, split, alpha, batch_size, train_limit, evaluate_limit, evaluate_on, data_hash, key)
        train, held_out = self._share(get(task), *shared)
        BaseModel.__init__(self, model, clients, dtype, lora_rank, lora_alpha, device, base_hash, key)
        require(max_length <= self.context, "max_length", max_length, f"<= {self.context}, the context of {model}")
        self.train, self.held_out = (self._encoded(part, max_length, truncate) for part in (train, held_out))
        self._require_room(mode)
        verbalizers = None if self.train.verbalizers is None else self.train.verbalizers.to(self.device)
        self.loss: LanguageLoss = LanguageLoss(self.module, verbalizers, self.dtype, mode)
        self._options = dict(
            model=model, task=task, split=split, alpha=alpha, batch_size=batch_size, max_length=max_length, truncate=truncate,
            train_limit=train_limit, evaluate_limit=evaluate_limit, evaluate_on=evaluate_on, mode=mode, dtype=dtype,
            lora_rank=lora_rank, lora_alpha=lora_alpha, device=device, key=key,
            base_hash=self.base_hash, data_hash=self.data_hash,
        )  # fmt: skip

    def _encoded(self, part: Examples, max_length: int, truncate: bool) -> Encoded:
        family = self.module.config.model_type  # type: ignore[union-attr]
        return encode(self.task, self.tokenizer, part.items, max_length or self.context, truncate, family)  # type: ignore[arg-type]

    def _require_room(self, mode: str) -> None:
        """Refuse before the first round what it has no memory for; in mode "clients" as if all of them were sampled."""
        together = self.clients if mode == "clients" else 1
        rows, parts = max(together * self.batch_size, EVALUATION_BATCH), (self.train, self.held_out)
        widest = max(len(text) for part in parts for text in part.prompts)
        longest = max(len(target) for part in parts for target in part.targets)
        tokens, positions = rows * (widest + longest), rows * longest
        needed = memory.estimate_memory(self.module.config, self.dtype, self.lora_rank, tokens, positions)
        beside = {name: size for name, size in needed.parts.items() if name != "module"}  # which is here already
        memory.require_room(dataclasses.replace(needed, parts=beside, loading=0), self.model, self.device)

    def pooled(self, indices: np.ndarray) -> Batch:
        """A batch of given training examples as `LanguageLoss` takes it, whoever holds them."""
        return tuple(part.to(self.device) for part in collate(self.train, indices))

    def scores(self, x: Point) -> Scores:
        """Scores of the evaluation examples at x."""
        net = functools.partial(self.loss.outputs, self.loss.cast(x))
        return evaluate(net, self.held_out, EVALUATION_BATCH, self.device)
