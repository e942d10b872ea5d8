"""The context variables of attempts in this process: the caller's, and those that the thread's initializer has set.

Decimal contexts (gmpy2's as well) are objects in such variables, and are changed in place: ``getcontext().prec = 50``.
Each thread of a standard pool has one of its own. Here each attempt gets a copy, for if attempts shared the caller's, one
would change the arithmetic of all others, and the caller's.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterable
from contextvars import Context, ContextVar, copy_context
from functools import partial
from typing import Any, TypeAlias

from parallelkit._executors._thread._lending import mark_context
from parallelkit._executors._width import Wide, widen

Settings: TypeAlias = "list[tuple[ContextVar[Any], Callable[[], Any]]]"
"""Variables, each with a function that makes the value for an attempt."""

CONTEXTS = {"decimal": "Context", "gmpy2": "context"}
"""Module and name of the types that are changed in place. They have a method ``copy``."""

_thread = threading.local()


class Variables:
    """The present context variables, for attempts of this engine.

    ``initialized``: the attempts run in threads that have an initializer.
    """

    def __init__(self, engine: Wide, initialized: bool) -> None:
        context = copy_context()
        context.run(widen, engine)
        context.run(mark_context)
        # A copy of a copy: the caller may change its own before the attempt begins.
        own: Settings = [(variable, value.copy().copy) for variable, value in _contexts(context)]
        self.fresh: Callable[[], Context] = context.copy
        """Makes the context of one attempt; called in its thread."""
        if own or initialized:
            self.fresh = partial(_furnished, context, own, initialized)  # a method would make a cycle

    def call(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
        """Run one attempt; called in its thread."""
        return self.fresh().run(fn, *args, **kwargs)


def _furnished(variables: Context, own: Settings, initialized: bool) -> Context:
    context = variables.copy()
    # A run inline, in such a thread, has the variables of its caller alone.
    settings: Settings = getattr(_thread, "settings", []) if initialized else []
    for variable, make in own + settings:
        context.run(variable.set, make())
    return context


def initialize(initializer: Callable[..., object], initargs: Iterable[Any]) -> None:
    """In a new thread: call its initializer, and keep the variables that it sets for the thread's attempts."""
    context = Context()
    context.run(initializer, *initargs)
    settings = {variable: partial(_same, value) for variable, value in context.items()}
    settings |= {variable: value.copy for variable, value in _contexts(context)}
    _thread.settings = list(settings.items())


def own_decimals() -> Any:
    """The caller's decimal context, if its settings are not Python's defaults; else None."""
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
    # A script may have a decimal.py of its own, without such a type.
    kinds = tuple([kind for kind in found if isinstance(kind, type)])
    return [item for item in variables.items() if isinstance(item[1], kinds)] if kinds else []
