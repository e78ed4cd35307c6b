"""How a key becomes the 19,937 bits of torch's CPU generator, and why `manual_seed` cannot do it."""

import hashlib

import numpy as np
import torch

from hiso_bench.directions import _generator

CPU = torch.device("cpu")


def parsed(state):
    """(seed, left, seeded, next, the 624 words, whether a normal is cached) of a generator's state."""
    raw = state.numpy()
    seed, rest = raw[:8].view("<u8")[0], raw[24 + 8 * 624 :]
    left, seeded = raw[8:16].view("<i4")
    return (
        int(seed),
        int(left),
        int(seeded),
        int(raw[16:24].view("<u8")[0]),
        raw[24 : 24 + 8 * 624].view("<u8").tolist(),
        bool(rest.any()),
    )


def words(key, leaf):
    return np.frombuffer(hashlib.shake_128(key.to_bytes(8, "little") + leaf.to_bytes(8, "little")).digest(4 * 624), "<u4")


def raw_draws(generator, count):
    """Outputs modulo 2**28 - 1: the widest range for which torch spends one 32-bit word per number."""
    return torch.empty(count, dtype=torch.int64).random_(0, 2**28 - 1, generator=generator).tolist()


def test_the_layout_is_torchs_own():
    """A generator that torch seeded itself holds, in our reading of its state, the words of MT19937's reference seeding."""
    reference = np.random.MT19937()
    reference._legacy_seeding(7)
    expected = reference.state["state"]["key"].tolist()
    assert parsed(torch.Generator().manual_seed(7).get_state()) == (7, 1, 1, 0, expected, False)


def test_torch_holds_the_state_that_was_built():
    for key, leaf in ((0, 0), (2**64 - 1, 1), (12345, 2)):
        assert parsed(_generator(key, leaf, CPU).get_state()) == (0, 1, 1, 0, words(key, leaf).tolist(), False)


def test_the_draws_are_those_of_a_mersenne_twister_with_these_words():
    """NumPy's MT19937, an independent implementation, started from the same words."""
    reference = np.random.MT19937()
    reference.state = {"bit_generator": "MT19937", "state": {"key": words(99, 1), "pos": 624}}
    expected = [int(value) % (2**28 - 1) for value in reference.random_raw(2000)]
    assert raw_draws(_generator(99, 1, CPU), 2000) == expected


def test_two_words_or_two_leaves_or_two_keys_share_no_word():
    columns = [set(words(key, leaf).tolist()) for key, leaf in ((0, 0), (0, 1), (1, 0), (1 << 32, 0), (1 << 63, 0))]
    assert all(len(column) == 624 for column in columns)
    assert len(set.union(*columns)) == 5 * 624


def test_generators_of_one_key_are_independent_objects():
    first = _generator(3, 0, CPU)
    draws = raw_draws(first, 10)
    assert raw_draws(_generator(3, 0, CPU), 10) == draws
    assert raw_draws(first, 10) != draws


def test_the_trap_torchs_seed_keeps_only_its_low_32_bits():
    a, b = torch.Generator().manual_seed(7), torch.Generator().manual_seed(7 + 2**32)
    assert torch.equal(torch.randn(100, generator=a), torch.randn(100, generator=b))
    assert raw_draws(_generator(7, 0, CPU), 10) != raw_draws(_generator(7 + 2**32, 0, CPU), 10)
