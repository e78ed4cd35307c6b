"""What a planted bug is: a name, the module in which the mistake was made, what it was, and how it is installed."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any
from unittest import mock


@dataclass(frozen=True)
class Mutant:
    name: str
    module: str
    what: str
    install: Callable[[], AbstractContextManager[Any]]


def patched(owner: Any, attribute: str, replacement: Any) -> AbstractContextManager[Any]:
    # patch.object refuses an attribute that is not there: a renamed function fails here and is not silently left unmutated.
    return mock.patch.object(owner, attribute, replacement)
