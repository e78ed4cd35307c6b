"""What an experiment offers to `hiso-bench results` and `hiso-bench figures`."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, NamedTuple, Protocol

Profile = Literal["quick", "standard", "paper"]


class Plan(NamedTuple):
    """What an experiment is about to do, for an estimate before it starts."""

    runs: int
    """Runs of the comparison."""
    tuning_runs: float
    """Runs of the learning-rate grid, in units of whole runs (a rate dropped early counts for its part)."""
    seconds_per_run: float
    """Measured on this machine by a few rounds, on one thread; NaN where the model is too large to be had for a plan."""


class Experiment(Protocol):
    """Chooses rates, runs arms, and writes results; it never draws."""

    name: str
    profile: Profile
    """The smallest profile that recomputes it. What is `quick` is computed by `make figures`, from recorded rates."""

    def plan(self) -> Plan:
        """What `tune` and `compare` would cost."""
        ...

    def tune(self, results: Path, work: Path, jobs: int) -> object:
        """Choose every arm's learning rate, and write the grid."""
        ...

    def compare(self, grids: Path, results: Path, work: Path, jobs: int) -> None:
        """Run every arm at its recorded rate, and write curves; returns at once if they are current."""
        ...
