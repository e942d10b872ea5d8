"""An error as Python keeps it, past what its class makes of attributes: some refuse them (frozen dataclasses do)."""

from __future__ import annotations

from itertools import pairwise
from types import FrameType, TracebackType

TYPE_CHECKING = False  # importing typing would cost a worker a third of its start
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

OWN: dict[str, Any] = dict(vars(BaseException))
"""What every error has, as descriptors."""

CO_VARARGS = 4  # the module ``inspect`` would cost a worker 10 ms


class tolerated:  # noqa: N801  # used as a function
    """Code that the classes of errors bring along: whatever it raises is passed over, but for Ctrl-C and other signals."""

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, frames: object) -> bool:
        return (
            error is not None and not issubclass(type(error), KeyboardInterrupt) and not is_of_signal(error)
        )


def traceback_of(error: BaseException) -> TracebackType | None:
    """The error's own traceback."""
    frames: TracebackType | None = OWN["__traceback__"].__get__(error)
    return frames


def attributes_of(error: BaseException) -> dict[str, Any]:
    """The error's own attributes."""
    attributes: dict[str, Any] = OWN["__dict__"].__get__(error)
    return attributes


def notes_of(error: BaseException) -> list[Any]:
    """The error's notes; whatever else stands in their place is none."""
    notes = attributes_of(error).get("__notes__")
    return list(notes) if isinstance(notes, (list, tuple)) else []


def give_traceback(error: BaseException, frames: TracebackType | None) -> BaseException:
    """The same error, with this traceback."""
    OWN["__traceback__"].__set__(error, frames)
    return error


def drop_frames(error: BaseException) -> BaseException:
    """Cut the frames of those who call tasks off the head of the traceback, where they are not all there is."""
    frames = traceback_of(error)
    while frames is not None and frames.tb_next is not None:
        if not calls_tasks(frames.tb_frame):
            break
        frames = frames.tb_next
    return give_traceback(error, frames)


def calls_tasks(frame: FrameType) -> bool:
    """Whether it is one of ours, between the executor and the task."""
    return str(frame.f_globals.get("__name__")).startswith(_CALLERS)


_CALLERS = ("parallelkit._executors.", "parallelkit._worker.", "parallelkit._tasks")


def add_note(error: BaseException, note: str) -> None:
    """Add a note, also to an error whose class refuses that, as frozen dataclasses do."""
    try:
        error.add_note(note)
    except Exception as trouble:  # the class's own
        if is_of_signal(trouble):
            raise
        attributes_of(error)["__notes__"] = [*notes_of(error), note]


def describe_error(error: BaseException, where: str = "") -> str:
    """Type and text of an error, also of one whose own ``__str__`` fails, or exits.

    ``where`` comes between: ``KeyError for the item at position 3: 'name'``.
    """
    try:
        text = str(error)
    except BaseException as broken:
        if is_of_signal(broken):
            raise
        text = f"<its text cannot be had: {type(broken).__name__}>"
    kind = f"{type(error).__name__} {where}" if where else type(error).__name__
    return f"{kind}: {text}" if text else kind


def is_of_signal(error: BaseException) -> bool:
    """Whether a signal handler has raised it, in the midst of code that is not to blame.

    Such a handler, and hardly any other function, is given a number and the frame of its caller.
    """
    frames = traceback_of(error)
    while frames is not None and frames.tb_next is not None:
        caller, frames = frames.tb_frame, frames.tb_next
        given = pairwise(_arguments(frames.tb_frame))
        if any(frame is caller and isinstance(number, int) for number, frame in given):
            return True
    return False


def _arguments(frame: FrameType) -> Iterator[Any]:
    """What a function was called with, in order, as far as it has kept it."""
    code, known = frame.f_code, frame.f_locals
    yield from (known[name] for name in code.co_varnames[: code.co_argcount] if name in known)
    if code.co_flags & CO_VARARGS:
        rest = known.get(code.co_varnames[code.co_argcount + code.co_kwonlyargcount])
        yield from rest if isinstance(rest, tuple) else ()
