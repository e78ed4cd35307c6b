"""A model is found in a folder, in the hub's cache or on the hub; what is no model, or not there, is one clear line."""

import contextlib
import hashlib
import http.server
import json
import shutil
import threading
from pathlib import Path

import pytest
import torch

pytest.importorskip("transformers", reason="the extra llm is not installed")

import huggingface_hub
import transformers
from safetensors.torch import load_file

from llm import hub, tiny
from llm.models import load
from tests import llm_helpers

# What cannot be loaded


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"dtype": "int8"}, "dtype int8 is out of range; allowed: float32, bf16, fp16"),
        ({"lora_rank": -1}, "lora_rank -1 is out of range; allowed: >= 0"),
        ({"lora_rank": 2, "lora_alpha": 0.0}, "lora_alpha 0.0 is out of range; allowed: > 0"),
        ({"device": "gpu"}, "device 'gpu' cannot be used here"),
        ({"device": "meta:x"}, "device 'meta:x' cannot be used here"),
    ],
)
def test_options_out_of_range_are_named(options, said):
    llm_helpers.one_line(load, said, model=llm_helpers.folder("opt"), **options)


INSTEAD = ("'tiny-opt'", "local folder", "save_pretrained")


@pytest.mark.parametrize(
    ("without", "reason"),
    [
        (["config.json"], "it has no config.json"),
        (["model.safetensors"], "it has no weights (model.safetensors or pytorch_model.bin)"),
        (["tokenizer.json"], "it has no tokenizer"),
    ],
)
def test_a_folder_that_lacks_something_is_no_model(without, reason, tmp_path):
    model = llm_helpers.changed(tmp_path / "changed", without=without)
    llm_helpers.one_line(load, f"folder {model} is no model: {reason}", *INSTEAD, model=model)


def test_a_missing_shard_is_named(tmp_path):
    loaded = load(llm_helpers.folder("opt"))
    loaded.tokenizer.save_pretrained(tmp_path)
    loaded.module.save_pretrained(tmp_path, max_shard_size="20KB")
    shards = sorted(tmp_path.glob("model-*.safetensors"))
    shards[1].unlink()
    llm_helpers.one_line(load, f"it lacks {shards[1].name}", model=str(tmp_path))
    (tmp_path / "model.safetensors.index.json").write_text("{")
    llm_helpers.one_line(load, "its model.safetensors.index.json cannot be read", model=str(tmp_path))


def test_an_adapter_without_its_base_is_no_model(tmp_path):
    load(llm_helpers.folder("opt"), lora_rank=2).module.save_pretrained(tmp_path, save_embedding_layers=False)
    llm_helpers.one_line(load, "it holds an adapter without its base model", model=str(tmp_path))


@pytest.mark.parametrize("model", ["/nowhere/model", "./nowhere", "~/nowhere/model", "a/b/c", ""])
def test_a_folder_that_does_not_exist_is_not_looked_for_on_the_hub(model):
    llm_helpers.one_line(load, f"model {model!r} is a folder that does not exist", *INSTEAD, model=model)


def test_a_file_is_no_folder():
    model = f"{llm_helpers.folder('opt')}/config.json"
    llm_helpers.one_line(load, f"model {model!r} is a file", *INSTEAD, model=model)


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"model_type": "nonesuch"}, "has a config.json that transformers does not take"),
        ({"model_type": "t5"}, "is of the type 't5', which is no causal language model"),
        ({"model_type": "vit"}, "is of the type 'vit', which is no causal language model"),
        ({"quantization_config": {"quant_method": "gptq", "bits": 4}}, "has quantised weights"),
        ({"ffn_dim": 40}, "cannot be read"),
    ],
)
def test_a_configuration_of_something_else_is_refused(config, said, tmp_path):
    model = llm_helpers.changed(tmp_path / "changed", config=config)
    llm_helpers.one_line(load, f"model {model!r}", said, model=model)


def test_weights_that_are_missing_are_not_made_up(tmp_path):
    name = "model.decoder.layers.1.fc1.weight"
    model = llm_helpers.changed(tmp_path / "changed", weights=lambda found: {k: v for k, v in found.items() if k != name})
    llm_helpers.one_line(load, "lacks 1 weights of a OPTForCausalLM", name, *INSTEAD, model=model)


def test_an_encoder_that_sees_the_answer_is_refused(tmp_path):
    with torch.random.fork_rng(devices=[]):
        config = transformers.BertConfig(
            vocab_size=len(llm_helpers.tokenizer()),
            hidden_size=16,
            num_hidden_layers=1,
            num_attention_heads=2,
            intermediate_size=32,
        )
        transformers.BertForMaskedLM(config).save_pretrained(tmp_path)
    llm_helpers.tokenizer().save_pretrained(tmp_path)
    llm_helpers.one_line(load, "sees the tokens that it is to predict", *INSTEAD, model=str(tmp_path))


def test_a_missing_package_is_named(monkeypatch):
    def absent(name):
        raise ModuleNotFoundError(f"No module named {name!r}", name=name.split(".")[0])

    monkeypatch.setattr(hub.importlib, "import_module", absent)
    llm_helpers.one_line(hub.library, "the package huggingface_hub", "pip install -e '.[llm]'", name="huggingface_hub.errors")


# The hub


class Hub(http.server.BaseHTTPRequestHandler):
    """As much of the Hugging Face hub as its client asks for; it has one repository, org/tiny, and a gated one."""

    COMMIT = "c" * 40
    folder = None
    asked: list[str] = []

    def do_HEAD(self):
        path = self.path.split("?")[0]
        if self.command == "GET":
            self.asked.append(path)
        headers = {}
        if path.startswith("/org/tiny/resolve/"):
            body = (self.folder / path.rsplit("/", 1)[1]).read_bytes()
            headers = {"ETag": f'"{hashlib.sha1(body).hexdigest()}"', "X-Repo-Commit": self.COMMIT}
        elif path.startswith("/api/models/org/tiny/tree/"):
            files = [(file.name, file.read_bytes()) for file in sorted(self.folder.iterdir())]
            listed = [{"type": "file", "path": n, "size": len(b), "oid": hashlib.sha1(b).hexdigest()} for n, b in files]
            body = json.dumps(listed).encode()
        elif path.startswith("/api/models/org/tiny/"):
            body = json.dumps({"id": "org/tiny", "sha": self.COMMIT, "siblings": []}).encode()
        else:
            gated = "gated" in path
            headers, body = {"X-Error-Code": "GatedRepo" if gated else "RepoNotFound"}, b"{}"
            return self.answer(403 if gated else 404, headers, body)
        self.answer(200, headers, body)

    do_GET = do_HEAD

    def answer(self, status, headers, body):
        self.send_response(status)
        for name, value in (headers | {"Content-Type": "application/json", "Content-Length": str(len(body))}).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def log_message(self, *_):
        pass


@contextlib.contextmanager
def serving(folder, monkeypatch, cache):
    """A hub on this machine, and the client pointed at it, with an empty cache."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), type("H", (Hub,), {"folder": folder, "asked": []}))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    point_to(monkeypatch, f"http://127.0.0.1:{server.server_port}", cache)
    try:
        yield server.RequestHandlerClass
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def point_to(monkeypatch, endpoint, cache):
    constants = huggingface_hub.constants
    monkeypatch.setattr(constants, "ENDPOINT", endpoint)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", endpoint + "/{repo_id}/resolve/{revision}/{filename}")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)


@pytest.mark.parametrize("old", [False, True], ids=["safetensors", "pickle"])
def test_a_name_is_downloaded_once_and_then_is_as_good_as_a_folder(old, tmp_path, monkeypatch):
    there = tmp_path / "there"
    shutil.copytree(llm_helpers.folder("opt"), there)
    if old:
        torch.save(load_file(there / "model.safetensors"), there / "pytorch_model.bin")
        (there / "model.safetensors").unlink()
    (there / "flax_model.msgpack").write_bytes(b"not needed")
    with serving(there, monkeypatch, tmp_path / "cache") as server:
        loaded = load("org/tiny")
        assert not any("flax" in path for path in server.asked)
        assert sum("model.bin" in path or "model.safetensors" in path for path in server.asked) == 1
        llm_helpers.one_line(load, "model 'org/none' is unknown", *INSTEAD, model="org/none")
        llm_helpers.one_line(load, "model 'org/gated' is gated", "hf auth login", model="org/gated")
        asked = len(server.asked)
        (there / "tokenizer.json").unlink()
        assert load("org/tiny").base_hash == loaded.base_hash
        assert len(server.asked) == asked  # what is there whole is not asked for again
    assert loaded.base_hash == load(llm_helpers.folder("opt")).base_hash
    assert loaded.source == f"org/tiny of the Hugging Face hub, commit {Hub.COMMIT}"
    assert load("org/tiny").base_hash == loaded.base_hash  # nobody serves any more


def test_a_repository_that_holds_no_whole_model_is_refused(tmp_path, monkeypatch):
    there = tmp_path / "there"
    shutil.copytree(llm_helpers.folder("opt"), there)
    (there / "model.safetensors").unlink()
    with serving(there, monkeypatch, tmp_path / "cache"):
        llm_helpers.one_line(
            load, "model 'org/tiny' of the Hugging Face hub cannot be used: it has no weights", *INSTEAD, model="org/tiny"
        )


@pytest.mark.parametrize("model", ["facebook/opt-125m", "opt-125m"])
def test_an_unreachable_hub_is_one_line_that_says_what_can_be_had_without_it(model, tmp_path, monkeypatch):
    point_to(monkeypatch, "http://127.0.0.1:9", tmp_path)
    llm_helpers.one_line(load, f"model {model!r} is no local folder", "hub cannot be reached", *INSTEAD, model=model)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    llm_helpers.one_line(load, f"model {model!r} is no local folder", "hub cannot be reached", *INSTEAD, model=model)


def test_a_name_that_cannot_be_on_the_hub_is_said_to_be(tmp_path, monkeypatch):
    point_to(monkeypatch, "http://127.0.0.1:9", tmp_path)
    llm_helpers.one_line(load, "model 'opt 125m' is neither a folder nor a possible name", *INSTEAD, model="opt 125m")


def test_the_default_is_the_embedded_model(monkeypatch):
    monkeypatch.setattr(tiny, "folder", lambda: Path(llm_helpers.folder("opt", 7)))
    loaded = load()
    assert loaded.source.startswith("tiny-opt, pre-trained by this project")
    assert loaded.base_hash == load(llm_helpers.folder("opt", 7)).base_hash != load(llm_helpers.folder("opt")).base_hash
