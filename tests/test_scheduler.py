"""The scheduler's state machine: instants go in as numbers, decisions come out as values."""

import time

import pytest
import tenacity
from fakes import Delays, make_scheduler, outcomes_of

from parallelkit import Failure, Retry, Success, TaskCancelled, TaskExited, TaskTimeout
from parallelkit._died import died_with
from parallelkit._executors._contract import Block, Ended
from parallelkit._facts import Facts
from parallelkit._ledger import Ledger
from parallelkit._policies import as_policy
from parallelkit._tasks import Own

ERROR = OSError("down")
AT_ONCE = Retry(1, delay=0)


class Bench:
    """A scheduler with a ledger, and an executor played by hand."""

    def __init__(self, items=(), own=None, **options):
        self.ledger = Ledger(Facts())
        self.scheduler = make_scheduler(self.ledger, **options)
        self.admit(items, own)

    def admit(self, items, own=None, now=0.0):
        if items:
            self.ledger.admit(None, len(items), now)
            self.scheduler.admit(items, own)

    def start(self, now=0.0, room=100):
        return list(self.scheduler.start_due(now, room))

    def succeed(self, *indices, started=0.0, ended=1.0):
        count = len(indices)
        values = [f"value {index}" for index in indices]
        self.scheduler.finish(
            [Block(indices, values, [started] * count, [ended] * count, ["w"] * count)], ended
        )

    def lose(self, index, error=ERROR, started=0.0, ended=1.0, *, final=False):
        self.scheduler.finish([Ended(index, error, "", started, ended, "w", None, final)], ended)

    def outcome(self, index):
        return self.ledger.outcome(index)

    @property
    def settled(self):
        return {
            index
            for index, value in enumerate(self.ledger.values)
            if repr(value) not in ("OPEN", "CANCELLED")
        }


# ready → running


def test_ready_tasks_start_in_input_order():
    """A ticket has the task's index, the attempt's number, the item and the timeout."""
    bench = Bench(["a", "b", "c"], timeout=5)
    assert [(0, 1, "a", 5), (1, 1, "b", 5), (2, 1, "c", 5)] == bench.start()
    assert [] == bench.start(), "what runs is not ready any more"


@pytest.mark.parametrize("room", [0, 1, 2, 3, 4])
def test_no_more_start_than_there_is_room_for(room):
    """No more tasks start than there is room for; the rest stays ready, in order."""
    bench = Bench("abc")
    assert [0, 1, 2][:room] == [ticket[0] for ticket in bench.start(room=room)]
    assert [0, 1, 2][room:] == [ticket[0] for ticket in bench.start()]


def test_indices_go_on_where_the_last_admission_ended():
    """Tasks may be admitted at any time, and their indices go on from the last admission."""
    bench = Bench("ab")
    bench.start()
    bench.succeed(0)
    bench.admit("cd")
    assert [(2, "c"), (3, "d")] == [(index, item) for index, _, item, _ in bench.start()]
    assert 3 == bench.scheduler.open


# running → settled


def test_a_success_is_settled():
    """A success is in the ledger, and the task is no longer open."""
    bench = Bench("ab")
    bench.start(2.0)
    bench.succeed(1, started=2.0, ended=5.0)
    assert Success(1, 1, "value 1", 1, 0.0, 2.0, 3.0, "w") == bench.outcome(1)
    assert (1, 1, 1) == (bench.scheduler.open, bench.scheduler.succeeded, bench.scheduler.settled)


def test_a_failure_without_retries_is_settled():
    """A failure without retries is settled with the task's own error object, to which a note on task and attempt is added."""
    bench, error = Bench("ab"), OSError("down")
    bench.start()
    bench.lose(0, error, started=1.0, ended=3.0)
    failure = bench.outcome(0)
    assert isinstance(failure, Failure)
    assert (error, 1, 1.0, 2.0, "w") == (
        failure.error,
        failure.attempts,
        failure.started_at,
        failure.duration,
        failure.worker,
    )
    assert ["parallelkit: task 0, attempt 1 of 1"] == error.__notes__
    assert (1, 1) == (bench.scheduler.failed, bench.scheduler.open)


def test_events_of_one_wait_are_settled_together():
    """Blocks and failures of one wait are settled in any mixture and order."""
    bench = Bench("abcd")
    bench.start()
    bench.scheduler.finish(
        [
            Ended(3, ERROR, "", 0.0, 1.0, "w"),
            Block((2, 0), ("c", "a"), (0.0, 0.5), (1.0, 1.0), ("w", "w")),
            Ended(1, ERROR, "", 0.0, 1.0, "w"),
        ],
        1.0,
    )
    assert (0, 2, 2) == (bench.scheduler.open, bench.scheduler.succeeded, bench.scheduler.failed)
    assert ["a", ERROR, "c", ERROR] == [
        outcome.value if outcome.ok else outcome.error for outcome in outcomes_of(bench.ledger)
    ]


def test_nothing_is_settled_twice():
    """An executor that reports an attempt twice is an error."""
    bench = Bench("ab")
    bench.start()
    bench.succeed(0)
    with pytest.raises(KeyError):
        bench.succeed(0)
    bench.lose(1)
    with pytest.raises(KeyError):
        bench.lose(1)


@pytest.mark.parametrize("error", [SystemExit(3), KeyboardInterrupt(), GeneratorExit()])
def test_what_is_no_exception_becomes_one(error):
    """A BaseException becomes a TaskExited with the original as its cause."""
    bench = Bench("a")
    bench.start()
    bench.lose(0, error)
    exited = bench.outcome(0).error
    assert isinstance(exited, TaskExited)
    assert error is exited.__cause__
    assert type(error).__name__ in str(exited)


class Mute(BaseException):
    """An error whose methods all fail."""

    def __str__(self):
        raise RuntimeError("no text")

    @property
    def __notes__(self):
        raise RuntimeError("no notes")

    def add_note(self, note):
        raise RuntimeError("no note")


class MuteException(Mute, Exception):
    def __bool__(self):
        raise RuntimeError("neither true nor false")


class LeavingException(MuteException):
    """One that exits when it is to be changed."""

    def add_note(self, note):
        raise SystemExit(5)


@pytest.mark.parametrize("error", [Mute(), MuteException(), LeavingException()])
def test_an_error_that_cannot_be_asked_anything_costs_its_own_task(error):
    """An error whose text, notes or truth value fail is an outcome like any other."""
    bench = Bench("abc")
    bench.start()
    bench.lose(0, error)
    bench.lose(1)
    bench.succeed(2)
    failure = bench.outcome(0)
    assert error is (failure.error if isinstance(error, Exception) else failure.error.__cause__)
    assert failure.error is bench.scheduler.first_error


# running → delayed → ready → running


def test_a_failure_with_a_try_left_waits_for_its_instant():
    """A failure that may be retried is delayed until the policy's instant, and then ready with the next number."""
    bench = Bench("ab", policy=Delays(2.5), timeout=7)
    bench.start()
    bench.lose(0, ended=4.0)
    assert 6.5 == bench.scheduler.wake_at()
    assert set() == bench.settled
    assert [] == bench.start(6.4)
    assert [(0, 2, "a", 7)] == bench.start(6.5)
    assert bench.scheduler.wake_at() is None


@pytest.mark.parametrize("error", [TaskTimeout("late"), died_with(3, 77)])
def test_a_timeout_and_a_death_are_tried_again_like_any_error(error):
    """Timeouts and worker deaths are retried like any other error."""
    bench = Bench("a", policy=Retry(1, delay=0, on=type(error)))
    bench.start()
    bench.lose(0, error, ended=1.0)
    assert [(0, 2, "a", None)] == bench.start(1.0)


def test_backoff_frees_the_slot():
    """While one task waits for its retry, another runs."""
    bench = Bench("ab", policy=Delays(100.0))
    bench.start(room=1)
    bench.lose(0)
    assert [(1, 1, "b", None)] == bench.start(1.0, room=1)


def test_a_success_at_a_later_try_counts_the_attempts():
    """A success after retries has the number of its attempts, and the log has each of them."""
    bench = Bench("a", policy=AT_ONCE)
    bench.start()
    bench.lose(0, started=0.0, ended=1.0)
    bench.start(1.0)
    bench.succeed(0, started=1.0, ended=2.0)
    assert Success(0, 0, "value 0", 2, 0.0, 1.0, 1.0, "w") == bench.outcome(0)
    assert [(1, ERROR), (2, None)] == [(one.number, one.error) for one in bench.ledger.attempts()]
    assert (1, 0) == (bench.scheduler.retried, bench.scheduler.failed)


def test_the_last_failure_is_the_outcome():
    """If no retry is left, the last error is the outcome, noted with its attempt's number."""
    bench, last = Bench("a", policy=AT_ONCE), ValueError("last")
    bench.start()
    bench.lose(0)
    bench.start(1.0)
    bench.lose(0, last, started=1.0, ended=3.0)
    failure = bench.outcome(0)
    assert (last, 2, 1.0, 2.0) == (failure.error, failure.attempts, failure.started_at, failure.duration)
    assert ["parallelkit: task 0, attempt 2 of 2"] == last.__notes__
    assert [ERROR, last] == [one.error for one in bench.ledger.attempts()]


def test_an_error_that_comes_again_keeps_one_note():
    """An error object that several attempts or tasks raise has only the note of the last."""
    bench, error = Bench("ab", policy=AT_ONCE), OSError("shared")
    error.add_note("the task's own note")
    for index in (0, 1):
        bench.start(room=1)
        bench.lose(index, error)
    assert ["the task's own note", "parallelkit: task 1, attempt 1 of 2"] == error.__notes__


def test_tries_are_made_in_the_order_in_which_they_fall_due():
    """Retries start in the order of their instants, and before tasks that never ran."""
    bench = Bench("abcd", policy=Delays(3.0, 1.0, 2.0))
    bench.start(room=3)
    for index in (0, 1, 2):
        bench.lose(index)
    assert [(1, 2), (2, 2), (0, 2), (3, 1)] == [ticket[:2] for ticket in bench.start(9.0)]


def test_what_cannot_be_pickled_is_not_tried_again():
    """A ``final`` failure is not retried, whatever the policy says, and counts no attempt."""
    bench = Bench("a", policy=AT_ONCE)
    bench.start()
    bench.lose(0, TypeError("cannot be pickled"), started=None, final=True)
    assert 0 == bench.outcome(0).attempts
    assert [] == bench.start(9.0)


def test_what_failed_before_it_began_may_be_tried_again():
    """Such as a task that could not be sent for want of memory; its time counts from then on."""
    bench = Bench("a", policy=Retry(1, delay=0, max_time=5))
    bench.start()
    bench.lose(0, MemoryError(), started=None)
    assert [(0, 2)] == [ticket[:2] for ticket in bench.start(1.0)]
    bench.succeed(0)
    assert 2 == bench.outcome(0).attempts


def test_a_policy_is_asked_with_number_error_and_time_since_the_first_start():
    """A retry policy gets the time since the first start, delays included, but not the time in the queue."""
    policy = Delays(10.0, 10.0)
    bench = Bench("a", policy=policy)
    bench.start(5.0)
    bench.lose(0, started=6.0, ended=8.0)
    bench.start(18.0)
    bench.lose(0, started=18.0, ended=19.0)
    assert [(1, ERROR, 2.0), (2, ERROR, 13.0)] == policy.asked


def test_a_policy_that_raises_makes_the_failure_final():
    """If a retry policy raises, the failure is final, with a note, and no other task is affected."""

    def broken(error):
        raise ZeroDivisionError("of the predicate")

    bench, error = Bench("ab", policy=Retry(1, on=broken)), OSError("down")
    bench.start()
    bench.lose(0, error)
    bench.succeed(1)
    assert error is bench.outcome(0).error
    assert "ZeroDivisionError: of the predicate" in "".join(error.__notes__)


def told(seconds):
    error = OSError("busy")
    error.retry_after = seconds
    return error


def refuse(error):
    return False


@pytest.mark.parametrize(
    ("error", "options", "why"),
    [
        (KeyError("a"), {"policy": Retry(3, on=OSError)}, "on=OSError does not cover it"),
        (
            KeyError("a"),
            {"policy": Retry(3, on=(OSError, EOFError))},
            "on=(OSError, EOFError) does not cover it",
        ),
        (OSError("down"), {"policy": Retry(3, on=refuse)}, "on=refuse does not cover it"),
        (told(1000), {"policy": Retry(3)}, "it was told to wait 1000 s, more than 300 s"),
        (told(2), {"policy": Retry(3, max_time=2.5)}, "the wait of 2 s would go past max_time of 2.5 s"),
        (told(2), {"policy": Retry(3), "end_at": 2.5}, "the wait of 2 s would go past run_timeout"),
    ],
)
def test_a_final_failure_says_why_no_retry_followed(error, options, why):
    """If retries were left, the note on the error says why none followed."""
    bench = Bench("a", **options)
    bench.start()
    bench.lose(0, error, ended=1.0)
    assert {0} == bench.settled
    assert [f"parallelkit: task 0, attempt 1 of 4; not tried again, since {why}"] == error.__notes__


def test_tenacity_and_what_cannot_help_are_named_too():
    """The note also gives the reason for a policy of tenacity, and for an error that no retry can help."""
    once = tenacity.Retrying(retry=tenacity.retry_if_exception_type(OSError))
    bench, error, unsendable = Bench("ab", policy=as_policy(once)), KeyError("a"), TypeError("no pickle")
    bench.start()
    bench.lose(0, error)
    bench.lose(1, unsendable, final=True)
    assert ["parallelkit: task 0, attempt 1; not tried again, since tenacity says so"] == error.__notes__
    assert unsendable.__notes__[0].endswith("not tried again, since another try cannot help")


@pytest.mark.parametrize("policy", [None, Retry(0, max_time=1)])
def test_where_no_retry_was_asked_for_none_is_missed(policy):
    """Without retries, the note has only the count of attempts, whatever other reason there would be."""
    bench, errors = Bench("ab", policy=policy), [told(1000), TypeError("cannot be pickled")]
    bench.start()
    bench.lose(0, errors[0])
    bench.lose(1, errors[1], final=True)
    assert [[f"parallelkit: task {index}, attempt 1 of 1"] for index in (0, 1)] == [
        error.__notes__ for error in errors
    ]


# Retry's bounds on a task and on the run


def test_max_time_bounds_a_task_over_all_its_attempts():
    """A delay that would end after ``max_time``, counted from the first start, makes the failure final.

    The last instant is in time.
    """
    bench = Bench("a", policy=Retry(9, delay=0, max_time=10))
    bench.start(5.0)
    bench.lose(0, started=5.0, ended=15.0)
    assert [(0, 2)] == [ticket[:2] for ticket in bench.start(15.0)]
    bench.lose(0, started=15.0, ended=15.1)
    assert 2 == bench.outcome(0).attempts


def test_one_may_be_due_and_too_late_at_one_look():
    """A retry that is both due and past ``max_time`` when the scheduler looks does not start."""
    policy = Delays(1.0)
    policy.max_time = 5.0
    bench = Bench("a", policy=policy)
    bench.start()
    bench.lose(0, ended=1.0)
    assert bench.scheduler.lapse(9.0)
    assert {0} == bench.settled
    assert [] == bench.start(9.0)


def test_no_try_is_awaited_beyond_the_end_of_the_run():
    """A failure whose retry would come after ``run_timeout`` is final at once."""
    bench = Bench("ab", policy=Delays(4.0, 5.0), end_at=10.0)
    bench.start()
    bench.lose(0, ended=5.5)
    bench.lose(1, ended=5.5)
    assert {1} == bench.settled
    assert 9.5 == bench.scheduler.wake_at()


@pytest.mark.parametrize(("budget", "allowed", "tries"), [(0.2, 20, 1), (1.5, 150, 2)])
def test_a_budget_caps_the_retries_of_the_run(budget, allowed, tries):
    """Beyond ten, a budget caps retries in proportion to the tasks started, retries not counted; it may exceed one per task."""
    count = 100
    bench = Bench(range(count), policy=Retry(9, delay=0, budget=budget))
    errors = [OSError("down") for _ in range(count)]
    while due := bench.start(now=1.0, room=count):
        for index, *_ in due:
            bench.lose(index, errors[index])
    assert (allowed, count) == (bench.scheduler.retried, bench.scheduler.failed)
    spent = f"task 99, attempt {tries} of 10; not tried again, since budget of {budget:.0%} is spent".replace(
        "%", " %"
    )
    assert [f"parallelkit: {spent}"] == errors[99].__notes__


def test_a_budget_always_allows_ten():
    """A budget always allows ten retries, so that small runs can retry."""
    bench = Bench(range(15), policy=Retry(9, delay=0, budget=0.1))
    bench.start(room=15)
    for index in range(15):
        bench.lose(index)
    assert (10, 5) == (bench.scheduler.retried, bench.scheduler.failed)


def test_a_budget_counts_tasks_whose_retry_waits():
    """A task has been started, for a budget, also while its retry waits for a worker or a limit."""
    bench = Bench(range(100), policy=Retry(1, delay=0, budget=0.5))
    bench.start()
    for index in range(40):
        bench.lose(index)
    assert [] == bench.start(now=2.0, room=0)
    for index in range(40, 100):
        bench.lose(index)
    assert 50 == bench.scheduler.retried


# Options of a task's own


def test_own_options_override_those_of_the_run():
    """A Task's own timeout and retries apply to it alone; for options that it leaves open, the run's apply."""
    own = {0: Own(1.5, None, False), 2: Own(None, Retry(3, delay=0), True), 3: Own(None, None, True)}
    bench = Bench("abcd", own, timeout=9, policy=AT_ONCE)
    assert [1.5, 9, 9, 9] == [ticket[3] for ticket in bench.start()]
    errors = [OSError() for _ in "abcd"]
    for index, error in enumerate(errors):
        bench.lose(index, error)
    assert ["2", "2", "4", "1"] == [error.__notes__[0].rpartition(" ")[2] for error in errors]
    assert {3} == bench.settled, "retries=0 of its own means none"
    assert [1.5, 9, 9] == [ticket[3] for ticket in bench.start(1.0)], "a try has the same timeout"


def test_options_that_say_the_same_change_nothing():
    """Tasks that carry the same options as the run end in the same way."""

    def play(own):
        bench = Bench("abcd", own, timeout=5, policy=Retry(2, delay=0))
        tickets = bench.start()
        bench.lose(1)
        bench.succeed(0, 2)
        tickets += bench.start(1.0)
        bench.lose(1, ended=2.0)
        tickets += bench.start(2.0)
        bench.lose(3, ended=2.0)
        bench.succeed(1, started=2.0, ended=3.0)
        tickets += bench.start(3.0)
        bench.scheduler.stop("enough", 4.0, [(3, 3.0, "w")])
        return tickets, [str(outcome) for outcome in outcomes_of(bench.ledger)], bench.ledger.attempts()[:-1]

    assert play(None) == play(dict.fromkeys(range(4), Own(5, Retry(2, delay=0), True)))


# Why a run stops


def test_a_run_in_which_nothing_failed_goes_on():
    """Without a failure there is no reason to stop, however long a run takes."""
    bench = Bench("a", raise_first=True, max_failures=1)
    assert bench.scheduler.stop_reason(1e9) is None


def test_the_first_final_failure_stops_a_run_that_raises():
    """With on_error="raise", the first final failure stops the run, not one that will be retried."""
    bench = Bench("ab", raise_first=True, policy=AT_ONCE)
    bench.start()
    bench.lose(0)
    assert bench.scheduler.stop_reason(1.0) is None
    bench.start(1.0)
    bench.lose(0)
    assert "a task failed, and on_error is 'raise'" == bench.scheduler.stop_reason(1.0)
    assert ERROR is bench.scheduler.first_error


def test_the_first_error_stays_the_first():
    """Later failures do not replace the first error."""
    bench = Bench("ab")
    bench.start()
    bench.lose(0, ERROR)
    bench.lose(1, ValueError())
    assert ERROR is bench.scheduler.first_error


def test_max_failures_stops_as_the_nth_failure_settles():
    """An int ``max_failures`` counts failed tasks, not attempts."""
    bench = Bench("abc", max_failures=2)
    bench.start()
    bench.lose(0)
    bench.succeed(1)
    assert bench.scheduler.stop_reason(1.0) is None
    bench.lose(2)
    assert "max_failures of 2 reached" == bench.scheduler.stop_reason(1.0)


@pytest.mark.parametrize(
    ("failed", "succeeded", "stops"),
    [(5, 14, False), (5, 15, True), (4, 16, False), (6, 18, True), (19, 0, False), (20, 0, True)],
)
def test_a_share_of_failures_is_looked_at_from_twenty_outcomes_on(failed, succeeded, stops):
    """A float ``max_failures`` is a share of the outcomes so far, checked from twenty outcomes on."""
    bench = Bench(range(failed + succeeded), max_failures=0.25)
    bench.start(room=100)
    for index in range(failed):
        bench.lose(index)
    if succeeded:
        bench.succeed(*range(failed, failed + succeeded))
    reason = bench.scheduler.stop_reason(1.0)
    assert stops == (reason is not None)
    if stops:
        total = failed + succeeded
        assert f"max_failures of 0.25 reached: {failed} of {total} outcomes are failures" == reason


def test_the_end_of_the_run_is_an_instant():
    """``run_timeout`` is an instant to wake up at, like a delay, and then the reason to stop."""
    bench = Bench("a", policy=Delays(3.0, 1.0), end_at=10.0, end_reason="run_timeout of 10 s")
    assert 10.0 == bench.scheduler.wake_at()
    bench.start()
    bench.lose(0, ended=1.0)
    assert 4.0 == bench.scheduler.wake_at()
    assert bench.scheduler.stop_reason(9.99) is None
    assert "run_timeout of 10 s" == bench.scheduler.stop_reason(10.0)


def test_nothing_to_wait_for_is_no_instant():
    """Without a delay or ``run_timeout``, there is no instant to wake up at."""
    assert Bench("a").scheduler.wake_at() is None


# any → settled (cancelled)


def stopped_bench():
    """A stopped bench: task 0 was ready, 1 running, 2 running again, 3 delayed, 4 done, 5 failed."""
    bench = Bench(range(6), policy=Delays(0.0, 50.0))
    tickets = bench.start(room=6)
    bench.scheduler.admit(["ready"])
    bench.ledger.admit(None, 1, 0.0)
    assert 6 == len(tickets)
    bench.lose(2, started=0.0, ended=1.0)
    bench.lose(3, started=0.0, ended=1.0)
    assert [2, 6] == [ticket[0] for ticket in bench.start(1.0, 2)]
    bench.succeed(4)
    bench.lose(5)
    bench.scheduler.stop("enough", 4.0, [(1, 0.5, "w1"), (2, 1.5, "w2")])
    return bench


def test_a_stop_settles_everything_as_cancelled():
    """A stop settles every open task, whatever its state, as cancelled, and leaves settled ones unchanged."""
    bench = stopped_bench()
    assert 0 == bench.scheduler.open
    assert "enough" == bench.scheduler.stopped == bench.ledger.stopped
    kinds = [outcome.ok or type(outcome.error) for outcome in outcomes_of(bench.ledger)]
    assert [*[TaskCancelled] * 4, True, OSError, TaskCancelled] == kinds


def test_a_cancelled_task_keeps_what_is_known_of_its_attempts():
    """A cancelled task has its running attempt, if any, and the error of an earlier attempt as its cause."""
    bench = stopped_bench()
    seen = {
        index: (one.attempts, one.started_at, one.duration, one.worker, one.error.__cause__)
        for index, one in enumerate(outcomes_of(bench.ledger))
        if not one.ok and isinstance(one.error, TaskCancelled)
    }
    assert {
        0: (0, None, 0.0, None, None),
        1: (1, 0.5, 3.5, "w1", None),
        2: (2, 1.5, 2.5, "w2", ERROR),
        3: (1, 0.0, 1.0, "w", ERROR),
        6: (0, None, 0.0, None, None),
    } == seen


def test_after_a_stop_nothing_starts_and_nothing_is_awaited():
    """After a stop, the queue, the delays and their options are empty."""
    bench = stopped_bench()
    assert [] == bench.start(100.0)
    assert bench.scheduler.wake_at() is None


def test_cancelled_tasks_do_not_count_as_settled():
    """Cancelled tasks count neither as failures for ``max_failures`` nor for the bar."""
    bench = stopped_bench()
    assert (1, 1, 2) == (bench.scheduler.failed, bench.scheduler.succeeded, bench.scheduler.settled)


def test_what_ended_before_the_stop_is_not_cancelled_by_it():
    """An attempt that was reported before the stop keeps its outcome, even if it is listed as running."""
    bench = Bench("ab")
    bench.scheduler.news = []
    bench.start()
    bench.succeed(0)
    bench.scheduler.stop("enough", 2.0, [(0, 0.0, "w"), (1, 0.0, "w")])
    assert [True, False] == [outcome.ok for outcome in outcomes_of(bench.ledger)]
    block, cut_off = bench.scheduler.take_news()
    assert ((0,), 1) == (block.indices, cut_off.index)


# Cost


def cost_per_task(count, room=50):
    """CPU seconds per task through all states: admitted, failed once, delayed, succeeded."""
    bench = Bench(policy=Retry(1, delay=0))
    began = time.thread_time()
    bench.admit(range(count))
    now = 0.0
    while bench.scheduler.open:
        now += 1.0
        tickets = bench.start(now, room)
        bench.scheduler.wake_at()
        bench.scheduler.stop_reason(now)
        first = [ticket[0] for ticket in tickets if ticket[1] == 1 and ticket[0] % 10 == 0]
        rest = [ticket[0] for ticket in tickets if not (ticket[1] == 1 and ticket[0] % 10 == 0)]
        for index in first:
            bench.lose(index, started=now, ended=now)
        if rest:
            bench.succeed(*rest, started=now, ended=now)
    assert count == bench.scheduler.succeeded
    return (time.thread_time() - began) / count


def test_cost_per_task_does_not_grow_with_the_run():
    """A task costs the same among sixty thousand as among a thousand: no table is searched or scanned."""
    cost_per_task(1_000)
    small = min(cost_per_task(1_000) for _ in range(3))
    large = min(cost_per_task(60_000) for _ in range(2))
    assert large < 4 * small, "a rescan would cost sixty times as much"
