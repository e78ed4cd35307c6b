"""Who takes part in a round: a function of the run's key and the round alone, so that everybody can tell afterwards."""

from __future__ import annotations

import numpy as np

from hiso_bench import keys


def participants(key: int, round_: int, clients: int, sampled: int, replicate_shape: tuple[int, ...] = ()) -> np.ndarray:
    """Which clients are sampled in a round: ids ascending, shape (sampled, *replicate_shape), without replacement."""
    rng = keys.rng(keys.derive(key, "participation", round=round_))
    if not replicate_shape:
        return np.sort(rng.choice(clients, sampled, replace=False))
    draws = rng.random((clients, *replicate_shape)).argpartition(sampled - 1, axis=0)[:sampled]
    return np.sort(draws, axis=0)


def answering(key: int, round_: int, dropout: float, shape: tuple[int, ...]) -> np.ndarray:
    """Which sampled clients answer: bool of the given shape, each False with chance `dropout`."""
    if not dropout:
        return np.ones(shape, dtype=bool)
    return keys.rng(keys.derive(key, "dropout", round=round_)).random(shape) >= dropout
