"""From examples to token ids, and from token ids to batches padded on the right.

The prompt is tokenised by itself, and what follows it (a verbalizer, an answer) as it is after the template's fixed tail: so
" good" after " It was" is one token of byte-level and of sentencepiece tokenizers alike, and training and generation see the same
prompt.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hiso_bench.methods.base import require
from llm.loss import IGNORED
from llm.tasks import Example, Task

_PROBE = "a b"
# Families whose models were trained with a first token that some builds of their tokenizers leave out.
_NEEDS_BOS = ("opt",)


@dataclass(frozen=True, eq=False)
class Encoded:
    """Examples as token ids.

    Attributes:
        task: the task.
        prompts: each prompt's tokens, the family's first token included.
        targets: what the tokens after the prompt should be: (label,), or the answer's tokens, its line break included.
        verbalizers: (C,) int64 token ids in the order of the labels; None for generation and for a model with a head.
        references: the reference answers of each example; empty for classification.
        labels: (N,) int64 class ids; for generation zeros, which a label-skewed split then treats as one class.
        tokenizer: decodes what is generated.
        truncated: how many prompts had their longest field shortened.
    """

    task: Task
    prompts: tuple[list[int], ...]
    targets: tuple[list[int], ...]
    verbalizers: Tensor | None
    references: tuple[tuple[str, ...], ...]
    labels: np.ndarray
    tokenizer: Any
    truncated: int

    def __len__(self) -> int:
        return len(self.prompts)


def encode(
    task: Task,
    tokenizer: Any,
    examples: Iterable[Example],
    max_length: int,
    truncate: bool = False,
    family: str = "",
    verbalized: bool = True,
) -> Encoded:
    """Tokenise examples and check them.

    Args:
        task: the task.
        tokenizer: of transformers.
        examples: with the task's fields, and `label` or `answers`.
        max_length: most tokens a forward pass may see, at most the model's context: the prompt and, for generation, all but the
            last token of the answer or of `task.max_new_tokens` generated ones, whichever are more.
        truncate: shorten the longest field of a prompt that does not fit, at its end, by whole words; otherwise that is an error.
        family: the model's `config.model_type`; says whether a first token is needed that the tokenizer does not add ("opt").
        verbalized: whether the model answers with verbalizers; one that has a head for the classes does not.

    Raises:
        ValueError: no example; a verbalizer that is not one token; a label outside the task's set, a missing field or answer; a
            prompt that is too long (with `truncate`: one that still is with one word in its longest field).
    """
    items = list(examples)
    require(bool(items), "examples", len(items), "at least one")
    first = beginning(tokenizer, family)
    prompts = [first + ids for ids in _ids(tokenizer, [task.prompt(item) for item in items])]
    if task.labels:
        verbalizers = torch.tensor(verbalizer_ids(task, tokenizer)) if verbalized else None
        labels, references = np.array([task.label(item) for item in items], dtype=np.int64), ()
        targets = [[int(label)] for label in labels]
        rooms = [max_length] * len(items)
    else:
        verbalizers, labels = None, np.zeros(len(items), dtype=np.int64)
        references = tuple(task.answers(item) for item in items)
        targets = _continuations(task, tokenizer, [task.answer(item) for item in items])
        rooms = [max_length + 1 - max(len(target), task.max_new_tokens) for target in targets]
    long = [i for i, (prompt, room) in enumerate(zip(prompts, rooms, strict=True)) if len(prompt) > room]
    if long and not truncate:
        worst = max(long, key=lambda i: len(prompts[i]) - rooms[i])
        answer = f" and {max_length - rooms[worst]} for the answer" if not task.labels else ""
        raise ValueError(
            f"max_length {max_length} is too short for {len(long)} of {len(items)} examples of {task.name}: number {worst} takes "
            f"{len(prompts[worst])} tokens{answer}; raise max_length up to the model's context, or truncate the longest field"
        )
    for i in long:
        prompts[i] = first + _shortened(task, tokenizer, items[i], rooms[i] - len(first))
    return Encoded(task, tuple(prompts), tuple(targets), verbalizers, references, labels, tokenizer, len(long))


def collate(encoded: Encoded, indices: Sequence[int] | np.ndarray) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """A batch as `llm.loss.LanguageLoss` takes it.

    Returns:
        input_ids (B, T), attention_mask (B, T), positions (B, A) and targets (B, A), int64. Row b holds prompt and answer but for
        the answer's last token, then padding; the logits at `positions` predict `targets`, a label for classification (A = 1) and
        the answer's tokens for generation, then `IGNORED`.
    """
    prompts = [encoded.prompts[int(i)] for i in indices]
    targets = [encoded.targets[int(i)] for i in indices]
    fed = [prompt + ([] if encoded.task.labels else target[:-1]) for prompt, target in zip(prompts, targets, strict=True)]
    ids, mask = pad(fed)
    answer, given = pad(targets)
    starts = torch.tensor([len(prompt) - 1 for prompt in prompts])
    # Positions of what is ignored must exist too; the prompt's last one always does.
    positions = starts[:, None] + torch.arange(answer.shape[1]) * given
    return ids, mask, positions, answer.masked_fill(given == 0, IGNORED)


def pad(rows: Sequence[Sequence[int]], width: int = 0) -> tuple[Tensor, Tensor]:
    """Rows padded on the right with zeros to `width` (or the longest), and a mask that is 1 on what was given; int64 (B, T)."""
    width = max(width, *map(len, rows))
    ids = torch.zeros(len(rows), width, dtype=torch.int64)
    mask = torch.zeros_like(ids)
    for i, row in enumerate(rows):
        ids[i, : len(row)] = torch.tensor(row)
        mask[i, : len(row)] = 1
    return ids, mask


def beginning(tokenizer: Any, family: str = "") -> list[int]:
    """What the family puts before every text: what the tokenizer adds there, or the first token that OPT was trained with.

    Raises:
        ValueError: the tokenizer changes a text beyond adding tokens around it, or lacks the token that the family needs.
    """
    plain, dressed = _ids(tokenizer, [_PROBE])[0], list(tokenizer(_PROBE)["input_ids"])
    starts = [i for i in range(len(dressed) - len(plain) + 1) if dressed[i : i + len(plain)] == plain]
    if not plain or not starts:
        raise ValueError(
            f"the tokenizer makes {_PROBE!r} {plain}, and {dressed} with special tokens; allowed: tokens added around it"
        )
    first = dressed[: starts[0]]
    if not first and family in _NEEDS_BOS:
        if tokenizer.bos_token_id is None:
            raise ValueError(f"the tokenizer has no bos_token, and {family} models need one first; set it in its configuration")
        first = [int(tokenizer.bos_token_id)]
    return first


def verbalizer_ids(task: Task, tokenizer: Any) -> list[int]:
    """The token of each verbalizer, in the order of the labels.

    Raises:
        ValueError: one is not exactly one known token, or two are the same.
    """
    found = _continuations(task, tokenizer, task.verbalizers)
    for verbalizer, ids in zip(task.verbalizers, found, strict=True):
        tokens = tokenizer.convert_ids_to_tokens(ids)
        if len(ids) != 1 or tokens[0] == tokenizer.unk_token:
            raise ValueError(f"task {task.name}: verbalizer {verbalizer!r} is the tokens {tokens} here; allowed: one known token")
    flat = [ids[0] for ids in found]
    if len(set(flat)) != len(flat):
        raise ValueError(f"task {task.name}: verbalizers {task.verbalizers} are the tokens {flat} here; allowed: all different")
    return flat


def _continuations(task: Task, tokenizer: Any, texts: Sequence[str]) -> list[list[int]]:
    """The tokens of each text as they are after the template's tail."""
    tail, *wholes = _ids(tokenizer, [task.tail, *(task.tail + text for text in texts)])
    for text, whole in zip(texts, wholes, strict=True):
        if whole[: len(tail)] != tail:
            raise ValueError(
                f"task {task.name}: {text!r} merges with the end of the prompt, {task.tail!r}, into the tokens "
                f"{tokenizer.convert_ids_to_tokens(whole)}; allowed: a tokenizer that splits between them"
            )
    return [whole[len(tail) :] for whole in wholes]


def _shortened(task: Task, tokenizer: Any, example: Example, room: int) -> list[int]:
    """The prompt's tokens with as many words of its longest field as fit into `room` tokens."""
    lengths = dict(zip(task.fields, map(len, _ids(tokenizer, [example[field] for field in task.fields])), strict=True))
    field = max(task.fields, key=lengths.__getitem__)
    ends = [match.end() for match in re.finditer(r"\S+", example[field])]

    def prompt(words: int) -> list[int]:
        return _ids(tokenizer, [task.prompt({**example, field: example[field][: ends[words - 1]]})])[0]

    fits, too_many = 0, len(ends)
    while too_many - fits > 1:
        middle = (fits + too_many) // 2
        fits, too_many = (middle, too_many) if len(prompt(middle)) <= room else (fits, middle)
    if fits == 0:
        raise ValueError(f"task {task.name}: {room} tokens are too few for a prompt with one word of {field!r}; raise max_length")
    return prompt(fits)


def _ids(tokenizer: Any, texts: Sequence[str]) -> list[list[int]]:
    return [list(ids) for ids in tokenizer(list(texts), add_special_tokens=False, verbose=False)["input_ids"]]
