"""Names -> problems, experiments and claims of the checkout, loaded lazily; and the recorded learning rates.

The installed package holds the library alone; the tracks (`synthetic`, `vision`, ...) are folders of the checkout. This
module and `cli.py` are the one place where the library meets them.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import hiso_bench
from hiso_bench import methods
from hiso_bench.claims import Check, Claim, load_checks, read_claims
from hiso_bench.experiments import Experiment
from hiso_bench.methods.base import Method
from hiso_bench.names import unknown
from hiso_bench.problems import Base, Problem

ROOT = Path(hiso_bench.__file__).resolve().parent.parent
RESULTS = ROOT / "results"
FRESH = RESULTS / "fresh"


class CheckoutError(ValueError):
    """A track is asked for where there is no checkout."""


@dataclass(frozen=True)
class Entry:
    """Where a problem's class is, what its name fixes, and which recorded grid holds its rates.

    `grid` may name options of the problem in braces. `base` is what a replay needs of a problem whose clients have data
    (none: the problem itself): called with the described options and where the base model is (empty: where they say), it gives
    a `problems.Base`.
    """

    target: str
    fixed: Mapping[str, Any]
    federation: Mapping[str, Any]
    grid: str
    base: str = ""


_IMAGES = "vision.problems:ImageProblem"
PROBLEMS: dict[str, Entry] = {
    "quadratic": Entry("synthetic.quadratic:Quadratic", {}, {"sampled": 2}, "low_rank_grid"),
    "logistic": Entry("synthetic.logistic:Logistic", {}, {"sampled": 2}, "logistic_grid"),
    "nonconvex": Entry("synthetic.nonconvex:NonConvex", {}, {"sampled": 2}, "nonconvex_grid"),
    "digits": Entry(_IMAGES, {"dataset": "digits"}, {"sampled": 8}, "fig5_digits_grid"),
    "mnist": Entry(_IMAGES, {"dataset": "mnist"}, {"sampled": 8}, "fig5_mnist_grid"),
    "fashion": Entry(_IMAGES, {"dataset": "fashion"}, {"sampled": 8}, "fig5_mnist_grid"),
    "digits-mlp": Entry("vision.mlp:DigitsPerceptron", {}, {"sampled": 8}, "stage_digits_MLP_grid"),
    "rare-tokens": Entry("synthetic.rare_tokens:RareTokens", {}, {"sampled": 2}, "stage_rare_tokens_grid"),
    "lm": Entry("llm.problem:LanguageProblem", {}, {"sampled": 2}, "llm_{model}_{task}_grid", "llm.checkpoint:rebuild"),
    "minilm": Entry("llm.encoder_problem:EncoderProblem", {}, {"sampled": 2}, "llm_minilm_{task}_grid", "llm.encoder:base_of"),
}

EXPERIMENTS: dict[str, str] = {
    "schematic": "synthetic.schematic:SCHEMATIC",
    "printed": "paper.printed:PRINTED",
    "byte_audit": "paper.byte_audit:BYTE_AUDIT",
    "neighbours": "synthetic.neighbours:NEIGHBOURS",
    "whitening": "synthetic.whitening:WHITENING",
    "low_rank": "synthetic.low_rank:LOW_RANK",
    "hover": "synthetic.hover:HOVER",
    "expected": "synthetic.expected:EXPECTED",
    "oracle": "synthetic.oracle:ORACLE",
    "second_order": "synthetic.second_order:SECOND_ORDER",
    "rates": "synthetic.rate_points:RATES",
    "stability": "synthetic.stability_map:STABILITY",
    "theorem1": "synthetic.theorem1:THEOREM1",
    "dynamics": "learned_h.dynamics:DYNAMICS",
    "ablation_quadratics": "learned_h.ablation:QUADRATICS",
    "ablation_networks": "learned_h.ablation:NETWORKS",
    "learning_rates": "learned_h.rate_study:LEARNING_RATES",
    "stage": "learned_h.stage:STAGE",
    "stage_networks": "learned_h.stage:NETWORKS",
    "along": "learned_h.along:ALONG",
    "ablation_mnist": "learned_h.mnist:MNIST",
    "equal_bytes": "vision.equal_bytes:EQUAL_BYTES",
    "equal_bytes_llm": "llm.equal_bytes:EQUAL_BYTES_LLM",
    "fair_speed": "learned_h.fair_speed:FAIR_SPEED",
    "federation_size": "learned_h.federation_size:FEDERATION_SIZE",
    "agzo": "vision.agzo:AGZO",
    "fig5_digits": "vision.fig5:DIGITS",
    "second_order_digits": "vision.second_order:SECOND_ORDER_DIGITS",
    "second_order_safety": "vision.second_order_safety:SECOND_ORDER_SAFETY",
    "fig5_mnist": "vision.fig5:MNIST",
    "fig5_mnist_paper": "vision.fig5:MNIST_PAPER",
    "decomfl_mnist": "vision.decomfl:MNIST",
    "decomfl_mnist_paper": "vision.decomfl:MNIST_PAPER",
    "decomfl_fashion_paper": "vision.decomfl:FASHION_PAPER",
    "llm_toy_sst2": "llm.compare:TOY_SST2",
    "llm_toy_qqp": "llm.compare:TOY_QQP",
    "llm_toy_squad": "llm.compare:TOY_SQUAD",
    "llm_imdb_sst2": "llm.compare:IMDB_SST2",
    "llm_minilm_sst2": "llm.compare:MINILM_SST2",
    **{
        f"opt-{size}-{task}": f"llm.configurations:opt-{size}-{task}"
        for size in ("125m", "350m", "1.3b", "2.7b")
        for task in ("sst2", "qqp", "squad")
    },
    **{
        f"decomfl-opt-{size}-{task}": f"llm.configurations:decomfl-opt-{size}-{task}"
        for size in ("125m", "1.3b")
        for task in ("sst2", "cb", "wsc", "wic", "rte", "boolq")
    },
}


def load(target: str) -> Any:
    """Import "module:name" (or a module) from the checkout.

    Raises:
        CheckoutError: the module is not there.
    """
    module, _, name = target.partition(":")
    try:
        found = importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name and error.name.split(".")[0] == module.split(".")[0]:
            raise CheckoutError(
                f"{module} is part of the hiso_bench checkout, not of the installed package; run from a clone"
            ) from error
        raise
    return getattr(found, name) if name else found


def experiment(name: str) -> Experiment:
    """A registered experiment."""
    return load(EXPERIMENTS[name])


def problem_class(name: str) -> Callable[..., Problem]:
    """The class behind a problem's name.

    Raises:
        ValueError: unknown problem.
    """
    if name not in PROBLEMS:
        raise ValueError(unknown("problem", name, PROBLEMS))
    return load(PROBLEMS[name].target)


def problem(name: str, options: Mapping[str, Any]) -> Problem:
    """Build a problem by name.

    Raises:
        ValueError: unknown problem, or an option it does not have.
    """
    kind = problem_class(name)
    fixed = PROBLEMS[name].fixed
    allowed = [option for option in inspect.signature(kind).parameters if option not in fixed]
    for option in options:
        if option not in allowed:
            raise ValueError(f"problem {name} has no option {option!r}; allowed: {', '.join(sorted(allowed))}")
    return kind(**fixed, **options)


GIVEN: dict[str, tuple[str, str]] = {
    "h": ("oracle_h", "the exact diagonal of the Hessian; problem {} does not know its own"),
    "inputs": ("layer_inputs", "the inputs of linear layers on examples that every party holds; problem {} has none to tell"),
}
"""Options of methods that no person gives: option -> what of a problem gives it, and what is said where there is none."""


def method(name: str, options: Mapping[str, Any], at: Base) -> Method:
    """Build a method by name for a problem, which gives what only it can: an oracle H, or the inputs of its layers.

    Raises:
        ValueError: unknown method or option, or the problem does not have what the method needs of it.
    """
    given = dict(options)
    for option in GIVEN.keys() & methods.options(name).keys():
        attribute, what = GIVEN[option]
        if not hasattr(at, attribute):
            raise ValueError(f"method {name} needs {what.format(at.name)}")
        found = getattr(at, attribute)
        given[option] = found() if option == "h" else found
    return methods.build(name, given)


def claims() -> dict[str, Claim]:
    """The claims of the checkout, by id, in the order of claims.toml.

    Raises:
        CheckoutError: there is no checkout.
        ValueError: claims.toml is not in order.
    """
    return {claim.id: claim for claim in read_claims(Path(load("claims").__path__[0]) / "claims.toml")}


def checks() -> dict[str, Check]:
    """The checks of the checkout's claims, by id.

    Raises:
        CheckoutError: there is no checkout.
    """
    load("claims")
    return load_checks()


def base(name: str, described: Mapping[str, Any], model: str = "") -> Base:
    """What a replay needs of a problem: without data, if the problem can do without.

    Args:
        name: the problem's name.
        described: its options, as a ledger has them.
        model: where the base model is, if not where the options say.

    Raises:
        ValueError: unknown problem; a base model for a problem that has none; what building it raises.
    """
    problem_class(name)
    if PROBLEMS[name].base:
        return load(PROBLEMS[name].base)(described, model)
    if model:
        raise ValueError(f"problem {name} has no base model, and model {model!r} is given")
    return problem(name, described)
