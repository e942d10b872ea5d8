"""The context variables that an attempt in this process finds: its caller's, and what its thread's initializer has set.

A decimal context is an object in such a variable, and is changed in place: ``getcontext().prec = 50``; so is that of gmpy2.
Each thread of a standard pool has its own, so each attempt has one here; else it would change how all the others count, and its caller.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterable
from contextvars import Context, ContextVar, copy_context
from functools import partial
from typing import Any, TypeAlias

from parallelkit._executors._thread._lending import mark_context
from parallelkit._executors._width import widen

Settings: TypeAlias = "list[tuple[ContextVar[Any], Callable[[], Any]]]"
"""Variables, and what gives the value that an attempt shall have."""

CONTEXTS = {"decimal": "Context", "gmpy2": "context"}
"""The module and the name of what is changed in place. It has a ``copy``."""

_thread = threading.local()


class Variables:
    """The context variables of this moment, for attempts of which so many run at a time.

    ``initialized``: they run in threads that have been initialized.
    """

    def __init__(self, workers: int, initialized: bool) -> None:
        self._context = copy_context()
        self._context.run(widen, workers)
        self._context.run(mark_context)
        self._own: Settings = [(variable, value.copy) for variable, value in _contexts(self._context)]
        self._initialized = initialized

    def fresh(self) -> Context:
        """Those of one attempt; called in its thread."""
        context = self._context.copy()
        if self._own or self._initialized:
            settings: Settings = getattr(_thread, "settings", [])
            for variable, make in self._own + settings:
                context.run(variable.set, make())
        return context

    def call(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
        """One attempt, in its thread."""
        return self.fresh().run(fn, *args, **kwargs)


def initialize(initializer: Callable[..., object], initargs: Iterable[Any]) -> None:
    """In a fresh thread: call its initializer, and have its attempts find what that sets."""
    context = Context()
    context.run(initializer, *initargs)
    settings = {variable: partial(_same, value) for variable, value in context.items()}
    settings |= {variable: value.copy for variable, value in _contexts(context)}
    _thread.settings = list(settings.items())


def own_decimals() -> Any:
    """The decimal context of whoever calls, where it is not as Python makes one; else None."""
    found = _contexts(copy_context(), ["decimal"])
    if not found:
        return None
    from decimal import ROUND_HALF_EVEN, Context, DivisionByZero, InvalidOperation, Overflow

    usual = Context(
        28, ROUND_HALF_EVEN, -999999, 999999, 1, 0, [], [InvalidOperation, DivisionByZero, Overflow]
    )
    own = found[0][1].copy()
    own.clear_flags()
    return None if repr(own) == repr(usual) else own


def _same(value: Any) -> Any:
    return value


def _contexts(variables: Context, modules: Iterable[str] = CONTEXTS) -> list[tuple[ContextVar[Any], Any]]:
    found = [getattr(sys.modules.get(module), CONTEXTS[module], None) for module in modules]
    kinds = tuple(
        kind for kind in found if isinstance(kind, type)
    )  # a script may have a decimal.py of its own
    return [item for item in variables.items() if isinstance(item[1], kinds)] if kinds else []
