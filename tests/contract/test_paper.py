"""The texts: every number from results, what is missing is named, and the summary is two pages."""

import json
import math

import pandas as pd
import pytest

from hiso_bench import catalogue, records
from paper import build, learned_h, stale
from paper.sources import SourceError, Sources, interval, number

QUANTITIES = ("d", "n_eff", "off_diagonal", "max_r_5", "layers_5", "std_log_5", "noise_5")


@pytest.fixture
def fresh(tmp_path):
    """What `make figures` would have computed, with numbers of no meaning."""
    rows = [("digits MLP", 1, point, q, 1.5) for point in ("start", "later") for q in QUANTITIES]
    points = pd.DataFrame(rows, columns=["subject", "key", "point", "quantity", "value"])
    records.write(points, tmp_path / "stage_points.csv", {}, 1)
    gaps = pd.DataFrame({"subject": learned_h.ORACLE_GAPS, "arm": "oracle Hessian", "value": 1.25})
    records.write(gaps, tmp_path / "stage_gap.csv", {}, 1)
    return tmp_path


def test_the_summary_is_set_on_two_pages_from_what_is_recorded(fresh):
    pdf = build.build("learned_h", Sources(fresh=fresh))
    assert pdf.startswith(b"%PDF") and pdf == build.build("learned_h", Sources(fresh=fresh))
    assert b"/Type/Pages/Count 2/" in pdf


def test_its_numbers_are_those_of_the_tables(fresh):
    found = build.numbers("learned_h", Sources(fresh=fresh))
    json.dumps(found, allow_nan=False)
    assert [row[0] for row in found["claims"]] == [*learned_h.QUESTIONS, *learned_h.OURS]
    assert sum(int(found["verdicts"][kind]) for kind in ("holds", "conditional", "fails")) == 13
    assert ["i^-1", "1.2"] in found["gaps"] and "stage_gap" in found["sources"]
    table, _ = records.read(catalogue.RESULTS / "second_order.csv")
    part = table[(table["family"] == "i^-1.5") & (table["d"] == 1000) & (table["target"] == 0.01) & (table["geometry"] == "none")]
    mean = {arm: float(own["scalars"].map(math.log).mean()) for arm, own in part.groupby("arm")}
    assert found["saved"][0][2].startswith(number(math.exp(mean["decomfl"] - mean["curvature-1"])))


def test_what_is_missing_damaged_or_undecided_is_named(tmp_path, fresh):
    with pytest.raises(SourceError, match=r"table stage_points: .*make figures"):
        build.numbers("learned_h", Sources(fresh=tmp_path / "nowhere"))
    (fresh / "stage_gap.csv").write_text("subject,arm,value\n")
    with pytest.raises(SourceError, match="stage_gap.csv was changed"):
        build.numbers("learned_h", Sources(fresh=fresh))
    (tmp_path / "claims.json").write_text(json.dumps([{"id": "C1", "agrees": False, "verdict": "holds", "pinned": "fails"}]))
    with pytest.raises(SourceError, match="'C1': the verdict holds is not the pinned fails"):
        Sources(results=tmp_path).claim("C1")
    with pytest.raises(SourceError, match="'C2' is not in claims.json"):
        Sources(results=tmp_path).claim("C2")


@pytest.mark.parametrize(
    ("value", "told"),
    [(0.0, "0"), (1.234, "1.2"), (0.996, "1.0"), (12345.0, "12000"), (-0.00051, "-0.00051"), (2.5e-9, "2.5e-9")],
)
def test_numbers_have_two_digits(value, told):
    assert number(value) == told


def test_a_number_that_is_none_is_refused():
    assert interval(1.0, 0.5, 2.0) == "1.0 [0.50, 2.0]"
    with pytest.raises(SourceError, match="nan"):
        number(float("nan"))


def test_a_table_of_another_configuration_is_stale_and_one_that_only_has_more_is_not(tmp_path):
    recorded, about = records.read(catalogue.RESULTS / "second_order.csv")

    def refused(config, version=about["version"]):
        records.write(recorded, tmp_path / "second_order.csv", config, version)
        sources = Sources(fresh=tmp_path)
        sources.table("second_order")
        stale.check(sources)

    refused(about["config"])
    refused(about["config"] | {"cases": [*about["config"]["cases"], ["another"]]})
    with pytest.raises(
        SourceError, match=r"table second_order is stale \(keys: recorded 5, now 6\); `hiso-bench results second_order`"
    ):
        refused(about["config"] | {"keys": 5})
    with pytest.raises(SourceError, match="cases has other entries"):
        refused(about["config"] | {"cases": about["config"]["cases"][1:]})
    with pytest.raises(SourceError, match="cases has other entries"):  # one more is computed today, at the end
        refused(about["config"] | {"cases": about["config"]["cases"][:-1]})
    with pytest.raises(SourceError, match="version: recorded 0"):
        refused(about["config"], 0)
