"""Readers of the files that language data sets come in: each turns a file into rows with the task's own field names.

A row is a dict with the task's fields, and `label` as the file writes it or `answers` as a list of texts; None stands for a row
that the file itself breaks (too few columns, no answer). `llm.examples` turns rows into examples.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from hiso_bench.datafiles import DataError

Row = dict[str, Any]


def tsv(path: Path) -> Iterator[Row | None]:
    """Rows of a tab-separated file with a header line and no quoting (GLUE); `is_duplicate` is called `label`.

    Raises:
        DataError: not UTF-8, or without a header.
    """
    # Not splitlines: questions contain other line separators.
    header, *lines = _text(path).rstrip("\n").split("\n")
    names = ["label" if name == "is_duplicate" else name for name in header.rstrip("\r").split("\t")]
    if "label" not in names:
        raise DataError(f"{path} starts with {header[:60]!r}, expected a header with label or is_duplicate; replace the file")
    for line in lines:
        cells = line.rstrip("\r").split("\t")
        yield dict(zip(names, cells, strict=True)) if len(cells) == len(names) else None


def jsonl(path: Path) -> Iterator[Row]:
    """Rows of a file with one JSON object a line (SuperGLUE); WSC's nested `target` is flattened.

    Raises:
        DataError: a line is not a JSON object.
    """
    for number, line in enumerate(_text(path).split("\n"), 1):
        if line.strip():
            row = _json(line, f"{path} line {number}")
            yield row | row.get("target", {})


def titled(path: Path) -> Iterator[Row]:
    """BoolQ rows whose passages start with "Title -- "; the title is taken off, because not every BoolQ file has it."""
    for row in jsonl(path):
        yield row | {"passage": row.get("passage", "").split(" -- ", 1)[-1]}


def multirc(path: Path) -> Iterator[Row]:
    """SuperGLUE's MultiRC: one row for each candidate answer of each question of each passage."""
    for row in jsonl(path):
        for question in _part(row, "passage", path).get("questions", ()):
            for answer in question.get("answers", ()):
                yield {
                    "paragraph": row["passage"].get("text"),
                    "question": question.get("question"),
                    "answer": answer.get("text"),
                    "label": answer.get("label"),
                }


def squad(path: Path) -> Iterator[Row]:
    """SQuAD v1.1's own nested JSON; underscores in titles become spaces."""
    for article in _part(_json(_text(path), str(path)), "data", path):
        for paragraph in article.get("paragraphs", ()):
            for question in paragraph.get("qas", ()):
                yield {
                    "title": article.get("title", "").replace("_", " "),
                    "context": paragraph.get("context"),
                    "question": question.get("question"),
                    "answers": [answer["text"] for answer in question.get("answers", ())],
                }


def drop(path: Path) -> Iterator[Row | None]:
    """DROP's own nested JSON: each annotator's answer is one reference (a number, a date, or its spans joined by a comma)."""
    for passage in _json(_text(path), str(path)).values():
        for question in passage.get("qa_pairs", ()):
            given = [question.get("answer", {}), *question.get("validated_answers", ())]
            answers = [text for text in map(_drop_answer, given) if text]
            row = {"passage": passage.get("passage"), "question": question.get("question"), "answers": answers}
            yield row if answers else None


def spans(row: Mapping[str, Any]) -> Row | None:
    """A row of the hub's form of SQuAD (`answers: {text: [...]}`) or DROP (`answers_spans: {spans: [...]}`)."""
    nested = row.get("answers_spans") or row.get("answers") or {}
    answers = nested if isinstance(nested, list) else list(nested.get("spans", nested.get("text", ())))
    return dict(row) | {"answers": answers} if answers else None


def spans_jsonl(path: Path) -> Iterator[Row | None]:
    """Rows of the hub's form of SQuAD or DROP, one JSON object a line."""
    return map(spans, jsonl(path))


def _drop_answer(answer: Mapping[str, Any]) -> str:
    date = answer.get("date") or {}
    parts = [date.get(part, "") for part in ("day", "month", "year")]
    return str(answer.get("number", "")).strip() or ", ".join(answer.get("spans", ())) or " ".join(p for p in parts if p)


def _text(path: Path) -> str:
    try:
        return path.read_bytes().decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read as UTF-8 text ({error}); replace the file") from error


def _json(text: str, where: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        raise DataError(f"{where} is not JSON ({error}); replace the file") from error
    if not isinstance(value, dict):
        raise DataError(f"{where} is a JSON {type(value).__name__}, expected an object; replace the file")
    return value


def _part(value: dict[str, Any], key: str, path: Path) -> Any:
    if key not in value:
        raise DataError(f"{path} lacks {key!r}: it holds {', '.join(value) or 'nothing'}; replace the file")
    return value[key]
