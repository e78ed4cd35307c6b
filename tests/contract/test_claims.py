"""Claims: the verdict follows from the evidence alone, and every claim has its check."""

import json
from dataclasses import replace

import pytest

from hiso_bench import catalogue, verdicts
from hiso_bench.claims import CannotRunError, Claim, Control, Evidence, Finding, decide, read_claims
from hiso_bench.cli import main
from hiso_bench.commands import verify
from hiso_bench.stats import Interval, exact

CLAIM = Claim("a-claim", "a topic", "f is one", "paper, Eq 1", "at once", "another number", "holds")
INSIDE, OUTSIDE, ACROSS = exact(1.0), exact(2.0), Interval(1.0, 0.5, 1.05)


def evidence(measured=INSIDE):
    return Evidence("f", measured, 1.0, (0.9, 1.1))


def finding(*measured, control=OUTSIDE, expected="fails"):
    return Finding(tuple(evidence(m) for m in measured), (Control("f replaced by 2 f", expected, evidence(control)),))


def test_every_claim_has_a_check_and_every_check_a_claim():
    assert set(catalogue.claims()) == set(catalogue.checks())


@pytest.mark.parametrize(
    ("measured", "verdict"),
    [((INSIDE,), "holds"), ((INSIDE, INSIDE), "holds"), ((INSIDE, OUTSIDE), "conditional"), ((ACROSS,), "undecided"),
     ((INSIDE, ACROSS), "undecided"), ((OUTSIDE, ACROSS), "undecided")],
)  # fmt: skip
def test_verdict_follows_from_the_evidence(measured, verdict):
    assert finding(*measured).verdict == verdict


def test_claim_that_fails_needs_a_control_that_holds():
    assert finding(OUTSIDE, control=INSIDE, expected="holds").verdict == "fails"
    found = finding(OUTSIDE, control=OUTSIDE, expected="fails")
    assert found.verdict == "undecided" and "no control could have come out otherwise" in found.reason


@pytest.mark.parametrize("control", [INSIDE, ACROSS])
def test_control_that_does_not_fail_leaves_the_claim_undecided(control):
    found = finding(INSIDE, control=control)
    assert found.verdict == "undecided" and "f replaced by 2 f" in found.reason


def test_what_is_not_a_number_is_not_allowed():
    assert evidence(exact(float("nan"))).outcome == "fails"
    assert decide(CLAIM, lambda: finding(exact(float("nan")), control=INSIDE, expected="holds"))["measured"] is None
    assert Evidence("f", Interval(1.0, float("nan"), 1.0), 1.0, (0, 2)).outcome == "fails"


def test_interval_that_touches_what_is_allowed_from_outside_is_undecided():
    assert evidence(Interval(1.2, 1.1, 1.3)).outcome == "undecided"
    assert evidence(Interval(1.2, 1.10001, 1.3)).outcome == "fails"


@pytest.mark.parametrize("parts", [((), (Control("x", "fails", evidence(OUTSIDE)),)), ((evidence(),), ())])
def test_finding_needs_evidence_and_a_control(parts):
    with pytest.raises(ValueError, match="needs evidence and a control"):
        Finding(*parts)


def test_decide_tells_what_a_check_raised_and_what_it_lacks():
    def broken():
        raise ZeroDivisionError("by zero")

    def lacking():
        raise CannotRunError("needs a GPU")

    told = decide(CLAIM, broken)
    assert (told["verdict"], told["agrees"]) == ("undecided", False) and "ZeroDivisionError: by zero" in told["reason"]
    told = decide(CLAIM, lacking)
    assert (told["verdict"], told["agrees"], told["reason"]) == ("not_run", True, "needs a GPU")


def test_decide_writes_every_field_as_json():
    told = decide(CLAIM, lambda: finding(exact(float("inf")), control=INSIDE, expected="holds"))
    told = json.loads(json.dumps(told, allow_nan=False))
    fields = {"id", "source", "statement", "prediction", "measured", "low", "high", "verdict", "pinned", "control", "seconds"}
    assert fields <= set(told)
    assert (told["measured"], told["verdict"], told["agrees"]) == ("inf", "fails", False)
    assert told["control"]["worked"]


ENTRY = '[[claim]]\nid = "a"\ntopic = "o"\nstatement = "s"\nsource = "p"\nsetting = "t"\nrefuted_by = "r"\nverdict = "holds"\n'


@pytest.mark.parametrize(
    ("text", "message"),
    [(ENTRY + ENTRY, "'a' stands twice"), (ENTRY + 'extra = "x"\n', "unknown field 'extra'; allowed: id"),
     (ENTRY.replace('"holds"', '"maybe"'), "verdict 'maybe'; allowed: holds, fails"),
     (ENTRY.replace('"holds"', '"fails"'), "says why"), (ENTRY.replace('source = "p"\n', ""), "source"),
     (ENTRY.replace('"t"', '" "'), "setting is empty")],
)  # fmt: skip
def test_bad_entry_is_refused(tmp_path, text, message):
    (tmp_path / "claims.toml").write_text(text)
    with pytest.raises(ValueError, match=message):
        read_claims(tmp_path / "claims.toml")


@pytest.fixture
def two_claims(monkeypatch):
    claims = {"a-claim": CLAIM, "b-claim": replace(CLAIM, id="b-claim")}
    checks = {"a-claim": lambda: finding(INSIDE), "b-claim": lambda: finding(OUTSIDE, control=INSIDE, expected="holds")}
    monkeypatch.setattr(verify.catalogue, "claims", lambda: claims)
    monkeypatch.setattr(verify.catalogue, "checks", lambda: checks)


def test_verify_fails_if_a_verdict_differs_from_its_pin(two_claims, tmp_path, capsys):
    assert main(["verify", "a-claim", "--jobs", "1"]) == 0
    assert main(["verify", "--jobs", "1", "--out", str(tmp_path / "c.json")]) == 1
    text = capsys.readouterr().out
    recorded = json.loads((catalogue.RESULTS / "claims.json").read_text())
    assert max(map(len, verdicts.table(recorded).splitlines())) <= 80
    assert "pinned holds" in text and "2 claims: 1 holds, 1 fails; 1 differ from their pin" in text
    assert [f["verdict"] for f in json.loads((tmp_path / "c.json").read_text())] == ["holds", "fails"]


def test_verify_says_before_it_starts_how_long_it_will_take(two_claims, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(verify.catalogue, "RESULTS", tmp_path)
    (tmp_path / "claims.json").write_text(json.dumps([{"id": "a-claim", "seconds": 100}, {"id": "b-claim", "seconds": 20}]))
    main(["verify", "--jobs", "1", "--out", str(tmp_path / "c.json")])
    assert "2 claims: about 2 min in 1 process(es)" in capsys.readouterr().err
    main(["verify", "b-claim", "--jobs", "1"])
    assert "about" not in capsys.readouterr().err


def test_verify_names_an_unknown_claim(two_claims, capsys):
    assert main(["verify", "c-claim"]) == 2
    assert "claim 'c-claim' is unknown; did you mean " in capsys.readouterr().err


def test_verify_of_some_claims_writes_nothing_unless_asked(two_claims, tmp_path, monkeypatch):
    monkeypatch.setattr(verify.catalogue, "RESULTS", tmp_path)
    main(["verify", "a-claim", "--jobs", "1"])
    assert list(tmp_path.iterdir()) == []


def test_page_beside_the_findings_holds_every_claim_and_number(two_claims, tmp_path):
    main(["verify", "--jobs", "1", "--out", str(tmp_path / "c.json")])
    text = (tmp_path / "c.md").read_text()
    assert "**A topic**" in text and "## a-claim" in text and "## b-claim" in text
    assert "| f | 1 | 2 | exact | 0.9 to 1.1 | fails |" in text
    assert "| control, f replaced by 2 f: f | 1 | 1 | exact | 0.9 to 1.1 | holds (holds expected) |" in text
