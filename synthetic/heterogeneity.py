"""What heterogeneous clients cost HiSo's Corollary 1, as a share of the sigma_G^2/m that the bound charges.

Clients differ by linear terms b_i that sum to zero (equal Hessians, sigma_G^2 = (1/M) sum_i |b_i|^2 for every x). m of M are
drawn without replacement in a round, so the mean of their b_i is noise of variance sigma_G^2/m (M-m)/(M-1), independent from
round to round: exactly nothing at m = M.
"""

from __future__ import annotations

from functools import cache

import numpy as np

from hiso_bench import methods
from hiso_bench.federation import Federation, FederationOptions
from hiso_bench.stats import Interval, mean_interval
from hiso_bench.theory.closed_form import Descent
from synthetic.quadratic import Quadratic

CLIENTS, DIMENSION, P, ROUNDS, KEYS, KEY = 4, 20, 5, 150, 128, 3
SIZE = float(np.sqrt(DIMENSION / 2))
"""sigma = sqrt(f(x_0)), so that noise and start count alike."""


def exact_share(m: int) -> float:
    """(M - m)/(M - 1): the variance of the mean of m of M terms without replacement, over sigma_G^2/m."""
    return (CLIENTS - m) / (CLIENTS - 1)


@cache
def share(m: int, kind: str = "heterogeneity") -> Interval:
    """The part of |grad f|^2, averaged over rounds, that the clients' differences cause, over what variance SIZE^2/m would cause.

    Args:
        m: clients sampled of CLIENTS.
        kind: "heterogeneity": b_i of mean square SIZE^2; "noise": gradient noise of that variance.

    Returns:
        99.9 % interval over keys, paired with runs of equal clients on the same directions.
    """
    descent = Descent(np.ones(DIMENSION), 1.0, np.ones(DIMENSION), P, SIZE**2 / DIMENSION, m)
    eta = min(descent.best_average(ROUNDS)[0], descent.limit / 2)
    quiet = Descent(np.ones(DIMENSION), 1.0, np.ones(DIMENSION), P)
    charged = float(descent.average(eta, ROUNDS) - quiet.average(eta, ROUNDS))
    return mean_interval((_error(m, kind, eta) - _error(m, "equal", eta)) / charged)


def _error(m: int, kind: str, eta: float) -> np.ndarray:
    differ = {
        "heterogeneity": {"heterogeneity": SIZE, "heterogeneity_scale": "mean"},
        "noise": {"noise": SIZE / np.sqrt(DIMENSION)},
        "equal": {},
    }[kind]
    problem = Quadratic(DIMENSION, "flat", clients=CLIENTS, replicates=(KEYS,), key=KEY, **differ)
    method = methods.build("decomfl", lr=eta, perturbations=P, difference="central")
    federation = Federation(problem, method, FederationOptions(sampled=m, wire="float64", key=KEY))
    total = np.zeros(KEYS)
    for _ in range(ROUNDS):
        total += federation.state.x[0].square().sum(-1).numpy()
        federation.round()
    return total / ROUNDS
