"""Stacks of running threads, as failures and warnings show them."""

import _thread
import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time

import hanging_tasks as hanging
import pytest
from patience import given_time

from parallelkit import (
    ProcessExecutor,
    RunInterrupted,
    Task,
    TaskCancelled,
    TaskTimeout,
    WorkerDied,
    iter_parallel,
    run_parallel,
)
from parallelkit._executors._process import _stacks
from parallelkit._executors._process._crash_stack import as_stack
from parallelkit._executors._process._handle import Worker
from parallelkit._executors._thread._port import ThreadPort
from parallelkit._executors._thread._stacks import await_stack, stack_of
from parallelkit._journal._file import Journal
from parallelkit._lost import SHOWN, note_where
from parallelkit._worker._channel import STACK_SIGNAL


def test_a_stack_is_that_of_the_thread():
    """A stack has the innermost frame last, as a traceback does."""
    here, done = threading.Event(), threading.Event()

    def where_it_stands():
        here.set()
        done.wait(30)

    thread = threading.Thread(target=where_it_stands)
    thread.start()
    here.wait(30)
    try:
        lines = stack_of(thread).splitlines()
    finally:
        done.set()
        thread.join()
    assert "_bootstrap" in lines[0]
    assert any("where_it_stands" in line for line in lines[-6:])
    assert "" == stack_of(thread), "a thread that has ended stands nowhere"


WALKS = """
import gc, sys, threading, time
from parallelkit._executors._thread._stacks import stack_of

class Garbage:
    def __init__(self):
        self.me = self

    def __del__(self):
        time.sleep(0.004)  # the thread goes on meanwhile, and ends

def deep(levels):
    return deep(levels - 1) if levels else time.sleep(0.002)

for turn in range(300):
    thread = threading.Thread(target=deep, args=(30,))
    thread.start()
    time.sleep(0.001)
    Garbage()
    gc.set_threshold(gc.get_count()[0] + 2 + turn % 60)  # the collector is due in the middle of the walk
    stack_of(thread)
    gc.set_threshold(100_000)
    thread.join()
"""


@pytest.mark.all
def test_no_garbage_collection_comes_in_between():
    """No garbage is collected while a stack is walked: Python 3.11 would crash, should the thread end meanwhile."""
    walks = subprocess.run(
        [sys.executable, "-X", "faulthandler", "-c", WALKS], capture_output=True, text=True, check=False
    )
    assert (0, "") == (walks.returncode, walks.stderr)


WRITTEN_DOWN = f"""\
Fatal Python error: Segmentation fault

Current thread 0x00007f1 (most recent call first):
  File "{__file__}", line 1 in solve
  File "/home/me/no such file.py", line 30 in main
  File "/usr/lib/parallelkit/_worker/_serve.py", line 200 in _run

Extension modules: numpy (total: 1)
"""


def test_what_a_worker_writes_down_reads_like_a_traceback():
    """A worker's stack begins with what happened, followed by the task's frames, innermost last, with source lines if available."""
    assert as_stack(WRITTEN_DOWN).splitlines() == [
        "Fatal Python error: Segmentation fault",
        '  File "/home/me/no such file.py", line 30, in main',
        f'  File "{__file__}", line 1, in solve',
        f'    """{__doc__}"""',
    ]


@pytest.mark.parametrize("words", ["", "Stack (most recent call first):\n", "Fatal Python error: Aborted\n"])
def test_where_no_frame_is_told_there_is_no_stack(words):
    """A worker that had no time to write its stack, or ran no frame of the task, has none."""
    assert as_stack(words) is None


def test_the_error_tells_where_the_attempt_stood():
    """A note on the error shows the line that hangs, or the innermost part of a long stack."""
    error = note_where(ValueError(), "".join(f"line {number}\n" for number in range(100)))
    [note] = error.__notes__
    assert note.splitlines() == [
        "it stood at",
        "  …",
        *(f"line {number}" for number in range(100 - SHOWN, 100)),
    ]
    assert not hasattr(note_where(ValueError(), None), "__notes__")


@pytest.mark.parametrize("executor", [pytest.param("threads", marks=pytest.mark.abandons(1)), "processes"])
def test_a_stack_reads_the_same_from_a_thread_and_from_a_process(executor):
    """Stacks from threads and processes look the same: outermost first, with source lines, in the failure and in its error."""
    hanging.RELEASED.clear()
    for _ in range(20):  # a process that gets no turn on a busy machine writes nothing
        results = run_parallel(hanging.outer, [0], executor=executor, timeout=0.2)
        if "in hang" in (results.failures[0].stack or ""):
            break
    hanging.RELEASED.set()
    stack = results.failures[0].stack
    assert stack.index("in outer\n    hang()\n") < stack.index("in hang\n    RELEASED.wait(60)")
    with pytest.raises(TaskTimeout) as raised:
        results[0]
    assert "    RELEASED.wait(60)" in "\n".join(raised.value.__notes__)


@pytest.mark.all
def test_a_program_that_blocks_all_signals():
    """Workers inherit the mask of a program that receives its signals by ``sigwait``; they tell where they stood all the same."""
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    try:
        for _ in range(20):  # as above
            results = run_parallel([hanging.hang, hanging.crash], executor="processes", timeout=0.2)
            stacks = results.failures[0].stack or "", results.failures[1].stack
            if "in hang" in stacks[0]:
                break
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    assert "in hang" in stacks[0]
    assert "in crash" in stacks[1]


@pytest.mark.abandons(3)
@pytest.mark.parametrize(
    "form", [{}, {"args": (0,)}, {"kwargs": {"more": 0}}, {"star": True}, {"tasks": True}], ids=repr
)
@given_time
def test_the_stack_of_a_thread_begins_with_the_task(form, scale):
    """In every form of call, a thread's stack contains only the task's frames."""
    released = threading.Event()
    options = {"timeout": 0.1 * scale, **form}
    if options.pop("tasks", False):
        results = run_parallel([Task(wait_for, released)], **options)
    else:
        results = run_parallel(wait_for, [(released,) if "star" in form else released], **options)
    released.set()
    first, _, _ = (results.failures[0].stack or "").partition("\n")
    assert first.endswith("in wait_for")


def wait_for(event, *rest, **more):
    event.wait(60)


class Awaitable:
    """Something that a proxy may stand for: only what it is asked for tells that it is no coroutine."""

    def __await__(self):
        return self

    def __next__(self):
        return None

    def __getattr__(self, name):
        raise AttributeError if name in ("close", "throw") else OSError("the other side is gone")


def test_the_stack_of_a_coroutine_ends_at_a_foreign_awaitable():
    """A stack shows the frames of coroutines, and asks nothing of other things that they await."""

    async def waits():
        await Awaitable()

    async def outer():
        await waits()

    coroutine = outer()
    coroutine.send(None)
    stack = await_stack(coroutine)
    assert stack.index("await waits()\n") < stack.index("await Awaitable()\n")
    coroutine.close()


# Where a stop finds an attempt


@pytest.mark.parametrize(
    ("executor", "fn"),
    [
        pytest.param("threads", hanging.wait_in, marks=pytest.mark.abandons(10)),
        ("processes", hanging.wait_in),
        ("threads", hanging.sleep_in),
    ],
    ids=["threads", "processes", "coroutines"],
)
def test_what_a_stop_cuts_off_tells_where_it_stood(executor, fn, monkeypatch):
    """Tasks that ``run_timeout`` cuts off have stacks; those that never began have none."""
    monkeypatch.setattr(_stacks, "STACK_PATIENCE", 10.0)  # a busy machine may not run the worker for a while
    hanging.RELEASED.clear()
    for seconds in (0.15, 0.3, 0.6, 1.2, 2.4, 4.8, 9.6, 19.2):  # until both have begun by then
        results = run_parallel(fn, range(3), executor=executor, max_workers=2, run_timeout=seconds)
        if all(f"in {fn.__name__}\n" in (results.failures[index].stack or "") for index in range(2)):
            break
    hanging.RELEASED.set()
    stacks = [failure.stack for failure in results.failures.values()]
    assert all(f"in {fn.__name__}\n" in stack for stack in stacks[:2])
    assert stacks[2] is None
    with pytest.raises(TaskCancelled) as raised:
        results[0]
    assert f"in {fn.__name__}" in "\n".join(raised.value.__notes__)


def press_and_wait(item):
    _thread.interrupt_main()
    hanging.RELEASED.wait(60)


@pytest.mark.abandons(1)
def test_what_ctrl_c_cuts_off_in_a_stream_tells_where_it_stood():
    """After Ctrl-C in a stream, the unfinished tasks in the error's results have stacks, as after Ctrl-C in a run."""
    hanging.RELEASED.clear()
    with pytest.raises(RunInterrupted) as raised:
        [*iter_parallel(press_and_wait, [0])]
    hanging.RELEASED.set()
    assert "in press_and_wait\n" in raised.value.results.failures[0].stack


@pytest.mark.abandons(1)
def test_closing_a_stream_looks_at_no_stacks(monkeypatch):
    """Closing a stream collects no stacks: nobody gets the outcomes, and worker processes would need a moment to write them."""
    hanging.RELEASED.clear()
    looked = []
    monkeypatch.setattr(ThreadPort, "stacks", lambda port: looked.append(port) or {})
    stream = iter_parallel(lambda item: item or hanging.RELEASED.wait(60), [1, 0], max_workers=2)
    assert 1 == next(stream).value
    stream.close()
    hanging.RELEASED.set()
    assert [] == looked


@pytest.mark.abandons(1)
def test_what_a_full_disk_cuts_off_tells_where_it_stood(tmp_path, monkeypatch):
    """Tasks that are cut off because the checkpoint cannot be written have stacks."""

    def full(self, records):
        raise sqlite3.OperationalError("database or disk is full")

    def wait_for_the_other(item):
        (begun.wait if item == "first" else begun.set)()
        return item == "first" or hanging.RELEASED.wait(60)

    monkeypatch.setattr(Journal, "write", full)
    hanging.RELEASED.clear()
    begun = threading.Event()
    results = run_parallel(wait_for_the_other, ["first", "other"], key=str, checkpoint=tmp_path / "journal")
    hanging.RELEASED.set()
    assert "in wait_for_the_other\n" in results.failures["other"].stack


MANY = 10_000  # more than are run by the time that a busy machine has the run see a failure


def count_up(item):
    path, number = item
    with open(path, "a", encoding="utf-8") as file:
        file.write(f"{number}\n")
    if number == 0:
        time.sleep(60)
    if number % 50 == 49:  # one of them is not behind the one that takes long
        raise OSError(number)
    time.sleep(0.0004)


@pytest.mark.all
def test_nothing_begins_while_workers_are_asked(tmp_path):
    """While workers write their stacks, no further task begins."""
    path = tmp_path / "ran"
    results = run_parallel(
        count_up,
        [(str(path), number) for number in range(MANY)],
        executor="processes",
        max_workers=2,
        max_failures=1,
    )
    ran = {int(line) for line in path.read_text().splitlines()}
    begun = {outcome.index for outcome in results.outcomes.values() if outcome.attempts}
    assert ran == begun
    assert len(begun) < MANY


@pytest.mark.all
def test_workers_that_were_asked_are_not_used_again():
    """A worker that was asked for its stack runs no further task, so that no other run gets what it has written."""
    with ProcessExecutor(2) as pool:
        for _ in range(2):
            stopped = run_parallel(hanging.wait_in, range(2), executor=pool, run_timeout=0.5)
            assert [TaskCancelled] * 2 == [type(failure.error) for failure in stopped.failures.values()]
            late = run_parallel(time.sleep, [60, 60], executor=pool, timeout=0.1)
            assert all("wait_in" not in (failure.stack or "") for failure in late.failures.values())
            assert [1, 4] == run_parallel(pow, [(1, 2), (2, 2)], star=True, executor=pool).values()


def outlive_a_child(item):
    child = os.fork()
    if child == 0:
        os.abort()
    return os.WTERMSIG(os.waitpid(child, 0)[1])


@pytest.mark.all
def test_the_crash_of_a_tasks_child_is_not_the_workers():
    """The crash report of a child process of a task is not taken for that of a later attempt in that worker."""
    with ProcessExecutor(1) as pool:
        assert [signal.SIGABRT] == run_parallel(outlive_a_child, [0], executor=pool).values()
        late = run_parallel(time.sleep, [60], executor=pool, timeout=0.1)
    assert "outlive_a_child" not in (late.failures[0].stack or "")
    assert "Fatal" not in "".join(getattr(late.failures[0].error, "__notes__", ()))


@pytest.mark.parametrize("limit", ["timeout", "run_timeout"])
@given_time
@pytest.mark.all
def test_what_is_committed_before_a_worker_is_asked_counts(limit, monkeypatch, scale):
    """A result that was committed before the worker was asked for its stack counts, even if the supervisor has not seen it."""
    ask = Worker.ask_where

    def ask_late(worker, now):
        while worker.wire.head == worker.done:
            time.sleep(0.001)
        return ask(worker, now)

    with ProcessExecutor(1) as pool:
        assert [1] == run_parallel(abs, [-1], executor=pool).values(), "its worker is there"
        with monkeypatch.context() as patched:
            patched.setattr(Worker, "ask_where", ask_late)
            results = run_parallel(time.sleep, [0.6 * scale], executor=pool, **{limit: 0.3 * scale})
        assert [None] == results.values()


def exit_when_asked(item):
    signal.signal(STACK_SIGNAL, lambda *_: os._exit(3))
    time.sleep(60)


@pytest.mark.all
def test_a_worker_that_ends_as_it_is_asked_is_no_timeout_but_where_it_is():
    """A worker that dies while it writes its stack is a TaskTimeout only if its task was overdue, not if the run was stopped."""
    results = run_parallel(exit_when_asked, [0], executor="processes", run_timeout=0.5)
    assert isinstance(results.failures[0].error, (WorkerDied, TaskCancelled))
    results = run_parallel(exit_when_asked, [0], executor="processes", timeout=0.3)
    assert isinstance(results.failures[0].error, TaskTimeout)


def test_what_is_committed_after_a_worker_was_asked_does_not_count():
    """The signal that asks a worker for its stack may interrupt what the task hung in: what it then returns is no result."""
    results = run_parallel(hanging.return_when_asked, [0], executor="processes", timeout=0.2)
    assert isinstance(results.failures[0].error, TaskTimeout)
