"""The recorded comparisons of language models as rows beside the papers' tables: rounds, scores, curves."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from hiso_bench.equal_bytes import TOTAL
from hiso_bench.stats import mean_interval
from hiso_bench.summaries import SHOWN_LEVEL, rounds_to_best, rounds_to_best_by_key
from llm.compare import CEILING
from llm.recorded import Recorded

ROUNDS = ("source", "model", "task", "arm", "other", "key", "rounds", "other_rounds", "last")
SCORES = ("source", "file", "model", "task", "method", "key", "value", "error")
CURVES = ("source", "model", "task", "method", "round", "value", "low", "high", "keys")
SENT = ("model", "task", "arm", "clients", "sampled", "messages")
EQUAL_ARMS = {"fedavg-10": "fedavg"} | {name: name for name in ("fedadam", "fedyogi", "fedadagrad", "fedzo", "decomfl", "hiso")}
"""Arms of `llm.equal_bytes` and the methods of Table 3 that they are."""
_ENDS = ("decomfl", "hiso")


def rounds(found: Sequence[Recorded]) -> pd.DataFrame:
    """Rounds until an arm has the other one's best score, both ways; of the mean curve (no key) and of each key by itself.

    `rounds` is empty where the arm is not there after `last` rounds, `other_rounds` is when the other one was.
    """
    rows = []
    for of in found:
        both = of.curves()
        for arm in of.arms:
            for other in _ENDS:
                each = zip(both.keys, rounds_to_best_by_key(both, arm, other), strict=True)
                for key, reached in [("", rounds_to_best(both, arm, other)), *each]:
                    at = np.nan if reached.round is None else reached.round
                    rows.append(("ours", _model(of), of.task, arm, other, key, at, reached.other_round, reached.last))
    return pd.DataFrame(rows, columns=list(ROUNDS))


def scores(found: Sequence[Recorded]) -> pd.DataFrame:
    """Scores in per cent on the whole test part, one row a key: before fine-tuning, after it, and after AdamW with gradients.

    The error is half the interval that the number of test examples leaves to one run at 99.9 %; runs that diverged have no row.
    """
    rows = []
    for of in found:
        arms = {arm: (of.final(arm), _half(of, arm)) for arm in [*of.arms, CEILING.name]}
        arms["zero-shot"] = (of.zero_shot(), np.full(len(of.config["keys"]), np.nan))
        for method, (values, halves) in arms.items():
            rows += [
                ("ours", of.experiment.table, _model(of), of.task, method, key, 100 * value, half)
                for key, value, half in zip(of.config["keys"], values, halves, strict=True)
                if np.isfinite(value)
            ]
    return pd.DataFrame(rows, columns=list(SCORES))


def at_equal_bytes(table: pd.DataFrame, config: dict[str, Any]) -> pd.DataFrame:
    """Accuracies in per cent of the methods of HiSo's Table 3 at the largest budget of both ways, one row a key.

    First-order methods have ten local steps there, FedAvg's arm with one is left out; methods of scalars had ended long before.
    Runs that diverged have no row. "zero-shot" is the accuracy before the first round.

    Args:
        table: that of `llm.equal_bytes`.
        config: its sidecar's configuration.
    """
    both: Any = table[table["count"] == TOTAL]
    last = both[(both["budget"] == both["budget"].max()) & both["arm"].isin(list(EQUAL_ARMS))].dropna(subset="accuracy")
    start = table[(table["arm"] == "fedavg-10") & (table["rounds"] == 0)].drop_duplicates("key")
    method = pd.concat([last["arm"].map(EQUAL_ARMS), start["arm"].map(lambda _: "zero-shot")])
    shown = pd.concat([last, start])
    frame = pd.DataFrame({"method": method, "key": shown["key"], "value": 100 * shown["accuracy"]}).assign(
        source="equal bytes", file="equal_bytes_llm", model=config["model"], task=config["problem"]["task"], error=np.nan
    )
    return frame[list(SCORES)]


def curves(found: Sequence[Recorded]) -> pd.DataFrame:
    """DeComFL's headline metric against rounds: mean over keys and its interval at `SHOWN_LEVEL` (range of fewer than three)."""
    rows = []
    for of in found:
        both = of.curves()
        for at, values in zip(both.rounds, both.values["decomfl"].T, strict=True):
            known = values[~np.isnan(values)]
            if len(known):
                enough = len(known) > 2
                value, low, high = mean_interval(known, SHOWN_LEVEL) if enough else (known.mean(), known.min(), known.max())
                rows.append(("ours", _model(of), of.task, "decomfl", int(at), value, low, high, len(known)))
    return pd.DataFrame(rows, columns=list(CURVES))


def sent(found: Sequence[Recorded]) -> pd.DataFrame:
    """Bytes of all messages per client and round, mean over keys; a client that is not sampled catches up later."""
    rows = []
    for of in found:
        both, config = of.curves(), of.config
        for arm in of.arms:
            each = np.nanmean(both.bytes_sent[arm][:, -1]) / (config["clients"] * both.rounds[-1])
            rows.append((_model(of), of.task, arm, config["clients"], config["sampled"], each))
    return pd.DataFrame(rows, columns=list(SENT))


def _model(of: Recorded) -> str:
    return str(of.config["model"])


def _half(of: Recorded, arm: str) -> np.ndarray:
    return 50 * (of.final(arm, f"{of.metric}_high") - of.final(arm, f"{of.metric}_low"))
