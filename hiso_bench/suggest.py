"""A learning rate from the loss itself: its curvature is estimated, theory gives the largest stable step, runs check it.

Around a point a twice differentiable loss is a quadratic with Hessian S. Zeroth-order descent on it, x+ = x - eta dx, is stable
in mean square up to eta* (`theory.stability`), which depends on S through T = tr Xi and L = max eig Xi of
Xi = H^{-1/2} S H^{-1/2}: about 2P / (T + (P + 1) L). T is estimated by Hutch++ and L by Lanczos, so eta* is an interval. What
S has of negative curvature is counted as if it were positive: that makes eta* smaller.

The rate that is suggested is eta*/2. Where T dominates, one step changes the loss by -eta |g|^2 + eta^2/2 (T/P) |g|^2 in
expectation, smallest at half of eta* = 2P/T; with gradient noise, or for many rounds, less is better. S is that of one point,
so short runs look at whether the loss falls where theory says so, and rises where theory says so.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from hiso_bench import catalogue, estimates, keys
from hiso_bench.api import small_federation
from hiso_bench.curvature import flatten
from hiso_bench.federation import FederationOptions, NonFiniteScalarError
from hiso_bench.local_spectrum import NEGATIVE, curvature_of, spectrum_of, trace_of
from hiso_bench.losses import Batch, check_deterministic
from hiso_bench.methods.base import Method, require
from hiso_bench.methods.hiso import HiSo
from hiso_bench.problems import Problem
from hiso_bench.state import State
from hiso_bench.stats import Interval

FRACTION = 0.5
"""Of eta*, what is suggested."""
CHECKED = (0.25, FRACTION, 1.0, 4.0)
"""Of eta*, what is run."""
_CLIENTS = 8
_BLOWN = 100.0


class Trial(NamedTuple):
    """Short runs at one learning rate."""

    fraction: float
    """Of eta*."""
    lr: float
    change: tuple[float, ...]
    """f(x_R) / f(x_0) of each key; infinite where the run diverged."""
    outcome: str
    """"fell" or "rose" for every key, "diverged" where a scalar was not finite or the loss grew a hundredfold, else "mixed"."""
    round: int | None
    """The first round after which a run was seen to have diverged."""


@dataclass(frozen=True)
class Suggestion:
    """What was found of a loss, and the rate that follows. `str()` of it is a table, `as_dict()` what JSON takes.

    Attributes:
        lr: the suggested learning rate: half of the lower end of eta*.
        limit: eta*, the largest mean-square stable step, with what the estimates leave open.
        trace: T, of Xi; at H = I that of the Hessian.
        top: L, of Xi.
        kappa: effective rank of the Hessian, trace over largest eigenvalue.
        zeta: whitening rank, tr Xi for the H that the method starts with.
        learned: zeta for the H that the run at `lr` ended with; None where the method learns none.
        negative: the share of |tr| that is negative curvature.
        dimension: d.
        method: its name.
        perturbations: P of one step, over all clients if their directions are independent.
        rounds: of a short run.
        trials: the short runs.
    """

    lr: float
    limit: Interval
    trace: Interval
    top: Interval
    kappa: Interval
    zeta: Interval
    learned: Interval | None
    negative: float
    dimension: int
    method: str
    perturbations: int
    rounds: int
    trials: tuple[Trial, ...]

    @property
    def agrees(self) -> bool:
        """The loss fell at the suggested rate for every key, and did not fall at 4 eta*; False where nothing was run."""
        outcome = {trial.fraction: trial.outcome for trial in self.trials}
        return outcome.get(FRACTION) == "fell" and outcome.get(max(CHECKED)) != "fell"

    def as_dict(self) -> dict[str, Any]:
        """JSON-able; infinity is null."""
        found = {k: v._asdict() if isinstance(v, Interval) else v for k, v in vars(self).items()}
        trials = [t._asdict() | {"change": [c if math.isfinite(c) else None for c in t.change]} for t in self.trials]
        return found | {"trials": trials, "agrees": self.agrees}

    def __str__(self) -> str:
        rows = [
            ("dimension d", f"{self.dimension}"),
            ("trace of the Hessian, T" if self.zeta == self.trace else "trace at the method's H", _told(self.trace)),
            ("largest eigenvalue, L", _told(self.top)),
            ("effective rank, kappa", _told(self.kappa)),
            ("whitening rank, zeta", _told(self.zeta)),
            *([("zeta of the H it learned", _told(self.learned))] if self.learned else []),
            *(
                [("negative curvature", f"{self.negative:.1%} of |trace|, counted as positive")]
                if self.negative > NEGATIVE
                else []
            ),
            ("largest stable step, eta*", _told(self.limit)),
            ("suggested lr, low end / 2" if self.limit.low < self.limit.high else "suggested lr, eta*/2", f"{self.lr:.3g}"),
        ]
        lines = [f"{self.method}, P = {self.perturbations}; curvature at the initial point", ""]
        lines += [f"  {name:26} {value}" for name, value in rows]
        if not self.trials:
            return "\n".join(lines)
        lines += ["", f"  {self.rounds} rounds at", ""]
        for t in self.trials:
            at = f"eta* x {t.fraction:g}" + (" (suggested)" if t.fraction == FRACTION else "")
            told = f"diverged by round {t.round}" if t.outcome == "diverged" else _changes(t)
            lines.append(f"  {t.lr:<9.3g} {at:22} {told}")
        return "\n".join([*lines, "", *_wrapped(self._verdict())])

    def _verdict(self) -> str:
        outcome = {trial.fraction: trial.outcome for trial in self.trials}
        if self.agrees:
            return "The runs agree with theory: the loss falls at the suggested rate and not at 4 eta*."
        if outcome[FRACTION] != "fell":
            return (
                "The loss does not fall for every key at the suggested rate: take a smaller one, or more rounds "
                "(the curvature grows away from the initial point, or gradient noise hides the descent)."
            )
        return "The loss falls at 4 eta* too: away from the initial point it is flatter, and longer steps are worth a try."


def suggest_lr(
    problem: Problem,
    method: Method | str = "decomfl",
    *,
    federation: FederationOptions | None = None,
    rounds: int = 200,
    runs: int = 3,
    key: int = 0,
    say: Callable[[str], None] = lambda text: None,
    name: str = "",
    **options: Any,
) -> Suggestion:
    """A stable learning rate for a problem's loss at its initial point, with evidence.

    The loss is the mean over the batches that up to eight clients have in round 0. It is first evaluated twice and must
    give the same bits.

    Args:
        problem: without replicate axes; its loss must be twice differentiable by torch where it stands.
        method: a `Method` of a fixed or learned diagonal H, or the name of one; its lr is of no account.
        federation: as the runs to come will have it; by default 2 clients a round.
        rounds: of each short run; 0 leaves the check out.
        runs: short runs per rate, each with its own key.
        key: 64-bit key of the probes and of the runs.
        say: told what is about to be done, and how long it will take.
        name: what to call a method that is built.
        options: of a method that is named.

    Returns:
        The suggestion.

    Raises:
        NondeterministicLossError: the loss gives two values at one point.
        ValueError: theory has no stable step for the method (a step of its own, no linear step); a loss that cannot be
            differentiated; no positive curvature at the initial point.

    Cost: d Hessian-vector products up to d = 256, else about 200, each some three forward and backward passes over all batches;
        and 4 * runs * rounds federated rounds.
    """
    require(rounds >= 0, "rounds", rounds, ">= 0")
    require(runs >= 1, "runs", runs, ">= 1")
    name = method if isinstance(method, str) else name or type(method).__name__
    built = catalogue.method(method, {"lr": 1.0} | options, problem) if isinstance(method, str) else method
    _refuse(built, name)
    setting = federation or small_federation(problem, built)
    x = problem.initial()
    batches = [problem.batch(np.array(client), 0, 0) for client in range(min(problem.clients, _CLIENTS))]
    check_deterministic(problem.loss, x, batches[0])
    local = curvature_of(problem, x, batches)
    start = built.init(x, problem.layout)
    P = built.perturbations * (setting.sampled if setting.independent else 1)
    bare, draw = torch.ones(local.dimension, dtype=torch.float64), keys.rng(keys.derive(key, "suggest"))
    say(f"estimating curvature in {local.dimension} dimensions from Hessian-vector products")
    h = _h(start, bare)
    spectrum = spectrum_of(local, h, draw)
    plain = spectrum if bool((h == 1).all()) else spectrum_of(local, bare, draw)
    limit = spectrum.limit(P, setting.law, float(built.momentum), local.dimension)
    kappa = Interval(plain.trace.value / plain.top.value, plain.trace.low / plain.top.high, plain.trace.high / plain.top.low)
    lr = FRACTION * limit.low
    trials, ended = [], None
    for fraction in CHECKED if rounds else ():
        rate = lr if fraction == FRACTION else fraction * limit.value
        say(f"{runs} runs of {rounds} rounds at lr {rate:.3g}")
        trial, state = _trial(problem, dataclasses.replace(built, lr=rate), setting, batches, fraction, rounds, runs, key)
        trials.append(trial)
        ended = state if fraction == FRACTION else ended
    learned = None
    if ended is not None and not torch.equal(now := _h(ended, bare), h) and bool(torch.isfinite(now).all()):
        learned = trace_of(estimates.whitened(local.product, now), local.dimension, draw)
    return Suggestion(
        lr, limit, spectrum.trace, spectrum.top, kappa, spectrum.trace, learned, spectrum.negative, local.dimension, name, P,
        rounds, tuple(trials),
    )  # fmt: skip


def _h(state: State, bare: Tensor) -> Tensor:
    """The diagonal of a method's H, (d,): ones where it has none."""
    return flatten(state.buffers["h"]).double() if "h" in state.buffers else bare


def _refuse(method: Any, name: str) -> None:
    """Theory knows x+ = x - eta dx with dx linear in the scalars and independent directions."""
    own = [
        part
        for part in ("move", "rate", "direction", "directions")
        if getattr(type(method), part, None) is not getattr(Method, part, None)
    ]
    linear = method.scalar_only and method.linear_in_scalars
    if linear and not own and type(method).combine in (Method.combine, HiSo.combine):
        return
    why = "sends vectors" if not method.scalar_only else f"has {own[0]} of its own" if own else "combines scalars in its own way"
    why = "is not linear in the scalars" if method.scalar_only and not linear else why
    raise ValueError(f"method {name} {why}, and theory has no stable step for it; allowed: decomfl, mezo, hiso, hiso-oracle, ...")


def _trial(
    problem: Problem,
    method: Method,
    setting: FederationOptions,
    batches: list[Batch],
    fraction: float,
    rounds: int,
    runs: int,
    key: int,
) -> tuple[Trial, State]:
    """Short runs at one rate, and where the last of them ended."""
    changes, blown, state = [], None, None
    f = lambda x: float(torch.stack([problem.loss(x, batch) for batch in batches]).mean())  # noqa: E731
    for number in range(runs):
        federation = method.federate(problem, dataclasses.replace(setting, key=keys.derive(key, "suggest run", run=number)))
        before = f(federation.state.x)
        now, due = before, max(1, rounds // 20)
        try:
            for r in range(rounds):
                federation.round()
                if (r + 1) % due == 0 or r + 1 == rounds:
                    now = f(federation.state.x)
                    if not math.isfinite(now) or abs(now) > _BLOWN * abs(before):
                        raise NonFiniteScalarError
        except NonFiniteScalarError:
            now, blown = math.inf, min(blown or rounds, federation.state.round)
        changes.append(now - before)
        state = federation.state
    relative = tuple(1 + change / abs(before) if before else math.inf for change in changes)
    falls, rises = all(c < 0 for c in changes), all(c > 0 for c in changes)
    outcome = "diverged" if blown is not None else "fell" if falls else "rose" if rises else "mixed"
    assert state is not None
    return Trial(fraction, float(torch.as_tensor(method.lr)), relative, outcome, blown), state


def _told(interval: Interval) -> str:
    if interval.low == interval.high:
        return f"{interval.value:.4g} (exact)"
    return f"{interval.value:.3g} [{interval.low:.3g}, {interval.high:.3g}]"


def _changes(trial: Trial) -> str:
    return f"loss {trial.outcome}: x {', '.join(f'{c:.3g}' for c in trial.change)}"


def _wrapped(text: str) -> list[str]:
    import textwrap

    return textwrap.wrap(text, 78)
