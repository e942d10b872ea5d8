"""Where gevent or eventlet has turned threads into greenlets: what can be done there is done, and the rest is refused at the door."""

import _thread
import errno
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

from parallelkit import ProcessExecutor, ThreadExecutor, iter_parallel, run_parallel
from parallelkit._executors import _gate


@pytest.fixture
def patch(monkeypatch):
    """Replaces the locks of threads, as the monkey patching of a library does."""

    def patch(module):
        def allocate_lock():
            return locks()

        locks = _thread.allocate_lock
        allocate_lock.__module__ = module
        monkeypatch.setattr(_thread, "allocate_lock", allocate_lock)
        return allocate_lock

    return patch


def use(executor):
    with executor as pool:
        return pool.submit(abs, -1).result()


@pytest.mark.parametrize(
    ("module", "library"), [("gevent.thread", "gevent"), ("eventlet.green.thread", "eventlet")]
)
def test_worker_processes_are_refused(patch, module, library):
    """No thread is left that could watch them: a greenlet that did would hold up all others."""
    executor = ProcessExecutor(1)
    patch(module)
    for call in (
        lambda: run_parallel(abs, [-1], executor="processes"),
        lambda: ProcessExecutor(1),
        lambda: run_parallel(abs, [-1], executor=executor),
    ):
        with pytest.raises(RuntimeError, match=f"^{library} has turned threads into greenlets"):
            call()
    executor.shutdown()


@pytest.mark.parametrize(
    "call",
    [
        lambda: run_parallel(abs, [-1]),
        lambda: list(iter_parallel(abs, [-1])),
        lambda: use(ThreadExecutor(1)),
    ],
)
def test_threads_are_refused_where_they_were_replaced_too_late(patch, call):
    """A lock from before would stop all greenlets, also the one that is to open it."""
    patch("gevent.thread")
    with pytest.raises(
        RuntimeError, match=r"^gevent has turned threads into greenlets after parallelkit was loaded"
    ):
        call()


def test_threads_that_were_replaced_in_time_are_used(patch, monkeypatch):
    """And so are those that somebody else has replaced, whenever."""
    monkeypatch.setattr(_gate, "allocate_lock", patch("gevent.thread"))
    assert [1] == run_parallel(abs, [-1]).values()
    patch("watched_locks")
    assert [1] == run_parallel(abs, [-1]).values()
    assert [1] == run_parallel(abs, [-1], executor="processes", max_workers=1).values()


@pytest.mark.parametrize(
    "call", [run_parallel, lambda *args, **options: next(iter_parallel(*args, **options))]
)
def test_gevents_own_pool_is_refused_among_real_threads(call):
    """The run would wait where gevent's loop, which tells of ended calls, should run."""

    class GeventsPool(ThreadPoolExecutor):
        pass

    GeventsPool.__module__ = "gevent.threadpool"
    with (
        GeventsPool(1) as pool,
        pytest.raises(RuntimeError, match=r"^executor must not be gevent's GeventsPool where"),
    ):
        call(abs, [-1], executor=pool)


@pytest.mark.parametrize("code", [errno.ENOSYS, errno.EPERM])
@pytest.mark.parametrize(
    "call",
    [lambda: run_parallel(abs, [-1], executor="processes"), lambda: ProcessExecutor(1).submit(abs, -1)],
    ids=["run", "executor"],
)
def test_a_kernel_that_is_too_old_for_its_python_is_refused(monkeypatch, code, call):
    """And so is a container that forbids what a newer one has; at the call, and not by results without a value."""

    def refuse(pid, flags=0):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "pidfd_open", refuse)
    with pytest.raises(
        NotImplementedError,
        match=rf"5\.4 or newer, and pidfd_open says '{os.strerror(code)}'; use executor='threads'",
    ):
        call()


def test_a_program_with_greenlets_ends_in_silence():
    """Locals of greenlets cannot be read when the interpreter goes, and collects garbage for the last time."""
    script = """
import sys, threading

class Local:
    def __getattribute__(self, name):
        if sys.is_finalizing():
            raise RuntimeError("greenlet is being finalized")
        return object.__getattribute__(self, name)

threading.local = Local
from parallelkit import ThreadExecutor
with ThreadExecutor(1) as pool:
    pool.submit(abs, -1).result()
"""
    ended = subprocess.run(
        [sys.executable, "-c", script], check=True, timeout=30, stderr=subprocess.PIPE, text=True
    )
    assert "" == ended.stderr
