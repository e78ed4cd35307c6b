"""Neighbouring methods: what is exact in any run, and honest bits."""

import numpy as np
import pytest
import torch

from hiso_bench import methods
from hiso_bench.audit import Client, audit
from hiso_bench.directions import DirectionKey, Directions
from hiso_bench.federation import FederationOptions, NonFiniteScalarError
from hiso_bench.messages import MessageError, Update, Wire
from hiso_bench.points import Layout
from tests.helpers import TinyNet, bits, federation, quadratic, run


def test_fedkseed_never_leaves_the_span_of_its_pool_and_reaches_the_minimum_on_it():
    problem = quadratic(noise=0.0, heterogeneity=0.0)
    f = federation(problem, "fedkseed", {"lr": 0.1, "pool": 4, "perturbations": 1, "difference": "central"}, wire="float64")
    start = f.state.x[0].clone()
    run(f, 400)
    z = torch.stack([f.directions._source.draw(DirectionKey(0, 0, j))[0] for j in range(4)], 1).numpy()
    moved = (f.state.x[0] - start).numpy()
    inside = z @ np.linalg.lstsq(z, moved, rcond=None)[0]
    np.testing.assert_allclose(moved, inside, atol=1e-12)
    S = np.diag(problem.loss.s.numpy())
    best = np.linalg.solve(z.T @ S @ z, -z.T @ S @ start.numpy())
    np.testing.assert_allclose(moved, z @ best, atol=1e-4)


def test_a_window_keeps_factors_and_draws_the_others():
    layout = Layout(((6, 5), (4,)))
    for name in ("lozo", "subzero"):
        method = methods.build(name, lr=0.1, rank=2, window=3)
        d = method.directions(layout, lambda shapes: Directions(shapes, root=3))
        z = [d.draw(DirectionKey(r, 0, 0))[0] for r in range(6)]
        assert all(torch.linalg.matrix_rank(one, rtol=1e-4) == 2 for one in z)
        rows = [torch.linalg.matrix_rank(torch.cat([z[a], z[b]]), rtol=1e-4) for a, b in ((0, 1), (0, 2), (3, 5), (2, 3))]
        assert rows == [2, 2, 2, 4]  # one row space within a window, another in the next
        columns = torch.linalg.matrix_rank(torch.cat([z[0], z[1]], 1), rtol=1e-4)
        assert columns == (4 if name == "lozo" else 2)


@pytest.mark.parametrize("law", ["sphere", "rademacher"])
def test_low_rank_directions_are_gaussian(law):
    with pytest.raises(ValueError, match=f"law {law} is out of range; allowed: gaussian for this method"):
        federation(TinyNet(), "lozo", law=law)


@pytest.mark.parametrize(("tau", "P", "size"), [(1, 1, 1), (2, 3, 1), (3, 3, 2), (1, 8, 1)])
def test_a_vote_is_a_bit_and_bits_fill_bytes(tau, P, size):
    f = federation(TinyNet(), "feedsign", {"perturbations": P}, local_steps=tau, wire="sign1")
    record = f.round().record
    assert f.wire.row_bytes == size and record.bytes_up == 3 * (8 + size) and len(record.update) == 2 + size
    assert f.wire.decode_update(record.update).scalars.abs().eq(1).all()


@pytest.mark.parametrize("tau", [1, 2])
def test_feedsign_is_the_same_run_on_every_wire(tau):
    runs = [run(federation(TinyNet(), "feedsign", local_steps=tau, wire=wire), 6) for wire in ("sign1", "float32", "float64")]
    assert bits(runs[0].state) == bits(runs[1].state) == bits(runs[2].state)
    assert runs[0].ledger.rounds[3].bytes_up < runs[1].ledger.rounds[3].bytes_up < runs[2].ledger.rounds[3].bytes_up


def test_a_run_of_signs_is_audited_and_a_late_joiner_catches_up():
    f = run(federation(TinyNet(), "feedsign", {"momentum": 0.5}, wire="sign1", dropout=0.5), 8)
    assert bits(audit(f.ledger, f.problem, f.method, f.options)) == bits(f.state)
    client = Client(f.problem, f.method, f.options)
    client.receive(f.wire.encode_downlink(8, 0, f.ledger.updates(0, 8)))
    assert bits(client.state) == bits(f.state)


def test_signs_hide_no_nan():
    wire = Wire("sign1", 1, 3)
    with pytest.raises(MessageError, match="a scalar is NaN, which sign1 cannot say"):
        wire.encode_uplink(0, 0, torch.tensor([1.0, torch.nan, 0.0]).double().reshape(1, 3))
    f = federation(quadratic(), "feedsign", wire="sign1")
    f.state.x[0].fill_(1e200)
    with pytest.raises(NonFiniteScalarError, match="in sign1"):
        f.round()
    with pytest.raises(ValueError, match="wire sign1 is out of range; allowed: float32, float64 with replicates"):
        federation(quadratic((2,)), "feedsign", wire="sign1")


def test_signs_survive_the_wire():
    wire = Wire("sign1", 2, 5)
    rows = torch.linspace(-1, 1, 30, dtype=torch.float64).reshape(3, 2, 5)
    got = wire.decode_update(wire.encode_update(Update((), rows))).scalars
    assert torch.equal(got, torch.where(rows >= 0, 1.0, -1.0).double())


@pytest.mark.parametrize(
    ("name", "option", "value", "allowed"),
    [
        ("fedkseed", "pool", 0, ">= 1"),
        ("lozo", "rank", 0, ">= 1"),
        ("subzero", "window", 0, ">= 1"),
        ("fzoo", "perturbations", 1, ">= 2 for a spread"),
        ("fzoo", "scale", "loss", "code, paper"),
    ],
)
def test_an_option_out_of_range_is_named_with_what_is_allowed(name, option, value, allowed):
    with pytest.raises(ValueError, match=f"{option} {value} is out of range; allowed: {allowed}"):
        methods.build(name, **{"lr": 0.1, option: value})


def test_fzoo_stands_still_where_all_losses_are_equal():
    f = federation(
        quadratic(noise=0.0, heterogeneity=0.0, spectrum_family="flat"), "fzoo", {"perturbations": 3}, law="rademacher"
    )
    f.state.x[0].zero_()
    before = bits(f.state)
    f.round()
    assert bits(f.state)["x"] == before["x"]


def test_options_of_the_federation_that_a_method_asks_for():
    assert methods.build("feedsign", lr=0.1).federation_options == {"wire": "sign1"}
    assert FederationOptions(**methods.build("fzoo", lr=0.1).federation_options).law == "rademacher"
