"""The table of runs that end above their start, on small families, and what counts as such a run."""

import pytest
import torch

from hiso_bench import methods
from vision import second_order_safety as safety


@pytest.fixture(autouse=True)
def _short(monkeypatch):
    for name, value in {"ROUNDS": 25, "KEYS": 3, "TUNING": 2, "RATES": (0.01, 1e3), "REGIMES": ((1, 0.3),)}.items():
        monkeypatch.setattr(safety, name, value)


def test_a_row_per_arm_and_what_is_not_finite_counts_as_above():
    table = safety.compute(("quadratic, other Hessians", "rare tokens"))
    assert list(table["arm"]) == ["decomfl", "safe-step", "curvature-1"] * 2
    assert (table["not_finite"] <= table["above_tenfold"]).all()
    assert (table["above_tenfold"] <= table["above_start"]).all()
    assert (table.loc[table["arm"] == "decomfl", "lr"] == 0.01).all()


@pytest.mark.parametrize(
    ("family", "above"),
    [("quadratic, noise V ~ I", 10), ("non-convex", 1.5), ("least squares, 16 examples", 10), ("rare tokens", 10)],
)
def test_a_step_that_is_too_long_is_seen(family, above):
    last, lost = safety.ends(family, methods.build("decomfl", lr=1e6, perturbations=5), 1, 0.0, 3, 1)
    assert (lost | (last > above)).all()


def test_runs_that_stand_still_end_where_they_began():
    for family in safety.FAMILIES:
        last, lost = safety.ends(family, methods.build("safe-step", burn_in=1000), 1, 0.0, 2, 1)
        assert torch.equal(last, torch.ones_like(last)), family
        assert not lost.any()
