"""`hiso-bench verify`: decide claims, and compare every verdict with the one that is pinned."""

from __future__ import annotations

import dataclasses
import datetime
import json
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import joblib
import torch
import tyro
from threadpoolctl import threadpool_limits
from tqdm import tqdm

from hiso_bench import catalogue, claims, records, verdicts

PROFILE = "quick"
"""All checks run in minutes on two cores; a claim that needs more is not_run and says what it needs."""


@dataclass
class Verify:
    """Run the checks of the claims and print a verdict for each; the status is 1 if one differs from its pin.

    Attributes:
        ids: which claims (default: all).
        out: where the findings are written, with a page to read beside them (default: results/claims.json and claims.md for
            all claims, nowhere for some).
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
            records.write_bytes(out, (json.dumps(ordered, indent=1, allow_nan=False) + "\n").encode())
            records.write_bytes(out.with_suffix(".md"), verdicts.page(ordered).encode())
        print(verdicts.table(ordered))
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
        done: Any = joblib.Parallel(jobs, return_as="generator_unordered")(work)
        for finding in tqdm(done, "verify", len(wanted), file=sys.stderr, disable=len(wanted) < 3 or not sys.stderr.isatty()):
            yield finding | made


def _decide(claim: claims.Claim) -> dict[str, Any]:
    torch.set_num_threads(1)
    with threadpool_limits(1):  # two checks at a time: threads of small eigenproblems would only wait for each other
        return claims.decide(claim, catalogue.checks()[claim.id])
