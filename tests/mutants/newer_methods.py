"""Planted bugs of second differences, of the safe step, and of the methods that learn one number or a diagonal."""

from __future__ import annotations

from tests.mutants.mutant import planted

_METHODS = ("exact/test_adaptive_neighbours.py", "exact/test_controls.py")
_LEARNED = ("exact/test_learned_curvature.py",)
_SECOND = ("exact/test_second_differences.py", "expectation/test_second_differences.py")

MUTANTS = [
    planted(
        "half-a-second-difference",
        "hiso_bench.differences:measure",
        "f(x) is subtracted once",
        ("- 2 * base", "- base"),
        tests=_SECOND,
    ),
    planted(
        "slope-over-the-other-mu",
        "hiso_bench.differences:measure",
        "the slope of a second difference's evaluations is divided by mu, not by curvature_mu",
        ("(plus - minus) / (2 * reach)", "(plus - minus) / (2 * mu)"),
        tests=_SECOND,
    ),
    planted(
        "second-difference-costs-nothing",
        "hiso_bench.differences:evaluations",
        "forward passes of second differences are not counted",
        ("perturbations + 1 + curvatures", "perturbations + 1"),
        tests=_SECOND,
    ),
    planted(
        "exact-for-the-first-client",
        "hiso_bench.differences:measure",
        "the exact slope takes the first client's gradient for all",
        ("for _, gradient in found]", "for _, gradient in found[:1] * len(found)]"),
        tests=("exact/test_exact_difference.py",),
    ),
    planted(
        "top-counted-p-times",
        "hiso_bench.methods.safe_step:SafeStep._safe",
        "P L in place of (P + 1) L",
        ("(P + 1) * L", "P * L"),
        tests=_SECOND,
    ),
    planted(
        "deviation-is-the-norm",
        "hiso_bench.methods.safe_step:SafeStep._safe",
        "Var c is taken for |Xi|_F^2, though it is twice that",
        ("torch.minimum((variance / 2).sqrt()", "torch.minimum(variance.sqrt()"),
        tests=_SECOND,
    ),
    planted(
        "momentum-lengthens-the-safe-step",
        "hiso_bench.methods.safe_step:SafeStep.rate",
        "the step is not shortened by 1 - b",
        ("* (1 - self.momentum) ", ""),
        tests=_LEARNED,
    ),
    planted(
        "moves-while-it-burns-in",
        "hiso_bench.methods.safe_step:SafeStep._safe",
        "x moves from the first second difference on",
        ("(count >= self.burn_in) & (bound > 0)", "bound > 0"),
        tests=_SECOND,
    ),
    planted(
        "share-of-what-is-left",
        "hiso_bench.methods.safe_step:SafeStep._safe",
        "the step is the same whatever share of the slopes is gradient",
        ("step = step * share", "step = step * share.clamp(min=1.0)"),
        tests=_SECOND,
    ),
    planted(
        "variance-in-old-units",
        "hiso_bench.methods.curvature:Curvature.shape",
        "when H is rescaled the variance of c is scaled as its mean",
        ("variance.mul_(ratio.square())", "variance.mul_(ratio)"),
        tests=_LEARNED,
    ),
    planted(
        "top-of-sigma",
        "hiso_bench.methods.curvature:Curvature.largest",
        "the largest eigenvalue is that of sigma, not of sigma / h",
        ("flat(s / k, axes)", "flat(s, axes)"),
        tests=_LEARNED,
    ),
    planted(
        "correction-without-damping",
        "hiso_bench.methods.curvature:Curvature.model",
        "a second difference corrects the whole of its prediction error",
        ("((1 + self.damping) * power)", "power"),
        tests=_LEARNED,
    ),
    planted(
        "gate-that-stands-open",
        "hiso_bench.methods.curvature:Curvature.shape",
        "H is trusted whatever it explains",
        ("(self.gate * share).clamp(0, 1)", "(self.gate * share.clamp(min=1)).clamp(0, 1)"),
        tests=_LEARNED,
    ),
    planted(
        "leaf-without-its-h",
        "hiso_bench.methods.curvature_block:CurvatureBlock.average",
        "a leaf's second difference is not put back from the units of H",
        ("c.clamp(min=0) * flat(h, c.ndim)[..., 0].double().cpu() / n", "c.clamp(min=0) / n"),
        tests=_LEARNED,
    ),
    planted(
        "leaves-of-equal-size",
        "hiso_bench.methods.curvature_block:CurvatureBlock.shape",
        "the mean of sigma is over leaves, not over coordinates",
        ("(now * sizes).sum(-1, keepdim=True) / sizes.sum()", "now.mean(-1, keepdim=True)"),
        tests=_LEARNED,
    ),
    planted(
        "block-base-is-free",
        "hiso_bench.methods.curvature_block:CurvatureBlock.evaluations",
        "the loss at x that second differences need is not counted",
        (' + (self.difference == "central")', ' + (self.difference == "exact")'),
        tests=_SECOND,
    ),
    planted(
        "meazo-uncorrected",
        "hiso_bench.methods.meazo:Meazo.rate",
        "the root is not corrected for its start at zero",
        ("(v / w).sqrt()", "v.sqrt()"),
        tests=_METHODS,
    ),
    planted(
        "meazo-of-mean-squares",
        "hiso_bench.methods.meazo:Meazo._updated",
        "the mean of the squared scalars in place of the squared mean",
        ("step.weights.mean(0).sum(0)", "step.weights.square().mean(0).sum(0).sqrt()"),
        tests=_METHODS,
    ),
    planted(
        "rmsprop-of-the-past",
        "hiso_bench.methods.post_scaled:PostScaled.move",
        "a step is scaled without its own square",
        ("v.lerp(d.square(), _like(layout.over_leaf(self.ema_new, i), v))", "v.clone()"),
        tests=_METHODS,
    ),
    planted(
        "adam-momentum-uncorrected",
        "hiso_bench.methods.post_scaled:PostScaled.move",
        "zo-adam's first moment is not corrected for its start",
        ("eta * (1 - self.momentum) / (c + (1 - self.momentum) * (1 - c))", "eta * (1 - self.momentum)"),
        tests=_METHODS,
    ),
    planted(
        "amsgrad-forgets",
        "hiso_bench.methods.post_scaled:PostScaled.learn",
        "AMSGrad's largest v is the last v",
        ('torch.maximum(state.buffers["peak"][i], v, out=state.buffers["peak"][i])', 'state.buffers["peak"][i].copy_(v)'),
        tests=_METHODS,
    ),
    planted(
        "rmsprop-starts-small",
        "hiso_bench.methods.post_scaled:PostScaled.move",
        "the root is not corrected for its start at zero",
        ("root.div_(_like(layout.over_leaf(w, i), v)).sqrt_()", "root.sqrt_()"),
        tests=("expectation/test_neighbour_methods.py",),
    ),
    planted(
        "window-of-the-mean",
        "synthetic.neighbour_limits:growth",
        "operators are averaged over what is kept before they act for a window",
        (
            "np.tensordot(weights, np.linalg.matrix_power(operators, window), 1)",
            "np.linalg.matrix_power(np.tensordot(weights, operators, 1), window)",
        ),
        tests=("expectation/test_neighbour_limits.py",),
    ),
    planted(
        "fzoo-at-a-fixed-spread",
        "synthetic.neighbour_cases:fzoo_on_an_axis",
        "the spread of signs is over P",
        ("P * (P - 1) / (4", "P * P / (4"),
        tests=("expectation/test_neighbour_limits.py",),
    ),
    planted(
        "projection-by-length",
        "hiso_bench.methods.exact_scalar:_Projected.direction",
        "the scalar is divided by |z|, not by its square",
        ("step.weights / lengths", "step.weights / lengths.sqrt()"),
    ),
    planted(
        "h-drawn-once-for-all-leaves",
        "hiso_bench.methods.lognormal:LogNormalH.init",
        "leaves of one shape have the same random H",
        ("leaf=i)", "leaf=0)"),
        tests=_METHODS,
    ),
    planted(
        "spread-of-the-root",
        "hiso_bench.methods.lognormal:LogNormalH.init",
        "spread is that of log H^(1/2)",
        (".mul_(self.spread)", ".mul_(2 * self.spread)"),
        tests=_METHODS,
    ),
]
