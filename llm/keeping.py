"""Models that this project makes, kept in the user cache: each made once, and seen whole or not at all."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from filelock import FileLock

from hiso_bench.datafiles import DataError
from llm.hub import ModelError

WEIGHTS = "model.safetensors"


def keep(target: Path, name: str, about: str, make: Callable[[Path], dict[str, Any]]) -> Path:
    """The folder `target`, made if it is not there or if its weights are not those that were written into it.

    It is written under a temporary name and renamed, so that nobody sees half of it, and a process waits for another that is
    already making the same folder.

    Args:
        target: the folder; its name should be a hash of all that the model depends on.
        name: of the model, for messages.
        about: name of the file that says how the model was made.
        make: writes the model into the folder that it is given (as `save_pretrained` does), and returns what `about` is to say.

    Raises:
        llm.hub.ModelError: the cache cannot be written to.
        hiso_bench.datafiles.DataError: as `make` does.

    Cost: a hash over the weights, and what `make` costs.
    """
    if _whole(target, about):
        return target
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(target.with_suffix(".lock")):
            if not _whole(target, about):
                _make(target, about, make)
    except DataError:
        raise
    except OSError as error:
        reason = f"{type(error).__name__}: {error.strerror or error}"
        raise ModelError(
            f"{name} cannot be kept in {target.parent} ({reason}); set XDG_CACHE_HOME to a folder that can be written to"
        ) from error
    return target


def _whole(target: Path, about: str) -> bool:
    """Whether the folder is there, with the weights that were written into it."""
    try:
        known = json.loads((target / about).read_text())
        with open(target / WEIGHTS, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest() == known["sha256"]
    except (OSError, ValueError):
        return False


def _make(target: Path, about: str, make: Callable[[Path], dict[str, Any]]) -> None:
    """Write beside the target, and rename. Only who holds the lock comes here, so what is there was left by a killed process."""
    temporary = target.with_name(f".{target.name}.new")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir()
    try:
        told = make(temporary)
        with open(temporary / WEIGHTS, "rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        (temporary / about).write_text(json.dumps({"sha256": digest} | told, indent=1) + "\n")
        shutil.rmtree(target, ignore_errors=True)  # what is there is not whole
        os.replace(temporary, target)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
