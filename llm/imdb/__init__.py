"""imdb-opt: an OPT of seven million parameters that this project pre-trains on real reviews, to be fine-tuned on real SST-2."""

from llm.imdb.pretrain import NAME, folder

__all__ = ["NAME", "folder"]
