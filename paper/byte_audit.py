"""The bytes of every registered method, from the ledgers of real federations, beside what the papers' tables charge.

    byte_audit_methods   method, kind (scalars, vectors), scalars (a row of them), directions, wire, rows (of an update), needs
    byte_audit_charges   paper, method, d, charged (bytes per client and round), low, high (printed bytes over printed rounds)
    byte_audit           method, d, clients, sampled, unit, quantity, value; the quantities are the fields of `traffic.Traffic` (a
                         mean over clients and all rounds but the first) and of `traffic.Entry`, and "absent k" for k rounds

HiSo's federation of language models (6 clients, 2 sampled) at two dimensions, and the same with every client in every round.
Every method has its own default of P, a single local step, and sends what its preset asks for.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from claims import bytes as audit
from hiso_bench import catalogue, methods, quoted, records
from hiso_bench.experiments import Plan, Profile
from hiso_bench.federation import Federation
from synthetic import traffic

VERSION, KEY = 1, 41
DIMENSIONS = (100, 10_000)
ROUNDS, FEW = 120, 12
"""Of a federation whose clients are sampled; of one in which everybody always takes part, whose rounds are all alike."""
ABSENT = (10, 100)
MODELS = ("OPT-350M", "OPT-1.3B", "OPT-2.7B")
"""Of HiSo's Table 2."""
ROUND, ONCE = "bytes per client and round", "bytes"
NEEDS = {"h": "the exact diagonal of the Hessian", "inputs": "public inputs of the layers"}
"""What a method is given beside messages, by its option (`catalogue.GIVEN`)."""


def names() -> list[str]:
    """Every registered method, those of scalars first."""
    return [*methods.PRESETS, *methods.VECTOR_PRESETS]


def needs(name: str) -> str:
    """What a client must have that no message of a round holds."""
    given = [NEEDS[option] for option in sorted(catalogue.GIVEN.keys() & methods.options(name).keys())]
    return ", ".join([*(["base model"] if name in methods.PRESETS else []), *given])


def about(name: str) -> tuple[Any, ...]:
    """A row of byte_audit_methods."""
    of = traffic.run(name, 10, 2, 2, 1, KEY)
    if not isinstance(of, Federation):
        return name, "vectors", np.nan, np.nan, of.options.wire, np.nan, needs(name)
    rows = len(of.wire.decode_update(of.ledger.rounds[0].update).scalars)
    scalars = of.method.perturbations + of.method.curvatures
    return name, "scalars", scalars, of.method.perturbations, of.options.wire, rows, needs(name)


def measure(name: str, d: int, clients: int, sampled: int) -> list[tuple[Any, ...]]:
    """The rows of a federation in byte_audit; absence and entry where clients are sampled."""
    whole = sampled == clients
    of = traffic.run(name, d, clients, sampled, FEW if whole else ROUNDS, KEY)
    found: list[tuple[str, str, float]] = [(ROUND, *item) for item in traffic.counted(of, 1)._asdict().items()]
    if not whole:
        found += [(ONCE, f"absent {k}", traffic.absent(of, k)) for k in ABSENT]
        found += [(ONCE, *item) for item in traffic.newcomer(of)._asdict().items()]
    return [(name, d, clients, sampled, *row) for row in found]


def charges() -> pd.DataFrame:
    """What the papers' tables charge a client for a round; FedZO's is a share of the model, so it has a d."""
    cells = audit.hiso_bytes(MODELS)
    rows = [("HiSo", "hiso", np.nan, audit.HISO_BYTES, cells.min(), cells.max())]
    rows.append(("DeComFL", "decomfl", np.nan, audit.DECOMFL_BYTES, np.nan, np.nan))
    rows += [("DeComFL", "fedzo", d, audit.FEDZO_MODELS * 4 * d, np.nan, np.nan) for d in DIMENSIONS]
    return pd.DataFrame(rows, columns=["paper", "method", "d", "charged", "low", "high"])


def federations() -> list[tuple[int, int, int]]:
    """(d, clients, sampled): as in HiSo's tables at either dimension, and with everybody in every round."""
    clients, sampled = (int(quoted.number(audit.HISO, of).value) for of in ("clients", "sampled"))
    return [*((d, clients, sampled) for d in DIMENSIONS), (DIMENSIONS[0], clients, clients)]


class ByteAudit:
    """The audit as an `experiments.Experiment`; there is no learning rate to choose."""

    name = "byte_audit"
    profile: Profile = "quick"

    def plan(self) -> Plan:
        """A few hundred rounds of every method."""
        return Plan(len(names()), 0, 0.5)

    def tune(self, results: Path, work: Path, jobs: int) -> None:
        """Nothing to choose."""

    def compare(self, grids: Path, results: Path, work: Path, jobs: int) -> None:
        """Run every method and write the tables."""
        told = charges()
        config: dict[str, Any] = {
            "key": KEY, "rounds": ROUNDS, "few": FEW, "absent": ABSENT, "federations": federations(),
            "methods": {name: [methods.kind(name).__name__, methods.options(name)] for name in names()},
            "charges": told.to_csv(index=False),
        }  # fmt: skip
        config = json.loads(json.dumps(config, default=str))
        target = results / f"{self.name}.csv"
        if records.current(target, config, VERSION):
            return
        columns = ["method", "kind", "scalars", "directions", "wire", "rows", "needs"]
        every = pd.DataFrame([about(name) for name in names()], columns=columns)
        columns = ["method", "d", "clients", "sampled", "unit", "quantity", "value"]
        rows = [row for name in names() for of in federations() for row in measure(name, *of)]
        tables = {"_methods": every, "_charges": told, "": pd.DataFrame(rows, columns=columns)}
        for part, table in tables.items():  # the one that is asked for is written last
            records.write(table, results / f"{self.name}{part}.csv", config, VERSION)


BYTE_AUDIT = ByteAudit()
