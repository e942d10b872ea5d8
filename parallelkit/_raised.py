"""Reads and changes exceptions past the hooks of their class: some refuse attributes, as frozen dataclasses do."""

from __future__ import annotations

from itertools import pairwise
from types import FrameType, TracebackType

TYPE_CHECKING = False  # importing typing would cost a worker a third of its start
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any

OWN: dict[str, Any] = dict(vars(BaseException))
"""The descriptors of ``BaseException``, which no subclass can replace."""

CO_VARARGS = 4  # importing ``inspect`` for it would cost a worker 10 ms


class tolerated:  # noqa: N801  # used as a function
    """Suppresses whatever code of an error's class raises, except KeyboardInterrupt and what signal handlers raise."""

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, frames: object) -> bool:
        return error is not None and not is_interrupt(error)


def traceback_of(error: BaseException) -> TracebackType | None:
    """The error's ``__traceback__``."""
    frames: TracebackType | None = OWN["__traceback__"].__get__(error)
    return frames


def attributes_of(error: BaseException) -> dict[str, Any]:
    """The error's ``__dict__``."""
    attributes: dict[str, Any] = OWN["__dict__"].__get__(error)
    return attributes


def attribute_or_none(thing: object, name: str) -> Any:
    """An attribute of anything; None if there is none, or if reading it raises."""
    try:
        return getattr(thing, name, None)
    except BaseException as error:
        if is_interrupt(error):
            raise
        return None


def name_of(fn: object) -> str:
    """The qualified name of a function for messages; that of its class if it has none, or reading it raises, as a proxy's may."""
    name = attribute_or_none(fn, "__qualname__")
    return name if isinstance(name, str) else type(fn).__qualname__


def notes_of(error: BaseException) -> list[Any]:
    """The error's notes; none if ``__notes__`` is no list or tuple."""
    notes = attributes_of(error).get("__notes__")
    return list(notes) if isinstance(notes, (list, tuple)) else []


def give_traceback(error: BaseException, frames: TracebackType | None) -> BaseException:
    """Set the error's traceback, and return the error."""
    OWN["__traceback__"].__set__(error, frames)
    return error


def drop_frames(error: BaseException) -> BaseException:
    """Remove our frames, which called the task, from the head of the traceback, unless no other is left."""
    frames = traceback_of(error)
    while frames is not None and frames.tb_next is not None:
        if not calls_tasks(frames.tb_frame):
            break
        frames = frames.tb_next
    return give_traceback(error, frames)


def calls_tasks(frame: FrameType) -> bool:
    """Whether the frame is one of ours, between the executor and the task."""
    return str(frame.f_globals.get("__name__")).startswith(_CALLERS)


_CALLERS = ("parallelkit._executors.", "parallelkit._worker.", "parallelkit._star", "parallelkit._tasks")


def add_note(error: BaseException, note: str) -> None:
    """Add a note, even if the error's class refuses attributes."""
    try:
        error.add_note(note)
    except BaseException as trouble:  # raised by the error's class
        if is_interrupt(trouble):
            raise
        attributes_of(error)["__notes__"] = [*notes_of(error), note]


def describe_error(error: BaseException, where: str = "") -> str:
    """The type and text of an error, even if its ``__str__`` raises.

    ``where`` goes between them: ``KeyError for the item at position 3: 'name'``.
    """
    try:
        text = str(error)
    except BaseException as broken:
        if is_of_signal(broken):
            raise
        text = f"<its text cannot be had: {type(broken).__name__}>"
    kind = f"{type(error).__name__} {where}" if where else type(error).__name__
    return f"{kind}: {text}" if text else kind


def repr_of(thing: object, show: Callable[[object], str] = repr) -> str:
    """The ``repr`` of a thing, or its type and that of the error if its ``repr`` raises, or exits."""
    try:
        return show(thing)
    except BaseException as broken:
        if is_interrupt(broken):
            raise
        return f"<{type(thing).__name__}, whose repr raised {type(broken).__name__}>"


def in_short(text: str, width: int) -> str:
    """A text of at most ``width`` characters, without its middle if it is longer: keys that begin alike differ at their ends."""
    return text if len(text) <= width else f"{text[: width // 2 - 1]}…{text[width // 2 - width :]}"


def is_interrupt(error: BaseException) -> bool:
    """Whether the error is Ctrl-C, or a signal handler's: not what the code at hand has raised by itself."""
    return issubclass(type(error), KeyboardInterrupt) or is_of_signal(error)


def is_of_signal(error: BaseException) -> bool:
    """Whether a signal handler raised the error, in the middle of code that has nothing to do with it.

    It is recognised by its arguments, an int and the frame of its caller, which hardly any other function takes.
    """
    frames = traceback_of(error)
    while frames is not None and frames.tb_next is not None:
        caller, frames = frames.tb_frame, frames.tb_next
        given = pairwise(_arguments(frames.tb_frame))
        if any(frame is caller and isinstance(number, int) for number, frame in given):
            return True
    return False


def _arguments(frame: FrameType) -> Iterator[Any]:
    """The positional arguments of a call, in order, as far as its frame still has them."""
    code, known = frame.f_code, frame.f_locals
    yield from (known[name] for name in code.co_varnames[: code.co_argcount] if name in known)
    if code.co_flags & CO_VARARGS:
        rest = known.get(code.co_varnames[code.co_argcount + code.co_kwonlyargcount])
        yield from rest if isinstance(rest, tuple) else ()
