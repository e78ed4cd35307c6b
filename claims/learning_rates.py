"""The claim about the sensitivity to the learning rate."""

from __future__ import annotations

import functools
import math
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from hiso_bench.claims import Control, Evidence, Finding, check
from hiso_bench.stats import mean_interval
from hiso_bench.sweeps import Arm
from learned_h import rates
from learned_h.cases import Case
from synthetic.quadratic import Quadratic
from vision.mlp import DigitsPerceptron

KEY = 20260107
GRIDS = {
    "i^-1.5": (np.arange(-7, 6) / 2, 64),
    "log-normal": (np.arange(-5, 8) / 2, 32),
    "digits MLP": (np.arange(-4.0, 4.0), 28),
}
"""Octaves from the pilot's rate, and keys."""
WIDER = (math.log(1.25), math.inf)
"""Less sensitive: a basin 1.25 times as wide, in logs."""
SAME = (-math.log(1.25), math.log(1.25))
DIMENSION = 100


def _case(problem: str) -> Case:
    if problem == "digits MLP":
        mlp = rates.basins()[problem]
        return replace(mlp, make=lambda shape: DigitsPerceptron(hidden=8, examples=64, replicates=shape), targets=(0.5,))
    drawn = Quadratic(DIMENSION, "lognormal", 1.0, clients=1, key=7).spectrum
    s = np.arange(1, DIMENSION + 1) ** -1.5 if problem == "i^-1.5" else drawn / drawn.max()
    return rates.spectrum_case(s, (0.1,))


@functools.cache
def _widths(problem: str, arm: str) -> NDArray[np.float64]:
    """Octaves per key."""
    case, (grid, keys) = _case(problem), GRIDS[problem]
    chosen = Arm(arm, "hiso", {"freeze_after": 0}) if arm == "never learned" else Arm(arm, arm)
    power = 1.0
    if arm == "squared":
        # An octave of the rate's square is half an octave of the rate: a width of 2 must come out as 4.
        chosen, power, grid = Arm("decomfl", "decomfl"), 0.5, np.arange(-16, 9) / 2
    tried = rates.pilot(case, chosen) * 2.0 ** (power * grid)
    found = rates.sweep(case, chosen, tried, keys, KEY, rates.CAP)
    return rates.widths(rates.slowdown(found[-1]), grid[1] - grid[0])


def _ratio(problem: str, arm: str, over: str, allowed: tuple[float, float] = WIDER) -> Evidence:
    logs = np.log(_widths(problem, arm) / _widths(problem, over))
    return Evidence(f"log(width of {arm} / width of {over}), {problem}", mean_interval(logs), math.nan, allowed)


@check("lr-basin")
def basin() -> Finding:
    """HiSo's basin of learning rates over DeComFL's."""
    return Finding(
        evidence=tuple(_ratio(problem, "hiso", "decomfl") for problem in ("i^-1.5", "log-normal", "digits MLP")),
        controls=(
            Control("H -> its mean: a scalar alone", "holds", _ratio("i^-1.5", "hiso-scalar", "hiso", SAME)),
            Control("H never learned", "fails", _ratio("log-normal", "never learned", "decomfl")),
            Control("DeComFL, whose option is the square of the rate", "holds", _ratio("log-normal", "squared", "decomfl")),
        ),
        needed="more keys",
    )
