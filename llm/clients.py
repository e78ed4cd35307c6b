"""A task's examples split over clients: what every problem of a model and a task has in common."""

from __future__ import annotations

import hashlib
import json
from abc import abstractmethod
from typing import Any

import numpy as np

from hiso_bench import keys
from hiso_bench.losses import Batch, ModuleLoss
from hiso_bench.methods.base import require
from hiso_bench.partition import dirichlet, iid, sample_batch
from hiso_bench.points import Point
from llm import examples
from llm.checkpoint import Trainable
from llm.encoding import Encoded
from llm.evaluation import Scores
from llm.examples import Examples
from llm.tasks import Task

SPLITS = ("dirichlet", "iid")
PARTS = ("test", "validation")
EVALUATION_BATCH = 32


class TaskProblem(Trainable):
    """The `Problem` protocol for a model and a task; subclasses encode the examples, and give the loss and the scores."""

    higher_is_better = True
    loss: ModuleLoss
    train: Encoded
    held_out: Encoded
    _options: dict[str, Any]

    def _share(
        self,
        task: Task,
        clients: int,
        split: str,
        alpha: float,
        batch_size: int,
        train_limit: int,
        evaluate_limit: int,
        evaluate_on: str,
        data_hash: str,
        key: int,
    ) -> tuple[Examples, Examples]:
        """Load the examples and say which client holds which; gives the ones to train and to evaluate on.

        Raises:
            ValueError: an option out of range; the hash of other examples.
            hiso_bench.datafiles.DataError: the examples are not at hand.
        """
        require(split in SPLITS, "split", split, ", ".join(SPLITS))
        require(evaluate_on in PARTS, "evaluate_on", evaluate_on, ", ".join(PARTS))
        require(batch_size >= 1, "batch_size", batch_size, ">= 1")
        for option, value in (("train_limit", train_limit), ("evaluate_limit", evaluate_limit)):
            require(value >= 0, option, value, ">= 0 (0: no limit)")
        self.task, self.metric, self.key = task, task.metric, key
        self.batch_size, self.evaluate_on = batch_size, evaluate_on
        train = _limited(examples.load(task.name, "train"), train_limit)
        held_out = _limited(examples.load(task.name, evaluate_on), evaluate_limit)
        self.data_source, self.evaluation_source = train.source, held_out.source
        self.data_hash = _hash(train, held_out)
        if data_hash not in ("", self.data_hash):
            raise ValueError(f"data_hash {data_hash} is that of other examples: those of {task.name} have {self.data_hash}")
        rng = keys.rng(keys.derive(key, "split"))
        labels = train.labels() if task.labels else np.zeros(len(train), dtype=np.int64)
        self._owned = iid(len(train), clients, rng) if split == "iid" else dirichlet(labels, clients, alpha, rng)
        return train, held_out

    @abstractmethod
    def pooled(self, indices: np.ndarray) -> Batch:
        """A batch of given training examples, whoever holds them."""

    @abstractmethod
    def scores(self, x: Point) -> Scores:
        """Scores of the evaluation examples."""

    def owned(self, client: int) -> np.ndarray:
        """The training examples of a client, ascending."""
        return self._owned[client]

    def batch(self, client: np.ndarray, round_: int, step: int) -> Batch:
        """A client's batch as the loss takes it, batch_size examples."""
        rng = keys.rng(keys.derive(self.key, "batch", client=int(client), round=round_, step=step))
        return self.pooled(sample_batch(self.owned(int(client)), self.batch_size, rng))

    def evaluate(self, x: Point) -> dict[str, float]:
        """Per-example mean loss, the task's metrics (0..1), and the ends of the headline's 99.9 % interval over test sets."""
        scores = self.scores(x)
        interval = scores.interval(self.metric)
        return scores.values() | {f"{self.metric}_low": interval.low, f"{self.metric}_high": interval.high}

    def describe(self) -> dict[str, Any]:
        """The options."""
        return dict(self._options)


def _limited(part: Examples, limit: int) -> Examples:
    return part.sample(limit) if limit else part


def _hash(*parts: Examples) -> str:
    """A hash of the examples' texts, labels and answers, in order; 32 hexadecimal digits."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(json.dumps([part.task.name, part.part, part.items], sort_keys=True).encode())
    return digest.hexdigest()[:32]
