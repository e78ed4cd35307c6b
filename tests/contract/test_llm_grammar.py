"""The generated corpus and tasks are frozen and say what they should, from dice that no library can change."""

import json
import re

import numpy as np
import pytest

from llm.tasks import TASKS
from llm.tiny import grammar, pairs, passages, reviews
from llm.tiny.dice import Dice
from llm.tiny.grammar import Document


def words(text):
    return set(re.findall(r"\w+", text))


def test_corpus_and_tasks_are_those_that_were_frozen():
    assert grammar.digest() == grammar.FROZEN


def test_dice_give_pinned_numbers_whatever_the_version_of_numpy():
    dice = Dice(7)
    assert [dice.below(1000) for _ in range(5)] == [172, 469, 25, 358, 71]
    assert Dice(7).shuffled(range(6)) != list(range(6))


def test_dice_are_fair():
    """False alarm below 1e-4 (chi squared, 9 degrees of freedom, 33.7); a die that never shows one of its sides reaches 1,100."""
    dice = Dice(1)
    counts = np.bincount([dice.below(10) for _ in range(10_000)], minlength=10)
    assert ((counts - 1000) ** 2 / 1000).sum() < 33.7


def test_weights_and_chances_are_obeyed():
    """False alarm below 1e-6 each (five standard deviations)."""
    dice, n = Dice(3), 20_000
    drawn = sum(dice.weighted({"a": 1, "b": 3}) == "a" for _ in range(n))
    assert abs(drawn / n - 0.25) < 5 * (0.25 * 0.75 / n) ** 0.5
    hit = sum(dice.chance(0.1) for _ in range(n))
    assert abs(hit / n - 0.1) < 5 * (0.1 * 0.9 / n) ** 0.5


def test_a_sample_has_no_item_twice_and_cannot_be_larger_than_its_source():
    assert len(set(Dice(0).sample("abcdef", 6))) == 6
    with pytest.raises(ValueError, match="n is 4; allowed: at most 3"):
        Dice(0).sample("abc", 4)


@pytest.mark.parametrize("task", grammar.SIZES)
def test_parts_have_their_sizes_and_share_no_example(task):
    parts = {part: [json.dumps(example) for example in grammar.examples(task, part)] for part in grammar.PARTS}
    assert {part: len(rows) for part, rows in parts.items()} == grammar.SIZES[task]
    everything = [row for rows in parts.values() for row in rows]
    assert len(set(everything)) == len(everything)


@pytest.mark.parametrize("task", ["toy-sst2", "toy-qqp"])
@pytest.mark.parametrize("part", grammar.PARTS)
def test_classes_are_balanced(task, part):
    """Within four standard deviations of a fair coin; frozen, so it holds for good once it holds."""
    labels = [example["label"] for example in grammar.examples(task, part)]
    assert set(labels) == {0, 1}
    assert abs(np.mean(labels) - 0.5) < 4 * 0.5 / len(labels) ** 0.5


def test_examples_are_copies():
    grammar.examples("toy-sst2", "test")[0]["label"] = 7
    assert grammar.examples("toy-sst2", "test")[0]["label"] in (0, 1)


@pytest.mark.parametrize(
    ("task", "part", "message"),
    [
        ("sst2", "test", "'sst2'; allowed: toy-sst2, toy-qqp, toy-squad"),
        ("toy-qqp", "dev", "'dev'; allowed: train, validation, test"),
    ],
)
def test_unknown_tasks_and_parts_are_named(task, part, message):
    with pytest.raises(ValueError, match=message):
        grammar.examples(task, part)


def test_what_the_tasks_are_about_is_never_labelled_in_the_corpus():
    dice = Dice(1)
    film = {*reviews.FILM.things, *reviews.FILM.praise, *reviews.FILM.blame}

    def said(write):
        return set().union(*(words("".join(write())) for _ in range(3000)))

    assert not film & said(lambda: reviews.labelled(dice, TASKS["toy-sst2"]))
    assert not set(pairs.UNLABELLED_THINGS) & said(lambda: pairs.labelled(dice, TASKS["toy-qqp"]))
    assert not set(passages.TASK_NAMES) & said(lambda: passages.labelled(dice, TASKS["toy-squad"]))
    # The same words do occur where nothing is labelled.
    assert film <= said(lambda: reviews.unlabelled(dice))
    assert set(pairs.TASK_THINGS) <= said(lambda: pairs.unlabelled(dice))
    assert set(passages.TASK_NAMES) <= said(lambda: passages.unlabelled(dice))


def test_the_label_of_a_review_is_the_opinion_of_its_main_clause():
    praise = {*reviews.PRAISE, *reviews.FILM.praise}
    for example in grammar.examples("toy-sst2", "test"):
        text = example["sentence"].removesuffix(".")
        if " but " in text:
            main = text.split(" but ")[1]
        elif text.startswith("although "):
            main = text.split(", ")[1]
        else:
            main = text.split(" even though ")[0].split(" and ")[0]
        assert bool(words(main) & praise) == bool(example["label"]), text


def test_a_pair_is_equivalent_if_action_and_thing_are():
    meaning = {verb: number for number, action in enumerate(pairs.ACTIONS) for verb in action}
    for example in grammar.examples("toy-qqp", "test"):
        first, second = (words(example[field]) for field in ("question1", "question2"))
        things = [next(iter(text & set(pairs.TASK_THINGS))) for text in (first, second)]
        actions = [meaning[next(iter(text & meaning.keys()))] for text in (first, second)]
        assert (things[0] == things[1] and actions[0] == actions[1]) == bool(example["label"])


def test_the_answer_of_a_passage_stands_in_it_beside_the_name_that_is_asked_for():
    for example in grammar.examples("toy-squad", "test"):
        (answer,) = example["answers"]
        name = next(iter(words(example["question"]) & set(passages.TASK_NAMES)))
        facts = [fact for fact in example["context"].split(". ") if words(fact) >= {name, answer}]
        assert len(facts) == 1


def test_documents_of_the_corpus_end_in_what_they_are_trained_on():
    assert all(isinstance(document, Document) and document.given and document.told for document in grammar.corpus())
