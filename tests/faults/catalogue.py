"""The fault catalogue: fault × executor × required outcome, as one table that ``test_catalogue.py`` runs."""

from __future__ import annotations

import signal
import sys
import threading

import broken
import catalogue_callers
import catalogue_coroutines
import deeds
import settings
from broken import Rebuilt, Reduces
from cases import (
    CASES,
    PROCESS_POOL,
    PROCESSES,
    THREAD_POOL,
    THREADS,
    died,
    error,
    fault,
    give,
    timed_out,
    value,
)

OWN = (THREADS, PROCESSES)
ALL = (*OWN, THREAD_POOL, PROCESS_POOL)
POOLS = (THREAD_POOL, PROCESS_POOL)
HANG = {"timeout": 0.5, "within": 4.0}
COVERED = {"core": True, "covered": True}
STREAMED = ("plain", "stream")
CALLERS = (
    "stream",
    "executor",
    "submit",
    "thread",
    "loop",
    "in_threads",
    "in_processes",
    "fork",
    "finalizer",
    "callback",
    "beside",
    "shutdown",
)


def raising() -> None:
    """The task's own error comes back, as complete as it can be pickled; in threads it is the same object."""
    fault("raises", deeds.raise_plainly, ALL, error(ValueError, "no"), core=True)
    fault("raises", deeds.raise_plainly, OWN, error(ValueError, "no"), callers=CALLERS)
    two = error("TwoArguments", "no (5)", code=5)
    fault("raises an error of two arguments", deeds.raise_two_arguments, OWN, two, core=True)
    fault(
        "raises an error that holds a lock", deeds.raise_with_lock, OWN, error("HoldsLock", "locked", code=7)
    )
    fault(
        "raises an error with a lock as argument",
        deeds.raise_lock_as_argument,
        OWN,
        error(ValueError, "locked"),
    )
    fault("raises with a cause", deeds.raise_with_cause, OWN, error(ValueError, "caused", cause="KeyError"))
    fault(
        "raises a circle of causes",
        deeds.raise_in_circle,
        OWN,
        error(ValueError, "first", cause="ValueError"),
    )
    fault("raises a group", deeds.raise_group, OWN, error(ExceptionGroup, "several"))
    exited = error("TaskExited", cause="BaseExceptionGroup")
    fault("raises a group of what is no Exception", deeds.raise_base_group, OWN, exited)
    for deed in (deeds.raise_no_reduce, deeds.raise_reduces_to_text, deeds.raise_reduces_to_garbage):
        name = f"raises what {deed.__name__.removeprefix('raise_').replace('_', ' ')}"
        kind = {"no_reduce": "NoReduce", "reduces_to_text": "ReducesToText"}
        own = kind.get(deed.__name__.removeprefix("raise_"), "ReducesToGarbage")
        fault(name, deed, THREADS, error(own, "sticks"))
        fault(name, deed, PROCESSES, error("RemoteError", "sticks"), error(own, "sticks"))
    broke = error("RemoteError", "BreaksOnArrival"), error("BreaksOnArrival", "sticks")
    fault("raises what breaks on arrival", deeds.raise_breaks_on_arrival, PROCESSES, *broke, core=True)
    for deed, cause in [
        (deeds.raise_system_exit, "SystemExit"),
        (deeds.raise_interrupt, "KeyboardInterrupt"),
        (deeds.raise_generator_exit, "GeneratorExit"),
        (deeds.raise_own_base, "OwnBase"),
        (deeds.raise_cancelled, "CancelledError"),
    ]:
        fault(
            f"raises {cause}", deed, OWN, error("TaskExited", cause, cause=cause), core=cause == "SystemExit"
        )
    fault("raises SystemExit", deeds.raise_system_exit, POOLS, error("TaskExited", cause="SystemExit"))
    fault("raises StopIteration", deeds.raise_stop_iteration, OWN, error(StopIteration, "from the task"))
    fault("raises an error without a text", deeds.raise_no_text, OWN, error("NoText", "<NoText>"))
    fault("raises an error without notes", deeds.raise_no_note, OWN, error("NoNote", "plain"))
    fault("raises an error without equality", deeds.raise_no_equality, OWN, error("NoEquality", "alone"))
    fault("raises an error that is loud at its end", deeds.raise_loud_end, OWN, error("LoudEnd", "leaves"))
    fault("raises an error of a local class", deeds.raise_local_class, OWN, error("Local", "by value"))
    fault(
        "raises an OSError",
        deeds.raise_os_error,
        OWN,
        error(FileNotFoundError, "No such file", filename="/nonexistent/file"),
    )
    fault("raises an error of 20 MB", deeds.raise_huge, OWN, error(ValueError, "20000014 characters"))
    fault("raises an error with a note", deeds.raise_noted, OWN, error(ValueError, "noted"))
    fault("raises TimeoutError", deeds.raise_timeout, OWN, error(TimeoutError, "the task's own"))
    fault("raises a warning", deeds.raise_warning, PROCESSES, error(UserWarning, "careful"))
    fault("recurses without end", deeds.recurse, OWN, error(RecursionError, "maximum recursion"))


def returning() -> None:
    """A value that can be pickled comes back; any other is replaced by an error that names its type."""
    fault("returns None", deeds.return_none, OWN, value("None"))
    fault("returns an exception", deeds.return_error, OWN, value("ValueError('a value like any other')"))
    fault("returns a huge int", deeds.return_huge_int, PROCESSES, value(str(1 << 70)))
    fault("returns a lambda", deeds.return_lambda, PROCESSES, value("<lambda>"))
    stuck = error(TypeError, "cannot be pickled")
    fault("returns a lock", deeds.return_lock, THREADS, value("lock"))
    fault("returns a lock", deeds.return_lock, PROCESSES, stuck, core=True)
    fault("returns a lock", deeds.return_lock, PROCESS_POOL, error(TypeError, "cannot pickle"))
    fault("returns a generator", deeds.return_generator, PROCESSES, stuck)
    fault("returns a coroutine", deeds.return_coroutine, OWN, error(TypeError, "async"))
    unpickled = error(TypeError, "cannot be unpickled", cause="RuntimeError")
    fault("returns what breaks on unpickling", deeds.return_breaking, PROCESSES, unpickled, core=True)
    fault(
        "returns what breaks on unpickling",
        deeds.return_breaking,
        PROCESS_POOL,
        error(TypeError, "broke", cause="RuntimeError"),
    )
    exits = error(TypeError, "cannot be unpickled", cause="SystemExit")
    fault("returns what exits on unpickling", deeds.return_exiting, PROCESSES, exits)
    fault("returns what breaks on pickling", deeds.return_no_reduce, PROCESSES, stuck)
    left = error("TaskExited", cause="SystemExit")
    fault("returns what raises SystemExit on pickling", deeds.return_exit_in_reduce, PROCESSES, left)
    fault("returns what leaves on pickling", deeds.return_leaving_in_reduce, PROCESSES, died(exitcode=6))
    fault("returns what is too deep", deeds.return_deep, PROCESSES, error("PicklingError", "recursion"))
    fault("returns 200 MB", deeds.return_large, PROCESSES, value("200000000 bytes"))
    fault("returns 600 MB", deeds.return_larger, PROCESSES, value("600000000 bytes"), within=20.0)
    fault("returns what has no methods", deeds.return_mute, OWN, value("<Mute>"))
    fault("returns what is loud at its end", deeds.return_loud, OWN, value("LoudValue"))
    fault("returns what lies about its class", deeds.return_liar, THREADS, value("Liar"))
    fault(
        "returns what lies about its class",
        deeds.return_liar,
        PROCESSES,
        error("PicklingError", "class"),
    )


def taking() -> None:
    """An item that breaks costs only the task that it belongs to."""
    stuck = error(TypeError, "the item of task 7 cannot be sent")
    fault("takes a lock", None, THREADS, value("[21"), item=lambda scene: threading.Lock())
    fault("takes a lock", None, PROCESSES, stuck, item=lambda scene: threading.Lock(), runs=(0,), core=True)
    fault(
        "takes what breaks on pickling",
        None,
        PROCESSES,
        stuck,
        item=lambda scene: Reduces(broken.raise_, RuntimeError("no")),
        runs=(0,),
    )
    fault(
        "takes what exits on pickling",
        None,
        PROCESSES,
        stuck,
        item=lambda scene: Reduces(broken.raise_, SystemExit(5)),
        runs=(0,),
    )
    fault(
        "takes what breaks on unpickling",
        None,
        PROCESSES,
        error(RuntimeError, "broke"),
        item=lambda scene: Rebuilt(broken.raise_, RuntimeError("broke")),
        runs=(0,),
        core=True,
    )
    fault(
        "takes what exits on unpickling",
        None,
        PROCESSES,
        error("TaskExited", cause="SystemExit"),
        item=lambda scene: Rebuilt(broken.raise_, SystemExit(5)),
        runs=(0,),
    )
    fault(
        "takes what leaves on unpickling",
        None,
        PROCESSES,
        died(exitcode=6),
        item=lambda scene: Rebuilt(broken.leave, 6),
        runs=(0,),
        **COVERED,
    )
    fault(
        "takes what hangs on unpickling",
        None,
        PROCESSES,
        timed_out(),
        item=lambda scene: Rebuilt(broken.hang),
        runs=(0,),
        **COVERED,
        **HANG,
    )
    fault(
        "takes what is too deep",
        None,
        PROCESSES,
        error("PicklingError", "the item of task 7 cannot be sent"),
        item=lambda scene: broken.nest(100_000),
        runs=(0,),
    )
    fault("takes 200 MB", None, PROCESSES, value("[21"), item=lambda scene: bytes(200_000_000))
    fault("takes what has no methods", None, OWN, value("[21"), item=lambda scene: broken.Mute())


def ending() -> None:
    """The death of a worker process is a WorkerDied with its exit code or signal."""
    fault("leaves with 0", deeds.leave_0, PROCESSES, died(exitcode=0))
    fault("leaves with 3", deeds.leave_3, PROCESSES, died(exitcode=3), core=True)
    fault("leaves with 3", deeds.leave_3, PROCESSES, died(exitcode=3), callers=CALLERS)
    fault("aborts", deeds.abort, PROCESSES, died(signal=signal.SIGABRT))
    fault("becomes another program", deeds.become_another, PROCESSES, died(exitcode=9))
    fault("kills itself", deeds.kill_self, PROCESSES, died(signal=signal.SIGKILL), **COVERED)
    fault("terminates itself", deeds.terminate_self, PROCESSES, died(signal=signal.SIGTERM))
    fault("kills its group", deeds.kill_group, PROCESSES, died(signal=signal.SIGKILL))
    fault("crashes", deeds.segfault, PROCESSES, died(signal=signal.SIGSEGV), core=True)
    overflown = died(signal=signal.SIGSEGV) if sys.version_info < (3, 14) else error(RecursionError)
    fault("overflows the stack", deeds.overflow_stack, PROCESSES, overflown)
    fault("is killed from outside", deeds.be_killed, PROCESSES, died(signal=signal.SIGKILL), core=True)
    fault("is killed, and has a child", deeds.be_killed_and_children, PROCESSES, died(signal=signal.SIGKILL))
    full = (
        error(MemoryError),
        died(signal=signal.SIGKILL),
        died(signal=signal.SIGSEGV),
        died(signal=signal.SIGABRT),
    )
    fault("exhausts its memory", deeds.exhaust_memory, PROCESSES, *full)
    fault("closes everything and leaves", deeds.close_own_channel_and_exit, PROCESSES, died(exitcode=8))


def hanging() -> None:
    """A hung worker process is killed, with its children; a hung thread is abandoned, and its stack reported."""
    stack = timed_out(stack=True)
    fault("sleeps", deeds.hang, PROCESSES, timed_out(), **COVERED, **HANG)
    fault("sleeps", deeds.hang, THREADS, stack, abandons=1, **COVERED, **HANG)
    fault("sleeps", deeds.hang, PROCESSES, timed_out(), callers=CALLERS, **HANG)
    fault("sleeps", deeds.hang, THREADS, timed_out(), callers=CALLERS, abandons=1, **HANG)
    fault("hangs in C with the lock", deeds.hang_in_c, PROCESSES, timed_out(), core=True, **HANG)
    fault("hangs in a loop", deeds.hang_in_loop, PROCESSES, timed_out(), **HANG)
    fault("waits for a lock", deeds.hang_on_lock, PROCESSES, timed_out(), **HANG)
    fault("waits for a lock", deeds.hang_on_lock, THREADS, stack, abandons=1, **HANG)
    fault("hangs with all signals blocked", deeds.hang_deaf, PROCESSES, timed_out(), **HANG)
    fault("stops itself", deeds.stop_self, PROCESSES, timed_out(), core=True, **HANG)
    fault("hangs with a child", deeds.hang_with_child, PROCESSES, timed_out(), **COVERED, **HANG)
    fault("hangs in pickling", deeds.hang_in_pickling, PROCESSES, timed_out(), **HANG)
    fault("hangs in finally", deeds.hang_in_finally, OWN, timed_out(), abandons=1, **HANG)


def misusing() -> None:
    """What a task does to its process is undone, or costs the worker, but never another task."""
    closed = value("'closed'"), died(exitcode=0), died(exitcode=1)
    fault("closes all descriptors", deeds.close_descriptors, PROCESSES, *closed, core=True)
    fault("closes the streams", deeds.close_streams, PROCESSES, value("'closed'"))
    fault("replaces the streams", deeds.replace_streams, PROCESSES, value("'replaced'"))
    fault("floods stdout", deeds.flood_stdout, PROCESSES, value("'flooded'"), core=True)
    fault("changes the directory", deeds.change_directory, PROCESSES, value("'gone'"), **COVERED)
    changed = value("'changed'")
    fault("changes the environment", deeds.change_environment, PROCESSES, changed, core=True)
    fault("changes the signal handlers", deeds.change_handlers, PROCESSES, changed)
    fault("changes sys.path", deeds.change_path, PROCESSES, changed)
    fault("changes sys.modules", deeds.change_modules, PROCESSES, changed)
    fault("changes limits", deeds.change_limits, PROCESSES, changed)
    fault("leaves its session", deeds.change_session, PROCESSES, changed)
    fault("leaves a forked child behind", deeds.fork_and_leave_child, PROCESSES, value("'forked'"), core=True)
    fault("forks and dies", deeds.fork_and_die, PROCESSES, died(exitcode=3))
    came_back = value("'the parent came back'")
    fault("forks, and both return", deeds.fork_and_return, PROCESSES, came_back, **COVERED)
    fault("forks, and the child raises", deeds.fork_and_raise, PROCESSES, came_back)
    fault("starts a thread that stays", deeds.start_thread, PROCESSES, value("'started'"), **COVERED)
    fault("starts a daemon that stays", deeds.start_daemon_thread, PROCESSES, value("'started'"))
    fault("starts a program that stays", deeds.start_subprocess, PROCESSES, value("'started'"))
    fault("opens a standard pool", deeds.start_standard_pool, PROCESSES, value("6"))
    fault(
        "registers an exit handler that hangs",
        deeds.exit_handler_that_hangs,
        PROCESSES,
        value("'registered'"),
    )
    fault("moves to another group", deeds.move_to_group_and_hang, PROCESSES, timed_out(), **HANG)
    fault("has a thread that raises", deeds.raise_in_thread, PROCESSES, value("'joined'"))
    fault("makes garbage that raises", deeds.collect_garbage_that_raises, PROCESSES, value("'collected'"))
    fault("logs what cannot be pickled", deeds.log_unpicklable, PROCESSES, value("'logged'"))


def calling_back() -> None:
    """What the caller passed besides the function fails: every task that was read still has its outcome."""
    fault(
        "input that raises", None, ALL, options=give(settings.raising_input), raises="InputError", core=True
    )
    fault(
        "input that raises",
        None,
        OWN,
        options=give(settings.raising_input),
        raises="InputError",
        callers=("stream",),
    )
    fault(
        "input that lies about its length",
        None,
        OWN,
        options=give(settings.LongerThanItSays),
        callers=STREAMED,
    )
    fault(
        "input that says it is longer", None, OWN, options=give(settings.ShorterThanItSays), callers=STREAMED
    )
    fault(
        "input that runs in parallel itself", None, OWN, options=give(settings.nested_input), callers=STREAMED
    )
    fault("keys without a text", deeds.raise_plainly, OWN, error(ValueError, "no"), options=settings.odd_keys)
    fault("then that raises", None, OWN, options=settings.raising_then, raises="InputError", callers=STREAMED)
    fault("then that gives no tasks", None, OWN, options=settings.then_without_tasks, raises="InputError")
    fault("progress that raises", None, OWN, options=settings.raising_bar, callers=STREAMED)
    fault("log handler that raises", deeds.log, PROCESSES, value("'logged'"), options=settings.raising_log)


for section in (
    raising,
    returning,
    taking,
    ending,
    hanging,
    misusing,
    calling_back,
    catalogue_callers.fill,
    catalogue_coroutines.fill,
):
    section()

__all__ = ["CASES"]
