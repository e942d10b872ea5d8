"""``terminate_workers`` and ``kill_workers`` of a ``ProcessExecutor``: all workers end at once, and with them the executor."""

import signal
import threading
import time
from concurrent.futures import BrokenExecutor, CancelledError
from concurrent.futures.process import BrokenProcessPool

import pytest
from patience import wait_until

from parallelkit import ProcessExecutor, Task, TaskCancelled, WorkerDied, run_parallel
from parallelkit._executors._process import _endings
from parallelkit._executors._process._decode import decode_died
from parallelkit._executors._process._lane import Batch, Died, Lane, Why

NUMBERS = {"terminate_workers": signal.SIGTERM, "kill_workers": signal.SIGKILL}

both = pytest.mark.parametrize("name", NUMBERS)


def hang(path):
    """Tell by a file that this call has begun, and hang."""
    open(path, "x").close()
    time.sleep(60)


def hang_with_a_child(path):
    import subprocess

    with open(path, "x") as told:
        told.write(str(subprocess.Popen(["sleep", "60"]).pid))
    time.sleep(60)


def leave_on_sigterm(path):
    """Return a value on SIGTERM."""
    told = []
    signal.signal(signal.SIGTERM, lambda *_: told.append("saved"))
    open(path, "x").close()
    while not told:
        signal.sigtimedwait([], 0.01)
    return told[0]


def ignore_sigterm(path):
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    hang(path)


def begun(executor, fn, path):
    """Submit a call that tells when it has begun, and wait for that."""
    future = executor.submit(fn, str(path))
    wait_until(path.exists)
    return future


@both
def test_what_runs_fails_and_what_waits_is_cancelled(name, tmp_path, caplog):
    """A running call is a WorkerDied that knows the signal; one that was promised the next worker is broken, others are cancelled.

    Nothing is logged, as when an executor breaks: it was asked for.
    """
    executor = ProcessExecutor(1)
    done = executor.submit(abs, -1)
    assert 1 == done.result()
    runs = begun(executor, hang, tmp_path / "begun")
    following, *waiting = [executor.submit(abs, -2) for _ in range(4)]
    wait_until(following.running)
    assert getattr(executor, name)() is None
    assert all(future.cancelled() for future in waiting)
    error = runs.exception()
    assert (WorkerDied, NUMBERS[name], None) == (type(error), error.signal, error.exitcode)
    assert isinstance(error, BrokenExecutor)
    assert "memory" not in str(error)
    assert BrokenProcessPool is type(following.exception())
    assert name in str(following.exception())
    with pytest.raises(RuntimeError):  # which a BrokenProcessPool is
        executor.submit(abs, -1)
    executor.shutdown()
    getattr(executor, name)()
    assert 1 == done.result()
    assert not caplog.records


@both
@pytest.mark.parametrize("use", [len, lambda executor: run_parallel(abs, [1], executor=executor)])
def test_an_executor_without_calls_is_shut_down(name, use):
    """Whether or not it has workers, and again after that; a later run on it says so."""
    executor = ProcessExecutor(2)
    if use is not len:
        use(executor)
    for _ in range(2):
        getattr(executor, name)()
    with pytest.raises(RuntimeError, match="shut"):
        executor.submit(abs, -1)
    with pytest.raises(RuntimeError, match="shut"):
        run_parallel(abs, [1], executor=executor)
    executor.shutdown()


@both
def test_calls_before_there_is_a_worker_are_cancelled(name, monkeypatch):
    """Those submitted while another thread's first call is being taken; that one is refused, and any that comes later."""
    executor, waiting = ProcessExecutor(2), []
    open_port, end_workers = executor._pool.open, executor._ender

    def be_ended(job):
        waiting.append(executor.submit(abs, -1))
        getattr(executor, name)()
        return open_port(job)

    def be_used(number):
        with pytest.raises(RuntimeError, match="shut"):
            executor.submit(abs, -1)
        end_workers(number)

    monkeypatch.setattr(executor._pool, "open", be_ended)
    monkeypatch.setattr(executor, "_ender", be_used)
    with pytest.raises(RuntimeError, match="shut"):
        executor.submit(abs, -2)
    assert [True] == [future.cancelled() for future in waiting]
    executor.shutdown()


@pytest.mark.all
@both
def test_a_run_in_progress_is_stopped(name, tmp_path):
    """Its running tasks are failures, with the signal, and those that have not begun are cancelled; it does not hang."""
    executor = ProcessExecutor(1)
    assert 1 == executor.submit(abs, -1).result()  # so that the thread of its calls ends meanwhile
    path = tmp_path / "begun"

    def end():
        wait_until(path.exists)
        getattr(executor, name)()

    thread = threading.Thread(target=end)
    thread.start()
    tasks = [Task(abs, -1), Task(hang, str(path)), Task(abs, -2)]
    results = run_parallel(tasks, executor=executor)
    thread.join()
    assert f"{name}() has ended the workers" == results.stopped
    assert {0: 1} == dict(results.successes)
    errors = {key: failure.error for key, failure in results.failures.items()}
    assert (WorkerDied, NUMBERS[name]) == (type(errors[1]), errors[1].signal)
    assert TaskCancelled is type(errors[2])
    executor.shutdown()


@pytest.mark.all
@both
def test_they_may_be_called_in_callbacks(name):
    """Of a future, in the thread that no call can do without, and of the run that they stop."""
    executor = ProcessExecutor(1)
    future = executor.submit(abs, -1)
    future.add_done_callback(lambda _: getattr(executor, name)())
    assert 1 == future.result()
    wait_until(lambda: executor._dispatcher._shut)
    executor.shutdown()

    executor = ProcessExecutor(1)
    results = run_parallel(
        abs, range(9), executor=executor, then=lambda _: getattr(executor, name)() or (), buffersize=1
    )
    assert results.stopped
    assert all(
        isinstance(failure.error, (TaskCancelled, WorkerDied)) for failure in results.failures.values()
    )
    executor.shutdown()


@pytest.mark.all
@both
def test_what_calls_have_started_ends_as_well(name, tmp_path):
    """A child of a worker does not outlive it."""
    executor = ProcessExecutor(1)
    path = tmp_path / "pid"
    future = executor.submit(hang_with_a_child, str(path))
    wait_until(lambda: path.exists() and path.read_text())
    getattr(executor, name)()
    with pytest.raises(WorkerDied):
        future.result()
    executor.shutdown()
    wait_until(lambda: has_ended(int(path.read_text())))


def has_ended(pid):
    """Whether there is no such process, or it only waits to be reaped."""
    try:
        with open(f"/proc/{pid}/stat") as stat:
            return stat.read().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


@pytest.mark.all
def test_a_call_that_handles_sigterm_may_return(tmp_path, monkeypatch):
    """Its value is delivered, its worker exits at once, and no other call begins there."""
    monkeypatch.setattr(_endings, "GRACE", 600)
    executor = ProcessExecutor(1)
    future = begun(executor, leave_on_sigterm, tmp_path / "begun")
    following = executor.submit(abs, -1)
    executor.terminate_workers()
    assert "saved" == future.result()
    with pytest.raises((CancelledError, BrokenProcessPool)):
        following.result()
    executor.shutdown()


@pytest.mark.all
@pytest.mark.parametrize("grace", [0.01, 60])
def test_a_call_that_ignores_sigterm_is_killed(grace, tmp_path, monkeypatch):
    """After a time, or as soon as ``kill_workers`` is called; ``terminate_workers`` does not take that back."""
    monkeypatch.setattr(_endings, "GRACE", grace)
    executor = ProcessExecutor(1)
    future = begun(executor, ignore_sigterm, tmp_path / "begun")
    executor.terminate_workers()
    if grace == 60:
        executor.kill_workers()
        executor.terminate_workers()
    assert signal.SIGKILL == future.exception().signal
    executor.shutdown()


@pytest.mark.all
def test_no_worker_takes_the_place_of_those_that_end(tmp_path):
    """Neither of one that has made its ``max_tasks_per_child``, nor as a spare."""
    executor = ProcessExecutor(2, max_tasks_per_child=1)
    assert [1, 1] == list(executor.map(abs, [-1, -1]))
    futures = [begun(executor, hang, tmp_path / str(number)) for number in range(2)]
    supervisor = executor._pool._supervisor
    before = {worker.pid for worker in supervisor.pool.everybody()}
    executor.kill_workers()
    assert {future.exception().pid for future in futures} <= before
    executor.shutdown()
    assert [] == supervisor.pool.everybody()


@pytest.mark.parametrize(
    ("status", "told"),
    [
        (-9, "killed by kill_workers"),
        (None, "killed by kill_workers"),
        (3, "exited with code 3"),
        (-11, "SIGSEGV"),
    ],
)
def test_a_worker_that_had_just_ended_by_itself_was_killed_by_nobody(status, told):
    """Its end is told as that of any other, though ``kill_workers`` has come by then."""
    batch = Batch(Lane(1, b"", False), [(0, 1, None, None)], None)
    died = Died(batch, 1.0, 2.0, 4321, status, Why.ASKED, "a worker", "")
    error = decode_died(died, str).error
    assert told in str(error)
    assert error.signal == {-9: 9, None: 9, 3: None, -11: 11}[status]
