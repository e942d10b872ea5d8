"""The executors under CPython's own tests of ``concurrent.futures`` (3.11's, fetched by ``make test-all``).

Nothing of CPython is copied here: its test classes are imported and given our executors.
"""

import importlib
import sys
from pathlib import Path

import pytest

from parallelkit import ProcessExecutor, ThreadExecutor

FETCHED = Path(__file__).parents[2] / ".cache" / "cpython-3.11"


def load():
    """CPython's module, under a name by which workers find it too; or this one's collection ends as skipped."""
    if sys.version_info[:2] != (3, 11):
        pytest.skip("these are the tests of Python 3.11", allow_module_level=True)
    if not (FETCHED / "test_concurrent_futures.py").exists():
        pytest.skip("not fetched: `make test-all` needs Debian's apt-get for that", allow_module_level=True)
    pytest.importorskip("test.support", reason="this Python was installed without its test.support")
    sys.path.append(str(FETCHED))
    return importlib.import_module("test_concurrent_futures")


cpython = load()
pytestmark = pytest.mark.all

PRIVATE = "looks into private attributes of the standard executor"
NOT_INHERITED = "hands a semaphore over, which multiprocessing allows only to children of its own making"
OURS_IS_KINDER = "the standard pool breaks when a task cannot be unpickled; ours fails that task and goes on"

LEFT_OUT = {
    "ThreadExecutorTest": {
        "test_idle_thread_reuse": PRIVATE,
        "test_saturation": PRIVATE,
    },
    "ThreadShutdownTest": {
        "test_context_manager_shutdown": PRIVATE,
        "test_del_shutdown": PRIVATE,
        "test_shutdown_no_wait": PRIVATE,
        "test_thread_names_assigned": PRIVATE,
        "test_thread_names_default": PRIVATE,
        "test_threads_terminate": PRIVATE,
    },
    "ThreadFailingInitializerTest": {"test_initializer": PRIVATE},
    "ProcessExecutorTest": {
        "test_idle_process_reuse_multiple": PRIVATE,
        "test_idle_process_reuse_one": PRIVATE,
        "test_killed_child": PRIVATE,
        "test_max_tasks_per_child": PRIVATE,
        "test_max_tasks_per_child_defaults_to_spawn_context": PRIVATE,
        "test_max_workers_too_large": "for Windows only",
        "test_saturation": NOT_INHERITED,
        "test_traceback": PRIVATE,
    },
    "ProcessShutdownTest": {
        "test_context_manager_shutdown": PRIVATE,
        "test_del_shutdown": PRIVATE,
        "test_processes_terminate": NOT_INHERITED,
        "test_shutdown_no_wait": PRIVATE,
    },
    "ProcessDeadlockTest": {
        "test_error_at_task_unpickle": OURS_IS_KINDER,
        "test_error_during_result_unpickle_in_result_handler": OURS_IS_KINDER,
        "test_exit_at_task_unpickle": OURS_IS_KINDER,
        "test_exit_during_result_unpickle_in_result_handler": OURS_IS_KINDER,
        "test_shutdown_deadlock_pickle": PRIVATE,
    },
    "ProcessFailingInitializerTest": {"test_initializer": PRIVATE},
}


class Threads(cpython.ExecutorMixin):
    executor_type = ThreadExecutor


class Processes(cpython.ExecutorMixin):
    executor_type = ProcessExecutor
    ctx = "spawn"  # accepted and not used; by it the tests know that workers start when they are needed


FROM_STANDARD_TO_OURS = {
    "from concurrent.futures import Thread": "from parallelkit import Thread",
    "from concurrent.futures import Process": "from parallelkit import Process",
    "ThreadPoolExecutor": "ThreadExecutor",
    "test.test_concurrent_futures": "test_concurrent_futures",
}


def assert_python_ok(flag, code):
    """Runs a script of CPython's tests with our executors in the place of the standard ones."""
    for standard, ours in FROM_STANDARD_TO_OURS.items():
        code = code.replace(standard, ours)
    find = f"import multiprocessing, sys; sys.path.append({str(FETCHED)!r})\n"
    return run_python(flag, find + code)


run_python = cpython.assert_python_ok
cpython.assert_python_ok = assert_python_ok


def make(name, *classes):
    """A test case of CPython's, run on ours, without what is left out of it."""
    left_out = LEFT_OUT.get(name, {})
    assert all(any(hasattr(each, test) for each in classes) for test in left_out), "no such test"
    return type(name, (*classes, cpython.BaseTestCase), {"__module__": __name__, **dict.fromkeys(left_out)})


ThreadWaitTest = make("ThreadWaitTest", Threads, cpython.ThreadPoolWaitTests)
ThreadAsCompletedTest = make("ThreadAsCompletedTest", Threads, cpython.AsCompletedTests)
ThreadExecutorTest = make("ThreadExecutorTest", Threads, cpython.ThreadPoolExecutorTest)
ThreadShutdownTest = make("ThreadShutdownTest", Threads, cpython.ThreadPoolShutdownTest)
ThreadInitializerTest = make("ThreadInitializerTest", Threads, cpython.InitializerMixin)
ThreadFailingInitializerTest = make("ThreadFailingInitializerTest", Threads, cpython.FailingInitializerMixin)

ProcessWaitTest = make("ProcessWaitTest", Processes, cpython.WaitTests)
ProcessAsCompletedTest = make("ProcessAsCompletedTest", Processes, cpython.AsCompletedTests)
ProcessExecutorTest = make("ProcessExecutorTest", Processes, cpython.ProcessPoolExecutorTest)
ProcessShutdownTest = make("ProcessShutdownTest", Processes, cpython.ProcessPoolShutdownTest)
ProcessDeadlockTest = make("ProcessDeadlockTest", Processes, cpython.ExecutorDeadlockTest)
ProcessInitializerTest = make("ProcessInitializerTest", Processes, cpython.InitializerMixin)
ProcessFailingInitializerTest = make(
    "ProcessFailingInitializerTest", Processes, cpython.FailingInitializerMixin
)
