"""Tables as `llm.compare` writes them, of curves that a formula gives: for the tests of figures and pages."""

import numpy as np
import pandas as pd

from hiso_bench import records

COLUMNS = ["arm", "lr", "key", "round", "bytes_up", "bytes_down", "forward_passes", "metric", "value"]
RATES = {"decomfl": 4e-4, "hiso": 3e-4, "hiso-scalar": 3e-4, "first-order": 1e-3}
ROUNDS, EVERY = 100, 25


def curve(arm, key):
    """Scores at rounds 0, 25, ... 100: HiSo is there after 50 rounds, DeComFL at the end; keys differ by a hundredth."""
    speed = {"decomfl": 100, "hiso": 50, "hiso-scalar": 75}[arm]
    return 0.5 + 0.3 * np.minimum(np.arange(0, ROUNDS + 1, EVERY) / speed, 1) + key / 100 + (0.01 if arm == "hiso" else 0)


def write(folder, table, task="toy-sst2", model="tiny-opt", metric="accuracy", keys=(1, 2, 3), planned=(1, 2, 3), diverged=()):
    """Record a comparison; `diverged` are pairs of arm and key whose runs end at round 25."""
    rows = []
    for key in keys:
        for epoch, score in enumerate((0.5, 0.9, 0.95)):
            rows += [
                ("first-order", 1e-3, key, epoch, 0, 0, 0, prefix + name, value)
                for prefix in ("", "whole_")
                for name, value in _metrics(metric, score + key / 100)
            ]
        for arm in ("decomfl", "hiso", "hiso-scalar"):
            for i, score in enumerate(curve(arm, key)):
                at = (arm, RATES[arm], key, EVERY * i, 56 * EVERY * i, 76 * EVERY * i, 12 * EVERY * i)
                if (arm, key) in diverged and i > 1:
                    break
                rows += [(*at, name, value) for name, value in _metrics(metric, score)]
            else:
                rows += [(*at, f"whole_{name}", value) for name, value in _metrics(metric, score)]
    config = {
        "problem": "lm", "model": model, "task": task, "clients": 6, "sampled": 2, "split": "dirichlet", "alpha": 1.0,
        "batch_size": 16, "P": 5, "mu": 1e-3, "difference": "forward", "evaluate_every": EVERY, "evaluate_limit": 500,
        "keys": list(keys), "planned": list(planned), "rounds": ROUNDS, "rates": RATES,
    }  # fmt: skip
    records.write(pd.DataFrame(rows, columns=COLUMNS), folder / f"{table}.csv", config, 1)


def _metrics(metric, score):
    return [(metric, score), (f"{metric}_low", score - 0.02), (f"{metric}_high", score + 0.02), ("loss", 1 - score)]
