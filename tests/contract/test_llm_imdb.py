"""imdb-opt is a function of its key and its files, sees nothing of SST-2, and is made once; on a synthetic folder of reviews."""

import dataclasses
import functools
import gzip
import json

import pytest
import torch

from hiso_bench import keys
from hiso_bench.datafiles import DataError
from llm import models, pretraining
from llm.imdb import documents, pretrain, report, text
from llm.imdb.documents import Mix
from llm.imdb.text import Review
from llm.pretraining import Text
from llm.tiny.model import Shape, untrained

MIX = Mix(tokens=1500, plain=0.3, plain_words=6, sentences=2, words=12, phrases=0.3, strong_only=False, plain_weight=0.2)
SMALL = pretrain.Recipe(
    shape=Shape(width=16, layers=1, heads=2, context=64, query_key=(0.0, 0.3)),
    batch_tokens=256,
    rate=1e-2,
    vocabulary=300,
    mix=MIX,
)
NOUNS = ("film", "plot", "cast", "music", "ending", "script", "story", "lead")
HELD_OUT = "a quiet and tender little film ."


def review(i, good):
    word = "lovely" if good else "dreadful"
    return f"The {NOUNS[i % 8]} wasn't short. It's a {word} {NOUNS[(i + 3) % 8]} (really {word})! {NOUNS[i % 8]} and {word}."


@pytest.fixture
def data(tmp_path, monkeypatch):
    """Small files in the layouts of the real ones."""
    folder = tmp_path / "files"
    for name in ("imdb", "sst2"):
        (folder / name).mkdir(parents=True)
    rows = [(f"{i}_{9 - 7 * (i % 2)}", 1 - i % 2, 9 - 7 * (i % 2), review(i, i % 2 == 0)) for i in range(40)]
    lines = ["\t".join(map(str, row)) for row in rows]
    lines[0] += " A quiet, and tender little film."
    write(folder, text.LABELLED[0], ["id\tlabel\trating\ttext", *lines[:20]])
    write(folder, text.LABELLED[1], ["id\tlabel\trating\ttext", *lines[20:]])
    write(
        folder, text.UNLABELLED, [f"I saw that {HELD_OUT} Pure fun. And so the {noun} goes on and on and on." for noun in NOUNS]
    )
    sst2 = [
        ("pure fun", 1),
        *((f"{word} {noun}", int(word < "e")) for word in ("a dear", "great", "stale", "cold") for noun in NOUNS),
    ]
    write(folder, "sst2/train.tsv", ["sentence\tlabel", *(f"{sentence} \t{label}" for sentence, label in sst2)])
    for name in text.REPORTED:
        write(folder, name, ["sentence\tlabel", f"{HELD_OUT} \t1", "a tired mess \t0"])
    monkeypatch.setenv("HISO_BENCH_DATA", str(folder))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(pretrain, "Recipe", lambda: SMALL)
    return folder


def write(folder, name, lines):
    content = "".join(f"{line}\n" for line in lines).encode()
    (folder / name).write_bytes(gzip.compress(content) if name.endswith(".gz") else content)


# ---- text


@pytest.mark.parametrize(
    ("written", "styled"),
    [
        ("It's great, isn't it?", "it 's great , is n't it ?"),
        ('The "best" film (of 1931)...', "the best film -lrb- of 1931 -rrb- ..."),
        ("Wow!!! A 7.5 -- they'd say.", "wow ! a 7.5 -- they 'd say ."),
        ("Well-made; don't miss: it.", "well-made ; do n't miss : it ."),
    ],
)
def test_reviews_are_written_as_sst2_is(written, styled):
    assert text.styled(written) == styled


def test_a_review_is_cut_after_its_closing_marks():
    assert text.sentences("Good. Is it? Yes... well") == ("good .", "is it ?", "yes ...", "well")


def test_nothing_that_sst2_holds_is_left(data):
    corpus = text.load()
    assert corpus.equal == 9  # one of a labelled review, and "pure fun" of eight
    assert corpus.holding == 8
    held = text.key(HELD_OUT)
    for review in corpus.reviews:
        for sentence in review.sentences:
            assert " ".join(held) not in " ".join(text.key(sentence))
    assert [review.rating for review in corpus.reviews] == [9, 2] * 20 + [0] * 8


@pytest.mark.parametrize("name", text.FILES)
def test_a_missing_file_is_named(data, name):
    (data / name).unlink()
    with pytest.raises(DataError, match=f"no {name} in HISO_BENCH_DATA=.*; set HISO_BENCH_DATA to a folder") as error:
        pretrain.folder()
    assert "\n" not in str(error.value)


def test_without_data_the_command_says_in_one_line_what_is_missing(data, monkeypatch):
    monkeypatch.delenv("HISO_BENCH_DATA")
    monkeypatch.setattr("sys.argv", ["llm.imdb"])
    with pytest.raises(SystemExit) as end:
        report.main()
    assert str(end.value).startswith(
        "error: imdb-opt is trained on files that are not at hand: no imdb/unsup_13k.txt.gz, imdb/train_labeled.tsv.gz, "
    )
    assert "\n" not in str(end.value)


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        (["id\tlabel\ttext"], "has the columns"),
        (["id\tlabel\trating\ttext", "1_9\t1\t9"], "row 1 has 3 columns; expected 4"),
        (["id\tlabel\trating\ttext", "1_9\t1\t0\tGood."], "row 1: rating '0'; allowed: 1..10"),
    ],
)
def test_a_damaged_file_is_named_and_leaves_nothing_behind(data, lines, said):
    write(data, text.LABELLED[0], lines)
    with pytest.raises(DataError, match=f"train_labeled.*{said}.*; replace the file"):
        pretrain.folder(quiet=True)
    assert not [
        path for path in (data.parent / "cache").rglob("*") if path.is_dir() and path.name not in ("hiso_bench", "imdb-opt")
    ]


def test_what_is_no_archive_is_named(data):
    (data / text.UNLABELLED).write_bytes(b"plain")
    with pytest.raises(DataError, match="unsup_13k.txt.gz cannot be read .*; replace the file"):
        text.load()


# ---- documents


@pytest.fixture
def tokens(data):
    return pretrain._tokenizer(text.load(), 300)


def test_spans_end_in_the_verbalizer_of_their_review_and_count_nowhere_else(data, tokens):
    texts, counts = documents.documents(text.load().reviews, tokens, MIX, keys.rng(1))
    spans = [one for one in texts if one.given > 1]
    windows = [one for one in texts if one.given == 1]
    assert (len(spans), len(windows)) == (counts["spans"], counts["windows"])
    assert min(len(spans), len(windows)) > 10
    for one in spans:
        said = tokens.decode(one.ids[1:])
        assert said.endswith((" It was good", " It was bad"))
        if "lovely" in said or "dreadful" in said:
            assert said.endswith("good") == ("lovely" in said)
        assert one.given == len(one.ids) - 1
        assert len(said.removesuffix(" It was good").removesuffix(" It was bad").split()) <= MIX.words
    for one in windows:
        assert (one.ids[0], one.ids[-1]) == (2, 2)
    assert counts["span_tokens"] == sum(len(one.ids) for one in spans)
    assert counts["span_tokens"] == pytest.approx(MIX.tokens * 0.7, abs=60)
    assert counts["window_tokens"] == pytest.approx(MIX.tokens * 0.3, abs=60)


def test_spans_may_come_from_strong_reviews_only(data, tokens):
    reviews = [Review(("the film is so so and lovely .",), 7), Review(("the plot is dreadful .",), 1)]
    mix = dataclasses.replace(MIX, strong_only=True, plain=0.0)
    texts, _ = documents.documents(reviews, tokens, mix, keys.rng(1))
    assert not any("lovely" in tokens.decode(one.ids) for one in texts)


@pytest.mark.parametrize(
    ("reviews", "said"), [([], "no labelled review"), ([Review(("a b c .",), 9)], "no review gives a window of 6")]
)
def test_reviews_that_give_no_documents_are_refused(data, tokens, reviews, said):
    with pytest.raises(ValueError, match=said):
        documents.documents(reviews, tokens, MIX, keys.rng(1))


# ---- training


def test_a_span_counts_by_its_verbalizer_among_the_verbalizers_and_a_window_by_its_tokens():
    net = untrained(40, 0, SMALL.shape)
    texts = [Text([2, 5, 9, 6], 3), Text([2, 7, 8, 9, 10, 11, 2], 1), Text([2, 5, 9, 12, 7], 4), Text([2, 8, 2], 1)]
    verbalizers = torch.tensor([7, 6])
    with torch.inference_mode():
        logits = [net(torch.tensor([one.ids])).logits[0] for one in texts]
        first, third = (logits[i][-2][verbalizers].log_softmax(-1) for i in (0, 2))
        second, fourth = (
            sum(float(logits[i].log_softmax(-1)[at, token]) for at, token in enumerate(texts[i].ids[1:])) for i in (1, 3)
        )
        by_hand = -(float(first[1]) + float(third[0]) + 0.2 * (second / 6 + fourth / 2)) / 4
        assert float(documents.loss(net, texts, verbalizers, 0.2)) == pytest.approx(by_hand, rel=1e-5)
        assert float(documents.loss(net, texts[::2], verbalizers, 0.2)) == pytest.approx(
            -float(first[1] + third[0]) / 2, rel=1e-5
        )


def test_a_training_that_goes_on_gives_the_weights_of_one_that_was_never_stopped(tmp_path, monkeypatch):
    texts = [Text([2, *keys.rng(i).integers(4, 40, 9).tolist(), 2], 1) for i in range(60)]
    recipe = dataclasses.replace(SMALL, batch_tokens=64)
    whole, stopped, again = (untrained(40, 0, SMALL.shape) for _ in range(3))
    real, calls = functools.partial(pretraining.next_token, given_weight=1.0), []
    losses = pretraining.train(whole, texts, recipe, real, 5, "test", quiet=True)
    saved = tmp_path / "it.state"
    monkeypatch.setattr(pretraining, "_SAVED_EVERY", 0.0)

    def breaking(*given):
        calls.append(1)
        if len(calls) > 5:
            raise KeyboardInterrupt
        return real(*given)

    with pytest.raises(KeyboardInterrupt):
        pretraining.train(stopped, texts, recipe, breaking, 5, "test", quiet=True, saved=saved)
    assert saved.is_file()
    assert pretraining.train(again, texts, recipe, real, 5, "test", quiet=True, saved=saved) == losses
    assert not saved.exists()
    assert all(torch.equal(p, q) for p, q in zip(whole.parameters(), again.parameters(), strict=True))


def test_the_model_is_made_once_is_a_function_of_its_key_and_loads_by_name(data):
    folder = pretrain.folder(quiet=True)
    about = json.loads((folder / pretrain.ABOUT).read_text())
    assert (about["left_out"], about["key"]) == ({"equal": 9, "holding": 8}, 0)
    assert about["loss"][-1] < about["loss"][0] - 0.2
    first = models.load("imdb-opt")
    assert first.source == "imdb-opt, pre-trained by this project on IMDB reviews"
    assert json.loads((pretrain.folder() / pretrain.ABOUT).read_text()) == about
    (folder / pretrain.ABOUT).unlink()
    assert models.load("imdb-opt").base_hash == first.base_hash
    assert models.load(str(pretrain.folder(1, quiet=True))).base_hash != first.base_hash


def test_other_files_make_another_model(data):
    files = {name: str(number) for number, name in enumerate(text.FILES)}
    names = {pretrain._name(0, files), pretrain._name(1, files), pretrain._name(0, files | {text.SST2[0]: "other"})}
    assert len(names) == 3


def test_the_report_holds_scores_ceiling_and_provenance(data, monkeypatch):
    monkeypatch.setattr(report, "EXAMPLES", 24)
    monkeypatch.setattr("sys.argv", ["llm.imdb", "--out", str(data.parent / "imdb_opt.json")])
    report.main()
    content = json.loads((data.parent / "imdb_opt.json").read_text())
    assert content["pretraining"]["files"].keys() == set(text.FILES)
    assert content["base_hash"] == models.load("imdb-opt").base_hash
    for scores in (content["zero_shot"], content["first_order"]["scores"]):
        for name in text.REPORTED:
            assert scores[name]["examples"] == 2
            assert scores[name]["accuracy_low"] <= scores[name]["accuracy"] <= scores[name]["accuracy_high"]
    assert content["round_seconds"]["wall"] > 0
    for name in report.MEASURES:
        monkeypatch.setitem(report.MEASURES, name, lambda model: pytest.fail("measured again"))
    report.main()
    assert json.loads((data.parent / "imdb_opt.json").read_text()) == content
    assert report.known(data.parent / "imdb_opt.json", "another") == {}
