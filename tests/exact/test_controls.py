"""What stands in H's place: the same numbers in other places, drawn anew for every round."""

import pytest
import torch

from hiso_bench.methods import hiso
from tests.helpers import build, quadratic


def warped_ones(control, round_, key=0):
    """z for u = 1, which is H^{-1/2} as the control gives it, with H = 1 ... 12."""
    problem = quadratic()
    method = build("hiso", problem, control=control, control_key=key)
    state = method.init(problem.initial(), problem.layout)
    state.buffers["h"][0].copy_(torch.arange(1.0, 13.0))
    state.round = round_
    return method.warp(state)((torch.ones_like(state.x[0]),))[0]


@pytest.mark.parametrize("control", ["shuffle", "shuffle_leaf"])
def test_a_permutation_keeps_the_numbers_and_changes_with_the_round_and_the_key(control):
    plain = torch.arange(1.0, 13.0, dtype=torch.float64).rsqrt()
    seen = [warped_ones(control, 0), warped_ones(control, 1), warped_ones(control, 0, key=1)]
    for z in seen:
        assert torch.equal(z.sort(descending=True).values, plain)
    assert not any(torch.equal(seen[i], seen[j]) for i in range(3) for j in range(i))
    assert torch.equal(seen[0], warped_ones(control, 0))


def test_without_a_control_each_coordinate_has_its_own_h_in_every_round():
    plain = torch.arange(1.0, 13.0, dtype=torch.float64).rsqrt()
    assert torch.equal(warped_ones("none", 0), plain) and torch.equal(warped_ones("none", 7), plain)


@pytest.mark.parametrize("block", [1, 7, 45])
def test_whitening_in_blocks_changes_no_bit(block, monkeypatch):
    monkeypatch.setattr(hiso, "_BLOCK", block)
    draw = torch.Generator().manual_seed(0)
    u, h = torch.randn(5, 9, generator=draw), torch.rand(5, 9, generator=draw) + 0.1
    for of_h in (h, h.T.contiguous().T, h[:1, :1]):  # in memory by row, by column, and one number for all
        assert torch.equal(hiso.whiten(u.clone(), of_h), u * of_h.rsqrt())
