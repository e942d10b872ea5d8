"""What a worker keeps of the script, whose functions and classes are sent by value.

What an initializer has changed in the script's globals (_initial.py): each pickle has globals of its own at the other end.
And where its classes are, so that tasks can pickle their objects, which are pickled with the name of their class.
"""

from __future__ import annotations

from _weakref import ref
from sys import modules

TYPE_CHECKING = False  # importing typing would cost a worker a third of its start
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from types import FunctionType
    from typing import Any

NAMES = ("__main__", "__mp_main__")  # of the script; the latter in a process that multiprocessing has spawned
MARK = b"_main__\x94"
"""The end of either name and a MEMOIZE opcode: a pickle without it does not refer into the script."""

_STACK_GLOBAL, _SHORT_TEXT, _MEMOIZE, _GET, _LONG_GET = b"\x93", b"\x8c", 0x94, ord("h"), ord("j")
_LONGEST = 258  # bytes of a short text with the opcodes around it

assigned: dict[str, Any] = {}
"""The globals that the initializer has assigned, for the script's tasks."""

_arrived: dict[int, Any] | None = None
"""While the initializer is unpacked: the script's classes that came with it, and the globals of its functions, by id. Else None."""

assigned_to: dict[type, frozenset[str]] = {}
"""The names of the attributes that the initializer has assigned to these classes."""

_named: dict[str, ref[type]] = {}
"""The script's classes that have arrived, by name; of several with one name the latest."""


def is_meant(blob: bytes) -> bool:
    """Whether a pickle that has the mark may really refer into the script: a mere text may have the mark, too.

    Every byte that may be a STACK_GLOBAL opcode is looked at. If it is one, the names of module and object come right
    before it: as texts, or as memo references to earlier texts, which may be any.
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
    """Whether a memoized text, or a memo reference, may end here; else this byte is part of a number or a text."""
    return (
        blob[at - 1] == _MEMOIZE
        or blob[at - 2] == _GET
        or (blob[at - 5] == _LONG_GET and int.from_bytes(blob[at - 4 : at], "little") < at)
    )


def _text_before(blob: bytes, end: int) -> tuple[str, int]:
    """The memoized short text that ends here, and where it begins; an empty one if there is none."""
    start = blob.rfind(_SHORT_TEXT, max(0, end - _LONGEST), end)
    if start < 0 or blob[end - 1] != _MEMOIZE or start + 3 + blob[start + 1] != end:
        return "", 0
    # A final "h" and MEMOIZE may instead be a reference to the memo's entry 0x94.
    if blob[end - 2] == _GET and blob.count(_MEMOIZE, 0, end) > _MEMOIZE:
        return "", 0
    return blob[start + 2 : end - 1].decode(errors="replace"), start


def gather(bring: Callable[[], Any]) -> tuple[Any, Iterable[Any]]:
    """What ``bring`` unpickles, which is the initializer; and the script's classes and dicts of globals that come along."""
    global _arrived
    arrived = _arrived = {}
    try:
        return bring(), arrived.values()
    finally:
        _arrived = None  # the globals of tasks must not be kept: there is no end of them


def give_classes() -> None:
    """Called once in a worker: have its ``__main__``, which is empty, give the script's classes to whoever asks by name."""
    modules["__main__"].__getattr__ = _class_of  # type: ignore[method-assign]  # PEP 562


def _class_of(name: str) -> type:
    cls = _named[name]() if name in _named else None
    if cls is None or _has_spawned():
        raise AttributeError(f"module '__main__' has no attribute {name!r}")
    return cls


def _has_spawned() -> bool:
    """Whether a task has, or is starting, a fresh process of multiprocessing: a class that is sent there would not be found.

    A pool would replace each process that ends by that, and wait forever.
    """
    context = modules.get("multiprocessing.context")
    if context is None:
        return False
    kinds = context.SpawnProcess, context.ForkServerProcess
    children = context.process.active_children()
    return context.get_spawning_popen() is not None or any(isinstance(child, kinds) for child in children)


def arrive_class(cls: type) -> None:
    """Called when a class of the script has been unpickled."""
    if cls.__module__ in NAMES:
        _named[cls.__qualname__] = ref(cls)
    if _arrived is not None:
        _arrived[id(cls)] = cls


def arrive(function: FunctionType) -> None:
    """Called when a function has been unpickled: give the script's functions what the initializer has assigned."""
    scope = function.__globals__
    if scope.get("__name__") not in NAMES:
        return
    if _arrived is None:
        scope.update(assigned)
    else:
        _arrived[id(scope)] = scope
