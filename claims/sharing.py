"""What sharing directions, keys and scalars between clients amounts to: directions of one's own, more clients, absence."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from claims.estimator import ROUNDING, deviation
from claims.identities import BITS, KEY, ROUNDS, UNKNOWN, clients, run
from hiso_bench import keys, methods
from hiso_bench.audit import Client
from hiso_bench.claims import Control, Evidence, Finding, check
from hiso_bench.directions import DirectionKey, Directions, InjectedDirections
from hiso_bench.federation import Federation, FederationOptions
from hiso_bench.points import Point
from hiso_bench.stats import exact
from hiso_bench.testing import federation_over, smolyak, take_round
from hiso_bench.theory import moments
from synthetic.quadratic import Quadratic


def _own_directions(method: str, m: int = 3, P: int = 2, equal: bool = True, independent: bool = True, tau: int = 1) -> float:
    """Relative difference of the paths of m clients with P directions and of one client with those m P."""
    many, alone = clients(3, m, equal), clients(3, 1, equal=True)
    drawn = Directions(many.layout, KEY, "gaussian", torch.float64)

    def look_up(key: DirectionKey) -> Point:
        return drawn.draw(DirectionKey(key.round, key.step, key.p % P, key.p // P))

    one = run(alone, method, InjectedDirections(alone.layout, look_up), {"perturbations": m * P}, local_steps=tau)
    return deviation(run(many, method, None, {"perturbations": P}, independent=independent, local_steps=tau).x, one.x)


def _second_moment(m: int, P: int, independent: bool) -> NDArray[np.float64]:
    problem, rule = clients(2, m, equal=True), smolyak(2 * P * (m if independent else 1))
    dx = take_round(
        federation_over(rule, problem, methods.build("decomfl", lr=1.0, mu=0.3, perturbations=P), independent=independent)
    )
    return dx.T @ (rule.weights[:, None] * dx)


@check("p-eff")
def effective() -> Finding:
    """Equal clients with directions of their own against one client with all of them."""
    run_ = "largest relative difference of the paths of 3 clients x 2 directions and 1 x 6, %s"
    moment = "relative difference of E dx dx', 3 clients x 1 direction against 1 x 3"
    own, together = (_second_moment(3, 1, independent) for independent in (True, False))
    single = _second_moment(1, 3, False)
    alone = clients(2, 1)
    one, three = (moments.second_moment(alone.gradients[0], np.ones(2), alone.hessians[0], 0.3, P) for P in (1, 3))

    def broken(ingredient: str, what: str, **more) -> Control:
        return Control(ingredient, "fails", Evidence(run_ % what, exact(_own_directions("decomfl", **more)), UNKNOWN, ROUNDING))

    return Finding(
        evidence=(
            Evidence(moment, exact(deviation(own, single)), 0.0, ROUNDING),
            Evidence(run_ % "decomfl", exact(_own_directions("decomfl")), 0.0, ROUNDING),
            Evidence(run_ % "hiso", exact(_own_directions("hiso")), 0.0, ROUNDING),
        ),
        controls=(
            broken("own -> shared directions", "shared", independent=False),
            broken("equal -> different clients", "different", equal=False),
            broken("one -> two local steps", "tau = 2", tau=2),
            Control(
                "own -> shared directions",
                "fails",
                Evidence(moment, exact(deviation(together, single)), deviation(one, three), ROUNDING),
            ),
        ),
    )


@check("shared-m")
def shared() -> Finding:
    """Paths of 1, 2, 4 and 8 sampled clients out of 8 equal ones without noise, with shared directions."""

    def gap(method: str, ms: tuple[int, ...], noise: float = 0.0, **options) -> float:
        problem = Quadratic(20, "power", 1.0, clients=8, noise=noise)
        paths = [run(problem, method, None, None, sampled=m, **options).x for m in (1, *ms)]
        return max(deviation(path, paths[0]) for path in paths[1:])

    what = "largest relative difference of the paths of m = 1 and m = %s, %s"
    powers = (2, 4, 8)  # means of 2, 4 or 8 equal numbers round to the number
    return Finding(
        evidence=(
            Evidence(what % ("2, 4, 8", "decomfl"), exact(gap("decomfl", powers)), 0.0, BITS),
            Evidence(what % ("2, 4, 8", "hiso, tau = 3"), exact(gap("hiso", powers, local_steps=3)), 0.0, BITS),
            Evidence(what % ("3, 7", "decomfl"), exact(gap("decomfl", (3, 7))), 0.0, ROUNDING),
        ),
        controls=(
            Control(
                "shared -> own directions",
                "fails",
                Evidence(what % (8, "own"), exact(gap("decomfl", (8,), independent=True)), UNKNOWN, BITS),
            ),
            Control(
                "no noise -> gradient noise",
                "fails",
                Evidence(what % (8, "noise"), exact(gap("decomfl", (8,), 0.5)), UNKNOWN, BITS),
            ),
        ),
    )


# Absence


def _strangers(method: str, shift: int = 0, frozen: bool = False, patterns: int = 8) -> float:
    """Share of visits after which a client's state is not the server's in some bit; `shift`: by how many rounds it is off."""
    problem = Quadratic(12, "power", 1.0, clients=6, heterogeneity=0.3, noise=0.05)
    given = {"lr": 0.05, "mu": 1e-3, "perturbations": 3, "momentum": 0.5}
    options = FederationOptions(sampled=3, local_steps=2, key=KEY)
    federation = Federation(problem, methods.build(method, given), options)
    stands = [federation.state.fingerprint()]
    for _ in range(ROUNDS + shift):
        federation.round()
        stands.append(federation.state.fingerprint())
    differ = []
    for pattern in range(patterns):
        client = Client(problem, methods.build(method, given | ({"freeze_after": 0} if frozen else {})), options)
        present = keys.rng(keys.derive(KEY, "pattern", number=pattern)).random(ROUNDS) < 0.3
        for r in [*np.flatnonzero(present), ROUNDS]:
            first = client.state.round
            missed = federation.ledger.updates(first + shift, int(r) + shift)
            client.receive(federation.wire.encode_downlink(int(r), first, missed))
            if r:
                differ.append(client.state.fingerprint() != stands[r])
    return float(np.mean(differ))


@check("late-joiner")
def late() -> Finding:
    """States of clients that were absent in random patterns and replayed keys and scalars, against the server's."""
    what = "share of visits (8 patterns of absence, 30 rounds) after which x, H or momentum differs in a bit, %s"
    names = ("hiso", "decomfl", "hiso-a", "hiso-b", "hiso-d", "hiso-e", "hiso-f")
    return Finding(
        evidence=tuple(Evidence(what % name, exact(_strangers(name)), 0.0, BITS) for name in names),
        controls=(
            Control(
                "the missed rounds -> those one later", "fails", Evidence(what % "hiso", exact(_strangers("hiso", 1)), 1.0, BITS)
            ),
            Control(
                "H replayed -> H left at I", "fails", Evidence(what % "hiso", exact(_strangers("hiso", frozen=True)), 1.0, BITS)
            ),
        ),
    )
