"""`hiso-bench results`: recompute recorded results, learning-rate grids included."""

from __future__ import annotations

import dataclasses
import math
import os
import sys
from dataclasses import dataclass
from typing import Annotated, get_args

import tyro

from hiso_bench import catalogue
from hiso_bench.commands import TOLD
from hiso_bench.experiments import Experiment, Profile
from hiso_bench.names import unknown


@dataclass
class Results:
    """Recompute recorded results into results/. Resumable: finished runs are kept, unfinished ones go on from their ledgers.

    Attributes:
        names: which experiments (default: all of the profile).
        profile: quick (what `make figures` computes), standard (hours), paper (full size, days).
        tune: choose the learning rates anew (true), or use the recorded grids.
        jobs: processes of one torch thread each.
        dry_run: print runs and hours, and stop.
    """

    names: Annotated[tuple[str, ...], tyro.conf.Positional, TOLD] = ()
    profile: Profile = "quick"
    tune: bool = True
    jobs: int = dataclasses.field(default_factory=lambda: os.cpu_count() or 1)
    dry_run: bool = False

    def run(self) -> int:
        """Print the plan, then tune and compare, experiment by experiment."""
        for experiment in self._chosen():
            plan = experiment.plan()
            runs = plan.runs + (plan.tuning_runs if self.tune else 0)
            hours = runs * plan.seconds_per_run / self.jobs / 3600
            cost = f" of {plan.seconds_per_run:.1f} s: {hours:.2f} h in {self.jobs} process(es)"
            print(f"{experiment.name:18} about {runs:.0f} runs{', their time not known' if math.isnan(hours) else cost}")
            if self.dry_run:
                continue
            work = catalogue.FRESH / "work"
            if self.tune:
                experiment.tune(catalogue.RESULTS, work, self.jobs)
            target = catalogue.FRESH if experiment.profile == "quick" else catalogue.RESULTS
            experiment.compare(catalogue.RESULTS, target, work, self.jobs)
            print(f"{experiment.name:18} written to {target}", file=sys.stderr)
        return 0

    def _chosen(self) -> list[Experiment]:
        for name in self.names:
            if name not in catalogue.EXPERIMENTS:
                raise ValueError(unknown("experiment", name, catalogue.EXPERIMENTS))
        found = [catalogue.experiment(name) for name in self.names or catalogue.EXPERIMENTS]
        order = get_args(Profile)
        wanted = [e for e in found if order.index(e.profile) <= order.index(self.profile)]
        if self.names and len(wanted) < len(found):
            missing = ", ".join(f"{e.name} ({e.profile})" for e in found if e not in wanted)
            raise ValueError(f"profile {self.profile} does not cover {missing}; allowed: a larger --profile")
        return wanted
