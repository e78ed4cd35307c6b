"""Codecs of vectors: what a payload holds, how long it is, and what a quantiser leaves of its vector."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from hiso_bench import keys
from hiso_bench.first_order.codecs import Dense, Quantised, Sign, TopK

VECTORS = arrays(np.float64, st.integers(1, 40), elements=st.floats(-1e3, 1e3))


@given(VECTORS, st.integers(2, 16), st.integers(0, 2**32))
def test_a_quantised_vector_is_within_one_level_and_of_fixed_length(vector, bits_, seed):
    codec = Quantised(bits_)
    payload = codec.encode(vector, keys.rng(seed))
    assert len(payload) == 4 + -(-bits_ * len(vector) // 8)
    found, step = codec.decode(payload, len(vector)), np.abs(vector).max() * (1 + 1e-6) / codec.levels
    assert np.all(np.abs(found - vector) <= step + 1e-44)


def test_rounding_at_random_is_unbiased():
    """E over the rounding draw: with draws u on a fine grid of [0, 1) a fraction f is rounded up in a share f of them."""

    class Grid:
        def random(self, n):
            return np.full(n, self.u)

    vector, grid, found = np.array([1.0, -0.25, 0.5, 0.0, 0.8125]), Grid(), []
    for grid.u in (np.arange(64) + 0.5) / 64:
        found.append(Quantised(3).decode(Quantised(3).encode(vector, grid), 5))
    np.testing.assert_allclose(np.mean(found, axis=0), vector, atol=1 / 128)
    assert np.ptp(found, axis=0).max() == pytest.approx(1 / 3)


@given(VECTORS, st.floats(0.01, 1.0))
def test_top_k_keeps_the_largest_and_nothing_else(vector, share):
    found = TopK(share, "float64").decode(TopK(share, "float64").encode(vector, keys.rng(0)), len(vector))
    k = max(1, round(share * len(vector)))
    kept = found != 0
    assert kept.sum() <= k and np.array_equal(found[kept], vector[kept])
    assert np.abs(vector[~kept]).max(initial=0) <= np.sort(np.abs(vector))[::-1][k - 1]


@given(VECTORS)
def test_dense_and_sign_say_what_they_can(vector):
    np.testing.assert_array_equal(Dense("float64").decode(Dense("float64").encode(vector, keys.rng(0)), len(vector)), vector)
    np.testing.assert_array_equal(
        Sign().decode(Sign().encode(vector, keys.rng(0)), len(vector)), np.where(vector >= 0, 1.0, -1.0)
    )


@pytest.mark.parametrize("codec", [Dense("float32"), TopK(0.5, "float32"), Quantised(4), Sign()])
def test_a_payload_of_another_length_is_refused(codec):
    payload = codec.encode(np.linspace(-1, 1, 9), keys.rng(0))
    for wrong in (payload[:-1], payload + b"\0"):
        with pytest.raises(ValueError, match=rf"a payload of {len(wrong)} bytes where {len(payload)} are due"):
            codec.decode(wrong, 9)
