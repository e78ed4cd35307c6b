"""One key, one direction, in every dtype and with any number of threads; another key or bit of the root, another direction."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hiso_bench.directions import LAWS, DirectionKey, Directions, Warped, sampler_name
from hiso_bench.points import Layout

LAYOUT = Layout(((3,), (4, 5)))
KEY = DirectionKey(4, 1, 2)
# Values, not bits: vector units may differ in the last place of a normal; hence the CPU's capability in the sampler's name.
GOLDEN = {
    "gaussian": ([0.6784226298332214, -0.09627935290336609, 0.30070456862449646], [0.7738803029060364, -0.3558991551399231]),
    "sphere": ([0.640550971031189, -0.09090474247932434, 0.2839183211326599], [0.7306799292564392, -0.3360317647457123]),
    "rademacher": ([-1.0, 1.0, -1.0], [1.0, 1.0]),
}


def draw(layout=LAYOUT, root=12345, key=KEY, **options):
    return Directions(layout, root, **options).draw(key)


def content(point):
    return tuple(leaf.numpy().tobytes() for leaf in point)


@pytest.mark.parametrize("law", LAWS)
def test_the_first_values_are_those_of_every_ledger_written_so_far(law):
    first, second = draw(law=law)
    found = first.tolist(), second.flatten()[:2].tolist()
    for values, golden in zip(found, GOLDEN[law], strict=True):
        np.testing.assert_allclose(
            values,
            golden,
            rtol=2e-6,
            err_msg=f"{sampler_name('cpu')} gives other directions: name it anew, old ledgers cannot be replayed",
        )


AXES = st.tuples(st.integers(0, 2**32 - 1), st.integers(0, 9), st.integers(0, 9), st.integers(-1, 2**32 - 1))


@given(AXES, AXES)
def test_keys_that_differ_in_any_axis_give_different_directions(a, b):
    first, second = (content(draw(key=DirectionKey(*axes))) for axes in (a, b))
    assert (first == second) == (a == b)


@given(AXES, st.integers(0, 3), st.integers(1, 5))
def test_a_step_along_one_axis_changes_every_leaf(axes, axis, step):
    other = [value + step * (i == axis) for i, value in enumerate(axes)]
    assert not any(torch.equal(a, b) for a, b in zip(draw(key=DirectionKey(*axes)), draw(key=DirectionKey(*other)), strict=True))


@pytest.mark.parametrize("root", [0, 12345, 2**64 - 1])
def test_every_one_of_the_roots_64_bits_matters(root):
    assert len({content(draw(root=root ^ flip)) for flip in [0, *(1 << bit for bit in range(64))]}) == 65


def test_leaves_and_replicates_have_values_of_their_own():
    a, b = draw(Layout(((20,), (20,))))
    assert not torch.equal(a, b)
    (replicated,) = draw(Layout(((20,),), (2, 3)))
    assert replicated.shape == (2, 3, 20)
    assert len({row.numpy().tobytes() for row in replicated.reshape(6, 20)}) == 6


@pytest.mark.parametrize("law", LAWS)
def test_one_key_is_one_direction_in_every_dtype(law):
    single, double = draw(law=law), draw(law=law, dtype=torch.float64)
    for a, b in zip(single, double, strict=True):
        assert (a.dtype, b.dtype) == (torch.float32, torch.float64)
        if law == "sphere":  # the common draw is put on the sphere in the point's own precision
            torch.testing.assert_close(a.double(), b, rtol=2**-23, atol=0)
        else:
            assert torch.equal(a.double(), b)


@pytest.mark.parametrize("law", LAWS)
def test_where_a_direction_is_written_does_not_matter(law):
    directions = Directions(LAYOUT, 12345, law)
    out = tuple(torch.full(shape, torch.nan) for shape in LAYOUT.leaf_shapes)
    assert directions.draw(KEY, out) is out
    assert content(out) == content(directions.draw(KEY)) == content(draw(law=law))


@pytest.mark.parametrize("law", LAWS)
def test_the_number_of_threads_changes_no_bit(law, torch_threads):
    layout = Layout(((300, 200), (7,), (30_000,), (11, 13)), ())
    torch_threads(1)
    one = content(draw(layout, law=law))
    torch_threads(2)
    assert torch.get_num_threads() == 2
    assert content(draw(layout, law=law)) == one


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_sphere_has_radius_sqrt_d_in_every_replicate(dtype):
    layout = Layout(((3,), (4, 5)), (2, 3))
    u = draw(layout, law="sphere", dtype=dtype)
    squares = sum(leaf.double().square().flatten(2).sum(-1) for leaf in u)
    torch.testing.assert_close(squares, torch.full((2, 3), 23.0, dtype=torch.float64), rtol=8 * torch.finfo(dtype).eps, atol=0)
    gauss = draw(layout, dtype=dtype)
    for i in range(2):
        for j in range(3):  # a sphere direction is the Gaussian one of the same key, scaled replicate by replicate
            ratios = torch.cat([(a[i, j] / b[i, j]).flatten() for a, b in zip(u, gauss, strict=True)])
            torch.testing.assert_close(ratios, ratios[0].expand(23), rtol=8 * torch.finfo(dtype).eps, atol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_rademacher_entries_are_plus_and_minus_one(dtype):
    values = torch.cat([leaf.flatten() for leaf in draw(law="rademacher", dtype=dtype)])
    assert set(values.tolist()) == {-1.0, 1.0}


@pytest.mark.parametrize("kept", [0, 1, 2, 5])
def test_a_bounded_cache_keeps_what_fits_and_gives_the_same_bits(kept):
    drawn = []

    class Counting(Directions):
        def draw(self, key, out=None):
            drawn.append(key.p)
            return super().draw(key, out)

    size = LAYOUT.numel * 4
    warped = Warped(Counting(LAYOUT, 12345, cache_bytes=(kept + 1) * size - 1), lambda u: tuple(leaf.mul_(2) for leaf in u))
    expected = [content(tuple(2 * leaf for leaf in draw(key=DirectionKey(0, 0, p)))) for p in range(4)]
    for _ in range(2):
        assert [content(warped(DirectionKey(0, 0, p))) for p in range(4)] == expected
    assert drawn == [0, 1, 2, 3, *range(min(kept, 4), 4)]
    warped.close()
    assert len(warped.directions.spare) == min(4, kept + 1)  # never more buffers than the budget and one
    again = Warped(warped.directions, lambda u: tuple(leaf.mul_(2) for leaf in u))
    assert content(again(DirectionKey(0, 0, 3))) == expected[3]


@pytest.mark.parametrize(
    ("options", "message"), [({"law": "cauchy"}, "law 'cauchy'.*gaussian"), ({"cache_bytes": -1}, "cache_bytes -1.*0")]
)
def test_unknown_laws_and_negative_budgets_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        draw(**options)


def test_the_sampler_is_named_with_all_that_its_bits_depend_on():
    name = sampler_name("cpu")
    assert name.startswith("mt19937-shake128/1/torch-2.")
    assert name.endswith(torch.backends.cpu.get_cpu_capability())
