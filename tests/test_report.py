"""The report as text, and the figures behind it."""

import re
import time
from functools import partial
from math import inf
from timeit import repeat

import pytest
from planted import BEGAN, cut_off, fail, plant, retry

from parallelkit import RateLimit, Results, Task, run_parallel
from parallelkit._ledger import Ledger
from parallelkit._lost import Lost
from parallelkit._report._failures import VARIABLE, kinds_of_failure, shape
from parallelkit._report._html import page
from parallelkit._report._lanes import all_bars
from parallelkit._report._summary import survey
from parallelkit.testing import inline_runs


def lines_of(ledger, **options):
    return Results(ledger).report(**options).splitlines()


def line_with(ledger, text, **options):
    """The one line that contains this text."""
    (line,) = [line.strip() for line in lines_of(ledger, **options) if text in line]
    return line


def part(ledger, title, **options):
    """The lines of one part of the report, without its title."""
    lines = lines_of(ledger, **options)
    first = lines.index(title) + 1
    return lines[first : lines.index("", first) if "" in lines[first:] else None]


# Figures


def test_busy_is_the_sum_of_all_attempts():
    """Busy time includes attempts that failed, were retried or were cut off."""
    ledger = plant([1.0, 2.0, 3.0, 4.0], workers=4)
    retry(ledger, 0, ValueError("again"), 0.5)
    fail(ledger, 1, ValueError("no"))
    cut_off(ledger, [3], "Ctrl-C")
    summary = survey(ledger).summary
    assert 10.0 == summary.busy
    assert (4, 2, 1, 1, 5, 1) == (
        summary.tasks,
        summary.succeeded,
        summary.failed,
        summary.cancelled,
        summary.attempts,
        summary.retried,
    )
    assert 10.0 / 4.0 == summary.parallelism


def test_the_longest_task_counts_all_its_attempts():
    """The longest task counts all its attempts: one failed second and two more are three."""
    ledger = plant([2.5, 3.0])
    retry(ledger, 1, ValueError("again"), 1.0)
    assert 3.0 == survey(ledger).summary.longest


def test_a_task_that_never_began_is_no_attempt():
    """A task that never began, because it was cancelled or could not be sent, counts no attempt."""
    ledger = plant([1.0, 0.0, 0.0])
    ledger.try_again(0, Lost(TimeoutError("no worker came up"), 0, None, BEGAN, None))
    ledger.cancel([1], {})
    fail(ledger, 2, TypeError("cannot be pickled"))
    ledger.failed[2].started = None
    summary = survey(ledger).summary
    assert (1, 1.0) == (summary.attempts, summary.busy)


def test_an_attempt_that_waited_for_its_next_one_is_counted_once():
    """The attempt of a task that a stop finds waiting for its retry is counted once."""
    ledger = plant([1.0])
    retry(ledger, 0, ValueError("again"), 0.5)
    _, lost = ledger.tried[0]
    ledger.cancel([0], {0: lost})
    ledger.started[0] = ledger.ended[0] = 0.0
    assert (1, 0.5) == (survey(ledger).summary.attempts, survey(ledger).summary.busy)


def test_the_summary_agrees_with_the_log_of_attempts():
    """The summary of a real run with failures and retries agrees with its log of attempts."""
    fails = {3, 5}

    def flaky(item):
        if item in fails:
            fails.discard(item)
            raise OSError("again")
        if item == 7:
            raise ValueError("no")

    results = run_parallel(flaky, range(10), retries=1, max_workers=3)
    attempts = results.attempts
    assert len(attempts) == results.summary.attempts == 13
    assert sum(attempt.duration for attempt in attempts) == pytest.approx(results.summary.busy)


# Counts and times


def test_the_report_begins_with_the_counts():
    """The report begins with the counts of tasks by fate, and the number of retries."""
    ledger = plant([1.0] * 5)
    assert "5 tasks: 5 succeeded, 0 failed" == lines_of(ledger)[0]

    retry(ledger, 0, ValueError("again"), 0.5)
    fail(ledger, 1, ValueError("no"))
    cut_off(ledger, [2, 3], "max_failures of 1 reached")
    lines = lines_of(ledger)
    assert "5 tasks: 2 succeeded, 1 failed, 2 cancelled; 1 retry" == lines[0]
    assert "stopped: max_failures of 1 reached" == lines[1]


def test_the_report_of_a_healthy_run_says_nothing_else():
    """Without failure, stop or advice, a report has counts, times and the slowest tasks; of a run of no time, the counts."""
    assert [
        "2 tasks: 2 succeeded, 0 failed",
        "executor threads, 2 workers",
        "",
        "wall 1.00 s, busy 1.75 s: ran 1.8 at a time",
        "longest task 1.00 s, 100 % of the wall time",
        "",
        "slowest tasks",
        "     1.00 s  a",
        "     750 ms  b",
    ] == lines_of(plant([1.0, 0.75], 2, keys=["a", "b"]))
    assert ["wall 0 s, busy 0 s: ran 0.0 at a time"] == lines_of(plant([0.0]))[3:]
    part(plant([0.8] * 80, cpu_seconds=8.0), "advice")


def test_the_report_says_how_much_ran_at_a_time():
    """The report says how much ran at a time, and does not call it a speedup, which contention would falsify."""
    ledger = plant([1.0] * 32 + [2.0])
    assert "wall 6.00 s, busy 34.0 s: ran 5.7 at a time" == line_with(ledger, "busy")
    assert "longest task 2.00 s, 33 % of the wall time" == line_with(ledger, "longest")
    assert "speedup" not in "".join(lines_of(ledger))


def test_the_report_says_when_the_first_task_began_if_that_was_late():
    """Workers that import a library for a quarter of the run are why less ran at a time than there are workers."""
    ledger = plant([1.0] * 6, 2)
    assert "began" not in "".join(lines_of(ledger))
    ledger.facts.began_at -= 1.0
    assert "the first task began after 1.00 s" == line_with(ledger, "began")


def test_a_task_that_began_at_the_instant_0_has_begun():
    """On a fake clock, the first task may begin at the instant 0, which is not the same as never."""
    with inline_runs() as clock:
        results = run_parallel(clock.advance, [1, 1], limits=RateLimit(1, per=5))
    assert "began" not in results.report()


def test_how_little_ran_at_a_time_is_no_long_figure():
    """A very small parallelism is shown as below 0.01, not with many zeros."""
    ledger = plant([0.0001], ended_at=BEGAN + 1)
    assert "wall 1.00 s, busy 100 µs: ran < 0.01 at a time" == line_with(ledger, "busy")
    assert "ran &lt; 0.01 at a time" in Results(ledger)._repr_html_()
    assert "&lt; 0.01" in page(ledger)


def test_an_inline_run_says_that_timeouts_are_not_enforced():
    """The report of an inline run says that timeouts are not enforced, even if the run has none: a Task may have one."""
    results = run_parallel([Task(abs, -1, timeout=1)], executor="inline")
    assert "timeouts are not enforced" in results.report()
    assert "timeouts" not in run_parallel([Task(abs, -1, timeout=1)]).report()


def test_a_run_of_nothing_has_a_report():
    """An empty run has a report."""
    assert "0 tasks: 0 succeeded, 0 failed" == Results(Ledger()).report().splitlines()[0]
    assert "0 tasks: 0 succeeded, 0 failed" == run_parallel(abs, []).report(0.03).splitlines()[0]


def test_the_slowest_tasks_are_named():
    """The five slowest tasks are named, slowest first, with what is special about each."""
    ledger = plant([0.1, 0.5, 0.2, 0.9, 0.3, 0.4, 0.7], keys=list("abcdefg"))
    retry(ledger, 3, ValueError("again"), 0.3)
    fail(ledger, 6, ValueError("no"), number=2)
    cut_off(ledger, [5], "Ctrl-C")
    assert [
        ["900", "ms", "d", "succeeded", "after", "2", "attempts"],
        ["700", "ms", "g", "failed", "after", "2", "attempts"],
        ["500", "ms", "b"],
        ["400", "ms", "f", "cancelled"],
        ["300", "ms", "e"],
    ] == [line.split() for line in part(ledger, "slowest tasks")]


# Failures


def test_failures_are_grouped_by_kind():
    """Failures, also of retried attempts, are grouped by type and shape of message, with counts and a few keys."""
    ledger = plant([0.1] * 20, keys=[f"host-{number}" for number in range(20)])
    for index in range(5):
        fail(ledger, index, ConnectionError(f"host-{index}:80 refused after {index}.5 s"))
    fail(ledger, 5, ValueError("host-5:80 refused after 5.5 s"))
    for index in (0, 9):
        retry(ledger, index, ConnectionError(f"host-{index}:80 refused after 1.5 s"), 0.1)
    assert [
        "  5 failed, 2 retried  ConnectionError: host-0:80 refused after 0.5 s",
        "                       tasks host-0, host-1, host-2, …",
        "             1 failed  ValueError: host-5:80 refused after 5.5 s",
        "                       task host-5",
    ] == part(ledger, "failures")
    retry(ledger, 13, OSError("no"), 0.05)
    for index in (10, 11, 12):
        retry(ledger, index, ValueError("host-5:80 refused after 5.5 s"), 0.05)
        retry(ledger, index, KeyError("host"), 0.05)
    assert ["ConnectionError", "ValueError", "KeyError", "OSError"] == re.findall(
        r"(\w+Error):", "\n".join(part(ledger, "failures"))
    )


def test_a_long_word_in_a_message_takes_no_longer_than_short_ones():
    """What may differ is looked for from the start of each word only: a long one, such as a key, was tried from each letter."""
    long, short = (
        min(repeat(partial(VARIABLE.sub, "", word * 500), number=1)) for word in ("letters", "letter ")
    )
    assert long < 10 * short


def test_a_kind_names_no_further_tasks_where_there_are_none():
    """The tasks of a kind are counted, not the attempts: "more" is shown only if there are more than three tasks."""
    ledger = plant([0.1] * 4, keys=list("abcd"))
    for index in range(2):
        retry(ledger, index, ValueError("no"), 0.05)
        fail(ledger, index, ValueError("no"), number=2)
    assert ["  2 failed, 2 retried  ValueError: no", "                       tasks a, b"] == part(
        ledger, "failures"
    )
    fail(ledger, 2, ValueError("no"))
    assert "                       tasks a, b, c" == part(ledger, "failures")[1]
    fail(ledger, 3, ValueError("no"))
    assert "                       tasks a, b, c, …" == part(ledger, "failures")[1]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("HTTP 503 for https://a.org/x?y=1", "HTTP 504 for http://b.org"),
        ("no such file: '/tmp/a b'", "no such file: '/var/c'"),
        ("<Session object at 0x7f3a>", "<Session object at 0x8c11>"),
        ("job 3f2a-77b1 lost", "job 99c0-1a2b lost"),
        ("cannot open /srv/data/a.csv", "cannot open /srv/data/b.csv"),
    ],
)
def test_messages_that_differ_in_a_detail_have_one_shape(one, other):
    """Messages that differ only in numbers, addresses, paths or quoted text have one shape."""
    assert shape(one) == shape(other) != one


def test_messages_that_differ_in_a_word_have_two_shapes():
    """An apostrophe is not taken for a quotation mark."""
    assert shape("host refused") != shape("host vanished")
    assert "it can't be, it won't" == shape("it can't be, it won't")


def test_an_error_without_a_text_costs_nothing_but_its_text():
    """An error whose ``__str__`` raises, or a key whose ``repr`` does, is named by its type."""

    class Mute(Exception):
        def __str__(self):
            raise RuntimeError("mute")

    class Shy:
        def __repr__(self):
            raise RuntimeError("shy")

    ledger = plant([1.0], keys=[Shy()])
    fail(ledger, 0, Mute())
    report = Results(ledger).report()
    assert "Mute: <its text cannot be had: RuntimeError>" in report
    assert "<Shy, whose repr raised RuntimeError>" in report


def test_many_kinds_of_failure_still_fit_the_screen():
    """Eight kinds of failure are named, and the rest counted."""
    ledger = plant([0.1] * 30)
    for index in range(20):
        fail(ledger, index, ValueError("x" * (index + 1)))
    retry(ledger, 29, OSError("again"), 0.05)
    assert "and 13 attempts of 13 further kinds" == line_with(ledger, "further")
    assert len(lines_of(ledger)) < 40


def test_no_line_is_longer_than_the_screen_is_wide():
    """No line is longer than the screen is wide, however long keys, errors and reasons are."""
    ledger = plant([0.1] * 8, keys=[f"{number}" * 500 for number in range(8)])
    ledger.stopped = "reason " * 100
    for index in range(3):
        fail(ledger, index, ValueError("word " * 100 + "\nsecond line"))
    assert max(map(len, lines_of(ledger, cost_per_attempt=1e6))) <= 100


# Cost


def test_the_cost_table_says_that_parallel_runs_save_time_and_not_cost():
    """The cost table shows that a parallel run saves time, not cost: five calls of three seconds at 0.03 each."""
    ledger = plant([3.0] * 5, workers=5)
    assert [
        ["time", "15.0", "s", "3.00", "s", "80", "%"],
        ["calls", "5", "5", "none"],
        ["cost", "0.15", "0.15", "none"],
    ] == [line_with(ledger, word, cost_per_attempt=0.03).split() for word in ("time  ", "calls  ", "cost  ")]
    assert "repeated" not in Results(ledger).report(0.03)
    assert "sequential" not in "".join(lines_of(ledger))


def test_retries_cost():
    """Retries cost as much as other calls, and the table says how much."""
    ledger = plant([3.0] * 5, workers=5)
    retry(ledger, 0, ConnectionError("503"), 1.0)
    assert "6" == line_with(ledger, "calls  ", cost_per_attempt=0.03).split()[1]
    assert "0.18" == line_with(ledger, "cost  ", cost_per_attempt=0.03).split()[1]
    assert "1 of the calls, costing 0.03, failed and had to be repeated." in lines_of(
        ledger, cost_per_attempt=0.03
    )


def test_a_run_that_took_longer_saved_nothing():
    """For a run that took longer than its tasks, the time saved is "none": 0 % would hide that it was slower."""
    ledger = plant([0.001] * 2, ended_at=BEGAN + 2.0)
    row = line_with(ledger, "time  ", cost_per_attempt=0.03)
    assert ["time", "2.00", "ms", "2.00", "s", "none"] == row.split()


def test_threads_that_compute_are_not_credited_with_time_saved():
    """Threads that compute prolong each other's tasks, so one after the other these would take only their CPU time."""
    ledger = plant([0.8] * 80, cpu_seconds=8.0)
    assert ["time", "8.00", "s", "8.00", "s", "none"] == line_with(
        ledger, "time  ", cost_per_attempt=1
    ).split()


def test_prices_below_a_cent_are_shown():
    """Costs below a cent, as of language models, are shown."""
    assert "0.00125" == line_with(plant([1.0] * 5), "cost  ", cost_per_attempt=0.00025).split()[1]


# Pace


@pytest.mark.all
def test_a_million_outcomes_are_reported_quickly():
    """The report of a million outcomes takes a fraction of a second, whatever the keys."""
    count = 1_000_000
    ledger = Ledger()
    ledger.admit(None, count, BEGAN)
    ledger.succeed((range(count), [None] * count, [BEGAN] * count, [BEGAN + 0.001] * count, ["w"] * count))
    ledger.facts.began_at, ledger.facts.ended_at = BEGAN, BEGAN + 200
    began = time.process_time()
    report = Results(ledger).report()
    assert time.process_time() - began < 2  # measured: 0.2
    assert "1,000,000 tasks: 1,000,000 succeeded" in report


def test_the_survey_leaves_the_ledger_as_it_is():
    """Making a report twice gives the same figures."""
    ledger = plant([1.0] * 5)
    retry(ledger, 0, ValueError("again"), 0.5)
    fail(ledger, 1, ValueError("no"))
    assert survey(ledger).summary == survey(ledger).summary
    assert kinds_of_failure(ledger) == kinds_of_failure(ledger)


def test_what_was_known_before_the_run_is_no_attempt_of_it(tmp_path):
    """Recorded outcomes of a resumed run count no attempt and no cost, and have no bar."""
    path = tmp_path / "journal"
    run_parallel(str, range(3), key=str, checkpoint=path, executor="inline")
    results = run_parallel(str, range(4), key=str, checkpoint=path, executor="inline")
    assert ["3"] == [attempt.key for attempt in results.attempts]
    assert (4, 3, 1) == (results.summary.succeeded, results.summary.recalled, results.summary.attempts)
    assert [3] == [bar.task for bar in all_bars(results._ledger)]
    report = results.report(cost_per_attempt=2)
    assert "4 tasks: 4 succeeded (3 known before), 0 failed" == report.splitlines()[0]
    assert re.search(r"^cost +2\.00 +2\.00", report, re.MULTILINE)
    again = run_parallel(str, range(4), key=str, checkpoint=path)
    assert 0 == again.summary.attempts
    assert "longest task" not in again.report()


@pytest.mark.parametrize(
    ("cost", "rule"), [("0.03", "a number, got '0.03'"), (-1, "at least 0, got -1"), (inf, "finite, got inf")]
)
def test_a_cost_must_be_a_number(cost, rule):
    """A cost that is no number is refused, with the argument, the rule and the value."""
    with pytest.raises((TypeError, ValueError), match=f"cost_per_attempt must be {rule}"):
        Results(plant([0.1])).report(cost_per_attempt=cost)
