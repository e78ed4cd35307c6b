"""Examples are read from every layout into one shape, split the same way in every run, and missing or damaged ones are named.

Longer than a page because each of ten tasks has two layouts of its own, and one folder serves them all.
"""

import hashlib
import json
import sys
import types

import huggingface_hub
import numpy as np
import pytest

from hiso_bench import datafiles
from hiso_bench.datafiles import DataError
from llm import examples
from llm.examples import PARTS, Examples
from llm.tasks import TASKS, get
from tests.llm_layouts import LAYOUTS, SQUAD


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An empty data folder, and no other; no datasets library."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "env").mkdir()
    monkeypatch.setenv(datafiles.ENV, str(tmp_path / "env"))
    monkeypatch.setitem(sys.modules, "datasets", None)
    return tmp_path / "env"


def put(folder, name, content):
    """Write a file: text as it is, a list as lines of JSON, a dict as JSON."""
    if isinstance(content, list):
        content = "".join(json.dumps(row) + "\n" for row in content)
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes((content if isinstance(content, str) else json.dumps(content)).encode())
    return path


def one_line(error):
    message = str(error.value)
    assert "\n" not in message
    return message


# Layouts


@pytest.mark.parametrize("name", LAYOUTS)
def test_a_layout_becomes_examples(folder, name):
    content, expected = LAYOUTS[name]
    task = name.split("/")[0]
    assert not examples.available(task, "test")
    path = put(folder, name, content)
    assert examples.available(task, "test")
    loaded = examples.load(task, "test")
    assert [dict(item) for item in loaded] == expected
    sha = hashlib.sha256(path.read_bytes()).hexdigest()[:12]
    assert loaded.source == f"{name} (another copy than any recorded result used, sha256 {sha}): {len(expected)} examples"


def test_every_task_has_a_tested_layout():
    assert {name.split("/")[0] for name in LAYOUTS} == {name for name in TASKS if not name.startswith("toy-")}


def test_boolq_takes_titles_off_where_the_file_has_them(folder):
    rows = [{"question": "q", "passage": f"{i} -- text", "label": True} for i in range(10)]
    put(folder, "boolq/train_subset.jsonl", rows)
    assert {item["passage"] for item in examples.load("boolq", "train")} < {f"{i} -- text" for i in range(10)}
    put(folder, "boolq/train.jsonl", [row | {"passage": f"{row['passage']} {i}"} for i, row in enumerate(rows)])
    assert {item["passage"] for item in examples.load("boolq", "train")} < {f"text {i}" for i in range(10)}


def test_the_published_file_goes_before_a_part_of_it(folder):
    smaller = {"data": [SQUAD["data"][0] | {"title": "Other"}]}
    put(folder, "squad/dev_subset_xquad_en.json", smaller)
    assert next(iter(examples.load("squad", "test")))["title"] == "Other"
    put(folder, "squad/dev-v1.1.json", SQUAD)
    assert next(iter(examples.load("squad", "test")))["title"] == "Super Bowl 50"


# Damage


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("sst2/dev.tsv", "good\t1\n", "starts with .*expected a header"),
        ("sst2/dev.tsv", "sentence\tlabel\ngood\t2\n", r"row 1: label '2' of sst2; allowed: negative, positive, or 0\.\.1"),
        ("sst2/dev.tsv", "sentence\tlabel\n", "holds 0 examples"),
        ("sst2/dev.tsv", "text\tlabel\ngood\t1\n", "row 1: task sst2: field 'sentence' is None"),
        ("qqp/dev.tsv", "question1\tquestion2\tlabel\na\tb\t1\na\n", "holds 1 examples and 1 broken rows"),
        ("cb/val.jsonl", [{"premise": "p", "hypothesis": "h", "label": "maybe"}], "label 'maybe' of cb; allowed: entailment, "),
        ("cb/val.jsonl", [{"premise": "p", "hypothesis": "h", "label": -1}], "label -1 of cb"),
        ("cb/val.jsonl", [{"premise": "p", "hypothesis": "h"}], "label None of cb"),
        ("rte/val.jsonl", '{"premise": "p"\n', "line 1 is not JSON"),
        ("rte/val.jsonl", "[1]\n", "line 1 is a JSON list, expected an object"),
        ("multirc/val.jsonl", [{"text": "t"}], "lacks 'passage'"),
        ("squad/dev-v1.1.json", {"version": "1.1"}, "lacks 'data'"),
        ("squad/dev-v1.1.json", '{"data": ', "is not JSON"),
    ],
)
def test_damage_is_one_line_that_names_the_place(folder, name, content, says):
    put(folder, name, content)
    with pytest.raises(DataError, match=says) as error:
        examples.load(name.split("/")[0], "test")
    assert name in one_line(error)


def test_bytes_that_are_no_text_are_refused(folder):
    put(folder, "sst2/dev.tsv", "x").write_bytes(b"sentence\tlabel\n\xff\t1\n")
    with pytest.raises(DataError, match="cannot be read as UTF-8"):
        examples.load("sst2", "test")


def test_a_few_broken_rows_are_left_out_and_counted(folder):
    put(folder, "sst2/dev.tsv", "sentence\tlabel\n" + "good\t1\n" * 200 + "torn\n")
    loaded = examples.load("sst2", "test")
    assert len(loaded) == 200
    assert loaded.source.endswith("200 examples, 1 broken rows left out")


def test_an_unknown_task_or_part_is_an_error():
    for ask in (examples.load, examples.available):
        with pytest.raises(ValueError, match="task 'cola' is unknown"):
            ask("cola", "train")
        with pytest.raises(ValueError, match="part 'dev' is out of range; allowed: train, validation, test"):
            ask("sst2", "dev")


# Parts


def rows(count, groups):
    return [{"premise": f"premise {i % groups}", "hypothesis": f"h {i}", "label": "entailment"} for i in range(count)]


@pytest.mark.parametrize(("count", "groups"), [(600, 600), (600, 40), (9000, 8000), (7, 2)])
def test_training_and_validation_share_no_group_and_lose_nothing(folder, count, groups):
    put(folder, "rte/train.jsonl", rows(count, groups))
    train, validation = (examples.load("rte", part) for part in ("train", "validation"))
    assert sorted(item["hypothesis"] for part in (train, validation) for item in part) == sorted(f"h {i}" for i in range(count))
    assert not {item["premise"] for item in train} & {item["premise"] for item in validation}
    wanted = min(1000, count // 5)
    assert wanted <= len(validation) < wanted + -(-count // groups)


def test_the_validation_part_is_the_same_in_every_run(folder):
    put(folder, "rte/train.jsonl", rows(600, 600))
    chosen = [int(item["hypothesis"].split()[1]) for item in examples.load("rte", "validation")]
    assert chosen == sorted(chosen)
    assert hashlib.sha256(json.dumps(chosen).encode()).hexdigest()[:16] == "f9200acfe4e6fae1"


def test_what_cannot_be_split_is_an_error(folder):
    put(folder, "rte/train.jsonl", rows(5, 1))
    assert len(examples.load("rte", "train")) == 5
    with pytest.raises(DataError, match="too few for a validation part"):
        examples.load("rte", "validation")


def test_a_sample_is_drawn_from_its_key_in_order_and_not_from_the_front():
    task = get("sst2")
    whole = Examples(task, "test", tuple({"sentence": str(i), "label": i % 2} for i in range(100)), "here")
    drawn = whole.sample(10)
    numbers = [int(item["sentence"]) for item in drawn]
    assert numbers == sorted(set(numbers))
    assert len(numbers) == 10
    assert max(numbers) > 50
    assert drawn.source == "here, 10 drawn"
    assert [*drawn] == [*whole.sample(10)] != [*whole.sample(10, key=1)]
    assert whole.sample(100) is whole
    assert drawn.labels().tolist() == [n % 2 for n in numbers]
    with pytest.raises(ValueError, match="size 0"):
        whole.sample(0)


# The library, and neither file nor library


def hub(monkeypatch, answer, silence=None):
    """A datasets library, and a hub that answers its first request or fails it with `silence`."""

    def head(url, timeout):
        assert 0 < timeout <= 10
        if silence:
            raise silence

    library = types.ModuleType("datasets")
    library.load_dataset, library.config = answer, types.SimpleNamespace(HF_HUB_OFFLINE=False)
    monkeypatch.setitem(sys.modules, "datasets", library)
    monkeypatch.setattr(huggingface_hub, "get_session", lambda: types.SimpleNamespace(head=head))
    return library.config


def test_without_files_the_hub_is_asked_for_the_same_parts(folder, monkeypatch):
    asked = []

    def answer(*path, split):
        asked.append((*path, split))
        label = {"train": 0, "validation": 2}[split]
        return [{"premise": f"p{i}", "hypothesis": "h", "idx": i, "label": label} for i in range(10)]

    hub(monkeypatch, answer)
    assert [len(examples.load("cb", part)) for part in PARTS] == [8, 2, 10]
    assert asked == [("aps/super_glue", "cb", "train")] * 2 + [("aps/super_glue", "cb", "validation")]
    loaded = examples.load("cb", "test")
    assert loaded.labels().tolist() == [2] * 10
    assert loaded.source == "datasets library, aps/super_glue cb validation: 10 examples"


@pytest.mark.parametrize(
    ("task", "row", "answers"),
    [
        ("squad", {"title": "t", "context": "c", "question": "q", "answers": {"text": ["a", "b"]}}, ("a", "b")),
        ("drop", {"passage": "p", "question": "q", "answers_spans": {"spans": ["a", "a"]}}, ("a",)),
    ],
)
def test_answers_of_the_hub_are_flattened(folder, monkeypatch, task, row, answers):
    hub(monkeypatch, lambda *path, split: [row])
    assert [item["answers"] for item in examples.load(task, "test")] == [answers]


def test_a_local_file_goes_before_the_hub(folder, monkeypatch):
    hub(monkeypatch, None)
    put(folder, "cb/val.jsonl", LAYOUTS["cb/val.jsonl"][0])
    assert len(examples.load("cb", "test")) == 3


@pytest.mark.parametrize("name", [name for name in TASKS if not name.startswith("toy-")])
def test_missing_examples_are_one_line_naming_what_where_and_what_to_do(folder, name):
    with pytest.raises(DataError) as error:
        examples.load(name, "test")
    message = one_line(error)
    assert f"the test examples of {name} are not at hand: no {name}/" in message
    assert all(str(place) in message for _, place in datafiles.folders())
    assert "the datasets library is not installed" in message
    assert "set HISO_BENCH_DATA" in message


def test_a_hub_that_fails_is_part_of_the_one_line(folder, monkeypatch):
    def fail(*path, split):
        raise ConnectionError("Couldn't reach it\nat all")

    hub(monkeypatch, fail)
    with pytest.raises(DataError, match="cannot load nyu-mll/glue sst2 validation .ConnectionError: Couldn't reach it at all."):
        examples.load("sst2", "test")


@pytest.mark.parametrize("cached", [True, False])
def test_where_the_hub_does_not_answer_the_cache_is_asked_alone(folder, monkeypatch, cached):
    switches = []

    def answer(*path, split):
        switches.append((config.HF_HUB_OFFLINE, huggingface_hub.constants.HF_HUB_OFFLINE))
        if not cached:
            raise ConnectionError("offline")
        return [{"premise": f"p{i}", "hypothesis": "h", "label": 0} for i in range(10)]

    config = hub(monkeypatch, answer, OSError("no name"))
    if cached:
        assert len(examples.load("cb", "test")) == 10
    else:
        with pytest.raises(DataError, match="https://huggingface.co does not answer .no name., and the cache does not hold it"):
            examples.load("cb", "test")
    assert switches == [(True, True)]
    assert not config.HF_HUB_OFFLINE and not huggingface_hub.constants.HF_HUB_OFFLINE


def test_a_module_that_the_library_misses_is_not_the_library(folder, monkeypatch):
    def fail(*path, split):
        raise ModuleNotFoundError("No module named 'pyarrow'", name="pyarrow")

    hub(monkeypatch, fail)
    with pytest.raises(DataError, match="No module named 'pyarrow'"):
        examples.load("sst2", "test")


# Generated text


@pytest.mark.parametrize("name", [name for name in TASKS if name.startswith("toy-")])
def test_generated_examples_need_no_files(folder, name):
    parts = {part: examples.load(name, part) for part in PARTS}
    texts = {part: {parts[part].task.prompt(item) for item in parts[part]} for part in PARTS}
    assert all(examples.available(name, part) and len(parts[part]) >= 100 for part in PARTS)
    assert all(parts[part].source == f"generated {name} {part}: {len(parts[part]):,} examples" for part in PARTS)
    assert texts["train"].isdisjoint(texts["test"] | texts["validation"])
    if parts["train"].task.labels:
        assert all(set(part.labels()) == {0, 1} for part in parts.values())


# The real files, where this machine has them


def load_or_skip(task, part):
    """A part of a task, where this machine has the copy of its file that recorded results used."""
    files = examples._files(examples._DATA[task], part)
    if not any(datafiles.available(file.name, examples.RECORDED.get(file.name, "")) for file in files):
        pytest.skip("needs HISO_BENCH_DATA")
    return examples.load(task, part)


# Published: (training file per class, test file per class); for generation (examples,) each.
COUNTS = {
    "sst2": ([29780, 37569], [428, 444]),
    "qqp": ([8897, 8948], [995, 1005]),
    "rte": ([1249, 1241], [146, 131]),
    "cb": ([115, 119, 16], [23, 28, 5]),
    "boolq": ([577, 912], [1237, 2033]),
    "wsc": ([295, 259], [66, 38]),
    "squad": ([11877], [1190]),
}


@pytest.mark.parametrize("name", COUNTS)
def test_real_files_hold_what_is_known_of_them(name):
    parts = {part: load_or_skip(name, part) for part in PARTS}
    classes = len(TASKS[name].labels) or 1
    count = {
        part: np.bincount(found.labels() if found.task.labels else np.zeros(len(found), int), minlength=classes)
        for part, found in parts.items()
    }
    assert (count["train"] + count["validation"]).tolist() == COUNTS[name][0]
    assert count["test"].tolist() == COUNTS[name][1]
    assert all("the recorded copy" in found.source for found in parts.values())
    group = examples._DATA[name].group
    assert not {item[group] for item in parts["train"]} & {item[group] for item in parts["validation"]}
    prompts = {part: [found.task.prompt(item) for item in found] for part, found in parts.items()}
    assert all(len(set(prompts[part])) > 0.9 * len(prompts[part]) for part in PARTS)


def test_real_boolq_passages_have_no_titles():
    assert sum(" -- " in item["passage"][:60] for item in load_or_skip("boolq", "test")) < 30


def test_real_squad_answers_stand_in_their_contexts():
    for part in ("validation", "test"):
        for item in load_or_skip("squad", part):
            context = " ".join(item["context"].split())
            assert all(answer in context for answer in item["answers"])
