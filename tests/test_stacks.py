"""Stacks of threads that run, as a Failure and a warning have them."""

import subprocess
import sys
import threading

import pytest

from parallelkit import TaskTimeout, run_parallel
from parallelkit._executors._contract import SHOWN, told_where
from parallelkit._executors._last_words import as_stack
from parallelkit._executors._stacks import stack_of


def test_a_stack_is_that_of_the_thread():
    """The innermost frame comes last, as in a traceback."""
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
from parallelkit._executors._stacks import stack_of

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


@pytest.mark.slow
def test_no_garbage_collection_comes_in_between():
    """Python 3.11 crashes where one does: the thread ends while its frames are followed."""
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
    """What happened first, then the task's frames, the innermost last, with the source where there is one."""
    assert as_stack(WRITTEN_DOWN).splitlines() == [
        "Fatal Python error: Segmentation fault",
        '  File "/home/me/no such file.py", line 30, in main',
        f'  File "{__file__}", line 1, in solve',
        '    """Stacks of threads that run, as a Failure and a warning have them."""',
    ]


@pytest.mark.parametrize("words", ["", "Stack (most recent call first):\n", "Fatal Python error: Aborted\n"])
def test_where_no_frame_is_told_there_is_no_stack(words):
    """A worker that had no time to write, or that ran none of the task."""
    assert as_stack(words) is None


def test_the_error_tells_where_the_attempt_stood():
    """A note, so that the line that hangs stands where the error is seen; of a long stack the innermost part."""
    error = told_where(ValueError(), "".join(f"line {number}\n" for number in range(100)))
    [note] = error.__notes__
    assert note.splitlines() == [
        "it stood at",
        "  …",
        *(f"line {number}" for number in range(100 - SHOWN, 100)),
    ]
    assert not hasattr(told_where(ValueError(), None), "__notes__")


RELEASE = threading.Event()


def hang():
    RELEASE.wait(60)


def outer(item):
    hang()


@pytest.mark.parametrize("executor", [pytest.param("threads", marks=pytest.mark.abandons(1)), "processes"])
def test_a_stack_reads_the_same_from_a_thread_and_from_a_process(executor):
    """Outermost first, with the lines of the source, in the failure and in what is raised."""
    for _ in range(20):  # a process that gets no turn on a busy machine writes nothing
        results = run_parallel(outer, [0], executor=executor, timeout=0.2)
        if results.failures[0].stack is not None or executor == "threads":
            break
    RELEASE.set()
    stack = results.failures[0].stack
    assert stack.index("in outer\n    hang()\n") < stack.index("in hang\n    RELEASE.wait(60)")
    with pytest.raises(TaskTimeout) as raised:
        results[0]
    assert "    RELEASE.wait(60)" in "\n".join(raised.value.__notes__)
