"""The simulation behind HiSo's Figure 4: what whitening does to a random spectrum.

HiSo (arXiv 2506.02370) draws d = 200 eigenvalues of the Hessian Sigma with log Sigma ~ N(0, 3 I), whitens
with H = Sigma + eps I, and prints the three quantities that bound the variance of a zeroth-order step:

    L d                     L = max lambda_j; Eq 14, smoothness only
    L kappa = Tr Sigma      kappa = Tr Sigma / L, the effective rank; Eq 15
    zeta = Tr H^{-1/2} Sigma H^{-1/2} = sum_j lambda_j / (lambda_j + eps)       whitening rank; Eq 16

"N(0, 3 I)" can mean variance 3 or standard deviation 3. Both are drawn, and 2.5, near the value that makes
the printed numbers most likely. All spreads use the same standard normals: they differ by the spread alone.

eps is taken as 1, the value the printed zeta implies, and then the mean of zeta needs no simulation: lambda
and 1/lambda have the same law and lambda/(lambda + 1) + (1/lambda)/(1/lambda + 1) = 1, so it is exactly d/2
for every spread. A zeta near 100 says d = 200 and eps = 1, and nothing about the spectrum.
"""

import math
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats

from hiso_bench import records
from hiso_bench.experiments import Plan, Profile
from hiso_bench.quoted import number

VERSION, SEED = 1, 20250603
REPORTED = "hiso_fig4"
"""What Figure 4 prints, of `paper/reported/`."""
READINGS = {"variance 3": float(np.sqrt(3.0)), "std 2.5": 2.5, "std 3": 3.0}
STDS = np.round(np.arange(1.5, 4.01, 0.1), 1)
DIMENSIONS = (25, 50, 100, 200, 400, 800)
PROBABILITIES = (0.001, 0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99, 0.999)
CONFIDENCE = 0.999


def _about(centre: float, reach: float) -> tuple[float, float]:
    return centre - reach, centre + reach


class Window(NamedTuple):
    """When a draw counts as "like the printed one": L and Tr Sigma inside these open intervals.

    The intervals are centred on the printed values (L = L d / d, d as printed) and were fixed before counting.
    """

    L: tuple[float, float] = _about(number(REPORTED, "Ld").value / number(REPORTED, "eigenvalues").value, 100.0)
    trace: tuple[float, float] = _about(number(REPORTED, "Lkappa").value, 400.0)


def simulate(seed: int, draws: int = 20_000, d: int = 200, window: Window | None = None) -> dict[str, pd.DataFrame]:
    """Draw the spectra and tabulate them.

    Args:
        seed: of the NumPy generator, >= 0; the tables are a pure function of the arguments.
        draws: independent draws of the spectrum per reading.
        d: eigenvalues per draw.
        window: see `Window`; None for its defaults, which go with d = 200.

    Returns:
        Long tables by file stem. "reading" is a key of `READINGS`, "quantity" one of Ld, Lkappa, zeta:

        - whitening_histogram: reading, quantity, low, high, count (bins even in log for Ld and Lkappa)
        - whitening_quantiles: reading, quantity, probability, value
        - whitening_summary: reading, std, quantity, mean, standard_error, expected (analytic; empty for Ld)
        - whitening_match: std, draws, hits, fraction, low, high: share of draws in the window with its exact
          (Clopper-Pearson) 99.9 % interval, for the readings and a grid of spreads; L_low, L_high, trace_low,
          trace_high: the window
        - whitening_example: reading, std, draw, eigenvalue, whitened: the d eigenvalues of Sigma and of
          H^{-1/2} Sigma H^{-1/2} in the draw closest to the window's centre, by log(L)^2 + log(Tr)^2 distance
        - whitening_dimension: reading, d, mean, q05, q95, expected: zeta against d

    Raises:
        ValueError: for draws < 2 or d < 1.

    Cost: about a second and 200 MB at the defaults.
    """
    if draws < 2 or d < 1:
        raise ValueError(f"need at least 2 draws of at least 1 eigenvalue, got {draws} draws of {d}")
    window = Window() if window is None else window
    main, sweep = (np.random.default_rng(child) for child in np.random.SeedSequence(seed).spawn(2))
    normals = main.standard_normal((draws, d))
    measured = {name: quantities(np.exp(std * normals)) for name, std in READINGS.items()}
    values = pd.concat([table.assign(reading=name, draw=np.arange(draws)) for name, table in measured.items()]).melt(
        id_vars=["reading", "draw"], var_name="quantity", value_name="value"
    )
    return {
        "whitening_histogram": _histogram(values),
        "whitening_quantiles": _quantiles(values),
        "whitening_summary": _summary(values, d),
        "whitening_match": _match(normals, window),
        "whitening_example": _example(normals, measured, window),
        "whitening_dimension": _dimension(sweep, max(draws // 10, 2)),
    }


def quantities(eigenvalues: NDArray[np.float64], eps: float = 1.0) -> pd.DataFrame:
    """L d, L kappa and zeta (H = Sigma + eps I) of each spectrum.

    Args:
        eigenvalues: of Sigma, positive, shape (draws, d).
        eps: > 0, in the units of the eigenvalues.

    Returns:
        Columns Ld, Lkappa (units of the eigenvalues) and zeta (no unit), one row per draw.
    """
    return pd.DataFrame(
        {
            "Ld": eigenvalues.max(axis=1) * eigenvalues.shape[1],
            "Lkappa": eigenvalues.sum(axis=1),
            "zeta": whitened(eigenvalues, eps).sum(axis=1),
        }
    )


def whitened(eigenvalues: NDArray[np.float64], eps: float = 1.0) -> NDArray[np.float64]:
    """Eigenvalues of H^{-1/2} Sigma H^{-1/2} for H = Sigma + eps I: lambda / (lambda + eps), same shape."""
    return eigenvalues / (eigenvalues + eps)


def match_probability(std: float, d: int = 200, window: Window | None = None) -> float:
    """The probability that a draw lies in the window, by convolution on a grid: what the share in `whitening_match` estimates.

    Given that the largest eigenvalue is l, the others are independent log-normals below l; the law of their sum is the
    (d-1)-fold convolution of that one, taken through the discrete Fourier transform.

    Args:
        std: standard deviation of log lambda, > 0.
        d: eigenvalues per draw, >= 2.
        window: see `Window`; None for its defaults.

    Returns:
        Right to about one per cent (bins of 0.25, 24 values of l). Cost: 0.1 s.

    Raises:
        ValueError: for std or d out of range.
    """
    if not std > 0 or d < 2:
        raise ValueError(f"need std > 0 and d >= 2, got {std} and {d}")
    window = Window() if window is None else window
    width = 0.25
    edges = width * np.arange(2**16 + 1)  # wide enough that no sum of weight wraps around
    cumulative = stats.norm.cdf(np.log(np.maximum(edges, 1e-300)) / std)
    nodes, weights = np.polynomial.legendre.leggauss(24)
    middle, half = np.mean(window.L), (window.L[1] - window.L[0]) / 2
    total = 0.0
    for L, weight in zip(middle + half * nodes, half * weights, strict=True):
        below = stats.norm.cdf(np.log(L) / std)
        mass = np.diff(np.minimum(cumulative, below)) / below
        # A mass stands in the middle of its bin: the sum of d - 1 of them is shifted by (d - 1) / 2 bins.
        rest = np.fft.irfft(np.fft.rfft(mass) ** (d - 1), len(mass))
        sums = edges[:-1] + width * (d - 1) / 2 + L
        inside = rest[(window.trace[0] < sums) & (sums < window.trace[1])].sum()
        density = d * below ** (d - 1) * stats.norm.pdf(np.log(L) / std) / (std * L)
        total += weight * density * inside
    return float(total)


def _histogram(values: pd.DataFrame) -> pd.DataFrame:
    rows = []
    for quantity, group in values.groupby("quantity", sort=False):
        sample = group["value"].to_numpy()
        if quantity == "zeta":
            edges = _grid(sample)
        else:  # twelve bins a decade
            edges = 10 ** (_grid(12 * np.log10(sample)) / 12)
        for reading, part in group.groupby("reading", sort=False):
            counts, _ = np.histogram(part["value"], edges)
            rows.append(
                pd.DataFrame(
                    {
                        "reading": reading,
                        "quantity": quantity,
                        "low": edges[:-1],
                        "high": edges[1:],
                        "count": counts,
                    }
                )
            )
    return pd.concat(rows, ignore_index=True)


def _grid(sample: NDArray) -> NDArray:
    """Consecutive whole numbers that enclose a sample."""
    return np.arange(math.floor(sample.min()), math.floor(sample.max()) + 2, dtype=float)


def _quantiles(values: pd.DataFrame) -> pd.DataFrame:
    table = values.groupby(["reading", "quantity"], sort=False)["value"].quantile(np.array(PROBABILITIES))
    return table.rename_axis(["reading", "quantity", "probability"]).reset_index()


def _summary(values: pd.DataFrame, d: int) -> pd.DataFrame:
    groups = values.groupby(["reading", "quantity"], sort=False)["value"]
    table = groups.agg(mean="mean", standard_error="sem").reset_index()
    table.insert(1, "std", [READINGS[reading] for reading in table["reading"]])
    expected = {"Lkappa": d * np.exp(table["std"] ** 2 / 2), "zeta": d / 2}
    table["expected"] = np.nan
    for quantity, value in expected.items():
        table["expected"] = table["expected"].mask(table["quantity"] == quantity, value)
    return table


def _match(normals: NDArray, window: Window) -> pd.DataFrame:
    draws, tail = len(normals), (1 - CONFIDENCE) / 2
    rows = []
    for std in sorted({*READINGS.values(), *STDS.tolist()}):
        eigenvalues = np.exp(std * normals)
        L, trace = eigenvalues.max(axis=1), eigenvalues.sum(axis=1)
        inside = (window.L[0] < L) & (L < window.L[1]) & (window.trace[0] < trace) & (trace < window.trace[1])
        hits = int(inside.sum())
        low = stats.beta.ppf(tail, hits, draws - hits + 1) if hits > 0 else 0.0
        high = stats.beta.ppf(1 - tail, hits + 1, draws - hits) if hits < draws else 1.0
        rows.append((std, draws, hits, hits / draws, low, high, *window.L, *window.trace))
    counted = ["std", "draws", "hits", "fraction", "low", "high"]
    return pd.DataFrame(rows, columns=[*counted, "L_low", "L_high", "trace_low", "trace_high"])


def _example(normals: NDArray, measured: dict[str, pd.DataFrame], window: Window) -> pd.DataFrame:
    d = normals.shape[1]
    rows = []
    for reading, table in measured.items():
        distance = np.log(table["Ld"] / d / np.mean(window.L)) ** 2 + np.log(table["Lkappa"] / np.mean(window.trace)) ** 2
        draw = int(distance.idxmin())
        eigenvalues = np.sort(np.exp(READINGS[reading] * normals[draw]))
        rows.append(
            pd.DataFrame(
                {
                    "reading": reading,
                    "std": READINGS[reading],
                    "draw": draw,
                    "eigenvalue": eigenvalues,
                    "whitened": whitened(eigenvalues),
                }
            )
        )
    return pd.concat(rows, ignore_index=True)


def _dimension(generator: np.random.Generator, draws: int) -> pd.DataFrame:
    rows = []
    for d in DIMENSIONS:
        normals = generator.standard_normal((draws, d))
        for reading, std in READINGS.items():
            zeta = whitened(np.exp(std * normals)).sum(axis=1)
            rows.append((reading, d, zeta.mean(), *np.quantile(zeta, [0.05, 0.95]), d / 2))
    return pd.DataFrame(rows, columns=["reading", "d", "mean", "q05", "q95", "expected"])


class Whitening:
    """The simulation as an `experiments.Experiment`; there is no learning rate to choose."""

    name = "whitening"
    profile: Profile = "quick"

    def plan(self) -> Plan:
        """One run of about a second."""
        return Plan(1, 0, 1.0)

    def tune(self, results: Path, work: Path, jobs: int) -> None:
        """Nothing to choose."""

    def compare(self, grids: Path, results: Path, work: Path, jobs: int) -> None:
        """Simulate and write the tables."""
        drawn = {"seed": SEED, "draws": 20_000, "d": int(number(REPORTED, "eigenvalues").value)}
        config = drawn | {"window": Window()._asdict()}
        if records.current(results / "whitening_histogram.csv", config, VERSION):
            return
        tables = simulate(**drawn)
        for stem in sorted(tables, reverse=True):  # the one that is asked about above comes last
            records.write(tables[stem], results / f"{stem}.csv", config, VERSION)


WHITENING = Whitening()
