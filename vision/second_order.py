"""What one more scalar a round buys on a network: second differences on digits, against DeComFL at its best tuned rate.

A perceptron (d = 1,210, float32, forward differences), all images in every round, so that nothing but directions is random. With
`feature_scale` 0 an exact diagonal buys little; with 1.5 the input features differ in scale and it buys much: the positive
control.
DeComFL's rates are chosen on keys of their own, for each target; the methods with second differences have one setting, their
defaults. All have 6 forward passes a round (7 with probes of one tensor) and 5 scalars, but for nc = 5 with 10 and 11.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from hiso_bench import methods, records
from hiso_bench.experiments import Plan, Profile
from hiso_bench.federation import Federation, FederationOptions
from hiso_bench.methods import Method
from synthetic.second_order import DEFAULTS, stays_below
from vision.mlp import DigitsPerceptron

VERSION, KEY, KEYS, TUNING, EXAMPLES, ROUNDS, EVERY = 2, 83, 6, 2, 400, 800, 5
SCALES = (0.0, 1.5)
TARGETS = {0.0: (1.0, 0.5, 0.2), 1.5: (2.0, 1.8, 1.5)}
"""Losses, by feature scale."""
RATES = {0.0: tuple(np.geomspace(0.07, 0.6, 7)), 1.5: tuple(np.geomspace(0.0015, 0.02, 8))}
ARMS = ("decomfl", *DEFAULTS)


def losses(scale: float, method: Method, keys: int, key: int) -> NDArray[np.float64]:
    """The training loss every `EVERY` rounds from round 0 on, (n, ..., keys)."""
    rates = torch.as_tensor(method.lr)
    problem = DigitsPerceptron(examples=EXAMPLES, feature_scale=scale, replicates=(*rates.shape[:-1], keys), key=1)
    federation = Federation(problem, method, FederationOptions(key=key, on_divergence="freeze"))
    found = []
    for r in range(ROUNDS + 1):
        if r % EVERY == 0:
            found.append(problem.objective(federation.state.x).double().numpy())
        if r < ROUNDS:
            federation.round()
    return np.array(found)


def _rows(scale: float, arm: str, method: Method, values: NDArray, rate: float, targets: tuple[float, ...]) -> Iterator[tuple]:
    scalars = method.perturbations + method.curvatures
    for target in targets:
        for key, at in enumerate(stays_below(values, target)):
            yield scale, arm, rate, target, key, EVERY * at, EVERY * at * scalars, EVERY * at * method.evaluations
    for key, loss in enumerate(values[-1]):
        yield scale, arm, rate, np.nan, key, loss, ROUNDS * scalars, ROUNDS * method.evaluations


def compute() -> tuple[pd.DataFrame, pd.DataFrame]:
    """(rounds to every target, and the last loss where target is NaN; the grid of DeComFL)."""
    found: list[tuple] = []
    grids = []
    for scale in SCALES:
        grid = torch.tensor(RATES[scale], dtype=torch.float64)[:, None]
        tried = losses(scale, methods.build("decomfl", lr=grid), TUNING, KEY + 1)
        for target in TARGETS[scale]:
            rounds = EVERY * np.median(stays_below(tried, target), -1)
            ends = np.where(np.isfinite(tried[-1]), tried[-1], np.inf).mean(-1)
            best = int(np.lexsort((ends, rounds))[0])
            about = {"arm": f"decomfl to {target:g}, scale {scale:g}", "scale": scale, "target": target, "rounds": ROUNDS}
            grids.append(pd.DataFrame({"lr": RATES[scale], "needed": rounds, "loss": ends}).assign(**about))
            grids[-1]["winner"] = np.arange(len(rounds)) == best
            method = methods.build("decomfl", lr=RATES[scale][best])
            found.extend(_rows(scale, "decomfl", method, losses(scale, method, KEYS, KEY), RATES[scale][best], (target,)))
        for arm, (name, given) in DEFAULTS.items():
            method = methods.build(name, given)
            found.extend(_rows(scale, arm, method, losses(scale, method, KEYS, KEY), np.nan, TARGETS[scale]))
    columns = ["scale", "arm", "lr", "target", "key", "rounds", "scalars", "forwards"]
    return pd.DataFrame(found, columns=columns), pd.concat(grids, ignore_index=True)


class SecondOrderDigits:
    """The comparison as an `experiments.Experiment`; the grid is part of it."""

    name = "second_order_digits"
    profile: Profile = "standard"

    def plan(self) -> Plan:
        """One run of some minutes."""
        return Plan(1, 0, 240.0)

    def tune(self, results: Path, work: Path, jobs: int) -> None:
        """Nothing to choose beforehand."""

    def compare(self, grids: Path, results: Path, work: Path, jobs: int) -> None:
        """Write second_order_digits.csv and second_order_digits_grid.csv."""
        config: dict[str, Any] = {
            "keys": KEYS, "key": KEY, "tuning_keys": TUNING, "examples": EXAMPLES, "rounds": ROUNDS, "every": EVERY,
            "targets": {str(scale): list(targets) for scale, targets in TARGETS.items()},
            "rates": {str(scale): [float(rate) for rate in rates] for scale, rates in RATES.items()}, "arms": list(ARMS),
        }  # fmt: skip
        if records.current(results / "second_order_digits.csv", config, VERSION):
            return
        table, grid = compute()
        records.write(grid, results / "second_order_digits_grid.csv", config, VERSION)
        records.write(table, results / "second_order_digits.csv", config, VERSION)


SECOND_ORDER_DIGITS = SecondOrderDigits()
