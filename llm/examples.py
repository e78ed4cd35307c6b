"""Examples of the language tasks: local files, the `datasets` library, or the project's own generated text.

A task's local files lie in a folder of its name below a data folder (`hiso_bench.datafiles`). Their layout is checked, their
bytes are not: a data set comes in many copies. `source` names the file with its SHA-256, and says whether it is the copy that the
recorded results were computed from.

The parts, of local files and of the hub alike:

- "test" is the published development set, whose labels are public (SST-2: dev.tsv, 872 sentences; SQuAD: dev-v1.1.json, or else
  dev_subset_xquad_en.json, 1,190 questions on 48 articles, one reference each); nothing is trained or tuned on it;
- "validation" is set aside from the published training set: min(1000, a fifth), by a fixed key that no run can change, whole
  groups at a time (the questions about one passage stay together). SST-2's training phrases are cut from common sentences that
  the file does not name, so its validation part is easier than its test part: good for choosing a rate, not for a result;
- "train" is the rest.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from hiso_bench import datafiles, keys
from hiso_bench.datafiles import DataError
from hiso_bench.methods.base import require
from llm import formats
from llm.formats import Row
from llm.hub import answering
from llm.tasks import TOY_PREFIX, Task, get

PARTS = ("train", "validation", "test")
VALIDATION_SIZE = 1000
_VALIDATION_KEY = keys.derive(0, "validation")
_BROKEN_SHARE = 0.01


@dataclass(frozen=True, eq=False)
class Examples:
    """Examples of one part of one task.

    Attributes:
        task: the task.
        part: one of `PARTS`.
        items: each with the task's fields, and `label` (int) or `answers` (tuple of texts).
        source: where they come from, one line.
    """

    task: Task
    part: str
    items: tuple[dict[str, Any], ...]
    source: str

    def __len__(self) -> int:
        return len(self.items)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return iter(self.items)

    def labels(self) -> np.ndarray:
        """Class ids, int64, shape (N,).

        Raises:
            ValueError: the task has no labels.
        """
        return np.array([self.task.label(item) for item in self.items], dtype=np.int64)

    def sample(self, size: int, key: int = 0) -> Examples:
        """At most `size` of the examples, drawn without replacement from `key`, in their order.

        Drawn, because a file's first examples are no sample of it: SQuAD's first hundred questions are about one football match.

        Raises:
            ValueError: `size` < 1.
        """
        require(size >= 1, "size", size, ">= 1")
        if size >= len(self):
            return self
        chosen = np.sort(keys.rng(keys.derive(key, "sample")).permutation(len(self))[:size])
        return Examples(self.task, self.part, tuple(self.items[i] for i in chosen), f"{self.source}, {size:,} drawn")


@dataclass(frozen=True)
class _File:
    """A file that a part may be in, by its name below a data folder, and its reader."""

    name: str
    read: Callable[[Path], Iterable[Row | None]]


@dataclass(frozen=True)
class _Data:
    """Where a task's examples are: the first file found is used, else the hub; `group` is what validation keeps together."""

    train: tuple[_File, ...]
    test: tuple[_File, ...]
    hub: tuple[str, ...]
    group: str


def load(task: str | Task, part: str) -> Examples:
    """The examples of a part of a task.

    Raises:
        DataError: no file and no library has them (the message names what was looked for and where), or a file is damaged.
        ValueError: unknown task or part.
    """
    task = get(task) if isinstance(task, str) else task
    require(part in PARTS, "part", repr(part), ", ".join(PARTS))
    if task.name.startswith(TOY_PREFIX):
        rows, where = importlib.import_module("llm.tiny.grammar").examples(task.name, part), f"generated {task.name} {part}"
        items, _ = _examples(task, rows, where)
        return Examples(task, part, items, f"{where}: {len(items):,} examples")
    data = _DATA[task.name]
    rows, where = _rows(task, data, part)
    items, dropped = _examples(task, rows, where)
    source = f"{where}: {len(items):,} examples" + (f", {dropped} broken rows left out" if dropped else "")
    if part != "test":
        held_out = _held_out([item[data.group] for item in items])
        source += f", {held_out.sum():,} of them set aside for validation"
        items = tuple(item for item, out in zip(items, held_out, strict=True) if out == (part == "validation"))
        if not items:
            raise DataError(f"{source}: too few for a {part} part of {task.name}; replace the file")
    return Examples(task, part, items, source)


def available(task: str, part: str) -> bool:
    """Whether a local file (or the generator) has that part of a task; the hub is not asked.

    Raises:
        DataError: ``$HISO_BENCH_DATA`` is set to something that is not a folder.
        ValueError: unknown task or part.
    """
    name = get(task).name
    require(part in PARTS, "part", repr(part), ", ".join(PARTS))
    return name.startswith(TOY_PREFIX) or any(datafiles.locate(file.name) for file in _files(_DATA[name], part))


def _files(data: _Data, part: str) -> tuple[_File, ...]:
    return data.test if part == "test" else data.train


def _rows(task: Task, data: _Data, part: str) -> tuple[Iterable[Row | None], str]:
    """Rows of the file a part comes from, and its name for the source line."""
    for file in _files(data, part):
        path = datafiles.locate(file.name)
        if path is not None:
            sha = datafiles.sha256_of(path)
            copy = "the recorded copy" if RECORDED.get(file.name) == sha else "another copy than any recorded result used"
            return file.read(path), f"{file.name} ({copy}, sha256 {sha[:12]})"
    split = "validation" if part == "test" else "train"
    name = " ".join((*data.hub, split))
    try:
        rows = _hub(data.hub, split)
    # The library fails in many ways where there is no network; whichever it was, it is the reason in the message.
    except Exception as error:
        reason = f"cannot load {name} ({type(error).__name__}: {' '.join(str(error).split())[:200]})"
        if isinstance(error, ModuleNotFoundError) and error.name == "datasets":
            reason = "is not installed"
        wanted = " or ".join(file.name for file in _files(data, part))
        places = ", ".join(place for place, _ in datafiles.folders())
        raise DataError(
            f"the {part} examples of {task.name} are not at hand: no {wanted} in {places}, and the datasets library {reason}; "
            f"set {datafiles.ENV} to a folder that holds the file, or take a generated task such as toy-sst2"
        ) from error
    return rows if task.labels else map(formats.spans, rows), f"datasets library, {name}"


def _hub(path: tuple[str, ...], split: str) -> Iterable[Row]:
    """A split of a data set of the hub, downloaded or cached; where the hub does not answer, the cache or an error at once."""
    library = importlib.import_module("datasets")
    with answering(library.config):
        return library.load_dataset(*path, split=split)


def _examples(task: Task, rows: Iterable[Row | None], where: str) -> tuple[tuple[dict[str, Any], ...], int]:
    """Checked examples, and how many broken rows there were.

    Raises:
        DataError: a row has a wrong field or label, more than 1 % of the rows are broken, or there is none.
    """
    items, broken = [], 0
    for number, row in enumerate(rows, 1):
        if row is None:
            broken += 1
            continue
        item = {field: row.get(field) for field in task.fields}
        try:
            task.prompt(item)
            if task.labels:
                item["label"] = label_id(task, row.get("label"))
            else:
                item["answers"] = tuple(dict.fromkeys(task.answers(row)))
        except ValueError as error:
            raise DataError(f"{where} row {number}: {error}; replace the file") from error
        items.append(item)
    if not items or broken > _BROKEN_SHARE * len(items):
        raise DataError(f"{where} holds {len(items)} examples and {broken} broken rows; replace the file")
    return tuple(items), broken


def label_id(task: Task, value: Any) -> int:
    """The class id of a label as a file writes it: a class name, true or false, or an id as a number or text.

    Raises:
        ValueError: it is none of the task's labels.
    """
    text = str(value).strip().lower()
    if text in task.labels:
        return task.labels.index(text)
    if text.isdecimal() and int(text) < len(task.labels):
        return int(text)
    raise ValueError(f"label {value!r} of {task.name}; allowed: {', '.join(task.labels)}, or 0..{len(task.labels) - 1}")


def _held_out(groups: Sequence[str]) -> np.ndarray:
    """Which examples are set aside, bool (N,): whole groups in a random order until the part is full."""
    names = {name: i for i, name in enumerate(dict.fromkeys(groups))}
    group = np.array([names[name] for name in groups])
    order = keys.rng(_VALIDATION_KEY).permutation(len(names))
    held = np.cumsum(np.bincount(group)[order])
    enough = int(np.searchsorted(held, min(VALIDATION_SIZE, len(groups) // 5))) + 1
    return np.isin(group, order[: min(enough, len(names) - 1)])


def _plain(name: str, read: Callable[[Path], Iterable[Row | None]], hub: str, group: str, end: str = "jsonl") -> _Data:
    """A task in two files: train and val.jsonl (SuperGLUE), or train and dev.tsv (GLUE)."""
    test = "dev" if end == "tsv" else "val"
    return _Data((_File(f"{name}/train.{end}", read),), (_File(f"{name}/{test}.{end}", read),), (hub, name), group)


_DATA = {
    "sst2": _plain("sst2", formats.tsv, "nyu-mll/glue", "sentence", "tsv"),
    "qqp": _plain("qqp", formats.tsv, "nyu-mll/glue", "question1", "tsv"),
    "rte": _plain("rte", formats.jsonl, "aps/super_glue", "premise"),
    "cb": _plain("cb", formats.jsonl, "aps/super_glue", "premise"),
    "boolq": _Data(
        (_File("boolq/train.jsonl", formats.titled), _File("boolq/train_subset.jsonl", formats.jsonl)),
        (_File("boolq/val.jsonl", formats.titled),),
        ("aps/super_glue", "boolq"),
        "passage",
    ),
    "wic": _plain("wic", formats.jsonl, "aps/super_glue", "word"),
    "wsc": _plain("wsc", formats.jsonl, "aps/super_glue", "text"),
    "multirc": _plain("multirc", formats.multirc, "aps/super_glue", "paragraph"),
    "squad": _Data(
        (_File("squad/train-v1.1.json", formats.squad), _File("squad/train_subset_v1.1.json", formats.squad)),
        (_File("squad/dev-v1.1.json", formats.squad), _File("squad/dev_subset_xquad_en.json", formats.squad)),
        ("rajpurkar/squad",),
        "context",
    ),
    "drop": _Data(
        (_File("drop/drop_dataset_train.json", formats.drop), _File("drop/train.jsonl", formats.spans_jsonl)),
        (_File("drop/drop_dataset_dev.json", formats.drop), _File("drop/val.jsonl", formats.spans_jsonl)),
        ("ucinlp/drop",),
        "passage",
    ),
}
RECORDED = {
    "boolq/train_subset.jsonl": "0522e5e022d8ae3418f948ec8a2764f7d3dd19c4e03374768c10b3ab3f25d705",
    "boolq/val.jsonl": "21acbfbd1e7908fddd9e626bc2a6101c5a5430bda3fbf74985b979af7a63b989",
    "cb/train.jsonl": "32017480d3a10508646e3efd64502c639f13d4d15077f278d2fd0992c33a3126",
    "cb/val.jsonl": "c6125587e9601560cb16ea223c33964c5a915568d2af68a81f651b6ef25395ec",
    "qqp/dev.tsv": "6c8cd16861687d1ff8e7fe30288d7ff18cf7ba2fe3c28b27862943d9ca138f6b",
    "qqp/train.tsv": "58c56abe29cc685d98d498af1910e22e08356a95e63fce197953241979d06bed",
    "rte/train.jsonl": "fdfb03443abe3ec0424b7fc5d1a8863361719bc061338b7a63e56b94d615f201",
    "rte/val.jsonl": "ab990507bf5f35dc176cba7770a72bfa2c50a88ed72b8cc95cfbf9db95ab1af1",
    "squad/dev_subset_xquad_en.json": "e4c57d1c9143aaa1c5d265ba5987a65f4e69528d2a98f29d6e75019b10344f29",
    "squad/train_subset_v1.1.json": "e7853905d95f255090f58a2af5221c7f2b296934f8a6c1d77b36df4686f0d828",
    "sst2/dev.tsv": "54a9c12c77e402fc14d6a66a506f24d999f596b0176eb777c972cccc2f9cc4b0",
    "sst2/train.tsv": "8621df47b79e9b3fa010405ef4dd506cbf483319cf851f20f2b6773f61d387b5",
    "wsc/train.jsonl": "0ffaa3fd8d21e58a0805962565d1619aa4819bc3d034255777f606f801ae5a42",
    "wsc/val.jsonl": "e5c685ea4bdc347354036a28176459f6feeb0b6870375ecfb3d6ddb1f0e28bef",
}
"""SHA-256 of the copies that the recorded results were computed from."""
