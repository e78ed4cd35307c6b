"""`verify --method`: sound methods pass every row that applies to them, and each planted fault fails the row it is meant for."""

import json
import random
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from hiso_bench import cli, method_checks, method_protocol, method_theory, methods
from hiso_bench.method_protocol import FAILS, HOLDS, NOT_APPLICABLE, Subject
from hiso_bench.methods import DeComFL, HiSo, Method

GOOD = '''
import torch

import hiso_bench


class SignVote(hiso_bench.Method):
    """x <- x - eta (1/P) sum_p sign(sum_i s_ip) z_p."""

    linear_in_scalars = False

    def combine(self, scalars: torch.Tensor) -> torch.Tensor:
        return scalars.sign().nansum(0, keepdim=True).sign()


hiso_bench.register("sign-vote", SignVote)
'''


@pytest.fixture(autouse=True)
def own_presets(monkeypatch):
    monkeypatch.setattr(methods, "PRESETS", dict(methods.PRESETS))


def verdicts(rows):
    return {row.name.split(" at lr")[0]: row.verdict for row in rows}


def test_a_file_with_a_sound_method_passes(tmp_path, capsys):
    path = tmp_path / "sign_vote.py"
    path.write_text(GOOD)
    assert cli.main(["verify", "--method", str(path), "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert {row["method"] for row in rows} == {"sign-vote"} and len(rows) == 14
    assert [row["verdict"] for row in rows].count(NOT_APPLICABLE) == 2 and FAILS not in [row["verdict"] for row in rows]
    assert methods.load(path) == ["sign-vote"]  # it is loaded once


def test_the_table_fits_eighty_columns_and_has_theory_beside_the_method(capsys):
    assert cli.main(["verify", "--method", "hiso-oracle"]) == 0
    told = capsys.readouterr().out
    assert max(map(len, told.splitlines())) <= 80
    rows = {name: line for line in told.splitlines() for name in ("mean of a step", "second moment") if name in line}
    assert all("norm" in line and "holds" in line for line in rows.values()) and len(rows) == 2


class Counts(Method):
    calls = []

    def rate(self, state, step):
        self.calls.append(1)
        return super().rate(state, step) / len(self.calls)


class Global(Method):
    def combine(self, scalars):
        return super().combine(scalars) * random.random()

    def move(self, state, dx, step):
        for leaf in state.x:
            leaf.sub_(float(torch.as_tensor(self.lr).mean()) * random.random())


class Remembers(Method):
    def rate(self, state, step):
        object.__setattr__(self, "seen", getattr(self, "seen", 0) + 1)
        return super().rate(state, step)


class SumsOverP(Method):
    def direction(self, step, layout, z, out):
        return super().direction(step._replace(weights=step.weights * self.perturbations), layout, z, out)


class HalfTheNoise(Method):
    """The mean is right, the second moment is not: both directions are the first one's, mirrored scalars averaged."""

    def direction(self, step, layout, z, out):
        first = step._replace(
            keys=tuple((row[0],) * len(row) for row in step.keys), weights=step.weights[:, :1].expand_as(step.weights)
        )
        return super().direction(first, layout, z, out)


class SaysLinear(Method):
    def combine(self, scalars):
        return scalars.sign().nansum(0, keepdim=True).sign()


class Ascends(DeComFL):
    def move(self, state, dx, step):
        super().move(state, tuple(leaf.neg() for leaf in dx), step)


class NegativeH(HiSo):
    def learn(self, state, steps, z, dx):
        super().learn(state, steps, z, dx)
        state.buffers["h"][0].neg_()


class Couples(Method):
    def move(self, state, dx, step):
        super().move(state, tuple(leaf + 0.0 * leaf if leaf.ndim < 2 else leaf + leaf.sum() * 1e-3 for leaf in dx), step)


class LetsAllThrough(Method):
    def __post_init__(self):
        pass


FAULTS = {
    Counts: (method_protocol.from_messages, "replay from messages alone"),
    Global: (method_protocol.resumed, "a stopped run goes on exactly"),
    Remembers: (method_protocol.hidden_state, "nothing is kept in the method"),
    SumsOverP: (method_theory.one_round, "mean of a step is C grad f"),
    HalfTheNoise: (method_theory.one_round, "second moment of a step"),
    SaysLinear: (method_protocol.linearity, "linear in the scalars"),
    Ascends: (method_theory.comparison, "descends"),
    NegativeH: (method_protocol.finite, "H positive after 50 rounds"),
    Couples: (method_protocol.replicates, "replicates are independent"),
    LetsAllThrough: (method_protocol.bad_options, "bad options are refused"),
}


@pytest.mark.parametrize("kind", FAULTS)
def test_a_planted_fault_fails_its_row(kind):
    check, row = FAULTS[kind]
    methods.register("planted", kind)
    state = random.getstate()
    try:
        found = verdicts(method_checks.attempt(check, method_checks.subject("planted")))
    finally:
        random.setstate(state)
    assert found.get(row, FAILS) == FAILS and FAILS in found.values(), found  # an error takes the row's place
    sound = verdicts(check(method_checks.subject("hiso" if kind is NegativeH else "decomfl")))
    assert sound[row] == HOLDS
    if kind is HalfTheNoise:
        assert found["mean of a step is C grad f"] == HOLDS


def test_a_fault_that_raises_is_a_row_and_not_an_end():
    class Breaks(Method):
        def combine(self, scalars):
            raise RuntimeError("no scalars today")

    rows = method_checks.check(Subject("breaks", lambda **options: Breaks(**{"lr": 0.05} | options)))
    assert any(row.measured == "RuntimeError: no scalars today" and row.verdict == FAILS for row in rows)


def test_what_cannot_be_checked_is_refused(tmp_path, capsys):
    empty = tmp_path / "empty.py"
    empty.write_text("x = 1\n")
    for args, told in [
        (["--method", "fedavg"], "method fedavg sends vectors; allowed: a method of scalars, decomfl, "),
        (["--method", "nothing.py"], "method nothing.py is neither registered nor a file; allowed: decomfl"),
        (["--method", str(empty)], "registers no method; it must call `hiso_bench.register(name, class)`"),
        (["eq9", "--method", "hiso"], "ids eq9 do not go with method"),
    ]:
        assert cli.main(["verify", *args]) == 2
        assert told in capsys.readouterr().err


@pytest.mark.parametrize("name", sorted(methods.PRESETS))
def test_no_shipped_method_fails_a_moment_that_theory_knows(name):
    rows = method_theory.one_round(method_checks.subject(name))
    assert len(rows) == 2 and all(row.verdict in (HOLDS, NOT_APPLICABLE) for row in rows)


@pytest.mark.parametrize(("name", "scalars"), [("hiso", 5), ("safe-step", 5 + 1)])
def test_rates_of_the_comparison_are_chosen_on_tuning_keys_for_a_budget_of_all_scalars(name, scalars, monkeypatch):
    """Made-up runs: on the tuning keys the third rate is best, on the result keys the ninth, for both methods."""
    rates, keys, ran = len(method_theory.RATES), method_theory.KEYS, []

    def after(problem, method, rounds, **options):
        ran.append(rounds)
        size = np.full((rates, 2 * keys), 0.5)
        size[2, :keys], size[8, keys:] = 0.1, 0.01
        size[2, keys:] = 0.2 if len(ran) == 1 else 0.4
        x = tuple(torch.from_numpy(size)[..., None] * leaf for leaf in problem.initial())
        return SimpleNamespace(state=SimpleNamespace(x=x), alive=torch.ones(size.shape, dtype=torch.bool))

    monkeypatch.setattr(method_theory, "after", after)
    fall, beside = method_theory.comparison(method_checks.subject(name))
    assert fall.name == f"descends at lr {method_theory.RATES[2]:.3g}" and fall.measured == "0.04 [0.04, 0.04]"
    assert beside.measured == "0.25 [0.25, 0.25]" and beside.verdict == "better"
    assert ran == [method_theory.SCALARS // scalars, method_theory.SCALARS // 5]
