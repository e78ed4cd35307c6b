"""What AGZO's public basis holds of gradient and curvature, and what it does to the loss, beside random ones of the same rank.

Reads from a results folder the tables of `vision.agzo`:

    agzo_share.csv (key, round, basis, examples, rank, gradient, curvature, gain)
    agzo.csv (budget, arm, lr, key, round, loss, accuracy)
"""

import json
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter

from figures.style import curve, look, plt, provenance
from hiso_bench.stats import Interval, mean_interval

LOOKS = {"public": "agzo", "private": "agzo-private", "random": "agzo-random"}
NAMES = {"public": "public images", "private": "clients' images", "random": "random"}
ARMS = ("decomfl", "agzo", "agzo-random", "agzo-4")


def draw(results: Path, source: str, experiment: str = "agzo") -> Figure:
    """Draw the shares against the rank, and the loss against the round.

    Args:
        results: folder with the tables named in the module docstring.
        source: where they came from, printed at the foot.
        experiment: the tables' prefix.

    Returns:
        The figure, not saved.

    Raises:
        FileNotFoundError: where a table is missing.
    """
    shares, runs = (pd.read_csv(Path(results) / f"{name}.csv") for name in (f"{experiment}_share", experiment))
    about = json.loads((Path(results) / f"{experiment}.json").read_text())["config"]
    options = about["arms"]["agzo"]["options"]
    fig, axes = plt.subplots(1, 2, figsize=(10.8, 4.8), width_ratios=(1.0, 1.15))
    last = max(about["curved"])
    at = shares[(shares["examples"] == options["basis_examples"]) & (shares["round"] == last)]
    _shares(axes[0], at, options["rank"])
    axes[0].set_title(
        f"(a) gradient, and trace of the Hessian, after {last} rounds of DeComFL\n"
        f"{at['key'].nunique()} keys, mean and 99.9 % interval; vertical: the rank of (b)"
    )
    _losses(axes[1], runs[runs["budget"] == runs["budget"].max()])
    axes[1].set_title(
        f"(b) each at its best rate, rank {options['rank']} where not told\n"
        f"{runs['key'].nunique()} keys, mean and 99.9 % interval"
    )
    fig.suptitle(_verdict(runs, at, options["rank"]), fontsize=9, x=0.01, ha="left")
    provenance(fig, source)
    return fig


def final(runs: pd.DataFrame, arm: str, other: str) -> Interval:
    """The last loss of an arm over another's: geometric mean of the ratio over keys, with its 99.9 % interval.

    Raises:
        ValueError: a run of one of them diverged.
    """
    last = runs[runs["round"] == runs["round"].max()].pivot(index="key", columns="arm", values="loss")
    return Interval(*np.exp(mean_interval(np.log(last[arm].to_numpy() / last[other].to_numpy()))))


def gain(shares: pd.DataFrame, basis: str, rank: int) -> Interval:
    """The expected fall of the loss at its best step over that of whole directions: the mean over keys."""
    return mean_interval(shares[(shares["basis"] == basis) & (shares["rank"] == rank)]["gain"])


def told(interval: Interval, digits: int = 2) -> str:
    """A number and its interval."""
    return "{:.{n}f} [{:.{n}f}, {:.{n}f}]".format(*interval, n=digits)


def _verdict(runs: pd.DataFrame, shares: pd.DataFrame, rank: int) -> str:
    """What the two panels say, from the tables."""
    words, lines = [], []
    for budget, part in runs.groupby("budget"):
        pairs = (("agzo", "decomfl"), ("agzo", "agzo-random"), ("agzo-random", "decomfl"))
        ratios = [final(part, *pair) for pair in pairs]
        words.append(["below" if ratio.high < 1 else "above" if ratio.low > 1 else "not apart" for ratio in ratios[:2]])
        lines.append(
            f"{budget} rounds, last loss over DeComFL's: AGZO {told(ratios[0])} ({words[-1][0]}), "
            f"random basis {told(ratios[2])}; AGZO over random {told(ratios[1])} ({words[-1][1]})"
        )
    if all(word == ["below", "below"] for word in words):
        answer = "The public basis helps here."
    elif any(word == ["below", "below"] for word in words):
        answer = "The public basis helps here, but not at every budget."
    elif any(word[0] == "below" for word in words):
        answer = "A gain over DeComFL, but none over a random basis of the same rank: the activations are not what helps here."
    else:
        answer = "The public basis does not help here: at no budget is its loss told to be below DeComFL's."
    falls = [told(gain(shares, basis, rank)) for basis in ("public", "random")]
    lines.append(f"Expected fall in one step at its best rate over DeComFL's, at (a): AGZO {falls[0]}, random basis {falls[1]}")
    return "\n".join((answer, *lines))


def _shares(ax: Axes, shares: pd.DataFrame, chosen: int) -> None:
    for basis, name in NAMES.items():
        part, style = shares[shares["basis"] == basis], look(LOOKS[basis])
        for what, line in (("gradient", "-"), ("curvature", ":")):
            table = part.pivot(index="rank", columns="key", values=what)
            middle, low, high = np.array([mean_interval(row) for row in table.to_numpy()]).T
            ax.errorbar(
                table.index, middle, [middle - low, high - middle], capsize=2, color=style.color, linestyle=line,
                marker=style.marker, markersize=5, markerfacecolor=style.color if line == "-" else "white",
                label=f"{name}: {what}",
            )  # fmt: skip
    ranks = sorted(set(shares["rank"]))
    ax.set_xscale("log", base=2)
    ax.set_xticks(ranks, [str(rank) for rank in ranks])
    ax.axvline(chosen, color="#555555", linewidth=0.9, zorder=0)
    ax.legend(loc="upper left", fontsize=7)
    ax.set(xlabel="rank of the basis", ylabel="share in the span, both weight matrices", ylim=(0, 1.18))


def _losses(ax: Axes, runs: pd.DataFrame) -> None:
    for arm in ARMS:
        part = runs[runs["arm"] == arm]
        table = part.pivot(index="key", columns="round", values="loss")
        label = f"{look(arm).label}, rate {part['lr'].iloc[0]:.3g}"
        if arm != "decomfl":
            label += f", ends at x {told(final(runs, arm, 'decomfl'))}"
        curve(ax, table.columns.to_numpy(), table.to_numpy(), arm, centre="mean", interval="ci", label=label)
    ax.legend(loc="upper right", fontsize=7)
    ax.set(yscale="log", xlabel="round", ylabel="training loss, mean over clients", ylim=(0.18, 4.5))
    ax.set_yticks([0.2, 0.5, 1, 2], ["0.2", "0.5", "1", "2"])
    ax.yaxis.set_minor_formatter(NullFormatter())
