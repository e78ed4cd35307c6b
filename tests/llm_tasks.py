"""Two small tasks, of either kind, with prompts short enough for the tiny models; and a model as it is evaluated."""

import functools

from hiso_bench import keys
from llm.encoding import encode
from llm.loss import LanguageLoss
from llm.tasks import Task
from tests import llm_helpers

TOKENIZER = llm_helpers.tokenizer()
CHOICE = Task(name="choice", template="{text}?\n", labels=("a", "b", "c"), verbalizers=("Yes", "No", "Maybe"))
ANSWER = Task(name="answer", template="{text} {question}:", metrics=("f1", "exact_match"), max_new_tokens=6)
WORDS = ("ab", "good", "cde", "f", "bad", "gh", "ijk")


def sentences(count, most=4, key=0):
    draw = keys.rng(keys.derive(key, "sentences"))
    return [" ".join(draw.choice(WORDS, draw.integers(1, most + 1))) for _ in range(count)]


CHOICES = [{"text": text, "label": i % 3} for i, text in enumerate(sentences(11))]
ANSWERS = [
    {"text": text, "question": question, "answers": [answer, "other"]}
    for text, question, answer in zip(sentences(7), sentences(7, 2, 1), sentences(7, 2, 2), strict=True)
]
EXAMPLES = {CHOICE: CHOICES, ANSWER: ANSWERS}


def encoded(task, length=64, **options):
    return encode(task, TOKENIZER, EXAMPLES[task], length, **options)


def net(name="opt", key=0):
    """A model at its own weights, as it is evaluated."""
    loss = LanguageLoss(llm_helpers.model(name, key))
    return functools.partial(loss.outputs, loss.base_point())
