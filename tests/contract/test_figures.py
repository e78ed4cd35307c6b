"""Figures are drawn from results alone, say where the data came from, and are not drawn twice."""

import json

import numpy as np
import pytest
from matplotlib.collections import PathCollection

from hiso_bench import catalogue, cli, drawings, records
from hiso_bench.halving import at_edge as halving_edges


def test_the_whitening_figure_is_computed_drawn_and_then_up_to_date(tmp_path, capsys):
    out = tmp_path / "out"
    assert cli.main(["figures", "whitening", "--out", str(out)]) == 0
    for kind, magic in (("png", b"\x89PNG"), ("pdf", b"%PDF")):
        assert (out / f"whitening.{kind}").read_bytes().startswith(magic)
    capsys.readouterr()
    assert cli.main(["figures", "whitening", "--out", str(out)]) == 0
    assert "up to date" in capsys.readouterr().out


@pytest.mark.parametrize("name", [n for n, e in drawings.FIGURES.items() if e.experiment == "fig5_mnist"])
def test_recorded_figures_are_drawn_from_what_is_committed(name, tmp_path):
    assert cli.main(["figures", name, "--out", str(tmp_path)]) == 0
    assert (tmp_path / f"{name}.png").stat().st_size > 10_000


@pytest.mark.parametrize("name", ["ablation_networks", "ablation_quadratics", "fair_speed"])
def test_no_speed_up_is_left_outside_its_axis(name):
    entry = drawings.FIGURES[name]
    figure = catalogue.load(entry.target)(catalogue.RESULTS, "here", entry.experiment)
    drawn = 0
    for ax in figure.axes:
        low, high = ax.get_xlim()
        marks = [line.get_xdata() for line in ax.lines if line.get_transform() == ax.transData]
        marks += [np.asarray(of.get_offsets())[:, 0] for of in ax.collections if isinstance(of, PathCollection)]
        x = np.concatenate([*(np.ravel(mark).astype(float) for mark in marks), [1.0]])
        drawn += len(x)
        assert ((low <= x) & (x <= high))[np.isfinite(x)].all(), ax.get_title("left")
    assert drawn > 50


MEASURED = ("bench", "bench_llm", "bench_theory", "claims", "imdb_opt", "mutants", "tiny_opt")
"""What a command measured: no experiment, and no table."""


def test_a_recorded_result_carries_its_provenance():
    for sidecar in sorted(catalogue.RESULTS.glob("*.json")):
        about = json.loads(sidecar.read_text())
        if sidecar.stem in MEASURED:
            continue
        frame, same = records.read(sidecar.with_suffix(".csv"))
        assert len(frame) and same == about
        assert about["config_hash"] == records.config_hash(about["config"])


def test_every_winner_of_a_grid_is_interior_or_told_to_lie_at_an_edge():
    for path in sorted(catalogue.RESULTS.glob("*_grid.csv")):
        grid, about = records.read(path)
        halving = about["config"].get("rule") == "successive halving"
        if halving:
            assert halving_edges(grid) == about["config"]["at_edge"], path.name
        # Problems of one grid have budgets of their own.
        own = ["problem", "arm"] if "problem" in grid else ["arm"]
        for arm, every in grid.groupby(own):
            part = every if halving else every[every["rounds"] == every["rounds"].max()]
            won = part.loc[part["winner"], "lr"]
            assert len(won) == 1, (path.name, arm)
            if halving:  # every rate at ratio 2, and none refined
                continue
            tried = every["lr"]
            assert tried.min() < won.iloc[0] < tried.max(), (path.name, arm)
            rates = sorted(set(part["lr"]))
            near = [b / a for a, b in zip(rates, rates[1:], strict=False) if won.iloc[0] in (a, b)]
            assert max(near) < 1.5, (path.name, arm, near)
