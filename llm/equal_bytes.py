"""Loss at equal bytes on fine-tuning a language model: scalars against first-order methods, dense, compressed, and on LoRA.

The subject is tiny-opt as it is pre-trained here (d = 1.07 million, a dense model has 4.3 MB), on its generated sentiment task:
the smallest on which fine-tuning from a trained base moves the loss far. It is pre-trained from key 1, as the model of key 0
hardly leaves its start within these rounds, with gradients or without. 6 clients, 2 sampled, Dirichlet 1, 8 examples per client
and step. Counts, rates and tables are those of `hiso_bench.equal_bytes`; the loss is that of validation examples on the tuning
key and of test examples on the others. All keys start from one base; a key is that of split, batches, directions and adapters.

FedLoRA is FedAvg over the adapters of queries and values, A and B both trained, alpha = 16. The product of the mean B and the
mean A is not the mean of the products; FFA-LoRA (arXiv 2403.12313) freezes A for that, and is not run. The clients of a LoRA
arm need the base model as those of a method of scalars do; its downlink is the dense adapters. An arm whose rounds are over
sends no more and stays where it is: the ladder ends above what scalars can spend.

The adaptive servers have the published beta and tau, ten local steps at the rate that won for FedAvg with as many, and tune the
server's; so do signs after ten steps. Top-k after ten steps has error feedback. FedZO has ten local steps, P = 5.

Floor, one core, batch 8 of 16 tokens: a forward pass 6 ms, a gradient 17 ms (12 ms on adapters), a round of scalars 0.1 s, of
ten local steps 0.5 s, of FedZO's 2.3 s.
"""

from __future__ import annotations

import functools
from dataclasses import asdict, dataclass, field
from typing import Any

import pandas as pd

from hiso_bench import catalogue, equal_bytes
from hiso_bench.equal_bytes import NUMBER, TOTAL, UPLINK, WITH_BASE, Budgets, Sender
from hiso_bench.federation import FederationOptions
from llm.hub import EMBEDDED

SAMPLED = 2
BUDGETS: Budgets = {
    UPLINK: tuple(2**i for i in range(11, 27, 2)),
    TOTAL: tuple(2**i for i in range(13, 29, 2)),
    WITH_BASE: (2**25, 2**27),
}


@dataclass(frozen=True)
class LanguageSender(Sender):
    """An arm on a language model.

    Attributes:
        lora_rank: of the adapters that it trains; 0 trains all weights.
    """

    lora_rank: int = 0

    @property
    def needs_base(self) -> bool:
        """Scalars and adapters hold no base model."""
        return self.scalars or self.lora_rank > 0


def _scalars(name: str, method: str, start: float, lora_rank: int = 0) -> LanguageSender:
    return LanguageSender(name, method, {"perturbations": 5}, start, 168, every=8, lora_rank=lora_rank)


CLIENT_RATE = 2.0**-6
"""Of arms with ten local steps and a server's rate: the one that won for FedAvg with as many on the tuning keys."""


def _vectors(
    name: str, method: str, start: float, rounds: int, every: int, lora_rank: int = 0, local_steps: int = 1, **options: Any
) -> LanguageSender:
    """A first-order arm; the rate is the server's, or the clients' where there are several local steps and no rate is told."""
    if local_steps == 1:
        options |= {"client_lr": 1.0}
    tuned = "lr" if "client_lr" in options else "client_lr"
    if tuned == "client_lr":
        options |= {"lr": 1.0}
    return LanguageSender(name, method, options, start, rounds, local_steps, tuned, every, lora_rank=lora_rank)


ARMS = (
    _scalars("decomfl", "decomfl", 2.0**-12),
    _scalars("hiso", "hiso", 2.0**-12),
    _scalars("decomfl-lora", "decomfl", 2.0**-9, lora_rank=1),
    _vectors("fedavg", "fedavg", 2.0**-8, 15, 1),
    _vectors("fedavg-10", "fedavg", 2.0**-11, 8, 1, local_steps=10),
    _vectors("fedcom-10", "fedcom", 2.0**-11, 8, 1, local_steps=10, bits=4),
    _vectors("fedavg-topk", "fedavg-topk", 2.0**-8, 15, 1, share=0.01),
    _vectors("fedavg-topk-10", "fedavg-topk", 2.0**-9, 15, 1, local_steps=10, share=0.01, error_feedback=True),
    _vectors("fedavg-sign", "fedavg-sign", 2.0**-13, 24, 1),
    _vectors("fedavg-sign-10", "fedavg-sign", 2.0**-13, 15, 1, local_steps=10, client_lr=CLIENT_RATE),
    _vectors("fedadam", "fedadam", 2.0**-11, 7, 1, local_steps=10, client_lr=CLIENT_RATE),
    _vectors("fedyogi", "fedyogi", 2.0**-11, 7, 1, local_steps=10, client_lr=CLIENT_RATE),
    _vectors("fedadagrad", "fedadagrad", 2.0**-12, 7, 1, local_steps=10, client_lr=CLIENT_RATE),
    _vectors("fedzo", "fedzo", 2.0**-13, 7, 1, local_steps=10, perturbations=5),
    _vectors("fedlora-8", "fedavg", 2.0**-5, 50, 4, lora_rank=8),
    _vectors("fedlora-10", "fedavg", 2.0**-8, 16, 2, lora_rank=1, local_steps=10),
    _vectors("fedlora", "fedavg", 2.0**-8, 100, 4, lora_rank=1),
    _vectors("fedlora-4bit", "fedcom", 2.0**-8, 100, 4, lora_rank=1, bits=4),
    _vectors("fedlora-sign", "fedavg-sign", 2.0**-11, 100, 4, lora_rank=1),
)


@dataclass(frozen=True)
class Language(equal_bytes.EqualBytes):
    """The comparison on a language model.

    Attributes:
        budgets: of every count.
        options: of the problem `lm`, but for its key, the part it is evaluated on and the adapters' rank.
        pretraining_key: the base model is tiny-opt, pre-trained from this key; None: the one that the options name.
    """

    budgets: Budgets = field(default_factory=lambda: BUDGETS)
    options: dict[str, Any] = field(default_factory=dict)
    pretraining_key: int | None = None

    def problem(self, key: int, lora_rank: int = 0) -> Any:
        """A `LanguageProblem`, evaluated on validation examples for a tuning key and on test examples for another."""
        own = {"key": key, "evaluate_on": "validation" if key in self.tuning_keys else "test", "lora_rank": lora_rank}
        if self.pretraining_key is not None:
            from llm.tiny import folder

            own["model"] = str(folder(self.pretraining_key))
        return _built(tuple(sorted((self.options | own).items())))

    def curve(self, arm: Sender, lr: float, key: int) -> pd.DataFrame:
        """One run."""
        assert isinstance(arm, LanguageSender)
        options = FederationOptions(sampled=SAMPLED, local_steps=arm.local_steps, key=key)
        problem = self.problem(key, arm.lora_rank)
        base = problem.clients * NUMBER * base_size(problem)
        return equal_bytes.curve(problem, arm, lr, options, self.budgets, base, ends=True)

    def config(self) -> dict[str, Any]:
        """Problem, arms and budgets; weights and examples by their hashes."""
        parts = {key: self.problem(key) for key in (self.tuning_keys[0], self.keys[0])}
        problem = parts[self.keys[0]]
        described = problem.describe()
        skip = ("model", "key", "evaluate_on", "lora_rank", "data_hash")
        return {
            "problem": {name: value for name, value in described.items() if name not in skip} | {"clients": problem.clients},
            "model": self.options["model"], "pretraining_key": self.pretraining_key,
            "data_hash": [part.data_hash for part in parts.values()], "dimension": base_size(problem), "sampled": SAMPLED,
            "arms": {arm.name: asdict(arm) for arm in self.arms}, "octaves": self.octaves,
            "budgets": {count: list(values) for count, values in self.budgets.items()},
            "score": "mean validation loss at the budget", "version": self.version,
        }  # fmt: skip


def base_size(problem: Any) -> int:
    """The number of weights of a problem's base model, without adapters."""
    adapters = problem.layout.dimension if problem.lora_rank else 0
    return sum(p.numel() for p in problem.module.parameters()) - adapters


@functools.lru_cache(maxsize=1)
def _built(options: tuple[tuple[str, Any], ...]) -> Any:
    """A problem by its options; runs that follow one another in a process share one. None of them changes it."""
    return catalogue.problem("lm", dict(options))


EQUAL_BYTES_LLM = Language(
    "equal_bytes_llm", ARMS, tuning_keys=(101, 102, 103), keys=tuple(range(1, 9)), octaves=7,
    options={"model": EMBEDDED, "task": "toy-sst2", "batch_size": 8, "evaluate_limit": 250}, pretraining_key=1,
)  # fmt: skip
