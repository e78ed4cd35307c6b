"""A run: rounds, the evaluation schedule, the stopping rule, and resuming from the ledger."""

from __future__ import annotations

import contextlib
import dataclasses
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

import numpy as np
import torch
from tqdm import tqdm

import hiso_bench
from hiso_bench import snapshots
from hiso_bench.directions import sampler_name
from hiso_bench.federation import FederationOptions, Report
from hiso_bench.ledger import Ledger, LedgerError
from hiso_bench.losses import check_deterministic
from hiso_bench.methods.base import require
from hiso_bench.points import Layout, Point
from hiso_bench.problems import Problem
from hiso_bench.state import State

if TYPE_CHECKING:  # loaded where a curve is made: it takes half a second, which every command would pay
    import pandas as pd

LEDGER_NAME = "run.ledger"


class Rounds(Protocol):
    """What a run needs of a federation."""

    state: State
    ledger: Ledger

    def catch_up(self, state: State | None = None) -> None:
        """Bring the state to the ledger's end."""
        ...

    def round(self) -> Report:
        """Run one round and record it."""
        ...


class Rule(Protocol):
    """What a run needs of a method, of scalars or of vectors: a dataclass that knows its state and what runs it."""

    __dataclass_fields__: ClassVar[dict[str, Any]]

    def init(self, x: Point, layout: Layout) -> State:
        """The state before round 0."""
        ...

    def federate(self, problem: Problem, options: FederationOptions, ledger: Ledger | None = None) -> Any:
        """The federation (`Rounds`) that runs the method."""
        ...


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """How long a run goes on and when it looks at itself.

    Attributes:
        rounds: R, in total (a resumed run continues up to it).
        evaluate_every: rounds between evaluations; 0, and the last round, are evaluated too.
        fingerprint_every: rounds between state fingerprints; 0: at evaluations only.
        snapshot_every: rounds between snapshots (at evaluations only); 0: none.
        stop_at: stop once the problem's metric has reached this value at an evaluation.
    """

    rounds: int = 1000
    evaluate_every: int = 50
    fingerprint_every: int = 0
    snapshot_every: int = 500
    stop_at: float | None = None

    def __post_init__(self) -> None:
        require(self.rounds >= 0, "rounds", self.rounds, ">= 0")
        require(self.evaluate_every >= 1, "evaluate_every", self.evaluate_every, ">= 1")
        require(self.fingerprint_every >= 0, "fingerprint_every", self.fingerprint_every, ">= 0")
        require(self.snapshot_every >= 0, "snapshot_every", self.snapshot_every, ">= 0")


def header(problem: Problem, method_name: str, method: Rule, options: FederationOptions, schedule: Schedule) -> dict[str, Any]:
    """What a ledger says of its run. Everything under "run" must be equal for a resume; "made_with" is checked by replaying."""
    x = problem.initial()
    skip = {"cache_bytes"}  # the cache changes no bit
    fields = {k: v for k, v in dataclasses.asdict(options).items() if k not in skip}
    return {
        "run": {
            "problem": problem.describe() | {"name": problem.name, "clients": problem.clients},
            "method": {
                "name": method_name,
                **_json({field.name: getattr(method, field.name) for field in dataclasses.fields(method)}),
            },
            "federation": fields,
            "evaluate_every": schedule.evaluate_every,
            "fingerprint_every": schedule.fingerprint_every,
            "layout": [list(shape) for shape in problem.layout.leaf_shapes],
            "base_fingerprint": f"{method.init(x, problem.layout).fingerprint():016x}",
            "evaluation_mode": problem.loss.mode,
            "dtype": str(x[0].dtype).removeprefix("torch."),
        },
        "made_with": {
            "sampler": sampler_name(x[0].device),
            "device": str(x[0].device),
            "torch": torch.__version__,
            "threads": torch.get_num_threads(),
            "hiso_bench": hiso_bench.__version__,
        },
    }


def _json(options: dict[str, Any]) -> dict[str, Any]:
    def plain(value: Any) -> Any:
        if isinstance(value, torch.Tensor):
            return value.tolist()
        # What a problem gives enters through the base fingerprint. Of a point (an oracle H) the shape is listed.
        if callable(value):
            return "given by the problem"
        return [list(v.shape) for v in value] if isinstance(value, tuple) else value

    return {name: str(v) if isinstance(v, float) and v in (float("inf"),) else plain(v) for name, v in options.items()}


class Run:
    """A federation, its ledger and its schedule.

    Args:
        problem: what is trained.
        method_name: the registered name, for the header.
        method: the method itself.
        options: the federation's options.
        schedule: how long, and when to evaluate.
        folder: where ledger and snapshots live; None keeps the ledger in memory.

    Raises:
        LedgerError: the folder holds a ledger of another run; the message names the first option that differs.
        NondeterministicLossError: the problem's loss is not a function of the point and the batch.
    """

    def __init__(
        self,
        problem: Problem,
        method_name: str,
        method: Rule,
        options: FederationOptions,
        schedule: Schedule,
        folder: Path | None = None,
    ) -> None:
        self.problem, self.schedule = problem, schedule
        described = header(problem, method_name, method, options, schedule)
        self.resumed = folder is not None and (folder / LEDGER_NAME).exists()
        if folder is None:
            ledger = Ledger(described)
        elif self.resumed:
            ledger = Ledger.open(folder / LEDGER_NAME)
            try:
                _same_run(ledger, described)
            except LedgerError:
                ledger.close()
                raise
        else:
            ledger = Ledger.create(folder / LEDGER_NAME, described)
        try:
            self.federation: Any = method.federate(problem, options, ledger)
            self.federation.catch_up(snapshots.newest_valid(ledger, problem.layout))
            if not problem.layout.replicate_shape:
                check_deterministic(problem.loss, self.federation.state.x, problem.batch(np.array(0), 0, 0))
        except Exception:
            ledger.close()
            if folder is not None and not self.resumed:  # nothing was run: what is refused leaves nothing behind
                (folder / LEDGER_NAME).unlink()
                with contextlib.suppress(OSError):  # not empty: it was there before
                    folder.rmdir()
            raise

    @property
    def ledger(self) -> Ledger:
        """The run's ledger."""
        return self.federation.ledger

    def go(self, on_round: Callable[[Run, Report], None] | None = None) -> Run:
        """Run up to the schedule's last round, or until the stopping rule holds."""
        state = self.federation.state
        while not self._look(state.round) and state.round < self.schedule.rounds:
            report = self.federation.round()
            if on_round is not None:
                on_round(self, report)
        self.ledger.sync()
        return self

    def _look(self, r: int) -> bool:
        """Fingerprint, evaluate and snapshot if they are due and not yet in the ledger; True if the run may stop."""
        schedule, ledger = self.schedule, self.ledger
        evaluation = r % schedule.evaluate_every == 0 or r == schedule.rounds
        due = evaluation or (schedule.fingerprint_every and r % schedule.fingerprint_every == 0)
        if due and r not in ledger.fingerprints:
            ledger.append_fingerprint(r, self.federation.state.fingerprint())
        if evaluation and r not in ledger.evaluations:
            ledger.append_evaluation(r, self.problem.evaluate(self.federation.state.x))
        if evaluation and schedule.snapshot_every and r and ledger.path is not None:
            last = r - r % schedule.snapshot_every
            if r - last < schedule.evaluate_every and not snapshots.path_of(ledger.path, r).exists():
                snapshots.save(ledger.path, self.federation.state)
        if schedule.stop_at is None or r not in ledger.evaluations:
            return False
        value = ledger.evaluations[r][self.problem.metric]
        return value >= schedule.stop_at if self.problem.higher_is_better else value <= schedule.stop_at


def _same_run(ledger: Ledger, described: dict[str, Any]) -> None:
    def flat(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
        out: dict[str, Any] = {}
        for name, value in tree.items():
            out |= flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {prefix + name: value}
        return out

    then, now = flat(ledger.header.get("run", {})), flat(described["run"])
    # What follows from other options is named last: another base model also has another base point.
    for name in sorted(then.keys() | now.keys(), key=lambda name: (name in ("base_fingerprint", "layout"), name)):
        if then.get(name) != now.get(name):
            raise LedgerError(
                f"ledger {ledger.path} belongs to another run: {name} is {then.get(name)!r} there and {now.get(name)!r} here"
            )


def curve(ledger: Ledger) -> pd.DataFrame:
    """The evaluations of a ledger in long format: round, bytes_up, bytes_down, forward_passes (all cumulative), metric, value."""
    import pandas as pd

    rows, up, down, forwards = [], 0, 0, 0
    for r in range(len(ledger.rounds) + 1):
        for metric, value in ledger.evaluations.get(r, {}).items():
            rows.append((r, up, down, forwards, metric, value))
        if r < len(ledger.rounds):
            record = ledger.rounds[r]
            up, down, forwards = up + record.bytes_up, down + record.bytes_down, forwards + record.forward_passes
    return pd.DataFrame(rows, columns=["round", "bytes_up", "bytes_down", "forward_passes", "metric", "value"])


class Progress:
    """A progress bar with loss, metric, rounds per second and bytes so far; use as `Run.go(on_round=Progress(run))`."""

    def __init__(self, run: Run) -> None:
        ledger = run.ledger
        self._bytes = sum(record.bytes_up + record.bytes_down for record in ledger.rounds)
        self._bar = tqdm(
            total=run.schedule.rounds,
            initial=len(ledger.rounds),
            unit="round",
            file=sys.stderr,
            dynamic_ncols=True,
            mininterval=0.5,
        )
        self._shown = 0.0

    def __call__(self, run: Run, report: Report) -> None:
        """Advance by one round."""
        self._bytes += report.record.bytes_up + report.record.bytes_down
        self._bar.update()
        if time.monotonic() - self._shown > 0.5:
            self._shown = time.monotonic()
            metric = run.problem.metric
            last = run.ledger.evaluations[max(run.ledger.evaluations)][metric]
            self._bar.set_postfix_str(f"loss {float(report.loss):.4g}, {metric} {last:.4g}, {self._bytes / 1024:.1f} KiB")

    def close(self) -> None:
        """End the bar's line."""
        self._bar.close()
