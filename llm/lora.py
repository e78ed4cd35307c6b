"""Low-rank adapters (LoRA, arXiv 2106.09685): the base weights are frozen, the point holds the adapters' leaves.

W x becomes W x + (alpha / r) B A x with A (r, in) and B (out, r). peft builds them; their initial values are ours, drawn from a
key: B = 0, so that the adapted model starts as the base model, and A uniform in +-1/sqrt(in), as peft does it.
"""

from __future__ import annotations

import math
import warnings

import torch
from torch import nn

from hiso_bench import keys
from llm.hub import library

PROJECTIONS = ("q_proj", "v_proj")


def targets(module: nn.Module) -> dict[str, nn.Module]:
    """The layers that are adapted: queries and values where they are called so, else every linear layer but the head."""
    head = module.get_output_embeddings() if hasattr(module, "get_output_embeddings") else None  # type: ignore[operator]
    # transformers' Conv1D (of GPT-2) is a linear layer whose weight is transposed.
    linear = {n: part for n, part in module.named_modules() if isinstance(part, nn.Linear) or type(part).__name__ == "Conv1D"}
    chosen = {name: part for name, part in linear.items() if name.rsplit(".", 1)[-1] in PROJECTIONS}
    return chosen or {name: part for name, part in linear.items() if part is not head}


def adapter_size(module: nn.Module, rank: int) -> int:
    """The number of parameters of a model's adapters."""
    return sum(rank * sum(part.get_parameter("weight").shape) for part in targets(module).values())


def attach(module: nn.Module, rank: int, alpha: float, key: int) -> nn.Module:
    """A model with adapters, in eval mode; they alone are trainable, in float32 whatever the dtype of the base.

    Args:
        module: a causal language model of transformers; it is changed in place.
        rank: r >= 1.
        alpha: the adapters' output is scaled by alpha / r.
        key: 64-bit key of A; the global generators stay as they are.
    """
    peft = library("peft")
    which = {name.rsplit(".", 1)[-1] for name in targets(module)}
    config = peft.LoraConfig(
        r=rank,
        lora_alpha=alpha,
        lora_dropout=0.0,
        bias="none",
        target_modules=sorted(which) if which <= set(PROJECTIONS) else "all-linear",
        task_type="CAUSAL_LM",
    )
    with warnings.catch_warnings(), torch.random.fork_rng(devices=[]):  # peft draws, and is overruled below
        warnings.simplefilter("ignore", FutureWarning)  # peft asks transformers by a name that is going out of use
        warnings.filterwarnings("ignore", "fan_in_fan_out")  # of Conv1D, which peft then handles rightly
        adapted = peft.get_peft_model(module, config)
    leaves = [(name, p) for name, p in adapted.named_parameters() if p.requires_grad]
    for number, (name, leaf) in enumerate(leaves):
        if ".lora_A." in name:
            bound = 1 / math.sqrt(leaf.shape[1])
            draw = keys.rng(keys.derive(key, "lora", leaf=number)).uniform(-bound, bound, tuple(leaf.shape))
            leaf.data.copy_(torch.from_numpy(draw))
        else:
            leaf.data.zero_()
    return adapted.eval()
