"""Evaluation modes agree to rounding and are exact with themselves; what cannot be trusted is refused with the reason."""

import itertools

import numpy as np
import pytest
import torch
from torch import nn

from hiso_bench import keys
from hiso_bench.differences import measure
from hiso_bench.directions import DirectionKey, Directions
from hiso_bench.losses import (
    MODES,
    FunctionLoss,
    Loss,
    ModuleLoss,
    NondeterministicLossError,
    check_deterministic,
    cross_entropy,
    layout_of,
)
from tests.helpers import TinyNet, federation, run
from vision import models

EPS, MU = torch.finfo(torch.float32).eps, 1e-3


def images(clients, count=8):
    draw = keys.rng(keys.derive(0, "images"))
    return [
        (torch.from_numpy(draw.random((count, 1, 8, 8), dtype=np.float32)), torch.from_numpy(draw.integers(0, 10, count)))
        for _ in range(clients)
    ]


def cnn(mode, replicates=()):
    net = models.build("small_cnn", torch.Generator().manual_seed(1))
    return ModuleLoss(net, cross_entropy, mode, len(replicates))


def measured(mode, difference):
    loss = cnn(mode)
    x, layout = loss.base_point(), layout_of(loss)
    directions = Directions(layout, 3)
    where = [DirectionKey(0, 0, p) for p in range(3)]
    return measure(loss, layout, x, directions.draw, where, images(4), MU, difference, layout.empty(torch.float32))


@pytest.mark.parametrize("difference", ["forward", "central"])
def test_scalars_of_two_modes_agree_within_8_eps_f_over_mu_and_of_one_mode_exactly(difference):
    found = {mode: measured(mode, difference) for mode in MODES}
    for a, b in itertools.combinations(MODES, 2):
        bound = 8 * EPS * found[a].loss[:, None].abs() / MU
        assert ((found[a].scalars - found[b].scalars).abs() <= bound).all()
    for mode in MODES:
        again = measured(mode, difference)
        assert torch.equal(again.scalars, found[mode].scalars)
        assert torch.equal(again.loss, found[mode].loss)
    assert found["loop"].scalars.shape == (4, 3)
    assert found["loop"].scalars.dtype == torch.float64
    assert (found["loop"].scalars.std(0) > 0.05).all()  # clients are told apart


@pytest.mark.parametrize("mode", MODES)
def test_every_client_gets_the_mean_of_its_own_examples(mode):
    loss, batches = cnn(mode), images(3)
    values = loss.each(loss.base_point(), batches)
    alone = torch.stack(
        [torch.stack([loss(loss.base_point(), (x[None], y[None])) for x, y in zip(*b, strict=True)]).mean() for b in batches]
    )
    torch.testing.assert_close(values, alone, rtol=4 * EPS, atol=0)


@pytest.mark.parametrize("mode", MODES)
def test_the_mean_over_examples_is_taken_in_float64(mode):
    loss, (batch,) = cnn(mode), images(1, 64)
    x = loss.base_point()
    with torch.inference_mode():
        examples = cross_entropy(lambda pictures: loss.outputs(x, pictures), batch)
    assert examples.dtype == torch.float32
    assert loss(x, batch).dtype == loss.each(x, [batch, batch]).dtype == torch.float64
    assert torch.equal(loss(x, batch), examples.double().mean())


@pytest.mark.parametrize("mode", ["clients", "vmap"])
def test_batches_of_different_sizes_are_not_evaluated_together(mode):
    batches = [images(1, count)[0] for count in (3, 5)]  # eight examples would divide evenly between two clients
    with pytest.raises(ValueError, match=rf"mode '{mode}' needs batches of one size, and there are \[3, 5\]"):
        cnn(mode).each(cnn(mode).base_point(), batches)
    assert cnn("loop").each(cnn("loop").base_point(), batches).shape == (2,)


@pytest.mark.parametrize("shape", [(3,), (2, 2)])
def test_replicates_of_a_module_are_evaluated_each_at_its_own_point_and_batch(shape):
    count = np.prod(shape)
    loop, vmapped, single = cnn("loop", shape), cnn("vmap", shape), cnn("loop")
    x = Directions(layout_of(loop, shape), 5).draw(DirectionKey(0, 0, 0))
    x = tuple(base + 0.1 * z for base, z in zip(loop.base_point(), x, strict=True))
    parts = images(count)
    batch = tuple(torch.stack([part[i] for part in parts]).reshape(*shape, *parts[0][i].shape) for i in range(2))
    expected = [single(tuple(leaf.flatten(0, len(shape) - 1)[i] for leaf in x), parts[i]) for i in range(count)]
    assert torch.equal(loop(x, batch), torch.stack(expected).reshape(shape))
    torch.testing.assert_close(vmapped(x, batch), loop(x, batch), rtol=8 * EPS, atol=0)


def test_the_module_is_only_read():
    problem = TinyNet()
    before = [p.detach().clone() for p in problem.loss.module.parameters()]
    f = run(federation(problem, "hiso", local_steps=2), 3)
    assert all(torch.equal(p, q) for p, q in zip(problem.loss.module.parameters(), before, strict=True))
    assert not any(torch.equal(x, p) for x, p in zip(f.state.x, before, strict=True))
    assert not any(leaf.requires_grad or leaf.is_inference() for leaf in f.state.x)


def test_the_point_holds_trainable_leaves_only_and_tied_ones_once():
    net = small(linear(), linear()).eval()
    net[1].weight = net[0].weight
    net[2].requires_grad_(False)
    loss = ModuleLoss(net, lambda call, batch: call(batch[0]).square().sum(-1))
    assert loss.names == ("0.weight", "0.bias", "1.bias")
    x = tuple(torch.full_like(leaf, 0.5) for leaf in loss.base_point())
    once = torch.full((1, 3), 0.5) @ torch.full((3, 3), 0.5) + 0.5
    expected = net[2](once @ torch.full((3, 3), 0.5) + 0.5).square().sum()
    torch.testing.assert_close(loss(x, (torch.full((1, 3), 0.5),)).float(), expected.detach())


def small(*layers):
    return nn.Sequential(linear(), *layers)


def linear():
    with torch.random.fork_rng(devices=[]):
        return nn.Linear(3, 3)


@pytest.mark.parametrize(
    ("module", "options", "message"),
    [
        (small(), {}, "layer 'module' is in training mode"),
        (small(nn.Dropout()).eval().append(nn.Dropout()), {}, "layer '2' is in training mode"),
        (small(nn.BatchNorm1d(3)).eval(), {}, "layer '1' is batch norm"),
        (small(nn.Sequential(nn.SyncBatchNorm(3))).eval(), {}, "layer '1.0' is batch norm"),
        (small().requires_grad_(False).eval(), {}, "no trainable parameter"),
        (small().eval(), {"mode": "fast"}, "mode 'fast' is unknown; allowed: loop, clients, vmap"),
    ],
    ids=["training", "dropout", "batch norm", "nested", "frozen", "mode"],
)
def test_modules_whose_loss_cannot_be_trusted_are_refused(module, options, message):
    with pytest.raises(ValueError, match=message):
        ModuleLoss(module, cross_entropy, **options)


class Drifting(Loss):
    """A loss with a hidden state: it never gives one value twice."""

    calls = 0

    def __call__(self, x, batch):
        self.calls += 1
        return x[0].sum() + 2.0**-50 * self.calls


def test_a_loss_that_is_not_a_function_is_caught():
    with pytest.raises(NondeterministicLossError, match=r"gave 3.0\d* and 3.0\d*"):
        check_deterministic(Drifting(), (torch.ones(3, dtype=torch.float64),), None)
    problem = TinyNet()
    check_deterministic(problem.loss, problem.initial(), problem.batch(np.array(0), 0, 0))


def test_a_function_is_a_loss_of_the_tuple_or_of_its_one_leaf():
    x = (torch.arange(3.0), torch.tensor(2.0))
    loss = FunctionLoss(lambda point, batch=0.0: point[0].sum() * point[1] + batch)
    assert loss(x, None) == 6 and loss(x, 1.5) == 7.5 and loss(x).dtype == torch.float64
    assert FunctionLoss(torch.sum, single=True)(x[:1]) == 3
    leaf = torch.ones(2, requires_grad=True)
    assert not loss((leaf, x[1])).requires_grad and loss.differentiable((leaf, x[1])).requires_grad
    with pytest.raises(ValueError, match=r"shape \(3,\)"):
        FunctionLoss(lambda point: point[0])(x)
