"""A method beside theory and beside DeComFL: moments of a round, and descent for as many scalars.

The moments are sums over the nodes of a cubature, exact to rounding, against `theory.moments`. They apply to a step x - eta dx
that is linear in the scalars, along independent Gaussian directions that the method's H warps. Descent is measured: the loss
after a budget of scalars at the best of a grid of rates, chosen on other keys, with the same grid and budget for both.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch

from hiso_bench import methods
from hiso_bench.method_protocol import FAILS, HOLDS, NOT_APPLICABLE, Check, Subject, after, definite, row
from hiso_bench.methods.base import Method
from hiso_bench.points import cut, joined
from hiso_bench.stats import Interval, mean_interval
from hiso_bench.testing import Quadratics, federation_over, smolyak, take_round
from hiso_bench.theory import moments

KEYS = 8
"""Result keys of the comparison, and as many for the choice of the rate."""
RATES = 2.0 ** np.arange(-12, 5)
SCALARS = 1000
"""Budget of the comparison, per client and direction of the wire."""


def one_round(of: Subject) -> list[Check]:
    """Mean and second moment of a round."""
    names = ("mean of a step is C grad f", "second moment of a step")
    method = of.make()
    own = [part for part in ("move", "rate", "directions") if getattr(type(method), part) is not getattr(Method, part)]
    why = f"it has a {own[0]} of its own" if own else "" if method.linear_in_scalars else "not linear in the scalars"
    why = why or ("" if "gaussian" in method.laws else f"directions are {method.laws[0]}")
    if why:
        return [Check(name, "-", why, NOT_APPLICABLE) for name in names]
    d, P, mu = 3, min(2, method.perturbations), 0.3
    problem, rule = Quadratics.random(12, d, 2, leaf_shapes=((1,), (2,))), smolyak(P * d)
    built = of.make(lr=0.5, perturbations=P, mu=mu)
    federation = federation_over(rule, problem, built)
    if any(bool((leaf != leaf[:1]).any()) for leaf in federation.state.buffers.get("h", ())):
        return [Check(name, "-", "its H is random", NOT_APPLICABLE) for name in names]
    C = _inverse_h(built, problem)
    dx = take_round(federation)
    if not np.isfinite(dx).all():  # a direction at the origin, say: such a method fails elsewhere if it fails
        return [Check(name, "-", "not finite at a node of the rule", NOT_APPLICABLE) for name in names]
    g, S = problem.gradients.mean(0), problem.hessians.mean(0)
    mean = C @ g  # of a C that may be singular: Gaussian directions need not span
    square = moments.gradient_part(np.outer(g, g), C, P, "gaussian")
    square += moments.curvature_part(S, C, mu, P, "gaussian", built.difference)
    wanted = ((mean, dx), (square, dx[:, :, None] * dx[:, None, :]))
    rows = []
    for name, (predicted, values) in zip(names, wanted, strict=True):
        found = rule.mean(values)
        off = float(np.abs(found - predicted).max() / max(1.0, float(np.abs(predicted).max())))
        size = np.linalg.norm
        rows += row(name, f"norm {size(predicted):.6g}", f"{size(found):.6g}, off {off:.0e}", off <= 100 * rule.tolerance)
    return rows


def _inverse_h(method: Method, problem: Quadratics) -> np.ndarray:
    """C = W W' of the map u -> W u by which the first round's directions are warped."""
    single = problem.replicated()
    warp = method.warp(method.init(single.initial(), single.layout))
    eye = torch.eye(single.layout.dimension, dtype=torch.float64)
    columns = [joined(warp(tuple(leaf.clone() for leaf in cut(e, single.layout))), single.layout) for e in eye]
    W = torch.stack(columns, 1).numpy()
    return W @ W.T


def comparison(of: Subject) -> list[Check]:
    """Descent beside DeComFL's."""
    method = of.make()
    (rate, found), (_, plain) = (
        _best(make, method.perturbations)
        for make in (of.make, lambda **options: methods.build("decomfl", {"lr": 0.05} | options))
    )
    edge = ", at the grid's edge" if rate in (RATES[0], RATES[-1]) else ""
    fall, ratio = mean_interval(found), mean_interval(found - plain)
    beside = "better" if ratio.high < 0 else "worse" if ratio.low > 0 else "undecided"
    return [
        Check(f"descends at lr {rate:.3g}{edge}", "f/f0 < 1", _power(fall), HOLDS if fall.high < 0 else FAILS),
        Check(f"f over DeComFL's, {SCALARS} scalars", "-", _power(ratio), beside),
    ]


def _power(log: Interval) -> str:
    return "{:.2g} [{:.2g}, {:.2g}]".format(*(10.0**value for value in log))


def _best(make: Callable[..., Method], perturbations: int) -> tuple[float, np.ndarray]:
    """The rate that is best on tuning keys, and log10 f/f0 on the result keys, after as many rounds as the budget allows."""
    problem = definite((len(RATES), 2 * KEYS))
    lr = torch.from_numpy(RATES)[:, None]
    method = make(lr=lr, perturbations=perturbations)
    more = {"sampled": 1, "local_steps": 1, "wire": "float64", "on_divergence": "freeze"}
    federation = after(problem, method, SCALARS // (perturbations + method.curvatures), **more)
    x = joined(federation.state.x, problem.layout).numpy()
    s = np.diagonal(problem.hessians[0])
    with np.errstate(divide="ignore", over="ignore", invalid="ignore"):
        fall = np.log10((s * x**2).sum(-1) / s.sum())
    fall = np.where(federation.alive.numpy() & np.isfinite(fall), fall, 300.0)
    best = int(fall[:, :KEYS].mean(1).argmin())
    return float(RATES[best]), fall[best, KEYS:]
