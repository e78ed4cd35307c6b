"""DeComFL's published image curves: read as they were written, compared by the stated rule, run piece by piece."""

import math
from dataclasses import asdict

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import stats
from torch.nn import functional as F

from figures import style
from figures.decomfl import draw
from hiso_bench import datafiles, keys, records
from hiso_bench.curvature import gauss_newton_diagonal
from hiso_bench.reproduction import verdicts
from vision import decomfl, published
from vision.decomfl import Reproduction, Series, against
from vision.models import MaxPool2x2
from vision.problems import ImageProblem

ZO, FO = Series("mnist", "decomfl", 1, 40, 8, 1e-3, 20, 0.9, "exact"), Series("mnist", "fedavg", 1, 20, 8, 0.1)


def raw(*curves):
    rows = [(group, run, metric, step, value) for group, run, metric, values in curves for step, value in values]
    return pd.DataFrame(rows, columns=["group", "run", "metric", "step", "value"])


def test_published_curves_are_thinned_by_setting_and_counted_once():
    fedavg = "fedavg,local_update=4,nc=100,rounds=1000,lr=0.1,seed="
    zo = "mnist-local_update-1-lr-0.001-mmtm-0.9-npert-20-rge-central-seed-42-CNN_MNIST-2024-5-6-0-27-33"
    doubling = "fashion-local_update-5-lr-0.0005-mmtm-0.8-npert-25-rge-central-seed-4242-CNN_FMNIST-2024-5-17-12-45-13"
    table = published.thinned(
        raw(
            ("mnist_fo_fedavg", f"{fedavg}42", "Accuracy_test", [(0, 0.2), (10, 0.5), (999, 0.9), (999, 0.9)]),
            ("mnist_fo_fedavg", f"{fedavg}99", "Accuracy_test", [(0, 0.4), (999, 0.8)]),
            ("mnist_fo_fedavg", f"{fedavg}99", "Loss_train", [(0, 7.0)]),
            ("mnist_zo_fedavg", zo, "Accuracy_test", [(19, 0.3)]),
            ("fashion_zo_fedavg", doubling, "Accuracy_test", [(499, 0.6), (599, 0.7)]),
            ("fashion_fo_fedavg", "fashion,fedavg,local_update=5,nc=100,lr=0.001,seed=7,topk=0.1", "Accuracy_test", [(0, 0.1)]),
            ("llm_scale", "FedDisco-sst2", "Accuracy_test", [(24, 0.5)]),
        )
    )
    found = table.set_index(["dataset", "method", "round"])
    assert sorted(found.index) == [
        ("fashion", "decomfl", 500),
        ("mnist", "decomfl", 20),
        ("mnist", "fedavg", 1),
        ("mnist", "fedavg", 1000),
    ]
    first, last = found.loc[("mnist", "fedavg", 1)], found.loc[("mnist", "fedavg", 1000)]
    assert (first["tau"], first["lr"], first["seeds"]) == (4, 0.1, 2)
    assert (first["mean"], first["min"], first["max"]) == pytest.approx((0.3, 0.2, 0.4))
    assert last["seeds"] == 2  # the last row of an export is there twice
    assert first["sd"] == pytest.approx(math.sqrt(0.02), abs=1e-5)
    one = found.loc[("mnist", "decomfl", 20)]
    assert (one["P"], one["momentum"], one["seeds"]) == (20, 0.9, 1)
    assert math.isnan(one["sd"])


def test_the_kept_curves_are_what_the_raw_file_gives(tmp_path):
    if not datafiles.available(published.SOURCE, published.SHA256):
        pytest.skip(f"{published.SOURCE} is not at hand")
    published.main(tmp_path / "again.csv")
    assert (tmp_path / "again.csv").read_bytes() == published.TARGET.read_bytes()


def accuracy(series, values):
    rows = [(series.name, key, r, value) for key, curve in values.items() for r, value in curve.items()]
    return pd.DataFrame(rows, columns=["arm", "key", "round", "value"])


def theirs(monkeypatch, values):
    rows = [
        ("mnist", "decomfl", 1, 20, 1e-3, r, len(v), np.mean(v), min(v), max(v), np.std(v, ddof=1) if v[1:] else math.nan)
        for r, v in values.items()
    ]
    rows.append(("mnist", "decomfl", 1, 40, 1e-3, 20, 3, 0.9, 0.9, 0.9, 0.0))  # another P
    columns = ["dataset", "method", "tau", "P", "lr", "round", "seeds", "mean", "min", "max", "sd"]
    monkeypatch.setattr(published, "published", lambda: pd.DataFrame(rows, columns=columns))


def test_the_rule_is_the_prediction_interval_of_a_mean(monkeypatch):
    seeds, ours = [0.31, 0.32, 0.35], [0.36, 0.40]
    theirs(monkeypatch, {20: seeds})
    row = against(accuracy(ZO, {1: {20: ours[0]}, 2: {20: ours[1]}}), [ZO]).iloc[0]
    reach = stats.t.ppf(0.975, 2) * np.std(seeds, ddof=1) * math.sqrt(1 / 3 + 1 / 2)
    assert (row["low"], row["high"]) == pytest.approx((np.mean(seeds) - reach, np.mean(seeds) + reach), abs=1e-5)
    assert (row["keys"], row["seeds"], row["ours"]) == (2, 3, 0.38)
    assert row["within"] and not row["between"]
    far = against(accuracy(ZO, {1: {20: row["high"] + 0.2}}), [ZO]).iloc[0]
    assert not far["within"]


def test_the_spread_holds_95_in_100_means_of_further_seeds(monkeypatch):
    """Three of their seeds and two of our keys from one normal law, 2,000 rounds of them: within in 95 % (+- 4 deviations)."""
    draw = keys.rng(5).normal(0.9, 0.01, (2000, 5))
    theirs(monkeypatch, {r: list(row[:3]) for r, row in enumerate(draw)})
    ours = {key: dict(enumerate(draw[:, 2 + key])) for key in (1, 2)}
    assert abs(against(accuracy(ZO, ours), [ZO])["within"].astype(float).mean() - 0.95) < 4 * math.sqrt(0.05 * 0.95 / 2000)


def test_beside_one_seed_the_deviation_is_that_of_our_keys(monkeypatch):
    """One of theirs, three of ours, of one normal law: within in 95 %. One of each: no interval, and nothing is reproduced."""
    draw = keys.rng(6).normal(0.9, 0.01, (2000, 4))
    theirs(monkeypatch, {r: [row[0]] for r, row in enumerate(draw)})
    ours = {key: dict(enumerate(draw[:, key])) for key in (1, 2, 3)}
    found = against(accuracy(ZO, ours), [ZO])
    reach = stats.t.ppf(0.975, 2) * np.std(draw[0, 1:], ddof=1) * math.sqrt(1 + 1 / 3)
    assert (found["high"] - found["low"])[0] == pytest.approx(2 * reach, abs=3e-5)
    assert abs(found["within"].astype(float).mean() - 0.95) < 4 * math.sqrt(0.05 * 0.95 / 2000)
    alone = against(accuracy(ZO, {1: ours[1]}), [ZO])
    assert alone[["low", "high", "within"]].isna().all(axis=None)
    assert not verdicts(alone, {ZO.name: 1999}, 0).iloc[0]["reproduced"]


ENDS = {
    "whole": ((40, 40), 0.32, True),
    "far": ((40, 40), 0.9, False),
    "one": ((40, 20), 0.32, False),
    "both": ((20, 20), 0.32, False),
}


@pytest.mark.parametrize(("ends", "level", "reproduced"), ENDS.values(), ids=ENDS)
def test_a_setting_is_reproduced_only_whole_and_within(monkeypatch, ends, level, reproduced):
    theirs(monkeypatch, {20: [0.31, 0.32, 0.34], 40: [0.31, 0.32, 0.34]})
    ours = {key: {r: level for r in (20, 40) if r <= end} for key, end in enumerate(ends)}
    found = verdicts(against(accuracy(ZO, ours), [ZO]), {ZO.name: 40}, 20).iloc[0]
    assert bool(found["reproduced"]) is reproduced


def test_rounds_before_the_first_do_not_count():
    """Two rounds far off before round 20, four from it on of which one is: within at 3 of 4, their rms from these alone."""
    rounds, ours = [5, 10, 20, 30, 40, 50], [9.0, 9.0, 0.5, 0.5, 0.5, 0.9]
    told = {
        "arm": "a",
        "round": rounds,
        "keys": 2,
        "ours": ours,
        "theirs": 0.5,
        "between": [True, True, True, False, False, False],
    }
    compared = pd.DataFrame(told | {"within": [value == 0.5 for value in ours]})
    row = verdicts(compared, {"a": 50}, 20).iloc[0]
    assert (row["rounds"], row["within"], row["between"], row["rms"]) == (4, 0.75, 0.25, pytest.approx(0.2))
    assert not row["reproduced"] and verdicts(compared[:5], {"a": 40}, 20).iloc[0]["reproduced"]


def small(monkeypatch):
    def problem(self, key):
        return ImageProblem("digits", 100, split="iid", batch_size=self.batch_size, set_aside=False, key=key)

    monkeypatch.setattr(Series, "problem", problem)
    monkeypatch.setattr(decomfl, "run", _interrupted)


def _interrupted(work, cells, folder, config, jobs, on_done):
    from hiso_bench import sweeps

    sweeps.run(work, cells[: _interrupted.cells], folder, config, jobs, on_done)


def test_its_tables_hold_what_is_done_and_a_second_call_goes_on(monkeypatch, tmp_path):
    small(monkeypatch)
    at = Reproduction("trial", "standard", ((ZO, 1), (FO, 1), (FO, 2)))
    _interrupted.cells = 2
    at.compare(tmp_path, tmp_path, tmp_path / "work", 1)
    frame, about = records.read(tmp_path / "trial.csv")
    assert about["config"]["done"] == about["config"]["planned"][:2]
    assert set(frame["arm"]) == {ZO.name, FO.name}
    assert not list((tmp_path / "work" / "ledgers").iterdir())
    compared, _ = records.read(tmp_path / "trial_against.csv")
    assert set(compared["round"]) == {10, 20, 40}
    monkeypatch.setattr(decomfl, "_work", lambda *_: pytest.fail("what is kept is run again"))
    at.compare(tmp_path, tmp_path, tmp_path / "work", 1)
    monkeypatch.undo()
    small(monkeypatch)
    _interrupted.cells = 3
    at.compare(tmp_path, tmp_path, tmp_path / "work", 1)
    whole, about = records.read(tmp_path / "trial.csv")
    assert about["config"]["done"] == about["config"]["planned"]
    assert set(whole.loc[whole["arm"] == FO.name, "key"]) == {1, 2}
    pd.testing.assert_frame_equal(frame, whole.iloc[: len(frame)])


def test_names_tell_all_series_apart_and_published_settings_are_met():
    reported = published.published()
    for at in (decomfl.MNIST, decomfl.MNIST_PAPER, decomfl.FASHION_PAPER):
        series = {s for s, _ in at.runs}
        assert len({s.name for s in series}) == len(series)
        assert len(set(at.runs)) == len(at.runs)
        for s in series:
            same = reported[(reported["dataset"] == s.dataset) & (reported["method"] == s.method) & (reported["tau"] == s.tau)]
            momentum = same["momentum"].fillna(s.momentum)  # theirs of FedAvg is not told
            assert ((same["lr"] == s.lr) & (same["P"].fillna(0) == s.P) & (momentum == s.momentum)).any(), s.name


def test_without_a_set_aside_part_clients_own_all_training_images():
    sizes = [sum(map(len, ImageProblem("digits", 10, split="iid", set_aside=flag)._owned)) for flag in (True, False)]
    assert sizes == [1438 - 287, 1438]
    with pytest.raises(ValueError, match="set_aside False is out of range"):
        ImageProblem("digits", 10, evaluate_on="validation", set_aside=False)


def test_pooling_gives_the_same_values_with_and_without_a_gradient_and_that_of_the_maxima():
    x = torch.randn(3, 2, 6, 6, generator=torch.Generator().manual_seed(1)).double()
    with_gradient = x.clone().requires_grad_()
    pooled = MaxPool2x2()(with_gradient)
    assert torch.equal(pooled, MaxPool2x2()(x))
    assert torch.equal(pooled, F.max_pool2d(x, 2))
    (found,) = torch.autograd.grad(pooled.square().sum(), with_gradient)
    top = F.max_pool2d(x, 2).repeat_interleave(2, -1).repeat_interleave(2, -2)
    assert torch.equal(found, torch.where(x == top, 2 * x, 0.0))


def recorded(folder, done):
    """Tables of the recorded experiment, of curves that a formula gives, of its first runs only; batch 32 ends early."""
    rows = []
    for series, key in decomfl.MNIST.runs[:done]:
        for r in range(0, series.rounds + 1, series.evaluate_every):
            if series.batch_size == 32 and series.method == "decomfl" and r > 60:
                break
            rows.append((series.name, series.lr, key, r, 0, 0, "accuracy", 0.95 - 0.8 / (1 + r / 20) + key / 500))
    frame = pd.DataFrame(rows, columns=["arm", "lr", "key", "round", "bytes_up", "bytes_down", "metric", "value"])
    series = [s for s, _ in decomfl.MNIST.runs]
    names = [f"{s.name} key {key}" for s, key in decomfl.MNIST.runs]
    config = {
        "clients": 100,
        "sampled": 10,
        "series": {s.name: asdict(s) for s in series},
        "planned": names,
        "done": names[:done],
    }
    records.write(frame, folder / "decomfl_mnist.csv", config, 1)
    records.write(against(frame, series), folder / "decomfl_mnist_against.csv", config, 1)


@pytest.mark.parametrize("done", [1, 12, len(decomfl.MNIST.runs)])
def test_the_figure_is_drawn_from_some_runs_or_all_and_says_which(done, tmp_path):
    recorded(tmp_path, done)
    figure = draw(tmp_path, "recorded", "decomfl_mnist")
    title = figure.get_suptitle()
    assert ("PARTIAL" in title) == (done < len(decomfl.MNIST.runs))
    assert f"{done} of" in title or done == len(decomfl.MNIST.runs)
    told = [text.get_text() for ax in figure.axes for text in ax.get_legend_handles_labels()[1] and ax.get_legend().get_texts()]
    assert any(text.startswith("ours, batch 32") and "diverged" in text for text in told)
    assert any("published" in text for text in told)
    style.save(figure, "trial", tmp_path)


def test_columns_of_a_cnns_jacobian_are_had_in_mode_vmap():
    problem = ImageProblem("digits", 10, batch_size=3, mode="vmap")
    x, (images, _) = problem.initial(), problem.batch(np.array(0), 0, 0)
    found = gauss_newton_diagonal(lambda at: problem.loss.outputs(at, images), x, torch.full((3,), 1 / 3))
    leaves = tuple(leaf.clone().requires_grad_() for leaf in x)
    logits = problem.loss.outputs(leaves, images)
    rows = [torch.cat([g.flatten() for g in torch.autograd.grad(a, leaves, retain_graph=True)]) for a in logits.flatten()]
    J, p = torch.stack(rows).reshape(3, 10, -1), torch.softmax(logits.detach(), -1)[..., None]
    expected = ((p * J.square()).sum(1) - (p * J).sum(1).square()).mean(0)
    assert (found - expected).abs().max() < 1e-5 * expected.max()


@pytest.mark.parametrize("batch", [40, 51, 200])
def test_short_batches_come_as_often_as_in_an_epoch(batch):
    problem = ImageProblem("digits", 14, split="iid", batch_size=batch, set_aside=False, short_batches=True)
    n = len(problem._owned[0])
    epoch = [batch] * (n // batch) + [n % batch] * (n % batch > 0)
    drawn = [len(problem.batch(np.array(0), r, 0)[1]) for r in range(300)]
    assert set(drawn) == set(epoch)
    for size in epoch:
        share = epoch.count(size) / len(epoch)
        assert abs(drawn.count(size) / 300 - share) <= 4 * math.sqrt(share * (1 - share) / 300)


def test_options_are_told_where_they_are_not_the_defaults_and_rebuild_the_problem():
    plain = ImageProblem("digits", 10).describe()
    assert set(plain) == {"split", "alpha", "batch_size", "mode", "evaluate_on", "key"}
    given = {"set_aside": False, "short_batches": True, "model": "small_cnn", "mode": "loop", "batch_size": 16, "split": "iid"}
    problem = ImageProblem("digits", 10, **given)
    again = ImageProblem("digits", 10, **problem.describe())
    assert again.describe() == problem.describe() == plain | given
    assert all(torch.equal(a, b) for a, b in zip(problem.batch(np.array(3), 2, 1), again.batch(np.array(3), 2, 1), strict=True))
