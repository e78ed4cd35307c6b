"""Claims about how HiSo is compared with DeComFL, decided by recorded tables: the rule of Table 2, the federation, the spread."""

from __future__ import annotations

import functools
import math

import numpy as np
import scipy
from numpy.typing import NDArray

from claims.recorded import needed, recorded_table
from hiso_bench import catalogue
from hiso_bench.claims import Control, Evidence, Finding, check
from hiso_bench.quoted import printed, table
from hiso_bench.stats import exact, mean_interval
from learned_h import fair_speed
from learned_h.pairs import MEAN, Pair, pairs

SAME = (-math.log(1.15), math.log(1.15))
"""No speed-up: a factor below 1.15 either way, in logs."""
GAIN = (math.log(1.15), math.inf)
MOST = (0.5, 1.0)
"""Test accuracies that every arm passes well before its end."""


@functools.cache
def comparisons() -> tuple[Pair, ...]:
    """Every recorded comparison of HiSo with DeComFL.

    Raises:
        CannotRunError: a table is missing or damaged.
    """
    with needed():
        return tuple(pairs(catalogue.RESULTS))


@check("C4")
def table2_rule() -> Finding:
    """Rounds to the other's best accuracy, one way and both ways, where there is a difference and where there is none."""
    of = fair_speed.best_so_far(recorded_table("fair_speed"))
    reached = np.isfinite(fair_speed.one_way(of, "hiso", "decomfl")).mean()
    null = fair_speed.between_keys(of, "decomfl")
    what = "log of DeComFL's rounds over %s, digits perceptron, %s"
    cells = printed("hiso_table2", "speedup", "hiso").to_numpy()
    printed_rule, rule = "to DeComFL's best accuracy", "mean of four accuracies from 60 to 85 %"

    def added(arm: str) -> NDArray[np.float64]:
        one, both = (rule(of, arm, "decomfl") for rule in (fair_speed.one_way, fair_speed.both_ways))
        return (one - both)[np.isfinite(one)]

    def at_thresholds(arm: str) -> Evidence:
        logs = fair_speed.to_thresholds(of, arm, "decomfl", fair_speed.THRESHOLDS).mean(0)
        return Evidence(what % (f"those of {arm}", rule), mean_interval(logs), math.nan, GAIN)

    return Finding(
        evidence=(
            Evidence(what % ("those of DeComFL with another key", f"{printed_rule}, where it is reached ({null.reached:.0%})"),
                     null.one_way, 0.0, SAME),
            Evidence(f"what the printed rule adds to the log of both ways for HiSo, where it is reached ({reached:.0%})",
                     mean_interval(added("hiso")), 0.0, SAME),
            Evidence("the same for DeComFL with P = 10, which is faster", mean_interval(added("decomfl-p10")), 0.0, SAME),
            at_thresholds("hiso"),
            Evidence(f"share of Table 2's {len(cells)} speed-ups above {null.largest:.1f}, as are 5 % of the first line's",
                     exact(float((cells > null.largest).mean())), math.nan, MOST),
        ),
        controls=(
            Control("both ways in place of one", "holds",
                    Evidence(what % ("those of DeComFL with another key", "both ways, disjoint pairs of keys"),
                             null.both_ways, 0.0, SAME)),
            Control("DeComFL with P = 10, which is faster, in HiSo's place", "holds", at_thresholds("decomfl-p10")),
        ),
        needed="more keys",
    )  # fmt: skip


CHANGE = (-math.log(1.5), math.log(1.5))
"""Insensitive, as in C11: a factor of 1.5 in rounds, in logs."""


def gain(problem: str, table: str = "federation_size") -> NDArray[np.float64]:
    """Log of DeComFL's rounds over HiSo's per key, in the mean over the targets."""
    (found,) = [p for p in comparisons() if (p.table, p.problem, p.measure) == (table, problem, MEAN)]
    return found.difference("hiso", "decomfl")


@check("C10")
def federation() -> Finding:
    """How HiSo's gain over DeComFL changes where one thing about the federation does."""
    base = "6/2"
    settings = [p.problem for p in comparisons() if p.table == "federation_size" and p.measure == MEAN]
    what = "log of (DeComFL's rounds / HiSo's), %s, less the same %s"

    def change(problem: str) -> Evidence:
        case = problem.split(",")[0]
        return Evidence(what % (problem, f"with {base}"), mean_interval(gain(problem) - gain(f"{case}, {base}")), 0.0, CHANGE)

    units = gain("10 spikes", "ablation_quadratics") - gain("10 spikes, L = 1", "ablation_quadratics")
    return Finding(
        evidence=tuple(change(s) for s in settings if not s.endswith(base)),
        controls=(
            Control("the unit of the loss instead of the federation", "fails",
                    Evidence(what % ("10 spikes", "divided by 1000"), mean_interval(units), math.nan, CHANGE)),
        ),
        needed="more keys",
    )  # fmt: skip


RUNS, POWER, USUAL = 3, 0.8, 0.95
"""Runs that a printed mean is taken to be of, and what is usually asked of a test."""


def share(first: str, second: str, synthetic: bool, level: float = 0.999) -> tuple[float, float, int]:
    """The share of recorded comparisons whose interval lies above zero, the share below, and of how many."""
    found = [p for p in comparisons() if p.synthetic == synthetic and {first, second} <= p.values.keys()]
    told = [mean_interval(d, level) for p in found if len(d := p.difference(first, second)) > 1]
    return sum(i.low > 0 for i in told) / len(told), sum(i.high < 0 for i in told) / len(told), len(told)


def detectable(runs: int) -> float:
    """The gap of two means of so many runs that a two-sided test at 95 % finds with a chance of 80 %.

    In units of the standard deviation of the difference of two runs; from t quantiles, near enough to the noncentral t.
    """
    t = scipy.stats.t(runs - 1)
    return float((t.ppf((1 + USUAL) / 2) + t.ppf(POWER)) / math.sqrt(runs))


def gaps() -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """HiSo's score less DeComFL's in the cells of Table 3, and the root of the sum of the squares of their printed errors."""
    cells = table("hiso_table3")
    scores = cells[cells["quantity"].isin(("accuracy", "f1")) & cells["method"].isin(("hiso", "decomfl"))]
    values, errors = (scores.pivot(index=["model", "task"], columns="method", values=c) for c in ("value", "error"))
    return (values["hiso"] - values["decomfl"]).to_numpy(), np.hypot(errors["hiso"], errors["decomfl"]).to_numpy()


@check("C18")
def small_gains() -> Finding:
    """Paired differences of every recorded comparison; the printed gaps against what their runs can tell."""
    of = fair_speed.best_so_far(recorded_table("fair_speed"))
    last = 100 * (of.values["hiso"][:, -1] - of.values["decomfl"][:, -1])
    gap, spread = gaps()
    what = "share of %d recorded comparisons%s, %s over %s, whose %s interval lies above zero (below: %.0f %%)"

    def told(first: str, second: str, synthetic: bool, level: float = 0.999) -> Evidence:
        above, below, n = share(first, second, synthetic, level)
        kind = " on planted data" if synthetic else " on networks"
        return Evidence(what % (n, kind, first, second, f"{level:.1%}", 100 * below), exact(above), math.nan, MOST)

    cells = f"share of Table 3's {len(gap)} cells whose gap exceeds %s"
    return Finding(
        evidence=(
            told("hiso", "decomfl", synthetic=False),
            told("hiso", "decomfl", synthetic=False, level=USUAL),
            told("hiso", "decomfl", synthetic=True),
            Evidence(f"points of best test accuracy, HiSo less DeComFL, digits perceptron, {len(last)} keys",
                     mean_interval(last), float(gap.mean()), (float(gap.mean()), math.inf)),  # as in Table 3, in the mean
            Evidence(cells % f"what {RUNS} runs tell ({detectable(RUNS):.1f} standard deviations, the printed ones)",
                     exact(float((gap > detectable(RUNS) * spread).mean())), math.nan, MOST),
            Evidence(cells % "1.96 times its printed error, read as that of the mean",
                     exact(float((gap > 1.96 * spread).mean())), math.nan, MOST),
        ),
        controls=(
            Control("DeComFL with P = 10 over P = 5, an effect that is there", "holds", told("decomfl-p10", "decomfl", True)),
            Control("two halves of DeComFL's keys, an effect that is not", "fails", told("decomfl", "decomfl", False)),
        ),
        needed="more keys",
    )  # fmt: skip
