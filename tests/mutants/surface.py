"""Planted bugs of what a user calls: an estimate, a suggested rate, a module as a problem; and of the curvature behind them."""

from __future__ import annotations

from tests.mutants.mutant import planted

_API, _SUGGEST = ("contract/test_api.py",), ("contract/test_suggest.py",)

MUTANTS = [
    planted(
        "estimate-of-round-0",
        "hiso_bench.api:estimate_gradient",
        "every round has the directions of round 0",
        ("DirectionKey(round_, 0, p)", "DirectionKey(0, 0, p)"),
    ),
    planted(
        "sum-over-directions",
        "hiso_bench.api:estimate_gradient",
        "adds up the directions in place of averaging",
        ("scalars / perturbations, scalars[:, :0]", "scalars, scalars[:, :0]"),
    ),
    planted(
        "h-with-a-ridge",
        "hiso_bench.api:estimate_gradient",
        "the given H gets the oracle's default ridge",
        ("h=given, eps=0.0", "h=given"),
    ),
    planted(
        "batch-of-step-0",
        "hiso_bench.module_problem:ModuleProblem.batch",
        "all local steps of a round see one batch",
        ("keys.batch_rng(self.key, client, round_, step)", "keys.batch_rng(self.key, client, round_, 0)"),
        tests=_API,
    ),
    planted(
        "mean-of-chunk-means",
        "hiso_bench.module_problem:ModuleProblem.evaluate",
        "averages the means of parts of unequal size",
        (".double().sum())", ".double().mean())"),
        ("count += len(part[0])", "count += 1"),
        tests=_API,
    ),
    planted(
        "data-without-shape",
        "hiso_bench.module_problem:ModuleProblem.describe",
        "the hash of the data covers the first part only",
        ("for part in data:", "for part in data[:1]:"),
        tests=_API,
    ),
    planted(
        "drop-out-of-those-who-stay",
        "hiso_bench.participation:answering",
        "dropout is the chance to answer",
        (">= dropout", "< dropout"),
        tests=("exact/test_federation.py",),
    ),
    planted(
        "sampled-with-replacement",
        "hiso_bench.participation:participants",
        "a client may be sampled twice in a round",
        ("replace=False", "replace=True"),
        tests=("exact/test_federation.py",),
    ),
    planted(
        "rate-of-the-middle",
        "hiso_bench.suggest:suggest_lr",
        "the suggestion is half of eta*'s estimate, not of its lower end",
        ("FRACTION * limit.low", "FRACTION * limit.value"),
    ),
    planted(
        "independent-directions-uncounted",
        "hiso_bench.suggest:suggest_lr",
        "clients' own directions do not add to P",
        ("built.perturbations * (setting.sampled if setting.independent else 1)", "built.perturbations"),
    ),
    planted(
        "kappa-of-the-whitened",
        "hiso_bench.suggest:suggest_lr",
        "the effective rank is that of Xi, not of the Hessian",
        ("plain.trace.value / plain.top.value", "spectrum.trace.value / spectrum.top.value"),
    ),
    planted(
        "runs-of-one-key",
        "hiso_bench.suggest:_trial",
        "all short runs have the same key",
        ("run=number", "run=0"),
    ),
    planted(
        "agrees-without-a-control",
        "hiso_bench.suggest:Suggestion.agrees",
        "does not ask whether the loss rises at 4 eta*",
        (' and outcome.get(max(CHECKED)) != "fell"', ""),
    ),
    planted(
        "batch-of-one-client",
        "hiso_bench.local_spectrum:curvature_of",
        "the curvature is that of the first client's loss",
        ("torch.stack([part(at) for part in parts]).mean()", "parts[0](at)"),
        tests=_SUGGEST,
    ),
    planted(
        "negative-curvature-cancels",
        "hiso_bench.local_spectrum:Spectrum.limit",
        "negative eigenvalues are left out of eta*",
        ("np.abs(self.eigenvalues)", "np.maximum(self.eigenvalues, 0)"),
        tests=_SUGGEST,
    ),
    planted(
        "lanczos-is-exact",
        "hiso_bench.local_spectrum:spectrum_of",
        "the residual of the top Ritz value is forgotten",
        ("Interval(value, value, value + error)", "Interval(value, value, value)"),
        tests=_SUGGEST,
    ),
    planted(
        "sketch-counted-twice",
        "hiso_bench.estimates:hutch_pp",
        "the probes of the rest are not orthogonal to the sketch",
        ("v - Q @ (Q.T @ v)", "v"),
    ),
    planted(
        "residual-of-the-first-vector",
        "hiso_bench.estimates:lanczos",
        "a Ritz pair's residual takes the first component of its vector",
        ("off[-1] * vectors[-1]", "off[-1] * vectors[0]"),
    ),
    planted(
        "whitened-by-h",
        "hiso_bench.estimates:whitened",
        "Xi is H^-1 S H^-1",
        ("h.rsqrt()", "h.reciprocal()"),
    ),
    planted(
        "fisher-without-the-mean",
        "hiso_bench.curvature:gauss_newton_diagonal",
        "leaves out the square of the mean: logits that move together have curvature",
        (" - (p * J).sum(-1).square()", ""),
    ),
    planted(
        "squared-mean-of-gradients",
        "hiso_bench.curvature:empirical_fisher_diagonal",
        "sums over examples in place of averaging",
        ("total / count", "total"),
    ),
    planted(
        "descent-of-one-direction",
        "hiso_bench.whiteness:best_decrease",
        "the second moment of a step along the gradient lacks 1/P",
        ("(1 + 1 / P) * curved", "curved"),
    ),
    planted(
        "layers-of-equal-weight",
        "hiso_bench.whiteness:variance_of_log",
        "a layer of ten numbers weighs as much as one of ten thousand",
        ("np.array([len(part) for part in parts]) / len(h)", "np.full(len(parts), 1 / len(parts))"),
    ),
    planted(
        "bound-of-one-beta",
        "hiso_bench.whiteness:whitening",
        "Corollary 1's Euclidean form has beta_u once",
        ("float(h.max()) ** 2", "float(h.max())"),
    ),
    planted(
        "spread-of-signed",
        "hiso_bench.whiteness:rank_correlation",
        "ranks one vector only",
        ('rankdata(_vector(b, "b"))', '_vector(b, "b")'),
    ),
    # What the study of learned H makes of its runs.
    planted(
        "better-eps-by-the-worse-score",
        "learned_h.gap:pick",
        "an oracle is compared at the eps that tuned worse",
        ('won.loc[arm.name, "score"] > won', 'won.loc[arm.name, "score"] < won'),
    ),
    planted(
        "target-of-the-better",
        "learned_h.gap:speed_ups",
        "the target is the better arm's best, which the other never reaches",
        ("max(mine[-1], plain[-1])", "min(mine[-1], plain[-1])"),
    ),
    planted(
        "speed-ups-averaged-raw",
        "learned_h.gap:summary",
        "averages ratios, not their logarithms",
        ("np.exp(mean_interval(np.log(good)))", "mean_interval(good)"),
    ),
    planted(
        "a-key-judges-itself",
        "learned_h.rates:slowdown",
        "the best rounds of a key include its own",
        ("np.delete(np.where(np.isnan(logs), np.inf, logs), k, 1)", "np.where(np.isnan(logs), np.inf, logs)"),
    ),
    planted(
        "unreached-is-left-out",
        "learned_h.pairs:pairs",
        "runs that do not reach a target are left out of the mean over targets",
        ('table["rounds"].fillna(table["budget"])', 'table["rounds"]'),
    ),
    planted(
        "loss-with-its-own-sign",
        "learned_h.pairs:pairs",
        "a smaller loss is worse",
        ('-1.0 if measure == "loss" else 1.0', "1.0"),
    ),
    planted(
        "null-of-one-shift",
        "learned_h.fair_speed:between_keys",
        "the jackknife deletes a key's row and keeps its column",
        ("np.delete(np.delete(one, k, 0), k, 1)", "np.delete(one, k, 0)"),
    ),
    planted(
        "both-ways-is-one",
        "learned_h.fair_speed:both_ways",
        "adds the two ways in place of taking their difference",
        ("(logs[0] - logs[1]) / 2", "(logs[0] + logs[1]) / 2"),
    ),
    planted(
        "budget-left-out",
        "learned_h.ablation:score",
        "a target out of reach counts the budget, however far away it is",
        (
            "np.log(rounds) + np.log(np.maximum(last, 1e-300)[..., None] / case.targets)",
            "np.log(rounds) + 0 * np.log(np.maximum(last, 1e-300)[..., None] / case.targets)",
        ),
    ),
    planted(
        "ablation-on-tuning-key",
        "learned_h.ablation:compare",
        "compares arms on the key on which their rates were chosen",
        ("(keys,), RESULT_KEY", "(keys,), TUNING_KEY"),
    ),
]
