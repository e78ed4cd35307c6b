"""Image data sets as tensors: MNIST, Fashion-MNIST and the small digits that need no download."""

from __future__ import annotations

import functools
import gzip
import math
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from hiso_bench import datafiles
from hiso_bench.datafiles import DataError


@dataclass(frozen=True, eq=False)
class ImageData:
    """One data set, normalised; ``load`` shares it within the process, so do not write to the tensors.

    Attributes:
        train_x: float32, shape (N, 1, height, width).
        train_y: int64, shape (N,), in 0..classes-1.
        test_x: float32, shape (N', 1, height, width).
        test_y: int64, shape (N',).
        name: The name it was loaded by.
        source: Where the images come from, one line for figures and records.
        classes: Number of classes.
    """

    train_x: torch.Tensor
    train_y: torch.Tensor
    test_x: torch.Tensor
    test_y: torch.Tensor
    name: str
    source: str
    classes: int = 10


@dataclass(frozen=True)
class _IdxSet:
    """A data set of four idx files: folder, addresses, file -> SHA-256, and pixel statistics (0..1 scale)."""

    folder: str
    mirrors: tuple[str, ...]
    sha256: dict[str, str]
    mean: float
    std: float
    source: str

    def files(self) -> list[tuple[str, str, list[str]]]:
        """(relative name, SHA-256, addresses) of each file, in the order of ``sha256``."""
        return [(f"{self.folder}/{file}", sha, [mirror + file for mirror in self.mirrors]) for file, sha in self.sha256.items()]


# Files in the order train images, train labels, test images, test labels.
_IDX_SETS = {
    "mnist": _IdxSet(
        folder="mnist",
        mirrors=(
            "https://ossci-datasets.s3.amazonaws.com/mnist/",
            "https://storage.googleapis.com/cvdf-datasets/mnist/",
        ),
        sha256={
            "train-images-idx3-ubyte.gz": "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
            "train-labels-idx1-ubyte.gz": "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
            "t10k-images-idx3-ubyte.gz": "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
            "t10k-labels-idx1-ubyte.gz": "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
        },
        mean=0.1307,
        std=0.3081,
        source="MNIST (LeCun, Cortes, Burges), original idx files",
    ),
    "fashion": _IdxSet(
        folder="fashion_mnist",
        mirrors=(
            "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
            "https://github.com/zalandoresearch/fashion-mnist/raw/master/data/fashion/",
        ),
        sha256={
            "train-images-idx3-ubyte.gz": "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84",
            "train-labels-idx1-ubyte.gz": "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845",
            "t10k-images-idx3-ubyte.gz": "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073",
            "t10k-labels-idx1-ubyte.gz": "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5",
        },
        mean=0.2860,
        std=0.3530,
        source="Fashion-MNIST (Zalando SE, MIT licence), original idx files",
    ),
}


def load(name: str) -> ImageData:
    """The data set ``name``, read once per process.

    Args:
        name: ``"mnist"`` or ``"fashion"`` (60,000 + 10,000 images of 28x28), or ``"digits"`` (1,438 +
            359 images of 8x8, shipped with scikit-learn, so always at hand).

    Returns:
        The data set, its pixels scaled to about mean 0 and standard deviation 1 over the training part.

    Raises:
        DataError: A file is missing and cannot be downloaded, or is damaged.
        ValueError: ``name`` is not one of ``NAMES``.
    """
    _check_name(name)
    return _load(name)


def available(name: str) -> bool:
    """Whether ``load(name)`` would succeed without a download.

    Raises:
        DataError: ``$HISO_BENCH_DATA`` is set to something that is not a folder.
        ValueError: ``name`` is not one of ``NAMES``.
    """
    _check_name(name)
    return name == "digits" or all(datafiles.available(file, sha) for file, sha, _ in _IDX_SETS[name].files())


def parse_idx(raw: bytes, ndim: int, what: str) -> NDArray[np.uint8]:
    """The array in the bytes of an (unpacked) idx file of unsigned bytes.

    The format: two zero bytes, the type (8 for unsigned bytes), the number of dimensions, each
    dimension as a big-endian 32-bit integer, then the entries in C order.

    Args:
        raw: Whole content of the file.
        ndim: Number of dimensions it must have (3 for images, 1 for labels).
        what: Name of the file, for messages.

    Returns:
        A read-only uint8 array of ``ndim`` dimensions.

    Raises:
        DataError: The magic number is another, or the length disagrees with the dimensions.
    """
    magic, expected = raw[:4], bytes([0, 0, 8, ndim])
    if magic != expected:
        raise DataError(
            f"{what} starts with bytes {magic.hex() or 'none'}, expected {expected.hex()} "
            f"(idx, unsigned bytes, {ndim} dimensions); replace the file"
        )
    start = 4 + 4 * ndim
    if len(raw) < start:
        raise DataError(f"{what} ends within its header, {len(raw)} of {start} bytes; replace the file")
    shape = struct.unpack(f">{ndim}I", raw[4:start])
    if len(raw) - start != math.prod(shape):
        raise DataError(
            f"{what} holds {len(raw) - start} bytes of data, expected {math.prod(shape)} "
            f"for dimensions {'x'.join(map(str, shape))}; replace the file"
        )
    return np.frombuffer(raw, dtype=np.uint8, offset=start).reshape(shape)


def read_pair(images: Path, labels: Path) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Images, uint8 (N, height, width), and their labels, uint8 (N,), from two gzipped idx files.

    Raises:
        DataError: A file is not a whole gzipped idx file, the two differ in N, or a label is above 9.
    """
    x = parse_idx(_unpacked(images), 3, str(images))
    y = parse_idx(_unpacked(labels), 1, str(labels))
    if len(x) != len(y):
        raise DataError(f"{images} holds {len(x)} images, {labels} {len(y)} labels; replace the wrong one")
    if y.max(initial=0) > 9:
        raise DataError(f"{labels} holds label {y.max()}, expected 0 to 9; replace the file")
    return x, y


def _unpacked(path: Path) -> bytes:
    try:
        with gzip.open(path) as file:
            return file.read()
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path} cannot be unpacked ({error}); replace the file") from error


def _check_name(name: str) -> None:
    if name not in NAMES:
        raise ValueError(f"data set is {name!r}; allowed: {', '.join(NAMES)}")


@functools.cache
def _load(name: str) -> ImageData:
    return _LOADERS[name]()


def _idx(name: str) -> ImageData:
    idx = _IDX_SETS[name]
    train_x, train_y, test_x, test_y = (datafiles.find(*file) for file in idx.files())
    train, test = read_pair(train_x, train_y), read_pair(test_x, test_y)
    return _image_data(name, idx.source, train, test, 255 * idx.mean, 255 * idx.std)


def _digits() -> ImageData:
    """scikit-learn's handwritten digits; of each class every fifth image, in file order, is for testing.

    A split by position needs no random numbers, so it is the same in every version of every library. Like a
    random split, and unlike MNIST's, it puts images by the same writer on both sides.
    """
    # Imported here: it takes a second, and the idx sets do not need it.
    from sklearn.datasets import load_digits

    flat, y = map(np.asarray, load_digits(return_X_y=True))
    x = flat.reshape(-1, 8, 8)
    test = np.zeros(len(y), dtype=bool)
    for label in range(10):
        # Starting from the third leaves 359 of 1,797, the nearest to a fifth.
        test[np.flatnonzero(y == label)[2::5]] = True
    train_x = x[~test]
    source = "digits (scikit-learn load_digits, real 8x8 handwritten digits), fixed stratified 80/20 split"
    return _image_data("digits", source, (train_x, y[~test]), (x[test], y[test]), float(train_x.mean()), float(train_x.std()))


def _image_data(
    name: str,
    source: str,
    train: tuple[NDArray, NDArray],
    test: tuple[NDArray, NDArray],
    mean: float,
    std: float,
) -> ImageData:
    """Tensors from raw images and labels; ``mean`` and ``std`` on the raw pixel scale."""

    def images(raw: NDArray) -> torch.Tensor:
        return torch.from_numpy(raw.astype(np.float32)).sub_(mean).div_(std).unsqueeze(1)

    def labels(raw: NDArray) -> torch.Tensor:
        return torch.from_numpy(raw.astype(np.int64))

    return ImageData(images(train[0]), labels(train[1]), images(test[0]), labels(test[1]), name, source)


_LOADERS: dict[str, Callable[[], ImageData]] = {
    **{name: functools.partial(_idx, name) for name in _IDX_SETS},
    "digits": _digits,
}
NAMES = tuple(_LOADERS)
