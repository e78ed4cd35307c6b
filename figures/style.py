"""What every figure shares: fonts, one fixed look per method, bands, the origin of the data, and saving.

Importing this module selects the Agg backend and the house style for the process, so figures look the same
in a terminal, a notebook and a test. Colours are those of Okabe and Ito, told apart under the common
colour-vision deficiencies; every method also has its own line style and marker, for print in grey.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any, NamedTuple

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt  # noqa: E402 (the backend comes first)
import numpy as np  # noqa: E402
from matplotlib.axes import Axes  # noqa: E402
from matplotlib.figure import Figure  # noqa: E402
from matplotlib.layout_engine import ConstrainedLayoutEngine  # noqa: E402
from numpy.typing import ArrayLike  # noqa: E402
from scipy import stats  # noqa: E402

OKABE_ITO: Mapping[str, str] = {
    "black": "#000000",
    "orange": "#E69F00",
    "sky": "#56B4E9",
    "green": "#009E73",
    "yellow": "#F0E442",
    "blue": "#0072B2",
    "vermillion": "#D55E00",
    "purple": "#CC79A7",
    "grey": "#7F7F7F",
}

# One hue from light to dark for settings that are ordered and are no methods (a spread, a dimension, an eps).
SHADES = ("#B9A6DC", "#7F5AB5", "#34155E")

RC: dict[Any, Any] = {
    "figure.dpi": 100,
    "figure.constrained_layout.use": True,
    "font.family": "DejaVu Sans",  # ships with matplotlib: the same glyphs on every machine
    "font.size": 9,
    "axes.titlesize": 9.5,
    "axes.titlelocation": "left",
    "axes.labelsize": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#E3E3E3",
    "grid.linewidth": 0.6,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "legend.fontsize": 8,
    "legend.frameon": False,
    "lines.linewidth": 1.6,
    "lines.markersize": 5,
    "mathtext.fontset": "dejavusans",
    "pdf.fonttype": 42,  # text in the PDF stays text
}
plt.rcParams.update(RC)


class Look(NamedTuple):
    """Colour, line style, marker and legend text of one method."""

    color: str
    linestyle: str | tuple
    marker: str
    label: str

    def line(self) -> dict:
        """Keyword arguments for `Axes.plot` without markers."""
        return {"color": self.color, "linestyle": self.linestyle}

    def points(self) -> dict:
        """Keyword arguments for `Axes.plot` with markers and no line; printed values are yellow stars."""
        reported = self.label == METHODS["reported"].label
        return {
            "color": self.color,
            "linestyle": "none",
            "marker": self.marker,
            "markerfacecolor": OKABE_ITO["yellow"] if reported else self.color,
            "markeredgecolor": self.color,
            "markersize": 11 if reported else 5,
            "clip_on": False,
        }


METHODS: Mapping[str, Look] = {
    "decomfl": Look(OKABE_ITO["blue"], "-", "o", "DeComFL"),
    "decomfl-decay": Look("#2E2A85", (0, (4, 1.5)), "h", "DeComFL, decaying step"),
    "decomfl-theory": Look("#00456B", (0, (1, 1)), "d", "DeComFL at half its stability limit"),
    "hiso": Look(OKABE_ITO["vermillion"], "-", "s", "HiSo (EMA weight 0.05)"),
    "hiso-0.1": Look(OKABE_ITO["orange"], (0, (5, 1.5)), "^", "HiSo (EMA weight 0.1)"),
    "hiso-0.01": Look(OKABE_ITO["purple"], (0, (3, 1, 1, 1)), "v", "HiSo (EMA weight 0.01)"),
    "hiso-scalar": Look(OKABE_ITO["sky"], (0, (6, 1, 1, 1)), "D", "HiSo, H replaced by its mean"),
    "hiso-shuffled": Look(OKABE_ITO["grey"], (0, (2, 1)), "X", "HiSo, H shuffled"),
    "hiso-shuffled-leaf": Look("#B5B5B5", (0, (2, 2)), "x", "HiSo, H shuffled within layers"),
    "hiso-leaf-mean": Look("#2B7A9E", (0, (6, 2, 1, 2)), "p", "HiSo, one H per layer"),
    "hiso-frozen": Look("#8C510A", (0, (1, 2)), "<", "HiSo, H frozen after 100 rounds"),
    "hiso-lognormal": Look("#B8860B", (0, (3, 2)), ">", "HiSo, random log-normal H"),
    "hiso-exact-scalar": Look("#A0522D", (0, (7, 1, 1, 1, 1, 1)), "1", "HiSo with all of Eq 7"),
    "hiso-infinite": Look("#7B1FA2", (0, (4, 1)), "*", "HiSo, H from the exact gradient"),
    "zo-rmsprop": Look("#5B5EA6", (0, (3, 1)), "H", "ZO-RMSProp"),
    "zo-adam": Look("#9B9BD0", (0, (3, 3)), "8", "ZO-Adam"),
    "meazo": Look("#006D5B", (0, (5, 1, 1, 1)), "d", "MEAZO"),
    "agzo": Look("#882255", (0, (5, 1.5)), "p", "AGZO, public basis"),
    "agzo-4": Look("#CC6677", (0, (1, 1)), ">", "AGZO, public basis, rank 4"),
    "agzo-private": Look("#44AA99", (0, (8, 1.5)), "h", "basis of the clients' own data"),
    "agzo-random": Look(OKABE_ITO["grey"], (0, (3, 1, 1, 1)), "X", "random basis"),
    "momentum": Look("#5A8FBF", (0, (2, 1, 1, 1)), "v", "DeComFL, momentum 0.9"),
    "decomfl-p10": Look("#003F88", (0, (6, 2)), "^", "DeComFL, P = 10 (twice the scalars)"),
    "hiso-oracle": Look(OKABE_ITO["green"], (0, (8, 1.5)), "P", "HiSo, H from the true Hessian"),
    "decomfl-2P": Look("#00456B", (0, (3, 1.5)), "o", "DeComFL with 2P"),
    "safe-step": Look("#6E6E6E", (0, (5, 1.5)), "^", "safe step, H = I"),
    "curvature-1": Look(OKABE_ITO["purple"], "-", "s", "curvature, one second difference"),
    "curvature-2": Look("#9C4F7B", (0, (5, 1.5)), "D", "curvature, two"),
    "curvature-5": Look("#5E2750", (0, (3, 1, 1, 1)), "v", "curvature, five (10 scalars a round)"),
    "curvature-block": Look(OKABE_ITO["orange"], (0, (8, 1.5)), "X", "one number per block"),
    "fedavg": Look("#332288", (0, (4, 1)), "o", "FedAvg"),
    "fedadam": Look("#117733", (0, (4, 1)), "D", "FedAdam"),
    "fedyogi": Look("#999933", (0, (4, 1)), "^", "FedYogi"),
    "fedadagrad": Look("#882255", (0, (4, 1)), "v", "FedAdagrad"),
    "fedzo": Look(OKABE_ITO["grey"], (0, (3, 1)), "X", "FedZO"),
    "mezo": Look(OKABE_ITO["black"], (0, (2, 1)), "P", "MeZO (one client)"),
    "first-order": Look(OKABE_ITO["green"], (0, (8, 2)), "*", "AdamW on pooled data"),
    "fedavg-10": Look("#6A5ACD", "-", "H", "FedAvg, 10 local steps"),
    "fedcom": Look("#7A6A00", (0, (4, 1)), "^", "4 bits (FedCOM)"),
    "fedcom-10": Look("#B59F00", "-", "v", "4 bits, 10 local steps"),
    "fedavg-topk": Look("#AA4499", (0, (2, 1)), "X", "FedAvg, top 1 %"),
    "fedavg-topk-10": Look("#DD44BB", "-", "X", "top 1 %, feedback, 10 local steps"),
    "fedavg-sign": Look("#44AA99", (0, (5, 1, 1, 1)), "P", "signs, majority vote"),
    "fedavg-sign-10": Look("#127D70", "-", "P", "signs, 10 local steps"),
    "decomfl-lora": Look("#66A9D6", (0, (1, 1)), "o", "DeComFL, LoRA (rank 1)"),
    "fedlora": Look("#8C510A", "-", "<", "FedLoRA (rank 1)"),
    "fedlora-8": Look("#BF812D", (0, (3, 1)), ">", "FedLoRA, rank 8"),
    "fedlora-10": Look("#543005", (0, (2, 1)), "p", "FedLoRA, 10 local steps"),
    "fedlora-4bit": Look("#E08214", "-", "^", "FedLoRA, 4 bits"),
    "fedlora-sign": Look("#A0336E", "-", "P", "FedLoRA, signs"),
    "theory": Look(OKABE_ITO["black"], "--", "", "theory"),
    "reported": Look(OKABE_ITO["black"], (0, (1, 1.2)), "*", "printed in the paper"),
}


SOURCES: Mapping[str, str] = {
    "reported": "hollow: printed in the paper",
    "recomputed": "black bar: recomputed",
    "ours": "filled: measured here",
}
"""What a number's marker says of where it comes from, whatever the method: the method's colour and shape stay."""


def marked(method: str, source: str) -> dict[str, Any]:
    """Keyword arguments for `Axes.plot`: the method's marker, hollow, filled, or a black bar in its place.

    Args:
        method: a key of `METHODS`.
        source: a key of `SOURCES`.

    Raises:
        ValueError: for a method without a look, or an unknown source.
    """
    if source not in SOURCES:
        raise ValueError(f"source must be one of {', '.join(SOURCES)}, got {source!r}")
    style = look(method)
    if source == "recomputed":
        return {"color": OKABE_ITO["black"], "linestyle": "none", "marker": "|", "markersize": 11, "markeredgewidth": 1.6}
    face = "white" if source == "reported" else style.color
    return {
        "linestyle": "none", "marker": style.marker, "color": style.color, "markeredgecolor": style.color,
        "markerfacecolor": face, "markersize": 8 if style.marker == "*" else 5.5, "markeredgewidth": 1.2,
    }  # fmt: skip


def look(method: str) -> Look:
    """The look of a method.

    Args:
        method: a key of `METHODS`.

    Raises:
        ValueError: for a method without one, naming those that have one.
    """
    try:
        return METHODS[method]
    except KeyError:
        raise ValueError(f"no look for {method!r}; METHODS has {', '.join(METHODS)}") from None


def curve(
    ax: Axes,
    x: ArrayLike,
    values: ArrayLike,
    method: str,
    centre: str = "median",
    interval: str = "range",
    level: float = 0.999,
    label: str | None = None,
) -> None:
    """Draw one method's curve over keys, with a band that says how much the keys differ.

    Args:
        ax: axes to draw on.
        x: shape (n,).
        values: one row per key, shape (keys, n).
        method: a key of `METHODS`.
        centre: "median" or "mean" over the keys.
        interval: "range" (smallest to largest key) or "ci", Student's t interval of the mean at `level`; the
            latter assumes keys that are independent and near normal, and needs centre="mean" and two keys.
        level: confidence level of "ci".
        label: legend text; None for the method's own, "" for no entry.

    Raises:
        ValueError: for an unknown method, centre or interval, values that are not (keys, n), or a "ci"
            without its mean or its second key.
    """
    style, values = look(method), np.asarray(values, dtype=float)
    if values.ndim != 2 or values.shape[1:] != np.shape(x):
        raise ValueError(f"values must have shape (keys, {np.shape(x)[0]}), got {values.shape}")
    if centre not in ("median", "mean"):
        raise ValueError(f"centre must be 'median' or 'mean', got {centre!r}")
    middle = np.median(values, axis=0) if centre == "median" else np.mean(values, axis=0)
    if interval == "range":
        low, high = values.min(axis=0), values.max(axis=0)
    elif interval == "ci":
        if centre != "mean" or len(values) < 2:
            raise ValueError("the t interval is one of the mean, of at least two keys")
        reach = stats.t.ppf((1 + level) / 2, len(values) - 1) * stats.sem(values, axis=0)
        low, high = middle - reach, middle + reach
    else:
        raise ValueError(f"interval must be 'range' or 'ci', got {interval!r}")
    ax.fill_between(x, low, high, color=style.color, alpha=0.18, linewidth=0)
    text = style.label if label is None else label or None
    # A marker every 15 % of the axes: enough to tell curves apart in grey, too few to hide the band.
    ax.plot(x, middle, label=text, marker=style.marker, markevery=0.15, markersize=4, **style.line())


def provenance(fig: Figure, text: str) -> None:
    """Print at the foot of a figure where its data came from, and keep room for it.

    Args:
        fig: figure with a constrained layout (the house style's default).
        text: e.g. "recorded 2026-01-31, version 1a2b3c4, CPU" or "fresh"; one line.
    """
    room = 0.2 / fig.get_figheight()  # inches: the same letters on every size of figure
    engine = fig.get_layout_engine()
    if isinstance(engine, ConstrainedLayoutEngine):
        engine.set(rect=(0, room, 1, 1 - room))
    fig.text(0.995, 0.04 / fig.get_figheight(), text, ha="right", va="bottom", fontsize=6.5, color="#555555")


def save(fig: Figure, name: str, out_dir: Path) -> tuple[Path, Path]:
    """Write a figure as <name>.png (150 dpi) and <name>.pdf, each whole or not at all, and close it.

    The bytes depend on the figure and the matplotlib version only: no dates, no program names.

    Args:
        fig: the figure.
        name: file stem.
        out_dir: folder, made if absent.

    Returns:
        The paths of the PNG and the PDF.
    """
    out_dir = Path(out_dir)
    out_dir.mkdir(parents=True, exist_ok=True)
    empty = {"png": {"Software": None}, "pdf": {"CreationDate": None, "Creator": None, "Producer": None}}
    paths = []
    for kind, metadata in empty.items():
        path = out_dir / f"{name}.{kind}"
        with NamedTemporaryFile(dir=out_dir, prefix=f".{name}-", suffix=f".{kind}", delete=False) as file:
            try:
                fig.savefig(file, format=kind, dpi=150, metadata=metadata)
                file.close()
                os.chmod(file.name, 0o644)  # a temporary file is private to its owner
                os.replace(file.name, path)
            except BaseException:
                file.close()
                Path(file.name).unlink(missing_ok=True)
                raise
        paths.append(path)
    plt.close(fig)
    return paths[0], paths[1]
