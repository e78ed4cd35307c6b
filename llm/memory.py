"""How much memory a language model will need, before any weight is read.

What is held, with d trainable parameters: the module (the frozen part of a model with adapters in the compute dtype, and the base
point where it is small), x, x', the accumulator of the replay, H, a copy of x in the compute dtype where that is not float32, and
the activations of one forward pass. More than one local step takes one more copy of x. Nothing grows with their number or that of
the clients; the cache of the round's directions adds what its budget allows, and none where that is 0.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from llm.hub import ModelError, library
from llm.lora import adapter_size

MASTER = torch.float32
KEPT_BYTES = 1 << 28
"""A base point up to this size (an adapter, a small model) is kept beside x; a larger one is read again when it is asked for."""
_GROUP = Path("/sys/fs/cgroup")


@dataclass(frozen=True)
class Memory:
    """An estimate, in bytes.

    Attributes:
        parameters: of the model, tied ones once, without adapters.
        trainable: d: the coordinates of the point.
        parts: what is held on the device while the model is trained -> bytes.
        loading: bytes in main memory while the weights are read: all of them in float32, and the frozen ones cast.
    """

    parameters: int
    trainable: int
    parts: dict[str, int]
    loading: int

    @property
    def total(self) -> int:
        """Bytes that training holds."""
        return sum(self.parts.values())

    def __str__(self) -> str:
        shown = ", ".join(f"{part} {gigabytes(size)}" for part, size in self.parts.items() if size)
        return f"{self.parameters:,} parameters, {self.trainable:,} trained, in all about {gigabytes(self.total)} ({shown})"


def skeleton(config: Any) -> nn.Module:
    """The causal language model of a configuration on the meta device: names and shapes without memory."""
    with torch.device("meta"):
        return library("transformers").AutoModelForCausalLM.from_config(config)


def estimate_memory(
    config: Any,
    dtype: torch.dtype = MASTER,
    lora_rank: int = 0,
    tokens: int = 0,
    positions: int = 0,
    curvature: bool = True,
    directions: int = 0,
) -> Memory:
    """What fine-tuning a model takes.

    Args:
        config: its transformers configuration.
        dtype: of the forward pass.
        lora_rank: 0 trains everything.
        tokens: in one forward pass, padding included: clients x examples x length in mode "clients", else examples x length.
        positions: at how many of them the head computes logits.
        curvature: whether the method holds H.
        directions: how many z the cache keeps.

    Cost: no memory; milliseconds per layer.
    """
    module = skeleton(config)
    parameters = sum(p.numel() for p in module.parameters())
    added = adapter_size(module, lora_rank) if lora_rank else 0
    d = added or parameters
    frozen = parameters if lora_rank else 0
    text = config.get_text_config()
    # Of one layer the widest tensors live at once (input, normalised input, and two of the feed-forward width or of
    # queries, keys, values and output); logits are cast to float32 and go through a softmax.
    width = 2 * text.hidden_size + 2 * max(getattr(text, "intermediate_size", 0) or 4 * text.hidden_size, 2 * text.hidden_size)
    cast = frozen * dtype.itemsize if dtype != MASTER else 0
    parts = {
        "module": frozen * dtype.itemsize + (base if (base := d * MASTER.itemsize) <= KEPT_BYTES else 0),
        **of_points(d, curvature, directions),
        "copy in the compute dtype": d * dtype.itemsize if dtype != MASTER else 0,
        "one forward pass": tokens * width * dtype.itemsize
        + positions * text.vocab_size * (dtype.itemsize + 2 * MASTER.itemsize),
    }
    return Memory(parameters, d, parts, loading=parameters * MASTER.itemsize + cast)


def of_points(d: int, curvature: bool = True, directions: int = 0) -> dict[str, int]:
    """Bytes of each point that a round holds, d coordinates each."""
    size = d * MASTER.itemsize
    return {"x": size, "x'": size, "accumulator": size, "H": size if curvature else 0, "cached z": directions * size}


def available_memory(device: torch.device) -> int:
    """Bytes that can still be had on a device: of a control group's limit too, where there is one."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    free = library("psutil").virtual_memory().available
    try:
        limit, used = ((_GROUP / name).read_text().strip() for name in ("memory.max", "memory.current"))
    except OSError:
        return free
    return free if limit == "max" else min(free, max(int(limit) - int(used), 0))


def require_room(memory: Memory, model: str, device: torch.device) -> None:
    """Refuse what does not fit, before anything is loaded.

    Raises:
        ModelError: less is free than reading the weights (in main memory) or training (on the device) takes.
    """
    for where, needed in ((torch.device("cpu"), memory.loading), (device, memory.total)):
        if (free := available_memory(where)) < needed:
            raise ModelError(
                f"model {model!r} needs {gigabytes(needed)} of memory on {where} and {gigabytes(free)} are free: {memory}; "
                "choose a smaller model or batch, adapters (lora_rank), mode loop, or another device"
            )


def gigabytes(size: int) -> str:
    """A number of bytes for people."""
    return f"{size / 1e9:.1f} GB" if size >= 1e8 else f"{size / 1e6:.1f} MB"
