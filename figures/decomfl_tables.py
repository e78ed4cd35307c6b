"""DeComFL's Table 2 and LoRA table: accuracies, the rounds that its megabytes are, FedZO's terabytes, and real messages.

Reads printed_scores.csv, printed_bytes.csv, printed_vectors.csv, printed_ledgers.csv and printed_verdicts.csv (`paper.printed`).
"""

from __future__ import annotations

from pathlib import Path

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator, NullLocator

from figures import printed
from figures.style import OKABE_ITO, look, marked, plt
from hiso_bench.stats import mean_interval
from hiso_bench.summaries import SHOWN_LEVEL

METHODS = {"mezo": "mezo", "fedzo-p5": "fedzo", "decomfl-p5": "decomfl", "decomfl-p10": "decomfl-p10"}
"""The tables' columns -> their looks."""
_LABELS = {"fedzo": "FedZO, P = 5", "decomfl": "DeComFL, P = 5", "decomfl-p10": "DeComFL, P = 10"}
_REAL = {"scalars": ("o", "scalars"), "messages": ("s", "whole messages, no seeds"), "with_seeds": ("^", "scalars and seeds")}


def draw_table2(results: Path, source: str, experiment: str = "") -> Figure:
    """Table 2, OPT-125M and OPT-1.3B; arguments as in `figures.hiso_table1.draw`."""
    return _draw(
        results, source, "decomfl_table2", "DeComFL, Table 2: OPT on SuperGLUE and SST-2, 8 clients of which 2 are sampled"
    )


def draw_lora(results: Path, source: str, experiment: str = "") -> Figure:
    """The LoRA table, OPT-125M; nothing of ours stands beside its accuracies."""
    return _draw(
        results, source, "decomfl_lora", "DeComFL, the LoRA table: OPT-125M with adapters, 8 clients of which 2 are sampled"
    )


def _draw(results: Path, source: str, file: str, what: str) -> Figure:
    tables = printed.read(results, "scores", "bytes", "vectors", "ledgers", "verdicts", "sent")
    scores, cells, vectors, ledgers, verdicts, sent = tables
    config = printed.config(results)
    own = scores[scores["file"] == file]
    ours = scores[(scores["source"] == "ours") & scores["task"].str.endswith("sst2")] if file == "decomfl_table2" else scores[:0]
    labels = list(dict.fromkeys(zip(own["model"], own["task"], strict=True)))
    beside = list(dict.fromkeys(zip(ours["model"], ours["task"], strict=True)))
    fig, axes = plt.subplots(1, 4, figsize=(14.5, 2.6 + 0.28 * (len(labels) + len(beside))), width_ratios=(1.3, 1, 1, 1))
    rows = [*labels, *beside]
    _scores(axes[0], rows, pd.concat([own, ours]))
    _rounds(axes[1], rows, cells[cells["file"] == file], config)
    axes[1].set_title(f"(b) MB as rounds of {config['charges']['decomfl']} B\n{printed.verdict(verdicts, 'bytes-decomfl')}")
    _terabytes(axes[2], rows, vectors[vectors["file"] == file])
    axes[2].set_title(f"(c) FedZO's TB over the same sum\n{printed.verdict(verdicts, 'bytes-units')}")
    _messages(axes[3], ledgers[ledgers["method"] == "decomfl"])
    axes[3].set_title(f"(d) messages of a real federation\n{printed.verdict(verdicts, 'bytes-decomfl-protocol')}")
    handles = [*printed.method_handles(list(METHODS.values()), **_LABELS)]
    handles += printed.source_handles("reported", *(["ours"] if beside else []))
    handles.append(Line2D([], [], label="by FedZO's column", **marked("decomfl", "recomputed")))
    if beside:
        federations = dict.fromkeys(zip(sent["clients"], sent["sampled"], strict=True))
        what += "; ours: " + ", ".join(f"{clients} clients, {sampled} sampled" for clients, sampled in federations)
    fig.legend(handles=handles, loc="outside upper left", ncols=7, title=what, title_fontsize=10.5, alignment="left")
    printed.foot(fig, results, source, ours=bool(beside))
    return fig


def _scores(ax: Axes, labels: list[tuple[str, str]], table: pd.DataFrame) -> None:
    """Accuracies; none is printed with an error. Ours: keys as small marks, their mean, its interval at `SHOWN_LEVEL`."""
    for i, (model, task) in enumerate(labels):
        part = table[(table["model"] == model) & (table["task"] == task)]
        if part["source"].iloc[0] == "ours":
            values = part.loc[part["method"] == "decomfl", "value"].to_numpy(float)
            ends = mean_interval(values, SHOWN_LEVEL) if len(values) > 2 else (values.mean(), values.min(), values.max())
            ax.plot([max(ends[1], 0), min(ends[2], 100)], [i, i], color=look("decomfl").color, lw=1)
            ax.plot(values, [i] * len(values), ls="none", marker="o", ms=2.5, color=look("decomfl").color, alpha=0.6)
            ax.plot(ends[0], i, **marked("decomfl", "ours"))
            continue
        for j, (column, style) in enumerate(METHODS.items()):
            ax.plot(part.loc[part["method"] == column, "value"], i + 0.2 * (j - 1.5), **marked(style, "reported"))
    printed.rows(ax, [printed.row(*label) for label in labels])
    ax.set(xlabel=f"accuracy, % (ours: {SHOWN_LEVEL:.0%} interval over keys)", title="(a) accuracy, printed without errors\n")
    if table["source"].iloc[-1] != "ours":
        ax.set_xlabel("accuracy, %")


def _rounds(ax: Axes, labels: list[tuple[str, str]], cells: pd.DataFrame, config: dict) -> None:
    """The rounds that the megabytes are at the table's own charge, and those that FedZO's column of the same row stands for."""
    known = cells.set_index(["model", "task"])
    for i, label in enumerate(labels[: len(known)]):
        implied, by_fedzo = known.loc[label, ["implied", "by_fedzo"]]
        ax.plot(implied, i, **marked("decomfl", "reported"))
        ax.plot(by_fedzo, i, **marked("decomfl", "recomputed"))
        if abs(implied / by_fedzo - 1) > 0.06:  # more than two printed digits leave open
            ax.plot(implied, i, ls="none", marker="x", color=OKABE_ITO["black"], ms=4)
            ax.text(implied, i - 0.3, f"{implied / by_fedzo:.0f} times", fontsize=6.5, ha="right", va="bottom", color="#555555")
    printed.rows(ax, [""] * len(labels))
    ax.set_xlim(left=0)
    ax.xaxis.set_major_locator(MaxNLocator(4))
    ax.set_xlabel(f"rounds ({cells['whole'].sum()} of {len(cells)} are multiples of {config['step']})")


def _terabytes(ax: Axes, labels: list[tuple[str, str]], table: pd.DataFrame) -> None:
    """FedZO's column over a fifth of the model, of four bytes a parameter, in each of the rounds of (b)."""
    ratio = table.set_index(["model", "task"])["low"]
    for i, label in enumerate(labels[: len(ratio)]):
        ax.plot(ratio[label], i, **marked("fedzo", "reported"))
    for at in (1, 2**10):
        ax.axvline(at, color=OKABE_ITO["black"], lw=1.2, ls="--", zorder=1)
    printed.rows(ax, [""] * len(labels))
    ax.set(xscale="log", xlim=(0.2, 2**10 * 5), xlabel="printed TB, taken as TiB, over the sum")
    ax.xaxis.set_minor_locator(NullLocator())
    ax.set_xticks([1, 2**10], ["1: as printed", f"{2**10}: GiB\nwere meant"])


def _messages(ax: Axes, ledgers: pd.DataFrame) -> None:
    """What a client exchanges, by how many are sampled, beside the charge."""
    rows = ledgers.sort_values("sampled").reset_index(drop=True)
    for i, row in rows.iterrows():
        for column, (marker, _) in _REAL.items():
            ax.plot(row[column], i, ls="none", marker=marker, color=OKABE_ITO["green"], ms=7)
    charged = rows["charged"].iloc[0]
    ax.axvline(charged, color=OKABE_ITO["black"], lw=1.2, ls="--")
    handles = [Line2D([], [], ls="none", marker=m, color=OKABE_ITO["green"], label=text) for m, text in _REAL.values()]
    handles.append(Line2D([], [], color=OKABE_ITO["black"], lw=1.2, ls="--", label=f"charged, {charged} B"))
    printed.rows(ax, [f"{row['sampled']} of {row['clients']}\nsampled" for _, row in rows.iterrows()], 8)
    ax.set_ylim(len(rows) - 0.5, -1.6)
    ax.set(xlim=(0, 1.15 * charged), xlabel="bytes per client and round")
    ax.legend(handles=handles, loc="upper left", fontsize=7.5)
