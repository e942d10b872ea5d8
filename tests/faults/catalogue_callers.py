"""The caller's part of the catalogue: faulty options and executors, killed workers, and signals at every stage."""

from __future__ import annotations

import signal
from typing import Any

import broken
import deeds
import settings
from cases import (
    COROUTINES,
    PROCESS_POOL,
    PROCESSES,
    THREAD_POOL,
    THREADS,
    died,
    error,
    fault,
    timed_out,
    value,
)

from parallelkit import ProcessExecutor, ThreadExecutor

HANG: dict[str, Any] = {"timeout": 0.5, "within": 5.0}
OWN = (THREADS, PROCESSES)
POOLS = (THREAD_POOL, PROCESS_POOL)
EACH = (THREADS, PROCESSES, COROUTINES)


def fill() -> None:
    """Add the cases of this module to the table."""
    killing()
    initializing()
    giving()
    lending()
    blocking()
    signalling()


def killing() -> None:
    """Workers are killed from outside: idle or busy ones, one or all at once."""
    killed = died(signal=signal.SIGKILL)
    fault("all workers are killed", deeds.kill_all, PROCESSES, killed, also=("WorkerDied",), most=1)
    fault(
        "idle workers are killed",
        deeds.raise_plainly,
        PROCESSES,
        error(ValueError),
        engine=lambda _: settings.Weakened(2),
    )
    fault(
        "an idle worker is killed",
        deeds.raise_plainly,
        PROCESSES,
        error(ValueError),
        engine=lambda _: settings.Thinned(2),
    )


def initializing() -> None:
    """An initializer that fails breaks its executor: the run reports that, and no task runs."""
    none = {"also": ("TaskCancelled",), "runs": (0,)}
    cancelled = error("TaskCancelled", "the run was stopped")
    for kind, where, initializers in [
        (ThreadExecutor, THREADS, [settings.raise_at_first]),
        (ProcessExecutor, PROCESSES, [settings.raise_at_first, settings.leave_at_first]),
    ]:
        for initializer in initializers:
            name = f"initializer: {initializer.__name__.replace('_', ' ')}"
            engine = settings.with_initializer(kind, initializer)
            fault(name, deeds.raise_plainly, where, cancelled, engine=engine, **none)

    hanging = settings.hanging_initializer
    fault("initializer: hang at first", deeds.raise_plainly, PROCESSES, cancelled, engine=hanging, **none)


def giving() -> None:
    """Keys, limits, priority or input fail: what was read has its outcome. A failing listener is switched off."""
    fault("key that raises", None, OWN, options=settings.raising_key, raises="InputError", partly=True)
    for kind in (broken.UnhashableKey, broken.UnequalKey):
        name = f"keys: {kind.__name__}"
        fault(name, None, OWN, options=settings.key_without(kind), raises="RuntimeError", partly=True)
    fault(
        "limit whose group raises",
        None,
        OWN,
        options=settings.raising_group,
        raises="InputError",
        partly=True,
    )
    fault(
        "priority that raises",
        None,
        OWN,
        options=settings.raising_priority,
        raises="InputError",
        partly=True,
    )
    fault("on_event that raises", None, OWN, options=settings.raising_events)
    fault(
        "input that refuses to close",
        deeds.raise_plainly,
        OWN,
        error(ValueError, "no"),
        options=settings.stubborn_input,
        raises="InputError",
        also=("TaskCancelled",),
        partly=True,
    )
    fault(
        "input without end",
        deeds.raise_plainly,
        OWN,
        error(ValueError, "no"),
        options=settings.endless_input,
        also=("TaskCancelled",),
        partly=True,
    )


def lending() -> None:
    """On a foreign pool, whatever can be promised is kept; what cannot be is reported truthfully."""
    fault(
        "raises an error of two arguments",
        deeds.raise_two_arguments,
        THREAD_POOL,
        error("TwoArguments", code=5),
    )
    fault("raises with a cause", deeds.raise_with_cause, THREAD_POOL, error(ValueError, cause="KeyError"))
    fault("raises a group", deeds.raise_group, THREAD_POOL, error(ExceptionGroup, "several"))
    fault(
        "raises KeyboardInterrupt",
        deeds.raise_interrupt,
        THREAD_POOL,
        error("TaskExited", cause="KeyboardInterrupt"),
    )
    fault("raises TimeoutError", deeds.raise_timeout, POOLS, error(TimeoutError, "the task's own"))
    fault("raises an error without equality", deeds.raise_no_equality, THREAD_POOL, error("NoEquality"))
    fault("recurses without end", deeds.recurse, POOLS, error(RecursionError))
    fault("returns None", deeds.return_none, POOLS, value("None"))
    fault("returns an exception", deeds.return_error, POOLS, value("ValueError('a value like any other')"))
    fault("returns a coroutine", deeds.return_coroutine, THREAD_POOL, error(TypeError, "async"))
    fault("returns what has no methods", deeds.return_mute, THREAD_POOL, value("<Mute>"))
    fault("sleeps past its timeout", deeds.sleep_for_a_while, POOLS, timed_out(), **HANG)
    gone: dict[str, Any] = {"also": ("WorkerDied", "TaskCancelled")}
    fault("breaks its pool", deeds.leave_3, PROCESS_POOL, error("WorkerDied"), **gone)
    fault("on_event that raises", None, POOLS, options=settings.raising_events)
    fault("then that raises", None, POOLS, options=settings.raising_then, raises="InputError")
    fault("key that raises", None, POOLS, options=settings.raising_key, raises="InputError", partly=True)


def blocking() -> None:
    """The caller's own code blocks: a task past its timeout is still killed or abandoned."""
    for name in ("input", "then", "events"):
        options = getattr(settings, f"blocking_{name}")
        fault(f"hangs while the {name} blocks", deeds.hang, PROCESSES, timed_out(), options=options, **HANG)
        fault(
            f"hangs while the {name} blocks",
            deeds.hang,
            THREADS,
            timed_out(),
            options=options,
            abandons=1,
            **HANG,
        )


STAGES: dict[str, tuple[str, tuple[str, ...]]] = {
    "input": ("here_in_input", EACH),
    "key": ("here_in_key", OWN),
    "then": ("here_in_then", EACH),
    "events": ("here_in_events", OWN),
    "rate limit": ("here_at_a_rate", OWN),
}


def signalling() -> None:
    """Ctrl-C returns what was done; other signals end the program and everything that it has started."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGKILL):
        caught = number == signal.SIGINT
        struck: dict[str, Any] = {"number": number, "also": ("TaskCancelled",), "partly": True}
        struck["raises"] = ("RunInterrupted", "KeyboardInterrupt") if caught else None
        for stage, (options, where) in STAGES.items():
            name = f"{number.name} in {stage}"
            fault(name, None, where, options=getattr(settings, options), **struck)
        failing, delayed = deeds.raise_plainly, error("TaskCancelled", cause="ValueError")
        fault(f"{number.name} in backoff", failing, OWN, delayed, options=settings.here_in_backoff, **struck)
        wants = error("TaskCancelled")
        fault(f"{number.name} while a task runs", deeds.here_and_hang, PROCESSES, wants, **struck)
        fault(f"{number.name} while a task runs", deeds.here_and_hang, THREADS, wants, abandons=1, **struck)
        fault(f"{number.name} while a task runs", deeds.here_and_sleep, COROUTINES, wants, **struck)
        fault(f"{number.name} while a task is deaf", deeds.here_deaf, PROCESSES, wants, **struck)
        item = settings.here_in_pickling
        fault(f"{number.name} in pickling", None, PROCESSES, wants, item=item, runs=(0, 1), **struck)
        fault(f"{number.name} in unpickling", deeds.return_here, PROCESSES, error(TypeError), wants, **struck)
