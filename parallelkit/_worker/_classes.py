"""Classes that travel by value: made once in a process, and filled again only where they have changed where they come from.

A class carries an id, by which cloudpickle finds the one that a process has. It would then set all attributes again, to
copies: methods with other globals, counters at old values. What comes back here must not do that to the caller's own
class; nor what comes with the next item to that of a worker, where tasks may keep things. But a worker that stays for
several runs shall have what the script has by now: so what is sent there says which *edition* of the class it is.
"""

from __future__ import annotations

from _weakref import ref
from functools import partial
from types import MemberDescriptorType

from parallelkit._worker import _script

TYPE_CHECKING = False  # importing typing would cost a worker a third of its start
if TYPE_CHECKING:
    from typing import Any, Protocol

    class Editions(Protocol):
        def of(self, cls: type) -> bytes: ...


_made: dict[int, tuple[ref[type], bytes | None, frozenset[str]]] = {}
"""Those that were made here, by id, for a class need not be hashable: which edition they have, and the names of its attributes.

None: it is not filled yet."""

renewals = 0
"""How often a class has got another edition."""

UNNAMED = b""
"""The edition of one that came without: it is never filled again by what comes in the same way."""


def reduce_class(cls: type, reduced: Any, editions: Editions | None) -> Any:
    """How cloudpickle would make a class anew, but with its slots, and with its edition."""
    if len(reduced) < 6:  # it is found by its name
        return reduced
    make, spec, state, items, pairs, fill = _with_slots(cls, reduced)
    if editions is not None:
        state, fill = (state, editions.of(cls)), fill_edition
    return make, spec, state, items, pairs, fill


def _with_slots(cls: type, reduced: Any) -> Any:
    """Without them its objects have a ``__dict__``, which fits none here."""
    # A NamedTuple gives itself its slots, and any other tuple can have none.
    if "__slots__" not in vars(cls) or issubclass(cls, tuple):
        return reduced
    make, (kind, name, bases, given, *more), (attributes, own), *rest = reduced
    slots = vars(cls)["__slots__"]
    members = {key for key, value in vars(cls).items() if type(value) is MemberDescriptorType}
    kept = {key: value for key, value in attributes.items() if key not in members}
    return make, (kind, name, bases, given | {"__slots__": slots}, *more), (kept, own), *rest


def make_class(*spec: Any) -> type:
    """One without attributes, or that which this process has."""
    return _find_or_make("_make_skeleton_class", spec)


def make_enum(*spec: Any) -> type:
    """The same of an enum."""
    return _find_or_make("_make_skeleton_enum", spec)


def _find_or_make(maker: str, spec: tuple[Any, ...]) -> type:
    from cloudpickle import cloudpickle

    tracker_id = spec[-2]  # both kinds end in (…, class_tracker_id, extra)
    known: type | None = cloudpickle._DYNAMIC_CLASS_TRACKER_BY_ID.get(tracker_id)
    if known is not None:
        return known
    made: type = getattr(cloudpickle, maker)(*spec)
    _made[id(made)] = ref(made, partial(_forget, id(made))), None, frozenset()
    return made


def _forget(name: int, _: object) -> None:
    _made.pop(name, None)


def fill_class(cls: type, state: Any) -> type:
    """Give a class its attributes, if it was made here and has none yet."""
    return fill_edition(cls, (state, UNNAMED))


def fill_edition(cls: type, told: tuple[Any, bytes]) -> type:
    """The same; and one that was made here with another edition gets what has changed. The caller's own is left alone."""
    global renewals
    from cloudpickle import cloudpickle

    state, edition = told
    _script.arrive_class(cls)
    itself, had, names = _made.get(id(cls), (None, UNNAMED, frozenset()))
    if itself is None or itself() is not cls:
        return cls
    if had is None:
        cloudpickle._class_setstate(cls, state)
    elif edition not in (had, UNNAMED):
        cloudpickle._class_setstate(cls, _renewed(cls, state, names))
        renewals += 1
    else:
        return cls
    _made[id(cls)] = itself, edition, frozenset(state[0])
    return cls


def _renewed(cls: type, state: Any, names: frozenset[str]) -> Any:
    """What the script has deleted goes, and what an initializer has assigned stays."""
    attributes, own = state
    kept = _script.assigned_to(cls)
    for name in names - set(attributes) - kept:
        if name in vars(cls):
            delattr(cls, name)
    return {name: value for name, value in attributes.items() if name not in kept}, own
