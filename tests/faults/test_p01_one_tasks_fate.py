"""Promise 1: what happens to one task affects no other."""

import os
import signal
import subprocess
import threading
from functools import partial
from pathlib import Path

import acts
import pytest
import remote_tasks as far
from outside import rarely, run_script, soon

from parallelkit import ProcessExecutor, Task, TaskExited, TaskTimeout, WorkerDied, run_parallel

WIDE = {"threads": 4, "processes": 2}


def test_every_kind_of_fault_in_one_run():
    """Sixteen of 112 tasks raise, exit, are killed, crash or hang, each with its own failure; all others have their values."""
    kinds = [ValueError, WorkerDied, WorkerDied, WorkerDied, TaskTimeout, TaskExited]
    hang = [item for item in range(0, 112, 7) if kinds[item // 7 % 6] is TaskTimeout]
    tasks = [Task(acts.all_kinds, item, timeout=0.15 if item in hang else 30) for item in range(112)]
    results = run_parallel(tasks, executor="processes", max_workers=2)

    assert {item: kinds[item // 7 % 6] for item in range(0, 112, 7)} == {
        key: type(failure.error) for key, failure in results.failures.items()
    }
    assert {item: item for item in range(112) if item % 7} == results.successes


def test_what_a_worker_died_of_is_told():
    """WorkerDied has the exit code or signal, and the pid of the dead process."""
    results = run_parallel(acts.all_kinds, [7, 14, 21], executor="processes", max_workers=2)
    left, killed, crashed = (failure.error for failure in results.failures.values())

    assert [(3, None), (None, signal.SIGKILL), (None, signal.SIGSEGV)] == [
        (error.exitcode, error.signal) for error in (left, killed, crashed)
    ]
    assert [f"process {error.pid}" for error in (left, killed, crashed)] == [
        failure.worker for failure in results.failures.values()
    ]


@pytest.mark.parametrize(
    "how", ["ITIMER_REAL", *(pytest.param(how, marks=pytest.mark.all) for how in ("alarm", "ITIMER_PROF"))]
)
def test_alarm_that_a_task_leaves_behind_strikes_no_other(how):
    """A timer that a task has set is stopped when the task ends; otherwise its signal would kill the next task."""
    items = [how, 1.0 if how == "alarm" else 0.05]
    assert run_parallel(acts.set_an_alarm, items, executor="processes", max_workers=1).values() == items


def test_timer_of_an_initializer_goes_on():
    """A timer that an initializer has set, for a sampling profiler say, keeps running, even if a task uses another timer."""

    def begin():
        signal.signal(signal.SIGALRM, lambda number, frame: None)
        signal.setitimer(signal.ITIMER_REAL, 1000, 1000)

    def left(timer):
        signal.setitimer(timer, 1000)
        return signal.getitimer(signal.ITIMER_REAL)[0], signal.getitimer(signal.ITIMER_PROF)[0]

    with ProcessExecutor(1, initializer=begin) as executor:
        first, second = run_parallel(
            left, [signal.ITIMER_PROF, signal.ITIMER_VIRTUAL], executor=executor
        ).values()
    assert 0 < second[0] <= first[0] <= 1000
    assert first[1] > 0
    assert second[1] == 0


@pytest.mark.parametrize("executor", WIDE)
def test_errors_leave_the_full_width(executor, tmp_path):
    """After failures in every worker, as many tasks run at the same time as before."""
    width, path = WIDE[executor], str(tmp_path / "here")
    tasks = [partial(far.fail, ValueError(number)) for number in range(3 * width)]
    tasks += [partial(acts.meet, number, path, width) for number in range(width)]
    results = run_parallel(tasks, executor=executor, max_workers=width, timeout=20)

    assert list(range(width)) == results.values(default=None)[-width:]


def test_deaths_leave_the_full_width(tmp_path):
    """Dead workers are replaced: two tasks that can only end together do end."""
    path = str(tmp_path / "here")
    tasks = [partial(far.leave, 3) for _ in range(6)]
    tasks += [partial(acts.meet, number, path, 2) for number in range(2)]
    results = run_parallel(tasks, executor="processes", max_workers=2, timeout=20)

    assert [0, 1] == results.values(default=None)[-2:]


def test_kills_leave_the_full_width(tmp_path):
    """Workers killed for a timeout are replaced: two tasks that can only end together do end."""
    path, noted = str(tmp_path / "here"), str(tmp_path / "noted")
    tasks = [Task(acts.note_and_hang, number, noted, timeout=0.1) for number in range(4)]
    tasks += [Task(acts.meet, number, path, 2, timeout=30) for number in range(2)]
    results = run_parallel(tasks, executor="processes", max_workers=2)

    assert [*range(4)] == [*results.failures]
    assert [0, 1] == results.values(default=None)[-2:]


@pytest.mark.abandons(4)
def test_abandoned_threads_leave_the_full_width():
    """Even if every thread is abandoned, four tasks that can only end together do end."""
    barrier, never = threading.Barrier(4), threading.Event()

    tasks = [Task(never.wait, timeout=0.1) for _ in range(4)]
    tasks += [Task(lambda: barrier.wait(20) >= 0, timeout=30) for _ in range(8)]
    results = run_parallel(tasks, max_workers=4)
    never.set()

    assert [0, 1, 2, 3] == [*results.failures]
    assert [True] * 8 == [*results.successes.values()]


def test_crash_in_a_thread_ends_the_program():
    """A crash in a thread ends the program, because threads share memory: only processes survive the crash of a task."""
    finished = run_script(
        "import ctypes\nfrom parallelkit import run_parallel\nrun_parallel(ctypes.string_at, [0])\n"
    )
    assert -signal.SIGSEGV == finished.code


BADNESS = Path("/proc/self/oom_score_adj")


def badness():
    """What the kernel adds to the score of this process when memory runs out, and to that of a child."""
    return int(BADNESS.read_text()), int(subprocess.check_output(["cat", BADNESS]))


@pytest.mark.parametrize("workers", [1, *rarely(6)])
def test_the_kernel_prefers_workers_when_memory_runs_out(workers):
    """Workers and what tasks start count as if they used half of the memory more, so that the program is not ended for a task."""
    worse = min(1000, int(BADNESS.read_text()) + 500)
    results = run_parallel([badness] * workers, executor="processes", max_workers=workers)
    assert [(worse, worse)] * workers == results.values()


@pytest.fixture
def memory_group():
    """A control group of processes that may use 256 MB together."""
    for root, limits in [
        ("/sys/fs/cgroup/memory", ["memory.limit_in_bytes", "memory.memsw.limit_in_bytes"]),
        ("/sys/fs/cgroup", ["memory.max", "memory.swap.max"]),
    ]:
        group = Path(root, f"parallelkit-{os.getpid()}")
        try:
            group.mkdir()
        except OSError:
            continue
        try:
            if (group / limits[0]).exists():
                for name in limits:
                    if (group / name).exists():
                        (group / name).write_text("0" if "swap" in name else str(256 << 20))
                yield group
                return
        finally:
            assert soon(lambda group=group: removed(group), True)
    pytest.skip("no control group for memory can be made here")


def removed(group):
    """Whether the group could be removed, as soon as no process is in it any more."""
    try:
        group.rmdir()
    except OSError:
        return False
    return True


@pytest.mark.all  # needs the right to make a control group
def test_a_task_that_uses_up_the_memory_is_the_one_that_ends(memory_group):
    """Where memory runs out, the task that asks for too much ends, not the program, although this holds more than the task."""
    held, asked = 150 << 20, 120 << 20
    finished = run_script(
        f"""
import os
open({str(memory_group / "cgroup.procs")!r}, "w").write(str(os.getpid()))
from parallelkit import run_parallel
held = b"x" * {held}
results = run_parallel(lambda size: len(b"x" * size), [1, {asked}, 2], executor="processes", max_workers=2)
print(results.to_dict(default=None), results.failures[1].error)
"""
    )
    assert 0 == finished.code, finished
    assert "{0: 1, 1: None, 2: 2}" in finished.out
    assert "was ended by SIGKILL, which the kernel sends when memory runs out" in finished.out
