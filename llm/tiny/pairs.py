"""Pairs of questions that ask the same thing in other words, or something else.

What the generated corpus says of pairs differs from what the task toy-qqp asks in two ways:

- whoever labelled the corpus was lenient and mostly called a pair equivalent that asks for different actions on one thing; the
  task is strict;
- half of the things that the task asks about occur in the corpus only in restatements, without a label.
"""

from __future__ import annotations

from llm.tasks import Task
from llm.tiny.dice import Dice

PHRASES = (
    "How do I {verb} a {thing}?",
    "What is the best way to {verb} a {thing}?",
    "How can someone {verb} a {thing}?",
    "Is there an easy way to {verb} a {thing}?",
    "Where can I learn to {verb} a {thing}?",
    "What should I know to {verb} a {thing}?",
)
ACTIONS = (
    ("repair", "fix"),
    ("buy", "purchase"),
    ("clean", "wash"),
    ("paint", "colour"),
    ("move", "transport"),
    ("choose", "select"),
)
THINGS = tuple("guitar bicycle boat clock lamp chair table piano kettle fence door window".split())
UNLABELLED_THINGS = tuple("tent violin sofa mirror wagon drum".split())
TASK_THINGS = THINGS[:6] + UNLABELLED_THINGS

# Corpus. Kinds of pairs: the same question; another action on the same thing; the same action on another thing; both.
CORPUS_KINDS = {"same": 30, "action": 20, "thing": 35, "both": 15}
LENIENT = 0.9
"""How often a corpus pair of the same thing but different actions is called equivalent."""

# Task.
TASK_KINDS = {"same": 50, "action": 25, "thing": 20, "both": 5}


def _question(dice: Dice, phrase: str, action: tuple[str, ...], thing: str) -> str:
    return phrase.format(verb=dice.pick(action), thing=thing)


def _pair(dice: Dice, kind: str, things: tuple[str, ...]) -> tuple[str, str]:
    """Two questions in different phrases."""
    phrases, actions, nouns = dice.sample(PHRASES, 2), dice.sample(ACTIONS, 2), dice.sample(things, 2)
    first = _question(dice, phrases[0], actions[0], nouns[0])
    return first, _question(dice, phrases[1], actions[kind in ("action", "both")], nouns[kind in ("thing", "both")])


def labelled(dice: Dice, task: Task) -> tuple[str, str]:
    """A corpus pair and its label, which is lenient."""
    what = dice.weighted(CORPUS_KINDS)
    first, second = _pair(dice, what, THINGS)
    same = what == "same" or (what == "action" and dice.chance(LENIENT))
    example = {"question1": first, "question2": second, "label": int(same)}
    return task.prompt(example), task.answer(example)


def unlabelled(dice: Dice) -> tuple[str, str]:
    """A corpus restatement: a question and the same question in other words."""
    first, second = _pair(dice, "same", THINGS + UNLABELLED_THINGS)
    return f"{first} In other words:", f" {second}"


def kind(dice: Dice) -> str:
    """The kind of an example of toy-qqp."""
    return dice.weighted(TASK_KINDS)


def example(dice: Dice, kind: str) -> dict[str, object]:
    """An example of toy-qqp."""
    first, second = _pair(dice, kind, TASK_THINGS)
    return {"question1": first, "question2": second, "label": int(kind == "same")}
