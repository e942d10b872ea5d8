"""The runner of the benchmarks: what is asked is answered, or it is recorded why not."""

import math
from dataclasses import replace

import pytest

pytest.importorskip("benchmarks", reason="the benchmarks are not part of an installed package")

from benchmarks import _record, _rows, _tables
from benchmarks._ask import Answers, Asking
from benchmarks._budget import BEST, Limit, Row, judge
from tests import benchmark_question
from tests.benchmark_question import QUESTION

MODULE = benchmark_question.__name__
QUIET = [].append


def ask(*places, rounds=2, limit=30.0):
    return Asking(MODULE, replace(QUESTION, limit=limit), QUIET).ask(rounds, places)


def answers(**medians):
    """What systems answered to case "one"."""
    told = Answers(replace(QUESTION, systems=dict.fromkeys(medians), yardsticks=frozenset({"limit"})))
    for system, figures in medians.items():
        told.rounds[system, "one"] = {number: {"units": figure} for number, figure in enumerate(figures, 1)}
    return told


def test_every_round_is_kept():
    """A system is measured once a round in each of its cases."""
    told = ask(("double", "one"), ("double", "two"))
    assert {1: 2.0, 2: 2.0} == told.of(("double", "one"))
    assert 4.0 == told.median(("double", "two"))
    assert {} == told.failures


def test_an_error_and_a_crash_are_answers():
    """A system that raises or dies is recorded as such, and the others are measured all the same."""
    told = ask(("fail", "one"), ("crash", "one"), ("double", "one"))
    assert {("fail", "one"): "ValueError: no 1", ("crash", "one"): "killed by SIGKILL"} == told.failures
    assert 2.0 == told.median(("double", "one"))


@pytest.mark.all
def test_a_hang_is_ended():
    """A measurement that takes longer than its limit is ended, and recorded."""
    told = ask(("hang", "one"), limit=1.0)
    assert {("hang", "one"): "no answer within 1 s"} == told.failures


def test_a_failure_in_one_case_leaves_the_others():
    """A system whose process was ended in one case is asked afresh in the next."""
    told = ask(("fail", "one"), ("fail", "two"))
    assert "ValueError: no 2" == told.failures["fail", "two"]


ROW = Row(what="it", question="any", case="one", limits=(), peers=("fast", "slow"))


@pytest.mark.parametrize(
    ("limit", "spent", "broken"),
    [
        (Limit(5.0), 4.0, False),
        (Limit(3.0), 4.0, True),
        (Limit(1.0, "slow"), 0.5, False),
        (Limit(1.0, BEST), 2.0, True),
        (Limit(1.0, ("slow", "one")), 0.5, False),
        (Limit(9.0, "never measured"), math.nan, True),
    ],
)
def test_a_limit_is_judged(limit, spent, broken):
    """Outright, by a peer or by another place. What has no figure is not kept."""
    verdict = judge(
        replace(ROW, limits=(limit,)), answers(parallelkit=[4.0], fast=[2.0], slow=[8.0], limit=[1.0])
    )
    assert "fast" == verdict.peer
    assert pytest.approx((spent,), nan_ok=True) == verdict.spent
    assert broken == verdict.broken


def test_ratios_are_of_the_same_round():
    """A machine that is slow for a round slows both: the ratio is the middle of those of each round."""
    assert 0.5 == answers(ours=[1.0, 9.0, 1.0], fast=[2.0, 18.0, 2.0]).ratio(("ours", "one"), ("fast", "one"))


@pytest.mark.all
def test_every_row_can_be_measured():
    """Each row of the budget names a question, systems, cases and peers that there are."""
    for row in _rows.ROWS:
        question = _record.question(row.question)
        for system, case in row.places():
            assert system in question.systems, row
            assert case in question.cases, row
        for limit in row.limits:
            assert limit.of in (None, BEST) or isinstance(limit.of, tuple) or limit.of in row.peers, row


def test_answers_survive_the_file(tmp_path, monkeypatch):
    """Answers that are saved are the same when they are loaded."""
    monkeypatch.setattr(_record, "RESULTS", tmp_path)
    monkeypatch.setattr(_record, "question", lambda name: QUESTION)
    told = Answers(QUESTION, {("double", "one"): {1: {"units": 1.0}, 2: {"units": 3.0}}})
    told.failures["hang", "one"] = "no answer within 1 s"
    _record.save("any", told, 2)

    read, file = _record.load("any")

    assert (told.rounds, told.failures) == (read.rounds, read.failures)
    assert {"median": 2.0, "rounds": [{"units": 1.0}, {"units": 3.0}]} == file["answers"]["double"]["one"]
    assert {"python", "parallelkit"} <= set(file["versions"])


def test_a_failure_stands_in_the_table():
    """A cell has the median with least and most, or why there is none."""
    told = Answers(QUESTION, {("double", "one"): {1: {"units": 1.0}, 2: {"units": 3.0}, 3: {"units": 2.0}}})
    told.failures["hang", "one"] = "no answer within 1 s"
    assert [
        ["units", "one", "two"],
        ["double", "2.00 (1.00–3.00)", ""],
        ["hang", "no answer within 1 s", ""],
    ] == _tables.comparison(told, "units")
