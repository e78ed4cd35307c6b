"""Where a text's numbers come from: recorded and fresh tables and the verdicts of claims, and how they are written out."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hiso_bench import catalogue, records

if TYPE_CHECKING:  # loaded where a table is read
    import pandas as pd


class SourceError(ValueError):
    """A result that a text needs is missing, damaged, or without what the text asks of it; the message says what makes it."""


class Sources:
    """Tables and claims by name. A table that `make figures` computes is taken from `fresh`, any other from `results`.

    Args:
        results: folder of recorded results.
        fresh: folder of results computed on this machine.

    Attributes:
        used: name -> one line of origin, of every table that was read so far.
    """

    def __init__(self, results: Path = catalogue.RESULTS, fresh: Path = catalogue.FRESH) -> None:
        self.results, self.fresh = results, fresh
        self.used: dict[str, str] = {}
        self._claims: dict[str, Any] | None = None

    def table(self, name: str) -> pd.DataFrame:
        """A table of results.

        Raises:
            SourceError: there is none, or it was changed after it was written.
        """
        return self._read_table(name)[0]

    def config(self, name: str) -> dict[str, Any]:
        """What a table's sidecar says that it was made with.

        Raises:
            SourceError: as `table` does.
        """
        return self._read_table(name)[1]["config"]

    def _read_table(self, name: str) -> tuple[pd.DataFrame, dict[str, Any]]:
        path = self.path(name)
        try:
            frame, about = records.read(path)
        except records.RecordError as error:
            raise SourceError(f"table {name}: {error}; `make figures` or `make results PROFILE=standard` computes it") from error
        self.used[name] = records.origin(about, path.parent == self.fresh)
        return frame, about

    def path(self, name: str) -> Path:
        """Where a table is: in `fresh` if there is one, else in `results`."""
        fresh = self.fresh / f"{name}.csv"
        return fresh if fresh.exists() else self.results / f"{name}.csv"

    def claim(self, id_: str) -> dict[str, Any]:
        """A claim as `make verify` wrote it.

        Raises:
            SourceError: there is no such claim, or its verdict is not the pinned one.
        """
        found = self._read()
        if id_ not in found:
            raise SourceError(f"claim {id_!r} is not in claims.json; `make verify` decides it")
        claim = found[id_]
        if not claim["agrees"]:
            raise SourceError(f"claim {id_!r}: the verdict {claim['verdict']} is not the pinned {claim['pinned']}")
        return claim

    def claims(self) -> list[dict[str, Any]]:
        """All claims of claims.toml, in its order.

        Raises:
            SourceError: as `claim` does, or claims.json has not all of them, or one that is no longer asked.
        """
        wanted = catalogue.claims()
        gone = sorted(set(self._read()) - set(wanted))
        if gone:
            raise SourceError(f"claim {gone[0]!r} is in claims.json and not in claims.toml; `make verify` writes it anew")
        return [self.claim(id_) for id_ in wanted]

    def _read(self) -> dict[str, Any]:
        if self._claims is None:
            path = self.results / "claims.json"
            try:
                self._claims = {claim["id"]: claim for claim in json.loads(path.read_text())}
            except (OSError, ValueError, KeyError, TypeError) as error:
                raise SourceError(f"{path} cannot be read ({error}); `make verify` writes it") from error
        return self._claims


def number(value: float, digits: int = 2) -> str:
    """A number with so many significant digits, without an exponent between 0.0001 and 10^6.

    Raises:
        SourceError: it is not finite: a text must say why, a number cannot.
    """
    if not math.isfinite(value):
        raise SourceError(f"a number of a text is {value}")
    if value == 0:
        return "0"
    size = math.floor(math.log10(abs(value)))
    if not -5 < size < 6:
        mantissa, _, exponent = f"{value:.{digits - 1}e}".partition("e")
        return f"{mantissa}e{int(exponent)}"
    rounded = round(value, digits - 1 - size)
    return f"{rounded:.{max(0, digits - 1 - math.floor(math.log10(abs(rounded))))}f}"


def interval(value: float, low: float, high: float, digits: int = 2) -> str:
    """An interval as text: value [low, high]."""
    return f"{number(value, digits)} [{number(low, digits)}, {number(high, digits)}]"
