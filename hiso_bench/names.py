"""What is said of a name that is not there."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def unknown(kind: str, name: str, allowed: Iterable[str]) -> str:
    """One line: the name, the nearest of those that there are, and all of them."""
    known = list(allowed)
    close = difflib.get_close_matches(name, known, n=1)
    meant = f"did you mean {close[0]}? " if close else ""
    return f"{kind} {name!r} is unknown; {meant}allowed: {', '.join(known)}"
