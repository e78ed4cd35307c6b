"""DeComFL's accuracy curves on MNIST and Fashion-MNIST, and FedAvg's beside them, at the published settings: nothing is tuned.

100 clients, 10 sampled, IID split of all training images, P and rates as their curves are labelled. What the labels leave out is
taken from the code of the month of the runs (official repository, commits 7498499 to 006652d, May 2024), whose recorded
command sets neither batch nor mu: SGD with weight decay 1e-5, momentum kept through local steps and rounds, central differences,
mu = 1e-4 (another mu would stand in a run's name), and 256 images a batch, of which a client's 600 give two and a third of 88.
The batch is in no name, so smaller ones are run too.
The code of their FedAvg runs is not in the repository: its batch and momentum are open. Ours is plain SGD, and SGD with a
momentum of a half which every client keeps, as in the FedAvg that the repository got seven months later.

A central difference costs forty forward passes where its limit, the derivative itself, costs one gradient, a tenth of the time.
Curves are of the limit (`difference="exact"`); runs of differences with the same key, hence the same directions, clients and
batches, say what that changes.

Ours are compared with theirs by the rule of `hiso_bench.reproduction`, at `published.ROUNDS` from round 20 on; it was fixed
before a run was recorded, its part about single seeds before the runs over P, where it decides. Beside it stands whether our
mean lies between their smallest and largest seed. Of several batches the one with the smallest root mean square difference fits
best.
"""

from __future__ import annotations

import functools
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from hiso_bench import comparison, records, reproduction
from hiso_bench.experiments import Plan, Profile
from hiso_bench.federation import FederationOptions
from hiso_bench.sweeps import Arm, Cell, kept, run
from hiso_bench.training import Schedule
from vision import published
from vision.problems import ImageProblem

VERSION = 1
CLIENTS, SAMPLED = 100, 10
MU, WEIGHT_DECAY = 1e-4, 1e-5
_SNAPSHOT_EVERY = 100


@dataclass(frozen=True)
class Series:
    """One published setting with one batch size.

    Attributes:
        dataset: "mnist" or "fashion".
        method: "decomfl" or "fedavg".
        tau: local steps.
        rounds: R.
        batch_size: images per client and local step.
        lr: DeComFL's step size, or that of FedAvg's local steps.
        P: directions; 0 for FedAvg.
        momentum: DeComFL's, or that of a client of FedAvg.
        difference: "exact" or "central".
        short: batches as their loader deals them: of 600 images 256, 256 and 88.
    """

    dataset: str
    method: str
    tau: int
    rounds: int
    batch_size: int
    lr: float
    P: int = 0
    momentum: float = 0.0
    difference: str = ""
    short: bool = False

    @property
    def name(self) -> str:
        """Tells it from every other one."""
        batch = f"b{self.batch_size}{'short' * self.short}"
        parts = [self.dataset, self.method, f"tau{self.tau}", batch, f"lr{self.lr:g}"]
        if self.P:
            parts += [f"P{self.P}", self.difference]
        elif self.momentum:
            parts += [f"m{self.momentum:g}"]
        return "-".join([*parts, str(self.rounds)])

    @property
    def arm(self) -> Arm:
        """The method and its options."""
        if self.method == "fedavg":
            kept = {"client_momentum": self.momentum} if self.momentum else {}
            return Arm(self.name, "fedavg", {"client_lr": self.lr} | kept)
        fixed = {"mu": MU, "weight_decay": WEIGHT_DECAY, "momentum": self.momentum}
        return Arm(self.name, "decomfl", fixed | {"perturbations": self.P, "difference": self.difference})

    @property
    def evaluate_every(self) -> int:
        """Rounds between evaluations; a published round is one of them."""
        return 20 if self.method == "decomfl" else 10

    def cell(self, key: int) -> Cell:
        """One run. The server of FedAvg takes the mean as it is."""
        return Cell(self.arm, self.lr if self.method == "decomfl" else 1.0, key, self.rounds)

    def problem(self, key: int) -> ImageProblem:
        """The clients, their images and the model."""
        return ImageProblem(
            self.dataset,
            CLIENTS,
            split="iid",
            batch_size=self.batch_size,
            model="fashion_cnn" if self.dataset == "fashion" else "paper_cnn",
            set_aside=False,
            short_batches=self.short,
            mode="loop" if self.short else "clients",
            key=key,
        )

    @property
    def images(self) -> float:
        """Passes of one image through the model in a run; a gradient counts for three."""
        passes = 2 * self.P if self.difference == "central" else 3
        return float(self.rounds * SAMPLED * self.tau * passes * self.batch_size)


@dataclass(frozen=True)
class Reproduction:
    """Published curves beside ours: an `experiments.Experiment` without a grid.

    Attributes:
        name: of the experiment, and stem of its tables.
        profile: the smallest profile that recomputes it.
        runs: (series, key), in the order in which they are run.
    """

    name: str
    profile: Profile
    runs: tuple[tuple[Series, int], ...]

    def plan(self) -> Plan:
        """Whole runs, in units of the mean one."""
        sample = Series("mnist", "decomfl", 1, 1, 32, 1e-3, 20, 0.9, "exact")
        problem = sample.problem(0)
        seconds = comparison.seconds(problem, 1e-3, SAMPLED, 1, 10**6, sample=2)
        per_image = seconds / (SAMPLED * sample.batch_size * 6)  # `seconds` times HiSo with five directions, six passes
        return Plan(len(self.runs), 0, per_image * float(np.mean([series.images for series, _ in self.runs])))

    def tune(self, results: Path, work: Path, jobs: int) -> None:
        """Nothing: the rates are the published ones."""

    def compare(self, grids: Path, results: Path, work: Path, jobs: int) -> None:
        """Run what is missing; both tables are written anew after every run, and their sidecars say which runs they hold."""
        planned = [cell.arm.name + f" key {cell.key}" for cell in self._cells()]
        config = {"clients": CLIENTS, "sampled": SAMPLED, "split": "iid", "version": VERSION}
        told = config | {
            "mu": MU,
            "weight_decay": WEIGHT_DECAY,
            "series": {series.name: asdict(series) for series, _ in self.runs},
            "planned": planned,
        }
        target = results / f"{self.name}.csv"
        if records.current(target, told | {"done": planned}, VERSION):
            return
        folder, written = work / self.name, []

        def write() -> None:
            found = {name: kept([cell], folder, config) for name, cell in zip(planned, self._cells(), strict=True)}
            done = [name for name in planned if found[name] is not None]
            if not done or done == written:
                return
            written[:] = done
            frame = pd.concat([found[name] for name in done], ignore_index=True).drop(columns=["rounds_run", "forward_passes"])
            compared = against(frame[frame["metric"] == "accuracy"], [series for series, _ in self.runs])
            records.write(compared, results / f"{self.name}_against.csv", told | {"done": done}, VERSION)
            records.write(frame.round({"value": 5}), target, told | {"done": done}, VERSION)

        write()
        run(functools.partial(_work, self, work / "ledgers"), self._cells(), folder, config, jobs, write)

    def _cells(self) -> list[Cell]:
        return [series.cell(key) for series, key in self.runs]


def _work(setting: Reproduction, folder: Path, cell: Cell) -> pd.DataFrame:
    """One run, continued from its ledger if a stopped one left one."""
    series = next(series for series, key in setting.runs if series.name == cell.arm.name and key == cell.key)
    schedule = Schedule(rounds=cell.rounds, evaluate_every=series.evaluate_every, snapshot_every=_SNAPSHOT_EVERY)
    options = FederationOptions(sampled=SAMPLED, local_steps=series.tau, key=cell.key)
    home = folder / f"{setting.name}-{cell.arm.name}-{cell.key}-{VERSION}"
    _, frame = comparison.train(series.problem(cell.key), cell.arm, cell.lr, options, schedule, home)
    shutil.rmtree(home, ignore_errors=True)
    return frame


def against(accuracy: pd.DataFrame, settings: list[Series]) -> pd.DataFrame:
    """Ours beside theirs by the rule above.

    Args:
        accuracy: arm, key, round, value of our runs.
        settings: the series; several may share a published setting.

    Returns:
        One row per series and published round that its runs reached: arm, round, keys, ours, ours_min, ours_max, seeds, theirs,
        theirs_min, theirs_max, low, high, between, within. low, high: the interval of the rule, empty where there is one
        seed and one key.
    """
    reported, rows = published.published(), []
    for series in dict.fromkeys(settings):
        wide = accuracy[accuracy["arm"] == series.name].pivot(index="key", columns="round", values="value")
        match = {"dataset": series.dataset, "method": series.method, "tau": series.tau, "lr": series.lr}
        theirs = reported[(reported[list(match)] == pd.Series(match)).all(axis=1)]
        theirs = theirs[theirs["P"].fillna(0) == series.P]
        for row in theirs.itertuples():
            if row.round not in wide.columns or (values := wide[row.round].dropna().to_numpy()).size == 0:
                continue
            ours, k, n = float(values.mean()), len(values), int(row.seeds)
            reach = reproduction.reach(row.sd, n, values.tolist())
            between, within = row.min <= ours <= row.max, abs(ours - row.mean) <= reach
            rows.append(
                (series.name, row.round, k, ours, values.min(), values.max(), n, row.mean, row.min, row.max)
                + (row.mean - reach, row.mean + reach, between, within if np.isfinite(reach) else None)
            )
    columns = ["arm", "round", "keys", "ours", "ours_min", "ours_max", "seeds", "theirs", "theirs_min", "theirs_max"]
    return pd.DataFrame(rows, columns=[*columns, "low", "high", "between", "within"]).round(5)


def _zo(
    tau: int, rounds: int, batch: int, difference: str = "exact", lr: float = 1e-3, P: int = 20, short: bool = False
) -> Series:
    return Series("mnist", "decomfl", tau, rounds, batch, lr, P, 0.9, difference, short)


def _fo(tau: int, rounds: int, batch: int, momentum: float = 0.0) -> Series:
    return Series("mnist", "fedavg", tau, rounds, batch, 0.1, momentum=momentum)


_FIRST = ((1, 1000), (4, 500), (10, 200))
MNIST = Reproduction(
    "decomfl_mnist",
    "standard",
    (
        # What decides the batch first; then every setting once; then differences beside their limit; then more keys.
        *((_zo(1, 1000, batch), 1) for batch in (32, 64, 256)),
        *((_fo(tau, rounds, 32), 1) for tau, rounds in _FIRST),
        *((_zo(tau, rounds, batch), 1) for batch in (32, 64) for tau, rounds in _FIRST[1:]),
        (_fo(1, 1000, 64), 1),
        *((_zo(tau, rounds, 256), 1) for tau, rounds in _FIRST[1:]),
        *((_zo(tau, rounds, 32, "central"), 1) for tau, rounds in ((1, 200), (4, 40), (10, 20))),
        *((_zo(tau, rounds, 256, short=True), 1) for tau, rounds in ((4, 500), (1, 1000))),
        *((_fo(tau, rounds, 32), key) for key in (2, 3) for tau, rounds in _FIRST),
        *((_zo(tau, rounds, 32), 2) for tau, rounds in _FIRST),
        (_zo(1, 1000, 64), 2),
        (_fo(1, 1000, 32, 0.5), 1),
        # Their curve has passed its steep part by then.
        (Series("fashion", "decomfl", 5, 60, 256, 5e-4, 25, 0.8, "exact", True), 1),
        (_zo(10, 200, 256, short=True), 1),
        *((_fo(tau, rounds, 32, 0.5), 1) for tau, rounds in _FIRST[1:]),
        *((_zo(4, 500, 256, lr=5e-4, P=P), 1) for P in (10, 20, 40)),
        *((_zo(tau, rounds, 256, "central"), 1) for tau, rounds in ((4, 40), (1, 100))),
        *((_zo(4, 500, 256, lr=5e-4, P=P), key) for key in (2, 3) for P in (10, 20, 40)),
        (_zo(4, 500, 256, lr=5e-4, short=True), 1),
        *((_zo(tau, rounds, 256, short=True), 2) for tau, rounds in ((4, 500), (10, 200), (1, 1000))),
        (Series("fashion", "fedavg", 5, 40, 32, 1e-3), 1),
        *((_zo(tau, rounds, 64), 2) for tau, rounds in _FIRST[1:]),
    ),
)
MNIST_PAPER = Reproduction(
    "decomfl_mnist_paper",
    "paper",
    tuple(
        (series, key)
        for key in (1, 2, 3)
        for series in (
            *(_fo(tau, 1000, batch) for batch in (32, 64, 256) for tau in (1, 4, 10)),
            *(_zo(tau, rounds, 256, "central", short=True) for tau, rounds in ((1, 10000), (4, 3200), (10, 3000))),
            *(_zo(4, 1500, 256, "central", 5e-4, P, True) for P in (10, 20, 40)),
            _zo(5, 10000, 256, "central", short=True),
        )
    ),
)
FASHION_PAPER = Reproduction(
    "decomfl_fashion_paper",
    "paper",
    tuple(
        (series, key)
        for key in (1, 2, 3)
        for series in (
            *(Series("fashion", "fedavg", tau, 1000, 32, 1e-3) for tau in (1, 5, 10)),
            # Up to the round at which the published run doubles P.
            Series("fashion", "decomfl", 5, published.P_DOUBLES, 256, 5e-4, 25, 0.8, "central"),
            Series("fashion", "decomfl", 1, 10000, 256, 1e-4, 50, 0.9, "central"),
        )
    ),
)
