"""Refuses a random generator among what all tasks of a run share: each worker would have it in the same state.

They would draw the same numbers, one worker like the other, and no outcome would tell.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from sys import modules
from types import BuiltinMethodType, FunctionType, MethodType
from typing import Any

from parallelkit._executors._luggage import given, variables
from parallelkit._worker._chance import HINT, is_own
from parallelkit._worker._script import NAMES
from parallelkit._worker._travel import describe

KINDS = (("random", "Random"), ("numpy.random", "Generator"), ("numpy.random", "RandomState"))


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
                f"{name} is {kind}, which each worker process would get in the same state, to draw the same numbers; "
                "give each item a seed (numpy.random.SeedSequence(...).spawn(n)) and make the generator of it in the task, "
                "or use executor='threads'"
            )


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
        elif isinstance(other := getattr(type(owner), name, None), FunctionType) and other not in seen:
            seen.append(other)
            yield from _attributes(MethodType(other, owner), seen)
