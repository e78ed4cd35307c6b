"""What tiny-opt can do before fine-tuning.

`python -m llm.tiny.report` writes results/tiny_opt.json: for several pre-training keys the score on the test part of each
generated task. No fine-tuning takes part; first-order ceilings stand in the tables of `llm.compare`. A file that is there is
completed, not begun again.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import platform
import time
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from hiso_bench import records, stats
from llm.problem import LanguageProblem
from llm.tiny import grammar, pretrain

SCHEMA = 1
KEYS = (0, 1, 2, 3, 4, 5)
LEVEL = 0.95
"""Of the intervals of the mean over keys: five keys are too few for more."""
_LIBRARIES = ("torch", "transformers", "tokenizers", "numpy")


def measure(key: int, task: str) -> dict[str, float]:
    """Zero-shot score and loss of one key on one task, and the seconds that an evaluation takes."""
    problem = LanguageProblem(model=str(pretrain.folder(key)), task=task)
    x = problem.initial()
    started = time.perf_counter()
    zero = problem.evaluate(x)
    return {"zero_shot": zero[problem.metric], "zero_shot_loss": zero["loss"], "seconds": time.perf_counter() - started}


def summary(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Per task, the mean zero-shot score over keys, its interval (from two keys on) and the smallest and largest value."""
    out: dict[str, Any] = {}
    for task in grammar.SIZES:
        values = [row["zero_shot"] for row in rows if row["task"] == task]
        if values:
            known = {"keys": len(values), "mean": sum(values) / len(values), "least": min(values), "most": max(values)}
            if len(values) > 1:
                known["low"], known["high"] = stats.mean_interval(values, LEVEL)[1:]
            out[task] = known
    return out


def write(path: Path, rows: list[dict[str, Any]]) -> None:
    """The rows, their summary and what made them, whole or not at all."""
    content = {
        "schema": SCHEMA,
        "corpus": grammar.FROZEN,
        "recipe": dataclasses.asdict(pretrain.Recipe()),
        "examples": {task: sizes["test"] for task, sizes in grammar.SIZES.items()},
        "level": LEVEL,
        "summary": summary(rows),
        "rows": rows,
        "source": records.source_version(),
        "date": datetime.now(UTC).date().isoformat(),
        "device": f"{torch.get_num_threads()} CPU thread(s), {platform.machine()}",
        "libraries": {name: metadata.version(name) for name in _LIBRARIES} | {"python": platform.python_version()},
    }
    records.write_bytes(path, (json.dumps(content, indent=1) + "\n").encode())


def known(path: Path) -> list[dict[str, Any]]:
    """The rows that a file already holds of this corpus and recipe; none if it is not there or of others."""
    try:
        content = json.loads(path.read_text())
    except FileNotFoundError:
        return []
    here = [SCHEMA, grammar.FROZEN, json.loads(json.dumps(dataclasses.asdict(pretrain.Recipe())))]
    return content["rows"] if [content.get("schema"), content.get("corpus"), content.get("recipe")] == here else []


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m llm.tiny.report", description="Scores of tiny-opt before any fine-tuning.")
    parser.add_argument("--keys", type=int, nargs="+", default=list(KEYS), help="pre-training keys (default: 0 to 5)")
    parser.add_argument("--tasks", nargs="+", choices=list(grammar.SIZES), default=list(grammar.SIZES))
    parser.add_argument("--out", type=Path, default=Path("results/tiny_opt.json"), help="default: results/tiny_opt.json")
    options = parser.parse_args()
    rows = known(options.out)
    for key in options.keys:
        for task in options.tasks:
            if any((row["key"], row["task"]) == (key, task) for row in rows):
                continue
            seconds = json.loads((pretrain.folder(key) / pretrain.ABOUT).read_text())["seconds"]
            found = measure(key, task)
            rows.append({"key": key, "task": task, **found, "pretraining_seconds": seconds})
            rows.sort(key=lambda row: (list(grammar.SIZES).index(row["task"]), row["key"]))
            write(options.out, rows)
            print(f"key {key}, {task}: zero-shot {found['zero_shot']:.3f}", flush=True)


if __name__ == "__main__":
    main()
