"""`python -m benchmarks.theory`: the exact recursion over its memory traffic, and a simulation over its random numbers.

Recursion: `theory.recursion.expected_loss` with a preconditioner, gradient noise and the forward difference's mu term, d = 10^6,
10^4 steps in stretches, over a floor of 48 bytes per coordinate and step (six float64: read y, its decay, its kick and two
weights, write y) at the bandwidth of NumPy's in-place add. The add's two arrays are as large as what a step touches, 48 MB
together: neither fits a third-level cache of 32 MB. "As printed" is the formula of one round as an expression of whole arrays.

Simulation: one round of 64 replicates of a quadratic, d = 10^4, P = 5, one client, through the federation in float64, over the
time to draw its 3.2 million normal numbers in float32.

One thread; floor and subject alternate; a ratio is the median over the pairs, with the smallest and the largest.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
from collections.abc import Callable
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import numpy as np
import torch
from tqdm import tqdm

from benchmarks.round import BUSY, HERE, time_of, void
from hiso_bench import keys, methods, records
from hiso_bench.directions import DirectionKey, Directions
from hiso_bench.federation import Federation, FederationOptions
from hiso_bench.theory import spectra
from hiso_bench.theory.diagonal import clients_step
from hiso_bench.theory.recursion import expected_loss
from hiso_bench.theory.stability import max_stable_step
from synthetic.quadratic import Quadratic

STEP_BYTES, ADD_BYTES = 48, 24
DIMENSION, P, MU = 10**6, 5, 1e-3
PRINTED_STEPS = 5
ADDS = 50
REPLICATES, SIMULATED = 64, 10**4
Work = dict[str, tuple[Callable[[], None], float]]
"""Subject -> what is timed, and how many units (steps, rounds) of it one call is."""


def recursion(steps: int) -> Work:
    """The floor, the recursion and its printed form, in units of one step at d = 10^6."""
    s = spectra.power(DIMENSION, 1.0)
    h, v = np.sqrt(s) + 0.01, 1e-6 * s
    x0 = keys.rng(keys.derive(0, "start")).standard_normal(DIMENSION)
    eta = 0.5 * max_stable_step(s, h, P)
    size = STEP_BYTES * DIMENSION // 16
    a, b = np.zeros(size), np.ones(size)

    def add() -> None:
        for _ in range(ADDS):
            np.add(a, b, out=a)

    def printed() -> None:
        lam, squares = s / h, x0**2
        own, spread, kick = clients_step(lam, MU, P, noise=v / h)
        curvature = (kick - own * v / h - spread * np.sum(v / h)) / h
        for _ in range(PRINTED_STEPS):
            q = (s**2 * squares + v) / h
            squares = (1 - 2 * eta * lam) * squares + eta**2 * (own * q / h + spread * np.sum(q) / h + curvature)
            np.dot(s, squares)

    return {
        "floor": (add, ADDS * ADD_BYTES * size / (STEP_BYTES * DIMENSION)),
        "ours": (lambda: void(expected_loss(s, h, x0, eta, P, steps, MU, noise=v)), steps),
        "printed": (printed, PRINTED_STEPS),
    }


def simulation() -> Work:
    """A round, and its normals drawn into memory that is there."""
    problem = Quadratic(SIMULATED, "power", 1.0, clients=1, replicates=(REPLICATES,))
    options = FederationOptions(wire="float64", key=1)
    federation = Federation(problem, methods.build("decomfl", lr=1e-3, perturbations=P), options)
    directions = Directions(problem.layout, 2)
    outs = [problem.layout.empty(torch.float32) for _ in range(P)]

    def draw() -> None:
        for p, out in enumerate(outs):
            directions.draw(DirectionKey(0, 0, p), out)

    return {"floor": (draw, 1), "ours": (lambda: void(federation.round()), 1)}


def timed(case: str, work: Work, pairs: int, target: float, about: dict[str, Any], bar: tqdm) -> dict[str, Any]:
    """Time all subjects in turn, `pairs` times over, after one warm-up of each."""
    bar.set_description(case)
    times: dict[str, list[float]] = {name: [] for name in work}
    for i in range(pairs + 1):
        for name, (call, units) in work.items():
            seconds = time_of(call) / units
            if i:
                times[name].append(seconds)
            bar.update()
    median = {name: statistics.median(of) for name, of in times.items()}
    ratios = [ours / floor for ours, floor in zip(times["ours"], times["floor"], strict=True)]
    printed = [a / b for a, b in zip(times["printed"], times["floor"], strict=True)] if "printed" in times else None
    spread = max(times["floor"]) / min(times["floor"])
    return {
        "case": case, **about, "threads": 1, "pairs": pairs, "seconds": median["ours"], "floor_seconds": median["floor"],
        "ratio": statistics.median(ratios), "ratio_low": min(ratios), "ratio_high": max(ratios), "target": target,
        "printed_ratio": statistics.median(printed) if printed else None, "floor_spread": spread, "busy": spread > BUSY,
    }  # fmt: skip


def table(rows: list[dict[str, Any]]) -> str:
    """The rows in Markdown."""
    lines = ["| case | over its floor | target | as printed | ms | floor ms |", "|-|-|-|-|-|-|"]
    for r in rows:
        ratio = f"{r['ratio']:.2f} ({r['ratio_low']:.2f} to {r['ratio_high']:.2f}){' (machine busy)' if r['busy'] else ''}"
        printed = f"{r['printed_ratio']:.1f}" if r["printed_ratio"] else "-"
        milliseconds = f"{1e3 * r['seconds']:.2f} | {1e3 * r['floor_seconds']:.2f}"
        lines.append(f"| {r['case']} | {ratio} | {r['target']:g} | {printed} | {milliseconds} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Time both, write results/bench_theory.json and the table in benchmarks/README.md."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=20, help="interleaved pairs per case (15 or more for a result)")
    parser.add_argument("--steps", type=int, default=500, help="steps of the recursion in a pair; 20 x 500 are the 10^4")
    options = parser.parse_args()
    for name in ("pairs", "steps"):
        if getattr(options, name) < 1:
            parser.error(f"--{name} {getattr(options, name)} is out of range; allowed: >= 1")
    torch.set_num_threads(1)
    with tqdm(total=5 * (options.pairs + 1), unit="timing", dynamic_ncols=True) as bar:
        about = {"d": DIMENSION, "steps": options.pairs * options.steps}
        rows = [timed("recursion, one step, d = 10^6", recursion(options.steps), options.pairs, 3.0, about, bar)]
        about = {"d": SIMULATED, "replicates": REPLICATES, "P": P}
        rows += [timed("simulated round, 64 x 10^4, P = 5", simulation(), options.pairs, 2.5, about, bar)]
    records.write_bytes(HERE.parent / "results" / "bench_theory.json", (json.dumps(rows, indent=1) + "\n").encode())
    readme = HERE / "README.md"
    start, end = "<!-- theory -->\n", "<!-- end of theory -->"
    head, rest = readme.read_text().split(start)
    records.write_bytes(readme, (head + start + table(rows) + end + rest.split(end)[1]).encode())
    print(table(rows))


if __name__ == "__main__":
    main()
