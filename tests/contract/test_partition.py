"""A split gives every example to exactly one client; batches have the size asked for."""

import itertools
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hiso_bench.partition import dirichlet, iid, sample_batch
from vision.problems import ImageProblem

every_time = settings(derandomize=True, deadline=None, database=None)


def generator(seed=0):
    return np.random.Generator(np.random.Philox(seed))


def assert_partition(parts, n_examples, clients, minimum):
    assert len(parts) == clients
    for part in parts:
        assert part.dtype == np.int64
        assert len(part) >= minimum
        assert (np.diff(part) > 0).all()
    assert np.array_equal(np.sort(np.concatenate(parts)), np.arange(n_examples))


def class_counts(labels, parts):
    return np.array([np.bincount(labels[part], minlength=labels.max() + 1) for part in parts])


@st.composite
def splits(draw):
    """(labels, clients, alpha, minimum) of any legal shape, extreme alpha included."""
    clients = draw(st.integers(1, 12))
    minimum = draw(st.integers(1, 6))
    n_examples = clients * minimum + draw(st.integers(0, 60))
    classes = draw(st.lists(st.integers(-5, 5), min_size=n_examples, max_size=n_examples))
    alpha = draw(st.sampled_from([1e-320, 1e-10, 1e-3, 0.1, 1.0, 30.0, 1e9]))
    return np.array(classes), clients, alpha, minimum


@every_time
@given(splits(), st.integers(0, 2**64 - 1))
def test_dirichlet_is_a_partition_above_the_minimum(case, seed):
    labels, clients, alpha, minimum = case
    parts = dirichlet(labels, clients, alpha, generator(seed), minimum)
    assert_partition(parts, len(labels), clients, minimum)


@every_time
@given(st.integers(1, 50), st.integers(0, 200), st.integers(0, 2**64 - 1))
def test_iid_is_a_partition_into_equal_parts(clients, extra, seed):
    parts = iid(clients + extra, clients, generator(seed))
    assert_partition(parts, clients + extra, clients, 1)
    sizes = [len(part) for part in parts]
    assert max(sizes) - min(sizes) <= 1


@every_time
@given(st.integers(1, 40), st.integers(1, 60), st.integers(0, 2**64 - 1))
def test_a_batch_repeats_examples_only_where_the_client_holds_too_few(held, size, seed):
    indices = np.arange(100, 100 + held)
    batch = sample_batch(indices, size, generator(seed))
    assert batch.shape == (size,)
    assert batch.dtype == np.int64
    assert np.isin(batch, indices).all()
    if size <= held:
        assert len(np.unique(batch)) == size


def test_the_generator_decides_and_global_randomness_is_left_alone():
    labels = np.arange(200) % 10
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    first, again, other = (dirichlet(labels, 8, 0.5, generator(seed)) for seed in (1, 1, 2))
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    assert not all(np.array_equal(a, b) for a, b in zip(first, other, strict=True))
    assert np.array_equal(before, np.random.get_state()[1])  # noqa: NPY002


def test_the_amount_drawn_does_not_depend_on_the_minimum():
    labels = np.arange(200) % 10
    one, other = generator(), generator()
    dirichlet(labels, 20, 0.01, one, minimum=1)
    dirichlet(labels, 20, 0.01, other, minimum=10)
    assert one.random() == other.random()


def test_alpha_sets_the_skew():
    labels = np.arange(6000) % 10
    alphas = (1e-3, 0.1, 1.0, 10.0, 1e9)
    # Largest share of a client among the examples of a class, mean over the classes: 1 to 1/20.
    counts = [class_counts(labels, dirichlet(labels, 20, alpha, generator())) for alpha in alphas]
    shares = [(count.max(axis=0) / 600).mean() for count in counts]
    assert all(more > less for more, less in itertools.pairwise(shares))
    assert shares[0] > 0.95
    assert shares[-1] < 1.1 / 20


def test_with_large_alpha_clients_mirror_the_population():
    labels = np.repeat([0, 1, 2], [3000, 2000, 1000])
    counts = class_counts(labels, dirichlet(labels, 10, 1e9, generator()))
    assert (abs(counts - [300, 200, 100]) <= 1).all()


class Planned:
    """A generator whose Dirichlet draw and offset are given; it still shuffles."""

    def __init__(self, proportions, offset=0.5, seed=0):
        """Keep the planned draws."""
        self.proportions, self.offset, self.permutation = proportions, offset, generator(seed).permutation

    def dirichlet(self, concentration):
        """The planned proportions."""
        assert len(concentration) == len(self.proportions)
        return np.array(self.proportions)

    def random(self):
        """The planned offset."""
        return self.offset


def test_expected_counts_are_exactly_the_drawn_proportions():
    # The cuts before the offset are at 1.7, 5.1 and 10.2, so ten equally spaced offsets give the exact mean
    # over all of [0, 1). No client is empty, so nothing is moved.
    proportions = np.array([0.1, 0.2, 0.3, 0.4])
    splits = [dirichlet(np.zeros(17, int), 4, 1.0, Planned(proportions, (k + 0.5) / 10), minimum=1) for k in range(10)]
    mean = np.mean([[len(part) for part in parts] for parts in splits], axis=0)
    assert np.allclose(mean, 17 * proportions, rtol=0, atol=1e-12)


def test_among_equally_large_clients_chance_names_the_donor():
    splits = [dirichlet(np.zeros(12, int), 3, 1.0, Planned([0.5, 0.5, 0.0], seed=seed), minimum=1) for seed in range(20)]
    assert {tuple(len(part) for part in parts) for parts in splits} == {(5, 6, 1), (6, 5, 1)}


def test_the_minimum_is_filled_from_the_largest_and_changes_nothing_else():
    # Every client of the plain split holds at least one example, so nothing is moved in it.
    proportions = 0.85 ** np.arange(30) / (0.85 ** np.arange(30)).sum()
    plain, filled = (dirichlet(np.zeros(1000, int), 30, 1.0, Planned(proportions), minimum) for minimum in (1, 12))
    before, after = (np.array([len(part) for part in parts]) for parts in (plain, filled))
    poor, donors = before < 12, after < before
    assert poor.any()
    assert (after[poor] == 12).all()
    for client in range(30):
        kept = np.intersect1d(plain[client], filled[client])
        assert len(kept) == min(before[client], after[client])
    # Taking from the largest levels the donors: they end within one of each other, above everybody else.
    assert donors.any()
    assert np.ptp(after[donors]) <= 1
    assert after[~donors].max() <= after[donors].max()


def test_a_donor_gives_of_all_its_classes():
    labels = np.repeat([0, 1], 50)
    _, filled = dirichlet(labels, 2, 1.0, Planned([1.0, 0.0]), minimum=20)
    assert len(filled) == 20
    assert set(labels[filled]) == {0, 1}


def test_sixty_thousand_examples_over_a_thousand_clients_take_a_moment():
    labels = generator().integers(0, 10, 60_000)
    start = time.perf_counter()
    for alpha, minimum in ((1.0, 4), (1e-3, 60)):
        assert_partition(dirichlet(labels, 1000, alpha, generator(), minimum), 60_000, 1000, minimum)
    # A tenth of a second each on one core; the bound only catches a change of order.
    assert time.perf_counter() - start < 10


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"clients": 0}, "clients is 0; allowed: an integer >= 1"),
        ({"clients": 2.5}, "clients is 2.5"),
        ({"clients": 6}, "clients is 6 with minimum 4; allowed: clients \\* minimum <= .* 20"),
        ({"minimum": 0}, "minimum is 0"),
        ({"alpha": 0.0}, "alpha is 0.0; allowed: 0 < alpha <= 1e\\+09"),
        ({"alpha": -1.0}, "alpha is -1.0"),
        ({"alpha": float("nan")}, "alpha is nan"),
        ({"alpha": float("inf")}, "alpha is inf"),
        ({"labels": np.zeros((20, 1), dtype=int)}, "of shape \\(20, 1\\)"),
        ({"labels": np.zeros(20)}, "labels is float64 .*; allowed: integers"),
    ],
)
def test_bad_options_of_dirichlet_are_named(options, says):
    good = {"labels": np.arange(20) % 3, "clients": 5, "alpha": 1.0, "minimum": 4}
    with pytest.raises(ValueError, match=says):
        dirichlet(**(good | options), rng=generator())


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: iid(10, 0, generator()), "clients is 0"),
        (lambda: iid(10, 11, generator()), "clients is 11; allowed: 1 to the number of examples, 10"),
        (lambda: sample_batch(np.arange(3), 0, generator()), "size is 0"),
        (lambda: sample_batch(np.arange(0), 1, generator()), "indices is empty"),
    ],
)
def test_bad_options_of_the_others_are_named(call, says):
    with pytest.raises(ValueError, match=says):
        call()


def test_the_images_of_a_batch_are_distinct_where_the_client_has_enough():
    problem = ImageProblem("digits", clients=4, split="iid", batch_size=32)
    for r in range(20):
        images, _ = problem.batch(np.array(r % 4), r, 0)
        assert len(np.unique(images.flatten(1).numpy(), axis=0)) == 32
