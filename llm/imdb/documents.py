"""The documents of the pre-training: labelled spans in the template of SST-2, and short windows of plain text; and their loss."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import OPTForCausalLM, PreTrainedTokenizerFast

from llm.encoding import pad, verbalizer_ids
from llm.imdb.text import Review
from llm.pretraining import Text
from llm.tasks import TASKS

TASK = TASKS["sst2"]
_STRONG = (2, 9)
_PER_CALL = 4096


@dataclass(frozen=True)
class Mix:
    """What the documents are.

    Attributes:
        tokens: of all the documents, about.
        plain: share of them in windows of plain text.
        plain_words: of a window, at least (it ends with a sentence).
        sentences: most consecutive sentences in a span.
        words: most words of a span.
        phrases: share of the spans that are cut to a phrase of 5 to 15 words.
        strong_only: spans come from reviews rated 1, 2, 9 or 10 only.
        plain_weight: of a window in the loss, against a span.
    """

    tokens: int
    plain: float
    plain_words: int
    sentences: int
    words: int
    phrases: float
    strong_only: bool
    plain_weight: float


def documents(
    reviews: Sequence[Review], tokens: PreTrainedTokenizerFast, mix: Mix, rng: np.random.Generator
) -> tuple[list[Text], dict[str, int]]:
    """Spans and windows as tokens, and how many of each there are; of a span all but the verbalizer is given.

    A span that is long enough is drawn once in every pass over the labelled reviews; every pass cuts them anew.

    Raises:
        ValueError: a verbalizer is not one token; no review gives a span.

    Cost: about ten seconds per million tokens.
    """
    verbalizers = verbalizer_ids(TASK, tokens)
    labelled = [r for r in reviews if r.rating and (not mix.strong_only or r.rating <= _STRONG[0] or r.rating >= _STRONG[1])]
    texts: list[Text] = []
    counts = {"spans": 0, "span_tokens": 0, "windows": 0, "window_tokens": 0}
    spans = _encoded(_spans(labelled, mix, rng), tokens)
    while counts["span_tokens"] < mix.tokens * (1 - mix.plain):
        ids, rating = next(spans)
        texts.append(Text([*ids, verbalizers[int(rating > 5)]], len(ids)))
        counts["spans"] += 1
        counts["span_tokens"] += len(ids) + 1
    windows = _encoded(_windows(reviews, mix, rng), tokens)
    end: Any = tokens.eos_token_id
    while counts["window_tokens"] < mix.tokens * mix.plain:
        ids, _ = next(windows)
        texts.append(Text([*ids, end], 1))
        counts["windows"] += 1
        counts["window_tokens"] += len(ids) + 1
    return texts, counts


def loss(net: OPTForCausalLM, texts: Sequence[Text], verbalizers: Tensor, plain_weight: float) -> Tensor:
    """Mean loss of the documents: what each span's verbalizer costs among the verbalizers, and a window's mean per token.

    A span's is -log p(verbalizer | one of the verbalizers). Against the whole vocabulary a model first learns at length that one
    of them comes next, and hardly which. A window's is plain_weight times the mean of -log p(token | what stands before it).

    Args:
        net: the model.
        texts: spans and windows.
        verbalizers: (C,) token ids.
        plain_weight: see `Mix`.

    Cost: a forward pass; the head runs where the loss looks only, and for spans on C rows.
    """
    ids, mask = pad([text.ids for text in texts])
    hidden = net.model.decoder(input_ids=ids, attention_mask=mask).last_hidden_state
    lengths = mask.sum(1)
    span = torch.tensor([text.given > 1 for text in texts])
    last, answers = hidden[span, lengths[span] - 2], ids[span, lengths[span] - 1]
    labels = (answers[:, None] == verbalizers).long().argmax(1)
    total = F.cross_entropy(last @ net.lm_head.weight[verbalizers].T, labels, reduction="sum")
    if not bool(span.all()):
        counted = mask[~span, 1:] > 0
        nll = F.cross_entropy(net.lm_head(hidden[~span, :-1][counted]), ids[~span, 1:][counted], reduction="none")
        total = total + plain_weight * (nll / counted.sum(1).repeat_interleave(counted.sum(1))).sum()
    return total / len(texts)


def _spans(labelled: Sequence[Review], mix: Mix, rng: np.random.Generator) -> Iterator[tuple[str, int]]:
    """Prompts and ratings, pass after pass."""
    while True:
        found = 0
        for i in rng.permutation(len(labelled)):
            for span in _cut(labelled[i].sentences, mix, rng):
                found += 1
                yield TASK.prompt({"sentence": span}), labelled[i].rating
        if not found:
            raise ValueError("no labelled review gives a span of three words; put the whole files into the data folder")


def _cut(sentences: Sequence[str], mix: Mix, rng: np.random.Generator) -> Iterator[str]:
    at = 0
    while at < len(sentences):
        size = int(rng.integers(1, mix.sentences + 1))
        words = " ".join(sentences[at : at + size]).split()[: mix.words]
        at += size
        if rng.random() < mix.phrases and len(words) > (length := int(rng.integers(5, 16))):
            first = int(rng.integers(0, len(words) - length + 1))
            words = words[first : first + length]
        if len(words) >= 3:
            yield " ".join(words)


def _windows(reviews: Sequence[Review], mix: Mix, rng: np.random.Generator) -> Iterator[tuple[str, int]]:
    """Consecutive sentences of a review, pass after pass; what is left over at a review's end is too short and left out."""
    while True:
        found = 0
        for i in rng.permutation(len(reviews)):
            words: list[str] = []
            for sentence in reviews[i].sentences:
                words += sentence.split()
                if len(words) >= mix.plain_words:
                    yield " ".join(words[: 2 * mix.plain_words]), 0
                    words, found = [], found + 1
        if not found:
            raise ValueError(f"no review gives a window of {mix.plain_words} words; put the whole files into the data folder")


def _encoded(texts: Iterator[tuple[str, int]], tokens: PreTrainedTokenizerFast) -> Iterator[tuple[list[int], int]]:
    """Texts as tokens, many at a time."""
    while True:
        batch = [next(texts) for _ in range(_PER_CALL)]
        ids: Any = tokens([text for text, _ in batch])["input_ids"]
        yield from zip(ids, (rating for _, rating in batch), strict=True)
