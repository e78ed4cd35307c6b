"""Planted bugs of the methods that send second differences."""

from __future__ import annotations

from tests.mutants.mutant import Mutant, patched

MUTANTS: list[Mutant] = []


def mutant(name, module, what):
    """Enter a function that installs a bug into the list."""
    return lambda install: MUTANTS.append(Mutant(name, module, what, install))


@mutant("curvature-without-its-half", "hiso_bench.methods.curvature", "sigma is learned as twice the diagonal")
def _():
    from hiso_bench.methods.curvature import Curvature

    model = Curvature.model
    return patched(Curvature, "model", lambda self, state, key, c, z: model(self, state, key, 2 * c, z))


@mutant("step-of-the-trace-alone", "hiso_bench.methods.safe_step", "the safe step leaves out the largest eigenvalue: 2P/T")
def _():
    from hiso_bench.methods.safe_step import SafeStep

    safe = SafeStep._safe

    def unsafe(self, state):
        spread = state.buffers["variance"][0]
        kept = spread.clone()
        spread.zero_()
        step = safe(self, state)
        spread.copy_(kept)
        return step

    return patched(SafeStep, "_safe", unsafe)


@mutant("memory-of-one-length", "hiso_bench.methods.safe_step", "the prediction of the slopes goes equally far back under noise")
def _():
    from hiso_bench.methods.safe_step import SafeStep

    remember = SafeStep._remember

    def forgetful(self, state, *rest):
        state.buffers["share"][0].fill_(1)
        remember(self, state, *rest)

    return patched(SafeStep, "_remember", forgetful)
