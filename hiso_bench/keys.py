"""Named axes -> 64-bit keys: the only source of randomness in the project.

Every random thing (a direction, a batch, a participation draw, a data split) owns a key that is the hash of its *name* and its
*named axes*, so no value depends on the order in which things are computed and no two names can collide by arithmetic on seeds.
Directions, which are part of the protocol, are drawn from their keys in `directions.py`; everything else takes `rng(key)`.
"""

from __future__ import annotations

import hashlib
import json

import numpy as np

KEY_BITS = 64


def derive(root: int, name: str, **axes: int) -> int:
    """Return the 64-bit key of `name` at `axes` under the run's `root` key.

    Args:
        root: the run's key, 0 <= root < 2**64; all of its bits matter.
        name: what the key is for, such as "direction", "batch", "participation", "split" or "init".
        **axes: named integer coordinates, such as round=3, step=0, p=1. Their order in the call does not matter.

    Returns:
        An integer in [0, 2**64): the first eight bytes of SHA-256 over the canonical JSON of the arguments.

    Raises:
        ValueError: `root` is outside [0, 2**64).
    """
    if not 0 <= root < 2**KEY_BITS:
        raise ValueError(f"key {root} is out of range; allowed: 0 <= key < 2**{KEY_BITS}")
    text = json.dumps([int(root), name, sorted((axis, int(value)) for axis, value in axes.items())])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[: KEY_BITS // 8], "little")


def rng(key: int) -> np.random.Generator:
    """Return a NumPy generator (Philox) that is a function of `key` alone."""
    return np.random.Generator(np.random.Philox(key=key))


def batch_rng(key: int, client: np.ndarray, round_: int, step: int) -> np.random.Generator:
    """The generator of a batch: one stream per (slot of clients, round, step); replicates differ by their place in it.

    Args:
        key: of the problem.
        client: integers of the replicate shape: which client each replicate has in this slot.
        round_: of the run.
        step: local step.
    """
    owner = int(client) if client.ndim == 0 else int.from_bytes(client.astype("<u4").tobytes()[:7], "little")
    return rng(derive(key, "batch", client=owner, round=round_, step=step))
