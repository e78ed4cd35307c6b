"""Planted bugs of what results rest on: verdicts, intervals, the choice of rates, records and their comparison."""

from __future__ import annotations

from tests.mutants.mutant import planted

_COMPARISON = ("contract/test_comparison.py",)

MUTANTS = [
    # Verdicts.
    planted(
        "straddling-is-a-hold",
        "hiso_bench.claims:Evidence.outcome",
        "evidence holds if its value is allowed, wherever the interval reaches",
        ("(_, low, high), (least, most)", "(value, low, high), (least, most)"),
        ("least <= low and high <= most", "least <= value <= most"),
        tests=("contract/test_claims.py",),
    ),
    planted(
        "controls-are-decoration",
        "hiso_bench.claims:Finding.reason",
        "a control that came out otherwise leaves the verdict as it is",
        ("if not c.worked]", "if not c.expected]"),
        tests=("contract/test_claims.py",),
    ),
    planted(
        "control-that-cannot-differ",
        "hiso_bench.claims:Finding.reason",
        "accepts controls that were expected to come out as the evidence did",
        (
            'self._combined != "conditional" and all(',
            'self._combined != "conditional" and not any(c.expected for c in self.controls) and all(',
        ),
        tests=("contract/test_claims.py",),
    ),
    planted(
        "headline-decides",
        "hiso_bench.claims:Finding._combined",
        "the first piece of evidence gives the verdict",
        ('outcomes.pop() if len(outcomes) == 1 else "conditional"', 'self.evidence[0].outcome if outcomes else "conditional"'),
        tests=("contract/test_claims.py",),
    ),
    planted(
        "undecided-agrees",
        "hiso_bench.claims:decide",
        "an undecided claim counts as one that agrees with its pin",
        ('in ("not_run", claim.verdict)', 'in ("not_run", "undecided", claim.verdict)'),
        tests=("contract/test_claims.py",),
    ),
    # Intervals.
    planted(
        "deviation-over-n",
        "hiso_bench.stats:mean_interval",
        "the standard deviation divides by n",
        ("ddof=1", "ddof=0"),
        tests=("exact/test_stats.py",),
    ),
    planted(
        "normal-for-student",
        "hiso_bench.stats:mean_interval",
        "takes the normal quantile, as if the deviation were known",
        ("t.ppf((1 + level) / 2, len(samples) - 1)", "norm.ppf((1 + level) / 2)"),
        tests=("exact/test_stats.py",),
    ),
    planted(
        "one-sided-interval",
        "hiso_bench.stats:mean_interval",
        "takes the one-sided quantile: 99.8 % is called 99.9 %",
        ("(1 + level) / 2", "level"),
        tests=("exact/test_stats.py",),
    ),
    planted(
        "median-one-rank-in",
        "hiso_bench.stats:median_interval",
        "the order statistics are one rank too far in",
        ("samples[below - 1]), float(samples[-below])", "samples[below]), float(samples[-below - 1])"),
        tests=("exact/test_stats.py",),
    ),
    planted(
        "wilson-for-exact",
        "hiso_bench.stats:proportion",
        "an interval that covers its level on average only",
        ('method="exact"', 'method="wilson"'),
        tests=("exact/test_stats.py",),
    ),
    planted(
        "power-of-raw-x",
        "hiso_bench.stats:exponent",
        "regresses log y on x, not on log x",
        ("np.polyfit(np.log(x)", "np.polyfit(x"),
        tests=("exact/test_stats.py",),
    ),
    planted(
        "unpaired-difference",
        "hiso_bench.summaries:paired",
        "keys that lack one arm's value are dropped from that arm alone, so the pairs slip",
        (
            "(np.asarray(first) - np.asarray(second))[~np.isnan(first) & ~np.isnan(second)]",
            "(lambda a, b: a[: min(len(a), len(b))] - b[: min(len(a), len(b))])"
            "(np.asarray(first)[~np.isnan(first)], np.asarray(second)[~np.isnan(second)])",
        ),
        tests=("exact/test_summaries.py",),
    ),
    planted(
        "apart-at-the-shown-level",
        "hiso_bench.summaries:paired",
        "tells arms apart at the level that is drawn, 95 %",
        ("mean_interval(differences, LEVEL)", "mean_interval(differences, SHOWN_LEVEL)"),
        tests=("exact/test_summaries.py",),
    ),
    planted(
        "bytes-of-the-uplink",
        "hiso_bench.summaries:curves",
        "forgets the downlink in what a run has sent",
        ('part["bytes_up"] + part["bytes_down"]', 'part["bytes_up"]'),
        tests=("exact/test_summaries.py",),
    ),
    planted(
        "next-evaluation-within-budget",
        "hiso_bench.summaries:at_bytes",
        "takes the evaluation after the last one within the budget",
        ("values[within[-1]]", "values[min(within[-1] + 1, len(values) - 1)]"),
        tests=("exact/test_summaries.py",),
    ),
    planted(
        "best-when-last-had",
        "hiso_bench.summaries:_reached",
        "counts the other arm's rounds to the last time that it has its best value",
        ("int(np.nanargmax(its))", "int(len(its) - 1 - np.nanargmax(its[::-1]))"),
        tests=("exact/test_summaries.py",),
    ),
    # Claims that read tables.
    planted(
        "best-of-all-rates",
        "claims.equal_bytes:Compared.best",
        "the best arm is that of the best rate tried, which is not the one it is compared at",
        ('rates["winner"] & ', ""),
    ),
    planted(
        "crosses-at-once",
        "claims.equal_bytes:Compared.crossover",
        "curves cross where the last budget ahead is",
        ("row[last] / (row[last] - row[last + 1])", "0.0"),
    ),
    planted(
        "share-of-means",
        "claims.fair_speed:share",
        "a comparison counts as above zero by its mean",
        ("sum(i.low > 0 for", "sum(i.value > 0 for"),
    ),
    planted(
        "patience-from-the-start",
        "learned_h.fair_speed:stops",
        "a run stops when so many rounds have passed, whether its best has risen or not",
        ("of.rounds - last >= patience", "of.rounds >= patience + 0 * last"),
    ),
    planted(
        "errors-added-up",
        "claims.fair_speed:gaps",
        "the error of a difference is the sum of two errors",
        ('np.hypot(errors["hiso"], errors["decomfl"])', '(errors["hiso"] + errors["decomfl"])'),
    ),
    planted(
        "measured-where-it-was-chosen",
        "claims.ablation:_network_gain",
        "the keys on which a rate was chosen count in its result",
        ("logs[:, :4].mean(1).argmin(), 4:", "logs[:, :4].mean(1).argmin(), :"),
        tests=("contract/test_claim_tables.py",),
    ),
    # The choice of rates.
    planted(
        "score-of-the-luckiest-key",
        "hiso_bench.sweeps:Scores.score",
        "a rate's score is that of its best tuning key",
        ("values.mean()", "values.max()"),
    ),
    planted(
        "one-key-for-all",
        "hiso_bench.comparison:scores",
        "scores every cell by the curve of the first key",
        ("groups[c.arm.name, c.lr, c.key, c.rounds]", "groups[c.arm.name, c.lr, cells[0].key, c.rounds]"),
        tests=_COMPARISON,
    ),
    planted(
        "growth-is-free",
        "hiso_bench.halving:halve",
        "rates that are added beyond an edge are not charged to the budget",
        ("spent, grown = spent + length, grown + 1", "grown = grown + 1"),
    ),
    planted(
        "grid-grows-for-one",
        "hiso_bench.halving:halve",
        "a new rate is tried by the arm alone whose best rate lay at the edge",
        (
            "tried.score([(arm, new) for arm in arms], length)",
            "edge = grid[-2] if up else grid[1]; "
            "tried.score([(arm, new) for arm in arms if tried.best(arm, alive[arm.name], length)[0] == edge], length)",
        ),
    ),
    planted(
        "rates-chosen-on-result-keys",
        "hiso_bench.method_theory:_best",
        "the comparison with DeComFL chooses rates on the keys that it reports",
        ("fall[:, :KEYS]", "fall[:, KEYS:]"),
    ),
    planted(
        "second-difference-is-free",
        "hiso_bench.method_theory:_best",
        "the budget of scalars leaves out second differences",
        ("(perturbations + method.curvatures)", "perturbations"),
    ),
    planted(
        "rate-of-any-arm",
        "hiso_bench.recorded_rates:rate",
        "prefers the rate of the method's plain name to that of its ema_new",
        ("for arm in (own, method_name, nearest)", "for arm in (method_name, own, nearest)"),
        tests=("contract/test_recorded_rates.py",),
    ),
    planted(
        "smallest-rate-wins",
        "hiso_bench.comparison:rates",
        "the recorded rate is an arm's last row, not its winner",
        ('table[table["winner"]]', 'table.drop_duplicates("arm", keep="last")'),
        tests=_COMPARISON,
    ),
]
