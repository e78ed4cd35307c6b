"""Key -> direction: Gaussian, sphere of radius sqrt(d), or Rademacher, drawn leaf by leaf.

`Directions.draw` is a pure function of (root key, direction key, layout, law): float32 values, cast to the point's
dtype, so one key means one direction in every precision (on the sphere: up to a rounding of its norm). `Warped` turns u
into z = H^{-1/2} u for the length of one round and may keep z in a cache that is bounded in bytes; a budget of 0
regenerates z at every use, with the same bits.

torch's CPU generator (MT19937) keeps only the low 32 bits of `manual_seed`, so seeds that differ in their high bits
collide. Its full 624-word state is therefore filled from SHAKE-128 of (key, leaf).
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Literal, NamedTuple, get_args

import numpy as np
import torch
from torch import Tensor

from hiso_bench import keys
from hiso_bench.points import Layout, Point, flat

Law = Literal["gaussian", "sphere", "rademacher"]
LAWS: tuple[str, ...] = get_args(Law)
SHARED = -1
SAMPLER = "mt19937-shake128/1"
DEFAULT_CACHE_BYTES = 2**30

_MT_WORDS = 624
# Below this size a leaf is drawn faster than a thread is woken.
_PARALLEL_NUMEL = 1 << 16


class DirectionKey(NamedTuple):
    """Which direction: round r, local step k, perturbation p; `client` is SHARED unless clients draw independent directions."""

    round: int
    step: int
    p: int
    client: int = SHARED


def sampler_name(device: torch.device | str) -> str:
    """The name under which a ledger records how keys become directions; equal names mean equal bits."""
    if torch.device(device).type == "cpu":
        return f"{SAMPLER}/torch-{torch.__version__.split('+')[0]}/{torch.backends.cpu.get_cpu_capability()}"
    return f"device-generator/1/torch-{torch.__version__.split('+')[0]}/{torch.device(device).type}"


def _generator(key: int, leaf: int, device: torch.device) -> torch.Generator:
    generator = torch.Generator(device=device)
    seed = hashlib.shake_128(key.to_bytes(8, "little") + leaf.to_bytes(8, "little"))
    if device.type != "cpu":  # Philox generators take all 64 bits.
        generator.manual_seed(int.from_bytes(seed.digest(8), "little") >> 1)
        return generator
    words = np.frombuffer(seed.digest(4 * _MT_WORDS), dtype="<u4")
    # The layout of torch's generator state: seed u64, left i32, seeded i32, next u64, 624 words each in a u64, cached normals.
    state = np.zeros(5056, dtype=np.uint8)
    state[8:16] = np.array([1, 1], dtype="<i4").view(np.uint8)  # left = 1: the next draw twists the whole state first
    state[24 : 24 + 8 * _MT_WORDS] = words.astype("<u8").view(np.uint8)
    generator.set_state(torch.from_numpy(state))
    return generator


class Directions:
    """Directions of one run, as a function of their keys.

    Args:
        layout: the shape of a point; one stream per (key, leaf) covers all replicates.
        root: the run's 64-bit key.
        law: "gaussian" N(0, I), "sphere" uniform on the sphere of radius sqrt(d), "rademacher" +-1 with equal chance. All have
            E u u^T = I.
        dtype: the dtype of the point; the draw itself is always float32.
        device: where the leaves live.
        cache_bytes: how much z a `Warped` may keep for the length of a round; 0 regenerates.

    Raises:
        ValueError: unknown law or negative budget.
    """

    def __init__(
        self,
        layout: Layout,
        root: int,
        law: str = "gaussian",
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
        cache_bytes: int = DEFAULT_CACHE_BYTES,
    ) -> None:
        if law not in LAWS:
            raise ValueError(f"law {law!r} is unknown; allowed: {', '.join(LAWS)}")
        if cache_bytes < 0:
            raise ValueError(f"cache_bytes {cache_bytes} is negative; allowed: 0 (regenerate) or more")
        self.layout, self.root, self.law = layout, root, law
        self.dtype, self.device, self.cache_bytes = dtype, torch.device(device), cache_bytes
        self.spare: list[Point] = []
        """Buffers waiting to be used again: fresh memory costs as much as the random numbers (page faults)."""
        self.scratch: Point | None = None
        """Where a z that is not kept is built, if whoever runs the rounds lends a buffer for it: z then costs no memory."""

    def draw(self, key: DirectionKey, out: Point | None = None) -> Point:
        """Return u for `key`, written into `out` when given. Cost: d random numbers."""
        out = self.layout.empty(self.dtype, self.device) if out is None else out
        number = keys.derive(self.root, "direction", **key._asdict())
        leaves = range(len(out))
        if self.device.type == "cpu" and torch.get_num_threads() > 1 and self.layout.numel >= _PARALLEL_NUMEL:
            # Each leaf has its own stream, so the number of threads cannot change a bit.
            with ThreadPoolExecutor(torch.get_num_threads()) as pool:
                list(pool.map(lambda leaf: self._fill(number, leaf, out[leaf]), leaves))
        else:
            for leaf in leaves:
                self._fill(number, leaf, out[leaf])
        if self.law == "sphere":
            self._to_sphere(out)
        return out

    def _fill(self, number: int, leaf: int, target: Tensor) -> None:
        generator = _generator(number, leaf, self.device)
        raw = target if self.dtype == torch.float32 else torch.empty_like(target, dtype=torch.float32)
        if self.law == "rademacher":
            raw.random_(0, 2, generator=generator).mul_(2).sub_(1)
        else:
            raw.normal_(generator=generator)
        if raw is not target:
            target.copy_(raw)

    def _to_sphere(self, u: Point) -> None:
        replicate_axes = len(self.layout.replicate_shape)
        squares = sum(flat(leaf.double().square(), replicate_axes).sum(-1) for leaf in u)
        factor = math.sqrt(self.layout.dimension) / torch.as_tensor(squares).sqrt()
        for i, leaf in enumerate(u):
            leaf.mul_(self.layout.over_leaf(factor, i))


class InjectedDirections(Directions):
    """Directions given from outside, for tests that need exact expectations.

    Args:
        layout: as for `Directions`.
        table: direction key -> point. A missing key raises KeyError.
        dtype: the dtype of the point.
        cache_bytes: as for `Directions`.
    """

    def __init__(
        self,
        layout: Layout,
        table: Mapping[DirectionKey, Point] | Callable[[DirectionKey], Point],
        dtype: torch.dtype = torch.float64,
        cache_bytes: int = DEFAULT_CACHE_BYTES,
    ) -> None:
        super().__init__(layout, root=0, dtype=dtype, cache_bytes=cache_bytes)
        self._look_up = table if callable(table) else table.__getitem__

    def draw(self, key: DirectionKey, out: Point | None = None) -> Point:
        """Return a copy of the injected direction."""
        out = self.layout.empty(self.dtype, self.device) if out is None else out
        for target, source in zip(out, self._look_up(key), strict=True):
            target.copy_(source)
        return out


class Warped:
    """z = H^{-1/2} u for the length of one round, in which H does not move.

    A z that does not fit the cache lives in one shared buffer: it is valid until the next call, and where a federation lends
    the buffer of x' for it, until x' is built.

    Args:
        directions: where u comes from; its spare buffers are borrowed, and given back by `close`.
        warp: overwrites u with z.
        cache_bytes: the budget, if other than that of `directions`.

    Attributes:
        warp: as given. Whoever changes what it reads, H, puts one in its place that gives the same z.
    """

    def __init__(self, directions: Directions, warp: Callable[[Point], Point], cache_bytes: int | None = None) -> None:
        self.directions, self.warp = directions, warp
        self._budget = directions.cache_bytes if cache_bytes is None else cache_bytes
        self._cache: dict[DirectionKey, Point] = {}
        self._scratch = directions.scratch

    def __call__(self, key: DirectionKey) -> Point:
        """Return z for `key`: cached, or regenerated with the same bits."""
        if key in self._cache:
            return self._cache[key]
        size = self.directions.layout.numel * self.directions.dtype.itemsize
        if (len(self._cache) + 1) * size <= self._budget:
            z = self._cache[key] = self._buffer()
        else:
            z = self._scratch = self._scratch or self._buffer()
        return self.warp(self.directions.draw(key, out=z))

    def close(self) -> None:
        """Give the buffers back; every z handed out becomes invalid."""
        self.directions.spare.extend(self._cache.values())
        if self._scratch is not None and self._scratch is not self.directions.scratch:
            self.directions.spare.append(self._scratch)
        self._cache, self._scratch = {}, self.directions.scratch

    def _buffer(self) -> Point:
        spare, source = self.directions.spare, self.directions
        return spare.pop() if spare else source.layout.empty(source.dtype, source.device)
