"""The command line: `hiso-bench train | suggest-lr | runs | ledger | figures | results | rerun | verify | doctor`.

Options are generated from the classes they configure.
"""

from __future__ import annotations

import os

# Must be set before torch loads: OpenMP threads that spin while they wait starve every other process.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import contextlib
import dataclasses
import difflib
import io
import re
import sys
from collections.abc import Sequence

PROGRAM = "hiso-bench"


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit status (0 done, 1 the run failed, 2 bad options, 130 interrupted)."""
    args = list(sys.argv[1:] if argv is None else argv)
    try:
        return _dispatch(args)
    except KeyboardInterrupt:
        print(f"\n{PROGRAM}: interrupted", file=sys.stderr)
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


def _dispatch(args: list[str]) -> int:
    import tyro

    from hiso_bench.commands import doctor, figures, ledger, rerun, results, runs, suggest_lr, train, verify

    parsers = {
        "train": train.options() if args[:1] == ["train"] else train.Train,  # the full options load every track
        "suggest-lr": train.options(suggest_lr.SuggestLr) if args[:1] == ["suggest-lr"] else suggest_lr.SuggestLr,
        "runs": runs.Runs,
        "ledger": ledger.LedgerCommand,
        "figures": figures.Figures,
        "results": results.Results,
        "rerun": rerun.Rerun,
        "verify": verify.Verify,
        "doctor": doctor.Doctor,
    }
    given = _given(args, parsers)
    told = io.StringIO()
    try:
        with contextlib.redirect_stderr(told):
            chosen = tyro.extras.subcommand_cli_from_dict(parsers, prog=PROGRAM, description=__doc__, args=args)
    except SystemExit as stop:
        if not stop.code:
            return 0
        return _fail(
            f"{_one_line(told.getvalue())} (see {PROGRAM} {args[0] + ' ' if args[:1] in ([p] for p in parsers) else ''}--help)", 2
        )
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
        known = {f.name for f in dataclasses.fields(parsers[args[0]])}
        for name in sorted(names):
            if name not in known and not (name.startswith("no_") and name[3:] in known):
                close = difflib.get_close_matches(name, known, n=3, cutoff=0.6) or sorted(known)
                allowed = ", ".join("--" + option.replace("_", "-") for option in close)
                raise ValueError(f"option --{name.replace('_', '-')} is unknown for {args[0]}; allowed: {allowed} (see --help)")
    return frozenset(names)


def _one_line(box: str) -> str:
    """The text of tyro's framed message, without the frame and the hint it ends with."""
    text = re.sub(r"\x1b\[[0-9;]*m|[╭╮╰╯│─]", " ", box).split("For full helptext")[0].split("Argument helptext")[0]
    return " ".join(text.split())


if __name__ == "__main__":
    sys.exit(main())
