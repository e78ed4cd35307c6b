"""difference="exact": the limit of the finite differences, at the cost of a gradient, through the same rounds."""

import numpy as np
import pytest
import torch

from hiso_bench.differences import evaluations
from hiso_bench.directions import DirectionKey, Warped
from hiso_bench.methods import Curvature, DeComFL, HiSo, SafeStep
from tests.helpers import TinyNet, bits, federation, quadratic, run

OPTIONS = [{}, {"local_steps": 3}, {"local_steps": 2, "independent": True}, {"dropout": 0.4}]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("name", ["decomfl", "hiso"])
def test_on_a_quadratic_it_is_the_central_difference(name, options):
    """A central difference of a quadratic has no error, so whole runs agree to rounding."""
    ends = []
    for difference in ("exact", "central"):
        f = federation(quadratic(), name, {"difference": difference, "mu": 0.5, "momentum": 0.9}, wire="float64", **options)
        ends.append(torch.cat([leaf.flatten() for leaf in run(f, 6).state.x]))
    assert (ends[0] - ends[1]).norm() < 1e-11 * ends[0].norm()


def test_of_a_network_the_differences_tend_to_it_like_mu_squared():
    f = federation(TinyNet(), "decomfl")
    x = tuple(leaf.double() for leaf in f.state.x)
    batches = [tuple(t.double() if t.is_floating_point() else t for t in f.problem.batch(np.array(c), 0, 0)) for c in (0, 3)]
    keys = [DirectionKey(0, 0, p) for p in range(3)]

    def scalars(difference, mu=1.0):
        method = DeComFL(lr=1.0, difference=difference, mu=mu)
        buffer = tuple(torch.empty_like(leaf) for leaf in x)
        z = Warped(f.directions, lambda u: u)
        return method.measure(f.problem.loss, f.state.layout, x, lambda k: tuple(u.double() for u in z(k)), keys, batches, buffer)

    exact = scalars("exact")
    assert exact.scalars.shape == (2, 3)
    assert torch.equal(exact.loss, f.problem.loss.each(x, batches))
    errors = [float((scalars("central", mu).scalars - exact.scalars).norm()) for mu in (1e-2, 1e-3)]
    assert errors[0] > 0
    assert errors[1] / errors[0] == pytest.approx(1e-2, rel=0.02)


def test_a_replay_needs_no_gradient_and_regenerated_directions_change_no_bit():
    options = {"difference": "exact", "momentum": 0.9, "weight_decay": 1e-3}
    kept, drawn = (run(federation(TinyNet(), "decomfl", options, cache_bytes=b, local_steps=2), 4) for b in (2**20, 0))
    assert bits(kept.state) == bits(drawn.state)
    late = federation(TinyNet(), "decomfl", options, local_steps=2)
    late.problem.loss.differentiable = None  # nobody asks
    for record in kept.ledger.rounds:
        late.replay(record)
    assert bits(late.state) == bits(kept.state)


def test_it_counts_one_forward_pass_and_refuses_second_differences():
    assert evaluations("exact", 20) == 1
    f = run(federation(quadratic(), "decomfl", {"difference": "exact"}, local_steps=2), 1)
    assert f.ledger.rounds[0].forward_passes == 3 * 2
    assert HiSo(lr=1.0, difference="exact").evaluations == 1
    for kind in (SafeStep, Curvature):
        with pytest.raises(ValueError, match="difference exact is out of range; allowed: forward, central where there are"):
            kind(lr=1.0, difference="exact")
