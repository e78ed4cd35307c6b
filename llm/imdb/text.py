"""The text that imdb-opt is trained on: IMDB reviews in SST-2's style, cut into sentences, without what SST-2 holds too."""

from __future__ import annotations

import gzip
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from hiso_bench import datafiles
from hiso_bench.datafiles import DataError

UNLABELLED = "imdb/unsup_13k.txt.gz"
LABELLED = ("imdb/train_labeled.tsv.gz", "imdb/test_labeled.tsv.gz")
SST2 = ("sst2/train.tsv", "sst2/dev.tsv", "sst2/test_labeled_sentences.tsv")
"""What nothing may be trained on. Training phrases and the sentences that results are reported on."""
REPORTED = SST2[1:]
FILES = (UNLABELLED, *LABELLED, *SST2)

_ENDS = (".", "!", "?", "...")
_SHORTEST_INSIDE = 4  # words: shorter sentences of SST-2 ("a sham .") stand inside of others by chance


class Review(NamedTuple):
    """A review as sentences, and its rating of 1 to 10 (0: unknown)."""

    sentences: tuple[str, ...]
    rating: int


@dataclass(frozen=True)
class Corpus:
    """Reviews, and what was left out of them.

    Attributes:
        reviews: all of them, the labelled ones first.
        equal: how many of their sentences were dropped because they are a row of SST-2 (each counted as often as it occurs).
        holding: how many more because a sentence of SST-2's development or test file stands inside them.
    """

    reviews: tuple[Review, ...]
    equal: int
    holding: int


def paths() -> dict[str, Path]:
    """The files, by name.

    Raises:
        DataError: one is in no data folder.
    """
    found = {name: datafiles.locate(name) for name in FILES}
    if missing := [name for name, path in found.items() if path is None]:
        places = ", ".join(place for place, _ in datafiles.folders())
        raise DataError(
            f"imdb-opt is trained on files that are not at hand: no {', '.join(missing)} in {places}; "
            f"set {datafiles.ENV} to a folder that holds them, or take the embedded default tiny-opt"
        )
    return {name: path for name, path in found.items() if path is not None}


def load() -> Corpus:
    """Read the reviews and drop what SST-2 holds too.

    Raises:
        DataError: a file is missing, cannot be read, or has another layout.

    Cost: about ten seconds for 19,000 reviews.
    """
    where = paths()
    rows = {name: [key(row["sentence"]) for row in _table(where[name], ("sentence", "label"))] for name in SST2}
    every = {row for name in SST2 for row in rows[name]}
    inside = _by_beginning({row for name in REPORTED for row in rows[name]})
    reviews, equal, holding = [], 0, 0
    for review in _reviews(where):
        kept = []
        for sentence in review.sentences:
            words = key(sentence)
            if not words:
                continue
            if words in every:
                equal += 1
            elif _holds(words, inside):
                holding += 1
            else:
                kept.append(sentence)
        reviews.append(Review(tuple(kept), review.rating))
    return Corpus(tuple(reviews), equal, holding)


def key(text: str) -> tuple[str, ...]:
    """The words of a text as they are compared: lower-case letters and digits only."""
    return tuple(re.findall(r"[^\W_]+", text.lower()))


def styled(text: str) -> str:
    """A text as SST-2 writes it: lower-case, punctuation and clitics set apart ("it 's", "does n't", "-lrb-"), no quotes."""
    text = text.lower().replace('"', " ")
    text = re.sub(r"(\w)(n't|'(?:s|re|ve|ll|d|m))\b", r"\1 \2", text)
    text = re.sub(r"(\.{2,}|--+|[!?]+|[,;:()]|\.(?!\d))", _apart, text)
    return " ".join(text.split())


def _apart(match: re.Match[str]) -> str:
    mark = match.group()
    if mark[0] in "!?":
        mark = mark[0]
    return f" { {'(': '-lrb-', ')': '-rrb-'}.get(mark, '...' if mark.startswith('..') else mark) } "


def sentences(text: str) -> tuple[str, ...]:
    """The sentences of a text in SST-2's style, each with its closing mark."""
    found: list[list[str]] = [[]]
    for word in styled(text).split(" "):
        found[-1].append(word)
        if word in _ENDS:
            found.append([])
    return tuple(" ".join(words) for words in found if words)


def _reviews(where: dict[str, Path]) -> Iterable[Review]:
    for name in LABELLED:
        for number, row in enumerate(_table(where[name], ("id", "label", "rating", "text")), 1):
            if not row["rating"].isdecimal() or not 1 <= int(row["rating"]) <= 10:
                raise DataError(f"{name} row {number}: rating {row['rating']!r}; allowed: 1..10; replace the file")
            yield Review(sentences(row["text"]), int(row["rating"]))
    for line in _lines(where[UNLABELLED]):
        yield Review(sentences(line), 0)


def _table(path: Path, columns: Sequence[str]) -> Iterable[dict[str, str]]:
    """Rows of a tab-separated file without quoting.

    Raises:
        DataError: it cannot be read, or its columns are others.
    """
    rows = (line.split("\t") for line in _lines(path))
    if (header := next(rows, [])) != list(columns):
        raise DataError(f"{path} has the columns {header}; expected {list(columns)}; replace the file")
    for number, row in enumerate(rows, 1):
        if len(row) != len(columns):
            raise DataError(f"{path} row {number} has {len(row)} columns; expected {len(columns)}; replace the file")
        yield dict(zip(columns, row, strict=True))


def _lines(path: Path) -> Iterable[str]:
    opened = gzip.open if path.suffix == ".gz" else open
    try:
        with opened(path, "rt", encoding="utf-8", newline="\n") as file:
            for line in file:
                yield line.rstrip("\r\n")
    except (OSError, EOFError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read ({' '.join(str(error).split())}); replace the file") from error


Beginnings = dict[tuple[str, ...], list[tuple[str, ...]]]


def _by_beginning(rows: Iterable[tuple[str, ...]]) -> Beginnings:
    """Rows of at least four words by their first four."""
    found: Beginnings = {}
    for row in rows:
        if len(row) >= _SHORTEST_INSIDE:
            found.setdefault(row[:_SHORTEST_INSIDE], []).append(row)
    return found


def _holds(words: tuple[str, ...], inside: Beginnings) -> bool:
    """Whether one of the rows stands in these words."""
    return any(
        words[i : i + len(row)] == row
        for i in range(len(words) - _SHORTEST_INSIDE + 1)
        for row in inside.get(words[i : i + _SHORTEST_INSIDE], ())
    )
