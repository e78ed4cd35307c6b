"""Models of OPT's shapes with random weights, a round of fine-tuning them, and what no round can do without."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, OPTConfig

from benchmarks.cases import P
from hiso_bench import keys, methods
from hiso_bench.directions import DirectionKey, Directions
from hiso_bench.federation import Federation, FederationOptions
from hiso_bench.losses import Batch, layout_of
from hiso_bench.points import Point
from llm.loss import LanguageLoss
from llm.models import DTYPES

VERBALIZERS = (5, 6)


@dataclass(frozen=True)
class Shape:
    """An OPT: heads of 64 (32 in the smallest), feed-forward layers of four times the width."""

    name: str
    vocabulary: int
    width: int
    layers: int
    heads: int

    def config(self) -> Any:
        """The configuration, without dropout."""
        return OPTConfig(
            vocab_size=self.vocabulary, hidden_size=self.width, word_embed_proj_dim=self.width, num_hidden_layers=self.layers,
            ffn_dim=4 * self.width, num_attention_heads=self.heads, max_position_embeddings=2048, use_cache=False,
            dropout=0.0, attention_dropout=0.0,
        )  # fmt: skip


TINY = Shape("tiny-opt's shape", 1024, 128, 4, 4)
SMALL = Shape("256 wide, 4 layers", 16384, 256, 4, 4)
OPT_125M = Shape("OPT-125M", 50272, 768, 12, 12)
OPT_1_3B = Shape("OPT-1.3B", 50272, 2048, 24, 32)


@dataclass(frozen=True)
class Case:
    """A shape and a round: 16 sequences for each sampled client and local step, P = 5, all sequences of full length.

    Attributes:
        shape: of the model.
        pairs: how often floor and rounds are timed, at most.
        tokens: in a sequence.
        tau: local steps.
        attention: "sdpa" (fused) or "eager".
        device: cpu or cuda.
        dtype: of the forward pass.
        sampled: m.
        clients: M.
        peer: whether the official code is timed too.
    """

    shape: Shape
    pairs: int
    tokens: int = 32
    tau: int = 1
    attention: str = "sdpa"
    device: str = "cpu"
    dtype: str = "float32"
    sampled: int = 2
    clients: int = 6
    peer: bool = False

    @property
    def name(self) -> str:
        """What a table calls it."""
        attention = "fused" if self.attention == "sdpa" else self.attention
        steps = f", tau = {self.tau}" if self.tau > 1 else ""
        return f"{self.shape.name}, 16 x {self.tokens}, {self.dtype}, {attention} attention{steps}"


CPU = (
    Case(TINY, 15, peer=True),
    Case(TINY, 15, tau=2),
    Case(TINY, 15, attention="eager"),
    Case(SMALL, 9, peer=True),
    Case(SMALL, 9, tau=2),
    Case(SMALL, 9, attention="eager"),
    Case(OPT_125M, 2),
)
CUDA = tuple(
    Case(shape, 15, tokens, attention=attention, device="cuda", dtype="bf16", peer=attention == "sdpa")
    for shape in (OPT_125M, OPT_1_3B)
    for tokens in (32, 300)
    for attention in ("sdpa", "eager")
)


def module(case: Case, device: str = "") -> nn.Module:
    """The model in eval mode, with transformers' random weights ("meta": without any)."""
    with torch.device(device or case.device), torch.random.fork_rng(devices=[]):
        made = AutoModelForCausalLM.from_config(case.shape.config(), attn_implementation=case.attention)
    return made.eval()


class LanguageBench:
    """A problem of random tokens: classification by two verbalizers at the last position."""

    name = "bench"
    metric = "loss"
    higher_is_better = False

    def __init__(self, case: Case) -> None:
        self.case, self.clients = case, case.clients
        self.loss = LanguageLoss(module(case, "meta"), torch.tensor(VERBALIZERS, device=case.device), DTYPES[case.dtype])
        self.layout = layout_of(self.loss)

    def initial(self) -> Point:
        """Weights of standard deviation 0.02, norms at 1: drawn again at every call, so that no second copy is kept."""
        draw = torch.Generator(self.case.device).manual_seed(0)
        x = self.layout.empty(torch.float32, self.case.device)
        for name, leaf in zip(self.loss.names, x, strict=True):
            leaf.fill_(1.0) if name.endswith("norm.weight") else leaf.normal_(0.0, 0.02, generator=draw)
        return x

    def batch(self, client: np.ndarray, round_: int, step: int) -> Batch:
        """16 sequences, no padding: (input_ids, attention_mask, positions, targets)."""
        rng = keys.rng(keys.derive(0, "batch", client=int(client), round=round_, step=step))
        ids = torch.from_numpy(rng.integers(4, self.case.shape.vocabulary, (16, self.case.tokens)))
        labels = torch.from_numpy(rng.integers(0, 2, (16, 1)))
        parts = ids, torch.ones_like(ids), torch.full_like(labels, self.case.tokens - 1), labels
        return tuple(part.to(self.case.device) for part in parts)

    def evaluate(self, x: Point) -> dict[str, float]:
        """The loss of one batch."""
        return {"loss": float(self.loss(x, self.batch(np.array(0), 0, 0)))}

    def describe(self) -> dict[str, Any]:
        """The case."""
        return {"case": self.case.name}


def round_of(case: Case, cached: bool) -> Callable[[], object]:
    """A whole round of HiSo through the federation: catch-up messages, scalars, ledger, replay of x and H.

    Cached: P directions are kept, drawn once where tau is 1. Else none is kept: the low-memory mode.
    """
    problem = LanguageBench(case)
    budget = P * problem.layout.numel * 4 if cached else 0
    options = FederationOptions(sampled=case.sampled, local_steps=case.tau, cache_bytes=budget)
    return Federation(problem, methods.build("hiso", lr=1e-6, perturbations=P), options).round


def floor_of(case: Case) -> tuple[Callable[[], None], Callable[[], None]]:
    """What no round can do without: m tau (P + 1) forward passes of the plain model, and tau P Gaussians per parameter."""
    problem = LanguageBench(case)
    plain = module(case).to(DTYPES[case.dtype])
    batches = [problem.batch(np.array(client), 0, step) for client in range(case.sampled) for step in range(case.tau)]
    directions = Directions(problem.layout, 1, device=case.device)
    out = problem.layout.empty(torch.float32, case.device)

    def forwards() -> None:
        with torch.inference_mode():
            for ids, mask, positions, _ in batches:
                for _ in range(P + 1):
                    plain(input_ids=ids, attention_mask=mask, logits_to_keep=positions)

    def gaussians() -> None:
        for step in range(case.tau):
            for p in range(P):
                directions.draw(DirectionKey(0, step, p), out)

    return forwards, gaussians


def peer_of(checkout: Path, case: Case) -> Callable[[], None]:
    """The same round in a checkout of the official code, whose forward pass gives the logits of all positions."""
    from benchmarks import peer

    problem = LanguageBench(case)

    def inference(model: nn.Module, inputs: Any) -> Tensor:
        return model(input_ids=inputs[0], attention_mask=inputs[1]).logits[:, -1, list(VERBALIZERS)]

    def batch(client: int, number: int) -> Any:
        ids, mask, _, targets = problem.batch(np.array(client), number, 0)
        return Inputs((ids, mask)), targets[:, 0]

    base = module(case).to(DTYPES[case.dtype])
    return peer.round_of(checkout, base, inference, batch, case.clients, case.sampled, case.tau, case.device)


class Inputs(tuple):
    """Token ids and their mask; the official client moves what it is given to its device."""

    def to(self, *_: object, **__: object) -> Inputs:
        """Itself: it is there already."""
        return self
