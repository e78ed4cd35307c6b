"""`python -m benchmarks.llm`: a round of fine-tuning over its floor, and the memory it holds over its estimate.

Floor of a round: m tau (P + 1) forward passes of the plain model, to the logits that the loss needs, and one Gaussian for each
parameter and direction, tau P in all. It is timed with its rounds (directions kept, and regenerated: the low-memory mode) and,
with --peer, the official code's, in turn, in one process, after a warm-up of each (but for OPT-125M on a CPU); a ratio is the
median over the repeats, with the smallest and the largest.

Memory is that of a process of its own which runs two rounds: resident memory beyond what it had before the model (CPU), or the
allocator's peak (CUDA), beside the estimate of `llm.memory`.

On a CPU it takes about nine minutes on two cores. Finished cases are kept in results/fresh until all are done, so a stopped run
goes on where it was. The rows of the other kind of device stay as they are.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import torch
from tqdm import tqdm

from benchmarks import llm_cases
from benchmarks.cases import P
from benchmarks.llm_cases import CPU, CUDA, OPT_125M, SMALL, Case
from benchmarks.round import BUSY, HERE, time_of
from hiso_bench import records
from llm import memory
from llm.models import DTYPES

TARGET = HERE.parent / "results" / "bench_llm.json"
UNFINISHED = HERE.parent / "results" / "fresh" / "bench_llm_unfinished.json"
START, END = "<!-- llm -->\n", "<!-- end of llm -->"
SUBJECTS = ("kept", "regenerated")
MEMORY = {
    "cpu": (
        *((Case(SMALL, 1), subject) for subject in (*SUBJECTS, "peer")),
        (Case(SMALL, 1, tau=3, sampled=5, clients=40), "regenerated"),
        *((Case(OPT_125M, 1, sampled=1), subject) for subject in SUBJECTS),
    ),
    "cuda": tuple((case, subject) for case in CUDA if case.peer for subject in (*SUBJECTS, "peer")),
}
Rows = list[dict[str, Any]]


def warm_ups_of(case: Case) -> int:
    """One, or none for a model whose rounds are so long that what is slower the first time does not count."""
    return int(case.pairs > 2)


def finished(device: str) -> None:
    """Wait for what was launched on a device."""
    if device == "cuda":
        torch.cuda.synchronize()


def timed(case: Case, repeats: int, peer: Path | None, bar: tqdm) -> Rows:
    """Time forward passes, Gaussians, both rounds and the peer in turn, after a warm-up of each; one row per kind of round."""
    forwards, gaussians = llm_cases.floor_of(case)
    work: dict[str, Callable[[], object]] = {"forwards": forwards, "gaussians": gaussians}
    work |= {subject: llm_cases.round_of(case, subject == "kept") for subject in SUBJECTS}
    if peer is not None:
        with contextlib.redirect_stdout(io.StringIO()):
            work["peer"] = llm_cases.peer_of(peer, case)

    def once(call: Callable[[], object]) -> None:
        call()
        finished(case.device)

    times: dict[str, list[float]] = {name: [] for name in work}
    warm_ups = warm_ups_of(case)
    for i in range(warm_ups + repeats):
        for name, call in work.items():
            seconds = time_of(lambda call=call: once(call))
            if i >= warm_ups:
                times[name].append(seconds)
            bar.update()
    floor = [a + b for a, b in zip(times["forwards"], times["gaussians"], strict=True)]
    median = {name: statistics.median(of) for name, of in times.items()}
    spread = max(floor) / min(floor)
    rows = []
    for subject in SUBJECTS:
        ratios = [a / b for a, b in zip(times[subject], floor, strict=True)]
        over = [a / b for a, b in zip(times["peer"], times[subject], strict=True)] if peer else []
        rows.append(
            {
                "case": case.name, **_about(case), "directions": subject, "repeats": repeats,
                "seconds": median[subject], "floor_seconds": statistics.median(floor),
                "gaussian_share": median["gaussians"] / (median["gaussians"] + median["forwards"]),
                "ratio": statistics.median(ratios), "ratio_low": min(ratios), "ratio_high": max(ratios),
                "floor_spread": spread, "busy": spread > BUSY,
                "peer_over_ours": statistics.median(over) if over else None,
                "peer_low": min(over, default=None), "peer_high": max(over, default=None),
            }
        )  # fmt: skip
    return rows


def _about(case: Case) -> dict[str, Any]:
    told = {name: value for name, value in asdict(case).items() if name not in ("shape", "pairs", "peer")}
    return told | {"P": P, "threads": torch.get_num_threads()}


def measured(case: Case, subject: str, peer: Path | None) -> dict[str, Any]:
    """Peak memory of a process that runs two rounds, and what is estimated for ours."""
    number = [spec for spec in MEMORY[case.device]].index((case, subject))
    call = [sys.executable, "-m", "benchmarks.llm", "--memory", str(number), "--device", case.device]
    call += ["--peer", str(peer)] if peer else []
    told = subprocess.run(call, capture_output=True, text=True, check=True, cwd=HERE.parent)
    peak = float(told.stdout.strip().splitlines()[-1])
    kept = P if subject == "kept" else 0
    rows = 16 * case.tokens
    needed = memory.estimate_memory(case.shape.config(), DTYPES[case.dtype], tokens=rows, positions=16, directions=kept)
    point = 4 * needed.trainable
    # The bench keeps no base point beside x, and a second local step walks on a copy of x.
    estimate = needed.total - needed.parts["module"] + (point if case.tau > 1 else 0)
    return {
        "case": case.name, **_about(case), "directions": subject, "parameters": needed.parameters,
        "peak_bytes": peak, "peak_in_points": peak / point, "estimate_bytes": None if subject == "peer" else estimate,
    }  # fmt: skip


def _memory(case: Case, subject: str, peer: Path | None) -> None:
    """Print the peak of this process; what imports and the first threads take is there before."""
    warm = replace(case, shape=llm_cases.TINY, clients=2, sampled=2)
    llm_cases.round_of(warm, True)()
    before = _resident("VmRSS")
    if case.device == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = 0
    if subject == "peer":
        assert peer is not None
        run = llm_cases.peer_of(peer, case)
    else:
        run = llm_cases.round_of(case, subject == "kept")
    for _ in range(2):
        run()
    print((torch.cuda.max_memory_allocated() if case.device == "cuda" else _resident("VmHWM")) - before)


def _resident(what: str) -> int:
    # Not ru_maxrss: a child process inherits that of its parent.
    (line,) = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(what)]
    return 1024 * int(line.split()[1])


def table(found: dict[str, dict[str, Rows]]) -> str:
    """Both tables in Markdown; a device that nothing was run on says so."""
    time = ["| case | directions | round / floor | floor ms | Gaussians | peer / ours |", "|-|-|-|-|-|-|"]
    held = ["| case | M, m | directions | peak | in copies of x | estimate |", "|-|-|-|-|-|-|"]
    for device, cases in (("cpu", CPU), ("cuda", CUDA)):
        rows = found.get(device, {"time": [], "memory": []})
        for r in rows["time"]:
            ratio = f"{r['ratio']:.2f} ({r['ratio_low']:.2f} to {r['ratio_high']:.2f}){' (machine busy)' if r['busy'] else ''}"
            over = "-"
            if r["peer_over_ours"]:
                over = f"{r['peer_over_ours']:.1f} ({r['peer_low']:.1f} to {r['peer_high']:.1f})"
            cells = (ratio, f"{1e3 * r['floor_seconds']:.0f}", f"{100 * r['gaussian_share']:.0f} %", over)
            time.append(f"| {_shown(r)} | {r['directions']} | {' | '.join(cells)} |")
        for r in rows["memory"]:
            estimate = "-" if r["estimate_bytes"] is None else f"{r['estimate_bytes'] / 2**20:.0f} MiB"
            directions = "official code" if r["directions"] == "peer" else r["directions"]
            cells = (f"{r['clients']}, {r['sampled']}", directions, f"{r['peak_bytes'] / 2**20:.0f} MiB")
            held.append(f"| {_shown(r)} | {' | '.join(cells)} | {r['peak_in_points']:.1f} | {estimate} |")
        if not rows["time"]:
            time += [f"| {case.name}, {device} | - | not run | - | - | - |" for case in cases]
    return "\n".join([*time, "", *held]) + "\n"


def _shown(row: dict[str, Any]) -> str:
    threads = f", {row['threads']} thread(s)" if row["device"] == "cpu" else f", {row['device']}"
    return row["case"] + threads


def main() -> None:
    """Run what is not done yet, then write results/bench_llm.json and the tables in benchmarks/README.md."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--peer", type=Path, help="a checkout of the official DeComFL code")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="which cases to run")
    parser.add_argument("--repeats", type=int, default=15, help="at most so many timings of each; larger models have fewer")
    parser.add_argument("--case", default="", help="run the cases whose names begin so, and keep the other rows")
    parser.add_argument("--memory", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.repeats < 1:
        parser.error(f"--repeats {options.repeats} is out of range; allowed: >= 1")
    device, peer = options.device, options.peer
    if device == "cuda" and not torch.cuda.is_available():
        parser.error("--device cuda: torch finds no CUDA device here")
    if options.memory is not None:
        case, subject = MEMORY[device][options.memory]
        return _memory(case, subject, peer)
    every = CPU if device == "cpu" else CUDA
    cases = [case for case in every if case.name.startswith(options.case)]
    if not cases:
        parser.error(f"--case {options.case} is unknown; allowed: the beginning of {', '.join(case.name for case in every)}")
    held = [(c, subject) for c, subject in MEMORY[device] if c.name.startswith(options.case) and (subject != "peer" or peer)]
    config = {"device": device, "peer": bool(peer), "repeats": options.repeats, "threads": torch.get_num_threads()}
    config["case"] = options.case
    done: dict[str, Any] = {"config": config, "time": {}, "memory": {}}
    if UNFINISHED.exists() and (kept := json.loads(UNFINISHED.read_text()))["config"] == config:
        done = kept

    def save(kind: str, key: str, value: Any) -> None:
        done[kind][key] = value
        records.write_bytes(UNFINISHED, json.dumps(done).encode())

    repeats = {case.name: min(case.pairs, options.repeats) for case in cases}
    calls = {case.name: (repeats[case.name] + warm_ups_of(case)) * (4 + bool(peer and case.peer)) for case in cases}
    steps = sum(count for name, count in calls.items() if name not in done["time"])
    with tqdm(total=steps + len(held), dynamic_ncols=True) as bar:
        for case in cases:
            bar.set_description(case.name)
            if case.name not in done["time"]:
                save("time", case.name, timed(case, repeats[case.name], peer if case.peer else None, bar))
        for case, subject in held:
            key = f"{case.name}, {case.sampled} of {case.clients}, {subject}"
            bar.set_description(f"memory: {key}")
            if key not in done["memory"]:
                save("memory", key, measured(case, subject, peer))
            bar.update()
    found = json.loads(TARGET.read_text()) if TARGET.exists() else {}
    fresh = {"time": [row for case in cases for row in done["time"][case.name]], "memory": [*done["memory"].values()]}
    before, order = found.get(device, {}), [case.shape.name for case in every]
    for kind, rows in fresh.items():
        rows += [row for row in before.get(kind, []) if options.case and not row["case"].startswith(options.case)]
        rows.sort(key=lambda row: order.index(row["case"].split(", 16 x")[0]))
    found[device] = fresh
    records.write_bytes(TARGET, (json.dumps(found, indent=1) + "\n").encode())
    readme = HERE / "README.md"
    head, rest = readme.read_text().split(START)
    records.write_bytes(readme, (head + START + table(found) + END + rest.split(END)[1]).encode())
    UNFINISHED.unlink()
    print(table(found))


if __name__ == "__main__":
    main()
