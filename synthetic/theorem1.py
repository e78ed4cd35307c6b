"""Both sides of HiSo's Theorem 1 on problems inside its assumptions, and one point of the left side through the real core.

Everything the theorem names is known here: F is a diagonal quadratic with largest eigenvalue L (A1), a client's gradient
noise is additive with covariance V, sigma_s^2 = Tr V (A2), the clients' losses differ by linear terms b_i that sum to zero,
sigma_G = max_i |b_i| (A3), H is fixed and diagonal (A4); tau = 1, P = 1, mu = 0. m of M clients are drawn in a round without
replacement, so the b_i act as noise of variance (M-m)/(M-1) mean_i b_i^2 per client: exactly none at m = M, where the theorem
still charges sigma_G^2/m. The left side is exact (`hiso_bench.theory.closed_form`).
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from hiso_bench import methods, records
from hiso_bench.experiments import Plan, Profile
from hiso_bench.federation import Federation, FederationOptions
from hiso_bench.stats import mean_interval
from hiso_bench.theory import bounds, spectra
from hiso_bench.theory.closed_form import Descent
from hiso_bench.theory.recursion import expected_squares
from synthetic.quadratic import Quadratic

VERSION, SEED = 1, 2506_02370
EPS = 0.1
"""The oracle's H = Sigma + EPS L, the paper's Diag(Sigma + eps)."""
PRECONDITIONERS = ("identity", "oracle", "scaled", "reversed")
NOISES = ("isotropic", "curvature", "none")


@dataclass(frozen=True, kw_only=True)
class Case:
    """A problem, an H and a federation, started at x = 1.

    Attributes:
        s: eigenvalues, shape (d,).
        h: diagonal of H, shape (d,).
        noise: variances v_j of one client's gradient noise, shape (d,).
        shifts: the b_i, shape (M, d), summing to zero over the clients.
        m: clients sampled.
        R: rounds.
    """

    s: NDArray
    h: NDArray
    noise: NDArray
    shifts: NDArray
    m: int = 2
    R: int = 1000

    @property
    def setting(self) -> bounds.Setting:
        """The constants of Theorem 1."""
        sigma_G = float(np.linalg.norm(self.shifts, axis=1).max())
        sigma_s = float(np.sqrt(self.noise.sum()))
        return bounds.setting(self.s, self.h, self.s.sum() / 2, self.m, 1, self.R, sigma_s, sigma_G)

    @property
    def variances(self) -> NDArray:
        """What one sampled client's gradient varies by, heterogeneity included: shape (d,)."""
        clients = len(self.shifts)
        spread = (clients - self.m) / (clients - 1) if clients > 1 else 0.0
        return self.noise + spread * np.square(self.shifts).mean(0)

    @cached_property
    def descent(self) -> Descent:
        """The exact recursion of this case."""
        return Descent(self.s, self.h, np.ones_like(self.s), 1, self.variances, self.m)

    def left(self, eta: float, measure: str = "whitened") -> float:
        """The left side, or the same average of the Euclidean |grad F|^2; round by round beyond the stable range."""
        if eta < self.descent.limit:
            return float(self.descent.average(eta, self.R, measure))
        squares = expected_squares(self.s, self.h, np.ones_like(self.s), eta, 1, self.R - 1, 0.0, noise=self.variances, m=self.m)
        weights = self.s**2 / (self.h if measure == "whitened" else 1.0)
        with np.errstate(over="ignore", invalid="ignore"):
            return float(sum(weights @ a for a in squares) / self.R)

    def right(self, eta: float) -> float:
        """The right side, in the H^{-1} norm."""
        return bounds.theorem1(self.setting, eta).total


def families(d: int) -> dict[str, NDArray]:
    """Spectra of d eigenvalues with L = 1."""
    drawn = {
        "flat": spectra.flat(d),
        "power 1": spectra.power(d, 1.0),
        "power 1.5": spectra.power(d, 1.5),
        "spikes": spectra.spiked(d, max(d // 20, 1), 100.0),
        "lognormal": np.sort(spectra.lognormal(d, 2.0, np.random.default_rng(SEED)))[::-1],
    }
    return {name: s / s.max() for name, s in drawn.items()}


def preconditioner(name: str, s: NDArray) -> NDArray:
    """H = I, Sigma + EPS L, 10 L I, or the oracle's entries in the wrong order."""
    oracle = s + EPS * s.max()
    return {"identity": np.ones_like(s), "oracle": oracle, "scaled": 10 * s.max() * np.ones_like(s), "reversed": oracle[::-1]}[
        name
    ]


def case(s: NDArray, h: str = "oracle", noise: str = "isotropic", m: int = 2, R: int = 1000, clients: int = 8) -> Case:
    """A case by names, with sigma_s = 1 and b_i of rms length 1/2 ("none": neither).

    Raises:
        ValueError: unknown noise.
    """
    if noise not in NOISES:
        raise ValueError(f"noise {noise!r} is unknown; allowed: {', '.join(NOISES)}")
    d = len(s)
    shape = {"isotropic": np.full(d, 1 / d), "curvature": s / s.sum(), "none": np.zeros(d)}[noise]
    shifts = np.random.default_rng(SEED).standard_normal((clients, d)) * np.sqrt(shape) / 2
    return Case(s=s, h=preconditioner(h, s), noise=shape, shifts=shifts - shifts.mean(0), m=m, R=R)


def grid(d: int = 100, rounds: tuple[int, ...] = (10, 100_000)) -> pd.DataFrame:
    """Both sides over families, H, noise, m, R, both readings of the step condition and two fractions of the limit.

    At tau = 1 "third" and "homogeneous" are one reading. m = 8 is full participation.

    Returns:
        family, H, noise, m, R, reading, fraction, eta, stable (eta/eta*), left, right, left_euclidean, right_euclidean.
    """
    return pd.DataFrame([_both(*at) for at in _points(d, rounds)])


def _points(d: int, rounds: tuple[int, ...]) -> Iterator[tuple[dict, Case, bounds.Reading, float]]:
    for family, s in families(d).items():
        for H in PRECONDITIONERS:
            for noise in NOISES:
                for m in (2, 8):
                    one = case(s, H, noise, m)
                    one.descent  # noqa: B018 - computed once, shared by the copies below
                    for R in rounds:
                        named = {"family": family, "H": H, "noise": noise, "m": m, "R": R}
                        for reading in ("parsed", "third"):
                            for fraction in (1.0, 0.1):
                                yield named, _with_rounds(one, R), reading, fraction


def _with_rounds(one: Case, R: int) -> Case:
    copy = replace(one, R=R)
    if "descent" in one.__dict__:
        copy.__dict__["descent"] = one.descent
    return copy


def _both(named: dict, one: Case, reading: bounds.Reading, fraction: float) -> dict:
    eta = fraction * bounds.step_limit(one.setting, reading)
    right = one.right(eta)
    return named | {
        "reading": reading, "fraction": fraction, "eta": eta, "stable": eta / one.descent.limit,
        "left": one.left(eta), "right": right,
        "left_euclidean": one.left(eta, "euclidean"), "right_euclidean": one.setting.beta_u * right,
    }  # fmt: skip


def rescaled(one: Case, c: float) -> Case:
    """The same run for the loss c F: s and b_i times c, V times c^2; eta/c then gives the same iterates."""
    return replace(one, s=c * one.s, noise=c**2 * one.noise, shifts=c * one.shifts)


def simulate(problem: Quadratic, m: int, eps: float, rounds: int, key: int = SEED) -> tuple[Case, float, NDArray]:
    """Run HiSo with H = Sigma + eps through the real core at the largest eta that the "third" reading admits.

    Args:
        problem: its replicates are independent runs.
        m: clients sampled.
        eps: of the oracle H.
        rounds: R.
        key: of directions and participation.

    Returns:
        The case (the exact counterpart), eta, and |grad F|^2 in the H^{-1} norm: shape (rounds, replicates).
    """
    d = len(problem.spectrum)
    twin = Quadratic(**(problem.describe() | {"noise": 0.0, "replicates": (), "clients": problem.clients}))
    drawn = [twin.batch(np.array(i), 0, 0) for i in range(problem.clients)]
    shifts = np.zeros((problem.clients, d)) if drawn[0] is None else np.stack(drawn)
    s, h = problem.spectrum, problem.spectrum + eps
    one = Case(s=s, h=h, noise=np.full(d, problem.noise**2), shifts=shifts, m=m, R=rounds)
    eta = bounds.step_limit(one.setting, "third")
    method = methods.build("hiso-oracle", h=problem.oracle_h(), eps=eps, lr=eta, mu=1e-3, perturbations=1, difference="central")
    federation = Federation(problem, method, FederationOptions(sampled=m, wire="float64", key=key))
    weights, seen = torch.from_numpy(s**2 / h), []
    for _ in range(rounds):
        seen.append((weights * federation.state.x[0].square()).sum(-1).numpy())
        federation.round()
    return one, eta, np.array(seen)


def by_rounds(d: int = 50, replicates: int = 1000, longest: int = 300) -> pd.DataFrame:
    """Both sides against R at the largest admitted eta, power-law spectrum; the oracle H simulated as well.

    Returns:
        H, R, eta, left, right, left_euclidean, right_euclidean, and mean, low, high (99.9 %) where simulated.
    """
    problem = Quadratic(d, "power", 1.5, 8, heterogeneity=0.05, noise=0.1, replicates=(replicates,), key=SEED)
    oracle, _, seen = simulate(problem, 2, EPS, longest)
    running = np.cumsum(seen, axis=0) / np.arange(1, longest + 1)[:, None]
    rows = []
    for H in ("identity", "oracle", "reversed"):
        one = replace(oracle, h=preconditioner(H, oracle.s))
        for R in sorted({*np.geomspace(1, 100_000, 41).round().astype(int), *(10, 30, 100, longest)}):
            row = _both({"H": H, "R": R}, _with_rounds(one, int(R)), "third", 1.0)
            if H == "oracle" and R in (10, 30, 100, longest):
                row |= dict(zip(("mean", "low", "high"), mean_interval(running[R - 1]), strict=True))
            rows.append(row)
    return pd.DataFrame(rows)


def by_rate(d: int = 50, R: int = 300) -> pd.DataFrame:
    """Both sides, over the first round's left side, against eta/eta* on the flat spectrum without noise, H = I.

    A rescaled loss c F gives the same curves; the parsed limit moves with L (d+2) = c (d+2).

    Returns:
        kind "curve": stable (eta/eta*), left, right; kind "limit": reading, Ld (L (d+2)), stable, left, right.
    """
    one = case(spectra.flat(d), "identity", "none", 1, R)
    start, star = float(np.sum(one.s**2)), one.descent.limit
    rows = [
        {"kind": "curve", "stable": x, "left": one.left(x * star) / start, "right": one.right(x * star) / start}
        for x in [*np.geomspace(1e-3, 0.9, 30), *np.linspace(0.95, 2.5, 32)]
    ]
    for reading in ("third", "parsed"):
        for size in (1e-3, 1.0, 1e3):
            scaled = rescaled(one, size / (d + 2))
            eta = bounds.step_limit(scaled.setting, reading)
            sides = {"left": scaled.left(eta), "right": scaled.right(eta)}
            first = float(np.sum(scaled.s**2))
            at = {"kind": "limit", "reading": reading, "Ld": size, "stable": eta / scaled.descent.limit}
            rows.append(at | {side: value / first for side, value in sides.items()})
    return pd.DataFrame(rows)


def by_dimension(dimensions: tuple[int, ...] = (10, 30, 100, 300, 1000), R: int = 10_000) -> pd.DataFrame:
    """Looseness right/left at each reading's limit against d, in both norms, power-law spectrum, L = 1.

    Returns:
        d, R, H, reading, norm, looseness.
    """
    rows = []
    for d in dimensions:
        for H in ("identity", "oracle"):
            one = case(spectra.power(d, 1.5), H, R=R)
            for reading in ("third", "parsed"):
                both = _both({}, one, reading, 1.0)
                for norm, end in (("H^-1", ""), ("Euclidean", "_euclidean")):
                    looseness = both[f"right{end}"] / both[f"left{end}"]
                    rows.append({"d": d, "R": R, "H": H, "reading": reading, "norm": norm, "looseness": looseness})
    return pd.DataFrame(rows)


class Theorem1:
    """The three tables as an `experiments.Experiment`; there is no learning rate to choose."""

    name = "theorem1"
    profile: Profile = "quick"

    def plan(self) -> Plan:
        """One run of some seconds."""
        return Plan(1, 0, 10.0)

    def tune(self, results: Path, work: Path, jobs: int) -> None:
        """Nothing to choose."""

    def compare(self, grids: Path, results: Path, work: Path, jobs: int) -> None:
        """Compute and write theorem1_rounds, theorem1_rate and theorem1_dimension."""
        config = {"seed": SEED, "eps": EPS}
        if records.current(results / "theorem1_rounds.csv", config, VERSION):
            return
        for stem, table in (("dimension", by_dimension()), ("rate", by_rate()), ("rounds", by_rounds())):
            records.write(table, results / f"theorem1_{stem}.csv", config, VERSION)


THEOREM1 = Theorem1()
