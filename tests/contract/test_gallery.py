"""The gallery page is the catalogue's, every figure on it has a picture, and pictures of what is gone are gone."""

import pytest

from figures import about as words
from figures import page
from hiso_bench import catalogue, drawings


def test_the_page_is_up_to_date():
    assert page.PAGE.read_text() == page.page(), "figures/README.md is out of date: `make gallery` writes it"


def test_every_figure_is_described_and_has_a_picture_and_nothing_else_has():
    assert set(words.ABOUT) == set(drawings.FIGURES)
    assert {path.stem for path in page.GALLERY.iterdir()} == set(drawings.FIGURES)
    for path in page.GALLERY.iterdir():
        assert path.read_bytes().startswith(b"\x89PNG"), path.name


def test_every_figure_stands_on_the_page_once_with_its_command_and_origin():
    text = page.page()
    for name, entry in drawings.FIGURES.items():
        (row,) = [line for line in text.splitlines() if f'"gallery/{name}.png"' in line]
        assert f"hiso-bench figures {name}`" in row and words.ABOUT[name].shows in row
        kept = [n for n in (entry.experiment, *entry.also) if catalogue.experiment(n).profile != "quick"]
        assert ("*fresh*" in row) == (entry.experiment not in kept) and ("*recorded*" in row) == bool(kept)
        assert not kept or f"hiso-bench results {' '.join(kept)} --profile {catalogue.experiment(kept[0]).profile}`" in row


def test_a_figure_of_recorded_tables_names_every_experiment_that_they_are_of():
    for name, entry in drawings.FIGURES.items():
        if catalogue.experiment(entry.experiment).profile != "quick":
            assert len({catalogue.experiment(n).profile for n in (entry.experiment, *entry.also)}) == 1
            prefixes = {n for n in catalogue.EXPERIMENTS for table in entry.tables if table == n or table.startswith(f"{n}_")}
            assert {n for n in prefixes if n in entry.tables} <= {entry.experiment, *entry.also}, name


def test_every_figure_and_table_of_the_papers_is_regenerated():
    regenerated = {about.of for about in words.ABOUT.values()}
    hiso = {f"HiSo, Figure {n}" for n in (1, 2, 3, 4)} | {f"HiSo, Table {n}" for n in (1, 2, 3)}
    assert hiso | {"HiSo, Figure 5 (left)", "HiSo, Figure 5 (right)", "DeComFL, Table 2", "DeComFL, LoRA table"} <= regenerated
    assert {"DeComFL, MNIST and Fashion-MNIST figures", "DeComFL, model-scale figure"} <= regenerated


def test_a_figure_without_words_or_picture_is_named(monkeypatch, tmp_path):
    monkeypatch.setitem(drawings.FIGURES, "new", drawings.FIGURES["fig1"])
    with pytest.raises(ValueError, match="'new' has no entry in figures/about.py"):
        page.page()
    monkeypatch.setitem(words.ABOUT, "new", words.About(words.OURS, "Something."))
    with pytest.raises(ValueError, match="'new' has no picture figures/gallery/new.png"):
        page.page()
