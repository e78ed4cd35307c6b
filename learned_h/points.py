"""What stands at a point of a subject: the gradient, the curvature, and the H that HiSo would settle on if the point stood still.

Whether H can tell coordinates apart is decided by the gradient alone (`hiso_bench.theory.learned`): at the fixed point the excess
over the common level sums to P + 1 whatever d is, so the first-order size of what a coordinate gets is (P + 1) / N_eff(g).
"""

from __future__ import annotations

from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from hiso_bench import estimates, keys, whiteness
from hiso_bench.classification import SoftmaxLoss
from hiso_bench.curvature import Curvature, differentiable, empirical_fisher_diagonal, gauss_newton_diagonal
from hiso_bench.losses import ModuleLoss
from hiso_bench.points import Point
from hiso_bench.theory import learned, spectra
from learned_h import subjects

EMA = 0.05
"""The default weight of a new sample, whose noise stands beside the signal."""
BUDGETS = (5, 80)
"""P at which the fixed point is computed."""
PROBES, STEPS = 24, 20
"""Probes and Lanczos steps of subjects whose Hessian is not formed."""


class Place:
    """One point of one subject.

    Args:
        problem: of the subject.
        x: the point.
        exact: form the Hessian; else estimate its diagonal, trace, norm and top eigenvalue from products.
        key: of the probes.
        probes: products for the estimated diagonal.
    """

    def __init__(self, problem: Any, x: Point, exact: bool = True, key: int = 0, probes: int = PROBES) -> None:
        self.problem, self.x, self.exact, self.probes = problem, x, exact, probes
        self.curvature: Curvature = subjects.around(problem, x)
        self.sizes = subjects.layer_sizes(problem)
        self._key = keys.derive(key, "probes")

    @property
    def gradient(self) -> NDArray[np.float64]:
        """(d,)."""
        return self.curvature.gradient.double().numpy()

    @cached_property
    def diagonal(self) -> NDArray[np.float64]:
        """Diag Sigma, (d,), which may be negative."""
        return self.curvature.diagonal.numpy() if self.exact else self._estimates["diagonal"]

    @cached_property
    def absolute(self) -> NDArray[np.float64]:
        """Diag |Sigma| where the Hessian is formed, |diag Sigma| elsewhere: (d,), not negative."""
        return self.curvature.absolute_diagonal.clamp_min(0).numpy() if self.exact else np.abs(self.diagonal)

    @cached_property
    def gauss_newton(self) -> NDArray[np.float64]:
        """Diag of the Gauss-Newton matrix of a classifier, (d,); of a network of modules the empirical Fisher of its batch.

        A logistic regression's and a quadratic's Gauss-Newton matrix is their Hessian: diag |Sigma|.
        """
        loss, rows = self.problem.loss, self.problem.batch(np.array(0), 0, 0)
        if isinstance(loss, ModuleLoss):
            single = [tuple(part[i : i + 1] for part in rows) for i in range(len(rows[0]))]
            return empirical_fisher_diagonal([differentiable(loss, row) for row in single], self.x).double().numpy()
        if not isinstance(loss, SoftmaxLoss):
            return self.absolute
        inputs = None if rows.inputs is None else rows.inputs.to(self.x[0].dtype)
        return gauss_newton_diagonal(lambda x: loss.logits(x, inputs), self.x, rows.weights.sum(-1)).numpy()

    @property
    def weights(self) -> NDArray[np.float64]:
        """What zeta sums, (d,): diag |Sigma| where the Hessian is formed, elsewhere diag Sigma.

        The absolute value of a noisy entry is mostly noise; the sum of signed entries is not.
        """
        return self.absolute if self.exact else self.diagonal

    @property
    def reliability(self) -> float:
        """The rank correlation that the estimated |diag Sigma| can be expected to have with itself, measured anew.

        From its two halves by Spearman and Brown's formula. What is correlated with it is attenuated by the root of this. 1 where
        the Hessian is formed.
        """
        if self.exact:
            return 1.0
        half = whiteness.rank_correlation(*(np.abs(values) for values in self._estimates["halves"]))
        return 2 * half / (1 + half)

    def decrease(self, h: NDArray[np.float64], P: int) -> float:
        """`whiteness.next_round` here, with |Sigma| where it is formed and Sigma elsewhere (one product)."""
        if self.exact:
            return whiteness.next_round(self.gradient, self.curvature.absolute.numpy(), h, P)
        step = self.gradient / h
        curved = step @ self.curvature.product(torch.from_numpy(step)).double().numpy()
        return whiteness.best_decrease(float(self.gradient @ step), float(curved), float(np.sum(self.weights / h)), P)

    @cached_property
    def _estimates(self) -> dict[str, Any]:
        d, product, rng = self.curvature.dimension, self.curvature.product, keys.rng(self._key)
        squares, values = [], []
        for _ in range(self.probes):
            v = torch.from_numpy(2.0 * rng.integers(0, 2, d) - 1.0)
            Av = product(v).double()
            values.append((v * Av).numpy())
            squares.append(float(Av @ Av))
        values = np.array(values)
        mean, error = values.mean(0), values.std(0, ddof=1) / np.sqrt(self.probes)
        on = float(np.sum(mean**2 - error**2))  # unbiased for sum Sigma_jj^2
        top = estimates.lanczos(product, d, STEPS, rng)
        return {
            "diagonal": mean, "halves": (values[::2].mean(0), values[1::2].mean(0)), "on": on, "total": float(np.mean(squares)),
            "trace": float(values.sum(1).mean()), "trace_error": float(values.sum(1).std(ddof=1) / np.sqrt(self.probes)),
            "top": float(top.values[-1]), "bottom": float(top.values[0]),
        }  # fmt: skip

    def fixed_point(self, P: int) -> NDArray[np.float64]:
        """The h that the gradient here would lead to if it stood still, (d,)."""
        return learned.fixed_point(self.gradient**2, P)

    def numbers(self) -> dict[str, float]:
        """The stage at this point; columns of the table `points`."""
        g = self.gradient
        out = {"loss": self.curvature.value, "d": float(len(g)), "gradient": float(np.linalg.norm(g))}
        out["n_eff"] = spectra.participation(g)
        if self.exact:
            values = self.curvature.eigen[0].numpy()
            out |= {"trace": float(values.sum()), "top": float(values.max()), "bottom": float(values.min()), "trace_error": 0.0}
            out["kappa_absolute"] = float(np.abs(values).sum() / np.abs(values).max())
            out["off_diagonal"] = whiteness.off_diagonal_share(self.curvature.hessian.numpy())
            out["spread"] = whiteness.spread(self.diagonal)
        else:
            found = self._estimates
            out |= {name: found[name] for name in ("trace", "top", "bottom", "trace_error")}
            # NaN where the noise of the probes is as large as the diagonal itself: not measured, not zero.
            resolved = found["on"] > 0
            out["off_diagonal"] = float(np.sqrt(max(found["total"] / found["on"] - 1, 0))) if resolved else np.nan
            out["spread"] = float(found["trace"] ** 2 / found["on"]) if resolved else np.nan
        out["kappa"] = out["trace"] / out["top"]
        for P in BUDGETS:
            out |= {f"{name}_{P}": value for name, value in self._learned(P).items()}
        return out

    def _learned(self, P: int) -> dict[str, float]:
        h = self.fixed_point(P)
        floor = learned.floor(self.gradient**2, h, P)
        layers = [float(part.mean()) for part in np.split(h, np.cumsum(self.sizes)[:-1])]
        return {
            "max_r": float(h.max() / floor), "layers": max(layers) / min(layers), "std_log": float(np.log(h).std()),
            "noise": learned.width(P, EMA), "signal": (P + 1) / spectra.participation(self.gradient),
            "rank_h": whiteness.rank_correlation(h, self.absolute), "log_h": whiteness.log_correlation(h, self.absolute),
        }  # fmt: skip
