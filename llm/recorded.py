"""Recorded comparisons as they are read: from a table and its sidecar, whether it holds all its keys or some."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from hiso_bench import catalogue, records
from hiso_bench.summaries import Curves, curves
from llm import tasks
from llm.compare import ARMS, CEILING, WHOLE, Comparison

SCALAR_BYTES = 4


@dataclass(frozen=True, eq=False)
class Recorded:
    """A comparison that has a table, of all or of some of its keys."""

    experiment: Comparison
    frame: pd.DataFrame
    about: dict[str, Any]
    at_edge: tuple[str, ...] = ()
    """Arms whose rate lies at an edge of their grid."""

    @property
    def config(self) -> dict[str, Any]:
        """What the table was computed from."""
        return self.about["config"]

    @property
    def task(self) -> str:
        """The task's name."""
        return self.config["task"]

    @property
    def metric(self) -> str:
        """The task's headline metric."""
        return tasks.get(self.task).metric

    @property
    def label(self) -> str:
        """Model and task as the first two cells of a row; says so if keys are missing."""
        done, planned = len(self.config["keys"]), len(self.config["planned"])
        partial = f" **partial: {done} of {planned} keys**" if done < planned else ""
        return f"{self.config['model']} | {self.task}{partial}"

    @property
    def arms(self) -> list[str]:
        """The arms that it holds, in the usual order."""
        return [arm.name for arm in ARMS if arm.name in set(self.frame["arm"])]

    def curves(self) -> Curves:
        """The headline metric's curves."""
        return curves(self.frame, self.metric, self.arms)

    def final(self, arm: str, name: str = "") -> np.ndarray:
        """A whole-test metric (default: the headline) of an arm's last evaluation, (keys,); NaN for runs that diverged."""
        last = self._whole(arm, name or self.metric).sort_values("round").groupby("key")["value"].last()
        return last.reindex(self.config["keys"]).to_numpy(float)

    def zero_shot(self) -> np.ndarray:
        """The headline metric on the whole test part before fine-tuning, (keys,)."""
        whole = self._whole(CEILING.name, self.metric)
        return pd.DataFrame(whole[whole["round"] == 0]).set_index("key")["value"].reindex(self.config["keys"]).to_numpy(float)

    def _whole(self, arm: str, metric: str) -> pd.DataFrame:
        return pd.DataFrame(self.frame[(self.frame["arm"] == arm) & (self.frame["metric"] == WHOLE + metric)])

    def kilobytes(self, rounds: float) -> float:
        """What one client sends and receives in these rounds, as the papers count it."""
        return rounds * 2 * SCALAR_BYTES * self.config["P"] / 1024


def comparisons() -> list[Comparison]:
    """Every comparison of language models in the catalogue."""
    found = [catalogue.load(target) for target in catalogue.EXPERIMENTS.values() if target.startswith("llm.")]
    return [experiment for experiment in found if isinstance(experiment, Comparison)]


def recorded(results: Path, experiments: Iterable[Comparison]) -> list[Recorded]:
    """Those of the comparisons that have a table.

    Raises:
        hiso_bench.records.RecordError: a table was changed after it was written.
    """
    found = []
    for experiment in experiments:
        table, grid = (results / f"{experiment.table}{end}.csv" for end in ("", "_grid"))
        if table.exists():
            at_edge = records.sidecar(grid)["config"]["at_edge"] if grid.exists() else ()
            found.append(Recorded(experiment, *records.read(table), tuple(at_edge)))
    return found
