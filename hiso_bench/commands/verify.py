"""`hiso-bench verify`: decide claims, and compare every verdict with the one that is pinned; or check one method."""

from __future__ import annotations

import dataclasses
import datetime
import itertools
import json
import os
import sys
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import joblib
import torch
import tyro
from threadpoolctl import threadpool_limits
from tqdm import tqdm

from hiso_bench import catalogue, claims, method_checks, methods, records, verdicts
from hiso_bench.commands import TOLD
from hiso_bench.method_protocol import FAILS, Check
from hiso_bench.names import unknown

PROFILE = "quick"
"""All checks run in minutes on two cores; a claim that needs more is not_run and says what it needs."""
_LONG = 45.0
"""Seconds above which a command says beforehand how long it will take."""


@dataclass
class Verify:
    """Run the checks of the claims and print a verdict for each; the status is 1 if one differs from its pin.

    With --method: check a method of yours instead. The protocol's promises are tried to the bit (replay, resume, audit, scalars
    alone on the wire), mean and second moment of a round are summed exactly and compared with theory where it applies, and its
    descent on a quadratic stands beside DeComFL's for as many scalars. The status is 1 if a check fails.

    Attributes:
        ids: which claims (default: all).
        method: a registered method, or a file that registers some; its checks are run instead of claims.
        json: print one JSON array instead of a table.
        out: where the findings are written, with a page to read beside them (default: results/claims.json and claims.md for
            all claims, nowhere for some).
        jobs: processes of one torch thread each.
        list: print the claims and their pinned verdicts, and stop.
    """

    ids: Annotated[tuple[str, ...], tyro.conf.Positional, TOLD] = ()
    out: Annotated[Path | None, TOLD] = None
    jobs: int = dataclasses.field(default_factory=lambda: os.cpu_count() or 1)
    list: bool = False
    method: Annotated[str, TOLD] = ""
    json: bool = False

    def run(self) -> int:
        """Decide, write, print."""
        if self.method:
            return self._check_method()
        known = catalogue.claims()
        for id_ in self.ids:
            if id_ not in known:
                raise ValueError(unknown("claim", id_, known))
        wanted = [known[id_] for id_ in dict.fromkeys(self.ids)] or list(known.values())
        if self.list:
            for claim in wanted:
                print(f"{claim.id:24} {claim.verdict:12} {textwrap.shorten(claim.source, 42, placeholder=' ...')}")
            return 0
        if (seconds := _recorded_seconds(wanted) / min(self.jobs, len(wanted))) > _LONG:
            print(f"verify    {len(wanted)} claims: about {seconds / 60:.0f} min in {self.jobs} process(es)", file=sys.stderr)
        found = {finding["id"]: finding for finding in self._decided(wanted)}
        ordered = [found[claim.id] for claim in wanted]
        out = self.out or (None if self.ids else catalogue.RESULTS / "claims.json")
        if out is not None:
            records.write_bytes(out, (json.dumps(ordered, indent=1, allow_nan=False) + "\n").encode())
            records.write_bytes(out.with_suffix(".md"), verdicts.page(ordered).encode())
        print(json.dumps(ordered, allow_nan=False) if self.json else verdicts.table(ordered))
        if out is not None:
            print(f"verify    written to {out}", file=sys.stderr)
        return int(any(not finding["agrees"] for finding in ordered))

    def _check_method(self) -> int:
        if self.ids:
            raise ValueError(f"ids {' '.join(self.ids)} do not go with method; allowed: one or the other")
        torch.set_num_threads(1)
        names = methods.named(self.method)
        subjects = [method_checks.subject(name) for name in names]
        print(f"verify    checking {', '.join(names)}: about {6 * len(names)} s", file=sys.stderr)
        found = {of.name: method_checks.check(of) for of in subjects}
        if self.json:
            print(
                json.dumps([{"method": name, "check": row.name} | row._asdict() for name, rows in found.items() for row in rows])
            )
        else:
            for name, rows in found.items():
                print(f"{name}\n{method_table(rows)}")
        return int(any(row.verdict == FAILS for rows in found.values() for row in rows))

    def _decided(self, wanted: list[claims.Claim]) -> Iterator[dict[str, Any]]:
        made = {
            "profile": PROFILE,
            "version": records.source_version(),
            "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        }
        jobs = min(self.jobs, len(wanted))
        work = (joblib.delayed(_decide)(claim) for claim in wanted)
        done: Any = joblib.Parallel(jobs, return_as="generator_unordered")(work)
        for finding in tqdm(done, "verify", len(wanted), file=sys.stderr, disable=len(wanted) < 3 or not sys.stderr.isatty()):
            yield finding | made


def _recorded_seconds(wanted: Sequence[claims.Claim]) -> float:
    """What the checks took when they were last recorded; 0 for those that were not."""
    path = catalogue.RESULTS / "claims.json"
    recorded = {finding["id"]: finding["seconds"] for finding in json.loads(path.read_bytes())} if path.exists() else {}
    return sum(recorded.get(claim.id, 0.0) for claim in wanted)


def method_table(rows: Sequence[Check]) -> str:
    """The rows in four columns of 80 characters in all; what is longer goes on below itself."""
    widths = (30, 15, 18, 14)
    lines = []
    for row in [Check("check", "predicted", "measured", "verdict"), *rows]:
        cells = [textwrap.wrap(cell, width) or [""] for cell, width in zip(row, widths, strict=True)]
        for parts in itertools.zip_longest(*cells, fillvalue=""):
            lines.append(" ".join(f"{part:{width}}" for part, width in zip(parts, widths, strict=True)).rstrip())
    return "\n".join(lines)


def _decide(claim: claims.Claim) -> dict[str, Any]:
    torch.set_num_threads(1)
    with threadpool_limits(1):  # two checks at a time: threads of small eigenproblems would only wait for each other
        return claims.decide(claim, catalogue.checks()[claim.id])
