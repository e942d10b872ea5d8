"""How to make an error again in another process: the first form that is proven to work, with as much of it as can be sent."""

from __future__ import annotations

from _thread import LockType, RLock, allocate_lock
from collections.abc import Callable, Mapping
from types import BuiltinMethodType, FunctionType, MemberDescriptorType

from parallelkit._raised import (
    OWN,
    attributes_of,
    describe_error,
    give_traceback,
    notes_of,
    repr_of,
    tolerated,
)
from parallelkit._worker._travel import by_value_pickler, dump, pack, unpack

TYPE_CHECKING = False  # importing typing would cost a worker a third of its start
if TYPE_CHECKING:
    from typing import Any

    Form = tuple[Callable[..., Any], tuple[Any, ...], Any]
    """What makes the error, its arguments, and the state to set then."""

FIELDS = (OSError, ImportError, SyntaxError)
"""Builtin classes with attributes that are neither in ``__dict__`` nor, always, in ``args``."""

SHOWN = 200
"""Length up to which the ``repr`` of what cannot be pickled is sent in its place."""

NOTHING, SOME, ALL = range(3)

CHAIN = ("__cause__", "__context__", "__suppress_context__")


def form_of(error: BaseException) -> Form:
    """How to make this one error again, without its chain, notes and traceback: the first way that is proven to work.

    By their own ``__reduce__``, or without what cannot be pickled, some errors lose what they tell of. So among these forms
    one that gives the same text is preferred, and then one that gives any. If no text can be had there, it is sent along.
    """
    must_tell = _tells_how(type(error))
    works: Form | None = None
    mute: Form | None = None
    for way in (_own_form, _bare_form, _thinned_form, _copied_form, _emptied_form):
        must_tell = must_tell or way is _thinned_form
        with tolerated():
            make, args, state = form = way(error)
            if _is_group(error):
                unpack(pack((make, args[2:], state)))  # all but its members, which have forms of their own
                return form
            make, args, state = unpack(pack(form))
            copy = make(*args)
            set_state(copy, (state, None, None, False, None, None))
            if type(copy) is type(error):
                told = _told_by(copy, error)
                if told == ALL or (told == SOME and not must_tell):
                    return form
                if told == SOME and works is None:
                    works = form
                mute = mute or form
    if works is not None:
        return works
    if mute is not None:
        make, args, state = mute
        with tolerated():
            told_form = _make_told, (make, args, str(error)), state
            again, args, _ = unpack(pack(told_form))
            again(*args)
            return told_form
    kind = f"{type(error).__module__}.{type(error).__qualname__}"
    return make_remote, (f"{kind}: {describe_error(error).partition(': ')[2]}", kind), None


def _told_by(copy: BaseException, error: BaseException) -> int:
    """What a copy of an error tells of it."""
    if describe_error(copy) == describe_error(error):
        return ALL
    with tolerated():
        str(copy)
        return SOME
    return NOTHING


def _is_group(error: BaseException) -> bool:
    return issubclass(type(error), BaseExceptionGroup)


def _tells_how(cls: type) -> bool:
    """Whether the class says itself how its errors are made."""
    return isinstance(cls.__reduce__, FunctionType) or isinstance(cls.__reduce_ex__, FunctionType)


def _own_form(error: BaseException) -> Form:
    """As its class says. If that leaves it to Python, which forgets slots and calls ``__init__`` with the wrong arguments: the bare form."""
    cls = type(error)
    if not _tells_how(cls) and (
        isinstance(cls.__init__, FunctionType) or any("__slots__" in vars(base) for base in cls.__mro__)
    ):
        return _bare_form(error)
    reduced: Any = error.__reduce_ex__(5)  # a tuple, or else it is not unpacked into what makes the error
    make, args, *more = reduced
    (state,) = more or [
        None
    ]  # with items, or a way of its own to set the state, the error would arrive without these
    return make, args, state


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
    args = own_args
    if not _is_group(error):
        args = tuple(arg if _travels(arg) else repr_of(arg)[:SHOWN] for arg in own_args)
    left += [name for name, value in fields.items() if not _travels(value)]
    lost = [f"attribute {name!r}" for name in left] + ["arguments"] * (args != own_args)
    state["__notes__"] = [f"left behind, because it cannot be pickled: {', '.join(lost)}"]
    fields = {name: value for name, value in fields.items() if name not in left}
    return _make_bare, (type(error), args, fields), state


def _copied_form(error: BaseException) -> Form:
    """With all that can be pickled, however deep it lies: the error's own text and methods may need some of it.

    A future that an error has, say, keeps its outcome, and gets new locks. What takes part in a copy cannot be pickled
    again in the plain way, so it is sent as bytes.
    """
    note = f"partly {_thinned_form(error)[2]['__notes__'][-1]}"
    return _make_copy, (dump(_thinning_pickler(), error, None), note), None


def _make_copy(blob: bytes, note: str) -> BaseException:
    error: BaseException = unpack(blob)
    attributes_of(error)["__notes__"] = [note]
    return error


def _thinning_pickler() -> Any:
    """A pickler that sends, in place of what cannot be pickled: a new lock, a copy of a mapping, a text."""
    from copy import copy  # late: workers do not need it to start

    class Thinning(by_value_pickler()):  # type: ignore[misc]  # the base is found at run time
        def reducer_override(self, obj: Any) -> Any:
            kind = type(obj)
            if issubclass(kind, BaseException):
                make, args, state = _bare_form(obj)
                return make, args, (state, None, None, False, None, None), None, None, set_state
            if kind is LockType or kind is RLock:
                return (allocate_lock if kind is LockType else RLock), ()
            with tolerated():
                reduced = super().reducer_override(obj)
                if reduced is not NotImplemented:
                    pack(obj)  # what belongs to the script is sent whole, or not at all
                if reduced is not NotImplemented or issubclass(kind, (type, FunctionType)):
                    return reduced
                reduce = self.dispatch_table.get(kind)
                return reduce(obj) if reduce else obj.__reduce_ex__(5)
            with tolerated():
                if issubclass(kind, Mapping):  # such as a view of headers
                    return copy, (obj.copy(),)
            return str, (repr_of(obj)[:SHOWN],)

    return Thinning


_TEXT = "_parallelkit_text"


def _make_told(make: Callable[..., Any], args: tuple[Any, ...], text: str) -> BaseException:
    """Make an error that does not have what its own ``__str__`` needs: of a subclass of its class, whose text is this."""
    error: BaseException = make(*args)
    cls = type(error)
    told = [each for each in type.__subclasses__(cls) if vars(each).get("__str__") is _told_text]
    if not told:
        names = {name: getattr(cls, name) for name in ("__module__", "__qualname__", "__doc__")}
        methods = {"__slots__": (), "__str__": _told_text, "__reduce_ex__": _reduce_told}
        made_by: Any = type(cls)
        told = [made_by(cls.__name__, (cls,), {**names, **methods})]
    error.__class__ = told[0]
    attributes_of(error)[_TEXT] = text
    return error


def _told_text(error: BaseException) -> str:
    text: str = attributes_of(error)[_TEXT]
    return text


def _reduce_told(error: BaseException, protocol: object) -> Form:
    cls = type(error).__base__
    return _make_told, (_make_bare, (cls, *_bare_parts(error)), _told_text(error)), dict(attributes_of(error))


def _emptied_form(error: BaseException) -> Form:
    """The same with None in their place, as in an error that never had them."""
    make, args, state = _thinned_form(error)
    return make, args, dict.fromkeys(attributes_of(error)) | state


def _travels(value: object) -> bool:
    with tolerated():
        unpack(pack(value))
        return True
    return False


def _bare_parts(error: BaseException) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The arguments, and what is not in the ``__dict__``: fields of some builtin classes, and slots, as those of attrs have."""
    fields: dict[str, Any] = {}
    for cls in type(error).__mro__:
        if cls in FIELDS or "__slots__" in vars(cls):
            for name, place in vars(cls).items():
                if isinstance(place, MemberDescriptorType):
                    try:
                        value = place.__get__(error)
                    except AttributeError:
                        continue  # it is empty; so is a builtin field with None
                    if value is not None or cls not in FIELDS:
                        fields.setdefault(name, value)
    return OWN["args"].__get__(error), fields


def _make_bare(cls: type[BaseException], args: tuple[Any, ...], fields: dict[str, Any]) -> BaseException:
    """Make an error by ``__new__`` and ``__init__`` of its builtin base alone: the arguments of its own are not known."""
    maker: Any = cls
    while type(vars(maker).get("__new__")) is not BuiltinMethodType:
        maker = maker.__base__
    # An OSError would be one of a subclass, by its arguments.
    error: BaseException = (
        maker.__new__(cls, *args) if issubclass(cls, BaseExceptionGroup) else maker.__new__(cls)
    )
    builtin = next(base for base in cls.__mro__ if base.__module__ == "builtins")
    try:
        builtin.__init__(error, *args)  # type: ignore[misc]  # on an instance of a subclass
    except TypeError:
        pass  # ``args`` was changed after it was made
    OWN["args"].__set__(error, args)
    for name, value in fields.items():
        _place_of(cls, name).__set__(error, value)
    return error


def _place_of(cls: type, name: str) -> MemberDescriptorType:
    """Where a field lies; a subclass may have a property of its name."""
    places = (vars(base).get(name) for base in cls.__mro__)
    return next(place for place in places if isinstance(place, MemberDescriptorType))


def make_remote(message: str, kind: str) -> BaseException:
    from parallelkit._errors import RemoteError

    return RemoteError(message, kind)


def set_state(error: BaseException, state: tuple[Any, ...]) -> None:
    own, cause, context, suppress, frames, notes = state
    if own is not None:
        cls = type(error)
        usual = cls.__setstate__ is BaseException.__setstate__  # calls __setattr__, which may refuse
        # An inherited __setstate__ may know nothing of the attributes.
        plain = type(own) is dict and not _tells_how(cls)
        if plain or usual:
            for name, value in own.items():
                object.__setattr__(error, name, value)
        else:
            error.__setstate__(own)
        if plain and not usual and not any(vars(base).get("__slots__") for base in cls.__mro__):
            # It may make a new lock, say. Those of attrs and of dataclasses with slots are for fields, which are set.
            with tolerated():
                error.__setstate__(own)
    for name, value in zip(CHAIN, (cause, context, suppress), strict=True):
        OWN[name].__set__(error, value)
    give_traceback(error, frames)
    if notes:  # a form may have added one
        added = [note for note in notes_of(error) if isinstance(note, str) and note not in notes]
        object.__setattr__(error, "__notes__", [*notes, *added])
