"""The floor under every scalar-only method, and what perfect whitening makes of it.

n scalars of difference quotients on a quadratic with known Hessian are n linear functionals of the unknown minimum. On a
whitened isotropic problem (f = |y|^2/2, y = S^{1/2} x uniform in direction) they leave at least 1 - n/d of the loss in
expectation, whatever directions are asked and however the answers are used; least squares on Gaussian directions leaves
exactly that. One step on the same terms, H = S at eta = P/(d+P+1), leaves (1 - P/(d+P+1))^r after r rounds of P scalars.
"""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.typing import NDArray

from hiso_bench import methods
from hiso_bench.directions import DirectionKey
from hiso_bench.federation import Federation, FederationOptions
from hiso_bench.theory import spectra
from hiso_bench.theory.recursion import expected_loss
from synthetic.declared import Declared, Setting, simulate

KEY = 14
DIMENSION, PERTURBATIONS, KEYS = 40, 5, 1024


def whitened(s: NDArray[np.float64], P: int = PERTURBATIONS, H: str = "hessian") -> Setting:
    """The isotropic problem in units of f0: E x_j^2 = 2/(d s_j), no noise; H = S, or I ("identity").

    On a diagonal problem E f depends on the squares of the start alone, so this start of known magnitudes has the
    expectation of a Gaussian one.
    """
    h = s if H == "hessian" else np.ones_like(s)
    return Setting(s, h, np.sqrt(2 / (len(s) * s)), np.zeros_like(s), P)


def spectrum(d: int = DIMENSION) -> NDArray[np.float64]:
    """The spectrum of the simulated problems: 1/j."""
    return spectra.power(d, 1.0)


def scalars_over_floor(d: int, P: int, target: float) -> float:
    """Scalars that the best constant step needs with H = S, over the floor (1 - target) d; exact."""
    return P * whitened(np.ones(d), P).descent.best_rounds(target)[1] / ((1 - target) * d)


def excess(setting: Setting, rounds: int) -> NDArray[np.float64]:
    """E f/f0 - (1 - n/d) after 1 .. rounds rounds at each one's own best constant step; exact."""
    d = len(setting.s)
    best = [setting.descent.best_value(r)[1] for r in range(1, rounds + 1)]
    return np.array(best) - 1 + setting.P * np.arange(1, rounds + 1) / d


def simulated_excess(name: str) -> NDArray[np.float64]:
    """f/f0 - (1 - n/d) of a method after d/2 scalars on 1/j with an isotropic start, one value per key.

    Args:
        name: "decomfl" at half its stability limit; "hiso-oracle" with H = S at P/(d+P+1); "hiso", whose H is learned.

    Raises:
        ValueError: unknown name.
    """
    s = spectrum()
    rounds = DIMENSION // (2 * PERTURBATIONS)
    setting = whitened(s, H="hessian" if name == "hiso-oracle" else "identity")
    eta = setting.descent.limit / 2
    if name in ("decomfl", "hiso-oracle"):
        return simulate(setting, eta, rounds, KEYS, KEY).losses[-1] - 0.5
    problem = Declared(setting, (KEYS,), KEY)
    method = methods.build(name, lr=eta, perturbations=PERTURBATIONS, difference="central")
    federation = Federation(problem, method, FederationOptions(wire="float64", key=KEY))
    for _ in range(rounds):
        federation.round()
    return problem.loss(federation.state.x, None).numpy() - 0.5


@cache
def least_squares() -> NDArray[np.float64]:
    """f/f0 that least squares leaves after n = 0 .. d scalars of one round of d directions: (d + 1, keys).

    It uses what the round put on the wire and the keys of the directions, and nothing else.
    """
    d = DIMENSION
    setting = whitened(np.ones(d), d)
    problem = Declared(setting, (KEYS,), KEY)
    method = methods.build("decomfl", lr=1e-3, perturbations=d, difference="central")
    federation = Federation(problem, method, FederationOptions(wire="float64", key=KEY))
    record = federation.round().record
    scalars = federation.wire.decode_update(record.update).scalars[0, 0].numpy()  # (d, keys)
    z = np.stack([federation.directions.draw(DirectionKey(0, 0, p))[0].numpy() for p in range(d)])  # (d, keys, d)
    left = np.ones((d + 1, KEYS))
    for key in range(KEYS):
        # Gram-Schmidt by QR: the first n columns of Q span the first n directions.
        Q, upper = np.linalg.qr(z[:, key].T)
        parts = np.linalg.solve(upper.T, scalars[:, key])
        for n in range(1, d + 1):
            left[n, key] = 0.5 * np.sum((setting.x0 - Q[:, :n] @ parts[:n]) ** 2)
    return left


def contraction(d: int, condition: float, P: int) -> float:
    """E f after a round over E f before it with H = S at P/(d+P+1), largest deviation from 1 - P/(d+P+1), relative; exact.

    The spectrum is even in log from 1 to `condition`, the start random; it is read off `theory.recursion`.
    """
    s = np.geomspace(1, condition, d)
    start = 1 + np.arange(d, dtype=np.float64) ** 2 / d
    losses = expected_loss(s, s, start, P / (d + P + 1), P, 50, mu=0.0)
    return float(np.abs(losses[1:] / losses[:-1] / (1 - P / (d + P + 1)) - 1).max())
