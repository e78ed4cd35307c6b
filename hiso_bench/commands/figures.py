"""`hiso-bench figures`: compute what is light and missing, then draw every figure whose data is at hand."""

from __future__ import annotations

import dataclasses
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from hiso_bench import catalogue, drawings, records
from hiso_bench.commands import TOLD
from hiso_bench.names import unknown


@dataclass
class Figures:
    """Draw figures from results; light experiments that have no fresh result yet are run first (minutes, with a progress bar).

    Attributes:
        names: which figures (default: all).
        out: folder for <name>.png and <name>.pdf.
        jobs: processes for experiments.
        redraw: draw again what is up to date.
    """

    names: Annotated[tuple[str, ...], tyro.conf.Positional, TOLD] = ()
    out: Path = Path("figures/out")
    jobs: int = dataclasses.field(default_factory=lambda: os.cpu_count() or 1)
    redraw: bool = False

    def run(self) -> int:
        """Draw; a recorded result that is not there is a line, not an error, unless its figure was asked for by name."""
        for name in self.names:
            if name not in drawings.FIGURES:
                raise ValueError(unknown("figure", name, drawings.FIGURES))
        for name in self.names or drawings.FIGURES:
            self._one(name, asked=bool(self.names))
        return 0

    def _one(self, name: str, asked: bool) -> None:
        entry = drawings.FIGURES[name]
        experiment = catalogue.experiment(entry.experiment)
        fresh = experiment.profile == "quick"
        folder = catalogue.FRESH if fresh else catalogue.RESULTS
        if fresh:
            experiment.compare(catalogue.RESULTS, catalogue.FRESH, catalogue.FRESH / "work", self.jobs)
        tables = [path for table in entry.tables if (path := folder / f"{table}.csv").exists()]
        if len(tables) < (1 if entry.any_table else len(entry.tables)):
            told = f"{name}: no recorded result {entry.tables[0]}.csv; `make results PROFILE={experiment.profile}` computes it"
            if asked:
                raise ValueError(told)
            print(f"figures   {told}", file=sys.stderr)
            return
        pictures = [self.out / f"{name}.{kind}" for kind in ("png", "pdf")]
        module = sys.modules.get(entry.target.partition(":")[0]) or catalogue.load(entry.target.partition(":")[0])
        sources = [*tables, *Path(str(module.__file__)).parent.glob("*.py")]
        newest = max(path.stat().st_mtime for path in sources)
        if not self.redraw and all(p.exists() and p.stat().st_mtime >= newest for p in pictures):
            print(f"figures   {pictures[0]} is up to date")
            return
        from figures import style

        several = tables if entry.any_table else tables[:1]
        line = "; ".join(dict.fromkeys(records.origin(records.read(table)[1], fresh) for table in several))
        figure = catalogue.load(entry.target)(folder, line, entry.experiment)
        for path in style.save(figure, name, self.out):
            print(f"figures   {path}")
