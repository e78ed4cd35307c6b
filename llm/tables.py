"""The recorded comparisons in the layout of HiSo's Tables 2 and 3 (arXiv 2506.02370), with what the paper printed beside them.

`python -m llm.tables` writes results/llm_tables.md from whatever is recorded: tables that hold fewer keys than were planned are
marked as partial, comparisons that were never run are named.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from hiso_bench import catalogue, records
from hiso_bench.stats import LEVEL, mean_interval
from hiso_bench.summaries import (
    SHOWN_LEVEL,
    Curves,
    Reached,
    at_bytes,
    least_bytes,
    paired,
    rounds_to_best,
    rounds_to_best_by_key,
)
from llm.compare import CEILING, Comparison
from llm.recorded import Recorded, comparisons, recorded

REPORTED = catalogue.ROOT / "paper" / "reported"
NAMES = {"decomfl": "DeComFL", "hiso": "HiSo", "hiso-scalar": "HiSo, H replaced by its mean"}
PAIRS = (("hiso", "decomfl"), ("hiso", "hiso-scalar"), ("hiso-scalar", "decomfl"))
_HEAD = """# Methods compared on fine-tuning language models

Written by `python -m llm.tables` from the recorded tables in this folder.

- Every arm has its own learning rate, chosen by successive halving on validation examples and one tuning key, within one budget
  of rounds; results are of other keys. A best score is the highest point of a curve, which has one every few rounds.
- KB are counted as the papers count them: P scalars of 4 bytes up and P down for a client in every round, nothing else. The bytes
  of the differences at equal bytes are all that went over the wire.
- AdamW with gradients on all clients' examples pooled says how far fine-tuning can get; the paper's column there is FedAdam.
- The paper's columns are of other models (OPT-125M to 2.7B) on the task with the same template. They are here to compare the size
  of effects; nothing in them can be equal to ours. The paper says neither what its ± are nor of how many runs.
"""


def rounds_table(found: Sequence[Recorded], arm_of_target: str, reported: pd.DataFrame | None = None) -> str:
    """Rounds that every arm needs to one arm's best mean score, in the layout of Table 2; the paper's columns where given."""
    models = [] if reported is None else sorted(set(reported["model"]), key=list(reported["model"]).index)
    head = [
        "model",
        "task",
        "method",
        f"rounds to {NAMES[arm_of_target]}'s best mean",
        "KB",
        "speed-up",
        "key by key: median (range)",
    ]
    rows = []
    for of in found:
        if arm_of_target not in of.arms:
            continue
        both = of.curves()
        for arm in of.arms:
            reached = rounds_to_best(both, arm, arm_of_target)
            kilobytes = f"{of.kilobytes(reached.last if reached.round is None else reached.round):.2f}"
            cells = [_rounds(reached), f"> {kilobytes}" if reached.round is None else kilobytes, _speedup(reached)]
            by_key = _spread(rounds_to_best_by_key(both, arm, arm_of_target))
            rows.append(
                [
                    of.label,
                    NAMES[arm] + _lost(both, arm),
                    *cells,
                    by_key,
                    *(_paper_rounds(reported, m, of.task, arm) for m in models),
                ]
            )
    return _markdown([*head, *(f"paper, {model}" for model in models)], rows)


def _lost(of: Curves, arm: str) -> str:
    lost = int(np.isnan(of.values[arm][:, -1]).sum())
    return f" ({lost} of {len(of.keys)} diverged)" if lost else ""


def _rounds(reached: Reached) -> str:
    return f"not within {reached.last}" if reached.round is None else str(reached.round)


def _speedup(reached: Reached) -> str:
    if reached.round is None:
        return f"< {reached.speedup_at_most:.2g}x"
    return "-" if np.isnan(reached.speedup) else f"{reached.speedup:.2g}x"


def _spread(each: Sequence[Reached]) -> str:
    """Median and range of rounds over keys; a run that never gets there counts as later than all others."""
    rounds = np.array([np.inf if r.round is None else r.round for r in each])
    last = max(r.last for r in each)

    def text(value: float) -> str:
        return f"{value:g}" if np.isfinite(value) else f"> {last}"

    ordered = np.sort(rounds)
    # The lower of the two middle ones where their number is even: no mean of a number and "later".
    return f"{text(ordered[(len(ordered) - 1) // 2])} ({text(ordered[0])} to {text(ordered[-1])})"


def _paper_rounds(reported: pd.DataFrame | None, model: str, task: str, arm: str) -> str:
    told = _told(reported, model, task, arm)
    if "rounds" not in told:
        return "-"
    return f"{told['rounds'][0]:g} ({told['communication'][0]:g} KB, {told['speedup'][0]:g}x)"


def scores_table(found: Sequence[Recorded], reported: pd.DataFrame) -> str:
    """Scores on the whole test part after the last round, in the layout of Table 3."""
    models = sorted(set(reported["model"]), key=list(reported["model"]).index)
    head = [
        "model",
        "task",
        "method",
        f"score, % (mean, {SHOWN_LEVEL:.0%} over keys)",
        f"test set alone, {LEVEL:.1%}",
        "KB to its best",
    ]
    rows = []
    for of in found:
        both = of.curves()
        lines = [("before fine-tuning", "", of.zero_shot(), "", "0")]
        for arm in of.arms:
            best = rounds_to_best(both, arm, arm).round or 0
            lines.append((NAMES[arm], arm, of.final(arm), _test_set(of, arm), f"{of.kilobytes(best):.2f}"))
        lines.append(("AdamW, pooled data", "fedadam", of.final(CEILING.name), _test_set(of, CEILING.name), "-"))
        for name, arm, values, test_set, kilobytes in lines:
            paper = [_paper_score(reported, model, of.task, arm) for model in models]
            rows.append([of.label, name, _score(values), test_set, kilobytes, *paper])
    return _markdown([*head, *(f"paper, {model}" for model in models)], rows)


def _score(values: np.ndarray) -> str:
    """Mean and interval in per cent, and how many runs are missing in it."""
    known = values[~np.isnan(values)]
    lost = f", {len(values) - len(known)} of {len(values)} diverged" if len(known) < len(values) else ""
    if not len(known):
        return "diverged"
    if len(known) == 1:
        return f"{100 * known[0]:.2f} (one key{lost})"
    interval = mean_interval(known, SHOWN_LEVEL)
    return f"{100 * interval.value:.2f} ± {100 * (interval.high - interval.value):.2f}{lost}"


def _test_set(of: Recorded, arm: str) -> str:
    """Half the width of the interval that the number of test examples leaves to one run, mean over keys."""
    widths = of.final(arm, f"{of.metric}_high") - of.final(arm, f"{of.metric}_low")
    return "-" if np.isnan(widths).all() else f"± {50 * np.nanmean(widths):.2f}"


def _paper_score(reported: pd.DataFrame, model: str, task: str, arm: str) -> str:
    told = _told(reported, model, task, arm)
    score = told.get("accuracy") or told.get("f1")
    if score is None:
        return "-"
    sent = told["communication"]
    return f"{'FedAdam ' if arm == 'fedadam' else ''}{score[0]:.2f} ± {score[1]:.2f} ({sent[0]:g} {sent[2]})"


def _told(reported: pd.DataFrame | None, model: str, task: str, arm: str) -> dict[str, tuple[float, float, str]]:
    """What the paper printed of a model, task and method: quantity -> (value, error, unit)."""
    if reported is None:
        return {}
    here = (reported["model"] == model) & (reported["task"] == task.removeprefix("toy-")) & (reported["method"] == arm)
    part = reported.loc[here, ["quantity", "value", "error", "unit"]]
    return {quantity: (value, error, unit) for quantity, value, error, unit in part.itertuples(index=False)}


def differences_table(found: Sequence[Recorded]) -> str:
    """Differences paired by key: of score and loss on the whole test part at the end, and of the score at equal bytes before."""
    apart = f"told apart at {LEVEL:.1%}"
    when = ("score at the end, points", "loss at the end, nats", "score at half the bytes, points")
    head = ["model", "task", "difference", *(cell for name in when for cell in (name, apart))]
    rows = []
    for of in found:
        both = of.curves()
        for first, second in PAIRS:
            if first not in of.arms or second not in of.arms:
                continue
            half = least_bytes(both) / 2
            score, loss = ([of.final(arm, name) for arm in (first, second)] for name in ("", "loss"))
            on_the_way = [at_bytes(both, arm, half) for arm in (first, second)]
            cells = [*_difference(score, 100, 2), *_difference(loss, 1, 4), *_difference(on_the_way, 100, 2)]
            rows.append([of.label, f"{NAMES[first]} - {NAMES[second]}", *cells])
    return _markdown(head, rows)


def _difference(of: Sequence[np.ndarray], unit: float, digits: int) -> list[str]:
    """The first minus the second: mean and interval in `unit`ths, and whether they leave out zero at `stats.LEVEL`."""
    first, second = of
    if not (~np.isnan(first) & ~np.isnan(second)).any():
        return ["diverged", "-"]
    keys, interval, apart = paired(first, second)
    value, low, high = (f"{unit * number:+.{digits}f}" for number in interval)
    return [f"{value} (one key)", "no"] if keys == 1 else [f"{value} [{low}, {high}], {keys} keys", "yes" if apart else "no"]


def overview(found: Sequence[Recorded], experiments: Sequence[Comparison]) -> str:
    """What was run, and what was not."""
    head = ["model", "task", "rounds", "test examples of the curves", "learning rates", "recorded"]
    rows = []
    for of in found:
        rates = ", ".join(
            f"{NAMES.get(arm, 'AdamW')} {rate:.2g}{' (at the edge of its grid)' if arm in of.at_edge else ''}"
            for arm, rate in of.config["rates"].items()
        )
        limit = of.config["evaluate_limit"]
        rows.append([of.label, str(of.config["rounds"]), str(limit or "all"), rates, f"{of.about['date']}, {of.about['source']}"])
    missing = [experiment.name for experiment in experiments if experiment not in [of.experiment for of in found]]
    return _markdown(head, rows) + (f"\n\nNot run: {', '.join(missing)}." if missing else "")


def _markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [" | ".join(head), "|".join("-" for _ in head), *(" | ".join(row) for row in rows)]
    return "\n".join(f"| {line} |" if line[0] != "-" else f"|{line}|" for line in lines)


def page(results: Path, experiments: Sequence[Comparison]) -> str:
    """The whole page in Markdown.

    Raises:
        hiso_bench.records.RecordError: a table was changed after it was written.
    """
    found = recorded(results, experiments)
    table2, table3 = (pd.read_csv(REPORTED / f"hiso_table{n}.csv") for n in (2, 3))
    parts = {
        "What was run": overview(found, experiments),
        "Rounds to DeComFL's best score (layout of Table 2)": rounds_table(found, "decomfl", table2),
        "The other way: rounds to HiSo's best score": rounds_table(found, "hiso"),
        "Scores after the last round (layout of Table 3)": scores_table(found, table3),
        "Differences, paired by key": differences_table(found),
    }
    return "\n".join([_HEAD, *(f"## {title}\n\n{text}\n" for title, text in parts.items())])


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m llm.tables", description="Write the comparison's tables.")
    parser.add_argument("--results", type=Path, default=catalogue.RESULTS, help="folder of the recorded tables")
    parser.add_argument("--out", type=Path, help="default: llm_tables.md in that folder")
    options = parser.parse_args()
    target = options.out or options.results / "llm_tables.md"
    records.write_bytes(target, page(options.results, comparisons()).encode())
    print(target)


if __name__ == "__main__":
    main()
