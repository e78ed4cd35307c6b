"""Texts about the results: each is a typst source, and every number in it is pulled from `results/` when it is built."""
