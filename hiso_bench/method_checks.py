"""What can be verified of a method: the protocol's promises, and theory's where it applies."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from hiso_bench import methods
from hiso_bench.method_protocol import FAILS, PROTOCOL, Check, Subject
from hiso_bench.method_theory import comparison, one_round

CHECKS: tuple[Callable[[Subject], list[Check]], ...] = (*PROTOCOL, one_round, comparison)


def verify_method(name: str) -> list[Check]:
    """What can be verified of a registered method: one `Check` for each promise of the protocol and each prediction of theory.

    Args:
        name: as it is registered; see `register`.

    Returns:
        (name, predicted, measured, verdict) of every check; a verdict of "fails" is one too many.

    Raises:
        ValueError: unknown; it sends vectors; it cannot be built from a learning rate alone.

    Cost: some seconds.
    """
    return check(subject(name))


def check(of: Subject) -> list[Check]:
    """Every check; what raises an error fails with the error's text. Cost: some seconds."""
    return [row for each in CHECKS for row in attempt(each, of)]


def attempt(each: Callable[[Subject], list[Check]], of: Subject) -> list[Check]:
    """The rows of one check; an error that it raises is a row, named after what the check is about."""
    try:
        return each(of)
    except Exception as error:  # whatever a method under test may raise is a finding
        name = (each.__doc__ or "").split("\n")[0].rstrip(".").lower()
        return [Check(name, "no error", f"{type(error).__name__}: {' '.join(str(error).split())}", FAILS)]


def subject(name: str) -> Subject:
    """A registered method of scalars, with some H where it needs one from outside.

    Raises:
        ValueError: unknown; it sends vectors; it cannot be built from a learning rate alone.
    """
    if name in methods.VECTOR_PRESETS:
        raise ValueError(f"method {name} sends vectors; allowed: a method of scalars, {', '.join(methods.PRESETS)}")
    given: dict[str, Any] = {"lr": 0.05}
    if "h" in methods.options(name):
        given["h"] = tuple(torch.tensor(value, dtype=torch.float64) for value in (2.0, 0.5))
    try:
        methods.build(name, given)
    except TypeError as error:
        raise ValueError(f"method {name} cannot be built from lr alone ({error}); give its other options defaults") from error
    return Subject(name, lambda **options: methods.build(name, given | options))
