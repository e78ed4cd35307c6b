"""The generated corpus and the three generated tasks: functions of nothing but this code, frozen by a hash."""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Callable
from typing import Any, NamedTuple

from hiso_bench import keys
from llm.tasks import TASKS
from llm.tiny import pairs, passages, reviews
from llm.tiny.dice import Dice

FROZEN = "e7e2e0c2f2762ab2f4fae396767707e886ebbc9639ccd040ef54b8267fd636e2"
"""`digest()` as it was when the corpus and the tasks were fixed, before any zeroth-order run on them."""
PARTS = ("train", "validation", "test")
SIZES = {
    "toy-sst2": {"train": 4000, "validation": 500, "test": 2000},
    "toy-qqp": {"train": 4000, "validation": 500, "test": 2000},
    "toy-squad": {"train": 4000, "validation": 500, "test": 1000},
}
_WRITERS: dict[str, Any] = {"toy-sst2": reviews, "toy-qqp": pairs, "toy-squad": passages}
DOCUMENTS = {"reviews": 14_000, "films": 6_000, "pairs": 16_000, "restatements": 4_000, "passages": 18_000, "facts": 3_000}
"""Documents of each kind in the corpus."""


class Document(NamedTuple):
    """A text of the corpus in two parts."""

    given: str
    """What it sets out with: a prompt, a passage, a first sentence."""
    told: str
    """What follows from that: a label, an answer, a restatement, a sentence of the same opinion."""


@functools.cache
def corpus() -> tuple[Document, ...]:
    """The documents that tiny-opt is trained on, in a fixed random order. Cost: about a second."""
    writers: dict[str, Callable[[Dice], tuple[str, str]]] = {
        "reviews": lambda dice: reviews.labelled(dice, TASKS["toy-sst2"]),
        "films": reviews.unlabelled,
        "pairs": lambda dice: pairs.labelled(dice, TASKS["toy-qqp"]),
        "restatements": pairs.unlabelled,
        "passages": lambda dice: passages.labelled(dice, TASKS["toy-squad"]),
        "facts": passages.unlabelled,
    }
    documents = []
    for name, write in writers.items():
        dice = Dice(keys.derive(0, f"tiny-opt corpus: {name}"))
        documents += [Document(*write(dice)) for _ in range(DOCUMENTS[name])]
    return tuple(Dice(keys.derive(0, "tiny-opt corpus: order")).shuffled(documents))


def examples(task: str, part: str) -> list[dict[str, Any]]:
    """The examples of a part of a generated task; all parts of a task together hold no example twice.

    Args:
        task: "toy-sst2" (sentence, label), "toy-qqp" (question1, question2, label) or "toy-squad" (context, question, answers).
        part: "train", "validation" or "test".

    Raises:
        ValueError: an unknown task or part.
    """
    if task not in SIZES:
        raise ValueError(f"generated task is {task!r}; allowed: {', '.join(SIZES)}")
    if part not in PARTS:
        raise ValueError(f"part is {part!r}; allowed: {', '.join(PARTS)}")
    return [dict(example) for example in _examples(task)[part]]


@functools.cache
def _examples(task: str) -> dict[str, list[dict[str, Any]]]:
    dice, seen = Dice(keys.derive(0, f"examples of {task}")), set()
    parts: dict[str, list[dict[str, Any]]] = {}
    for part in PARTS:
        parts[part] = []
        while len(parts[part]) < SIZES[task][part]:
            # The kind is drawn once and only its wording again, so that every kind stays as frequent in every part.
            kind = _WRITERS[task].kind(dice)
            while (text := json.dumps(example := _WRITERS[task].example(dice, kind))) in seen:
                pass
            seen.add(text)
            parts[part].append(example)
    return parts


def digest() -> str:
    """SHA-256 of the corpus and of all examples, with prompts and answers as the templates make them now."""
    hasher = hashlib.sha256()
    for document in corpus():
        hasher.update(json.dumps(document).encode())
    for task in SIZES:
        for part in PARTS:
            for example in examples(task, part):
                text = TASKS[task].prompt(example) + TASKS[task].answer(example)
                hasher.update(json.dumps([task, part, text, example], sort_keys=True).encode())
    return hasher.hexdigest()
