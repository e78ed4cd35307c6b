"""Pre-training of tiny-opt on the generated corpus, and the cache of what comes of it.

The weights are a function of the key, of the corpus and of the options below, on one kind of machine: training always uses two
threads, whatever the caller's number is.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from transformers import OPTForCausalLM, PreTrainedTokenizerFast

from hiso_bench import datafiles, keys
from llm import keeping, pretraining
from llm.keeping import WEIGHTS
from llm.pretraining import Text
from llm.tiny import grammar, tokenizer
from llm.tiny.grammar import Document
from llm.tiny.model import Shape, untrained

__all__ = ["ABOUT", "VERSION", "WEIGHTS", "Recipe", "Text", "encode", "folder", "load", "train"]

VERSION = 1
"""Raised when code changes what the same recipe gives."""
ABOUT = "tiny_opt.json"


@dataclass(frozen=True)
class Recipe(pretraining.Recipe):
    """How the model is trained."""

    shape: Shape = field(default_factory=Shape)
    threads: int = 2
    batch_tokens: int = 768
    rate: float = 2e-3
    last_rate: float = 1e-4
    warmup: float = 0.04
    betas: tuple[float, float] = (0.9, 0.98)
    weight_decay: float = 0.05
    clip: float = 1.0
    given_weight: float = 0.1
    """Most of the tokens that a document sets out with nobody could predict, and at full weight their noise hides what can be
    learned."""


def load(key: int = 0) -> tuple[OPTForCausalLM, PreTrainedTokenizerFast]:
    """tiny-opt and its tokenizer: the model in eval mode, float32, without a key-value cache.

    Args:
        key: 64-bit key of the pre-training.

    Raises:
        llm.hub.ModelError: the user cache cannot be written to.

    Cost: as `folder`. Global random generators are left as they are.
    """
    path = folder(key)
    with torch.random.fork_rng(devices=[]):
        net = OPTForCausalLM.from_pretrained(path, local_files_only=True)
        return net.eval(), PreTrainedTokenizerFast.from_pretrained(path, local_files_only=True)


def folder(key: int = 0, quiet: bool = False) -> Path:
    """The folder of tiny-opt, as `save_pretrained` writes one, in the user cache; the model is pre-trained where it is not there.

    Its name is a hash of the key, the corpus, the recipe and the versions of the libraries.

    Args:
        key: 64-bit key of the pre-training.
        quiet: no progress bar.

    Raises:
        llm.hub.ModelError: the user cache cannot be written to.

    Cost: some minutes on two cores the first time, then milliseconds.
    """
    target = datafiles.cache_folder() / "tiny-opt" / _name(key)
    return keeping.keep(target, "tiny-opt", ABOUT, lambda temporary: _make(temporary, key, quiet))


def made(key: int = 0) -> bool:
    """Whether tiny-opt is in the user cache, so that `folder` costs nothing."""
    return (datafiles.cache_folder() / "tiny-opt" / _name(key) / ABOUT).exists()


def _name(key: int) -> str:
    """What the weights depend on, as 16 hexadecimal digits."""
    versions = {name: metadata.version(name) for name in ("torch", "tokenizers", "transformers")}
    depends = [VERSION, key, grammar.FROZEN, dataclasses.asdict(Recipe()), versions]
    return hashlib.sha256(json.dumps(depends).encode()).hexdigest()[:16]


def _make(temporary: Path, key: int, quiet: bool) -> dict[str, Any]:
    """Train and write; returns how that was done."""
    documents = grammar.corpus()
    tokens = tokenizer.train(document.given + document.told for document in documents)
    started = time.perf_counter()
    net = train(encode(documents, tokens), len(tokens), key, quiet=quiet)
    seconds = time.perf_counter() - started
    net.save_pretrained(temporary)
    tokens.save_pretrained(temporary)
    return {"key": key, "corpus": grammar.FROZEN, "seconds": seconds}


def encode(documents: Sequence[Document], tokens: PreTrainedTokenizerFast) -> list[Text]:
    """Documents as tokens. Cost: a few seconds for the corpus."""
    given = tokens([document.given for document in documents])["input_ids"]
    told = tokens([document.told for document in documents], add_special_tokens=False)["input_ids"]
    return [Text([*first, *second, 2], len(first)) for first, second in zip(given, told, strict=True)]


def train(texts: Sequence[Text], vocabulary: int, key: int, recipe: Recipe = Recipe(), quiet: bool = False) -> OPTForCausalLM:
    """A model that has seen every document once (see `llm.pretraining.train`).

    Args:
        texts: the documents.
        vocabulary: number of tokens.
        key: 64-bit key of initial weights and order.
        recipe: sizes and rates.
        quiet: no progress bar.

    Returns:
        The model in eval mode, float32. The same for the same arguments on one machine; global random state and the number of
        threads are left as they were.

    Cost: some minutes for the corpus on two cores.
    """
    net = untrained(vocabulary, key, recipe.shape)
    loss = functools.partial(pretraining.next_token, given_weight=recipe.given_weight)
    pretraining.train(net, texts, recipe, loss, keys.derive(key, "tiny-opt order"), "tiny-opt", quiet)
    return net
