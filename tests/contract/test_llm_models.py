"""Every kind of causal language model is loaded in every dtype, whole or with adapters, and computes what it did."""

import json
import shutil

import pytest
import torch

pytest.importorskip("transformers", reason="the extra llm is not installed")

import transformers

from hiso_bench import datafiles
from hiso_bench.losses import ModuleLoss, layout_of
from llm import lora
from llm.models import DTYPES, load
from tests import llm_helpers

every_architecture = pytest.mark.parametrize("name", llm_helpers.ARCHITECTURES)
IDS = torch.tensor([[0, 44, 87, 9, 12, 13], [0, 50, 99, 7, 2, 2]])
MASK = torch.tensor([[1, 1, 1, 1, 1, 1], [1, 1, 1, 1, 0, 0]])


def logits(module, x=None):
    call = module if x is None else ModuleLoss(module, lambda net, batch: batch).outputs
    with torch.inference_mode():
        return call(*([] if x is None else [x]), input_ids=IDS, attention_mask=MASK).logits


# Loading


@every_architecture
def test_a_saved_model_is_loaded_as_it_was(name):
    loaded = load(llm_helpers.folder(name))
    assert torch.equal(logits(loaded.module), logits(llm_helpers.model(name)))
    assert {p.dtype for p in loaded.module.parameters()} == {torch.float32}
    assert all(p.requires_grad for p in loaded.module.parameters())
    assert not any(part.training for part in loaded.module.modules())
    assert loaded.module(input_ids=IDS).past_key_values is None
    assert (loaded.context, loaded.dtype, loaded.source) == (64, torch.float32, f"local folder {llm_helpers.folder(name)}")


@every_architecture
def test_the_tokenizer_keeps_its_words_and_pads_on_the_right(name):
    tokenizer = load(llm_helpers.folder(name)).tokenizer
    own = llm_helpers.tokenizer()
    text = "It was good\n  Yes, naïve"
    assert tokenizer(text)["input_ids"] == own(text)["input_ids"]
    assert tokenizer.decode(tokenizer(text)["input_ids"]) == text
    batch = tokenizer(["a", "abc"], padding=True)
    assert batch["attention_mask"] == [[1, 0, 0], [1, 1, 1]]


@every_architecture
def test_padding_on_the_right_changes_nothing_before_it(name):
    module = load(llm_helpers.folder(name)).module
    with torch.inference_mode():
        alone = module(input_ids=IDS[1:, :4], attention_mask=MASK[1:, :4]).logits
    torch.testing.assert_close(logits(module)[1:, :4], alone, rtol=1e-5, atol=1e-5)


@every_architecture
def test_tied_weights_are_one_leaf(name):
    module = load(llm_helpers.folder(name)).module
    loss = ModuleLoss(module, lambda net, batch: batch)
    head = module.get_output_embeddings().weight
    tied = head is module.get_input_embeddings().weight
    assert tied == (name != "llama")
    assert layout_of(loss).dimension == sum(p.numel() for p in module.parameters())
    assert sum(module.get_parameter(leaf) is head for leaf in loss.names) == 1
    # Moving the point moves both ends of a tied model, as moving the module's own weight does.
    x = tuple(leaf * 1.5 for leaf in loss.base_point())
    expected = logits(module, x)
    for p in module.parameters():
        p.data.mul_(1.5)
    assert torch.equal(logits(module), expected)


@every_architecture
@pytest.mark.parametrize("dtype", ["bf16", "fp16"])
def test_a_cast_point_computes_what_the_model_in_that_dtype_computes(name, dtype):
    loaded = load(llm_helpers.folder(name), dtype)
    assert {p.dtype for p in loaded.module.parameters()} == {torch.float32}  # the master
    x = tuple(leaf.to(loaded.dtype) for leaf in ModuleLoss(loaded.module, None).base_point())
    whole = transformers.AutoModelForCausalLM.from_pretrained(llm_helpers.folder(name), dtype=DTYPES[dtype])
    found = logits(loaded.module, x)
    assert found.dtype == loaded.dtype
    assert torch.equal(found, logits(whole))
    # Under adapters the frozen weights are stored in it, and B = 0 adds nothing.
    adapted = load(llm_helpers.folder(name), dtype, lora_rank=2)
    x = tuple(leaf.to(adapted.dtype) for leaf in ModuleLoss(adapted.module, None).base_point())
    assert torch.equal(logits(adapted.module, x), logits(whole))
    kinds = {(p.requires_grad, p.dtype) for p in adapted.module.parameters()}
    assert kinds == {(True, torch.float32), (False, DTYPES[dtype])}


def test_generators_are_left_alone_and_do_not_matter():
    before = torch.get_rng_state()
    first = load(llm_helpers.folder("opt"), lora_rank=2, lora_key=3).module
    assert torch.equal(before, torch.get_rng_state())
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(99)
        again = load(llm_helpers.folder("opt"), lora_rank=2, lora_key=3).module
    assert all(torch.equal(p, q) for p, q in zip(first.parameters(), again.parameters(), strict=True))


# Adapters


@every_architecture
def test_adapters_alone_are_the_point_and_start_as_the_base_model(name):
    module = load(llm_helpers.folder(name), lora_rank=3).module
    loss = ModuleLoss(module, lambda net, batch: batch)
    assert all(".lora_A." in leaf or ".lora_B." in leaf for leaf in loss.names)
    assert len(loss.names) == 2 * 2 * 2  # layers, projections, A and B
    assert layout_of(loss).dimension == lora.adapter_size(llm_helpers.model(name), 3)
    assert torch.equal(logits(module), logits(llm_helpers.model(name)))
    moved = tuple(leaf + 0.5 for leaf in loss.base_point())
    assert not torch.allclose(logits(module, moved), logits(module), atol=1e-2)


def test_adapters_begin_with_the_published_law_drawn_from_the_key():
    def leaves(rank, key):
        module = load(llm_helpers.folder("opt"), lora_rank=rank, lora_key=key).module
        named = [(name, p.detach()) for name, p in module.named_parameters() if p.requires_grad]
        return [p for name, p in named if ".lora_A." in name], [p for name, p in named if ".lora_B." in name]

    a, b = leaves(64, 1)
    assert all(not p.any() for p in b)
    bound = 16**-0.5
    values = torch.stack(a)
    assert values.abs().max() <= bound
    # 4096 uniform values: five standard errors of mean and variance (false alarm below 1e-6 each).
    assert abs(values.mean()) < 5 * bound / 3**0.5 / 64
    assert abs(values.var() / (bound**2 / 3) - 1) < 5 * 0.8**0.5 / 64
    assert len({tuple(p.flatten().tolist()) for p in a}) == len(a)
    assert all(torch.equal(p, q) for p, q in zip(a, leaves(64, 1)[0], strict=True))
    assert not any(torch.equal(p, q) for p, q in zip(a, leaves(64, 2)[0], strict=True))


def test_alpha_scales_what_adapters_add():
    def added(rank, alpha):
        module = load(llm_helpers.folder("opt"), lora_rank=rank, lora_alpha=alpha).module
        layer = next(part for name, part in module.named_modules() if name.endswith("layers.0.self_attn.q_proj"))
        given = torch.ones(1, 16)
        with torch.no_grad():
            layer.lora_B["default"].weight.fill_(1.0)
            return (layer(given) - layer.base_layer(given)) / layer.lora_A["default"](given).sum()

    torch.testing.assert_close(added(2, 8.0), torch.full((1, 16), 4.0))
    torch.testing.assert_close(added(4, 2.0), torch.full((1, 16), 0.5))


def test_adapters_go_to_every_linear_layer_but_the_head_where_there_are_no_projections():
    with torch.random.fork_rng(devices=[]):
        config = transformers.GPT2Config(vocab_size=20, n_embd=8, n_layer=1, n_head=2, n_positions=16)
        module = transformers.GPT2LMHeadModel(config).eval()
    expected = lora.adapter_size(module, 2)
    adapted = lora.attach(module, 2, 16.0, 0)
    trained = {name: p.numel() for name, p in adapted.named_parameters() if p.requires_grad}
    assert sum(trained.values()) == expected == 2 * (8 + 24 + 8 + 8 + 8 + 32 + 32 + 8)
    assert not any("lm_head" in name for name in trained)


# Real weights

STORIES = {
    "config.json": "ad24752e25ec1fdea6a978fe6d314e11761b472ea97e334bc742b79bb2ffd684",
    "generation_config.json": "1113738beda64787778c7058b7689d0b4fc2e402c0c5b552916168a0e551a393",
    "model.safetensors": "407a7c581bdd66972383ce9ad24857713fb98786d06ea564a2fe9b34ebe77dfd",
}
PIECES = ("stories260k/tok512.json", "c69c3dbe7263c3a5dfd4a3a054344317892ceaab8bc32ad00455051836b98d9e")
ONCE = (
    "Once upon a time, there was a little girl named Lily. She loved to play outside in the park. "
    "One day, she saw a big, red ball. She wanted to play with it, but it was too high."
)


def stories(target):
    """The trained 260,032-parameter model as a folder with its tokenizer, where this machine has its files."""
    files = {f"stories260k/hf/{name}": sha for name, sha in STORIES.items()} | dict([PIECES])
    if not all(datafiles.available(name, sha) for name, sha in files.items()):
        pytest.skip("needs HISO_BENCH_DATA")
    for name, sha in files.items():
        shutil.copy(datafiles.find(name, sha), target)
    llm_helpers.scored_tokenizer(json.loads((target / "tok512.json").read_text())).save_pretrained(target)
    return str(target)


@pytest.mark.parametrize(("dtype", "rank"), [("float32", 0), ("float32", 4), ("bf16", 0)])
def test_trained_weights_go_on_as_they_are_known_to(dtype, rank, tmp_path):
    loaded = load(stories(tmp_path), dtype, rank)
    x = tuple(leaf.to(loaded.dtype) for leaf in ModuleLoss(loaded.module, None).base_point())
    outputs = ModuleLoss(loaded.module, None).outputs
    ids = [1]
    with torch.inference_mode():
        while len(ids) < 91 and ids[-1] != 2:
            ids.append(int(outputs(x, input_ids=torch.tensor([ids])).logits[0, -1].argmax()))
    told = loaded.tokenizer.decode(ids[1:])
    known = ONCE if dtype == "float32" else "Once upon a time, there was a little girl named Lily."
    assert told.strip().startswith(known)
    assert (loaded.context, loaded.source) == (512, f"local folder {tmp_path}")
    assert loaded.tokenizer(ONCE)["input_ids"] == ids[1 : len(loaded.tokenizer(ONCE)["input_ids"]) + 1]
