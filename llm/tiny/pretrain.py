"""Pre-training of tiny-opt on the generated corpus, and the cache of what comes of it.

The weights are a function of the key, of the corpus and of the options below, on one kind of machine: training always uses two
threads, whatever the caller's number is.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import math
import os
import shutil
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from filelock import FileLock
from torch import Tensor
from torch.nn import functional as F
from tqdm import tqdm
from transformers import OPTForCausalLM, PreTrainedTokenizerFast

from hiso_bench import datafiles, keys
from llm.hub import ModelError
from llm.tiny import grammar, tokenizer
from llm.tiny.grammar import Document
from llm.tiny.model import Shape, untrained

VERSION = 1
"""Raised when code changes what the same recipe gives."""
WEIGHTS, ABOUT = "model.safetensors", "tiny_opt.json"
_SORTED_TOGETHER = 2048


@dataclass(frozen=True)
class Recipe:
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
    """Weight in the loss of the tokens that a document sets out with. Most of them nobody could predict, and at full weight their
    noise hides what can be learned."""


class Text(NamedTuple):
    """A document as tokens, from "</s>" to "</s>", and how many of them are given."""

    ids: list[int]
    given: int


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

    It is written under a temporary name and renamed, so that nobody sees half of it, and a process waits for another that is
    already training the same model. Its name is a hash of the key, the corpus, the recipe and the versions of the libraries.

    Args:
        key: 64-bit key of the pre-training.
        quiet: no progress bar.

    Raises:
        llm.hub.ModelError: the user cache cannot be written to.

    Cost: about two minutes on two cores the first time, then milliseconds.
    """
    target = datafiles.cache_folder() / "tiny-opt" / _name(key)
    if _whole(target):
        return target
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(target.with_suffix(".lock")):
            if not _whole(target):
                _make(target, key, quiet)
    except OSError as error:
        reason = f"{type(error).__name__}: {error.strerror or error}"
        raise ModelError(
            f"tiny-opt cannot be kept in {target.parent} ({reason}); set XDG_CACHE_HOME to a folder that can be written to"
        ) from error
    return target


def _name(key: int) -> str:
    """What the weights depend on, as 16 hexadecimal digits."""
    versions = {name: metadata.version(name) for name in ("torch", "tokenizers", "transformers")}
    depends = [VERSION, key, grammar.FROZEN, dataclasses.asdict(Recipe()), versions]
    return hashlib.sha256(json.dumps(depends).encode()).hexdigest()[:16]


def _whole(target: Path) -> bool:
    """Whether the folder is there, with the weights that were written into it."""
    try:
        about = json.loads((target / ABOUT).read_text())
        with open(target / WEIGHTS, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest() == about["sha256"]
    except (OSError, ValueError):
        return False


def _make(target: Path, key: int, quiet: bool) -> None:
    """Train, write beside the target, and rename."""
    documents = grammar.corpus()
    tokens = tokenizer.train(document.given + document.told for document in documents)
    started = time.perf_counter()
    net = train(encode(documents, tokens), len(tokens), key, quiet=quiet)
    seconds = time.perf_counter() - started
    temporary = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name}."))
    try:
        net.save_pretrained(temporary)
        tokens.save_pretrained(temporary)
        with open(temporary / WEIGHTS, "rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        about = {"sha256": digest, "key": key, "corpus": grammar.FROZEN, "seconds": seconds}
        (temporary / ABOUT).write_text(json.dumps(about, indent=1) + "\n")
        shutil.rmtree(target, ignore_errors=True)  # what is there is not whole
        os.replace(temporary, target)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def encode(documents: Sequence[Document], tokens: PreTrainedTokenizerFast) -> list[Text]:
    """Documents as tokens. Cost: a few seconds for the corpus."""
    given = tokens([document.given for document in documents])["input_ids"]
    told = tokens([document.told for document in documents], add_special_tokens=False)["input_ids"]
    return [Text([*first, *second, 2], len(first)) for first, second in zip(given, told, strict=True)]


def train(
    texts: Sequence[Text], vocabulary: int, key: int, recipe: Recipe = Recipe(), quiet: bool = False
) -> OPTForCausalLM:
    """One pass of AdamW over the documents: weighted next-token cross-entropy, cosine rate.

    Args:
        texts: the documents.
        vocabulary: number of tokens.
        key: 64-bit key of initial weights and order.
        recipe: sizes and rates.
        quiet: no progress bar.

    Returns:
        The model in eval mode, float32. The same for the same arguments on one machine; global random state and the number of
        threads are left as they were.

    Cost: about two minutes for the corpus on two cores.
    """
    net = untrained(vocabulary, key, recipe.shape)
    batches = _batches(texts, recipe.batch_tokens, keys.rng(keys.derive(key, "tiny-opt order")))
    optimiser = torch.optim.AdamW(net.parameters(), recipe.rate, recipe.betas, weight_decay=recipe.weight_decay, fused=True)
    # disable=None shows the bar on a terminal only.
    bar = tqdm(batches, desc="pre-training tiny-opt", unit="step", dynamic_ncols=True, disable=True if quiet else None)
    with _threads(recipe.threads), bar:
        for step, batch in enumerate(bar):
            for group in optimiser.param_groups:
                group["lr"] = recipe.rate * _shape((step + 0.5) / len(batches), recipe)
            loss = _loss(net, [texts[i] for i in batch], recipe.given_weight)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(net.parameters(), recipe.clip)
            optimiser.step()
            optimiser.zero_grad()
    return net


def _loss(net: OPTForCausalLM, texts: Sequence[Text], given_weight: float) -> Tensor:
    """Mean cross-entropy of the next token, those that are given weighing less; padding enters nothing."""
    width = max(len(text.ids) for text in texts)
    ids, weights = torch.zeros(len(texts), width, dtype=torch.int64), torch.zeros(len(texts), width)
    mask = torch.zeros_like(ids)
    for row, text in enumerate(texts):
        ids[row, : len(text.ids)] = torch.tensor(text.ids)
        mask[row, : len(text.ids)] = 1
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


@contextlib.contextmanager
def _threads(n: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(n)
    try:
        yield
    finally:
        torch.set_num_threads(before)
