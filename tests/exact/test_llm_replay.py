"""The base model and the ledger give the weights: bit for bit, on two machines, without data; and no other base model will do."""

import json
import shutil
import warnings
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from hiso_bench import audit, catalogue, cli, methods
from hiso_bench.federation import FederationOptions
from hiso_bench.ledger import Ledger, LedgerError
from hiso_bench.training import LEDGER_NAME, Run, Schedule
from llm import checkpoint
from llm.hub import ModelError
from llm.problem import LanguageProblem
from tests import llm_helpers

ADAPTERS = {"lora_rank": 2, "dtype": "bf16"}
KINDS = {"checkpoint": {}, "adapter": ADAPTERS}
OPTIONS = FederationOptions(sampled=2, local_steps=2)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A saved OPT, short reviews, and for each kind of point a finished run with the point that it ended at."""
    folder = tmp_path_factory.mktemp("replay")
    llm_helpers.save(folder / "opt", "opt")
    for part, count in (("train", 40), ("dev", 10)):
        (folder / "data/sst2").mkdir(parents=True, exist_ok=True)
        lines = "".join(f"{('dull', 'fine')[i % 2]} film no {i}\t{i % 2}\n" for i in range(count))
        (folder / f"data/sst2/{part}.tsv").write_text("sentence\tlabel\n" + lines)
    return folder


@pytest.fixture(scope="module")
def ended(place):
    """Kind -> the point at which its run ended."""
    points = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HISO_BENCH_DATA", str(place / "data"))
        for kind, options in KINDS.items():
            problem = LanguageProblem(str(place / "opt"), "sst2", batch_size=4, **options)
            method = methods.build("hiso", lr=3e-3, perturbations=2)
            run = Run(problem, "hiso", method, OPTIONS, Schedule(rounds=4, evaluate_every=2), place / kind)
            points[kind] = run.go().federation.state.x
            run.ledger.close()
    return points


@pytest.fixture
def command(place, ended, tmp_path, monkeypatch, capsys):
    """Run a command line where there is no data; gives (status, stdout, stderr)."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("HISO_BENCH_DATA", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))

    def run(*args):
        capsys.readouterr()
        status = cli.main([str(arg) for arg in args])
        told = capsys.readouterr()
        return status, told.out, told.err

    return run


def weights(folder):
    (path,) = Path(folder).glob("*.safetensors")
    return load_file(path)


def test_the_saved_weights_are_the_point_at_which_the_run_ended_bit_for_bit(place, ended, command):
    base = AutoModelForCausalLM.from_pretrained(place / "opt")
    for kind, x in ended.items():
        status, out, err = command("ledger", "replay", place / kind, "--to", kind, "--json")
        assert status == 0, err
        assert json.loads(out)["saved"] == kind
        assert not torch.equal(torch.cat([leaf.flatten() for leaf in x]), torch.cat([p.flatten() for p in initial(place, kind)]))
    names = [name for name, _ in base.named_parameters()]
    found = weights("checkpoint")
    assert set(found) == set(names)  # tied weights once
    assert all(torch.equal(found[name], leaf) for name, leaf in zip(names, ended["checkpoint"], strict=True))
    read = AutoModelForCausalLM.from_pretrained("checkpoint")
    assert all(torch.equal(p, leaf) for (_, p), leaf in zip(read.named_parameters(), ended["checkpoint"], strict=True))
    with warnings.catch_warnings(), torch.random.fork_rng(devices=[]):  # as in llm.lora
        warnings.simplefilter("ignore", FutureWarning)
        adapted = PeftModel.from_pretrained(base, "adapter")
    leaves = [p for name, p in adapted.named_parameters() if "lora_" in name]
    assert len(leaves) == len(ended["adapter"]) and all(map(torch.equal, leaves, ended["adapter"]))


def initial(place, kind):
    return checkpoint.BaseModel(str(place / "opt"), **KINDS[kind]).initial()


@pytest.mark.parametrize("kind", KINDS)
def test_two_people_with_the_base_model_and_the_ledger_get_the_same_files(place, command, kind):
    """The second one has the ledger as a file, and the base model elsewhere, in shards and in another format."""
    moved = Path("elsewhere/model")
    AutoModelForCausalLM.from_pretrained(place / "opt").save_pretrained(moved, max_shard_size="10KB")
    assert len(list(moved.glob("*.safetensors"))) > 1
    llm_helpers.tokenizer().save_pretrained(moved)
    shutil.copy(place / kind / LEDGER_NAME, "received.ledger")
    assert command("ledger", "replay", place / kind, "--to", "mine")[0] == 0
    status, _, err = command("ledger", "replay", "received.ledger", "--to", "theirs", "--model", moved)
    assert status == 0, err
    (mine,), (theirs,) = Path("mine").glob("*.safetensors"), Path("theirs").glob("*.safetensors")
    assert mine.read_bytes() == theirs.read_bytes()
    assert Path("mine/hiso_bench.json").read_bytes() == Path("theirs/hiso_bench.json").read_bytes()
    told = json.loads(Path("mine/hiso_bench.json").read_text())
    assert told["ledger_chain"] == Ledger.read(Path("received.ledger")).chain.hex() and told["rounds"] == 4


@pytest.mark.parametrize("action", [("audit",), ("replay", "--to", "out")], ids=lambda action: action[0])
@pytest.mark.parametrize("kind", KINDS)
def test_another_base_model_is_refused_by_its_hash_in_one_line(place, command, action, kind):
    llm_helpers.save(Path("other"), "opt", key=1)
    name, *more = action
    status, out, err = command("ledger", name, place / kind, *more, "--model", "other")
    expected = Ledger.read(place / kind / LEDGER_NAME).header["run"]["problem"]["base_hash"]
    assert status == 2 and not out and len(err.splitlines()) == 1
    assert "another base model" in err and expected in err and "--model" in err
    assert not Path("out").exists()


def test_a_base_model_that_is_gone_is_named(place, command, tmp_path):
    shutil.copytree(place / "opt", "here")
    shutil.copy(place / "checkpoint" / LEDGER_NAME, "received.ledger")
    status, _, err = command("ledger", "replay", "received.ledger", "--to", "out", "--model", "nowhere/at/all")
    assert status == 2 and "nowhere/at/all" in err and len(err.splitlines()) == 1


REFUSED = {
    "no folder": (("replay", "checkpoint"), ["to is not given", "--to FOLDER"]),
    "folder with audit": (("audit", "checkpoint", "--to", "out"), ["to out", "audit"]),
    "taken": (("replay", "checkpoint", "--to", "taken"), ["to taken exists"]),
}


@pytest.mark.parametrize("case", REFUSED)
def test_where_a_model_goes_must_be_new(place, command, case):
    Path("taken").mkdir()
    (action, run, *more), words = REFUSED[case]
    status, out, err = command("ledger", action, place / run, *more)
    assert status == 2 and not out and len(err.splitlines()) == 1, err
    assert all(word in err for word in words)
    assert [path.name for path in Path().iterdir()] == ["taken"]


def test_a_problem_without_a_model_has_nothing_to_save(command):
    run = ("train", "--problem", "quadratic", "--method", "decomfl", "--lr", "0.02", "--rounds", 2, "--quiet", "--threads", 1)
    assert command(*run, "--out", "run")[0] == 0
    status, _, err = command("ledger", "replay", "run", "--to", "out")
    assert status == 2 and "quadratic" in err and "no checkpoint" in err
    status, _, err = command("ledger", "audit", "run", "--model", "elsewhere")
    assert status == 2 and "quadratic" in err and "no base model" in err


def test_a_model_that_cannot_be_written_leaves_nothing_behind(place, ended, tmp_path, monkeypatch):
    base = checkpoint.BaseModel(str(place / "opt"))

    def fail(*_, **__):
        raise OSError("no space left on device")

    monkeypatch.setattr(type(base.tokenizer), "save_pretrained", fail)
    with pytest.raises(OSError, match="no space left"):
        base.save(ended["checkpoint"], tmp_path / "out", {})
    assert not list(tmp_path.iterdir())
    assert all(map(torch.equal, base.initial(), initial(place, "checkpoint")))


@pytest.mark.parametrize("kind", KINDS)
def test_a_large_base_point_is_read_again_with_the_same_bits(place, tmp_path, monkeypatch, kind):
    kept = checkpoint.BaseModel(str(place / "opt"), **KINDS[kind], key=5)
    monkeypatch.setattr(checkpoint, "KEPT_BYTES", 0)
    shutil.copytree(place / "opt", tmp_path / "opt")
    again = checkpoint.BaseModel(str(tmp_path / "opt"), **KINDS[kind], key=5)
    assert again.layout == kept.layout and again.names == kept.names
    for _ in range(2):
        assert all(map(torch.equal, kept.initial(), again.initial()))
    assert max(p.untyped_storage().nbytes() for p in again.module.parameters() if p.requires_grad) <= 8
    shutil.rmtree(tmp_path / "opt")
    llm_helpers.save(tmp_path / "opt", "opt", key=1)
    with pytest.raises(ValueError, match="has changed on disk"):
        again.initial()
    shutil.rmtree(tmp_path / "opt")
    with pytest.raises(ModelError, match="does not exist"):
        again.initial()


def test_adapters_start_from_the_runs_key(place):
    one, two = (checkpoint.BaseModel(str(place / "opt"), **ADAPTERS, key=key) for key in (1, 2))
    assert one.base_hash == two.base_hash
    assert any(not torch.equal(a, b) for a, b in zip(one.initial(), two.initial(), strict=True))


def test_an_audit_that_begins_elsewhere_says_so(place, ended):
    ledger = Ledger.read(place / "checkpoint" / LEDGER_NAME)
    described = ledger.header["run"]["problem"]
    base = catalogue.base("lm", described)
    method = methods.build("hiso", lr=3e-3, perturbations=2)
    state = audit.audit(ledger, base, method, OPTIONS)
    assert all(map(torch.equal, state.x, ended["checkpoint"]))
    ledger.header["run"]["base_fingerprint"] = "0" * 16
    with pytest.raises(LedgerError, match="begins at another base point: its fingerprint is 0000000000000000 there"):
        audit.audit(ledger, base, method, OPTIONS)
