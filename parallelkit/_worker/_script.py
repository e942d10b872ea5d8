"""What the initializer of a script assigns globally: the tasks of the script find it.

Functions of ``__main__`` travel by value, and each pickle has globals of its own at the other end. But
``global model; model = load()`` in an initializer is meant for the tasks, as in a forked pool.
"""

from __future__ import annotations

TYPE_CHECKING = False  # importing typing would cost a worker a third of its start
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from types import FunctionType
    from typing import Any

NAMES = ("__main__", "__mp_main__")  # of the script; the latter where multiprocessing has spawned the process
MARK = b"_main__"  # of a reference into either, in a pickle

_assigned: dict[str, Any] = {}
_scopes: list[dict[str, Any]] = []  # the globals of those functions that have arrived so far


def initialize(initializer: Callable[..., object], initargs: Iterable[Any]) -> None:
    """Call the initializer, and keep what it assigns in the globals of the script."""
    before = [(scope, dict(scope)) for scope in _scopes]
    initializer(*initargs)
    for scope, was in before:
        _assigned.update(
            {name: scope[name] for name in scope if name not in was or was[name] is not scope[name]}
        )


def arrive(function: FunctionType) -> None:
    """A function has been unpickled: if it is the script's, it finds what the initializer assigned."""
    scope = function.__globals__
    if scope.get("__name__") not in NAMES:
        return
    if _assigned:
        scope.update(_assigned)
    elif not any(scope is known for known in _scopes):
        _scopes.append(scope)
