"""The protocol's promises, tried on a method without knowing what it is for; all of them exact, to the bit.

The method is run on small quadratics in float64: replay, resume, audit, scalars alone on the wire, refused options.
"""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from hiso_bench.audit import Client, audit
from hiso_bench.directions import Warped
from hiso_bench.federation import Federation, FederationOptions
from hiso_bench.ledger import Ledger
from hiso_bench.messages import SIGN, Update
from hiso_bench.methods.base import Method
from hiso_bench.problems import Problem
from hiso_bench.state import State
from hiso_bench.testing import Quadratics
from hiso_bench.training import LEDGER_NAME, Run, Schedule

HOLDS, FAILS, NOT_APPLICABLE = "holds", "fails", "not applicable"
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


def row(name: str, predicted: str, measured: str, holds: bool) -> list[Check]:
    """A check with one row that holds or fails."""
    return [Check(name, predicted, measured, HOLDS if holds else FAILS)]


def _plain(replicates: tuple[int, ...] = (), d: int = 6) -> Quadratics:
    """Four clients that differ in Hessian and gradient, two leaves."""
    return Quadratics.random(5, d, clients=4, leaf_shapes=((2,), (d - 2,))).replicated(*replicates)


def definite(shape: tuple[int, ...]) -> Quadratics:
    """Two equal clients with s_j = j^-1.5 from ones."""
    s = np.arange(1, _DIMENSION + 1) ** -1.5
    leaves = ((5,), (_DIMENSION - 5,))
    return Quadratics(np.stack([np.diag(s)] * 2), np.zeros((2, _DIMENSION)), np.ones(_DIMENSION), leaves, shape)


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
    return row("bad options are refused", "5 of 5", f"{5 - len(set(let_through))} of 5", not let_through)


def hidden_state(of: Subject, problem: Problem | None = None) -> list[Check]:
    """Nothing is kept in the method."""
    method = of.make()
    before = dict(vars(method))
    try:
        after(problem or _plain(), method)
        changed = [name for name in vars(method) if vars(method).get(name) is not before.get(name)]
    except dataclasses.FrozenInstanceError:
        changed = ["an attribute"]
    return row("nothing is kept in the method", "no change", ", ".join(changed) or "no change", not changed)


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
    return row("measuring repeats exactly", "same bits", "same bits" if same else "other bits", same)


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
    return row("bytes up a client, d = 6, 24", f"{expected}, {expected}", measured, sizes == [expected] * 2)


def from_messages(of: Subject, problem: Problem | None = None) -> list[Check]:
    """A client replays from messages."""
    f = after(problem or _plain(), of.make(momentum=0.5))
    client = Client(f.problem, of.make(momentum=0.5), f.options)
    client.receive(f.wire.encode_downlink(3, 0, f.ledger.updates(0, 3)))
    same = bits(client.state) == bits(f.state)
    return row("replay from messages alone", "same bits", "same bits" if same else "other bits", same)


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
        *row("a stopped run goes on exactly", "same bits", "same bits" if same else "other bits", same),
        *row("the ledger rebuilds x and H", "same bits", "same bits" if rebuilt else "other bits", rebuilt),
    ]


def replicates(of: Subject) -> list[Check]:
    """Replicates are independent."""

    def end(*rates: float) -> list[bytes]:
        lr = torch.tensor(rates, dtype=torch.float64)
        f = after(_plain((2,)), of.make(lr=lr), 30, wire="float64", on_divergence="freeze")
        return [leaf[0].numpy().tobytes() for leaf in f.state.x]

    same = end(0.001, 0.002) == end(0.001, 0.003)
    return row("replicates are independent", "same bits", "same bits" if same else "other bits", same)


def finite(of: Subject) -> list[Check]:
    """What is learned stays finite, and H positive."""
    state = after(definite(()), of.make(lr=0.01), 50, local_steps=3, sampled=2).state
    parts = [leaf for point in (state.x, *state.buffers.values()) for leaf in point]
    good = all(bool(leaf.isfinite().all()) for leaf in parts)
    good &= all(bool((leaf > 0).all()) for name in ("h", "sigma") for leaf in state.buffers.get(name, ()))
    return row("H positive after 50 rounds", "yes, all finite", "yes, all finite" if good else "no", good)


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
    return row("linear in the scalars", told[f.method.linear_in_scalars], told[linear], same)


PROTOCOL: tuple[Callable[[Subject], list[Check]], ...] = (
    bad_options, hidden_state, measuring, wire, from_messages, resumed, replicates, finite, linearity,
)  # fmt: skip
