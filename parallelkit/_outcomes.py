"""How a task ended: ``Success`` or ``Failure``; and ``Attempt``, one execution of it.

All instants are seconds since the run began.
"""

from contextvars import ContextVar
from dataclasses import dataclass, fields
from reprlib import Repr
from types import TracebackType
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Literal, NoReturn, Self, TypeAlias, TypeVar

from parallelkit._public import public
from parallelkit._raised import give_traceback, repr_of, traceback_of
from parallelkit._worker._faults import capture_here, restore

K = TypeVar("K")
T = TypeVar("T")
V = TypeVar("V")

WIDE = 60  # characters of a key, a value or an error in the ``repr`` of an outcome

_short = Repr()
_short.maxstring = _short.maxother = WIDE


@public
@dataclass(frozen=True, slots=True)
class Success(Generic[K, V]):
    """A task that returned a value; ``error`` is None.

    - ``attempts``: how many there were; 0 if the value came from a checkpoint or cache.
    - ``index``: the task's place in the order in which the run received the tasks, from 0.
    - ``queued_at``: when the run received the task. ``started_at``, ``duration``: of its last attempt; a value
      from a checkpoint or cache has the time when it was found, and 0. All are in seconds, and ``queued_at``
      and ``started_at`` count from the start of the run.
    - ``worker``: the name of the thread or process, "inline", or the class of another library's pool;
      "checkpoint", or "cache" for a hit of a ``joblib.Memory``, if the value came from there.
    - ``parent``: the key of the task from whose outcome ``then`` made this one.
    """

    ok: ClassVar[Literal[True]] = True
    error: ClassVar[None] = None

    key: K
    index: int
    value: V
    attempts: int
    queued_at: float
    started_at: float
    duration: float
    worker: str
    parent: Any = None

    def __repr__(self) -> str:
        return f"<Success {shown(self.key)}: {shown(self.value)}, {effort(self)}>"

    def unwrap(self) -> V:
        """Return the value.

        >>> Success("a", 0, 42, 1, 0.0, 0.0, 0.1, "thread 1").unwrap()
        42
        """
        return self.value


class Sealed:
    """Pickled with its error as from a worker, so that one that cannot be pickled by itself arrives, too."""

    __slots__ = ()

    def __reduce__(self: Any) -> tuple[Any, ...]:
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        if self.error is not None:
            values["error"] = _seal(self)
            if values["error"] is None:
                return type(None), ()
        return unsealed, (type(self), values)

    def __copy__(self) -> Self:
        """The same: it cannot be changed, and its error stays the one that was raised."""
        return self


def unsealed(kind: type[T], values: dict[str, Any]) -> T:
    """The outcome or attempt that was pickled."""
    if values["error"] is not None:
        values["error"] = restore(values["error"], "a task".__str__)[0]
    return kind(**values)


_seals: ContextVar[dict[int, tuple[object, bytes | None]] | None] = ContextVar(
    "parallelkit_seals", default=None
)
"""What is being pickled within the outermost outcome, itself included, by ``id``, with its error as bytes.

How an error can be pickled is found by trying, so it would be tried again and again for an outcome to which another's error
leads. None as long as it is not known: an outcome to which its own error leads back is None, or its pickle had no end.
"""


def _seal(outcome: Any) -> bytes | None:
    seals = _seals.get()
    if seals is None:
        before = _seals.set({})
        try:
            return _seal(outcome)
        finally:
            _seals.reset(before)
    if id(outcome) not in seals:
        seals[id(outcome)] = outcome, None
        seals[id(outcome)] = outcome, capture_here(outcome.error)
    return seals[id(outcome)][1]


class Framed:
    """A slot for the traceback with which an error arrived; no dataclass field, as it cannot be compared or pickled."""

    __slots__ = ("_frames",)
    _frames: TracebackType | None


@public
@dataclass(frozen=True, slots=True)
class Failure(Framed, Sealed, Generic[K]):
    """A task that has no value, and why; the other fields are those of ``Success``.

    - ``error``: the task's own exception, or one of parallelkit's if the task raised none.
    - ``traceback``: the traceback of the error as text, including the worker's part.
    - ``stack``: where the last attempt stood when it was abandoned or killed, crashed, or was cut off by a
      stop of the run; else None.

    A task that never started has ``started_at`` None, ``attempts`` 0 and ``duration`` 0. If the last call says
    that it did not run its function (by a ``ratelimit.RateLimitException``), it is no attempt: ``attempts`` counts
    those before, ``started_at`` is None and ``duration`` 0.
    """

    ok: ClassVar[Literal[False]] = False

    key: K
    index: int
    error: BaseException
    attempts: int
    queued_at: float
    started_at: float | None
    duration: float
    worker: str | None
    parent: Any = None
    traceback: str = ""
    stack: str | None = None

    def __repr__(self) -> str:
        return f"<Failure {shown(self.key)}: {shown(self.error)}, {effort(self)}>"

    def unwrap(self) -> NoReturn:
        """Raise the error.

        >>> Failure("a", 0, ValueError("no"), 1, 0.0, 0.0, 0.1, "thread 1").unwrap()
        Traceback (most recent call last):
        ValueError: no
        """
        error = with_its_frames(self)
        try:
            raise error
        finally:
            self = error = None  # type: ignore[assignment]  # noqa: PLW0642  # the error holds this frame; IPython reads self

    if not TYPE_CHECKING:  # type checkers shall report ``value``, and any other name that is missing here

        def __getattr__(self, name: str) -> NoReturn:
            """For code that reads the ``value`` of every outcome, say what the task raised."""
            if name == "value":
                message = f"{self!r} has no value; ask ok first, or unwrap(), which raises the error"
                raise AttributeError(message, name=name, obj=self) from self.error
            raise AttributeError(f"'Failure' object has no attribute {name!r}", name=name, obj=self)


def keep_frames(failure: Failure[Any], frames: TracebackType | None) -> None:
    """Record the traceback with which the error arrived; by default, it is the one it has when it is first raised."""
    object.__setattr__(failure, "_frames", frames)


def with_its_frames(failure: Failure[Any]) -> BaseException:
    """The error, to be raised, with the traceback with which it arrived: each raise adds to the one that it has."""
    if not hasattr(failure, "_frames"):
        keep_frames(failure, traceback_of(failure.error))
    return give_traceback(failure.error, failure._frames)


def as_raised(failure: Failure[Any]) -> Exception:
    """``with_its_frames`` for a failure of a run; the scheduler has seen to it that its error is an ``Exception``."""
    error = with_its_frames(failure)
    assert isinstance(error, Exception), f"a bare {type(error).__name__} became an outcome"
    return error


def shown(thing: object) -> str:
    """A shortened ``repr`` on one line.

    >>> shown("a" * 100)
    "'aaaaaaaaaaaaaaaaaaaaaaaaaaa...aaaaaaaaaaaaaaaaaaaaaaaaaaaa'"
    """
    return " ".join(repr_of(thing, _short.repr).split())


def effort(outcome: Success[Any, Any] | Failure[Any]) -> str:
    """The attempts, unless there was one, and the seconds that an outcome took; or where it is from, without an attempt.

    >>> effort(Success("a", 0, 42, 3, 0.0, 0.0, 2.0, "thread 1"))
    '3 attempts, 2 s'
    """
    if not outcome.attempts:
        return f"from the {outcome.worker}" if outcome.worker else "never started"
    times = f"{outcome.attempts} attempts, " if outcome.attempts > 1 else ""
    return f"{times}{outcome.duration:.3g} s"


Outcome: TypeAlias = Success[K, V] | Failure[K]


@public
@dataclass(frozen=True, slots=True)
class Attempt(Sealed, Generic[K]):
    """One execution of a task, with the task's ``key`` and ``index``.

    ``number``: 1 for the task's first attempt. ``error``: None if it returned a value. ``started_at``:
    seconds since the run began, None if it never started. ``duration``: in seconds.
    """

    key: K
    index: int
    number: int
    started_at: float | None
    duration: float
    worker: str | None
    error: BaseException | None
