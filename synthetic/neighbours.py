"""What the registered methods are side by side: cost, bias, second moment and stable step, by formula and observed.

`python -m synthetic.neighbours` computes results/neighbours.csv where it is not current, and writes the tables into
hiso_bench/methods/README.md.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import pandas as pd

from hiso_bench import catalogue, records
from hiso_bench.experiments import Plan, Profile
from synthetic import neighbour_limits as limits
from synthetic.neighbour_cases import CASES, Case, D, expected_row, measure

VERSION = 1
README = catalogue.ROOT / "hiso_bench" / "methods" / "README.md"
COLUMNS = ("case", "quantity", "predicted", "predicted_high", "found", "low", "high")
"""`predicted` to `predicted_high` is a range where a prediction depends on the direction of g; `low` to `high` is at 99.9 %."""


def one_round(case: Case) -> Iterator[tuple]:
    """Rows of the cost and the moments of a case."""
    for quantity, predicted, found in zip(
        ("numbers", "bytes", "losses", "a", "M"), expected_row(case), measure(case), strict=True
    ):
        yield case.name, quantity, predicted, predicted, found, found, found


def long_run(case: Case) -> Iterator[tuple]:
    """Rows of the observed stable step with the growth on both sides of it, or of the observed floor."""
    if case.shrinks:
        for at, found in zip(limits.AROUND, limits.around(case), strict=True):
            eta = at * case.limit
            predicted = 1 - 2 * case.along * eta + case.square * eta**2
            yield case.name, f"growth at {at:g} eta*", predicted, predicted, found, found, found
    if not case.settles:
        yield case.name, "floor", *(math.nan,) * 5
        return
    highest = case.limit if math.isnan(case.widest) else case.widest
    yield case.name, "eta*" if case.shrinks else "floor", case.limit, highest, *limits.observed(case)


def frame() -> pd.DataFrame:
    """Every number of the tables. Cost: 40 s."""
    rows = [row for case in CASES for part in (one_round(case), long_run(case)) for row in part]
    for kept in limits.KEPT:
        rows.append((_kept_name(kept), kept.kind, kept.predicted, kept.predicted, *kept.observe()))
    return pd.DataFrame(rows, columns=list(COLUMNS))


def _kept_name(kept: limits.Kept) -> str:
    return f"{kept.method} with {kept.what}"


class Neighbours:
    """The tables' numbers as an `experiments.Experiment`."""

    name = "neighbours"
    profile: Profile = "standard"

    def plan(self) -> Plan:
        """Two hundred exact rounds and eleven runs, together."""
        return Plan(1, 0, 40.0)

    def tune(self, results: Path, work: Path, jobs: int) -> None:
        """Nothing to choose."""

    def compare(self, grids: Path, results: Path, work: Path, jobs: int) -> None:
        """Write neighbours.csv."""
        config = {
            "cases": [case.name for case in CASES],
            "kept": [_kept_name(kept) for kept in limits.KEPT],
            "d": D,
            "key": limits.KEY,
            "rounds": [limits.SETTLED, limits.ROUNDS],
            "replicates": limits.REPLICATES,
            "learned": [limits.LEARNED, limits.LEARNED_ROUNDS],
            "pools": limits.POOLS,
        }
        target = results / "neighbours.csv"
        if not records.current(target, config, VERSION):
            records.write(frame(), target, config, VERSION)


NEIGHBOURS = Neighbours()


def tables(found: pd.DataFrame) -> dict[str, str]:
    """The two tables in Markdown, from the recorded numbers, by their names in the page's text."""
    rows = {(row["case"], row["quantity"]): row for row in found.to_dict("records")}
    first = [
        "| method | numbers up | bytes | losses | bias of E dx | a | M | eta* or floor | observed |",
        "|-|-|-|-|-|-|-|-|-|",
    ]
    for case in CASES:
        kind = "eta*" if case.shrinks else "floor"
        cells = [_pair(rows[case.name, quantity]) for quantity in ("numbers", "bytes", "losses", "a", "M")]
        first.append(
            f"| {_cell(case)} | {' | '.join(cells[:3])} | {case.bias} "
            f"| {' | '.join(cells[3:])} | {kind} {_predicted(rows[case.name, kind])} | {_observed(rows[case.name, kind])} |"
        )
    second = ["| method | kept | eta* or floor | observed |", "|-|-|-|-|"]
    for kept in limits.KEPT:
        row = rows[_kept_name(kept), kept.kind]
        second.append(
            f"| {_cell(limits.case_of(kept.method))} | {kept.what} | {kept.kind} {_predicted(row)} | {_observed(row)} |"
        )
    return {"table": "\n".join(first), "kept": "\n".join(second)}


def page(found: pd.DataFrame) -> str:
    """The page in Markdown, from the recorded numbers."""
    return TEXT.format(
        **tables(found), settled=limits.SETTLED, rounds=limits.ROUNDS, replicates=limits.REPLICATES, learned=limits.LEARNED_ROUNDS
    )


def _cell(case: Case) -> str:
    return f"`{case.method}`{case.name.removeprefix(case.method)}"


def _pair(row: dict) -> str:
    return f"{_number(row['predicted'])} / {_number(row['found'])}"


def _predicted(row: dict) -> str:
    low, high = row["predicted"], row["predicted_high"]
    return _number(low) if low == high or math.isnan(low) else f"{_number(low)} to {_number(high)}"


def _observed(row: dict) -> str:
    value, low, high = row["found"], row["low"], row["high"]
    if low == high or math.isnan(value):
        return _number(value)
    return f"{'median ' * math.isinf(row['predicted_high'])}{value:#.3g} [{low:#.3g}, {high:#.3g}]"


def _number(value: float) -> str:
    return "-" if math.isnan(value) else "no bound" if math.isinf(value) else f"{value:.4g}"


TEXT = """# Methods

Every file here registers one method of scalars, or several versions of one. Baselines that send vectors (FedAvg and its kin,
FedZO) are in `hiso_bench/first_order/`.

## Side by side

Written by `python -m synthetic.neighbours` from `results/neighbours.csv`. The point is a 2 x 2 matrix (d = 4), the loss is half
its square, |x|^2 / 2, g is along the first axis, directions are Gaussian (`fzoo`: as told), low-rank ones of rank 1. A pair is
formula / what a real round gives, summed exactly over a cubature or over all sign vectors. `numbers up` are what a client sends
in a round of one local step (the server sends as many back), `bytes` their size without the message's eight bytes of round and
client, `losses` the evaluations. Here nothing is kept from round to round: windows are one round, `ema_new` is 1, H is 1; of
`zo-adam` this is the first round.

- a = E dx.g / |g|^2 and M = E |dx|^2 / |g|^2. E |x|^2 grows by 1 - 2 a eta + M eta^2 a round, so the stable step in mean square
  is eta* = 2 a / M. Observed is the step at which E |x|^2 of real rounds stands still, from d starts at every node of the
  cubature, and so exact; the growth at 0.9 and 1.1 eta* is in the table of results.
- From `feedsign` on a step does not shrink with g: a = E dx.g / |g|, M = E |dx|^2. A settled E |x|^2 has
  2 eta E a |g| = eta^2 E M, so |g| hovers at `floor` = M / (2 a) times eta in the mean, exactly so where a and M are the same for
  every g. Observed is the mean of |g| / eta over rounds {settled} to {rounds} of {replicates} runs, with a 99.9 % interval.

{table}

- `zo-signsgd` with one direction moves along no gradient: its a is 1 on an axis and less elsewhere, and the floor is a mean over
  the directions that a run sees. With two, E sign(dx) = g / |g| for every g.
- `fzoo` divides by the spread of P scalars. With g on an axis their signs are counted: k of P positive have a spread of
  |g| sqrt(4 k (P - k) / (P (P - 1))). Off the axes M has no bound: where the P Rademacher directions agree but for one coordinate
  i the spread is of the size of g_i, and with g = (1, delta, 0, 0) and P = 3 M tends to 1 / (4 delta^2). Runs are ruled by such
  steps, so the median of |g| / eta in the last round stands here for the mean. With Gaussian directions the spread s is
  independent of the mean, and M is finite from P = 4 on: E 1 / s^2 = (P - 1) / (P - 3).
- `meazo` with P >= 2 and a fresh v has no mean: a = E |sum c_p^2 / sum c_p| of Gaussians c_p is infinite, since the mean scalar
  that it divides by has a density at zero while dx does not vanish there. With P = 1 its first step is `feedsign`'s.

## What is kept

{kept}

`lozo` and `subzero` are summed exactly: what is kept over one rule, a round's operator given it over another and raised to the
power of the window. The others are runs, with a 99.9 % interval.

- `lozo`: for a window dx sees X v alone, with a step eta |v|^2. E |x|^2 needs E rho(t)^window = 1 with
  rho(t) = 1 - 2 eta t + (m + 2) eta^2 t^2 and t = |v|^2 (rank 1: chi-square with n degrees of freedom), and the rare long v
  decide. `subzero` has orthonormal factors, so a window of any length has the eta* of one round.
- `fedkseed`: the mean over pools of a pool's own edge. `hizoo` learns H = (1 + d/2) S of a diagonal S, at which eta* is 1
  whatever S and d are; `hizoo-stein` learns S. H is stopped after {learned} rounds.
- `meazo`, `zo-rmsprop` and `zo-adam`: v lags behind g, and there is no formula here for where |g| settles.

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
    """Compute what is not current, and write the page."""
    NEIGHBOURS.compare(catalogue.RESULTS, catalogue.RESULTS, catalogue.FRESH / "work", 1)
    found, _ = records.read(catalogue.RESULTS / "neighbours.csv")
    records.write_bytes(README, page(found).encode())


if __name__ == "__main__":
    main()
