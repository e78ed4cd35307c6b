"""Fine-tuning from the command line: a saved OPT from its folder to a checkpoint and back, resuming, and errors of one line.

Longer than a page because all of it runs on one set of small models, which takes seconds to make.
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from hiso_bench import catalogue, keys, methods
from hiso_bench.federation import Federation, FederationOptions
from hiso_bench.layer_inputs import linear_inputs
from hiso_bench.ledger import Ledger
from hiso_bench.training import LEDGER_NAME
from llm import memory
from llm.first_order import train
from llm.problem import LanguageProblem
from tests import llm_helpers

WORDS = {0: ("dull", "weak", "flat", "slow"), 1: ("fine", "warm", "bold", "rich")}


def rows(count, key):
    """Short reviews whose one adjective says the label."""
    draw = keys.rng(keys.derive(key, "reviews"))
    labels = np.arange(count) % 2
    return [(f"{draw.choice(WORDS[label])} film no {draw.integers(10**6)}", int(label)) for label in labels]


def write_tsv(path, lines):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("sentence\tlabel\n" + "".join(f"{text}\t{label}\n" for text, label in lines))


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with a saved OPT (`opt`) and short reviews in the layout of SST-2 (`data`)."""
    folder = tmp_path_factory.mktemp("llm")
    llm_helpers.save(folder / "opt", "opt")
    llm_helpers.save(folder / "long", "opt", context=1024)
    write_tsv(folder / "data/sst2/train.tsv", rows(120, 1))
    write_tsv(folder / "data/sst2/dev.tsv", rows(50, 2))
    return folder


@pytest.fixture
def command(place, tmp_path, monkeypatch, capsys):
    return llm_helpers.command_line(place / "data", tmp_path, monkeypatch, capsys)


def lm(place, *more, model="opt", task="sst2", lr="3e-3"):
    """A command line; what stands in `more` wins."""
    rate = ("--lr", lr) if lr else ()
    how = ("--threads", 1, "--quiet", "--rounds", 1, "--out", "run", *rate, *more)
    return ("train", "--problem", "lm", "--model", place / model, "--task", task, *how)


def test_a_saved_opt_is_fine_tuned_evaluated_audited_replayed_and_read_again_by_transformers(place, command):
    status, out, err = command(*lm(place, "--method", "hiso", "--rounds", 12, "--evaluate-every", 4, "--json"))
    assert status == 0, err
    result = json.loads(out)
    assert result["forward_passes"] == 12 * 2 * 6 and result["bytes_up"] == 12 * 2 * (8 + 4 * 5)
    ledger = Ledger.read(Path("run") / LEDGER_NAME)
    assert sorted(ledger.evaluations) == [0, 4, 8, 12]
    assert ledger.header["run"]["problem"] | {"clients": 6, "split": "dirichlet", "alpha": 1.0} == ledger.header["run"]["problem"]
    first, last = ledger.evaluations[0], ledger.evaluations[12]
    assert set(last) == {"loss", "accuracy", "accuracy_low", "accuracy_high"}
    assert last["accuracy_low"] < last["accuracy"] < last["accuracy_high"] and first["loss"] != last["loss"]

    status, out, _ = command("ledger", "audit", "run", "--json")
    assert status == 0 and json.loads(out)["verdict"] == "agrees"
    status, out, err = command("ledger", "replay", "run", "--to", "tuned", "--json")
    assert status == 0, err
    assert json.loads(out)["saved"] == "checkpoint"

    found = by_transformers(Path("tuned"), rows(50, 2))
    assert found["accuracy"] == last["accuracy"] and found["loss"] == pytest.approx(last["loss"], rel=1e-6)
    assert found["loss"] != pytest.approx(by_transformers(place / "opt", rows(50, 2))["loss"], rel=1e-4)
    status, _, err = command(*lm(Path(), "--rounds", 0, "--out", "again", model="tuned"))
    assert status == 0, err
    assert Ledger.read(Path("again") / LEDGER_NAME).evaluations[0] == last


def by_transformers(folder, lines):
    """Loss and accuracy of a saved model with nothing of this project: one sentence at a time, no padding."""
    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder).eval(), AutoTokenizer.from_pretrained(folder)
    (bad,), (good,) = (tokenizer(word, add_special_tokens=False)["input_ids"] for word in (" bad", " good"))
    losses, hits = [], []
    for text, label in lines:
        ids = [tokenizer.bos_token_id, *tokenizer(f"{text} It was", add_special_tokens=False)["input_ids"]]
        with torch.inference_mode():
            logits = model(input_ids=torch.tensor([ids])).logits[0, -1, [bad, good]]
        losses.append(float(logits.double().log_softmax(-1)[label].neg()))
        hits.append(int(logits.argmax()) == label)
    return {"loss": float(np.mean(losses)), "accuracy": float(np.mean(hits))}


@pytest.mark.parametrize(
    "more",
    [
        (),
        ("--local-steps", 2, "--mode", "clients", "--dropout", 0.3),
        ("--lora-rank", 2, "--dtype", "bf16", "--independent"),
    ],
    ids=["default", "local steps", "adapters"],
)
def test_a_stopped_run_goes_on_to_the_same_bytes(place, command, more):
    args = lm(place, *more, "--evaluate-limit", 20, "--evaluate-every", 2, "--snapshot-every", 2)
    assert command(*args, "--rounds", 4)[0] == 0
    status, _, err = command(*args, "--rounds", 8)
    assert status == 0 and "resuming" in err and "round 4" in err
    assert command(*args, "--rounds", 8, "--out", "whole")[0] == 0
    assert (Path("run") / LEDGER_NAME).read_bytes() == (Path("whole") / LEDGER_NAME).read_bytes()
    assert command("ledger", "audit", "run")[0] == 0


@pytest.fixture(scope="module")
def problem(place):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HISO_BENCH_DATA", str(place / "data"))
        return LanguageProblem(str(place / "opt"), "sst2", batch_size=4, evaluate_limit=10)


@pytest.mark.parametrize("name", methods.PRESETS)
@pytest.mark.parametrize("tau", [1, 2])
def test_every_method_trains_a_language_model(problem, name, tau):
    given = {"lr": 1e-3, "perturbations": 2}
    if "h" in methods.options(name):
        given["h"] = tuple(torch.full(shape, 2.0) for shape in problem.layout.leaf_shapes)
    if "inputs" in methods.options(name):
        batch = problem.batch(np.array(0), 0, 0)
        given |= {"rank": 2, "window": 1, "inputs": lambda x, examples, draw: linear_inputs(problem.loss, x, batch)}
    if "burn_in" in methods.options(name):
        given["burn_in"] = 1
    live = Federation(problem, methods.build(name, given), FederationOptions(sampled=2, local_steps=tau))
    if name == "agzo":
        assert any(leaf.numel() for leaf in live.state.buffers["basis"])
    before = problem.initial()
    losses = [float(live.round().loss) for _ in range(6 if "burn_in" in given else 2)]
    assert all(map(np.isfinite, losses))
    assert all(torch.isfinite(leaf).all() for leaf in live.state.x)
    assert not all(map(torch.equal, before, live.state.x))
    assert all(map(torch.equal, before, problem.initial()))


@pytest.mark.parametrize("name", methods.VECTOR_PRESETS)
def test_every_baseline_of_vectors_trains_a_language_model(problem, name):
    rates = {"lr": 1e-3} if name.endswith("-code") else {"lr": 1e-3, "client_lr": 1e-3}
    live = methods.build(name, rates).federate(problem, FederationOptions(sampled=2, local_steps=2))
    before = problem.initial()
    assert all(np.isfinite(float(live.round().loss)) for _ in range(2))
    assert not all(map(torch.equal, before, live.state.x))
    assert all(map(torch.equal, before, problem.initial()))


def test_clients_hold_every_example_once_and_their_batches_come_from_the_key_alone(problem):
    owned = np.sort(np.concatenate([problem.owned(client) for client in range(6)]))
    np.testing.assert_array_equal(owned, np.arange(len(problem.train)))
    draw = [problem.batch(np.array(c), r, k) for c, r, k in ((0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1))]
    again = problem.batch(np.array(0), 0, 0)
    assert all(map(torch.equal, draw[0], again))
    assert len({batch[0].numpy().tobytes() for batch in draw}) == 4
    shares = [problem.train.labels[problem.owned(client)].mean() for client in range(6)]
    assert np.ptp(shares) > 0.2  # alpha = 1 is skewed


METRICS = {"toy-sst2": {"accuracy"}, "toy-qqp": {"accuracy", "positive_f1"}, "toy-squad": {"f1", "exact_match"}}


@pytest.mark.parametrize("task", METRICS)
@pytest.mark.parametrize("options", [{}, {"lora_rank": 2, "dtype": "bf16", "mode": "clients"}], ids=["all", "adapters"])
def test_every_generated_task_trains_and_is_rebuilt_from_what_its_ledger_says(place, task, options):
    limits = {"train_limit": 40, "evaluate_limit": 4, "batch_size": 2}
    problem = LanguageProblem(str(place / "long"), task, **limits, **options)
    live = Federation(problem, methods.build("hiso", lr=1e-3, perturbations=2), FederationOptions(sampled=2))
    assert np.isfinite(float(live.round().loss))
    found = problem.evaluate(live.state.x)
    assert set(found) == {"loss", *METRICS[task], f"{problem.metric}_low", f"{problem.metric}_high"}
    again = LanguageProblem(**json.loads(json.dumps(problem.describe())))
    assert again.evaluate(live.state.x) == found
    assert all(map(torch.equal, again.batch(np.array(1), 3, 0), problem.batch(np.array(1), 3, 0)))
    assert again.describe() == problem.describe()


def test_first_order_training_reaches_a_ceiling_far_above_the_start(problem):
    x, seen = train(problem, lr=1e-2, epochs=6)
    assert [epoch.epoch for epoch in seen] == list(range(7)) and seen[-1].steps == 6 * 24
    assert seen[-1].metrics["accuracy"] >= 0.9 > 0.7 > seen[0].metrics["accuracy"]
    assert seen[-1].train_loss < 0.5 * seen[1].train_loss
    again, repeated = train(problem, lr=1e-2, epochs=6)
    assert all(map(torch.equal, x, again)) and repeated[1:] == seen[1:]
    assert problem.evaluate(x) == seen[-1].metrics
    with pytest.raises(FloatingPointError, match="first order, step .*lower lr"):
        train(problem, lr=1e30, epochs=1)


def spoil_label(place, folder):
    write_tsv(folder / "data/sst2/train.tsv", [*rows(20, 1), ("no such label", 2)])
    return {"HISO_BENCH_DATA": folder / "data"}


def long_prompt(place, folder):
    write_tsv(folder / "data/sst2/train.tsv", [*rows(20, 1), *((f"long {i} " * 12, i % 2) for i in range(20))])
    shutil.copy(place / "data/sst2/dev.tsv", folder / "data/sst2/dev.tsv")
    return {"HISO_BENCH_DATA": folder / "data"}


ERRORS = {
    "unknown task": (lambda p, f: lm(p, task="sst3"), ["task 'sst3' is unknown", "sst2", "toy-squad"]),
    "unknown model": (lambda p, f: lm(p, model="nothing"), ["nothing", "does not exist", "tiny-opt"]),
    "unknown dtype": (lambda p, f: lm(p, "--dtype", "fp8"), ["dtype fp8", "float32, bf16, fp16"]),
    "vmap": (lambda p, f: lm(p, "--mode", "vmap"), ["mode vmap", "loop, clients"]),
    "unknown split": (lambda p, f: lm(p, "--split", "even"), ["split even", "dirichlet, iid"]),
    "negative limit": (lambda p, f: lm(p, "--train-limit", -1), ["train_limit -1", ">= 0"]),
    "no rate": (lambda p, f: lm(p, lr=""), ["lr is not given", "no recorded grid", "opt_sst2_grid"]),
    "beyond the context": (lambda p, f: lm(p, "--max-length", 65), ["max_length 65", "<= 64"]),
    "another base model": (lambda p, f: lm(p, "--base-hash", "12ab"), ["base_hash 12ab", "another base model"]),
    "other examples": (lambda p, f: lm(p, "--data-hash", "12ab"), ["data_hash 12ab", "other examples"]),
    "oracle": (lambda p, f: lm(p, "--method", "hiso-oracle"), ["hiso-oracle", "lm"]),
    "device": (lambda p, f: lm(p, "--device", "tpu9"), ["tpu9"]),
    "more sampled than there are": (lambda p, f: lm(p, "--sampled", 7), ["sampled 7", "<= clients = 6"]),
}  # fmt: skip
SPOILED = {
    "label": (spoil_label, "opt", ["label", "'2'", "negative, positive"]),
    "prompt": (long_prompt, "opt", ["max_length 64", "too short for ", "truncate"]),
}


@pytest.mark.parametrize("case", ERRORS)
def test_bad_input_is_one_line_and_nothing_is_written(place, tmp_path, command, case):
    args, words = ERRORS[case]
    status, out, err = command(*args(place, tmp_path))
    assert status == 2 and not out and len(err.splitlines()) == 1, err
    for word in words:
        assert word in err
    assert not Path("run").exists()


@pytest.mark.parametrize("case", SPOILED)
def test_bad_data_is_one_line_and_nothing_is_written(place, tmp_path, command, monkeypatch, case):
    spoil, model, words = SPOILED[case]
    for name, value in spoil(place, tmp_path).items():
        monkeypatch.setenv(name, str(value))
    status, out, err = command(*lm(place, model=model))
    assert status == 2 and not out and len(err.splitlines()) == 1, err
    for word in words:
        assert word in err
    assert not Path("run").exists()


def test_a_prompt_that_is_too_long_may_be_truncated(place, tmp_path, command, monkeypatch):
    monkeypatch.setenv("HISO_BENCH_DATA", str(long_prompt(place, tmp_path)["HISO_BENCH_DATA"]))
    assert command(*lm(place, "--truncate", "--rounds", 1))[0] == 0


def test_a_verbalizer_that_is_not_one_token_is_named(place, tmp_path, command):
    llm_helpers.model("opt").save_pretrained(tmp_path / "bytes")
    llm_helpers.tokenizer(()).save_pretrained(tmp_path / "bytes")
    status, _, err = command(*lm(tmp_path, model="bytes"))
    assert status == 2 and "verbalizer ' bad'" in err and "one known token" in err and len(err.splitlines()) == 1


@pytest.mark.parametrize(
    ("free", "more", "told"),
    [(10**4, (), "module"), (4 * 10**5, (), "one forward pass"), (10**6, ("--mode", "clients"), "mode loop")],
)
def test_too_little_memory_is_said_before_it_is_needed(place, command, monkeypatch, free, more, told):
    monkeypatch.setattr(memory, "available_memory", lambda device: free)
    status, _, err = command(*lm(place, *more))
    assert status == 2 and "of memory on cpu" in err and told in err and len(err.splitlines()) == 1
    assert not Path("run").exists()


@pytest.mark.parametrize(("dtype", "told", "lr"), [("fp16", " float16", "30"), ("bf16", "bfloat16", "1e30")])
def test_a_loss_that_is_nan_in_half_precision_says_where_and_loses_nothing(place, command, dtype, told, lr):
    args = lm(place, "--dtype", dtype, "--method", "decomfl", "--rounds", 200, "--evaluate-limit", 5, lr=lr)
    status, _, err = command(*args)
    assert status == 1
    for word in ("round ", "client ", "DirectionKey(", "nan", told, "compute in float32", "lower lr"):
        assert word in err
    kept = (Path("run") / LEDGER_NAME).read_bytes()
    status, _, again = command(*args)
    assert status == 1 and again.splitlines()[-1] == err.splitlines()[-1]
    assert (Path("run") / LEDGER_NAME).read_bytes() == kept
    assert command("ledger", "audit", "run")[0] == 0


def test_a_run_of_another_base_model_is_refused_by_its_hash(place, tmp_path, command):
    assert command(*lm(place, "--rounds", 1))[0] == 0
    llm_helpers.save(tmp_path / "opt", "opt", key=1)
    before = (Path("run") / LEDGER_NAME).read_bytes()
    status, _, err = command(*lm(tmp_path, "--rounds", 2))
    assert status == 2 and "base_hash" in err and len(err.splitlines()) == 1
    assert (Path("run") / LEDGER_NAME).read_bytes() == before


HIDDEN = ("transformers", "tokenizers", "safetensors", "peft", "datasets", "psutil", "huggingface_hub")
WITHOUT = f"import sys; sys.modules.update(dict.fromkeys({HIDDEN})); from hiso_bench import cli; sys.exit(cli.main(sys.argv[1:]))"


def without_the_extra(*args):
    environment = os.environ | {"PYTHONPATH": str(catalogue.ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-W", "error", "-c", WITHOUT, *map(str, args)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)


def test_without_the_extra_help_works_and_training_says_what_to_install(place, tmp_path):
    done = without_the_extra("train", "--problem", "lm", "--help")
    assert done.returncode == 0 and "--lora-rank" in done.stdout, done.stderr
    done = without_the_extra("train", "--problem", "lm", "--lr", "1", "--out", tmp_path / "run")
    assert done.returncode == 2 and len(done.stderr.splitlines()) == 1, done.stderr
    assert "transformers" in done.stderr and "pip install" in done.stderr and "[llm]" in done.stderr
    assert not (tmp_path / "run").exists()
