"""The numbers behind the schematic drawings of HiSo's Figures 1 to 3: real rounds of the core in two dimensions.

Figure 1 is a path that keys and lengths describe; Figure 2 is one round of two clients with three local steps along shared
directions, their reset, and the replay of the averaged scalars; Figure 3 is what each party does, with the scalars of that round.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from hiso_bench import keys, methods, records
from hiso_bench.directions import Warped
from hiso_bench.experiments import Plan, Profile
from hiso_bench.federation import Federation, FederationOptions
from hiso_bench.methods.base import Method
from hiso_bench.testing import Quadratics

VERSION, KEY = 1, 131
"""A key whose steps are all long enough to be seen."""
PATH_ROUNDS, TAU, CLIENTS = 5, 3, 2
RATE = 0.1
START = (2.0, 1.2)
HESSIANS = np.array([[[1.0, 0.3], [0.3, 0.6]], [[0.5, -0.2], [-0.2, 1.2]]])
MINIMA = np.array([[0.6, -0.3], [-0.4, 0.5]])


def problem(clients: int) -> Quadratics:
    """The first clients' quadratics 1/2 (x - c)' S (x - c), up to a constant."""
    linear = -np.einsum("cij,cj->ci", HESSIANS, MINIMA)
    return Quadratics(HESSIANS[:clients], linear[:clients], np.array(START))


def path(method: Method) -> pd.DataFrame:
    """A path of one client and one direction a round: round, x, y, key (64 bits), length (-eta g: along its direction)."""
    federation = Federation(problem(1), method, FederationOptions(wire="float64", key=KEY))
    rows = [(0, *federation.state.x[0].tolist(), "", np.nan)]
    for r in range(PATH_ROUNDS):
        record = federation.round().record
        step = federation.wire.steps(r, federation.wire.decode_update(record.update))[0]
        key = keys.derive(KEY, "direction", **step.keys[0][0]._asdict())
        rows.append((r + 1, *federation.state.x[0].tolist(), f"{key:016x}", -RATE * float(step.weights[0, 0])))
    return pd.DataFrame(rows, columns=["round", "x", "y", "key", "length"])


def one_round(method: Method) -> pd.DataFrame:
    """One round of two clients: who (client 0, client 1, everyone), step, x, y, key, scalar; step 0 is the round's start."""
    options = FederationOptions(sampled=CLIENTS, local_steps=TAU, wire="float64", key=KEY)
    federation = Federation(problem(CLIENTS), method, options)
    start = federation.state.copy()
    z = Warped(federation.directions, method.warp(start))
    measured, _ = federation.measure(0, np.arange(CLIENTS), range(CLIENTS), z)
    record = federation.round().record
    agreed = federation.wire.steps(0, federation.wire.decode_update(record.update))
    rows = []
    for who in (*range(CLIENTS), "everyone"):
        state = start.copy()
        rows.append((f"client {who}" if isinstance(who, int) else who, 0, *state.x[0].tolist(), "", np.nan))
        for k, step in enumerate(agreed):
            own = step._replace(weights=measured[who : who + 1, k]) if isinstance(who, int) else step
            method.move(state, method.direction(own, state.layout, z, out=state.layout.empty(state.x[0].dtype)), own)
            key = keys.derive(KEY, "direction", **step.keys[0][0]._asdict())
            rows.append((rows[-1][0], k + 1, *state.x[0].tolist(), f"{key:016x}", float(own.weights[0, 0])))
    return pd.DataFrame(rows, columns=["who", "step", "x", "y", "key", "scalar"])


class Schematic:
    """The drawings' numbers as an `experiments.Experiment`."""

    name = "schematic"
    profile: Profile = "quick"

    def plan(self) -> Plan:
        """Two runs of a few rounds in two dimensions."""
        return Plan(2, 0, 0.1)

    def tune(self, results: Path, work: Path, jobs: int) -> None:
        """Nothing to choose."""

    def compare(self, grids: Path, results: Path, work: Path, jobs: int) -> None:
        """Write schematic_round.csv and schematic.csv (the path)."""
        fixed = {"rate": RATE, "key": KEY, "start": START, "hessians": HESSIANS.tolist(), "minima": MINIMA.tolist()}
        config = fixed | {"rounds": PATH_ROUNDS, "tau": TAU, "clients": CLIENTS, "P": 1}
        target = results / "schematic.csv"
        if records.current(target, config, VERSION):
            return
        method = methods.build("hiso", lr=RATE, perturbations=1)
        records.write(one_round(method), results / "schematic_round.csv", config, VERSION)
        records.write(path(method), target, config, VERSION)


SCHEMATIC = Schematic()
