"""FeedSign (arXiv 2501.17610): the clients vote on the sign of every scalar, one bit each way."""

from collections.abc import Callable

import torch
from torch import Tensor

from hiso_bench.directions import DirectionKey
from hiso_bench.methods import register
from hiso_bench.methods.base import Method, Step
from hiso_bench.points import Layout, Point


class FeedSign(Method):
    """x <- x - eta (1/P) sum_p v_p z_p, v_p the majority of the signs of the clients' s_p.

    A scalar of zero votes +1, and so does a tie: z and -z are equally likely, so neither moves the mean. Local steps go by the
    client's own sign. With P = 1, Gaussian directions and no noise E dx = sqrt(2/pi) g / ||g|| and |dx|^2 = |z|^2: the step does
    not shrink with g. `wire` "sign1" packs the votes into bits; on other wires the same run costs their numbers.
    """

    linear_in_scalars = False
    federation_options = {"wire": "sign1"}

    def combine(self, scalars: Tensor) -> Tensor:
        """The majority's sign; NaN where nobody answered."""
        silent = scalars.isnan()
        votes = torch.where(silent, 0.0, _sign(scalars)).sum(0, keepdim=True)
        return torch.where(silent.all(0, keepdim=True), torch.nan, _sign(votes))

    def direction(self, step: Step, layout: Layout, z: Callable[[DirectionKey], Point], out: Point) -> Point:
        """The mean of +-z: an agreed scalar is a sign already, a client's own becomes one here."""
        return super().direction(step._replace(weights=_sign(step.weights) / step.weights.shape[1]), layout, z, out)


def _sign(values: Tensor) -> Tensor:
    return torch.where(values.isnan(), values, torch.where(values >= 0, 1.0, -1.0).to(values))


register("feedsign", FeedSign, perturbations=1, difference="central")
