"""The synthetic problems are what they say: gradients, L, noise, heterogeneity, minima, replicates and descriptions."""

import functools
import json
import math

import numpy as np
import pytest
import torch

from hiso_bench import cli, methods
from hiso_bench.losses import check_deterministic
from hiso_bench.theory import spectra
from synthetic import schematic
from synthetic.logistic import Logistic
from synthetic.nonconvex import SHAPES, NonConvex, log_cosh
from synthetic.quadratic import Quadratic
from tests.helpers import bits, federation, run

D, M = 12, 6
DIFFERENT = {"heterogeneity": 0.3, "heterogeneity_scale": "max", "hessian_spread": 0.5}
BUILT = {
    "spiked": functools.partial(Quadratic, D, "spiked", 20.0, M, spikes=2),
    "blocks": functools.partial(Quadratic, D, "blocks", clients=M, block_sizes=(2, 10), block_values=(3.0, 0.1)),
    "unequal": functools.partial(Quadratic, D, "power", 1.0, M, **DIFFERENT),
    "rotated": functools.partial(Quadratic, D, "power", 1.0, M, angle=0.5, noise=0.1, noise_geometry="hessian", **DIFFERENT),
    "haar": functools.partial(Quadratic, D, "lognormal", 1.0, M, angle=math.inf),
    "logistic": functools.partial(Logistic, D, clients=M, examples=40, batch_size=15, label_noise=0.1, skew=0.5),
    "full batch": functools.partial(Logistic, D, clients=M, examples=40),
} | {shape: functools.partial(NonConvex, D, shape, clients=M, centres=1.0, noise=0.1, padding=3, **DIFFERENT) for shape in SHAPES}
each = pytest.mark.parametrize("name", BUILT)


def client(c, replicates=()):
    return np.full(replicates, c)


def matrix(problem):
    s = np.diag(problem.spectrum)
    return s if problem.Q is None else problem.Q.numpy().T @ s @ problem.Q.numpy()


def gradient(loss, x, batch):
    """Of the loss at a point, by automatic differentiation."""
    leaf = x.clone().requires_grad_()
    return torch.autograd.grad(loss((leaf,), batch).sum(), leaf)[0]


def hessian(loss, x, batch):
    return torch.autograd.functional.hessian(lambda t: loss((t,), batch), x)


@each
def test_a_loss_is_deterministic_float64_and_of_the_replicate_shape(name):
    for replicates in ((), (2, 3)):
        problem = BUILT[name](replicates=replicates)
        batch = problem.batch(client(2, replicates), 1, 0)
        check_deterministic(problem.loss, problem.initial(), batch)
        value = problem.loss(problem.initial(), batch)
        assert value.dtype == torch.float64 and value.shape == replicates
        assert problem.initial()[0].shape == problem.layout.shape(0)


@each
def test_a_replicate_s_loss_is_that_of_a_problem_without_replicates(name):
    """Each replicate stands at a point of its own and has a client of its own; noise and batches are drawn per replicate."""
    problem, alone = BUILT[name](replicates=(3,)), BUILT[name]()
    x = torch.from_numpy(np.random.default_rng(0).standard_normal((3, D)))
    batch = problem.batch(np.array([4, 0, 4]), 1, 0)
    parts = batch if isinstance(batch, tuple) else (batch,)
    for i in range(3):
        part = [None if p is None else p[i] for p in parts]
        one = type(batch)(*part) if isinstance(batch, tuple) else part[0]
        torch.testing.assert_close(problem.loss((x,), batch)[i], alone.loss((x[i],), one), rtol=1e-13, atol=1e-14)


@each
def test_a_problem_is_built_again_from_its_description(name):
    problem = BUILT[name](key=2**63)
    again = type(problem)(clients=M, **json.loads(json.dumps(problem.describe())))
    first, second = (bits(run(federation(p, "hiso", {"lr": 1e-3}), 2).state) for p in (problem, again))
    assert first == second
    other = bits(run(federation(BUILT[name](key=1), "hiso", {"lr": 1e-3}), 2).state)
    assert (first == other) == (name in ("spiked", "blocks"))  # which hold nothing random


@pytest.mark.parametrize("name", [name for name in BUILT if isinstance(BUILT[name](), Quadratic)])
def test_a_quadratic_s_gradient_hessian_and_oracle_are_the_matrix_it_describes(name):
    problem = BUILT[name](noise=0.0)
    S, x = matrix(problem), torch.linspace(-1, 2, D, dtype=torch.float64)
    np.testing.assert_allclose(gradient(problem.loss, x, None).numpy(), S @ x.numpy(), rtol=0, atol=1e-12)
    np.testing.assert_allclose(problem.oracle_h()[0].numpy(), np.diag(S), rtol=1e-12)
    batches = [problem.batch(client(c), 0, 0) for c in range(M)]
    np.testing.assert_allclose(
        np.mean([gradient(problem.loss, x, b).numpy() for b in batches], axis=0), S @ x.numpy(), atol=1e-12
    )
    assert problem.evaluate(problem.initial())["loss"] == pytest.approx(problem.spectrum.sum() / 2, rel=1e-12)


@pytest.mark.parametrize("clients", [6, 7])
@pytest.mark.parametrize("angle", [0.0, 0.5])
def test_the_clients_hessians_differ_by_exactly_the_spread(clients, angle):
    problem = Quadratic(D, "power", 1.0, clients, hessian_spread=0.25, angle=angle)
    S, x = matrix(problem), torch.zeros(D, dtype=torch.float64)
    own = np.stack([hessian(problem.loss, x, problem.batch(client(c), 0, 0)).numpy() for c in range(clients)])
    np.testing.assert_allclose(own.mean(0), S, atol=1e-14)
    Q = np.eye(D) if problem.Q is None else problem.Q.numpy()
    apart = np.abs(np.einsum("ij,mjk,ik->mi", Q, own - S, Q)) / problem.spectrum
    assert np.all(np.isclose(apart, 0.25, rtol=1e-9) | np.isclose(apart, 0, atol=1e-12))
    assert np.sum(apart < 1e-9, axis=0).tolist() == [clients % 2] * D
    assert len({row.tobytes() for row in own}) == clients


@pytest.mark.parametrize(("scale", "measure"), [("mean", lambda n: np.sqrt(np.mean(n**2))), ("max", np.max)])
def test_heterogeneity_is_exactly_what_was_asked_for(scale, measure):
    problem = Quadratic(D, clients=M, heterogeneity=0.3, heterogeneity_scale=scale)
    b = np.stack([problem.batch(client(c), 0, 0).numpy() for c in range(M)])
    norms = np.linalg.norm(b, axis=1)
    assert measure(norms) == pytest.approx(0.3, rel=1e-14) and problem.sigma_g == pytest.approx(np.sqrt(np.mean(norms**2)))
    np.testing.assert_allclose(b.sum(0), 0, atol=1e-15)


@pytest.mark.parametrize("angle", [0.0, 0.5])
@pytest.mark.parametrize("geometry", ["isotropic", "hessian"])
def test_gradient_noise_has_the_covariance_that_is_stated(geometry, angle):
    """20,000 draws of (Q n)_j^2: each coordinate's mean is within 5 standard errors, and so are products of two coordinates."""
    n = 20_000
    problem = Quadratic(D, "power", 1.0, 1, noise=0.3, noise_geometry=geometry, angle=angle, replicates=(n,))
    noise = problem.batch(client(0, (n,)), 0, 0).numpy()
    V = 0.09 * (np.eye(D) if geometry == "isotropic" else matrix(problem))
    found = noise.T @ noise / n
    error = np.sqrt((np.outer(np.diag(V), np.diag(V)) + V**2) / n)
    assert np.all(np.abs(found - V) < 5 * error)
    assert problem.noise_variances.sum() == pytest.approx(np.trace(V), rel=1e-12)


def test_a_rotation_leaves_spectrum_and_start_in_the_eigenbasis():
    straight, turned = Quadratic(D, clients=1), Quadratic(D, clients=1, angle=1.0)
    np.testing.assert_allclose(np.linalg.eigvalsh(matrix(turned))[::-1], straight.spectrum, rtol=1e-12)
    np.testing.assert_allclose((turned.Q @ turned.initial()[0]).numpy(), np.ones(D), rtol=1e-12)
    assert np.abs(matrix(turned) - matrix(straight)).max() > 0.05


def test_a_million_coordinates_are_no_burden():
    problem = Quadratic(10**6, "power", 1.5, 2, heterogeneity=1.0, heterogeneity_scale="mean", noise=0.1, hessian_spread=0.5)
    run(federation(problem, "decomfl", {"lr": 0.01}, sampled=2), 1)


@pytest.mark.parametrize("name", ["logistic", "full batch"])
def test_logistic_gradients_hessians_and_l_are_exact(name):
    problem = BUILT[name]()
    rng = np.random.default_rng(0)
    everything = torch.from_numpy(problem.signed.reshape(-1, D))
    for x in (np.zeros(D), rng.standard_normal(D), 5 * rng.standard_normal(D)):
        at = torch.from_numpy(x)
        np.testing.assert_allclose(gradient(problem.loss, at, everything).numpy(), problem.gradient(x), atol=1e-14)
        np.testing.assert_allclose(hessian(problem.loss, at, everything).numpy(), problem.hessian(x), atol=1e-14)
        assert float(problem.loss((at,), everything)) == pytest.approx(problem.value(x), rel=1e-13)
        own = torch.from_numpy(problem.signed[3])
        np.testing.assert_allclose(gradient(problem.loss, at, own).numpy(), problem.gradient(x, 3), atol=1e-14)
        assert np.linalg.eigvalsh(problem.hessian(x)).max() <= problem.smoothness * (1 + 1e-12)
    assert np.linalg.eigvalsh(problem.hessian(np.zeros(D))).max() == pytest.approx(problem.smoothness, rel=1e-12)


def test_the_logistic_minimum_is_one_to_1e_12():
    problem = Logistic(D, clients=M, examples=40, label_noise=0.1)
    assert np.abs(problem.gradient(problem.minimiser)).max() < 1e-12
    assert np.linalg.eigvalsh(problem.hessian(problem.minimiser)).min() >= problem.ridge * (1 - 1e-9)
    assert problem.evaluate((torch.from_numpy(problem.minimiser),))["excess"] == pytest.approx(0, abs=1e-14)
    assert problem.evaluate(problem.initial())["loss"] == pytest.approx(math.log(2), rel=1e-14)
    np.testing.assert_array_equal(problem.oracle_h()[0].numpy(), np.diag(problem.hessian(problem.minimiser)))


def test_the_logistic_hessian_inherits_the_planted_effective_rank():
    """kappa stays near zeta(1.5) = 2.6 while d grows fourfold; with equal feature variances it grows with d."""

    def kappa(d, exponent):
        problem = Logistic(d, exponent, clients=4, examples=400)
        return spectra.effective_rank(np.linalg.eigvalsh(problem.hessian(np.zeros(d))))

    assert kappa(160, 1.5) < 1.3 * kappa(40, 1.5) < 4
    assert kappa(160, 0.0) > 2 * kappa(40, 0.0) > 20


def test_logistic_batches_are_drawn_without_replacement_from_the_client_s_own_examples():
    problem = BUILT["logistic"](replicates=(2,))
    rows = problem.batch(np.array([1, 4]), 3, 0).numpy()
    assert rows.shape == (2, 15, D)
    for part, owner in zip(rows, (1, 4), strict=True):
        own = {row.tobytes() for row in problem.signed[owner]}
        assert len({row.tobytes() for row in part} & own) == 15
    assert not np.array_equal(rows, problem.batch(np.array([1, 4]), 3, 1).numpy())
    full = BUILT["full batch"]()
    np.testing.assert_array_equal(full.batch(client(2), 0, 0).numpy(), full.signed[2])


def test_label_noise_flips_the_stated_fraction():
    """16,000 labels; features and planted labels are the same draws, so the two data sets differ by the flips alone."""
    clean, noisy = (Logistic(5, clients=4, examples=4000, label_noise=p).signed for p in (0.0, 0.1))
    flipped = (clean[..., 0] == -noisy[..., 0]).mean()
    assert abs(flipped - 0.1) < 5 * math.sqrt(0.09 / 16_000)


@pytest.mark.parametrize("shape", SHAPES)
def test_nonconvex_derivatives_l_and_sigma_g_hold_everywhere(shape):
    problem = NonConvex(D, shape, clients=M, centres=1.0, padding=3, **DIFFERENT)
    parts = [problem.client_part(client(c)) for c in range(M)]
    x = torch.from_numpy(np.random.default_rng(0).uniform(-6, 6, (4000, D)))
    gradients, curvatures = problem.gradients(x), problem.curvatures(x)
    assert curvatures.abs().max() <= problem.smoothness
    apart = (gradients - gradients.mean(0)).square().sum(-1).sqrt()
    assert apart.max() <= problem.sigma_g
    for c in (0, 1):
        torch.testing.assert_close(gradient(problem.loss, x[7], parts[c]), gradients[c, 7], rtol=1e-12, atol=1e-13)
        torch.testing.assert_close(hessian(problem.loss, x[7], parts[c]).diagonal(), curvatures[c, 7], rtol=1e-12, atol=1e-13)
    slope = gradients.mean(0)
    assert problem.evaluate((x,))["gradient"] == pytest.approx(float(slope.square().sum(-1).mean()), rel=1e-12)
    least = min(SHAPES[shape].least, 0)
    assert (problem.curvatures(x).mean(0).min() < 0) == (least < 0)


def test_sigma_g_is_attained_far_away_where_only_the_hessians_differ():
    problem = NonConvex(D, clients=M, hessian_spread=0.5)
    gradients = problem.gradients(torch.full((D,), 60.0, dtype=torch.float64))
    assert float((gradients - gradients.mean(0)).norm(dim=-1).max()) == pytest.approx(problem.sigma_g, rel=1e-12)


@pytest.mark.parametrize("shape", SHAPES)
def test_the_stated_range_of_a_shape_s_curvature_is_attained(shape):
    t = torch.linspace(-20, 20, 400_001, dtype=torch.float64)
    found = SHAPES[shape].curvature(t)
    assert float(found.min()) == pytest.approx(SHAPES[shape].least, abs=1e-6)
    assert float(found.max()) == pytest.approx(SHAPES[shape].most, abs=1e-6)
    assert found.min() >= SHAPES[shape].least - 1e-12 and found.max() <= SHAPES[shape].most + 1e-12


def test_padding_changes_no_loss():
    short, long = (NonConvex(D + p, clients=M, padding=p, noise=0.1, **DIFFERENT) for p in (0, 5))
    x = torch.linspace(-2, 2, D, dtype=torch.float64)
    wide = torch.cat([x, torch.full((5,), 7.0, dtype=torch.float64)])
    for c in range(M):
        torch.testing.assert_close(
            short.loss((x,), short.client_part(client(c))), long.loss((wide,), long.client_part(client(c))), rtol=1e-14, atol=0
        )
    assert not long.batch(client(0), 0, 0).linear[D:].any()


def test_log_cosh_is_accurate_near_zero_and_far_away():
    t = torch.tensor([1e-9, 0.5, 0.999999, 1.0, 3.0, 800.0], dtype=torch.float64)
    expected = [0.5e-18, math.log(math.cosh(0.5)), math.log(math.cosh(0.999999)), math.log(math.cosh(1)), math.log(math.cosh(3))]
    np.testing.assert_allclose(log_cosh(t).numpy(), [*expected, 800 - math.log(2)], rtol=1e-14)


@pytest.mark.parametrize(
    "options",
    [
        ("logistic", "--batch-size", "8", "--skew", "0.5", "--method", "hiso-oracle"),
        ("nonconvex", "--shape", "cosine", "--hessian-spread", "0.5", "--method", "hiso"),
        (
            "quadratic",
            "--spectrum-family",
            "blocks",
            "--dimension",
            "30",
            "--block-sizes",
            "10",
            "20",
            "--block-values",
            "1",
            "0.1",
        ),
        ("quadratic", "--dimension", "30", "--angle", "inf", "--noise", "0.1", "--noise-geometry", "hessian"),
    ],
    ids=lambda options: f"{options[0]} {options[1]}",
)
def test_the_command_line_trains_resumes_and_asks_for_a_rate(options, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    args = ["train", "--problem", *options, "--quiet", "--threads", "1", "--out", "run", "--rounds"]
    assert cli.main([*args, "5", "--lr", "0.01"]) == 0
    assert cli.main([*args, "8", "--lr", "0.01"]) == 0
    assert "resuming" in capsys.readouterr().err
    if options[0] != "quadratic":
        assert cli.main([*args, "5"]) == 2
        assert "lr is not given" in capsys.readouterr().err


def test_the_drawn_round_ends_at_the_mean_of_its_clients_and_its_path_follows_its_scalars():
    method = methods.build("hiso", lr=schematic.RATE, perturbations=1)
    ends = schematic.one_round(method).groupby("who")[["x", "y"]].last()
    np.testing.assert_allclose(ends.loc["everyone"], ends.drop("everyone").mean(), rtol=1e-12)
    drawn = schematic.path(method)
    assert drawn["key"].iloc[1:].is_unique and len(drawn) == schematic.PATH_ROUNDS + 1
    assert (drawn["length"].iloc[1:].abs() > 0.05).all(), "a step that cannot be seen"
