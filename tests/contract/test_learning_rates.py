"""The basin of learning rates: its width is right on curves that are known, and a run stops when it has been seen."""

import numpy as np
import pytest
import torch

from hiso_bench.theory.closed_form import Descent
from learned_h import rates


def test_the_width_of_a_known_basin():
    # log2 rounds rise by one for each octave away from the best: within a factor of two is an octave to either side.
    x = np.arange(-6, 7) / 2
    rounds = 100 * 2.0 ** np.abs(x)[:, None].repeat(3, 1)
    np.testing.assert_allclose(rates.widths(rates.slowdown(rounds)), 2.0)
    # Steeper to the right, where nothing beyond half an octave arrives: the width counts CAP rounds there.
    rounds[8:] = np.nan
    slope = (1 - 0.5) / (np.log2(3) - 0.5)
    np.testing.assert_allclose(rates.widths(rates.slowdown(rounds)), 1 + 0.5 + 0.5 * slope)


def test_a_basin_that_leaves_the_grid_is_an_error():
    with pytest.raises(ValueError, match="reaches an end"):
        rates.widths(np.zeros((5, 2)))


def test_the_reference_of_a_key_comes_from_the_other_keys():
    rounds = np.array([[50.0, 100, 100], [100, 90, 90], [400, 400, 400]])
    # The first key's lucky 50 does not lower its reference: the others are best at the second rate, with 90.
    np.testing.assert_allclose(rates.slowdown(rounds)[:, 0], np.log2([50 / 90, 100 / 90, 400 / 90]))


def test_the_best_rate_of_a_symmetric_basin_is_its_middle():
    x = np.arange(-4, 5) / 2
    rounds = 2.0 ** np.abs(x)[:, None]
    np.testing.assert_allclose(rates.best_rate(2.0 ** (x + 3), rounds), 3.0)
    rounds[[0, -1]] = np.nan
    np.testing.assert_allclose(rates.best_rate(2.0 ** (x + 3), rounds), 3.0)


def test_runs_stop_at_the_cap_after_a_rate_has_all_its_keys():
    until = rates._Until(3.0)
    some = torch.tensor([[True, False], [False, True]])
    assert not until(5, some)
    assert not until(10, some | torch.tensor([True, False]))
    assert not until(29, some) and until(30, some)


def test_the_exact_rounds_are_those_of_the_closed_form():
    s = np.arange(1, 31) ** -1.0
    eta, rounds, limit = rates.exact_best(s, 0.2)
    of = Descent(s, 1.0, np.ones(30), 5)
    best, fewest = of.best_rounds(0.2)
    np.testing.assert_allclose([eta, rounds, limit], [best, fewest, of.limit], rtol=0.02)
    assert np.isnan(rates.exact_rounds(s, np.array([limit / 1e6]), 0.2, most=20)[0])
    # Fractions of a round and all: the logarithm of a sum of decays is nearly straight between rounds.
    tried = limit * np.array([0.2, 0.3, 0.5, 0.7, 0.8])
    np.testing.assert_allclose(rates.exact_rounds(s, tried, 0.2), of.rounds(tried, 0.2), atol=0.01)


def test_a_basin_of_decomfl_holds_the_theorys_best_rate():
    s = np.arange(1, 31) ** -1.0
    found = rates.basin(rates.spectrum_case(s, (0.2,)), rates.ARMS[0], keys=4)
    best = 2.0 ** rates.best_rate(found.rates, found.rounds[0]).mean()
    assert 0.5 < best / rates.exact_best(s, 0.2)[0] < 2
    assert np.all((rates.widths(rates.slowdown(found.rounds[0])) > 1) & (found.rates[-1] / found.rates[0] > 999))
