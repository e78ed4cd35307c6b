"""hiso_bench: the laboratory in which scalar-only federated zeroth-order optimisation is reproduced, checked and decided.

Estimate a gradient from loss values alone, run federated rounds that send only scalars, and read what they sent:

>>> import torch
>>> import hiso_bench
>>> g = hiso_bench.estimate_gradient(lambda x: (x**2).sum(), torch.ones(100), perturbations=20)
>>> g.shape
torch.Size([100])
>>> run = hiso_bench.train("quadratic", "hiso", lr=0.03, rounds=10)
>>> first = run.ledger.rounds[0]
>>> len(run.ledger.rounds), first.bytes_up  # two clients: 8 bytes, and 5 scalars of 4 bytes each
(10, 56)

A model of your own: a torch module in eval mode, and each client's examples.

>>> net = torch.nn.Linear(4, 3).eval()
>>> clients = [(torch.ones(8, 4), torch.zeros(8, dtype=torch.long)) for _ in range(6)]
>>> mine = hiso_bench.ModuleProblem(net, clients)
>>> run = hiso_bench.train(mine, "decomfl", lr=0.1, rounds=10)
>>> trained = mine.load(run.federation.state.x)

What there is:

- to compute: `estimate_gradient`, `train`, `suggest_lr` (a stable learning rate for your loss, a `Suggestion`),
  `verify_method` (what can be checked of your method), `check_deterministic`;
- problems: `problem` (by name), `ModuleProblem`, `Problem` (what any other must offer), `Loss`, `ModuleLoss`, `FunctionLoss`,
  `Batch`, `Point`, `Layout`;
- methods: `methods` (the registered ones), `Method` (what a new one subclasses), `build` and `register`;
- runs: `Run`, `Schedule`, `Progress`, `curve`, `Federation` (a round at a time), `FederationOptions`;
- ledgers: `Ledger`, `read_ledger`, `rebuild` (x and H from the scalars alone), `LedgerError`.

Importing this package is cheap: torch is loaded when one of these names is first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hiso_bench import methods as methods
    from hiso_bench.api import estimate_gradient as estimate_gradient
    from hiso_bench.api import problem as problem
    from hiso_bench.api import read_ledger as read_ledger
    from hiso_bench.api import rebuild as rebuild
    from hiso_bench.api import train as train
    from hiso_bench.federation import Federation as Federation
    from hiso_bench.federation import FederationOptions as FederationOptions
    from hiso_bench.ledger import Ledger as Ledger
    from hiso_bench.ledger import LedgerError as LedgerError
    from hiso_bench.losses import Batch as Batch
    from hiso_bench.losses import FunctionLoss as FunctionLoss
    from hiso_bench.losses import Loss as Loss
    from hiso_bench.losses import ModuleLoss as ModuleLoss
    from hiso_bench.losses import check_deterministic as check_deterministic
    from hiso_bench.method_checks import verify_method as verify_method
    from hiso_bench.methods import Method as Method
    from hiso_bench.methods import build as build
    from hiso_bench.methods import register as register
    from hiso_bench.module_problem import ModuleProblem as ModuleProblem
    from hiso_bench.points import Layout as Layout
    from hiso_bench.points import Point as Point
    from hiso_bench.problems import Problem as Problem
    from hiso_bench.suggest import Suggestion as Suggestion
    from hiso_bench.suggest import suggest_lr as suggest_lr
    from hiso_bench.training import Progress as Progress
    from hiso_bench.training import Run as Run
    from hiso_bench.training import Schedule as Schedule
    from hiso_bench.training import curve as curve

__version__ = "0.1.0"

_WHERE = {
    "api": ("estimate_gradient", "problem", "read_ledger", "rebuild", "train"),
    "federation": ("Federation", "FederationOptions"),
    "ledger": ("Ledger", "LedgerError"),
    "losses": ("Batch", "FunctionLoss", "Loss", "ModuleLoss", "check_deterministic"),
    "method_checks": ("verify_method",),
    "methods": ("Method", "build", "register"),
    "module_problem": ("ModuleProblem",),
    "points": ("Layout", "Point"),
    "problems": ("Problem",),
    "suggest": ("Suggestion", "suggest_lr"),
    "training": ("Progress", "Run", "Schedule", "curve"),
}
_MODULE_OF = {name: module for module, names in _WHERE.items() for name in names}

__all__ = [  # a list of literals: pyright reads it
    "Batch",
    "Federation",
    "FederationOptions",
    "FunctionLoss",
    "Layout",
    "Ledger",
    "LedgerError",
    "Loss",
    "Method",
    "ModuleLoss",
    "ModuleProblem",
    "Point",
    "Problem",
    "Progress",
    "Run",
    "Schedule",
    "Suggestion",
    "build",
    "check_deterministic",
    "curve",
    "estimate_gradient",
    "methods",
    "problem",
    "read_ledger",
    "rebuild",
    "register",
    "suggest_lr",
    "train",
    "verify_method",
]


def __getattr__(name: str) -> Any:
    """Load what a public name stands for when it is first used."""
    if name == "methods":
        return importlib.import_module("hiso_bench.methods")
    if name not in _MODULE_OF:
        raise AttributeError(f"module 'hiso_bench' has no attribute {name!r}")
    found = getattr(importlib.import_module(f"hiso_bench.{_MODULE_OF[name]}"), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return [*__all__, *(name for name in globals() if name.startswith("__"))]
