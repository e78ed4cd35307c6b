"""The tables of benchmarks/README.md are those of the recorded numbers, and a device that nothing was run on says so."""

import json

import pytest

from benchmarks import llm, llm_cases, round, theory
from hiso_bench import catalogue

README = (catalogue.ROOT / "benchmarks" / "README.md").read_text()


@pytest.mark.parametrize(
    ("bench", "file", "start", "end"),
    [
        (round, "bench.json", "<!-- table -->\n", "<!-- end of table -->"),
        (theory, "bench_theory.json", "<!-- theory -->\n", "<!-- end of theory -->"),
        (llm, "bench_llm.json", llm.START, llm.END),
    ],
    ids=["round", "theory", "llm"],
)
def test_the_tables_are_those_of_the_recorded_numbers(bench, file, start, end):
    found = json.loads((catalogue.RESULTS / file).read_text())
    assert README.split(start)[1].split(end)[0] == bench.table(found)


def test_a_device_that_nothing_was_run_on_says_so():
    told = llm.table({}).splitlines()
    for case in (*llm_cases.CPU, *llm_cases.CUDA):
        assert any(line.startswith(f"| {case.name}, {case.device} ") and "not run" in line for line in told)


def test_a_case_is_timed_over_its_floor_and_bounded_by_its_memory_estimate():
    case = llm_cases.Case(llm_cases.Shape("narrow", 64, 16, 1, 2), 1, tokens=4)
    kept, regenerated = llm.timed(case, 2, None, llm.tqdm(disable=True))
    assert (kept["directions"], regenerated["directions"]) == llm.SUBJECTS
    assert kept["ratio_low"] <= kept["ratio"] <= kept["ratio_high"] and kept["floor_seconds"] > 0
    json.dumps([kept, regenerated])
