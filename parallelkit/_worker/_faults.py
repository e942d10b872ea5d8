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
from types import CoroutineType, FunctionType, TracebackType

from parallelkit._raised import (
    OWN,
    attributes_of,
    describe_error,
    drop_frames,
    give_traceback,
    is_of_signal,
    notes_of,
    tolerated,
    traceback_of,
)
from parallelkit._worker._script import MARK, NAMES, is_meant
from parallelkit._worker._tracebacks import build_traceback, frames_of
from parallelkit._worker._travel import by_value_pickler, pack, unpack

TYPE_CHECKING = False  # importing typing would cost a worker a third of its start
if TYPE_CHECKING:
    from typing import Any

    Form = tuple[Callable[..., Any], tuple[Any, ...], Any]

RAISED, UNSENDABLE = range(2)
CHAIN = ("__cause__", "__context__", "__suppress_context__")


def capture(error: BaseException) -> bytes:
    """What a task raised, as bytes for ``restore``; never raises."""
    try:
        return capture_here(error)
    except BaseException as worse:  # the error's class raises it, or an alarm that a task has set
        return capture_here(error, whole=is_of_signal(worse))


def capture_here(error: BaseException, whole: bool = True) -> bytes:
    """The same for the caller's process: lets Ctrl-C through, since the error's class may hang. Not ``whole``: text only."""
    drop_frames(error)
    if issubclass(type(error), MemoryError):
        _free_frames(error)
    kind = f"{type(error).__module__}.{type(error).__qualname__}"
    packed = _pack_error(error) if whole else None
    return dumps((RAISED, packed, describe_error(error), kind, _text_of(error)), 5)


def capture_unsendable(value: object, error: BaseException) -> bytes:
    """The error of a task whose value cannot be pickled, as bytes for ``restore``."""
    kind = f"{type(value).__module__}.{type(value).__qualname__}".removeprefix("builtins.")
    advice = "return plain data, or use executor='threads'"
    if isinstance(value, CoroutineType):
        value.close()  # else Python warns, beside the point, that it was never awaited
        advice = "pass a coroutine function itself (async def) and executor='threads'"
    named = b"PicklingError" if isinstance(error, PicklingError) else None
    return dumps((UNSENDABLE, named, describe_error(error), kind, advice), 5)


def restore(blob: bytes, label: Callable[[], str]) -> tuple[BaseException, str, bool]:
    """The error, its traceback as text, and whether it is final: a retry cannot help."""
    what, packed, shown, kind, text = loads(blob)
    if what == UNSENDABLE:
        message = f"{label()} returned a {kind}, which cannot be pickled ({shown}); {text}"
        return unpicklable(message, packed is not None), "", True
    return _unpack_error(packed, shown, kind), text, False


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
    return _make_remote(f"{kind}: {shown.removeprefix(kind.rpartition('.')[2] + ': ')}", kind)


def _make_remote(message: str, kind: str) -> BaseException:
    from parallelkit._errors import RemoteError

    return RemoteError(message, kind)


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
        from traceback import format_exception

        return "".join(format_exception(error))
    except BaseException as worse:
        if is_of_signal(worse):
            raise
        return f"{describe_error(error)}\n(its traceback cannot be shown: {describe_error(worse)})\n"


def _pack_error(error: BaseException) -> bytes | None:
    """The pickle of an error with its chain, notes and tracebacks, proven to arrive; None if not even a stand-in does."""
    for with_chain in (True, False):
        for pickler in (_PlainPickler, _by_value_pickler):  # cloudpickle takes 20 ms to import
            with tolerated():
                packed = _dump(error, pickler, with_chain)
                if pickler is not _PlainPickler or packed.find(MARK) < 0 or not is_meant(packed):
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
            form = self.forms[id(error)] = _form_of(error)
        make, args, state = form
        # The chain goes into the state, which is pickled after the pickler has memoized the error:
        # so a chain may lead back to its beginning.
        return make, args, (state, *_attached(error, self.with_chain)), None, None, _set_state


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


def _form_of(error: BaseException) -> Form:
    """How to make this one error again, without its chain, notes and traceback: the first way that is proven to work."""
    for way in (_own_form, _bare_form, _thinned_form):
        with tolerated():
            form = way(error)
            if issubclass(type(error), BaseExceptionGroup):
                return form
            make, args, state = unpack(pack(form))
            copy = make(*args)
            _set_state(copy, (state, None, None, False, None, None))
            if type(copy) is type(error) or type(error).__module__ in NAMES:
                return form
    kind = f"{type(error).__module__}.{type(error).__qualname__}"
    return _make_remote, (f"{kind}: {describe_error(error).partition(': ')[2]}", kind), None


def _own_form(error: BaseException) -> Form:
    """As its class says; the bare form if the class has its own ``__init__`` only, which would get the wrong arguments."""
    cls = type(error)
    if isinstance(cls.__init__, FunctionType) and not isinstance(cls.__reduce__, FunctionType):
        return _bare_form(error)
    reduced = error.__reduce_ex__(5)
    if not isinstance(reduced, tuple) or len(reduced) > 3:
        raise TypeError("this way of pickling is not known here")
    make, args, *state = reduced
    return make, args, state[0] if state else None


def _bare_form(error: BaseException) -> Form:
    return _make_bare, (type(error), *_bare_parts(error)), dict(attributes_of(error))


def _thinned_form(error: BaseException) -> Form:
    """Without the attributes that cannot be pickled, and with texts in place of such arguments."""
    left = []
    state = {}
    for name, value in attributes_of(error).items():
        if _travels(value):
            state[name] = value
        else:
            left.append(name)
    own_args, fields = _bare_parts(error)
    args = tuple(arg if _travels(arg) else describe_error_argument(arg) for arg in own_args)
    left += [name for name, value in fields.items() if not _travels(value)]
    notes = [*notes_of(error), _thinned_note(left, args != own_args)]
    state["__notes__"] = notes
    fields = {name: value for name, value in fields.items() if name not in left}
    return _make_bare, (type(error), args, fields), state


def _thinned_note(left: list[str], args_changed: bool) -> str:
    lost = [f"attribute {name!r}" for name in left] + ["arguments"] * args_changed
    return f"left behind in the worker process, because it cannot be pickled: {', '.join(lost)}"


def describe_error_argument(arg: object) -> str:
    """A text in place of an argument that cannot be pickled."""
    with tolerated():
        return repr(arg)[:200]
    return f"<{type(arg).__qualname__}>"


def _travels(value: object) -> bool:
    with tolerated():
        unpack(pack(value))
        return True
    return False


def _bare_parts(error: BaseException) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The arguments, and the fields of an OSError that are not in its ``__dict__``."""
    names = ("errno", "strerror", "filename", "filename2") if issubclass(type(error), OSError) else ()
    fields = {name: getattr(error, name) for name in names if getattr(error, name) is not None}
    return OWN["args"].__get__(error), fields


def _make_bare(cls: type[BaseException], args: tuple[Any, ...], fields: dict[str, Any]) -> BaseException:
    """Make an error by the ``__init__`` of its builtin base alone: the arguments of its own are not known."""
    error = cls.__new__(cls, *args) if issubclass(cls, BaseExceptionGroup) else cls.__new__(cls)
    builtin = next(base for base in cls.__mro__ if base.__module__ == "builtins")
    try:
        builtin.__init__(error, *args)  # type: ignore[misc]  # on an instance of a subclass
    except TypeError:
        pass  # ``args`` was changed after it was made
    OWN["args"].__set__(error, args)
    for name, value in fields.items():
        object.__setattr__(error, name, value)
    return error


def _attached(error: BaseException, with_chain: bool) -> tuple[Any, ...]:
    """What belongs to an error beside its own state: cause, context, whether that is suppressed, traceback, notes."""
    cause, context, suppress = (OWN[name].__get__(error) for name in CHAIN)
    chain = (cause, context) if with_chain else (None, None)
    shown = [note if isinstance(note, str) else describe_error_argument(note) for note in notes_of(error)]
    return (*chain, suppress, traceback_of(error), shown or None)


def _set_state(error: BaseException, state: tuple[Any, ...]) -> None:
    own, cause, context, suppress, frames, notes = state
    if own is not None:
        if type(error).__setstate__ is BaseException.__setstate__:  # calls __setattr__, which may refuse
            for name, value in own.items():
                object.__setattr__(error, name, value)
        else:
            error.__setstate__(own)
    for name, value in zip(CHAIN, (cause, context, suppress), strict=True):
        OWN[name].__set__(error, value)
    give_traceback(error, frames)
    if notes:
        object.__setattr__(error, "__notes__", notes)
