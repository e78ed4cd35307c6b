"""Federated digits with a small smooth network that owns its replicate axes: a perceptron with one hidden layer of tanh.

Small enough (d = 1,210) for exact Hessians, smooth enough to have them. `feature_scale` multiplies each input feature by a
factor exp(s N(0, 1)), which changes no minimum but makes the curvature of the first layer's rows differ by the squares of the
factors: a problem that a diagonal H could repair, so the positive control of what a diagonal can buy.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hiso_bench import keys
from hiso_bench.classification import Rows, SoftmaxLoss, one_hot
from hiso_bench.methods.base import require
from hiso_bench.partition import dirichlet, iid
from hiso_bench.points import Layout, Point
from vision import data

SPLITS = ("iid", "dirichlet")
FEATURES, CLASSES = 64, 10


class PerceptronLoss(SoftmaxLoss):
    """Cross-entropy of A tanh(W a + b) + c; a point is (W, b, A, c) with W (hidden, features), A (classes, hidden)."""

    def logits(self, x: Point, inputs: Tensor | None) -> Tensor:
        """The logits, (*replicates, n, classes). Cost: two batched products."""
        _, _, second, offset = x
        assert inputs is not None
        return self.hidden(x, inputs) @ second.mT + offset.unsqueeze(-2)

    def hidden(self, x: Point, inputs: Tensor) -> Tensor:
        """What enters the second layer, (*replicates, n, hidden)."""
        return torch.tanh(inputs @ x[0].mT + x[1].unsqueeze(-2))


class DigitsPerceptron:
    """scikit-learn's digits, clients and a perceptron 64-hidden-10.

    Args:
        clients: M.
        hidden: width of the hidden layer; d = 75 hidden + 10.
        split: "iid" or "dirichlet" (label-skewed).
        alpha: concentration of the Dirichlet split.
        examples: training images used, drawn by `key`; 0 takes all 1,438 less the public ones.
        public: training images set aside, drawn by `key`, that every party holds and no client trains on; labels are not used.
        batch_size: images per client and local step, drawn without replacement; 0 takes all of a client's (no gradient noise).
        feature_scale: s >= 0; input feature j is multiplied by exp(s N(0, 1)), drawn by `key`.
        replicates: replicate shape; all start at the same point, batches are drawn for each.
        key: 64-bit key of images, split, factors, initial point and batches.

    Raises:
        ValueError: an option out of range.
    """

    name = "digits-mlp"
    metric = "loss"
    higher_is_better = False

    def __init__(
        self,
        clients: int = 1,
        hidden: int = 16,
        split: str = "iid",
        alpha: float = 1.0,
        examples: int = 0,
        public: int = 0,
        batch_size: int = 0,
        feature_scale: float = 0.0,
        replicates: tuple[int, ...] = (),
        key: int = 0,
    ) -> None:
        images = data.load("digits")
        total = len(images.train_y)
        require(hidden >= 1, "hidden", hidden, ">= 1")
        require(split in SPLITS, "split", split, ", ".join(SPLITS))
        require(0 <= examples <= total, "examples", examples, f">= 0 (0: all) and <= {total}")
        most = total - (examples or 4)
        require(0 <= public <= most, "public", public, f">= 0 and <= images that no client needs = {most}")
        held = examples or total - public
        require(1 <= clients <= held // 4, "clients", clients, f">= 1 and <= a quarter of the images, {held // 4}")
        most = held // clients
        require(0 <= batch_size <= most, "batch_size", batch_size, f">= 0 (0: all) and <= images per client = {most}")
        require(0 <= feature_scale < math.inf, "feature_scale", feature_scale, "a finite number >= 0")
        self._options = dict(
            hidden=hidden, split=split, alpha=alpha, examples=examples, batch_size=batch_size, feature_scale=feature_scale,
            replicates=list(replicates), key=key,
        )  # fmt: skip
        # Told where it is not the default: ledgers from before it was there go on.
        self._options |= {"public": public} if public else {}
        self.clients, self.batch_size, self.key, self.source = clients, batch_size, key, images.source
        factors = np.exp(feature_scale * keys.rng(keys.derive(key, "feature scale")).standard_normal(FEATURES))
        self.factors = torch.from_numpy(factors)
        """What each input feature is multiplied by, (64,)."""
        order = keys.rng(keys.derive(key, "examples")).permutation(total)
        chosen = np.sort(order[:held])
        self._public = images.train_x[order[total - public :]].flatten(1).double() * self.factors
        x = images.train_x[chosen].flatten(1).double() * self.factors
        y = images.train_y[chosen]
        self._test = images.test_x.flatten(1).double() * self.factors, images.test_y
        draw = keys.rng(keys.derive(key, "split"))
        least = max(4, batch_size)
        owned = iid(held, clients, draw) if split == "iid" else dirichlet(y.numpy(), clients, alpha, draw, least)
        self._sizes = torch.tensor([len(part) for part in owned])
        # Clients are padded to one length with rows of weight 0, so that any replicate can hold any client.
        places = np.zeros((clients, int(self._sizes.max())), dtype=np.int64)
        for client, part in enumerate(owned):
            places[client, : len(part)] = part
        self._present = torch.arange(places.shape[1]) < self._sizes.unsqueeze(1)
        index = torch.from_numpy(places)
        self._x, self._y = x.float()[index], y[index]
        self._weights = one_hot(self._y, CLASSES, self._present / self._sizes.unsqueeze(1).double())
        self.everything = Rows(self._x[self._present], self._weights[self._present] / clients)
        """All images, such that the loss is the mean over clients of f_i."""
        self.loss = PerceptronLoss()
        self.layout = Layout(((hidden, FEATURES), (hidden,), (CLASSES, hidden), (CLASSES,)), tuple(replicates))

    def initial(self) -> Point:
        """Float32, uniform within 1/sqrt(fan_in) from `key`; torch's rule for linear layers. The factors are not undone."""
        draw = keys.rng(keys.derive(self.key, "init"))
        hidden = self.layout.leaf_shapes[0][0]
        reach = (FEATURES**-0.5, FEATURES**-0.5, hidden**-0.5, hidden**-0.5)
        leaves = [r * draw.uniform(-1, 1, shape) for r, shape in zip(reach, self.layout.leaf_shapes, strict=True)]
        return tuple(torch.from_numpy(leaf).float().expand(self.layout.shape(i)).clone() for i, leaf in enumerate(leaves))

    def batch(self, client: np.ndarray, round_: int, step: int) -> Rows:
        """The client's images, all of them or `batch_size` drawn anew for every (round, step) and replicate."""
        who = torch.as_tensor(client)
        if not self.batch_size:
            # One client: the replicates share the rows without a copy for each.
            return Rows(self._x[0], self._weights[0]) if self.clients == 1 else Rows(self._x[who], self._weights[who])
        draw = keys.batch_rng(self.key, client, round_, step)
        order = torch.from_numpy(draw.random((*self.layout.replicate_shape, self._present.shape[1])))
        order = order.masked_fill(~self._present[who], torch.inf).argsort(-1)[..., : self.batch_size]
        who = who.unsqueeze(-1)
        return Rows(self._x[who, order], one_hot(self._y[who, order], CLASSES, 1 / self.batch_size))

    def layer_inputs(self, x: Point, examples: int, draw: int) -> Sequence[Tensor | None]:
        """Public images and what the hidden layer makes of them, (*replicates, examples, ...); a draw for every replicate.

        Raises:
            ValueError: there are fewer public images.
        """
        held = len(self._public)
        require(
            examples <= held,
            "public",
            held,
            f">= the {examples} images, held by every party, that a method such as agzo asks for",
        )
        order = keys.rng(keys.derive(self.key, "public", draw=draw)).random((*self.layout.replicate_shape, held)).argsort(-1)
        images = self._public[torch.from_numpy(order[..., :examples])].to(x[0].dtype)
        return images, None, self.loss.hidden(x, images), None

    def objective(self, x: Point) -> Tensor:
        """The loss f, the mean over clients of f_i, of the replicate shape."""
        return self.loss(x, self.everything)

    def evaluate(self, x: Point) -> dict[str, float]:
        """The training loss f, and the accuracy (0..1) on the test images; means over replicates."""
        return {"loss": float(self.objective(x).mean()), "accuracy": float(self.accuracy(x).mean())}

    def accuracy(self, x: Point) -> Tensor:
        """The share of the 359 test images that are classified rightly, of the replicate shape."""
        images, labels = self._test
        return (self.loss.logits(x, images.to(x[0].dtype)).argmax(-1) == labels).double().mean(-1)

    def describe(self) -> dict[str, Any]:
        """The options."""
        return dict(self._options)
