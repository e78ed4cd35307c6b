"""Fine-tuning holds a few copies of x, and nothing that grows with clients, participants, local steps or directions."""

import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from transformers import OPTConfig, OPTForCausalLM

from tests import llm_helpers

SCRIPT = """
import gc, json, sys
import torch
from hiso_bench import methods
from hiso_bench.federation import Federation, FederationOptions
from llm import checkpoint
from llm.problem import LanguageProblem

def held(what):
    (line,) = [line for line in open("/proc/self/status").read().splitlines() if line.startswith(what)]
    return 1024 * int(line.split()[1])

torch.set_num_threads(1)
checkpoint.KEPT_BYTES = 0  # as for a large model
model, clients, sampled, tau, directions = json.loads(sys.argv[1])
LanguageProblem(model + "-small", "sst2", clients=clients, evaluate_limit=2)  # imports and data are there from now on
before = held("VmRSS")
problem = LanguageProblem(model, "sst2", clients=clients, batch_size=2, evaluate_limit=2)
method = methods.build("hiso", lr=1e-9, perturbations=directions)
federation = Federation(problem, method, FederationOptions(sampled=sampled, local_steps=tau, cache_bytes=0))
for _ in range(2):
    federation.round()
problem.evaluate(federation.state.x)
print(json.dumps([(held("VmHWM") - before) / (4 * problem.layout.dimension), problem.layout.dimension]))
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    place = tmp_path_factory.mktemp("memory")
    llm_helpers.save(place / "model-small", "opt")
    config = OPTConfig(
        vocab_size=296, hidden_size=512, word_embed_proj_dim=512, ffn_dim=2048, num_hidden_layers=4, num_attention_heads=8,
        max_position_embeddings=64, bos_token_id=0, eos_token_id=1, pad_token_id=2,
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        OPTForCausalLM(config).save_pretrained(place / "model")
    llm_helpers.tokenizer().save_pretrained(place / "model")
    (place / "data/sst2").mkdir(parents=True)
    for part in ("train", "dev"):
        lines = "".join(f"{('dull', 'fine')[i % 2]} film no {i}\t{i % 2}\n" for i in range(400))
        (place / f"data/sst2/{part}.tsv").write_text("sentence\tlabel\n" + lines)
    return place


def copies(folder, *settings):
    """Peak memory of runs with (clients, sampled, tau, P), over the bytes of a point; each in a process of its own."""

    def run(setting):
        command = [sys.executable, "-c", SCRIPT, json.dumps([str(folder / "model"), *setting])]
        environment = os.environ | {"OMP_WAIT_POLICY": "PASSIVE", "OMP_NUM_THREADS": "1", "HISO_BENCH_DATA": str(folder / "data")}
        done = subprocess.run(command, cwd=Path(__file__).parents[2], env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    with ThreadPoolExecutor(len(settings)) as pool:
        return list(pool.map(run, settings))


def test_memory_is_four_copies_of_x_and_a_forward_pass_whatever_the_federation(folder):
    (one, d), (few, _), (many, _) = copies(folder, (6, 2, 1, 1), (6, 2, 2, 1), (40, 5, 3, 3))
    assert 12e6 < d < 14e6
    assert 3.5 < one < 4.9  # x, x', accumulator, H; the rest is activations and what malloc keeps
    assert 0.5 < few - one < 1.5  # local steps walk on a copy of x
    assert abs(many - few) < 0.5
