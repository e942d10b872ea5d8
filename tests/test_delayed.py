"""``Retry(max_time=…)`` when something delays a retry: no retry starts later, and the failure is final when the time is over."""

import pickle
import threading
import time

import pytest
import remote_tasks as far
from fakes import Delays, Done, Fail, FakeRun, Script
from patience import given_time

from parallelkit import ConcurrencyLimit, RateLimit, Retry, Task, iter_parallel, run_parallel
from parallelkit._executors._contract import Ended
from parallelkit._ledger import Ledger
from parallelkit._results import Results
from parallelkit._scheduler import Scheduler
from parallelkit._scheduling._delayed import Delayed
from parallelkit._scheduling._fifo import Fifo
from parallelkit._scheduling._ready import Gated
from parallelkit._scheduling._tries import Tries

DOWN = OSError("down")
FIVE = Retry(3, delay=0, max_time=5)


def after_each(delay, max_time):
    """A retry policy without end, always with the same delay."""
    policy = Delays(*[delay] * 100_000)
    policy.max_time = max_time
    return policy


# By itself


def test_what_is_due_comes_once_and_what_started_lapses_no_more():
    """Each retry is due once, after its delay; one that has started does not lapse."""
    delayed = Delayed()
    delayed.delay(0, 1.0, 5.0)
    delayed.delay(1, 2.0, None)
    assert [0] == list(delayed.due(1.5))
    assert [1] == list(delayed.due(9.0))
    delayed.started([0, 1])
    assert [] == list(delayed.lapsed(9.0))
    assert not delayed


def test_the_last_instant_is_in_time():
    """A retry lapses after its last instant, not at it, and that is when the loop must wake up."""
    delayed = Delayed()
    delayed.delay(0, 1.0, 5.0)
    list(delayed.due(1.0))
    assert [] == list(delayed.lapsed(5.0))
    assert 5.0 < delayed.wake_at() < 5.000001
    assert [0] == list(delayed.lapsed(delayed.wake_at()))
    assert delayed.wake_at() is None


def test_a_task_tried_again_and_again_leaves_no_trace():
    """A million retries of one task do not grow the heap."""
    delayed = Delayed()
    for round_ in range(10_000):
        delayed.delay(0, float(round_), 1e9)
        assert [0] == list(delayed.due(float(round_)))
        delayed.started([0])
    assert len(delayed._lapses) < 200


def test_what_lapses_first_is_seen_first_after_many_retries():
    """Also among those that remain when the entries of all that have started again are dropped."""
    delayed = Delayed()
    for index in range(200):
        delayed.delay(index, 0.0, float(200 - index))
    delayed.started(range(2, 198))
    assert [199] == list(delayed.lapsed(1.5))


# In the queues


def ticket(index):
    return index, 2, None, None


def closed_limiter(*indices):
    """A queue in which these tasks wait, in this order, for a rate of one start in ten seconds, which is used up."""
    ready = Gated([RateLimit(1, per=10)])
    for index in (9, *indices):
        ready.describe(index, 0.0, (None,))
        ready.push_again(ticket(index))
        if index == 9:
            assert [ticket(9)] == list(ready.pop(0.0, 9))
            ready.begun(9, 0.0)
    assert [] == list(ready.pop(0.0, 9))
    return ready


@pytest.mark.parametrize("gone", [0, 1, 2])
def test_those_behind_a_withdrawn_one_keep_their_places(gone):
    """Withdrawing a task, at the head of its queue or not, leaves the others in their order."""
    ready = closed_limiter(0, 1, 2)
    ready.withdraw([gone], 5.0)
    left = [index for index in range(3) if index != gone]
    for at, index in zip((11.0, 22.0), left, strict=True):
        assert [ticket(index)] == list(ready.pop(at, 9))
        ready.begun(index, at)
    assert [] == list(ready.pop(40.0, 9))


def test_those_behind_a_withdrawn_one_do_not_get_its_priority():
    """When the best task of a group is withdrawn, the group's place among the others is that of its next task."""
    ready = Gated([ConcurrencyLimit(9, by=abs)])
    for index, priority, group in ((0, 5.0, "a"), (1, 1.0, "a"), (2, 3.0, "b")):
        ready.describe(index, priority, (group,))
        ready.push_again(ticket(index))
    ready.withdraw([0], 0.0)
    assert [ticket(2), ticket(1)] == list(ready.pop(0.0, 9))


def test_a_queue_that_was_emptied_can_be_filled_again():
    """After the last task of a queue was withdrawn, the queue can be used again."""
    ready = closed_limiter(0)
    ready.withdraw([0], 5.0)
    assert not ready._queues, "a queue at rest is forgotten"
    assert [] == list(ready.pop(11.0, 9))
    ready.describe(1, 0.0, (None,))
    ready.push_again(ticket(1))
    assert [ticket(1)] == list(ready.pop(12.0, 9))


def test_the_ordinary_queue_lets_go_of_one():
    """Withdrawing a task from the ordinary queue leaves other retries there, in order."""
    ready = Fifo()
    for index in range(4):
        ready.push_again(ticket(index))
    ready.withdraw({1, 3}, 0.0)
    assert [ticket(0), ticket(2)] == list(ready.pop(0.0, 9))


def test_what_is_put_back_is_as_it_was():
    """An attempt that was handed over and not begun is ready again: a retry until its last instant, under the same limits."""
    ledger = Ledger()
    ledger.admit(None, 2, 0.0)
    limits = [RateLimit(1, per=1), ConcurrencyLimit(1)]
    scheduler = Scheduler(ledger, policy=FIVE, gated=Gated(limits))
    scheduler.admit([0, 1], traits=[(0.0, (None, None))] * 2)
    first = scheduler.start_due(0.0, 9)
    scheduler.put_back(first, 0.0)
    assert (first, 1) == (scheduler.start_due(1.0, 9), scheduler.started)
    scheduler.finish([Ended(0, DOWN, "", 1.0, 2.0, "thread 1")], 2.0)
    retry = scheduler.start_due(3.0, 9)
    assert [(0, 2)] == [ticket[:2] for ticket in retry]
    scheduler.put_back(retry, 3.0)
    assert (retry, 1) == (scheduler.start_due(4.0, 9), scheduler.started)
    scheduler.put_back(retry, 5.0)
    assert not scheduler.lapse(6.0)
    assert scheduler.lapse(6.1), "max_time is over"
    assert [(1, 1)] == [ticket[:2] for ticket in scheduler.start_due(6.1, 9)]


def test_who_gives_a_start_back_lets_others_go_first():
    """Whatever wakes the run, it takes the start again only after a while, and wakes for that by itself."""
    ready = Gated([RateLimit(1, per=1)])
    for index in range(2):
        ready.describe(index, 0.0, (None,))
    ready.push([ticket(0), ticket(1)])
    for now in 0.0, 5.0:
        assert [ticket(0)] == list(ready.pop(now, 9))
        ready.put_back(ticket(0), now + 0.5)
        assert [] == list(ready.pop(now + 0.5, 9)) == list(ready.pop(now + 1.1, 9))
        assert now + 1.5 == pytest.approx(ready.wake_at(), abs=0.01)
    assert [ticket(0)] == list(ready.pop(ready.wake_at(), 9))


def test_who_gives_a_start_back_waits_a_second_at_most():
    """Under a thousand starts an hour as well, the run does not wait for an hour."""
    ready = Gated([RateLimit(1000, per=3600), RateLimit(1, per=2)])
    ready.describe(0, 0.0, (None, None))
    ready.push([ticket(0)])
    assert [ticket(0)] == list(ready.pop(10.0, 1))
    ready.put_back(ticket(0), 20.0)
    assert [] == list(ready.pop(20.0, 1))
    assert 21.0 == ready.wake_at()
    assert [ticket(0)] == list(ready.pop(21.0, 1))


def test_no_request_for_a_start_is_lost():
    """What another run asks for just before this one starts something is still there when it looks."""
    limit = RateLimit(1, per=1)
    ready, other = Gated([limit]), Gated([limit])
    for each in (ready, other):
        each.describe(0, 0.0, (None,))
        each.push([ticket(0)])
    assert [ticket(0)] == list(ready.pop(5.0, 9))
    assert [] == list(other.pop(5.0, 9))
    assert [] == list(other.pop(other.wake_at(), 9)), "it asks"
    assert [] == list(ready.pop(6.5, 9))
    assert ready.wants_reports(6.5)
    assert [True, False] == [ready.take_request(), ready.take_request()]


@pytest.mark.parametrize("within", ["inline", "threads"])
def test_a_run_in_an_inline_task_may_share_its_limit(within):
    """The start of an inline task is reported as it begins: nobody could ask for it before the task ends."""
    limit = RateLimit(1, per=0.01)

    def page(item):
        return run_parallel(abs, [item], executor=within, limits=limit, run_timeout=5)[0]

    assert [1, 2] == run_parallel(page, [-1, -2], executor="inline", limits=limit).values()


def test_the_turn_of_a_withdrawn_one_is_the_next_ones():
    """If a limit has a place for a task that is withdrawn, the next one gets it; otherwise it would wait forever."""
    ready = Gated([ConcurrencyLimit(1), ConcurrencyLimit(9, by=str)])
    for index, group in enumerate("xab"):
        ready.describe(index, 0.0, (None, group))
        ready.push_again(ticket(index))
    assert [ticket(0)] == list(ready.pop(0.0, 9))
    assert [] == list(ready.pop(0.0, 9))
    ready.ended(0, 2.0)
    ready.withdraw([1], 3.0)
    assert [ticket(2)] == list(ready.pop(3.0, 9))


@pytest.mark.parametrize("ready", [Fifo(), Gated([])])
def test_no_queue_is_gone_through_for_each_that_is_withdrawn(ready):
    """Withdrawing the last 5,000 of 50,000 tasks takes milliseconds: a search for each would take 10 s."""
    for index in range(50_000):
        if isinstance(ready, Gated):
            ready.describe(index, 0.0, ())
        ready.push_again(ticket(index))
    began = time.process_time()
    for index in range(49_999, 44_999, -1):
        ready.withdraw([index], 0.0)
    assert time.process_time() - began < 1.0
    assert [ticket(index) for index in range(45_000)] == list(ready.pop(0.0, 60_000))
    assert [] == list(ready.pop(0.0, 9))


# In a run


def test_a_rate_that_is_late_makes_the_failure_final():
    """If a rate allows the retry only after ``max_time``, the task fails when ``max_time`` is over, with one attempt."""
    run = FakeRun(Script({"a": Fail(DOWN)}), ["a"], limits=[RateLimit(1, per=60)], policy=FIVE).drive()
    [outcome] = run.outcomes
    assert (outcome.error, outcome.attempts) == (DOWN, 1)
    assert run.clock() == pytest.approx(5.0)
    [attempt] = run.ledger.attempts()
    assert (attempt.number, attempt.error) == (1, DOWN)
    assert run.scheduler.retried == 0
    assert run.scheduler.started == 1
    [note] = [note for note in DOWN.__notes__ if note.startswith("parallelkit")]
    assert note.endswith(
        "task 0, attempt 1 of 4; not tried again, since max_time of 5 s was over before it could start"
    )


def test_the_report_counts_an_attempt_once():
    """An attempt whose retry has lapsed counts as failed, not as retried, also in a copy of the results."""
    run = FakeRun(
        Script({"a": Fail(DOWN, after=1)}), ["a"], limits=[RateLimit(1, per=60)], policy=FIVE
    ).drive()
    results = Results(run.ledger)
    for each in (results, pickle.loads(pickle.dumps(results))):
        summary = each.summary
        assert (1, 0, 1) == (summary.failed, summary.retried, summary.attempts)
        assert summary.busy == pytest.approx(1.0)
        assert len(each.attempts) == 1
        assert "retr" not in each.report()


def test_a_text_from_afar_ends_in_the_last_word():
    """In a remote traceback, the note of the failed attempt is replaced by the reason why no retry followed."""
    tries = Tries(FIVE, "task {}".format)
    tries.judge(Ended(0, OSError("down"), "Traceback: …\nOSError: down\n", 0.0, 1.0, "process 1"), 1.0, 1)
    end = "attempt 1 of 4; not tried again, since max_time of 5 s was over before it could start\n"
    assert f"Traceback: …\nOSError: down\nparallelkit: task 0, {end}" == tries.lapse(0).traceback


@pytest.mark.parametrize(
    ("seen_at", "why"),
    [
        (5.5, "max_time of 5 s was over before it could start"),
        (4.5, "the wait of 1 s would go past max_time of 5 s"),
    ],
)
def test_no_retry_starts_late_since_the_run_was_busy(seen_at, why):
    """If the run sees a failure late, because the input blocks, say, the delay begins then, but ``max_time`` has gone on."""
    error = OSError("down")
    tries = Tries(after_each(1.0, max_time=5.0), "task {}".format)
    verdict = tries.judge(Ended(0, error, "", 0.0, 1.0, "thread 1"), seen_at, 1)
    assert verdict.delay is None
    assert [f"parallelkit: task 0, attempt 1; not tried again, since {why}"] == error.__notes__


def test_nothing_flows_past_what_lapses():
    """While input is taken item by item, a lapse is noticed, because it may stop the run."""
    script = Script({0: Fail(DOWN), 1: Done(1, after=10)})
    run = FakeRun(script, iter(range(5)), workers=1, ahead=0, policy=after_each(2.0, 5.0), max_failures=1)
    run.loop.flowing = run.loop.source
    run.drive()
    assert [0, 1] == script.calls
    assert run.clock() == pytest.approx(5.0)


def test_a_retry_has_its_turn_in_a_flow():
    """A retry gets its turn in a flow of input, before its time is over."""
    steps = {item: Done(item, after=2) for item in range(1, 5)}
    script = Script({0: [Fail(DOWN), Done(0)], **steps})
    run = FakeRun(script, iter(range(5)), workers=1, ahead=0, policy=after_each(1.0, 5.0))
    run.loop.flowing = run.loop.source
    assert [0, 1, 2, 3, 4] == run.drive().results.values()
    assert [0, 1, 0, 2, 3, 4] == script.calls


@pytest.mark.parametrize("options", [{}, {"priority": lambda item: -item}, {"limits": [ConcurrencyLimit(1)]}])
def test_no_retry_starts_late_behind_a_long_task(options):
    """A retry that waits behind a long task, in any queue, is withdrawn when its time is over, and the rest runs."""
    script = Script({0: Fail(DOWN, after=1), 1: Done(1, after=100), 2: Done(2), 3: Done(3)})
    policy = after_each(2.0, max_time=5.0)
    run = FakeRun(script, range(4), workers=1, ahead=0, buffersize=10, policy=policy, **options)
    lost_at = []
    run.clock.call_at(6.1, lambda: lost_at.extend(run.ledger.failed))
    run.drive()
    assert [0, 1, 2, 3] == script.calls
    assert [0] == lost_at, "it was not settled as its time was over"
    assert [False, True, True, True] == [outcome.ok for outcome in run.outcomes]
    assert run.scheduler.started == 4
    assert [0] == [one.index for one in run.ledger.attempts() if one.error is not None]


def test_a_group_whose_tasks_lapse_holds_up_no_other():
    """Lapsed tasks of a waiting group affect neither the others of that group nor other groups."""
    script = Script({("x", 0): Fail(DOWN), ("x", 1): Done(1), ("y", 0): Done(2)})
    limits = [RateLimit(1, per=10, by=lambda item: item[0])]
    run = FakeRun(script, [("x", 0), ("x", 1), ("y", 0)], limits=limits, policy=FIVE).drive()
    assert [False, True, True] == [outcome.ok for outcome in run.outcomes]
    assert run.outcomes[1].started_at == pytest.approx(10.0, abs=0.1)
    assert run.outcomes[2].started_at == 0.0


def test_many_lapse_at_once():
    """A thousand retries that wait for one limit fail together, and tasks that wait for their first attempt start."""
    steps = {item: Fail(OSError(item)) if item < 1000 else Done(item) for item in range(1003)}
    policy = after_each(1.0, max_time=5.0)
    options = {"limits": [RateLimit(1000, per=50)], "policy": policy}
    run = FakeRun(Script(steps), range(1003), workers=8, buffersize=2000, **options).drive()
    assert (1000, 3) == (run.scheduler.failed, run.scheduler.succeeded)
    assert {1} == {outcome.attempts for outcome in run.outcomes}


def test_a_lapse_counts_as_a_failure_at_once():
    """A lapse counts for ``max_failures`` when the time is over, not when something else happens."""
    script = Script({"a": Fail(DOWN), "b": Done(after=100)})
    limits = [RateLimit(1, per=60, by=lambda item: item)]
    run = FakeRun(script, ["a", "b"], limits=limits, policy=FIVE, max_failures=1).drive()
    assert run.clock() == pytest.approx(5.0)
    assert run.ledger.stopped == "max_failures of 1 reached"


def test_what_lapses_is_seen_before_anything_starts():
    """Lapses are processed before anything starts, because they may stop the run."""
    script = Script({0: Fail(DOWN, after=1)})
    policy = after_each(2.0, max_time=5.0)
    run = FakeRun(script, [0, 1], workers=1, ahead=0, policy=policy, max_failures=1)
    while not run.scheduler.delayed:
        assert run.loop.step()
    run.clock.jump(6.0)
    run.drive()
    assert [0] == script.calls
    assert "max_failures of 1 reached" == run.ledger.stopped


def test_a_task_that_only_waits_lapses_too():
    """A task that was told to wait, and is then held up, lapses with one outcome and no attempt."""

    class RateLimitException(Exception):
        period_remaining = 1.0

    RateLimitException.__module__ = "ratelimit.exception"
    script = Script({"a": Fail(RateLimitException())})
    run = FakeRun(script, ["a"], limits=[RateLimit(1, per=60)], policy=Retry(0, max_time=5)).drive()
    [outcome] = run.outcomes
    assert (0, None, False) == (outcome.attempts, outcome.started_at, outcome.ok)
    assert "attempt 1 of 1; not tried again, since max_time of 5 s was over" in outcome.error.__notes__[-1]
    assert run.scheduler.retried == 0


@pytest.mark.parametrize("executor", ["threads", "processes", "inline"])
def test_no_retry_starts_late_for_real(executor):
    """In real time, with a rate of one a minute, the run ends when ``max_time`` is over, with the task's own error."""
    began = time.monotonic()
    policy = Retry(3, delay=0, max_time=0.1)
    results = run_parallel(far.refuse, [0], executor=executor, limits=RateLimit(1, per=60), retries=policy)
    took = time.monotonic() - began
    assert 0.08 < took < 30
    assert ("down", 1) == (str(results.outcomes[0].error), results.outcomes[0].attempts)
    assert 1 == len(results.attempts)
    assert "before it could start" in results.outcomes[0].error.__notes__[-1]


@given_time
def test_events_tell_of_a_lapse_once(scale):
    """The events of a lapse are started, retrying and failed: the retry itself is not reported as started."""
    events = []
    policy = Retry(3, delay=0, max_time=0.3 * scale)
    run_parallel(far.refuse, [0], limits=RateLimit(1, per=60), retries=policy, on_event=events.append)
    kinds = [(event.kind, event.attempt) for event in events if event.key is not None]
    assert [("started", 1), ("retrying", 1), ("failed", 1)] == kinds
    assert events[-1].at >= 0.29 * scale
    assert events[-1].worker is None


def test_a_stream_has_a_lapse_at_once():
    """A stream yields a lapse when the time is over, while another task still runs."""
    policy = Retry(3, delay=0, max_time=0.3)
    limits = RateLimit(1, per=60, by=lambda item: item)
    lapsed = threading.Event()

    def slowly(item):
        return lapsed.wait(30) if item else far.refuse(item)

    for outcome in iter_parallel(slowly, [0, 1], limits=limits, retries=policy, max_workers=2):
        if not outcome.ok:
            assert outcome.key == 0
            lapsed.set()
    assert outcome.value, "the lapse was told only when the other task had ended"


def test_then_hears_of_a_lapse():
    """``then`` is called for a lapse, and its tasks run."""
    policy = Retry(3, delay=0, max_time=0.2)
    limits = RateLimit(1, per=60, by=lambda item: item)
    results = run_parallel(
        far.refuse,
        [0],
        limits=limits,
        retries=policy,
        then=lambda outcome: [] if outcome.ok else [Task(far.refuse, 7)],
    )
    assert [False, True] == [outcome.ok for outcome in results.outcomes.values()]
