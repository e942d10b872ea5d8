"""What a call takes along to another process, by the names that messages have for it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import CellType, FunctionType
from typing import Any


def given(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of a call.

    >>> given((1,), {"b": 2})
    {'args[0]': 1, "kwargs['b']": 2}
    """
    return numbered("args", args) | {f"kwargs[{name!r}]": arg for name, arg in kwargs.items()}


def numbered(name: str, args: Iterable[Any]) -> dict[str, Any]:
    """Arguments by what they are called in messages."""
    return {f"{name}[{number}]": arg for number, arg in enumerate(args)}


def variables(function: FunctionType) -> Iterable[tuple[str, object]]:
    """What a function takes along when it travels by value: its closure, and the globals that it names."""
    yield from zip(function.__code__.co_freevars, map(_content, function.__closure__ or ()), strict=True)
    from cloudpickle.cloudpickle import _extract_code_globals

    known = function.__globals__
    yield from ((name, known[name]) for name in _extract_code_globals(function.__code__) if name in known)


def _content(cell: CellType) -> object:
    try:
        return cell.cell_contents
    except ValueError:  # not assigned yet
        return None
