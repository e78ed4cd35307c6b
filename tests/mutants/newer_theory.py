"""Planted bugs of the theory that came later: descent, projections, the law of a learned H, local steps, minibatches, bounds."""

from __future__ import annotations

from tests.mutants.mutant import planted

MUTANTS = [
    planted(
        "factor-of-many-directions",
        "hiso_bench.theory.descent:curvature_factor",
        "the gradient's own part is that of infinitely many directions",
        ("(1 - 1 / P + k1 / P)", "(1 - 1 / P)"),
    ),
    planted(
        "noise-at-full-weight",
        "hiso_bench.theory.descent:descent_bound",
        "the noise of the descent lemma lacks its half",
        ("eta * c * noise / 2)", "eta * c * noise)"),
    ),
    planted(
        "descent-step-without-noise",
        "hiso_bench.theory.descent:descent_step",
        "the best step forgets what the curvature costs while it descends",
        ("half = start * c / 2", "half = start * c / 4"),
    ),
    planted(
        "fourth-moment-of-unequal-modes",
        "hiso_bench.theory.projection:projection_moments",
        "E z_i^4 / q^2 lacks the factor 3",
        ("K + 2 * np.diag(np.diag(K))", "K"),
    ),
    planted(
        "projection-of-p-equal-steps",
        "hiso_bench.theory.projection:ProjectedDescent.__init__",
        "different directions of a round are taken to be the same one",
        ("(1 - 1 / P) * np.diag(self._drift**2) + np.outer(s, s) * K / P", "np.outer(s, s) * K"),
    ),
    planted(
        "projection-forgets-the-start",
        "hiso_bench.theory.projection:ProjectedDescent.__init__",
        "b starts at x^2, not at s x^2",
        ("self._b0 = s * x0**2", "self._b0 = x0**2"),
    ),
    planted(
        "spread-of-h",
        "hiso_bench.theory.projection:factor_spread",
        "Var q of one direction's square, without Gaussian's factor 2",
        ("np.sqrt(2 * np.sum(c**2))", "np.sqrt(np.sum(c**2))"),
    ),
    planted(
        "width-of-log-h-doubled",
        "hiso_bench.theory.learned:width",
        "log h decays at nu, not at 2 nu",
        ("(2 * (1 - ema_new))", "(1 - ema_new)"),
    ),
    planted(
        "relaxation-of-dx-alone",
        "hiso_bench.theory.learned:relaxation",
        "dx is taken to fall as the root of H",
        ("/ out[-1] ** 2", "/ out[-1]"),
    ),
    planted(
        "undone-feedback",
        "hiso_bench.theory.learned:multipliers_undone",
        "the derivative of h = sqrt(v) is forgotten",
        ("/ (2 * h) - np.eye", "/ h - np.eye"),
    ),
    planted(
        "mean-without-curvature",
        "hiso_bench.theory.learned:scatter",
        "the curvature of E dx^2 in h counts once",
        ("3 * own / h**4", "own / h**4"),
    ),
    planted(
        "scatter-of-scalars-alone",
        "hiso_bench.theory.learned:_covariance_of_squares",
        "what the directions scatter around the mean step is left out",
        ("(np.outer(k, k) + 2 * K**2)", "np.outer(k, k)"),
    ),
    planted(
        "noise-shared-by-clients",
        "hiso_bench.theory.local_steps:LocalSteps.step",
        "all clients have the same gradient noise",
        ("V[np.arange(len(s)), np.arange(len(s))] += self.noise", "V += self.noise"),
    ),
    planted(
        "linear-terms-untilted",
        "hiso_bench.theory.local_steps:LocalSteps.step",
        "the product of a linear term with another client's slope is added for one order only",
        ("tilted + tilted.transpose(1, 0, 2)", "2 * tilted"),
    ),
    planted(
        "deviation-of-the-mean",
        "hiso_bench.theory.local_steps:Clients.deviation",
        "subtracts the mean's square once",
        ("- 2 * self.square.mean(1)", "- self.square.mean(1)"),
    ),
    planted(
        "label-noise-in-every-example",
        "hiso_bench.theory.minibatch:_losses",
        "label noise is not divided by the batch",
        ("noisy * (total + label)", "noisy * (total + batch * label)"),
    ),
    planted(
        "rounds-not-interpolated",
        "hiso_bench.theory.minibatch:fewest_rounds",
        "the fraction of the last round counts from its end",
        ("r - 1 + part[best]", "r - part[best]"),
    ),
    planted(
        "almost-sure-of-one-direction",
        "hiso_bench.theory.lyapunov:flat_exponent",
        "what other modes receive of a step has one direction's size",
        ("(c / P) ** 2 * s", "c**2 / P * s"),
    ),
    planted(
        "step-limit-without-m",
        "hiso_bench.theory.bounds:step_limit",
        "the first entry of Theorem 1's condition lacks m",
        ("c.beta_l / (c.m * c.L)", "c.beta_l / c.L"),
    ),
    planted(
        "drift-of-tau-steps",
        "hiso_bench.theory.bounds:theorem1",
        "the drift term has tau in place of tau - 1",
        ("(c.tau - 1) ** 2", "c.tau**2"),
    ),
    planted(
        "sphere-forgets-its-dimension",
        "hiso_bench.theory.diagonal:step",
        "the mu term of the forward difference lacks the square of the trace",
        ("(t1**2 + 2 * np.sum(lam**2))", "2 * np.sum(lam**2)"),
    ),
    planted(
        "best-of-the-parabola",
        "learned_h.rates:exact_rounds",
        "the fraction of the last round is left out",
        ("(logs[0] - np.log(target)) / (logs[0] - logs[1])", "1"),
    ),
]
