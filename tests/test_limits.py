"""Rate limits and caps: the meters by arithmetic, whole runs on the fake clock, and a few in real time."""

import gc
import os
import threading
import time
import warnings
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from statistics import mean

import pytest
from fakes import Done, Fail, FakeClock, FakeRun, Script
from hypothesis import given
from hypothesis import strategies as st

from parallelkit import ConcurrencyLimit, RateLimit, Retry, ThreadExecutor, iter_parallel, run_parallel
from parallelkit._executors._contract import Ended
from parallelkit._ledger import Ledger
from parallelkit._limits import as_limits, meter_for
from parallelkit._scheduler import Scheduler
from parallelkit._scheduling._meters import RateLog
from parallelkit._scheduling._ready import Gated


def most_in_a_window(stamps, per):
    """The largest number of stamps in any half-open window of ``per`` seconds."""
    stamps = sorted(stamps)
    first = most = 0
    for last, stamp in enumerate(stamps):
        while stamp - stamps[first] >= per:
            first += 1
        most = max(most, last - first + 1)
    return most


class Asker:
    """A run that shares a limit: how often it was told to look, and whether it was asked for a start."""

    def __init__(self):
        self.looks = []

    def look(self, asked=False):
        self.looks.append(asked)


RUN = Asker()


def started(run):
    return [outcome.started_at for outcome in run.outcomes]


def reported(*runs):
    """The starts of tasks of real runs, as their workers recorded them: what a task itself records may be much later."""
    return [
        results._ledger.facts.began_at + outcome.started_at
        for results in runs
        for outcome in results.outcomes.values()
    ]


def test_a_limit_is_shown_with_the_name_of_its_function():
    """The repr of a limit names its function, without an address."""

    def host(url):
        return url

    assert "RateLimit(4, per=1, by=host, smooth=True)" == repr(RateLimit(4, 1, by=host, smooth=True))
    assert "ConcurrencyLimit(4, by=host)" == repr(ConcurrencyLimit(4, by=host))
    assert "ConcurrencyLimit(4, by=<lambda>)" == repr(ConcurrencyLimit(4, by=lambda url: url))


# The meters.


@given(
    calls=st.integers(1, 5),
    waits=st.lists(st.floats(0, 0.4), min_size=1, max_size=60),
    lags=st.lists(st.floats(0, 0.3), min_size=60, max_size=60),
)
def test_no_window_holds_more_starts_than_calls(calls, waits, lags):
    """However late, and in whatever order, workers report their starts, no window of ``per`` seconds has more starts than allowed."""
    log = RateLog(calls, 1.0, False, threading.Lock())
    now, pending, stamps = 0.0, [], []
    for wait, lag in zip(waits, lags, strict=False):
        now += wait
        for at in [at for at in pending if at <= now]:
            log.confirm(at, RUN)
            stamps.append(at)
            pending.remove(at)
        if log.take(now, RUN):
            pending.append(now + lag)
    assert most_in_a_window(stamps + pending, 1.0) <= calls


def test_a_start_counts_from_its_report():
    """A start counts from the time at which the worker began: one granted at 0 that begins at 0.3 counts until 1.3."""
    log = RateLog(1, 1.0, False, threading.Lock())
    assert log.take(0.0, RUN)
    log.confirm(0.3, RUN)

    assert log.earliest(1.0) == pytest.approx(1.305)
    assert not log.take(1.2, RUN)
    assert log.take(1.31, RUN)


def test_starts_may_be_reported_in_any_order():
    """The window opens when the earliest start leaves it, whichever was reported first."""
    log = RateLog(2, 1.0, False, threading.Lock())
    for at in (0.5, 0.2):
        assert log.take(0.0, RUN)
        log.confirm(at, RUN)
    assert log.earliest(0.6) == pytest.approx(1.205)
    assert log.take(1.21, RUN)


def test_a_start_that_is_not_reported_is_looked_for_when_it_matters():
    """Unreported starts are looked up only when the window could open; if they have not begun by then, they count at least from then."""
    log = RateLog(2, 1.0, False, threading.Lock())
    assert log.take(0.0, RUN)
    assert log.take(0.0, RUN)
    assert log.earliest(0.2) == pytest.approx(1.005)
    log.looked(1.005, RUN)
    assert not log.take(1.005, RUN)
    assert log.earliest(1.005) == pytest.approx(2.01)
    log.confirm(1.3, RUN)
    log.confirm(1.4, RUN)
    assert log.earliest(2.01) == pytest.approx(2.305)


def test_a_run_that_came_to_a_bad_end_holds_up_no_other():
    """Starts that an aborted run never reported are forgotten with it."""

    class Gone:
        def look(self, asked=False):
            raise AssertionError("nobody is asked")

    log, gone = RateLog(1, 1.0, False, threading.Lock()), Gone()
    assert log.take(0.0, gone)
    assert not log.is_open(5.0)
    del gone
    assert log.is_open(5.0)


@pytest.mark.parametrize("smooth", [False, True])
def test_a_start_that_did_not_come_about_is_given_back(smooth):
    """A granted start that does not take place makes room for another."""
    log = RateLog(1, 1.0, smooth, threading.Lock())
    for _ in range(3):
        assert log.take(7.0, RUN)
        log.give_back(RUN)
    assert log.take(7.0, RUN)
    assert not log.take(7.0, RUN)


def test_who_asks_for_the_starts_of_others_is_told_at_once():
    """A run that waits for another run's starts is woken when the first is reported, and need not ask twice."""
    log, mine, other = RateLog(1, 1.0, False, threading.Lock()), Asker(), Asker()
    assert log.take(0.0, other)
    log.ask(1.0, mine)
    assert ([], [True]) == (mine.looks, other.looks)
    log.confirm(0.5, other)
    assert ([False], [True]) == (mine.looks, other.looks)
    assert log.take(9.0, other)
    log.confirm(9.0, other)
    assert [False] == mine.looks, "once is enough"


@pytest.mark.parametrize(("per", "turn"), [(1.0, 1.0), (0.1, 0.1005)])
def test_who_asks_is_told_of_a_start_that_comes_back(per, turn):
    """A start that another run gives back may be granted at once, to the run that has asked for it: that has a window to come."""
    log, mine, other = RateLog(1, per, False, threading.Lock()), Asker(), Asker()
    assert log.take(0.0, other)
    log.ask(1.0, mine)
    assert log.take_back(1.0, other) == pytest.approx(1.0 + turn)
    assert [False] == mine.looks
    assert log.take(1.0, mine)
    assert not log.take(1.0, other)


@pytest.mark.parametrize(("reported", "next_at"), [(True, 5.22), (False, 5.2)])
def test_a_smooth_start_that_comes_back_lets_none_follow_another_too_soon(reported, next_at):
    """It no longer counts, but the starts that were granted later do, reported or not."""
    log, mine, other = RateLog(10, 1.0, True, threading.Lock()), Asker(), Asker()
    assert log.take(5.0, other)
    assert log.take(5.1, mine)
    if reported:
        log.confirm(5.12, mine)
    log.take_back(5.13, other)
    assert next_at == pytest.approx(log.earliest(5.13))


def test_who_asks_is_told_though_it_reports_a_start_itself():
    """Only what another run reports answers the question."""
    log, mine, other = RateLog(2, 1.0, False, threading.Lock()), Asker(), Asker()
    assert log.take(0.0, mine)
    assert log.take(0.0, other)
    log.ask(1.0, mine)
    log.confirm(1.1, mine)
    log.confirm(0.5, other)
    assert [False] == mine.looks


def test_a_window_too_short_for_the_clock_lets_time_pass():
    """If a window is shorter than the clock's resolution, a waiting run is told to ask later, not at once forever."""
    log = RateLog(1, 1e-12, False, threading.Lock())
    assert log.ask(1e7, RUN) > 1e7


def test_smooth_starts_are_spread_evenly_and_do_not_drift():
    """Smooth starts are per / calls apart; a late one does not shift those after it."""
    log = RateLog(10, 1.0, True, threading.Lock())
    assert log.take(0.0, RUN)
    assert log.earliest(0.05) == pytest.approx(0.1)
    assert log.take(0.13, RUN)
    assert log.earliest(0.13) == pytest.approx(0.2)
    assert log.take(5.0, RUN)
    assert log.earliest(5.0) == pytest.approx(5.1), "after idling there is no burst"


@pytest.mark.parametrize(("smooth", "calls", "next_at"), [(True, 200, 30.0), (False, 100, 60.3)])
def test_the_next_start_is_found_without_a_look_at_all_recent_ones(smooth, calls, next_at):
    """It is asked for after each start, if smooth, or of a full window: where thousands are recent, that would take longer than starts are apart."""
    compared = []

    class Instant(float):
        def __lt__(self, other):
            compared.append(other)
            return float(self) < other

    log = RateLog(calls, 60.0, smooth, threading.Lock())
    for number in range(100):
        now = number * 0.3 + 1e-9 * number
        assert log.take(now, RUN)
        log.confirm(Instant(now), RUN)
    compared.clear()
    assert log.earliest(now) == pytest.approx(next_at)
    assert len(compared) < 10


def test_smooth_starts_are_strict_as_well():
    """With smooth starts, too, late starts never put too many into one window."""
    late = RateLog(1, 1.0, True, threading.Lock())
    for at in (0.0, 1.9):  # the second could have been at 1.0, and the third, but for it, at 2.0
        assert late.take(at, RUN)
        late.confirm(at, RUN)
    assert late.earliest(1.9) == pytest.approx(2.905)
    assert not late.take(2.5, RUN)

    unreported = RateLog(1, 1.0, True, threading.Lock())
    assert unreported.take(0.0, RUN)
    unreported.looked(1.5, RUN)
    assert not unreported.take(1.5, RUN)
    unreported.confirm(1.6, RUN)
    assert unreported.earliest(1.6) == pytest.approx(2.605)


def test_groups_at_rest_are_forgotten():
    """After ten thousand groups, only the state of those of the last seconds is kept, though one is in use all the time."""
    limit = RateLimit(2, per=1)
    busy = meter_for(limit, "busy", 0.0)
    for number in range(10_000):
        now = number * 0.01
        if busy.take(now, RUN):
            busy.confirm(now, RUN)
        log = meter_for(limit, number, now)
        assert log.take(now, RUN)
        log.confirm(now, RUN)
    assert len(limit._logs) < 300


def test_what_fails_before_it_begins_counts_as_a_start_all_the_same():
    """Such as a task that cannot be pickled: nobody reports its start."""
    ledger = Ledger()
    ledger.admit(None, 3, 0.0)
    scheduler = Scheduler(ledger, gated=Gated([RateLimit(2, per=1)]))
    scheduler.admit([0, 1, 2], traits=[(0.0, (None,))] * 3)
    assert [0, 1] == [ticket[0] for ticket in scheduler.start_due(0.0, 9)]
    scheduler.finish([Ended(index, TypeError(), "", None, 0.5, None, final=True) for index in (0, 1)], 0.5)
    assert [] == list(scheduler.start_due(1.5, 9))
    assert [2] == [ticket[0] for ticket in scheduler.start_due(1.51, 9)]


def test_a_long_run_forgets_groups_that_are_at_rest():
    """A run over a hundred hosts, a second each, keeps the state of the last few."""
    limit = RateLimit(1, per=1, by=abs)
    script = Script({item: Done(item, after=1) for item in range(100)})
    FakeRun(script, range(100), workers=1, buffersize=2, limits=[limit]).drive()
    assert len(limit._logs) < 10


def test_a_pause_outlasts_the_run_that_was_told():
    """A group is not forgotten while it is paused, and a shorter pause does not end a longer one."""
    limit = RateLimit(1, per=1)
    for seconds in (60.0, 5.0):
        meter_for(limit, "a", 0.0).pause(seconds)
    meter_for(limit, "b", 30.0)
    assert 60.0 == meter_for(limit, "a", 31.0).earliest(31.0)


def test_a_log_that_somebody_still_holds_is_found_again():
    """A group that is forgotten while its log is in use gets no second log."""
    limit = RateLimit(1, per=1)
    held = meter_for(limit, "a", 0.0)
    meter_for(limit, "b", 100.0)
    assert held is meter_for(limit, "a", 100.0)


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: RateLimit(0, per=1), "calls must be greater than 0, got 0"),
        (lambda: RateLimit(1.5, per=1), r"calls must be an int, got 1\.5"),
        (lambda: RateLimit(1, per=0), "per must be greater than 0, got 0"),
        (lambda: RateLimit(1, per=float("nan")), "per must be a number of seconds, got nan"),
        (lambda: RateLimit(1, per=float("inf")), "per must be finite, got inf"),
        (lambda: RateLimit(1, per=1, smooth="no"), "smooth must be a bool, got 'no'"),
        (lambda: RateLimit(1, per=1, by=3), "by must be callable, got 3"),
        (
            lambda: RateLimit(1, per=1, by="host"),
            r"got 'host'; for a field .* write lambda item: item\['host'\]",
        ),
        (lambda: ConcurrencyLimit(1, by=3), "by must be callable, got 3"),
        (lambda: ConcurrencyLimit(0), "n must be greater than 0, got 0"),
        (lambda: ConcurrencyLimit(True), "n must be an int, got True"),
        (
            lambda: run_parallel(abs, [1], limits=3),
            "limits must be RateLimit or ConcurrencyLimit objects, got 3",
        ),
    ],
)
def test_bad_limits_are_refused_at_the_door(make, text):
    """Bad arguments of a limit are refused, with the argument, the rule and the value."""
    with pytest.raises((TypeError, ValueError), match=text):
        make()


# Runs on the fake clock.


def test_starts_keep_the_rate():
    """Ten tasks at two a second take a little over four seconds, however many workers there are."""
    run = FakeRun(Script(), range(10), workers=8, limits=[RateLimit(2, per=1)]).drive()
    assert most_in_a_window(started(run), 1.0) == 2
    assert 4.0 <= run.clock() <= 4.1


def test_nobody_polls_for_reports_of_starts():
    """While long tasks run, the loop wakes up once or twice per start, and does not poll."""
    script = Script({item: Done(item, after=1_000) for item in range(20)})
    run = FakeRun(script, range(20), workers=20, limits=[RateLimit(2, per=10)]).drive()
    assert [pytest.approx(item // 2 * 10.05) for item in range(20)] == started(run)
    assert run.port.waits < 60


def test_several_limits_hold_at_once():
    """Limits of sixty a minute, four a second and two at a time all hold together."""
    script = Script({item: Done(item, after=0.1) for item in range(100)})
    limits = [RateLimit(60, per=60), RateLimit(4, per=1), ConcurrencyLimit(2)]
    run = FakeRun(script, range(100), workers=8, limits=limits).drive()

    assert most_in_a_window(started(run), 60) == 60
    assert most_in_a_window(started(run), 1) == 4
    assert run.executor.widest == 2


def test_a_rate_may_be_so_large_that_no_float_can_hold_it():
    """A rate may be larger than any float: that is a way to ask for no limit."""
    run = FakeRun(
        Script(), range(3), limits=[RateLimit(10**400, per=1.0, smooth=smooth) for smooth in (False, True)]
    )
    assert [0, 1, 2] == run.drive().results.values()


def test_a_limit_that_is_given_twice_counts_once():
    """A limit that is given twice counts once; otherwise a start would need two places in it."""
    one, two = RateLimit(1, per=1), ConcurrencyLimit(2)
    assert (one, two) == as_limits([one, two, one])


def test_a_waiting_group_holds_up_no_other():
    """While one group is at its limit, later tasks of another group start at once."""
    items = [("slow", n) for n in range(5)] + [("quick", n) for n in range(5)]
    run = FakeRun(Script(), items, limits=[RateLimit(1, per=10, by=lambda item: item[0])]).drive()
    by_item = dict(zip(items, started(run), strict=True))

    assert by_item["quick", 0] == 0.0
    assert by_item["slow", 4] == pytest.approx(by_item["quick", 4])


def test_a_group_of_none_is_not_limited():
    """Items whose group is None are not limited."""
    run = FakeRun(Script(), range(50), limits=[RateLimit(1, per=10, by=lambda item: None)]).drive()
    assert run.clock() == 0.0


def test_caps_hold_in_each_group():
    """At most two attempts of each group run at a time, and no slot idles for tasks that must wait."""
    running, most = Counter(), Counter()

    def task(item):
        host = item % 3
        running[host] += 1
        most[host] = max(most[host], running[host])
        run.clock.call_at(run.clock() + 0.999, lambda: running.subtract([host]))
        return Done(item, after=1)

    run = FakeRun(task, range(60), workers=6, limits=[ConcurrencyLimit(2, by=lambda item: item % 3)])
    run.drive()
    assert {0: 2, 1: 2, 2: 2} == most
    assert run.clock() == 10.0


def test_retries_count_as_starts():
    """A retry counts as a start."""
    script = Script({"a": [Fail(OSError()), Done(1)]})
    run = FakeRun(script, ["a", "b"], limits=[RateLimit(1, per=1)], policy=Retry(1, delay=0)).drive()
    assert run.clock() > 2.0


def test_a_capped_task_that_backs_off_gives_its_place_back():
    """While a capped task waits for its retry, another of its group runs."""
    script = Script({"a": [Fail(OSError()), Done(1)], "b": Done(2, after=1)})
    policy = type("Wait", (), {"budget": None, "max_time": None, "delay_after": lambda *_: 5.0})()
    run = FakeRun(script, ["a", "b"], limits=[ConcurrencyLimit(1)], policy=policy).drive()
    assert ["a", "b", "a"] == script.calls
    assert run.clock() == 5.0


def test_larger_priorities_run_first_and_ties_in_input_order():
    """With one worker, tasks start in exact order of priority, and then of input."""
    script = Script()
    FakeRun(script, range(12), workers=1, buffersize=100, priority=lambda item: item % 3).drive()
    assert [2, 5, 8, 11, 1, 4, 7, 10, 0, 3, 6, 9] == script.calls


def test_a_retry_keeps_its_priority():
    """A retry starts before all tasks of lower priority."""
    script = Script({5: [Fail(OSError()), Done(5)]})
    FakeRun(
        script, range(6), workers=1, buffersize=100, priority=lambda item: item, policy=Retry(1, delay=0)
    ).drive()
    assert [5, 5, 4, 3, 2, 1, 0] == script.calls


def test_what_becomes_ready_as_a_gate_opens_goes_before_what_has_waited_there():
    """A retry that becomes ready at the moment its limit frees a place keeps its priority over tasks waiting there."""
    items = urgent, other, least = ("x", 2), ("y", 1), ("x", 0)
    script = Script({urgent: [Fail(OSError(), after=1), Done(1)]})
    limits, policy = [ConcurrencyLimit(1), ConcurrencyLimit(9, by=lambda item: item[0])], Retry(1, delay=0)
    FakeRun(script, items, limits=limits, priority=lambda item: item[1], policy=policy).drive()
    assert [urgent, urgent, other, least] == script.calls


def test_a_free_slot_goes_to_none_behind_one_whose_gate_has_opened_unseen():
    """A free slot goes to a task whose rate limit has opened meanwhile, not to one behind it."""
    script = Script({"a1": Done(after=1), "a2": Done(after=1), "b1": Done(after=0.25)})
    limits = [RateLimit(1, per=0.4, by=lambda item: item[0])]
    FakeRun(script, ["a1", "a2", "a3", "b1", "b2"], limits=limits).drive()
    assert ["a1", "b1", "a2", "a3", "b2"] == script.calls


def test_a_high_priority_waits_for_its_own_gate_only():
    """A task with the highest priority that its limit holds back lets others pass, and goes first when it may."""
    script = Script({item: Done(item, after=1) for item in range(6)})
    limits = [RateLimit(1, per=3, by=lambda item: "even" if item % 2 == 0 else None)]
    FakeRun(script, range(6), workers=1, buffersize=100, priority=lambda i: i, limits=limits).drive()
    assert [5, 4, 3, 1, 2, 0] == script.calls


@pytest.mark.all
def test_many_groups_cost_no_rescan():
    """With twenty thousand groups behind one common limit, the work grows with the starts, not with their square."""
    clock = FakeClock()
    limits = [RateLimit(1000, per=1), RateLimit(1, per=1, by=lambda item: item)]
    began = time.perf_counter()
    run = FakeRun(Script(), range(20_000), workers=50, buffersize=20_000, clock=clock, limits=limits).drive()
    assert most_in_a_window(started(run), 1.0) == 1000
    assert time.perf_counter() - began < 30, "this took hours where every start looked at every group"


# For real.


def stamp(_):
    return time.monotonic()


@pytest.mark.parametrize("smooth", [False, True])
@pytest.mark.parametrize(("executor", "width"), [("threads", 32), ("processes", 2)])
@pytest.mark.all
def test_the_rate_is_kept_for_real(executor, width, smooth):
    """In real time, no window of 0.1 s has too many starts, and a recorded start is no later than the call."""
    limit = RateLimit(20, per=0.1, smooth=smooth)
    results = run_parallel(stamp, range(100), executor=executor, max_workers=width, limits=limit)
    assert most_in_a_window(reported(results), 0.1) <= 20
    assert all(start <= call for start, call in zip(reported(results), results.values(), strict=True))


@contextmanager
def lateness():
    """Measure, during the block, how late the system wakes a sleeping thread: the mean in seconds, as the only item of a list."""
    late, found, over = [], [], threading.Event()

    def sleep():
        while not over.is_set():
            due = time.monotonic() + 0.005
            time.sleep(0.005)
            late.append(time.monotonic() - due)

    sleeper = threading.Thread(target=sleep)
    sleeper.start()
    try:
        yield found
    finally:
        over.set()
        sleeper.join()
    found.append(mean(late))


@pytest.mark.all
@pytest.mark.parametrize(("executor", "width"), [("threads", 32), ("processes", 2)])
@pytest.mark.parametrize("round_", range(3))
def test_the_rate_is_kept_and_reached_over_ten_seconds(executor, width, round_):
    """Over ten seconds the rate is never exceeded, and reached within 2 %, beside what a busy machine delays."""
    limit = RateLimit(50, per=0.5)
    with lateness() as found:
        results = run_parallel(stamp, range(1050), executor=executor, max_workers=width, limits=limit)
    stamps = sorted(results.values())
    assert most_in_a_window(stamps, 0.5) <= 50
    # The first of 1,050 at 100 a second comes 10 s, or 20 windows, before the first of the last 50.
    took = stamps[1000] - stamps[0]
    wakes = 20 * 10  # of one thread after another, in each of the windows
    assert 10 <= took <= 10.2 + wakes * found[0]


@pytest.mark.all
def test_runs_that_share_a_limit_share_it_at_once_and_one_after_another():
    """Two concurrent runs and a third after them share one limit: there are never more than five starts in a window."""
    limit, stamps = RateLimit(5, per=0.2), []

    def note(_):
        stamps.append(time.monotonic())

    runs = [
        threading.Thread(target=run_parallel, args=(note, range(10)), kwargs={"limits": limit}) for _ in "ab"
    ]
    for run in runs:
        run.start()
    for run in runs:
        run.join()
    run_parallel(note, range(5), limits=limit)

    assert len(stamps) == 25
    assert most_in_a_window(stamps, 0.2) <= 5


@pytest.mark.all
@pytest.mark.parametrize("executor", ["threads", "inline"])
def test_a_run_hears_of_a_start_that_another_has_not_reported(executor):
    """A run can learn of a start that another run, asleep in a long task, has not reported."""
    limit, held, release = RateLimit(1, per=0.2), [], threading.Event()
    started = threading.Event()

    def hold(_):
        started.set()
        assert release.wait(30)

    other = threading.Thread(
        target=lambda: held.append(run_parallel(hold, [0], limits=limit, executor=executor))
    )
    other.start()
    assert started.wait(30)
    results = run_parallel(stamp, range(3), limits=limit, run_timeout=30)
    release.set()
    other.join()
    assert results.stopped is None, "it was not the other's end that told"
    assert most_in_a_window(reported(*held, results), 0.2) == 1


def stamp_and_hold(_):
    began = time.monotonic()
    time.sleep(5)
    return began


@pytest.mark.all
def test_a_run_hears_of_a_start_in_a_process_that_another_has_not_reported():
    """The same holds for starts in processes, which are recorded in shared memory."""
    limit, held = RateLimit(1, per=0.5), []
    other = threading.Thread(
        target=lambda: held.append(run_parallel(stamp_and_hold, [0], limits=limit, executor="processes"))
    )
    other.start()
    while not limit._logs:
        time.sleep(0.001)
    results = run_parallel(stamp, range(3), limits=limit)
    assert other.is_alive(), "it was not the other's end that told"
    other.join()
    assert most_in_a_window([*held[0].values(), *results.values()], 0.5) == 1


@pytest.mark.all
def test_a_decorator_of_ratelimit_is_read_as_a_limit():
    """A decorator of the ``ratelimit`` package is enforced in the parent, and so across processes."""
    ratelimit = pytest.importorskip("ratelimit", reason="the package ratelimit is an extra")
    decorator = ratelimit.limits(calls=7, period=3)
    (limit,) = as_limits(decorator)
    assert (7, 3) == (limit.calls, limit.per)
    assert as_limits(decorator) == (limit,), "runs that share the decorator share the limit"

    quick = ratelimit.limits(calls=10, period=0.2)
    results = run_parallel(stamp, range(30), executor="processes", max_workers=2, limits=quick)
    assert most_in_a_window(reported(results), 0.2) <= 10


@pytest.mark.parametrize(
    ("pool", "width", "shared"),
    [
        (ThreadExecutor, 1, True),
        pytest.param(ThreadExecutor, 1, False, marks=pytest.mark.all),
        pytest.param(ThreadPoolExecutor, 1, False, marks=pytest.mark.all),
        (ThreadPoolExecutor, 2, False),
    ],
)
def test_a_run_within_a_task_gets_the_start_that_another_run_holds_in_vain(pool, width, shared):
    """Each waits for the other otherwise: one for the slot of the task, the run in the task for the other's start."""
    limit, begun = RateLimit(1, per=0.02), threading.Event()

    with pool(width) as executor, ThreadPoolExecutor(2) as callers:
        within = {"limits": limit, "run_timeout": 10}
        options = {"executor": executor, **within}

        def page(_):
            begun.set()
            time.sleep(0.05)  # in which the other run hands over its task
            return run_parallel(abs, range(2), **(options if shared else within)).values()

        pages = callers.submit(run_parallel, page, range(2), executor=executor, run_timeout=10)
        assert begun.wait(30)
        images = callers.submit(run_parallel, abs, range(4), **options)
        assert ([[0, 1]] * 2, [*range(4)]) == (pages.result().values(), images.result().values())


@pytest.mark.all
def test_a_run_that_has_given_a_start_back_gets_its_turn_among_busy_runs():
    """It need not wait until its executor has nothing else to do, nor until no slot is lent there."""
    limit, done = RateLimit(1, per=0.03), threading.Event()

    def endless():
        while not done.is_set() and time.monotonic() < began + 10:
            yield 0.08

    with ThreadExecutor(2) as executor, ThreadPoolExecutor(3) as callers:
        began = time.monotonic()
        lends = callers.submit(
            run_parallel,
            [lambda: run_parallel([partial(done.wait, 30)], executor=executor)],
            executor=executor,
        )
        while not executor._pool.slots.loans:
            time.sleep(0.001)
        busy = callers.submit(list, iter_parallel(time.sleep, endless(), executor=executor, buffersize=8))
        time.sleep(0.05)
        waits = callers.submit(run_parallel, [time.monotonic], executor=executor, limits=limit)
        time.sleep(0.02)
        run_parallel([time.monotonic], limits=limit).values()  # has the start that ``waits`` holds
        assert waits.result(30)[0] < began + 9
        done.set()
        assert lends.result(30).values()
        assert busy.result(30)


@pytest.mark.parametrize("smooth", [False, True])
@pytest.mark.parametrize("pool", [ThreadExecutor, ThreadPoolExecutor])
def test_a_stopped_run_gives_back_the_start_that_it_has_not_made(pool, smooth):
    """A task that was handed over, and cancelled while it waited for a slot, uses up nothing of a rate that others share."""
    limit, begun, release = RateLimit(1, per=60, smooth=smooth), threading.Event(), threading.Event()
    with pool(1) as executor:
        executor.submit(lambda: (begun.set(), release.wait()))
        assert begun.wait(30)
        stopped = run_parallel(abs, [-1], executor=executor, limits=limit, run_timeout=0.1)
        results = run_parallel(abs, [-1], limits=limit, run_timeout=5)
        release.set()
    assert (1, [1]) == (len(stopped.failures), results.values())


def test_a_start_that_a_stopped_run_will_not_report_counts():
    """What may have begun as its run was stopped, and was killed there, counts in a rate that others share."""
    rate = RateLimit(1, per=60)

    def start(now):
        gated = Gated([rate])
        gated.describe(0, 0.0, (None,))
        gated.push([(0, 1, "item", None)])
        started = len(gated.pop(now, 1))
        gated.clear(now + 1)
        return started

    assert 1 == start(0.0)
    gc.collect()  # what is left of the stopped run
    assert 0 == start(60.0)
    assert 1 == start(62.0)


def test_what_another_run_has_snatched_away_costs_no_other_limit_a_place(monkeypatch):
    """If another run takes the last place in a shared rate, a place already taken in a cap is given back."""
    rate = RateLimit(5, per=60)
    gated = Gated([ConcurrencyLimit(1), rate])
    log = meter_for(rate, None, 0.0)
    answers = iter([False])
    take = log.take
    monkeypatch.setattr(log, "take", lambda now, run: next(answers, True) and take(now, run))
    gated.describe(0, 0.0, (None, None))
    gated.push([(0, 1, "item", None)])
    assert [(0, 1, "item", None)] == gated.pop(1.0, 1)


def run_in_a_fork(_, limit):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of forks with threads, which is the point
        child = os.fork()
    if not child:
        os._exit(len(run_parallel(abs, [-1], limits=limit, run_timeout=2).successes))
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def test_a_forked_child_does_not_wait_for_starts_of_its_parents_runs():
    """In a fork, nobody will report the starts that a run of the parent has not reported: a limit begins anew there."""
    limit = RateLimit(1, per=0.01)
    assert [1] == run_parallel(run_in_a_fork, [0], args=(limit,), limits=limit).values()
