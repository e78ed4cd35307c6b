"""The commands of `hiso-bench`, one file each: a dataclass of options with a `run` method that returns the exit status."""

import tyro

TOLD = tyro.conf.arg(help_behavior_hint="")
"""For an option whose own text says what its default means: "(default: '')" after it would only confuse."""
