"""The exact expected loss of every round beside the core's simulation of it, on six families of spectra.

A `Case` is a problem, a method with a fixed H and a federation. `exact` gives E f round by round, from the recursion of diagonal
problems where the problem is diagonal and from that of full matrices where it is rotated or the clients' Hessians differ;
`simulate` runs the federation with independent replicates. eta = eta*/2 or less: near the mean-square limit eta* the loss has
no finite variance, and no interval of its mean means anything.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from hiso_bench import keys, methods, records
from hiso_bench.experiments import Plan, Profile
from hiso_bench.federation import Federation, FederationOptions
from hiso_bench.methods.base import Method
from hiso_bench.stats import mean_interval
from hiso_bench.theory.matrices import MatrixRecursion
from hiso_bench.theory.recursion import Curves, expected_curves
from hiso_bench.theory.stability import max_stable_step
from synthetic.quadratic import Quadratic, linear_terms

VERSION, KEY = 1, 1602
REPLICATES = 1000
POINTS = 8
"""Rounds at which the simulation is shown, evenly spaced."""


@dataclass(frozen=True)
class Case:
    """A problem, a method with a fixed H, and a federation.

    Attributes:
        problem: options of `Quadratic`, without replicates and key.
        rounds: R.
        share: eta as a share of eta*, the exact mean-square limit of the mean function.
        lr: eta itself, in the place of the share; None for the share.
        P: directions per round (and client, if they are independent).
        mu: smoothing radius.
        difference: "forward" or "central".
        law: law of the directions.
        h_eps: H = S + h_eps on the diagonal, given and fixed; None for H = I, which is DeComFL.
        sampled: m, clients per round.
        independent: every client draws its own directions.
        key: 64-bit key of the problem: spectrum, axes, heterogeneity, gradient noise.
    """

    problem: dict[str, Any] = field(default_factory=dict)
    rounds: int = 50
    share: float = 0.5
    lr: float | None = None
    P: int = 5
    mu: float = 1e-3
    difference: str = "forward"
    law: str = "gaussian"
    h_eps: float | None = None
    sampled: int = 1
    independent: bool = False
    key: int = 0

    def __post_init__(self) -> None:
        if self.problem.get("angle") and self.h_eps is not None:
            raise ValueError(f"h_eps {self.h_eps} is given for a rotated problem; allowed: None, as H and S do not commute there")

    def build(self, replicates: tuple[int, ...] = ()) -> Quadratic:
        """The problem."""
        return Quadratic(**{"clients": 1} | self.problem, replicates=replicates, key=self.key)

    @cached_property
    def alone(self) -> Quadratic:
        """The problem without replicates, for what is read off it."""
        return self.build()

    @property
    def h(self) -> NDArray[np.float64]:
        """The diagonal of H, (d,)."""
        if self.h_eps is None:
            return np.ones_like(self.alone.spectrum)
        return self.alone.oracle_h()[0].numpy() + self.h_eps

    @property
    def eta(self) -> float:
        """The learning rate."""
        if self.lr is not None:
            return self.lr
        P = self.P * self.sampled if self.independent else self.P
        return self.share * max_stable_step(self.alone.spectrum, self.h, P, self.law)

    def method(self) -> Method:
        """DeComFL, or the step with the given H."""
        about = {"lr": self.eta, "perturbations": self.P, "mu": self.mu, "difference": self.difference}
        if self.h_eps is None:
            return methods.build("decomfl", about)
        return methods.build("hiso-oracle", about, h=self.alone.oracle_h(), eps=self.h_eps)


def exact(case: Case) -> Curves:
    """E f and E |grad f|^2 at rounds 0..R; milliseconds, seconds for full matrices at d = 100."""
    problem, d = case.alone, len(case.alone.spectrum)
    size = float(case.problem.get("heterogeneity", 0.0))
    shift = linear_terms(problem.clients, d, size, case.problem.get("heterogeneity_scale", "coordinate"), case.key).numpy()
    if problem.Q is None and problem.client_spectra is None:
        more = {"clients": problem.clients, "heterogeneity": np.mean(shift**2, axis=0), "independent": case.independent}
        common = (case.eta, case.P, case.rounds, case.mu, case.law, case.difference, problem.noise_variances, case.sampled)
        return expected_curves(problem.spectrum, case.h, np.ones(d), *common, **more)
    Q = np.eye(d) if problem.Q is None else problem.Q.numpy()
    own = problem.spectrum if problem.client_spectra is None else problem.client_spectra.numpy()[:, None]
    theory = MatrixRecursion(
        (Q.T * own) @ Q, 1 / case.h, case.P, case.mu, case.law, case.difference, linear=shift,
        noise=(Q.T * problem.noise_variances) @ Q, sampled=case.sampled, independent=case.independent,
    )  # fmt: skip
    return theory.curves(np.ones(d) @ Q, case.eta, case.rounds)


def simulate(
    case: Case, key: int, replicates: int, shown: Sequence[int] | None = None, method: Method | None = None
) -> NDArray[np.float64]:
    """Run independent replicates through the federation, scalars rounded to nothing below float64.

    Args:
        case: what to run.
        key: 64-bit key of directions and of who is sampled.
        replicates: how many.
        shown: rounds, ascending; None for the last one.
        method: in the place of the case's own, for controls.

    Returns:
        The mean function's loss, (len(shown), replicates). Cost: a few milliseconds per round at replicates d P = 3e5.
    """
    shown = [case.rounds] if shown is None else list(shown)
    options = FederationOptions(sampled=case.sampled, independent=case.independent, law=case.law, wire="float64", key=key)  # type: ignore[arg-type]
    problem = case.build((replicates,))
    federation = Federation(problem, method or case.method(), options)
    found = np.empty((len(shown), replicates))
    for r in range(shown[-1] + 1):
        if r in shown:
            found[shown.index(r)] = problem.loss(federation.state.x, None).numpy()
        if r < shown[-1]:
            federation.round()
    return found


FAMILIES: dict[str, dict[str, Any]] = {
    "flat": {"dimension": 60, "spectrum_family": "flat"},
    "power": {"dimension": 100, "spectrum_family": "power", "parameter": 1.0},
    "spiked": {"dimension": 60, "spectrum_family": "spiked", "parameter": 10.0, "spikes": 3},
    "lognormal": {"dimension": 60, "spectrum_family": "lognormal", "parameter": 1.0},
    "blocks": {"dimension": 60, "spectrum_family": "blocks", "block_sizes": (6, 18, 36), "block_values": (4.0, 1.0, 0.1)},
    "rotated": {"dimension": 60, "spectrum_family": "power", "parameter": 1.0, "angle": math.inf},
}
NOISE = {"flat": 0.1, "power": 0.05, "spiked": 0.3, "lognormal": 0.3, "blocks": 0.3, "rotated": 0.05}
"""Standard deviation of the coordinates of the gradient noise in the noisy regime; of the b_i, half of it."""
REGIMES = ("noise-free", "noisy")
ROUNDS = 80
"""Few enough that the loss of a replicate varies by half of its mean, or less."""


def case(family: str, regime: str) -> Case:
    """A family's case: one client without noise, or 2 of 4 different clients a round with gradient noise; P = 5, eta = eta*/2.

    Raises:
        KeyError: unknown family.
    """
    if regime == "noise-free":
        return Case(FAMILIES[family], ROUNDS)
    noise = {"clients": 4, "heterogeneity": NOISE[family] / 2, "noise": NOISE[family]}
    return Case(FAMILIES[family] | noise, ROUNDS, sampled=2)


def compare(family: str, regime: str, replicates: int = REPLICATES, points: int = POINTS) -> tuple[pd.DataFrame, pd.DataFrame]:
    """One case, exactly and simulated.

    Returns:
        round, exact at all rounds; and round, exact, mean, low, high (99.9 %) at `points` rounds, both with family, regime.
    """
    one = case(family, regime)
    loss = exact(one).loss
    shown = np.linspace(0, ROUNDS, points + 1).astype(int)[1:].tolist()
    runs = simulate(one, keys.derive(KEY, f"{family} {regime}"), replicates, shown)
    rows = [
        {"round": r, "exact": loss[r], **dict(zip(("mean", "low", "high"), mean_interval(of), strict=True))}
        for r, of in zip(shown, runs, strict=True)
    ]
    about = {"family": family, "regime": regime}
    return pd.DataFrame({**about, "round": range(ROUNDS + 1), "exact": loss}), pd.DataFrame(rows).assign(**about)


class Expected:
    """The comparison as an `experiments.Experiment`; eta is half of the exact limit, there is nothing to choose."""

    name = "expected"
    profile: Profile = "quick"

    def plan(self) -> Plan:
        """Twelve runs."""
        started = time.perf_counter()
        simulate(replace(case("power", "noisy"), rounds=5), KEY, REPLICATES)
        return Plan(len(FAMILIES) * len(REGIMES), 0, (time.perf_counter() - started) / 5 * ROUNDS)

    def tune(self, results: Path, work: Path, jobs: int) -> None:
        """Nothing to choose."""

    def compare(self, grids: Path, results: Path, work: Path, jobs: int) -> None:
        """Write expected_simulated.csv, and then expected.csv."""
        config = {
            "families": {name: {k: str(v) for k, v in options.items()} for name, options in FAMILIES.items()},
            "noise": NOISE, "rounds": ROUNDS, "replicates": REPLICATES, "points": POINTS, "P": 5, "share": 0.5, "key": KEY,
        }  # fmt: skip
        if records.current(results / "expected.csv", config, VERSION):
            return
        pairs = [compare(family, regime) for family in FAMILIES for regime in REGIMES]
        for stem, index in (("expected_simulated", 1), ("expected", 0)):
            records.write(pd.concat([pair[index] for pair in pairs], ignore_index=True), results / f"{stem}.csv", config, VERSION)


EXPECTED = Expected()
