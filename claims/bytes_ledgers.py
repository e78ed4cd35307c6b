"""Claims about communication that a real ledger decides: small federations, whose messages are encoded and counted."""

from __future__ import annotations

from functools import cache

import numpy as np

from claims import bytes as tables
from hiso_bench import methods
from hiso_bench.claims import Control, Evidence, Finding, check
from hiso_bench.stats import Interval, exact, span
from synthetic.traffic import Traffic, counted, run

KEY = 14
ROUNDS = 240


@cache
def traffic(method: str, clients: int, sampled: int, P: int = 5) -> Traffic:
    """What a run of a method of scalars cost; absent clients catch up when they are sampled again."""
    return counted(run(method, 4, clients, sampled, ROUNDS, KEY, perturbations=P))


@cache
def models_per_round(clients: int, sampled: int, d: int = 500) -> float:
    """Models of 4 d bytes per client and round of FedZO."""
    return counted(run("fedzo", d, clients, sampled, 3, KEY)).messages / (4 * d)


@check("bytes-decomfl-protocol")
def decomfl_protocol() -> Finding:
    """What a client of DeComFL really exchanges, over the 3 P R numbers that the table charges."""
    charged, true = tables.DECOMFL_BYTES, (0.95, 1.05)
    paper, everyone = traffic("decomfl", 8, 2), traffic("decomfl", 8, 8)
    what = "bytes per client and round over 12 P, 8 clients, %d sampled, %s"
    return Finding(
        evidence=(
            Evidence(what % (2, "scalars and a seed per direction"), exact((paper.numbers + paper.seeds) / charged), 0.75, true),
            Evidence(what % (2, "scalars"), exact(paper.numbers / charged), 1.25 / 3, true),
            Evidence(what % (2, "whole messages, no seeds"), exact(paper.messages / charged), np.nan, true),
            Evidence("models per client and round of FedZO over the 0.2 of the table, 8 clients, 2 sampled",
                     exact(models_per_round(8, 2) / tables.FEDZO_MODELS), 2.5, true),
        ),
        controls=(
            Control("every client sampled in every round", "holds",
                    Evidence(what % (8, "scalars and a seed per direction"),
                             exact((everyone.numbers + everyone.seeds) / charged), 1.0, true)),
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
            Evidence(f"share of Table 3's {of} KB cells that are a multiple of 25 rounds of 40 bytes (the largest, "
                     f"HiSo's on QQP with OPT-1.3B: {tables.cell_in_words('OPT-1.3B', 'qqp', 'hiso')})",
                     exact(hits / of), 1.0, (1.0, 1.0)),
            Evidence(real % (2, "scalars"), exact(paper.numbers), forty * 2 / 3, agree),
            Evidence(real % (2, "whole messages"), exact(paper.messages), np.nan, agree),
            Evidence(real % (2, "scalars and a seed of four bytes per direction"),
                     exact(paper.numbers + paper.seeds), forty * 7 / 6, agree),
        ),
        controls=(
            Control("every client sampled in every round", "holds",
                    Evidence(real % (6, "scalars"), exact(everyone.numbers), forty, agree)),
        ),
    )  # fmt: skip


def _growth(names: list[str]) -> Interval:
    """Bytes of six rounds at d = 400 over those at d = 20."""
    sizes = ([counted(run(name, d, 4, 2, 6, KEY)).messages for name in names] for d in (400, 20))
    return span([large / small for large, small in zip(*sizes, strict=True)])


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
