"""Learning rates that were recorded: what a run takes where none is given."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hiso_bench import catalogue, records


def rate(
    problem_name: str, method_name: str, options: Mapping[str, Any], described: Mapping[str, Any] | None = None
) -> tuple[float, str]:
    """The learning rate that won the recorded grid, and a line that says where it comes from.

    `described` are the problem's options, for problems with one grid per model and task.

    Methods that the grid does not hold borrow the rate of the nearest one: the controls with one step size from
    "hiso-scalar", other versions of H from "hiso". A task without a grid borrows that of the same model's first other task.

    Raises:
        ValueError: no recorded grid has a rate for it.
    """
    names = {option: str(value).strip("/").replace("/", "-") for option, value in (described or {}).items()}
    grid_name = catalogue.PROBLEMS[problem_name].grid
    path = catalogue.RESULTS / f"{grid_name.format_map(names)}.csv"
    others = sorted(catalogue.RESULTS.glob(f"{grid_name.format_map(names | {'task': '*'})}.csv")) if names else []
    borrowed = "" if path.exists() or not others else f"; {path.name} is not there, and --lr overrides"
    path = others[0] if borrowed else path
    own = f"{method_name}-{options['ema_new']:g}" if "ema_new" in options else method_name
    nearest = "hiso-scalar" if method_name == "hiso-leaf-mean" else "hiso" if method_name.startswith("hiso") else None
    try:
        grid, about = records.read(path)
    except records.RecordError as error:
        raise ValueError(f"lr is not given (--lr) and there is no recorded grid for problem {problem_name}: {error}") from error
    won: dict[str, float] = dict(grid.loc[grid["winner"], ["arm", "lr"]].itertuples(index=False))
    for arm in (own, method_name, nearest):
        if arm in won:
            config = {
                k: v for k, v in about["config"].items() if k in ("dataset", "batch_size", "rounds", "dimension", "exponent", "P")
            }
            told = ", ".join(f"{k} {v}" for k, v in config.items())
            return won[arm], f"lr {won[arm]:.4g} is the winner of the recorded grid for {arm} ({path.name}: {told}){borrowed}"
    raise ValueError(f"lr is not given, and {path.name} holds no rate for method {method_name}; it has {', '.join(won)}")


def oracle_options(method_name: str) -> dict[str, float]:
    """Options that a default rate was recorded with and that differ from the method's own defaults."""
    return {"eps": catalogue.load("synthetic.low_rank").ORACLE_EPS} if method_name == "hiso-oracle" else {}
