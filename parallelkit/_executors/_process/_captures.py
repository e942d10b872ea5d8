"""What a call takes along to another process, by the names that messages have for it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from types import CellType, FunctionType, MethodType
from typing import Any

from parallelkit._worker._by_value import used_globals
from parallelkit._worker._caches import CACHED
from parallelkit._worker._functions import names
from parallelkit._worker._script import NAMES


def given(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of a call.

    >>> given((1,), {"b": 2})
    {'args[0]': 1, "kwargs['b']": 2}
    """
    return numbered("args", args) | {f"kwargs[{name!r}]": arg for name, arg in kwargs.items()}


def numbered(name: str, args: Iterable[Any]) -> dict[str, Any]:
    """Arguments by what they are called in messages."""
    return {f"{name}[{number}]": arg for number, arg in enumerate(args)}


def variables(function: FunctionType) -> Iterable[tuple[str, Any]]:
    """What a function takes along when it travels by value: its closure, and the globals that it names."""
    yield from zip(function.__code__.co_freevars, map(_content, function.__closure__ or ()), strict=True)
    yield from used_globals(function).items()


def _content(cell: CellType) -> object:
    try:
        return cell.cell_contents
    except ValueError:  # not assigned yet
        return None


def is_a(thing: object, kinds: type | tuple[type, ...]) -> bool:
    """``isinstance`` by the type alone: asked for its ``__class__``, a proxy or a lazy module would run code."""
    return issubclass(type(thing), kinds)


def goes_by_value(thing: FunctionType | type) -> bool:
    """Whether a function or class is sent with its code, since workers cannot import it."""
    return thing.__module__ in NAMES or "<locals>" in thing.__qualname__


def reached(call: object) -> list[FunctionType]:
    """The function of a call, and those that travel with it: they are named in its code, or in the code of one another.

    A method comes with the methods of its class that it names. What workers import is not followed.
    """
    found: dict[FunctionType, None] = {}  # a list would be searched for each function
    things = [call]
    for thing in things:  # which grows
        for function in _functions(thing):
            if function not in found and (thing is call or goes_by_value(function)):
                found[function] = None
                if goes_by_value(function):
                    things += [value for _, value in variables(function)]
    return list(found)


def _functions(thing: Any) -> list[FunctionType]:
    thing = _unwrapped(thing)
    if is_a(thing, MethodType):
        return _methods(thing)
    return [thing] if is_a(thing, FunctionType) else []


def _methods(method: MethodType) -> list[FunctionType]:
    function = _unwrapped(method.__func__)
    found = [function] if is_a(function, FunctionType) else []
    known = [*functions_of_class(type(method.__self__))]
    for function in found:  # which grows
        named = set(names(function.__code__))
        found += [other for name, other in known if name in named and other not in found]
    return found


def functions_of_class(cls: type) -> Iterator[tuple[str, FunctionType]]:
    """The functions in a class and its bases, by their names there."""
    for base in cls.__mro__:
        for name, part in vars(base).items():
            function = _unwrapped(part)
            if is_a(function, FunctionType):
                yield name, function


def _unwrapped(thing: Any) -> Any:
    while is_a(thing, (CACHED, staticmethod, classmethod)):
        thing = thing.__wrapped__
    return thing
