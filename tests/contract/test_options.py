"""Every option out of range is refused with its name, its value and what is allowed."""

import ast
import dataclasses
import inspect
import typing

import pytest
import torch

from hiso_bench import federation, methods, training
from hiso_bench.federation import Federation, FederationOptions
from hiso_bench.messages import Wire
from hiso_bench.methods import base, build, hiso
from hiso_bench.training import Schedule
from synthetic import logistic, nonconvex, quadratic, rare_tokens
from synthetic.logistic import Logistic
from synthetic.nonconvex import NonConvex
from synthetic.quadratic import Quadratic
from synthetic.rare_tokens import RareTokens
from vision import mlp
from vision.mlp import DigitsPerceptron

INF, NAN = float("inf"), float("nan")


def sampled(sampled):
    problem = Quadratic(3, clients=4)
    return Federation(problem, build("decomfl", lr=0.1), FederationOptions(sampled=sampled))


def oracle(h):
    return build("hiso-oracle", lr=0.1, h=h)


def oracle_eps(eps):
    problem = Quadratic(3)
    return build("hiso-oracle", lr=0.1, h=(torch.tensor([1.0, 0.0, 2.0]),), eps=eps).init(problem.initial(), problem.layout)


def method(**options):
    return build("hiso", {"lr": 0.1} | options)


def wire(dtype):
    return Wire(dtype, 1, 1)


def problem(spectrum=None, **options):
    return Quadratic(**options if spectrum is None else {"spectrum_family": spectrum})


def blocks(**options):
    return Quadratic(5, "blocks", block_values=(1.0, 2.0), **options)


# (module, what is built, option, values out of range, what the message says is allowed)
TABLE = [
    (base, method, "lr", (0, -1.0, INF, NAN, torch.tensor([0.1, -0.1])), "a finite number > 0"),
    (base, method, "lr_decay", (-0.1, INF, NAN), "a finite number >= 0"),
    (base, method, "perturbations", (0, -3), ">= 1"),
    (base, method, "mu", (0, -1e-3, INF, NAN), "a finite number > 0"),
    (base, method, "difference", ("backward",), "forward, central"),
    (base, method, "momentum", (-0.1, 1, NAN), "0 <= momentum < 1"),
    (base, method, "weight_decay", (-1e-9, INF, NAN), ">= 0"),
    (hiso, method, "ema_new", (0, -0.1, 1.1, NAN), "0 < ema_new <= 1"),
    (hiso, method, "eps", (-1e-9, INF, NAN), "a finite number >= 0"),
    (hiso, method, "h0", (0, -1, INF, NAN), "a finite number > 0"),
    (hiso, method, "clip_low", (-1, NAN), "0 <= clip_low <= clip_high = inf"),
    (hiso, method, "h_step", ("middle",), "first, last, each"),
    (hiso, method, "h_clients", ("mean",), "square_of_mean, mean_of_squares"),
    (hiso, method, "h_perturbations", ("both",), "mean_then_square, sequential"),
    (hiso, method, "control", ("random",), "none, mean, shuffle, shuffle_leaf, leaf_mean"),
    (hiso, oracle, "h", ((),), "the problem must provide an oracle H"),
    (hiso, oracle_eps, "h", (0.0,), "positive in every coordinate"),
    (federation, FederationOptions, "sampled", (0, -1), ">= 1"),
    (federation, sampled, "sampled", (5,), "<= clients = 4"),
    (federation, FederationOptions, "local_steps", (0,), ">= 1"),
    (federation, FederationOptions, "dropout", (-0.1, 1, NAN), "0 <= dropout < 1"),
    (federation, FederationOptions, "law", ("cauchy",), "gaussian, sphere, rademacher"),
    (federation, FederationOptions, "wire", ("float16",), "float32, float64"),
    (federation, FederationOptions, "key", (-1, 2**64), "0 <= key < 2**64"),
    (federation, FederationOptions, "cache_bytes", (-1,), ">= 0"),
    (federation, FederationOptions, "on_divergence", ("ignore",), "stop, freeze"),
    (training, Schedule, "rounds", (-1,), ">= 0"),
    (training, Schedule, "evaluate_every", (0, -5), ">= 1"),
    (training, Schedule, "fingerprint_every", (-1,), ">= 0"),
    (training, Schedule, "snapshot_every", (-1,), ">= 0"),
    (quadratic, problem, "spectrum", ("linear",), "power, flat, lognormal"),
    (quadratic, problem, "dimension", (0,), ">= 1"),
    (quadratic, problem, "clients", (0,), ">= 1"),
    (quadratic, problem, "heterogeneity", (-0.1, NAN), ">= 0"),
    (quadratic, problem, "noise", (-0.1, NAN), ">= 0"),
    (quadratic, problem, "angle", (-0.1, NAN), ">= 0, and inf for a Haar rotation"),
    (quadratic, problem, "noise_geometry", ("round",), "isotropic, hessian"),
    (quadratic, problem, "heterogeneity_scale", ("median",), "coordinate, mean, max"),
    (quadratic, problem, "hessian_spread", (-0.1, 1.1, NAN), ">= 0 and <= 1"),
    (quadratic, blocks, "block_sizes", ((), (1, 2)), "sizes that sum to dimension = 5"),
    (logistic, Logistic, "dimension", (0,), ">= 1"),
    (logistic, Logistic, "clients", (0,), ">= 1"),
    (logistic, Logistic, "examples", (0,), ">= 1"),
    (logistic, Logistic, "batch_size", (-1, 129), ">= 0 (0: all) and <= examples = 128"),
    (logistic, Logistic, "label_noise", (-0.1, 0.6, NAN), ">= 0 and <= 0.5"),
    (logistic, Logistic, "skew", (-0.1, NAN), ">= 0"),
    (logistic, Logistic, "ridge", (0.0, -1.0, NAN), "> 0"),
    (nonconvex, NonConvex, "dimension", (0,), ">= 1"),
    (nonconvex, NonConvex, "shape", ("cubic",), "quadratic, saturating, cosine"),
    (nonconvex, NonConvex, "clients", (0,), ">= 1"),
    (nonconvex, NonConvex, "heterogeneity", (-0.1, NAN), ">= 0"),
    (nonconvex, NonConvex, "noise", (-0.1, NAN), ">= 0"),
    (nonconvex, NonConvex, "hessian_spread", (-0.1, NAN), ">= 0"),
    (nonconvex, NonConvex, "centres", (-0.1, NAN), ">= 0"),
    (nonconvex, NonConvex, "padding", (-1, 100), ">= 0 and < dimension = 100"),
    (rare_tokens, RareTokens, "vocabulary", (1,), ">= 2"),
    (rare_tokens, RareTokens, "width", (0,), ">= 1"),
    (rare_tokens, RareTokens, "zipf", (-0.1, NAN), ">= 0"),
    (rare_tokens, RareTokens, "structure", (-0.1, NAN), ">= 0"),
    (rare_tokens, RareTokens, "clients", (0,), ">= 1"),
    (rare_tokens, RareTokens, "skew", (-0.1, NAN), ">= 0"),
    (rare_tokens, RareTokens, "batch_size", (-1,), ">= 0 (0: the source itself)"),
    (mlp, DigitsPerceptron, "hidden", (0,), ">= 1"),
    (mlp, DigitsPerceptron, "split", ("random",), "iid, dirichlet"),
    (mlp, DigitsPerceptron, "examples", (-1, 1439), ">= 0 (0: all) and <= 1438"),
    (mlp, DigitsPerceptron, "public", (-1, 1435), ">= 0 and <= images that no client needs = 1434"),
    (mlp, DigitsPerceptron, "clients", (0, 360), ">= 1 and <= a quarter of the images, 359"),
    (mlp, DigitsPerceptron, "batch_size", (-1, 1439), ">= 0 (0: all) and <= images per client = 1438"),
    (mlp, DigitsPerceptron, "feature_scale", (-0.1, INF, NAN), "a finite number >= 0"),
    (None, wire, "wire", ("bfloat16",), "float32, float64"),
]
CASES = [(build_, option, value, allowed) for _, build_, option, values, allowed in TABLE for value in values]
SAME_NAME = {(oracle_eps, "h"): "eps", (wire, "wire"): "dtype"}


@pytest.mark.parametrize(("built", "option", "value", "allowed"), CASES, ids=lambda v: getattr(v, "__name__", str(v)))
def test_an_option_out_of_range_is_named_with_its_value_and_what_is_allowed(built, option, value, allowed):
    with pytest.raises(ValueError) as error:
        built(**{SAME_NAME.get((built, option), option): value})
    text = str(error.value)
    assert text.startswith(f"{option} ")
    assert f"; allowed: {allowed}" in text or f": {allowed}" in text
    assert built in (oracle, oracle_eps) or str(value) in text


@pytest.mark.parametrize(
    "module",
    [base, hiso, federation, training, quadratic, logistic, nonconvex, rare_tokens, mlp],
    ids=lambda module: module.__name__,
)
def test_the_table_has_every_option_that_the_code_checks(module):
    calls = [node for node in ast.walk(ast.parse(inspect.getsource(module))) if isinstance(node, ast.Call)]
    checked = [call.args[1] for call in calls if getattr(call.func, "id", "") == "require"]
    assert checked
    options = {argument.value for argument in checked if isinstance(argument, ast.Constant)}
    assert options <= {option for where, _, option, *_ in TABLE if where is module}


def test_clipping_must_leave_room():
    with pytest.raises(ValueError, match="clip_low 2 is out of range; allowed: 0 <= clip_low <= clip_high = 1"):
        method(clip_low=2, clip_high=1)


@pytest.mark.parametrize("value", [1e-300, 1e300])
def test_ranges_are_checked_in_float64(value):
    assert method(lr=value, mu=value).lr == value


def test_unknown_options_are_errors():
    for kind in (FederationOptions, Schedule):
        with pytest.raises(TypeError, match="unknown_option"):
            kind(unknown_option=1)


def test_an_option_of_one_name_has_one_type_in_all_methods():
    """The command line has one option for all the methods that have it."""
    seen = {}
    for kind in methods.kinds():
        for name, hint in typing.get_type_hints(kind).items():
            if name in {field.name for field in dataclasses.fields(kind)}:
                plain = "float" if hint in (float, base.Value) else str(hint)
                assert seen.setdefault(name, plain) == plain, f"{kind.__name__}.{name}"
