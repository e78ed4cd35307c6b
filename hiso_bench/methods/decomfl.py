"""DeComFL (arXiv 2405.15861): H = I, the plain method that `Method` already describes."""

from hiso_bench.methods.base import Method


class DeComFL(Method):
    """x <- x - eta (1/P) sum_p s_p u_p with the clients' mean scalars (Algorithms 3 and 4)."""
