"""How large a step may be: exact conditions, the same operators measured through the real round, and single runs.

`hiso_bench.theory.stability` says at which step E f starts to grow. Here that step is compared with published conditions
solved on their own, with the spectral radius of the map of second moments as the real round performs it (a cubature in the
place of the directions, so nothing is sampled), and with what single runs do: mean-square stability is about means, and
near its limit a mean is carried by rare runs, so runs are judged by the sign of their growth rate and never by their mean.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from scipy import optimize

from hiso_bench import keys, methods
from hiso_bench.directions import Law
from hiso_bench.federation import Federation, FederationOptions
from hiso_bench.methods.base import require
from hiso_bench.testing import Quadratics, cut, federation_over, joined, rule_for
from hiso_bench.theory import spectra
from hiso_bench.theory.operators import mode_operator
from synthetic.quadratic import Quadratic

DIMENSION = 100
EXPONENT = 1.5


@functools.cache
def families() -> dict[str, NDArray[np.float64]]:
    """Spectra with effective ranks from 1 to d: flat, power laws, spikes, log-normal, blocks, and padded with zeros."""
    draw = keys.rng(keys.derive(0, "stability families"))
    d = DIMENSION
    return {
        "one mode": spectra.flat(1),
        "flat": spectra.flat(d),
        **{f"power {p:g}": spectra.power(d, p) for p in (0.5, 1.0, EXPONENT, 2.0, 3.0)},
        **{f"{n} spikes of {height:g}": spectra.spiked(d, n, height) for n in (1, 10) for height in (10.0, 1000.0)},
        **{f"log-normal {std:g}": spectra.lognormal(d, std, draw) for std in (0.5, 1.0, 3.0)},
        "two blocks": spectra.blocks((d // 2, d // 2), (1.0, 0.01)),
        "four blocks": spectra.blocks((5, 15, 30, 50), (1.0, 0.3, 0.03, 0.001)),
        "ten modes, padded": spectra.blocks((10, d - 10), (1.0, 0.0)),
    }


def published_step(s: ArrayLike, momentum: float = 0.0) -> float:
    """The root of Song et al. (arXiv 2604.14669), Eq 16 and with momentum Eq 18; P = 1, Gaussian directions, H = I.

    sum_i eta l_i / (2 (1-b) (1 - eta l_i/(1-b^2))) = 1 over 0 < eta < (1-b^2)/max l, by Brent's method. Their Eq 20 (frozen
    ZO-Adam, where the momentum is an average) has the root eta/(1-b), for the eigenvalues of P^{-1} H.
    """
    s = np.asarray(s, dtype=np.float64)
    b, top = momentum, (1 - momentum**2) / float(np.max(s))

    def excess(eta: float) -> float:
        return float(np.sum(eta * s / (2 * (1 - b) * (1 - eta * s / (1 - b**2))))) - 1

    # At P = 1 one mode alone reaches 1 at 2/3 (b = 0) and later the larger b is, so the root stays clear of the pole.
    return float(optimize.brentq(excess, 1e-12 * top, (1 - 1e-9) * top, xtol=1e-15 * top, rtol=1e-14))


class Round(NamedTuple):
    """One way to take a step: what `measured_operator` measures."""

    s: ArrayLike
    eta: float
    P: int = 1
    h: ArrayLike = 1.0
    law: Law = "gaussian"
    momentum: float = 0.0
    after: bool = False
    """H^{-1} applied to the agreed step of a round with H = I, in place of directions H^{-1/2} u."""
    clients: int = 1
    """Equal clients with directions of their own."""
    mu: float = 0.5


def measured_operator(case: Round) -> NDArray[np.float64]:
    """The map of the covariance of (x, m) over one real round with forward differences, as a matrix.

    A round starts at every basis vector and every sum of two, and its E y+ y+' is summed over the nodes of a cubature in the
    directions' place. What it makes of y = 0 is subtracted: the forward difference adds a constant of order mu^2.

    Args:
        case: d = 2 for the sphere, at most 3 elsewhere. `after` is for momentum 0.

    Returns:
        Shape (n (n+1)/2,) * 2 as `theory.operators.covariance_operator`; n = 2d with momentum, else d.
    """
    s = np.asarray(case.s, dtype=np.float64)
    h = np.broadcast_to(np.asarray(case.h, dtype=np.float64), s.shape).copy()
    d, n = len(s), len(s) * (2 if case.momentum else 1)
    upper = np.triu_indices(n)
    pairs = [np.eye(n)[i] + (np.eye(n)[j] if j != i else 0.0) for i, j in zip(*upper, strict=True)]
    starts = np.array([np.zeros(n), *pairs])

    rule = rule_for(case.law, d, case.P * case.clients)
    problem = Quadratics(np.tile(np.diag(s), (case.clients, 1, 1)), np.zeros((case.clients, d)), np.zeros(d))
    lr, ambient = (1.0, np.ones(d)) if case.after else (case.eta, h)
    method = methods.build(
        "hiso-oracle", lr=lr, perturbations=case.P, momentum=case.momentum, mu=case.mu, h=problem.point(ambient), eps=0.0
    )
    federation = federation_over(rule, problem, method, independent=case.clients > 1, grid=(len(starts),))
    given = torch.from_numpy(starts)[:, None, :].expand(-1, len(rule.weights), -1)
    layout = federation.problem.layout
    _put(federation.state.x, cut(given[..., :d], layout))
    if case.momentum:
        _put(federation.state.buffers["momentum"], cut(given[..., d:], layout))
    federation.round()

    y = joined(federation.state.x, layout).numpy()
    if case.after:
        y = starts[:, None, :] - case.eta * (starts[:, None, :] - y) / h
    if case.momentum:
        y = np.concatenate([y, joined(federation.state.buffers["momentum"], layout).numpy()], axis=-1)
    second = np.einsum("k,aki,akj->aij", rule.weights, y, y)
    second -= second[0]
    of_pair = {pair: second[1 + a][upper] for a, pair in enumerate(zip(*upper, strict=True))}
    # (e_i + e_j)(e_i + e_j)' - e_i e_i' - e_j e_j' has ones in the places (i, j) and (j, i).
    columns = [v if i == j else v - of_pair[i, i] - of_pair[j, j] for (i, j), v in of_pair.items()]
    return np.array(columns).T


def _put(target: tuple[torch.Tensor, ...], value: tuple[torch.Tensor, ...]) -> None:
    for leaf, new in zip(target, value, strict=True):
        leaf.copy_(new)


def growth_rates(
    s: ArrayLike, steps: Sequence[float], P: int, runs: int, rounds: int, key: int, skip: int = 0
) -> NDArray[np.float64]:
    """Natural logarithm of |x|_S per round in single runs of DeComFL through the real round: (steps, runs).

    Noise-free, H = I, x_0 = 1. With central differences, exact on a quadratic, a round is linear in x; so x is scaled back to
    |x|_S = 1 before every round, and a run may grow or shrink by any factor.

    Args:
        s: eigenvalues, shape (d,).
        steps: learning rates.
        P: directions a round.
        runs: independent runs per step.
        rounds: R.
        key: 64-bit key of the directions.
        skip: rounds before the growth is measured.

    Raises:
        ValueError: no rounds are left to measure.
    """
    require(0 <= skip < rounds, "skip", skip, f"0 <= skip < rounds = {rounds}")
    s = np.asarray(s, dtype=np.float64)
    sizes, values = (1,) * len(s), tuple(float(value) for value in s)
    problem = Quadratic(len(s), "blocks", clients=1, replicates=(len(steps), runs), block_sizes=sizes, block_values=values)
    lr = torch.as_tensor(np.asarray(steps, dtype=np.float64))[:, None]
    method = methods.build("decomfl", lr=lr, perturbations=P, mu=1.0, difference="central")
    federation = Federation(problem, method, FederationOptions(key=key, wire="float64"))
    (x,) = federation.state.x
    total = torch.zeros(problem.layout.replicate_shape, dtype=torch.float64)
    for r in range(rounds + 1):
        size = (2 * problem.loss((x,), None)).sqrt()
        if r > skip:
            total += size.log()
        x.div_(size.unsqueeze(-1))
        if r < rounds:
            federation.round()
    return (total / (rounds - skip)).numpy()


def floor_of_map(case: Round, noise: ArrayLike, measured: NDArray | None = None) -> float:
    """The limit of E f under gradient noise as the fixed point of a map, for H in the directions or applied after the estimate.

    The map is that of E x_j^2: `mode_operator`, or a `measured` one of shape (d, d). Momentum 0, Gaussian, mu = 0. In the
    directions the result is `theory.recursion.noise_floor`, which does not know the other order. With den_j = 2 - A eta lambda_j
    and F as in `theory.stability`, the part of the floor that is shared is

        (eta/P) (sum_j 1/den_j) (sum_j v_j/(h_j den_j)) / (1 - F)    in the directions,
        (eta/P) (sum_j 1/(h_j den_j)) (sum_j v_j/den_j) / (1 - F)    after:    equal for isotropic noise.

    Args:
        case: the step; its mu is not used.
        noise: variances v_j of the gradient noise, shape (d,) or a scalar.
        measured: rows and columns E x_j^2.
    """
    s = np.asarray(case.s, dtype=np.float64)
    h, v = (np.broadcast_to(np.asarray(values, dtype=np.float64), s.shape) for values in (case.h, noise))
    N = mode_operator(s, h, case.eta, case.P, after=case.after)[: len(s), : len(s)] if measured is None else measured
    shared = np.sum(v) / h**2 if case.after else np.sum(v / h) / h
    kick = case.eta**2 * ((1 + 1 / case.P) * v / h**2 + shared / case.P)
    return float(0.5 * s @ np.linalg.solve(np.eye(len(s)) - N, kick))
