"""How a vector becomes bytes on the uplink: dense, top-k, quantised, one bit. All numbers are little-endian.

A codec is agreed once, so a payload carries no shapes. `decode(encode(v))` is what the server knows of v. Vectors are finite:
some codecs cannot say what is not, so a client checks before it encodes.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Protocol

import numpy as np

_SCALE = struct.Struct("<f")
_INDEX = np.dtype("<u4")


class Codec(Protocol):
    """Vector -> bytes -> vector."""

    def encode(self, vector: np.ndarray, rng: np.random.Generator) -> bytes:
        """The payload of a float64 vector (d,); `rng` is the client's own, for rounding at random."""
        ...

    def decode(self, payload: bytes, d: int) -> np.ndarray:
        """The float64 vector (d,) of a payload.

        Raises:
            ValueError: the payload has not the length that d coordinates have.
        """
        ...


@dataclass(frozen=True)
class Dense:
    """d numbers of the wire's dtype: 4 d bytes in float32."""

    dtype: str

    def encode(self, vector: np.ndarray, rng: np.random.Generator) -> bytes:
        """Round to the wire dtype."""
        with np.errstate(over="ignore"):  # what overflows becomes infinite, and the server's check reports it
            return vector.astype(_little(self.dtype)).tobytes()

    def decode(self, payload: bytes, d: int) -> np.ndarray:
        """The numbers."""
        _check(payload, d * _little(self.dtype).itemsize)
        return np.frombuffer(payload, _little(self.dtype)).astype(np.float64)


@dataclass(frozen=True)
class TopK:
    """The k = max(1, round(share * d)) entries of largest magnitude: k times (index u32, value). Biased: the rest is dropped.

    Ties go to the lower index. A codec has no memory: what it drops is kept, if at all, by the client (`FirstOrder.remembers`).
    """

    share: float
    dtype: str

    def _count(self, d: int) -> int:
        return max(1, round(self.share * d))

    def encode(self, vector: np.ndarray, rng: np.random.Generator) -> bytes:
        """Indices, ascending, then values."""
        kept = np.sort(np.argsort(-np.abs(vector), kind="stable")[: self._count(len(vector))])
        return kept.astype(_INDEX).tobytes() + Dense(self.dtype).encode(vector[kept], rng)

    def decode(self, payload: bytes, d: int) -> np.ndarray:
        """Zeros but for the entries sent."""
        k = self._count(d)
        _check(payload, k * (_INDEX.itemsize + _little(self.dtype).itemsize))
        out = np.zeros(d)
        out[np.frombuffer(payload, _INDEX, k)] = Dense(self.dtype).decode(payload[k * _INDEX.itemsize :], k)
        return out


@dataclass(frozen=True)
class Quantised:
    """b bits an entry: v_i -> scale * q_i / s, s = 2^(b-1) - 1 levels of either sign, q_i rounded at random so that E = v.

    QSGD (arXiv 1610.02132) with the largest magnitude as the scale in place of the Euclidean norm, fixed-length codes, one scale
    for the whole vector: ceil(b d / 8) + 4 bytes. The variance of an entry is at most scale^2 / (4 s^2), unbiased up to the
    scale's rounding to float32, which is upwards so that no entry exceeds it.
    """

    bits: int

    @property
    def levels(self) -> int:
        """S."""
        return 2 ** (self.bits - 1) - 1

    def encode(self, vector: np.ndarray, rng: np.random.Generator) -> bytes:
        """The scale, then every entry's level as an unsigned code of b bits."""
        largest = float(np.abs(vector).max(initial=0.0))
        with np.errstate(over="ignore"):
            scale = np.float32(largest)
        if np.isfinite(scale) and float(scale) < largest:
            scale = np.nextafter(scale, np.float32(np.inf))
        # At a scale of zero every entry is zero; one beyond float32 is infinite, and the decoder sees it.
        unit = vector / float(scale) * self.levels if 0 < scale < np.inf else np.zeros_like(vector)
        low = np.floor(unit)
        codes = (low + (rng.random(len(vector)) < unit - low)).astype(np.int64) + self.levels
        planes = (codes[:, None] >> np.arange(self.bits)[::-1]) & 1
        return _SCALE.pack(float(scale)) + np.packbits(planes.astype(np.uint8)).tobytes()

    def decode(self, payload: bytes, d: int) -> np.ndarray:
        """Scale times level / s."""
        _check(payload, _SCALE.size + (d * self.bits + 7) // 8)
        (scale,) = _SCALE.unpack_from(payload)
        planes = np.unpackbits(np.frombuffer(payload, np.uint8, offset=_SCALE.size), count=d * self.bits).reshape(d, self.bits)
        codes = planes.astype(np.int64) @ (1 << np.arange(self.bits)[::-1])
        with np.errstate(invalid="ignore"):  # an infinite scale gives a NaN, which the server's check reports
            return scale * (codes - self.levels) / self.levels


@dataclass(frozen=True)
class Sign:
    """One bit an entry, ceil(d / 8) bytes: +1 where v_i >= 0, else -1. The magnitude is not sent."""

    def encode(self, vector: np.ndarray, rng: np.random.Generator) -> bytes:
        """The bits."""
        return np.packbits(vector >= 0).tobytes()

    def decode(self, payload: bytes, d: int) -> np.ndarray:
        """+1 and -1."""
        _check(payload, (d + 7) // 8)
        return np.unpackbits(np.frombuffer(payload, np.uint8), count=d) * 2.0 - 1


def _little(dtype: str) -> np.dtype:
    return np.dtype(dtype).newbyteorder("<")


def _check(payload: bytes, due: int) -> None:
    if len(payload) != due:
        raise ValueError(f"a payload of {len(payload)} bytes where {due} are due")
