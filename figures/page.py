"""figures/README.md, the gallery: `python -m figures.page` writes it from the catalogue and `figures.about`."""

from __future__ import annotations

from pathlib import Path

from figures.about import OURS, about
from hiso_bench import catalogue, drawings, records

PAGE = catalogue.ROOT / "figures" / "README.md"
GALLERY = PAGE.parent / "gallery"
WIDTH = 420
"""Of a thumbnail on the page, in pixels."""
_HEAD = """# Gallery

Written by `make gallery`, which draws every figure and copies it here; a test fails if this page, the catalogue and the pictures
differ. A figure says on itself when and by which version its numbers were made.

- *fresh*: `make figures` computes what it shows on your machine, in minutes, from recorded learning rates at most.
- *recorded*: it shows tables of `results/`, which the command named there recomputes; drawing it computes nothing.
- *fresh* beside *recorded*: light computations, and next to them tables of `results/`.
- The commands are run in the checkout, after `make figures` has set it up once.
"""
_GROUPS = ("HiSo", "DeComFL", OURS)
_TITLES = {
    "HiSo": "HiSo ([arXiv 2506.02370](https://arxiv.org/abs/2506.02370))",
    "DeComFL": "DeComFL ([arXiv 2405.15861](https://arxiv.org/abs/2405.15861))",
    OURS: "Ours",
}


def page() -> str:
    """The gallery in Markdown.

    Raises:
        ValueError: a figure of the catalogue is described nowhere, or has no picture in the gallery.
    """
    parts = [_HEAD]
    for group in _GROUPS:
        names = [name for name in drawings.FIGURES if about(name).of.split(",")[0] == group]
        names.sort(key=lambda name: about(name).of)  # stable: ours keep the order of the catalogue
        parts.append(f"## {_TITLES[group]}\n\n| | |\n|-|-|\n" + "\n".join(_row(name) for name in names) + "\n")
    return "\n".join(parts)


def _row(name: str) -> str:
    """A thumbnail, and beside it everything that is told of the figure."""
    picture = GALLERY / f"{name}.png"
    if not picture.exists():
        raise ValueError(f"figure {name!r} has no picture {picture.relative_to(catalogue.ROOT)}; `make gallery` draws it")
    link = f"gallery/{name}.png"
    title = f"**{about(name).of}** (`{name}`)" if about(name).of != OURS else f"**`{name}`**"
    told = "<br>".join((title, about(name).shows, _origin(name), f"`.venv/bin/hiso-bench figures {name}`"))
    return f'| <a href="{link}"><img src="{link}" alt="{name}" width="{WIDTH}"></a> | {told} |'


def _origin(name: str) -> str:
    """Whether the figure is computed afresh, and the command that recomputes recorded tables which it shows."""
    entry = drawings.FIGURES[name]
    names = (entry.experiment, *entry.also)
    profiles = {name: catalogue.experiment(name).profile for name in names}
    recorded = [name for name in names if profiles[name] != "quick"]
    if not recorded:
        return "*fresh*"
    command = f"`.venv/bin/hiso-bench results {' '.join(recorded)} --profile {profiles[recorded[0]]}`"
    fresh = "*fresh* beside *recorded*" if profiles[entry.experiment] == "quick" else "*recorded*"
    return f"{fresh}; {command} recomputes {'the latter' if 'fresh' in fresh else 'it'}"


def main() -> None:
    """The command."""
    records.write_bytes(Path(PAGE), page().encode())
    print(PAGE.relative_to(catalogue.ROOT))


if __name__ == "__main__":
    main()
