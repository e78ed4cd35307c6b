"""`hiso-bench suggest-lr`: a stable learning rate for a problem's loss, from its curvature, checked by short runs."""

from __future__ import annotations

import dataclasses
import json
import typing
from pathlib import Path

import torch
import tyro

from hiso_bench.commands import train


@dataclasses.dataclass
class SuggestLr(train.Train):
    """Estimate the curvature of a problem's loss, and the largest stable step of a method; check it by short runs.

    The loss must be deterministic, and is tried first. Printed are the trace of the Hessian, its largest eigenvalue, the
    effective rank kappa, the whitening rank zeta, the stability limit eta* with an interval, half of it as the suggested
    rate, and what the loss does at eta* x 1/4, 1/2, 1 and 4. The status is 1 if it does not fall at the suggested rate.

    Every option below is as for `train`; --rounds is the length of a short run (200 unless it is given).

    Attributes:
        problem: whose loss.
        method: whose step: one that moves by eta times the plain direction, such as decomfl, mezo, hiso, hiso-oracle.
        runs: short runs per rate, each with its own key.
    """

    method: str = "decomfl"
    runs: int = 3

    out: tyro.conf.Suppress[Path] = Path()

    without: typing.ClassVar[frozenset[str]] = frozenset(
        {"out", "lr", "lr_decay", "evaluate_every", "fingerprint_every", "snapshot_every", "stop_at", "client_lr"}
    )

    def run(self) -> int:
        """Look, run, print."""
        from hiso_bench.suggest import suggest_lr

        torch.set_num_threads(self.threads)
        parts = self.parts(lr=1.0)
        rounds = parts.schedule.rounds if "rounds" in self.given else 200
        found = suggest_lr(
            parts.problem, parts.method, federation=parts.federation, rounds=rounds, runs=self.runs, key=parts.federation.key,
            say=(lambda text: None) if self.quiet else self._say, name=self.method,
        )  # fmt: skip
        print(json.dumps(found.as_dict()) if self.json else found)
        return int(rounds > 0 and not any(t.fraction == 0.5 and t.outcome == "fell" for t in found.trials))
