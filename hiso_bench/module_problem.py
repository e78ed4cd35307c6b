"""A torch module and each client's examples, as a problem for the federation: a user's own model in a few lines."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset, default_collate

from hiso_bench import keys
from hiso_bench.layer_inputs import linear_inputs
from hiso_bench.losses import Batch, ModuleLoss, cross_entropy, layout_of
from hiso_bench.methods.base import require
from hiso_bench.partition import sample_batch
from hiso_bench.points import Point

Examples = tuple[Tensor, ...]
"""The parts of some examples, such as (inputs, labels); the first axis of each counts them."""
PerExample = Callable[[Callable[..., Any], Batch], Tensor]
"""(the model, a batch) -> one number per example, (examples,)."""
_CHUNK = 1000


class ModuleProblem:
    """Train a torch module on the data of several clients.

    The module is a base point and an architecture; it is not changed by a run. `load` puts a run's point into it.

    Args:
        module: in eval mode, without batch norm; its trainable parameters are the point, of d coordinates.
        clients: the data of each client: a tuple of tensors with examples along the first axis, or a `torch` data set of tuples,
            which is read once and kept in memory.
        per_example: (the model, a batch) -> losses (examples,); by default the cross-entropy of (inputs, labels).
        test: examples on which `evaluate` computes its means; by default those of all clients.
        metrics: further per-example numbers to evaluate, by name; their means are reported beside the loss.
        metric: the one a person watches: "loss", or a name in `metrics`, of which more is better.
        batch_size: examples per client and local step, with replacement where a client holds fewer; 0: all that it holds,
            the same in every round.
        public: examples like a client's that every party holds and no client trains on: for a method that asks for the inputs of
            linear layers. None: there are none.
        mode: how clients are evaluated together: "loop", or "clients" (one forward pass, batches of one size), or "vmap".
        key: 64-bit key of the batches.

    Raises:
        ValueError: no client, a client without examples, parts of unequal length, an option out of range, and what `ModuleLoss`
            raises of the module.
    """

    name = "module"

    def __init__(
        self,
        module: nn.Module,
        clients: Sequence[Examples | Dataset[Any]],
        per_example: PerExample = cross_entropy,
        test: Examples | Dataset[Any] | None = None,
        metrics: Mapping[str, PerExample] | None = None,
        metric: str = "loss",
        batch_size: int = 0,
        mode: str = "loop",
        key: int = 0,
        public: Examples | Dataset[Any] | None = None,
    ) -> None:
        self.metrics = dict(metrics or {})
        require(len(clients) >= 1, "clients", len(clients), "the data of at least one client")
        require(batch_size >= 0, "batch_size", batch_size, ">= 1, or 0 for all examples of a client")
        require(metric in ("loss", *self.metrics), "metric", metric, ", ".join(("loss", *self.metrics)))
        self._data = [_examples(data, f"client {i}") for i, data in enumerate(clients)]
        self._test = self._data if test is None else [_examples(test, "test")]
        self._public = () if public is None else _examples(public, "public")
        self.clients, self.batch_size, self.key = len(clients), batch_size, key
        self.metric, self.higher_is_better = metric, metric != "loss"
        self.loss = ModuleLoss(module, per_example, mode)
        self.layout = layout_of(self.loss)

    def initial(self) -> Point:
        """The module's parameters as they are."""
        return self.loss.base_point()

    def batch(self, client: np.ndarray, round_: int, step: int) -> Batch:
        """Some examples of a client; all of them where no batch size is given."""
        data = self._data[int(client)]
        if not self.batch_size:
            return data
        index = torch.from_numpy(
            sample_batch(np.arange(len(data[0])), self.batch_size, keys.batch_rng(self.key, client, round_, step))
        )
        return tuple(part[index] for part in data)

    def evaluate(self, x: Point) -> dict[str, float]:
        """Means over the test examples, 1000 at a time: "loss", and the metrics. Cost: a forward pass per metric and example."""
        wanted = {"loss": self.loss.per_example} | self.metrics
        sums, count = dict.fromkeys(wanted, 0.0), 0
        with torch.inference_mode():
            for data in self._test:
                for part in zip(*(whole.split(_CHUNK) for whole in data), strict=True):
                    count += len(part[0])
                    for name, each in wanted.items():
                        sums[name] += float(each(lambda *args, **kw: self.loss.outputs(x, *args, **kw), part).double().sum())
        return {name: total / count for name, total in sums.items()}

    def layer_inputs(self, x: Point, examples: int, draw: int) -> Sequence[Tensor | None]:
        """What enters the module's linear layers on some of the public examples; see `layer_inputs.linear_inputs`.

        Raises:
            ValueError: there are fewer public examples.
        """
        held = len(self._public[0]) if self._public else 0
        require(
            examples <= held,
            "public",
            held,
            f">= the {examples} examples, held by every party, that a method such as agzo asks for",
        )
        index = torch.from_numpy(keys.rng(keys.derive(self.key, "public", draw=draw)).permutation(held)[:examples])
        return linear_inputs(self.loss, x, tuple(part[index] for part in self._public))

    def describe(self) -> dict[str, Any]:
        """Batch size, mode and key, and a hash of the clients' data and the public examples: what a resumed run must share."""
        digest = hashlib.sha256()
        for data in (*self._data, self._public):
            for part in data:
                digest.update(f"{tuple(part.shape)} {part.dtype}".encode() + part.contiguous().numpy().tobytes())
        return {"batch_size": self.batch_size, "mode": self.loss.mode, "key": self.key, "data_hash": digest.hexdigest()[:32]}

    def load(self, x: Point) -> nn.Module:
        """Copy a point, such as `run.federation.state.x`, into the module, and return it."""
        with torch.no_grad():
            for name, leaf in zip(self.loss.names, x, strict=True):
                self.loss.module.get_parameter(name).copy_(leaf)
        return self.loss.module


def _examples(data: Examples | Dataset[Any], owner: str) -> Examples:
    if isinstance(data, Dataset):
        data = tuple(default_collate([data[i] for i in range(len(data))]))  # type: ignore[arg-type]
    parts = tuple(data)
    sizes = [len(part) for part in parts]
    if not sizes or min(sizes) < 1 or len(set(sizes)) > 1:
        raise ValueError(f"the parts of {owner} hold {sizes} examples; allowed: the same number >= 1 in each part")
    return parts
