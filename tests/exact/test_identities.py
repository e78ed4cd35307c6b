"""Methods that must coincide do so bit for bit; P directions are the mean of P single ones."""

import pytest
import torch

from hiso_bench.directions import InjectedDirections
from hiso_bench.federation import Federation, FederationOptions
from tests.helpers import PROBLEMS, bits, build, federation, quadratic, run

COMMON = {"momentum": 0.6, "weight_decay": 0.01, "lr_decay": 0.1}


def end(problem, name, rounds=5, method=None, **options):
    return bits(run(federation(PROBLEMS[problem](), name, COMMON | (method or {}), **options), rounds).state)


@pytest.mark.parametrize("problem", PROBLEMS)
@pytest.mark.parametrize("options", [{}, {"local_steps": 3}, {"local_steps": 2, "independent": True}], ids=str)
def test_hiso_with_h_frozen_at_one_is_decomfl(problem, options):
    hiso = end(problem, "hiso", method={"freeze_after": 0}, **options)
    decomfl = end(problem, "decomfl", **options)
    assert hiso["x"] == decomfl["x"]
    assert hiso["momentum"] == decomfl["momentum"]
    assert end(problem, "hiso", **options)["x"] != decomfl["x"]


@pytest.mark.parametrize("problem", PROBLEMS)
def test_h_c_with_the_eps_of_h_d_is_h_d_at_one_local_step(problem):
    assert end(problem, "hiso-c", method={"eps": 0.01}) == end(problem, "hiso-d", method={"eps": 0.01})
    assert end(problem, "hiso-c", method={"eps": 0.01}, local_steps=2) != end(
        problem, "hiso-d", method={"eps": 0.01}, local_steps=2
    )


@pytest.mark.parametrize("more", [{}, {"h_clients": "mean_of_squares"}, {"h_perturbations": "sequential"}], ids=str)
@pytest.mark.parametrize("problem", PROBLEMS)
def test_first_last_and_each_are_one_rule_at_one_local_step(problem, more):
    first, last, each = (end(problem, "hiso", method={"h_step": step} | more) for step in ("first", "last", "each"))
    assert first == last == each
    first, last, each = (
        end(problem, "hiso", method={"h_step": step} | more, local_steps=2)["h"] for step in ("first", "last", "each")
    )
    assert first != last != each != first


def test_one_direction_makes_sequential_and_mean_one_rule():
    mean, sequential = (
        end("quadratic", "hiso", method={"perturbations": 1, "h_perturbations": p}) for p in ("mean_then_square", "sequential")
    )
    assert mean == sequential


def test_one_client_makes_the_square_of_the_mean_and_the_mean_of_squares_one_rule():
    mean, squares = (end("quadratic", "hiso", method={"h_clients": c}, sampled=1) for c in ("square_of_mean", "mean_of_squares"))
    assert mean == squares


def test_a_moving_h_is_a_frozen_one_until_it_has_moved():
    """With one local step and one direction there is nothing to regenerate from a changed H."""
    one, moving = (end("quadratic", "hiso", method={"perturbations": 1, "h_moving": quirk}) for quirk in (False, True))
    assert one == moving
    three, moving = (end("quadratic", "hiso-e", method={"h_moving": quirk}) for quirk in (False, True))
    assert three["h"] != moving["h"]


@pytest.mark.parametrize("difference", ["forward", "central"])
@pytest.mark.parametrize("name", ["decomfl", "hiso-oracle"])
def test_p_directions_are_the_mean_of_p_single_ones(name, difference):
    problem, count = quadratic(), 4
    u = [(torch.linspace(-1, 1 + p, 12, dtype=torch.float64).cos(),) for p in range(count)]

    def moved(chosen):
        method = build(name, problem, perturbations=len(chosen), difference=difference)
        directions = InjectedDirections(problem.layout, lambda key: u[chosen[key.p]])
        options = FederationOptions(sampled=3, wire="float64")
        return run(Federation(problem, method, options, directions=directions), 1).state.x[0] - problem.initial()[0]

    together, alone = moved(range(count)), [moved([p]) for p in range(count)]
    torch.testing.assert_close(together, sum(alone) / count, rtol=1e-12, atol=1e-14)
    assert not torch.allclose(alone[0], alone[1])
