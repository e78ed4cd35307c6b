"""Who takes part, who drops out and what that changes; a scalar that is not finite stops the run and is named."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hiso_bench.directions import DirectionKey, InjectedDirections, Warped
from hiso_bench.federation import Federation, FederationOptions, NonFiniteScalarError
from hiso_bench.participation import participants
from synthetic.quadratic import Quadratic
from tests.helpers import PROBLEMS, bits, build, federation, quadratic, run, update

METHODS = ["decomfl", "hiso", "hiso-a"]


@given(st.integers(0, 2**64 - 1), st.integers(0, 10**6), st.integers(1, 20), st.data(), st.sampled_from([(), (3,), (2, 2)]))
def test_participants_are_distinct_clients_in_ascending_order_in_every_replicate(key, round_, clients, data, replicates):
    sampled = data.draw(st.integers(1, clients))
    ids = participants(key, round_, clients, sampled, replicates)
    assert ids.shape == (sampled, *replicates)
    assert ((ids >= 0) & (ids < clients)).all()
    assert (np.diff(ids, axis=0) > 0).all()
    assert np.array_equal(ids, participants(key, round_, clients, sampled, replicates))


@pytest.mark.parametrize("replicates", [(), (2,)])
def test_participation_changes_with_round_key_and_replicate_and_reaches_everyone(replicates):
    def draws(key):
        return np.stack([participants(key, r, 10, 3, replicates) for r in range(60)])

    assert set(draws(0).ravel()) == set(range(10))
    assert not np.array_equal(draws(0), draws(2**32))
    assert len({ids.tobytes() for ids in draws(0)}) > 30
    if replicates:
        assert not np.array_equal(draws(0)[..., 0], draws(0)[..., 1])


class Watched(Quadratic):
    """A quadratic in which the data of one client can be replaced by something else."""

    replaced = -1

    def batch(self, client, round_, step):
        linear = super().batch(client, round_, step)
        return linear + 1 if int(client) == self.replaced else linear


def watched(replaced):
    problem = Watched(12, clients=6, heterogeneity=0.3, noise=0.05, parameter=1.0)
    problem.replaced = replaced
    return problem


@pytest.mark.parametrize("tau", [1, 2])
@pytest.mark.parametrize("name", METHODS)
def test_only_the_clients_that_answered_contribute(name, tau):
    options = {"local_steps": tau, "dropout": 0.5, "sampled": 4, "key": 3}
    f = run(federation(quadratic(), name, **options), 6)
    seen = set()
    for r, record in enumerate(f.ledger.rounds):
        for client in range(6):
            other = run(federation(watched(client), name, **options), r + 1)
            if client in {c for past in f.ledger.rounds[:r] for c in past.answered}:
                continue  # its other data changed an earlier round
            assert (other.ledger.rounds[r] == record) == (client not in record.answered)
            seen.add((client in record.answered, client in participants(3, r, 6, 4)))
    assert seen >= {(True, True), (False, True)}


@pytest.mark.parametrize("independent", [False, True], ids=["shared", "independent"])
@pytest.mark.parametrize("name", METHODS)
def test_an_empty_round_moves_nothing_but_the_counter(name, independent):
    f = federation(quadratic(), name, {"momentum": 0.5, "weight_decay": 0.1}, sampled=2, dropout=0.6, independent=independent)
    empty = 0
    for r in range(12):
        before, seen = bits(f.state), f.last_seen.copy()
        report = f.round()
        assert bits(f.state)["round"] == r + 1
        assert f.last_seen.tolist() == [r if c in report.record.answered else seen[c] for c in range(6)]
        if not report.record.answered:
            empty += 1
            assert bits(f.state) | {"round": r} == before
            assert (report.record.update, report.record.bytes_up, report.record.forward_passes) == (b"\0\0", 0, 0)
            assert report.record.bytes_down >= 16
            assert report.loss.isnan()
        else:
            assert bits(f.state)["x"] != before["x"]
    assert empty


def test_dropping_out_is_independent_of_who_is_sampled_and_drawn_anew_every_round():
    answers = [record.answered for record in run(federation(quadratic(), "decomfl", dropout=0.5, sampled=6), 12).ledger.rounds]
    assert len(set(answers)) > 6
    assert {len(a) for a in answers} > {2, 3, 4}
    everyone = run(federation(quadratic(), "decomfl", sampled=6), 3)
    assert all(record.answered == tuple(range(6)) for record in everyone.ledger.rounds)


@pytest.mark.parametrize("tau", [1, 2])
def test_the_reported_loss_is_the_mean_of_what_the_answering_clients_measured(tau):
    f = federation(quadratic(noise=0.0), "decomfl", {"lr": 1e-12}, sampled=4, dropout=0.4, local_steps=tau)
    for r in range(5):
        report = f.round()
        alone = [f.problem.loss(f.state.x, f.problem.batch(np.array(c), r, 0)) for c in report.record.answered]
        torch.testing.assert_close(report.loss, torch.stack(alone).mean(), rtol=1e-8, atol=0)


def broken(key, value, independent):
    """A federation whose direction `key` is not finite."""
    problem = quadratic()

    def look_up(asked):
        u = torch.linspace(-1, 1, 12, dtype=torch.float64) * (1 + asked.p)
        return (torch.full_like(u, value) if asked == key else u,)

    options = FederationOptions(sampled=6, local_steps=2, independent=independent)
    directions = InjectedDirections(problem.layout, look_up)
    return Federation(problem, build("hiso", problem), options, directions=directions)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize(("client", "independent"), [(-1, False), (3, True)])
def test_a_scalar_that_is_not_finite_stops_the_run_and_is_named(client, independent, value):
    key = DirectionKey(2, 1, 2, client)
    f = run(broken(key, value, independent), 2)
    before = bits(f.state)
    with pytest.raises(NonFiniteScalarError) as error:
        f.round()
    assert f"round 2, client {max(client, 0)}, {key}: the scalar is nan" in str(error.value)
    assert bits(f.state) == before
    assert len(f.ledger.rounds) == 2


def test_a_scalar_that_overflows_on_the_wire_is_named():
    huge = federation(quadratic(heterogeneity=1e60), "decomfl", sampled=6)
    with pytest.raises(
        NonFiniteScalarError, match=r"round 0, client 0, DirectionKey\(round=0, step=0, p=0, client=-1\): .* inf in float32"
    ):
        huge.round()
    run(federation(quadratic(heterogeneity=1e60), "decomfl", {"lr": 1e-30}, sampled=6, wire="float64"), 1)


def test_a_run_frozen_on_divergence_stays_where_it_was():
    f = federation(quadratic(), "hiso", {"lr": 1e200}, on_divergence="freeze")
    f.round()
    before = bits(f.state)
    run(f, 3)
    assert not f.alive
    assert bits(f.state) | {"round": 1} == before
    assert update(f, 2).scalars.isnan().all()


@pytest.mark.parametrize("problem", PROBLEMS)
@pytest.mark.parametrize("independent", [False, True], ids=["shared", "independent"])
@pytest.mark.parametrize("tau", [1, 3])
@given(order=st.permutations(range(5)))
@settings(max_examples=5)
def test_the_order_in_which_clients_answer_does_not_matter(problem, independent, tau, order):
    f = run(federation(PROBLEMS[problem](), "hiso", {"momentum": 0.6}, local_steps=tau, independent=independent), 2)
    ids = np.array(order)
    measured = [f.measure(2, who, list(who), Warped(f.directions, f.method.warp(f.state))) for who in (ids, np.sort(ids))]
    for there, sorted_ in zip(*measured, strict=True):
        assert torch.equal(there, sorted_[ids])


def test_a_client_with_directions_of_its_own_moves_x_along_those():
    """Two of six clients, each measured and replayed along the directions of its own id, not of its place among the sampled."""
    f = federation(quadratic(noise=0.0), "decomfl", sampled=2, independent=True, wire="float64")
    places = set()
    for r in range(6):
        before, ids = f.state.x[0].clone(), participants(f.options.key, r, 6, 2)
        places.add(tuple(ids))
        expected = before.clone()
        for client in ids:
            batch = f.problem.batch(np.array(client), r, 0)
            for p in range(3):
                z = f.directions.draw(DirectionKey(r, 0, p, int(client)))[0]
                s = (f.problem.loss((before + 1e-3 * z,), batch) - f.problem.loss((before,), batch)) / 1e-3
                expected -= 0.05 * s * z / (2 * 3)
        f.round()
        assert torch.allclose(f.state.x[0], expected, rtol=1e-12, atol=1e-12)
    assert any(ids != (0, 1) for ids in places)
