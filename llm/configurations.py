"""The papers' fine-tuning comparisons at full scale, one experiment per model and task, read from `llm/chosen/*.toml`.

A file holds what its model needs, the task's own settings, and the grid of learning rates, which is the same for every arm. What
the papers printed for these runs is not typed there again: a file names its rows of `paper/reported/`.
"""

from __future__ import annotations

import math
import tomllib
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from hiso_bench import methods
from hiso_bench.catalogue import ROOT
from hiso_bench.experiments import Plan
from hiso_bench.federation import FederationOptions
from hiso_bench.halving import Rungs
from llm.compare import ARMS, SAMPLED, Ceiling, Comparison

FOLDER = Path(__file__).resolve().parent / "chosen"
REPORTED = ROOT / "paper" / "reported"
_REFERENCE = methods.build("hiso", lr=1.0)
FIXED = {
    "arms": [arm.name for arm in ARMS],
    "sampled": SAMPLED,
    "P": _REFERENCE.perturbations,
    "mu": _REFERENCE.mu,
    "tau": FederationOptions().local_steps,
}
"""What a file says and cannot change: it is the same in every comparison of language models."""
_MODEL = ("model", "dtype", "device", "clients", "split", "alpha")
_TASK = ("batch_size", "max_length", "truncate", "train_limit")
_COMPARISON = ("evaluate_every", "evaluate_limit", "tuning_key", "keys")
_SEARCH = ("smallest", "octaves", "rounds", "survivors", "budget")
_CEILING = ("rates", "epochs", "train_limit")
_REPORTED = ("model", "tables")
_KEYS: dict[str, Collection[str]] = {
    "": (*FIXED, *_MODEL, *_COMPARISON, "search", "ceiling", "reported", "tasks"),
    "search": _SEARCH,
    "ceiling": _CEILING,
    "reported": _REPORTED,
}


class ConfigurationError(ValueError):
    """A file that is not in order; the message names file, key and what is allowed."""


@dataclass(frozen=True)
class Configuration(Comparison):
    """A comparison whose model is too large to be timed for a plan: what it costs is not known before it runs.

    Attributes:
        reported_model: the model as the papers' tables name it.
        reported_tables: the files of paper/reported/ that have it, without their ending.
    """

    reported_model: str = ""
    reported_tables: tuple[str, ...] = ()

    @property
    def grid(self) -> tuple[float, ...]:
        """The learning rates that every arm runs on the first rung, ascending; it grows where a winner lies at its edge."""
        return tuple(self.start * 2.0**i for i in range(self.rungs.octaves))

    def plan(self) -> Plan:
        """Runs as in every comparison, the first-order ones counted as runs; their time is NaN, not known."""
        arms = len(ARMS)
        runs = len(self.keys) * (arms + 1)
        return Plan(runs, arms * self.rungs.budget / self.rounds + len(self.ceiling.rates), math.nan)

    def reported(self) -> pd.DataFrame:
        """What the papers printed for this model and task: table, method, quantity, value, error, unit, ...

        Raises:
            FileNotFoundError: a table is not under paper/reported.
        """
        found = pd.concat([pd.read_csv(REPORTED / f"{table}.csv") for table in self.reported_tables])
        here = (self.reported_model, self.options["task"])
        return found.set_index(["model", "task"]).sort_index().loc[[here]].reset_index()


def read(path: Path) -> dict[str, Configuration]:
    """The experiments of a file, by name: <stem of the file>-<task>.

    Raises:
        ConfigurationError: it is no TOML, has an unknown or missing key, or a value that cannot be.
    """
    try:
        told = tomllib.loads(path.read_text())
    except tomllib.TOMLDecodeError as error:
        raise ConfigurationError(f"{path.name} is no TOML: {error}") from error
    for table, allowed in _KEYS.items():
        _exactly(path, table, told[table] if table else told, allowed)
    for name, value in FIXED.items():
        if told[name] != value:
            raise ConfigurationError(f"{path.name}: {name} is {told[name]!r}; allowed: {value!r}, as in every comparison")
    search, ceiling = told["search"], told["ceiling"]
    made = {}
    for task, own in told["tasks"].items():
        _exactly(path, f"tasks.{task}", own, (*_TASK, "rounds"))
        name = f"{path.stem}-{task}"
        try:
            rungs = Rungs(tuple(search["rounds"]), tuple(search["survivors"]), search["octaves"], search["budget"])
            made[name] = Configuration(
                name=name,
                profile="paper",
                table=f"llm_{name}",
                problem="lm",
                options={key: told[key] for key in _MODEL} | {key: own[key] for key in _TASK} | {"task": task},
                start=search["smallest"],
                rounds=own["rounds"],
                evaluate_every=told["evaluate_every"],
                evaluate_limit=told["evaluate_limit"],
                tuning_key=told["tuning_key"],
                keys=tuple(told["keys"]),
                ceiling=Ceiling(tuple(ceiling["rates"]), ceiling["epochs"], ceiling["train_limit"]),
                rungs=rungs,
                reported_model=told["reported"]["model"],
                reported_tables=tuple(told["reported"]["tables"]),
            )
        except (TypeError, ValueError) as error:
            raise ConfigurationError(f"{path.name}: {error}") from error
    return made


def _exactly(path: Path, table: str, told: Any, allowed: Collection[str]) -> None:
    """Refuse a table that does not have these keys and no others."""
    where = f"{path.name}: [{table}]" if table else f"{path.name}:"
    if not isinstance(told, Mapping):
        raise ConfigurationError(f"{where} is {told!r}; allowed: a table with the keys {', '.join(allowed)}")
    for key in told:
        if key not in allowed:
            raise ConfigurationError(f"{where} unknown key {key!r}; allowed: {', '.join(allowed)}")
    for key in allowed:
        if key not in told:
            raise ConfigurationError(f"{where} key {key!r} is missing; needed: {', '.join(allowed)}")


def files() -> list[Path]:
    """The files, by name."""
    return sorted(FOLDER.glob("*.toml"))


def __getattr__(name: str) -> Configuration:
    """The experiments by name, as the catalogue asks for them: `llm.configurations:opt-125m-sst2`."""
    path = FOLDER / f"{name.rpartition('-')[0]}.toml"
    if path.is_file() and name in (found := read(path)):
        return found[name]
    raise AttributeError(f"module {__name__} has no attribute {name!r}")
