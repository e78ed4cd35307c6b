"""A recorded table: the experiment that writes it, its configuration, and its numbers against those of today."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from hiso_bench import catalogue, drawings, records

if TYPE_CHECKING:
    import pandas as pd


_COMPARED_GRIDS = ("second_order_digits_grid",)
"""Grids that `compare` writes: there the grid is part of the result."""


class Agreement(NamedTuple):
    """How two tables compare."""

    verdict: str
    """"equal" to the bit, "close" (numbers within the tolerance), or "differs"."""
    largest: float
    """The largest relative difference |a - b| / max(|a|, |b|) of a number; infinite where one is NaN and the other is not."""
    column: str
    """Where it is; or what else differs."""
    rows: int
    """Rows with a difference."""


def writer(table: str) -> tuple[str, Literal["tune", "compare"]]:
    """Which experiment writes results/<table>.csv, and which of its two parts.

    A table with the name of an experiment is that one's, another that a figure reads its experiment's; tables of the language
    track carry model and task (`Comparison.table`); every other one begins with the name of its experiment. Rates are tuned
    into <...>_grid.csv.

    Raises:
        ValueError: no experiment writes it.
    """
    part: Literal["tune", "compare"] = "tune" if table.endswith("_grid") and table not in _COMPARED_GRIDS else "compare"
    if table in catalogue.EXPERIMENTS:
        return table, part
    drawn = [entry.experiment for entry in drawings.FIGURES.values() if table in entry.tables and not entry.any_table]
    if drawn:
        return drawn[0], part
    if table.startswith("stage_") and part == "tune":
        return "stage_networks", part
    if table.startswith("llm_"):
        stem = table.removesuffix("_grid")
        found = [
            name
            for name, target in catalogue.EXPERIMENTS.items()
            if target.startswith("llm.compare") and catalogue.load(target).table == stem
        ]
    else:
        found = sorted((name for name in catalogue.EXPERIMENTS if table == name or table.startswith(f"{name}_")), key=len)
    if not found:
        raise ValueError(f"no experiment writes {table}.csv; allowed: a table of results/ (`hiso-bench results --dry-run`)")
    return found[-1], part


def differences(recorded: dict[str, Any], present: dict[str, Any], prefix: str = "") -> list[str]:
    """One line for every entry that two configurations do not share, nested ones by their path."""
    found = []
    for name in sorted(recorded.keys() | present.keys()):
        a, b = recorded.get(name), present.get(name)
        if isinstance(a, dict) and isinstance(b, dict):
            found += differences(a, b, f"{prefix}{name}.")
        elif a != b or (name in recorded) != (name in present):
            found.append(f"{prefix}{name}: recorded {_short(a, name in recorded)}, now {_short(b, name in present)}")
    return found


def _short(value: Any, there: bool) -> str:
    text = repr(value) if there else "absent"
    return text if len(text) <= 60 else f"{text[:57]}..."


def compare(recorded: Path, fresh: Path, tolerance: float) -> Agreement:
    """Hold a table against the recorded one, row by row in their order.

    Args:
        recorded: with its sidecar.
        fresh: with its sidecar.
        tolerance: relative difference up to which a number counts as close.

    Raises:
        RecordError: one of them is missing or was changed after it was written.
    """
    (a, _), (b, _) = records.read(recorded), records.read(fresh)
    if recorded.read_bytes() == fresh.read_bytes():
        return Agreement("equal", 0.0, "", 0)
    if list(a.columns) != list(b.columns):
        return Agreement(
            "differs", float("inf"), f"columns {', '.join(map(str, a.columns.symmetric_difference(b.columns)))}", len(a)
        )
    if len(a) != len(b):
        return Agreement("differs", float("inf"), f"{len(a)} rows recorded, {len(b)} now", abs(len(a) - len(b)))
    return _by_column(a, b, tolerance)


def _by_column(a: pd.DataFrame, b: pd.DataFrame, tolerance: float) -> Agreement:
    import numpy as np
    from pandas.api.types import is_numeric_dtype

    largest, worst, touched = 0.0, "", np.zeros(len(a), dtype=bool)
    for name in a.columns:
        if is_numeric_dtype(a[name]) and is_numeric_dtype(b[name]):
            x, y = (frame[name].to_numpy(dtype=np.float64) for frame in (a, b))
            with np.errstate(invalid="ignore", divide="ignore"):
                relative = np.abs(x - y) / np.maximum(np.abs(x), np.abs(y))
            relative = np.where((x == y) | (np.isnan(x) & np.isnan(y)), 0.0, np.where(np.isfinite(relative), relative, np.inf))
        else:
            same = (a[name] == b[name]) | (a[name].isna() & b[name].isna())
            relative = np.where(same.to_numpy(), 0.0, np.inf)
        touched |= relative > 0
        if len(relative) and relative.max() > largest:
            largest, worst = float(relative.max()), str(name)
    return Agreement("close" if largest <= tolerance else "differs", largest, worst, int(touched.sum()))
