"""What checks read: recorded tables, without which they cannot run."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import pandas as pd

from hiso_bench import catalogue, records
from hiso_bench.claims import CannotRunError


@contextlib.contextmanager
def needed(what: str = "") -> Iterator[None]:
    """Within it, a table that is missing or damaged leaves the claim not run.

    Args:
        what: said before the reason.

    Raises:
        CannotRunError: in place of a RecordError.
    """
    try:
        yield
    except records.RecordError as error:
        raise CannotRunError(f"{what}: {error}" if what else str(error)) from error


def recorded_table(name: str, what: str = "") -> pd.DataFrame:
    """A recorded table.

    Raises:
        CannotRunError: it is missing or damaged.
    """
    with needed(what):
        return records.read(catalogue.RESULTS / f"{name}.csv")[0]
