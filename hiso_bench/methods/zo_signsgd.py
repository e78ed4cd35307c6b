"""ZO-signSGD (Liu et al. 2019): every coordinate moves by eta, in the direction of the estimate's sign."""

from collections.abc import Callable

from hiso_bench.directions import DirectionKey
from hiso_bench.methods import register
from hiso_bench.methods.base import Method, Step
from hiso_bench.points import Layout, Point


class ZoSignSgd(Method):
    """x <- x - eta sign((1/P) sum_p s_p z_p) with the clients' mean scalars; still one scalar a direction on the wire.

    With one Gaussian direction and no noise E sign(dx)_i = (2/pi) arcsin(g_i / ||g||): not along g, and of a size that does not
    shrink with it. |dx|^2 = d.
    """

    linear_in_scalars = False

    def direction(self, step: Step, layout: Layout, z: Callable[[DirectionKey], Point], out: Point) -> Point:
        """The sign of the plain direction."""
        for leaf in super().direction(step, layout, z, out):
            leaf.sign_()
        return out


register("zo-signsgd", ZoSignSgd)
