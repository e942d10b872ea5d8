"""``iter_parallel``: outcomes come one by one, input is read in the caller's thread, and nothing yielded is kept."""

import gc
import sys
import threading
import time
import weakref
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from itertools import count, islice
from operator import attrgetter

import pytest
import remote_tasks as far
from late_threads import LateThreads
from patience import PATIENCE, given_time

from parallelkit import (
    ConcurrencyLimit,
    Failure,
    InputError,
    RateLimit,
    Results,
    Retry,
    RunInterrupted,
    Success,
    Task,
    TaskCancelled,
    TaskTimeout,
    ThreadExecutor,
    iter_parallel,
)
from parallelkit._facts import Facts
from parallelkit._input._portion import Portion
from parallelkit._lost import Lost, cancelled, cut_off, failure
from parallelkit._marks import UNSET
from parallelkit._rebuilt import ledger_of
from parallelkit._runs import _stream
from parallelkit._runs._queues import OutcomeQueue, QueuedSource
from parallelkit._runs._stream import closed_at_exit
from parallelkit.testing import inline_runs

in_both = pytest.mark.parametrize("executor", ["threads", "inline"])


def square(x):
    return x * x


def invert(x):
    return 12 // x


class Source:
    """An endless input that records which threads read it, how far, and whether it was closed."""

    def __init__(self, stop=None):
        self.read, self.threads, self.closed = 0, set(), False
        self._stop = stop

    def __iter__(self):
        try:
            for item in count() if self._stop is None else range(self._stop):
                self.read += 1
                self.threads.add(threading.get_ident())
                yield item
        finally:
            self.closed = True


# What comes out


@in_both
@pytest.mark.parametrize("order", ["completion", "input"])
def test_every_outcome_is_yielded_once(executor, order):
    """Every outcome, success or failure, is yielded once, under its key, in the requested order."""
    items = [3, 0, 2, 1, 0, 4]
    outcomes = list(iter_parallel(invert, items, executor=executor, order=order))
    assert [4, "error", 6, 12, "error", 3] == [
        outcome.value if outcome.ok else "error" for outcome in sorted(outcomes, key=lambda one: one.key)
    ]
    assert {Success, Failure} == {type(outcome) for outcome in outcomes}
    if order == "input":
        assert (
            list(range(6)) == [outcome.key for outcome in outcomes] == [outcome.index for outcome in outcomes]
        )


@in_both
def test_tasks_of_their_own_functions_stream_too(executor):
    """Callables and Task objects can be streamed, by key or in any iterable, even a lazy one."""
    tasks = {"a": Task(square, 3), "b": lambda: 7}
    assert {"a": 9, "b": 7} == {one.key: one.value for one in iter_parallel(tasks, executor=executor)}
    lazy = (Task(square, item, key=f"k{item}") for item in range(3))
    assert {"k0": 0, "k1": 1, "k2": 4} == {
        one.key: one.value for one in iter_parallel(lazy, executor=executor)
    }


@in_both
def test_retries_count_and_instants_are_those_of_the_run(executor):
    """A stream's outcomes have the attempts and times that ``run_parallel`` would give."""
    failed = []

    def flaky(item):
        if not failed:
            failed.append(item)
            raise OSError("once")
        return item

    (outcome,) = iter_parallel(
        flaky, [5], executor=executor, retries=Retry(1, delay=0), key=lambda item: f"k{item}"
    )
    assert ("k5", 5, 2, 0) == (outcome.key, outcome.value, outcome.attempts, outcome.index)
    assert 0 <= outcome.queued_at <= outcome.started_at < PATIENCE


@in_both
def test_an_empty_input_ends_at_once(executor):
    """A stream over empty input ends at once."""
    assert [] == list(iter_parallel(square, [], executor=executor))
    assert [] == list(iter_parallel(square, iter(()), executor=executor))


def test_an_executor_of_the_callers_serves_streams():
    """Streams on a caller's executor leave its threads running, and two streams on it do not mix."""
    with ThreadExecutor(2) as executor:
        first = iter_parallel(square, range(20), executor=executor)
        second = iter_parallel(str, range(20), executor=executor)
        pairs = [(next(first).value, next(second).value) for _ in range(20)]
        assert {item * item for item in range(20)} == {one for one, _ in pairs}
        assert set(map(str, range(20))) == {other for _, other in pairs}
        assert ([], []) == (list(first), list(second))


# Nothing before the first next()


class Watched(list):
    """A sized input that records whether it was read."""

    looked = False

    def __iter__(self):
        self.looked = True
        return super().__iter__()


@in_both
def test_nothing_is_read_or_started_before_the_first_next(executor):
    """Before the first ``next``, nothing is read or started, even if the stream is dropped."""
    source, ran = Source(), []
    before = set(threading.enumerate())
    stream = iter_parallel(ran.append, source, executor=executor)
    assert (0, [], set()) == (source.read, ran, set(threading.enumerate()) - before)
    stream.close()
    del stream
    assert (0, [], set()) == (source.read, ran, set(threading.enumerate()) - before)


@in_both
def test_sized_input_is_not_read_before_the_first_next_either(executor):
    """Before the first ``next``, sized input is not read either, although ``run_parallel`` would read all its keys at once."""
    items, asked = Watched([1, 2]), []
    stream = iter_parallel(square, items, executor=executor, key=lambda item: asked.append(item) or item)
    assert (False, []) == (items.looked, asked)
    assert 2 == len(list(stream))
    assert (True, [1, 2]) == (items.looked, asked)


@in_both
def test_tasks_of_a_sized_input_are_checked_at_the_call(executor):
    """An item that is not callable is an error of the call itself, as with ``run_parallel``."""
    with pytest.raises(TypeError, match="tasks must be callables or Task objects, got 3 at position 1"):
        iter_parallel([lambda: 1, 3], executor=executor)


# Input


@in_both
def test_input_is_drawn_in_the_callers_thread(executor):
    """Items and keys are read, and the generator ends, in the caller's thread, to which cursors may be bound."""
    source, keyed = Source(50), set()

    def key(item):
        keyed.add(threading.get_ident())
        return item

    outcomes = list(iter_parallel(square, iter(source), executor=executor, key=key))
    assert 50 == len(outcomes)
    assert {threading.get_ident()} == source.threads == keyed
    assert source.closed


def test_tasks_run_in_other_threads_and_inline_in_the_callers():
    """Tasks run in other threads, or with "inline" in the caller's own."""
    here = threading.get_ident()
    there = {outcome.value for outcome in iter_parallel(lambda _: threading.get_ident(), range(8))}
    assert here not in there
    inline = {
        one.value for one in iter_parallel(lambda _: threading.get_ident(), range(8), executor="inline")
    }
    assert {here} == inline


@pytest.mark.parametrize("order", ["completion", "input"])
@pytest.mark.parametrize("buffersize", [1, 2, 7])
def test_no_more_is_read_ahead_than_asked_for(buffersize, order):
    """At most ``buffersize`` tasks are read and not yet yielded."""
    source = Source()
    stream = iter_parallel(square, source, buffersize=buffersize, order=order, max_workers=3)
    for yielded, outcome in enumerate(islice(stream, 60)):
        assert source.read - yielded <= buffersize
        assert outcome.value == outcome.key**2
    stream.close()
    assert source.read <= 60 + buffersize


@in_both
def test_an_input_that_raises_delivers_what_was_read(executor):
    """If the input raises, everything read before is yielded; then InputError is raised, with that error as its cause, and the stream is over."""

    def items():
        yield from range(5)
        raise LookupError("the cursor is gone")

    stream, seen = iter_parallel(square, items(), executor=executor), []
    with pytest.raises(InputError, match="the input raised LookupError after 5 items") as caught:
        seen.extend(outcome.value for outcome in stream)
    assert [0, 1, 4, 9, 16] == sorted(seen)
    assert isinstance(caught.value.__cause__, LookupError)
    assert 0 == len(caught.value.results), "every outcome was yielded"
    assert [] == list(stream)


@pytest.mark.parametrize("executor", ["threads", "inline"])
@pytest.mark.parametrize("kind", [GeneratorExit, SystemExit])
def test_what_ends_more_than_the_input_is_raised(executor, kind):
    """A BaseException of the input is raised, even GeneratorExit: a stream that simply ended would seem complete."""
    stopping = Exiting(kind)
    stream = iter_parallel(abs, stopping, executor=executor)
    with pytest.raises(kind):
        list(stream)


class Exiting:
    """An input that raises a BaseException."""

    def __init__(self, kind):
        self.kind = kind

    def __iter__(self):
        yield 1
        raise self.kind


@in_both
def test_a_slow_input_holds_up_no_outcome(executor):
    """An outcome that comes while an item is awaited is yielded before the next item is requested."""
    asked, ended = [], threading.Semaphore(0)

    def items():
        for item in range(6):
            asked.append(item)
            if item and executor == "threads":
                assert ended.acquire(timeout=PATIENCE)  # the task of the last item has been settled
            time.sleep(0.002)  # more than an item may take that is read ahead
            yield item

    def note(event):
        if event.kind == "succeeded":
            ended.release()

    for number, _ in enumerate(iter_parallel(square, items(), executor=executor, on_event=note)):
        assert len(asked) <= number + 2
    assert 6 == len(asked)


def test_after_a_slow_item_all_that_has_ended_is_yielded_first():
    """After a slow item, all outcomes that have come are yielded before the next wait for input, also those that came last."""
    ended, yielded, asked, released = threading.Semaphore(0), 0, [], threading.Event()

    def work(item):
        assert item < 8 or released.wait(PATIENCE)

    def items():
        yield from range(12)
        for _ in range(8):
            assert ended.acquire(timeout=PATIENCE)
        time.sleep(0.05)
        yield 12
        asked.append(yielded)
        yield 13

    def note(event):
        if event.kind == "succeeded":
            ended.release()

    for _ in iter_parallel(work, items(), on_event=note, max_workers=16):
        if not yielded:
            released.set()
            assert all(ended.acquire(timeout=PATIENCE) for _ in range(4))
        yielded += 1
    assert asked[0] >= 12


# Keys


GATED = {
    "limits": {"limits": RateLimit(1_000, per=1)},
    "priority": {"priority": lambda item: item},
    "then": {"then": lambda outcome: ()},
    "tasks": {},
}


@pytest.mark.parametrize("option", GATED)
def test_what_was_read_is_run_while_the_input_waits(option):
    """Also where the next task is chosen among those read, an input may wait for tasks of a burst that is over."""
    ended = threading.Semaphore(0)

    def end(item):
        ended.release()

    def burst():
        for item in range(6):
            yield Task(end, item) if option == "tasks" else item
        assert all(ended.acquire(timeout=PATIENCE) for _ in range(6))

    form = (burst(),) if option == "tasks" else (end, burst())
    assert 6 == len([outcome.unwrap() for outcome in iter_parallel(*form, **GATED[option])])


@in_both
@pytest.mark.parametrize("lazy", [True, False])
def test_a_key_may_come_again_once_it_was_yielded(executor, lazy):
    """A key may come again once it was yielded: the input may be too long to remember all keys."""
    items = [1, 2] * 10
    stream = iter_parallel(
        square, iter(items) if lazy else items, executor=executor, key=str, buffersize=1, order="input"
    )
    assert [("1", 1), ("2", 4)] * 10 == [(outcome.key, outcome.value) for outcome in stream]


@in_both
def test_a_key_that_is_not_yielded_yet_may_not_come_again(executor):
    """A key that has not been yielded yet may not come again: two outcomes would have the same key."""
    stream = iter_parallel(square, [1, 2, 1], executor=executor, key=lambda item: item, order="input")
    with pytest.raises(InputError, match="key must be unique, got 1 at positions 0 and 2"):
        list(islice(stream, 3))


# Nothing kept


@pytest.mark.parametrize("executor", ["threads", "inline", "processes"])
@pytest.mark.parametrize("order", ["completion", "input"])
def test_no_yielded_outcome_is_kept(executor, order):
    """When the caller drops an outcome, it is freed, even while the stream pauses."""
    stream, count = iter_parallel(lambda _: far.Thing(), range(20), executor=executor, order=order), 0
    for outcome in stream:
        freed = threading.Event()
        alive = weakref.ref(outcome.value, lambda _, freed=freed: freed.set())
        del outcome
        gc.collect()
        assert freed.wait(PATIENCE), alive  # the loop's thread may be about to return from settling it
        count += 1
    assert 20 == count


def test_memory_is_flat_with_every_option():
    """A yielded task leaves nothing behind, nor does its group: an endless stream does not use more and more memory."""
    tried = set()

    def fail_once(item):
        clock.advance(1)  # then the rate limit may forget the group before
        if item % 4 == 1 and item not in tried:
            tried.add(item)
            raise OSError
        tried.discard(item)
        return 1 // (item % 4)

    options = {
        "limits": [
            RateLimit(1000, per=0.001, by=lambda task: task.args[0]),
            ConcurrencyLimit(1, by=lambda task: -task.args[0]),
        ],
        "priority": lambda task: -task.args[0],
        "retries": Retry(1, delay=0, max_time=60),
        "on_event": lambda event: None,
    }
    tasks = (Task(fail_once, item, key=str(item), timeout=60) for item in count())
    blocks = []
    with inline_runs() as clock, closing(iter_parallel(tasks, buffersize=4, **options)) as stream:
        for number in (300, 600):
            deque(islice(stream, number), maxlen=0)
            gc.collect()
            blocks.append(sys.getallocatedblocks())
    assert blocks[1] - blocks[0] < 300  # an entry of one task in four, in one table, takes more than 400


# Stops


@in_both
def test_a_stream_may_be_left(executor):
    """After ``break`` and ``close``, nothing runs, nothing is read, and the input is closed."""
    source = Source()
    items = iter(source)
    stream = iter_parallel(square, items, executor=executor)
    assert 3 == len(list(islice(stream, 3)))
    stream.close()
    read = source.read
    assert source.closed
    assert [] == list(stream)
    stream.close()
    assert read == source.read


@pytest.mark.parametrize("read", [list, iter])
@given_time
def test_what_was_never_read_of_an_input_without_a_length_is_no_task(read, scale):
    """If a run stops when everything read is done, the rest of a list is cancelled, but the rest of an iterator is not read."""
    stream = iter_parallel(abs, read(range(50)), max_workers=1, run_timeout=0.3 * scale, buffersize=2)
    outcomes = list(islice(stream, 1))  # none, if the machine was so slow
    wait_until_the_run_has_ended()
    outcomes += stream
    undone = [one for one in outcomes if one.error is not None]
    assert {TaskCancelled} >= {type(one.error) for one in undone}
    assert (50, True) == (len(outcomes), bool(undone)) if read is list else not undone and len(outcomes) < 50


def wait_until_the_run_has_ended():
    """Wait until the thread of the only stream has ended, if it has not yet."""
    for thread in threading.enumerate():
        if thread.name == "parallelkit_stream":
            thread.join(PATIENCE)
            assert not thread.is_alive()


def test_closing_waits_for_the_callers_own_code():
    """Closing a stream waits for the caller's own listener: it must not be called after the close."""
    inside, go = threading.Event(), threading.Event()

    def hear(event):
        if event.key == 3:
            inside.set()
            assert go.wait(PATIENCE)

    stream = iter_parallel(square, range(9), on_event=hear)
    next(stream)
    assert inside.wait(PATIENCE)
    threading.Timer(0.05, go.set).start()
    stream.close()
    assert go.is_set()
    assert "parallelkit_stream" not in [each.name for each in threading.enumerate()]


def test_a_stream_that_is_let_go_stops(gate):
    """A stream that is dropped without ``close`` ends its thread."""
    stream = iter_parallel(square, count())
    next(stream)
    thread = next(each for each in threading.enumerate() if each.name == "parallelkit_stream")
    del stream
    gc.collect()
    thread.join(PATIENCE)
    assert not thread.is_alive()


@in_both
def test_the_stop_at_a_failure_raises_the_tasks_error(executor):
    """With on_error="raise", no failure is yielded: values come, and then the error is raised."""
    error = OSError("down")

    def task(item):
        if item == 3:
            raise error
        return item

    seen = []
    with pytest.raises(OSError) as caught:
        for outcome in iter_parallel(task, range(100), executor=executor, on_error="raise"):
            assert outcome.ok
            seen.append(outcome.key)
    assert error is caught.value
    assert 3 not in seen
    _, stopped = error.__notes__  # the first one names the task
    assert "stopped at this failure" in stopped


@in_both
@pytest.mark.parametrize("lazy", [True, False])
def test_after_a_stop_what_was_read_has_its_outcome(executor, lazy):
    """After a stop, every item of sized input has an outcome, or every item that was read; the input is closed."""
    source = Source(200)
    items = iter(source) if lazy else list(range(200))
    outcomes = list(
        iter_parallel(lambda item: 1 // item, items, executor=executor, max_failures=1, buffersize=10)
    )
    assert sorted({one.key for one in outcomes}) == list(range(len(outcomes)))
    kinds = {type(one.error) for one in outcomes if not one.ok}
    assert ZeroDivisionError in kinds <= {ZeroDivisionError, TaskCancelled}
    assert (source.read if lazy else 200) == len(outcomes)
    assert source.closed == lazy


def keyed_by_function(fn, items):
    return iter_parallel(fn, items, key="k{}".format, **STOPPED)


def keyed_by_tasks(fn, items):
    return iter_parallel([Task(fn, item, key=f"k{item}") for item in items], **STOPPED)


def keyed_by_mapping(fn, items):
    return iter_parallel(fn, {f"k{item}": item for item in items}, **STOPPED)


STOPPED = {"max_failures": 1, "max_workers": 1, "buffersize": 3}


@pytest.mark.parametrize("keyed", [keyed_by_function, keyed_by_tasks, keyed_by_mapping])
def test_after_a_stop_unread_tasks_have_their_keys(keyed, monkeypatch):
    """After a stop, the rest of sized input is read for its keys, if these are made of it, but nothing more runs."""
    monkeypatch.setattr("parallelkit._runs._stream.WIDEST", 200)
    ran, many = [], 500

    def task(item):
        ran.append(item)
        raise OSError(item)

    outcomes = list(keyed(task, range(many)))
    assert [f"k{item}" for item in range(many)] == [one.key for one in outcomes]
    assert list(range(many)) == [one.index for one in outcomes]
    assert len(ran) <= 3
    assert many - 3 <= sum(isinstance(one.error, TaskCancelled) for one in outcomes) < many


@in_both
def test_after_a_stop_items_that_no_key_is_made_of_are_not_read(executor):
    """After a stop, the rest of a sized input that is slow to read, such as a data set of files, is cancelled unread."""

    class Files:
        def __len__(self):
            return 10_000

        def __getitem__(self, place):
            read.append(place)
            time.sleep(0.06)  # longer than the moment for which items are counted
            return place

    read = []
    outcomes = list(iter_parallel(invert, Files(), executor=executor, max_failures=1, buffersize=2))
    assert list(range(10_000)) == sorted(one.key for one in outcomes)
    assert all(one.key == one.index for one in outcomes)
    assert {ZeroDivisionError, TaskCancelled} == {type(one.error) for one in outcomes if not one.ok}
    assert len(read) <= 5


def test_a_stop_by_time_is_told_also_where_failures_raise(gate):
    """With on_error="raise", tasks that are cancelled without any failure are yielded: otherwise they would be lost silently."""
    stream = iter_parallel(gate, range(3), max_workers=1, run_timeout=0.05, on_error="raise")
    assert [TaskCancelled] * 3 == [type(one.error) for one in stream]


def test_an_input_that_refuses_to_close_is_no_secret():
    """If the input's close raises, the stream is closed, and ``close`` raises that error; it has results, if none in them."""

    def items():
        try:
            yield from count()
        finally:
            raise LookupError("refused")

    stream = iter_parallel(square, items())
    next(stream)
    with pytest.raises(InputError, match="closing the input raised LookupError") as caught:
        stream.close()
    assert [] == list(stream) == list(caught.value.results)


def test_an_input_that_refuses_to_close_at_exit_keeps_no_other_stream_open():
    """At exit every open stream is closed, though the inputs of some raise then: another may have a journal to write."""

    def items():
        try:
            yield from count()
        finally:
            closed.append(True)
            raise LookupError("refused")

    closed = []
    streams = [iter_parallel(square, items()) for _ in range(3)]
    for stream in streams:
        next(stream)
    with pytest.raises(InputError, match="closing the input raised LookupError"):
        _stream._close_all()
    assert [True] * 3 == closed


def test_what_was_read_while_the_run_stopped_has_its_outcome():
    """An item that reaches the loop after a stop is cancelled like the rest, not lost."""

    def items():
        yield 0
        over = [each for each in threading.enumerate() if each.name == "parallelkit_stream"]
        for thread in over:
            thread.join(PATIENCE)
        yield from (1, 2)

    outcomes = list(iter_parallel(lambda item: 1 // item, items(), max_failures=1))
    assert [0, 1] == [one.key for one in outcomes][:2]
    assert [ZeroDivisionError, TaskCancelled] == [type(one.error) for one in outcomes][:2]


@given_time
def test_the_end_of_the_run_strikes_while_the_caller_is_busy(gate, scale):
    """``run_timeout`` and ``timeout`` are enforced while the caller is busy."""
    limit = 0.2 * scale
    stream = iter_parallel(
        lambda item: gate(item) if item else item, range(3), max_workers=3, run_timeout=limit
    )
    first = next(stream)
    wait_until_the_run_has_ended()  # without asking for anything
    rest = list(stream)
    assert (0, True) == (first.key, first.ok)
    assert [TaskCancelled, TaskCancelled] == [type(one.error) for one in rest]
    assert all(f"run_timeout of {limit:g} s" in str(one.error) for one in rest)


@given_time
def test_timeouts_and_retries_go_on_while_the_caller_is_busy(gate, scale):
    """Timeouts and retries go on while the caller is busy, and their outcomes come when it returns."""
    tries = []

    def task(item):
        if item == 0:
            return 0
        tries.append(item)
        if len(tries) == 3:
            gate.begun.release()
            return "third"
        return gate.opened.wait(PATIENCE)

    stream = iter_parallel(
        task, range(2), max_workers=2, timeout=0.1 * scale, retries=Retry(2, delay=0, on=TaskTimeout)
    )
    first = next(stream)
    assert gate.begun.acquire(timeout=5)  # without asking for anything
    outcomes = [first, *stream]
    assert [(0, True, 1), (1, True, 3)] == [(one.key, one.ok, one.attempts) for one in outcomes]
    assert "third" == outcomes[1].value


def test_ctrl_c_between_outcomes_is_told_with_what_was_not_yielded(monkeypatch):
    """Ctrl-C inside the stream stops the run; RunInterrupted has the outcomes that were not yielded, and says so."""
    stream = iter_parallel(square, range(100), order="input")
    assert 0 == next(stream).value
    with pytest.raises(RunInterrupted) as caught:
        stream.throw(KeyboardInterrupt)
    results = caught.value.results
    assert [*range(1, 100)] == list(results)
    assert f"interrupted; not yet delivered: {results}, in .results of this" in str(caught.value)
    assert all(one.ok or isinstance(one.error, TaskCancelled) for one in results.outcomes.values())
    assert [] == list(stream)


def test_ctrl_c_counts_more_than_what_the_input_raises_as_it_is_closed():
    """An input whose ``finally`` raises does not take the place of RunInterrupted."""

    def items():
        try:
            yield from range(100)
        finally:
            raise OSError("the cursor is gone")

    stream = iter_parallel(square, items(), buffersize=2)
    next(stream)
    with pytest.raises(RunInterrupted):
        stream.throw(KeyboardInterrupt)


def test_ctrl_c_between_outcomes_of_an_inline_stream_keeps_what_was_tried():
    """Inline, where no thread drives the run, Ctrl-C between two outcomes cancels a task that waits for a retry, with its error."""
    stream = iter_parallel(lambda x: 1 / x, [0, 1], executor="inline", retries=Retry(1, delay=30))
    assert 1 == next(stream).value
    with pytest.raises(RunInterrupted) as caught:
        stream.throw(KeyboardInterrupt)
    (failure,) = caught.value.results.failures.values()
    assert (1, TaskCancelled, ZeroDivisionError) == (
        failure.attempts, type(failure.error), type(failure.error.__cause__),
    )  # fmt: skip


@pytest.mark.parametrize("executor", ["threads", "inline"])
def test_an_ordered_stream_holds_no_more_than_its_buffer_while_the_first_is_tried_again(executor):
    """In input order, outcomes behind a task that is retried count as read ahead, so memory stays bounded."""

    class Busy(Exception):
        retry_after = 0.1

    def busy_at_first(number):
        if number == 0 and not tries:
            tries.append(number)
            raise Busy
        return number

    def numbers():
        for number in count():
            read.append(number)
            yield number

    tries, read = [], []
    stream = iter_parallel(
        busy_at_first, numbers(), order="input", buffersize=5, retries=1, executor=executor
    )
    with closing(stream):
        assert 0 == next(stream).value
        assert len(read) <= 5
        assert [1, 2, 3] == [one.value for one in islice(stream, 3)]


def test_what_was_done_beside_the_failure_that_is_raised_is_yielded():
    """A task that succeeds before the stop takes effect has its outcome; the failure itself is raised instead."""
    queue = OutcomeQueue(in_order=False, raising=True)
    queue.admit(None, 2, 0.0)
    queue.fail(0, Lost(OSError(), 1, 0.0, 1.0, "thread"))
    queue.succeed(((1,), ["done"], (0.0,), (1.0,), ("thread",)))
    assert ["done"] == [outcome.unwrap() for outcome in queue.ready]


def test_the_input_of_a_stream_has_not_ended_before_all_of_it_is_admitted():
    """What was handed over at the end is not left out by a loop that has nothing else to do."""
    portions, items = QueuedSource(bool), QueuedSource(bool)
    portions.hand(Portion([1]))
    items.hand_item(UNSET, 1)
    for source in (portions, items):
        source.ended = True
        assert not source.exhausted
        assert source.next(0) is not None
        assert source.exhausted


def test_ctrl_c_as_an_outcome_is_taken_does_not_lose_it():
    """Ctrl-C that comes as an outcome is taken from the others leaves it to the results: it is in neither twice, nor in none."""

    def strike(frame, event, called):
        if (
            event == "c_return" and frame.f_code is OutcomeQueue.take.__code__
        ):  # where Ctrl-C would be raised, too
            sys.setprofile(before)
            raise KeyboardInterrupt

    stream = iter_parallel([Task(abs, 1)], then=lambda outcome: outcome.key < 3 and [Task(abs, 2)])
    seen, before = [], sys.getprofile()
    sys.setprofile(strike)
    try:
        with pytest.raises(RunInterrupted) as caught:
            seen.extend(outcome.key for outcome in stream)
    finally:
        sys.setprofile(before)
    rest = caught.value.results.successes
    assert set(range(len(seen) + len(rest))) == {*seen, *rest}


def test_ctrl_c_when_all_is_done_is_told_as_the_reason():
    """Ctrl-C when all tasks are done, but not all outcomes yielded, is the reason of the stop."""
    done = threading.Semaphore(0)
    stream = iter_parallel(
        square, range(3), on_event=lambda event: event.kind == "succeeded" and done.release()
    )
    next(stream)
    assert all(done.acquire(timeout=20) for _ in range(3))
    with pytest.raises(RunInterrupted) as caught:
        stream.throw(KeyboardInterrupt)
    assert ("interrupted (Ctrl-C)", 2) == (caught.value.results.stopped, len(caught.value.results.successes))


@pytest.mark.parametrize("executor", ["threads", "processes"])
def test_ctrl_c_while_the_thread_of_a_stream_is_started_ends_it(monkeypatch, executor):
    """If Ctrl-C interrupts the start of the stream's thread, that thread, should it run, ends without driving the loop."""
    late = LateThreads(monkeypatch, "parallelkit_stream")
    with pytest.raises(KeyboardInterrupt):
        next(iter_parallel(square, [1, 2, 3], executor=executor, max_workers=1))
    assert late.ends_soon()


def test_outcomes_that_were_never_yielded_are_told_as_they_were():
    """Outcomes in RunInterrupted are complete: value, error, times, and for a cancelled task the reason and its last attempt."""
    error = OSError("down")
    cut_off, withdrawn, own = (
        TaskCancelled("the run was stopped before this task was done: Ctrl-C") for _ in range(3)
    )
    cut_off.__cause__ = error
    with pytest.raises(TaskCancelled):
        raise own  # as a task does whose own run was stopped
    rest = [
        Success("a", 4, "value", 3, 0.5, 1.0, 2.0, "w", "its parent"),
        Failure("b", 5, error, 2, 0.5, 1.5, 2.5, "w", None, "Traceback …", "File …"),
        Failure("c", 6, cut_off, 1, 0.5, 2.0, 1.0, "w"),
        Failure("d", 7, withdrawn, 0, 0.5, None, 0.0, None, "its parent"),
        Failure("e", 8, own, 1, 0.5, 2.0, 1.0, "w"),
    ]
    results = Results(ledger_of(rest, Facts(executor="processes", ended_at=9.0), "Ctrl-C"))
    assert ("Ctrl-C", list("abcde"), 9.0) == (results.stopped, list(results), results.summary.wall)
    assert (1, 2, 2) == (results.summary.succeeded, results.summary.failed, results.summary.cancelled)
    told = list(results.outcomes.values())
    figures = attrgetter("index", "attempts", "queued_at", "started_at", "duration", "worker", "parent")
    assert list(map(figures, rest)) == list(map(figures, told))
    assert ("value", error, "Traceback …", "File …") == (
        told[0].value,
        told[1].error,
        told[1].traceback,
        told[1].stack,
    )
    assert [error, None] == [one.error.__cause__ for one in told[2:4]]
    assert list(map(str, (cut_off, withdrawn, own))) == [str(one.error) for one in told[2:]]


def test_a_rebuilt_ledger_keeps_why_the_run_was_stopped():
    """What never began because an error had stopped the run has that error as its cause."""
    cause, withdrawn = OSError("no more threads"), TaskCancelled("the run was stopped")
    withdrawn.__cause__ = cause
    rest = [Failure("a", 0, withdrawn, 0, 0.5, None, 0.0, None)]
    told = (
        Results(ledger_of(rest, Facts(executor="threads", ended_at=1.0), "no more threads"))
        .failures["a"]
        .error
    )
    assert (TaskCancelled, cause) == (type(told), told.__cause__)


@pytest.mark.parametrize(
    "text", ["", "Traceback (most recent call last): …"], ids=["first", "second attempt"]
)
def test_a_rebuilt_ledger_repeats_no_traceback(text):
    """The traceback of what a stop cut off is as it was: that of the attempt before it, if any, and its own, once."""
    before = Lost(OSError("down"), 1, 0.0, 1.0, "w", text) if text else None
    cut = failure("a", 0, cancelled("Ctrl-C", cut_off(1.0, 2.0, "w", before)), 0.0, 0.0)
    told = Results(ledger_of([cut], Facts(executor="processes", ended_at=2.0), "Ctrl-C")).failures["a"]
    assert cut.traceback == told.traceback


def test_a_fault_of_the_loop_is_raised_in_the_callers_thread(monkeypatch):
    """An internal error of the loop is raised in the caller's thread: it neither vanishes nor hangs the caller."""

    def broken(self):
        raise ZeroDivisionError("a fault of ours")

    monkeypatch.setattr("parallelkit._loop.Loop.step", broken)
    with pytest.raises(ZeroDivisionError, match="a fault of ours"):
        list(iter_parallel(square, range(3)))


# Whose thread


def test_a_stream_may_be_handed_from_thread_to_thread():
    """A stream may be passed between threads: whichever calls ``next`` reads the input."""
    source = Source(60)
    stream = iter_parallel(square, iter(source), buffersize=4)
    seen = []
    with ThreadPoolExecutor(1) as pool:
        for _ in range(30):
            seen.append(next(stream).value)
            seen.append(pool.submit(next, stream).result().value)
    assert sorted(seen) == [item * item for item in range(60)]
    assert [] == list(stream)
    assert 2 == len(source.threads)


def test_a_stream_that_the_collector_closes_in_the_runs_own_thread_ends(monkeypatch):
    """A stream in a reference cycle may be closed by a garbage collection in its own thread, which must not wait for itself."""
    complaints, threads, left = [], [], threading.Event()
    monkeypatch.setattr("sys.unraisablehook", complaints.append)
    collections = iter([gc.collect])  # one: it takes long in a large program

    def collect(event):
        if not threads:
            threads.append(threading.current_thread())
        if left.is_set():
            next(collections, int)()

    def leave_behind():
        stream = iter_parallel(
            lambda item: item and left.wait(PATIENCE), count(), on_event=collect, max_workers=1
        )
        cycle = [stream]
        cycle.append(cycle)
        next(stream)

    gc.disable()
    try:
        leave_behind()
        left.set()
        threads[0].join(PATIENCE)
    finally:
        gc.enable()
    assert not threads[0].is_alive()
    assert [] == complaints


def test_a_daemon_thread_may_open_a_stream_as_the_program_exits(monkeypatch):
    """While the exit looks for open streams, it may find one more at any step: it failed at that, and closed none."""
    streams, closed = [], []

    def open_another(*event):
        streams.append(closed_at_exit(item for item in ()))

    def stream():
        try:
            yield
        finally:
            closed.append(True)

    monkeypatch.setattr(_stream, "_open", type(_stream._open)())
    first, before = closed_at_exit(stream()), sys.getprofile()
    next(first)
    sys.setprofile(open_another)
    try:
        _stream._close_all()
    finally:
        sys.setprofile(before)
    assert [True] == closed
    assert streams


def test_streams_nest():
    """A task may consume a stream of its own."""

    def total(size):
        return sum(outcome.value for outcome in iter_parallel(square, range(size)))

    assert [0, 0, 1, 5] == sorted(outcome.value for outcome in iter_parallel(total, range(4)))
