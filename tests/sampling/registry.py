"""Every sampling test of the suite, with the false alarms it may raise and what it must see.

A sampling test is a function of a key: key -> p-value. It fails where the p-value is below its alpha; the alphas of the suite
sum to at most `BUDGET`, which registering enforces. To count false alarms, call `statistic` with fresh keys: where the code is
right, p-values are uniform.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

BUDGET = 1e-4
POWER = 0.999


class Twin(NamedTuple):
    """What became of the planted bug."""

    p: float
    """The p-value of the test with the bug in the code."""
    power: float
    """The chance that it falls below alpha, from the exact effect of the bug and the spread of the sample."""


class SamplingTest(NamedTuple):
    """A sampling test and its planted bug."""

    name: str
    alpha: float
    """Chance of a false alarm."""
    bug: str
    """What is planted, in words."""
    statistic: Callable[[int], float]
    """Key -> p-value."""
    planted: Callable[[int], Twin]
    """Key -> what the same test says of the code with the bug."""


TESTS: dict[str, SamplingTest] = {}


def register(test: SamplingTest) -> None:
    """Add a test to the suite.

    Raises:
        ValueError: its name is taken, its alpha is not in (0, 1), or the alphas would sum to more than `BUDGET`.
    """
    if test.name in TESTS:
        raise ValueError(f"sampling test {test.name!r} is already registered")
    if not 0 < test.alpha < 1:
        raise ValueError(f"alpha {test.alpha} of {test.name!r} is out of range; allowed: 0 < alpha < 1")
    spent = sum(known.alpha for known in TESTS.values())
    if spent + test.alpha > BUDGET:
        raise ValueError(f"alpha {test.alpha} of {test.name!r} is too much: {spent} of {BUDGET} is spent")
    TESTS[test.name] = test
