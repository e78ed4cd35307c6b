"""`make mutants`: every planted bug must be caught, and the code without one must raise no alarm.

Each bug is installed in a fresh process before any test is imported, then meets the fast tests, which stop
at the first failure. What survives them meets the claims. The unmutated code then meets everything that caught a bug, and
its sampling tests are run with fresh keys. Writes results/mutants.json.

A clean checkout keeps each outcome in runs/mutants/ and goes on there after a stop; another commit begins anew.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import io
import json
import multiprocessing
import os
import re
import signal
import sys
import time
from pathlib import Path

# Forked children start with what takes long to import, and with nothing of the project.
import pandas  # noqa: F401
import pytest
import scipy.stats  # noqa: F401
import torch
from tqdm import tqdm

from tests.mutants.mutant import Mutant

ROOT = Path(__file__).resolve().parents[2]
TIERS = ("exact/test_*.py", "expectation/test_*.py", "sampling/test_*.py", "contract/test_methods.py")
FILES = (
    "estimator", "protocol", "theory", "blind_estimator", "blind_protocol", "language", "neighbours", "second_differences",
    "results", "recorded", "first_order", "surface", "newer_methods", "newer_theory",
)  # fmt: skip
OPTIONS = ("-x", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", "--rootdir", str(ROOT))
KEPT = ROOT / "runs" / "mutants"
KEYS = 200
FIRST_FRESH_KEY = 10_000
LIMIT_SECONDS = 600
"""Of processor time; a bug that outlasts it counts as a survivor."""


def mutants() -> list[Mutant]:
    """All planted bugs, in order."""
    found = [m for file in FILES for m in importlib.import_module(f"tests.mutants.{file}").MUTANTS]
    names = [m.name for m in found]
    if len(set(names)) < len(names):
        raise ValueError(f"two mutants are called {next(name for name in names if names.count(name) > 1)!r}")
    return found


def test_files(mutant: Mutant | None) -> list[list[str]]:
    """The fast test files in the order in which a bug meets them: what caught it last, its own, those that name it, the rest."""
    found = {str(path.relative_to(ROOT)): path for tier in TIERS for path in sorted((ROOT / "tests").glob(tier))}
    if mutant is None:
        return [list(found)]
    last = _last_time().get(mutant.name, "").partition("::")[0]
    # `from hiso_bench.theory import bounds` names hiso_bench.theory.bounds as well.
    parent, _, leaf = mutant.module.rpartition(".")
    names = re.compile(rf"{re.escape(mutant.module)}\b|from {re.escape(parent)} import .*\b{leaf}\b")
    # The contract tests are not fast as a whole; those that name the module are met as well.
    near = found | {str(path.relative_to(ROOT)): path for path in sorted((ROOT / "tests" / "contract").glob("test_*.py"))}
    first = [last] if last in near else []
    first += [name for name in (f"tests/{test}" for test in mutant.tests) if name != last]
    if gone := sorted(set(first) - set(near)):
        raise ValueError(f"mutant {mutant.name!r} names test file {gone[0]}, which is not there")
    named = [name for name, path in near.items() if name not in first and names.search(path.read_text())]
    parts = [first, named, [name for name in found if name not in first and name not in named]]
    return [part for part in parts if part]


def _last_time() -> dict[str, str]:
    """Bug -> the test that caught it when results/mutants.json was written: it decides the order of the tests, nothing else."""
    path = ROOT / "results" / "mutants.json"
    return {m["name"]: m["caught_by"] for m in json.loads(path.read_text())["mutants"]} if path.exists() else {}


class _First:
    """A pytest plugin that remembers the first test that failed."""

    def __init__(self) -> None:
        self.test, self.why = "", ""

    def pytest_runtest_logreport(self, report):
        if report.failed and not self.test:
            self._keep(report.nodeid, report)

    def pytest_collectreport(self, report):
        if report.failed and not self.test:
            self._keep(f"collection of {report.nodeid}", report)

    def _keep(self, test, report):
        crash = getattr(report.longrepr, "reprcrash", None)
        self.test, self.why = test, (crash.message if crash else str(report.longrepr)).splitlines()[0][:160]


def meet(mutant: Mutant | None) -> dict:
    """Run the fast tests, and if they all pass the claims, with a bug installed; call it in a process of its own."""
    started = time.perf_counter()
    torch.set_num_threads(1)
    signal.signal(signal.SIGPROF, _out_of_time)
    signal.setitimer(signal.ITIMER_PROF, LIMIT_SECONDS)
    caught_by, why = "", ""
    with contextlib.ExitStack() as stack, contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        if mutant:
            stack.enter_context(mutant.install())
        first = _First()
        try:
            for files in test_files(mutant):
                status = pytest.main([*OPTIONS, *files], plugins=[first])
                caught_by, why = first.test, first.why
                if status != 0 and not caught_by:
                    caught_by = f"pytest stopped with status {int(status)}"
                if caught_by:
                    break
            if not caught_by and mutant:
                caught_by, why = _first_claim()
        except TimeoutError:
            caught_by, why = "", f"met the tests for {LIMIT_SECONDS} s"
    signal.setitimer(signal.ITIMER_PROF, 0)
    about = {"name": mutant.name, "module": mutant.module, "what": mutant.what} if mutant else {}
    return about | {"caught_by": caught_by, "why": why, "seconds": round(time.perf_counter() - started, 1)}


def _first_claim() -> tuple[str, str]:
    """The first claim whose verdict is not the pinned one."""
    from hiso_bench import catalogue, claims

    for id_, claim in catalogue.claims().items():
        found = claims.decide(claim, catalogue.checks()[id_])
        if not found["agrees"]:
            return f"claim {id_}", found["reason"] or f"verdict {found['verdict']}, pinned {claim.verdict}"
    return "", ""


def _out_of_time(*_):
    raise TimeoutError


def _named(name: str) -> dict:
    return meet(next(m for m in mutants() if m.name == name) if name else None)


def _kept(name: str) -> dict:
    """As `_named`, once for every state of the code."""
    from hiso_bench import records

    version = records.source_version()
    if "+" in version:
        return _named(name)
    path = KEPT / f"{records.config_hash({'name': name, 'version': version})}.json"
    if not path.exists():
        records.write_bytes(path, json.dumps(_named(name)).encode())
    return json.loads(path.read_text())


def _sound(tests: list[str]) -> str:
    """The first of some tests that fails without a planted bug."""
    torch.set_num_threads(1)
    first = _First()
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        pytest.main([*OPTIONS, *tests], plugins=[first])
    return f"{first.test}: {first.why}" if first.test else ""


def _alarms(key: int) -> list[str]:
    """Which sampling tests reject the unmutated code with this key."""
    from tests.sampling import recursion  # noqa: F401 - registers the tests
    from tests.sampling.registry import TESTS

    torch.set_num_threads(1)
    return [test.name for test in TESTS.values() if test.statistic(key) < test.alpha]


def main() -> int:
    """Meet every bug, then count false alarms; 1 if a bug survives or the sound code raises an alarm."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", help="only these bugs, without the false alarms; nothing is written")
    parser.add_argument("--jobs", type=int, default=os.cpu_count())
    args = parser.parse_args()
    os.chdir(ROOT)
    known = {m.name: m for m in mutants()}
    for name in args.names:
        if name not in known:
            parser.error(f"mutant {name!r} is unknown; allowed: {', '.join(known)}")
    fork = multiprocessing.get_context("fork")
    alarms: list[list[str]] = []
    with fork.Pool(args.jobs, maxtasksperchild=1) as pool:
        unmutated = None if args.names else pool.apply_async(_named, ("",))
        names = args.names or list(known)
        bar = {"file": sys.stderr, "disable": not sys.stderr.isatty()}
        found = {}
        meets = _named if args.names else _kept
        for one in tqdm(pool.imap_unordered(meets, names), "mutants", len(names), **bar):
            found[one["name"]] = one
            tqdm.write(f"{one['name']:40} {one['seconds']:6.1f} s  {one['caught_by'] or 'SURVIVED'}", file=sys.stdout)
            sys.stdout.flush()
        sound = unmutated.get() if unmutated else {"caught_by": ""}
        fails = f"{sound['caught_by']}: {sound['why']}" if sound["caught_by"] else ""
        # All fast tests have been met; what is left are the others that caught a bug.
        kind = "tests/" if args.names else "tests/contract/"
        caught_by = {one["caught_by"] for one in found.values() if one["caught_by"].startswith(kind)}
        fails = fails or (pool.apply(_sound, (sorted(caught_by),)) if caught_by else "")
    if fails:
        print(f"the code without a planted bug fails {fails}", file=sys.stderr)
        return 2
    if not args.names:
        fresh = range(FIRST_FRESH_KEY, FIRST_FRESH_KEY + KEYS)
        with fork.Pool(args.jobs) as pool:
            alarms = list(tqdm(pool.imap_unordered(_alarms, fresh), "fresh keys", KEYS, **bar))
    caught, false = sum(bool(f["caught_by"]) for f in found.values()), sum(map(len, alarms))
    print(f"{caught} of {len(names)} caught; {false} false alarms in {len(alarms)} keys")
    if not args.names:
        from hiso_bench import catalogue, records

        report = {"total": len(names), "caught": caught, "keys": KEYS, "false_alarms": false,
                  "sampling_tests_alarmed": sorted({name for part in alarms for name in part}),
                  "version": records.source_version(), "mutants": [found[name] for name in names]}  # fmt: skip
        records.write_bytes(catalogue.RESULTS / "mutants.json", (json.dumps(report, indent=1) + "\n").encode())
    return int(caught < len(names) or false > 0)


if __name__ == "__main__":
    sys.exit(main())
