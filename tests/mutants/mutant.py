"""What a planted bug is: a name, the module in which the mistake was made, what it was, and how it is installed."""

from __future__ import annotations

import ast
import contextlib
import inspect
import pkgutil
import textwrap
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from types import CodeType
from typing import Any
from unittest import mock


@dataclass(frozen=True)
class Mutant:
    name: str
    module: str
    what: str
    install: Callable[[], AbstractContextManager[Any]]
    tests: tuple[str, ...] = ()
    """Test files, below tests/, that it meets first: those that use the module without naming it, or those nearest to it."""


def patched(owner: Any, attribute: str, replacement: Any) -> AbstractContextManager[Any]:
    # patch.object refuses an attribute that is not there: a renamed function fails here and is not silently left unmutated.
    return mock.patch.object(owner, attribute, replacement)


def planted(name: str, target: str, what: str, *changes: tuple[str, str], tests: tuple[str, ...] = ()) -> Mutant:
    """A bug that is a change of a function's source; target is "module:function" or "module:Class.method"."""
    return Mutant(name, target.partition(":")[0], what, lambda: edited(pkgutil.resolve_name(target), *changes), tests)


@contextlib.contextmanager
def edited(function: Any, *changes: tuple[str, str]) -> Iterator[None]:
    """Replace pieces of a function's source, for everybody who has imported it: it keeps its identity and gets other code.

    Raises:
        ValueError: a piece is not there, or more than once: code that was rewritten fails here and is not left unmutated.
    """
    function = inspect.unwrap(getattr(function, "fget", None) or getattr(function, "func", None) or function)
    source = textwrap.dedent(inspect.getsource(function))
    for old, new in changes:
        if source.count(old) != 1:
            raise ValueError(f"{function.__qualname__} has {source.count(old)} times {old!r}; allowed: 1")
        source = source.replace(old, new)
    sound = function.__code__
    function.__code__ = _compiled(source, sound)
    try:
        yield
    finally:
        function.__code__ = sound


def _compiled(source: str, like: CodeType) -> CodeType:
    # An outer function provides the names that the code is closed over, such as super()'s __class__.
    # Its own name stays that of the module, for a function that calls itself.
    module = ast.parse(f"def outer({', '.join(like.co_freevars)}):\n global {like.co_name}")
    (outer,) = module.body
    assert isinstance(outer, ast.FunctionDef)
    outer.body += ast.parse(source).body
    flags = like.co_flags & 0x1000000  # from __future__ import annotations
    compiled = compile(module, like.co_filename, "exec", flags, dont_inherit=True)
    inner = next(c for c in compiled.co_consts if isinstance(c, CodeType))
    return next(c for c in inner.co_consts if isinstance(c, CodeType) and c.co_name == like.co_name)
