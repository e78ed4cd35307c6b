"""Names -> figures of the checkout: what draws each, and from which experiments' tables."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class FigureEntry:
    """The function that draws a figure, the experiment whose tables it reads, and those tables.

    One that draws several experiments (all of one profile) names the first, and is drawn as soon as there is `any_table`. The
    others are in `also`, with recorded ones that a light experiment sets beside its own.
    """

    target: str
    experiment: str
    tables: tuple[str, ...]
    any_table: bool = False
    also: tuple[str, ...] = ()


_DYNAMICS = tuple(f"dynamics_{part}" for part in ("fixed_point", "relax", "map", "quiet", "drift"))
_WHITENING = tuple(f"whitening_{part}" for part in ("histogram", "match", "example", "dimension"))
_LANGUAGE = ("llm_toy_sst2", "llm_imdb_sst2", "llm_minilm_sst2")
FIGURES: dict[str, FigureEntry] = {
    "fig1": FigureEntry("figures.schematic:draw_path", "schematic", ("schematic",)),
    "fig2": FigureEntry("figures.schematic:draw_round", "schematic", ("schematic", "schematic_round")),
    "fig3": FigureEntry("figures.schematic:draw_protocol", "schematic", ("schematic", "schematic_round")),
    "whitening": FigureEntry("figures.whitening:draw", "whitening", _WHITENING),
    "low_rank": FigureEntry("figures.low_rank:draw", "low_rank", ("low_rank", "low_rank_exact")),
    "expected": FigureEntry("figures.expected:draw", "expected", ("expected", "expected_simulated")),
    "oracle": FigureEntry("figures.oracle:draw", "oracle", ("oracle_eps", "oracle_points", "oracle_rotation")),
    "second_order": FigureEntry("figures.second_order:draw", "second_order", ("second_order", "second_order_curves")),
    "rates": FigureEntry("figures.rates:draw", "rates", ("rates", "rates_curves", "rates_tau")),
    "stability": FigureEntry("figures.stability:draw", "stability", ("stability_limits", "stability_runs")),
    "theorem1": FigureEntry("figures.theorem1:draw", "theorem1", ("theorem1_rounds", "theorem1_rate", "theorem1_dimension")),
    "learning_rates": FigureEntry(
        "figures.learning_rates:draw",
        "learning_rates",
        tuple(f"learning_rates{part}" for part in ("", "_width", "_exact", "_transfer", "_exponents")),
    ),
    "hover": FigureEntry("figures.hover:draw", "hover", ("hover", "hover_level")),
    **{
        name: FigureEntry("figures.ablation:draw", name, (name, f"{name}_ways"))
        for name in ("ablation_quadratics", "ablation_networks")
    },
    "ablation_mnist": FigureEntry("figures.ablation_images:draw", "ablation_mnist", ("ablation_mnist",)),
    "agzo": FigureEntry("figures.agzo:draw", "agzo", ("agzo_share", "agzo")),
    "fair_speed": FigureEntry(
        "figures.fair_speed:draw", "fair_speed", ("fair_speed", "federation_size"), also=("federation_size",)
    ),
    "equal_bytes": FigureEntry(
        "figures.equal_bytes:draw", "equal_bytes", ("equal_bytes", "equal_bytes_llm"), also=("equal_bytes_llm",)
    ),
    "dynamics": FigureEntry("figures.dynamics:draw", "dynamics", _DYNAMICS),
    "stage": FigureEntry("figures.curvature:draw_stage", "stage", ("stage_points", "stage_gap")),
    "stage_networks": FigureEntry(
        "figures.curvature:draw_networks", "stage_networks", ("stage_networks_points", "stage_networks_gap")
    ),
    "along": FigureEntry("figures.curvature:draw_along", "along", ("along", "along_still", "along_exact")),
    "fig5_digits": FigureEntry("figures.fig5:draw", "fig5_digits", ("fig5_digits",)),
    "fig5_mnist": FigureEntry("figures.fig5:draw", "fig5_mnist", ("fig5_mnist",)),
    "decomfl_mnist": FigureEntry("figures.decomfl:draw", "decomfl_mnist", ("decomfl_mnist", "decomfl_mnist_against")),
    "learned_h_digits": FigureEntry("figures.learned_h:draw", "fig5_digits", ("fig5_digits_h", "fig5_digits_h_summary")),
    "learned_h_mnist": FigureEntry("figures.learned_h:draw", "fig5_mnist", ("fig5_mnist_h", "fig5_mnist_h_summary")),
    **{  # all tables of the experiment are written together, this one last
        name: FigureEntry(f"figures.{target}", "printed", ("printed_variance",), also=also)
        for name, target, also in (
            ("hiso_table1", "hiso_table1:draw", ()),
            ("hiso_table2", "hiso_table2:draw", _LANGUAGE),
            ("hiso_table3", "hiso_table3:draw", (*_LANGUAGE, "equal_bytes_llm")),
            ("decomfl_table2", "decomfl_tables:draw_table2", _LANGUAGE),
            ("decomfl_lora", "decomfl_tables:draw_lora", ()),
            ("decomfl_scale", "decomfl_scale:draw", _LANGUAGE),
        )
    },
    "byte_audit": FigureEntry(
        "figures.byte_audit:draw", "byte_audit", tuple(f"byte_audit{part}" for part in ("_methods", "_charges", ""))
    ),
    "llm_toy": FigureEntry(
        "figures.llm:draw_toy",
        "llm_toy_sst2",
        tuple(f"llm_tiny-opt_toy-{task}" for task in ("sst2", "qqp", "squad")),
        True,
        ("llm_toy_qqp", "llm_toy_squad"),
    ),
    "llm_real": FigureEntry(
        "figures.llm:draw_real", "llm_imdb_sst2", ("llm_imdb-opt_sst2", "llm_minilm_sst2"), True, _LANGUAGE[2:]
    ),
}
