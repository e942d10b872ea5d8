"""The part of the catalogue about coroutine functions, which share an event loop that any of them may damage."""

from __future__ import annotations

from typing import Any

import deeds
import settings
from cases import COROUTINES, error, fault, give, timed_out, value

HANG: dict[str, Any] = {"timeout": 0.5, "within": 4.0}


def fill() -> None:
    """Add the cases of this module to the table."""
    raising()
    returning()
    hanging()
    misusing()
    calling_back()


def raising() -> None:
    """The task's own error object comes back; a BaseException becomes a TaskExited, and the loop goes on."""
    no = error(ValueError, "no")
    fault("raises", deeds.raise_plainly, COROUTINES, no, core=True)
    fault(
        "raises",
        deeds.raise_plainly,
        COROUTINES,
        no,
        callers=("stream", "thread", "loop", "fork", "callback"),
    )
    fault("raises after a while", deeds.raise_later, COROUTINES, error(ValueError, "later"))
    fault("raises in a group of tasks", deeds.raise_in_group, COROUTINES, error(ExceptionGroup))
    fault(
        "raises an error of two arguments",
        deeds.raise_two_arguments,
        COROUTINES,
        error("TwoArguments", code=5),
    )
    fault("raises with a cause", deeds.raise_with_cause, COROUTINES, error(ValueError, cause="KeyError"))
    fault("raises an error without a text", deeds.raise_no_text, COROUTINES, error("NoText"))
    fault("raises an error without equality", deeds.raise_no_equality, COROUTINES, error("NoEquality"))
    fault("raises TimeoutError", deeds.raise_timeout, COROUTINES, error(TimeoutError, "the task's own"))
    fault("recurses without end", deeds.recurse, COROUTINES, error(RecursionError))
    for deed, cause in [
        (deeds.raise_system_exit, "SystemExit"),
        (deeds.raise_interrupt, "KeyboardInterrupt"),
        (deeds.raise_generator_exit, "GeneratorExit"),
        (deeds.raise_own_base, "OwnBase"),
        (deeds.raise_cancelled, "CancelledError"),
    ]:
        exited = error("TaskExited", cause, cause=cause)
        fault(f"raises {cause}", deed, COROUTINES, exited, core=cause == "SystemExit")
    fault(
        "raises SystemExit after a while",
        deeds.exit_later,
        COROUTINES,
        error("TaskExited", cause="SystemExit"),
    )


def returning() -> None:
    """Any value comes back, because it stays in the process; only a coroutine is an error."""
    fault("returns None", deeds.return_none, COROUTINES, value("None"))
    fault(
        "returns an exception", deeds.return_error, COROUTINES, value("ValueError('a value like any other')")
    )
    fault("returns a lock", deeds.return_lock, COROUTINES, value("lock"))
    fault("returns a coroutine", deeds.return_inner, COROUTINES, error(TypeError, "coroutine"))
    fault("returns what has no methods", deeds.return_mute, COROUTINES, value("<Mute>"))


def hanging() -> None:
    """A hung coroutine is cancelled; if it refuses, or if it blocks the loop, it is abandoned."""
    for deed in (deeds.sleep_long, deeds.await_nothing, deeds.deadlock):
        name = deed.__name__.replace("_", " ")
        core = deed is deeds.sleep_long
        fault(f"hangs: {name}", deed, COROUTINES, timed_out(), core=core, covered=core, **HANG)
    fault("hangs: sleep long", deeds.sleep_long, COROUTINES, timed_out(), callers=("stream", "loop"), **HANG)
    fault("fails in its clean-up", deeds.fail_in_clean_up, COROUTINES, timed_out(), **HANG)
    fault("swallows its cancellation", deeds.swallow_cancellation, COROUTINES, timed_out(stack=True), **HANG)
    blocks: dict[str, Any] = {
        "timeout": 0.5,
        "within": 8.0,
        "abandons": 2,
        "also": ("TaskTimeout",),
        "most": 3,
    }
    fault("blocks the loop", deeds.block_loop, COROUTINES, timed_out(), **blocks)


def misusing() -> None:
    """What a coroutine does to its loop costs at most itself and those that run on it at that time."""
    cancelled = error("TaskExited", cause="CancelledError")
    fault("cancels itself", deeds.cancel_itself, COROUTINES, cancelled, **HANG)
    fault("cancels all tasks", deeds.cancel_all, COROUTINES, cancelled, also=("TaskExited",), most=3, **HANG)
    fault(
        "stops the loop",
        deeds.stop_loop,
        COROUTINES,
        value("'stopped'"),
        timed_out(),
        also=("TaskTimeout",),
        most=3,
        **HANG,
    )
    fault("closes the loop", deeds.close_loop, COROUTINES, error(RuntimeError, "Cannot close a running"))
    fault("leaves tasks behind", deeds.leave_tasks, COROUTINES, value("'left'"), within=8.0)


def calling_back() -> None:
    """What the caller passed besides the function fails: every task that was read still has its outcome."""
    fault("input that raises", None, COROUTINES, options=give(settings.raising_input), raises="InputError")
    fault("then that raises", None, COROUTINES, options=settings.raising_then, raises="InputError")
    fault("on_event that raises", None, COROUTINES, options=settings.raising_events)
