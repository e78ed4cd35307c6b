"""Does AGZO with a public basis help? Digits, eight clients of skewed labels, a perceptron: what its span holds, and its runs.

AGZO's second moment is smaller by n / r where the gradient lies in the span of the inputs. What a step loses by its noise is not
E |dx|^2 but E dx'H dx, and the curvature of a linear layer lies in that span too: H = sum_k B_k (x) a_k a_k' (Gauss-Newton; x is
Kronecker's). So both are measured along DeComFL's runs: which share of the clients' gradient lies in the span, which share of
the trace of the Hessian, and what the two make of the expected fall of the loss at its best step, beside the whole gradient's
(of the second-order model, noise of the batches left out):

    (g'Pi g)^2 / (2 E dx'H dx),   E dx'H dx = (1 + 1/P) g'Pi H Pi g + tr(Pi H) g'Pi g / P.

The span is that of public images (set aside, no client trains on them), of the clients' own images (what no server has: how
much the public ones miss), or of random rows (the control). The runs are tuned alike, for each budget of rounds and on keys
of their own.
"""

from __future__ import annotations

import dataclasses
import itertools
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from hiso_bench import catalogue, keys, records, sweeps
from hiso_bench.curvature import Curvature
from hiso_bench.experiments import Plan, Profile
from hiso_bench.federation import Federation, FederationOptions
from hiso_bench.losses import value_and_gradient
from hiso_bench.methods.agzo import Inputs, leading
from hiso_bench.points import Point, flat
from hiso_bench.sweeps import Arm, Cell
from vision.mlp import DigitsPerceptron

VERSION = 1
PROBLEM: dict[str, Any] = dict(clients=8, split="dirichlet", examples=1024, public=256, batch_size=32)
SAMPLED, P, EVERY = 4, 5, 5
BUDGETS = (125, 500)
"""Rounds, each with rates of its own: the best rate for a short run is another than for a long one."""
KEYS, TUNING_KEYS = tuple(range(16)), (900, 901, 902)
START, OCTAVES = 0.005, 11
_BASIS = {"perturbations": P, "window": 25, "basis_examples": 64}
ARMS = (
    Arm("decomfl", "decomfl", {"perturbations": P}),
    Arm("agzo-4", "agzo", _BASIS | {"rank": 4}),
    Arm("agzo", "agzo", _BASIS | {"rank": 16}),
    Arm("agzo-random", "agzo", _BASIS | {"rank": 16}),
)
RANKS, EXAMPLES = (1, 2, 4, 8, 16, 32), (16, 64, 256)
LOOKED, CURVED = (0, 100, 250, 500), (0, 500)
"""Rounds at which shares are measured: of the gradient, and of the curvature."""
BASES = ("public", "private", "random")
_WEIGHTS = (0, 2)
"""The leaves that are weights of linear layers."""


def random_inputs(problem: DigitsPerceptron) -> Inputs:
    """Gaussian rows in place of the problem's inputs: their span is uniformly distributed."""

    def rows(x: Point, examples: int, draw: int) -> Sequence[Tensor | None]:
        found = problem.layer_inputs(x, examples, draw)
        rngs = [keys.rng(keys.derive(problem.key, "random", draw=draw, leaf=i)) for i in range(len(x))]
        return [
            None if of is None else torch.from_numpy(rng.standard_normal(of.shape)) for of, rng in zip(found, rngs, strict=True)
        ]

    return rows


def private_inputs(problem: DigitsPerceptron) -> Inputs:
    """The inputs on the clients' own images, in place of public ones."""

    def rows(x: Point, examples: int, draw: int) -> Sequence[Tensor | None]:
        every = problem.everything.inputs
        assert every is not None
        order = keys.rng(keys.derive(problem.key, "private", draw=draw)).permutation(len(every))
        images = every[torch.from_numpy(order[:examples])].to(x[0].dtype)
        return images, None, problem.loss.hidden(x, images), None

    return rows


def begin(arm: Arm, lr: float | Tensor, key: int) -> tuple[DigitsPerceptron, Federation]:
    """A run before its first round; rates (n,) are n replicates."""
    rates = torch.as_tensor(lr, dtype=torch.float64)
    problem = DigitsPerceptron(**PROBLEM, replicates=tuple(rates.shape), key=key)
    method = catalogue.method(arm.method, arm.options | {"lr": lr}, problem)
    if arm.name == "agzo-random":
        method = dataclasses.replace(method, inputs=random_inputs(problem))  # type: ignore[call-arg]
    return problem, Federation(problem, method, FederationOptions(sampled=SAMPLED, key=key, on_divergence="freeze"))


def score(cells: Sequence[Cell]) -> pd.Series:
    """Minus the training loss at the end of every cell; the rates of one arm, key and length are one run."""
    groups: dict[tuple[str, int, int], list[int]] = {}
    for i, cell in enumerate(cells):
        groups.setdefault((cell.arm.name, cell.key, cell.rounds), []).append(i)
    found = np.empty(len(cells))
    for (_, key, rounds), places in groups.items():
        lr = torch.tensor([cells[i].lr for i in places], dtype=torch.float64)
        problem, federation = begin(cells[places[0]].arm, lr, key)
        for _ in range(rounds):
            federation.round()
        loss = problem.objective(federation.state.x)
        found[places] = torch.where(federation.alive & loss.isfinite(), -loss, -torch.inf).numpy()
    return pd.Series(found)


def shares(problem: DigitsPerceptron, x: Point, draw: int, curved: bool) -> Iterator[tuple[str, int, int, float, float, float]]:
    """(basis, examples, rank, share of the gradient, of the trace of the Hessian, gain) of the weights at x.

    The gain is the expected fall of the loss at its best step over that of directions without a basis; it and the trace are NaN
    unless `curved`. Cost: d Hessian-vector products if so.
    """
    x = tuple(leaf.double() for leaf in x)
    g = value_and_gradient(problem.loss, x, problem.everything)[1]
    H = Curvature(lambda at: problem.loss.differentiable(at, problem.everything), x).hessian if curved else None
    sources: dict[str, Inputs] = {
        "public": problem.layer_inputs, "private": private_inputs(problem), "random": random_inputs(problem),
    }  # fmt: skip
    whole = _fall(g, g, H, 0.0 if H is None else float(H.trace()))
    blocks = _blocks(x, H)
    for basis in BASES:
        for examples in EXAMPLES:
            rows = sources[basis](x, examples, draw)
            for rank in (r for r in RANKS if r <= examples):
                inside, trace = list(g), 0.0 if H is None else float(H.trace())
                for i in _WEIGHTS:
                    of = rows[i]
                    if of is not None and rank < of.shape[-1]:
                        A = leading(of, rank)
                        inside[i] = g[i] @ A @ A.T
                        trace -= float(blocks[i].trace() - (A.T @ blocks[i] @ A).trace()) if curved else 0.0
                part = [float(sum((at[i] ** 2).sum() for i in _WEIGHTS)) for at in (inside, g)]
                if H is None:
                    yield basis, examples, rank, part[0] / part[1], np.nan, np.nan
                    continue
                all_weights = float(sum(blocks[i].trace() for i in _WEIGHTS))
                outside = float(H.trace()) - trace
                gain = _fall(tuple(inside), g, H, trace) / whole
                yield basis, examples, rank, part[0] / part[1], 1 - outside / all_weights, gain


def _blocks(x: Point, H: Tensor | None) -> dict[int, Tensor]:
    """The n x n sums over the rows of a weight of its Hessian's diagonal blocks."""
    starts = np.cumsum([0, *(leaf.numel() for leaf in x)])
    found = {}
    for i in _WEIGHTS if H is not None else ():
        own = slice(int(starts[i]), int(starts[i + 1]))
        found[i] = torch.einsum("iaib->ab", H[own, own].reshape(*x[i].shape, *x[i].shape))  # type: ignore[index]
    return found


def _fall(inside: Point, g: Point, H: Tensor | None, trace: float) -> float:
    """(g'Pi g)^2 / (2 E dx'H dx) from Pi g, g, H and tr(Pi H)."""
    if H is None:
        return np.nan
    p, v = (torch.cat([flat(leaf, 0) for leaf in at]) for at in (inside, g))
    along = float(p @ v)
    return along**2 / 2 / ((1 + 1 / P) * float(p @ H @ p) + trace * along / P)


def runs(arm: Arm, lr: float, key: int, budget: int, look: Callable[[DigitsPerceptron, Point, int], None]) -> list[tuple]:
    """(round, loss, accuracy) every `EVERY` rounds, NaN once a scalar was not finite; `look` is called on the way."""
    problem, federation = begin(arm, lr, key)
    found = []
    for r in range(budget + 1):
        x = federation.state.x
        look(problem, x, r)
        if r % EVERY == 0:
            values = (float(problem.objective(x)), float(problem.accuracy(x))) if federation.alive else (np.nan, np.nan)
            found.append((r, *values))
        if r < budget:
            federation.round()
    return found


def told(arm: Arm, budget: int) -> str:
    """The grid's name of an arm."""
    return f"{arm.name}, {budget} rounds"


def compute(rates: dict[str, float]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """(budget, arm, lr, key, round, loss, accuracy; key, round, basis, examples, rank, gradient, curvature, gain)."""
    table, spans = [], []
    for key, budget, arm in itertools.product(KEYS, BUDGETS, ARMS):
        looked = LOOKED if (arm.name, budget) == ("decomfl", BUDGETS[-1]) else ()

        def look(problem: DigitsPerceptron, x: Point, r: int, key: int = key, looked: tuple[int, ...] = looked) -> None:
            if r in looked:
                spans.extend((key, r, *row) for row in shares(problem, x, r, r in CURVED))

        lr = rates[told(arm, budget)]
        table.extend((budget, arm.name, lr, key, *row) for row in runs(arm, lr, key, budget, look))
    return (
        pd.DataFrame(table, columns=["budget", "arm", "lr", "key", "round", "loss", "accuracy"]),
        pd.DataFrame(spans, columns=["key", "round", "basis", "examples", "rank", "gradient", "curvature", "gain"]),
    )


class AgzoDigits:
    """The comparison as an `experiments.Experiment`."""

    name = "agzo"
    profile: Profile = "standard"

    def plan(self) -> Plan:
        """Runs of the arms, and a grid of eleven rates an arm that is one run of replicates."""
        federation, started = begin(ARMS[-1], 0.05, TUNING_KEYS[0])[1], time.monotonic()
        for _ in range(10):
            federation.round()
        seconds = (time.monotonic() - started) / 10 * sum(BUDGETS)
        # The Hessians of a key take about as long as four runs.
        return Plan((len(ARMS) + 4) * len(KEYS), 3 * len(ARMS) * len(TUNING_KEYS), seconds)

    def tune(self, results: Path, work: Path, jobs: int) -> None:
        """Write agzo_grid.csv."""
        grids = []
        for budget in BUDGETS:
            names = {arm.name: told(arm, budget) for arm in ARMS}
            grids.append(sweeps.choose_rates(score, ARMS, TUNING_KEYS, budget, START, OCTAVES).replace({"arm": names}))
        grid = pd.concat(grids, ignore_index=True)
        records.write(grid, results / "agzo_grid.csv", _config(), VERSION)

    def compare(self, grids: Path, results: Path, work: Path, jobs: int) -> None:
        """Write agzo_share.csv, and then agzo.csv."""
        grid, _ = records.read(grids / "agzo_grid.csv")
        rates = {str(arm): float(lr) for arm, lr in grid.loc[grid["winner"], ["arm", "lr"]].itertuples(index=False)}
        config = _config() | {"keys": list(KEYS), "rates": rates, "ranks": list(RANKS), "examples": list(EXAMPLES)}
        config |= {"looked": list(LOOKED), "curved": list(CURVED)}
        if records.current(results / "agzo.csv", config, VERSION):
            return
        table, spans = compute(rates)
        records.write(spans, results / "agzo_share.csv", config, VERSION)
        records.write(table, results / "agzo.csv", config, VERSION)


def _config() -> dict[str, Any]:
    arms = {arm.name: {"method": arm.method, "options": arm.options} for arm in ARMS}
    return {
        "problem": PROBLEM, "sampled": SAMPLED, "budgets": list(BUDGETS), "every": EVERY, "arms": arms, "start": START,
        "octaves": OCTAVES, "tuning_keys": list(TUNING_KEYS), "score": "minus the training loss at the end",
    }  # fmt: skip


AGZO = AgzoDigits()
