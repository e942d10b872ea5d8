"""The loop on a fake clock: it reads, starts, waits and settles, blocks in one place, and loses nothing."""

import signal
import sys
import threading
import time
from types import SimpleNamespace

import pytest
from fakes import Delays, Die, Done, Fail, FakeClock, FakeExecutor, FakeRun, Hang, Script

from parallelkit import InputError, Retry, Success, TaskCancelled, TaskTimeout, WorkerDied
from parallelkit._events import Observer
from parallelkit._executors._contract import Block, Ended, Job
from parallelkit._input._recall import Recalled
from parallelkit._input._source import AHEAD_OF_LIST, WIDEST, WINDOW, Window
from parallelkit._interrupt import Interrupt, UserCode, catch_interrupt
from parallelkit._policies import as_policy
from parallelkit._progress import Silent
from parallelkit._runs._plan import Plan

ERROR = OSError("down")


@pytest.fixture
def one_by_one(monkeypatch):
    """Make every portion of input a single item, as if each item took its time."""
    monkeypatch.setattr("parallelkit._input._intake.PORTION", 0.0)


def kinds(run):
    """The value of each task, or the type of its error, in input order."""
    return [outcome.value if outcome.ok else type(outcome.error) for outcome in run.outcomes]


# Time passes on the clock alone


def test_twenty_seconds_pass_in_no_time():
    """Retries, hangs, deaths and slow tasks end exactly at the computed instants."""
    script = Script(
        {
            "steady": Done("ok", after=20),
            "flaky": [Fail(ERROR, after=1), Fail(ERROR, after=1), Done("at last", after=1)],
            "hung": [Hang(), Done("second", after=2)],
            "deadly": [Die(after=3), Die(after=3), Die(after=3)],
        }
    )
    began = time.thread_time()
    run = FakeRun(script, list(script.left), workers=4, timeout=20, policy=Retry(2, delay=0)).drive()
    assert time.thread_time() - began < 1
    assert 22.0 == run.clock()
    assert ["ok", "at last", "second", WorkerDied] == kinds(run)
    assert {} == script.left
    assert Success(1, 1, "at last", 3, 0.0, 2.0, 1.0, "fake 2") == run.outcomes[1]
    assert [(1, 20.0, TaskTimeout), (2, 2.0, type(None))] == [
        (one.number, one.duration, type(one.error)) for one in run.ledger.attempts() if one.key == 2
    ]


def test_a_run_takes_as_long_as_its_slots_need():
    """Ten tasks of two seconds in four slots take six seconds, and no slot is ever used twice."""
    run = FakeRun(Script(dict.fromkeys(range(10), Done(after=2))), range(10), workers=4).drive()
    assert (6.0, 4) == (run.clock(), run.executor.widest)


def test_backoff_lets_others_run():
    """With one slot, a task that waits for its retry delays no other."""
    script = Script({"flaky": [Fail(ERROR), Done(1)], "long": Done(2, after=7)})
    run = FakeRun(script, ["flaky", "long"], workers=1, policy=Retry(1, delay=5, factor=1)).drive()
    assert ["flaky", "long", "flaky"] == script.calls
    assert 7.0 == run.clock()


@pytest.mark.parametrize("ahead", [0, 1, 3, float("inf")])
def test_the_outcomes_do_not_depend_on_how_far_the_executor_is_fed(ahead):
    """Outcomes are the same however many tickets the executor takes ahead, and no port gets more than it has room for."""
    script = Script({index: [Fail(ERROR, after=1), Done(index, after=2)] for index in range(0, 20, 3)})
    run = FakeRun(script, range(20), ahead=ahead, policy=Retry(1, delay=0)).drive()
    assert list(range(20)) == kinds(run)


def test_a_timeout_bounds_the_attempt_and_not_the_queue():
    """Waiting for a slot does not count for the timeout."""
    run = FakeRun(Script(dict.fromkeys("abc", Done(1, after=2))), "abc", workers=1, timeout=2).drive()
    assert [1, 1, 1] == kinds(run)
    assert 6.0 == run.clock()


# Waiting


def test_an_empty_run_waits_for_nothing():
    """A run without tasks waits for nothing."""
    run = FakeRun(Script(), []).drive()
    assert (0, []) == (run.port.waits, run.outcomes)


def test_a_wait_without_a_wake_up_is_an_error():
    """The fake executor refuses a wait that could never end, so each test here shows that the loop makes none."""
    run = FakeRun(Script({"a": Hang()}), ["a"])
    with pytest.raises(AssertionError, match="this wait would never return"):
        run.drive()


def test_the_loop_does_not_poll():
    """The loop wakes up only when something ends or falls due."""
    script = Script({index: [Fail(ERROR, after=60), Done(1, after=600)] for index in range(8)})
    run = FakeRun(script, range(8), workers=1, policy=Retry(1, delay=100, max_delay=100)).drive()
    assert run.clock() >= 8 * 660
    assert run.port.waits <= 1 + 1 + 16 + 8, "one for the input, one for its end, one an attempt, one a delay"


def test_while_there_is_input_the_loop_only_looks(one_by_one):
    """Between portions of input, the loop takes what has ended and reads on, without waiting."""
    clock = FakeClock()
    read_at = []

    def items():
        for item in range(5):
            read_at.append(clock())
            yield item

    run = FakeRun(Script(dict.fromkeys(range(5), Done(after=3))), items(), workers=5, clock=clock).drive()
    assert [0.0] * 5 == read_at
    assert 3.0 == run.clock()


# Input


def test_slow_input_holds_up_no_outcome(one_by_one):
    """An attempt that ends while an item is awaited is settled as soon as that item has come."""
    clock = FakeClock()
    seen = []

    def items():
        for item in range(4):
            clock.advance(10)
            seen.append(run.scheduler.settled)
            yield item

    run = FakeRun(Script(dict.fromkeys(range(4), Done(after=1))), items(), clock=clock)
    run.drive()
    assert [0, 0, 1, 2] == seen
    assert [(10.0 * number, 10.0 * number) for number in (1, 2, 3, 4)] == [
        (one.queued_at, one.started_at) for one in run.outcomes
    ]


def test_input_that_raises_ends_the_input_and_no_task():
    """If the input raises, everything read before is run and settled, and the intake keeps the error."""

    def items():
        yield from range(3)
        raise ERROR

    run = FakeRun(Script(dict.fromkeys(range(3), Done(after=1))), items()).drive()
    assert [None, None, None] == kinds(run)
    assert isinstance(run.intake.error, InputError)
    assert ERROR is run.intake.error.__cause__
    assert run.scheduler.stopped is None


@pytest.mark.parametrize("workers", [1, 2, 5])
@pytest.mark.parametrize("buffersize", [None, 1, 2, 7])
def test_no_more_is_read_than_the_window_allows(workers, buffersize, one_by_one):
    """Unsettled tasks never exceed ``buffersize``, or by default 32 per worker or the number of settled ones."""
    ahead = []

    def items():
        for item in range(400):
            settled = run.scheduler.settled
            ahead.append((item + 1 - settled, buffersize or max(WINDOW * workers, settled)))
            yield item

    run = FakeRun(lambda item: Done(item, after=1), items(), workers=workers, buffersize=buffersize)
    run.drive()
    assert all(read <= allowed for read, allowed in ahead)
    assert any(read == allowed for read, allowed in ahead), "and that much is made use of"
    assert list(range(400)) == kinds(run)


def test_a_window_of_one_still_runs_everything():
    """With a window of one, each task is read when the previous one is settled, retries included."""
    script = Script({item: [Fail(ERROR, after=1), Done(item)] for item in range(5)})
    run = FakeRun(script, iter(range(5)), buffersize=1, policy=Retry(1, delay=0)).drive()
    assert [0, 0, 1, 1, 2, 2, 3, 3, 4, 4] == script.calls
    assert 1 == run.executor.widest


def test_the_default_window_grows_with_what_is_done():
    """The default window is 32 per worker, and then grows with the number of settled tasks, up to five thousand."""
    window = Window(64)
    assert [64, 64, 65, WIDEST, WIDEST] == [window.room(0, done) for done in (0, 64, 65, WIDEST, 10**6)]
    assert 54 == window.room(10, 0)


def test_a_given_window_does_not_grow():
    """A given ``buffersize`` does not grow."""
    assert [3, 0] == [Window(64, 3).room(ahead, 10**6) for ahead in (0, 3)]
    for boundless in (Window(10**30), Window(64, 10**30)):
        assert sys.maxsize - 5 == boundless.room(5, 0), "no more can be asked of an iterator"


# Ctrl-C


def press(run, at):
    """Press Ctrl-C at an instant of the run."""
    run.clock.call_at(at, lambda: run.interrupt(signal.SIGINT, None))


def test_an_interrupt_is_obeyed_where_nothing_is_lost():
    """At Ctrl-C, everything that has ended is settled, and the rest can be cancelled."""
    script = Script({0: Done("done", after=1), 1: Done("at that very moment", after=3), 2: Hang(), 3: Hang()})
    run = FakeRun(script, range(4))
    press(run, 3)
    with pytest.raises(KeyboardInterrupt):
        run.drive()
    assert 3.0 == run.clock()
    assert (2, 2) == (run.scheduler.succeeded, run.scheduler.open)
    run.loop.stop("interrupted")
    assert ["done", "at that very moment", TaskCancelled, TaskCancelled] == kinds(run)
    assert [(1, 2.0), (1, 0.0)] == [(one.attempts, one.duration) for one in run.outcomes[2:]]


def test_an_interrupt_after_the_first_was_obeyed_is_raised_at_once():
    """If the stop that follows a Ctrl-C takes too long, another leaves it."""
    interrupt = Interrupt()
    interrupt(signal.SIGINT, None)
    with pytest.raises(KeyboardInterrupt):
        interrupt.obey()
    with pytest.raises(KeyboardInterrupt):
        interrupt(signal.SIGINT, None)


def test_an_interrupt_while_a_policy_is_asked_costs_no_outcome():
    """If Ctrl-C interrupts a retry policy, all other outcomes are settled, and the judged task is cancelled, because of its error; no policy is asked again."""
    asked = []

    def on(error):
        asked.append(error)
        run.interrupt(signal.SIGINT, None)
        pytest.fail("it was not cut off")

    error = OSError("down")
    script = Script(
        {
            0: Fail(error, after=1),
            1: Done("a", after=1),
            2: Fail(error, after=1),
            3: Hang(),
            4: Done("b", after=1),
        }
    )
    run = FakeRun(script, range(5), workers=5, policy=Retry(2, on=on))
    with pytest.raises(KeyboardInterrupt):
        run.drive()
    assert 2 == run.scheduler.succeeded
    run.loop.stop("interrupted")
    assert [TaskCancelled, "a", TaskCancelled, TaskCancelled, "b"] == kinds(run)
    assert [error, error, None] == [one.error.__cause__ for one in run.outcomes if not one.ok]
    assert [error] == asked


def test_an_interrupt_while_a_value_is_judged_costs_no_value():
    """If Ctrl-C interrupts a policy that judges a value, the value counts: nothing has rejected it."""
    tenacity = pytest.importorskip("tenacity", reason="installed with the test extra")
    judged = []

    def judge(value):
        judged.append(value)
        run.interrupt(signal.SIGINT, None)
        pytest.fail("it was not cut off")

    retrying = tenacity.Retrying(retry=tenacity.retry_if_result(judge))
    script = Script({0: Done("a", after=1), 1: Done("b", after=1)})
    run = FakeRun(script, range(2), policy=as_policy(retrying))
    with pytest.raises(KeyboardInterrupt):
        run.drive()
    assert (["a", "b"], ["a"]) == (kinds(run), judged)


def test_a_second_interrupt_is_raised_at_once():
    """A second Ctrl-C does not wait for a safe point."""
    run, raised_at = FakeRun(Script({0: Hang()}), [0]), []

    def press_twice():
        run.interrupt(signal.SIGINT, None)
        try:
            run.interrupt(signal.SIGINT, None)
        except KeyboardInterrupt:
            raised_at.append(run.clock())
            raise

    run.clock.call_at(5, press_twice)
    with pytest.raises(KeyboardInterrupt):
        run.drive()
    assert [5.0] == raised_at


def test_an_interrupt_is_raised_at_once_in_the_callers_code():
    """Ctrl-C interrupts an input that takes forever."""
    reached = []

    def items():
        yield 0
        run.interrupt(signal.SIGINT, None)
        reached.append("never")

    run = FakeRun(Script(), items())
    with pytest.raises(KeyboardInterrupt):
        run.drive()
    assert [] == reached


def test_an_interrupt_that_came_before_is_obeyed_before_the_callers_code():
    """After Ctrl-C, nothing more is read."""
    interrupt = Interrupt()
    interrupt(signal.SIGINT, None)
    with pytest.raises(KeyboardInterrupt), interrupt.user_code():
        pytest.fail("the caller's code was entered")
    assert not interrupt.exposed, "what comes later is a flag again"


def test_the_callers_code_is_exposed_only_while_it_runs():
    """After the caller's code has returned or raised, Ctrl-C only sets a flag again."""
    interrupt = Interrupt()
    with pytest.raises(ZeroDivisionError), interrupt.user_code():
        raise ZeroDivisionError
    interrupt(signal.SIGINT, None)
    assert interrupt.asked


def test_what_a_signal_left_exposed_is_not_so_beyond_the_safe_point():
    """If a signal handler's exception skips the end of the exposed section, the next safe point ends it."""

    class Stop(Exception):
        pass

    def strike(frame, event, argument):
        if frame.f_code is UserCode.__exit__.__code__:
            sys.settrace(None)
            raise Stop

    run = FakeRun(Script({0: Done(7), 1: Hang()}), range(2))
    traced = sys.gettrace()
    try:
        with pytest.raises(Stop), run.interrupt.user_code():
            sys.settrace(strike)
    finally:
        sys.settrace(traced)
    assert run.interrupt.exposed
    assert run.loop.step()
    assert not run.interrupt.exposed


def test_an_interrupt_wakes_the_wait():
    """Ctrl-C ends the wait at once, not only when something else ends."""
    woken = []
    interrupt = Interrupt(wake=lambda: woken.append(True))
    interrupt(signal.SIGINT, None)
    assert [True] == woken


def test_sigint_becomes_a_flag_and_then_is_what_it_was():
    """During a run the SIGINT handler is ours, and afterwards, even after an error, it is Python's own."""
    interrupt = Interrupt()
    with pytest.raises(ZeroDivisionError), catch_interrupt(interrupt):
        signal.raise_signal(signal.SIGINT)
        assert interrupt.asked
        raise ZeroDivisionError
    assert signal.default_int_handler is signal.getsignal(signal.SIGINT)


def test_no_interrupt_is_swallowed():
    """A Ctrl-C that comes too late for any safe point is raised in the end."""
    with pytest.raises(KeyboardInterrupt), catch_interrupt(Interrupt()):
        signal.raise_signal(signal.SIGINT)
    assert signal.default_int_handler is signal.getsignal(signal.SIGINT)


def test_a_run_within_a_run_has_the_signal_to_itself():
    """Ctrl-C stops the inner run at its safe point; after that it stops the outer one."""
    outer, inner = Interrupt(), Interrupt()
    with catch_interrupt(outer), outer.user_code():
        with pytest.raises(ZeroDivisionError), catch_interrupt(inner):
            signal.raise_signal(signal.SIGINT)
            raise ZeroDivisionError
        assert (False, True) == (outer.asked, inner.asked)
        assert outer is signal.getsignal(signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)


def test_the_callers_code_within_the_callers_code_is_exposed_to_its_end():
    """Leaving an inner exposed section leaves the outer one exposed."""
    interrupt = Interrupt()
    with interrupt.user_code():
        with interrupt.user_code():
            pass
        with pytest.raises(KeyboardInterrupt):
            interrupt(signal.SIGINT, None)


def test_a_handler_of_the_callers_is_left_alone():
    """A SIGINT handler of the caller's own, such as a server's, stays in force."""
    seen, interrupt = [], Interrupt()
    before = signal.signal(signal.SIGINT, lambda *_: seen.append(True))
    try:
        with catch_interrupt(interrupt):
            signal.raise_signal(signal.SIGINT)
    finally:
        signal.signal(signal.SIGINT, before)
    assert ([True], False) == (seen, interrupt.asked)


def test_other_threads_do_not_touch_the_handler():
    """In other threads, which neither may set a handler nor get the signal, a run sets none."""
    inside = []

    def work():
        with catch_interrupt(Interrupt()):
            inside.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert [signal.default_int_handler] == inside


# Stops


def test_the_end_of_the_run_strikes_on_time():
    """At ``run_timeout``, what is done is kept, and everything running, waiting or delayed is cancelled at that instant."""
    script = Script({0: Done(0, after=4), 1: Hang(), 2: [Fail(ERROR, after=1), Hang()], 3: Hang()})
    end = {"end_at": 10.0, "end_reason": "run_timeout of 10 s"}
    run = FakeRun(script, range(4), workers=3, policy=Delays(8.0), **end).drive()
    assert 10.0 == run.clock()
    assert [0, TaskCancelled, TaskCancelled, TaskCancelled] == kinds(run)
    assert [1, 1, 2, 1] == [outcome.attempts for outcome in run.outcomes]
    assert "run_timeout of 10 s" == run.ledger.stopped


def test_a_run_that_raises_stops_at_its_first_failure():
    """With ``on_error="raise"``, nothing is waited for after the first failure: the rest is cancelled."""
    script = Script({0: Hang(), 1: Fail(ERROR, after=2), 2: Hang()})
    run = FakeRun(script, range(3), raise_first=True).drive()
    assert 2.0 == run.clock()
    assert [TaskCancelled, OSError, TaskCancelled] == kinds(run)
    assert ERROR is run.scheduler.first_error


def test_the_nth_failure_stops_the_run():
    """``max_failures`` counts final failures."""
    run = FakeRun(lambda item: Fail(OSError(item), after=1), range(10), workers=1, max_failures=3).drive()
    assert [*[OSError] * 3, *[TaskCancelled] * 7] == kinds(run)
    assert "max_failures of 3 reached" == run.ledger.stopped


@pytest.mark.parametrize("options", [{"raise_first": True}, {"max_failures": 2}, {"end_at": 2.0}])
def test_a_reason_that_comes_with_the_last_outcome_stops_nothing(options):
    """A reason to stop that comes with the last outcome does not count as a stop."""
    run = FakeRun(lambda item: Fail(OSError(item), after=item + 1), range(2), **options)
    if options == {"raise_first": True}:
        run = FakeRun(lambda item: Fail(OSError(item), after=1), range(2), **options)
    assert [OSError, OSError] == kinds(run.drive())
    assert run.ledger.stopped is None


def test_somebody_else_may_ask_for_the_stop():
    """A stop can be requested from outside, as a closed stream does: the wait ends, and the reason is kept."""
    run = FakeRun(Script({0: Hang()}), [0])

    def ask():
        run.loop.asked = "the stream was closed"
        run.port.wake()

    run.clock.call_at(3, ask)
    assert [TaskCancelled] == kinds(run.drive())
    assert (3.0, "the stream was closed") == (run.clock(), run.ledger.stopped)


def test_an_executor_that_breaks_stops_the_run():
    """If the executor breaks, its error is the reason and the cause of every cancellation; what it had committed is kept."""
    run = FakeRun(Script({0: Done("kept", after=1), 1: Hang(), 2: Hang(), 3: Hang()}), range(4))
    broken, cause = RuntimeError("no worker starts"), OSError("no room")
    broken.__cause__ = cause
    run.clock.call_at(4, lambda: run.port.fail(broken))
    results = run.drive().results
    assert (4.0, "no worker starts (OSError: no room)") == (run.clock(), results.stopped)
    assert "kept" == results[0]
    assert [(1, None), (1, None), (0, cause)] == [
        (failure.attempts, failure.error.__cause__) for failure in results.failures.values()
    ]
    assert {TaskCancelled} == {type(failure.error) for failure in results.failures.values()}


def test_an_executor_that_breaks_when_all_is_done_stops_nothing():
    """An executor that breaks when every outcome is there stops nothing: ``stopped`` must not suggest that some are missing."""
    run = FakeRun(Script({0: Done(1, after=4)}), [0])
    run.clock.call_at(4, lambda: run.port.fail(RuntimeError("too late")))
    assert [1] == kinds(run.drive())
    assert run.ledger.stopped is None


class Dawdling(Silent):
    """A progress bar that takes two seconds to show a failure."""

    def __init__(self, clock):
        self.clock = clock

    def show(self, total, settled, failed, retried):
        self.clock.advance(2 if failed else 0)


def test_what_is_committed_until_the_stop_is_delivered():
    """An attempt that ends just before the stop keeps its value."""
    script = Script({0: Fail(ERROR, after=1), 1: Done("in time", after=2), 2: Hang()})
    run = FakeRun(script, range(3), workers=3, raise_first=True)
    run.loop.bar = Dawdling(run.clock)
    assert [OSError, "in time", TaskCancelled] == kinds(run.drive())
    assert "a task failed, and on_error is 'raise'" == run.ledger.stopped


def test_what_fails_until_the_stop_is_cancelled_where_a_try_was_left():
    """An attempt that fails just before the stop, and could be retried, is cancelled with its error as the cause."""
    again = OSError("try me again")
    script = Script({0: Fail(ValueError(), after=1), 1: Fail(again, after=2)})
    run = FakeRun(script, range(2), raise_first=True, policy=Retry(1, delay=0, on=OSError))
    run.loop.bar = Dawdling(run.clock)
    run.drive()
    assert [ValueError, TaskCancelled] == kinds(run)
    tried = run.outcomes[1]
    assert (again, 1, 2.0) == (tried.error.__cause__, tried.attempts, tried.duration)


@pytest.mark.parametrize("step", [Fail(ERROR, after=2), Done("refused", after=2)])
def test_what_ends_while_the_run_is_being_stopped_was_its_last_attempt(step, monkeypatch):
    """An attempt that ends after the run has asked what is running, and could be retried, is not taken for the next one that was cut off."""
    tenacity = pytest.importorskip("tenacity", reason="installed with the test extra")
    again = tenacity.retry_if_exception_type(OSError) | tenacity.retry_if_result(bool)
    script = Script({0: Fail(ValueError(), after=1), 1: step})
    run = FakeRun(script, range(2), policy=as_policy(tenacity.Retrying(retry=again)), max_failures=1)
    monkeypatch.setattr(run.port, "give_back", lambda: run.clock.advance(1) or [])
    run.drive()
    assert [ValueError, TaskCancelled] == kinds(run)
    assert {0: (1, 1.0), 1: (1, 2.0)} == {one.key: (one.attempts, one.duration) for one in run.outcomes}
    assert 2 == len(run.ledger.attempts())


def test_after_the_stop_nothing_runs():
    """After a stop, the port is closed, and nothing runs."""
    run = FakeRun(Script({0: Fail(ERROR), 1: Hang(), 2: Hang()}), range(3), raise_first=True).drive()
    assert (True, [], []) == (run.port.closed, run.executor.running, run.port.running())


# The bar


class Counts(Silent):
    def __init__(self):
        self.shown = []

    def show(self, total, settled, failed, retried):
        self.shown.append((total, settled, failed, retried))


def test_the_bar_is_told_after_every_wait():
    """After every wait, the bar gets the current numbers of all, settled, failed and retried tasks."""
    script = Script({0: Done(after=1), 1: [Fail(ERROR, after=2), Fail(ERROR, after=1)]})
    run = FakeRun(script, range(2), policy=Retry(1, delay=0))
    run.loop.bar = bar = Counts()
    run.loop.total = lambda: 2
    run.drive()
    assert (2, 2, 1, 1) == bar.shown[-1]
    assert sorted(set(bar.shown)) == list(dict.fromkeys(bar.shown)), "no count ever goes back"


# The fakes themselves


def test_a_script_says_when_it_is_left():
    """A script fails the test at an unexpected attempt, and shows the steps that were not taken."""
    script = Script({"a": Done(1), "b": [Hang(), Done(2)]})
    assert Done(1) == script("a")
    with pytest.raises(AssertionError, match="no further attempt of 'a'"):
        script("a")
    assert {"b": [Hang(), Done(2)]} == script.left


def test_a_task_of_the_fake_executor_may_raise():
    """A task of the fake executor may raise, and that is how its attempt ends."""
    clock = FakeClock()
    port = FakeExecutor(clock).open(Job(lambda item: 1 // item))
    port.start([(0, 1, 0, None), (1, 1, 1, None)])
    block, ended = port.wait(None)
    assert Block((1,), (1,), (0.0,), (0.0,), ("fake 2",)) == block
    assert (0, ZeroDivisionError) == (ended.index, type(ended.error))


def test_what_ends_at_the_limit_is_in_time():
    """A result committed at the very instant of the timeout counts."""
    port = FakeExecutor(FakeClock()).open(Job(lambda item: Done(item, after=2)))
    port.start([(0, 1, "a", 2.0), (1, 1, "b", 1.9)])
    first, second = port.wait(None), port.wait(None)
    assert isinstance(first[0], Ended)
    assert isinstance(first[0].error, TaskTimeout)
    assert (1.9, "a") == (first[0].ended, second[0].values[0])


@pytest.mark.parametrize(
    ("items", "options", "direct", "ahead"),
    [
        ([0], {}, True, AHEAD_OF_LIST),
        ([0], {}, False, 2 * WINDOW),
        (map(abs, [0]), {}, True, 2 * WINDOW),
        ([0], {"on_error": "raise"}, True, 2 * WINDOW),
        ([0], {"max_failures": 0.5}, True, 2 * WINDOW),
        ([0], {"buffersize": 5}, True, 5),
    ],
)
def test_a_list_is_read_further_ahead_unless_a_failure_may_stop_the_run(items, options, direct, ahead):
    """A loop reads a list further ahead, because that costs nothing, unless a failure may stop the run and make it useless."""
    plan = Plan.make(abs, items, options)
    assert ahead == plan.window(SimpleNamespace(max_workers=2), direct=direct).room(0, 0)


# Three ways to take input in: by portions, item by item, and item by item with the books written afterwards


def taken_in(run, way):
    """Make the run take in its input in this way."""
    source = run.loop.source
    if way != "portions":
        run.loop.flows, run.port.eager = True, True
    if way == "flow":
        run.loop.flowing = source
    return run


def take_in(way, steps, **options):
    """Run these steps on lazy input, taken in in this way; return their outcomes."""
    script = Script(dict(enumerate(steps)))
    run = FakeRun(script, iter(range(len(steps))), policy=Delays(*[1.0] * 9), timeout=5, **options)
    taken_in(run, way).drive()
    assert {} == script.left
    return [
        (one.key, one.ok, one.attempts, one.queued_at, one.started_at, one.duration) for one in run.outcomes
    ]


@pytest.mark.parametrize("key", [None, "item {}".format])
@pytest.mark.parametrize("buffersize", [1, 3, None])
def test_however_input_is_taken_in_the_outcomes_are_the_same(buffersize, key):
    """Outcomes are the same for all ways of taking in input; item by item, even their instants are."""
    steps = [
        Done(1, after=2),
        [Fail(OSError()), Done(2, after=1)],
        [Hang(), Hang(), Fail(ValueError(), final=True)],
        Done(3),
        [Die(), Done(4, after=3)],
        *[Done(n, after=n % 3) for n in range(20)],
    ]
    portions, one_by_one, flow = (
        take_in(way, steps, buffersize=buffersize, key=key) for way in ("portions", "one by one", "flow")
    )
    assert one_by_one == flow
    assert [task[:3] for task in portions] == [task[:3] for task in flow]
    assert [*map(key or int, range(len(steps)))] == [task[0] for task in flow]


@pytest.mark.parametrize("way", ["portions", "one by one", "flow"])
def test_a_bad_key_ends_the_input_however_it_is_taken_in(way):
    """The items before one whose key is taken are run under their keys, none behind it is, and the error names both positions."""
    run = taken_in(FakeRun(Script(), iter("abcad"), key=str.upper), way).drive()
    assert {"A": "a", "B": "b", "C": "c"} == dict(run.results)
    assert "key must be unique, got 'A' at positions 0 and 3" == str(run.intake.error)


@pytest.mark.parametrize("way", ["one by one", "flow"])
def test_an_item_has_its_turn_before_the_next_is_asked_for(way):
    """An item starts before the next one is requested, although retries have precedence: the input may wait for it."""
    script = Script({item: [Fail(OSError(), after=1), Done(item)] for item in range(4)})

    def items():
        for item in range(8):
            yield item
            assert item in script.calls

    run = FakeRun(script, items(), workers=1, ahead=0, policy=Delays(*[0.0] * 4))
    assert [*range(8)] == taken_in(run, way).drive().results.values()
    assert run.intake.error is None


def test_nothing_more_of_a_flow_is_read_once_ctrl_c_was_pressed():
    """A Ctrl-C between two items takes effect before the next is requested."""
    asked = []

    def items():
        for item in range(5):
            asked.append(item)
            yield item

    def work(item):
        if item == 1:
            run.interrupt(signal.SIGINT, None)
        return item

    run = FakeRun(work, items(), workers=1)
    with pytest.raises(KeyboardInterrupt):
        taken_in(run, "flow").drive()
    assert [0, 1] == asked


@pytest.mark.parametrize("way", ["portions", "one by one", "flow"])
def test_the_start_of_a_retry_is_told_however_input_is_taken_in(way):
    """The start of a retry is reported soon, although a delayed task makes checks for starts rare."""
    told = []
    run = FakeRun(Script({0: [Fail(OSError()), Done(0, after=100)]}), iter([0]), policy=Delays(10.0), ahead=0)
    run.scheduler.news = []
    run.loop.observer = Observer(lambda event: told.append((event.kind, run.clock())), str, 0.0)
    taken_in(run, way).drive()
    assert ("started", pytest.approx(10.0, abs=0.01)) == told[-2]


def test_an_input_that_raises_ends_a_flow_as_it_ends_a_portion():
    """If the input raises, everything before is run, and the error says how many items that were."""

    def items():
        yield from range(3)
        raise LookupError("gone")

    run = FakeRun(Script(), items())
    run.loop.flowing = run.loop.source
    assert [0, 1, 2] == run.drive().results.values()
    assert "the input raised LookupError after 3 items: gone" == str(run.intake.error)


def test_only_what_may_start_has_events():
    """A task whose outcome is known before has none, whichever portion of the input it comes in."""
    told = []
    run = FakeRun(Script(), iter(range(7)))
    run.scheduler.news = []
    run.loop.observer = Observer(lambda event: told.append((event.kind, event.key)), int, 0.0)
    known = {1: Recalled("known", "cache")}  # the second of each portion
    run.loop.recalls = [lambda portion, first: known if len(portion.items) > 1 else {}]
    assert [0, 1, "known", 3, "known", 5, 6] == run.drive().results.values()
    assert [0, 1, 3, 5, 6] == [key for kind, key in told if kind == "succeeded"]
    assert run.loop.observer.look_at(0.0, None, True) is None  # no start is still to come


def test_a_listener_that_ctrl_c_has_cut_off_is_not_called_again():
    """A listener may hang, and the stop that follows a Ctrl-C in it must not wait for it once more."""
    told = []

    def hear(event):
        told.append(event.kind)
        if event.kind == "succeeded":
            raise KeyboardInterrupt

    run = FakeRun(Script({1: Hang()}), [0, 1])
    run.scheduler.news = []
    run.loop.observer = Observer(hear, int, 0.0)
    with pytest.raises(KeyboardInterrupt):
        run.drive()
    run.loop.stop("interrupted")
    assert "succeeded" == told[-1]
    assert "interrupted" == run.scheduler.stopped
