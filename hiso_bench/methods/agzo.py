"""AGZO (arXiv 2601.17261): directions within the span of a linear layer's inputs, here of examples that every party holds.

The gradient of a layer y = W a (W is m x n) is G = sum_k delta_k a_k', so its rows lie in the span of the inputs a_k. AGZO draws
Delta = R A' with R (m x r) Gaussian and A (n x r) an orthonormal basis of the inputs' r leading directions. For one layer
E s Delta = G A A' and E |s Delta|^2 = (m r + 2) |G A|^2: no bias, and m r in place of m n, where the rows of G lie in span(A).

Published, A comes from the batch at hand: a client's private examples, which nobody else has, so that nobody could replay its
step from a key and a scalar. Here A comes from examples that every party holds and is part of the shared state: server, clients,
late joiners and auditors compute it from the same x, once in a window of rounds. Nothing says that such a span holds the clients'
gradient; the part outside is never seen.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from hiso_bench.directions import Warped
from hiso_bench.methods import register
from hiso_bench.methods.base import Method, Step, require
from hiso_bench.points import Layout, Point
from hiso_bench.state import State, Warp

Inputs = Callable[[Point, int, int], Sequence[Tensor | None]]
"""`problems.PublicInputs.layer_inputs`."""


@dataclass(frozen=True, kw_only=True)
class Agzo(Method):
    """The plain step along z = u A A' for every leaf with inputs, which has the law of R A', and along u for the others.

    A leaf has the axes (m, n) or (n,), its last being that of the inputs; one with n <= rank is drawn whole. A replay computes
    the basis anew, so that a ledger is replayed to the bit only where the linear algebra gives the same bits (the torch build
    and thread count that it names); the fingerprint covers the basis.

    Attributes:
        rank: r, the leading left singular vectors of the inputs that are kept.
        window: rounds for which a basis stays. It is computed with the update of a window's last round; where nobody answers that
            one, the basis stays for another window.
        basis_examples: public examples of which a basis is made, drawn anew for every window.
        inputs: (x, examples, draw) -> what enters the layer of each leaf; the problem gives it.
    """

    laws = ("gaussian",)

    rank: int = 8
    window: int = 50
    basis_examples: int = 64
    inputs: Inputs | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.rank >= 1, "rank", self.rank, ">= 1")
        require(self.window >= 1, "window", self.window, ">= 1")
        require(self.basis_examples >= 1, "basis_examples", self.basis_examples, ">= 1")
        require(self.inputs is not None, "inputs", "(none)", "the layer_inputs of a problem whose parties share some examples")

    def init(self, x: Point, layout: Layout) -> State:
        """X and the basis of the first window.

        Raises:
            ValueError: the inputs do not fit the leaves, or what the problem raises.
        """
        state = super().init(x, layout)
        state.buffers["basis"] = self._bases(state.x, layout, 0)
        return state

    def warp(self, state: State) -> Warp:
        """U -> u A A'."""
        bases, axes = state.buffers["basis"], len(state.layout.replicate_shape)

        def project(u: Tensor, a: Tensor) -> Tensor:
            if not a.shape[-1]:
                return u
            rows = u.reshape(*u.shape[:axes], -1, u.shape[-1])
            return u.copy_((rows @ a @ a.mT).reshape(u.shape))

        return lambda u: tuple(map(project, u, bases))

    def learn(self, state: State, steps: Sequence[Step], z: Warped, dx: Point) -> None:
        """The basis of the next window, at its end. Cost: a forward pass on the public examples and a decomposition a layer."""
        done = state.round + 1
        if done % self.window == 0:
            for old, new in zip(state.buffers["basis"], self._bases(state.x, state.layout, done // self.window), strict=True):
                old.copy_(new)

    def _bases(self, x: Point, layout: Layout, draw: int) -> Point:
        assert self.inputs is not None
        found = self.inputs(x, self.basis_examples, draw)
        if len(found) != len(x):
            raise ValueError(f"inputs of {len(found)} leaves are given for a point of {len(x)}; allowed: one, or None, for each")
        return tuple(self._basis(rows, leaf, layout, i) for i, (rows, leaf) in enumerate(zip(found, x, strict=True)))

    def _basis(self, rows: Tensor | None, leaf: Tensor, layout: Layout, i: int) -> Tensor:
        """A (*replicates, n, r) from inputs (*replicates, examples, n) or (examples, n); without columns: drawn whole."""
        shape, replicates = layout.leaf_shapes[i], layout.replicate_shape
        if rows is None or leaf.shape[-1] <= self.rank:
            return leaf.new_empty((*replicates, 0, 0))
        if len(shape) > 2 or rows.shape[-1] != leaf.shape[-1]:
            told = f"leaf {i} of shape {shape} has inputs of {rows.shape[-1]} features"
            raise ValueError(f"{told}; allowed: a leaf (m, n) or (n,) and inputs of n")
        if rows.shape[-2] < self.rank:
            raise ValueError(f"rank {self.rank} is out of range; allowed: <= the {rows.shape[-2]} inputs of leaf {i}")
        # A point that has run away gives a basis of NaN: the next scalars then stop the run, or freeze that replicate.
        lost = ~rows.isfinite().all(-1, keepdim=True).all(-2, keepdim=True)
        basis = leading(rows.masked_fill(lost, 0.0), self.rank).masked_fill(lost, torch.nan)
        return basis.to(leaf).expand(*replicates, -1, -1).clone()


def leading(rows: Tensor, rank: int) -> Tensor:
    """Orthonormal columns (..., n, rank) that span the leading directions of rows (..., examples, n); float64.

    Those of inputs of a lower rank are completed by directions in which no input lies.
    """
    return torch.linalg.svd(rows.double().mT, full_matrices=False)[0][..., :rank]


register("agzo", Agzo, perturbations=1)
