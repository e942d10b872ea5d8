"""Promise 3: three honest clocks: for an attempt, for a task, and for the run."""

import os
import threading
import time
from functools import partial

import acts
import pytest
import remote_tasks as far
from broken import Rebuilt, Reduces, hang
from outside import until
from patience import given_time

from parallelkit import ProcessExecutor, Retry, Task, TaskCancelled, TaskTimeout, iter_parallel, run_parallel

BOTH = pytest.mark.parametrize("executor", ["threads", "processes"])


# One attempt


@BOTH
@given_time
def test_timeout_never_counts_the_queue(executor, scale):
    """Ten tasks queue for one worker, in total for longer than their timeout, and none times out."""
    nap, limit = 0.04 * scale, 0.25 * scale
    results = run_parallel(acts.nap, [nap] * 10, executor=executor, max_workers=1, timeout=limit)
    assert [nap] * 10 == results.values()


@BOTH
@given_time
def test_timeout_begins_anew_with_each_attempt(executor, tmp_path, scale):
    """Each attempt has the full timeout: three attempts of 0.2 s each are within a timeout of 0.3 s."""
    path = str(tmp_path / f"begun {scale}")

    def work(item):
        acts.note(path)
        time.sleep(0.2 * scale)
        if len(acts.lines(path)) < 3:
            raise ValueError("again")
        return len(acts.lines(path))

    again = Retry(2, delay=0.001, on=ValueError)  # no retry after a timeout
    results = run_parallel(work, [0], executor=executor, max_workers=1, timeout=0.3 * scale, retries=again)
    assert [3] == results.values()


def test_timeout_includes_unpickling_the_arguments():
    """Unpickling the arguments counts for the timeout."""
    tasks = [Task(far.give_back, item) for item in (1, 3)]
    tasks[1:1] = [Task(far.give_back, Rebuilt(hang), timeout=0.15)]
    results = run_parallel(tasks, executor="processes", max_workers=2, timeout=30)

    assert [1, None, 3] == results.values(default=None)
    assert isinstance(results.failures[1].error, TaskTimeout)
    assert 0.15 <= results.failures[1].duration < 5


def test_timeout_includes_sending_the_result():
    """The timeout counts until the result has left the worker."""
    tasks = [Task(far.give_back, item) for item in (0, 2)]
    tasks[1:1] = [Task(lambda: Reduces(hang), timeout=0.15)]
    results = run_parallel(tasks, executor="processes", max_workers=2, timeout=30)

    assert [0, None, 2] == results.values(default=None)
    assert isinstance(results.failures[1].error, TaskTimeout)


def test_timeout_of_a_task_overrides_that_of_the_run():
    """A task's own timeout applies instead of the run's, whether it is shorter or longer."""
    tasks = {"short": Task(acts.nap, acts.LONG, timeout=0.05), "long": Task(acts.nap, 0.2, timeout=20)}
    results = run_parallel(tasks, executor="processes", max_workers=2, timeout=0.1)
    assert {"short": None, "long": 0.2} == results.to_dict(default=None)


# One task


@BOTH
@given_time
def test_max_time_bounds_a_task_over_all_its_attempts(executor, scale):
    """However many retries are allowed, no attempt starts past ``max_time``, and the task fails with its own last error."""

    def fail(item):
        time.sleep(0.05 * scale)
        raise ValueError("always")

    policy = Retry(1000, delay=0.01, factor=1, max_time=0.4 * scale)
    results = run_parallel(fail, [0], executor=executor, max_workers=1, retries=policy)
    failure = results.failures[0]

    assert isinstance(failure.error, ValueError)
    assert 2 <= failure.attempts <= 9
    assert failure.started_at + failure.duration < 2 * scale


# The run


@BOTH
@pytest.mark.abandons(6)
@given_time
def test_run_timeout_returns_what_is_done_and_cancels_the_rest(executor, tmp_path, scale):
    """At ``run_timeout``, every task has an outcome, ``stopped`` says why, and hung tasks are not waited for."""
    path, limit = str(tmp_path / "begun"), 0.7 * scale
    began = time.monotonic()
    results = run_parallel(
        partial(acts.hang_if, bad={10, 11}, path=path),
        range(20),
        executor=executor,
        max_workers=2,
        run_timeout=limit,
        order="completion",
    )
    took = time.monotonic() - began

    assert limit <= took < limit + 4
    assert f"run_timeout of {limit:g} s" == results.stopped
    assert {*range(10)} <= set(results.successes)
    assert {10, 11} <= set(results.failures)
    assert {TaskCancelled} == {type(failure.error) for failure in results.failures.values()}
    assert {*range(20)} == set(results)


def test_run_timeout_waits_for_no_delayed_attempt():
    """A retry that would begin after ``run_timeout`` is not waited for: the failure is final at once."""
    began = time.monotonic()
    never = Retry(3, delay=1e9, max_delay=1e9)  # a random delay: 60 s or less only once in 16 million times
    results = run_parallel(far.fail, [ValueError("now")], run_timeout=60, retries=never)
    assert isinstance(results.failures[0].error, ValueError)
    assert time.monotonic() - began < 30


# Whatever the caller's own code is doing


@pytest.fixture
def pool(tmp_path):
    """An executor with two workers, whose pids are known before a test begins: a task might be killed before it could report its own."""
    path = str(tmp_path / "workers")
    with ProcessExecutor(2) as pool:
        run_parallel(partial(acts.meet, path=path, count=2), range(2), executor=pool)
        pool.pids = [pid for pid, _ in acts.lines(path)]
        yield pool


def one_is_gone(pids):
    """Whether any of these processes is dead."""
    return not all(map(running, pids))


def running(pid):
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_deadline_holds_while_the_input_blocks(pool):
    """A task's timeout is enforced while the input blocks: its next item comes only when the worker is dead."""

    def tasks():
        yield Task(hang, timeout=0.2)
        until(lambda: one_is_gone(pool.pids))
        yield Task(far.give_back, 1, timeout=30)

    results = run_parallel(tasks(), executor=pool)
    assert [None, 1] == results.values(default=None)
    assert isinstance(results.failures[0].error, TaskTimeout)


@pytest.mark.all
def test_deadline_holds_while_a_callback_blocks(pool):
    """A task's timeout is enforced while ``then`` blocks: it returns only when the other task's worker is dead."""

    def then(outcome):
        if outcome.key == 1:
            until(lambda: one_is_gone(pool.pids))

    tasks = [Task(hang, timeout=0.3), Task(far.give_back, 1, timeout=30)]
    results = run_parallel(tasks, executor=pool, then=then)
    assert [None, 1] == results.values(default=None)


@pytest.mark.all
def test_deadline_holds_while_the_consumer_is_busy(pool):
    """A task's timeout is enforced while the consumer of a stream asks for nothing."""
    tasks = {"good": Task(far.give_back, 1, timeout=30), "bad": Task(hang, timeout=0.3)}
    seen = []
    for outcome in iter_parallel(tasks, executor=pool):
        seen.append(outcome.key)
        until(lambda: one_is_gone(pool.pids))

    assert {"good", "bad"} == set(seen)


def test_deadline_holds_while_a_value_is_unpickled(pool):
    """A task's timeout is enforced while another task's value is being unpickled."""
    pids, home = pool.pids, os.getpid()
    value = Task(lambda: Rebuilt(until_gone, pids, home), timeout=60)  # it may load slowly
    results = run_parallel([value, Task(hang, timeout=0.3)], executor=pool)
    assert ["gone", None] == results.values(default=None)


def until_gone(pids, home):
    if os.getpid() != home:  # in the parent
        until(lambda: one_is_gone(pids))
    return "gone"


@pytest.mark.all
def test_deadline_holds_while_the_gil_is_held_elsewhere():
    """Busy threads of the caller delay the kill of an overdue worker only a little."""
    enough = threading.Event()

    def spin():
        while not enough.is_set():
            pass

    spinners = [threading.Thread(target=spin, daemon=True) for _ in range(2)]
    for spinner in spinners:
        spinner.start()
    tasks = [Task(hang, timeout=0.3), *(Task(far.give_back, item, timeout=30) for item in (1, 2))]
    results = run_parallel(tasks, executor="processes", max_workers=2)
    enough.set()
    for spinner in spinners:
        spinner.join()

    assert [None, 1, 2] == results.values(default=None)
    assert results.failures[0].duration < 4
