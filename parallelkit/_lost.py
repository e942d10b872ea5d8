"""``Lost``: what is noted of an attempt that gave no value, and the ``Failure`` and texts made from it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from functools import lru_cache
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeGuard, TypeVar

from parallelkit._error_text import format_alone, format_error
from parallelkit._raised import add_note, give_traceback, tolerated, traceback_of

if TYPE_CHECKING:
    from parallelkit._outcomes import Failure

E = TypeVar("E", bound=BaseException)

SHOWN = 20
"""How many lines of a stack, the innermost ones, a note on an error has."""

UNSHOWN = re.compile(
    r'^(?P<indent>[ |+]*)File "(?P<path>.+)", line (?P<number>\d+), in .*\n(?!(?P=indent)  )', re.MULTILINE
)
"""A frame of a traceback without its line of code."""

STOPPED = "the run was stopped before this task was done: "

BECAUSE = "\nThe above exception was the direct cause of the following exception:\n\n"  # as Python prints it


class Lost:
    """One attempt that gave no value; ``number`` counts the task's attempts, this one included.

    Of an attempt that was cut off by the stop of the run, ``error`` is that of the attempt before it; None
    if it was the first.
    """

    __slots__ = ("ended", "error", "frames", "number", "stack", "started", "text", "worker")

    def __init__(
        self,
        error: BaseException | None,
        number: int,
        started: float | None,
        ended: float,
        worker: str | None,
        text: str = "",
        stack: str | None = None,
    ) -> None:
        self.error = error
        self.number = number
        self.started = started
        self.ended = ended
        self.worker = worker
        self.text = text
        self.stack = stack
        # As it is now: the error's own traceback grows whenever it is raised again, by ``unwrap`` for one.
        self.frames = None if error is None else traceback_of(error)

    @property
    def raised(self) -> bool:
        """Whether the task raised the error; one that we made (a timeout, a death) has not been raised yet."""
        return self.frames is not None or bool(self.text)

    @property
    def traceback(self) -> str:
        """The traceback as text."""
        if self.text:
            return with_source(self.text)
        return "" if self.error is None else as_text(self.error, self.frames)

    def sealed(self, change: Callable[[Any], Any]) -> Lost:
        """A copy with ``change`` applied to the error, and the traceback as text, so that it can be pickled.

        The same of such a copy, with a ``change`` that restores the error, leads back: the frames are then those
        with which the error arrived.
        """
        seals = isinstance(self.error, BaseException)
        text = self.traceback if seals else self.text
        made = Lost(None, self.number, self.started, self.ended, self.worker, text, self.stack)
        made.error = None if self.error is None else change(self.error)
        if not seals and isinstance(made.error, BaseException):
            made.frames = traceback_of(made.error)
        return made


def failure(
    key: Any, index: int, lost: Lost, queued: float, began: float, parent: Any = None
) -> Failure[Any]:
    """Make a ``Failure`` from what was noted of the last attempt."""
    from parallelkit._outcomes import Failure, keep_frames

    start = lost.started
    assert lost.error is not None, "an attempt that was cut off is wrapped by cancelled() first"
    made = Failure(
        key=key,
        index=index,
        error=lost.error,
        attempts=lost.number,
        queued_at=queued - began,
        started_at=None if start is None else start - began,
        duration=0.0 if start is None else lost.ended - start,
        worker=lost.worker,
        parent=parent,
        traceback=lost.traceback,
        stack=lost.stack,
    )
    keep_frames(made, lost.frames)
    return made


def raised(lost: Lost) -> Exception:
    """The error, to be raised, with the traceback with which it arrived."""
    error = lost.error
    assert isinstance(error, Exception), f"a bare {type(error).__name__} became an outcome"
    give_traceback(error, lost.frames)
    return error


def is_of_stop(error: BaseException) -> bool:
    """Whether the stop of this run made the error; a TaskCancelled that a task raised is of a run within it."""
    from parallelkit._cancelled import TaskCancelled

    return type(error) is TaskCancelled and traceback_of(error) is None


def cancelled(reason: str | None, last: Lost | None, cause: BaseException | None = None) -> Lost:
    """What is noted of a task that was not done when the run stopped.

    ``last``: its last attempt, if any. ``cause``: the error that stopped the run, if any; for tasks that never began.
    """
    from parallelkit._cancelled import TaskCancelled

    error = TaskCancelled(f"{STOPPED}{reason}")
    if last is None:
        error.__cause__ = cause
        return Lost(error, 0, None, 0.0, None, _text_of_stop(str(error)) if cause is None else "")
    if last.error is None:  # its first attempt was cut off
        note_where(error, last.stack)
    text = f"{last.text}{BECAUSE}{as_text(error, None)}" if last.text else ""
    error.__cause__ = last.error
    return Lost(error, last.number, last.started, last.ended, last.worker, text, last.stack)


@lru_cache(8)
def _text_of_stop(message: str) -> str:
    """The traceback of a task that never began: the same for all, and to format it for each would take ten times as long."""
    from parallelkit._cancelled import TaskCancelled

    return as_text(TaskCancelled(message), None)


def cut_off(started: float, now: float, worker: str, before: Lost | None, stack: str | None = None) -> Lost:
    """What is noted of an attempt that was running when the run stopped; ``stack`` is where it stood."""
    if before is None:
        return Lost(None, 1, started, now, worker, "", stack)
    return Lost(before.error, before.number + 1, started, now, worker, before.text, stack)


def uncounted(lost: Lost) -> Lost:
    """What is noted in place of an attempt in which the function did not run: that it never started."""
    return Lost(lost.error, lost.number, None, lost.ended, None, lost.text, lost.stack)


def note_where(error: E, stack: str | None) -> E:
    """Add a note to the error on where the attempt stood when it was given up, and return it."""
    if stack:
        lines = stack.rstrip().splitlines()
        add_note(error, "\n".join(["it stood at", *["  …"] * (len(lines) > SHOWN), *lines[-SHOWN:]]))
    return error


def as_text(error: BaseException, frames: TracebackType | None) -> str:
    """An error with its traceback, as text; without its causes if these or their frames cannot be formatted."""
    with tolerated():
        return format_error(error, frames)
    return format_alone(error, frames)


def with_source(text: str) -> str:
    """A worker's traceback, with the source lines that it could not read: only the parent has those of notebook cells."""
    return UNSHOWN.sub(_shown, text)


def _shown(frame: re.Match[str]) -> str:
    import linecache

    line = linecache.getline(frame["path"], int(frame["number"])).strip()
    return f"{frame[0]}{frame['indent']}  {line}\n" if line else frame[0]


def is_a(error: BaseException | None, kind: type[E]) -> TypeGuard[E]:
    """Whether the error is of this type; unlike ``isinstance``, runs no code of its own (``__class__``) that may raise."""
    return issubclass(type(error), kind)


def tally(errors: Iterable[BaseException]) -> str:
    """The kinds of many errors with their counts, the most frequent first.

    >>> tally([KeyError("a"), OSError(), KeyError("b")])
    '2 × KeyError, 1 × OSError'
    """
    counts: dict[str, int] = {}
    for error in errors:
        counts[type(error).__name__] = counts.get(type(error).__name__, 0) + 1
    often = sorted(counts.items(), key=lambda kind: -kind[1])
    shown = [f"{count} × {name}" for name, count in often[:4]]
    return ", ".join(shown + ["…"] * (len(often) > 4))


def counted(tasks: int) -> str:
    """A number of tasks in words.

    >>> counted(1), counted(2)
    ('1 task', '2 tasks')
    """
    return f"{tasks} task{'s' * (tasks != 1)}"
