"""tiny-opt is a function of its key, learns what it is trained on, and is cached whole."""

import dataclasses
import json
import random
import re
import threading

import numpy as np
import pytest
import torch

from hiso_bench import keys
from llm import models, pretraining
from llm.encoding import verbalizer_ids
from llm.hub import ModelError
from llm.tasks import TASKS
from llm.tiny import grammar, pretrain, report, tokenizer
from llm.tiny.model import Shape, untrained
from llm.tiny.pretrain import Recipe, Text

SMALL = Recipe(shape=Shape(width=16, layers=1, heads=2, context=64), threads=1, batch_tokens=256)


@pytest.fixture(scope="module")
def tokens():
    return tokenizer.train(document.given + document.told for document in grammar.corpus())


@pytest.fixture(scope="module")
def texts(tokens):
    return pretrain.encode(grammar.corpus()[:600], tokens)


def words(text):
    return set(re.findall(r"\w+", text))


def weights(net):
    return torch.cat([p.detach().flatten() for p in net.parameters()])


# ---- tokenizer


def test_every_word_of_the_tasks_and_every_verbalizer_is_one_token(tokens):
    for task in grammar.SIZES:
        texts = [TASKS[task].prompt(e) + TASKS[task].answer(e) for e in grammar.examples(task, "test")]
        used = {token for ids in tokens(texts)["input_ids"] for token in ids}
        assert words(" ".join(texts)) <= {tokens.decode([token]).strip() for token in used}
    for task in ("toy-sst2", "toy-qqp"):
        assert len(set(verbalizer_ids(TASKS[task], tokens))) == 2


def test_any_text_survives_the_tokenizer_and_starts_as_opt_texts_do(tokens):
    text = "Größe: 3 € \n\tnaïve 漢字 it 's -lrb- fine -rrb-"
    ids = tokens(text)["input_ids"]
    assert ids[0] == tokens.bos_token_id == tokens.eos_token_id == 2
    assert tokens.pad_token_id == 1
    assert tokens.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False) == text


def test_prompts_are_short(tokens):
    for task, limit in (("toy-sst2", 24), ("toy-qqp", 48), ("toy-squad", 48)):
        prompts = [TASKS[task].prompt(example) for example in grammar.examples(task, "test")]
        assert max(map(len, tokens(prompts)["input_ids"])) <= limit


# ---- initial weights


def test_tiny_opt_has_one_to_three_million_parameters(tokens):
    assert 1e6 <= sum(p.numel() for p in untrained(len(tokens), 0).parameters()) <= 3e6


def test_initial_weights_come_from_the_key_alone():
    before = (torch.get_rng_state(), np.random.get_state()[1].tolist(), random.getstate())  # noqa: NPY002
    first, again, other = (weights(untrained(300, key, SMALL.shape)) for key in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert torch.equal(before[0], torch.get_rng_state())
    assert (np.random.get_state()[1].tolist(), random.getstate()) == before[1:]  # noqa: NPY002


def test_attention_starts_as_copying():
    attention = untrained(300, 0).model.decoder.layers[1].self_attn
    for product in (
        attention.q_proj.weight.T @ attention.k_proj.weight,
        attention.out_proj.weight @ attention.v_proj.weight,
    ):
        diagonal = product.diagonal().mean()
        rest = (product - product.diagonal().diag()).abs().mean()
        assert diagonal > 5 * rest


# ---- training


def test_training_is_a_function_of_its_key_and_leaves_everything_else_alone(texts, tokens):
    before = (torch.get_rng_state(), torch.get_num_threads())
    first, again, other = (weights(pretrain.train(texts[:120], len(tokens), key, SMALL, quiet=True)) for key in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert torch.equal(before[0], torch.get_rng_state())
    assert torch.get_num_threads() == before[1]


def test_training_learns(texts, tokens):
    net = pretrain.train(texts, len(tokens), 0, dataclasses.replace(SMALL, rate=1e-2), quiet=True)
    held_out = pretrain.encode(grammar.corpus()[1000:1040], tokens)
    with torch.inference_mode():
        first = float(pretraining.next_token(untrained(len(tokens), 0, SMALL.shape), held_out, 1.0))
        assert float(pretraining.next_token(net, held_out, 1.0)) < first - 2


def test_the_loss_is_the_weighted_mean_of_the_documents_own_tokens(texts, tokens):
    """Padding enters nothing: a batch of two lengths is the weighted mean of its documents alone."""
    net = untrained(len(tokens), 0, SMALL.shape)
    short, long = Text([2, 5, 9, 2], 2), Text([2, 7, 8, 9, 10, 11, 2], 5)
    with torch.inference_mode():
        each = [float(pretraining.next_token(net, [text], 0.1)) for text in (short, long)]
        both = float(pretraining.next_token(net, [short, long], 0.1))
        logits = net(torch.tensor([short.ids])).logits[0].log_softmax(-1)
    by_hand = -(0.1 * logits[0, 5] + logits[1, 9] + logits[2, 2]) / 2.1
    assert each[0] == pytest.approx(float(by_hand), rel=1e-5)
    assert both == pytest.approx((2.1 * each[0] + 2.4 * each[1]) / 4.5, rel=1e-5)


def test_every_document_is_used_once_in_batches_of_bounded_size(texts):
    batches = pretraining._batches(texts, 256, keys.rng(3))
    assert sorted(i for batch in batches for i in batch) == list(range(len(texts)))
    assert max(len(batch) * max(len(texts[i].ids) for i in batch) for batch in batches) <= 256


def test_what_is_given_and_told_together_are_the_tokens_of_the_whole(tokens):
    for document, text in zip(grammar.corpus()[:300], pretrain.encode(grammar.corpus()[:300], tokens), strict=True):
        assert text.ids == [*tokens(document.given + document.told)["input_ids"], 2]
        assert text.ids[: text.given] == tokens(document.given)["input_ids"]


# ---- cache


@pytest.fixture
def trained(monkeypatch, tmp_path):
    """An empty user cache, a short corpus, and the keys that `train` was called with."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    calls, train = [], pretrain.train

    def short(texts, vocabulary, key, recipe=SMALL, quiet=False):
        calls.append(key)
        return train(texts[:40], vocabulary, key, SMALL, quiet=True)

    monkeypatch.setattr(pretrain, "train", short)
    documents = grammar.corpus()[:200]
    monkeypatch.setattr(grammar, "corpus", lambda: documents)
    return calls


def test_a_model_is_trained_once_and_then_read(trained):
    before = torch.get_rng_state()
    net, tokens = pretrain.load()
    again, _ = pretrain.load()
    assert trained == [0]
    assert torch.equal(weights(net), weights(again))
    assert not net.training
    assert torch.equal(before, torch.get_rng_state())
    assert tokens("the plot was great.")["input_ids"][0] == 2
    assert [path.name for path in pretrain.folder().parent.iterdir() if path.name.startswith(".")] == []


def test_the_embedded_default_loads_like_any_other_model(trained):
    loaded = models.load("tiny-opt")
    net, _ = pretrain.load()
    assert loaded.base_hash == models.base_hash(net)
    assert loaded.context == SMALL.shape.context


def test_other_keys_corpora_recipes_and_versions_have_other_folders(trained, monkeypatch):
    names = {pretrain._name(0), pretrain._name(1)}
    monkeypatch.setattr(grammar, "FROZEN", "another")
    names.add(pretrain._name(0))
    monkeypatch.setattr(pretrain, "Recipe", lambda: SMALL)
    names.add(pretrain._name(0))
    monkeypatch.setattr(pretrain.metadata, "version", lambda _: "0")
    names.add(pretrain._name(0))
    assert len(names) == 5


def test_damaged_weights_are_made_again(trained):
    path = pretrain.folder() / pretrain.WEIGHTS
    good = path.read_bytes()
    path.write_bytes(good[:-1])
    assert (pretrain.folder() / pretrain.WEIGHTS).read_bytes() == good
    assert trained == [0, 0]


def test_an_interrupted_training_leaves_nothing_behind(trained, monkeypatch):
    monkeypatch.setattr(pretrain.tokenizer, "train", interrupt)
    with pytest.raises(KeyboardInterrupt):
        pretrain.folder()
    assert [path for path in pretrain.datafiles.cache_folder().rglob("*") if path.is_dir() and path.name != "tiny-opt"] == []


def interrupt(*_):
    raise KeyboardInterrupt


def test_whoever_comes_second_waits_for_the_first(trained):
    threads = [threading.Thread(target=pretrain.folder) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert trained == [0]


def test_a_cache_that_cannot_be_written_is_one_clear_line(trained, monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with pytest.raises(ModelError, match="tiny-opt cannot be kept in .*NotADirectoryError.*; set XDG_CACHE_HOME"):
        pretrain.folder()


# ---- report


def test_the_report_completes_a_file_and_starts_again_for_another_corpus(tmp_path, monkeypatch):
    path = tmp_path / "tiny_opt.json"
    assert report.known(path) == []
    rows = [{"key": key, "task": "toy-qqp", "zero_shot": 0.6 + 0.1 * key} for key in (0, 1)]
    report.write(path, rows)
    assert report.known(path) == rows
    known = json.loads(path.read_text())["summary"]["toy-qqp"]
    assert known["mean"] == pytest.approx(0.65)
    assert known["low"] < 0.6 < 0.7 < known["high"]
    monkeypatch.setattr(grammar, "FROZEN", "another")
    assert report.known(path) == []
