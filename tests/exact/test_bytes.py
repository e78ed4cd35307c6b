"""The audit of printed bytes finds what is planted in its tables, and its ledgers cost what their messages have."""

import numpy as np
import pandas as pd
import pytest

from claims import bytes as tables
from claims import bytes_ledgers as ledgers
from hiso_bench import quoted


@pytest.fixture
def planted(tmp_path, monkeypatch):
    """Change printed cells: (file, row condition, factor)."""

    def plant(file, factor, **row):
        for path in quoted.REPORTED.glob("*.csv"):
            if not (tmp_path / path.name).exists():
                (tmp_path / path.name).write_bytes(path.read_bytes())
        table = pd.read_csv(tmp_path / f"{file}.csv")
        hit = np.logical_and.reduce([table[name] == value for name, value in row.items()])
        assert hit.sum() == 1
        table.loc[hit, "value"] *= factor
        table.to_csv(tmp_path / f"{file}.csv", index=False)
        monkeypatch.setattr(quoted, "REPORTED", tmp_path)

    return plant


def outcome(finding, word):
    return next(e.outcome for e in finding.evidence if word in e.what)


def test_a_wrong_row_of_decomfl_is_found(planted):
    assert outcome(tables.decomfl_table(), "the other 16 rows") == "holds"
    planted("decomfl_table2", 10, model="OPT-125M", task="cb", method="decomfl-p5", quantity="communication")
    assert outcome(tables.decomfl_table(), "the other 16 rows") != "holds"


def test_the_largest_cell_of_table_3_is_named_as_it_is_printed(planted):
    assert tables.cell_in_words("OPT-1.3B", "qqp", "hiso") == "96.67 KB, 2,474.8 rounds of 40 bytes"
    assert "96.67 KB" in tables.qqp().evidence[0].what and "96.67 KB" in ledgers.accounting().evidence[2].what
    assert tables.printed("hiso_table3", "communication", "decomfl", "hiso").idxmax() == ("OPT-1.3B", "qqp", "hiso")
    planted("hiso_table3", 2, model="OPT-1.3B", task="qqp", method="hiso", quantity="communication")
    assert "193.34 KB, 4,949.5 rounds" in tables.qqp().evidence[0].what


def test_a_wrong_unit_is_found(planted):
    assert outcome(tables.units(), "OPT-125M") == "holds"
    planted("decomfl_table2", 1024, model="OPT-125M", task="wsc", method="fedzo-p5", quantity="communication")
    assert outcome(tables.units(), "OPT-125M") != "holds"


def test_the_largest_ratio_is_over_all_cells(planted):
    planted("hiso_table3", 10, model="OPT-350M", task="qqp", method="fedyogi", quantity="communication")
    assert tables.ninety_million().evidence[0].outcome == "holds"


@pytest.mark.parametrize("runs", [1, 2, 3])
def test_counts_of_872_are_recognised_and_others_are_not(runs):
    counts = np.arange(600 * runs, 840 * runs)
    values = np.round(counts / (872 * runs) * 100, 2)
    assert tables.consistent(runs, values) == (len(values), len(values))
    hits, of = tables.consistent(runs, np.round(values + 0.5 * 100 / (872 * runs), 2))
    assert hits < of / 10


def test_traffic_is_that_of_the_formula_when_everybody_takes_part():
    m, P = 4, 5
    found = ledgers.traffic("decomfl", m, m, P)
    # Round r brings the update of round r - 1; the last one is not sent.
    share = (ledgers.ROUNDS - 1) / ledgers.ROUNDS
    assert found.numbers == pytest.approx(4 * P * (1 + share))
    assert found.seeds == pytest.approx(4 * P * share)
    assert found.messages == pytest.approx(8 + 4 * P + 8 + (2 + 4 * P) * share)


def test_models_of_fedzo_go_up_and_down_for_the_sampled():
    assert ledgers.models_per_round(4, 4) == pytest.approx(2, rel=0.01)
    assert ledgers.models_per_round(4, 1) == pytest.approx(0.5, rel=0.01)


def test_the_printed_tables_are_complete_and_say_where_they_come_from():
    for name, rows in (("decomfl_table2", 84), ("decomfl_lora", 42), ("decomfl_scale", 320)):
        table = quoted.table(name)
        assert len(table) == rows and table["where"].notna().all() and table["value"].gt(0).all()


def test_every_printed_number_says_where_it_stands():
    for path in quoted.REPORTED.glob("*.csv"):
        table = quoted.table(path.stem)
        assert table["where"].notna().all() and table["paper"].notna().all(), path.name
        if path.stem.endswith("_text"):
            assert list(table) == ["quantity", "value", "error", "unit", "paper", "where", "what"]
            assert table.drop(columns="error").notna().all(axis=None) and table["quantity"].is_unique


def test_claims_follow_the_numbers_of_the_text(tmp_path, monkeypatch):
    assert quoted.number("hiso_text", "least_saving")[:2] == (29, 0.5)
    for path in quoted.REPORTED.glob("*.csv"):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    text = pd.read_csv(tmp_path / "hiso_text.csv")
    text.loc[text["quantity"] == "largest_saving", "value"] = 82
    text.to_csv(tmp_path / "hiso_text.csv", index=False)
    monkeypatch.setattr(quoted, "REPORTED", tmp_path)
    assert tables.savings().evidence[-1].outcome == "holds" and tables.savings().evidence[-1].allowed == (28.5, 82.5)
    with pytest.raises(ValueError, match="0 rows 'largest', not one; it has perturbations"):
        quoted.number("hiso_text", "largest")
    pd.concat([text, text.tail(1)]).to_csv(tmp_path / "hiso_text.csv", index=False)
    with pytest.raises(ValueError, match="2 rows 'largest_saving', not one"):
        quoted.number("hiso_text", "largest_saving")
