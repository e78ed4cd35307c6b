"""hiso_bench: the laboratory in which scalar-only federated zeroth-order optimisation is reproduced, checked and decided."""

__version__ = "0.1.0"
