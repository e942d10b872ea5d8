"""Calls a worker's initializer, after settings of the program's interpreter, and finds what it changes in the script's globals.

``global model; model = load()`` and ``models["a"] = load()`` in an initializer are meant for the tasks, as in a forked pool.
"""

from __future__ import annotations

import sys
from _socket import setdefaulttimeout
from types import FunctionType, ModuleType

from parallelkit._raised import tolerated
from parallelkit._worker import _script
from parallelkit._worker._travel import Apart, pack

TYPE_CHECKING = False  # importing typing would cost a worker a third of its start
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from decimal import Context
    from typing import Any

CODE = (FunctionType, ModuleType, type)
"""Types of globals that have no content of their own. What an initializer assigns to a class is found by the class."""


def apply_settings(
    recursion: int,
    timeout: float | None,
    decimals: Context | None,
    initializer: Callable[..., object] | None,
    *initargs: Any,
) -> None:
    """An initializer: sets recursion limit, socket timeout and decimal context, and calls the caller's initializer."""
    sys.setrecursionlimit(recursion)
    setdefaulttimeout(timeout)
    if decimals is not None:
        from decimal import setcontext

        setcontext(decimals)
    if initializer is not None:
        initializer(*initargs)


def initialize(bring: Callable[[], tuple[Callable[..., object], Iterable[Any]]]) -> None:
    """Call the initializer that ``bring`` unpickles, and keep what it has changed."""
    (initializer, initargs), arrived = _script.gather(bring)
    before = [(scope, dict(scope), _contents(scope)) for scope in arrived if type(scope) is dict]
    attributes = [(cls, dict(vars(cls))) for cls in arrived if type(cls) is not dict]
    initializer(*initargs)
    for scope, was, had in before:
        assigned = _assigned(was, scope)
        has = _contents({name: scope[name] for name in had if name in scope and name not in assigned})
        touched = {name: scope[name] for name in has if has[name] != had[name]}
        _script.assigned.update(assigned | touched)
    for cls, was in attributes:
        _script.assigned_to[cls] = frozenset(_assigned(was, vars(cls)))


def _assigned(was: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, Any]:
    """The names that have another value now, or are new."""
    return {name: now[name] for name in now if name not in was or was[name] is not now[name]}


def _contents(scope: Mapping[str, Any]) -> dict[str, object]:
    """What the data among some globals contains, as numbers."""
    data = {name: value for name, value in scope.items() if not issubclass(type(value), CODE)}
    return {name: _content(value) for name, value in data.items() if name != "__builtins__"}


def _content(thing: object) -> tuple[int, ...] | None:
    """Numbers that are others once the thing contains something else; None if it cannot be pickled."""
    apart = Apart()
    with tolerated():
        blob = pack(thing, apart, by_file=True)  # a mapped file is not read: it may be huge
        from zlib import crc32  # late: workers do not need it to start

        return hash(blob), *map(crc32, apart.buffers)
    return None
