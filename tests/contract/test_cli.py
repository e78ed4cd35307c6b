"""The command line as a person uses it: results, resuming, and one-line errors that name the option and what is allowed."""

import functools
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import hiso_bench
from hiso_bench import catalogue, cli, methods, recorded_rates


@pytest.fixture
def command(tmp_path, monkeypatch, capsys):
    """Run a command line in an empty folder; gives (status, stdout, stderr)."""
    monkeypatch.chdir(tmp_path)

    def run(*args: str) -> tuple[int, str, str]:
        status = cli.main(list(args))
        told = capsys.readouterr()
        return status, told.out, told.err

    return run


QUADRATIC = ("train", "--problem", "quadratic", "--dimension", "40", "--threads", "1", "--quiet")


def test_json_ends_with_one_object_that_agrees_with_the_ledger(command):
    status, out, _ = command(*QUADRATIC, "--method", "hiso", "--lr", "0.02", "--rounds", "60", "--json")
    assert status == 0
    result = json.loads(out)
    assert set(result) == {
        "rounds", "loss", "metric", "metric_name", "bytes_up", "bytes_down", "forward_passes", "seconds", "ledger",
    }  # fmt: skip
    assert result["rounds"] == 60 and result["forward_passes"] == 60 * 2 * 6
    assert result["bytes_up"] == 60 * 2 * (8 + 4 * 5)
    _, shown, _ = command("ledger", "show", result["ledger"], "--json")
    about = json.loads(shown)
    assert about["bytes_up"] == result["bytes_up"] and about["evaluation"]["loss"] == result["loss"]
    status, audited, _ = command("ledger", "audit", result["ledger"], "--json")
    assert status == 0 and json.loads(audited)["verdict"] == "agrees"


def test_a_method_of_vectors_trains_resumes_and_says_what_its_ledger_cannot_do(command):
    args = (*QUADRATIC, "--method", "fedadam", "--lr", "0.02", "--client-lr", "0.1", "--out", "run", "--json")
    args += ("--snapshot-every", "10", "--evaluate-every", "10")
    command(*args, "--rounds", "10")
    status, out, err = command(*args, "--rounds", "25")
    result = json.loads(out)
    assert status == 0 and "round 10" in err and result["bytes_up"] == 25 * 2 * (8 + 4 * 40)
    assert result["bytes_down"] == 25 * 2 * (4 + 4 * 40)
    assert "lengths and hashes" in json.loads(command("ledger", "show", "run", "--json")[1])["rebuilds"]
    status, _, err = command("ledger", "audit", "run")
    assert status == 2 and "x cannot be rebuilt from ledger" in err and "The command that made the run" in err
    status, _, err = command(*QUADRATIC, "--method", "fedavg")
    assert status == 2 and "client_lr 0.0 is out of range; allowed: a finite number > 0" in err


def test_the_same_command_resumes_and_a_longer_one_goes_on(command):
    args = (*QUADRATIC, "--method", "hiso", "--lr", "0.02", "--out", "run", "--json")
    command(*args, "--rounds", "50")
    _, out, err = command(*args, "--rounds", "100")
    assert "resuming" in err and "round 50" in err and json.loads(out)["rounds"] == 100
    whole = Path("run/run.ledger").read_bytes()
    status, _, _ = command(*QUADRATIC, "--method", "hiso", "--lr", "0.02", "--out", "other", "--rounds", "100")
    assert status == 0 and Path("other/run.ledger").read_bytes() == whole


def test_the_default_rate_is_the_winner_of_the_recorded_grid(command):
    _, _, err = command(*QUADRATIC, "--method", "decomfl", "--rounds", "2")
    rate, told = recorded_rates.rate("quadratic", "decomfl", {})
    assert told in err and f"{rate:.4g}" in told


def test_a_task_without_a_grid_borrows_the_rate_of_its_model_and_says_so():
    rate, told = recorded_rates.rate("lm", "hiso", {}, {"model": "tiny-opt", "task": "sst2"})
    assert rate == recorded_rates.rate("lm", "hiso", {}, {"model": "tiny-opt", "task": "toy-sst2"})[0]
    assert "llm_tiny-opt_toy" in told and "llm_tiny-opt_sst2_grid.csv is not there, and --lr overrides" in told
    with pytest.raises(ValueError, match=r"lr is not given \(--lr\) .*llm_facebook-opt-125m_sst2_grid"):
        recorded_rates.rate("lm", "hiso", {}, {"model": "facebook/opt-125m", "task": "sst2"})


@pytest.mark.parametrize("name", [n for n in catalogue.PROBLEMS if catalogue.PROBLEMS[n].grid == "low_rank_grid"])
@pytest.mark.parametrize("method", ["decomfl", "hiso", "hiso-e", "hiso-shuffled-leaf", "hiso-oracle"])
def test_every_method_trains_without_naming_a_rate(command, name, method):
    status, _, _ = command("train", "--problem", name, "--method", method, "--rounds", "2", "--quiet", "--threads", "1")
    assert status == 0


ERRORS = {
    "unknown option": ((*QUADRATIC, "--methd", "hiso"), ["--methd", "--method"]),
    "unknown method": ((*QUADRATIC, "--method", "hsio", "--lr", "1"), ["hsio", "decomfl", "hiso-oracle"]),
    "unknown problem": (("train", "--problem", "cifar", "--lr", "1"), ["cifar", "quadratic", "mnist"]),
    "unknown figure": (("figures", "nothing"), ["nothing", "low_rank"]),
    "unknown experiment": (("results", "nothing"), ["nothing", "fig5_mnist"]),
    "option of another method": ((*QUADRATIC, "--method", "decomfl", "--lr", "1", "--ema-new", "0.1"), ["ema_new", "mu"]),
    "option of another problem": (
        ("train", "--problem", "digits", "--lr", "1", "--dimension", "3"),
        ["dimension", "alpha"],
    ),  # fmt: skip
    "m > M": ((*QUADRATIC, "--lr", "1", "--clients", "3", "--sampled", "4"), ["sampled 4", "clients = 3"]),
    "P < 1": ((*QUADRATIC, "--lr", "1", "--perturbations", "0"), ["perturbations 0", ">= 1"]),
    "mu <= 0": ((*QUADRATIC, "--lr", "1", "--mu", "0"), ["mu 0", "> 0"]),
    "lr < 0": ((*QUADRATIC, "--lr", "-1"), ["lr -1", "> 0"]),
    "lr is no number": ((*QUADRATIC, "--lr", "fast"), ["lr", "fast"]),
    "ema_new > 1": ((*QUADRATIC, "--lr", "1", "--ema-new", "1.5"), ["ema_new 1.5", "<= 1"]),
    "tau < 1": ((*QUADRATIC, "--lr", "1", "--local-steps", "0"), ["local_steps 0", ">= 1"]),
    "dropout = 1": ((*QUADRATIC, "--lr", "1", "--dropout", "1"), ["dropout 1", "< 1"]),
    "unknown law": ((*QUADRATIC, "--lr", "1", "--law", "cauchy"), ["cauchy", "rademacher"]),
    "no oracle": (("train", "--problem", "digits", "--method", "hiso-oracle", "--lr", "1"), ["hiso-oracle", "digits"]),
    "no such ledger": (("ledger", "show", "nowhere"), ["nowhere", "does not exist"]),
    "unknown command": (("trian",), ["command 'trian' is unknown", "did you mean train? allowed: train, suggest-lr"]),
    "no problem": (("train",), ["train needs --problem {quadratic,", "(see hiso-bench train --help)"]),
    "no action": (("ledger",), ["ledger needs {show,audit,replay}"]),
    "no value": (("train", "--problem"), ["--problem", "(see hiso-bench train --help)"]),
}


@pytest.mark.parametrize("case", ERRORS)
def test_errors_are_one_line_that_names_the_option_and_what_is_allowed(command, case):
    args, words = ERRORS[case]
    status, out, err = command(*args)
    lines = [line for line in err.splitlines() if not line.startswith("lr ")]
    assert status == 2 and not out and len(lines) == 1, err
    for word in words:
        assert word in lines[0]


def test_a_foreign_and_a_corrupt_ledger_are_refused(command):
    args = (*QUADRATIC, "--lr", "0.02", "--out", "run", "--rounds", "20")
    command(*args)
    status, _, err = command(*args[:-4], "--out", "run", "--rounds", "20", "--mu", "0.01")
    assert status == 2 and "another run" in err and "mu" in err
    path = Path("run/run.ledger")
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    status, _, err = command(*args)
    assert status == 2 and "corrupt" in err
    path.write_text("not a ledger")
    status, _, err = command(*args)
    assert status == 2 and "not a hiso_bench ledger" in err


def test_a_scalar_that_is_not_finite_stops_the_run_and_says_where(command):
    status, _, err = command(*QUADRATIC, "--method", "decomfl", "--lr", "1e200", "--rounds", "50")
    assert status == 1
    assert all(word in err for word in ("round ", "client ", "DirectionKey(", "lower lr"))


def test_a_missing_data_folder_is_named(command, monkeypatch):
    monkeypatch.setenv("HISO_BENCH_DATA", "/no/such/folder")
    status, _, err = command("train", "--problem", "mnist", "--lr", "1")
    assert status == 2 and "HISO_BENCH_DATA" in err and "/no/such/folder" in err


def test_help_names_the_options_of_the_method_and_the_problem_before_it(command):
    _, out, _ = command("train", "--help")
    for option in ("--lr", "--ema-new", "--dropout", "--local-steps", "--stop-at", "--wire", "--cache-bytes"):
        assert option in out
    assert not any(option in out for option in ("--alpha", "--client-lr", "--beta1", "--lora-rank"))
    _, out, _ = command("train", "--problem", "digits", "--method=fedadam", "--help")
    assert all(option in out for option in ("--alpha", "--client-lr", "--beta1"))
    assert "--ema-new" not in out and "--lora-rank" not in out
    # What help does not show is still an option, and refused by name.
    assert "no option 'ema_new'" in command("train", "--problem", "quadratic", "--method", "decomfl", "--ema-new", "0.1")[2]


def test_a_method_from_a_file_trains_resumes_and_is_audited(command, tmp_path, monkeypatch):
    monkeypatch.setattr(methods, "PRESETS", dict(methods.PRESETS))
    file = tmp_path / "half.py"
    kind = "class Half(hiso_bench.Method):\n    def rate(self, state, step):\n        return super().rate(state, step) / 2\n"
    file.write_text(f"import hiso_bench\n\n\n{kind}\n\nhiso_bench.register('half-step', Half)\n")
    run = (*QUADRATIC, f"--method={file}", "--lr", "0.02", "--out", str(tmp_path / "run"))
    assert command(*run, "--rounds", "3")[0] == 0
    status, _, err = command(*run, "--rounds", "5")
    assert status == 0 and "resuming" in err
    twin = (*QUADRATIC, "--method", "decomfl", "--lr", "0.01", "--rounds", "5", "--out", str(tmp_path / "twin"))
    assert command(*twin)[0] == 0
    final = []
    for name in ("run", "twin"):
        status, out, err = command("ledger", "audit", str(tmp_path / name), "--method", str(file), "--json")
        assert status == 0, err
        final.append(json.loads(out)["final"])
    assert final[0] == final[1]
    two = tmp_path / "two.py"
    two.write_text(file.read_text().replace("half-step", "a-half") + "hiso_bench.register('b-half', Half)\n")
    assert "two.py registers a-half, b-half; allowed: a file that registers one" in command(*QUADRATIC, "--method", str(two))[2]
    assert "neither registered nor a file" in command(*QUADRATIC, "--method", "none.py")[2]


def test_an_interrupted_run_says_how_to_go_on(tmp_path):
    """A real process, a real signal: the ledger it leaves is resumed to the same bytes."""
    args = [sys.executable, "-m", "hiso_bench.cli", *QUADRATIC, "--lr", "0.02", "--out", str(tmp_path / "run"), "--rounds"]
    env = os.environ | {"PYTHONPATH": str(catalogue.ROOT)}
    heed = functools.partial(signal.signal, signal.SIGINT, signal.SIG_DFL)  # a background shell has it ignored
    process = subprocess.Popen([*args, "1000000"], env=env, stderr=subprocess.PIPE, text=True, cwd=tmp_path, preexec_fn=heed)
    ledger = tmp_path / "run" / "run.ledger"
    while not ledger.exists() or ledger.stat().st_size < 20_000:
        assert process.poll() is None
    process.send_signal(signal.SIGINT)
    _, told = process.communicate(timeout=60)
    assert process.returncode == 130 and "the same command goes on" in told


def test_the_first_screen_shows_every_command_and_how_to_begin(command):
    status, out, err = command()
    assert status == 2 and not out
    assert command("--help") == (0, err, "") and command("-h")[1] == err
    for name in cli.COMMANDS:
        assert f"  {name} " in err
    begin = next(line for line in err.splitlines() if line.startswith("  hiso-bench "))
    assert command(*begin.split()[1:], "--quiet", "--dimension", "20", "--rounds", "2")[0] == 0
    assert len(err.splitlines()) < 24 and max(map(len, err.splitlines())) <= 80
    assert command("--version")[1].strip() == hiso_bench.__version__


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_help_fits_eighty_columns_and_shows_no_empty_default(command, monkeypatch, name):
    monkeypatch.setenv("COLUMNS", "80")
    status, out, _ = command(name, "--help")
    assert status == 0 and max(map(len, out.splitlines())) <= 80
    assert "usage: hiso-bench" in out and "--no-json" not in out
    text = " ".join(out.split())
    assert "(default: '')" not in text and "(default: )" not in text and "(default: .)" not in text
    assert name != "suggest-lr" or ("--lr FLOAT" not in out and "--out PATH" not in out and "--mu FLOAT" in out)


@pytest.mark.parametrize(("name", "told"), [("rerun", "the same command goes on from there"), ("verify", "interrupted\n")])
def test_an_interrupted_command_says_whether_it_goes_on(command, monkeypatch, name, told):
    def stop(args):
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "_dispatch", stop)
    status, out, err = command(name)
    assert status == 130 and not out and told in err


def test_what_commands_print_fits_eighty_columns(command):
    status, _, err = command(*QUADRATIC, "--method", "hiso", "--lr", "0.02", "--rounds", "9", "--out", "run")
    assert status == 0 and [line.split()[0] for line in err.splitlines()] == ["9", "ledger"] and err.count("loss") == 1
    for args in (("ledger", "show", "run"), ("ledger", "audit", "run"), ("runs", "run"), ("verify", "--list"), ("doctor",)):
        status, out, _ = command(*args)
        assert status == 0 and max(map(len, out.splitlines())) <= 80, args
    assert "{" not in command("ledger", "show", "run")[1]
