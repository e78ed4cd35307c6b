"""`hiso-bench train`: any problem, any method, every option; it resumes by itself."""

from __future__ import annotations

import dataclasses
import inspect
import itertools
import json
import sys
import time
import typing
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
import tyro
from docstring_parser import parse

from hiso_bench import catalogue, methods, recorded_rates, records, training
from hiso_bench.commands import TOLD
from hiso_bench.federation import FederationOptions
from hiso_bench.problems import Problem
from hiso_bench.training import Progress, Run, Schedule

_NOT_OPTIONS = {"h", "replicates", "dataset", "on_divergence", "evaluate_on", "control_key"}


class Parts(typing.NamedTuple):
    """What a run is made of."""

    problem: Problem
    method: Any
    federation: FederationOptions
    schedule: Schedule


@dataclasses.dataclass
class Train:
    """Run one method on one problem through the federation, writing a ledger; the same command resumes it.

    Every option has the method's or the problem's own default unless it is given; an option that the chosen method or
    problem does not have is an error. Help shows those of the method (hiso) and the problem (none) that stand before --help.

    Attributes:
        problem: what is trained: quadratic, logistic, nonconvex (no data needed), digits (embedded), mnist, fashion (data folder
            or download), lm (a causal language model; `--model`, `--task`), minilm (the last `--layers` of a pretrained encoder).
        method: how: decomfl, hiso and its versions hiso-a ... hiso-f, controls hiso-scalar, hiso-shuffled, hiso-oracle, ...;
            baselines that send vectors: fedavg, fedadam, fedyogi, fedadagrad, fedzo, fedavg-topk, fedcom, ...; or a file of yours
            that registers one.
        out: folder of ledger and snapshots (default: runs/<problem>-<method>-<hash of the options>).
        json: end with one JSON object on standard output.
        quiet: no progress bar.
        threads: torch threads.
    """

    problem: str
    method: str = "hiso"
    out: Annotated[Path, TOLD] = Path()
    json: bool = False
    quiet: bool = False
    threads: int = torch.get_num_threads()

    given: typing.ClassVar[frozenset[str]] = frozenset()
    without: typing.ClassVar[frozenset[str]] = frozenset()

    def run(self) -> int:
        """Train, print where the ledger is, and the JSON object if asked for."""
        if self.threads < 1:
            raise ValueError(f"threads {self.threads} is out of range; allowed: >= 1")
        torch.set_num_threads(self.threads)
        started = time.monotonic()
        live = self.build()
        if live.ledger.torn_bytes:
            self._say(f"cut a torn tail of {live.ledger.torn_bytes} bytes off the ledger (kept beside it)")
        if live.resumed:
            self._say(f"resuming {live.ledger.path} at round {live.federation.state.round}")
        bar = None if self.quiet else Progress(live)
        try:
            live.go(bar)
        except KeyboardInterrupt:
            self._say(f"\nstopped after round {live.federation.state.round}; the same command goes on from there")
            return 130
        finally:
            if bar is not None:
                bar.close()
            live.ledger.close()
        self._report(live, time.monotonic() - started)
        return 0

    def build(self) -> Run:
        """The run that the options describe."""
        of = self.parts()
        folder = self.out
        if folder == Path():
            said = training.header(of.problem, self.method, of.method, of.federation, of.schedule)["run"]
            folder = Path("runs") / f"{self.problem}-{self.method}-{records.config_hash(said)}"
        return Run(of.problem, self.method, of.method, of.federation, of.schedule, folder)

    def parts(self, lr: float | None = None) -> Parts:
        """What the options describe; what can be refused without the problem is refused before it is built.

        Args:
            lr: taken where none is given; else the winner of the recorded grid is.
        """
        kinds = {name: catalogue.problem_class(name) for name in (self.problem, *catalogue.PROBLEMS)}
        described = self._pick(*(_parameters(kind) for kind in kinds.values()))
        chosen = self._method_options(_defaults(kinds[self.problem]) | described, lr)
        schedule, picked = Schedule(**self._pick(_fields(Schedule))), self._pick(_fields(FederationOptions))
        FederationOptions(**picked)
        at = catalogue.problem(self.problem, described)
        method = catalogue.method(self.method, chosen, at)
        sampled = min(catalogue.PROBLEMS[self.problem].federation["sampled"], at.clients)
        federation = FederationOptions(**{"sampled": sampled} | dict(method.federation_options) | picked)
        return Parts(at, method, federation, schedule)

    def _method_options(self, described: dict[str, Any], lr: float | None) -> dict[str, Any]:
        needs_h = "h" in methods.options(self.method)
        chosen = self._pick(*map(_fields, methods.kinds()))
        if "lr" not in chosen | methods.options(self.method):
            if lr is None:
                chosen["lr"], told = recorded_rates.rate(self.problem, self.method, chosen, described)
                self._say(told)
            else:
                chosen["lr"] = lr
            chosen = recorded_rates.oracle_options(self.method) | chosen
        if not needs_h:
            methods.build(self.method, chosen)
        return chosen

    def _pick(self, *names: Iterable[str]) -> dict[str, Any]:
        """The options on the command line among `names`."""
        return {name: getattr(self, name) for name in sorted(set().union(*names) & self.given - _NOT_OPTIONS)}

    def _report(self, live: Run, seconds: float) -> None:
        curve = training.curve(live.ledger)
        at_end = curve[curve["round"] == curve["round"].max()]
        metrics: dict[str, float] = dict(zip(at_end["metric"], at_end["value"], strict=True))
        last = at_end.iloc[-1]
        name = live.problem.metric
        watched = "" if name == "loss" else f", {name} {metrics[name]:.5g}"
        self._say(
            f"{last['round']} rounds: loss {metrics['loss']:.5g}{watched}, {last['bytes_up']} bytes up, "
            f"{last['bytes_down']} down\nledger {live.ledger.path}"
        )
        if self.json:
            result = {
                "rounds": int(last["round"]),
                "loss": metrics["loss"],
                "metric": metrics[name],
                "metric_name": name,
                "bytes_up": int(last["bytes_up"]),
                "bytes_down": int(last["bytes_down"]),
                "forward_passes": int(last["forward_passes"]),
                "seconds": round(seconds, 3),
                "ledger": str(live.ledger.path),
            }
            print(json.dumps(result))

    @staticmethod
    def _say(text: str) -> None:
        print(text, file=sys.stderr)


def _fields(kind: type) -> list[str]:
    return [f.name for f in dataclasses.fields(kind)]


def _parameters(kind: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    return dict(inspect.signature(kind).parameters)


def _defaults(kind: Callable[..., Any]) -> dict[str, Any]:
    return {name: p.default for name, p in _parameters(kind).items() if p.default is not p.empty}


def with_method_registered(args: Sequence[str]) -> list[str]:
    """The command line with the name of its method in place of the file that registers it.

    Raises:
        ValueError: the file is not there, or it registers none or several.
    """
    out = list(args)
    for i, arg in enumerate(args):
        before, given = ("--method=", arg[9:]) if arg.startswith("--method=") else ("", arg)
        if (before or args[i - 1] == "--method") and given.endswith(".py"):
            found = methods.load(Path(given))
            if len(found) > 1:
                raise ValueError(f"method {given} registers {', '.join(found)}; allowed: a file that registers one")
            out[i] = before + found[0]
    return out


def named(args: Sequence[str]) -> tuple[str, str]:
    """Problem and method on a command line; empty: none is named, or none of that name is known."""
    given = dict(arg[2:].split("=", 1) for arg in args if arg.startswith("--") and "=" in arg)
    given |= {a[2:]: b for a, b in itertools.pairwise(args) if a.startswith("--") and "=" not in a}
    problem, method = given.get("problem", ""), given.get("method", "")
    known = method in methods.PRESETS or method in methods.VECTOR_PRESETS
    return problem if problem in catalogue.PROBLEMS else "", method if known else ""


def options(base: type[Train] = Train, only: tuple[str, str] | None = None) -> type[Train]:
    """`Train`, or a command like it, with a field for every option of methods, problems, federation and schedule.

    Their docstrings describe them.

    Args:
        base: the command.
        only: a problem and a method: no options of others; an empty problem has none, an empty method is the default one. For
            help, which is long enough then.
    """
    fields: dict[str, tuple[str, Any, Any]] = {}
    methods_shown, problems_shown = methods.kinds(), [catalogue.problem_class(name) for name in catalogue.PROBLEMS]
    if only is not None:
        problem, method = only
        methods_shown = [methods.kind(method or base.method)]
        problems_shown = [catalogue.problem_class(problem)] if problem else []
    problems = [catalogue.problem_class(name) for name in catalogue.PROBLEMS]
    defaults = [_defaults(kind) for kind in problems]
    own = {name for name in set().union(*defaults) if len({d[name] for d in defaults if name in d}) > 1}

    def add(owner: Any, name: str, kind: Any, default: Any) -> None:
        if name in fields or name in _NOT_OPTIONS or name in base.without:
            return
        described = {p.arg_name: p.description for p in parse(owner.__doc__ or "").params}
        text = " ".join((described.get(name) or "").split())
        if kind in (float | torch.Tensor, "Value") or default is dataclasses.MISSING:
            kind = float
        hint = "" if default in ("", ()) else None
        if name == "lr":
            default, hint = 0.0, "(default: the winner of the recorded grid)"
        elif name in own or name in ("sampled", "spectrum_family"):
            hint = "(default: the problem's)"
        elif name == "stop_at":
            kind, default, hint = float, float("nan"), "(default: never)"
        fields[name] = (
            name,
            Annotated[kind, tyro.conf.arg(help=text, help_behavior_hint=hint)],
            dataclasses.field(default=default),
        )

    for kind in methods_shown:
        hints = typing.get_type_hints(kind)
        for f in dataclasses.fields(kind):
            add(_owner(kind, f.name), f.name, hints[f.name], f.default)
    for kind in (FederationOptions, Schedule):
        hints = typing.get_type_hints(kind)
        for f in dataclasses.fields(kind):
            add(kind, f.name, hints[f.name], f.default)
    for kind in problems_shown:
        hints = typing.get_type_hints(kind.__init__)  # type: ignore[misc]
        for parameter in _parameters(kind).values():
            add(kind, parameter.name, hints[parameter.name], parameter.default)
    described = {"__doc__": base.__doc__}
    made = dataclasses.make_dataclass(base.__name__, list(fields.values()), bases=(base,), namespace=described)
    made.__annotations__["problem"] = Literal[tuple(catalogue.PROBLEMS)]  # type: ignore[valid-type]
    return made


def _owner(kind: type, name: str) -> type:
    """The class of the method's family whose docstring describes an option."""
    return next(k for k in reversed(kind.__mro__) if name in getattr(k, "__annotations__", {}))
