"""What is read off the recorded comparisons: pages and figures of whole, partial and missing tables."""

from dataclasses import replace

import pandas as pd
import pytest

from figures import llm as figure
from hiso_bench import catalogue, cli, records
from llm import recorded, tables
from llm.compare import TOY_SQUAD, TOY_SST2
from tests import llm_recordings


@pytest.fixture
def folder(tmp_path):
    """toy-sst2 with all its keys; two of five of toy-squad, where one run diverged; nothing of toy-qqp."""
    llm_recordings.write(tmp_path, TOY_SST2.table)
    keys = {"keys": (1, 2), "planned": (1, 2, 3, 4, 5)}
    llm_recordings.write(tmp_path, TOY_SQUAD.table, "toy-squad", metric="f1", diverged=[("hiso", 2)], **keys)
    return tmp_path


def lines(page, title):
    """The rows of a section's table, as lists of cells."""
    section = page.split(f"## {title}")[1].split("\n## ")[0]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in section.splitlines() if line.startswith("| ")]


def row(page, title, *cells):
    """The one row that begins with these cells."""
    (found,) = [line for line in lines(page, title) if line[: len(cells)] == list(cells)]
    return found


def test_rounds_to_target_stand_both_ways_beside_the_papers(folder):
    page = tables.page(folder, tables.comparisons())
    there = row(page, "Rounds to DeComFL's best", "tiny-opt", "toy-sst2", "HiSo")
    assert there[3:7] == ["50", "1.95", "2x", "50 (50 to 50)"]
    assert there[7:] == ["275 (10.78 KB, 2x)", "1075 (41.85 KB, 1.4x)", "775 (26.21 KB, 1.6x)"]
    assert row(page, "Rounds to DeComFL's best", "tiny-opt", "toy-sst2", "DeComFL")[3:6] == ["100", "3.91", "1x"]
    back = row(page, "The other way", "tiny-opt", "toy-sst2", "DeComFL")
    assert back[3:7] == ["not within 100", "> 3.91", "< 0.5x", "> 100 (> 100 to > 100)"]


def test_scores_stand_between_zero_shot_and_the_first_order_ceiling_beside_the_papers(folder):
    page = tables.page(folder, tables.comparisons())
    title = "Scores after the last round"
    assert row(page, title, "tiny-opt", "toy-sst2", "before fine-tuning")[3:] == ["52.00 ± 2.48", "", "0", "-", "-", "-"]
    hiso = row(page, title, "tiny-opt", "toy-sst2", "HiSo")
    assert hiso[3:6] == ["83.00 ± 2.48", "± 2.00", "1.95"] and hiso[6] == "85.55 ± 0.21 (14.69 KB)"
    assert row(page, title, "tiny-opt", "toy-sst2", "AdamW, pooled data")[3] == "97.00 ± 2.48"


def test_differences_are_paired_so_keys_that_differ_alike_leave_no_width(folder):
    page = tables.page(folder, tables.comparisons())
    cells = row(page, "Differences", "tiny-opt", "toy-sst2", "HiSo - DeComFL")
    assert cells[3:5] == ["+1.00 [+1.00, +1.00], 3 keys", "yes"]
    assert cells[5:7] == ["-0.0100 [-0.0100, -0.0100], 3 keys", "yes"]
    assert cells[7:] == ["+16.00 [+16.00, +16.00], 3 keys", "yes"]


def test_missing_keys_diverged_runs_and_missing_tables_are_told(folder):
    page = tables.page(folder, tables.comparisons())
    partial = "toy-squad **partial: 2 of 5 keys**"
    assert row(page, "Scores after", "tiny-opt", partial, "HiSo")[3] == "82.00 (one key, 1 of 2 diverged)"
    assert row(page, "Rounds to DeComFL's best", "tiny-opt", partial, "HiSo (1 of 2 diverged)")[3] == "not within 100"
    assert row(page, "Differences", "tiny-opt", partial, "HiSo - DeComFL")[3] == "+1.00 (one key)"
    (missing,) = [line for line in page.splitlines() if line.startswith("Not run: ")]
    assert "llm_toy_qqp" in missing and "opt-1.3b-sst2" in missing and "llm_toy_sst2" not in missing
    assert "**partial" not in "".join(cell for line in lines(page, "What was run") for cell in line if "toy-sst2" in cell)


def test_a_rate_at_the_edge_of_its_grid_is_told(folder):
    grid = pd.DataFrame({"arm": ["hiso"], "lr": [3e-4], "rounds": [200], "score": [-0.5], "winner": [True]})
    records.write(grid, folder / f"{TOY_SST2.table}_grid.csv", {"at_edge": ["hiso"]}, 1)
    (of,) = recorded.recorded(folder, [TOY_SST2])
    assert of.at_edge == ("hiso",)
    assert "HiSo 0.0003 (at the edge of its grid)" in tables.page(folder, [TOY_SST2])


def test_a_page_of_nothing_names_everything(tmp_path):
    page = tables.page(tmp_path, [TOY_SST2, replace(TOY_SST2, name="other")])
    assert "Not run: llm_toy_sst2, other." in page


def test_the_figure_is_drawn_of_what_is_there_and_says_what_is_partial_and_what_is_missing(folder, monkeypatch, tmp_path):
    monkeypatch.setattr(catalogue, "RESULTS", folder)
    assert cli.main(["figures", "llm_toy", "--out", str(tmp_path / "out")]) == 0
    assert (tmp_path / "out/llm_toy.png").stat().st_size > 10_000
    drawn = figure.draw_toy(folder, "here")
    texts = [text.get_text() for ax in drawn.axes for text in (ax.title, ax._left_title, *ax.texts)]  # type: ignore[attr-defined]
    assert any("toy-sst2" in text and "3 keys" in text and "PARTIAL" not in text for text in texts)
    assert any("toy-squad" in text and "PARTIAL: 2 of 5 keys" in text for text in texts)
    assert drawn.get_suptitle().endswith("not recorded: toy-qqp") and len(drawn.axes) == 4
    assert {"zero-shot 0.520", "first-order 0.970", "guessing 0.5"} <= set(texts)
    labels = [label for ax in drawn.axes for label in ax.get_legend_handles_labels()[1]]
    assert any("HiSo (EMA" in label and "(1 of 2 diverged)" in label for label in labels)


def test_without_any_table_the_figure_names_one(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(catalogue, "RESULTS", tmp_path)
    assert cli.main(["figures", "llm_toy", "--out", str(tmp_path / "out")]) == 2
    assert "no recorded result llm_tiny-opt_toy-sst2.csv" in capsys.readouterr().err


def test_the_papers_tables_are_whole_and_agree_with_each_other():
    table2, table3 = (pd.read_csv(tables.REPORTED / f"hiso_table{n}.csv") for n in (2, 3))
    assert len(table2) == 3 * 2 * 3 * 3 and len(table3) == 3 * 7 * 3 * 2
    assert not table2.duplicated(["model", "task", "method", "quantity"]).any()
    assert not table3.duplicated(["model", "task", "method", "quantity"]).any()
    rounds = table2[table2["quantity"] == "rounds"].pivot(index=["model", "task"], columns="method", values="value")
    speedups = table2[(table2["quantity"] == "speedup") & (table2["method"] == "hiso")].set_index(["model", "task"])["value"]
    assert ((rounds["decomfl"] / rounds["hiso"] - speedups).abs() < 0.06).all()
    sent = [t[(t["quantity"] == "communication") & (t["unit"] == "KB")] for t in (table2, table3)]
    both = pd.merge(*sent, on=["model", "task", "method"])
    same = both[both["method"] == "decomfl"]
    assert len(same) == 6 and (same["value_x"] == same["value_y"]).all()


def test_every_comparison_has_a_table_of_its_own_and_the_default_rate_of_its_problem():
    found = tables.comparisons()
    assert len({experiment.table for experiment in found}) == len(found) >= 5
    for experiment in (e for e in found if e.profile == "standard"):
        grid = catalogue.PROBLEMS[experiment.problem].grid.format_map(experiment.options)
        assert grid == f"{experiment.table}_grid", experiment.name
        assert experiment.tuning_key not in experiment.keys
