"""The function and the arguments of a job as bytes; where they cannot travel, which part is to blame, and what to do about it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from types import CellType, FunctionType, MethodType
from typing import Any

from parallelkit._raised import describe_error, is_of_signal
from parallelkit._worker import _ends
from parallelkit._worker._travel import describe, pack


def pack_job(
    fn: Callable[..., Any] | None, args: tuple[Any, ...], kwargs: Mapping[str, Any], star: bool
) -> bytes:
    """The job as bytes; raises TypeError that names what cannot travel, and what to do instead."""
    try:
        return pack((fn, args, dict(kwargs), star))
    except Exception as error:
        if is_of_signal(error):
            raise
        raise unfit_job(fn, args, kwargs, error) from error


def _named(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, Any]:
    parts = {f"args[{n}]": arg for n, arg in enumerate(args)}
    return parts | {f"kwargs[{name!r}]": arg for name, arg in kwargs.items()}


def unfit_job(
    fn: Callable[..., Any] | None, args: tuple[Any, ...], kwargs: Mapping[str, Any], error: Exception
) -> TypeError:
    """Why a job cannot travel, whose packing has raised ``error``."""
    name, culprit, cause = find_culprit(fn, args, kwargs, error)
    return TypeError(
        f"{name} cannot be sent to worker processes: {describe(culprit)} cannot be pickled "
        f"({describe_error(cause)}); {remedy_for(culprit, cause)}"
    )


def remedy_for(culprit: object, cause: BaseException) -> str:
    """What to do about a part of a call that cannot be pickled."""
    if type(culprit) is MethodType:
        return remedy(
            cause,
            "a method takes its whole object along: pass a plain function and the data that it needs",
        )
    return remedy(cause)


def remedy(cause: BaseException, otherwise: str = "create it inside the task") -> str:
    """What to do about something that cannot be pickled; what multiprocessing makes has a way of its own."""
    why = describe_error(cause)
    if "shared between processes through inheritance" in why:
        otherwise = "pass one that multiprocessing.Manager() makes, which can be sent"
    elif _ends.STAYS in why:
        otherwise = "pass a queue that multiprocessing.Manager() makes"
    return f"{otherwise}, or use executor='threads'"


def find_culprit(
    fn: object, args: tuple[Any, ...], kwargs: Mapping[str, Any], error: BaseException
) -> tuple[str, object, BaseException]:
    """What of a call cannot travel, whose packing has raised ``error``: its name, the thing itself, and why."""
    for name, part in {"fn": fn, **_named(args, kwargs)}.items():
        cause = _flaw(part)
        if cause is not None:
            return _innermost(name, part, cause)
    return "fn with its args and kwargs", fn, error


def _flaw(thing: object) -> BaseException | None:
    """What packing it raises, whatever that is; Ctrl-C and other signals are the caller's."""
    try:
        pack(thing)
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        if is_of_signal(error):
            raise
        return error
    return None


def _innermost(name: str, thing: object, cause: BaseException) -> tuple[str, object, BaseException]:
    """Of a function that cannot be pickled, the variable which is to blame: that of a function which it uses, maybe."""
    seen: list[object] = []
    while isinstance(thing, FunctionType):
        seen.append(thing)
        for variable, value in _variables(thing):
            why = _flaw(value)
            if why is not None and all(value is not each for each in seen):
                name, thing, cause = f"{variable}, which {describe(thing)} uses,", value, why
                break
        else:
            break
    return name, thing, cause


def _variables(function: FunctionType) -> Iterable[tuple[str, object]]:
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
