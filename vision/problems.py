"""Federated image classification: real images, split over clients, a small CNN, cross-entropy."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch.nn import functional as F

from hiso_bench import keys
from hiso_bench.losses import Batch, ModuleLoss, cross_entropy, layout_of
from hiso_bench.methods.base import require
from hiso_bench.partition import dirichlet, iid, sample_batch
from hiso_bench.points import Point, clone
from vision import data, models

SPLITS = ("dirichlet", "iid")
PARTS = ("test", "validation")
DEFAULT_MODEL = {"mnist": "paper_cnn", "fashion": "paper_cnn", "digits": "small_cnn"}
# Set aside from the training images of every run, whatever its key: rates are chosen here, results come from the test images.
_VALIDATION_KEY = keys.derive(0, "validation")
_EVALUATION_CHUNK = 500


class ImageLoss(ModuleLoss):
    """A module loss whose convolutions run channels-last, which is about twice as fast on the CPU.

    A batched backward pass (columns of a Jacobian, as in `curvature.gauss_newton_diagonal`) knows no memory formats either: torch
    says so, and mode `vmap` is the one for it.
    """

    def outputs(self, x: Point, *args: Any, **kwargs: Any) -> Any:
        """The network's output; `vmap` knows no memory formats and keeps the default one."""
        if self.mode != "vmap":
            # `.to`, not `.contiguous`: a kernel of one input channel counts as contiguous in both formats and would not change.
            x = tuple(w.to(memory_format=torch.channels_last) if w.ndim == 4 else w for w in x)
        return super().outputs(x, *args, **kwargs)


class ImageProblem:
    """A data set, its clients and its model.

    Args:
        dataset: "mnist", "fashion" or "digits".
        clients: M.
        split: "dirichlet" (label-skewed, every client at least 4 images) or "iid".
        alpha: concentration of the Dirichlet split.
        batch_size: images per client and local step; drawn with replacement where a client holds fewer.
        mode: evaluation mode of the loss.
        evaluate_on: "test", or "validation": images set aside from training in every run (min(5000, a fifth)).
        model: a network of `vision.models`; the data set's own by default.
        short_batches: batches as of a loader that deals a client's n images out in epochs and keeps the rest: of the ceil(n / B)
            batches of an epoch one is short; a step draws which it gets. Mode `loop`, where losses are evaluated together.
        set_aside: whether the validation images are; False trains on all of the training part, as published runs do.
        key: 64-bit key of split, initial model and batches.

    Raises:
        ValueError: an option out of range.
        hiso_bench.datafiles.DataError: the images are not at hand.
    """

    metric = "accuracy"
    higher_is_better = True

    def __init__(
        self,
        dataset: str = "digits",
        clients: int = 64,
        split: str = "dirichlet",
        alpha: float = 1.0,
        batch_size: int = 32,
        mode: str = "clients",
        evaluate_on: str = "test",
        model: str = "",
        set_aside: bool = True,
        short_batches: bool = False,
        key: int = 0,
    ) -> None:
        require(dataset in data.NAMES, "dataset", dataset, ", ".join(data.NAMES))
        require(split in SPLITS, "split", split, ", ".join(SPLITS))
        require(batch_size >= 1, "batch_size", batch_size, ">= 1")
        require(evaluate_on in PARTS, "evaluate_on", evaluate_on, ", ".join(PARTS))
        require(set_aside or evaluate_on == "test", "set_aside", set_aside, "True where evaluate_on is validation")
        self.name, self.clients, self.key, self.batch_size, self.evaluate_on = dataset, clients, key, batch_size, evaluate_on
        self._options = dict(split=split, alpha=alpha, batch_size=batch_size, mode=mode, evaluate_on=evaluate_on, key=key)
        # Told where they are not the defaults: ledgers from before they were there go on.
        self._options |= {"model": model} if model else {}
        self._options |= ({} if set_aside else {"set_aside": False}) | ({"short_batches": True} if short_batches else {})
        self._short = short_batches
        images = data.load(dataset)
        self.source = images.source
        order = keys.rng(_VALIDATION_KEY).permutation(len(images.train_y))
        held_out = min(5000, len(order) // 5) if set_aside else 0
        validation, train = np.sort(order[:held_out]), np.sort(order[held_out:])
        self._x, self._y = images.train_x[train], images.train_y[train]
        self._part = (
            (images.test_x, images.test_y) if evaluate_on == "test" else (images.train_x[validation], images.train_y[validation])
        )
        rng = keys.rng(keys.derive(key, "split"))
        self._owned = iid(len(train), clients, rng) if split == "iid" else dirichlet(self._y.numpy(), clients, alpha, rng)
        # 32 bits of a hashed key are enough here: one draw per run, and no key is near another.
        generator = torch.Generator().manual_seed(keys.derive(key, "init") % 2**32)
        self.loss = ImageLoss(models.build(model or DEFAULT_MODEL[dataset], generator), cross_entropy, mode)
        self.layout = layout_of(self.loss)

    def initial(self) -> Point:
        """The model's initial parameters: float32, drawn from the key."""
        return self.loss.base_point()

    def batch(self, client: np.ndarray, round_: int, step: int) -> Batch:
        """(images (n, 1, height, width), labels (n,)) of a client; n is the batch size, or that of a short batch."""
        rng = keys.rng(keys.derive(self.key, "batch", client=int(client), round=round_, step=step))
        owned, size = self._owned[int(client)], self.batch_size
        if self._short:
            full = (len(owned) - 1) // size
            size = size if rng.integers(full + 1) < full else len(owned) - full * size
        index = torch.from_numpy(sample_batch(owned, size, rng))
        return self._x[index], self._y[index]

    def evaluate(self, x: Point) -> dict[str, float]:
        """Per-example mean loss and accuracy (0..1) over the evaluation images."""
        total, hits = 0.0, 0
        point = clone(x)
        with torch.inference_mode():
            for images, labels in zip(*(part.split(_EVALUATION_CHUNK) for part in self._part), strict=True):
                logits = self.loss.outputs(point, images)
                total += float(F.cross_entropy(logits, labels, reduction="none").double().sum())
                hits += int((logits.argmax(-1) == labels).sum())
        return {"loss": total / len(self._part[1]), "accuracy": hits / len(self._part[1])}

    def describe(self) -> dict[str, Any]:
        """The options."""
        return dict(self._options)
