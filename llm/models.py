"""Causal language models, ready to be fine-tuned without gradients: one call for every architecture, place and dtype.

All arithmetic of the federation is done on a float32 master point. The dtype chosen here is that of the forward pass: the loss
casts a copy of the master, and weights that are not trained (the base under adapters) are stored in it.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from hiso_bench.methods.base import require
from llm import hub
from llm.hub import EMBEDDED, ModelError, library
from llm.lora import attach
from llm.memory import MASTER, estimate_memory, require_room

DTYPES = {"float32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
_UNLIMITED = 1 << 20
# The options that change what a model computes and no name or shape of a weight.
_FUNCTION = (
    "model_type", "num_attention_heads", "num_key_value_heads", "hidden_act", "hidden_activation", "activation_function",
    "rms_norm_eps", "layer_norm_eps", "rope_parameters", "no_rope_layers", "layer_types", "sliding_window",
    "attn_logit_softcapping", "final_logit_softcapping", "query_pre_attn_scalar", "do_layer_norm_before",
)  # fmt: skip


@dataclass(frozen=True, eq=False)
class LanguageModel:
    """A causal language model, or an encoder with a head (`llm.encoder`).

    Attributes:
        module: called as `module(input_ids=, attention_mask=).logits` (an encoder: as it says itself); in eval mode, without a
            key-value cache. What is trainable is float32: all of it, the adapters, or the last layers and the head.
        tokenizer: its tokenizer; pads on the right.
        source: where it comes from, one line.
        base_hash: of the base weights (see `base_hash`); equal for every dtype, and with or without adapters.
        context: the longest text, in tokens.
        dtype: of the forward pass.
    """

    module: nn.Module
    tokenizer: Any
    source: str
    base_hash: str
    context: int
    dtype: torch.dtype


def load(
    model: str = EMBEDDED,
    dtype: str = "float32",
    lora_rank: int = 0,
    lora_alpha: float = 16.0,
    lora_key: int = 0,
    device: str = "cpu",
) -> LanguageModel:
    """Load a model with everything or only its adapters trainable. Random generators are left as they are.

    Args:
        model: "tiny-opt" or "imdb-opt" (made here), a local folder, or a name on the Hugging Face hub.
        dtype: of the forward pass: float32, bf16 or fp16.
        lora_rank: rank of the adapters; 0 trains all weights.
        lora_alpha: their output is scaled by lora_alpha / lora_rank.
        lora_key: 64-bit key of their initial values.
        device: such as "cpu" or "cuda".

    Raises:
        ValueError: an option out of range.
        ModelError: no such model, not a (whole) causal language model, or not enough memory for it; one line, before any weight
            is read where the files allow it.

    Cost: float32 weights in memory once (and, under adapters, their copy in `dtype` while it is made); one hash over them.
    """
    require(dtype in DTYPES, "dtype", dtype, ", ".join(DTYPES))
    require(lora_rank >= 0, "lora_rank", lora_rank, ">= 0 (0 trains all weights)")
    require(lora_alpha > 0, "lora_alpha", lora_alpha, "> 0")
    place = device_named(device)
    folder, source = hub.locate(model)
    config = read_config(folder, model)
    require_room(estimate_memory(config, DTYPES[dtype], lora_rank), model, place)
    # A class of transformers may draw initial values for weights that it then reads, or lacks (which is refused).
    with quiet(), torch.random.fork_rng(devices=[]):
        module, tokenizer = _read(folder, model, config)
    known = base_hash(module)
    module.config.use_cache = False
    module.eval()
    _check_causal(module, model)
    if lora_rank:
        for p in module.parameters():  # not the buffers: what positions are computed from stays float32
            p.data = p.data.to(DTYPES[dtype])
        module = attach(module, lora_rank, lora_alpha, lora_key)
    return LanguageModel(module.to(place), tokenizer, source, known, _context(config, tokenizer), DTYPES[dtype])


def base_hash(module: nn.Module) -> str:
    """A hash of a model's function: of its weights' names, shapes and float32 values, which are tied, and how they are used.

    It depends neither on the order of the weights nor on the files and dtype they were stored in (16-bit floats are float32
    values).
    The configuration takes part because weights alone do not tell every architecture from every other (SmolLM3 from Llama).
    32 hexadecimal digits. Cost: SHA-256 of four bytes per parameter, about a second per gigabyte; float32 weights are not copied.
    """
    text: Any = module.config.get_text_config()  # type: ignore[operator,union-attr]
    parts = [f"{name}={json.dumps(getattr(text, name), sort_keys=True)}\n" for name in _FUNCTION if hasattr(text, name)]
    names: dict[torch.Tensor, list[str]] = {}
    for name, p in module.named_parameters(remove_duplicate=False):
        names.setdefault(p, []).append(name)
    for p, known in names.items():
        values = p.detach().to("cpu", torch.float32).contiguous()
        digest = hashlib.sha256(values.reshape(-1).numpy().data).hexdigest()
        parts.append(f"{' '.join(sorted(known))} {list(values.shape)} {digest}\n")
    return hashlib.sha256("".join(sorted(parts)).encode()).hexdigest()[:32]


def read_config(folder: Path, model: str) -> Any:
    """The configuration of the causal language model in a folder.

    Raises:
        ModelError: it cannot be read, is of an unknown or another kind of model, or says that the weights are quantised.
    """
    transformers = library("transformers")
    try:
        config = transformers.AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelError(f"model {model!r} has a config.json that transformers does not take: {one_line(error)}") from error
    kinds = transformers.AutoModelForCausalLM._model_mapping
    if config.is_encoder_decoder or type(config) not in kinds:
        raise ModelError(
            f"model {model!r} is of the type {config.model_type!r}, which is no causal language model; {hub.INSTEAD}"
        )
    if getattr(config, "quantization_config", None) is not None:
        raise ModelError(f"model {model!r} has quantised weights, which no direction can be added to; use its float weights")
    return config


def _read(folder: Path, model: str, config: Any) -> tuple[Any, Any]:
    transformers = library("transformers")
    where: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder, **where)
        module, told = transformers.AutoModelForCausalLM.from_pretrained(
            folder, config=config, dtype=MASTER, output_loading_info=True, **where
        )
    except Exception as error:  # of transformers, tokenizers, safetensors and pickle, each with classes of its own
        raise ModelError(f"model {model!r} cannot be read: {one_line(error)}") from error
    if missing := sorted(told["missing_keys"]):
        raise ModelError(
            f"model {model!r} lacks {len(missing)} weights of a {type(module).__name__} ({missing[0]}, ...); {hub.INSTEAD}"
        )
    tokenizer.padding_side = "right"
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    return module, tokenizer


def _check_causal(module: nn.Module, model: str) -> None:
    """Encoders load as causal models too, and would see the answer."""
    ids = torch.tensor([[3, 4, 5, 6], [3, 4, 5, 7]])
    with torch.inference_mode():
        logits = module(input_ids=ids, attention_mask=torch.ones_like(ids)).logits[:, :3]
    if not torch.allclose(logits[0], logits[1], rtol=1e-3, atol=1e-4):
        raise ModelError(f"model {model!r} sees the tokens that it is to predict: it is no causal language model; {hub.INSTEAD}")


def _context(config: Any, tokenizer: Any) -> int:
    text = config.get_text_config()
    for name in ("max_position_embeddings", "n_positions", "seq_length"):
        if isinstance(found := getattr(text, name, None), int):
            return found
    return min(tokenizer.model_max_length, _UNLIMITED)


def device_named(name: str) -> torch.device:
    """A device that can be used.

    Raises:
        ModelError: it cannot.
    """
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ModelError(f"device {name!r} cannot be used here: {one_line(error)}") from error
    return device


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep transformers from reporting, and from drawing bars where nobody watches them."""
    logging = library("transformers").utils.logging
    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    if not sys.stderr.isatty():
        logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()


def one_line(error: BaseException) -> str:
    """The beginning of an error's message."""
    return " ".join(str(error).split())[:200] or type(error).__name__
