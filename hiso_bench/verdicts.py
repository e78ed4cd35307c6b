"""How findings are shown: a table for the terminal, and a page of Markdown."""

from __future__ import annotations

import shutil
import textwrap
from typing import Any


def table(findings: list[dict[str, Any]]) -> str:
    """One line a claim, then what needs a reader: pins that differ, and why."""
    lines = [f"{'claim':22} {'verdict':12} {'predicted':>10} {'measured':>10}  {'interval':24} {'control':8} {'s':>5}"]
    for f in findings:
        interval = f"[{_number(f['low'])}, {_number(f['high'])}]"
        control = "-" if f["control"] is None else "works" if all(c["worked"] for c in f["controls"]) else "BROKEN"
        mark = "" if f["agrees"] else f"  pinned {f['pinned']}"
        lines.append(
            f"{f['id']:22} {f['verdict']:12} {_number(f['prediction']):>10} {_number(f['measured']):>10}  {interval:24} "
            f"{control:8} {f['seconds']:5.1f}{mark}"
        )
    counts = {v: sum(f["verdict"] == v for f in findings) for v in dict.fromkeys(f["verdict"] for f in findings)}
    differ = [f for f in findings if not f["agrees"]]
    told = ", ".join(f"{n} {verdict}" for verdict, n in counts.items())
    lines.append(f"{len(findings)} claims: {told}; {len(differ)} differ from their pin")
    width = shutil.get_terminal_size((120, 24)).columns
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


def _number(value: float | str | None) -> str:
    return "-" if value is None else value if isinstance(value, str) else f"{value:.4g}"
