"""What the papers print, read from `paper/reported/*.csv`: nobody types it again.

Tables have a row for every cell. Numbers of a running text stand in `<paper>_text.csv`, one a row: quantity, value, error, unit,
paper, where it stands, what it says. There `error` is what the printed digits leave open: half a unit of the last one.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import pandas as pd

from hiso_bench import catalogue

REPORTED = catalogue.ROOT / "paper" / "reported"
"""Of the checkout; the installed package has none."""


class Number(NamedTuple):
    """A printed number."""

    value: float
    error: float
    """Half a unit of its last digit; 0 for a count."""

    @property
    def low(self) -> float:
        """The least that is printed like this."""
        return self.value - self.error

    @property
    def high(self) -> float:
        """The most."""
        return self.value + self.error


def table(file: str) -> Any:
    """A file by its stem, as a frame.

    Raises:
        FileNotFoundError: there is none.
    """
    return pd.read_csv(REPORTED / f"{file}.csv")


def printed(file: str, quantity: str, *methods: str) -> Any:
    """The printed values of a table, a Series by (model, task, method)."""
    frame = table(file)
    chosen = frame[(frame["quantity"] == quantity) & frame["method"].isin(methods)]
    return chosen.set_index(["model", "task", "method"])["value"]


def number(file: str, quantity: str) -> Number:
    """A single printed number; without an error it is exact.

    Raises:
        ValueError: the file has none, or several, of that name.
    """
    frame = table(file)
    found = frame[frame["quantity"] == quantity]
    if len(found) != 1:
        raise ValueError(
            f"{file}.csv has {len(found)} rows {quantity!r}, not one; it has {', '.join(frame['quantity'].unique())}"
        )
    row = found.iloc[0].to_dict()
    error = float(row.get("error", 0.0))
    return Number(float(row["value"]), 0.0 if pd.isna(error) else error)
