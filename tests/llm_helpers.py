"""What the tests of language models share: a tiny random model of every supported architecture, and a byte-level tokenizer."""

import atexit
import functools
import json
import shutil
import tempfile

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from tokenizers.decoders import ByteFallback, Fuse, Sequence, Strip
from tokenizers.decoders import ByteLevel as ByteLevelDecoder
from tokenizers.models import BPE
from tokenizers.normalizers import Prepend
from tokenizers.pre_tokenizers import ByteLevel
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast

from hiso_bench import cli, keys

SPECIAL = ("<s>", "</s>", "<pad>", "<unk>")
WORDS = (" good", " bad", " great", " terrible", "Yes", "No", "Maybe", " Yes", " No", " yes", " no")
"""Single tokens besides the bytes: what tasks use as verbalizers."""


def tokenizer(words=WORDS):
    """Bytes, and the given words as single tokens: every text is encoded, and decoding gives it back."""
    start = ByteLevel(add_prefix_space=False)
    vocabulary = {token: i for i, token in enumerate((*SPECIAL, *sorted(ByteLevel.alphabet())))}
    merges = []
    for word in words:
        ((spelled, _),) = start.pre_tokenize_str(word)
        for cut in range(1, len(spelled)):
            if spelled[: cut + 1] not in vocabulary:
                vocabulary[spelled[: cut + 1]] = len(vocabulary)
                merges.append((spelled[:cut], spelled[cut]))
    made = Tokenizer(BPE(vocabulary, merges, unk_token="<unk>"))
    made.pre_tokenizer, made.decoder = start, ByteLevelDecoder()
    return PreTrainedTokenizerFast(
        tokenizer_object=made, bos_token="<s>", eos_token="</s>", pad_token="<pad>", unk_token="<unk>", model_max_length=64
    )


_OPT = {"ffn_dim": 32, "word_embed_proj_dim": 16}
_NEW = {"intermediate_size": 32, "num_key_value_heads": 1, "head_dim": 8}
_GEMMA = _NEW | {"query_pre_attn_scalar": 8, "sliding_window": 4}
ARCHITECTURES = {
    "opt": ("opt", _OPT),
    "opt-350m": ("opt", _OPT | {"word_embed_proj_dim": 12, "do_layer_norm_before": False}),
    "llama": ("llama", _NEW | {"tie_word_embeddings": False}),
    "smollm": ("llama", _NEW | {"tie_word_embeddings": True}),
    "smollm3": ("smollm3", _NEW | {"no_rope_layers": [1, 0]}),
    "qwen2": ("qwen2", _NEW | {"tie_word_embeddings": True}),
    "qwen3": ("qwen3", _NEW | {"tie_word_embeddings": True}),
    "gemma": ("gemma", _NEW),
    "gemma2": ("gemma2", _GEMMA | {"final_logit_softcapping": 5.0, "attn_logit_softcapping": 5.0}),
    "gemma3": ("gemma3_text", _GEMMA | {"layer_types": ["sliding_attention", "full_attention"]}),
}
"""Name -> (transformers' model type, options); each as its family has it: tied or not, grouped queries, caps, windows."""


def config(name, context=64):
    """Two layers of width 16, vocabulary of `tokenizer()`."""
    kind, options = ARCHITECTURES[name]
    ids = {"bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 2}
    sizes = {"vocab_size": len(tokenizer()), "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
    return AutoConfig.for_model(kind, **sizes, **ids, max_position_embeddings=context, dtype="float32", **options)


def model(name, key=0, scale=0.3, context=64):
    """A causal language model in eval mode, its float32 weights drawn from a key (norm weights around their neutral value)."""
    with torch.random.fork_rng(devices=[]):
        made = AutoModelForCausalLM.from_config(config(name, context)).eval()
    draw = keys.rng(keys.derive(key, "weights"))
    for parameter in made.parameters():
        neutral = parameter.data if parameter.ndim == 1 else torch.zeros(())
        noise = draw.standard_normal(tuple(parameter.shape)).astype(np.float32)
        parameter.data.copy_(neutral + scale * torch.from_numpy(noise))
    return made


def save(folder, name, key=0, context=64):
    """A model and its tokenizer as a local folder, as `save_pretrained` writes them; returns the folder."""
    model(name, key, context=context).save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    return folder


@functools.cache
def folder(name, key=0):
    """The folder of a saved model, written once for all the tests of a process; not to be changed."""
    kept = tempfile.TemporaryDirectory()
    atexit.register(kept.cleanup)
    return str(save(kept.name, name, key))


def changed(target, name="opt", weights=None, config=None, without=()):
    """A copy of a saved model: its weights put through a function, its configuration updated, files left out."""
    shutil.copytree(folder(name), target)
    if weights:
        save_file(weights(load_file(target / "model.safetensors")), target / "model.safetensors", {"format": "pt"})
    if config:
        path = target / "config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | config))
    for file in without:
        (target / file).unlink()
    return str(target)


def one_line(call, *said, **options):
    """Assert that a call is refused with one readable line that says all of it."""
    with pytest.raises(ValueError) as error:
        call(**options)
    message = str(error.value)
    assert "\n" not in message
    assert all(part in message for part in said), message
    assert len(message) < 600


def scored_tokenizer(pieces):
    """The tokenizer of llama2.c from its pieces: merge the adjacent pair whose piece scores highest; what has no piece is bytes.

    Args:
        pieces: list of {"id", "piece", "score"}; ids 0, 1 and 2 are unknown, beginning and end.
    """
    specials = ("<unk>", "<s>", "</s>")
    vocabulary = {specials[p["id"]] if p["id"] < 3 else p["piece"]: p["id"] for p in pieces}
    merges = [
        (p["piece"][:cut], p["piece"][cut:])
        for p in sorted(pieces[259:], key=lambda p: -p["score"])
        for cut in range(1, len(p["piece"]))
        if p["piece"][:cut] in vocabulary and p["piece"][cut:] in vocabulary
    ]
    made = Tokenizer(BPE(vocabulary, merges, unk_token="<unk>", byte_fallback=True))
    made.normalizer = Prepend(" ")
    made.decoder = Sequence([ByteFallback(), Fuse(), Strip(" ", 1, 0)])
    return PreTrainedTokenizerFast(tokenizer_object=made, bos_token="<s>", eos_token="</s>", unk_token="<unk>")


def command_line(data, folder, monkeypatch, capsys):
    """A function that runs a command line in an empty folder with its own cache; it gives (status, stdout, stderr)."""
    monkeypatch.chdir(folder)
    monkeypatch.setenv("HISO_BENCH_DATA", str(data))
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder / "cache"))

    def run(*args):
        capsys.readouterr()
        status = cli.main([str(arg) for arg in args])
        told = capsys.readouterr()
        return status, told.out, told.err

    return run
