"""DeComFL's published accuracy curves on MNIST and Fashion-MNIST, thinned to the rounds that figures and comparisons need.

The official repository holds them as tensorboard exports (results/ at commit 0c426e6); `decomfl_reported.csv` is all of them in
one file. `python -m vision.published` writes paper/reported/decomfl_mnist.csv from it: per setting and round the mean, smallest
and largest test accuracy over their seeds, and the standard deviation where there are two or more. A step s there is round
s + 1 here: accuracy after that many rounds.
"""

from __future__ import annotations

import re
from pathlib import Path

import pandas as pd

from hiso_bench import datafiles, records
from hiso_bench.catalogue import ROOT

SOURCE = "decomfl_reported.csv"
SHA256 = "6c835496af8d2d1cc22be80a8b5032c4e7789e058afca903671024e3d941fef0"
TARGET = ROOT / "paper" / "reported" / "decomfl_mnist.csv"
_EARLY, _LATE = (1, 2, 3, 5, 7, 10, 15), (1500, 2000, 2500, *range(3000, 10001, 1000))
ROUNDS = (*_EARLY, *range(20, 201, 20), 240, 280, *range(300, 1001, 100), *_LATE)
"""Where the thinned curves are given."""
P_DOUBLES = 500
"""In the runs on Fashion-MNIST with five local steps P doubles after this round, and the rate falls."""
SETTING = ["dataset", "method", "tau", "P", "lr", "momentum"]
WHERE = "official repository at commit 0c426e6, results/{group}"
_PAPER = "DeComFL (arXiv 2405.15861)"


def thinned(raw: pd.DataFrame) -> pd.DataFrame:
    """The published curves at `ROUNDS`.

    Args:
        raw: group, run, metric, step, value, as the repository's exports are.

    Returns:
        paper, where, dataset, method, tau, P, lr, momentum, round, seeds, mean, min, max, sd. An empty field: the setting has no
        such number, or there is one seed. Runs that compress (top-k, quantised) are left out, and what follows a change of P.
    """
    curves = raw[(raw["metric"] == "Accuracy_test") & raw["group"].str.match(r"(mnist|fashion)_(fo|zo)_")]
    # Every export of a first-order run ends with its last row written twice.
    curves = curves.drop_duplicates(["run", "step"])
    told = curves["run"].drop_duplicates()
    settings = pd.DataFrame({run: found for run in told if (found := _setting(str(run))) is not None}).T
    curves = curves.join(settings, on="run", how="inner").assign(round=lambda f: f["step"] + 1)
    kept = curves["round"].isin(ROUNDS)
    doubling = (curves["dataset"] == "fashion") & (curves["method"] == "decomfl") & (curves["tau"] == 5)
    curves = curves[kept & ~(doubling & (curves["round"] > P_DOUBLES))]
    grouped = curves.groupby([*SETTING, "round", "group"], dropna=False)["value"]
    table = grouped.agg(seeds="count", mean="mean", min="min", max="max", sd="std").reset_index()
    table.insert(0, "where", [WHERE.format(group=group) for group in table.pop("group")])
    table.insert(0, "paper", _PAPER)
    table = table.astype({"tau": int, "P": "Int64"})
    return table.round({"mean": 5, "min": 5, "max": 5, "sd": 5})


def _setting(run: str) -> dict[str, object] | None:
    if "topk" in run or "quan" in run:
        return None
    found = dict(re.findall(r"(local_update|lr|mmtm|npert)[-=]([\d.]+)", run))
    first_order = "fedavg" in run
    return {
        "dataset": "fashion" if "fashion" in run else "mnist",
        "method": "fedavg" if first_order else "decomfl",
        "tau": int(found["local_update"]),
        "P": None if first_order else int(found["npert"]),
        "lr": float(found["lr"]),
        "momentum": None if first_order else float(found["mmtm"]),
    }


def published() -> pd.DataFrame:
    """The thinned curves as they are kept."""
    return pd.read_csv(TARGET)


def main(target: Path = TARGET) -> None:
    """Write the thinned curves from the raw file.

    Raises:
        hiso_bench.datafiles.DataError: the raw file is not at hand, or another one.
    """
    table = thinned(pd.read_csv(datafiles.find(SOURCE, SHA256, [])))
    records.write_bytes(target, table.to_csv(index=False, lineterminator="\n").encode())


if __name__ == "__main__":
    main()
