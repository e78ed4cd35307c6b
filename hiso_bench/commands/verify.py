"""`hiso-bench verify`: decide claims, and compare every verdict with the one that is pinned."""

from __future__ import annotations

import dataclasses
import datetime
import json
import os
import shutil
import sys
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import joblib
import torch
import tyro
from tqdm import tqdm

from hiso_bench import catalogue, claims, records

PROFILE = "quick"
"""All checks run in minutes on two cores; a claim that needs more is not_run and says what it needs."""


@dataclass
class Verify:
    """Run the checks of the claims and print a verdict for each; the status is 1 if one differs from its pin.

    Attributes:
        ids: which claims (default: all).
        out: where the findings are written (default: results/claims.json for all claims, nowhere for some).
        jobs: processes of one torch thread each.
        list: print the claims and their pinned verdicts, and stop.
    """

    ids: Annotated[tuple[str, ...], tyro.conf.Positional] = ()
    out: Path | None = None
    jobs: int = dataclasses.field(default_factory=lambda: os.cpu_count() or 1)
    list: bool = False

    def run(self) -> int:
        """Decide, write, print."""
        known = catalogue.claims()
        for id_ in self.ids:
            if id_ not in known:
                raise ValueError(f"claim {id_!r} is unknown; allowed: {', '.join(known)}")
        wanted = [known[id_] for id_ in dict.fromkeys(self.ids)] or list(known.values())
        if self.list:
            for claim in wanted:
                print(f"{claim.id:24} {claim.verdict:12} {claim.source}")
            return 0
        found = {finding["id"]: finding for finding in self._decided(wanted)}
        ordered = [found[claim.id] for claim in wanted]
        out = self.out or (None if self.ids else catalogue.RESULTS / "claims.json")
        if out is not None:
            records.write_bytes(out, (json.dumps(ordered, indent=1) + "\n").encode())
        print(table(ordered))
        if out is not None:
            print(f"verify    written to {out}", file=sys.stderr)
        return int(any(not finding["agrees"] for finding in ordered))

    def _decided(self, wanted: list[claims.Claim]) -> Iterator[dict[str, Any]]:
        made = {
            "profile": PROFILE,
            "version": records.source_version(),
            "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        }
        jobs = min(self.jobs, len(wanted))
        work = (joblib.delayed(_decide)(claim) for claim in wanted)
        done = joblib.Parallel(jobs, return_as="generator_unordered")(work)
        for finding in tqdm(done, "verify", len(wanted), file=sys.stderr, disable=len(wanted) < 3 or not sys.stderr.isatty()):
            yield finding | made


def _decide(claim: claims.Claim) -> dict[str, Any]:
    torch.set_num_threads(1)
    return claims.decide(claim, catalogue.checks()[claim.id])


def table(findings: list[dict[str, Any]]) -> str:
    """One line a claim, then what needs a reader: pins that differ, and why."""
    lines = [f"{'claim':22} {'verdict':12} {'predicted':>10} {'measured':>10}  {'99.9 % interval':24} {'control':8} {'s':>5}"]
    for f in findings:
        interval = f"[{_number(f['low'])}, {_number(f['high'])}]"
        control = "-" if f["control"] is None else "works" if all(c["worked"] for c in f["controls"]) else "BROKEN"
        mark = "" if f["agrees"] else f"  pinned {f['pinned']}"
        lines.append(
            f"{f['id']:22} {f['verdict']:12} {_number(f['prediction']):>10} {_number(f['measured']):>10}  {interval:24} "
            f"{control:8} {f['seconds']:5.1f}{mark}"
        )
    counts = {v: sum(f["verdict"] == v for f in findings) for v in dict.fromkeys(f["verdict"] for f in findings)}
    differ = [f for f in findings if not f["agrees"]]
    told = ", ".join(f"{n} {verdict}" for verdict, n in counts.items())
    lines.append(f"{len(findings)} claims: {told}; {len(differ)} differ from their pin")
    width = shutil.get_terminal_size((120, 24)).columns
    for f in [f for f in findings if f["reason"]]:
        lines += textwrap.wrap(f"{f['id']}: {f['reason']}", width, subsequent_indent="  ")
    return "\n".join(lines)


def _number(value: float | str | None) -> str:
    return "-" if value is None else value if isinstance(value, str) else f"{value:.4g}"
