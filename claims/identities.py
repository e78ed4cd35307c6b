"""Statements that are identities of the algorithm: two runs of the real core that must take the same path.

What is measured is the largest relative difference of two paths (all rounds, all coordinates), in float64 up to and
including the wire; rounding leaves 1e-13 after 30 rounds. The losses differ from client to client and are quadratic, with
full Hessians, unless a check says otherwise.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from claims.estimator import ROUNDING, deviation, hessian, stein
from hiso_bench import keys, methods
from hiso_bench.claims import Control, Evidence, Finding, check
from hiso_bench.directions import DirectionKey, Directions, InjectedDirections
from hiso_bench.federation import Federation, FederationOptions
from hiso_bench.points import Point
from hiso_bench.problems import Problem
from hiso_bench.stats import exact
from hiso_bench.testing import Quadratics, joined

ROUNDS = 30
KEY = 12
BITS = (0.0, 0.0)
"""Not one bit differs."""
UNKNOWN = float("nan")
"""The prediction of a control of which it is only known that the paths part."""


class Path(NamedTuple):
    """A run, round by round."""

    loss: NDArray[np.float64]
    """(ROUNDS + 1,): the mean over all clients."""
    x: NDArray[np.float64]
    """(ROUNDS + 1, d)."""
    h: NDArray[np.float64]
    """(ROUNDS + 1, d); empty without an H."""


def run(
    problem: Problem, method: str, directions: Directions | None = None, given: dict[str, Any] | None = None, **options
) -> Path:
    """A method's path on a problem. `given` are the method's options, `options` the federation's (all clients, wire float64)."""
    built = methods.build(method, {"lr": 0.05, "mu": 0.3, "perturbations": 3} | (given or {}))
    chosen = FederationOptions(**{"sampled": problem.clients, "wire": "float64", "key": KEY} | options)
    federation = Federation(problem, built, chosen, directions=directions)
    losses, xs, hs = [], [], []
    for r in range(ROUNDS + 1):
        losses.append(problem.evaluate(federation.state.x)["loss"])
        xs.append(joined(federation.state.x, problem.layout).numpy().copy())
        hs.extend(
            joined(federation.state.buffers[name], problem.layout).numpy().copy()
            for name in federation.state.buffers
            if name == "h"
        )
        if r < ROUNDS:
            federation.round()
    return Path(np.array(losses), np.array(xs), np.array(hs))


def clients(d: int, m: int, equal: bool = False, scale: float = 1.0) -> Quadratics:
    """Quadratics of m clients with definite full Hessians and one start; the first client does not depend on m."""
    which = [0] * m if equal else range(m)
    Ss = np.stack([hessian(d, client) + 0.1 * np.eye(d) for client in which])
    b = np.stack([keys.rng(keys.derive(KEY, "linear", client=client)).standard_normal(d) for client in which])
    return Quadratics(scale * Ss, scale * b, keys.rng(keys.derive(KEY, "start")).standard_normal(d))


# Padding: coordinates of which no loss depends


def _padding(method: str, tau: int, law: str = "gaussian", height: float = 0.0, given: dict[str, Any] | None = None) -> float:
    """Largest relative difference of the loss curves at d = 6 and with 94 more coordinates of curvature `height`."""
    small, more = clients(6, 3), 94
    Ss = np.zeros((3, 100, 100))
    Ss[:, :6, :6] = small.hessians
    Ss[:, range(6, 100), range(6, 100)] = height
    large = Quadratics(Ss, np.pad(small.linear, ((0, 0), (0, more))), np.pad(small.start, (0, more)))
    wide = Directions(large.layout, KEY, law, torch.float64)

    def live(key: DirectionKey) -> Point:
        """The same numbers: the first six of the wide draw, brought to radius sqrt(6) for the sphere."""
        u = wide.draw(key)[0][:6]
        return (u * (6 / u.square().sum()).sqrt() if law == "sphere" else u,)

    narrow = InjectedDirections(small.layout, live)
    paths = [run(p, method, z, given, local_steps=tau) for p, z in ((small, narrow), (large, wide))]
    return deviation(paths[1].loss, paths[0].loss)


@check("padding")
def padding() -> Finding:
    """Loss curves before and after the model is padded with coordinates that no loss depends on."""
    what = "largest relative difference of the loss curves at d = 6 and d = 100, %s, tau = %d"

    def measured(method: str, tau: int, **given) -> Evidence:
        told = " ".join([method, *(f"{option} {value}" for option, value in given.items())])
        return Evidence(what % (told, tau), exact(_padding(method, tau, given=given)), 0.0, ROUNDING)

    def broken(method: str, **more) -> Evidence:
        return Evidence(what % (method, 1), exact(_padding(method, 1, **more)), UNKNOWN, ROUNDING)

    return Finding(
        evidence=(
            measured("decomfl", 4),
            measured("decomfl", 1),
            measured("decomfl", 4, momentum=0.5),
            measured("hiso", 4),
        ),
        controls=(
            Control("flat -> curved coordinates (curvature 0.05)", "fails", broken("decomfl", height=0.05)),
            Control("gaussian -> sphere of radius sqrt(d)", "fails", broken("decomfl", law="sphere")),
            Control("H -> its mean over all coordinates", "fails", broken("hiso-scalar")),
        ),
    )


# Covariance: f -> c f


def _scaled(method: str, powers: dict[str, float], c: float = 3.0) -> tuple[float, float]:
    """Relative difference of the paths of f and c f with the options scaled by powers of c; and the power of c in H."""
    options: dict[str, Any] = {"lr": 0.05, "mu": 0.3}
    if method == "hiso":
        options |= {"h0": 1.0, "eps": 0.01}
    if method == "hiso-oracle":
        options |= {"h": torch.tensor([2.0, 0.5, 1.0], dtype=torch.float64), "eps": 0.0}
    scaled = options | {name: options[name] * c**power for name, power in powers.items()}
    pair = [given | ({"h": (given["h"],)} if "h" in given else {}) for given in (options, scaled)]
    one, other = (run(clients(3, 2, scale=s), method, None, g, local_steps=2) for s, g in zip((1.0, c), pair, strict=True))
    power = float(np.log(other.h[-1] / one.h[-1]).mean() / np.log(c)) if len(one.h) else 0.0
    return deviation(other.x, one.x), power


LEARNED = {"lr": -1 / 3, "mu": 1 / 3, "h0": 2 / 3, "eps": 2 / 3}
"""The powers of c with which HiSo's path on c f is its path on f: dx scales as c / H and H as dx^2, so H as c^(2/3)."""


@check("covariance")
def covariance() -> Finding:
    """Paths on f and on 3 f, with the options scaled by powers of 3."""

    def measured(method: str, rule: str, predicted: float = 0.0, **powers: float) -> Evidence:
        what = f"largest relative difference of the paths on f and 3 f, tau = 2, {method}, {rule}"
        return Evidence(what, exact(_scaled(method, powers)[0]), predicted, ROUNDING)

    return Finding(
        evidence=(
            measured("decomfl", "eta / 3", lr=-1),
            measured("hiso-oracle", "H x 3, mu x 3^1/2, eta unchanged", h=1, mu=1 / 2),
            measured("hiso", "eta / 3^1/3, mu x 3^1/3, H_0 and eps x 3^2/3", **LEARNED),
        ),
        controls=(
            Control("eta / 3 -> eta", "fails", measured("decomfl", "eta unchanged", UNKNOWN)),
            Control("HiSo's rule -> DeComFL's", "fails", measured("hiso", "eta / 3", UNKNOWN, lr=-1)),
            Control("HiSo's rule -> the oracle's", "fails", measured("hiso", "H_0, eps x 3", UNKNOWN, h0=1, eps=1, mu=1 / 2)),
        ),
    )


@check("h-units")
def units() -> Finding:
    """The power of c in the learned H when f becomes c f and the path of x stays the same."""
    what = "power of c in %s when f becomes c f, c = 3"
    one, other = stein(hessian(3), 0.3), stein(3 * hessian(3), 0.3)
    curvature = float(np.log(np.trace(other) / np.trace(one)) / np.log(3))
    return Finding(
        evidence=(Evidence(what % "the H learned by Eq 12", exact(_scaled("hiso", LEARNED)[1]), 2 / 3, (0.99, 1.01)),),
        controls=(
            Control(
                "squared steps -> second differences (Eq 11, Stein's form)",
                "holds",
                Evidence(what % "the diagonal", exact(curvature), 1.0, (0.99, 1.01)),
            ),
        ),
    )


@check("h-identity")
def identity() -> Finding:
    """HiSo with H held at I against DeComFL."""
    settings: list[tuple[dict[str, Any], dict[str, Any]]] = [
        ({}, {}),
        ({"difference": "central", "momentum": 0.5}, {"local_steps": 3}),
        ({"weight_decay": 0.01, "lr_decay": 0.1}, {"local_steps": 2, "independent": True, "law": "sphere"}),
        ({}, {"wire": "float32", "dropout": 0.3, "sampled": 2}),
    ]

    plain = [run(clients(4, 3), "decomfl", None, given, **options).x for given, options in settings]

    def gap(**held) -> float:
        paths = [run(clients(4, 3), "hiso", None, given | held, **options).x for given, options in settings]
        return max(float(np.abs(one - other).max()) for one, other in zip(paths, plain, strict=True))

    what = "largest difference of the paths of HiSo and DeComFL, four settings, %s"
    return Finding(
        evidence=(
            Evidence(what % "H never learned", exact(gap(freeze_after=0)), 0.0, BITS),
            Evidence(what % "H clipped to [1, 1]", exact(gap(clip_low=1.0, clip_high=1.0)), 0.0, BITS),
        ),
        controls=(
            Control("H = I -> learned", "fails", Evidence(what % "H learned", exact(gap()), UNKNOWN, BITS)),
            Control("H = I -> 2 I", "fails", Evidence(what % "H = 2 I", exact(gap(freeze_after=0, h0=2.0)), UNKNOWN, BITS)),
        ),
    )
