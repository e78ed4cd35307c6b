"""The convolutional networks of the vision track, initialised from a given generator.

All map float32 images (B, 1, size, size) to logits (B, classes), not log-probabilities. They have no dropout and no
batch norm, so the loss of a batch is a deterministic function of the parameters, as differences need. `paper_cnn` and
`small_cnn` are twice convolution, ReLU and 2x2 max-pooling, then one linear layer.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import nn


def paper_cnn() -> nn.Sequential:
    """The MNIST network of the DeComFL and HiSo papers, for 28x28 images: 28,938 parameters (the official `CNN_MNIST`).

    Convolutions of 16 and 32 channels, 5x5 with padding 2, then linear from 32 * 7 * 7 = 1,568.

    Returns:
        The network on the ``meta`` device: shapes without values. ``build`` gives one that computes.
    """
    return _two_convolutions(size=28, channels=(16, 32), kernel=5)


def small_cnn() -> nn.Sequential:
    """The same network cut down to 8x8 images: 1,898 parameters.

    Convolutions of 8 and 16 channels, 3x3 with padding 1, then linear from 16 * 2 * 2 = 64.

    Returns:
        The network on the ``meta`` device: shapes without values. ``build`` gives one that computes.
    """
    return _two_convolutions(size=8, channels=(8, 16), kernel=3)


def fashion_cnn() -> nn.Sequential:
    """DeComFL's Fashion-MNIST network (the official `CNN_FMNIST`), for 28x28 images: 1,206,590 parameters.

    It has 62 logits for 10 classes. Convolutions of 32 and 64 channels, 3x3 without padding, one 2x2 max-pooling, linear layers
    of 128 and 62. There images are scaled to -1..1; here they come with mean 0 and deviation 1, and are rescaled first.

    Returns:
        The network on the ``meta`` device: shapes without values. ``build`` gives one that computes.
    """
    where = {"device": "meta", "dtype": torch.float32}
    return nn.Sequential(
        Rescale(mean=0.2860, std=0.3530),
        nn.Conv2d(1, 32, 3, **where),
        nn.ReLU(),
        nn.Conv2d(32, 64, 3, **where),
        MaxPool2x2(),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(9216, 128, **where),
        nn.ReLU(),
        nn.Linear(128, 62, **where),
    )


class Rescale(nn.Module):
    """From images with this mean and deviation subtracted and divided out to -1..1."""

    def __init__(self, mean: float, std: float) -> None:
        super().__init__()
        self.factor, self.offset = std / 0.5, (mean - 0.5) / 0.5

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The same shape."""
        return x * self.factor + self.offset


class MaxPool2x2(nn.Module):
    """The maximum of each 2x2 block of an even-sized image, as three elementwise maxima of slices.

    Bitwise what `nn.MaxPool2d(2)` gives, and several times faster on the CPU, where pooling otherwise costs as much as the
    convolutions. Pooling before the ReLU gives the same values as after it, on a quarter of them. Where a gradient is to follow,
    torch's own is taken: its backward pass is as much faster.
    """

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(..., height, width) -> (..., height / 2, width / 2)."""
        if x.requires_grad:
            return nn.functional.max_pool2d(x, 2)
        rows = torch.maximum(x[..., ::2, :], x[..., 1::2, :])
        return torch.maximum(rows[..., ::2], rows[..., 1::2])


MODELS: dict[str, Callable[[], nn.Sequential]] = {
    "paper_cnn": paper_cnn,
    "small_cnn": small_cnn,
    "fashion_cnn": fashion_cnn,
}


def build(name: str, generator: torch.Generator) -> nn.Sequential:
    """A network with PyTorch's default initialisation, drawn from ``generator`` alone.

    For the same generator state the parameters are bitwise those that the ordinary constructors draw from the
    global generator, which is left untouched here.

    Args:
        name: ``"paper_cnn"``, ``"small_cnn"`` or ``"fashion_cnn"``.
        generator: CPU generator to draw from; it advances.

    Returns:
        The network in eval mode: float32 on the CPU.

    Raises:
        ValueError: ``name`` is none of them.
    """
    if name not in MODELS:
        raise ValueError(f"model is {name!r}; allowed: {', '.join(MODELS)}")
    # Constructors draw initial values from the global generator, but not on the meta device.
    model = MODELS[name]().to_empty(device="cpu")
    for layer in model:
        if isinstance(layer, nn.Conv2d | nn.Linear):
            _initialise(layer, generator)
    return model.eval()


def _two_convolutions(size: int, channels: tuple[int, int], kernel: int) -> nn.Sequential:
    first, second = channels
    where = {"device": "meta", "dtype": torch.float32}
    return nn.Sequential(
        nn.Conv2d(1, first, kernel, padding=kernel // 2, **where),
        MaxPool2x2(),
        nn.ReLU(),
        nn.Conv2d(first, second, kernel, padding=kernel // 2, **where),
        MaxPool2x2(),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(second * (size // 4) ** 2, 10, **where),
    )


def _initialise(layer: nn.Conv2d | nn.Linear, generator: torch.Generator) -> None:
    """PyTorch's rule for both layers: weight and bias uniform within 1/sqrt(fan_in)."""
    # With a = sqrt(5) Kaiming's bound is 1/sqrt(fan_in); weight before bias, as in the constructors.
    nn.init.kaiming_uniform_(layer.weight, a=math.sqrt(5), generator=generator)
    bound = 1 / math.sqrt(layer.weight[0].numel())
    if layer.bias is not None:
        nn.init.uniform_(layer.bias, -bound, bound, generator=generator)
