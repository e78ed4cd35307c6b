"""The comparison of AGZO on digits, made small: its tables, its controls, and its picture."""

import dataclasses

import numpy as np
import pandas as pd
import pytest
import torch

from figures import agzo as picture
from hiso_bench import records
from hiso_bench.sweeps import Cell
from hiso_bench.theory import moments
from vision import agzo
from vision.mlp import DigitsPerceptron

SMALL = dict(clients=2, hidden=5, examples=60, public=70, batch_size=0)


@pytest.fixture
def small(monkeypatch):
    arms = tuple(
        dataclasses.replace(arm, options=arm.options | ({"basis_examples": 20} if "rank" in arm.options else {}))
        for arm in agzo.ARMS
    )
    for name, value in {
        "PROBLEM": SMALL, "SAMPLED": 2, "BUDGETS": (4, 8), "EVERY": 4, "KEYS": (0, 1), "LOOKED": (0, 8), "CURVED": (8,),
        "EXAMPLES": (20, 70), "RANKS": (1, 4, 16), "ARMS": arms,
    }.items():  # fmt: skip
        monkeypatch.setattr(agzo, name, value)


def test_the_tables_have_every_arm_and_the_picture_is_drawn(small, tmp_path):
    table, spans = agzo.compute({agzo.told(arm, budget): 0.05 for arm in agzo.ARMS for budget in agzo.BUDGETS})
    assert len(table) == 2 * 4 * (2 + 3) and np.isfinite(table["loss"]).all()
    starts = table[table["round"] == 0].groupby("key")["loss"].nunique()
    assert (starts == 1).all()  # paired: the arms of a key start at one point
    assert table[(table["round"] == 8)].groupby("key")["loss"].nunique().eq(4).all()
    assert set(spans["basis"]) == set(agzo.BASES) and spans["gradient"].between(0, 1 + 1e-9).all()
    assert spans["curvature"].notna().eq(spans["round"] == 8).all()
    for name, frame in (("agzo_share", spans), ("agzo", table)):
        config = {"curved": [8], "arms": {"agzo": {"options": {"rank": 16, "basis_examples": 20}}}}
        records.write(frame, tmp_path / f"{name}.csv", config, 1)
    figure = picture.draw(tmp_path, "test")
    assert "last loss over DeComFL's: AGZO" in figure.get_suptitle()


def test_scores_of_a_grid_are_those_of_single_runs_and_a_lost_run_scores_nothing(small):
    good, bad = (Cell(agzo.ARMS[0], lr, 900, 3) for lr in (0.01, 1e300))
    assert agzo.score([good, bad])[1] == -np.inf
    problem, federation = agzo.begin(agzo.ARMS[0], torch.tensor([0.01], dtype=torch.float64), 900)
    for _ in range(3):
        federation.round()
    assert agzo.score([good])[0] == -float(problem.objective(federation.state.x)[0])


def test_shares_grow_with_the_rank_and_the_whole_span_of_the_own_images_holds_all_of_the_gradient(small):
    problem = DigitsPerceptron(**SMALL | {"examples": 20})
    table = pd.DataFrame(
        agzo.shares(problem, problem.initial(), 0, False), columns=["basis", "examples", "rank", "gradient", "curvature", "gain"]
    )
    for _, part in table.groupby(["basis", "examples"]):
        assert part["gradient"].is_monotonic_increasing if part["basis"].iloc[0] != "random" else True
    own = table[(table["basis"] == "private") & (table["rank"] == 16)]["gradient"].iloc[0]
    control = table[(table["basis"] == "random") & (table["rank"] == 16)]["gradient"].iloc[0]
    assert own > 0.95 > 0.6 > control


def test_the_gain_is_that_of_the_exact_moments(small):
    """From theory's E dx dx' with C = Pi, at the step that makes g'dx - eta dx'H dx / 2 largest."""
    problem = DigitsPerceptron(**SMALL | {"examples": 20})
    x = tuple(leaf.double() for leaf in problem.initial())
    rows = [(b, e, r, gain) for b, e, r, _, _, gain in agzo.shares(problem, x, 3, True) if (b, e, r) == ("public", 20, 4)]
    H = agzo.Curvature(lambda at: problem.loss.differentiable(at, problem.everything), x).hessian.numpy()
    g = torch.cat([leaf.flatten() for leaf in agzo.value_and_gradient(problem.loss, x, problem.everything)[1]]).numpy()
    inputs, Pi, at = problem.layer_inputs(x, 20, 3), np.eye(len(g)), 0
    for leaf, of in zip(x, inputs, strict=True):
        if of is not None:
            A = agzo.leading(of, 4).numpy()
            own = slice(at, at + leaf.numel())
            Pi[own, own] = np.kron(np.eye(leaf.shape[0]), A @ A.T)
        at += leaf.numel()

    def fall(C):
        square = moments.gradient_part(np.outer(g, g), C, agzo.P, "gaussian")
        return (g @ C @ g) ** 2 / (2 * np.sum(H * square))

    assert rows[0][3] == pytest.approx(fall(Pi) / fall(np.eye(len(g))), rel=1e-9)


@pytest.mark.parametrize(
    ("ends", "answer"),
    [
        ({4: (0.5, 0.8), 8: (0.5, 0.8)}, "The public basis helps here."),
        ({4: (0.5, 0.8), 8: (1.0, 1.0)}, "The public basis helps here, but not at every budget."),
        ({4: (0.5, 0.5), 8: (1.0, 1.0)}, "A gain over DeComFL, but none over a random basis"),
        ({4: (1.0, 1.0), 8: (2.0, 0.5)}, "The public basis does not help here"),
    ],
)
def test_the_figure_says_what_the_tables_say(ends, answer):
    """Last losses of AGZO and of its random control over DeComFL's, for each budget."""
    rows, noise = [], (0.99, 1.0, 1.01, 1.0)
    for budget, (public, random) in ends.items():
        for arm, ratio in (("decomfl", 1.0), ("agzo", public), ("agzo-random", random)):
            rows += [(budget, arm, key, budget, ratio * noise[key] ** (1 if arm == "agzo" else -1)) for key in range(4)]
    runs = pd.DataFrame(rows, columns=["budget", "arm", "key", "round", "loss"])
    spans = pd.DataFrame(
        [(basis, 16, 1.0 + key / 100) for basis in agzo.BASES for key in range(4)], columns=["basis", "rank", "gain"]
    )
    text = picture._verdict(runs, spans, 16)
    assert text.startswith(answer)
    assert f"last loss over DeComFL's: AGZO {ends[4][0]:.2f} [" in text and f"random basis {ends[8][1]:.2f} [" in text
