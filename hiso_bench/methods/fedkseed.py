"""FedKSeed (arXiv 2312.06353): all directions of a run come from K candidate seeds."""

from collections.abc import Callable
from dataclasses import dataclass

from hiso_bench import keys
from hiso_bench.directions import DirectionKey, Directions
from hiso_bench.methods import register
from hiso_bench.methods.base import Method, require
from hiso_bench.points import Layout, Point


@dataclass(frozen=True, kw_only=True)
class FedKSeed(Method):
    """MeZO's step along directions drawn from a pool, so that x = x_0 - eta sum_j a_j z_j with one accumulated scalar a_j a seed.

    x never leaves x_0 + span(z_1, ..., z_K): a run with K < d converges to the minimum on that subspace. Whoever was away needs K
    scalars at most, however long it was; the ledger and the catch-up here keep the rounds' scalars all the same. Seeds are drawn
    uniformly (the paper's plain version, not -Pro), by the round's key, so that no index is sent.

    Attributes:
        pool: K, candidate seeds.
    """

    pool: int = 1024

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.pool >= 1, "pool", self.pool, ">= 1")

    def directions(self, layout: Layout, make: Callable[[Layout], Directions]) -> Directions:
        """K of the directions that `make(layout)` has."""
        return Pooled(make(layout), self.pool)


class Pooled(Directions):
    """Key -> one of K directions, chosen by the key's hash.

    Args:
        source: where the K directions come from.
        pool: K.
    """

    def __init__(self, source: Directions, pool: int) -> None:
        super().__init__(source.layout, source.root, source.law, source.dtype, source.device, source.cache_bytes)
        self._source, self._pool = source, pool

    def draw(self, key: DirectionKey, out: Point | None = None) -> Point:
        """The direction of the seed that the key chooses."""
        chosen = keys.derive(self.root, "pool", **key._asdict()) % self._pool
        return self._source.draw(DirectionKey(0, 0, chosen), out)


register("fedkseed", FedKSeed, perturbations=1, difference="central")
