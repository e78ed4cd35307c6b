"""The tables of printed, recomputed and measured numbers: what is planted in them is found, and their figures are drawn."""

import json

import numpy as np
import pandas as pd
import pytest

from claims import bytes as audit
from figures import decomfl_scale, decomfl_tables, hiso_table1, hiso_table2, hiso_table3, printed, style
from hiso_bench import catalogue, datafiles
from hiso_bench.equal_bytes import TOTAL
from llm.compare import TOY_SST2
from llm.recorded import recorded
from paper import measured
from paper import printed as tables
from tests import llm_recordings


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The tables, of one made-up comparison in which HiSo is twice as fast as DeComFL."""
    root = tmp_path_factory.mktemp("printed")
    (root / "claims.json").write_bytes((catalogue.RESULTS / "claims.json").read_bytes())
    llm_recordings.write(root, TOY_SST2.table, keys=(1, 2, 3), planned=(1, 2, 3, 4, 5))
    tables.PRINTED.compare(root, root / "fresh", root / "work", 1)
    return root / "fresh"


def table(folder, name):
    return printed.read(folder, name)[0]


def test_rounds_are_read_both_ways_and_a_target_that_is_missed_is_empty(folder):
    rounds = table(folder, "rounds")
    mean = rounds[(rounds["source"] == "ours") & rounds["key"].isna()].set_index(["arm", "other"])
    assert tuple(mean.loc[("hiso", "decomfl"), ["rounds", "other_rounds"]]) == (50, 100)
    assert np.isnan(mean.loc[("decomfl", "hiso"), "rounds"]) and mean.loc[("decomfl", "hiso"), "last"] == 100
    told = rounds[rounds["source"] == "reported"].set_index(["model", "task", "arm"])
    assert tuple(told.loc[("OPT-350M", "squad", "hiso"), ["rounds", "other_rounds"]]) == (250, 1350)


def test_scores_are_those_of_single_keys_in_per_cent(folder):
    scores = table(folder, "scores")
    ours = scores[(scores["source"] == "ours") & (scores["method"] == "hiso")]
    assert ours["value"].tolist() == pytest.approx([82, 83, 84]) and ours["error"].tolist() == pytest.approx([2, 2, 2])
    start = scores[(scores["source"] == "ours") & (scores["method"] == "zero-shot")]
    assert start["value"].tolist() == pytest.approx([51, 52, 53])


def test_scores_at_equal_bytes_are_those_of_the_largest_budget_and_of_the_start():
    rows = [(arm, TOTAL, budget, key, rounds, 0.5 + 0.1 * key + (0.01 * rounds if arm != "decomfl" else 0.02))
            for arm in ("fedavg", "fedavg-10", "fedzo", "decomfl", "fedlora")
            for budget, rounds in ((8, 0), (16, 2), (32, 4)) for key in (1, 2)]  # fmt: skip
    frame = pd.DataFrame(rows, columns=["arm", "count", "budget", "key", "rounds", "accuracy"])
    frame.loc[(frame["arm"] == "fedzo") & (frame["key"] == 2), "accuracy"] = np.nan  # diverged
    found = measured.at_equal_bytes(frame, {"model": "tiny-opt", "problem": {"task": "toy-sst2"}})
    values = {method: part["value"].tolist() for method, part in found.groupby("method")}
    wanted = {"fedavg": [64, 74], "fedzo": [64], "decomfl": [62, 72], "zero-shot": [60, 70]}
    assert values == {method: pytest.approx(own) for method, own in wanted.items()}
    assert list(found.columns) == list(measured.SCORES) and set(found["source"]) == {"equal bytes"}


def test_messages_are_all_bytes_over_clients_and_rounds(tmp_path):
    llm_recordings.write(tmp_path, TOY_SST2.table)
    sent = measured.sent(recorded(tmp_path, [TOY_SST2]))
    assert sent["messages"].tolist() == pytest.approx([(56 + 76) / 6] * 3)


def test_cells_are_the_audits(folder):
    cells = table(folder, "bytes")
    assert (
        sum(cells.loc[cells["file"] == "hiso_table3", "whole"]) == audit.multiples_of_25(("OPT-125M", "OPT-350M", "OPT-1.3B"))[0]
    )
    ten = cells[np.abs(cells["implied"] / cells["by_fedzo"] - 1) > 0.06]
    assert set(zip(ten["model"], ten["task"], strict=True)) == set(audit.TYPOS)
    vectors = table(folder, "vectors")
    found = audit.ninety_million().evidence[0]
    first = vectors[(vectors["file"] == "hiso_table3") & vectors["method"].isin(audit.FIRST_ORDER)]
    assert (first["low"].max(), first["high"].max()) == pytest.approx((found.measured.low, found.measured.high))
    (cell,) = first.loc[
        first[["model", "task", "method"]].eq(["OPT-1.3B", "squad", "fedavg"]).all(axis=1), ["low", "high"]
    ].to_numpy()
    # 0.41 TB and 7.81 KB, of powers of ten and of two, each as far as its digits leave open.
    assert cell == pytest.approx([0.405e12 / 7.815e3 / 1e6, 0.415 * 2**40 / (7.805 * 2**10) / 1e6])


def test_entries_of_table_1_that_are_equalities_are_equal_and_2d_bounds_no_rescaled_h(folder):
    variance = table(folder, "variance")
    equal = variance[variance["entry"].isin(["L kappa", "zeta"])]
    assert np.allclose(equal["value"], equal["exact"], rtol=1e-12)
    assert (variance.loc[variance["entry"] == "L d", "exact"] <= variance.loc[variance["entry"] == "L d", "value"] + 1e-9).all()
    small = variance[(variance["entry"] == "2 d") & (variance["H"] == "(Sigma + eps)/100")]
    assert (small["exact"] > small["value"]).all()


def test_a_claim_that_is_not_decided_is_named(tmp_path):
    (tmp_path / "claims.json").write_text(json.dumps([{"id": "C14", "verdict": "holds", "evidence": []}]))
    with pytest.raises(ValueError, match="claim 'table1' is not in"):
        tables.verdicts(tmp_path / "claims.json")


def test_a_changed_input_is_computed_anew(folder, tmp_path):
    before = printed.config(folder)
    (tmp_path / "claims.json").write_bytes((catalogue.RESULTS / "claims.json").read_bytes())
    tables.PRINTED.compare(tmp_path, tmp_path, tmp_path, 1)
    after = printed.config(tmp_path)
    assert before["recorded"] and not after["recorded"]
    assert {k: v for k, v in before.items() if k != "recorded"} == {k: v for k, v in after.items() if k != "recorded"}
    draw_all(tmp_path)  # nothing of ours: the figures are of printed numbers alone


def test_the_published_curves_are_those_of_the_data_file():
    path = datafiles.locate("decomfl_reported.csv")
    if path is None:
        pytest.skip("no decomfl_reported.csv among the data files")
    data = pd.read_csv(path)
    data = data[data["group"] == "llm_scale"]
    curves = tables.printed_curves()
    assert len(data) == len(curves)
    for run, part in data.groupby("run"):
        model = "OPT-" + str(run).rsplit("opt-", 1)[1].upper()
        own = curves[curves["model"] == model].sort_values("round")
        assert np.allclose(own["value"], part.sort_values("step")["value"], atol=1e-6)  # the file has six decimals
        assert (own["round"].to_numpy() == part["step"].sort_values().to_numpy() + 1).all()


def draw_all(folder):
    papers = [hiso_table1.draw, hiso_table2.draw, hiso_table3.draw]
    for draw in (*papers, decomfl_tables.draw_table2, decomfl_tables.draw_lora, decomfl_scale.draw):
        figure = draw(folder, "computed in a test")
        figure.canvas.draw()
        texts = [text.get_text() for text in figure.findobj(style.plt.Text)]
        assert any("computed in a test" in text for text in texts)
        style.plt.close(figure)


def test_the_figures_are_drawn_and_say_where_their_numbers_are_from(folder):
    draw_all(folder)


def test_a_number_looks_as_where_it_comes_from():
    assert style.marked("hiso", "reported")["markerfacecolor"] == "white"
    assert style.marked("hiso", "ours")["markerfacecolor"] == style.look("hiso").color
    assert style.marked("hiso", "recomputed")["marker"] == "|"
    with pytest.raises(ValueError, match="reported, recomputed, ours"):
        style.marked("hiso", "guessed")


def test_our_models_are_of_the_sizes_that_their_labels_say():
    about = json.loads((catalogue.RESULTS / "imdb_opt.json").read_text())
    assert printed.OURS["imdb-opt"] == f"imdb-opt ({about['pretraining']['parameters'] / 1e6:.0f} M)"
