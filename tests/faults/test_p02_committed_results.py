"""Promise 2: a committed result is final; a task that never started is never blamed."""

import os
import signal
import threading
import time
from collections import Counter
from functools import partial

import acts
import pytest
import remote_tasks as far
from outside import program, until
from patience import given_time

from parallelkit import ProcessExecutor, WorkerDied, run_parallel


def test_what_was_committed_is_delivered_and_runs_once(tmp_path):
    """With long batches of short tasks, some of which kill their worker, every task begins exactly once."""
    path, bad = str(tmp_path / "runs"), frozenset(range(50, 3000, 200))
    results = run_parallel(
        partial(acts.leave_if, bad=bad, path=path), range(3000), executor="processes", max_workers=2
    )

    assert bad == set(results.failures)
    assert {item: item for item in range(3000) if item not in bad} == results.successes
    assert {str(item): 1 for item in range(3000)} == Counter(text for _, text in acts.lines(path))


def test_who_never_started_is_not_blamed(tmp_path):
    """Tasks that were queued in a worker that died run elsewhere, and that does not count as an attempt."""
    path, bad = str(tmp_path / "runs"), frozenset(range(500, 2000, 300))
    results = run_parallel(
        partial(acts.leave_if, bad=bad, path=path),
        range(2000),
        executor="processes",
        max_workers=2,
        retries=1,
    )
    begun = Counter(text for _, text in acts.lines(path))

    assert {item: 2 if item in bad else 1 for item in range(2000)} == {
        key: outcome.attempts for key, outcome in results.outcomes.items()
    }
    assert {str(item): 2 if item in bad else 1 for item in range(2000)} == begun


def test_the_one_that_ran_is_named_with_its_process(tmp_path):
    """WorkerDied has the exit code, signal and pid of the process in which the task was running."""
    path = str(tmp_path / "runs")
    results = run_parallel(
        partial(acts.leave_if, bad={3}, path=path), range(20), executor="processes", max_workers=2
    )
    error = results.failures[3].error
    (pid,) = [pid for pid, text in acts.lines(path) if text == "3"]

    assert isinstance(error, WorkerDied)
    assert (3, None, pid) == (error.exitcode, error.signal, error.pid)


def test_another_go_begins_after_the_old_process_is_gone(tmp_path):
    """A retry starts only when the old process is confirmed dead: not even a zombie is left."""
    path = str(tmp_path / "runs")
    results = run_parallel([partial(acts.die_once, 0, path)], executor="processes", max_workers=2, retries=1)

    assert [False] == results.values()
    assert 2 == results.outcomes[0].attempts
    assert [WorkerDied] == [type(attempt.error) for attempt in results.attempts if attempt.error]


def test_all_workers_killed_at_once(tmp_path):
    """If both workers are killed, only the two running tasks are blamed; the other twenty have their values."""
    path = str(tmp_path / "runs")

    def kill_both():
        for pid, _ in acts.wait_for_lines(path, 2):
            os.kill(pid, signal.SIGKILL)

    killer = threading.Thread(target=kill_both)
    killer.start()
    tasks = [partial(acts.note_and_hang, number, path) for number in range(2)]
    tasks += [partial(far.give_back, number) for number in range(2, 22)]
    results = run_parallel(tasks, executor="processes", max_workers=2, timeout=20)
    killer.join()

    assert [(0, signal.SIGKILL), (1, signal.SIGKILL)] == [
        (key, failure.error.signal) for key, failure in results.failures.items()
    ]
    assert {number: number for number in range(2, 22)} == results.successes


@pytest.mark.parametrize("victims", [1, 2], ids=["one", "all"])
def test_workers_killed_in_idleness_cost_nothing(victims):
    """If idle workers are killed between two runs on one executor, the next tasks run on new workers."""
    with ProcessExecutor(2) as executor:
        pids = set(run_parallel(far.pid_of, range(50), executor=executor).values())
        for pid in sorted(pids)[:victims]:
            os.kill(pid, signal.SIGKILL)
        assert [*range(50)] == run_parallel(far.give_back, range(50), executor=executor).values()
        for future in [executor.submit(far.give_back, number) for number in range(10)]:
            future.result(20)


@given_time
def test_committed_result_beats_a_timeout_in_a_process(tmp_path, scale):
    """The parent is stopped while the task overruns its limit and ends: the committed value is its outcome, not a timeout."""
    path = str(tmp_path / f"x{scale}")
    script = f"""
import acts, os, signal
from parallelkit import ProcessExecutor, run_parallel

def slow(path):
    if path is None:
        return acts.LONG  # the modules are loaded now
    os.kill(home, signal.SIGSTOP)
    acts.note(path + "begun")
    acts.wait_for_lines(path + "go", 1)
    acts.note(path + "done")
    return "committed"

home = os.getpid()
with ProcessExecutor(1) as executor:
    run_parallel(slow, [None], executor=executor)
    print(run_parallel(slow, [{path!r}], executor=executor, timeout={0.5 * scale})[0])
"""
    with program("-", script=script) as started:
        ((worker, _),) = acts.wait_for_lines(path + "begun", 1)
        time.sleep(0.55 * scale)  # past the limit, which the stopped parent cannot notice
        acts.note(path + "go")
        acts.wait_for_lines(path + "done", 1)
        until(lambda: sleeps(worker))  # it waits for its next task, so the result is committed
        os.kill(started.pid, signal.SIGCONT)
        finished = started.wait(20)

    assert "committed\n" == finished.out, finished.err


def sleeps(pid):
    with open(f"/proc/{pid}/stat") as file:
        return file.read().rpartition(")")[2].split()[0] == "S"


@given_time
def test_committed_result_beats_a_timeout_in_a_thread(scale):
    """A result that is there when the run looks again is the outcome, even if the task overran its limit while a callback blocked."""
    busy, done = threading.Event(), threading.Event()

    def task(item):
        if item == 1:
            began = time.monotonic()
            assert busy.wait(20)
            time.sleep(max(0.0, began + 0.25 * scale - time.monotonic()))
            done.set()
        return item

    def then(outcome):
        if outcome.key == 0:
            busy.set()
            assert done.wait(20)
            time.sleep(0.02 * scale)  # so that the task returns

    results = run_parallel(task, range(2), max_workers=2, timeout=0.2 * scale, then=then)

    assert [0, 1] == results.values()
    assert results.outcomes[1].duration > 0.2 * scale
