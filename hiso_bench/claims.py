"""A claim, the evidence for it, and the verdict that follows.

A claim is a statement of a paper with its source and what would refute it (`claims/claims.toml`). Its check measures:
every piece of evidence is a number with an interval, beside the range in which the statement is true, fixed
beforehand. The verdict follows from the evidence by one rule; nobody writes it down. A check also carries controls:
the same measure with one named ingredient replaced, and the outcome that this must have. A control that comes out
otherwise leaves the claim undecided.
"""

from __future__ import annotations

import importlib
import math
import pkgutil
import time
import tomllib
import traceback
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal, get_args

from hiso_bench.stats import Interval

Outcome = Literal["holds", "fails", "undecided"]
Verdict = Literal["holds", "fails", "conditional", "undecided", "not_run"]


class CannotRunError(RuntimeError):
    """A check lacks something it needs (data, a device); the message says what. The claim is then `not_run`."""


@dataclass(frozen=True)
class Claim:
    """One entry of claims.toml.

    Attributes:
        id: the paper's open questions keep C1 ... C25; the others have short names.
        topic: the section of a page or a text that it stands in.
        statement: the paper's statement, in other words.
        source: paper and equation, theorem, table or figure number.
        setting: how it is posed so that it can be decided: family, start, noise, metric, step rule, regime.
        refuted_by: what result would refute it.
        verdict: the pinned verdict.
        why: why it fails, or the condition under which it holds, with the number that says so.
    """

    id: str
    topic: str
    statement: str
    source: str
    setting: str
    refuted_by: str
    verdict: Verdict
    why: str = ""

    def __post_init__(self) -> None:
        for name in ("id", "topic", "statement", "source", "setting", "refuted_by"):
            if not getattr(self, name).strip():
                raise ValueError(f"claim {self.id!r}: {name} is empty")
        if self.verdict not in get_args(Verdict):
            raise ValueError(f"claim {self.id!r}: verdict {self.verdict!r}; allowed: {', '.join(get_args(Verdict))}")
        if self.verdict != "holds" and not self.why.strip():
            raise ValueError(f"claim {self.id!r}: a pin other than holds says why")


@dataclass(frozen=True)
class Evidence:
    """One measured number.

    Attributes:
        what: what was measured and where (family, regime), with its unit.
        measured: value and interval; zero width for what was computed exactly.
        predicted: what exact theory says will be measured; NaN where it says nothing, or where the measurement is itself a
            calculation of the theory.
        allowed: the closed range in which the claim's statement is true, fixed beforehand.
    """

    what: str
    measured: Interval
    predicted: float
    allowed: tuple[float, float]

    @property
    def outcome(self) -> Outcome:
        """Holds if the whole interval is allowed, fails if none of it is (NaN counts as none)."""
        (_, low, high), (least, most) = self.measured, self.allowed
        if least <= low and high <= most:
            return "holds"
        return "undecided" if low <= most and least <= high else "fails"


@dataclass(frozen=True)
class Control:
    """The same measure with one named ingredient replaced.

    Attributes:
        ingredient: what was replaced by what.
        expected: the outcome that it must have, said beforehand.
        evidence: what came out.
    """

    ingredient: str
    expected: Literal["holds", "fails"]
    evidence: Evidence

    @property
    def worked(self) -> bool:
        """Whether it came out as expected."""
        return self.evidence.outcome == self.expected


@dataclass(frozen=True)
class Finding:
    """What a check found. The first piece of evidence is the headline; `needed` is the sample that would decide."""

    evidence: tuple[Evidence, ...]
    controls: tuple[Control, ...]
    needed: str = ""

    def __post_init__(self) -> None:
        if not self.evidence or not self.controls:
            raise ValueError("a finding needs evidence and a control")

    @property
    def verdict(self) -> Verdict:
        """All evidence holds, all fails, or some of each (conditional); undecided where evidence or a control does not work."""
        return "undecided" if self.reason else self._combined

    @property
    def reason(self) -> str:
        """Why there is no verdict; empty if there is one."""
        open_ = [e.what for e in self.evidence if e.outcome == "undecided"]
        if open_:
            return f"the interval is neither inside nor outside what is allowed: {'; '.join(open_)}. {self.needed}".strip()
        bad = [f"{c.ingredient}: expected {c.expected}, {c.evidence.outcome}" for c in self.controls if not c.worked]
        if bad:
            return f"a control did not come out as predicted: {'; '.join(bad)}"
        if self._combined != "conditional" and all(c.expected == self._combined for c in self.controls):
            return f"no control could have come out otherwise than the evidence ({self._combined})"
        return ""

    @property
    def _combined(self) -> Verdict:
        outcomes: set[Verdict] = {e.outcome for e in self.evidence}
        return outcomes.pop() if len(outcomes) == 1 else "conditional"


Check = Callable[[], Finding]
_CHECKS: dict[str, Check] = {}


def check(id_: str) -> Callable[[Check], Check]:
    """Register the check of a claim.

    Raises:
        ValueError: the claim has one already.
    """

    def register(function: Check) -> Check:
        if id_ in _CHECKS and _CHECKS[id_].__qualname__ != function.__qualname__:
            raise ValueError(f"claim {id_!r} has two checks: {_CHECKS[id_].__qualname__}, {function.__qualname__}")
        _CHECKS[id_] = function
        return function

    return register


def read_claims(path: Path) -> tuple[Claim, ...]:
    """The claims of a TOML file.

    Raises:
        ValueError: an entry with an unknown or missing field, an id twice, or a pin that is not a verdict.
    """
    allowed = [field.name for field in fields(Claim)]
    found = []
    for entry in tomllib.loads(path.read_text()).get("claim", []):
        unknown = sorted(set(entry) - set(allowed))
        if unknown:
            raise ValueError(f"claim {entry.get('id')!r}: unknown field {unknown[0]!r}; allowed: {', '.join(allowed)}")
        try:
            found.append(Claim(**entry))
        except TypeError as error:
            raise ValueError(f"claim {entry.get('id')!r}: {error}") from error
    ids = [claim.id for claim in found]
    twice = sorted({id_ for id_ in ids if ids.count(id_) > 1})
    if twice:
        raise ValueError(f"claim {twice[0]!r} stands twice in {path.name}")
    return tuple(found)


def load_checks(package: str = "claims") -> dict[str, Check]:
    """Import every module of the package; the checks they register, by id."""
    folder = importlib.import_module(package)
    for module in pkgutil.iter_modules(folder.__path__):
        importlib.import_module(f"{package}.{module.name}")
    return dict(_CHECKS)


def decide(claim: Claim, run: Check) -> dict[str, Any]:
    """Run a check; what results/claims.json holds of it. An error inside the check is told, and decides nothing.

    Returns:
        id, topic, source, statement, setting, refuted_by, prediction, measured, low, high, verdict, pinned, agrees, why,
        reason, control (the first), controls, evidence, seconds. The headline numbers are None if the check gave none.
    """
    started = time.perf_counter()
    finding, verdict, reason = None, "undecided", ""
    try:
        finding = run()
        verdict, reason = finding.verdict, finding.reason
    except CannotRunError as error:
        verdict, reason = "not_run", str(error)
    except Exception as error:  # noqa: BLE001 - whatever a check raises, the other claims are still decided
        place = traceback.extract_tb(error.__traceback__)[-1]
        reason = f"the check raised {type(error).__name__}: {error} ({Path(place.filename).name}:{place.lineno})"
    evidence = [_told(e) for e in finding.evidence] if finding else []
    controls = (
        [{"ingredient": c.ingredient, "expected": c.expected, "worked": c.worked} | _told(c.evidence) for c in finding.controls]
        if finding
        else []
    )
    head = evidence[0] if evidence else {}
    return {
        "id": claim.id,
        "topic": claim.topic,
        "source": claim.source,
        "statement": claim.statement,
        **{name: head.get(name) for name in ("prediction", "measured", "low", "high")},
        "verdict": verdict,
        "pinned": claim.verdict,
        # What could not be run says nothing against its pin.
        "agrees": verdict in ("not_run", claim.verdict),
        "why": claim.why,
        "reason": reason,
        "control": controls[0] if controls else None,
        "seconds": round(time.perf_counter() - started, 2),
        "setting": claim.setting,
        "refuted_by": claim.refuted_by,
        "evidence": evidence,
        "controls": controls,
    }


def _told(e: Evidence) -> dict[str, Any]:
    numbers = {"prediction": e.predicted, "measured": e.measured.value, "low": e.measured.low, "high": e.measured.high}
    told = {name: _json(value) for name, value in numbers.items()}
    return {"what": e.what, **told, "allowed": [_json(bound) for bound in e.allowed], "outcome": e.outcome}


def _json(number: float) -> float | str | None:
    """JSON has no infinity, which is written as text, and no NaN, which is written as null."""
    return None if math.isnan(number) else float(number) if math.isfinite(number) else str(float(number))
