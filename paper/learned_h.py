"""The numbers of `learned_h.typ`, a summary in two pages: what HiSo's H learns, and what would have to be learned instead."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from hiso_bench.stats import mean_interval
from paper.sources import SourceError, Sources, interval, number

QUESTIONS = ("C1", "C2", "C3", "C5", "C8", "C9", "C11", "C15", "C16", "C20", "C21", "C23", "C25")
OURS = ("signal-budget", "second-difference", "safe-step")
CITED = ("preconditioning-noise", "C5-learned")
NETWORKS = ("digits MLP", "digits CNN", "MNIST CNN", "tiny-opt")
ORACLE_GAPS = ("flat", "i^-1", "i^-1.5", "10 spikes", "i^-1.5, turned 0.3", "i^-1.5, Haar")
ARMS = ("hiso", "hiso-scalar", "hiso-shuffled", "hiso-infinite", "decomfl-p10", "hiso-oracle")
ABLATIONS = ("ablation_quadratics", "ablation_networks")
SAVED = (
    ("i^-1.5", 0.0, "none", 1000), ("10 spikes", 0.0, "none", 1000),
    ("i^-1.5", 0.0, "hessian", 1000), ("10 spikes", 0.0, "hessian", 1000),
    ("i^-1.5", 0.0, "none", 200), ("10 spikes", 0.0, "none", 200),
    ("i^-1.5", 0.0, "hessian", 200), ("10 spikes", 0.0, "hessian", 200),
    ("i^-1", 0.0, "none", 200), ("log-normal 1", 0.0, "none", 200), ("4 blocks", 0.0, "none", 200),
    ("i^-1.5", 0.3, "none", 200), ("i^-1.5", np.inf, "none", 200), ("i^-1.5", 0.0, "isotropic", 200),
)  # fmt: skip
NOISE = {"none": "", "hessian": ", V ~ Σ", "isotropic": ", V ~ I"}


def numbers(sources: Sources) -> dict[str, object]:
    """Everything that the text asks for: strings, and tables as lists of rows of strings."""
    return {
        "claims": [claim(sources, id_) for id_ in (*QUESTIONS, *OURS)],
        "cited": {id_: sources.claim(id_)["verdict"] for id_ in CITED},
        "verdicts": verdicts(sources),
        "held": held(sources),
        "still": still(sources),
        "along": along(sources),
        "variants": variants(sources),
        "gaining": gaining(sources),
        "images": images(sources),
        "gaps": gaps(sources),
        "network_gaps": network_gaps(sources),
        "arms_keys": arms_keys(sources),
        "ablation": [row for name in ABLATIONS for row in ablation(sources, name)],
        "apart": [told for name in ABLATIONS for told in apart(sources, name)],
        "saved": saved(sources) + saved_on_networks(sources),
    }


def claim(sources: Sources, id_: str) -> list[str]:
    """A row: id, verdict, headline measured with its interval, what it is, and why."""
    found = sources.claim(id_)
    head, control = found["evidence"][0], found["controls"][0]
    values = [float(head[name]) for name in ("measured", "low", "high")]
    told = number(values[0], 3) if values[1] == values[2] else interval(*values)
    other = number(float(control["measured"]), 3) if control["measured"] is not None else "-"
    return [id_, found["verdict"], told, head["what"], f"{control['ingredient']}: {other}"]


def verdicts(sources: Sources) -> dict[str, str]:
    """How many of the thirteen questions hold, hold under a condition, and fail."""
    found = [sources.claim(id_)["verdict"] for id_ in QUESTIONS]
    return {kind: str(found.count(kind)) for kind in ("holds", "conditional", "fails")} | {"all": str(len(found))}


def held(sources: Sources) -> list[list[str]]:
    """Per network, the median over keys at the start and later: d, N_eff, what the fixed point tells apart, and the noise."""
    points = pd.concat([sources.table("stage_points"), sources.table("stage_networks_points")])
    rows = []
    for name in NETWORKS:
        part = points[points["subject"] == name]
        if part.empty:
            raise SourceError(f"subject {name!r} is not in stage_points or stage_networks_points")
        value = part.groupby(["quantity", "point"])["value"].median().unstack("point")
        both = {q: [number(float(value.loc[q, point]), 2) for point in ("start", "later")] for q in ("n_eff", "off_diagonal")}
        top = [f"{100 * (float(value.loc['max_r_5', point]) - 1):.1f} %" for point in ("start", "later")]
        layers = 100 * (float(value.loc["layers_5"].max()) - 1)
        rows.append(
            [
                name, f"{int(value.loc['d', 'start']):,}", " / ".join(both["n_eff"]), " / ".join(top), f"{layers:.2f} %",
                f"{100 * float(value.loc['std_log_5'].max()):.2f} %", f"{100 * float(value.loc['noise_5', 'start']):.0f} %",
                " / ".join(both["off_diagonal"]),
            ]
        )  # fmt: skip
    return rows


def still(sources: Sources) -> list[list[str]]:
    """d, P, measured correlation of log H with log diag Sigma where the gradient is that and stands still, and predicted."""
    table = sources.table("along_still")
    own = table[(table["variant"] == "hiso-c") & (table["measure"] == "log") & (table["what"] == "h") & (table["eps"] == 0)]
    own = own[(own["ema_new"] == 0.05) & (own["local_steps"] == 1)]
    rows = []
    for d, P in ((10, 5), (100, 5), (1000, 5), (1000, 80)):
        row = own[(own["d"] == d) & (own["P"] == P)].iloc[0]
        rows.append([str(d), str(P), interval(row["value"], row["low"], row["high"]), number(row["predicted"])])
    return rows


def along(sources: Sources) -> list[list[str]]:
    """Subject, P, and what stands at the end of its runs.

    What log H has above its null of a correlation with log diag |Sigma| and with log Gauss-Newton, the spread of log H and of
    its null, and the next round's decrease by the learned H and by a Gauss-Newton oracle over that of H = I.
    """
    rows = []
    for (name, P, _), row in _ends(sources, "hiso-c"):
        width = [np.sqrt(row.loc[f"share within {of}", "value"]) for of in ("h", "null")]
        excess = [interval(*row.loc[f"excess log {target}"]) for target in ("absolute", "gauss_newton")]
        gains = [interval(*row.loc[f"gain {of}"]) for of in ("learned", "oracle")]
        rows.append([name, str(P), *excess, " / ".join(number(value) for value in width), *gains])
    return rows


def variants(sources: Sources) -> list[str]:
    """Of the other variants of the update: name, subject and the excess of the correlation with log diag |Sigma|."""
    found = _ends(sources)
    return [f"{variant} on the {name} {interval(*row.loc['excess log absolute'])}" for (name, _, variant), row in found
            if variant != "hiso-c"]  # fmt: skip


def gaining(sources: Sources) -> list[str]:
    """The subjects on which the learned H's next decrease is told apart from that of H = I."""
    found = ((name, row.loc["gain learned"]) for (name, _, _), row in _ends(sources))
    return [f"{name} {interval(*gain)}" for name, gain in found if not gain["low"] <= 1 <= gain["high"]]


def _ends(sources: Sources, variant: str | None = None) -> list[tuple[tuple[str, int, str], pd.DataFrame]]:
    """(subject, P, variant) and the quantities at the last round, in the order of the table."""
    table = sources.table("along")
    last = table[table["round"] == table["round"].max()]
    groups = last.groupby(["subject", "P", "variant"], sort=False)
    ends = [((str(name), int(P), str(which)), part.set_index("quantity")[["value", "low", "high"]])
            for (name, P, which), part in groups]  # fmt: skip
    return [end for end in ends if variant in (None, end[0][2])]


def images(sources: Sources) -> dict[str, str]:
    """The ablation on MNIST: keys, rounds, batch, mean last test accuracy in % of some arms, and paired differences in points."""
    table = sources.table("ablation_mnist")
    last = table[(table["metric"] == "accuracy") & (table["round"] == table["round"].max())]
    wide = 100 * last.pivot(index="key", columns="arm", values="value")
    batch = str(sources.config("ablation_mnist")["batch_size"])
    told = {"keys": str(len(wide)), "rounds": str(last["round"].iloc[0]), "batch": batch}
    told |= {
        arm: number(float(wide[arm].mean()), 3) for arm in ("decomfl", "hiso", "hiso-scalar", "hiso-shuffled", "decomfl-p10")
    }
    for other in ("decomfl", "hiso-scalar"):
        told[f"less {other}"] = interval(*mean_interval(wide["hiso"] - wide[other]))
    return told


def arms_keys(sources: Sources) -> str:
    """Keys of the ablation's tables, the same in all of them.

    Raises:
        SourceError: they differ.
    """
    keys = {name: int(sources.config(name)["keys"]) for name in ABLATIONS}
    if len(set(keys.values())) > 1:
        raise SourceError(f"tables {keys} have different numbers of keys; the text says one")
    return str(keys[ABLATIONS[0]])


def gaps(sources: Sources) -> list[list[str]]:
    """Family, and rounds of DeComFL over those of the best known diagonal, each at its best constant step, exact."""
    table = sources.table("stage_gap").set_index(["subject", "arm"])["value"]
    return [[name, number(float(table.loc[name, "oracle Hessian"]), 2)] for name in ORACLE_GAPS]


def network_gaps(sources: Sources) -> list[str]:
    """Subject, and the speed-ups over DeComFL of a known Gauss-Newton diagonal and of HiSo, run and tuned alike."""
    table = sources.table("stage_networks_gap")
    table = table.set_index(["subject", "arm"])[["value", "low", "high"]]
    names = list(dict.fromkeys(table.index.get_level_values("subject")))
    return [
        f"{name}: {interval(*table.loc[(name, 'oracle Gauss-Newton')])}, HiSo {interval(*table.loc[(name, 'hiso')])}"
        for name in names
    ]


class Case(NamedTuple):
    """A problem of the ablation, at the targets that DeComFL reached on every key."""

    problem: str
    targets: list[float]
    budget: float
    rounds: dict[str, NDArray[np.float64]]
    """Per arm the rounds to each target, (keys, targets); NaN where a key missed it."""


def cases(sources: Sources, name: str) -> Iterator[Case]:
    """The problems of an ablation."""
    for problem, part in sources.table(name).groupby("problem", sort=False):
        wide = {str(arm): own.pivot(index="key", columns="target", values="rounds") for arm, own in part.groupby("arm")}
        targets = [target for target in sorted(wide["decomfl"].columns) if wide["decomfl"][target].notna().all()]
        if targets:
            rounds = {arm: np.maximum(table[targets].to_numpy(float), 1) for arm, table in wide.items()}
            yield Case(str(problem), [float(target) for target in targets], float(part["budget"].iloc[0]), rounds)


def ablation(sources: Sources, name: str) -> list[list[str]]:
    """Problem, number of targets, and every arm's speed-up over DeComFL in rounds: the mean log that its rate was tuned for."""
    rows = []
    for case in cases(sources, name):
        plain = case.rounds["decomfl"]
        told = [speed(plain, case.rounds[arm], case.budget) if arm in case.rounds else "-" for arm in ARMS]
        rows.append([case.problem, str(len(case.targets)), *told])
    return rows


def apart(sources: Sources, name: str) -> list[str]:
    """The problems on which HiSo and its own mean differ in rounds at 99.9 %, with the ratio: above 1, HiSo is the faster one."""
    told = []
    for case in cases(sources, name):
        ratios = case.rounds["hiso-scalar"] / case.rounds["hiso"]
        if np.isnan(ratios).any():
            continue
        _, low, high = mean_interval(np.log(ratios).mean(1))
        if low > 0 or high < 0:
            told.append(f"{case.problem} ({_geometric(ratios)})")
    return told


def speed(plain: NDArray[np.float64], arm: NDArray[np.float64], budget: float) -> str:
    """Geometric mean of the ratio of rounds (keys, targets), its interval over keys; a bound where a target was missed."""
    if np.isnan(arm).any():
        return f"< {number(float(np.exp(np.log(plain / np.where(np.isnan(arm), budget, arm)).mean())))}"
    return _geometric(plain / arm)


def _geometric(ratios: NDArray[np.float64]) -> str:
    """Of (keys,) or (keys, targets)."""
    value, low, high = (float(np.exp(end)) for end in mean_interval(np.log(ratios).reshape(len(ratios), -1).mean(1)))
    return interval(value, low, high)


def saved(sources: Sources) -> list[list[str]]:
    """Case, d, and DeComFL's scalars over those of: one second difference, five, HiSo where it was run, the oracle."""
    table = sources.table("second_order")
    table = table[table["target"] == table["target"].min()]
    rows = []
    for family, angle, geometry, d in SAVED:
        part = table[(table["family"] == family) & (table["angle"] == angle)]
        part = part[(part["geometry"] == geometry) & (part["d"] == d)]
        turned = "" if not angle else ", Haar rotation" if np.isinf(angle) else f", turned {angle:g}"
        plain = float(part.loc[part["arm"] == "decomfl", "scalars"].iloc[0])
        arms = ("curvature-1", "curvature-5", "hiso", "oracle")
        told = [_saving(plain, part.loc[part["arm"] == arm, "scalars"]) for arm in arms]
        rows.append([f"{family}{turned}{NOISE[geometry]}", str(d), *told])
    return rows


def saved_on_networks(sources: Sources) -> list[list[str]]:
    """The same on a perceptron, at the lowest loss that DeComFL, tuned, reached on every key; paired by key."""
    table, rows = sources.table("second_order_digits"), []
    for scale, name in ((0.0, "digits MLP"), (1.5, "digits MLP, scaled features")):
        part = table[(table["scale"] == scale) & table["target"].notna()]
        wide = {str(arm): own.pivot(index="key", columns="target", values="scalars") for arm, own in part.groupby("arm")}
        plain = wide["decomfl"].replace(np.inf, np.nan)
        target = min(target for target in plain.columns if plain[target].notna().all())
        told = []
        for arm in ("curvature-1", "curvature-5"):
            own = wide[arm][target].replace(np.inf, np.nan).to_numpy(float)
            arrived, ratios = int(np.isfinite(own).sum()), plain[target].to_numpy(float) / own
            told.append(_geometric(ratios) if arrived == len(own) else f"{arrived} of {len(own)} arrive")
        rows.append([f"{name}, loss {target:g}", "1210", *told, "-", "-"])
    return rows


def _saving(plain: float, scalars: pd.Series) -> str:
    if scalars.empty:
        return "-"
    values = scalars.to_numpy(float)
    if not np.isfinite(values).all():
        return f"{int(np.isfinite(values).sum())} of {len(values)} arrive"
    if len(values) == 1:
        return number(plain / float(values[0]))
    return _geometric(plain / values)
