"""`hiso-bench ledger`: what a ledger says, and whether x and H can be rebuilt from it."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
import tyro

from hiso_bench import audit, catalogue, training
from hiso_bench.federation import FederationOptions
from hiso_bench.ledger import Ledger, LedgerError


@dataclass
class LedgerCommand:
    """Show a ledger, or audit it: rebuild x and H from the base point and the ledger alone and check every fingerprint.

    Attributes:
        action: show or audit.
        file: the ledger, or the folder of its run.
        json: print one JSON object instead of text.
    """

    action: Annotated[Literal["show", "audit"], tyro.conf.Positional]
    file: Annotated[Path, tyro.conf.Positional]
    json: bool = False

    def run(self) -> int:
        """Read the file without changing it."""
        path = self.file / training.LEDGER_NAME if self.file.is_dir() else self.file
        ledger = Ledger.read(path)
        result = _summary(ledger) if self.action == "show" else _audit(ledger)
        if self.json:
            print(json.dumps(result))
        else:
            for name, value in result.items():
                print(f"{name:15} {value}")
        return 0


def _summary(ledger: Ledger) -> dict[str, Any]:
    run = ledger.header.get("run", {})
    rounds = ledger.rounds
    last = max(ledger.evaluations, default=None)
    return {
        "problem": run.get("problem", {}).get("name"),
        "method": run.get("method", {}).get("name"),
        "rounds": len(rounds),
        "empty_rounds": sum(not r.answered for r in rounds),
        "bytes_up": sum(r.bytes_up for r in rounds),
        "bytes_down": sum(r.bytes_down for r in rounds),
        "forward_passes": sum(r.forward_passes for r in rounds),
        "fingerprints": len(ledger.fingerprints),
        "evaluation": {"round": last, **ledger.evaluations[last]} if last is not None else None,
        "torn_bytes": ledger.torn_bytes,
        "made_with": ledger.header.get("made_with"),
    }


def _audit(ledger: Ledger) -> dict[str, Any]:
    run = ledger.header.get("run")
    if not run:
        raise LedgerError(f"ledger {ledger.path} does not say how its run was made")
    torch.set_num_threads(int(ledger.header["made_with"]["threads"]))
    described = dict(run["problem"])
    at = catalogue.problem(described.pop("name"), described)
    options = {k: float("inf") if v == "inf" else v for k, v in run["method"].items() if k not in ("name", "h")}
    method = catalogue.method(run["method"]["name"], options, at)
    print(f"replaying {len(ledger.rounds)} rounds", file=sys.stderr)
    state = audit.audit(ledger, at, method, FederationOptions(**run["federation"]))
    return {
        "rounds": state.round,
        "fingerprints": len(ledger.fingerprints),
        "final": f"{state.fingerprint():016x}",
        "verdict": "agrees",
    }
