"""Passages of facts about people, with questions that one of the facts answers.

What the generated corpus says of passages differs from what the task toy-squad asks in three ways: the task asks half of its
questions in words that are rare in the corpus; some answers in the corpus are whole sentences, those of the task the bare fact;
and the people of the task occur in the corpus only in passages without questions.
"""

from __future__ import annotations

from dataclasses import dataclass

from llm.tasks import Task
from llm.tiny.dice import Dice


@dataclass(frozen=True)
class Relation:
    """One kind of fact: how it is told, how it is asked for (commonly and rarely), and its values."""

    fact: str
    question: str
    rare: str
    values: tuple[str, ...]


RELATIONS = (
    Relation(
        "{name} lives in {value}.",
        "Where does {name} live?",
        "In which city is the home of {name}?",
        tuple("Oslo Lima Cairo Paris Delhi Rome Quito Tokyo Perth Seoul".split()),
    ),
    Relation(
        "{name} works as a {value}.",
        "What is the job of {name}?",
        "How does {name} earn money?",
        tuple("baker nurse pilot farmer teacher lawyer painter miner judge tailor".split()),
    ),
    Relation(
        "{name} owns a {value}.",
        "What does {name} own?",
        "Which thing belongs to {name}?",
        tuple("horse parrot truck cabin yacht goat camera tractor canoe rabbit".split()),
    ),
    Relation(
        "{name} studies {value}.",
        "What does {name} study?",
        "Which subject is {name} good at?",
        tuple("physics law music history botany Latin logic art chess poetry".split()),
    ),
)
NAMES = tuple("Mara Tom Ines Karl Dora Hugo Lena Omar Petra Ravi Sonja Victor Wanda Yusuf Zora Boris".split())
TASK_NAMES = tuple("Alma Felix Greta Ivan Nadia Oscar Tilda Emil".split())

# How many people a passage is about, and how often. With one, the question's relation finds the answer; with two, it takes the
# name as well.
CORPUS_PEOPLE = {1: 6, 2: 4}
TASK_PEOPLE = {1: 7, 2: 3}
WHOLE = 0.3
"""How often a corpus answer is a whole sentence."""
CORPUS_RARE, TASK_RARE = 0.02, 0.35
"""How often a question is in the rare words."""


def _passage(dice: Dice, names: tuple[str, ...], people: int) -> tuple[list[str], Relation, str, str]:
    """The facts of a passage in random order, and the one that is asked for: its relation, name and value."""
    one, two = dice.sample(names, 2)
    first, second, third = dice.sample(RELATIONS, 3)
    keys = [(first, one), (second, one), (first, two) if people == 2 else (third, one)]
    value, other = dice.sample(first.values, 2)
    values = [value, dice.pick(second.values), other if people == 2 else dice.pick(third.values)]
    told = [relation.fact.format(name=name, value=value) for (relation, name), value in zip(keys, values, strict=True)]
    return dice.shuffled(told), first, one, value


def labelled(dice: Dice, task: Task) -> tuple[str, str]:
    """A corpus passage with a question, and the answer, which is mostly a whole sentence."""
    facts, relation, name, value = _passage(dice, NAMES, dice.weighted(CORPUS_PEOPLE))
    answer = relation.fact.format(name=name, value=value) if dice.chance(WHOLE) else value
    question = relation.rare if dice.chance(CORPUS_RARE) else relation.question
    example = {"context": " ".join(facts), "question": question.format(name=name), "answers": [answer]}
    return task.prompt(example), task.answer(example)


def unlabelled(dice: Dice) -> tuple[str, str]:
    """A corpus passage and its facts once more, in another order."""
    facts, *_ = _passage(dice, NAMES + TASK_NAMES, dice.weighted(CORPUS_PEOPLE))
    return " ".join(facts), " " + " ".join(dice.shuffled(facts))


def kind(dice: Dice) -> tuple[int, bool]:
    """The kind of an example of toy-squad: how many people it is about, and whether the question's words are rare."""
    return dice.weighted(TASK_PEOPLE), dice.chance(TASK_RARE)


def example(dice: Dice, kind: tuple[int, bool]) -> dict[str, object]:
    """An example of toy-squad."""
    people, rare = kind
    facts, relation, name, value = _passage(dice, TASK_NAMES, people)
    question = relation.rare if rare else relation.question
    return {"context": " ".join(facts), "question": question.format(name=name), "answers": [value]}
