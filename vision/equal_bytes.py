"""Loss at equal bytes: DeComFL and HiSo against compressed first-order methods, on a digits perceptron.

6 clients, 2 sampled, Dirichlet 1, 32 images per client and step; d = 610, so a dense vector has 2,440 bytes and the P = 5 scalars
of a zeroth-order uplink have 20. Counts, rates and tables are those of `hiso_bench.equal_bytes`; the loss is the training loss.
The adaptive servers (published beta and tau), FedZO (P = 5) and the compressors have ten local steps where the arm says so.
"""

from __future__ import annotations

import functools
from dataclasses import asdict, dataclass
from typing import Any

import pandas as pd

from hiso_bench import equal_bytes
from hiso_bench.equal_bytes import NUMBER, TOTAL, UPLINK, WITH_BASE, Budgets, Sender
from hiso_bench.federation import FederationOptions
from vision.mlp import DigitsPerceptron

CLIENTS, SAMPLED, BATCH, HIDDEN = 6, 2, 32, 8
BUDGETS: Budgets = {
    UPLINK: tuple(2**i for i in range(9, 15)),
    TOTAL: tuple(2**i for i in range(11, 17)),
    WITH_BASE: tuple(2**i for i in range(14, 17)),
}
ONE = {"client_lr": 1.0}
"""With one local step the clients' rate is a factor of the server's."""
CLIENT_RATES = (0.5, 1.0, 2.0)
"""Of arms with ten local steps and a server's rate: about the best of FedAvg with as many."""
ARMS = (
    Sender("decomfl", "decomfl", {"perturbations": 5}),
    Sender("hiso", "hiso", {"perturbations": 5}),
    Sender("fedavg", "fedavg", ONE, 2.0**-2, 8, every=1),
    Sender("fedavg-10", "fedavg", {"lr": 1.0}, 2.0**-3, 8, 10, "client_lr", 1),
    Sender("fedcom", "fedcom", ONE | {"bits": 4}, 2.0**-2, 28, every=1),
    Sender("fedcom-10", "fedcom", {"lr": 1.0, "bits": 4}, 2.0**-3, 28, 10, "client_lr", 1),
    Sender("fedavg-topk", "fedavg-topk", ONE | {"share": 0.01}, 2.0**-1, 150, every=1),
    Sender("fedavg-topk-10", "fedavg-topk", {"lr": 1.0, "share": 0.01, "error_feedback": True}, 2.0**-2, 150, 10, "client_lr", 1),
    Sender("fedavg-sign", "fedavg-sign", ONE, 2.0**-7, 98, every=1),
    Sender("fedavg-sign-10", "fedavg-sign", {}, 2.0**-6, 98, 10, every=1, client_rates=CLIENT_RATES),
    Sender("fedadam", "fedadam", {}, 2.0**-5, 8, 10, every=1, client_rates=CLIENT_RATES),
    Sender("fedyogi", "fedyogi", {}, 2.0**-5, 8, 10, every=1, client_rates=CLIENT_RATES),
    Sender("fedadagrad", "fedadagrad", {}, 2.0**-5, 8, 10, every=1, client_rates=CLIENT_RATES),
    Sender("fedzo", "fedzo", {"lr": 1.0, "perturbations": 5}, 2.0**-6, 8, 10, "client_lr", 1),
)


def problem(key: int = 0) -> DigitsPerceptron:
    """What is trained."""
    return DigitsPerceptron(CLIENTS, HIDDEN, "dirichlet", batch_size=BATCH, key=key)


@functools.cache
def model_bytes() -> int:
    """The bytes of the dense model."""
    return NUMBER * problem().layout.dimension


@dataclass(frozen=True)
class Digits(equal_bytes.EqualBytes):
    """The comparison on the perceptron."""

    def curve(self, arm: Sender, lr: float, key: int) -> pd.DataFrame:
        """One run; the rounds of every arm reach every budget."""
        options = FederationOptions(sampled=SAMPLED, local_steps=arm.local_steps, key=key)
        return equal_bytes.curve(problem(key), arm, lr, options, BUDGETS, CLIENTS * model_bytes())

    def config(self) -> dict[str, Any]:
        """Problem, arms and budgets."""
        return {
            "problem": problem().describe() | {"clients": CLIENTS}, "sampled": SAMPLED,
            "arms": {arm.name: asdict(arm) for arm in self.arms}, "octaves": self.octaves,
            "budgets": {count: list(values) for count, values in BUDGETS.items()},
            "score": "mean training loss at the budget", "version": self.version,
        }  # fmt: skip


EQUAL_BYTES = Digits("equal_bytes", ARMS, tuning_keys=(101, 102), keys=(1, 2, 3, 4, 5))
