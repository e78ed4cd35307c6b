"""Baselines that send vectors: the FedAvg family with gradients, compressed uplinks, and FedZO.

They go through the same participation, batches, dropout, byte counts and ledger as the methods that send scalars, but a vector
cannot be kept for every round: the ledger holds each payload's length and hash. See `federation.VectorFederation`.

To add one, put a file here that subclasses `FirstOrder` and calls `methods.register`, and name it at the end of
`hiso_bench/methods/__init__.py`.
"""

import hiso_bench.methods  # noqa: F401 - whichever of the two packages is imported first, this one's modules are loaded by that one
