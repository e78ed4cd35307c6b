"""What the smoothing radius mu of a difference quotient costs, exactly.

In expectation a step follows the gradient of the smoothed loss, E dx = E grad f(x + mu u). On a quadratic this is the
gradient itself, and mu only adds noise: a floor in mu^2 (`hiso_bench.theory.recursion`). On a loss that is not symmetric
about its minimum the mean step vanishes beside it, at a point x_mu that does not depend on the learning rate. Two losses
of one coordinate show it:

    kink    f' = x for x < 0, 3 x for x > 0      L-smooth, no second derivative at the minimum: |f'(x_mu)| = t mu
    smooth  f' = sigmoid(x) - 1/4                all derivatives: |f'(x_mu)| ~ (mu^2 / 2) f'''(x*)
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import optimize, special, stats
from torch import Tensor

from hiso_bench.directions import DirectionKey, InjectedDirections
from hiso_bench.federation import Federation, FederationOptions
from hiso_bench.losses import Batch, Loss
from hiso_bench.methods import DeComFL
from hiso_bench.methods.base import require
from hiso_bench.points import Layout, Point
from hiso_bench.testing import Cubature
from hiso_bench.theory.recursion import expected_squares
from hiso_bench.theory.stability import max_stable_step
from synthetic.quadratic import Quadratic


class _Function(NamedTuple):
    value: Callable[[Tensor], Tensor]
    derivative: Callable[[NDArray], NDArray]
    smoothness: float
    """L."""
    minimum: float


FUNCTIONS = {
    "quadratic": _Function(lambda x: 1.5 * x**2, lambda x: 3 * x, 3.0, 0.0),
    "kink": _Function(
        lambda x: 0.5 * x**2 + torch.relu(x) ** 2, lambda x: np.where(x > 0, 3 * np.asarray(x), x), 3.0, 0.0
    ),
    "smooth": _Function(
        lambda x: torch.nn.functional.softplus(x) - x / 4, lambda x: special.expit(x) - 0.25, 0.25, float(special.logit(0.25))
    ),
}  # fmt: skip
"""The losses of one coordinate, by name."""


class _ScalarLoss(Loss):
    def __init__(self, function: _Function) -> None:
        self._function = function

    def __call__(self, x: Point, batch: Batch) -> Tensor:
        return self._function.value(x[0][..., 0])


class OneCoordinate:
    """A loss of one coordinate and one client.

    Args:
        function: a key of `FUNCTIONS`.
        start: x_0.
        replicates: replicate shape.

    Raises:
        ValueError: unknown function.
    """

    name = "one-coordinate"
    metric = "loss"
    higher_is_better = False
    clients = 1

    def __init__(self, function: str, start: float, replicates: tuple[int, ...] = ()) -> None:
        require(function in FUNCTIONS, "function", function, ", ".join(FUNCTIONS))
        self._options = {"function": function, "start": start, "replicates": list(replicates)}
        self._start = start
        self.layout = Layout(((1,),), replicates)
        self.loss: Loss = _ScalarLoss(FUNCTIONS[function])

    def initial(self) -> Point:
        """x_0 in every replicate."""
        return (torch.full(self.layout.shape(0), self._start, dtype=torch.float64),)

    def batch(self, client: NDArray, round_: int, step: int) -> Batch:
        """There is no data."""
        return None

    def evaluate(self, x: Point) -> dict[str, float]:
        """The mean loss over replicates."""
        return {"loss": float(self.loss(x, None).mean())}

    def describe(self) -> dict[str, Any]:
        """The options."""
        return dict(self._options)


def line(points: int = 4001, reach: float = 9.0) -> Cubature:
    """N(0, 1) by the trapezoid rule: exact to rounding for smooth integrands, to about 1e-6 for kinked ones."""
    nodes = np.linspace(-reach, reach, points)
    weights = stats.norm.pdf(nodes)
    return Cubature(nodes[:, None], weights / weights.sum())


def mean_step(function: str, x: float, mu: float) -> float:
    """E dx at x for P = 1, measured through a real round whose directions are the nodes of `line`."""
    rule = line()
    problem = OneCoordinate(function, x, (len(rule.weights),))
    nodes = torch.from_numpy(rule.nodes)

    def look_up(key: DirectionKey) -> Point:
        return (nodes,)

    directions = InjectedDirections(problem.layout, look_up)
    federation = Federation(problem, DeComFL(lr=1.0, mu=mu, perturbations=1), FederationOptions(wire="float64"), None, directions)
    federation.round()
    return float(rule.mean(x - federation.state.x[0][:, 0].numpy()))


def resting_slope(function: str, mu: float) -> float:
    """|f'(x_mu)| at the point x_mu where the measured mean step is 0: what is left of the gradient as the rate goes to 0."""
    f = FUNCTIONS[function]
    root = optimize.brentq(lambda x: mean_step(function, x, mu), f.minimum - 2 * mu, f.minimum + 3 * mu, xtol=1e-13)
    return float(np.abs(f.derivative(np.array(root))))


def exact_resting_slope(function: str, mu: float) -> float:
    """The same from E f'(x + mu u) = 0 in closed form (kink) or by 80 Gauss-Hermite nodes (smooth); 0 for the quadratic."""
    if function == "quadratic":
        return 0.0
    if function == "kink":  # x_mu = -t mu with t = 2 E (u - t)_+
        return mu * float(optimize.brentq(lambda t: t - 2 * (stats.norm.pdf(t) - t * stats.norm.sf(t)), 0, 2, xtol=1e-14))
    f = FUNCTIONS[function]
    nodes, weights = np.polynomial.hermite_e.hermegauss(80)
    weights = weights / weights.sum()
    root = optimize.brentq(lambda x: weights @ f.derivative(x + mu * nodes), f.minimum - 2 * mu, f.minimum + 2 * mu, xtol=1e-14)
    return float(np.abs(f.derivative(np.array(root))))


def settled_squares(function: str, mu: float, eta: float, P: int, rounds: int, keys: int) -> NDArray[np.float64]:
    """f'(x)^2 after `rounds` keyed rounds from the point where the mean step is 0: shape (keys,)."""
    f = FUNCTIONS[function]
    slope = exact_resting_slope(function, mu) * (1 if function == "smooth" else -1)
    start = optimize.brentq(lambda x: float(f.derivative(np.array(x))) - slope, f.minimum - 2, f.minimum + 2)
    federation = Federation(
        OneCoordinate(function, start, (keys,)), DeComFL(lr=eta, mu=mu, perturbations=P), FederationOptions(wire="float64", key=8)
    )
    for _ in range(rounds):
        federation.round()
    return f.derivative(federation.state.x[0][:, 0].numpy()) ** 2


# Quadratics


def gradient_floor(s: NDArray, eta: float, P: int, mu: float, difference: str = "forward") -> float:
    """The limit of E |grad f|^2 (H = I), by iterating the exact recursion from the minimum until it stands."""
    rounds = int(25 / (eta * s.min()))
    *_, last = expected_squares(s, 1.0, np.zeros(len(s)), eta, P, rounds, mu, difference=difference)
    return float(s**2 @ last)


def settled_losses(d: int, exponent: float, eta: float, P: int, mu: float, rounds: int, keys: int) -> NDArray[np.float64]:
    """The losses after `rounds` keyed rounds from x = 1 on the spectrum i^-exponent: shape (keys,)."""
    problem = Quadratic(d, "power", exponent, clients=1, replicates=(keys,))
    federation = Federation(problem, DeComFL(lr=eta, mu=mu, perturbations=P), FederationOptions(wire="float64", key=9))
    for _ in range(rounds):
        federation.round()
    return problem.loss(federation.state.x, None).numpy()


def admissible_radius(s: NDArray, P: int, rounds: int, law: str = "gaussian", share: float = 0.01) -> float:
    """The mu that adds share * L f(x_0) to the mean of E |grad f|^2 over the rounds, with f(x_0) = 1 and eta = eta*/2.

    What mu adds does not depend on x_0 and is proportional to mu^2, so it is read off one run from the minimum at mu = 1.
    Cost: O(rounds d).
    """
    eta = max_stable_step(s, 1.0, P, law) / 2
    added = np.mean([s**2 @ a for a in expected_squares(s, 1.0, np.zeros(len(s)), eta, P, rounds, 1.0, law)])
    return float(np.sqrt(share * s.max() / added))


def printed_radius(d: int, kappa: float, m: int, R: int, P: int) -> float:
    """DeComFL Theorem 2's largest mu: kappa^(1/4) / ((m R P)^(1/4) sqrt((d + 3)^3))."""
    return float((kappa / (m * R * P)) ** 0.25 * (d + 3) ** -1.5)


def third_absolute_moment(d: int) -> float:
    """E |u|^3 for u ~ N(0, I_d): the smoothing bias of an L-smooth loss is at most (mu L / 2) E |u|^3."""
    return float(2**1.5 * np.exp(special.gammaln((d + 3) / 2) - special.gammaln(d / 2)))
