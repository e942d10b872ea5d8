"""The stop rule: everything that ends a run early has the same effect. An input that raises does not stop the run."""

import os
import signal
import threading
import time
import traceback
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import acts
import pytest
import remote_tasks as far

from parallelkit import (
    InputError,
    ProcessExecutor,
    Retry,
    Task,
    TaskCancelled,
    first_success,
    iter_parallel,
    run_parallel,
)
from parallelkit._executors._coroutine._port import CoroutinePort
from parallelkit._executors._foreign import ForeignPort
from parallelkit._executors._processes import ProcessPort
from parallelkit._executors._thread._port import ThreadPort

SOON = 15  # seconds; whatever a run might wrongly wait for never ends
EXECUTORS = pytest.mark.parametrize("executor", ["threads", "processes"])


def works(tmp_path):
    return partial(acts.hang_or_fail, path=str(tmp_path / "begun"))


# Each way to stop


@EXECUTORS
@pytest.mark.abandons(1)
def test_max_failures(executor, tmp_path):
    """At the n-th failure, running tasks are killed or abandoned, queued ones are withdrawn, and all have outcomes."""
    began = time.monotonic()
    results = run_parallel(
        works(tmp_path), range(100), executor=executor, max_workers=2, max_failures=1, buffersize=2
    )
    assert time.monotonic() - began < SOON
    assert "max_failures of 1 reached" == results.stopped
    assert [*range(100)] == list(results)
    assert [ValueError, TaskCancelled] == [type(results.failures[key].error) for key in (0, 1)]
    assert {TaskCancelled} == {type(failure.error) for key, failure in results.failures.items() if key}


@EXECUTORS
@pytest.mark.abandons(1)
def test_on_error_raise(executor, tmp_path):
    """The task's own error is raised at once, with a note on what was done."""
    began = time.monotonic()
    with pytest.raises(ValueError, match="first") as caught:
        run_parallel(works(tmp_path), range(100), executor=executor, max_workers=2, on_error="raise")
    assert time.monotonic() - began < SOON
    assert any("the run was stopped at this failure" in note for note in caught.value.__notes__)


@EXECUTORS
@pytest.mark.abandons(2)
def test_run_timeout(executor):
    """At ``run_timeout``, hung tasks are killed or abandoned, and queued ones are withdrawn."""
    results = run_parallel(acts.nap, [acts.LONG] * 10, executor=executor, max_workers=2, run_timeout=0.2)
    assert "run_timeout of 0.2 s" == results.stopped
    assert {TaskCancelled} == {type(failure.error) for failure in results.failures.values()}
    assert 10 == len(results)


@EXECUTORS
@pytest.mark.abandons(1)
def test_first_success(executor):
    """The first success is returned, and running tasks are stopped."""
    tasks = {"hangs": partial(acts.nap, acts.LONG), "quick": partial(far.give_back, 7)}
    began = time.monotonic()
    success = first_success(tasks, executor=executor, max_workers=2)
    assert ("quick", 7) == (success.key, success.value)
    assert time.monotonic() - began < SOON


def close(stream):
    next(stream)
    stream.close()
    with pytest.raises(StopIteration):
        next(stream)


def leave(stream):
    for _ in stream:
        break


def forget(stream):
    assert next(stream).ok


@EXECUTORS
@pytest.mark.abandons(1)
@pytest.mark.parametrize("end", [close, leave, forget])
def test_closing_a_stream(end, executor, tmp_path):
    """Closing a stream, leaving its loop or dropping it ends running tasks; queued ones never begin."""
    path = str(tmp_path / "begun")
    tasks = [partial(acts.noted, 0, path), partial(acts.note_and_hang, 1, path), partial(acts.noted, 2, path)]
    began = time.monotonic()
    end(iter_parallel(tasks, executor=executor, max_workers=1))
    assert time.monotonic() - began < SOON
    assert "2" not in [text for _, text in acts.lines(path)]


@EXECUTORS
def test_closing_closes_the_input(executor):
    """When a run stops or a stream is closed, the ``finally`` of a generator given as input runs at once."""
    closed = threading.Event()

    def items():
        try:
            yield from range(1_000_000)
        finally:
            closed.set()

    source = items()  # that it is kept here leaves nothing to the garbage collector
    results = run_parallel(
        partial(far.on, {3: (far.fail, ValueError("stop"))}), source, executor=executor, max_failures=1
    )
    assert closed.is_set()
    assert 4 <= len(results) < 1_000_000

    closed.clear()
    source = items()
    stream = iter_parallel(far.give_back, source, executor=executor)
    next(stream)
    stream.close()
    assert closed.is_set()


def test_input_that_refuses_to_close():
    """A generator that goes on yielding when it is closed is an InputError."""

    def items():
        try:
            while True:
                yield 1
        except GeneratorExit:
            yield 2

    with pytest.raises(InputError) as caught:
        run_parallel(lambda item: 1 // (item - 1), items(), max_failures=1)
    assert "generator ignored GeneratorExit" == str(caught.value.__cause__)
    assert ZeroDivisionError in {type(failure.error) for failure in caught.value.results.failures.values()}


# What the outcomes are


@EXECUTORS
def test_sized_input_every_item_gets_an_outcome(executor):
    """With sized input, every item has an outcome under its own key, even if it was never read."""
    results = run_parallel(
        far.fail, [ValueError(n) for n in range(300)], key=str, executor=executor, max_failures=2, order="key"
    )
    assert sorted(map(str, range(300))) == list(results)
    assert all(outcome.key == key for key, outcome in results.outcomes.items())


@EXECUTORS
def test_unsized_input_what_was_never_read_is_no_task(executor):
    """With unsized input, only items that were read have outcomes."""
    read = []

    def items():
        for number in range(100_000):
            read.append(number)
            yield ValueError(number)

    results = run_parallel(far.fail, items(), executor=executor, max_failures=2, max_workers=2)
    assert len(read) == len(results) < 1000


@pytest.mark.abandons(1)
@pytest.mark.parametrize(
    "port", [ThreadPort, pytest.param(CoroutinePort, marks=pytest.mark.all), ForeignPort]
)
def test_what_begins_while_a_run_is_being_stopped_has_started(port, monkeypatch):
    """A thread or loop that gets free at that moment may still begin a task, which is then no task that never ran."""
    began, go, over = threading.Event(), threading.Event(), threading.Event()

    async def work(number):
        return plain(number)

    def plain(number):
        return began.set() or over.wait(SOON) if number else go.wait(SOON)

    def blocked():  # while a call of somebody else holds the only thread
        pool.submit(plain, 0)
        return run_parallel(plain, {1: 1, 2: 2}, executor=pool, run_timeout=0.02)

    def running(self):
        found = look(self)
        go.set()
        assert began.wait(SOON)
        return found

    look = port.running
    monkeypatch.setattr(port, "running", running)
    with ThreadPoolExecutor(1) as pool:
        fn = plain if port is ThreadPort else work
        own = partial(
            run_parallel, [Task(fn, number) for number in range(3)], max_workers=1, run_timeout=0.02
        )
        results = (blocked if port is ForeignPort else own)()
        over.set()
    assert [1, 0] == [results.outcomes[key].attempts for key in (1, 2)]
    assert results.outcomes[1].duration >= 0


def test_what_begins_in_a_process_while_its_run_is_being_stopped_has_started(tmp_path, monkeypatch):
    """A task that its worker begins just before it is killed is no task that never ran."""
    begun = tmp_path / "begun"

    def close(self):
        if not begun.exists():  # it is the run's
            os.kill(pid, signal.SIGCONT)
        while not begun.exists():
            time.sleep(0.001)
        end(self)

    end = ProcessPort.close
    with ProcessExecutor(1) as executor:
        pid = executor.submit(os.getpid).result()
        os.kill(pid, signal.SIGSTOP)
        monkeypatch.setattr(ProcessPort, "close", close)
        results = run_parallel(works(tmp_path), [1], executor=executor, run_timeout=0.02)
        monkeypatch.undo()
    assert 1 == results.outcomes[0].attempts


@EXECUTORS
def test_never_started_has_no_start(executor):
    """A task that never started has no start, attempt, duration or worker."""
    results = run_parallel(
        far.fail, [ValueError(1)] * 300, executor=executor, max_failures=1, max_workers=1, buffersize=1
    )
    last = results.failures[299]
    assert (None, 0, 0.0, None) == (last.started_at, last.attempts, last.duration, last.worker)
    assert "the run was stopped before this task was done: max_failures of 1 reached" in str(last.error)
    assert "".join(traceback.format_exception(last.error)) == last.traceback


@EXECUTORS
def test_cause_is_the_last_attempts_error(executor, tmp_path):
    """If a run stops while a task waits for a retry, its TaskCancelled has the last attempt's error as its cause."""
    path = str(tmp_path / "retried")

    def fail():
        raise ValueError(f"after {len(acts.lines(path))} retries")

    def end():
        acts.wait_for_lines(path, 2)
        raise KeyError

    def listen(event):
        if event.kind == "retrying":
            acts.note(path)

    soon_then_never = Retry(9, delay=0.001, factor=1e12, max_delay=1e9)
    tasks = [Task(fail, retries=soon_then_never), end]
    results = run_parallel(tasks, executor=executor, max_workers=2, max_failures=1, on_event=listen)
    error = results.failures[0].error
    assert isinstance(error, TaskCancelled)
    assert "after 1 retries" == str(error.__cause__)


@EXECUTORS
def test_whole_run_is_not_stopped(executor):
    """``stopped`` is None if all tasks have settled, even if the last one reached ``max_failures``."""
    assert run_parallel(far.fail, [ValueError(1)] * 3, executor=executor).stopped is None
    assert run_parallel(far.fail, [ValueError(1)] * 3, executor=executor, max_failures=3).stopped is None


# An input that raises


@EXECUTORS
def test_input_that_raises_delivers_what_was_read(executor):
    """All items read before the input raised are run and delivered; then InputError is raised, with that error as its cause."""

    def items():
        yield from range(50)
        raise OSError("the cable was pulled")

    with pytest.raises(InputError, match="after 50 items") as caught:
        run_parallel(far.give_back, items(), executor=executor)
    assert isinstance(caught.value.__cause__, OSError)
    assert {number: number for number in range(50)} == caught.value.results.to_dict()

    seen = []
    with pytest.raises(InputError):
        for outcome in iter_parallel(far.give_back, items(), executor=executor):
            seen.append(outcome.value)  # noqa: PERF401  # what came before the error counts
    assert [*range(50)] == sorted(seen)


@EXECUTORS
@pytest.mark.parametrize("what", ["key", "priority", "by", "then"])
def test_callable_that_raises_ends_the_input(executor, what):
    """If ``key``, ``priority``, ``by`` or ``then`` raises, that ends the input, and all earlier items are delivered."""
    from parallelkit import RateLimit

    def fussy(item):
        if item == 30 or getattr(item, "value", None) == 30:
            raise OSError("not this one")
        return None if what == "then" else 1 if what != "key" else item

    option = {"limits": RateLimit(1000, per=1, by=fussy)} if what == "by" else {what: fussy}
    with pytest.raises(InputError) as caught:
        run_parallel(far.give_back, iter(range(50)), executor=executor, **option)
    assert isinstance(caught.value.__cause__, OSError)
    assert {*range(30)} <= set(caught.value.results.values())


@EXECUTORS
def test_key_that_comes_twice_ends_the_input(executor):
    """A duplicate key ends a lazily read input; with sized input it is refused before anything runs."""
    with pytest.raises(InputError, match="positions 0 and 10"):
        run_parallel(far.give_back, iter(range(20)), key=lambda item: item % 10, executor=executor)
    begun = threading.Event()
    with pytest.raises(ValueError, match="positions 0 and 10"):
        run_parallel(lambda item: begun.set(), range(20), key=lambda item: item % 10)
    assert not begun.is_set()


@EXECUTORS
def test_base_exception_of_the_input_goes_through(executor):
    """If the caller's own input raises SystemExit, the run is cleaned up, and SystemExit propagates."""

    def items():
        yield from range(5)
        raise SystemExit(4)

    with pytest.raises(SystemExit):
        run_parallel(acts.nap, (0.01 for _ in items()), executor=executor)
    with pytest.raises(SystemExit):
        list(iter_parallel(acts.nap, (0.01 for _ in items()), executor=executor))
