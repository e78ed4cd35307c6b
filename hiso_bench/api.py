"""What a user of the library calls: one estimate of a gradient, a run of federated rounds, and the way back from a ledger.

These functions put the library's parts together and compute nothing of their own.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor

from hiso_bench import audit, catalogue, methods, recorded_rates
from hiso_bench.directions import DirectionKey, Directions, Warped
from hiso_bench.federation import FederationOptions
from hiso_bench.ledger import Ledger, LedgerError
from hiso_bench.losses import Batch, FunctionLoss, Loss
from hiso_bench.methods.base import Step, require
from hiso_bench.points import Layout, Point
from hiso_bench.problems import Base, Problem
from hiso_bench.state import State
from hiso_bench.training import Run, Schedule

P = TypeVar("P", Tensor, Point)


def estimate_gradient(
    loss: Loss | Callable[..., Tensor],
    x: P,
    batch: Batch = None,
    *,
    perturbations: int = 10,
    mu: float = 1e-3,
    difference: str = "forward",
    law: str = "gaussian",
    h: P | None = None,
    key: int = 0,
    round_: int = 0,
) -> P:
    """One zeroth-order estimate of H^-1 grad f(x): the direction of one round of DeComFL (H = I) or of HiSo with H = diag(h).

    dx = (1/P) sum_p s_p z_p with z_p = H^{-1/2} u_p and s_p a difference quotient of f along z_p (DeComFL, arXiv 2405.15861,
    Algorithm 3; HiSo, arXiv 2506.02370, Eqs 8 to 10). On a quadratic its mean is H^-1 grad f(x) for every mu, its mean square
    about (d + P + 1) / P times the square of that at H = I: one estimate in high dimension is mostly noise.

    Args:
        loss: a deterministic function of the point that gives a tensor of one number (and takes `batch` second, if one is given),
            or a `Loss`.
        x: the point: a tensor, or a tuple of tensors, floating point. It is left as it is, bit for bit.
        batch: what the loss needs beside the point.
        perturbations: P.
        mu: smoothing parameter. In float32 a forward difference of a loss of order 1 is wrong by about 1e-7 / mu.
        difference: "forward" (P + 1 evaluations) or "central" (2 P, no bias from the Hessian).
        law: "gaussian", "sphere" or "rademacher".
        h: the diagonal of H, shaped like x and positive; None is H = I.
        key: 64-bit root key of the directions; the same key gives the same estimate.
        round_: which round's directions: estimates of different rounds are independent.

    Returns:
        dx, of the shape and dtype of x.

    Raises:
        ValueError: an option out of range, an x that is not floating point, a loss that gives no number.
        FloatingPointError: a difference quotient is NaN or infinite.

    Examples:
        >>> x = torch.tensor([3.0, -1.0, 2.0])
        >>> dx = estimate_gradient(lambda x: (x**2).sum() / 2, x, perturbations=400)  # of a gradient that is x
        >>> bool((dx - x).norm() < 1.0)
        True
    """
    single = isinstance(x, Tensor)
    point: Point = (x,) if isinstance(x, Tensor) else tuple(x)
    given: Point | None = None if h is None else (h,) if isinstance(h, Tensor) else tuple(h)
    for leaf in point:
        require(leaf.is_floating_point(), "x", leaf.dtype, "tensors of a floating-point dtype")
    options: dict[str, Any] = {"lr": 1.0, "perturbations": perturbations, "mu": mu, "difference": difference}
    method = methods.DeComFL(**options) if given is None else methods.OracleH(**options, h=given, eps=0.0)
    f = loss if isinstance(loss, Loss) else FunctionLoss(loss, single)
    layout = Layout.of(point)
    dtype, device = point[0].dtype, point[0].device
    state = method.init(tuple(leaf.detach() for leaf in point), layout)
    z = Warped(Directions(layout, key, law, dtype, device), method.warp(state))
    keys = tuple(DirectionKey(round_, 0, p) for p in range(perturbations))
    scalars = method.measure(f, layout, state.x, z, keys, [batch], layout.empty(dtype, device)).scalars
    if not bool(torch.isfinite(scalars).all()):
        raise FloatingPointError(f"a difference quotient is not finite: {scalars[~torch.isfinite(scalars)][0].item()}; raise mu")
    step = Step((keys,), scalars / perturbations, scalars[:, :0])
    dx = method.direction(step, layout, z, layout.empty(dtype, device))
    return dx[0] if single else dx  # type: ignore[return-value]


def problem(name: str, **options: Any) -> Problem:
    """A problem of the checkout by name: "quadratic", "digits", "mnist", "lm", ... (`hiso-bench train --help` lists them).

    Raises:
        ValueError: an unknown name or option, or there is no checkout.
    """
    return catalogue.problem(name, options)


def small_federation(problem: Problem, method: Any) -> FederationOptions:
    """Two clients a round, all if there are fewer, and what the method asks for."""
    told: dict[str, Any] = {"sampled": min(2, problem.clients), **method.federation_options}
    return FederationOptions(**told)


def train(
    problem: Problem | str,
    method: methods.Method | str = "hiso",
    *,
    rounds: int = 100,
    folder: str | Path | None = None,
    federation: FederationOptions | None = None,
    evaluate_every: int = 50,
    on_round: Callable[[Run, Any], None] | None = None,
    **options: Any,
) -> Run:
    """Run federated rounds through the message protocol, and return the run: its state, its curve and its ledger.

    Args:
        problem: a `Problem`, such as a `ModuleProblem`, or the name of one.
        method: a `Method`, or the name of a registered one.
        rounds: R, in total: a resumed run goes on up to it.
        folder: where ledger and snapshots are kept, and from where the same call resumes. None keeps the ledger in memory.
        federation: sampled clients, local steps, key, ...; by default 2 clients a round (all if there are fewer).
        evaluate_every: rounds between evaluations.
        on_round: called with (run, report) after every round; `Progress(run)` is a progress bar.
        options: of a method that is named: lr, perturbations, ... Without lr the winner of the recorded grid is taken
            where the problem is one of the checkout's and is named; else `suggest_lr` finds one.

    Returns:
        The run: `run.federation.state.x` is the point, `run.ledger` the ledger, `curve(run.ledger)` a table of evaluations.

    Raises:
        ValueError: an option out of range or unknown; lr missing.
        NonFiniteScalarError: a scalar is NaN or infinite: the step is too long.
        LedgerError: the folder holds another run.
        NondeterministicLossError: the loss gives two values at one point.

    Examples:
        >>> run = train(ModuleProblem(net, clients), "decomfl", lr=0.1, rounds=10)
        >>> len(run.ledger.rounds), run.ledger.rounds[0].bytes_up  # 2 clients, 8 bytes and 5 scalars of 4 each
        (10, 56)
    """
    at = catalogue.problem(problem, {}) if isinstance(problem, str) else problem
    if isinstance(method, str):
        if "lr" not in methods.options(method) | options:
            if not isinstance(problem, str):
                raise ValueError("lr is not given; allowed: a finite number > 0, and `suggest_lr` finds one for this problem")
            options["lr"] = recorded_rates.rate(problem, method, options, at.describe())[0]
        name, rule = method, catalogue.method(method, options, at)
    elif options:
        raise ValueError(f"options {', '.join(options)} are given with a method that is built; allowed: only with a name")
    else:
        name, rule = type(method).__name__, method
    chosen = federation or small_federation(at, rule)
    schedule = Schedule(rounds=rounds, evaluate_every=evaluate_every)
    run = Run(at, name, rule, chosen, schedule, None if folder is None else Path(folder))
    try:
        return run.go(on_round)
    finally:
        run.ledger.close()


def read_ledger(path: str | Path) -> Ledger:
    """The ledger of a run from its file or its folder, without locking or changing it.

    Raises:
        LedgerError: it is not there, or damaged; a torn tail is passed over.
    """
    path = Path(path)
    return Ledger.read(path / "run.ledger" if path.is_dir() else path)


def rebuild(ledger: Ledger, at: Base) -> State:
    """Rebuild x and H from the base point and the ledger's scalars alone, every fingerprint checked on the way.

    Args:
        ledger: of a method of scalars.
        at: the run's problem; only its base point is used, and no data.

    Returns:
        The state after the last round. Cost: P random points and as many passes over x per round, and no loss.

    Raises:
        LedgerError: the ledger does not say how its run was made, or what it holds does not lead to its fingerprints.
    """
    run = ledger.header.get("run")
    if not run:
        raise LedgerError(f"ledger {ledger.path} does not say how its run was made")
    given = {k: float("inf") if v == "inf" else v for k, v in run["method"].items() if k not in ("name", "h")}
    method = catalogue.method(run["method"]["name"], given, at)
    return audit.audit(ledger, at, method, FederationOptions(**run["federation"]))
