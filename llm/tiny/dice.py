"""Choices from a key that stay the same in every version of every library."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import numpy as np

T = TypeVar("T")
_BLOCK = 4096


class Dice:
    """Choices made from the raw 64-bit numbers of Philox.

    NumPy guarantees the raw stream of a bit generator for good, but not what its distributions make of it, and what is frozen by
    a hash must not depend on those.

    Args:
        key: 0 <= key < 2**64.
    """

    def __init__(self, key: int) -> None:
        self._bits = np.random.Philox(key=key)
        self._pool: list[int] = []

    def below(self, n: int) -> int:
        """An integer in 0..n-1. Its bias, n / 2**64, is far below anything that could be seen."""
        if not self._pool:
            self._pool = self._bits.random_raw(_BLOCK).tolist()
        return self._pool.pop() % n

    def chance(self, probability: float) -> bool:
        """True with that probability, in steps of 1e-9."""
        return self.below(10**9) < round(probability * 10**9)

    def pick(self, items: Sequence[T]) -> T:
        """One of the items, all equally likely."""
        return items[self.below(len(items))]

    def weighted(self, items: dict[T, int]) -> T:
        """One of the items, each in proportion to its integer weight."""
        rest = self.below(sum(items.values()))
        for item, weight in items.items():
            rest -= weight
            if rest < 0:
                return item
        raise AssertionError("weights are positive")

    def sample(self, items: Sequence[T], n: int) -> list[T]:
        """Different items in random order.

        Raises:
            ValueError: there are fewer than n.
        """
        if n > len(items):
            raise ValueError(f"n is {n}; allowed: at most {len(items)}")
        return self.shuffled(items)[:n]

    def shuffled(self, items: Sequence[T]) -> list[T]:
        """The items in random order (Fisher and Yates)."""
        order = list(items)
        for last in range(len(order) - 1, 0, -1):
            other = self.below(last + 1)
            order[last], order[other] = order[other], order[last]
        return order
