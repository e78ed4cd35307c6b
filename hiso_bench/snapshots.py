"""Snapshots of the shared state beside a ledger: caches that shorten a resume, never the authority.

A snapshot is written under a temporary name and renamed. It is used only if it belongs to the ledger (its fingerprint
is the one the ledger holds for that round) and its own bits still have that fingerprint; otherwise it is passed over.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch

from hiso_bench.ledger import Ledger
from hiso_bench.points import Layout
from hiso_bench.state import State

KEEP = 2


def path_of(ledger: Path, round_: int) -> Path:
    """Where the snapshot after `round_` rounds lies."""
    return ledger.with_name(f"{ledger.name}.snapshot-{round_:09d}")


def save(ledger: Path, state: State) -> None:
    """Write a snapshot and drop all but the newest two."""
    target = path_of(ledger, state.round)
    temporary = target.with_name(target.name + ".new")
    content = {"x": state.x, "buffers": state.buffers, "round": state.round}
    with open(temporary, "wb") as file:
        torch.save(content, file)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, target)
    for old in sorted(ledger.parent.glob(f"{ledger.name}.snapshot-*[0-9]"))[:-KEEP]:
        old.unlink()


def newest_valid(ledger: Ledger, layout: Layout) -> State | None:
    """The newest snapshot that belongs to the ledger and is intact, or None."""
    if ledger.path is None:
        return None
    for path in sorted(ledger.path.parent.glob(f"{ledger.path.name}.snapshot-*[0-9]"), reverse=True):
        try:
            state = _load(path, layout)
            if ledger.fingerprints.get(state.round) == state.fingerprint():
                return state
        except Exception:  # one wrong byte makes the reader fail in any way; the ledger has everything
            continue
    return None


def _load(path: Path, layout: Layout) -> State:
    content: dict[str, Any] = torch.load(path, weights_only=True)
    return State(layout, tuple(content["x"]), {k: tuple(v) for k, v in content["buffers"].items()}, content["round"])
