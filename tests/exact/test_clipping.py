"""H is clipped after it has been averaged, to bounds that hold in every round (assumption A4)."""

import numpy as np
import pytest
import torch

from hiso_bench.points import Layout
from hiso_bench.preconditioners import Ema
from tests.helpers import federation, quadratic


@pytest.mark.parametrize(("low", "high"), [(0.0, np.inf), (0.5, np.inf), (0.0, 2.0), (0.5, 2.0)])
def test_the_average_is_clipped_and_not_the_sample(low, high):
    h, dx = np.array([0.4, 0.6, 1.0, 1.9, 1.9]), np.array([0.1, 0.2, 1.0, 1.0, 3.0])
    point = (torch.from_numpy(h.copy()),)
    Ema(0.3, 0.01, low, high).update(Layout(((5,),)), point, [(torch.from_numpy(dx.copy()),)])
    np.testing.assert_allclose(point[0].numpy(), np.clip(0.7 * h + 0.3 * (dx**2 + 0.01), low, high), rtol=1e-15)


def test_h_stays_within_its_bounds_round_after_round():
    free, bound = (federation(quadratic(), method={"ema_new": 0.5} | clip) for clip in ({}, {"clip_low": 0.9, "clip_high": 1.1}))
    seen = []
    for _ in range(10):
        free.round()
        bound.round()
        h = bound.state.buffers["h"][0]
        assert 0.9 <= float(h.min()) and float(h.max()) <= 1.1
        seen.append((float(free.state.buffers["h"][0].min()) < 0.9, float(free.state.buffers["h"][0].max()) > 1.1))
    assert all(np.any(seen, axis=0))  # both bounds were needed
    assert float(h.min()) == 0.9


def test_equal_bounds_freeze_h():
    run = federation(quadratic(), method={"clip_low": 1.0, "clip_high": 1.0})
    plain = federation(quadratic(), "decomfl")
    for _ in range(5):
        run.round()
        plain.round()
    assert torch.equal(run.state.x[0], plain.state.x[0])
