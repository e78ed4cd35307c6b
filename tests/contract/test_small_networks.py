"""The small networks are what they say: losses, gradients, replicates, clients, batches, sources and descriptions."""

import functools
import json
import math

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from hiso_bench import cli, keys
from hiso_bench.classification import one_hot
from hiso_bench.losses import check_deterministic
from synthetic.rare_tokens import RareTokens
from tests.helpers import bits, federation, run
from vision import data
from vision.mlp import DigitsPerceptron

M = 5
BUILT = {
    "digits": functools.partial(DigitsPerceptron, M, 3, examples=203, split="dirichlet", batch_size=6, feature_scale=1.5),
    "digits full": functools.partial(DigitsPerceptron, M, 3, examples=203),
    "digits alone": functools.partial(DigitsPerceptron, hidden=3, examples=203),
    "tokens": functools.partial(RareTokens, 7, 2, clients=M, skew=0.5, batch_size=20),
    "tokens full": functools.partial(RareTokens, 7, 2, clients=M, skew=0.5),
    "tokens alone": functools.partial(RareTokens, 7, 2),
}
each = pytest.mark.parametrize("name", BUILT)


def at(problem, seed=0):
    """A point of its own for every replicate, float64."""
    draw = np.random.default_rng(seed)
    return tuple(torch.from_numpy(draw.standard_normal(problem.layout.shape(i))) for i in range(len(problem.layout.leaf_shapes)))


def who(problem, replicates=()):
    return np.arange(math.prod(replicates)).reshape(replicates) % problem.clients


@each
def test_a_loss_is_deterministic_float64_and_of_the_replicate_shape(name):
    for replicates in ((), (2, 3)):
        problem = BUILT[name](replicates=replicates)
        x, batch = problem.initial(), problem.batch(who(problem, replicates), 1, 0)
        check_deterministic(problem.loss, x, batch)
        value = problem.loss(x, batch)
        assert value.dtype == torch.float64 and value.shape == replicates and bool(torch.isfinite(value).all())
        assert [leaf.shape for leaf in x] == [problem.layout.shape(i) for i in range(len(x))]
        assert problem.objective(x).shape == replicates


@each
def test_a_replicate_s_loss_is_that_of_a_problem_without_replicates(name):
    problem, alone = BUILT[name](replicates=(3,)), BUILT[name]()
    x, clients = at(problem), who(problem, (3,))
    batch = problem.batch(clients, 1, 0)
    for i in range(3):
        shared = batch.weights.ndim == 2
        one = type(batch)(*(p if shared or p is None else p[i] for p in batch))
        point = tuple(leaf[i] for leaf in x)
        torch.testing.assert_close(problem.loss(x, batch)[i], alone.loss(point, one), rtol=1e-13, atol=0)
        if not problem.batch_size:
            torch.testing.assert_close(one.weights, alone.batch(clients[i], 1, 0).weights, rtol=0, atol=0)


@pytest.mark.parametrize("name", [name for name in BUILT if BUILT[name]().batch_size])
def test_replicates_and_steps_draw_batches_of_their_own(name):
    problem = BUILT[name](replicates=(2,))
    same = np.array([1, 1])
    batch, later = problem.batch(same, 3, 0), problem.batch(same, 3, 1)
    assert not torch.equal(batch.weights[0], batch.weights[1]) and not torch.equal(batch.weights, later.weights)
    assert torch.equal(batch.weights, problem.batch(same, 3, 0).weights)


@each
def test_gradients_are_finite_and_those_of_finite_differences(name):
    problem = BUILT[name]()
    batch, leaves = problem.batch(who(problem), 0, 0), at(problem)
    x = tuple(leaf.requires_grad_() for leaf in leaves)
    gradient = torch.autograd.grad(problem.loss(x, batch), x)
    assert all(bool(torch.isfinite(g).all()) and float(g.abs().max()) > 0 for g in gradient)
    u, t = at(problem, seed=1), 1e-6
    ahead, behind = (problem.loss(tuple(a.detach() + s * t * b for a, b in zip(x, u, strict=True)), batch) for s in (1, -1))
    slope = sum(float((g * b).sum()) for g, b in zip(gradient, u, strict=True))
    assert float(ahead - behind) / (2 * t) == pytest.approx(slope, rel=1e-6)


@each
def test_the_objective_is_the_mean_of_the_clients_losses(name):
    full = BUILT[name](batch_size=0)
    x = at(full)
    losses = torch.stack([full.loss(x, full.batch(np.array(c), 0, 0)) for c in range(full.clients)])
    torch.testing.assert_close(losses.mean(), full.objective(x), rtol=1e-12, atol=0)
    weights = [full.batch(np.array(c), 0, 0).weights.sum() for c in range(full.clients)]
    torch.testing.assert_close(torch.stack(weights), torch.ones(full.clients, dtype=torch.float64), rtol=1e-12, atol=0)


@each
def test_a_problem_is_built_again_from_its_description(name):
    problem = BUILT[name](key=2**63)
    again = type(problem)(clients=problem.clients, **json.loads(json.dumps(problem.describe())))
    first, second = (bits(run(federation(p, "hiso", {"lr": 1e-3}, sampled=1), 2).state) for p in (problem, again))
    assert first == second
    assert first != bits(run(federation(BUILT[name](key=1), "hiso", {"lr": 1e-3}, sampled=1), 2).state)


def test_the_perceptron_is_torch_s_and_cross_entropy_is_torch_s():
    problem = DigitsPerceptron(hidden=16)
    assert problem.layout.dimension == 1210
    w, b, a, c = problem.initial()
    images = data.load("digits")
    labels = images.train_y
    scores = F.linear(torch.tanh(F.linear(images.train_x.flatten(1), w, b)), a, c)
    assert float(problem.objective((w, b, a, c))) == pytest.approx(float(F.cross_entropy(scores, labels)), rel=1e-6)
    test = F.linear(torch.tanh(F.linear(images.test_x.flatten(1), w, b)), a, c).argmax(-1) == images.test_y
    assert problem.evaluate((w, b, a, c))["accuracy"] == pytest.approx(float(test.double().mean()), abs=1e-12)


def test_scaled_features_are_the_same_problem_in_other_coordinates():
    """The loss of the scaled twin at rows divided by the factors is the plain loss."""
    plain, scaled = (DigitsPerceptron(hidden=4, examples=100, feature_scale=s, key=3) for s in (0.0, 1.5))
    assert float(scaled.factors.log().std()) == pytest.approx(1.5, rel=0.4)
    w, *rest = at(plain)
    value = plain.objective((w, *rest))
    torch.testing.assert_close(scaled.objective((w / scaled.factors, *rest)), value, rtol=1e-5, atol=0)
    assert abs(float(scaled.objective((w, *rest)) / value) - 1) > 0.01


@pytest.mark.parametrize("split", ["iid", "dirichlet"])
def test_batches_are_drawn_without_replacement_from_the_client_s_own_images(split):
    problem = BUILT["digits"](split=split, replicates=(2,), feature_scale=0.0)
    rows = problem.batch(np.array([1, 4]), 3, 0)
    whole = BUILT["digits"](split=split, batch_size=0, feature_scale=0.0)
    for i, owner in enumerate((1, 4)):
        own = whole.batch(np.array(owner), 0, 0)
        held = {row.numpy().tobytes() for row, w in zip(own.inputs, own.weights, strict=True) if w.sum() > 0}
        drawn = [row.numpy().tobytes() for row in rows.inputs[i]]
        assert len(drawn) == 6 and set(drawn) <= held and len(set(drawn)) == 6


def test_token_frequencies_are_zipf_s_and_batches_follow_the_source():
    problem = RareTokens(8, 2, clients=1, batch_size=200_000, key=5)
    np.testing.assert_allclose(problem.frequencies, 1 / np.arange(1, 9) / (1 / np.arange(1, 9)).sum(), rtol=1e-14)
    np.testing.assert_allclose(problem.source.sum(-1)[0], problem.frequencies, rtol=1e-13)
    drawn = problem.batch(np.array(0), 0, 0).weights.numpy()
    error = np.sqrt(problem.source[0] / 200_000)
    assert np.all(np.abs(drawn - problem.source[0]) < 5 * error)


def test_the_conditional_entropy_is_what_a_wide_model_could_reach():
    problem = RareTokens(6, 6)
    joint = problem.source[0]
    perfect = np.log(joint / joint.sum(-1, keepdims=True))
    x = (torch.eye(6, dtype=torch.float64), torch.from_numpy(perfect.T.copy()), torch.zeros(6, dtype=torch.float64))
    assert problem.evaluate(x)["excess"] == pytest.approx(0, abs=1e-14)
    assert problem.evaluate(problem.initial())["excess"] > 0.1


def test_one_hot_puts_the_weight_at_the_label():
    found = one_hot(torch.tensor([[2, 0]]), 3, torch.tensor([[0.25, 0.75]]))
    assert found.tolist() == [[[0, 0, 0.25], [0.75, 0, 0]]]


def test_a_batch_s_stream_depends_on_every_client_of_the_replicates():
    draws = {keys.batch_rng(1, np.array(clients), 2, 0).random() for clients in ([0, 1], [1, 0], [0, 2], 0)}
    assert len(draws) == 4


@pytest.mark.parametrize("problem", ["digits-mlp", "rare-tokens"])
def test_the_command_line_trains_resumes_and_has_a_recorded_rate(problem, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    args = ["train", "--problem", problem, "--clients", "4", "--quiet", "--threads", "1", "--out", "run", "--rounds"]
    assert cli.main([*args, "5", "--lr", "0.01"]) == 0
    assert cli.main([*args, "8", "--lr", "0.01"]) == 0
    assert "resuming" in capsys.readouterr().err
    assert cli.main(["train", "--problem", problem, "--quiet", "--threads", "1", "--out", "other", "--rounds", "3"]) == 0
