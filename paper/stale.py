"""Whether the tables that a text reads are those that the code of today would write."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hiso_bench import catalogue, records, reruns
from paper.sources import SourceError, Sources


def check(sources: Sources) -> list[str]:
    """Hold the configuration of every table that was read against the one its experiment has now.

    What a machine lacks makes nothing stale: subjects whose data or packages are absent leave a configuration shorter.

    Returns:
        The tables that cannot be checked here, because their experiment needs a package that is not installed.

    Raises:
        SourceError: a table is of another configuration or version; it names the table, what differs, and what computes it anew.
    """
    unknown = []
    for name in sorted(sources.used):
        about = records.read(sources.path(name))[1]
        experiment, _ = reruns.writer(name)
        try:
            now = _present(experiment, f"{name}.csv")
        except (ModuleNotFoundError, ValueError, OSError):  # a package, a model or data that this machine lacks
            now = None
        if now is None:
            unknown.append(name)
            continue
        found = list(_changes(about["config"], now[0]))
        if about["version"] != now[1]:
            found.append(f"version: recorded {about['version']}, now {now[1]}")
        if found:
            raise SourceError(
                f"table {name} is stale ({'; '.join(found[:3])}); `hiso-bench results {experiment}` computes it anew"
            )
    return unknown


def _present(experiment: str, table: str) -> tuple[dict[str, Any], int] | None:
    with tempfile.TemporaryDirectory() as folder, records.asking(Path(folder)) as asked:
        catalogue.experiment(experiment).compare(catalogue.RESULTS, Path(folder), Path(folder) / "work", 1)
    return asked.get(table) or (next(iter(asked.values())) if len(asked) == 1 else None)


def _changes(recorded: Any, present: Any, at: str = "") -> Iterator[str]:
    """Where the present configuration says something else than the recorded one, and not merely less."""
    if isinstance(recorded, dict) and isinstance(present, dict):
        for name in present:
            if name not in recorded:
                yield f"{at}{name} is new"
            else:
                yield from _changes(recorded[name], present[name], f"{at}{name}.")
    elif isinstance(recorded, list) and isinstance(present, list):
        if any(item not in recorded for item in present):
            yield f"{at.rstrip('.')} has other entries"
    elif recorded != present:
        yield f"{at.rstrip('.')}: recorded {recorded!r}, now {present!r}"
