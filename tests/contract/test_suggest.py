"""`suggest-lr`: what it estimates is what theory says of a known problem, and what cannot be trusted is refused."""

import json

import numpy as np
import pytest
import torch
from torch import nn

import hiso_bench
from hiso_bench import cli, suggest
from hiso_bench.federation import FederationOptions
from hiso_bench.losses import Loss, NondeterministicLossError
from hiso_bench.points import Layout
from hiso_bench.testing import Quadratics
from hiso_bench.theory import spectra
from hiso_bench.theory.stability import max_stable_step, stable_step_from_sums, tight_stable_step_bounds
from synthetic.quadratic import Quadratic


def inside(interval, value):
    return interval.low * (1 - 1e-7) <= value <= interval.high * (1 + 1e-7)  # eps is a float32 number


@pytest.mark.parametrize(("law", "momentum"), [("gaussian", 0.0), ("sphere", 0.5), ("rademacher", 0.9)])
def test_bounds_from_three_sums_are_those_of_the_spectrum(law, momentum):
    s = spectra.power(50, 1.2)
    sums = (s.sum(), s.max(), np.square(s).sum())
    assert stable_step_from_sums(*sums, 50, 3, law, momentum) == tight_stable_step_bounds(s, 1.0, 3, law, momentum)
    low, high = stable_step_from_sums(*sums, 50, 3, law, momentum)
    assert low <= max_stable_step(s, 1.0, 3, law, momentum) <= high
    for bad in [(1.0, 2.0, 4.0), (2.0, 1.0, 3.0), (2.0, 1.0, 0.5), (float("nan"), 1.0, 1.0)]:
        with pytest.raises(ValueError, match="no spectrum >= 0 has trace"):
            stable_step_from_sums(*bad, 50, 3)


@pytest.mark.parametrize("d", [60, 600])
@pytest.mark.parametrize(("method", "options"), [("decomfl", {"perturbations": 3}), ("hiso-oracle", {"eps": 0.05})])
def test_a_known_quadratic_gives_its_own_limit(method, options, d):
    problem = Quadratic(d, "power", 1.5, heterogeneity=0.1)
    found = hiso_bench.suggest_lr(problem, method, rounds=0, **options)
    h = problem.spectrum + 0.05 if method == "hiso-oracle" else np.ones(d)
    lam, limit = problem.spectrum / h, max_stable_step(problem.spectrum, h, options.get("perturbations", 5))
    for interval, value in [
        (found.limit, limit),
        (found.trace, lam.sum()),
        (found.zeta, lam.sum()),
        (found.top, lam.max()),
        (found.kappa, problem.spectrum.sum()),
    ]:
        assert inside(interval, value) and interval.high < 1.5 * interval.low
        assert interval.low <= interval.value <= interval.high
    assert (found.limit.low == found.limit.high) == (d == 60)
    assert found.lr == pytest.approx(0.5 * found.limit.low) and found.trials == () and found.negative < 0.01


def test_where_lanczos_has_not_converged_the_interval_says_so():
    s = np.linspace(0.0, 1.0, 400)  # the largest eigenvalues lie close together
    found = hiso_bench.suggest_lr(Quadratics(np.diag(s)[None], np.zeros((1, 400)), np.ones(400)), "decomfl", rounds=0)
    assert found.top.value < 1 - 1e-4 and inside(found.top, 1.0) and inside(found.limit, max_stable_step(s, 1.0, 5))


def test_independent_directions_and_momentum_enter():
    problem = Quadratic(30, "power", 1.0)
    for federation, P in [(FederationOptions(sampled=4), 5), (FederationOptions(sampled=4, independent=True), 20)]:
        found = hiso_bench.suggest_lr(problem, "decomfl", rounds=0, momentum=0.6, federation=federation)
        assert found.limit.value == pytest.approx(max_stable_step(problem.spectrum, 1.0, P, momentum=0.6), rel=1e-6)
        assert found.perturbations == P


def test_short_runs_tell_a_stable_step_from_an_unstable_one():
    found = hiso_bench.suggest_lr(Quadratic(40), "hiso", rounds=40)
    outcomes = {trial.fraction: trial.outcome for trial in found.trials}
    assert outcomes[0.25] == outcomes[0.5] == "fell" and outcomes[4.0] == "diverged" and found.agrees
    assert all(len(set(trial.change)) == 3 for trial in found.trials[:2])  # three keys
    assert found.trials[-1].round <= 20 and found.learned is not None
    assert json.dumps(found.as_dict(), allow_nan=False)
    assert max(map(len, str(found).splitlines())) <= 80 and "agree with theory" in str(found)


class Ripples(Loss):
    """Curvature 21 at the start, from ripples that are nothing beside the bowl of curvature 1 that they lie in."""

    def __call__(self, x, batch):
        return (x[0].square() / 2 - 0.05 * torch.cos(20 * x[0])).sum().double()


class Own:
    """A problem of one leaf and one client."""

    name, metric, higher_is_better, clients = "own", "loss", False, 1

    def __init__(self, loss, start):
        self.loss, self.start = loss, start
        self.layout = Layout.of((start,))

    def initial(self):
        return (self.start.clone(),)

    def batch(self, client, round_, step):
        return None

    def evaluate(self, x):
        return {"loss": float(self.loss(x, None))}

    def describe(self):
        return {}


def test_where_runs_contradict_theory_it_says_so():
    found = hiso_bench.suggest_lr(Own(Ripples(), torch.full((30,), np.pi, dtype=torch.float64)), "decomfl", rounds=60)
    assert not found.agrees and "longer steps are worth a try" in str(found)


def test_negative_curvature_is_counted_and_told():
    S = np.diag([3.0, 1.0, -1.0])
    found = hiso_bench.suggest_lr(Quadratics(S[None], np.zeros((1, 3)), np.ones(3)), "decomfl", rounds=0)
    assert found.negative == pytest.approx(0.2) and found.trace.value == pytest.approx(5) and "negative curvature" in str(found)
    assert found.limit.value == pytest.approx(max_stable_step([3.0, 1.0, 1.0], 1.0, 5))
    with pytest.raises(ValueError, match=r"no positive curvature at the initial point \(its largest eigenvalue is -1"):
        hiso_bench.suggest_lr(Quadratics(-np.eye(3)[None], np.zeros((1, 3)), np.ones(3)), "decomfl")


class Noisy(Loss):
    def __init__(self):
        self.calls = 0

    def __call__(self, x, batch):
        self.calls += 1
        return x[0].square().sum().double() + 1e-9 * self.calls


def test_what_cannot_be_trusted_is_refused():
    start = torch.ones(3, dtype=torch.float64)
    with pytest.raises(NondeterministicLossError, match="not deterministic"):
        hiso_bench.suggest_lr(Own(Noisy(), start), "decomfl")
    for method, why in [
        ("safe-step", "has rate of its own"),
        ("zo-signsgd", "is not linear in the scalars"),
        ("zo-adam", "is not linear in the scalars"),
        ("lozo", "has directions of its own"),
        ("fedavg", "sends vectors"),
    ]:
        with pytest.raises(ValueError, match=f"method {method} {why}, and theory has no stable step for it"):
            hiso_bench.suggest_lr(Quadratic(5), method, **({"client_lr": 0.1} if method == "fedavg" else {}))
    projected = hiso_bench.methods.build("agzo", lr=1.0, rank=1, inputs=lambda x, examples, draw: [torch.eye(5)[:1]])
    with pytest.raises(ValueError, match="method Agzo has basis of its own, and theory has no stable step for it"):
        hiso_bench.suggest_lr(Quadratic(5), projected)
    smooth = hiso_bench.FunctionLoss(lambda v: (v**4).sum(), single=True)
    assert hiso_bench.suggest_lr(Own(smooth, start), "decomfl", rounds=0).trace.value == pytest.approx(36)
    step = hiso_bench.FunctionLoss(lambda v: (v > 0).double().sum(), single=True)
    with pytest.raises(ValueError, match="cannot be differentiated twice by torch"):
        hiso_bench.suggest_lr(Own(step, start), "decomfl")


def test_a_module_of_one_s_own():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 3)).eval()
        clients = [(torch.randn(20, 4), torch.randint(0, 3, (20,))) for _ in range(5)]
    problem = hiso_bench.ModuleProblem(net, clients)
    found = hiso_bench.suggest_lr(problem, "decomfl", rounds=30, runs=2)
    from hiso_bench.curvature import Curvature, differentiable, double

    parts = [differentiable(problem.loss, batch) for batch in clients]
    S = Curvature(lambda x: sum(part(x) for part in parts) / 5, double(problem.initial())).hessian
    values = torch.linalg.eigvalsh(S)
    assert found.dimension == 67 and found.top.value == pytest.approx(float(values.abs().max()), rel=1e-3)
    assert found.trace.value == pytest.approx(float(values.abs().sum()), rel=1e-3)


def test_the_command_prints_a_table_of_eighty_columns_and_json(capsys):
    args = ["suggest-lr", "--problem", "quadratic", "--dimension", "30", "--rounds", "20", "--runs", "1", "--threads", "1"]
    assert cli.main([*args, "--method", "hiso"]) == 0
    told = capsys.readouterr()
    assert max(map(len, told.out.splitlines())) <= 80 and "suggested lr" in told.out and "runs of 20 rounds" in told.err
    assert cli.main([*args, "--json", "--quiet"]) == 0
    told = capsys.readouterr()
    assert json.loads(told.out)["method"] == "decomfl" and not told.err
    assert cli.main([*args, "--lr", "0.1"]) == 2
    assert "option --lr is unknown for suggest-lr" in capsys.readouterr().err
    assert cli.main([*args, "--out", "x"]) == 2
    assert "option --out is unknown for suggest-lr" in capsys.readouterr().err
    assert cli.main([*args, "--method", "zo-adam"]) == 2
    assert "method zo-adam is not linear in the scalars" in capsys.readouterr().err


def test_the_fraction_is_what_the_text_says():
    assert suggest.FRACTION == 0.5 and suggest.FRACTION in suggest.CHECKED
