"""Claims about how H moves: the feedback of H on what it learns from, and its memory when the problem changes."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from hiso_bench.claims import Control, Evidence, Finding, check
from hiso_bench.methods.base import Method
from hiso_bench.stats import exact, mean_interval
from hiso_bench.theory import learned
from learned_h.dynamics import KEY, P, drift, learner, mean_h
from synthetic.learned import STILL, RootH

D = 300
ONES = np.ones(D)
HERE = float(learned.fixed_point(ONES**2, P).mean())
"""Where H settles for a gradient of ones."""
ROOT = float(np.sqrt(D / P))
"""Where RMSProp's does, up to 1/d."""
SMOOTH = (0.0, 1.0)
NEAR = 1.5


def _root(ema: float, h0: float) -> Method:
    return RootH(lr=STILL, perturbations=P, ema_new=ema, h0=h0)


def _response(one: Method, other: Method) -> NDArray[np.float64]:
    """What a round leaves of the difference in log H between two runs with the same keys, per key."""
    a, b = (mean_h(method, ONES, np.ones(1), 200, KEY) for method in (one, other))
    gap = np.log(b / a)
    return gap[1] / gap[0]


@check("C21")
def feedback() -> Finding:
    """What one round leaves of a 5 % error of H; H after a jump of the gradient over where it settles."""
    told = "share of a 5 %% error in the size of H that a round leaves, d = 300, P = 5, ema_new %g, %s"
    jump = "H in the round after |g| x 100 over where it settles, ema_new 0.05, %s"
    sizes = np.arange(1.0, 101) ** -1

    def left(ema: float) -> Evidence:
        found = _response(learner(ema, HERE), learner(ema, 1.05 * HERE))
        return Evidence(told % (ema, "HiSo"), mean_interval(found), 1 - 3 * ema, SMOOTH)

    def after(method: Method, settled: float, predicted: float, name: str) -> Evidence:
        found = mean_h(method, ONES, np.full(1, 100.0), 40, KEY)[1] / settled
        return Evidence(jump % name, mean_interval(found), predicted, (0.0, NEAR))

    all_of = learned.multipliers(sizes**2, P, 0.05)
    goal = HERE * 100 ** (2 / 3)
    undone = _response(_root(0.95, ROOT), _root(0.95, 1.05 * ROOT))
    return Finding(
        evidence=(
            left(0.05),
            Evidence("smallest multiplier of the mean recursion, ema_new 0.05, |g_j| = 1/j", exact(all_of[0]), math.nan, SMOOTH),
            Evidence("largest multiplier there", exact(all_of[-1]), math.nan, SMOOTH),
            left(0.95),
            after(learner(0.05, HERE), goal, learned.relaxation(HERE, 1e4 * D, P, 0.05, 1)[1] / goal, "HiSo"),
        ),
        controls=(
            Control(
                "dx -> H dx, whose own factor is undone (RMSProp)", "holds",
                Evidence(told % (0.95, "RMSProp"), mean_interval(undone), 0.05, SMOOTH),
            ),
            Control(
                "the same", "holds",
                after(_root(0.05, ROOT), 100 * ROOT, math.sqrt(0.95 + 0.05 * 1e4) / 100, "RMSProp"),
            ),
        ),
        needed="more replicates",
    )  # fmt: skip


def _lag(factor: float, ema: float) -> Evidence:
    """Rounds until H is within a factor of where it will settle, in units of 1/ema_new."""
    rounds, goal = int(12 / ema), HERE * factor ** (2 / 3)

    def first(h: NDArray[np.float64]) -> float:
        return float(np.argmax(np.abs(np.log(h / goal)) <= math.log(NEAR))) * ema

    found = mean_h(learner(ema, HERE), ONES, np.full(rounds, factor), 24, KEY)
    predicted = first(learned.relaxation(HERE, factor**2 * D, P, ema, rounds))
    what = f"rounds until H is within {NEAR:g} of where it settles after |g| x {factor:g}, times ema_new = {ema:g}"
    return Evidence(what, mean_interval([first(h) for h in found.T]), predicted, (0.0, 2.0))


def _apart(kind: str, arm: str, other: str, rounds: int) -> NDArray[np.float64]:
    """Log10 of an arm's excess over another's some rounds after the change, per key; a diverged run counts as 10^9."""
    ends = [np.minimum(drift(kind, name, rounds=151 + rounds, replicates=24)[-1], 1e9) for name in (arm, other)]
    return np.log10(ends[0] / ends[1])


def _regained(arm: str) -> Evidence:
    curve = np.minimum(drift("scale up", arm, rounds=450, replicates=24), 1e9)
    what = f"log10 of the excess 300 rounds after f -> 100 f over that before, i^-1.5, d = 100, {arm}"
    return Evidence(what, mean_interval(np.log10(curve[450] / curve[150])), math.nan, (-math.inf, 0.0))


@check("C25")
def memory() -> Finding:
    """How long H remembers an earlier gradient, and what a sudden change of the problem costs."""
    what = "log10 of the excess 50 rounds after the spectrum is reversed over that with H made even at the change, %s"
    level = (-math.inf, 0.3)
    return Finding(
        evidence=(
            _lag(0.1, 0.05),
            _lag(0.1, 0.2),
            Evidence(what % "HiSo", mean_interval(_apart("reversal", "hiso", "hiso-forget", 50)), 0.0, level),
            _lag(100.0, 0.05),
            _regained("hiso"),
        ),
        controls=(
            Control(
                "H frozen at the change", "fails",
                Evidence(what % "H frozen", mean_interval(_apart("reversal", "hiso-frozen", "hiso-forget", 50)), math.nan, level),
            ),
            Control("HiSo -> MEAZO, whose step has no units of f", "holds", _regained("meazo")),
        ),
        needed="more replicates",
    )  # fmt: skip
