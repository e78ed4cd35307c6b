"""tiny-opt, the embedded default: an OPT of a million parameters that this project pre-trains on text that it generates."""

from llm.tiny.pretrain import folder, load

__all__ = ["folder", "load"]
