"""The subjects: problems of every track on which the learned H is compared with the curvature, each as one full-batch loss.

A subject is a problem with one client and no gradient noise, so that the loss of its only batch is f. Small subjects have exact
Hessians. Large ones are measured on one fixed batch by estimates, and are absent where their data or packages are.
"""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch

from hiso_bench import keys
from hiso_bench.curvature import Curvature, differentiable, double
from hiso_bench.methods.base import require
from hiso_bench.points import Point
from synthetic.logistic import Logistic
from synthetic.quadratic import Quadratic
from synthetic.rare_tokens import RareTokens

IMAGES = 256
"""Training images of the small perceptrons: enough to be a task, few enough for exact Hessians in seconds."""
LATER = 0.3
"""The second point of a subject: this fraction of the initial excess is left."""


class Subject(NamedTuple):
    """One subject."""

    build: Callable[..., Any]
    """(key, replicates) -> problem of one client; large subjects know no replicates."""
    exact: bool = True
    """Whether the Hessian is formed."""
    available: Callable[[], bool] = lambda: True
    """Whether its data and packages are here."""
    minimum: Callable[[Any], float] = lambda problem: 0.0
    """The loss that cannot be gone below, of a problem."""


def _quadratic(d: int, family: str, parameter: float, key: int = 0, replicates: tuple[int, ...] = (), **more: Any) -> Quadratic:
    return Quadratic(d, family, parameter, clients=1, key=key, replicates=replicates, **more)


def _perceptron(scale: float, key: int = 0, replicates: tuple[int, ...] = ()) -> Any:
    from vision.mlp import DigitsPerceptron

    return DigitsPerceptron(examples=IMAGES, feature_scale=scale, key=key, replicates=replicates)


def _images(dataset: str, key: int = 0, replicates: tuple[int, ...] = ()) -> Any:
    from vision.problems import ImageProblem

    require(not replicates, "replicates", replicates, "() for a network of modules")
    return ImageProblem(dataset, 1, "iid", batch_size=IMAGES, key=key)


def _language(key: int = 0, replicates: tuple[int, ...] = ()) -> Any:
    from llm.problem import LanguageProblem

    require(not replicates, "replicates", replicates, "() for a language model")
    return LanguageProblem("tiny-opt", "toy-sst2", clients=1, split="iid", batch_size=32, key=key)


def _has_images(dataset: str) -> bool:
    from vision import data

    return data.available(dataset)


def _has_language() -> bool:
    """Whether transformers and the pre-trained tiny model are here: making the model takes minutes."""
    if importlib.util.find_spec("transformers") is None:
        return False
    from llm.tiny import pretrain

    return pretrain.made()


def _logistic(key: int = 0, replicates: tuple[int, ...] = ()) -> Logistic:
    return Logistic(200, clients=1, examples=IMAGES, key=key, replicates=replicates)


BLOCKS = {"block_sizes": (50, 50, 50, 50), "block_values": (1.0, 10.0, 100.0, 1000.0)}
SUBJECTS: dict[str, Subject] = {
    "flat": Subject(partial(_quadratic, 200, "flat", 0.0)),
    "i^-1": Subject(partial(_quadratic, 200, "power", 1.0)),
    "i^-1.5": Subject(partial(_quadratic, 200, "power", 1.5)),
    "i^-2": Subject(partial(_quadratic, 200, "power", 2.0)),
    "10 spikes": Subject(partial(_quadratic, 200, "spiked", 1000.0, spikes=10)),
    "log-normal 1": Subject(partial(_quadratic, 200, "lognormal", 1.0)),
    "log-normal 2.5": Subject(partial(_quadratic, 200, "lognormal", 2.5)),
    "4 blocks": Subject(partial(_quadratic, 200, "blocks", 0.0, **BLOCKS)),
    "i^-1.5, turned 0.3": Subject(partial(_quadratic, 200, "power", 1.5, angle=0.3)),
    "i^-1.5, Haar": Subject(partial(_quadratic, 200, "power", 1.5, angle=math.inf)),
    "logistic": Subject(_logistic, minimum=lambda problem: problem.minimum),
    "rare tokens": Subject(lambda key=0, replicates=(): RareTokens(key=key, replicates=replicates), minimum=lambda p: p.entropy),
    "digits MLP": Subject(partial(_perceptron, 0.0)),
    "digits MLP, scaled features": Subject(partial(_perceptron, 1.5)),
    "digits CNN": Subject(partial(_images, "digits"), exact=False),
    "MNIST CNN": Subject(partial(_images, "mnist"), exact=False, available=partial(_has_images, "mnist")),
    "tiny-opt": Subject(_language, exact=False, available=_has_language),
}
QUADRATICS = tuple(list(SUBJECTS)[:10])
SMALL = tuple(name for name, subject in SUBJECTS.items() if subject.exact)
LARGE = tuple(name for name, subject in SUBJECTS.items() if not subject.exact)


def subject(name: str) -> Subject:
    """A subject by name.

    Raises:
        ValueError: unknown subject.
    """
    require(name in SUBJECTS, "subject", name, ", ".join(SUBJECTS))
    return SUBJECTS[name]


def start(problem: Any, exact: bool = True) -> Point:
    """The initial point of a problem, in float64 where its Hessian is formed."""
    return double(problem.initial()) if exact else problem.initial()


def around(problem: Any, x: Point) -> Curvature:
    """The loss of the problem's only batch around a point."""
    return Curvature(differentiable(problem.loss, problem.batch(np.array(0), 0, 0)), x)


def later(problem: Any, x: Point, minimum: float = 0.0, fraction: float = LATER, limit: int = 3000) -> Point:
    """The first point of gradient descent whose loss has no more than a fraction of the initial excess left.

    The step halves until the loss falls by a tenth of what the slope promises (Armijo) and by no more than a fifth of the excess,
    so that the point is near its fraction; it doubles after every step. After `limit` steps the point reached is taken.
    """
    f = differentiable(problem.loss, problem.batch(np.array(0), 0, 0))
    x = tuple(leaf.detach().clone() for leaf in x)
    step, target = 1.0, None
    for _ in range(limit):
        leaves = tuple(leaf.requires_grad_() for leaf in x)
        value = f(leaves)
        g = torch.autograd.grad(value, leaves)
        now = float(value.detach())
        target = minimum + fraction * (now - minimum) if target is None else target
        if now <= target:
            break
        slope = sum(float(part.double().square().sum()) for part in g)
        with torch.no_grad():
            while step > 1e-12:
                moved = tuple(a - step * b for a, b in zip(x, g, strict=True))
                if now - 0.2 * (now - minimum) <= float(f(moved)) <= now - 0.1 * step * slope:
                    break
                step /= 2
        x, step = moved, 2 * step
    return tuple(leaf.detach() for leaf in x)


def layer_sizes(problem: Any) -> list[int]:
    """Coordinates of each leaf of a problem's point."""
    return [math.prod(shape) for shape in problem.layout.leaf_shapes]


def run_key(key: int) -> int:
    """The key of a run on the problem of a key."""
    return keys.derive(key, "learned h")
