"""Setup for every test. Also: leaks.py fails a test that leaves something behind, and setup.cfg ends a run that hangs."""

import os
import resource
import sys
import threading
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import HealthCheck, settings
from interrupts import let_interrupts_in
from patience import PATIENCE
from remote_tasks import meet

from parallelkit import ProcessExecutor

let_interrupts_in()

# On a busy machine, how long an example takes says nothing, and a pause of 0.2 s must not fail a test.
settings.register_profile(
    "busy", parent=settings(), deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("busy")

pytest_plugins = ["pytester", "leaks"]

# A file of typed usage, read by type checkers and never run.
collect_ignore = ["typing"]


@pytest.fixture
def script(request):
    """The names of a program's main module, whose text is ``SCRIPT`` in the test's."""
    scope = {"__name__": "__main__"}
    exec(request.module.SCRIPT, scope)
    return scope


@pytest.fixture
def executor():
    """One worker, for all runs and calls of the test."""
    with ProcessExecutor(1) as executor:
        yield executor


@pytest.fixture(scope="module")
def running():
    """One worker process, which runs already, for all tests of a file that need no new one."""
    with ProcessExecutor(1) as executor:
        executor.submit(abs, -1).result()
        yield executor


@pytest.fixture(scope="module")
def both_running(tmp_path_factory):
    """The same with two worker processes."""
    folder = str(tmp_path_factory.mktemp("both"))
    with ProcessExecutor(2) as executor:
        list(executor.map(meet, [folder] * 2, [2] * 2))
        yield executor


@pytest.fixture(params=["threads", "inline", "processes"])
def anywhere(request, running):
    """An executor of each kind, for tests of what is the same on all and has nothing to do with how they start."""
    return running if request.param == "processes" else request.param


@pytest.fixture
def gate():
    """A function for tasks that returns its item once the test opens it, or ends."""
    gate = Gate()
    yield gate
    gate.opened.set()


class Gate:
    """Lets tasks through when it is opened, and counts those that have come."""

    def __init__(self):
        self.opened = threading.Event()
        self.begun = threading.Semaphore(0)

    def __call__(self, item):
        self.begun.release()
        assert self.opened.wait(PATIENCE)
        return item


@pytest.fixture
def in_memory(tmp_path):
    """A folder in memory, where there is such: a journal in it is not kept waiting by a disk that others use."""
    if not os.access("/dev/shm", os.W_OK):
        yield tmp_path
        return
    # Another test run knows by our pid that it is not to blame for it (tests/leaks.py).
    with TemporaryDirectory(dir="/dev/shm", prefix=f"parallelkit_{os.getpid()}_") as folder:
        yield Path(folder)


@pytest.fixture
def restless():
    """Make threads switch a thousand times as often as usual."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(5e-6)
    yield
    sys.setswitchinterval(before)


@pytest.fixture
def full_table():
    """A context manager within which this process cannot open another file."""
    return _filled_table()


@contextmanager
def _filled_table():
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    highest = max(int(name) for name in os.listdir("/proc/self/fd"))
    held = []
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (highest + 8, hard))
        while True:
            try:
                held.append(os.dup(0))
            except OSError:
                break
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        for fd in held:
            os.close(fd)
