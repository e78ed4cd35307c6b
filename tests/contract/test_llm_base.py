"""A base model has a hash of its own, and says how much memory it will need before it is read."""

import pytest
import torch

pytest.importorskip("transformers", reason="the extra llm is not installed")

from llm import lora, memory
from llm.models import DTYPES, base_hash, load
from tests import llm_helpers

every_architecture = pytest.mark.parametrize("name", llm_helpers.ARCHITECTURES)


# The hash of the base


@every_architecture
def test_the_hash_is_the_models_and_not_of_how_it_is_loaded_or_stored(name, tmp_path):
    known = load(llm_helpers.folder(name)).base_hash
    assert len(known) == 32
    assert {load(llm_helpers.folder(name), dtype, rank).base_hash for dtype in DTYPES for rank in (0, 2)} == {known}
    again = load(llm_helpers.folder(name))
    again.module.save_pretrained(tmp_path, max_shard_size="20KB")
    again.tokenizer.save_pretrained(tmp_path)
    assert (tmp_path / "model.safetensors.index.json").exists()
    assert load(str(tmp_path)).base_hash == known


def test_the_hash_is_that_of_the_values_whatever_their_precision(tmp_path):
    half = load(llm_helpers.folder("opt"))
    for p in half.module.parameters():
        p.data = p.data.half().float()
    (half.tokenizer.save_pretrained(tmp_path), half.module.half().save_pretrained(tmp_path))
    assert load(str(tmp_path)).base_hash == base_hash(half.module) != load(llm_helpers.folder("opt")).base_hash


def test_models_that_differ_anywhere_have_different_hashes():
    module = llm_helpers.model("opt")
    known = base_hash(module)
    seen = {known} | {load(llm_helpers.folder(name)).base_hash for name in llm_helpers.ARCHITECTURES if name != "opt"}
    assert len(seen) == len(llm_helpers.ARCHITECTURES)  # smollm and smollm3 have the same weights under the same names
    weights = dict(module.named_parameters())
    for p in weights.values():
        before = p.data.clone()
        last = p.data.view(-1)[-1:]
        last.copy_(torch.nextafter(last, torch.full_like(last, torch.inf)))
        seen.add(base_hash(module))
        p.data = before
    assert len(seen) == len(llm_helpers.ARCHITECTURES) + len(weights)
    k, v = (weights[f"model.decoder.layers.0.self_attn.{part}_proj.weight"] for part in "kv")
    k.data, v.data = v.data, k.data
    assert base_hash(module) not in seen
    k.data, v.data = v.data, k.data
    module.config.do_layer_norm_before = False
    assert base_hash(module) not in seen
    module.config.do_layer_norm_before = True
    assert base_hash(module) == known


def test_the_hash_does_not_depend_on_the_order_of_the_weights():
    module = llm_helpers.model("opt")
    known = base_hash(module)
    for part in module.modules():
        part._parameters = dict(reversed(part._parameters.items()))
        part._modules = dict(reversed(part._modules.items()))
    assert next(module.named_parameters())[0] != "model.decoder.embed_tokens.weight"
    assert base_hash(module) == known


# Memory


@every_architecture
def test_the_estimate_counts_what_is_trained(name):
    module = llm_helpers.model(name)
    d = sum(p.numel() for p in module.parameters())
    whole = memory.estimate_memory(llm_helpers.config(name))
    assert (whole.parameters, whole.trainable, whole.total, whole.loading) == (d, d, 5 * 4 * d, 4 * d)
    adapted = memory.estimate_memory(llm_helpers.config(name), torch.bfloat16, lora_rank=2)
    a = lora.adapter_size(module, 2)
    assert (adapted.parameters, adapted.trainable, adapted.total) == (d, a, 2 * d + 5 * 4 * a + 2 * a)
    assert adapted.loading == 4 * d + 2 * d  # the files stay mapped until the last weight is cast


def test_the_estimate_grows_with_what_it_is_told(monkeypatch):
    config = llm_helpers.config("opt")
    plain = memory.estimate_memory(config)
    more = {
        "copy in the compute dtype": memory.estimate_memory(config, torch.bfloat16),
        "one forward pass": memory.estimate_memory(config, tokens=100, positions=10),
        "cached z": memory.estimate_memory(config, directions=5),
    }
    d = plain.parameters
    assert {part: found.parts[part] - plain.parts[part] for part, found in more.items() if part != "one forward pass"} == {
        "copy in the compute dtype": 2 * d, "cached z": 5 * 4 * d,
    }  # fmt: skip
    assert more["one forward pass"].parts["one forward pass"] >= 100 * 4 * (16 + 32) + 10 * 4 * 296
    assert memory.estimate_memory(config, curvature=False).total == plain.total - 4 * d
    assert f"{d:,} parameters" in str(plain)
    monkeypatch.setattr(memory, "KEPT_BYTES", 4 * d - 1)  # a large base point is read again instead of being kept
    assert memory.estimate_memory(config).total == plain.total - 4 * d


@pytest.mark.parametrize(("rank", "room"), [(0, 100_000), (2, 30_000)])
def test_too_little_memory_is_said_before_any_weight_is_read(rank, room, monkeypatch, tmp_path):
    broken = llm_helpers.changed(tmp_path / "changed")
    with open(f"{broken}/model.safetensors", "wb") as file:
        file.write(b"not weights")
    monkeypatch.setattr(memory, "available_memory", lambda device: room)
    said = "0.2 MB" if not rank else "0.0 MB"
    llm_helpers.one_line(load, broken, said, "memory on cpu", "10,272 parameters", "lora_rank", model=broken, lora_rank=rank)
    monkeypatch.setattr(memory, "available_memory", lambda device: 10**9)
    llm_helpers.one_line(load, "cannot be read", model=broken, lora_rank=rank)


def test_a_control_groups_limit_counts(tmp_path, monkeypatch):
    cpu = torch.device("cpu")
    monkeypatch.setattr(memory, "_GROUP", tmp_path)
    without = memory.available_memory(cpu)
    assert without > 1e6
    (tmp_path / "memory.current").write_text("700\n")
    for limit, expected in (("1000\n", 300), ("600\n", 0)):
        (tmp_path / "memory.max").write_text(limit)
        assert memory.available_memory(cpu) == expected
    (tmp_path / "memory.max").write_text("max\n")
    assert memory.available_memory(cpu) > 1e6
