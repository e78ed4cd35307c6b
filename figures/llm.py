"""Methods compared on fine-tuning language models: scores and losses on test examples against rounds, one column per task.

Reads, of every column's table that is recorded, results/<table>.csv (arm, lr, key, round, bytes_up, bytes_down, forward_passes,
metric, value; see `llm.compare`) and its sidecar. A metric named whole_<metric> is on the whole test part, the others are on a
sample of it. A table whose sidecar names fewer keys than were planned is drawn as partial; one that is not there has no column,
and the title names it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from figures.style import OKABE_ITO, curve, look, plt, provenance
from hiso_bench import records
from hiso_bench.stats import mean_interval
from hiso_bench.summaries import SHOWN_LEVEL, Curves, curves

CEILING, WHOLE = "first-order", "whole_"


class Column(NamedTuple):
    """A task of a figure: its table, what its panels say, and its headline metric."""

    table: str
    title: str
    metric: str
    label: str
    guess: float | None
    """The score of guessing; None where nothing can be guessed."""


TOY = (
    Column("llm_tiny-opt_toy-sst2", "toy-sst2: sentiment of generated reviews", "accuracy", "test accuracy", 0.5),
    Column("llm_tiny-opt_toy-qqp", "toy-qqp: generated paraphrase pairs", "accuracy", "test accuracy", 0.5),
    Column("llm_tiny-opt_toy-squad", "toy-squad: questions about generated passages", "f1", "test F1", None),
)
REAL = (
    Column("llm_imdb-opt_sst2", "SST-2, an OPT pre-trained on IMDB", "accuracy", "accuracy on SST-2's development set", 0.5),
    Column("llm_minilm_sst2", "SST-2, MiniLM encoder with a head", "accuracy", "accuracy on SST-2's development set", 0.5),
)
LINES = {
    "guess": {"color": OKABE_ITO["grey"], "linestyle": (0, (1, 1.5))},
    "zero-shot": {"color": OKABE_ITO["black"], "linestyle": (0, (5, 2))},
    "first-order": {"color": OKABE_ITO["green"], "linestyle": (0, (8, 2))},
}
_ENOUGH = 3
"""Keys from which on there is an interval of the mean; with two, it says nothing and fills the panel."""
_APART = 0.055
"""Least distance of two labels beside an axis, in heights of the axis."""


def draw_toy(results: Path, source: str, experiment: str = "") -> Figure:
    """tiny-opt on the three generated tasks.

    Args:
        results: folder with the tables.
        source: where they came from, printed at the foot.
        experiment: not used; the columns name their tables.
    """
    return _draw(results, source, TOY, "tiny-opt (1 M parameters, pre-trained by this project)")


def draw_real(results: Path, source: str, experiment: str = "") -> Figure:
    """Real SST-2: an OPT pre-trained on IMDB, and a pretrained sentence encoder; as `draw_toy`."""
    return _draw(results, source, REAL, "Federated fine-tuning on real SST-2")


def _draw(results: Path, source: str, every: tuple[Column, ...], what: str) -> Figure:
    columns = [column for column in every if (Path(results) / f"{column.table}.csv").exists()]
    if len(columns) == 1:  # a figure that is wider than high
        fig, axes = plt.subplots(1, 2, figsize=(10.4, 4.4))
        axes = axes.reshape(2, 1)
    else:
        fig, axes = plt.subplots(2, len(columns), figsize=(4.8 * len(columns) + 0.4, 7.4), squeeze=False, height_ratios=(1.2, 1))
    letters, settings = iter("abcdefgh"), []
    for column, (top, bottom) in zip(columns, axes.T, strict=True):
        marks = [f"({next(letters)})", f"({next(letters)})"]
        frame, about = records.read(Path(results) / f"{column.table}.csv")
        config = about["config"]
        settings.append(config)
        _panel(top, frame, config, column.metric, column.label, column.guess)
        _panel(bottom, frame, config, "loss", "test loss (nats)", None)
        top.set_title(f"{marks[0]} {column.title}\n{_extent(config)}")
        bottom.set_title(f"{marks[1]} loss of the same runs\n{_sample(config)}")
        bottom.legend(loc="upper left", bbox_to_anchor=(-0.02, -0.16), fontsize=7)
    absent = [column.title.split(":")[0] for column in every if column not in columns]
    missing = f"; not recorded: {', '.join(absent)}" if absent else ""
    fig.suptitle(
        f"{what}; {_setting(settings)}\nfirst-order: {look(CEILING).label}; intervals are cut at 0 and at a score of 1{missing}",
        fontsize=9.5, x=0.01, ha="left",
    )  # fmt: skip
    provenance(fig, source)
    return fig


def _setting(configs: list[dict[str, Any]]) -> str:
    """What the runs of all columns have in common; differences stay out of the title."""
    first = configs[0]
    parts = {
        "clients": f"{first['clients']} clients",
        "sampled": f"{first['sampled']} sampled",
        "alpha": f"Dirichlet {first.get('alpha', 1.0):g}",
        "batch_size": f"batch {first.get('batch_size')}",
        "P": f"P = {first['P']}",
        "mu": rf"$\mu$ = {first['mu']:g}",
        "difference": f"{first['difference']} difference",
    }
    return ", ".join(text for name, text in parts.items() if len({config.get(name) for config in configs}) == 1)


def _extent(config: dict[str, Any]) -> str:
    """How many keys there are, whether there should be more, and what the bands are."""
    done, planned = len(config["keys"]), len(config["planned"])
    extent = f"PARTIAL: {done} of {planned} keys" if done < planned else f"{done} keys"
    return f"{extent}; mean and {f'{SHOWN_LEVEL:.0%} interval of it' if done >= _ENOUGH else 'range'}; thin: single keys"


def _sample(config: dict[str, Any]) -> str:
    """On how many examples the curves are, where the marks at the right are on all of them."""
    limit = config["evaluate_limit"]
    return f"curves on {limit:,} test examples, marks at the right on all" if limit else "all test examples"


def _panel(ax: Axes, frame: pd.DataFrame, config: dict[str, Any], metric: str, label: str, guess: float | None) -> None:
    arms = [arm for arm in dict.fromkeys(frame["arm"]) if arm != CEILING]
    found = curves(frame, metric, arms)
    for arm in arms:
        values = found.values[arm]
        interval = "ci" if len(values) >= _ENOUGH else "range"
        told = f"{look(arm).label}, $\\eta$ = {config['rates'][arm]:.2g}{_lost(found, arm)}"
        curve(ax, found.rounds, values, arm, centre="mean", interval=interval, level=SHOWN_LEVEL, label=told)
        ax.plot(found.rounds, values.T, color=look(arm).color, lw=0.5, alpha=0.6, zorder=1)
    _ends(ax, frame, metric, arms, int(found.rounds[-1]))
    lines = _reference(frame, metric) | ({} if guess is None else {"guess": guess})
    for name, value in lines.items():
        ax.axhline(value, lw=1.2, zorder=1, **LINES[name])
    ax.set(xlabel="communication round", ylabel=label, xlim=(0, found.rounds[-1] * (1.03 + 0.025 * len(arms))))
    # Intervals of a mean over keys that differ much reach where no score can be; the axis does not.
    low, high = ax.get_ylim()
    ax.set_ylim(max(low, -0.02), high if metric == "loss" else min(high, 1.02))
    _beside(ax, lines)


def _lost(found: Curves, arm: str) -> str:
    """Says how many runs did not come to their end."""
    lost = int(np.isnan(found.values[arm][:, -1]).sum())
    return f" ({lost} of {len(found.keys)} diverged)" if lost else ""


def _ends(ax: Axes, frame: pd.DataFrame, metric: str, arms: list[str], last: int) -> None:
    """The last round on the whole test part, mean and interval over keys (or range), right of the curves."""
    whole = frame[(frame["metric"] == WHOLE + metric) & (frame["round"] == last)]
    for i, arm in enumerate(arms):
        values = whole.loc[whole["arm"] == arm, "value"].to_numpy()
        if len(values):
            enough = len(values) >= _ENOUGH
            middle, low, high = mean_interval(values, SHOWN_LEVEL) if enough else (values.mean(), values.min(), values.max())
            at = last * (1.025 + 0.025 * i)
            high = high if metric == "loss" else min(high, 1.0)
            ax.plot([at, at], [max(low, 0.0), high], color=look(arm).color, lw=1.2)
            ax.plot(at, middle, **(look(arm).points() | {"markersize": 4}))


def _reference(frame: pd.DataFrame, metric: str) -> dict[str, float]:
    """Mean over keys of the score before fine-tuning and after first-order fine-tuning, on the whole test part."""
    part = frame[(frame["arm"] == CEILING) & (frame["metric"] == WHOLE + metric)]
    means = part.groupby("round")["value"].mean()
    return {"zero-shot": float(means.iloc[0]), "first-order": float(means.iloc[-1])} if len(means) else {}


def _beside(ax: Axes, lines: dict[str, float]) -> None:
    """The lines' names and values right of the axis, pushed apart where they would overlap."""
    low, high = ax.get_ylim()
    at = -np.inf
    for name, value in sorted(lines.items(), key=lambda item: item[1]):
        at = max((value - low) / (high - low), at + _APART)
        text = f"{name} {value:.3f}" if name != "guess" else f"guessing {value:g}"
        ax.text(1.01, at, text, transform=ax.transAxes, fontsize=6.8, va="center", color=LINES[name]["color"])
