"""`hiso-bench rerun`: repeat a recorded result from its sidecar, and compare the numbers."""

from __future__ import annotations

import json
import math
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro

from hiso_bench import catalogue, records, reruns
from hiso_bench.experiments import Experiment


@dataclass
class Rerun:
    """Repeat the experiment behind a recorded table into a folder of its own, and compare the numbers with the recorded ones.

    The sidecar's configuration is compared with the present one first. The status is 0 if the tables are equal, to the bit or
    within the tolerance, and 1 if they differ or the configuration does. A stopped rerun goes on when the command is repeated.

    Attributes:
        file: the table (results/NAME.csv) or its sidecar; a name alone is looked up in results/.
        to: where the fresh tables go.
        jobs: processes of one torch thread each.
        tolerance: relative difference up to which numbers count as close.
        anyway: go on although the configuration differs.
        dry_run: say what would be done and how long it would take, and stop.
        json: print one JSON object instead of text.
    """

    file: Annotated[Path, tyro.conf.Positional]
    to: Path = Path("results/fresh/rerun")
    jobs: int = 1
    tolerance: float = 1e-9
    anyway: bool = False
    dry_run: bool = False
    json: bool = False

    def run(self) -> int:
        """Find, compare the configuration, say how long, run, compare the numbers."""
        recorded = self._recorded()
        about = records.sidecar(recorded)
        name, part = reruns.writer(recorded.stem)
        experiment = catalogue.experiment(name)
        to = self.to.absolute()
        if to == recorded.absolute().parent:
            raise ValueError(f"to {self.to} holds the recorded table; allowed: another folder")
        present = None if part == "tune" else _present(experiment, recorded.name, to)
        told: dict[str, Any] = {"file": str(recorded), "experiment": name, "part": part, "recorded": records.origin(about, False)}
        differs = [] if present is None else reruns.differences(about["config"], present[0])
        if present is not None and present[1] != about["version"]:
            differs.append(f"version: recorded {about['version']}, now {present[1]}")
        told["configuration"] = None if present is None else differs
        self._say(f"{recorded.name} is written by `{part}` of experiment {name}\n{told['recorded']}")
        for line in differs:
            self._say(f"configuration differs: {line}")
        if present is None:
            self._say("this grid tells its configuration only when it is written; it is compared afterwards")
        elif not differs:
            self._say("configuration as recorded")
        told["minutes"] = _minutes(experiment, part, self.jobs)
        self._say(f"{_about(told['minutes'])} in {self.jobs} process(es) of this machine, into {self.to}")
        if self.dry_run or (differs and not self.anyway):
            if differs and not self.dry_run:
                self._say("stopped: --anyway runs it as it is now, `git checkout` of the source above as it was")
            return self._end(told, 1 if differs else 0)
        if part == "tune":
            experiment.tune(to, to / "work", self.jobs)
        else:
            experiment.compare(catalogue.RESULTS, to, to / "work", self.jobs)
        if present is None:
            told["configuration"] = reruns.differences(about["config"], records.sidecar(to / recorded.name)["config"])
            for line in told["configuration"]:
                self._say(f"configuration differs: {line}")
        found = reruns.compare(recorded, to / recorded.name, self.tolerance)
        told |= found._asdict() | {"largest": found.largest if math.isfinite(found.largest) else None}
        self._say(_verdict(found))
        return self._end(told, int(found.verdict == "differs"))

    def _recorded(self) -> Path:
        path = self.file.with_suffix(".csv") if self.file.suffix in (".json", "") else self.file
        if not path.exists() and path.parent == Path():
            path = catalogue.RESULTS / path.name
        if not path.exists():
            raise ValueError(f"file {self.file} does not exist; allowed: a table with a sidecar, such as those in results/")
        return path

    def _say(self, text: str) -> None:
        print(text, file=sys.stderr if self.json else sys.stdout, flush=True)

    def _end(self, told: dict[str, Any], status: int) -> int:
        if self.json:
            print(json.dumps(told))
        return status


def _present(experiment: Experiment, table: str, to: Path) -> tuple[dict[str, Any], int] | None:
    """The configuration and version that an experiment would write a table with now; None if it does not tell."""
    with records.asking(to) as asked:
        experiment.compare(catalogue.RESULTS, to, to / "work", 1)
    if table in asked:
        return asked[table]
    return next(iter(asked.values())) if len(asked) == 1 else None


def _minutes(experiment: Experiment, part: str, jobs: int) -> float | None:
    plan = experiment.plan()
    minutes = (plan.tuning_runs if part == "tune" else plan.runs) * plan.seconds_per_run / jobs / 60
    return minutes if math.isfinite(minutes) else None


def _about(minutes: float | None) -> str:
    if minutes is None:
        return "time not known (the model is too large to be timed)"
    return (
        f"about {60 * minutes:.0f} s"
        if minutes < 2
        else f"about {minutes:.0f} min"
        if minutes < 90
        else f"about {minutes / 60:.1f} h"
    )


def _verdict(found: reruns.Agreement) -> str:
    if found.verdict == "equal":
        return "equal to the recorded table, to the bit"
    if not math.isfinite(found.largest):
        return f"differs: {found.column} ({found.rows} rows)"
    return f"{found.verdict}: largest relative difference {found.largest:.2g}, in column {found.column} ({found.rows} rows)"
