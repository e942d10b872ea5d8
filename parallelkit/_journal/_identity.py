"""The identity of a function, as text that is the same in every run of the program; a journal belongs to it.

What counts, what does not, and why: docs/design/checkpoint.md.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import fields
from enum import Enum
from functools import lru_cache, partial
from hashlib import sha256
from operator import attrgetter, itemgetter, methodcaller
from re import Pattern
from types import BuiltinFunctionType, CodeType, EllipsisType, FunctionType, MethodType, ModuleType, NoneType
from typing import Any

from parallelkit._raised import attribute_or_none

PLAIN = frozenset({str, float, bool, bytes, complex, NoneType, EllipsisType})
SPOKEN = frozenset(
    {
        *("range", "date", "timedelta", "timezone", "ZoneInfo", "Decimal", "Fraction"),
        *("PosixPath", "WindowsPath", "PurePosixPath", "PureWindowsPath"),
    }
)  # plain too: ``str`` tells the value. By name, so that their modules need not be imported
HOMES = frozenset({"builtins", "datetime", "zoneinfo", "decimal", "fractions", "pathlib"})
SCALARS = frozenset({"number", "character", "bool", "bool_"})  # of numpy's types, the first two as bases
GETTERS = (itemgetter, attrgetter, methodcaller)
FUNCTIONS = (FunctionType, BuiltinFunctionType, MethodType, type, partial, *GETTERS)
CODE, CAPTURED, ARGUMENT = "code", "captured variable ", "argument "
TAKES_REST = 0x04 | 0x08  # flags of code with *args, **kwargs
WRITES = frozenset({"STORE_DEREF", "DELETE_DEREF"})

Facts = Iterator[tuple[str, str]]
Seen = dict[int, tuple[Any, str]]
"""Functions that were looked into, by id, with their texts; until a text is made, it is the bare name."""


def identity_of(fn: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None) -> str:
    r"""Module and qualified name, and below it a line for each fact that the name does not tell.

    ``args``, ``kwargs``: what a run passes with every item. ``fn`` is None for a run of several functions.

    >>> identity_of(len), identity_of(partial(int, base=2))
    ('builtins:len', "builtins:int\nkeyword 'base' = 5f6f0f3ebb5eb25c")
    """
    if type(fn) is FunctionType and not (args or kwargs) and is_told_by_name(fn):
        return name_of(fn)
    seen: Seen = {}
    facts = {} if fn is None else dict(facts_of(fn, seen))
    facts |= {f"args[{place}]": digest(text_of(value, seen)) for place, value in enumerate(args)}
    facts |= {f"keyword {name!a}": digest(text_of(value, seen)) for name, value in (kwargs or {}).items()}
    lines = [f"{fact} = {value}" for fact, value in facts.items()]
    return "\n".join(["" if fn is None else name_of(fn), *lines])


def name_of(fn: Any) -> str:
    """Module and qualified name of a function, of the one inside a partial, or of the class of an object without any."""
    while isinstance(fn, partial):
        fn = fn.func
    named = type(fn) if name_in(fn) is None else fn
    return f"{attribute_or_none(named, '__module__') or 'builtins'}:{named.__qualname__}"


def name_in(thing: Any, attribute: str = "__qualname__") -> str | None:
    """The name of something, or None; a proxy may have every attribute, but not as text, or raise whatever it is asked for."""
    name = attribute_or_none(thing, attribute)
    return name if isinstance(name, str) else None


class SelfIdentified:
    """A callable object of this package that gives its own facts; of other objects no attribute counts.

    Its name is that of the public function it stands for, which stays when its class moves. ``facts`` gives digests.
    """

    def __init__(self, module: str, name: str, facts: Callable[[], Facts]) -> None:
        self.__module__, self.__qualname__, self.facts = module, name, facts


def difference(before: str | None, now: str | None, whose: str) -> str | None:
    """How a function differs from the one that was recorded, and what to do; None if it does not.

    A variable that only one of them has captured does not count, so that a nested function may be mended, too.
    An identity of None stands for the function of the journal; ``whose`` is "this run" or "this task".
    """
    if before == now:
        return None
    (name, old), (new_name, new) = parsed(before), parsed(now)
    if name != new_name:
        return f"it is of {name}, {whose} of {new_name}; use another file"
    captured_by_one = {fact for fact in old.keys() ^ new.keys() if fact.startswith(CAPTURED)}
    differing = {fact for fact in old.keys() | new.keys() if old.get(fact) != new.get(fact)}
    other = sorted(differing - captured_by_one)
    if not other:
        return None
    text = f"it is of {name} as well, but {whose} differs in {', '.join(other)}; "
    if CODE not in other:
        return f"{text}use another file"
    versions = [facts[CODE].partition(" ")[0] for facts in (old, new) if CODE in facts]
    compiled = f", compiled by {versions[0]} and now by {versions[1]}" if len(set(versions)) == 2 else ""
    return f"{text}a lambda is known by its code{compiled}: give the function a name, and use another file"


def parsed(identity: str | None) -> tuple[str, dict[str, str]]:
    """The name in an identity, as messages show it, and the facts."""
    name, *lines = ("the journal's function" if identity is None else identity).split("\n")
    return name or "several functions", {
        fact: value for fact, _, value in (line.rpartition(" = ") for line in lines)
    }


# What the name does not tell


def facts_of(fn: Any, seen: Seen) -> Facts:
    """What tells functions of one name apart."""
    seen.setdefault(id(fn), (fn, f"<{name_of(fn)}>"))
    if isinstance(fn, GETTERS):
        made: Any = fn.__reduce__()
        fn = partial(made[0], *made[1])
    if isinstance(fn, partial):
        facts = dict(facts_of(fn.func, seen))
        before = sum(fact.startswith(ARGUMENT) for fact in facts)  # arguments of a partial inside this one
        yield from facts.items()
        for place, value in enumerate(fn.args, before):
            yield f"{ARGUMENT}{place}", digest(text_of(value, seen))
        for name, value in fn.keywords.items():
            yield f"keyword {name!a}", digest(text_of(value, seen))
    elif isinstance(fn, FunctionType):
        yield from facts_of_function(fn, seen)
    elif isinstance(fn, SelfIdentified):
        yield from fn.facts()
    else:
        yield from facts_of_object(fn, seen)


def facts_of_function(fn: FunctionType, seen: Seen) -> Facts:
    """The code of a lambda; what a lambda or nested function has captured, or has as defaults."""
    if fn.__qualname__.endswith("<lambda>"):
        yield CODE, f"{sys.implementation.cache_tag} {digest_of_code(fn.__code__)}"
    elif is_told_by_name(fn):
        return
    code, defaults = fn.__code__, fn.__defaults__ or ()
    named = [*zip(code.co_varnames[code.co_argcount - len(defaults) :], defaults, strict=False)]
    named += (fn.__kwdefaults__ or {}).items()
    if code.co_freevars:
        named += cells_of(fn)
    for name, value in named:
        if is_plain(value) or is_function(value):
            yield f"{CAPTURED}{name}", digest(text_of(value, seen))


def is_told_by_name(fn: FunctionType) -> bool:
    """Whether the name tells which function this is: a module defines it. A nested one may have its name by ``wraps``."""
    if "<" in fn.__qualname__:
        return False
    if not fn.__code__.co_freevars:
        return True
    found: Any = sys.modules.get(fn.__module__)
    for part in fn.__qualname__.split("."):
        found = getattr(found, part, None)
    return found is fn


def cells_of(fn: FunctionType) -> Iterator[tuple[str, Any]]:
    """The variables that a function captured, without those that it assigns to: a counter changes with every call."""
    written = written_by(fn.__code__)
    for name, cell in zip(fn.__code__.co_freevars, fn.__closure__ or (), strict=True):
        try:
            if name not in written:
                yield name, cell.cell_contents
        except ValueError:  # the cell is empty
            continue


@lru_cache  # there may be a function for each task, all of one code
def written_by(code: CodeType) -> frozenset[str]:
    """The captured names that this code, or code nested in it, assigns to or deletes."""
    from dis import get_instructions

    own = {step.argval for step in get_instructions(code) if step.opname in WRITES}
    return frozenset(
        own.union(*map(written_by, (part for part in code.co_consts if isinstance(part, CodeType))))
    )


def facts_of_object(fn: Any, seen: Seen) -> Facts:
    """The owner of a method, the facts of a wrapped function; attributes count only where they cannot change."""
    if isinstance(fn, MethodType):
        yield from facts_of(fn.__func__, seen)
    elif is_plain(fn):  # an object of a frozen dataclass, say
        yield "object", digest(text_of(fn, seen))
    owner, name = attribute_or_none(fn, "__self__"), name_in(fn)
    if name is not None and owner is not None and not isinstance(owner, ModuleType):
        known = is_plain(owner) or is_function(owner)
        if known or not name.startswith(f"{type(owner).__qualname__}."):
            yield "object", digest(text_of(owner, seen))
    short = name_in(fn, "__name__")
    if name is None and short is not None:
        yield "name", digest(ascii(short))  # numpy's functions are objects of one class
    wrapped = attribute_or_none(fn, "__wrapped__")
    if is_function(wrapped):
        yield from facts_of(wrapped, seen)


# Values as text


def text_of(value: Any, seen: Seen) -> str:
    """A text that is the same in every process: of plain values in full, of others the name of their type.

    That of a function is made once, however often it occurs: functions may be made of each other, or of themselves.
    """
    kind = type(value)
    if kind is int:
        return hex(value)  # ascii() refuses more than 4300 digits
    if kind is bytes:
        return f"<bytes {sha256(value).hexdigest()}>"  # may be large
    if kind in PLAIN:
        return ascii(value)
    if (parts := parts_of(value)) is not None:
        return f"{kind.__qualname__}({', '.join(text_of(part, seen) for part in parts)})"
    if kind is frozenset:  # sorted, because its order differs between processes
        return f"{{{', '.join(sorted(text_of(part, seen) for part in value))}}}"
    if kind is Pattern:
        return f"<pattern {text_of(value.pattern, seen)} {value.flags:d}>"
    if kind is CodeType:
        return text_of_code(value)
    if is_function(value):
        if id(value) not in seen:
            facts = dict(facts_of(value, seen))
            seen[id(value)] = value, f"<{name_of(value)} {sorted(facts.items())}>"
        return seen[id(value)][1]
    return f"<{kind.__qualname__}{value_of(value, seen)}>"


def value_of(value: Any, seen: Seen) -> str:
    """What follows the name of the type: the value, if that cannot change, else nothing."""
    if isinstance(value, Enum):
        return f" {text_of((value.name, value._value_), seen)}"
    if is_scalar(type(value)):
        return f" {value.item()!a}"
    return f" {str(value)!a}" if is_spoken(type(value)) else ""


def text_of_code(code: CodeType) -> str:
    """What code does, without where it stands: no line numbers, no names of files."""
    counts = code.co_argcount, code.co_posonlyargcount, code.co_kwonlyargcount, code.co_flags & TAKES_REST
    names = code.co_names, code.co_varnames, code.co_freevars, code.co_cellvars
    return f"<code {text_of((*counts, code.co_code, *names, code.co_consts), {})}>"


@lru_cache
def digest_of_code(code: CodeType) -> str:
    """The digest of a code object's text."""
    return digest(text_of_code(code))


def is_plain(value: Any) -> bool:
    """Whether a value cannot change, so that its text tells it in full; what may change within it counts by its type."""
    kind = type(value)
    is_one = kind in PLAIN or kind in (int, Pattern, frozenset) or issubclass(kind, Enum)
    return is_one or is_spoken(kind) or is_scalar(kind) or parts_of(value) is not None


def parts_of(value: Any) -> Iterable[Any] | None:
    """What a tuple consists of, or the fields of a frozen dataclass or its subclass; None for other objects."""
    kind = type(value)
    if issubclass(kind, tuple):
        return value  # type: ignore[no-any-return]  # a tuple
    if not getattr(getattr(kind, "__dataclass_params__", None), "frozen", False):
        return None
    return [getattr(value, field.name, None) for field in fields(kind) if field.compare]


def is_scalar(kind: type) -> bool:
    """Whether this is a type of numpy's for single numbers or texts; numpy is not imported to find out."""
    return kind.__module__ == "numpy" and any(base.__name__ in SCALARS for base in kind.__mro__)


def is_spoken(kind: type) -> bool:
    """Whether ``str`` tells the value of objects of this type."""
    return kind.__qualname__ in SPOKEN and kind.__module__.partition(".")[0] in HOMES


def is_function(value: Any) -> bool:
    """Whether a value is identified as functions are: also a callable with a name, such as ``functools.cache`` makes."""
    return isinstance(value, FUNCTIONS) or (callable(value) and name_in(value, "__name__") is not None)


def digest(text: str) -> str:
    """What is kept of a value, so that no password can be read in a journal or a message."""
    return sha256(text.encode()).hexdigest()[:16]
