"""What a learned H can hold and what it is worth: the stage, the oracle gap on networks, and H along training.

Reads `stage_points.csv` and `stage_gap.csv` (quick), `stage_networks_points.csv` and `stage_networks_gap.csv`, and `along.csv`,
`along_still.csv` and `along_exact.csv` (recorded).
"""

from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from figures.style import OKABE_ITO, SHADES, look, plt, provenance

KINDS = {  # first match of a subject's name -> (label, colour of no method, marker)
    "MLP": ("digits MLP (filled: scaled features)", SHADES[2], "s"),
    "CNN": ("CNN, digits and MNIST", "#A9A9A9", "h"),
    "tiny-opt": ("tiny-opt, d = 1.07 million", OKABE_ITO["black"], "*"),
    "tokens": ("rare tokens", SHADES[1], "^"),
    "logistic": ("logistic regression", "#555555", "P"),
    "": ("quadratics, d = 200", "#A9A9A9", "o"),
}
TARGETS = {  # what an H is compared with, and stands in its place -> (label, colour, marker)
    "absolute": (r"diag $|\Sigma|$", look("hiso-oracle").color, look("hiso-oracle").marker),
    "gauss_newton": ("diag Gauss-Newton", SHADES[1], "D"),
    "gradient": ("$g^2$", "#999933", "^"),
}
VARIANTS = {"hiso-d": "official code, batch", "hiso-e": "official code, parameter-wise"}
"""Versions of HiSo beside the printed one, as `methods.PRESETS` tells them, in words."""
ARMS = {  # arm of the gap -> (label, colour, marker)
    "hiso": ("HiSo, learned $H$", look("hiso").color, look("hiso").marker),
    "hiso-scalar": ("HiSo, mean of $H$", look("hiso-scalar").color, look("hiso-scalar").marker),
    "hiso-shuffled": ("HiSo, $H$ shuffled", look("hiso-shuffled").color, look("hiso-shuffled").marker),
    "oracle per layer": ("oracle, one number per layer", OKABE_ITO["yellow"], "v"),
    "oracle Hessian": (r"oracle diag $|\Sigma|$", *TARGETS["absolute"][1:]),
    "oracle Gauss-Newton": ("oracle diag Gauss-Newton", *TARGETS["gauss_newton"][1:]),
    "oracle Gauss-Newton, later": ("the same, at a later point", SHADES[2], "d"),
}
H = {  # what stands in H's place -> (label, colour, marker)
    "learned": ("learned", look("hiso").color, look("hiso").marker),
    "shuffled": ("learned, shuffled", look("hiso-shuffled").color, look("hiso-shuffled").marker),
    "fixed point": ("learned without noise (fixed point)", "#7A2E00", "v"),
    "oracle": ("oracle diag Gauss-Newton", *TARGETS["gauss_newton"][1:]),
    "oracle root": ("its square root", SHADES[0], "p"),
}

LEAST = 0.1
"""Of the axis of gains: the ends of intervals below it, which may be negative, are told."""


def draw_stage(results: Path, source: str, experiment: str) -> Figure:
    """The quick stage: what H could hold, how diagonal curvature is, and the exact gap of the quadratics.

    Args:
        results: folder with the tables.
        source: where they came from, printed at the foot.
        experiment: the tables' prefix.
    """
    points, gaps = (pd.read_csv(results / f"{experiment}_{part}.csv") for part in ("points", "gap"))
    fig, axes = plt.subplots(1, 3, figsize=(12.2, 5.2), width_ratios=(1.15, 1, 1))
    _signal(axes[0], points)
    _off_diagonal(axes[1], points)
    _exact_gap(axes[2], gaps)
    provenance(fig, source)
    return fig


def draw_networks(results: Path, source: str, experiment: str) -> Figure:
    """The tuned oracle gap on networks, one row per arm and one panel per subject; arguments as `draw_stage`."""
    points, gaps = (pd.read_csv(results / f"{experiment}_{part}.csv") for part in ("points", "gap"))
    names = list(dict.fromkeys(gaps["subject"]))
    fig, axes = plt.subplots(1, len(names) + 1, figsize=(13.0, 4.6), width_ratios=(1.25, *[1] * len(names)))
    _signal(axes[0], points)
    for i, (ax, name) in enumerate(zip(axes[1:], names, strict=True)):
        part = gaps[gaps["subject"] == name].set_index("arm")
        for row, (arm, (_, color, marker)) in enumerate(ARMS.items()):
            value, low, high = part.loc[arm, ["value", "low", "high"]].to_numpy(float)
            ax.plot([low, high], [row, row], color=color, lw=2.2, solid_capstyle="butt")
            ax.plot(value, row, marker=marker, ms=7, color=color, mec="black", mew=0.5)
            if part.loc[arm, "diverged"]:
                ax.annotate(
                    f"{part.loc[arm, 'diverged']} diverged", (value, row), xytext=(0, 6), textcoords="offset points", fontsize=7
                )
        ax.axvline(1, zorder=0.9, **look("decomfl").line())
        ax.set(
            xscale="log",
            xlabel="speed-up over DeComFL",
            title=f"({'bcdefg'[i]}) {name}".replace(", ", ",\n"),
            ylim=(len(ARMS) - 0.5, -0.6),
        )
        _plain_ticks(ax, part.loc[list(ARMS), ["low", "high"]].to_numpy(float))
        ax.set_yticks(range(len(ARMS)), [label for label, _, _ in ARMS.values()] if i == 0 else [""] * len(ARMS))
    told = (
        "One grid of rates for every arm; each oracle had it twice, for two eps, and is shown at the better one; "
        f"(b-{'bcdefg'[len(names) - 1]}) 99.9 % intervals over {gaps['keys'].max()} keys"
    )
    fig.suptitle(told, x=0.01, ha="left", fontsize=9)
    provenance(fig, source)
    return fig


def draw_along(results: Path, source: str, experiment: str) -> Figure:
    """H along training: what a snapshot can show, what it shows on networks, and what an H buys; arguments as `draw_stage`."""
    table, still, exact = (pd.read_csv(results / f"{experiment}{part}.csv") for part in ("", "_still", "_exact"))
    fig, axes = plt.subplots(1, 3, figsize=(13.2, 6.2))
    _snapshot(axes[0], still, exact)
    _on_networks(axes[1], table)
    _gain(axes[2], table)
    provenance(fig, source)
    return fig


def _kind(name: str) -> tuple[str, str, str]:
    return next(style for part, style in KINDS.items() if part in name)


def _wide(points: pd.DataFrame) -> pd.DataFrame:
    return points.pivot(index=["subject", "key", "point"], columns="quantity", values="value").reset_index()


def _signal(ax: Axes, points: pd.DataFrame) -> None:
    """The most that the fixed point gives a coordinate, against the signal budget over N_eff."""
    wide = _wide(points)
    seen = {}
    for row in wide.itertuples():
        label, color, marker = _kind(str(row.subject))
        filled = "scaled" in str(row.subject) or "MLP" not in str(row.subject)
        for P in (5, 80):
            x, y = getattr(row, f"signal_{P}"), getattr(row, f"max_r_{P}") - 1
            ax.plot(x, y, marker=marker, ms=5, ls="none", color=color, mfc=color if filled else "white", alpha=0.8)
        seen[label] = Line2D([], [], marker=marker, ls="none", color=color)
    x = np.geomspace(wide[["signal_5", "signal_80"]].min().min() / 2, wide[["signal_5", "signal_80"]].max().max() * 2, 100)
    ax.plot(x, np.sqrt(1 + x) - 1, **look("theory").line(), lw=1)
    seen["$N_{eff}$ equal shares of the budget"] = Line2D([], [], **look("theory").line(), lw=1)
    noise = wide["noise_5"].iloc[0]
    ax.axhspan(ax.get_ylim()[0] if ax.get_ylim()[0] > 0 else 1e-4, noise, color="black", alpha=0.06, lw=0)
    right = np.sqrt(1 + x[-1]) - 1 > 10 * noise  # where the line does not pass
    told = {"xytext": (-2 if right else 2, -2), "textcoords": "offset points", "fontsize": 7, "va": "top"}
    ax.annotate("below the noise\nof the average", (x[-1 if right else 0], noise), ha="right" if right else "left", **told)
    ax.set(xscale="log", yscale="log", xlim=(x[0], x[-1]), ylim=(max(1e-3, (np.sqrt(1 + x[0]) - 1) / 2), None))
    ax.set_xlabel(r"$(P+1)\,/\,N_{eff}(g)$,  $P$ = 5 and 80")
    ax.set_ylabel(r"largest $h_j/h_0-1$ at the fixed point")
    ax.set_title("(a) what a learned $H$ can tell apart")
    ax.legend(seen.values(), seen.keys(), fontsize=7, loc="upper left", bbox_to_anchor=(-0.05, -0.15))


def _off_diagonal(ax: Axes, points: pd.DataFrame) -> None:
    """Off-diagonal share per subject, at the start and later."""
    wide = _wide(points)
    names = list(dict.fromkeys(wide["subject"]))
    names = [name for name in dict.fromkeys(points["subject"]) if name in names]
    for i, name in enumerate(names):
        for where, mark in (("start", "o"), ("later", "s")):
            part = wide[(wide["subject"] == name) & (wide["point"] == where)]["off_diagonal"]
            value = part.median()
            face = "white" if where == "start" else None
            ax.plot(value, i, marker=mark, ms=5, ls="none", color=_kind(name)[1], mfc=face)
    ax.axvline(1, color=OKABE_ITO["grey"], lw=1, ls=":")
    ax.set_yticks(range(len(names)), names, fontsize=7.5)
    ax.set_xscale("symlog", linthresh=0.1, linscale=0.5)
    ax.set(xlim=(-0.03, 15), ylim=(len(names) - 0.5, -0.5), title="(b) how far from diagonal curvature is")
    ax.set_xticks([0, 0.1, 1, 10], ["0", "0.1", "1", "10"])
    ax.minorticks_off()
    ax.set_xlabel(r"$\Vert\Sigma\Vert_F$ off the diagonal / on it" + "\n(open: at the start; filled: later; linear below 0.1)")


def _exact_gap(ax: Axes, gaps: pd.DataFrame) -> None:
    part = gaps[gaps["arm"] == "oracle Hessian"]
    color = look("hiso-oracle").color
    ax.barh(range(len(part)), part["value"] - 1, left=1, color=color, height=0.55)
    for i, value in enumerate(part["value"]):
        ax.annotate(f"{value:.1f}", (value, i), xytext=(4, 0), textcoords="offset points", va="center", fontsize=7.5)
    ax.axvline(1, **look("decomfl").line())
    ax.set_yticks(range(len(part)), list(part["subject"]), fontsize=7.5)
    ax.set(xscale="log", ylim=(len(part) - 0.5, -0.5), xlim=(0.9, part["value"].max() * 1.6))
    _plain_ticks(ax, part[["low", "high"]].to_numpy(float))
    ax.set_xlabel("rounds of DeComFL / of the best\ndiag $\\Sigma+\\varepsilon$ (exact, to $f/f_0$ = 0.01)")
    ax.set_title("(c) oracle gap of the quadratics")


def _plain_ticks(ax: Axes, values: np.ndarray) -> None:
    values = values[np.isfinite(values)]
    low, high = min(1.0, values.min()), max(1.0, values.max())
    ends = low / 1.35, high * 1.35
    ticks = [t for t in (0.1, 0.2, 0.5, 1, 2, 5, 10, 20) if ends[0] <= t <= ends[1]]
    if len(ticks) < 3:
        ticks = [t for t in (0.6, 0.8, 1, 1.2, 1.5, 2) if ends[0] <= t <= ends[1]]
    ax.set_xlim(*ends)
    ax.set_xticks(ticks, [f"{t:g}" for t in ticks])
    ax.minorticks_off()


def _snapshot(ax: Axes, still: pd.DataFrame, exact: pd.DataFrame) -> None:
    """Correlation of a snapshot of H with diag Sigma: theory for every d, and runs."""
    x = (exact["P"] + 1) / exact["n_eff"]
    ax.plot(x, exact["snapshot"], marker="o", ms=4, ls="none", mfc="white", color="black", label="theory, d = 10 to $10^6$")
    for d in sorted(set(exact["d"])):
        own = exact[exact["d"] == d]
        ax.plot((own["P"] + 1) / own["n_eff"], own["snapshot"], color="black", lw=0.6, ls="--")
    base = still[(still["measure"] == "log") & (still["what"] == "h") & (still["eps"] == 0) & (still["ema_new"] == 0.05)]
    n_eff = exact.drop_duplicates("d").set_index("d")["n_eff"]
    for i, (d, part) in enumerate(base[base["local_steps"] == 1].groupby("d")):
        part = part[part["variant"] == "hiso-c"]
        at = (part["P"] + 1) / n_eff[d]
        reach = np.abs(part[["low", "high"]].to_numpy().T - part["value"].to_numpy())
        ax.errorbar(at, part["value"], reach, fmt="s", ms=4.5, color=SHADES[i], capsize=3, label=f"HiSo, d = {d}, 99.9 %")
    ax.axhline(0, color=OKABE_ITO["grey"], lw=0.8)
    ax.set(xscale="log", xlabel=r"$(P+1)\,/\,N_{eff}(g)$", ylabel=r"correlation of $\log H$ with $\log\,$diag$\,\Sigma$")
    ax.set_title("(a) best case: $g$ = diag $\\Sigma$, standing still;\none local step, $P$ = 1 to 80")
    ax.legend(fontsize=7, loc="upper left")


def _on_networks(ax: Axes, table: pd.DataFrame) -> None:
    """Log correlations of H, with intervals, beside the null's, at the last round."""
    groups = _ends(table)
    for i, own in enumerate(groups.values()):
        for j, (target, (label, color, marker)) in enumerate(TARGETS.items()):
            for prefix, face in (("", color), ("null ", "white")):
                value, low, high = own.loc[f"{prefix}log {target}", ["value", "low", "high"]].to_numpy(float)
                y = i + 0.22 * (j - 1) + (0.08 if prefix else 0)
                ax.plot([low, high], [y, y], color=color if not prefix else OKABE_ITO["grey"], lw=1.6 if not prefix else 1)
                text = label if i == 0 and not prefix else None
                ax.plot(value, y, marker=marker, ms=5, ls="none", color=color, mfc=face, label=text)
    ax.axvline(0, color=OKABE_ITO["grey"], lw=0.8)
    ax.set_yticks(range(len(groups)), list(groups), fontsize=7.5)
    ax.set(ylim=(len(groups) - 0.4, -0.6), xlabel=r"correlation of $\log H$ with the log of")
    keys = table["keys"].max()
    ax.set_title(f"(b) after {table['round'].max()} rounds, 99.9 % intervals over {keys} keys\n(open: the null)")
    ax.legend(fontsize=7, loc="upper center", bbox_to_anchor=(0.45, -0.1), ncols=3)


def _ends(table: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Label of each run -> its quantities at the last round."""
    groups = table[table["round"] == table["round"].max()].groupby(["subject", "P", "variant"], sort=False)
    return {
        f"{name}\nP = {P}" + ("" if variant == "hiso-c" else f", {VARIANTS[variant]}"): part.set_index("quantity")
        for (name, P, variant), part in groups
    }


def _gain(ax: Axes, table: pd.DataFrame) -> None:
    """The decrease of the next round over that of H = I, for each H, at the last round."""
    groups = _ends(table)
    for i, own in enumerate(groups.values()):
        for j, (kind, (label, color, marker)) in enumerate(H.items()):
            value, low, high = own.loc[f"gain {kind}", ["value", "low", "high"]].to_numpy(float)
            y = i + 0.15 * (j - 2)
            ax.plot([max(low, LEAST), high], [y, y], color=color, lw=1.8)
            if low < LEAST:
                ax.plot(LEAST, y, marker="<", ms=5, ls="none", color=color)
                ax.annotate(f"{low:.2f}", (LEAST, y), xytext=(6, 3), textcoords="offset points", fontsize=6.5)
            ax.plot(value, y, marker=marker, ms=5, ls="none", color=color, label=label if i == 0 else None)
    ax.axvline(1, zorder=0.9, **look("decomfl").line())
    ax.set_yticks(range(len(groups)), list(groups), fontsize=7.5)
    ax.set(xscale="log", ylim=(len(groups) - 0.4, -0.6))
    ax.set_xlim(0.09, 5)
    ticks = (0.1, 0.2, 0.5, 1, 2, 5)
    ax.set_xticks(ticks, [f"{t:g}" for t in ticks])
    ax.minorticks_off()
    ax.set_xlabel("expected decrease of the next round at its best step,\nover that of $H=I$")
    ax.set_title("(c) what an $H$ is worth there, 99.9 % intervals\n(arrow: where one ends below the axis)")
    ax.legend(fontsize=7, loc="upper center", bbox_to_anchor=(0.45, -0.14), ncols=2)
