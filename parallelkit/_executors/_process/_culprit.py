"""Pickles a job's function and arguments; where that fails, finds the part that is to blame and says what to do about it."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from types import FunctionType, MethodType, ModuleType
from typing import Any, TypeAlias

from parallelkit._executors._contract import Job
from parallelkit._executors._process._captures import given, goes_by_value, numbered, variables
from parallelkit._executors._process._generators import refuse_alike
from parallelkit._raised import attributes_of, describe_error, is_of_signal, notes_of
from parallelkit._worker import _connections
from parallelkit._worker._annotations import DEFERRED, RETURNED
from parallelkit._worker._built import is_field
from parallelkit._worker._editions import Editions
from parallelkit._worker._parts import flaw_of, why_unfit
from parallelkit._worker._script import NAMES
from parallelkit._worker._travel import by_value_pickler, describe, dump, pack

Found: TypeAlias = "tuple[str, object, BaseException]"
"""What cannot be pickled: its name, the object, and the error."""

INSIDE = "create it inside the task"
OF_METHOD = "a method takes its whole object along: pass a plain function and the data that it needs"
OF_SHELL = "it is what a command with ! or % calls, and workers have no IPython: call subprocess.run in place of the command"
OF_PICKLE = "when serializing "
"""How the notes begin that pickle adds to errors, since Python 3.14."""
OUTPUT = ("not opened for reading", "BufferedWriter'", "'_csv.writer'")
"""What errors say of an open file, which each task would overwrite if it opened it itself."""


def pack_job(job: Job) -> bytes:
    """Pickle a job; raises TypeError that names what cannot be pickled, or must not be, and what to do instead."""
    try:
        blob = pack((job.fn, job.args, dict(job.kwargs), job.star), editions=Editions())
    except Exception as error:
        if is_of_signal(error):
            raise
        raise unfit_job(job, error) from error
    refuse_alike(blob, job.fn, job.args, job.kwargs, job.star)
    return blob


def unfit_job(job: Job, error: Exception) -> TypeError:
    """The error of a job whose pickling has raised ``error``."""
    return _unfit(find_culprit(job.fn, job.args, job.kwargs, error), error)


def unfit_initializer(
    initializer: Callable[..., object] | None, initargs: tuple[Any, ...], error: Exception
) -> TypeError:
    """The error of an initializer whose pickling, with its arguments, has raised ``error``."""
    parts = {"initializer": initializer, **numbered("initargs", initargs)}
    cure = "create it inside the initializer, as a global that the program itself does not set"
    return _unfit(_find(parts) or ("initializer with its initargs", initializer, error), error, cure)


def _unfit(found: Found, error: Exception, cure: str = INSIDE) -> TypeError:
    name, culprit, cause = found
    hide_inner_notes(error, cause)
    return TypeError(
        f"{name} cannot be sent to worker processes: "
        f"{describe(culprit)} cannot be pickled {advice(culprit, cause, cure)}"
    )


def hide_inner_notes(error: BaseException, cause: BaseException) -> None:
    """Have the notes of pickle, since Python 3.14, begin at the part to blame, whose error is ``cause``.

    They would name what we send a call as, and a function or a class; if they lead through one of these, none is kept.
    """
    notes = [note for note in notes_of(cause) if _is_of_pickle(note)]
    if any(note == OF_PICKLE + "function object" or note.endswith(" class") for note in notes):
        notes = []
    before = error.__context__  # what plain pickle has raised
    for each in (error,) if before is None else (error, before):
        others = [note for note in notes_of(each) if not _is_of_pickle(note)]
        if len(others) < len(notes_of(each)):
            attributes_of(each)["__notes__"] = others + notes


def _is_of_pickle(note: object) -> bool:
    return isinstance(note, str) and note.startswith(OF_PICKLE)


def advice(culprit: object, cause: BaseException, otherwise: str = INSIDE) -> str:
    """Why a part of a call cannot be pickled, and what to do about it; ``otherwise``: if nothing better is known."""
    if otherwise == INSIDE and (place := _place_of(culprit)) is not None:
        otherwise = "import it inside the task (from {} import {}), so that each worker has its own".format(
            *place
        )
    return f"({why_unfit(culprit, cause)}); {_remedy_for(culprit, cause, otherwise)}"


def _remedy_for(culprit: object, cause: BaseException, otherwise: str) -> str:
    from concurrent.futures import Future

    why = describe_error(cause)
    if isinstance(culprit, (type, FunctionType)):
        otherwise = "have it at the top level of a module, which workers import"
    elif type(culprit) is MethodType:
        otherwise = OF_SHELL if culprit.__name__ == "get_ipython" else OF_METHOD
    elif isinstance(culprit, ContextVar):
        otherwise = "read it before the call, and pass its value in args"
    elif type(culprit).__module__ == "ratelimit.decorators":  # each worker would count for itself
        otherwise = "take the decorator off and pass limits=RateLimit(calls, per=period), which holds for all workers together"
    elif type(culprit).__module__ == "multiprocessing.sharedctypes":  # one in each worker would not do
        otherwise = "return the values, or pass a multiprocessing.shared_memory.SharedMemory"
    elif isinstance(culprit, Future):
        otherwise = "pass its result() in place of it"
    elif any(word in why for word in OUTPUT):
        otherwise = "return what is to be written, and write it where the outcomes are read"
    if "shared between processes through inheritance" in why:
        otherwise = f"take locks and queues from multiprocessing.Manager(), or {otherwise}"
    elif _connections.STAYS in why:
        otherwise = "pass a queue that multiprocessing.Manager() makes"
    return f"{otherwise}, or use executor='threads'"


def _place_of(thing: object) -> tuple[str, str] | None:
    """A module that workers can import, a public one if possible, and the name by which it has a thing; None if none has it."""
    places = [
        (module, name)
        for module, loaded in list(sys.modules.items())
        if type(loaded) is ModuleType and module not in NAMES
        for name, value in list(vars(loaded).items())
        if value is thing
    ]
    return min(places, key=lambda place: "._" in f".{place[0]}", default=None)


def find_culprit(fn: object, args: tuple[Any, ...], kwargs: Mapping[str, Any], error: BaseException) -> Found:
    """The part of a call that cannot be pickled; ``error`` is what pickling the whole call has raised."""
    parts = {"fn": fn, **given(args, kwargs)}
    return _find(parts) or ("fn with its args and kwargs", fn, error)


def _find(parts: Mapping[str, object]) -> Found | None:
    for name, part in parts.items():
        cause = flaw_of(part)
        if cause is not None:
            return innermost(name, part, cause)
    return None


def _flaw_past(cls: type, thing: object) -> BaseException | None:
    """The error that pickling a thing raises, if any, with a class left out."""
    return flaw_of(thing, lambda thing: dump(_pickler_past(cls), thing, None))


def _pickler_past(cls: type) -> Any:
    class Past(by_value_pickler()):  # type: ignore[misc]  # cloudpickle's, which has no types
        def persistent_id(self, obj: object) -> bool | None:
            return True if obj is cls else None

    return Past


def innermost(name: str, thing: object, cause: BaseException) -> Found:
    """The part of a thing that is to blame: a variable used by a function, or by one that it uses; an attribute of a class."""
    seen: list[object] = []
    while isinstance(thing, FunctionType):
        seen.append(thing)
        for variable, value in variables(thing):
            why = flaw_of(value)
            if why is not None and not _is_inner(value) and all(value is not each for each in seen):
                name, thing, cause = f"{variable}, which {describe(thing)} uses,", value, why
                break
        else:
            break
    return _by_class(thing) or (name, thing, cause)


def _is_inner(value: object) -> bool:
    """Whether it is a function of the standard library's (a decorator's inner one, say), whose name the user does not know."""
    return type(value) is FunctionType and str(value.__module__).partition(".")[0] in sys.stdlib_module_names


def _by_class(thing: object) -> Found | None:
    """The class, or the attribute of it, that keeps a thing from being pickled, if that class is pickled by value."""
    owner = thing.__self__ if isinstance(thing, MethodType) else thing
    last = owner if isinstance(owner, type) else type(owner)
    for cls in reversed(last.__mro__[:-1]):
        why = flaw_of(cls) if goes_by_value(cls) else None
        if why is not None:
            for name, value in vars(cls).items():
                never_pickled = name in ("_abc_impl", DEFERRED) or is_field(value)
                flaw = None if never_pickled else _flaw_past(cls, value)
                if flaw is not None:
                    shown = "__annotations__" if name == RETURNED else name
                    return _in_method(value, cls) or (f"{shown}, which {describe(cls)} has,", cls, flaw)
            return describe(cls), cls, why
    return None


def _in_method(method: object, cls: type) -> Found | None:
    """The variable that is to blame among those that a method uses."""
    for variable, value in variables(method) if isinstance(method, FunctionType) else ():
        flaw = _flaw_past(cls, value)
        if flaw is not None:
            why = "its class is sent with all methods; one at the top level of a module would be imported"
            return f"{variable}, which {describe(method)} uses ({why}),", value, flaw
    return None
