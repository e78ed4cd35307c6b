"""Methods by name. To add one, put a file here that subclasses `Method` and calls `register`; it is found by itself.

Those that send vectors (`hiso_bench/first_order/`) are registered under names of the same list.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import pkgutil
import sys
from collections.abc import Mapping
from pathlib import Path
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
    "kind",
    "kinds",
    "load",
    "named",
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


def load(path: Path) -> list[str]:
    """Import a file that registers methods; the names that it registered.

    Raises:
        ValueError: it is not there, or it registers none.
    """
    if not path.is_file():
        raise ValueError(f"method {path} is neither registered nor a file; allowed: {', '.join(PRESETS)}, or a .py file")
    for table in (PRESETS, VECTOR_PRESETS):  # it lies in the folder of methods, or has been loaded already
        own = [name for name, (of, _) in table.items() if _file(of) == str(path.resolve())]
        if own:
            return own
    before = {*PRESETS, *VECTOR_PRESETS}
    spec = importlib.util.spec_from_file_location(f"hiso_bench_file_{path.stem.replace('-', '_')}", path.resolve())
    assert spec is not None and spec.loader is not None
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    found = [name for name in (*PRESETS, *VECTOR_PRESETS) if name not in before]
    if not found:
        raise ValueError(f"file {path} registers no method; it must call `hiso_bench.register(name, class)`")
    return found


def _file(of: type) -> str | None:
    return getattr(sys.modules.get(of.__module__), "__file__", None)


def named(given: str) -> list[str]:
    """The name itself if it is registered, else what the file of that name registers.

    Raises:
        ValueError: neither.
    """
    return [given] if given in PRESETS or given in VECTOR_PRESETS else load(Path(given))


def kinds() -> list[type[Method] | type[FirstOrder]]:
    """The classes behind all the names, methods of scalars first."""
    return [of for of, _ in (*PRESETS.values(), *VECTOR_PRESETS.values())]


def kind(name: str) -> type[Method] | type[FirstOrder]:
    """The class behind a name.

    Raises:
        ValueError: unknown method.
    """
    return _preset(name)[0]


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
    of, preset = _preset(name)
    defaults = {f.name: f.default for f in dataclasses.fields(of) if f.default is not dataclasses.MISSING}
    return defaults | preset


def build(name: str, given: Mapping[str, Any] | None = None, **more: Any) -> Any:
    """Build a method by name; `given` and keyword arguments override its preset.

    Raises:
        ValueError: unknown method, an option the method does not have, or a value out of range.
    """
    of, preset = _preset(name)
    chosen = preset | dict(given or {}) | more
    allowed = {f.name for f in dataclasses.fields(of)}
    for option in chosen:
        if option not in allowed:
            raise ValueError(f"method {name} has no option {option!r}; allowed: {', '.join(sorted(allowed))}")
    return of(**chosen)


for _module in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_module.name}")
for _name in ("fedavg", "adaptive", "fedzo"):
    importlib.import_module(f"hiso_bench.first_order.{_name}")
