"""Refuses a random generator that several tasks of a run share, in processes: each worker, or each task, would have a copy of it.

They would draw the same numbers, one like the other, and no outcome would tell.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from itertools import islice
from sys import modules
from types import BuiltinMethodType, FunctionType, MethodType
from typing import Any

from parallelkit._executors._process._captures import given, variables
from parallelkit._worker._chance import HINT, is_own
from parallelkit._worker._script import NAMES
from parallelkit._worker._travel import describe

KINDS = (("random", "Random"), ("numpy.random", "Generator"), ("numpy.random", "RandomState"))
DEPTH, MOST = 3, 100
"""How deep an item is looked into, and at how many of its parts."""


CURE = (
    "give each item a seed (numpy.random.SeedSequence(...).spawn(n)) and make the generator of it in the task, "
    "or use executor='threads'"
)


class AlikeError(Exception):
    """A task would draw the same numbers as another; its text is that of the TypeError which the task gets."""


def refuse_alike(
    packed: bytes, fn: Callable[..., Any] | None, args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> None:
    """Raise TypeError where an argument of all, or what the function names, is a generator that was packed with its state."""
    if packed.find(HINT) < 0:
        return
    for name, thing in (*given(args, kwargs).items(), *_uses(fn, [])):
        kind = _kind(thing)
        if kind is not None:
            raise TypeError(
                f"{name} is {kind}, which each worker process would get in the same state, to draw the same numbers; {CURE}"
            )


class Neighbours:
    """Compares the items of a run, each with the one before: so nothing is kept of a million that bring their own."""

    def __init__(self) -> None:
        self._before = -1
        self._brought: list[object] = []

    def refuse_alike(self, index: int, item: object, label: Callable[[int], str]) -> None:
        """Raise AlikeError where both bring the same generator; an attempt more of the same task may."""
        brought = [thing for thing in _within(item, DEPTH) if _kind(thing) is not None]
        same = [thing for thing in brought if any(thing is each for each in self._brought)]
        before, self._before, self._brought = self._before, index, brought
        if same and before != index:
            raise AlikeError(
                f"the item of {label(index)} has the very {type(same[0]).__name__} that the one of {label(before)} has, and each "
                f"worker process would get a copy of it, to draw the same numbers; {CURE}"
            )


def may_draw(packed: object) -> bool:
    """Whether an item that was packed has a generator, as far as that can be told at a glance; nobody looks into a file."""
    blob = packed if type(packed) is bytes else getattr(packed, "blob", b"")
    return blob.find(HINT) >= 0


def _within(thing: object, depth: int) -> Iterator[object]:
    """An item and what it consists of, such as the arguments of a call."""
    yield thing
    parts = thing.values() if isinstance(thing, dict) else thing if isinstance(thing, (tuple, list)) else ()
    for part in islice(parts, MOST) if depth else ():
        yield from _within(part, depth - 1)


def _kind(thing: object) -> str | None:
    """What it is, if it is a generator or a method of one; none of those that modules have for everybody."""
    owner = thing.__self__ if isinstance(thing, (MethodType, BuiltinMethodType)) else thing
    kinds = tuple(filter(None, (getattr(modules.get(home), name, None) for home, name in KINDS)))
    if not isinstance(owner, kinds) or is_own(owner):
        return None
    return f"{'a' if owner is thing else 'a method of a'} {type(owner).__name__}"


def _uses(fn: object, seen: list[object]) -> Iterator[tuple[str, object]]:
    """What a function takes along and names: itself, variables, attributes of its object, and what those functions use."""
    if any(fn is each for each in seen):
        return
    seen.append(fn)
    yield "fn", fn
    if isinstance(fn, partial):
        yield from ((f"{name} of the partial", arg) for name, arg in given(fn.args, fn.keywords).items())
        yield from _uses(fn.func, seen)
    elif isinstance(fn, MethodType):
        yield from _attributes(fn, seen)
        yield from _uses(fn.__func__, seen)
    elif isinstance(fn, FunctionType) and (fn.__module__ in NAMES or "<locals>" in fn.__qualname__):
        defaults = *(fn.__defaults__ or ()), *(fn.__kwdefaults__ or {}).values()
        yield from ((f"a default of {describe(fn)}", value) for value in defaults)
        for name, value in variables(fn):
            yield f"{name}, which {describe(fn)} uses,", value
            if isinstance(value, FunctionType):
                yield from _uses(value, seen)


def _attributes(method: MethodType, seen: list[object]) -> Iterator[tuple[str, object]]:
    """Those that a method names, itself or by other methods of its class."""
    owner, code = method.__self__, getattr(method.__func__, "__code__", None)
    for name in code.co_names if code is not None else ():
        if name in getattr(owner, "__dict__", ()):
            yield f"{name}, which {describe(method)} uses,", vars(owner)[name]
        elif isinstance(other := _of_class(type(owner), name), FunctionType) and other not in seen:
            seen.append(other)
            yield from _attributes(MethodType(other, owner), seen)


def _of_class(cls: type, name: str) -> object:
    """What a class has under a name, without calling anything."""
    return next((vars(base)[name] for base in cls.__mro__ if name in vars(base)), None)
