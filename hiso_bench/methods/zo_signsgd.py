"""ZO-signSGD (Liu et al. 2019): every coordinate moves by eta, in the direction of the estimate's sign."""

from collections.abc import Callable

from hiso_bench.directions import DirectionKey
from hiso_bench.methods import register
from hiso_bench.methods.base import Method, Step
from hiso_bench.points import Layout, Point


class ZoSignSgd(Method):
    """x <- x - eta sign((1/P) sum_p s_p z_p) with the clients' mean scalars; still one scalar a direction on the wire.

    With P Gaussian directions and no noise E sign(dx)_i = 2 F(sqrt(P) g_i / sqrt(||g||^2 - g_i^2)) - 1, F the distribution of
    Student's t with P degrees of freedom: given the i-th coordinates of the z_p, dx_i is N(g_i q, (||g||^2 - g_i^2) q) with
    q = sum_p z_pi^2. That is (2/pi) arcsin(g_i / ||g||) for P = 1, exactly g_i / ||g|| for P = 2, and tends to sign(g_i). It does
    not shrink with g, and |dx|^2 = d.
    """

    linear_in_scalars = False

    def direction(self, step: Step, layout: Layout, z: Callable[[DirectionKey], Point], out: Point) -> Point:
        """The sign of the plain direction."""
        for leaf in super().direction(step, layout, z, out):
            leaf.sign_()
        return out


register("zo-signsgd", ZoSignSgd)
