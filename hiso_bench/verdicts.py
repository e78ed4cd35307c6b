"""How findings are shown: a table for the terminal, and a page of Markdown."""

from __future__ import annotations

import shutil
import textwrap
from typing import Any


def table(findings: list[dict[str, Any]]) -> str:
    """One line of 80 characters a claim, then what needs a reader: why there is no verdict, broken controls included."""
    lines = [f"{'claim':23} {'verdict':11} {'predicted':>9} {'measured':>9} interval"]
    for f in findings:
        low, high = (_number(f[end], 3) for end in ("low", "high"))
        interval = "-" if f["low"] is None else "exact" if f["low"] == f["high"] else f"[{low}, {high}]"
        mark = "" if f["agrees"] else f"  pinned {f['pinned']}"
        numbers = f"{_number(f['prediction'], 3):>9} {_number(f['measured'], 3):>9}"
        lines.append(f"{f['id']:23} {f['verdict']:11} {numbers} {interval}{mark}")
    counts = {v: sum(f["verdict"] == v for f in findings) for v in dict.fromkeys(f["verdict"] for f in findings)}
    differ = [f for f in findings if not f["agrees"]]
    told = ", ".join(f"{n} {verdict}" for verdict, n in counts.items())
    width = shutil.get_terminal_size((80, 24)).columns
    counted = f"{len(findings)} claims: {told}; {len(differ)} differ from their pin"
    lines += textwrap.wrap(counted, width, subsequent_indent="  ")
    for f in [f for f in findings if f["reason"]]:
        lines += textwrap.wrap(f"{f['id']}: {f['reason']}", width, subsequent_indent="  ")
    return "\n".join(lines)


def page(findings: list[dict[str, Any]]) -> str:
    """The findings as Markdown: a table of verdicts, then every claim with its evidence and controls."""
    made = findings[0]
    lines = [
        "# Claims and verdicts",
        "",
        f"Written by `hiso-bench verify` ({made['version']}, {made['date']}, profile {made['profile']}) from the file beside it.",
        "Intervals are 99.9 %, or the smallest and the largest of several numbers that were computed exactly.",
    ]
    topic = None
    for f in findings:
        if f["topic"] != topic:
            topic = f["topic"]
            lines += [
                "",
                f"**{topic[0].upper()}{topic[1:]}**",
                "",
                "| claim | source | verdict | why, or under which condition |",
            ]
            lines.append("|-|-|-|-|")
        lines.append(f"| [{f['id']}](#{f['id'].lower()}) | {_cell(f['source'])} | **{f['verdict']}** | {_cell(f['why'])} |")
    for f in findings:
        lines += ["", f"## {f['id']}", "", f["statement"], "", f"*Source:* {f['source']}.", ""]
        lines += [f"*Setting:* {f['setting']} *Refuted by:* {f['refuted_by']}", ""]
        lines += [f"**{f['verdict']}**" + "".join(f": {text}" for text in (f["why"], f["reason"]) if text), ""]
        lines += ["| measured | theory | value | interval | allowed | outcome |", "|-|-|-|-|-|-|"]
        lines += [_row(e, e["what"], e["outcome"]) for e in f["evidence"]]
        for c in f["controls"]:
            lines.append(_row(c, f"control, {c['ingredient']}: {c['what']}", f"{c['outcome']} ({c['expected']} expected)"))
    return "\n".join(lines) + "\n"


def _row(e: dict[str, Any], what: str, outcome: str) -> str:
    interval = "exact" if e["low"] == e["high"] else f"{_number(e['low'])} to {_number(e['high'])}"
    allowed = f"{_number(e['allowed'][0])} to {_number(e['allowed'][1])}"
    return f"| {_cell(what)} | {_number(e['prediction'])} | {_number(e['measured'])} | {interval} | {allowed} | {outcome} |"


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def _number(value: float | str | None, digits: int = 4) -> str:
    return "-" if value is None else value if isinstance(value, str) else f"{value:.{digits}g}"
