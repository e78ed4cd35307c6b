"""Pre-training of imdb-opt, and the cache of what comes of it.

The weights are a function of the key, the files, the options below and the versions of the libraries, on one kind of machine:
training uses one thread, whatever the caller's number is.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import time
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedTokenizerFast

from hiso_bench import datafiles, keys
from llm import keeping, models, pretraining
from llm.encoding import verbalizer_ids
from llm.imdb import documents, text
from llm.imdb.documents import TASK, Mix
from llm.tiny import tokenizer
from llm.tiny.model import Shape, untrained

NAME = "imdb-opt"
VERSION = 1
"""Raised when code changes what the same recipe gives."""
ABOUT = "imdb_opt.json"
_CURVE = 50


@dataclass(frozen=True)
class Recipe(pretraining.Recipe):
    """How the model is trained."""

    shape: Shape = field(
        # Attention that starts even hands the last position the mean of the words before it, which tells most of a review's tone.
        default_factory=lambda: Shape(width=256, layers=4, heads=4, context=256, query_key=(0.0, 0.3))
    )
    threads: int = 1
    batch_tokens: int = 768
    rate: float = 1e-3
    last_rate: float = 5e-5
    warmup: float = 0.04
    betas: tuple[float, float] = (0.9, 0.98)
    weight_decay: float = 0.05
    clip: float = 1.0
    vocabulary: int = 16_384
    mix: Mix = field(
        default_factory=lambda: Mix(
            tokens=2_000_000, plain=0.1, plain_words=40, sentences=4, words=60, phrases=0.2, strong_only=False, plain_weight=0.1
        )
    )


def folder(key: int = 0, quiet: bool = False) -> Path:
    """The folder of imdb-opt, as `save_pretrained` writes one, in the user cache; it is pre-trained where it is not there.

    An interrupted training goes on where its state was last kept (every two minutes).

    Args:
        key: 64-bit key of the pre-training.
        quiet: no progress bar.

    Raises:
        hiso_bench.datafiles.DataError: a file of the data is missing or damaged.
        llm.hub.ModelError: the user cache cannot be written to.

    Cost: about half an hour on one core the first time, then a hash over the files.
    """
    files = {name: datafiles.sha256_of(path) for name, path in text.paths().items()}
    target = datafiles.cache_folder() / NAME / _name(key, files)
    return keeping.keep(target, NAME, ABOUT, lambda temporary: _make(temporary, target.with_suffix(".state"), key, files, quiet))


def _name(key: int, files: dict[str, str]) -> str:
    """What the weights depend on, as 16 hexadecimal digits."""
    versions = {name: metadata.version(name) for name in ("torch", "tokenizers", "transformers")}
    depends = [VERSION, key, files, dataclasses.asdict(Recipe()), versions]
    return hashlib.sha256(json.dumps(depends).encode()).hexdigest()[:16]


def _make(temporary: Path, saved: Path, key: int, files: dict[str, str], quiet: bool) -> dict[str, Any]:
    """Train and write; returns how that was done."""
    recipe, corpus = Recipe(), text.load()
    tokens = _tokenizer(corpus, recipe.vocabulary)
    texts, counts = documents.documents(corpus.reviews, tokens, recipe.mix, keys.rng(keys.derive(key, "imdb-opt documents")))
    net = untrained(len(tokens), keys.derive(key, "imdb-opt"), recipe.shape)
    started, cpu = time.perf_counter(), time.process_time()
    verbalizers = torch.tensor(verbalizer_ids(TASK, tokens))
    loss = functools.partial(documents.loss, verbalizers=verbalizers, plain_weight=recipe.mix.plain_weight)
    losses = pretraining.train(net, texts, recipe, loss, keys.derive(key, "imdb-opt order"), NAME, quiet, saved)
    with models.quiet():
        net.save_pretrained(temporary)
        tokens.save_pretrained(temporary)
    return {
        "key": key,
        "files": files,
        "left_out": {"equal": corpus.equal, "holding": corpus.holding},
        "parameters": sum(p.numel() for p in net.parameters()),
        "documents": counts,
        "steps": len(losses),
        "loss": [float(np.mean(part)) for part in np.array_split(losses, min(_CURVE, len(losses)))],
        "seconds": time.perf_counter() - started,
        "cpu_seconds": time.process_time() - cpu,
    }


def _tokenizer(corpus: text.Corpus, vocabulary: int) -> PreTrainedTokenizerFast:
    """Trained on the sentences in the template, so that its words are single tokens. Cost: about five seconds."""
    return tokenizer.train(
        (
            TASK.prompt({"sentence": sentence}) + TASK.verbalizers[i % 2]
            for i, sentence in enumerate(s for review in corpus.reviews for s in review.sentences)
        ),
        vocabulary,
    )
