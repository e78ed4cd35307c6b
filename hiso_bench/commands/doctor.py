"""`hiso-bench doctor`: what this machine has, what it lacks, and what will be skipped because of it."""

from __future__ import annotations

import json
import textwrap
from dataclasses import dataclass

WIDTH, INDENT = 80, 14


@dataclass
class Doctor:
    """Show versions, cores, memory, GPU, data, disk and recorded results; a line with "!" says what will be skipped and why.

    Attributes:
        json: print one JSON array instead of text.
    """

    json: bool = False

    def run(self) -> int:
        """Look, and print; nothing is changed, and nothing lacking is an error."""
        from hiso_bench import doctor

        found = doctor.findings()
        if self.json:
            print(json.dumps([finding._asdict() for finding in found]))
            return 0
        for finding in found:
            print(textwrap.fill(f"{finding.name:{INDENT}}{finding.found}", WIDTH, subsequent_indent=" " * INDENT))
            if finding.lacking:
                lines = textwrap.fill(finding.lacking, WIDTH - INDENT - 2).splitlines()
                print("\n".join(" " * (INDENT - 2) + ("! " if i == 0 else "  ") + line for i, line in enumerate(lines)))
        return 0
