"""Derivatives are exact, estimates cover what they estimate, and the measures of an H are what their names say."""

import math

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from hiso_bench import curvature, estimates, keys, whiteness
from hiso_bench.classification import Rows, SoftmaxLoss, one_hot
from hiso_bench.curvature import Curvature, NotFiniteError, differentiable, double, flatten, unflatten
from synthetic.learned import Linear
from synthetic.logistic import Logistic
from synthetic.quadratic import Quadratic
from synthetic.rare_tokens import RareTokens
from tests.helpers import TinyNet
from vision.mlp import DigitsPerceptron

D = 12


def perceptron():
    problem = DigitsPerceptron(hidden=3, examples=60)
    return problem, double(problem.initial())


def of(problem, x, batch=None):
    return Curvature(differentiable(problem.loss, problem.everything if batch is None else batch), x)


def random_matrix(d=40, seed=0):
    a = torch.from_numpy(np.random.default_rng(seed).standard_normal((d, d)))
    return a + a.T


class Linearised(SoftmaxLoss):
    """Softmax regression: logits linear in the point, where Gauss-Newton is the Hessian."""

    def logits(self, x, inputs):
        return inputs @ x[0].mT


@pytest.mark.parametrize("angle", [0.0, 0.5])
def test_a_quadratic_s_hessian_is_its_matrix(angle):
    problem = Quadratic(D, "power", 1.0, clients=1, angle=angle)
    S = torch.diag(torch.from_numpy(problem.spectrum))
    S = S if problem.Q is None else problem.Q.T @ S @ problem.Q
    at = Curvature(differentiable(problem.loss, None), problem.initial())
    torch.testing.assert_close(at.hessian, S, rtol=0, atol=1e-13)
    torch.testing.assert_close(at.gradient, S @ problem.initial()[0], rtol=0, atol=1e-13)
    torch.testing.assert_close(at.absolute_diagonal, S.diagonal(), rtol=0, atol=1e-13)
    assert at.value == pytest.approx(problem.spectrum.sum() / 2, rel=1e-13)


def test_a_logistic_regression_s_hessian_is_the_closed_form():
    problem = Logistic(D, clients=3, examples=40)
    x = np.linspace(-1, 1, D)
    everything = torch.from_numpy(problem.signed.reshape(-1, D))
    at = Curvature(differentiable(problem.loss, everything), (torch.from_numpy(x),))
    np.testing.assert_allclose(at.hessian.numpy(), problem.hessian(x), atol=1e-14)
    np.testing.assert_allclose(at.gradient.numpy(), problem.gradient(x), atol=1e-14)


@pytest.mark.parametrize("problem", [perceptron, lambda: (RareTokens(7, 2), RareTokens(7, 2).initial())], ids=["mlp", "tokens"])
def test_products_are_finite_differences_of_gradients(problem):
    problem, x = problem()
    v = torch.from_numpy(np.random.default_rng(1).standard_normal(problem.layout.dimension))
    t = 1e-5
    points = [tuple(a + s * t * b for a, b in zip(x, unflatten(v, problem.layout), strict=True)) for s in (1, -1)]
    slope = (of(problem, points[0]).gradient - of(problem, points[1]).gradient) / (2 * t)
    torch.testing.assert_close(of(problem, x).product(v), slope, rtol=1e-5, atol=1e-8)


def test_a_module_s_hessian_is_that_of_torch():
    problem = TinyNet()
    x = double(problem.initial())
    batch = problem.batch(np.array(1), 0, 0)
    at = Curvature(differentiable(problem.loss, batch), x)

    def value(vector):
        w, b, a, c = unflatten(vector, problem.layout)
        return F.cross_entropy(F.linear(torch.tanh(F.linear(batch[0].double(), w, b)), a, c), batch[1])

    torch.testing.assert_close(at.hessian, torch.autograd.functional.hessian(value, flatten(x)), rtol=1e-10, atol=1e-13)
    assert at.value == pytest.approx(float(problem.loss(x[:0] + problem.initial(), batch)), rel=1e-6)


def test_the_absolute_diagonal_has_absolute_eigenvalues():
    problem, x = perceptron()
    at = of(problem, x)
    values, vectors = np.linalg.eigh(at.hessian.numpy())
    assert values.min() < -1e-6
    np.testing.assert_allclose(at.absolute_diagonal.numpy(), np.diag((vectors * np.abs(values)) @ vectors.T), atol=1e-12)


def test_gauss_newton_is_the_hessian_where_logits_are_linear_and_j_p_j_elsewhere():
    draw = np.random.default_rng(0)
    inputs, w = torch.from_numpy(draw.standard_normal((20, 4))), torch.from_numpy(draw.standard_normal((3, 4)))
    weights = torch.from_numpy(draw.dirichlet(np.ones(20)))
    labels = torch.from_numpy(draw.integers(0, 3, 20))
    loss = Linearised()
    at = Curvature(differentiable(loss, Rows(inputs, one_hot(labels, 3, weights))), (w,))
    found = curvature.gauss_newton_diagonal(lambda x: loss.logits(x, inputs), (w,), weights)
    torch.testing.assert_close(found, at.diagonal, rtol=1e-12, atol=1e-15)

    problem, x = perceptron()
    rows = problem.everything.inputs.double()
    n = len(rows)
    J = torch.autograd.functional.jacobian(lambda v: problem.loss.logits(unflatten(v, problem.layout), rows), flatten(x))
    p = torch.softmax(problem.loss.logits(x, rows), -1)
    G = torch.einsum("ncj,nce,nej->j", J, torch.diag_embed(p) - p.unsqueeze(-1) * p.unsqueeze(-2), J) / n
    found = curvature.gauss_newton_diagonal(lambda x: problem.loss.logits(x, rows), x, torch.full((n,), 1 / n))
    torch.testing.assert_close(found, G, rtol=1e-6, atol=1e-12)


def test_the_empirical_fisher_is_the_mean_of_squared_gradients():
    problem, x = perceptron()
    rows, labels = problem.everything.inputs.double(), problem.everything.weights.argmax(-1)

    losses = [lambda x, i=i: F.cross_entropy(problem.loss.logits(x, rows[i : i + 1])[0], labels[i]) for i in range(len(rows))]
    found = curvature.empirical_fisher_diagonal(losses, x)
    own = [of(problem, x, Rows(rows[i : i + 1], one_hot(labels[i : i + 1], 10, 1.0))).gradient for i in range(len(rows))]
    torch.testing.assert_close(found, torch.stack(own).square().mean(0), rtol=1e-10, atol=1e-16)


def test_what_is_not_finite_is_refused():
    problem = Quadratic(3, clients=1)
    x = (torch.tensor([1.0, math.nan, 1.0], dtype=torch.float64),)
    with pytest.raises(NotFiniteError, match="the loss is nan"):
        Curvature(differentiable(problem.loss, None), x)
    at = Curvature(differentiable(problem.loss, None), problem.initial())
    with pytest.raises(NotFiniteError, match="not finite"):
        at.product(torch.tensor([1.0, math.inf, 1.0], dtype=torch.float64))
    with pytest.raises(NotFiniteError, match="not finite"):
        estimates.hutch_pp(lambda v: v * math.nan, 3, 6, keys.rng(0))
    with pytest.raises(ValueError, match="without replicate axes"):
        Curvature(differentiable(problem.loss, None), (torch.ones(2, 3, dtype=torch.float64),))
    for call in (lambda: whiteness.whitening([1.0, math.nan], [1.0, 1.0]), lambda: whiteness.whitening([1.0], [0.0])):
        with pytest.raises(ValueError, match="must be"):
            call()


def test_a_linear_loss_has_no_curvature():
    problem = Linear(np.arange(1.0, 4.0))
    at = Curvature(differentiable(problem.loss, problem.batch(np.array(0), 0, 0)), problem.initial())
    assert at.gradient.tolist() == [1, 2, 3] and not at.hessian.any()


# Estimates


def test_the_estimates_cover_the_exact_values():
    """Twenty matrices; the intervals are at 99.9 % and the keys are fixed."""
    for seed in range(20):
        A = random_matrix(seed=seed)
        rng = keys.rng(seed)
        product = A.mv
        found = estimates.hutch_pp(product, 40, 90, rng)
        assert found.low <= float(A.trace()) <= found.high and found.low < found.high
        ritz, values = estimates.lanczos(product, 40, 12, rng), torch.linalg.eigvalsh(A)
        assert float(ritz.values[-1]) <= float(values[-1]) * (1 + 1e-12)
        # An eigenvalue lies within the residual of every Ritz value.
        assert bool(((ritz.values[:, None] - values).abs().amin(1) <= ritz.residuals + 1e-12).all())


def test_where_nothing_is_random_the_estimates_are_exact():
    rng = keys.rng(1)
    u = torch.linalg.qr(torch.from_numpy(rng.standard_normal((30, 4))))[0]
    low = u @ torch.diag(torch.tensor([9.0, 4.0, -2.0, 1.0], dtype=torch.float64)) @ u.T
    for value in estimates.hutch_pp(low.mv, 30, 18, rng):
        assert value == pytest.approx(12.0, abs=1e-10)
    assert estimates.lanczos(low.mv, 30, 30, rng).values[-1] == pytest.approx(9.0, rel=1e-10)
    complete = estimates.lanczos(random_matrix().mv, 40, 40, rng)
    torch.testing.assert_close(complete.values, torch.linalg.eigvalsh(random_matrix()), rtol=1e-8, atol=1e-8)


def test_the_whitened_product_has_zeta_for_a_trace():
    A, h = random_matrix(10), torch.linspace(0.5, 3, 10, dtype=torch.float64)
    product = estimates.whitened(A.mv, h)
    full = torch.stack([product(e) for e in torch.eye(10, dtype=torch.float64)])
    assert float(full.trace()) == pytest.approx(float((A.diagonal() / h).sum()), rel=1e-12)


@pytest.mark.parametrize(
    "call",
    [lambda p: estimates.hutch_pp(p, 3, 5, keys.rng(0)), lambda p: estimates.lanczos(p, 3, 0, keys.rng(0))],
)
def test_too_few_probes_are_refused(call):
    with pytest.raises(ValueError, match="out of range; allowed: >="):
        call(lambda v: v)


# Measures


def test_zeta_of_c_h_is_zeta_over_c_and_the_scale_free_forms_do_not_change():
    draw = np.random.default_rng(0)
    s, h = draw.exponential(size=30), draw.exponential(size=30) + 0.1
    one, other = whiteness.whitening(s, h), whiteness.whitening(s, 7 * h)
    assert other.zeta == pytest.approx(one.zeta / 7, rel=1e-13)
    assert other.times_mean == pytest.approx(one.times_mean, rel=1e-13) and other.bound == pytest.approx(one.bound, rel=1e-13)
    flat = whiteness.whitening(s, np.full(30, 0.3))
    assert flat.times_mean == pytest.approx(s.sum(), rel=1e-13) and flat.bound == pytest.approx(0.3 * 0.3 * flat.zeta / 0.3)
    assert whiteness.whitening(s, s).zeta == pytest.approx(30, rel=1e-13)


def test_the_next_round_s_decrease_is_that_of_simulated_steps_and_free_of_scale():
    draw = np.random.default_rng(0)
    a = draw.standard_normal((5, 5))
    S, g, h, P = a @ a.T, draw.standard_normal(5), draw.exponential(size=5) + 0.2, 3
    found = whiteness.next_round(g, S, h, P)
    assert whiteness.next_round(g, S, 7 * h, P) == pytest.approx(found, rel=1e-12)
    z = draw.standard_normal((200_000, P, 5)) / np.sqrt(h)
    dx = np.einsum("npi,npj,j->ni", z, z, g) / P
    slope, bend = (dx @ g), np.einsum("ni,ij,nj->n", dx, S, dx)
    assert slope.mean() ** 2 / (2 * bend.mean()) == pytest.approx(found, rel=0.02)
    with pytest.raises(ValueError, match="h must be positive"):
        whiteness.next_round(g, S, -h, P)
    with pytest.raises(ValueError, match="curvature along the step must be positive"):
        whiteness.next_round(g, -S, h, P)


def test_shares_add_up_to_the_variance_of_log_h():
    draw = np.random.default_rng(0)
    h, sizes = np.exp(draw.standard_normal(50)), (10, 35, 5)
    shares = whiteness.variance_of_log(h, sizes)
    assert shares.total == pytest.approx(np.log(h).var(), rel=1e-12) and shares.between > 0 < shares.within
    layered = whiteness.variance_of_log(np.repeat([1.0, 2.0, 9.0], sizes), sizes)
    assert layered.within == pytest.approx(0, abs=1e-15) and layered.between > 0.1
    with pytest.raises(ValueError, match="sum of the layers"):
        whiteness.variance_of_log(h, (10, 35))


def test_spread_share_and_correlations():
    assert whiteness.spread([1, -1, 1, 0]) == pytest.approx(3) and whiteness.spread([5.0]) == pytest.approx(1)
    assert whiteness.off_diagonal_share([[3, 4], [4, 4]]) == pytest.approx(math.sqrt(32) / 5)
    assert whiteness.off_diagonal_share(np.eye(3)) == 0
    with pytest.raises(ValueError, match="zero diagonal"):
        whiteness.off_diagonal_share([[0, 1], [1, 0]])
    a = np.array([1.0, 5.0, 2.0, 9.0])
    assert whiteness.rank_correlation(a, a**3) == pytest.approx(1) and whiteness.rank_correlation(a, -a) == pytest.approx(-1)
    assert whiteness.rank_correlation(a, np.ones(4)) == 0
    assert whiteness.log_correlation(a, a**2) == pytest.approx(1)
    assert whiteness.log_correlation([*a, 0.0], [*a**2, 1.0]) == pytest.approx(1)
