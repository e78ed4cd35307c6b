"""`hiso-bench ledger`: what a ledger says, whether x and H can be rebuilt from it, and the model that it describes."""

from __future__ import annotations

import json
import sys
import textwrap
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
import tyro

from hiso_bench import api, catalogue, methods, training
from hiso_bench.commands import TOLD
from hiso_bench.ledger import Ledger, LedgerError
from hiso_bench.problems import Saves


@dataclass
class LedgerCommand:
    """Show a ledger, audit it, or replay it into a model.

    An audit rebuilds x and H from the base point and the ledger alone and checks every fingerprint. A replay does the same and
    saves the model that x is. A method that sends vectors (fedavg, ...) leaves their hashes in its ledger: it can be shown only.

    Attributes:
        action: show, audit or replay.
        file: the ledger, or the folder of its run.
        to: replay: the folder that the model is saved to (a full checkpoint or an adapter, as it was trained); it must not exist.
        model: audit, replay: where the base model is on this machine, if not where the ledger says; its hash decides.
        method: audit, replay: the file that registers the method, if it is none of ours.
        json: print one JSON object instead of text.
    """

    action: Annotated[Literal["show", "audit", "replay"], tyro.conf.Positional]
    file: Annotated[Path, tyro.conf.Positional]
    to: Annotated[Path, TOLD] = Path()
    model: Annotated[str, TOLD] = ""
    method: Annotated[str, TOLD] = ""
    json: bool = False

    def run(self) -> int:
        """Read the file without changing it."""
        if self.action == "replay" and self.to == Path():
            raise ValueError("to is not given: a replay saves the model into a new folder; allowed: --to FOLDER")
        if self.action != "replay" and self.to != Path():
            raise ValueError(f"to {self.to} does not go with {self.action}; allowed: only with replay")
        if self.method:
            methods.named(self.method)
        path = self.file / training.LEDGER_NAME if self.file.is_dir() else self.file
        ledger = Ledger.read(path)
        result = _summary(ledger) if self.action == "show" else _replay(ledger, self.model, self.to)
        if self.json:
            print(json.dumps(result))
        else:
            for name, value in result.items():
                told = ", ".join(f"{k} {v}" for k, v in value.items()) if isinstance(value, dict) else str(value)
                print(textwrap.fill(told, 80, initial_indent=f"{name:15} ", subsequent_indent=" " * 16, break_long_words=False))
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
        "rebuilds": _rebuilds(run.get("method", {}).get("name")),
        "evaluation": {"round": last, **ledger.evaluations[last]} if last is not None else None,
        "torn_bytes": ledger.torn_bytes,
        "made_with": ledger.header.get("made_with"),
    }


def _rebuilds(name: str | None) -> str:
    """What can be made of the ledger of a method."""
    if name in methods.VECTOR_PRESETS:
        return "nothing: the method sends vectors, and the ledger holds their lengths and hashes"
    return "x and all that the method learns, from the base point"


def _replay(ledger: Ledger, model: str, to: Path) -> dict[str, Any]:
    """Audit; and save, unless `to` is empty."""
    run = ledger.header.get("run")
    if not run:
        raise LedgerError(f"ledger {ledger.path} does not say how its run was made")
    if to.exists() and to != Path():
        raise ValueError(f"to {to} exists; allowed: a folder that does not")
    torch.set_num_threads(int(ledger.header["made_with"]["threads"]))
    described = {k: v for k, v in run["problem"].items() if k != "name"}
    at = catalogue.base(run["problem"]["name"], described, model)
    if to != Path() and not isinstance(at, Saves):
        raise ValueError(f"problem {at.name} has no checkpoint to save; audit its ledger instead")
    print(f"replaying {len(ledger.rounds)} rounds", file=sys.stderr)
    state = api.rebuild(ledger, at)
    result = {
        "rounds": state.round,
        "fingerprints": len(ledger.fingerprints),
        "final": f"{state.fingerprint():016x}",
        "verdict": "agrees",
    }
    if isinstance(at, Saves) and to != Path():
        told = {"ledger_chain": ledger.chain.hex(), "problem": run["problem"], "method": run["method"], **result}
        result |= {"saved": at.save(state.x, to, told), "folder": str(to)}
    return result
