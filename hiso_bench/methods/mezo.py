"""MeZO (arXiv 2305.17333): x <- x - eta s z with one Gaussian direction and a central difference; DeComFL with one client."""

from hiso_bench.methods import register
from hiso_bench.methods.decomfl import DeComFL

register("mezo", DeComFL, perturbations=1, difference="central")
