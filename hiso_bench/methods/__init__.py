"""Methods by name. To add one, put a file here that subclasses `Method` and calls `register`; it is found by itself.

Those that send vectors (`hiso_bench/first_order/`) are registered under names of the same list.
"""

from __future__ import annotations

import dataclasses
import importlib
import pkgutil
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from hiso_bench.methods.base import Method, Step
from hiso_bench.methods.curvature import Curvature
from hiso_bench.methods.curvature_block import CurvatureBlock
from hiso_bench.methods.decomfl import DeComFL
from hiso_bench.methods.hiso import HiSo, OracleH
from hiso_bench.methods.safe_step import SafeStep
from hiso_bench.names import unknown

if TYPE_CHECKING:  # it registers its methods here
    from hiso_bench.first_order.base import FirstOrder

__all__ = [
    "Curvature",
    "CurvatureBlock",
    "DeComFL",
    "HiSo",
    "Method",
    "OracleH",
    "PRESETS",
    "SafeStep",
    "Step",
    "VECTOR_PRESETS",
    "build",
    "kinds",
    "options",
    "register",
]

_CODE = {"h_step": "last", "eps": 0.0}

PRESETS: dict[str, tuple[type[Method], dict[str, Any]]] = {
    "decomfl": (DeComFL, {}),
    "hiso": (HiSo, {}),
    # Printed in the paper: the unnumbered line of section 4.2; Eq 12; section 4.3 (the reference, also called plain "hiso").
    "hiso-a": (HiSo, {"h_step": "each", "h_clients": "mean_of_squares"}),
    "hiso-b": (HiSo, {"h_step": "first"}),
    "hiso-c": (HiSo, {}),
    # In the official code: class ...Batch, class ...Paramwise (selected by --no-optim), and the all_local_updates strategy.
    "hiso-d": (HiSo, _CODE),
    "hiso-e": (HiSo, _CODE | {"h_perturbations": "sequential", "h_moving": True}),
    "hiso-f": (HiSo, _CODE | {"h_step": "each", "h_moving": True}),
    # Controls: the same step-size adaptation with part of H's structure removed, or all of it given.
    "hiso-scalar": (HiSo, {"control": "mean"}),
    "hiso-shuffled": (HiSo, {"control": "shuffle"}),
    "hiso-shuffled-leaf": (HiSo, {"control": "shuffle_leaf"}),
    "hiso-leaf-mean": (HiSo, {"control": "leaf_mean"}),
    "hiso-frozen": (HiSo, {"freeze_after": 100}),
    "hiso-oracle": (OracleH, {}),
    # One more scalar a round, a second difference: the safe step by itself, with H per coordinate, with H per leaf.
    "safe-step": (SafeStep, {}),
    "curvature": (Curvature, {}),
    "curvature-block": (CurvatureBlock, {}),
}
"""Methods of scalars."""
VECTOR_PRESETS: dict[str, tuple[type[FirstOrder], dict[str, Any]]] = {}
"""Methods of vectors."""


def register(name: str, method: type[Method] | type[FirstOrder], **preset: Any) -> None:
    """Make a method available by name, with preset options.

    Raises:
        ValueError: the name is taken, or the method has no such option.
    """
    if name in PRESETS or name in VECTOR_PRESETS:
        raise ValueError(f"method {name!r} is already registered")
    unknown = set(preset) - {field.name for field in dataclasses.fields(method)}
    if unknown:
        raise ValueError(f"{method.__name__} has no option {', '.join(sorted(unknown))}")
    (PRESETS if method.scalar_only else VECTOR_PRESETS)[name] = (method, preset)  # type: ignore[assignment]


def kinds() -> list[type[Method] | type[FirstOrder]]:
    """The classes behind all the names, methods of scalars first."""
    return [kind for kind, _ in (*PRESETS.values(), *VECTOR_PRESETS.values())]


def _preset(name: str) -> tuple[type[Method] | type[FirstOrder], dict[str, Any]]:
    found = PRESETS.get(name) or VECTOR_PRESETS.get(name)
    if found is None:
        raise ValueError(unknown("method", name, (*PRESETS, *VECTOR_PRESETS)))
    return found


def options(name: str) -> dict[str, Any]:
    """The options of a method by name, with their defaults (its preset included; options without default are absent).

    Raises:
        ValueError: unknown method.
    """
    kind, preset = _preset(name)
    defaults = {f.name: f.default for f in dataclasses.fields(kind) if f.default is not dataclasses.MISSING}
    return defaults | preset


def build(name: str, given: Mapping[str, Any] | None = None, **more: Any) -> Any:
    """Build a method by name; `given` and keyword arguments override its preset.

    Raises:
        ValueError: unknown method, an option the method does not have, or a value out of range.
    """
    kind, preset = _preset(name)
    chosen = preset | dict(given or {}) | more
    allowed = {f.name for f in dataclasses.fields(kind)}
    for option in chosen:
        if option not in allowed:
            raise ValueError(f"method {name} has no option {option!r}; allowed: {', '.join(sorted(allowed))}")
    return kind(**chosen)


for _module in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_module.name}")
for _name in ("fedavg", "adaptive", "fedzo"):
    importlib.import_module(f"hiso_bench.first_order.{_name}")
