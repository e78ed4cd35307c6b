"""The networks have the published sizes and take their initial values from the given generator alone."""

import pytest
import torch
from torch import nn

from vision.models import MODELS, build, paper_cnn, small_cnn

SIZES = {"paper_cnn": (28, 28_938, 10), "small_cnn": (8, 1_898, 10), "fashion_cnn": (28, 1_206_590, 62)}


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def parameters(model):
    return torch.cat([p.detach().flatten() for p in model.parameters()])


def test_every_model_is_covered_here():
    assert set(SIZES) == set(MODELS)


@pytest.mark.parametrize("name", SIZES)
def test_sizes_are_as_documented(name):
    size, count, classes = SIZES[name]
    model = build(name, generator())
    assert sum(p.numel() for p in model.parameters()) == count
    assert f"{count:,} parameters" in MODELS[name].__doc__
    images = torch.rand(3, 1, size, size, generator=generator(), dtype=torch.float32)
    assert model(images).shape == (3, classes)
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    assert not any(module.training for module in model.modules())


def test_outputs_are_logits_and_not_log_probabilities():
    model = build("small_cnn", generator())
    logits = model(torch.rand(5, 1, 8, 8, generator=generator(), dtype=torch.float32))
    assert (logits.logsumexp(1).abs() > 0.1).all()


@pytest.mark.parametrize("name", SIZES)
def test_global_randomness_is_untouched_and_the_generator_decides(name):
    before = torch.get_rng_state()
    first, again, other = (parameters(build(name, generator(seed))) for seed in (1, 1, 2))
    assert torch.equal(before, torch.get_rng_state())
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@pytest.mark.parametrize(
    ("name", "first", "second", "linear"),
    [("paper_cnn", (1, 16, 5), (16, 32, 5), (1568, 10)), ("small_cnn", (1, 8, 3), (8, 16, 3), (64, 10))],
)
def test_initial_values_are_bitwise_those_of_the_ordinary_constructors(name, first, second, linear):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(11)
        layers = [
            make(*sizes, dtype=torch.float32) for make, sizes in ((nn.Conv2d, first), (nn.Conv2d, second), (nn.Linear, linear))
        ]
    assert torch.equal(parameters(build(name, generator(11))), parameters(nn.Sequential(*layers)))


def test_shapes_alone_need_no_memory_and_no_randomness():
    before = torch.get_rng_state()
    for model in (paper_cnn(), small_cnn()):
        assert all(p.is_meta for p in model.parameters())
    assert torch.equal(before, torch.get_rng_state())


def test_an_unknown_model_is_an_error_naming_the_known_ones():
    with pytest.raises(ValueError, match="'resnet'; allowed: paper_cnn, small_cnn, fashion_cnn"):
        build("resnet", generator())
