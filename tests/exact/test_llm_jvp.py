"""The scalars of the real path are the exact directional derivatives of the loss, up to the error that theory gives them.

For f along z: forward [f(x + mu z) - f(x)] / mu = Df + mu/2 D2f + mu^2/6 D3f + O(mu^3), and central = Df + mu^2/6 D3f + O(mu^4),
with Df = f'(x) z, D2f = z' f''(x) z and D3f the third derivative along z. The derivatives come from one, two and three nested
`torch.func.jvp` through eager attention (forward mode does not pass the fused one); the scalars from `differences.measure`
through the attention that each model uses by itself.
"""

import functools
from typing import NamedTuple

import pytest
import torch
from torch import nn
from torch.func import jvp
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

pytest.importorskip("transformers", reason="the extra llm is not installed")

from hiso_bench import keys
from hiso_bench.differences import measure
from hiso_bench.directions import DirectionKey, Directions
from hiso_bench.losses import layout_of
from llm.lora import attach
from llm.loss import IGNORED, LanguageLoss
from tests import llm_helpers

# torch.func.jvp imports what torch itself makes with torch.jit.script.
pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:DeprecationWarning")

MU = {"opt": 2e-5, "opt-350m": 2e-5}
"""Small where there are ReLUs, so that few of them switch within a step; else `SMOOTH`."""
SMOOTH = 1e-4
DIRECTIONS = tuple(DirectionKey(0, 0, p) for p in range(2))
LENGTHS = ((8, 5, 6), (4, 7, 7))
"""Of the prompts of each of two clients; the batches are padded on the right to 8 tokens."""
VERBALIZERS = torch.tensor([260, 262, 270])
EPS = torch.finfo(torch.float64).eps


class Float64(TorchFunctionMode):
    """float64 where a model asks for float32 (in norms, softmax and rotary angles): finite differences then have room."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        def wide(value):
            return torch.float64 if value is torch.float32 else value

        if func is torch.Tensor.float:
            func = torch.Tensor.double
        return func(*map(wide, args), **{name: wide(value) for name, value in (kwargs or {}).items()})


class PlainNorm(TorchFunctionMode):
    """Layer norm by its definition: torch's own is wrong from the second nested jvp on (pytorch issue 196700)."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        return (plain if func is F.layer_norm else func)(*args, **(kwargs or {}))


def plain(x, normalized_shape, weight, bias, eps):
    centred = x - x.mean(-1, keepdim=True)
    return centred * torch.rsqrt(centred.square().mean(-1, keepdim=True) + eps) * weight + bias


def batches(task):
    """One batch a client, as `LanguageLoss` takes it; the answers of generation are the last three tokens."""
    draw = keys.rng(keys.derive(0, "prompts"))
    made = []
    for lengths in map(torch.tensor, LENGTHS):
        mask = torch.arange(8) < lengths[:, None]
        ids = torch.from_numpy(draw.integers(4, 260, mask.shape)).where(mask, 2)
        if task == "classification":
            positions, targets = lengths[:, None] - 1, torch.from_numpy(draw.integers(0, 3, (len(ids), 1)))
        else:
            positions = lengths[:, None] - torch.tensor([4, 3, 2])
            targets = ids.gather(1, positions + 1)
            targets[0, 2] = IGNORED  # a shorter answer
        made.append((ids, mask.long(), positions, targets))
    return made


class Found(NamedTuple):
    scalars: dict
    """(difference, mu) -> (clients, directions)."""
    derivatives: list
    """Df, D2f, D3f, each (clients, directions)."""
    loss: torch.Tensor
    """(clients,)."""
    smooth: torch.Tensor
    """(clients, directions): no ReLU switches between x - mu z and x + mu z. Taylor's formula does not hold across a kink."""


def steps(name):
    return MU.get(name, SMOOTH), MU.get(name, SMOOTH) / 2


@functools.cache
def found(name, task, rank):
    model = llm_helpers.model(name)
    model.config.use_cache = False
    model = (attach(model, rank, 16.0, 5) if rank else model).double()
    loss = LanguageLoss(model, VERBALIZERS if task == "classification" else None, torch.float64)
    x, layout = loss.base_point(), layout_of(loss)
    if rank:  # away from B = 0, where the loss is flat in A
        x = tuple(
            leaf + 0.1 * z for leaf, z in zip(x, Directions(layout, 1, dtype=torch.float64).draw(DIRECTIONS[0]), strict=True)
        )
    draw = Directions(layout, 7, dtype=torch.float64).draw
    with Float64():
        measured = {
            (difference, mu): measure(
                loss, layout, x, draw, DIRECTIONS, batches(task), mu, difference, layout.empty(torch.float64)
            )
            for difference in ("forward", "central")
            for mu in steps(name)
        }
        mu = steps(name)[0]
        smooth = [[not switches(loss, x, draw(key), batch, mu) for key in DIRECTIONS] for batch in batches(task)]
        model.set_attn_implementation("eager")
        with PlainNorm():
            derivatives = [torch.stack([along(loss, x, draw(key), batch) for key in DIRECTIONS]) for batch in batches(task)]
    scalars = {key: value.scalars for key, value in measured.items()}
    return Found(scalars, list(torch.stack(derivatives).unbind(-1)), measured["forward", mu].loss, torch.tensor(smooth))


def switches(loss, x, z, batch, mu):
    """Whether the input of some ReLU has one sign at x + mu z and the other one at x - mu z."""
    signs = []
    relus = [part for part in loss.module.modules() if isinstance(part, nn.ReLU)]
    hooks = [part.register_forward_pre_hook(lambda _, given: signs.append(given[0] > 0)) for part in relus]
    for step in (mu, -mu):
        loss(tuple(leaf + step * move for leaf, move in zip(x, z, strict=True)), batch)
    for hook in hooks:
        hook.remove()
    return not all(map(torch.equal, signs[: len(relus)], signs[len(relus) :]))


def along(loss, x, z, batch):
    """The first three derivatives of the loss at x along z, (3,)."""

    def f(*leaves):
        return loss.per_example(lambda **given: loss.outputs(leaves, **given), batch).mean()

    def nested(g):
        return lambda *leaves: jvp(g, leaves, z)  # g and its derivative

    _, ((first, second), (_, third)) = nested(nested(nested(f)))(*x)
    return torch.stack([first, second, third]).detach()


CASES = [(name, "classification", 0) for name in llm_helpers.ARCHITECTURES]
CASES += [(name, "generation", 2) for name in ("opt", "qwen3", "gemma2")]
every_model = pytest.mark.parametrize(("name", "task", "rank"), CASES)


def rounding(f, mu):
    """What float64 may do to a difference quotient: every loss is good to some ulps."""
    return 16 * EPS * f.loss.abs()[:, None] / mu


@every_model
def test_the_error_of_a_central_difference_is_mu_squared_over_six_times_the_third_derivative(name, task, rank):
    f = found(name, task, rank)
    first, _, third = f.derivatives
    assert f.smooth.sum() >= 3  # of four
    wide, narrow = steps(name)
    error = {mu: f.scalars["central", mu] - first for mu in (wide, narrow)}
    for mu, value in error.items():
        predicted = mu**2 / 6 * third
        assert ((value - predicted).abs() <= 1e-2 * predicted.abs() + rounding(f, mu))[f.smooth].all()
        assert (predicted.abs().amax() > 10 * rounding(f, mu)).any()  # otherwise nothing was tested
    assert ((error[wide] - 4 * error[narrow]).abs() <= 1e-2 * error[wide].abs() + 5 * rounding(f, narrow))[f.smooth].all()


@every_model
def test_the_error_of_a_forward_difference_is_half_mu_times_the_curvature_along_z(name, task, rank):
    f = found(name, task, rank)
    first, second, third = f.derivatives
    for mu in steps(name):
        error = f.scalars["forward", mu] - first
        predicted = mu / 2 * second
        next_term = (mu**2 / 6 * third).abs()
        assert ((error - predicted).abs() <= 1.1 * next_term + 1e-4 * predicted.abs() + rounding(f, mu))[f.smooth].all()
        assert (predicted.abs() > 100 * (next_term + rounding(f, mu))).any()


def test_clients_directions_and_models_are_told_apart():
    """Otherwise the tests above could compare a number with itself."""
    slopes = torch.stack([found(*case).derivatives[0] for case in CASES if case[0] in ("opt", "qwen3")]).flatten()
    assert (slopes[:, None] - slopes).abs().fill_diagonal_(1).min() > 1e-3


def test_torchs_own_layer_norm_still_needs_its_replacement():
    """When this fails, torch is right and `PlainNorm` can go."""
    x, z = torch.tensor([[0.7, 0.0]], dtype=torch.float64), torch.tensor([[1.0, 0.0]], dtype=torch.float64)
    weight = torch.tensor([1.0, 2.0], dtype=torch.float64)

    def f(x):
        return F.layer_norm(x, (2,), weight, bias=torch.zeros_like(weight), eps=0.25).sum()

    def curvature():
        return jvp(lambda y: jvp(f, (y,), (z,))[1], (x,), (z,))[1].item()

    exact = 3 * 0.7 / (1 + 0.7**2) ** 2.5  # f is -t / sqrt(1 + t^2) at (t, 0)
    with PlainNorm():
        assert curvature() == pytest.approx(exact, rel=1e-12)
    assert curvature() != pytest.approx(exact, rel=1e-2)
