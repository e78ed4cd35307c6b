"""Claims about where the learned H takes a run: it hovers at the stability edge, unless its floor eps is large enough.

Run through the real round over independent keys, with 99.9 % intervals; the exponent is exact by a change of scale that
keeps every bit.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from hiso_bench import methods
from hiso_bench.claims import Control, Evidence, Finding, check
from hiso_bench.federation import Federation, FederationOptions
from hiso_bench.stats import exact, mean_interval
from hiso_bench.testing import Quadratics
from hiso_bench.theory import spectra
from synthetic.hover import DIMENSION, Arm, P, Runs, hover, law, level, limit, spectrum, speed
from synthetic.learned import EIGHT

KEY = 20260102


@check("C5-learned")
def at_worst() -> Finding:
    """Growth of log |g| per round over the second half of 1200 noise-free rounds; DeComFL at the same rate converges linearly."""
    rate, s = 0.3, spectrum()
    # The mean of the slowest mode contracts by 1 - eta s_min a round, single runs a little faster; eps makes it eta/eps.
    slow = math.log1p(-rate * limit() * s.min())
    allowed = (-math.inf, slow / 2)
    what = f"log |g| per round, Sigma_jj = 1/j, d = {DIMENSION}, P = 5, eta = %g eta*, %s"
    told = ("HiSo, eps = 1e-8", "HiSo, eps = 0.8 eta/eta*", "HiSo, eps = 1.2 eta/eta*")
    run = hover(tuple(Arm("hiso", rate, eps) for eps in (0.0, 0.8, 1.2)), 1200, 100, 24, KEY)
    plain = hover((Arm("decomfl", rate), Arm("decomfl", 1.3)), 1200, 100, 24, KEY)
    predicted = (0.0, 0.0, math.log1p(-limit() / 1.2 * s.min()))
    return Finding(
        evidence=tuple(
            Evidence(what % (rate, told[arm]), mean_interval(speed(run, arm)), predicted[arm], allowed) for arm in range(3)
        ),
        controls=(
            Control(
                "HiSo -> DeComFL", "holds", Evidence(what % (rate, "DeComFL"), mean_interval(speed(plain, 0)), slow, allowed)
            ),
            Control(
                "and eta -> 1.3 eta*",
                "fails",
                Evidence(what % (1.3, "DeComFL"), mean_interval(speed(plain, 1)), math.inf, allowed),
            ),
        ),
        needed="more rounds",
    )


def covariance(eps: float) -> float:
    """Largest relative difference of x between a run from (c x, c^{2/3} H, c^{2/3} eta, c^{4/3} mu) and c times that from 1."""
    d, ends = 10, []
    for power in (0, 3):
        problem = Quadratics(np.diag(spectra.power(d, 1.0))[None], np.zeros((1, d)), np.full(d, EIGHT**power))
        more = {"lr": 0.2 * 4.0**power, "h0": 4.0**power, "mu": 1e-3 * 16.0**power}
        method = methods.build("hiso-c", more, perturbations=P, eps=eps)
        federation = Federation(problem, method, FederationOptions(wire="float64", key=KEY))
        for _ in range(300):
            federation.round()
        ends.append(federation.state.x[0] / EIGHT**power)
    return float(((ends[1] - ends[0]).abs().max() / ends[0].abs().max()).item())


def edge(runs: Runs, arm: int) -> NDArray[np.float64]:
    """Mean over the second half of eta over the largest stable step of the H of the moment, per replicate."""
    return runs.edge[len(runs.rounds) // 2 :, arm].mean(0)


@check("hover-law")
def hover_law() -> Finding:
    """The exponent of the hover's |g| in eta, and eta over the stability limit of the H that it hovers with."""
    rates = (0.03, 0.1, 0.3)
    runs = hover((*(Arm("hiso", rate) for rate in rates), Arm("hiso", 0.1, 1.2)), 1200, 100, 24, KEY)
    plain = hover((Arm("decomfl", 0.1),), 600, 100, 12, KEY)
    levels = level(runs)[:3]
    slopes = np.polyfit(np.log(rates), np.log(levels), 1)[0]
    nearer, at, same = (1.25, 1.75), (0.9, 1.25), (0.0, 1e-12)  # nearer to 3/2 than to 1 or 2
    told = f"eta over the largest stable step of its H, eta = %g eta*, d = {DIMENSION}, P = 5, %s"
    moved = "relative difference of runs scaled by 512, 300 rounds, %s"
    return Finding(
        evidence=(
            Evidence("exponent of |g| in eta over 0.03 to 0.3 eta*", mean_interval(slopes), 1.5, nearer),
            Evidence(moved % "eps = 0", exact(covariance(0.0)), 0.0, same),
            *(Evidence(told % (rate, "HiSo"), mean_interval(edge(runs, i)), 1.0, at) for i, rate in enumerate(rates)),
            Evidence("|g| / (sqrt(P) (eta/eta*)^{3/2}) at 0.1 eta*", mean_interval(levels[1] / law(0.1)), 1.0, (0.5, 2.0)),
        ),
        controls=(
            Control("eps 0 -> 0.01", "fails", Evidence(moved % "eps = 0.01", exact(covariance(0.01)), 1.0, same)),
            Control(
                "eps 1e-8 -> 1.2 eta/eta*",
                "fails",
                Evidence(told % (0.1, "eps = 1.2 eta/eta*"), mean_interval(edge(runs, 3)), 1 / 1.2, at),
            ),
            Control("HiSo -> DeComFL", "fails", Evidence(told % (0.1, "DeComFL"), mean_interval(edge(plain, 0)), 0.1, at)),
        ),
    )
