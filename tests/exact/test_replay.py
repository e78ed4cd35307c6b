"""The ledger alone gives the live state bit for bit, for every method, on float64 quadratics and a float32 network."""

import pytest
import torch

from hiso_bench import methods
from hiso_bench.audit import audit
from hiso_bench.directions import Directions
from hiso_bench.ledger import LedgerError
from hiso_bench.points import Layout
from hiso_bench.state import State
from tests.helpers import PROBLEMS, bits, federation, quadratic, run

ROUNDS = 6
SETTINGS = {
    "plain": {},
    "three local steps": {"local_steps": 3, "dropout": 0.4},
    "independent": {"local_steps": 3, "independent": True},
    "sphere": {"law": "sphere", "wire": "float64"},
    "rademacher": {"law": "rademacher"},
}


def live(name, problem, setting, **more):
    f = federation(problem, name, {"momentum": 0.6, "weight_decay": 0.01, "lr_decay": 0.1}, key=3, **SETTINGS[setting] | more)
    for r in range(ROUNDS):
        f.ledger.append_fingerprint(r, f.state.fingerprint())
        f.round()
    f.ledger.append_fingerprint(ROUNDS, f.state.fingerprint())
    return f


@pytest.mark.parametrize("setting", SETTINGS)
@pytest.mark.parametrize("problem", PROBLEMS)
@pytest.mark.parametrize("name", methods.PRESETS)
def test_an_audit_of_the_ledger_gives_the_live_state_bit_for_bit(name, problem, setting):
    if SETTINGS[setting].get("law", "gaussian") not in methods.PRESETS[name][0].laws:
        pytest.skip("the method does not admit the law")
    f = live(name, PROBLEMS[problem](), setting)
    assert bits(f.state)["x"] != bits(f.method.init(f.problem.initial(), f.problem.layout))["x"]
    rebuilt = audit(f.ledger, f.problem, f.method, f.options)
    assert bits(rebuilt) == bits(f.state)
    assert len(f.ledger.fingerprints) == ROUNDS + 1


@pytest.mark.parametrize("name", ["decomfl", "hiso", "hiso-a", "hiso-e", "hiso-shuffled"])
def test_what_the_cache_holds_changes_no_bit(name):
    one = quadratic().layout.numel * 8
    runs = [live(name, quadratic(), "three local steps", cache_bytes=size) for size in (0, one, 2 * one + 1, 2**30)]
    assert all(bits(f.state) == bits(runs[0].state) for f in runs)
    assert all(f.ledger.rounds == runs[0].ledger.rounds for f in runs)


def test_an_audit_names_the_round_whose_replay_differs(monkeypatch):
    f = live("hiso", quadratic(), "plain")
    draw = Directions.draw

    def other(self, key, out=None):
        out = draw(self, key, out)
        if key.round == 3:
            out[0].view(-1)[0] += 2.0**-50
        return out

    monkeypatch.setattr(Directions, "draw", other)
    with pytest.raises(LedgerError, match="after round 4 "):
        audit(f.ledger, f.problem, f.method, f.options)


@pytest.mark.parametrize("part", ["x", "h", "momentum"])
def test_every_bit_of_the_state_is_in_the_fingerprint(part):
    f = live("hiso", quadratic(), "plain")
    before, values = f.state.fingerprint(), {"x": f.state.x, **f.state.buffers}[part][0].view(-1).numpy().view("u8")
    for index in range(values.size):
        for bit in (0, 1, 31, 32, 63):
            values[index] ^= 1 << bit
            assert f.state.fingerprint() != before
            values[index] ^= 1 << bit
    values[[0, 1]] = values[[1, 0]]
    assert f.state.fingerprint() != before


def test_leaves_and_points_that_trade_places_change_the_fingerprint():
    a, b = torch.tensor([1.0, 2.0, 3.0]), torch.tensor([4.0, 5.0, 6.0])
    layout = Layout(((3,), (3,)))
    straight, crossed = State(layout, (a, b)).fingerprint(), State(layout, (b, a)).fingerprint()
    assert straight != crossed
    one = Layout(((3,),))
    assert State(one, (a,), {"h": (b,)}).fingerprint() != State(one, (b,), {"h": (a,)}).fingerprint()


def test_two_runs_of_one_key_are_equal_and_another_key_differs():
    first, again, other = (run(federation(quadratic(), key=key), 3).ledger.rounds for key in (1, 1, 2))
    assert first == again
    assert first[0].update != other[0].update


@pytest.mark.parametrize("name", ["decomfl", "hiso", "hiso-scalar"])
def test_a_replay_with_another_number_of_threads_gives_the_same_bits(name, torch_threads):
    """On a leaf so large that torch divides its work among threads. The losses of the run are another matter."""
    problem = quadratic(dimension=200_000, heterogeneity=0.0, noise=0.0)
    torch_threads(1)
    f = run(federation(problem, name), 3)
    torch_threads(2)
    assert bits(audit(f.ledger, problem, f.method, f.options)) == bits(f.state)
