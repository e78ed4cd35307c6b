"""What can be verified of a method without knowing what it is for: the protocol's promises, and theory's where it applies.

A method is tried on small quadratics in float64. The protocol's checks are exact, to the bit. The moments of one round are sums
over the nodes of a cubature, exact to rounding, against `theory.moments`; they apply to a step x - eta dx that is linear in the
scalars, along independent Gaussian directions that the method's H warps. The last two rows are measured: the loss after a
budget of scalars at the best of a grid of rates, chosen on other keys, beside DeComFL's with the same grid and budget.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from hiso_bench import methods
from hiso_bench.audit import Client, audit
from hiso_bench.directions import Warped
from hiso_bench.federation import Federation, FederationOptions
from hiso_bench.ledger import Ledger
from hiso_bench.messages import SIGN, Update
from hiso_bench.methods.base import Method
from hiso_bench.points import cut, joined
from hiso_bench.problems import Problem
from hiso_bench.state import State
from hiso_bench.stats import Interval, mean_interval
from hiso_bench.testing import Quadratics, federation_over, smolyak, take_round
from hiso_bench.theory import moments
from hiso_bench.training import LEDGER_NAME, Run, Schedule

HOLDS, FAILS, NOT_APPLICABLE = "holds", "fails", "not applicable"
KEYS = 8
"""Result keys of the comparison, and as many for the choice of the rate."""
RATES = 2.0 ** np.arange(-12, 5)
SCALARS = 1000
"""Budget of the comparison, per client and direction of the wire."""
_DIMENSION = 20


class Check(NamedTuple):
    """One row."""

    name: str
    predicted: str
    measured: str
    verdict: str
    """"holds", "fails", "not applicable"; "better", "worse" or "undecided" in a comparison, which has no right outcome."""


class Subject(NamedTuple):
    """A method to be checked."""

    name: str
    make: Callable[..., Method]
    """Options -> a new method; lr has a default."""


def subject(name: str) -> Subject:
    """A registered method of scalars, with some H where it needs one from outside.

    Raises:
        ValueError: unknown; it sends vectors; it cannot be built from a learning rate alone.
    """
    if name in methods.VECTOR_PRESETS:
        raise ValueError(f"method {name} sends vectors; allowed: a method of scalars, {', '.join(methods.PRESETS)}")
    given: dict[str, Any] = {"lr": 0.05}
    if "h" in methods.options(name):
        given["h"] = tuple(torch.tensor(value, dtype=torch.float64) for value in (2.0, 0.5))
    try:
        methods.build(name, given)
    except TypeError as error:
        raise ValueError(f"method {name} cannot be built from lr alone ({error}); give its other options defaults") from error
    return Subject(name, lambda **options: methods.build(name, given | options))


def verify_method(name: str) -> list[Check]:
    """What can be verified of a registered method: one `Check` for each promise of the protocol and each prediction of theory.

    Args:
        name: as it is registered; see `register`.

    Returns:
        (name, predicted, measured, verdict) of every check; a verdict of "fails" is one too many.

    Raises:
        ValueError: unknown; it sends vectors; it cannot be built from a learning rate alone.

    Cost: some seconds.
    """
    return check(subject(name))


def check(of: Subject) -> list[Check]:
    """Every check; what raises an error fails with the error's text. Cost: some seconds."""
    return [row for each in CHECKS for row in attempt(each, of)]


def attempt(each: Callable[[Subject], list[Check]], of: Subject) -> list[Check]:
    """The rows of one check; an error that it raises is a row, named after what the check is about."""
    try:
        return each(of)
    except Exception as error:  # whatever a method under test may raise is a finding
        name = (each.__doc__ or "").split("\n")[0].rstrip(".").lower()
        return [Check(name, "no error", f"{type(error).__name__}: {' '.join(str(error).split())}", FAILS)]


def load(path: Path) -> list[str]:
    """Import a file that registers methods; the names that it registered.

    Raises:
        ValueError: it is not there, or it registers none.
    """
    if not path.is_file():
        raise ValueError(f"method {path} is neither registered nor a file; allowed: {', '.join(methods.PRESETS)}, or a .py file")
    for name, (kind, _) in methods.PRESETS.items():  # it lies in the folder of methods, and is loaded already
        if getattr(sys.modules.get(kind.__module__), "__file__", None) == str(path.resolve()):
            return [other for other, (of, _) in methods.PRESETS.items() if of.__module__ == methods.PRESETS[name][0].__module__]
    before = {*methods.PRESETS, *methods.VECTOR_PRESETS}
    spec = importlib.util.spec_from_file_location(f"hiso_bench_file_{path.stem.replace('-', '_')}", path)
    assert spec is not None and spec.loader is not None
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    found = [name for name in (*methods.PRESETS, *methods.VECTOR_PRESETS) if name not in before]
    if not found:
        raise ValueError(f"file {path} registers no method; it must call `hiso_bench.register(name, class)`")
    return found


def _row(name: str, predicted: str, measured: str, holds: bool) -> list[Check]:
    return [Check(name, predicted, measured, HOLDS if holds else FAILS)]


def _plain(replicates: tuple[int, ...] = (), d: int = 6) -> Quadratics:
    """Four clients that differ in Hessian and gradient, two leaves."""
    return Quadratics.random(5, d, clients=4, leaf_shapes=((2,), (d - 2,))).replicated(*replicates)


def _options(method: Method, **more: Any) -> FederationOptions:
    return FederationOptions(**{"sampled": 3, "local_steps": 2, **method.federation_options} | more)


def bits(state: State) -> dict[str, Any]:
    """The exact bits of x and every buffer, and the round: equal if and only if nothing differs."""
    parts = {"x": state.x, **state.buffers}
    return {"round": state.round} | {name: [leaf.numpy().tobytes() for leaf in point] for name, point in parts.items()}


def after(problem: Problem, method: Method, rounds: int = 3, **options: Any) -> Federation:
    """A federation after some rounds."""
    federation = method.federate(problem, _options(method, **options))
    for _ in range(rounds):
        federation.round()
    return federation


def bad_options(of: Subject) -> list[Check]:
    """Bad options are refused by name."""
    let_through = []
    for option, value in (("learning_rate", 0.1), ("lr", -1.0), ("lr", float("nan")), ("perturbations", 0), ("mu", 0.0)):
        try:
            of.make(**{option: value})
        except ValueError as error:
            if option in str(error):
                continue
        let_through.append(f"{option} {value}")
    return _row("bad options are refused", "5 of 5", f"{5 - len(set(let_through))} of 5", not let_through)


def hidden_state(of: Subject, problem: Problem | None = None) -> list[Check]:
    """Nothing is kept in the method."""
    method = of.make()
    before = dict(vars(method))
    try:
        after(problem or _plain(), method)
        changed = [name for name in vars(method) if vars(method).get(name) is not before.get(name)]
    except dataclasses.FrozenInstanceError:
        changed = ["an attribute"]
    return _row("nothing is kept in the method", "no change", ", ".join(changed) or "no change", not changed)


def measuring(of: Subject, problem: Problem | None = None) -> list[Check]:
    """Measuring is repeatable and moves nothing."""
    f = after(problem or _plain(), of.make())
    before, ids = bits(f.state), np.array([0, 2])
    found = []
    for _ in range(2):
        z = Warped(f.directions, f.method.warp(f.state))
        found.append(f.measure(f.state.round, ids, (0, 2), z)[0])
        z.close()
    same = torch.equal(*found) and bits(f.state) == before
    return _row("measuring repeats exactly", "same bits", "same bits" if same else "other bits", same)


def wire(of: Subject) -> list[Check]:
    """Scalars only on the wire."""
    sizes = []
    for d in (6, 24):
        method = of.make()
        record = after(_plain(d=d), method, 1).ledger.rounds[0]
        sizes.append(record.bytes_up // len(record.answered))
    count, options = 2 * (method.perturbations + method.curvatures), _options(method)
    expected = 8 + (-(-count // 8) if options.wire == SIGN else count * {"float32": 4, "float64": 8}[options.wire])
    measured = ", ".join(map(str, sizes))
    return _row("bytes up a client, d = 6, 24", f"{expected}, {expected}", measured, sizes == [expected] * 2)


def from_messages(of: Subject, problem: Problem | None = None) -> list[Check]:
    """A client replays from messages."""
    f = after(problem or _plain(), of.make(momentum=0.5))
    client = Client(f.problem, of.make(momentum=0.5), f.options)
    client.receive(f.wire.encode_downlink(3, 0, f.ledger.updates(0, 3)))
    same = bits(client.state) == bits(f.state)
    return _row("replay from messages alone", "same bits", "same bits" if same else "other bits", same)


def resumed(of: Subject, problem: Problem | None = None) -> list[Check]:
    """A stopped run resumes, and its ledger audits."""
    at, method = problem or _plain(), of.make()
    options = _options(method, sampled=2, dropout=0.3)
    with tempfile.TemporaryDirectory() as folder:

        def go(where: str, rounds: int) -> State:
            schedule = Schedule(rounds=rounds, evaluate_every=2, snapshot_every=2)
            run = Run(at, of.name, of.make(), options, schedule, Path(folder) / where)
            with run.ledger:
                return run.go().federation.state

        whole = go("whole", 6)
        go("part", 4)
        part = go("part", 6)
        files = [(Path(folder) / where / LEDGER_NAME).read_bytes() for where in ("whole", "part")]
        same = bits(whole) == bits(part) and files[0] == files[1]
        ledger = Ledger.read(Path(folder) / "whole" / LEDGER_NAME)
        rebuilt = bits(audit(ledger, at, of.make(), options)) == bits(whole)
    return [
        *_row("a stopped run goes on exactly", "same bits", "same bits" if same else "other bits", same),
        *_row("the ledger rebuilds x and H", "same bits", "same bits" if rebuilt else "other bits", rebuilt),
    ]


def replicates(of: Subject) -> list[Check]:
    """Replicates are independent."""

    def end(*rates: float) -> list[bytes]:
        lr = torch.tensor(rates, dtype=torch.float64)
        f = after(_plain((2,)), of.make(lr=lr), 30, wire="float64", on_divergence="freeze")
        return [leaf[0].numpy().tobytes() for leaf in f.state.x]

    same = end(0.001, 0.002) == end(0.001, 0.003)
    return _row("replicates are independent", "same bits", "same bits" if same else "other bits", same)


def finite(of: Subject) -> list[Check]:
    """What is learned stays finite, and H positive."""
    state = after(_definite(()), of.make(lr=0.01), 50, local_steps=3, sampled=2).state
    parts = [leaf for point in (state.x, *state.buffers.values()) for leaf in point]
    good = all(bool(leaf.isfinite().all()) for leaf in parts)
    good &= all(bool((leaf > 0).all()) for name in ("h", "sigma") for leaf in state.buffers.get(name, ()))
    return _row("H positive after 50 rounds", "yes, all finite", "yes, all finite" if good else "no", good)


def linearity(of: Subject, problem: Problem | None = None) -> list[Check]:
    """Averaging scalars averages end points."""
    f = after(problem or _plain(), of.make(momentum=0.5, weight_decay=0.1))
    size = (3, *f.wire.row_shape)
    numbers = torch.arange(float(np.prod(size)), dtype=torch.float64)
    rows = (numbers.square().cos() * 10 ** (numbers % 5 - 2)).reshape(size)  # from small to large: a clipped one is not linear

    def end(scalars: torch.Tensor) -> torch.Tensor:
        state, dx = f.state.copy(), tuple(torch.empty_like(leaf) for leaf in f.state.x)
        z = Warped(f.directions, f.method.warp(f.state))
        for step in f.wire.steps(f.state.round, Update((), f.method.combine(scalars))):
            f.method.move(state, f.method.direction(step, state.layout, z, out=dx), step)
        z.close()
        return torch.cat([leaf.flatten() for leaf in state.x])

    together, alone = end(rows), torch.stack([end(row[None]) for row in rows]).mean(0)
    linear = torch.allclose(together, alone, rtol=1e-12, atol=1e-13)
    told = {True: "linear", False: "not linear"}
    same = linear == f.method.linear_in_scalars
    return _row("linear in the scalars", told[f.method.linear_in_scalars], told[linear], same)


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
    C = _inverse_h(built, problem)
    dx = take_round(federation)
    gradients, hessians = list(problem.gradients), list(problem.hessians)
    mean = moments.mean(problem.gradients.mean(0), C)
    square = moments.second_moment_shared(gradients, C, hessians, mu, P, "gaussian", built.difference)
    wanted = ((mean, dx), (square, dx[:, :, None] * dx[:, None, :]))
    rows = []
    for name, (predicted, values) in zip(names, wanted, strict=True):
        found = rule.mean(values)
        off = float(np.abs(found - predicted).max() / max(1.0, float(np.abs(predicted).max())))
        size = np.linalg.norm
        rows += _row(name, f"norm {size(predicted):.6g}", f"{size(found):.6g}, off {off:.0e}", off <= 100 * rule.tolerance)
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
    (rate, found), (_, plain) = (_best(make, method.perturbations) for make in (of.make, subject("decomfl").make))
    edge = ", at the grid's edge" if rate in (RATES[0], RATES[-1]) else ""
    fall, ratio = mean_interval(found), mean_interval(found - plain)
    beside = "better" if ratio.high < 0 else "worse" if ratio.low > 0 else "undecided"
    return [
        Check(f"descends at lr {rate:.3g}{edge}", "f/f0 < 1", _power(fall), HOLDS if fall.high < 0 else FAILS),
        Check(f"f over DeComFL's, {SCALARS} scalars", "-", _power(ratio), beside),
    ]


def _power(log: Interval) -> str:
    return "{:.2g} [{:.2g}, {:.2g}]".format(*(10.0**value for value in log))


def _definite(shape: tuple[int, ...]) -> Quadratics:
    """Two equal clients with s_j = j^-1.5 from ones."""
    s = np.arange(1, _DIMENSION + 1) ** -1.5
    leaves = ((5,), (_DIMENSION - 5,))
    return Quadratics(np.stack([np.diag(s)] * 2), np.zeros((2, _DIMENSION)), np.ones(_DIMENSION), leaves, shape)


def _best(make: Callable[..., Method], perturbations: int) -> tuple[float, np.ndarray]:
    """The rate that is best on tuning keys, and log10 f/f0 on the result keys, after as many rounds as the budget allows."""
    problem = _definite((len(RATES), 2 * KEYS))
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


CHECKS: tuple[Callable[[Subject], list[Check]], ...] = (
    bad_options, hidden_state, measuring, wire, from_messages, resumed, replicates, finite, linearity, one_round, comparison,
)  # fmt: skip
