"""Does a learned H at worst fall back to DeComFL? Without a floor it hovers at the stability edge.

Reads from a results folder the tables of `synthetic.hover`:

    hover.csv (method, rate, eps, round, replicate, gradient, edge)   hover_level.csv (rate, replicate, gradient, law)

Rates are multiples of eta*, DeComFL's mean-square limit; eps is a multiple of eta/eta*, and 0 stands for HiSo's default.
"""

import json
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from figures.style import SHADES, look, plt, provenance
from hiso_bench.stats import median_interval

HISO = {  # eps -> (label, line); no floor is HiSo itself
    0.0: (r"HiSo, $\epsilon=10^{-8}$", look("hiso").line()),
    0.8: (r"HiSo, $\epsilon=0.8\,\eta/\eta^*$", {"color": SHADES[1], "linestyle": (0, (5, 1.5))}),
    1.2: (r"HiSo, $\epsilon=1.2\,\eta/\eta^*$", {"color": SHADES[2], "linestyle": (0, (2, 1))}),
}


def draw(results: Path, source: str, experiment: str = "hover") -> Figure:
    """Draw the gradient and the distance to the edge against rounds, and the level of the hover against the rate.

    Args:
        results: folder with the tables named in the module docstring.
        source: where they came from, printed at the foot.
        experiment: the tables' prefix.

    Returns:
        The figure, not saved.

    Raises:
        FileNotFoundError: where a table is missing.
    """
    curves, levels = (pd.read_csv(Path(results) / f"{name}.csv") for name in (experiment, f"{experiment}_level"))
    about = json.loads((Path(results) / f"{experiment}.json").read_text())["config"]
    fig, axes = plt.subplots(1, 3, figsize=(11.4, 4.2))
    rate = curves["rate"].iloc[0]
    _curves(axes[0], curves, "gradient")
    axes[0].set(yscale="log", xlabel="round", ylabel=r"$|\nabla f|$", title=rf"(a) runs at $\eta={rate:g}\,\eta^*$")
    axes[0].set_ylim(1e-12, 5)  # what is smaller nears rounding
    _curves(axes[1], curves, "edge")
    axes[1].axhline(1.0, label="mean-square limit", **look("theory").line())
    axes[1].set(xlabel="round", ylabel=r"$\eta$ / largest stable step of the current $H$", ylim=(0, None))
    axes[1].set_title(r"(b) how near the edge of stability")
    _levels(axes[2], levels)
    title = (
        rf"Noise-free quadratic, $\Sigma_{{jj}}=1/j$, $d={about['dimension']}$, $P={about['P']}$: median over "
        rf"{about['replicates']} keys with its 99.9 % interval; $\eta^*$ is DeComFL's largest mean-square stable step"
    )
    handles, labels = axes[1].get_legend_handles_labels()
    fig.legend(handles, labels, title=title, loc="outside upper center", ncols=5)
    provenance(fig, source)
    return fig


def _curves(ax: Axes, curves: pd.DataFrame, column: str) -> None:
    """Median over replicates, and the band of its 99.9 % interval."""
    for (method, eps), part in curves.groupby(["method", "eps"], sort=False):
        label, line = HISO[float(str(eps))] if method == "hiso" else (look("decomfl").label, look("decomfl").line())
        table = part.pivot(index="round", columns="replicate", values=column)
        middle, low, high = np.array([median_interval(row) for row in table.to_numpy()]).T
        ax.fill_between(table.index, low, high, color=line["color"], alpha=0.2, linewidth=0)
        ax.plot(table.index, middle, label=label, **line)


def _levels(ax: Axes, levels: pd.DataFrame) -> None:
    table = levels.pivot(index="rate", columns="replicate", values="gradient")
    middle, low, high = np.array([median_interval(row) for row in table.to_numpy()]).T
    rates, law = table.index.to_numpy(), levels.groupby("rate")["law"].first().to_numpy()
    style = look("hiso")
    ax.errorbar(rates, middle, [middle - low, high - middle], capsize=3, label=r"HiSo, $\epsilon=10^{-8}$", **style.points())
    factor = np.exp(np.mean(np.log(middle / law)))
    ax.plot(rates, law, label=r"$\sqrt{P}\,(\eta/\eta^*)^{3/2}$", **look("theory").line())
    ax.plot(rates, factor * law, color="#555555", linewidth=0.9, label=rf"{factor:.2f} times that")
    ax.set(xscale="log", yscale="log", xlabel=r"$\eta\,/\,\eta^*$", ylabel=r"$|\nabla f|$ at the hover")
    ax.set_title("(c) where it hovers")
    ax.legend(loc="upper left")
