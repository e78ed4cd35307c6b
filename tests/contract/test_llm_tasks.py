"""Every prompt shows the whole example, every class has its own word, and what a task cannot use is refused in one line."""

import numpy as np
import pytest

from llm import tasks
from llm.tasks import TASKS, Task

CLASSIFICATION = [name for name, task in TASKS.items() if task.kind == "classification"]
GENERATION = [name for name, task in TASKS.items() if task.kind == "generation"]


def example(task, **changed):
    """An example in which every field has a text of its own."""
    given = {field: f"<text of {field}>" for field in task.fields}
    return given | ({"label": 1} if task.labels else {"answers": ["one", "two"]}) | changed


def test_the_tasks_are_those_of_the_papers_and_the_generated_twins():
    assert CLASSIFICATION == ["sst2", "qqp", "rte", "cb", "boolq", "wic", "wsc", "multirc", "toy-sst2", "toy-qqp"]
    assert GENERATION == ["squad", "drop", "toy-squad"]
    assert all(name == task.name for name, task in TASKS.items())


FIELDS = {
    "sst2": {"sentence"},
    "qqp": {"question1", "question2"},
    "rte": {"premise", "hypothesis"},
    "cb": {"premise", "hypothesis"},
    "boolq": {"passage", "question"},
    "wic": {"word", "sentence1", "sentence2"},
    "wsc": {"text", "span1_text", "span2_text"},
    "multirc": {"paragraph", "question", "answer"},
    "squad": {"title", "context", "question"},
    "drop": {"passage", "question"},
    "toy-sst2": {"sentence"},
    "toy-qqp": {"question1", "question2"},
    "toy-squad": {"context", "question"},
}


@pytest.mark.parametrize("name", TASKS)
def test_every_field_of_the_data_appears_once_in_the_prompt(name):
    task = TASKS[name]
    assert set(task.fields) == FIELDS[name]
    prompt = task.prompt(example(task))
    assert all(prompt.count(f"<text of {field}>") == 1 for field in FIELDS[name])
    assert prompt.endswith(f">{task.tail}")


@pytest.mark.parametrize("name", TASKS)
def test_the_prompt_does_not_know_the_answer(name):
    task = TASKS[name]
    other = {"label": 0} if task.labels else {"answers": ["three"]}
    assert task.prompt(example(task)) == task.prompt(example(task, **other))


@pytest.mark.parametrize("name", CLASSIFICATION)
def test_labels_and_verbalizers_map_one_to_one(name):
    task = TASKS[name]
    answers = [task.answer(example(task, label=label)) for label in range(len(task.labels))]
    assert tuple(answers) == task.verbalizers
    assert len(set(answers)) == len(task.labels) >= 2
    assert all(task.label(example(task, label=kind(label))) == label for label in range(len(answers)) for kind in (int, np.int64))


def test_cb_has_three_classes_of_its_own():
    assert dict(zip(TASKS["cb"].labels, TASKS["cb"].verbalizers, strict=True)) == {
        "entailment": "Yes",
        "contradiction": "No",
        "neutral": "Maybe",
    }


@pytest.mark.parametrize("name", ["sst2", "qqp", "squad"])
def test_a_generated_twin_has_the_words_of_its_original(name):
    task, twin = TASKS[name], TASKS[f"toy-{name}"]
    assert twin.template == task.template.removeprefix("Title: {title}\n")
    assert (twin.labels, twin.verbalizers, twin.metrics) == (task.labels, task.verbalizers, task.metrics)


@pytest.mark.parametrize("name", GENERATION)
def test_the_answer_is_the_first_reference_on_a_line_that_ends(name):
    task = TASKS[name]
    assert task.answer(example(task, answers=[" two\n words ", "other"])) == " two words\n"
    assert task.answers(example(task, answers=(" two\n words ", "other"))) == ("two words", "other")
    assert not task.prompt(example(task)).endswith((" ", "\n"))


def test_fields_are_stripped_and_braces_are_text():
    assert TASKS["sst2"].prompt({"sentence": " a {sentence} {0} {{b}} \n"}) == "a {sentence} {0} {{b}} It was"


def test_an_unknown_task_is_an_error_that_lists_the_known_ones():
    with pytest.raises(ValueError, match="task 'sst3' is unknown; allowed: sst2, qqp, .*toy-squad"):
        tasks.get("sst3")


@pytest.mark.parametrize("label", [-1, 2, True, 1.0, "1", None])
def test_a_label_outside_the_set_is_refused(label):
    with pytest.raises(ValueError, match=r"task sst2: label .*; allowed: an integer in 0\.\.1"):
        TASKS["sst2"].label({"sentence": "s", "label": label})


def test_a_generation_task_has_no_labels():
    with pytest.raises(ValueError, match="task squad: label 0; allowed: no label"):
        TASKS["squad"].label(example(TASKS["squad"], label=0))


@pytest.mark.parametrize("value", [None, 3, ["a"]])
def test_a_field_that_is_not_text_is_refused(value):
    with pytest.raises(ValueError, match="task qqp: field 'question2' is .*; allowed: text"):
        TASKS["qqp"].prompt({"question1": "q", "question2": value})


@pytest.mark.parametrize("value", [None, [], "one", [""], [" \n"], ["one", 2]])
def test_answers_that_are_not_texts_are_refused(value):
    with pytest.raises(ValueError, match="task drop: answers .*; allowed: a non-empty sequence of texts"):
        TASKS["drop"].answers(example(TASKS["drop"], answers=value))


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"labels": ("a",), "verbalizers": ("x",)}, "labels"),
        ({"labels": ("a", "a"), "verbalizers": ("x", "y")}, "labels"),
        ({"labels": ("a", "b"), "verbalizers": ("x",)}, "verbalizers"),
        ({"labels": ("a", "b"), "verbalizers": ("x", "x")}, "verbalizers"),
        ({"verbalizers": ("x",), "max_new_tokens": 3}, "verbalizers"),
        ({"labels": ("a", "b"), "verbalizers": ("x", "y"), "max_new_tokens": 3}, "max_new_tokens"),
        ({}, "max_new_tokens"),
    ],
)
def test_a_task_that_contradicts_itself_cannot_be_made(options, says):
    with pytest.raises(ValueError, match=f"task t: {says}"):
        Task(name="t", template="{text} is", **options)
