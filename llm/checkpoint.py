"""A base model as the base point of a run, and a point as a model again: what a replay needs, which is no data.

A ledger names its base model by the hash of its weights. Whoever has these weights and the ledger rebuilds the same x, bit for
bit, and saves the same checkpoint (or adapter), wherever the weights lie on either machine.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
import json
import os
import shutil
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from hiso_bench import keys
from hiso_bench.ledger import LedgerError
from hiso_bench.methods.base import require
from hiso_bench.points import Layout, Point
from llm import models
from llm.hub import EMBEDDED, library
from llm.memory import KEPT_BYTES
from llm.models import LanguageModel

REPLAYED = "hiso_bench.json"


class Trainable(ABC):
    """A loaded model and the layout of its trainable leaves, which are the point.

    Args:
        read: loads the model; called again where the base point is too large to be kept.
        model: what the user calls it.
        clients: M.
        base_hash: of the weights that are expected; empty takes what is found.

    Raises:
        ValueError: an option out of range; the weights have another hash.
    """

    name: str

    def __init__(self, read: Callable[[], LanguageModel], model: str, clients: int, base_hash: str) -> None:
        require(clients >= 1, "clients", clients, ">= 1")
        self.model, self.clients, self._read = model, clients, read
        loaded = read()
        self.base_hash = loaded.base_hash
        if base_hash not in ("", self.base_hash):
            raise ValueError(f"base_hash {base_hash} is that of another base model: model {model!r} has {self.base_hash}")
        self.module, self.tokenizer = loaded.module, loaded.tokenizer
        self.source, self.context, self.dtype = loaded.source, loaded.context, loaded.dtype
        trained = [(name, p) for name, p in self.module.named_parameters() if p.requires_grad]
        self.names = tuple(name for name, _ in trained)
        self.layout = Layout.of(p for _, p in trained)
        self.device = trained[0][1].device
        leaves = tuple(p.detach() for _, p in trained)
        self._base = leaves if self.layout.numel * leaves[0].itemsize <= KEPT_BYTES else None
        for _, p in trained:
            # The module lends its structure: a forward pass brings its own leaves. One number stands for each of them here.
            p.data = p.new_zeros(()).expand(p.shape)

    def initial(self) -> Point:
        """The base point: float32. Cost: a copy, or reading the model again where it is large.

        Raises:
            llm.hub.ModelError: the model is not there any more.
            ValueError: it has changed.
        """
        if self._base is not None:
            return tuple(leaf.clone() for leaf in self._base)
        again = self._read()
        if again.base_hash != self.base_hash:
            raise ValueError(f"model {self.model!r} has changed on disk: its hash was {self.base_hash} and is {again.base_hash}")
        return tuple(again.module.get_parameter(name).detach() for name in self.names)

    def save(self, x: Point, folder: Path, told: dict[str, Any]) -> str:
        """Write the model at x, its tokenizer, and `told` (in hiso_bench.json) into a new folder; all of it appears at once.

        Returns:
            what was written, in a word.

        Raises:
            OSError: the folder exists, or cannot be written.
        """
        if folder.exists():
            raise FileExistsError(f"folder {folder} exists already; choose another one")
        folder.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}."))
        try:
            with models.quiet(), _filled(self.module, dict(zip(self.names, x, strict=True))):
                written = self._write(temporary)
            self.tokenizer.save_pretrained(temporary)
            (temporary / REPLAYED).write_text(json.dumps(told, indent=1, sort_keys=True) + "\n")
            temporary.chmod(0o755)
            os.rename(temporary, folder)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
        return written

    @abstractmethod
    def _write(self, folder: Path) -> str:
        """Write the weights of the module, which holds x now, into an empty folder; what that is, in a word."""


class BaseModel(Trainable):
    """A causal language model as a base.

    Args:
        model: "tiny-opt" or "imdb-opt" (made here), the folder of a saved model, or a name on the Hugging Face hub.
        clients: M.
        dtype: of the forward pass, float32, bf16 or fp16; the point is float32.
        lora_rank: rank of the adapters, which are then the point; 0 trains all weights.
        lora_alpha: the adapters' output is scaled by lora_alpha / lora_rank.
        device: where the point and the forward pass live, such as cpu or cuda.
        base_hash: of the weights that are expected; empty takes what is found.
        key: 64-bit key of the adapters' initial values.

    Raises:
        ValueError: an option out of range; the weights have another hash.
        llm.hub.ModelError: no such model, no causal language model, or too little memory for it; before any weight is read where
            the files allow it.
    """

    name = "lm"

    def __init__(
        self,
        model: str = EMBEDDED,
        clients: int = 6,
        dtype: str = "float32",
        lora_rank: int = 0,
        lora_alpha: float = 16.0,
        device: str = "cpu",
        base_hash: str = "",
        key: int = 0,
    ) -> None:
        library("transformers")  # where it is not installed, the embedded model need not be made
        self.key, self.lora_rank = key, lora_rank
        read = functools.partial(models.load, model, dtype, lora_rank, lora_alpha, keys.derive(key, "lora"), device)
        super().__init__(read, model, clients, base_hash)

    def _write(self, folder: Path) -> str:
        """All weights in float32 ("checkpoint"), or peft's files, which are loaded on top of the base model ("adapter")."""
        # peft would ask the hub whether the base model's embedding has been resized.
        options = {"save_embedding_layers": False} if self.lora_rank else {}
        self.module.save_pretrained(folder, **options)  # type: ignore[operator]
        return "adapter" if self.lora_rank else "checkpoint"


@contextlib.contextmanager
def _filled(module: nn.Module, leaves: Mapping[str, torch.Tensor]) -> Iterator[None]:
    """A module with the leaves of a point in place of its own, as long as the context lasts."""
    parameters = [module.get_parameter(name) for name in leaves]
    before = [p.data for p in parameters]
    try:
        for p, leaf in zip(parameters, leaves.values(), strict=True):
            p.data = leaf
        yield
    finally:
        for p, data in zip(parameters, before, strict=True):
            p.data = data


def rebuild(described: Mapping[str, Any], model: str = "", kind: Callable[..., Trainable] = BaseModel) -> Trainable:
    """The base of a recorded run.

    Args:
        described: the problem's options as its ledger has them.
        model: where the base model is on this machine, if not where the ledger says.
        kind: which base it is.

    Raises:
        LedgerError: the model found has another hash than the ledger's.
        llm.hub.ModelError: it cannot be loaded.
    """
    options = [option for option in inspect.signature(kind).parameters if option not in ("model", "base_hash")]
    base = kind(model or described["model"], **{option: described[option] for option in options})
    if base.base_hash != described["base_hash"]:
        raise LedgerError(
            f"the ledger belongs to another base model: hash {described['base_hash']} there, {base.base_hash} in {base.model!r} "
            f"(recorded as {described['model']!r}; name the right one with --model)"
        )
    return base
