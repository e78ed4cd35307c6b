"""Data files by relative name and pinned SHA-256: look them up, or download them.

A file is the first hit among ``$HISO_BENCH_DATA``, ``./data`` and the user cache
(``$XDG_CACHE_HOME/hiso_bench``, by default ``~/.cache/hiso_bench``); failing that it is
downloaded into the user cache. Its hash is verified wherever it came from, so two results
that name the same file were computed from the same bytes. A hit with the wrong hash is an
error, not a reason to look further: skipping it would hide that the file is damaged.
"""

from __future__ import annotations

import functools
import hashlib
import http.client
import os
import tempfile
import urllib.request
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from tqdm import tqdm

ENV = "HISO_BENCH_DATA"
TIMEOUT_SECONDS = 10.0
_CHUNK = 1 << 18


class DataError(OSError):
    """A data file is missing, damaged or unreadable; the message is one line and says what to do."""


def find(relative_name: str, sha256: str, urls: Sequence[str] = ()) -> Path:
    """Path of a verified data file, downloaded into the user cache where no folder holds it.

    Args:
        relative_name: Path below a data folder, with forward slashes, such as ``mnist/x.gz``.
        sha256: Expected SHA-256 of the file, 64 lower-case hexadecimal digits.
        urls: Addresses to try in this order; with none, nothing is downloaded.

    Returns:
        Path of an existing file whose hash is ``sha256``. A file is hashed once per process
        for each (path, modification time, size).

    Raises:
        DataError: The file is nowhere and could not be downloaded, the file found has another
            hash or cannot be read, or ``$HISO_BENCH_DATA`` is not a folder.
        ValueError: ``relative_name`` is absolute, empty or contains ``..``.
    """
    path = locate(relative_name)
    if path is None:
        return _download(relative_name, sha256, urls)
    actual = sha256_of(path)
    if actual != sha256:
        raise DataError(
            f"{path} is not the expected {relative_name}: its sha256 is {actual}, expected {sha256}; "
            f"delete or replace it, or set {ENV} to a folder that holds the right file"
        )
    return path


def available(relative_name: str, sha256: str) -> bool:
    """Whether ``find`` would succeed without a download (no network access).

    Raises:
        DataError: ``$HISO_BENCH_DATA`` is set to something that is not a folder.
        ValueError: ``relative_name`` is absolute, empty or contains ``..``.
    """
    path = locate(relative_name)
    try:
        return path is not None and sha256_of(path) == sha256
    except DataError:
        return False


def cache_folder() -> Path:
    """The user cache of this package, whether or not it exists yet."""
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "hiso_bench"


def folders() -> list[tuple[str, Path]]:
    """(name for messages, folder) in the order of the search.

    Raises:
        DataError: ``$HISO_BENCH_DATA`` is set to something that is not a folder.
    """
    found = []
    value = os.environ.get(ENV)
    if value:
        folder = Path(value).expanduser()
        if not folder.is_dir():
            raise DataError(f"{ENV}={value} is not an existing folder; set it to the folder with the data, or unset it")
        found.append((f"{ENV}={value}", folder))
    for folder in (Path.cwd() / "data", cache_folder()):
        found.append((str(folder), folder))
    return found


def locate(relative_name: str) -> Path | None:
    """First existing file of that name, unverified: for files whose layout matters and whose bytes are named in the result.

    Raises:
        DataError: ``$HISO_BENCH_DATA`` is set to something that is not a folder.
        ValueError: ``relative_name`` is absolute, empty or contains ``..``.
    """
    pure = PurePosixPath(relative_name)
    if pure.is_absolute() or ".." in pure.parts or not pure.parts:
        raise ValueError(f"relative_name is {relative_name!r}; allowed: a path below a data folder, without '..'")
    candidates = (folder / pure for _, folder in folders())
    return next((path for path in candidates if path.is_file()), None)


def sha256_of(path: Path) -> str:
    """SHA-256 of a file, computed once per process for each (path, modification time, size).

    Raises:
        DataError: It cannot be read.
    """
    try:
        stat = path.stat()
        return _digest(path.resolve(), stat.st_mtime_ns, stat.st_size)
    except OSError as error:
        raise DataError(f"{path} cannot be read ({_reason(error)}); make it readable or remove it") from error


@functools.cache
def _digest(path: Path, mtime_ns: int, size: int) -> str:
    """SHA-256 of a file; the other arguments are there to notice that the file has changed."""
    del mtime_ns, size
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _download(relative_name: str, sha256: str, urls: Sequence[str]) -> Path:
    target = cache_folder() / PurePosixPath(relative_name)
    failures = []
    for url in urls:
        try:
            _fetch(url, sha256, target)
        # http.client's errors (a body cut short, for one) are not OSErrors; urllib's are.
        except (OSError, http.client.HTTPException, DataError) as error:
            failures.append(f"{url}: {_reason(error)}")
        else:
            return target
    tried = f"download failed ({'; '.join(failures)})" if failures else "no download address is known"
    raise DataError(
        f"{relative_name} not found in {', '.join(name for name, _ in folders())}, and {tried}; "
        f"set {ENV} to a folder that holds {relative_name}"
    )


def _fetch(url: str, sha256: str, target: Path) -> None:
    """Download to a temporary name beside ``target``, verify, rename.

    The rename is atomic: a reader sees the whole verified file or none, also where several
    processes download it at once.
    """
    with urllib.request.urlopen(url, timeout=TIMEOUT_SECONDS) as response:
        # Only now, so that a machine without a network keeps no empty folders.
        target.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
        try:
            with os.fdopen(handle, "wb") as file:
                actual = _copy(response, file, target.name)
            if actual != sha256:
                raise DataError(f"sha256 is {actual}, expected {sha256}")
            os.replace(temporary, target)
        finally:
            Path(temporary).unlink(missing_ok=True)


def _copy(response: http.client.HTTPResponse, file: BinaryIO, label: str) -> str:
    """Write the body to ``file`` and return its SHA-256."""
    hasher = hashlib.sha256()
    # disable=None shows the bar on a terminal only.
    with tqdm(total=_length(response), unit="B", unit_scale=True, desc=label, disable=None) as bar:
        while chunk := response.read(_CHUNK):
            hasher.update(chunk)
            file.write(chunk)
            bar.update(len(chunk))
    return hasher.hexdigest()


def _length(response: http.client.HTTPResponse) -> int | None:
    """Announced size in bytes, where the server says (for the progress bar only)."""
    value = response.headers.get("Content-Length", "")
    return int(value) if value.isdigit() else None


def _reason(error: Exception) -> str:
    """The error's own words on one line, or its class where it has none."""
    return " ".join(str(error).split()) or type(error).__name__
