"""Pickling of errors: whole where that is proven to work, else as much of them as can be sent.

An error is pickled together with its chain, its notes and its tracebacks, and unpickled on the spot to prove that it
will arrive. If that fails, it first loses the attributes that cannot be pickled (with a note that says so), and then
its class: a ``RemoteError`` stands in for it.
"""

from __future__ import annotations

from _pickle import Pickler, PicklingError, dumps, loads
from collections.abc import Callable
from functools import cache
from io import BytesIO
from types import CoroutineType, TracebackType

from parallelkit._error_text import format_alone, format_error
from parallelkit._raised import (
    OWN,
    describe_error,
    drop_frames,
    is_of_signal,
    notes_of,
    repr_of,
    tolerated,
    traceback_of,
)
from parallelkit._worker._forms import CHAIN, SHOWN, form_of, make_remote, set_state
from parallelkit._worker._parts import why_unfit
from parallelkit._worker._script import MARK, is_meant
from parallelkit._worker._tracebacks import build_traceback, frames_of
from parallelkit._worker._travel import by_value_pickler, unpack

TYPE_CHECKING = False  # importing typing would cost a worker a third of its start
if TYPE_CHECKING:
    from typing import Any

    from parallelkit._worker._forms import Form

RAISED, UNSENDABLE = range(2)


def capture(error: BaseException) -> bytes:
    """What a task raised, as bytes for ``restore``; never raises."""
    try:
        if issubclass(type(error), MemoryError):
            _free_frames(error)
        return capture_here(error)
    except BaseException as worse:  # the error's class raises it, or an alarm that a task has set
        return capture_here(error, whole=is_of_signal(worse))


def capture_here(error: BaseException, whole: bool = True, by_name: bool = False) -> bytes:
    """The same for the caller's process: lets Ctrl-C through, since the error's class may hang. Not ``whole``: text only.

    ``by_name``: for a program that has the script's classes itself, as one that resumes does.
    """
    drop_frames(error)
    kind = f"{type(error).__module__}.{type(error).__qualname__}"
    packed = _pack_error(error, by_name) if whole else None
    return dumps((RAISED, packed, describe_error(error), kind, _text_of(error)), 5)


def capture_unsendable(value: object, error: BaseException) -> bytes:
    """The error of a task whose value cannot be pickled, as bytes for ``restore``."""
    kind = f"{type(value).__module__}.{type(value).__qualname__}".removeprefix("builtins.")
    advice = "return plain data, or use executor='threads'"
    if type(value) is CoroutineType:  # ``isinstance`` would ask a proxy for its class, which may raise
        value.close()  # else Python warns, beside the point, that it was never awaited
        advice = "have the task call asyncio.run, or pass the coroutine function itself (async def) to run_parallel with executor='threads'"
    try:
        why = why_unfit(value, error)
    except BaseException:  # an alarm that a task has set
        why = describe_error(error)
    told = f"returned a {kind}, which cannot be pickled ({why}); {advice}"
    return dumps((UNSENDABLE, isinstance(error, PicklingError), told, "", ""), 5)


def restore(blob: bytes, label: Callable[[], str]) -> tuple[BaseException, str, bool]:
    """The error, its traceback as text, and whether it is final: a retry cannot help."""
    what, packed, shown, kind, text = loads(blob)
    if what == UNSENDABLE:
        return unpicklable(f"{label()} {shown}", by_pickle=packed), "", True
    return _unpack_error(packed, shown, kind), text, False


def shown_in(blob: bytes) -> str:
    """What such an error says."""
    shown: str = loads(blob)[2]
    return shown


def unpicklable(message: str, by_pickle: bool) -> Exception:
    """The error of what cannot be pickled, of the type that standard pools would raise."""
    return PicklingError(message) if by_pickle else TypeError(message)


def _unpack_error(packed: bytes | None, shown: str, kind: str) -> BaseException:
    try:
        if packed is not None:
            error = unpack(packed)
            if isinstance(error, BaseException):
                return error
    except BaseException as failed:  # its class may raise anything when it is unpickled
        if is_of_signal(failed):
            raise
        shown = f"{shown} (it broke on unpickling: {describe_error(failed)})"
    return make_remote(f"{kind}: {shown.removeprefix(kind.rpartition('.')[2] + ': ')}", kind)


def _free_frames(error: BaseException) -> None:
    """Release the local variables of the frames in its traceback: they are what fills the memory."""
    frames = traceback_of(error)
    while frames is not None:
        try:
            frames.tb_frame.clear()
        except RuntimeError:
            pass  # still running, so it is ours
        frames = frames.tb_next


def _text_of(error: BaseException) -> str:
    try:
        return format_error(error, traceback_of(error))
    except BaseException as worse:
        if is_of_signal(worse):
            raise
        shown = format_alone(error, traceback_of(error))
        return f"{shown}(its causes, if any, cannot be shown: {describe_error(worse)})\n"


def _pack_error(error: BaseException, by_name: bool) -> bytes | None:
    """The pickle of an error with its chain, notes and tracebacks, proven to arrive; None if not even a stand-in does."""
    for with_chain in (True, False):
        for pickler in (_PlainPickler, _by_value_pickler):  # cloudpickle takes 20 ms to import
            with tolerated():
                packed = _dump(error, pickler, with_chain)
                if by_name or pickler is not _PlainPickler or packed.rfind(MARK) < 0 or not is_meant(packed):
                    unpack(packed)
                    return packed
    return None


def _dump(error: BaseException, pickler: Any, with_chain: bool) -> bytes:
    file = BytesIO()
    pickler(file, with_chain).dump(error)
    return file.getvalue()


class _KnowsErrors:
    """A mixin that makes a pickler handle errors and tracebacks."""

    def __init__(self, file: BytesIO, with_chain: bool) -> None:
        super().__init__(file, 5)  # type: ignore[call-arg]  # the base is found at run time
        self.forms: dict[int, Form] = {}
        self.with_chain = with_chain

    def reducer_override(self, obj: Any) -> Any:
        if isinstance(obj, BaseException):
            return self.reduce_error(obj)
        if isinstance(obj, TracebackType):
            return build_traceback, (frames_of(obj),)
        return self.reduce_other(obj)

    def reduce_other(self, obj: Any) -> Any:
        return NotImplemented

    def reduce_error(self, error: BaseException) -> Any:
        form = self.forms.get(id(error))
        if form is None:
            form = self.forms[id(error)] = form_of(error)
        make, args, state = form
        # The chain goes into the state, which is pickled after the pickler has memoized the error:
        # so a chain may lead back to its beginning.
        return make, args, (state, *_attached(error, self.with_chain)), None, None, set_state


class _PlainPickler(_KnowsErrors, Pickler):
    """For errors whose class can be imported at the other end."""


def _by_value_pickler(file: BytesIO, with_chain: bool) -> Any:
    """For errors whose class cannot be imported there."""
    return _by_value_type(by_value_pickler())(file, with_chain)


@cache
def _by_value_type(by_value: Any) -> Any:
    class ByValue(_KnowsErrors, by_value):  # type: ignore[misc]  # the base is found at run time
        def reduce_other(self, obj: Any) -> Any:
            return by_value.reducer_override(self, obj)

    return ByValue


def _attached(error: BaseException, with_chain: bool) -> tuple[Any, ...]:
    """What belongs to an error beside its own state: cause, context, whether that is suppressed, traceback, notes."""
    cause, context, suppress = (OWN[name].__get__(error) for name in CHAIN)
    chain = (cause, context) if with_chain else (None, None)
    shown = [note if isinstance(note, str) else repr_of(note)[:SHOWN] for note in notes_of(error)]
    return (*chain, suppress, traceback_of(error), shown or None)
