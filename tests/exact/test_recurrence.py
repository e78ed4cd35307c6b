"""Runs against Algorithm 1 written again in NumPy: clients take their own local steps, the server averages the end points."""

import numpy as np
import pytest

from hiso_bench.directions import SHARED, DirectionKey
from hiso_bench.participation import participants
from tests.helpers import federation, quadratic, run

ROUNDS, P, MU, LR, DECAY = 4, 3, 1e-2, 0.1, 0.2


def loss(problem, x, client, round_, step):
    return 0.5 * (problem.spectrum * x * x).sum() + problem.batch(np.array(client), round_, step).numpy() @ x


def scalar(problem, x, z, difference, where):
    f = lambda point: loss(problem, point, *where)  # noqa: E731
    return (f(x + MU * z) - f(x)) / MU if difference == "forward" else (f(x + MU * z) - f(x - MU * z)) / (2 * MU)


def run_by_hand(f, tau, momentum=0.0, weight_decay=0.0, difference="forward", rule=None, h=None):
    """x as the mean of the clients' end points, and H by `rule(h, steps)` with steps[k] = (scalars (m, P), z (m, P, d))."""
    problem, options = f.problem, f.options
    x, m = problem.initial()[0].numpy().copy(), np.zeros(12)
    h = np.ones(12) if h is None else h
    for r in range(ROUNDS):
        ends, momenta, found = [], [], []
        for client in participants(options.key, r, problem.clients, options.sampled):
            y, n, steps = x.copy(), m.copy(), []
            for k in range(tau):
                owner = int(client) if options.independent else SHARED
                z = np.stack([f.directions.draw(DirectionKey(r, k, p, owner))[0].numpy() for p in range(P)]) / np.sqrt(h)
                s = np.array([scalar(problem, y, z[p], difference, (client, r, k)) for p in range(P)])
                g = (s[:, None] * z).mean(0)
                n = momentum * n + g + weight_decay * y
                y = y - LR / (1 + DECAY * r) * n
                steps.append((s, z))
            ends.append(y)
            momenta.append(n)
            found.append(steps)
        x, m = np.mean(ends, 0), np.mean(momenta, 0)
        if rule is not None:
            steps = [tuple(np.stack(part) for part in zip(*(steps[k] for steps in found), strict=True)) for k in range(tau)]
            h = rule(h, steps)
    return x, h


def close(a, b):
    np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("tau", [1, 2, 3, 4])
@pytest.mark.parametrize("independent", [False, True], ids=["shared", "independent"])
@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("decomfl", {}),
        ("decomfl", {"momentum": 0.7}),
        ("decomfl", {"momentum": 0.7, "weight_decay": 0.05}),
        ("hiso-oracle", {"weight_decay": 0.05, "difference": "central"}),
    ],
    ids=str,
)
def test_the_server_stands_at_the_mean_of_the_clients_end_points(name, options, independent, tau):
    method = {"perturbations": P, "mu": MU, "lr": LR, "lr_decay": DECAY} | options
    f = federation(quadratic(), name, method, local_steps=tau, independent=independent, wire="float64", key=5)
    h = f.state.buffers["h"][0].numpy().copy() if "h" in f.state.buffers else None
    x, _ = run_by_hand(f, tau, h=h, **options)
    close(run(f, ROUNDS).state.x[0].numpy(), x)


def ema(h, square, eps):
    return 0.95 * h + 0.05 * (square + eps)


def rule_a(h, steps):
    """The unnumbered line of section 4.2: mean over clients of their squares, local step by local step."""
    for s, z in steps:
        h = ema(h, ((s[..., None] * z).mean(1) ** 2).mean(0), 1e-8)
    return h


def rule_b(h, steps):
    """Eq 12: the square of the first local step's mean direction."""
    s, z = steps[0]
    return ema(h, (s[..., None] * z).mean((0, 1)) ** 2, 1e-8)


def rule_c(h, steps):
    """Section 4.3 at every local step in order."""
    for s, z in steps:
        h = ema(h, (s[..., None] * z).mean((0, 1)) ** 2, 1e-8)
    return h


def rule_d(h, steps):
    """The official batch class: the last local step, no floor."""
    s, z = steps[-1]
    return ema(h, (s[..., None] * z).mean((0, 1)) ** 2, 0)


def rule_e(h, steps):
    """The official parameter-wise class: one EMA step per direction, each with z regenerated from the H that is moving."""
    s, z = steps[-1]
    u = z * np.sqrt(h)
    for p in range(P):
        h = ema(h, (s[:, p, None] * u[:, p] / np.sqrt(h)).mean(0) ** 2 / P**2, 0)
    return h


def rule_f(h, steps):
    """The official all-local-updates strategy: every local step, z regenerated from the H that is moving."""
    u = [z * np.sqrt(h) for _, z in steps]
    for (s, _), v in zip(steps, u, strict=True):
        h = ema(h, (s[..., None] * v / np.sqrt(h)).mean((0, 1)) ** 2, 0)
    return h


@pytest.mark.parametrize("tau", [1, 3])
@pytest.mark.parametrize("rule", [rule_a, rule_b, rule_c, rule_d, rule_e, rule_f])
def test_h_follows_its_formula_and_moves_after_x(rule, tau):
    method = {"perturbations": P, "mu": MU, "lr": LR, "lr_decay": DECAY}
    f = federation(quadratic(), "hiso-" + rule.__name__[-1], method, local_steps=tau, wire="float64", key=5)
    x, h = run_by_hand(f, tau, rule=rule)
    run(f, ROUNDS)
    close(f.state.x[0].numpy(), x)
    close(f.state.buffers["h"][0].numpy(), h)
    assert np.abs(h - 1).max() > 0.01
