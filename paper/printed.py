"""What the papers' tables print, beside what arithmetic and ledgers say of it and what was measured here.

One experiment makes the tables that the figures of the papers' tables draw, from `paper/reported/`, the functions of the byte
audit (`claims.bytes`, `claims.bytes_ledgers`), the verdicts in results/claims.json and the recorded comparisons of language
models (`paper.measured`). It trains nothing: but for the messages of four small federations everything is read.

    printed_variance   HiSo's Table 1: law, spectrum, H, d, entry, value, exact
    printed_verdicts   evidence of claims about the tables: claim, verdict, what, its numbers, the allowed range
    printed_bytes      every cell that counts scalars: file, model, task, method, bytes, rounds, implied, whole, by_fedzo
    printed_ledgers    real messages, per client and round: method, clients, sampled, charged, scalars, with_seeds, messages
    printed_sent       our language models' messages: model, task, arm, clients, sampled, messages (per client and round)
    printed_vectors    cells of methods that send vectors: file, model, task, method, quantity, low, high
    printed_rounds     rounds to a method's best score: source, model, task, arm, other, key, rounds, other_rounds, last
    printed_scores     source, file, model, task, method, key, value, error
    printed_curves     accuracy against rounds: source, model, task, method, round, value, low, high, keys
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from claims import bytes as audit
from claims import bytes_ledgers as ledgers
from hiso_bench import quoted, records
from hiso_bench.equal_bytes import TOTAL
from hiso_bench.experiments import Plan, Profile
from hiso_bench.theory import spectra
from llm.recorded import comparisons, recorded
from paper import measured
from synthetic import oracle

VERSION = 5
EQUAL = "equal_bytes_llm"
"""The recorded comparison that has the first-order methods of HiSo's Table 3 on a model of ours."""
FAMILIES = ("flat", "i^-1", "i^-1.5", "10 spikes", "log-normal 2.5")
EPS = 0.1
"""Of H = Sigma + eps, in units of the largest eigenvalue."""
CLAIMS = (
    "table1", "table1-title", "eq17", "bytes-decomfl", "bytes-units", "bytes-decomfl-protocol", "C14", "C22", "bytes-savings",
    "bytes-90-million", "bytes-sst2-items",
)  # fmt: skip
NUMBERS = ("prediction", "measured", "low", "high")
FEDERATIONS = (("hiso", 6, 2), ("hiso", 6, 6), ("decomfl", 8, 2), ("decomfl", 8, 8))
"""Method, clients, sampled: those of HiSo's and of DeComFL's tables, and the same with everybody in every round."""
HISO, DECOMFL = ("hiso_table2", "hiso_table3"), ("decomfl_table2", "decomfl_lora")
SCALE = "decomfl_scale"


def variance() -> pd.DataFrame:
    """HiSo's Table 1 on spectra whose largest eigenvalue L is 1.

    Entries L d and L kappa for the directions u, 2 d and zeta for z = H^-1/2 u; exact is E u'Sigma u or E z'Sigma z, which is the
    trace of Sigma or of H^-1 Sigma for any law with E uu' = I (claim eq13-16).
    """
    rows = []
    for family in FAMILIES:
        s = oracle.spectrum(family)
        d, L = len(s), float(s.max())
        exact = spectra.total(s)
        rows += [("u", family, "", d, "L d", L * d, exact), ("u", family, "", d, "L kappa", L * spectra.effective_rank(s), exact)]
        for name, h in {"Sigma + eps": s + EPS * L, "(Sigma + eps)/100": (s + EPS * L) / 100, "L I": np.full(d, L)}.items():
            zeta = spectra.whitening_rank(s, h)
            rows += [("z", family, name, d, "2 d", 2.0 * d, zeta), ("z", family, name, d, "zeta", zeta, zeta)]
    return pd.DataFrame(rows, columns=["law", "spectrum", "H", "d", "entry", "value", "exact"])


def verdicts(path: Path) -> pd.DataFrame:
    """The evidence and the verdict of `CLAIMS`, as `make verify` wrote them, one row for each evidence.

    Raises:
        ValueError: the file has none of one of them.
    """
    found = {claim["id"]: claim for claim in json.loads(path.read_text())}
    rows = []
    for id_ in CLAIMS:
        if id_ not in found:
            raise ValueError(f"claim {id_!r} is not in {path}; `make verify` decides it")
        for part in found[id_]["evidence"]:
            numbers = [part[name] for name in NUMBERS]
            numbers = [np.nan if value is None else float(value) for value in (*numbers, *part["allowed"])]
            rows.append((id_, found[id_]["verdict"], part["what"], *numbers))
    return pd.DataFrame(rows, columns=["claim", "verdict", "what", *NUMBERS, "allowed_low", "allowed_high"])


def scalar_bytes() -> pd.DataFrame:
    """Cells that count scalars, in bytes; `implied` are the rounds at the table's own charge, `whole`: they are a round number.

    `by_fedzo` are the rounds that FedZO's column of the same table stands for (DeComFL's tables).

    A round number is a whole number of evaluations (HiSo's Table 3), or a whole multiple of 500 (DeComFL's tables).
    """
    parts = []
    for file in HISO:
        kilobytes = quoted.printed(file, "communication", "decomfl", "hiso")
        rounds = quoted.printed(file, "rounds", "decomfl", "hiso").reindex(kilobytes.index)
        whole = audit.whole_evaluations(kilobytes)
        parts.append((file, kilobytes * 1024, rounds, audit.as_rounds(kilobytes), whole, np.nan))
    for file in DECOMFL:
        implied = pd.concat({"decomfl-p5": audit.decomfl_rounds(file)}, names=["method"]).reorder_levels([1, 2, 0])
        whole = np.abs(implied / audit.STEP - np.round(implied / audit.STEP)) * audit.STEP < 1e-6
        ratio = audit.fedzo_ratios(file).reindex(implied.index.droplevel("method")).to_numpy()
        parts.append((file, implied * audit.DECOMFL_BYTES, implied * np.nan, implied, whole, implied * ratio))
    names = ["bytes", "rounds", "implied", "whole", "by_fedzo"]
    frames = [pd.DataFrame(dict(zip(names, columns, strict=True))).assign(file=file) for file, *columns in parts]
    return pd.concat(frames).reset_index()


def ledger_bytes() -> pd.DataFrame:
    """What messages cost per client and round beside the tables' charge, for `FEDERATIONS`, P = 5."""
    rows = []
    for method, clients, sampled in FEDERATIONS:
        real = ledgers.traffic(method, clients, sampled)
        charged = audit.HISO_BYTES if method == "hiso" else audit.DECOMFL_BYTES
        rows.append((method, clients, sampled, charged, real.numbers, real.numbers + real.seeds, real.messages))
    return pd.DataFrame(rows, columns=["method", "clients", "sampled", "charged", "scalars", "with_seeds", "messages"])


def vectors() -> pd.DataFrame:
    """Cells of methods that send vectors: millions of times HiSo's cell, or times what the arithmetic of DeComFL's table gives.

    `low` and `high` span the readings of TB and KB and the printed digits; for the arithmetic, TB are TiB.
    """
    times = audit.millions_of_hiso(*audit.FIRST_ORDER, "fedzo").reset_index()
    parts = [times.assign(file="hiso_table3", quantity="millions of HiSo's bytes")]
    for file in DECOMFL:
        ratio = audit.fedzo_over_arithmetic(file, 2**40)
        frame = pd.DataFrame({"low": ratio, "high": ratio}).reset_index()
        parts.append(frame.assign(method="fedzo-p5", file=file, quantity="over the arithmetic"))
    return pd.concat(parts, ignore_index=True)


def printed_rounds() -> pd.DataFrame:
    """Table 2: rounds to DeComFL's best score, as `measured.rounds` has them."""
    rounds = quoted.printed("hiso_table2", "rounds", "decomfl", "hiso")
    rows = [
        ("reported", model, task, arm, "decomfl", "", value, rounds[(model, task, "decomfl")], np.nan)
        for (model, task, arm), value in rounds.items()
    ]
    return pd.DataFrame(rows, columns=list(measured.ROUNDS))


def printed_scores() -> pd.DataFrame:
    """Accuracies and F1 of all tables, in per cent, as `measured.scores` has them; the error is what is printed after +-."""
    frames = [quoted.table(file).assign(file=file) for file in ("hiso_table3", *DECOMFL)]
    every = pd.concat(frames, ignore_index=True)
    scores = every[every["quantity"].isin(["accuracy", "f1"])].assign(source="reported", key="")
    return scores[list(measured.SCORES)]


def printed_curves() -> pd.DataFrame:
    """The four curves of the model-scale figure, as `measured.curves` has them: one run each."""
    frame = quoted.table(SCALE).assign(source="reported", keys=1, method="decomfl")
    frame = frame.assign(low=frame["value"], high=frame["value"])
    return frame[list(measured.CURVES)]


class Printed:
    """The papers' tables as an `experiments.Experiment`."""

    name = "printed"
    profile: Profile = "quick"

    def plan(self) -> Plan:
        """The rounds of four small federations."""
        return Plan(len(FEDERATIONS), 0, 1.0)

    def tune(self, results: Path, work: Path, jobs: int) -> None:
        """Nothing to choose."""

    def compare(self, grids: Path, results: Path, work: Path, jobs: int) -> None:
        """Write the tables, from what is recorded in `grids`.

        Raises:
            OSError: there are no verdicts (claims.json).
            ValueError: a claim is missing there, or a recorded table was changed after it was written.
        """
        target = results / "printed_variance.csv"
        ours = recorded(grids, comparisons())
        decided = verdicts(grids / "claims.json")
        equal = records.read(grids / f"{EQUAL}.csv") if (grids / f"{EQUAL}.csv").exists() else None
        config = {
            "reported": {path.stem: _sha(path.read_bytes()) for path in sorted(quoted.REPORTED.glob("*.csv"))},
            "recorded": {of.experiment.table: [of.about["sha256"], of.about["date"], of.about["source"]] for of in ours},
            "equal_bytes": _equal_bytes(equal[1]) if equal else None,
            "verdicts": _sha(decided.to_csv().encode()),
            "charges": {"hiso": audit.HISO_BYTES, "decomfl": audit.DECOMFL_BYTES}, "evaluation": audit.EVALUATION,
            "step": audit.STEP,
            "families": FAMILIES, "eps": EPS, "federations": FEDERATIONS, "rounds": ledgers.ROUNDS,
        }  # fmt: skip
        config: dict[str, Any] = json.loads(json.dumps(config))
        if records.current(target, config, VERSION):
            return
        tables = {
            "verdicts": decided,
            "bytes": scalar_bytes(),
            "ledgers": ledger_bytes(),
            "vectors": vectors(),
            "sent": measured.sent(ours),
            "rounds": pd.concat([printed_rounds(), measured.rounds(ours)], ignore_index=True),
            "scores": pd.concat(
                [
                    printed_scores(),
                    measured.scores(ours),
                    *([measured.at_equal_bytes(equal[0], equal[1]["config"])] if equal else []),
                ],
                ignore_index=True,
            ),
            "curves": pd.concat([printed_curves(), measured.curves(ours)], ignore_index=True),
            "variance": variance(),
        }
        for name, table in tables.items():  # the one that is asked for is written last
            records.write(table, results / f"printed_{name}.csv", config, VERSION)


def _equal_bytes(about: dict[str, Any]) -> dict[str, Any]:
    largest = max(about["config"]["budgets"][TOTAL])
    return {name: about[name] for name in ("sha256", "date", "source")} | {"largest": largest}


def _sha(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


PRINTED = Printed()
