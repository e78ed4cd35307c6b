"""FedAvg (arXiv 1602.05629) and what is sent in place of its dense uplink: top-k, quantised, one bit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from hiso_bench.first_order.base import FirstOrder
from hiso_bench.first_order.codecs import Codec, Quantised, Sign, TopK
from hiso_bench.methods import register
from hiso_bench.methods.base import require


@dataclass(frozen=True, kw_only=True)
class FedAvg(FirstOrder):
    """x <- x + lr mean_i D_i; lr = 1 averages the clients' models."""

    lr: float = 1.0


@dataclass(frozen=True, kw_only=True)
class FedAvgTopK(FedAvg):
    """FedAvg whose clients send the largest entries of their change only, which is biased.

    Error feedback makes it converge where it would not (arXiv 1809.07599; with any such compressor, 1901.09847; there every
    worker takes part in every round, here one that is not sampled keeps its rest until it is). The other compressors here have
    none: the codes of `FedCom` are unbiased, and a vote sends no magnitude that would leave a rest; signs with feedback are
    another method, EF-signSGD, whose payload has a scale.

    Attributes:
        share: of the entries that a top-k uplink holds, 0 < share <= 1.
        error_feedback: a client adds to its change what it has not sent of earlier ones.
    """

    share: float = 0.1
    error_feedback: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        require(0 < self.share <= 1, "share", self.share, "0 < share <= 1")

    @property
    def remembers(self) -> bool:
        """As the option says."""
        return self.error_feedback

    def codec(self, wire: str) -> Codec:
        """Index and value of every entry sent."""
        return TopK(self.share, wire)


@dataclass(frozen=True, kw_only=True)
class FedCom(FedAvg):
    """FedCOM (arXiv 2007.01154): FedAvg with an unbiased quantiser on the uplink, here `codecs.Quantised`.

    Attributes:
        bits: per entry of a quantised uplink, 2 to 16.
    """

    bits: int = 8

    def __post_init__(self) -> None:
        super().__post_init__()
        require(2 <= self.bits <= 16, "bits", self.bits, ">= 2 and <= 16")

    def codec(self, wire: str) -> Codec:
        """Fixed-length codes; the wire's dtype is used on the downlink alone."""
        return Quantised(self.bits)


@dataclass(frozen=True, kw_only=True)
class SignVote(FirstOrder):
    """One bit an entry, and the server moves by the majority's sign (signSGD with majority vote, arXiv 1810.05291).

    x <- x + lr sign(sum_i sign(D_i)); a tie does not move. With one local step client_lr changes nothing. Unlike the published
    one the downlink is the dense model, as a client that was away needs it whole.
    """

    def codec(self, wire: str) -> Codec:
        """One bit an entry."""
        return Sign()

    def aggregate(self, changes: Sequence[np.ndarray]) -> np.ndarray:
        """The sign of the votes' sum."""
        return np.sign(np.sum(changes, axis=0))


register("fedavg", FedAvg)
register("fedavg-topk", FedAvgTopK)
register("fedcom", FedCom)
register("fedavg-sign", SignVote)
