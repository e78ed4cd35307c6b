"""The models whose rounds are timed: the papers' MNIST CNN, and a random model of OPT's shape with 6.9 million parameters."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hiso_bench import keys
from hiso_bench.losses import Batch, ModuleLoss, cross_entropy, layout_of
from hiso_bench.points import Point
from vision import models
from vision.problems import ImageLoss

P = 5


@dataclass(frozen=True)
class Case:
    """A model, the number of clients there are and are sampled, and a label."""

    name: str
    model: str
    clients: int
    sampled: int


CASES = (
    Case("a: MNIST CNN, m = 8", "cnn", 64, 8),
    Case("b: OPT shape, m = 2", "opt", 8, 2),
    Case("b: OPT shape, m = 8", "opt", 32, 8),
)


def module(case: Case) -> nn.Module:
    """The case's model in eval mode, with random parameters from a fixed key."""
    if case.model == "cnn":
        return models.build("paper_cnn", torch.Generator().manual_seed(0))
    from transformers import OPTConfig, OPTForCausalLM

    config = OPTConfig(
        vocab_size=8192, hidden_size=256, num_hidden_layers=6, ffn_dim=1024, num_attention_heads=8,
        max_position_embeddings=128, word_embed_proj_dim=256, use_cache=False,
    )  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return OPTForCausalLM(config).eval()


class BenchProblem:
    """Random batches of the right shape: 32 images, or 16 sequences of 32 tokens scored on their last logits."""

    name = "bench"
    metric = "loss"
    higher_is_better = False

    def __init__(self, case: Case) -> None:
        self.case, self.clients = case, case.clients
        if case.model == "cnn":
            self.loss: ModuleLoss = ImageLoss(module(case), cross_entropy, "clients")
        else:
            # One forward over several clients' sequences is slower on a CPU than one after the other: it leaves the cache.
            self.loss = ModuleLoss(module(case), last_token_loss, "loop")
        self.layout = layout_of(self.loss)

    def initial(self) -> Point:
        """The model's parameters."""
        return self.loss.base_point()

    def batch(self, client: np.ndarray, round_: int, step: int) -> Batch:
        """(inputs, labels), drawn from the client and the round."""
        rng = keys.rng(keys.derive(0, "batch", client=int(client), round=round_, step=step))
        if self.case.model == "cnn":
            images = torch.from_numpy(rng.standard_normal((32, 1, 28, 28), dtype=np.float32))
            return images, torch.from_numpy(rng.integers(0, 10, 32))
        return torch.from_numpy(rng.integers(4, 8192, (16, 32))), torch.from_numpy(rng.integers(4, 8192, 16))

    def evaluate(self, x: Point) -> dict[str, float]:
        """The loss of one batch."""
        return {"loss": float(self.loss(x, self.batch(np.array(0), 0, 0)))}

    def describe(self) -> dict[str, Any]:
        """The case."""
        return {"case": self.case.name}


def last_token_loss(net: Any, batch: Batch) -> Tensor:
    """Cross-entropy of the logits of each sequence's last token, (sequences,)."""
    tokens, labels = batch
    return F.cross_entropy(net(input_ids=tokens, attention_mask=torch.ones_like(tokens)).logits[:, -1], labels, reduction="none")


def forward(case: Case, model: nn.Module, batch: Batch) -> Tensor:
    """One plain `model(batch)`, to its logits: the unit of the floor."""
    if case.model == "cnn":
        return model(batch[0])
    return model(input_ids=batch[0], attention_mask=torch.ones_like(batch[0])).logits
