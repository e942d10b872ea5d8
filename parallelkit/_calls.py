"""What the calls of the public functions have in common: their two forms, their options, a start ahead of the imports."""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import wraps
from importlib import import_module
from typing import Any, ParamSpec, TypeVar

T = TypeVar("T")
P = ParamSpec("P")


def of_two_forms(run: Callable[P, T]) -> Callable[P, T]:
    """Reject a wrong call with a message that shows a right one; Python's own would only count the arguments."""

    @wraps(run)
    def checked(*given: P.args, **options: P.kwargs) -> T:
        if len(given) > 2:
            raise TypeError(
                f"{run.__name__} takes a function and its items, or tasks alone, got {len(given)} positional arguments; "
                f"pass options by keyword, and for a function of two arguments write {run.__name__}(fn, zip(a, b), star=True)"
            )
        if not given and ("fn" in options or "tasks" in options):
            raise TypeError(
                f"{run.__name__} takes fn, or tasks, as a positional argument: "
                f"write {run.__name__}(fn, items) or {run.__name__}(tasks)"
            )
        return run(*given, **options)

    return checked


def options_among(arguments: dict[str, Any]) -> dict[str, Any]:
    """The options of a call, from all its arguments; those in ``unknown`` are refused later, with a suggestion.

    The functions declare each option, so that ``help`` shows it, and editors and notebooks complete it.
    """
    options = {name: value for name, value in arguments.items() if name not in ("fn", "items", "unknown")}
    return {**options, **arguments["unknown"]}


def ready_for_first(fn: object, executor: object) -> AbstractContextManager[object]:
    """Start what forks the first workers, and meanwhile import the modules of a first run; a no-op for any other run."""
    if "parallelkit._runs._plan" in sys.modules or executor != "processes":
        return nullcontext()
    from parallelkit._executors._process._prestart import started_ahead

    return started_ahead(fn, _load)


def _load() -> None:
    """Import the modules of a run in processes."""
    import_module("parallelkit._executors._processes")
    import_module("parallelkit._runs._plan")
