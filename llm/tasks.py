"""The language tasks: prompt templates, verbalizers, and what each is scored by.

A task turns an example (a dict of strings, and a label or answers) into a prompt that ends where the model is to go on, and into
the text that it should go on with: one token for a classification task, a short answer and a line break for a generation task.

Wording and verbalizers are those of MeZO (arXiv 2305.17333) and of the official code of DeComFL and HiSo, but for white space and
punctuation. Two things of that code are repaired: QQP shows both questions (there: the first one twice), and CB has three classes
(there: the third is scored as the first).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from string import Formatter
from typing import Any, Literal

import numpy as np

Kind = Literal["classification", "generation"]
Example = Mapping[str, Any]
"""The task's fields (str), and `label` (int) for classification or `answers` (non-empty sequence of str) for generation."""


@dataclass(frozen=True, kw_only=True)
class Task:
    r"""One task.

    Attributes:
        name: as in `TASKS`.
        template: the prompt, with a `{field}` for every input field; it ends where the answer starts.
        labels: names of the classes in the order of their ids, as data files write them; none for generation.
        verbalizers: what stands for each class, appended to the prompt as it is (with its leading space, if any); each must be a
            single token of the model's tokenizer, which `llm.encoding` checks.
        metrics: what is reported, the headline first: accuracy, macro_f1 (mean of the classes' F1), positive_f1 (of class 1);
            f1 and exact_match (SQuAD's) for generation.
        max_new_tokens: how far a generated answer may go; it stops at a line break or the end-of-sequence token before.

    Raises:
        ValueError: as many verbalizers as labels are needed, all different; a generation task has neither.
    """

    name: str
    template: str
    labels: tuple[str, ...] = ()
    verbalizers: tuple[str, ...] = ()
    metrics: tuple[str, ...] = ("accuracy",)
    max_new_tokens: int = 0

    def __post_init__(self) -> None:
        if len(self.labels) != len(set(self.labels)) or len(self.labels) == 1:
            raise ValueError(f"task {self.name}: labels {self.labels}; allowed: none, or at least two different ones")
        if len(self.verbalizers) != len(self.labels) or len(set(self.verbalizers)) != len(self.labels):
            raise ValueError(
                f"task {self.name}: verbalizers {self.verbalizers}; allowed: one for each of {self.labels}, all different"
            )
        if (self.kind == "generation") != (self.max_new_tokens > 0):
            raise ValueError(f"task {self.name}: max_new_tokens {self.max_new_tokens}; allowed: > 0 for generation, else 0")

    @property
    def kind(self) -> Kind:
        """Whether the answer is one of the verbalizers or free text."""
        return "classification" if self.labels else "generation"

    @property
    def fields(self) -> tuple[str, ...]:
        """Input fields in the order of the prompt."""
        return tuple(dict.fromkeys(field for _, field, _, _ in Formatter().parse(self.template) if field))

    @property
    def metric(self) -> str:
        """The headline metric."""
        return self.metrics[0]

    @property
    def tail(self) -> str:
        """The fixed text after the last field: what a verbalizer or an answer follows directly."""
        return self.template[self.template.rindex("}") + 1 :]

    def prompt(self, example: Example) -> str:
        """The prompt of an example, its fields stripped of white space around them.

        Raises:
            ValueError: the example lacks a field, or one is not text.
        """
        values = {}
        for field in self.fields:
            value = example.get(field)
            if not isinstance(value, str):
                raise ValueError(f"task {self.name}: field {field!r} is {value!r}; allowed: text")
            values[field] = value.strip()
        return self.template.format(**values)

    def label(self, example: Example) -> int:
        """The class id of an example.

        Raises:
            ValueError: it has no label in 0..C-1, or the task has no labels.
        """
        value = example.get("label")
        if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or not 0 <= value < len(self.labels):
            allowed = f"an integer in 0..{len(self.labels) - 1}" if self.labels else "no label: the task is generation"
            raise ValueError(f"task {self.name}: label {value!r}; allowed: {allowed}")
        return int(value)

    def answers(self, example: Example) -> tuple[str, ...]:
        """The reference answers of a generation example, white space normalised, in order.

        Raises:
            ValueError: there is none, or one is not text or is blank.
        """
        value = example.get("answers")
        if isinstance(value, str) or not value or not all(isinstance(answer, str) and answer.strip() for answer in value):
            raise ValueError(f"task {self.name}: answers {value!r}; allowed: a non-empty sequence of texts")
        return tuple(" ".join(answer.split()) for answer in value)

    def answer(self, example: Example) -> str:
        r"""What the prompt should be followed by: the label's verbalizer, or a space, the first reference answer and "\n"."""
        return self.verbalizers[self.label(example)] if self.labels else f" {self.answers(example)[0]}\n"


_NO_YES = ("No", "Yes")
_SST2 = Task(name="sst2", template="{sentence} It was", labels=("negative", "positive"), verbalizers=(" bad", " good"))
_QQP = Task(
    name="qqp",
    template="Question 1: {question1}\nQuestion 2: {question2}\nAre they semantically equivalent? Yes or No?\n",
    labels=("not_duplicate", "duplicate"),
    verbalizers=_NO_YES,
    metrics=("accuracy", "positive_f1"),
)
_SQUAD = Task(
    name="squad",
    template="Title: {title}\nContext: {context}\nQuestion: {question}\nAnswer concisely in a few words:",
    metrics=("f1", "exact_match"),
    max_new_tokens=50,
)
_ALL = (
    _SST2,
    _QQP,
    Task(
        name="rte",
        template='{premise}\nDoes this mean that "{hypothesis}" is true? Yes or No?\n',
        labels=("entailment", "not_entailment"),
        verbalizers=("Yes", "No"),
    ),
    Task(
        name="cb",
        template='Suppose {premise} Can we infer that "{hypothesis}"? Yes, No, or Maybe?\n',
        labels=("entailment", "contradiction", "neutral"),
        verbalizers=("Yes", "No", "Maybe"),
        metrics=("accuracy", "macro_f1"),
    ),
    Task(
        name="boolq",
        template="{passage}\nQuestion: {question}?\nIs that correct? Yes or No?\n",
        labels=("false", "true"),
        verbalizers=_NO_YES,
    ),
    Task(
        name="wic",
        template='Does the word "{word}" have the same meaning in these two sentences? Yes or No?\n{sentence1}\n{sentence2}\n',
        labels=("false", "true"),
        verbalizers=_NO_YES,
    ),
    Task(
        name="wsc",
        template='{text}\nIn the previous sentence, does the pronoun "{span2_text}" refer to {span1_text}? Yes or No?\n',
        labels=("false", "true"),
        verbalizers=_NO_YES,
    ),
    Task(
        name="multirc",
        template='{paragraph}\nQuestion: {question}\nI found this answer "{answer}". Is that correct? Yes or No?\n',
        labels=("false", "true"),
        verbalizers=_NO_YES,
        metrics=("accuracy", "positive_f1"),
    ),
    _SQUAD,
    Task(
        name="drop",
        template="Passage: {passage}\nQuestion: {question}\nAnswer:",
        metrics=("f1", "exact_match"),
        max_new_tokens=50,
    ),
    # Generated twins: the same templates and verbalizers. The generated passages have no title, so its line goes.
    dataclasses.replace(_SST2, name="toy-sst2"),
    dataclasses.replace(_QQP, name="toy-qqp"),
    dataclasses.replace(_SQUAD, name="toy-squad", template=_SQUAD.template.removeprefix("Title: {title}\n"), max_new_tokens=16),
)
TASKS: dict[str, Task] = {task.name: task for task in _ALL}
TOY_PREFIX = "toy-"


def get(name: str) -> Task:
    """The task of that name.

    Raises:
        ValueError: there is none; the message lists them all.
    """
    if name not in TASKS:
        raise ValueError(f"task {name!r} is unknown; allowed: {', '.join(TASKS)}")
    return TASKS[name]
