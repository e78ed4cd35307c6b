"""Results on disk: one long-format CSV and one JSON sidecar that says exactly what made it.

The sidecar holds the configuration and its hash, the experiment's integer version, the source version, library
versions, the device, the date, and the SHA-256 of the CSV. Files are written under a temporary name and renamed, CSV
first: a sidecar never describes a file that is not there.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import os
import platform
import subprocess
from collections.abc import Iterator
from contextvars import ContextVar
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

import hiso_bench

if TYPE_CHECKING:  # loaded where a table is read: it takes half a second, which every command would pay
    import pandas as pd

SCHEMA = 1
_ASKING: ContextVar[tuple[Path, dict[str, tuple[dict[str, Any], int]]] | None] = ContextVar("asking", default=None)
_OUTPUTS = ("results", "figures/gallery", "paper/*.pdf")
"""Of a checkout: what commands write, and no command's numbers depend on unless its configuration says so."""
_LIBRARIES = ("numpy", "pandas", "scipy", "torch")


class RecordError(ValueError):
    """A result that is missing, damaged, or of another schema."""


def config_hash(config: dict[str, Any]) -> str:
    """Twelve hex digits that name a configuration."""
    return hashlib.sha256(json.dumps(config, sort_keys=True).encode()).hexdigest()[:12]


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.new")
    with open(temporary, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)


def write(frame: pd.DataFrame, path: Path, config: dict[str, Any], version: int) -> None:
    """Write `frame` to `path` (.csv) and its sidecar beside it (.json).

    Args:
        frame: long format, one value a row where possible.
        path: ends in .csv.
        config: everything that the numbers depend on, JSON-able.
        version: of the experiment; raise it when the experiment changes its meaning.
    """
    content = frame.to_csv(index=False, lineterminator="\n").encode()
    write_bytes(path, content)
    sidecar = {
        "schema": SCHEMA,
        "file": path.name,
        "sha256": hashlib.sha256(content).hexdigest(),
        "config": config,
        "config_hash": config_hash(config),
        "version": version,
        "source": source_version(),
        "date": datetime.now(UTC).date().isoformat(),
        "device": f"{torch.get_num_threads()} CPU thread(s), {platform.machine()}",
        "libraries": {name: metadata.version(name) for name in _LIBRARIES} | {"python": platform.python_version()},
    }
    write_bytes(path.with_suffix(".json"), (json.dumps(sidecar, indent=1, sort_keys=True) + "\n").encode())


def sidecar(path: Path) -> dict[str, Any]:
    """The sidecar of a result.

    Raises:
        RecordError: there is none, it cannot be read, or it is of another schema.
    """
    target = path.with_suffix(".json")
    try:
        content = json.loads(target.read_text())
    except (OSError, json.JSONDecodeError) as error:
        raise RecordError(f"result {path} has no readable sidecar {target.name}: {error}") from error
    if content.get("schema") != SCHEMA:
        raise RecordError(f"result {path} has schema {content.get('schema')}; this version reads {SCHEMA}")
    return content


def read(path: Path) -> tuple[pd.DataFrame, dict[str, Any]]:
    """A result and its sidecar.

    Raises:
        RecordError: missing, or the CSV is not the one that the sidecar describes.
    """
    import pandas as pd

    about = sidecar(path)
    if not path.exists():
        raise RecordError(f"result {path} is missing")
    if hashlib.sha256(path.read_bytes()).hexdigest() != about["sha256"]:
        raise RecordError(f"result {path} was changed after it was written (its SHA-256 differs from the sidecar's)")
    # Only an empty field is missing: a text such as "null" is a name.
    return pd.read_csv(path, keep_default_na=False, na_values=[""]), about


@contextlib.contextmanager
def asking(folder: Path) -> Iterator[dict[str, tuple[dict[str, Any], int]]]:
    """Let experiments tell their present configuration: within it they find every result of a folder current, so compute none.

    Yields:
        File name -> (configuration, version) of every result of the folder that `current` is asked for.
    """
    asked: dict[str, tuple[dict[str, Any], int]] = {}
    token = _ASKING.set((folder, asked))
    try:
        yield asked
    finally:
        _ASKING.reset(token)


def current(path: Path, config: dict[str, Any], version: int) -> bool:
    """Whether `path` holds an intact result of this configuration and version."""
    if (asking := _ASKING.get()) is not None and path.parent == asking[0]:
        asking[1][path.name] = json.loads(json.dumps(config)), version
        return True
    try:
        about = read(path)[1]
    except RecordError:
        return False
    return about["config_hash"] == config_hash(config) and about["version"] == version


def origin(about: dict[str, Any], fresh: bool) -> str:
    """One line for a figure: where its data came from."""
    kind = "computed on this machine" if fresh else "recorded"
    return f"{kind} {about['date']}, hiso_bench {about['source']}, torch {about['libraries']['torch']}, {about['device']}"


def source_version() -> str:
    """The package version, and the commit when run from a checkout ("+" marks uncommitted changes of what is not a result).

    A recorded result that is being replaced does not change what makes the next one: rates that are read from grids stand in
    the configuration of what they made.
    """
    root = Path(hiso_bench.__file__).resolve().parent.parent
    git = functools.partial(subprocess.run, capture_output=True, text=True, cwd=root, timeout=10)
    try:
        commit = git(["git", "rev-parse", "--short=9", "HEAD"], check=True).stdout.strip()
        outside = [f":(exclude){path}" for path in _OUTPUTS]
        changed = git(["git", "status", "--porcelain", "--untracked-files=no", "--", ".", *outside], check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return hiso_bench.__version__
    return f"{hiso_bench.__version__} ({commit}{'+' if changed.strip() else ''})"
