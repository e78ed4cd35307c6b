"""Claims about communication that a real ledger decides: small federations, whose messages are encoded and counted."""

from __future__ import annotations

from functools import cache
from typing import Any, NamedTuple

import numpy as np

from claims import bytes as tables
from hiso_bench import catalogue, methods
from hiso_bench.claims import Control, Evidence, Finding, check
from hiso_bench.federation import FederationOptions
from hiso_bench.stats import Interval, exact, span
from hiso_bench.testing import some_inputs
from synthetic.quadratic import Quadratic

KEY = 14
ROUNDS = 240
_FRAME, _ROWS = 8, 2
"""Bytes of a message's (round, ...) and of an update's row count."""


class Traffic(NamedTuple):
    """Bytes per client and round of the run, in the mean over clients."""

    messages: float
    """Everything that was encoded."""
    scalars: float
    """The scalars alone, up and down, as the papers count."""
    seeds: float
    """Four bytes for every direction that a client is told of; the key of a run makes them unnecessary."""


@cache
def traffic(method: str, clients: int, sampled: int, P: int = 5) -> Traffic:
    """What a run of a method of scalars cost; absent clients catch up when they are sampled again."""
    federation = methods.build(method, lr=1e-3, perturbations=P).federate(
        Quadratic(4, clients=clients), FederationOptions(sampled=sampled, key=KEY)
    )
    records = [federation.round().record for _ in range(ROUNDS)]
    up, down = (sum(getattr(record, name) for record in records) for name in ("bytes_up", "bytes_down"))
    row = federation.wire.row_bytes
    missed = (down - _FRAME * sampled * ROUNDS) / (row + _ROWS)
    share = 1 / (clients * ROUNDS)
    return Traffic((up + down) * share, row * (sampled * ROUNDS + missed) * share, 4 * P * missed * share)


@cache
def models_per_round(clients: int, sampled: int, d: int = 500) -> float:
    """Models of 4 d bytes per client and round of FedZO."""
    federation = methods.build("fedzo", client_lr=1e-3).federate(
        Quadratic(d, clients=clients), FederationOptions(sampled=sampled)
    )
    records = [federation.round().record for _ in range(3)]
    return sum(record.bytes_up + record.bytes_down for record in records) / (4 * d * clients * len(records))


@check("bytes-decomfl-protocol")
def decomfl_protocol() -> Finding:
    """What a client of DeComFL really exchanges, over the 3 P R numbers that the table charges."""
    charged, true = tables.DECOMFL_BYTES, (0.95, 1.05)
    paper, everyone = traffic("decomfl", 8, 2), traffic("decomfl", 8, 8)
    what = "bytes per client and round over 12 P, 8 clients, %d sampled, %s"
    return Finding(
        evidence=(
            Evidence(what % (2, "scalars and a seed per direction"), exact((paper.scalars + paper.seeds) / charged), 0.75, true),
            Evidence(what % (2, "scalars"), exact(paper.scalars / charged), 1.25 / 3, true),
            Evidence(what % (2, "whole messages, no seeds"), exact(paper.messages / charged), np.nan, true),
            Evidence("models per client and round of FedZO over the 0.2 of the table, 8 clients, 2 sampled",
                     exact(models_per_round(8, 2) / tables.FEDZO_MODELS), 2.5, true),
        ),
        controls=(
            Control("every client sampled in every round", "holds",
                    Evidence(what % (8, "scalars and a seed per direction"),
                             exact((everyone.scalars + everyone.seeds) / charged), 1.0, true)),
        ),
    )  # fmt: skip


@check("C14")
def accounting() -> Finding:
    """HiSo's KB columns: against the printed rounds, against each other, against ledgers."""
    forty, agree = tables.HISO_BYTES, (39.8, 40.2)
    what = "bytes per printed round, Table 2, %s"
    small, large = ("OPT-350M", "OPT-1.3B"), ("OPT-2.7B",)
    hits, of = tables.multiples_of_25(("OPT-125M", *small))
    paper, everyone = traffic("hiso", 6, 2), traffic("hiso", 6, 6)
    real = "bytes per client and round, 6 clients, %d sampled, P = 5, %s"
    return Finding(
        evidence=(
            Evidence(what % "OPT-350M and OPT-1.3B, 12 cells", span(tables.hiso_bytes(small)), forty, agree),
            Evidence(what % "OPT-2.7B, 6 cells", span(tables.hiso_bytes(large)), forty, agree),
            Evidence(f"share of Table 3's {of} KB cells that are a multiple of 25 rounds of 40 bytes",
                     exact(hits / of), 1.0, (1.0, 1.0)),
            Evidence(real % (2, "scalars"), exact(paper.scalars), forty * 2 / 3, agree),
            Evidence(real % (2, "whole messages"), exact(paper.messages), np.nan, agree),
            Evidence(real % (2, "scalars and a seed of four bytes per direction"),
                     exact(paper.scalars + paper.seeds), forty * 7 / 6, agree),
        ),
        controls=(
            Control("every client sampled in every round", "holds",
                    Evidence(real % (6, "scalars"), exact(everyone.scalars), forty, agree)),
        ),
    )  # fmt: skip


class _Layer(Quadratic):
    """A quadratic with made-up inputs of a layer, on which no message depends, for the methods that ask for them."""

    layer_inputs = staticmethod(some_inputs)


def _bytes(name: str, d: int) -> int:
    problem = _Layer(d, clients=4)
    rates = {"lr": 1e-3} if name in methods.PRESETS or name.endswith("-code") else {"lr": 1e-3, "client_lr": 1e-3}
    method = catalogue.method(name, rates, problem)
    asked: dict[str, Any] = {"sampled": 2, "key": KEY, **method.federation_options}
    federation = method.federate(problem, FederationOptions(**asked))
    return sum(record.bytes_up + record.bytes_down for record in (federation.round().record for _ in range(6)))


def _growth(names: list[str]) -> Interval:
    """Bytes of six rounds at d = 400 over those at d = 20."""
    return span([_bytes(name, 400) / _bytes(name, 20) for name in names])


@check("bytes-dimension-free")
def dimension_free() -> Finding:
    """The bytes of rounds, catch-up included, in two dimensions, for every method."""
    what = "bytes at d = 400 over those at d = 20, 6 rounds, 2 of 4 clients: %s"
    vectors = [name for name in methods.VECTOR_PRESETS]
    return Finding(
        evidence=(Evidence(what % f"{len(methods.PRESETS)} methods of scalars", _growth([*methods.PRESETS]), 1.0, (1.0, 1.0)),),
        controls=(
            Control("methods that send vectors", "fails",
                    Evidence(what % f"{len(vectors)} methods", _growth(vectors), 20.0, (1.0, 1.0))),
        ),
    )  # fmt: skip
