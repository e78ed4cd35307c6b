"""Does HiSo's gain over DeComFL depend on the federation? Clients, sampled clients, heterogeneity and drop-out, one at a time.

HiSo's experiments have 6 clients of which 2 are sampled. Here that is the base setting, and every other setting differs from it
in one thing. Each arm has its own rate in every setting, chosen as in `learned_h.ablation` on one grid and budget.

- Digits perceptron (d = 610): 7 images per client and round in every setting, as 200 clients have no more; split by labels.
  There is one split and one start per setting; replicates differ in directions, batches, participants and drop-out.
- Quadratic i^-1.5 (d = 100), where HiSo's H gains: clients differ by linear terms that sum to zero.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from hiso_bench.problems import Problem
from hiso_bench.sweeps import Arm
from hiso_bench.theory.stability import max_stable_step
from learned_h.ablation import Ablation
from learned_h.arms import HISO, PLAIN
from learned_h.cases import Case
from synthetic.quadratic import Quadratic
from vision.mlp import DigitsPerceptron

BASE = {"clients": 6, "sampled": 2}
ARMS = (PLAIN[0], *HISO[:2])
"""DeComFL, HiSo, and, on the quadratic, HiSo with its mean for H."""
MLP, QUADRATIC = "digits MLP", "i^-1.5"
SIZES: dict[str, dict[str, Any]] = {
    "6/2": {},
    "24/2": {"clients": 24},
    "200/2": {"clients": 200},
    "6/6": {"sampled": 6},
    "60/20": {"clients": 60, "sampled": 20},
    "drop-out 0.25": {"dropout": 0.25},
    "drop-out 0.5": {"dropout": 0.5},
}
"""Clients / sampled clients, and the chance that a sampled client drops out."""
COSTLY = ("24/2", "drop-out 0.25")
"""On the quadratic alone."""
SPLITS = {f"Dirichlet {alpha:g}": {"alpha": alpha} for alpha in (0.1, 100.0)}
"""Of the perceptron; 1 in the base setting."""
TERMS = {f"linear terms {size:g}": {"heterogeneity": size} for size in (0.0, 0.2)}
"""Of the quadratic: root mean square over clients of |b_i|; `TERM` in the base setting."""
TERM = 0.1


def perceptron(clients: int, sampled: int, dropout: float = 0.0, alpha: float = 1.0) -> Case:
    """The digits perceptron in one setting."""
    make = functools.partial(DigitsPerceptron, clients=clients, hidden=8, split="dirichlet", alpha=alpha, batch_size=7)
    return _case(make, lambda p, x: p.objective(x), ARMS[:2], sampled, dropout, 500, 2.0**-9, (0.8, 0.65, 0.5), 3)


def quadratic(clients: int, sampled: int, dropout: float = 0.0, heterogeneity: float = TERM) -> Case:
    """The quadratic in one setting; its grid starts at 2^-9 of DeComFL's stable step."""
    differ = {"heterogeneity": heterogeneity, "heterogeneity_scale": "mean" if heterogeneity else "coordinate"}
    make = functools.partial(Quadratic, 100, parameter=1.5, clients=clients, key=7, **differ)
    start = max_stable_step(make().spectrum, 1.0, 5) * 2.0**-9
    return _case(make, lambda p, x: p.loss(x, None), ARMS, sampled, dropout, 800, start, (0.3, 0.1, 0.05), 1)


def _case(
    make: Callable[..., Problem], value: Callable[..., Any], arms: tuple[Arm, ...], sampled: int, dropout: float, rounds: int,
    start: float, targets: tuple[float, ...], every: int,
) -> Case:  # fmt: skip
    return Case(
        lambda shape: make(replicates=shape), value, 0.0, arms, rounds, start, targets,
        tuning_keys=4, federation={"sampled": sampled, "dropout": dropout}, octaves=11, every=every,
    )  # fmt: skip


@functools.cache
def cases() -> dict[str, Case]:
    """A case for each "problem, setting"; the base setting comes first."""
    found = {f"{QUADRATIC}, {name}": quadratic(**(BASE | change)) for name, change in (SIZES | TERMS).items()}
    kept = {name: change for name, change in SIZES.items() if name not in COSTLY}
    return found | {f"{MLP}, {name}": perceptron(**(BASE | change)) for name, change in (kept | SPLITS).items()}


FEDERATION_SIZE = Ablation("federation_size", cases, keys=48)
