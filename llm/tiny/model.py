"""The architecture of tiny-opt and its initial weights."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from transformers import OPTConfig, OPTForCausalLM

from hiso_bench import keys


@dataclass(frozen=True)
class Shape:
    """Sizes, and how the initial weights are drawn."""

    width: int = 128
    layers: int = 4
    heads: int = 4
    context: int = 1024
    embedding_std: float = 0.05
    query_key: tuple[float, float] = (1.0, 0.5)
    value: tuple[float, float] = (0.7, 0.3)
    output: tuple[float, float] = (0.5, 0.1)
    """Attention weights start as (share of a random rotation) + (share of noise)."""


def config(vocabulary: int, shape: Shape) -> OPTConfig:
    """An OPT without dropout; with the default shape of about a million parameters."""
    return OPTConfig(
        vocab_size=vocabulary,
        hidden_size=shape.width,
        word_embed_proj_dim=shape.width,
        num_hidden_layers=shape.layers,
        ffn_dim=4 * shape.width,
        num_attention_heads=shape.heads,
        max_position_embeddings=shape.context,
        dropout=0.0,
        attention_dropout=0.0,
        layerdrop=0.0,
        use_cache=False,
        bos_token_id=2,
        eos_token_id=2,
        pad_token_id=1,
    )


def untrained(vocabulary: int, key: int, shape: Shape = Shape()) -> OPTForCausalLM:
    """A model with initial weights that a key decides; global random generators are left as they are.

    Attention starts near what training would have to find first: queries look for keys of their own token, values are passed on
    as they are (mimetic initialisation, arXiv 2305.09828, here with both products positive), and positions start as sinusoids, so
    that neighbours are near each other. From the usual start a model of this size is trained for minutes before it copies a
    single word from its context.

    Args:
        vocabulary: number of tokens.
        key: 64-bit key.
        shape: sizes and constants.

    Returns:
        The model in eval mode, float32.
    """
    with torch.random.fork_rng(devices=[]):
        model = OPTForCausalLM(config(vocabulary, shape))
    generator = torch.Generator().manual_seed(keys.derive(key, "tiny-opt init") % 2**32)
    with torch.no_grad():
        for name, p in model.named_parameters():
            if name.endswith("embed_positions.weight"):
                p.copy_(shape.embedding_std * _sinusoids(*p.shape))
            elif "embed" in name:
                p.normal_(0.0, shape.embedding_std, generator=generator)
            elif p.ndim == 2:
                branches = (2 * shape.layers) ** 0.5 if name.endswith("fc2.weight") else 1.0
                p.normal_(0.0, p.shape[1] ** -0.5 / branches, generator=generator)
            else:
                p.fill_(1.0 if name.endswith("norm.weight") else 0.0)
        for layer in model.model.decoder.layers:
            _mimetic(layer.get_submodule("self_attn"), shape, generator)
    return model.eval()


def _sinusoids(rows: int, width: int) -> Tensor:
    angles = torch.arange(rows)[:, None] * 10_000 ** (-torch.arange(0, width, 2) / width)
    return torch.stack((angles.sin(), angles.cos()), dim=2).flatten(1)


def _mimetic(attention: nn.Module, shape: Shape, generator: torch.Generator) -> None:
    """Queries and keys share a rotation, as do values and outputs, so that their products are near the identity."""

    def noise() -> Tensor:
        return torch.randn(shape.width, shape.width, generator=generator) * shape.width**-0.5

    looking, passing = (torch.linalg.qr(noise())[0] for _ in range(2))
    parts = {
        "q_proj": (looking, shape.query_key),
        "k_proj": (looking, shape.query_key),
        "v_proj": (passing, shape.value),
        "out_proj": (passing.T, shape.output),
    }
    for name, (rotation, (share, rest)) in parts.items():
        attention.get_submodule(name).weight.copy_(share * rotation + rest * noise())  # type: ignore[operator]
