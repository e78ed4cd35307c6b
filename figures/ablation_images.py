"""The ablation on real images: every arm's last test accuracy and loss, and what each has over DeComFL, key by key.

Reads `<experiment>.csv` of `learned_h.mnist`.
"""

import json
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from figures.ablation import ORDER
from figures.style import OKABE_ITO, curve, look, plt, provenance
from hiso_bench.stats import mean_interval
from hiso_bench.summaries import SHOWN_LEVEL, curves

SHOWN = ("decomfl", "decomfl-p10", "hiso", "hiso-scalar", "hiso-shuffled")
"""Curves; the other arms are in the panels of differences."""


def draw(results: Path, source: str, experiment: str) -> Figure:
    """Draw accuracy along the run, and the paired differences at its end in accuracy and in the logarithm of the loss.

    Args:
        results: folder with the table.
        source: where it came from, printed at the foot.
        experiment: the table's name.
    """
    table = pd.read_csv(Path(results) / f"{experiment}.csv")
    about = json.loads((Path(results) / f"{experiment}.json").read_text())["config"]
    arms = [arm for arm in ORDER if arm in set(table["arm"])]
    accuracy, loss = (curves(table, metric, ["decomfl", *arms]) for metric in ("accuracy", "loss"))
    last = {metric: {arm: of.values[arm][:, -1] for arm in of.values} for metric, of in (("accuracy", accuracy), ("loss", loss))}
    fig, axes = plt.subplots(1, 3, figsize=(13.0, 4.3), width_ratios=(1.15, 1, 1))
    for arm in SHOWN:
        curve(axes[0], accuracy.rounds, 100 * accuracy.values[arm], arm, "mean")
    axes[0].set(xlabel="round", ylabel="test accuracy (%)", title="(a) mean and range of the keys")
    axes[0].legend(loc="lower right", fontsize=7)
    _differences(axes[1], {arm: 100 * values for arm, values in last["accuracy"].items()})
    axes[1].set(xlabel="last test accuracy less DeComFL's (points)", title="(b) to the right: better than DeComFL")
    axes[1].set_yticks(range(len(arms)), [look(arm).label for arm in arms])
    _differences(axes[2], {arm: -np.log(values) for arm, values in last["loss"].items()})
    axes[2].set(xlabel="log of DeComFL's last test loss / the arm's", title="(c) the same in the loss")
    axes[2].set_yticks(range(len(arms)), [""] * len(arms))
    fig.suptitle(
        f"CNN on MNIST, {about['clients']} clients, {about['sampled']} sampled, batch {about['batch_size']}, P = {about['P']}, "
        f"{about['rounds']} rounds; every arm at its own tuned rate; {len(about['keys'])} keys, paired: "
        f"{100 * SHOWN_LEVEL:g} % (thick) and 99.9 % intervals",
        fontsize=9, x=0.01, ha="left",
    )  # fmt: skip
    provenance(fig, source)
    return fig


def _differences(ax: Axes, last: dict[str, np.ndarray]) -> None:
    """Paired differences to DeComFL of (keys,) values, with the keys' own as ticks."""
    arms = [arm for arm in last if arm != "decomfl"]
    for row, arm in enumerate(arms):
        difference, style = last[arm] - last["decomfl"], look(arm)
        middle, low, high = mean_interval(difference, SHOWN_LEVEL)
        _, lowest, highest = mean_interval(difference)
        ax.plot([lowest, highest], [row, row], color=style.color, lw=0.8)
        ax.plot([low, high], [row, row], color=style.color, lw=2.6, solid_capstyle="butt")
        ax.plot(difference, np.full(len(difference), row + 0.28), "|", ms=5, color=OKABE_ITO["grey"])
        ax.plot(middle, row, marker=style.marker, ms=6, color=style.color, mec="black", mew=0.5)
    ax.axvline(0, **look("decomfl").line(), lw=1)
    ax.set_ylim(len(arms) - 0.4, -0.6)
