"""What the initializer of a script assigns globally: the tasks of the script find it.

Functions of ``__main__`` travel by value, and each pickle has globals of its own at the other end. But
``global model; model = load()`` in an initializer is meant for the tasks, as in a forked pool.
"""

from __future__ import annotations

from sys import modules

TYPE_CHECKING = False  # importing typing would cost a worker a third of its start
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from types import FunctionType
    from typing import Any

NAMES = ("__main__", "__mp_main__")  # of the script; the latter where multiprocessing has spawned the process
MARK = b"_main__\x94"
"""Where a pickle does not have this (the end of a name, and that it is remembered), it does not refer into either."""

_STACK_GLOBAL, _SHORT_TEXT, _MEMOIZE, _GET, _LONG_GET = b"\x93", b"\x8c", 0x94, ord("h"), ord("j")
_LONGEST = 258  # of a short text, with what surrounds it

_assigned: dict[str, Any] = {}
_arrived: list[dict[str, Any]] | None = None
"""The globals of an initializer's functions, while it is unpacked."""

_arrived_classes: list[type] = []
"""Those of the script that came with it."""

_assigned_to: list[tuple[type, frozenset[str]]] = []
"""Of these, the names of the attributes that it has assigned."""


def is_meant(blob: bytes) -> bool:
    """Whether a pickle that has the mark may refer into the script: a text can name it, too.

    Each byte is looked at that may be the instruction to look up a name. If it is one, the names of module and object
    come right before it: as texts, or as numbers of earlier texts, which may be any.
    """
    at = blob.find(_STACK_GLOBAL)
    while at >= 0:
        if _follows_name(blob, at):
            _, end = _text_before(blob, at)
            module, _ = _text_before(blob, end)
            if module in NAMES or module not in modules:
                return True
        at = blob.find(_STACK_GLOBAL, at + 1)
    return False


def _follows_name(blob: bytes, at: int) -> bool:
    """Whether what ends here may be a text that is remembered, or a look at one; else it is a number, or part of a text."""
    return (
        blob[at - 1] == _MEMOIZE
        or blob[at - 2] == _GET
        or (blob[at - 5] == _LONG_GET and int.from_bytes(blob[at - 4 : at], "little") < at)
    )


def _text_before(blob: bytes, end: int) -> tuple[str, int]:
    """The short text that ends here, and where it begins; an empty one if none does."""
    start = blob.rfind(_SHORT_TEXT, max(0, end - _LONGEST), end)
    if start < 0 or blob[end - 1] != _MEMOIZE or start + 3 + blob[start + 1] != end:
        return "", 0
    # What looks like an h at its end, and that it is remembered, may be a look at the text of number 0x94 instead.
    if blob[end - 2] == _GET and blob.count(_MEMOIZE, 0, end) > _MEMOIZE:
        return "", 0
    return blob[start + 2 : end - 1].decode(errors="replace"), start


def initialize(bring: Callable[[], tuple[Callable[..., object], Iterable[Any]]]) -> None:
    """Call the initializer that ``bring`` unpacks, and keep what it assigns in the globals of the script."""
    global _arrived
    _arrived = []
    try:
        initializer, initargs = bring()
        before = [(scope, dict(scope)) for scope in _arrived]
    finally:
        _arrived = None  # those of tasks come and go without end: they are not to be kept
    classes = [(cls, dict(vars(cls))) for cls in _arrived_classes]
    initializer(*initargs)
    for scope, was in before:
        _assigned.update(changed(was, scope))
    _assigned_to.extend((cls, frozenset(changed(was, vars(cls)))) for cls, was in classes)


def changed(was: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, Any]:
    """The names that have got another value, or are new."""
    return {name: now[name] for name in now if name not in was or was[name] is not now[name]}


def arrive_class(cls: type) -> None:
    """A class of the script has been unpickled."""
    if _arrived is not None and not any(cls is known for known in _arrived_classes):
        _arrived_classes.append(cls)


def assigned_to(cls: type) -> frozenset[str]:
    """The attributes of a class that the initializer has assigned."""
    return next((names for known, names in _assigned_to if known is cls), frozenset())


def arrive(function: FunctionType) -> None:
    """A function has been unpickled: if it is the script's, it finds what the initializer assigned."""
    scope = function.__globals__
    if scope.get("__name__") not in NAMES:
        return
    if _arrived is None:
        scope.update(_assigned)
    elif not any(scope is known for known in _arrived):
        _arrived.append(scope)
