"""That the exact recursion is what the core does, round by round: every other exact number here rests on it."""

from __future__ import annotations

from dataclasses import replace

from hiso_bench import keys
from hiso_bench.claims import Control, Evidence, Finding, check
from hiso_bench.stats import Interval, mean_interval
from synthetic.expected import FAMILIES, KEY, REGIMES, Case, case, exact, simulate

ALLOWED = (0.9, 1.1)
REPLICATES = 1000
LAST = "simulated mean loss over the exact E f after 80 rounds"


def ratio(one: Case, name: str, run: Case | None = None) -> Interval:
    """The mean loss of `run` (the case itself by default) over the case's exact expectation."""
    samples = simulate(run or one, keys.derive(KEY, f"claim {name}"), REPLICATES)[0]
    return mean_interval(samples / exact(one).loss[-1])


@check("recursion")
def recursion() -> Finding:
    """Simulated over exact expected loss on six families of spectra, without noise and with noise and different clients."""
    evidence = []
    for family in FAMILIES:
        for regime in REGIMES:
            what = f"{LAST}, {family}, {regime}"
            evidence.append(Evidence(what, ratio(case(family, regime), f"{family} {regime}"), 1.0, ALLOWED))
    given = replace(case("power", "noise-free"), h_eps=0.1)
    evidence.append(Evidence(f"{LAST}, power, noise-free, H = S + 0.1", ratio(given, "given H"), 1.0, ALLOWED))
    return Finding(
        evidence=tuple(evidence),
        controls=(
            _control("four directions a round, not five", "flat", "noise-free", P=4),
            _control("three of four clients sampled, not two", "flat", "noisy", sampled=3),
            _control("every gradient noise left out", "rotated", "noisy", without="noise"),
        ),
        needed="more replicates: the half width falls with the root of their number",
    )


def _control(ingredient: str, family: str, regime: str, without: str = "", **options: int) -> Control:
    """The simulation with one ingredient replaced, at the same learning rate, over the same exact expectation."""
    one = case(family, regime)
    problem = {name: value for name, value in one.problem.items() if name != without}
    other = replace(one, lr=one.eta, problem=problem, **options)
    measured = ratio(one, ingredient, other)
    predicted = exact(other).loss[-1] / exact(one).loss[-1]
    return Control(ingredient, "fails", Evidence(f"{LAST}, {family}, {regime}", measured, predicted, ALLOWED))
