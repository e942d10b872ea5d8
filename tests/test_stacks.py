"""Stacks of threads that run, as a Failure and a warning have them."""

import subprocess
import sys
import threading

import pytest

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
