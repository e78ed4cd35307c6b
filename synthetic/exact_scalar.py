"""What dropping the factor (u' H^{-1} u)^{-1} of HiSo's Eq 7 costs: the method that keeps it, in theory and through the core.

Both methods take their own best constant step, so a factor that were a constant would change nothing.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from hiso_bench.methods.exact_scalar import Projection
from hiso_bench.methods.hiso import OracleH
from hiso_bench.theory.closed_form import Descent
from hiso_bench.theory.projection import ProjectedDescent
from synthetic.declared import Declared, Setting
from synthetic.oracle import KEY, P, fewest, losses


def saved(s: NDArray[np.float64], h: NDArray[np.float64], x0: NDArray[np.float64], target: float, P: int = P) -> float:
    """Rounds with the factor dropped over rounds with it kept, both exact and at their best constant step."""
    dropped = fewest(Descent(s, h, x0, P), target)[1]
    return dropped / fewest(ProjectedDescent(s, h, x0, P), target)[1]


def concentrated(d: int, k: int) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """s, h, x0 of an H that knows the k coordinates that matter: S = I, the start and all but 1e-4 of H^{-1} lie on them."""
    on = np.arange(d) < k
    return np.ones(d), np.where(on, 1.0, 1e4 * d / k), on.astype(np.float64)


def simulated(
    s: NDArray[np.float64], h: NDArray[np.float64], x0: NDArray[np.float64], rounds: int, replicates: int, keep: bool
) -> tuple[NDArray[np.float64], float]:
    """f/f0 after some rounds through the core, (replicates,), at half the stable limit, and its exact expectation."""
    of = Setting(s, h, x0, np.zeros_like(s), P)
    curve = ProjectedDescent(s, h, x0, P) if keep else of.descent
    eta = curve.limit / 2
    kind = Projection if keep else OracleH
    method = kind(lr=eta, perturbations=P, difference="central", h=(torch.from_numpy(h),), eps=0.0)
    problem = Declared(of, (replicates,), KEY)
    found = losses(problem, method, rounds, KEY, lambda x: problem.loss(x, None))[-1]
    return found / of.descent.start, float(curve.value(eta, rounds)) / of.descent.start
