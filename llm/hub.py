"""Where a model's files are: a local folder, the cache of the Hugging Face hub, or a download.

Whatever a model is called, it ends up as a folder that is complete (configuration, weights, tokenizer), so that a named model
and a local one take the same path from there. What the cache holds whole is not asked for again.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import logging
import types
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

EMBEDDED = "tiny-opt"
MADE = {
    EMBEDDED: ("llm.tiny", "pre-trained by this project on text that it generates"),
    "imdb-opt": ("llm.imdb", "pre-trained by this project on IMDB reviews"),
}
"""Models that this project makes itself: name -> (package whose `folder()` makes it where the user cache lacks it, a clause)."""
INSTEAD = f"use the embedded default {EMBEDDED!r}, or the local folder of a model that save_pretrained wrote"

_FILES = ("*.json", "*.txt", "*.model", "*.safetensors")
_OLD_WEIGHTS = "pytorch_model*.bin"
_IGNORED = ("*/*", "consolidated*")
_TOKENIZERS = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt", "spiece.model")
_WEIGHTS = ("model.safetensors", "pytorch_model.bin")
_PATIENCE = 5.0
"""Seconds that the hub has for an answer."""


class ModelError(ValueError):
    """A model that cannot be had, loaded or used; the message is one line that says why and what to do."""


def library(name: str) -> types.ModuleType:
    """A package of the extra `llm`, imported when it is first needed.

    Raises:
        ModelError: it is not installed.
    """
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        package = name.split(".")[0]
        if error.name != package:
            raise
        raise ModelError(f"language models need the package {package}; install the extra: pip install -e '.[llm]'") from error


@contextlib.contextmanager
def answering(*configured: Any) -> Iterator[None]:
    """Where the hub does not answer one request, let its libraries take what their caches hold, or fail, at once.

    They would try again for half a minute otherwise, and say so each time.

    Args:
        configured: what has a switch HF_HUB_OFFLINE of its own, beside the hub's library.

    Raises:
        ConnectionError: whatever failed inside, where the hub had not answered; the message says why not.
    """
    hub, logger = library("huggingface_hub"), logging.getLogger("huggingface_hub")
    places, level = (hub.constants, *configured), logger.level
    before = [place.HF_HUB_OFFLINE for place in places]
    silence: Exception | None = None
    try:
        hub.get_session().head(hub.constants.ENDPOINT, timeout=_PATIENCE)
    except Exception as error:  # of whatever HTTP library it uses
        silence = error
    logger.setLevel(logging.ERROR)
    try:
        for place, was in zip(places, before, strict=True):
            place.HF_HUB_OFFLINE = was or silence is not None
        yield
    except Exception as error:
        if silence is None:
            raise
        raise ConnectionError(f"{hub.constants.ENDPOINT} does not answer ({silence}), and the cache does not hold it") from error
    finally:
        for place, was in zip(places, before, strict=True):
            place.HF_HUB_OFFLINE = was
        logger.setLevel(level)


def locate(model: str) -> tuple[Path, str]:
    """The folder of a model, and a line that says where it comes from.

    Args:
        model: "tiny-opt" or "imdb-opt" (made here when it is not in the user cache), a local folder, or a name on the Hugging
            Face hub.

    Raises:
        ModelError: there is no such model, or it lacks files, or the hub cannot be reached and its cache does not hold the model.
        hiso_bench.datafiles.DataError: the text that "imdb-opt" is trained on is not at hand.
    """
    if model in MADE:
        library("transformers")
        package, said = MADE[model]
        return importlib.import_module(package).folder(), f"{model}, {said}"
    path = Path(model).expanduser()
    if model and path.is_dir():
        if reason := lacking(path):
            raise ModelError(f"folder {model} is no model: {reason}; {INSTEAD}")
        return path, f"local folder {path.resolve()}"
    if model and path.exists():
        raise ModelError(f"model {model!r} is a file, not a folder; {INSTEAD}")
    if model[:1] in ("", ".", "/", "~") or model.count("/") > 1:
        raise ModelError(f"model {model!r} is a folder that does not exist; {INSTEAD}")
    return _from_hub(model)


def lacking(folder: Path) -> str:
    """Why a folder is not a whole model: a clause, or nothing if it is one."""
    if (folder / "adapter_config.json").is_file() and not (folder / "config.json").is_file():
        return "it holds an adapter without its base model"
    if not (folder / "config.json").is_file():
        return "it has no config.json"
    if not any((folder / name).is_file() for name in _WEIGHTS) and (reason := _lacking_shards(folder)):
        return reason
    if not any((folder / name).is_file() for name in _TOKENIZERS):
        return "it has no tokenizer (tokenizer.json or the like)"
    return ""


def _lacking_shards(folder: Path) -> str:
    for index in (folder / f"{name}.index.json" for name in _WEIGHTS):
        if index.is_file():
            try:
                shards: set[str] = set(json.loads(index.read_text())["weight_map"].values())
            except (OSError, ValueError, LookupError, AttributeError) as error:
                return f"its {index.name} cannot be read ({type(error).__name__})"
            missing = sorted(shard for shard in shards if not (folder / shard).is_file())
            return f"it lacks {missing[0]} and {len(missing) - 1} more of its weight files" if missing else ""
    return f"it has no weights ({' or '.join(_WEIGHTS)})"


def _from_hub(name: str) -> tuple[Path, str]:
    folder = _snapshot(name, _FILES, local_files_only=True)
    if folder is None or lacking(folder):
        folder = _snapshot(name, _FILES)
        if folder is not None and lacking(folder):  # repositories of before safetensors
            folder = _snapshot(name, (*_FILES, _OLD_WEIGHTS))
    assert folder is not None
    if reason := lacking(folder):
        raise ModelError(f"model {name!r} of the Hugging Face hub cannot be used: {reason}; {INSTEAD}")
    return folder, f"{name} of the Hugging Face hub, commit {folder.name}"


def _snapshot(name: str, patterns: Sequence[str], local_files_only: bool = False) -> Path | None:
    """The folder of a snapshot; None if only the cache was asked and does not hold it."""
    hub, errors = library("huggingface_hub"), library("huggingface_hub.errors")
    options = {"allow_patterns": list(patterns), "ignore_patterns": list(_IGNORED), "local_files_only": local_files_only}
    try:
        return Path(hub.snapshot_download(name, **options))
    except errors.HFValidationError as error:
        raise ModelError(f"model {name!r} is neither a folder nor a possible name on the Hugging Face hub; {INSTEAD}") from error
    except errors.GatedRepoError as error:
        raise ModelError(f"model {name!r} is gated: accept its licence and log in (hf auth login); or {INSTEAD}") from error
    except errors.RepositoryNotFoundError as error:
        raise ModelError(f"model {name!r} is unknown: no such folder, and none on the Hugging Face hub; {INSTEAD}") from error
    except Exception as error:  # its client lets errors of its HTTP library through
        if local_files_only:
            return None
        cause = error.__cause__ or error
        told = f"{type(cause).__name__}: {' '.join(str(cause).split())}"[:120]
        raise ModelError(
            f"model {name!r} is no local folder, and the Hugging Face hub cannot be reached ({told}); {INSTEAD}"
        ) from error
