"""The commands of `hiso-bench`, one file each: a dataclass of options with a `run` method that returns the exit status."""
