"""`hiso-bench runs`: list runs by their ledgers, and draw their curves."""

from __future__ import annotations

import json
import os
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro

from hiso_bench import catalogue, training
from hiso_bench.commands import TOLD
from hiso_bench.ledger import Ledger, LedgerError

COLUMNS = ("run", "lr", "rounds", "metric", "value", "best", "KiB")


@dataclass
class Runs:
    """List runs and compare them: learning rate, rounds done, the metric last and at best, traffic of all clients.

    Attributes:
        folders: runs (default: every run in the folder `runs`).
        plot: draw the curves of these runs into this file (.png or .pdf).
        metric: the metric that is listed and drawn (default: the problem's own).
        json: print one JSON array instead of a table; it names problem and method too.
    """

    folders: Annotated[tuple[Path, ...], tyro.conf.Positional, TOLD] = ()
    plot: Annotated[Path, TOLD] = Path()
    metric: Annotated[str, TOLD] = ""
    json: bool = False

    def run(self) -> int:
        """Read ledgers without locking or changing them; one that cannot be read is reported, and the others are shown."""
        if self.plot != Path() and self.plot.suffix not in (".png", ".pdf"):
            raise ValueError(f"plot {self.plot} has suffix {self.plot.suffix!r}; allowed: .png, .pdf")
        found = self._ledgers()
        rows = [_row(folder, ledger, self.metric) for folder, ledger in found]
        if self.plot != Path():
            self._draw(found, rows)
        if self.json:
            print(json.dumps(rows))
            return 0
        shown = [{name: _short(row[name]) for name in COLUMNS} for row in rows]
        widths = {name: max([len(name), *(len(row[name]) for row in shown)]) for name in COLUMNS}
        for row in [{name: name for name in COLUMNS}, *shown]:
            print("  ".join(f"{row[name]:{width}}" for name, width in widths.items()).rstrip())
        return 0

    def _ledgers(self) -> list[tuple[Path, Ledger]]:
        folders = self.folders or tuple(sorted(path.parent for path in Path("runs").glob(f"*/{training.LEDGER_NAME}")))
        if not folders:
            raise ValueError("folders is empty and there is no run in ./runs; `hiso-bench train` makes one")
        found = []
        for folder in folders:
            try:
                found.append((folder, Ledger.read(folder / training.LEDGER_NAME if folder.is_dir() else folder)))
            except LedgerError as error:
                if self.folders:
                    raise
                print(f"runs      {error}", file=sys.stderr)
        return found

    def _draw(self, found: list[tuple[Path, Ledger]], rows: list[dict[str, Any]]) -> None:
        metrics = {row["metric"] for row in rows}
        if len(metrics) > 1:
            raise ValueError(f"metric is not given, and the runs have {', '.join(sorted(metrics))}; allowed: one that all have")
        curves = []
        for (_, ledger), row in zip(found, rows, strict=True):
            frame = training.curve(ledger)
            told = f"{row['problem']}, {row['method']}, lr {_short(row['lr'])}"
            curves.append((row["method"], told, frame[frame["metric"] == row["metric"]]))
        figure = catalogue.load("figures.runs").draw(curves, metrics.pop())
        self.plot.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=self.plot.parent, prefix=".plot-") as folder:  # both formats; one was asked for
            catalogue.load("figures.style").save(figure, self.plot.stem, Path(folder))
            os.replace(Path(folder) / self.plot.name, self.plot)
        print(f"runs      {self.plot}", file=sys.stderr)


def _row(folder: Path, ledger: Ledger, metric: str) -> dict[str, Any]:
    run = ledger.header.get("run", {})
    problem, method = run.get("problem", {}), run.get("method", {})
    if not problem or not method:
        raise LedgerError(f"ledger {ledger.path} does not say how its run was made")
    kind = catalogue.problem_class(problem["name"])
    name = metric or str(getattr(kind, "metric", "loss"))
    name = name if any(name in metrics for metrics in ledger.evaluations.values()) or metric else "loss"
    values = [metrics[name] for _, metrics in sorted(ledger.evaluations.items()) if name in metrics]
    if not values:
        known = sorted(set().union(*ledger.evaluations.values()))
        raise ValueError(f"metric {name!r} is not in {ledger.path}; allowed: {', '.join(known) or 'none: it has no evaluation'}")
    higher = getattr(kind, "higher_is_better", False) if name == getattr(kind, "metric", "") else name != "loss"
    return {
        "problem": problem["name"],
        "method": method["name"],
        "lr": method.get("lr"),
        "rounds": len(ledger.rounds),
        "metric": name,
        "value": values[-1],
        "best": max(values) if higher else min(values),
        "KiB": sum(r.bytes_up + r.bytes_down for r in ledger.rounds) / 1024,
        "run": folder.name,
    }


def _short(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
