"""The comparison of second differences on a small case, and its picture."""

import numpy as np
import pandas as pd

from figures.second_order import draw
from hiso_bench import records
from synthetic import second_order
from synthetic.second_order import Case, compute, stays_below

CASE = Case("10 spikes", d=20)


def test_the_tables_have_every_arm_and_the_picture_is_drawn(tmp_path, monkeypatch):
    monkeypatch.setattr(second_order, "CURVES", (CASE,))
    monkeypatch.setattr(second_order, "KEYS", 2)
    table, curves = compute((CASE, Case("4 blocks", d=20)), ())
    exact = {"decomfl", "decomfl-2P", "decomfl-5-clients", "oracle", "floor"}
    assert set(table["arm"]) == exact | set(second_order.DEFAULTS)
    simulated = table[table["key"] >= 0]
    assert np.isfinite(simulated["rounds"]).all()
    price = {
        "safe-step": (5, 6),
        "curvature-1": (5, 6),
        "curvature-2": (5, 6),
        "curvature-5": (10, 11),
        "curvature-block": (5, 7),
    }
    for arm, part in simulated.groupby("arm"):
        np.testing.assert_allclose(part["scalars"], price[arm][0] * part["rounds"])
        np.testing.assert_allclose(part["forwards"], price[arm][1] * part["rounds"])
    records.write(table, tmp_path / "second_order.csv", {}, 1)
    records.write(curves, tmp_path / "second_order_curves.csv", {}, 1)
    draw(tmp_path, "test")


def test_below_is_for_good():
    values = np.array([[1.0, 1.0], [0.05, 1.0], [0.2, 0.05], [0.05, np.nan]])
    assert stays_below(values, 0.1).tolist() == [3.0, np.inf]
    assert pd.isna(values[-1, 1])
