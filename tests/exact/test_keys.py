"""A key is a function of all of the root's bits, the name and the named axes, and of nothing else."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hiso_bench import keys

GOLDEN = {
    (0, "direction", (("round", 0), ("step", 0), ("p", 0), ("client", -1))): 3104278698357110703,
    (2**64 - 1, "batch", (("client", 3), ("round", 2), ("step", 1))): 12780062537028763659,
    (7, "split", ()): 9372546199374956025,
    (7 + 2**32, "split", ()): 5235103539200274919,
}
AXES = st.dictionaries(st.sampled_from(["round", "step", "p", "client"]), st.integers(-1, 2**40))


@pytest.mark.parametrize(("arguments", "key"), GOLDEN.items(), ids=str)
def test_keys_are_those_of_every_ledger_written_so_far(arguments, key):
    root, name, axes = arguments
    assert keys.derive(root, name, **dict(axes)) == key


@given(AXES)
def test_the_order_of_the_axes_does_not_matter(axes):
    found = {keys.derive(1, "direction", **dict(order)) for order in itertools.permutations(axes.items())}
    assert len(found) == 1


@given(AXES, AXES)
def test_different_axes_give_different_keys(a, b):
    assert (keys.derive(1, "direction", **a) == keys.derive(1, "direction", **b)) == (a == b)


@given(st.integers(0, 2**64 - 1))
def test_every_bit_of_the_root_matters(root):
    assert len({keys.derive(root ^ flip, "batch", round=1) for flip in [0, *(1 << bit for bit in range(64))]}) == 65


def test_the_name_matters_and_cannot_be_mimicked_by_axes():
    roots_and_names = [(1, "batch"), (1, "split"), (1, "batchround"), (11, "batch")]
    found = [keys.derive(root, name) for root, name in roots_and_names]
    found += [
        keys.derive(1, "batch", **{axis: value}) for axis, value in (("round", 0), ("round", 1), ("step", 1), ("round", 11))
    ]
    assert len(set(found)) == len(found)


def test_integers_of_numpy_are_integers():
    assert keys.derive(np.uint64(7), "batch", round=np.int64(3)) == keys.derive(7, "batch", round=3)


@pytest.mark.parametrize("root", [-1, 2**64])
def test_a_root_outside_64_bits_is_refused(root):
    with pytest.raises(ValueError, match=rf"key {root} is out of range; allowed: 0 <= key < 2\*\*64"):
        keys.derive(root, "split")


def test_generators_are_functions_of_all_bits_of_their_key():
    assert keys.rng(5).integers(0, 100, 4).tolist() == [20, 73, 5, 59]
    assert keys.rng(5).random() == keys.rng(5).random()
    assert len({keys.rng(5 ^ (1 << bit)).random() for bit in range(64)}) == 64
