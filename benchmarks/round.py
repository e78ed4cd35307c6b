"""`make bench`: a whole federated round over its floor, m (P + 1) plain forward passes, timed in interleaved pairs.

Floor, per round: m (P + 1) calls of `model(batch)` in inference mode with the same threads. Beyond it a round must draw
P d normal numbers (3.4 ns each on one thread of a 2020s x86 core) and move about 16 P d + 24 d bytes twice over: warp,
perturb, accumulate, move, learn.
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
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import numpy as np
import torch
from tqdm import tqdm

from benchmarks.cases import CASES, BenchProblem, Case, P, forward, module
from hiso_bench import methods, records
from hiso_bench.federation import Federation, FederationOptions

HERE = Path(__file__).resolve().parent
BUSY = 1.5
"""The floor's largest over smallest time beyond which the machine counts as busy."""


def floor_of(case: Case) -> Callable[[], None]:
    """The round's forward passes and nothing else, on the same batches; convolutions channels-last, as in the round."""
    model, problem = module(case), BenchProblem(case)
    if case.model == "cnn":
        model = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    batches = [problem.batch(np.array(i), 0, 0) for i in range(case.sampled)]

    def run() -> None:
        with torch.inference_mode():
            for _ in range(P + 1):
                for batch in batches:
                    forward(case, model, batch)

    return run


def round_of(case: Case, cache: bool) -> Callable[[], None]:
    """A whole round of HiSo through the federation: catch-up messages, scalars, ledger, replay of x and H."""
    options = FederationOptions(sampled=case.sampled, cache_bytes=2**30 if cache else 0)
    federation = Federation(BenchProblem(case), methods.build("hiso", lr=1e-6, perturbations=P), options)
    return lambda: void(federation.round())


def peer_of(checkout: Path, case: Case) -> Callable[[], None]:
    """The same round in a checkout of the official code."""
    from benchmarks import peer

    problem = BenchProblem(case)

    def inference(model: torch.nn.Module, inputs: Any) -> torch.Tensor:
        logits = forward(case, model, (inputs, None))
        return logits if case.model == "cnn" else logits[:, -1]

    def batch(client: int, number: int) -> Any:
        return problem.batch(np.array(client), number, 0)

    return peer.round_of(checkout, module(case), inference, batch, case.clients, case.sampled)


def void(_: object) -> None:
    """Drop a value."""


def time_of(work: Callable[[], None]) -> float:
    """Wall seconds of one call."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def pairs(case: Case, threads: int, count: int, peer: Path | None, bar: tqdm) -> list[dict[str, Any]]:
    """Time floor, round (cached), round (regenerated) and peer in turn, `count` times over, after one warm-up of each."""
    torch.set_num_threads(threads)
    work = {"floor": floor_of(case), "cached": round_of(case, True), "regenerated": round_of(case, False)}
    if peer is not None:
        with contextlib.redirect_stdout(io.StringIO()):
            work["peer"] = peer_of(peer, case)
    times: dict[str, list[float]] = {name: [] for name in work}
    for i in range(count + 1):
        for name, call in work.items():
            seconds = time_of(call)
            if i:
                times[name].append(seconds)
            bar.update()
    spread = max(times["floor"]) / min(times["floor"])
    rows = []
    for cache in ("cached", "regenerated"):
        ratios = _ratios(times[cache], times["floor"])
        rows.append(
            {
                "case": case.name, "threads": threads, "cache": cache == "cached", "pairs": count,
                "seconds": statistics.median(times[cache]), "floor_seconds": statistics.median(times["floor"]),
                "ratio": statistics.median(ratios), "ratio_low": min(ratios), "ratio_high": max(ratios),
                "floor_spread": spread, "busy": spread > BUSY,
                "peer_seconds": statistics.median(times["peer"]) if peer else None,
                "peer_over_ours": statistics.median(_ratios(times["peer"], times[cache])) if peer else None,
            }
        )  # fmt: skip
    return rows


def _ratios(times: list[float], base: list[float]) -> list[float]:
    return [a / b for a, b in zip(times, base, strict=True)]


def peak_mib(case: Case, subject: str, peer: Path | None) -> float:
    """Peak resident memory of a process that runs three rounds of one subject: "cached", "regenerated" or "peer"."""
    call = [sys.executable, "-m", "benchmarks.round", "--memory", str(CASES.index(case)), subject]
    if peer is not None:
        call += ["--peer", str(peer)]
    told = subprocess.run(call, capture_output=True, text=True, check=True, cwd=HERE.parent)
    return float(told.stdout.strip().splitlines()[-1])


def _memory(case: Case, subject: str, peer: Path | None) -> None:
    if subject == "peer":
        assert peer is not None
        run = peer_of(peer, case)
    else:
        run = round_of(case, subject == "cached")
    for _ in range(3):
        run()
    # Not ru_maxrss: a child process inherits that of its parent.
    (peak,) = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM")]
    print(int(peak.split()[1]) / 1024)


def table(rows: list[dict[str, Any]]) -> str:
    """The rows in Markdown."""
    head = "| case | threads | z | round / floor | floor ms | peer / ours | peak MiB | peer peak MiB |\n|-|-|-|-|-|-|-|-|\n"
    lines = []
    for r in rows:
        peer = f"{r['peer_over_ours']:.1f}" if r["peer_over_ours"] else "-"
        peer_peak = f"{r['peer_peak_mib']:.0f}" if r["peer_peak_mib"] else "-"
        busy = " (machine busy)" if r["busy"] else ""
        ratio = f"{r['ratio']:.2f} ({r['ratio_low']:.2f} to {r['ratio_high']:.2f}){busy}"
        cache = "cached" if r["cache"] else "regenerated"
        cells = (
            r["case"],
            r["threads"],
            cache,
            ratio,
            f"{1e3 * r['floor_seconds']:.0f}",
            peer,
            f"{r['peak_mib']:.0f}",
            peer_peak,
        )
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    return head + "\n".join(lines) + "\n"


def main() -> None:
    """Run all cases, write results/bench.json and the table in benchmarks/README.md."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--peer", type=Path, help="a checkout of the official DeComFL code")
    parser.add_argument("--pairs", type=int, default=15, help="interleaved pairs per case (15 or more for a result)")
    parser.add_argument(
        "--case", default="", help="time the cases whose names begin so, and keep the other rows of results/bench.json"
    )
    parser.add_argument("--memory", nargs=2, metavar=("CASE", "SUBJECT"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.memory:
        return _memory(CASES[int(options.memory[0])], options.memory[1], options.peer)
    if options.pairs < 1:
        parser.error(f"--pairs {options.pairs} is out of range; allowed: >= 1")
    every = torch.get_num_threads()
    whole = [(case, threads) for threads in dict.fromkeys((every, 1)) for case in CASES]
    plan = [(case, threads) for case, threads in whole if case.name.startswith(options.case)]
    if not plan:
        parser.error(f"--case {options.case} is unknown; allowed: the beginning of {', '.join(case.name for case in CASES)}")
    # The peer is slow on the larger model: there it is timed for the smaller m, and everywhere with all threads only.
    timed = [(case, threads) for case, threads in plan if threads == every and (case.model == "cnn" or case.sampled == 2)]
    peers = {cell: options.peer for cell in timed}
    steps = sum((options.pairs + 1) * (4 if peers.get(cell) else 3) for cell in plan)
    target = HERE.parent / "results" / "bench.json"
    rows: list[dict[str, Any]] = json.loads(target.read_text()) if options.case else []
    rows = [row for row in rows if not row["case"].startswith(options.case)]
    with tqdm(total=steps, unit="timing", dynamic_ncols=True) as bar:
        for case, threads in plan:
            bar.set_description(f"{case.name}, {threads} thread(s)")
            rows += pairs(case, threads, options.pairs, peers.get((case, threads)), bar)
    for case in CASES:
        peer_peak = peak_mib(case, "peer", options.peer) if options.peer else None
        for cache in (True, False):
            peak = peak_mib(case, "cached" if cache else "regenerated", None)
            for row in rows:
                if row["case"] == case.name and row["cache"] == cache:
                    row |= {"peak_mib": peak, "peer_peak_mib": peer_peak}
    order = [(case.name, threads) for case, threads in whole]
    rows.sort(key=lambda row: (order.index((row["case"], row["threads"])), not row["cache"]))
    records.write_bytes(target, (json.dumps(rows, indent=1) + "\n").encode())
    readme = HERE / "README.md"
    text = readme.read_text()
    start, end = "<!-- table -->\n", "<!-- end of table -->"
    head, rest = text.split(start)
    records.write_bytes(readme, (head + start + table(rows) + end + rest.split(end)[1]).encode())
    print(table(rows))


if __name__ == "__main__":
    main()
