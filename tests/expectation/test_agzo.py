"""AGZO's moments, exactly, through a real federated round in float64: E dx = G A A' and E |dx|^2 = (m r + 2) |G A|^2.

Every node of a cubature is a replicate; on quadratics a central difference is exact.
"""

import math

import numpy as np
import pytest
import torch

from hiso_bench import keys, methods
from hiso_bench.testing import Quadratics, federation_over, smolyak, take_round

EXAMPLES = 3


def given(*rows):
    """The same inputs at every x and draw; None for a leaf without."""
    found = [None if of is None else torch.from_numpy(of) for of in rows]
    return lambda x, examples, draw: found


def agzo(inputs, **options):
    return methods.build(
        "agzo", {"lr": 0.5, "mu": 0.3, "difference": "central", "basis_examples": EXAMPLES, "inputs": inputs} | options
    )


def projector(rows, rank):
    """A A' from the definition: eigenvectors of the inputs' second moment matrix, largest first."""
    vectors = np.linalg.eigh(rows.T @ rows)[1][:, ::-1][:, :rank]
    return vectors @ vectors.T


def step(problem, method):
    rule = smolyak(problem.layout.dimension * method.perturbations)
    return rule, take_round(federation_over(rule, problem, method))


@pytest.mark.parametrize(("m", "n", "rank"), [(1, 3, 1), (2, 3, 1), (2, 3, 2), (3, 3, 2), (3, 2, 1)])
def test_one_matrix_has_the_moments_of_the_formula(m, n, rank):
    rows = keys.rng(keys.derive(m, "rows")).standard_normal((EXAMPLES, n))
    problem = Quadratics.random(key=2, d=m * n, leaf_shapes=((m, n),))
    rule, dx = step(problem, agzo(given(rows), rank=rank))
    Pi, G = projector(rows, rank), problem.gradients[0].reshape(m, n)
    rule.check(rule.mean(dx), (G @ Pi).ravel())
    rule.check(rule.mean((dx**2).sum(1)), (m * rank + 2) * np.square(G @ Pi).sum())


def test_a_point_with_leaves_of_every_kind_has_the_moments_of_its_projector():
    """A matrix and a vector with inputs, and a bias without: E dx dx' = 2 Pi gg' Pi + |Pi g|^2 Pi, Pi of rank 2 + 1 + 2."""
    shapes, draw = ((2, 2), (2,), (2,)), keys.rng(7)
    rows = draw.standard_normal((EXAMPLES, 2)), draw.standard_normal((EXAMPLES, 2))
    problem = Quadratics.random(key=3, d=8, clients=2, leaf_shapes=shapes)
    rule, dx = step(problem, agzo(given(rows[0], None, rows[1]), rank=1))
    Pi = np.zeros((8, 8))
    Pi[:4, :4], Pi[4:6, 4:6], Pi[6:, 6:] = np.kron(np.eye(2), projector(rows[0], 1)), np.eye(2), projector(rows[1], 1)
    inside = Pi @ problem.gradients.mean(0)
    rule.check(rule.mean(dx), inside)
    rule.check(dx.T @ (rule.weights[:, None] * dx), 2 * np.outer(inside, inside) + inside @ inside * Pi)
    rule.check(rule.mean((dx**2).sum(1)), (5 + 2) * (inside @ inside))


class Layer:
    """y = W a with a squared loss of y over some inputs, W (m x n): its gradient, its Hessian, as a `Quadratics` problem."""

    def __init__(self, rows, m):
        draw, (count, n) = keys.rng(11), rows.shape
        targets, start = draw.standard_normal((count, m)), draw.standard_normal((m, n))
        hessian = np.kron(np.eye(m), rows.T @ rows / count)
        linear = -(targets.T @ rows / count).ravel()
        self.problem = Quadratics(hessian[None], linear[None], start.ravel(), ((m, n),))
        self.gradient = ((start @ rows.T - targets.T) @ rows) / count


def low_rank_rows(n=3, rank=1):
    draw = keys.rng(13)
    return draw.standard_normal((EXAMPLES, rank)) @ draw.standard_normal((rank, n))


def test_the_batch_s_own_basis_is_unbiased_and_another_one_loses_what_lies_outside():
    rows = low_rank_rows()
    layer = Layer(rows, 2)
    rule, dx = step(layer.problem, agzo(given(rows), rank=1))
    rule.check(rule.mean(dx), layer.gradient.ravel())
    assert rule.mean((dx**2).sum(1)) == pytest.approx((2 * 1 + 2) * np.square(layer.gradient).sum(), rel=1e-10)
    other = rows + 0.5 * keys.rng(17).standard_normal(rows.shape)
    rule, dx = step(layer.problem, agzo(given(other), rank=1))
    Pi = projector(other, 1)
    rule.check(rule.mean(dx), (layer.gradient @ Pi).ravel())
    lost = 1 - np.square(layer.gradient @ Pi).sum() / np.square(layer.gradient).sum()
    bias = np.square(rule.mean(dx) - layer.gradient.ravel()).sum() / np.square(layer.gradient).sum()
    assert bias == pytest.approx(lost) and lost > 0.01


@pytest.mark.parametrize("P", [1, 2])
def test_the_expected_fall_of_a_layer_s_loss_is_that_of_full_directions(P):
    """Curvature and gradient lie in the same span: what the projection takes off |dx|^2 costs no loss.

    For P = 1 half of the second moment goes (m r + 2 of m n + 2 is 4 of 8); E f after the step is the same up to rounding.
    """
    rows = low_rank_rows()
    layer = Layer(rows, 2)
    S, g = layer.problem.hessians[0], layer.gradient.ravel()
    falls, squares = [], []
    for method in (agzo(given(rows), rank=1, perturbations=P), methods.build("mezo", lr=0.5, mu=0.3, perturbations=P)):
        rule, dx = step(layer.problem, method)
        falls.append(rule.mean(-0.5 * dx @ g + 0.125 * np.einsum("ki,ij,kj->k", dx, S, dx)))
        squares.append(rule.mean((dx**2).sum(1)))
    assert falls[0] == pytest.approx(falls[1], rel=1e-9)
    assert squares[0] / squares[1] == pytest.approx((2 + P + 1) / (6 + P + 1), rel=1e-9)
    # Control: curvature that lies outside too (the ridge's) makes them differ.
    ridge = [fall + 0.125 * 0.1 * square for fall, square in zip(falls, squares, strict=True)]
    assert ridge[0] < ridge[1] and not math.isclose(*ridge, rel_tol=1e-3)


def test_u_a_a_prime_has_the_law_of_r_a_prime():
    """Both are Gaussian with mean 0, so their covariances, from the maps u -> u A A' and R -> R A', say that the laws are one."""
    m, n, rank = 2, 4, 2
    rows = torch.from_numpy(keys.rng(5).standard_normal((5, n)))
    problem = Quadratics.random(key=2, d=m * n, leaf_shapes=((m, n),))
    method = agzo(lambda x, examples, draw: [rows], rank=rank, basis_examples=5)
    state = method.init(problem.initial(), problem.layout)
    (A,) = state.buffers["basis"]
    warp = method.warp(state)
    maps = [warp((e.reshape(m, n).clone(),))[0].flatten() for e in torch.eye(m * n, dtype=torch.float64)]
    through_u = torch.stack(maps, 1)
    through_r = torch.stack([(e.reshape(m, rank) @ A.mT).flatten() for e in torch.eye(m * rank, dtype=torch.float64)], 1)
    torch.testing.assert_close(through_u @ through_u.T, through_r @ through_r.T, rtol=0, atol=1e-14)
    torch.testing.assert_close(through_r @ through_r.T, torch.kron(torch.eye(m), A @ A.mT), rtol=0, atol=1e-14)
