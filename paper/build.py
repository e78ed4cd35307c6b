"""`make paper`: collect every text's numbers from results, and set the texts as PDF.

A text NAME is two files: `NAME.py` with a function `numbers(sources)` that returns a JSON-able dictionary, and `NAME.typ`, which
reads it (`json(bytes(sys.inputs.numbers))`) and fails where it asks for a number that is not there.
"""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path

from hiso_bench import records
from paper import stale
from paper.sources import SourceError, Sources

HERE = Path(__file__).resolve().parent
TEXTS = ("learned_h", "report")


def numbers(name: str, sources: Sources | None = None) -> dict[str, object]:
    """A text's numbers, and under "sources" where each table came from.

    Raises:
        SourceError: a result is missing or damaged, or a claim is undecided.
    """
    sources = sources or Sources()
    try:
        found = importlib.import_module(f"paper.{name}").numbers(sources)
    except (KeyError, IndexError) as error:
        raise SourceError(f"text {name}: a table does not hold what is asked of it: {type(error).__name__} {error}") from error
    return found | {"sources": sources.used}


def build(name: str, sources: Sources | None = None) -> bytes:
    """The text as PDF. Equal results give equal bytes: no date, and the fonts that typst carries.

    Raises:
        SourceError: as `numbers` does, or the text asks for a number that is not there.
    """
    import typst

    told = json.dumps(numbers(name, sources), sort_keys=True)
    try:
        pdf = typst.compile(
            str(HERE / f"{name}.typ"), root=str(HERE.parent), sys_inputs={"numbers": told}, ignore_system_fonts=True, timestamp=0
        )
    except typst.TypstError as error:
        raise SourceError(f"text {name} cannot be set: {error}") from error
    assert isinstance(pdf, bytes)
    return pdf


def main() -> int:
    """Build every text; one line for each, and an exit status of 1 with the reason where a result is missing or stale."""
    sources = Sources()
    try:
        built = {name: build(name, sources) for name in TEXTS}
        unknown = stale.check(sources)
        for name, pdf in built.items():
            target = HERE / f"{name}.pdf"
            records.write_bytes(target, pdf)
            print(f"paper     {target.relative_to(HERE.parent)}")
        if unknown:
            print(f"paper     not compared with today's configurations (something is not installed): {', '.join(unknown)}")
    except SourceError as error:
        print(f"paper: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
