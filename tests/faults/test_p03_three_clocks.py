"""Promise 3: three honest clocks: of one attempt, of one task, of the run."""

import os
import threading
import time
from functools import partial

import acts
import pytest
import remote_tasks as far
from broken import Rebuilt, Reduces, hang
from outside import until

from parallelkit import Retry, Task, TaskCancelled, TaskTimeout, iter_parallel, run_parallel

BOTH = pytest.mark.parametrize("executor", ["threads", "processes"])


# One attempt


@BOTH
def test_timeout_never_counts_the_queue(executor):
    """Ten tasks wait for one worker, in all much longer than their timeout, and none is overdue."""
    results = run_parallel(acts.nap, [0.04] * 10, executor=executor, max_workers=1, timeout=0.25)
    assert [0.04] * 10 == results.values()


@BOTH
def test_timeout_begins_anew_with_each_attempt(executor, tmp_path):
    """Three attempts of 0.15 s each are within a timeout of 0.3 s."""
    path = str(tmp_path / "begun")

    def work(item):
        acts.note(path)
        time.sleep(0.15)
        if len(acts.lines(path)) < 3:
            raise ValueError("again")
        return len(acts.lines(path))

    results = run_parallel(
        work, [0], executor=executor, max_workers=1, timeout=0.3, retries=Retry(2, delay=0.001)
    )
    assert [3] == results.values()


def test_timeout_includes_unpickling_the_arguments():
    """The clock runs while the arguments are unpickled."""
    items = [1, Rebuilt(hang), 3]
    results = run_parallel(far.give_back, items, executor="processes", max_workers=2, timeout=0.3)

    assert [1, None, 3] == results.values(default=None)
    assert isinstance(results.failures[1].error, TaskTimeout)
    assert 0.3 <= results.failures[1].duration < 2


def test_timeout_includes_sending_the_result():
    """And until the result has left the worker."""
    results = run_parallel(
        lambda item: Reduces(hang) if item == 1 else item,
        range(3),
        executor="processes",
        max_workers=2,
        timeout=0.3,
    )
    assert [0, None, 2] == results.values(default=None)
    assert isinstance(results.failures[1].error, TaskTimeout)


def test_timeout_of_a_task_overrides_that_of_the_run():
    """Both ways."""
    from parallelkit import Task

    tasks = {"short": Task(acts.nap, acts.LONG, timeout=0.1), "long": Task(acts.nap, 0.4, timeout=20)}
    results = run_parallel(tasks, executor="processes", max_workers=2, timeout=0.2)
    assert {"short": None, "long": 0.4} == results.to_dict(default=None)


# One task


@BOTH
def test_max_time_bounds_a_task_over_all_its_attempts(executor):
    """Attempts of 0.05 s go on until the next would begin past the limit, however many are allowed."""

    def fail(item):
        time.sleep(0.05)
        raise ValueError("always")

    policy = Retry(1000, delay=0.01, factor=1, max_time=0.4)
    results = run_parallel(fail, [0], executor=executor, max_workers=1, retries=policy)
    failure = results.failures[0]

    assert isinstance(failure.error, ValueError)
    assert 2 <= failure.attempts <= 9
    assert failure.started_at + failure.duration < 2


# The run


@BOTH
@pytest.mark.abandons(2)
def test_run_timeout_returns_what_is_done_and_cancels_the_rest(executor, tmp_path):
    """Every task has its outcome, the run says why it stopped, and nobody waited for what hangs."""
    path = str(tmp_path / "begun")
    began = time.monotonic()
    results = run_parallel(
        partial(acts.hang_if, bad={10, 11}, path=path),
        range(20),
        executor=executor,
        max_workers=2,
        run_timeout=0.7,
        order="completion",
    )
    took = time.monotonic() - began

    assert 0.7 <= took < 2
    assert "run_timeout of 0.7 s" == results.stopped
    assert {*range(10)} <= set(results.successes)
    assert {10, 11} <= set(results.failures)
    assert {TaskCancelled} == {type(failure.error) for failure in results.failures.values()}
    assert {*range(20)} == set(results)


def test_run_timeout_waits_for_no_delayed_attempt():
    """A retry that would begin after the run's end is not waited for: the failure is final at once."""
    began = time.monotonic()
    never = Retry(3, delay=1e9, max_delay=1e9)  # any time up to that: 5 s or less once in 200 million times
    results = run_parallel(far.fail, [ValueError("now")], run_timeout=5, retries=never)
    assert isinstance(results.failures[0].error, ValueError)
    assert time.monotonic() - began < 4


# Whatever the caller's own code is doing


def pids(path):
    return [pid for pid, _ in acts.lines(path)]


def is_gone(path):
    """Whether the process that noted itself there was killed."""
    return len(pids(path)) == 1 and not running(pids(path)[0])


def running(pid):
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_deadline_holds_while_the_input_blocks(tmp_path):
    """The next item is given only when the first task's process is dead."""
    path = str(tmp_path / "begun")

    def items():
        yield 0
        until(lambda: is_gone(path))
        yield 1

    results = run_parallel(
        partial(acts.hang_if, bad={0}, path=path), items(), executor="processes", max_workers=1, timeout=0.2
    )
    assert [None, 1] == results.values(default=None)
    assert isinstance(results.failures[0].error, TaskTimeout)


def test_deadline_holds_while_a_callback_blocks(tmp_path):
    """``then`` comes back only when the other task's process is dead."""
    path = str(tmp_path / "begun")

    def then(outcome):
        if outcome.key == 1:
            until(lambda: is_gone(path))

    tasks = [partial(acts.note_and_hang, 0, path), partial(far.give_back, 1)]
    results = run_parallel(tasks, executor="processes", max_workers=2, timeout=0.3, then=then)
    assert [None, 1] == results.values(default=None)


def test_deadline_holds_while_the_consumer_is_busy(tmp_path):
    """The consumer of a stream asks for the next outcome only when the process is dead."""
    path = str(tmp_path / "begun")
    tasks = {"good": partial(far.give_back, 1), "bad": partial(acts.note_and_hang, 0, path)}
    seen = []
    for outcome in iter_parallel(tasks, executor="processes", max_workers=2, timeout=0.3):
        seen.append(outcome.key)
        until(lambda: is_gone(path))

    assert ["good", "bad"] == seen


def test_deadline_holds_while_a_value_is_unpickled(tmp_path):
    """The value of the first task takes until the second task's process is dead."""
    path = str(tmp_path / "begun")
    value = Task(lambda: Rebuilt(until_gone, path, os.getpid()), timeout=60)  # a busy worker loads it long
    results = run_parallel(
        [value, Task(acts.note_and_hang, 0, path, timeout=0.5)], executor="processes", max_workers=2
    )
    assert ["gone", None] == results.values(default=None)


def until_gone(path, home):
    if os.getpid() != home:  # in the parent
        until(lambda: is_gone(path))
    return "gone"


def test_deadline_holds_while_the_gil_is_held_elsewhere(tmp_path):
    """Threads of the caller's own that compute without end delay a kill by little."""
    path, enough = str(tmp_path / "begun"), threading.Event()

    def spin():
        while not enough.is_set():
            pass

    spinners = [threading.Thread(target=spin, daemon=True) for _ in range(2)]
    for spinner in spinners:
        spinner.start()
    results = run_parallel(
        partial(acts.hang_if, bad={0}, path=path), range(3), executor="processes", max_workers=2, timeout=0.3
    )
    enough.set()
    for spinner in spinners:
        spinner.join()

    assert [None, 1, 2] == results.values(default=None)
    assert results.failures[0].duration < 1.5
