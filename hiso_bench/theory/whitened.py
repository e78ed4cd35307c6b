"""Many rounds of the diagonal recursion, several to a pass over memory.

One round is y+ = D y + e + c 1 with D and e fixed for a learning rate and c = eta^2 spread (lambda^2 . y) the one number that
couples the modes. A pass over y in blocks that stay in the cache takes r rounds if it knows r such numbers beforehand. It
does: with the sums w.D^j y of the start of the pass, and w.D^j e and w.D^j 1 once per learning rate,

    w.y_i = w.D^i y + sum_{j < i} (w.D^j e + c_{i-j} w.D^j 1),

and the pass leaves behind the sums w.D^j y of its end. These sums are taken anew in every pass: rounding does not build up.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from hiso_bench.theory.diagonal import Step

_BLOCK = 1 << 13
"""Values per block: five arrays of 64 KiB fit a small second-level cache, and BLAS does not wake threads for a dot product."""
_AHEAD = 8
"""Rounds per pass: memory is then a small part of the cost."""


class Whitened:
    """Squares y_j = h_j E x_j^2, advanced in place, and weighted sums of them.

    Args:
        y: at the start, shape (d,); overwritten.
        lam: lambda = s/h, shape (d,).
        step: the coefficients of a round.
        weights: of the sums, each of shape (d,); lambda^2 comes before them by itself.

    Attributes:
        y: the squares now.
    """

    def __init__(self, y: NDArray, lam: NDArray, step: Step, weights: Sequence[NDArray] = ()) -> None:
        self.y, self._lam, self._step = y, lam, step
        d = len(y)
        self._decay, self._push = np.empty(d), np.empty(d)
        # One pass less where the kick is the same for all modes, such as none at all.
        self._uniform = bool(np.all(step.kick == step.kick[0]))
        self._eta = np.nan
        weights = [lam**2, *weights]
        cuts = [slice(i, i + _BLOCK) for i in range(0, d, _BLOCK)]
        self._blocks = [(y[b], self._decay[b], self._push[b], [w[b] for w in weights]) for b in cuts]
        self._scratch = np.empty(min(d, _BLOCK))
        self._sums = np.zeros((1, len(weights)))
        """w.D^j y, one row per j; the first is the sums themselves."""
        self._given = np.zeros((2, 0, len(weights)))
        """The sums over i <= j of w.D^i e, and w.D^j 1, one row per j."""
        for block, _, _, parts in self._blocks:
            self._sums[0] += [w.dot(block) for w in parts]

    @property
    def sums(self) -> NDArray[np.float64]:
        """lambda^2 . y, which is E |grad f|^2 in the H^{-1} norm, and the weighted sums, (1 + len(weights),)."""
        return self._sums[0]

    def round(self, eta: float) -> None:
        """Advance y and the sums by one round."""
        self._prepare(eta)
        self._pass([self._carried(self._sums[0])], 1)

    def rounds(self, eta: float, count: int) -> NDArray[np.float64]:
        """Advance by `count` rounds at one rate; the sums after each of them, (count, 1 + len(weights)).

        Cost: a pass over five arrays of shape (d,) for every eight rounds; results equal those of `round` to rounding.
        """
        found = np.empty((count, len(self.sums)))
        ahead = min(_AHEAD, max(count - 1, 1))
        self._prepare(eta, ahead)
        done = 0
        while done < count:
            taken = min(len(self._sums), count - done)
            carried, now = [], self._sums[0]
            for i in range(taken):
                carried.append(self._carried(now))
                if i + 1 < taken:
                    now = self._sums[i + 1] + self._given[0, i] + np.dot(carried[::-1], self._given[1, : i + 1])
                    found[done + i] = now
            self._pass(carried, ahead)
            done += taken
            found[done - 1] = self.sums
        return found

    def _carried(self, sums: NDArray) -> float:
        return self._eta**2 * self._step.spread * float(sums[0])

    def _prepare(self, eta: float, ahead: int = 1) -> None:
        """D and e of a rate, and their sums for `ahead` rounds in a pass."""
        if eta != self._eta:
            own, _, kick = self._step
            np.multiply(self._lam, own * eta**2, out=self._decay)
            self._decay -= 2 * eta
            self._decay *= self._lam
            self._decay += 1
            np.multiply(kick, eta**2, out=self._push)
            self._eta, self._sums, self._given = eta, self._sums[:1], self._given[:, :0]
        if ahead > 1 + self._given.shape[1]:
            self._given = np.zeros((2, ahead - 1, len(self.sums)))
            for _, decay, push, weights in self._blocks:
                terms = np.stack([push, np.ones_like(push)])
                for j in range(ahead - 1):
                    self._given[:, j] += [[w.dot(term) for w in weights] for term in terms]
                    terms *= decay
            np.cumsum(self._given[0], axis=0, out=self._given[0])

    def _pass(self, carried: Sequence[float], ahead: int) -> None:
        """Advance by len(carried) rounds, and sum for `ahead` more."""
        sums = np.zeros((ahead, len(self.sums)))
        if self._uniform:
            carried = [c + self._push[0] for c in carried]
        for y, decay, push, weights in self._blocks:
            for c in carried:
                y *= decay
                if not self._uniform:
                    y += push
                y += c
            sums[0] += [w.dot(y) for w in weights]
            power = y
            for j in range(1, ahead):
                power = np.multiply(power, decay, out=self._scratch[: len(y)])
                sums[j] += [w.dot(power) for w in weights]
        self._sums = sums
