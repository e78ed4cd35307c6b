"""Make imdb-opt, and say what it can do on SST-2 before fine-tuning, and how far gradients take it.

`python -m llm.imdb` pre-trains the model into the user cache and writes results/imdb_opt.json. The recipe was chosen by zero-shot
accuracy on the development sentences alone, which is to lie between 0.60 and 0.75; the labelled test sentences took no part in
that, and no zeroth-order run in either.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import json
import platform
import sys
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from hiso_bench import methods, records
from hiso_bench.datafiles import DataError
from hiso_bench.federation import Federation, FederationOptions
from hiso_bench.points import Point
from llm import first_order, formats
from llm.encoding import encode
from llm.evaluation import evaluate
from llm.examples import label_id
from llm.hub import ModelError
from llm.imdb import pretrain, text
from llm.imdb.documents import TASK
from llm.problem import LanguageProblem

SCHEMA = 1
RATE, EPOCHS, BATCH_SIZE, EXAMPLES = 3e-4, 2, 32, 8000
P, SAMPLED, ROUNDS = 5, 2, 3
_LIBRARIES = ("torch", "transformers", "tokenizers", "numpy")


def scores(problem: LanguageProblem, x: Point) -> dict[str, dict[str, float]]:
    """Loss and accuracy at x on each file of SST-2's whole sentences, with the ends of the 99.9 % interval over test sets.

    Raises:
        hiso_bench.datafiles.DataError: a file is missing or damaged.

    Cost: a forward pass over 2,693 sentences.
    """
    found: dict[str, dict[str, float]] = {}
    net = functools.partial(problem.loss.outputs, problem.loss.cast(x))
    for name in text.REPORTED:
        rows = [row for row in formats.tsv(text.paths()[name]) if row is not None]
        items = [{"sentence": row["sentence"], "label": label_id(TASK, row["label"])} for row in rows]
        encoded = encode(TASK, problem.tokenizer, items, problem.context, family="opt")
        scored = evaluate(net, encoded)
        interval = scored.interval(TASK.metric)
        found[name] = scored.values() | {
            f"{TASK.metric}_low": interval.low,
            f"{TASK.metric}_high": interval.high,
            "positive": sum(scored.predictions) / len(scored.predictions),
            "examples": len(items),
            "longest_prompt": max(map(len, encoded.prompts)),
        }
    return found


def zero_shot(model: str) -> dict[str, Any]:
    """The scores before any fine-tuning."""
    problem = LanguageProblem(model=model, task=TASK.name, evaluate_limit=1)
    return scores(problem, problem.initial())


def ceiling(model: str) -> dict[str, Any]:
    """The same scores after AdamW on some of the pooled training examples. Cost: two epochs over 8,000 phrases."""
    problem = LanguageProblem(model=model, task=TASK.name, batch_size=BATCH_SIZE, train_limit=EXAMPLES, evaluate_limit=1)
    x, epochs = first_order.train(problem, RATE, EPOCHS, quiet=not sys.stderr.isatty())
    return {
        "lr": RATE,
        "epochs": EPOCHS,
        "batch_size": BATCH_SIZE,
        "examples": len(problem.train),
        "optimiser": "AdamW",
        "train_loss": [epoch.train_loss for epoch in epochs[1:]],
        "scores": scores(problem, x),
    }


def round_seconds(model: str) -> dict[str, Any]:
    """CPU and wall seconds of a round of federated zeroth-order fine-tuning, the mean over a few after the first."""
    problem = LanguageProblem(model=model, task=TASK.name, evaluate_limit=1)
    federation = Federation(problem, methods.build("hiso", lr=1e-6, perturbations=P), FederationOptions(sampled=SAMPLED))
    federation.round()
    wall, cpu = time.perf_counter(), time.process_time()
    for _ in range(ROUNDS):
        federation.round()
    spent = {"wall": (time.perf_counter() - wall) / ROUNDS, "cpu": (time.process_time() - cpu) / ROUNDS}
    return spent | {"P": P, "sampled": SAMPLED, "batch_size": problem.batch_size, "threads": torch.get_num_threads()}


def write(path: Path, content: dict[str, Any]) -> None:
    """What was measured and what made it, whole or not at all."""
    content = {
        "schema": SCHEMA,
        "recipe": dataclasses.asdict(pretrain.Recipe()),
        **content,
        "source": records.source_version(),
        "date": datetime.now(UTC).date().isoformat(),
        "device": f"{torch.get_num_threads()} CPU thread(s), {platform.machine()}",
        "libraries": {name: metadata.version(name) for name in _LIBRARIES} | {"python": platform.python_version()},
    }
    records.write_bytes(path, (json.dumps(content, indent=1) + "\n").encode())


def known(path: Path, base_hash: str) -> dict[str, Any]:
    """What a file already says of the same model; nothing if it is not there or is of another one."""
    try:
        content = json.loads(path.read_text())
    except FileNotFoundError:
        return {}
    if (content.get("schema"), content.get("base_hash")) != (SCHEMA, base_hash):
        return {}
    return {name: content[name] for name in MEASURES if name in content}


def report(folder: Path, out: Path, wanted: Sequence[str]) -> None:
    """Measure the model in a folder, and write what was found after each measure; those that the file has are not made again.

    Cost: some minutes on one core.
    """
    problem = LanguageProblem(model=str(folder), task=TASK.name, evaluate_limit=1)
    content: dict[str, Any] = {
        "base_hash": problem.base_hash,
        "data_hash": problem.data_hash,
        "pretraining": json.loads((folder / pretrain.ABOUT).read_text()),
        "longest_training_prompt": max(map(len, problem.train.prompts)),
        **known(out, problem.base_hash),
    }
    for name in wanted:
        if name not in content:
            content[name] = MEASURES[name](str(folder))
            write(out, content)
        print(f"{name}: {json.dumps(content[name])}", flush=True)


MEASURES: dict[str, Callable[[str], dict[str, Any]]] = {
    "zero_shot": zero_shot,
    "round_seconds": round_seconds,
    "first_order": ceiling,
}


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(
        prog="python -m llm.imdb", description="Pre-train imdb-opt on IMDB reviews, and write down what it can do on SST-2."
    )
    parser.add_argument("--key", type=int, default=0, help="pre-training key (default: 0, the model called imdb-opt)")
    parser.add_argument(
        "--measures", nargs="*", choices=list(MEASURES), default=list(MEASURES), help="default: all; none: only pre-train"
    )
    parser.add_argument("--out", type=Path, default=Path("results/imdb_opt.json"), help="default: results/imdb_opt.json")
    options = parser.parse_args()
    try:
        folder = pretrain.folder(options.key)
        print(f"{pretrain.NAME} is in {folder}", flush=True)
        if options.measures:
            report(folder, options.out, options.measures)
    except (DataError, ModelError) as error:
        sys.exit(f"error: {error}")
