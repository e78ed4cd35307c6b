"""Next-token prediction with rare tokens: a language model so small that its Hessian is exact, on a source that is known.

Tokens 0..V-1 have Zipf frequencies a^-zipf as contexts; the next token b follows context a with chance proportional to
b^-zipf exp(u_a . v_b), u and v drawn from the key. The model is an embedding E (V, width) and a linear read-out R (V, width) with
bias c: logits R E_a + c. The loss is the exact cross-entropy under the source, so there are no data to draw.

A token's rows of E are seen as often as the token, so the curvature of a rare token's row is smaller by its frequency. That is
what adaptive methods are said to repair in language models; whether a diagonal H does so here is measured in `learned_h.gap`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from hiso_bench import keys
from hiso_bench.classification import Rows, SoftmaxLoss
from hiso_bench.methods.base import require
from hiso_bench.points import Layout, Point


class BigramLoss(SoftmaxLoss):
    """Cross-entropy of R E_a + c over contexts a; a point is (E, R, c), and the rows of a batch are the V contexts."""

    def logits(self, x: Point, inputs: Tensor | None) -> Tensor:
        """The logits of every context, (*replicates, V, V). `inputs` is not used."""
        embedding, readout, offset = x
        return embedding @ readout.mT + offset.unsqueeze(-2)


class RareTokens:
    """The problem above, in float64.

    Args:
        vocabulary: V; d = V (2 width + 1).
        width: of the embedding.
        zipf: exponent of the frequencies, >= 0; 0 makes all tokens equally frequent.
        structure: standard deviation of u_a . v_b, the part of the next token that depends on the context.
        clients: M.
        skew: clients' u are the common one plus `skew` times one of their own.
        batch_size: pairs (context, next token) per client and local step, drawn from its source; 0 takes the source itself.
        replicates: replicate shape.
        key: 64-bit key of source, initial point and batches.

    Raises:
        ValueError: an option out of range.
    """

    name = "rare-tokens"
    metric = "loss"
    higher_is_better = False

    def __init__(
        self,
        vocabulary: int = 64,
        width: int = 8,
        zipf: float = 1.0,
        structure: float = 1.5,
        clients: int = 1,
        skew: float = 0.0,
        batch_size: int = 0,
        replicates: tuple[int, ...] = (),
        key: int = 0,
    ) -> None:
        require(vocabulary >= 2, "vocabulary", vocabulary, ">= 2")
        require(width >= 1, "width", width, ">= 1")
        require(zipf >= 0, "zipf", zipf, ">= 0")
        require(structure >= 0, "structure", structure, ">= 0")
        require(clients >= 1, "clients", clients, ">= 1")
        require(skew >= 0, "skew", skew, ">= 0")
        require(batch_size >= 0, "batch_size", batch_size, ">= 0 (0: the source itself)")
        self._options = dict(
            vocabulary=vocabulary, width=width, zipf=zipf, structure=structure, skew=skew, batch_size=batch_size,
            replicates=list(replicates), key=key,
        )  # fmt: skip
        self.clients, self.batch_size, self.key = clients, batch_size, key
        self.layout = Layout(((vocabulary, width), (vocabulary, width), (vocabulary,)), tuple(replicates))
        frequencies = np.arange(1.0, vocabulary + 1) ** -zipf
        self.frequencies = frequencies / frequencies.sum()
        """Of contexts, (V,), the same for all clients."""
        draw = keys.rng(keys.derive(key, "source"))
        u = draw.standard_normal((vocabulary, width)) + skew * draw.standard_normal((clients, vocabulary, width))
        v = draw.standard_normal((vocabulary, width))
        scores = np.log(self.frequencies) + structure * u @ v.T / np.sqrt(width)
        chances = np.exp(scores - scores.max(-1, keepdims=True))
        self.source = self.frequencies[:, None] * chances / chances.sum(-1, keepdims=True)
        """The chance of each pair (context, next token), (M, V, V)."""
        self._source = torch.from_numpy(self.source)
        self.everything = Rows(None, self._source.mean(0))
        """The mean over clients of their sources: the loss on it is f."""
        self.loss = BigramLoss()

    def initial(self) -> Point:
        """Embedding and read-out normal with standard deviation 0.1, from `key`; no bias."""
        draw = keys.rng(keys.derive(self.key, "init"))
        *rows, offset = self.layout.leaf_shapes
        leaves = [0.1 * draw.standard_normal(shape) for shape in rows] + [np.zeros(offset)]
        return tuple(torch.from_numpy(leaf).expand(self.layout.shape(i)).clone() for i, leaf in enumerate(leaves))

    def batch(self, client: np.ndarray, round_: int, step: int) -> Rows:
        """The client's source, or the frequencies of `batch_size` pairs drawn from it for every round, step and replicate."""
        if not self.batch_size:
            return Rows(None, self._source[0] if self.clients == 1 else self._source[torch.as_tensor(client)])
        draw = keys.batch_rng(self.key, client, round_, step)
        source = self.source[client]
        counts = draw.multinomial(self.batch_size, source.reshape(*source.shape[:-2], -1)).reshape(source.shape)
        return Rows(None, torch.from_numpy(counts / self.batch_size))

    @property
    def entropy(self) -> float:
        """The least loss that any model of the mean source could reach: its conditional entropy in nats."""
        joint = self.source.mean(0)
        return float(-(joint * np.log(joint / joint.sum(-1, keepdims=True))).sum())

    def objective(self, x: Point) -> Tensor:
        """The loss f, the mean over clients of f_i, of the replicate shape."""
        return self.loss(x, self.everything)

    def evaluate(self, x: Point) -> dict[str, float]:
        """The loss f, and its excess over the conditional entropy of the mean source; means over replicates."""
        loss = float(self.objective(x).mean())
        return {"loss": loss, "excess": loss - self.entropy}

    def describe(self) -> dict[str, Any]:
        """The options."""
        return dict(self._options)
