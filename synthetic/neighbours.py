"""What the registered methods are side by side: cost, bias, second moment and stable step, by formula and through the real round.

`python -m synthetic.neighbours` writes the table into hiso_bench/methods/README.md.

The point is a 2 x 2 matrix (d = 4), the loss |x|^2 / 2, the start on the first axis, so g = x = |g| e_1. A round with
injected directions gives E dx and E |dx|^2 exactly. A method whose dx is proportional to g has a stable step eta* = 2 a / M,
where a = E dx.g / |g|^2 and M = E |dx|^2 / |g|^2: there E |x|^2 neither grows nor falls. One whose dx does not shrink with g
falls until |g| / eta = E |dx|^2 / (2 E dx.g / |g|), and hovers there.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch

from hiso_bench import catalogue, methods, records
from hiso_bench.federation import Federation, FederationOptions
from hiso_bench.testing import (
    Cubature,
    Quadratics,
    circle,
    gauss_product,
    half_hermite,
    injected,
    product,
    signs,
    smolyak,
    take_round,
)

D, SHAPE = 4, (2, 2)
README = catalogue.ROOT / "hiso_bench" / "methods" / "README.md"


@dataclass(frozen=True)
class Case:
    """How a method is measured, and what is known of it.

    Attributes:
        method: registered name.
        rule: on the coordinates of its directions, or of the factors that they are made from.
        along: a, or E dx.g / |g| of a method whose step does not shrink; NaN: no formula.
        square: M, or E |dx|^2 of such a method; NaN: no formula.
        bias: of E dx, in words.
        shrinks: whether dx is proportional to g.
        options: of the method.
    """

    method: str
    rule: Callable[[], Cubature]
    along: float
    square: float
    bias: str
    shrinks: bool = True
    options: tuple[tuple[str, Any], ...] = ()


def _kink() -> Cubature:
    """Gaussian directions for functions of the sign of z.g = |g| z_1."""
    return product(half_hermite(4), gauss_product(D - 1))


_INPUT = torch.tensor([[1.0, 0.0]], dtype=torch.float64)
"""Of AGZO's layer: the rows of G lie in its span, as they do where the basis is that of the batch."""
_PLAIN = "none"
CASES = (
    Case("decomfl", lambda: smolyak(5 * D), 1, (D + 6) / 5, _PLAIN),
    Case("mezo", lambda: smolyak(D), 1, D + 2, _PLAIN),
    Case("fedkseed", lambda: smolyak(D), 1, D + 2, "none over pools; within one, sum_j z_j z_j' g / K"),
    Case("lozo", lambda: gauss_product(D), 1, D + 2 * (2 + 2 + 1) + 2, _PLAIN, True, (("rank", 1),)),
    Case("subzero", lambda: product(circle(8), circle(8), gauss_product(1)), 1, D * (1 + 2),
         "none over subspaces; within one, its part of g", True, (("rank", 1),)),
    Case("agzo", lambda: smolyak(D), 1, 2 * 1 + 2, "none where the rows of G lie in span(A); else G A A'", True,
         (("rank", 1), ("inputs", lambda x, examples, draw: [_INPUT]))),
    Case("hizoo", lambda: smolyak(D), 1, D + 2, "x none at H = 1; H: S_ii + h_i tr(A) / 2"),
    Case("hizoo-stein", lambda: smolyak(D), 1, D + 2, "none; H: none but for its floor"),
    Case("feedsign", _kink, math.sqrt(2 / math.pi), D, "along g / norm(g)", False),
    Case("zo-signsgd", _kink, 1, D, "(2/pi) arcsin(g_i / norm(g)) for P = 1", False,
         (("perturbations", 1), ("difference", "central"))),
    Case("fzoo", lambda: signs(3 * D), math.nan, math.nan, "about g / norm(g)", False, (("perturbations", 3),)),
)  # fmt: skip


class Row(NamedTuple):
    """What was measured of a case."""

    scalars: int
    """Numbers that a client sends in a round of one local step."""
    payload: int
    """Their bytes on the wire that the method asks for."""
    evaluations: int
    along: float
    square: float

    def limit(self, case: Case) -> float:
        """The stable step, or the floor of |g| / eta."""
        return limit(self.along, self.square, case.shrinks)


def limit(along: float, square: float, shrinks: bool) -> float:
    """From E dx.g and E |dx|^2, as the module's text has them."""
    return 2 * along / square if shrinks else square / (2 * along)


def measure(case: Case) -> Row:
    """One round through the federation, with a direction injected for every node."""
    rule, length = case.rule(), 3.0
    start = length * np.eye(D)[0]
    problem = Quadratics(np.eye(D)[None], np.zeros((1, D)), start, (SHAPE,)).replicated(len(rule.weights))
    method = methods.build(case.method, {"lr": 1.0, "mu": 1e-4} | dict(case.options))
    federation = Federation(problem, method, FederationOptions(wire="float64"), directions=injected(rule, method, problem.layout))
    dx = take_round(federation)
    asked = {name: value for name, value in method.federation_options.items() if name == "wire"}
    wire = method.federate(Quadratics(np.eye(D)[None], np.zeros((1, D)), start, (SHAPE,)), FederationOptions(**asked)).wire
    power = 2 if case.shrinks else 1
    return Row(
        method.perturbations + method.curvatures,
        wire.row_bytes,
        method.evaluations,
        float(rule.mean(dx @ start)) / length**power,
        float(rule.mean((dx**2).sum(1))) / (length**2 if case.shrinks else 1),
    )


def table() -> str:
    """The table in Markdown."""
    lines = [
        "| method | P | numbers up | bytes | losses | bias of E dx | a | M | eta* or floor |",
        "|-|-|-|-|-|-|-|-|-|",
    ]
    for case in CASES:
        row = measure(case)
        P = methods.build(case.method, {"lr": 1.0} | dict(case.options)).perturbations
        known = limit(case.along, case.square, case.shrinks)
        pairs = [(case.along, row.along), (case.square, row.square), (known, row.limit(case))]
        cells = [f"{_number(predicted)} / {_number(found)}" for predicted, found in pairs]
        kind = "eta*" if case.shrinks else "floor"
        lines.append(
            f"| `{case.method}` | {P} | {row.scalars} | {row.payload} | {row.evaluations} | {case.bias} "
            f"| {cells[0]} | {cells[1]} | {kind} {cells[2]} |"
        )
    return "\n".join(lines) + "\n"


def _number(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.4g}"


TEXT = """# Methods

Every file here registers one method of scalars, or several versions of one. Baselines that send vectors (FedAvg and its kin,
FedZO) are in `hiso_bench/first_order/`.

## Side by side

Written by `python -m synthetic.neighbours`: formula / what a real round gives, summed exactly over a cubature or over all sign
vectors. The point is a 2 x 2 matrix (d = 4), the loss |x|^2 / 2, g along the first axis, directions Gaussian (`fzoo`:
Rademacher), low-rank ones of rank 1. `numbers up` are what a client sends in a round of one local step (the server sends as many
back), `bytes` their size without the message's eight bytes of round and client, `losses` the evaluations.

- a = E dx.g / |g|^2 and M = E |dx|^2 / |g|^2. Of fresh directions a step is stable in mean square up to eta* = 2 a / M on this
  loss: pools and factors that are kept tie rounds together, and a learned H changes it.
- `feedsign`, `zo-signsgd` and `fzoo` take steps that do not shrink with g: a = E dx.g / |g|, M = E |dx|^2, and |g| falls to about
  `floor` times eta, where a step gains nothing in the mean.

{table}
On a loss with Hessian S and plain Gaussian directions, eta* is the root in `hiso_bench.theory.stability`. `lozo` and `subzero`
have a second moment above that of a full direction at every shape and rank, mn + 2 (m + n + 1) / r + 2 and mn (1 + 2 / r^2)
against mn + 2 (r is below m and n): what they save is memory and random numbers. A lower variance is had only within a
subspace, at the price of bias.

`agzo` (arXiv 2601.17261) draws R A', A an orthonormal basis of the r leading inputs of a linear layer, and has
(mr + 2) |G A|^2, a lower second moment where the rows of G lie in span(A). Two things to know before using it:

- Published, A comes from a client's own batch: a function of private examples, from which nobody else can regenerate the
  direction. Here it comes from examples that every party holds and no client trains on (`--public` of `digits-mlp`, `public` of a
  `ModuleProblem`), once in a window of rounds; the part of G outside its span is never seen. The inputs themselves are not sent,
  but the public examples must be shared beforehand.
- What a step's noise costs is E dx'S dx, not E |dx|^2, and the curvature of a linear layer lies in the span of its inputs as its
  gradient does. The eta* above is that of |x|^2 / 2, which curves everywhere. On a loss of the layer's outputs the expected fall
  is the same with and without the basis (`tests/expectation/test_agzo.py`); what it is on digits is the figure `agzo`.

## Not here

- AGZO with the published basis, of each client's own batch: see above.
- FedKSeed-Pro draws seeds by the size of their past scalars, and a client's choice then has to be sent.
- HiZOO's official code divides the step by the H just updated; here H is frozen while a round's steps move x.
"""


def main() -> None:
    """Write the page."""
    records.write_bytes(README, TEXT.format(table=table()).encode())


if __name__ == "__main__":
    main()
