"""Refuses a random generator that several tasks of a run share, in processes: each worker, or each task, would have a copy of it.

They would draw the same numbers, one like the other, and no outcome would tell. A program that sees to it is left alone: one
whose functions store another generator under the name, or name a way to seed or to copy it. Which they take is not looked at.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Set
from dis import get_instructions
from functools import lru_cache, partial
from itertools import islice
from sys import modules
from types import BuiltinMethodType, CodeType, FunctionType, MethodType
from typing import Any

from parallelkit._executors._process._captures import (
    MOST,
    codes,
    given,
    is_a,
    methods,
    names,
    reached,
    variables,
)
from parallelkit._tasks import function_of
from parallelkit._worker._chance import is_own, may_have_any
from parallelkit._worker._script import NAMES
from parallelkit._worker._travel import describe

KINDS = (("random", "Random"), ("numpy.random", "Generator"), ("numpy.random", "RandomState"))
DEPTH, PARTS = 3, 100
"""How deep an item is looked into, and at how many of its parts."""

ATOMS = frozenset((str, int, float, bytes, bool, type(None)))

WAYS = frozenset(
    {"seed", "getstate", "setstate", "get_state", "set_state", "bit_generator", "__init__"}
    | {"spawn", "deepcopy", "globals", "setattr", "__setattr__", "__dict__", "vars", "loads", "type"}
    | {"Random", "RandomState", "Generator", "default_rng", "SeedSequence", "check_random_state"}
)
"""Who names one of these may seed a generator, draw from a copy, put another in its place, or make another, and take this if
there is no seed."""

COPIES = (("copy", "copy"), ("copy", "deepcopy"), ("_pickle", "loads"))
STORES = ("STORE_GLOBAL", "STORE_DEREF", "STORE_ATTR")
LOOKS_UP = ("LOAD_GLOBAL", "LOAD_DEREF", "IMPORT_NAME")

CURE = (
    "give each item a seed (numpy.random.SeedSequence(...).spawn(n)) and make the generator of it in the task, "
    "or use executor='threads'"
)


class AlikeError(Exception):
    """A task would draw the same numbers as another; its text is that of the TypeError which the task gets."""


def refuse_alike(
    packed: bytes, fn: Callable[..., Any] | None, args: tuple[Any, ...], kwargs: Mapping[str, Any], star: bool
) -> None:
    """Raise TypeError where an argument of all, or what the function names, is a generator that was packed with its state.

    ``star``: what an item gives the function is not known, so it may replace each of its defaults.
    """
    brought = [*given(args, kwargs).items()]
    if may_have_any(packed):
        brought += _uses(fn, _stored(fn), [])
        brought += _bound(fn, None if star else 1 + len(args), kwargs.keys())
    for name, thing in brought:
        kind = _kind(thing)
        if kind is not None and not _sees_to_it(fn):
            raise TypeError(
                f"{name} is {kind}, which each worker process would get in the same state, to draw the same numbers; {CURE}"
            )


class Neighbours:
    """Compares the items of a run, each with the one before: so nothing is kept of a million that bring their own."""

    def __init__(self, fn: Callable[..., Any] | None) -> None:
        self._fn = fn
        self._before = -1
        self._brought: list[object] = []
        self._asked: tuple[object, bool] = (self, False)  # of the function that was last asked for

    def refuse_alike(self, index: int, item: Any, label: Callable[[int], str]) -> None:
        """Raise AlikeError where both bring the same generator; an attempt more of the same task may."""
        brought: list[object] = []
        _gather(item, DEPTH, (*_kinds(), MethodType, BuiltinMethodType), brought)
        same = [thing for thing in brought if any(thing is each for each in self._brought)]
        before, self._before, self._brought = self._before, index, brought
        if (
            same
            and before != index
            and not self._sees_to_it(function_of(item) if self._fn is None else self._fn)
        ):
            raise AlikeError(
                f"the item of {label(index)} has the very {type(same[0]).__name__} that the one of {label(before)} has, and each "
                f"worker process would get a copy of it, to draw the same numbers; {CURE}"
            )

    def _sees_to_it(self, fn: object) -> bool:
        if self._asked[0] is not fn:
            self._asked = fn, _sees_to_it(fn)
        return self._asked[1]


def may_draw(packed: object) -> bool:
    """Whether an item that was packed has a generator, as far as that can be told at a glance; nobody looks into a file."""
    return may_have_any(packed if type(packed) is bytes else getattr(packed, "blob", b""))


def _gather(thing: Any, depth: int, known: tuple[type, ...], found: list[object]) -> None:
    """Add the generators among an item and what it consists of, such as the arguments of a call."""
    if is_a(thing, known):
        if _kind(thing) is not None:
            found.append(thing)
    elif depth and is_a(thing, (dict, tuple, list)):
        parts = (
            dict.values(thing)
            if is_a(thing, dict)
            else (list if is_a(thing, list) else tuple).__iter__(thing)
        )
        for part in islice(parts, PARTS):
            if type(part) not in ATOMS:
                _gather(part, depth - 1, known, found)


def _kinds() -> tuple[type, ...]:
    return tuple(filter(None, (getattr(modules.get(home), name, None) for home, name in KINDS)))


def _kind(thing: Any) -> str | None:
    """What it is, if it is a generator or a method of one; none of those that modules have for everybody."""
    owner = thing.__self__ if is_a(thing, (MethodType, BuiltinMethodType)) else thing
    if not is_a(owner, _kinds()) or is_own(owner):
        return None
    return f"{'a' if owner is thing else 'a method of a'} {type(owner).__name__}"


def _uses(fn: object, stored: Set[tuple[str, str]], seen: list[object]) -> Iterator[tuple[str, object]]:
    """What a function takes along and names: itself, variables, attributes of its object, and what those functions use."""
    if any(fn is each for each in seen):
        return
    seen.append(fn)
    yield "fn", fn
    if isinstance(fn, partial):
        yield from _uses(fn.func, stored, seen)
    elif isinstance(fn, MethodType):
        for method in methods(fn):
            yield from (
                (f"{name}, which {describe(method)} uses,", it) for name, it in _attributes(method, stored)
            )
        yield from _uses(fn.__func__, stored, seen)
    elif isinstance(fn, FunctionType) and _goes_by_value(fn):
        for name, value in variables(fn):
            if _kind(value) is None or not _is_stored(name, fn, stored):
                yield f"{name}, which {describe(fn)} uses,", value
            if type(value) is FunctionType:
                yield from _uses(value, stored, seen)


def _attributes(method: MethodType, stored: Set[tuple[str, str]]) -> Iterator[tuple[str, object]]:
    """Those of its object that a method names, and that are not stored before."""
    own = getattr(method.__self__, "__dict__", {})
    for name in names(method.__func__):
        if name in own and ("STORE_ATTR", name) not in stored:
            yield name, own[name]


def _bound(fn: object, number: int | None, named: Set[str]) -> Iterator[tuple[str, object]]:
    """What a function is given where the run gives nothing, by a partial or as a default.

    The run gives it ``number`` arguments, None if that is not known, and those of these names.
    """
    if isinstance(fn, partial):
        yield from ((f"{name} of the partial", arg) for name, arg in given(fn.args, {}).items())
        kwargs = {name: arg for name, arg in fn.keywords.items() if name not in named}
        yield from ((f"{name} of the partial", arg) for name, arg in given((), kwargs).items())
        yield from _bound(fn.func, number if number is None else number + len(fn.args), named | kwargs.keys())
    elif isinstance(fn, MethodType):
        yield from _bound(fn.__func__, number if number is None else number + 1, named)
    elif isinstance(fn, FunctionType) and number is not None and _goes_by_value(fn):
        places = fn.__code__.co_varnames[: fn.__code__.co_argcount]
        defaults = dict(zip(reversed(places), reversed(fn.__defaults__ or ()), strict=False))
        open_ = {name: defaults[name] for name in places[number:] if name in defaults} | (
            fn.__kwdefaults__ or {}
        )
        yield from (
            (f"a default of {describe(fn)}", value) for name, value in open_.items() if name not in named
        )


def _goes_by_value(fn: FunctionType) -> bool:
    return fn.__module__ in NAMES or "<locals>" in fn.__qualname__


def _sees_to_it(fn: object) -> bool:
    """Whether a call may seed the generators it is given, or make copies of them, on purpose."""
    functions = reached(fn)
    return len(functions) > MOST or any(
        _names_a_way(function.__code__) or _copies(function) for function in functions
    )


def _copies(function: FunctionType) -> bool:
    """Whether it has a way to copy, under whatever name."""
    ways = [vars(modules[home]).get(name) for home, name in COPIES if home in modules]
    return any(value is not None and any(value is way for way in ways) for _, value in variables(function))


@lru_cache(4096)  # a run of tasks packs its function with each of them
def _names_a_way(code: CodeType) -> bool:
    for each in codes(code):
        if not WAYS.isdisjoint(each.co_names):
            return True
        # the module or its function, for many things have a method of the name
        if any(step.argval == "copy" and step.opname in LOOKS_UP for step in get_instructions(each)):
            return True
    return False


def _stored(fn: object) -> set[tuple[str, str]]:
    """The variables and attributes that a call may store, by the instruction; not those that a new object begins with."""
    return {
        each
        for function in reached(fn)
        for each in _stores(function.__code__)
        if each[0] != "STORE_ATTR" or function.__name__ != "__init__"
    }


def _is_stored(name: str, fn: FunctionType, stored: Set[tuple[str, str]]) -> bool:
    """Whether the call may store the variable or, if it is global, any function of its module: that may be an initializer."""
    if name in fn.__code__.co_freevars:
        return ("STORE_DEREF", name) in stored
    return ("STORE_GLOBAL", name) in stored or any(
        type(other) is FunctionType and other.__globals__ is fn.__globals__ and _may_assign(other, name)
        for other in list(fn.__globals__.values())
    )


def _may_assign(function: FunctionType, name: str) -> bool:
    """Whether it assigns this global, or may assign any."""
    named = names(function)  # looked at first, as most functions do not name it
    return "globals" in named or (name in named and ("STORE_GLOBAL", name) in _stores(function.__code__))


@lru_cache(4096)
def _stores(code: CodeType) -> frozenset[tuple[str, str]]:
    steps = (step for each in codes(code) for step in get_instructions(each))
    return frozenset((step.opname, step.argval) for step in steps if step.opname in STORES)
