"""What a known H buys under real minibatch noise: streaming least squares, exactly and through the core."""

from __future__ import annotations

from functools import cache

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from hiso_bench.theory import minibatch
from synthetic.least_squares import LeastSquares
from synthetic.oracle import EPS, KEY, P, losses, oracle_method, spectrum

BATCH, LABEL, REPLICATES = 64, 0.01, 10


@cache
def sweep(family: str, target: float) -> pd.DataFrame:
    """As `oracle.sweep`, on minibatches: eps, eta, rounds; the last row is H = I."""
    s = spectrum(family)
    h = [np.ones_like(s) if np.isinf(eps) else s + eps for eps in (*EPS, np.inf)]
    found = [minibatch.fewest_rounds(s, each, np.ones_like(s), P, BATCH, LABEL, target) for each in h]
    return pd.DataFrame(found, columns=["eta", "rounds"]).assign(eps=[*EPS, np.inf])


def simulated(family: str, eps: float, eta: float, rounds: int) -> tuple[NDArray[np.float64], float]:
    """Excess loss over f(x_0) after some rounds with H = S + eps: simulated, (replicates,), and its exact expectation."""
    s = spectrum(family)
    problem = LeastSquares(s, BATCH, LABEL, replicates=(REPLICATES,), key=KEY)
    found = losses(problem, oracle_method(s + eps, eta), rounds, KEY, problem.excess)[-1]
    exact = minibatch.expected_loss(s, s + eps, np.ones_like(s), eta, P, rounds, BATCH, LABEL)
    return found / exact[0], float(exact[-1] / exact[0])
