"""What the tests of encoders share: a tiny random BERT with a word-piece tokenizer, and reviews in the layout of SST-2."""

import string

import numpy as np
import torch
from tokenizers import Tokenizer
from tokenizers.models import WordPiece
from tokenizers.normalizers import BertNormalizer
from tokenizers.pre_tokenizers import BertPreTokenizer
from tokenizers.processors import TemplateProcessing
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

from hiso_bench import keys

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
LAYERS = 3
WORDS = {0: ("dull", "weak", "flat", "slow"), 1: ("fine", "warm", "bold", "rich")}


def tokenizer(words=(*WORDS[0], *WORDS[1])):
    """Characters, and the given words whole."""
    characters = string.ascii_lowercase + string.digits + ".,'"
    pieces = (*SPECIAL, *characters, *(f"##{c}" for c in characters), *words)
    made = Tokenizer(WordPiece({piece: i for i, piece in enumerate(pieces)}, unk_token="[UNK]"))
    made.normalizer, made.pre_tokenizer = BertNormalizer(), BertPreTokenizer()
    ends = [(token, SPECIAL.index(token)) for token in ("[CLS]", "[SEP]")]
    made.post_processor = TemplateProcessing("[CLS] $A [SEP]", "[CLS] $A [SEP] $B:1 [SEP]:1", ends)
    names = dict(zip(("pad_token", "unk_token", "cls_token", "sep_token", "mask_token"), SPECIAL, strict=True))
    return PreTrainedTokenizerFast(tokenizer_object=made, model_max_length=64, **names)


def bert(key=0, scale=0.3):
    """Three layers of width 16 without a pooler, float32 weights drawn from a key (norm weights around 1)."""
    config = BertConfig(
        vocab_size=len(tokenizer()), hidden_size=16, num_hidden_layers=LAYERS, num_attention_heads=2, intermediate_size=32,
        max_position_embeddings=64,
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        made = BertModel(config, add_pooling_layer=False).eval()
    draw = keys.rng(keys.derive(key, "weights"))
    for parameter in made.parameters():
        neutral = parameter.data if parameter.ndim == 1 else torch.zeros(())
        noise = draw.standard_normal(tuple(parameter.shape)).astype(np.float32)
        parameter.data.copy_(neutral + scale * torch.from_numpy(noise))
    return made


def save(folder, key=0):
    """An encoder and its tokenizer as a local folder; returns the folder."""
    bert(key).save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    return folder


def reviews(count, key):
    """Short texts of different lengths whose one adjective says the label."""
    draw = keys.rng(keys.derive(key, "reviews"))
    labels = np.arange(count) % 2
    return [
        (f"{draw.choice(WORDS[label])} film no {draw.integers(10 ** (1 + i % 6))}", int(label)) for i, label in enumerate(labels)
    ]


def write_data(folder, train=120, dev=50):
    """Reviews as sst2/train.tsv and sst2/dev.tsv below a folder; returns the folder."""
    (folder / "sst2").mkdir(parents=True, exist_ok=True)
    for part, count, key in (("train", train, 1), ("dev", dev, 2)):
        lines = "".join(f"{text}\t{label}\n" for text, label in reviews(count, key))
        (folder / f"sst2/{part}.tsv").write_text("sentence\tlabel\n" + lines)
    return folder
