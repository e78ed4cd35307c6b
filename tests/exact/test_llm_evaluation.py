"""Scores belong to examples: no batch, padding or neighbour changes them, and they are what the model by itself would say."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch

pytest.importorskip("transformers", reason="the extra llm is not installed")

from hiso_bench import keys
from llm import evaluation
from llm.encoding import collate, encode
from llm.evaluation import NO_CLASS, evaluate
from llm.loss import logits_at
from llm.tasks import Task
from tests import llm_helpers
from tests.llm_tasks import ANSWER, CHOICE, CHOICES, TOKENIZER, encoded, net


@pytest.mark.parametrize("name", ["opt", "qwen3", "gemma3"])
@pytest.mark.parametrize("task", [CHOICE, ANSWER])
def test_scores_are_per_example_and_equal_under_every_batch_size(name, task):
    made = encoded(task)
    one = evaluate(net(name), made, batch_size=1)
    assert len(one.predictions) == len(made)
    for size in (2, 3, len(made), 50):
        many = evaluate(net(name), made, batch_size=size)
        assert many.predictions == one.predictions
        assert set(many.each) == {"loss", *({"accuracy"} if task.labels else {"f1", "exact_match"})}
        for metric, values in one.each.items():
            assert values.shape == (len(made),)
            assert np.allclose(many.each[metric], values, rtol=2e-5 if metric == "loss" else 0, atol=0)


def test_scores_follow_their_examples():
    """Examples are reordered by length on the way and must come back."""
    order = keys.rng(3).permutation(len(CHOICES))
    straight = evaluate(net(), encoded(CHOICE), 4)
    mixed = evaluate(net(), encode(CHOICE, TOKENIZER, [CHOICES[i] for i in order], 64), 4)
    assert mixed.predictions == tuple(straight.predictions[i] for i in order)
    assert np.allclose(mixed.each["loss"], straight.each["loss"][order], rtol=2e-5)


def test_classification_is_the_best_verbalizer_and_its_loss():
    made = encoded(CHOICE)
    module = llm_helpers.model("opt")
    scores = evaluate(net(), made)
    for i, prompt in enumerate(made.prompts):
        with torch.inference_mode():
            row = module(input_ids=torch.tensor([prompt])).logits[0, -1, made.verbalizers].double()
        assert scores.predictions[i] == int(row.argmax())
        assert math.isclose(scores.each["loss"][i], float(-row.log_softmax(0)[CHOICES[i]["label"]]), rel_tol=1e-4)
        assert scores.each["accuracy"][i] == (int(row.argmax()) == CHOICES[i]["label"])
    assert scores.values() == {name: float(values.mean()) for name, values in scores.each.items()}
    assert len(set(scores.predictions)) > 1


@pytest.mark.parametrize("name", ["opt", "llama", "gemma2"])
def test_greedy_answers_are_those_of_the_library(name):
    made = encoded(ANSWER)
    module = llm_helpers.model(name)
    found = evaluate(net(name), made, 3).predictions
    for i, prompt in enumerate(made.prompts):
        ids = torch.tensor([prompt])
        with torch.inference_mode():
            whole = module.generate(
                ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=ANSWER.max_new_tokens, use_cache=False
            )
        text = TOKENIZER.decode(whole[0, len(prompt) :], skip_special_tokens=True)
        assert found[i] == text.partition("\n")[0].strip()
    assert len(set(found)) > 1


def scripted(replies):
    """A model that goes on with a given text, whatever it was asked; and a list of the batches it saw."""
    seen = []

    def call(input_ids, attention_mask, logits_to_keep):
        seen.append(input_ids.shape)
        logits = torch.zeros(*logits_to_keep.shape, len(TOKENIZER))
        for row, (ids, mask) in enumerate(zip(input_ids, attention_mask, strict=True)):
            text = TOKENIZER.decode(ids[mask == 1])
            reply = replies[text.partition(":")[0]]
            for column, position in enumerate(logits_to_keep[row]):
                done = int(position) + 1 - len(TOKENIZER(text.partition(":")[0] + ":")["input_ids"])
                logits[row, column, reply[max(done, 0)] if done < len(reply) else 5] = 9.0
        return SimpleNamespace(logits=logits)

    return call, seen


def ids_of(text):
    return TOKENIZER(text, add_special_tokens=False)["input_ids"]


def test_an_answer_stops_at_a_line_break_or_the_end_of_sequence_or_the_limit_and_leaves_the_batch():
    replies = {
        "a x": ids_of(" ab\ncd"),
        "b x": [*ids_of(" abc"), TOKENIZER.eos_token_id, *ids_of("zz")],
        "c x": ids_of(" good good!!!!!"),
        "d x": ids_of("\nab"),
        "e x": [TOKENIZER.eos_token_id],
    }
    examples = [{"text": key[0], "question": "x", "answers": ["ab"]} for key in replies]
    made = encode(ANSWER, TOKENIZER, examples, 64)
    call, seen = scripted(replies)
    assert evaluation.generate(call, made, np.arange(5)) == ["ab", "abc", "good good!!!!", "", ""]
    # The two empty answers leave after one token, "ab" and its break after four, "abc" and its end after five.
    assert [shape[0] for shape in seen] == [5, 3, 3, 3, 2, 1]
    scores = evaluate(call, made, 2)
    assert scores.each["exact_match"].tolist() == [1, 0, 0, 0, 0]
    assert scores.each["f1"].tolist() == [1, 0, 0, 0, 0]


def test_a_model_that_is_nan_is_right_about_nothing():
    def broken(input_ids, attention_mask, logits_to_keep):
        return SimpleNamespace(logits=torch.full((*logits_to_keep.shape, len(TOKENIZER)), torch.nan))

    scores = evaluate(broken, encoded(CHOICE), 4)
    assert set(scores.predictions) == {NO_CLASS}
    assert scores.values()["accuracy"] == 0
    assert math.isnan(scores.values()["loss"])


def test_metrics_carry_the_uncertainty_of_the_test_set():
    cb = Task(**{**vars(CHOICE), "metrics": ("accuracy", "macro_f1")})
    scores = evaluate(net(), encode(cb, TOKENIZER, CHOICES, 64))
    assert set(scores.values()) == {"loss", "accuracy", "macro_f1"}
    answers = evaluate(net(), encoded(ANSWER))
    for found in (scores, answers):
        for metric, value in found.values().items():
            interval = found.interval(metric)
            assert math.isclose(interval.value, value, rel_tol=1e-12)
            assert interval.low <= value <= interval.high
            assert interval.low < interval.high
    with pytest.raises(ValueError, match="metric 'f1' is out of range; allowed: loss, accuracy, macro_f1"):
        scores.interval("f1")


def test_a_batch_size_below_one_is_an_error():
    with pytest.raises(ValueError, match="batch_size 0"):
        evaluate(net(), encoded(CHOICE), 0)


def test_evaluation_asks_for_logits_where_they_are_needed_only():
    asked = []

    def spy(**given):
        asked.append(given["logits_to_keep"].shape)
        return net()(**given)

    evaluate(spy, encoded(CHOICE), 4)
    assert [shape[1] for shape in asked] == [1, 1, 1]
    assert logits_at(spy, collate(encoded(CHOICE), [0, 1])).shape == (2, 1, len(TOKENIZER))


def test_a_token_that_holds_a_line_break_and_more_ends_the_answer_before_it():
    tokenizer = llm_helpers.tokenizer()
    tokenizer.add_tokens(["x\ny"])
    ids = tokenizer("ab x\ny")["input_ids"]
    assert tokenizer.convert_ids_to_tokens(ids[-1]) == "x\ny"
    assert evaluation._read(tokenizer, ids) == ("ab x", True)
    assert evaluation._read(tokenizer, ids[:-1]) == ("ab", False)
