"""Runs the fault catalogue: by default its core, in one interpreter; in ``make test-all`` every case in its own."""

import json

import pytest
from catalogue import CASES
from judge import Stage, judge_alone
from outside import skip_if_no_threads

KNOWN: dict[str, str] = {}
"""Cases that are known to fail, by id, with the reason."""


@pytest.fixture(scope="module")
def stage():
    stage = Stage()
    assert stage.enter()  # now: what it starts for itself is left behind by no case
    yield stage
    assert [] == stage.close()


def as_params(cases, *marks):
    known = [
        pytest.mark.xfail(strict=True, reason=KNOWN[case.id]) if case.id in KNOWN else None for case in cases
    ]
    return [
        pytest.param(case, id=case.id, marks=[*marks, *filter(None, [fails])])
        for case, fails in zip(cases, known, strict=True)
    ]


@pytest.mark.parametrize("case", as_params([case for case in CASES if case.core and not case.covered]))
def test_fault_costs_its_own_task(stage, case):
    """The bad task has the right outcome, all others have their values and ran once, and nothing is left behind."""
    assert [] == stage.judge(case)


@pytest.mark.parametrize("case", as_params(CASES, pytest.mark.all))
def test_fault_in_a_fresh_interpreter(case):
    """The same holds in an interpreter that runs nothing else, which then exits in time."""
    if case.caller == "shutdown":
        skip_if_no_threads("in an exit handler")
    assert [] == judge_alone(case)


def test_catalogue_is_large_and_has_no_doubles():
    """The catalogue has at least ninety cases, with unique names."""
    names = [case.id for case in CASES]
    assert len(names) == len(set(names)) >= 90
    assert set(KNOWN) <= set(names)


def test_the_table_of_other_libraries_has_the_core():
    """docs/reliability.md has a row for each core case that other libraries can run; ``python -m benchmarks.faults`` renews it."""
    table = pytest.importorskip(
        "benchmarks.faults._table", reason="the benchmarks are not part of an installed package"
    )
    kept = json.loads((table.ROOT / "benchmarks" / "results" / "faults.json").read_text())
    assert set(kept["told"]) == {case.id for case in table.cases()}
