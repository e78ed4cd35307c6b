"""The command line: `hiso-bench COMMAND`. Options are generated from the classes they configure."""

from __future__ import annotations

import os

# Must be set before torch loads: OpenMP threads that spin while they wait starve every other process.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import contextlib
import dataclasses
import difflib
import io
import re
import shutil
import sys
import textwrap
from collections.abc import Sequence

from hiso_bench import names

PROGRAM = "hiso-bench"
COMMANDS = {
    "train": "run a method on a problem; the same command resumes it",
    "suggest-lr": "a stable learning rate for a problem, checked by short runs",
    "runs": "list runs, compare them, draw their curves",
    "ledger": "show a run's ledger, audit it, replay it into a model",
    "verify": "decide the claims; or check a method of yours",
    "figures": "draw the figures, after the light experiments behind them",
    "results": "recompute recorded results",
    "rerun": "repeat one recorded result and compare the numbers",
    "doctor": "what this machine has, and what it lacks",
}
_RESUMABLE = (["figures"], ["results"], ["rerun"])
"""`train` says so itself, with the round."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit status (0 done, 1 the run failed, 2 bad options, 130 interrupted)."""
    args = list(sys.argv[1:] if argv is None else argv)
    try:
        return _dispatch(args)
    except KeyboardInterrupt:
        goes_on = "; what is finished is kept, and the same command goes on from there" if args[:1] in _RESUMABLE else ""
        print(f"\n{PROGRAM}: interrupted{goes_on}", file=sys.stderr)
        return 130
    except BrokenPipeError:
        return 1
    except FloatingPointError as error:
        return _fail(str(error), 1)
    except (ValueError, OSError) as error:
        return _fail(str(error), 2)


def _fail(message: str, status: int) -> int:
    if os.environ.get("HISO_BENCH_TRACEBACK"):
        raise
    print(f"{PROGRAM}: error: {' '.join(message.split())}", file=sys.stderr)
    return status


def overview() -> str:
    """The first screen: what there is, and how to begin."""
    return "\n".join(
        [
            f"{PROGRAM}: federated zeroth-order optimisation by scalars alone, measured",
            "",
            *(f"  {name:12} {told}" for name, told in COMMANDS.items()),
            "",
            "Begin with",
            f"  {PROGRAM} train --problem quadratic --method hiso --rounds 500",
            f"and see a command's options with `{PROGRAM} COMMAND --help`.",
        ]
    )


def _dispatch(args: list[str]) -> int:
    if args[:1] in ([], ["-h"], ["--help"]):
        print(overview(), file=sys.stdout if args else sys.stderr)
        return 0 if args else 2
    if args == ["--version"]:
        import hiso_bench

        print(hiso_bench.__version__)
        return 0
    if args[0] not in COMMANDS:
        raise ValueError(names.unknown("command", args[0], COMMANDS))
    import tyro

    from hiso_bench.commands import doctor, figures, ledger, rerun, results, runs, suggest_lr, train, verify

    kinds: dict[str, type[train.Train]] = {"train": train.Train, "suggest-lr": suggest_lr.SuggestLr}
    if args[0] in kinds:  # the options load every track
        args = train.with_method_registered(args)
        kinds[args[0]] = train.options(kinds[args[0]], train.named(args) if {"-h", "--help"} & {*args} else None)
    parsers = {
        **kinds,
        "runs": runs.Runs,
        "ledger": ledger.LedgerCommand,
        "verify": verify.Verify,
        "figures": figures.Figures,
        "results": results.Results,
        "rerun": rerun.Rerun,
        "doctor": doctor.Doctor,
    }
    given = _given(args, parsers)
    shown, told = io.StringIO(), io.StringIO()
    try:
        with contextlib.redirect_stdout(shown), contextlib.redirect_stderr(told):
            chosen = tyro.extras.subcommand_cli_from_dict(
                parsers, prog=PROGRAM, args=args, config=(tyro.conf.FlagCreatePairsOff,)
            )
    except SystemExit as stop:
        if not stop.code:
            print(_fitted(shown.getvalue()), end="")
            return 0
        return _fail(f"{_one_line(told.getvalue())} (see {PROGRAM} {args[0]} --help)", 2)
    if isinstance(chosen, train.Train):
        type(chosen).given = given
    return chosen.run()


def _given(args: list[str], parsers: dict[str, type]) -> frozenset[str]:
    """The names of the options that stand on the command line.

    Raises:
        ValueError: one of them is not an option of the command.
    """
    names = {a[2:].split("=")[0].replace("-", "_") for a in args if a.startswith("--")} - {"help"}
    if args[:1] and args[0] in parsers:
        known = {f.name for f in dataclasses.fields(parsers[args[0]])} - getattr(parsers[args[0]], "without", frozenset())
        for name in sorted(names):
            if name not in known and not (name.startswith("no_") and name[3:] in known):
                close = difflib.get_close_matches(name, known, n=3, cutoff=0.6) or sorted(known)
                allowed = ", ".join("--" + option.replace("_", "-") for option in close)
                raise ValueError(f"option --{name.replace('_', '-')} is unknown for {args[0]}; allowed: {allowed} (see --help)")
    return frozenset(names)


def _one_line(box: str) -> str:
    """What tyro's framed message says, without its frame, its title, the hint it ends with, and the texts of options."""
    text = re.sub(r"\x1b\[[0-9;]*m|[╭╮╰╯│]", " ", box).split("For full helptext")[0].split("Argument helptext")[0]
    parts = re.split(r"[-─]{8,}", text)
    body = " ".join(" ".join(parts[1:] if len(parts) > 2 else parts).replace("(required)", "").split())
    if missing := re.match(rf"Missing from {PROGRAM} (\S+): ((?:--\S+ )?(?:\{{[^}}]*\}}|[A-Z]+))", body):
        return f"{missing[1]} needs {missing[2].replace(', ', ',')}"
    return body


def _fitted(text: str) -> str:
    """Help with long lines wrapped: tyro wraps the texts of options alone."""
    width = shutil.get_terminal_size((80, 24)).columns
    lines = []
    for line in text.splitlines():
        indent = re.match(r"[ │]*", line)
        lines += (
            [line.rstrip()]
            if len(line) <= width
            else textwrap.wrap(
                line, width, subsequent_indent=indent[0] if indent else "", break_long_words=False, break_on_hyphens=False
            )
        )
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(main())
