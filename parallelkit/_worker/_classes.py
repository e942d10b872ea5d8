"""Classes that travel by value: made once in a process, and filled again only where they have changed where they come from.

A class carries an id, by which cloudpickle finds the one that a process has. It would then set all attributes again, to
copies: methods with other globals, counters at old values. What comes back here must not do that to the caller's own
class; nor what comes with the next item to that of a worker, where tasks may keep things. But a worker that stays for
several runs shall have what the script has by now: so what is sent there says which *edition* of the class it is, and
only what differs from what was sent before is set again.
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
        by_file: bool

        def reduce(self, cls: type, reduced: Any) -> Any: ...

    Edition = tuple[float, dict[str, bytes]]
    """When it was seen first, by the clock of the machine, for two runs at a time may overtake each other; and of what each attribute was."""


_made: dict[int, tuple[ref[type], Edition | None]] = {}
"""Those that were made here, by id, for a class need not be hashable, and which edition they have. None: it is not filled yet."""

UNNAMED: Edition = -1.0, {}
"""The edition of one that came without: nothing that has it is filled by what comes in the same way, and all by what comes with one."""

TRACKER = -2
"""Where cloudpickle's id is in what a class or an enum is made from: both end in (…, class_tracker_id, extra)."""


def reduce_class(cls: type, reduced: Any, editions: Editions | None) -> Any:
    """How cloudpickle would make a class anew, but with its slots, and with its edition."""
    if len(reduced) < 6:  # it is found by its name
        return reduced
    reduced = _with_slots(cls, reduced)
    state, _ = reduced[2]
    state.pop("__slotnames__", None)  # copyreg notes it when the first object is pickled, or copied
    return reduced if editions is None else editions.reduce(cls, reduced)


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

    known: type | None = cloudpickle._DYNAMIC_CLASS_TRACKER_BY_ID.get(spec[TRACKER])
    if known is not None:
        return known
    made: type = getattr(cloudpickle, maker)(*spec)
    _made[id(made)] = ref(made, partial(_forget, id(made))), None
    return made


def _forget(name: int, _: object) -> None:
    _made.pop(name, None)


def fill_class(cls: type, state: Any) -> type:
    """Give a class its attributes, if it was made here and has none yet."""
    return fill_edition(cls, (*state, UNNAMED))


def fill_edition(cls: type, told: tuple[dict[str, Any], Any, Edition]) -> type:
    """The same; and one that was made here with an earlier edition gets what has changed. The caller's own is left alone."""
    from cloudpickle import cloudpickle

    attributes, own, edition = told
    _script.arrive_class(cls)
    itself, had = _made.get(id(cls), (None, None))
    if itself is None or itself() is not cls:
        return cls
    if had is None:
        cloudpickle._class_setstate(cls, (attributes, own))
    elif had[0] < edition[0]:
        cloudpickle._class_setstate(cls, (_renewed(cls, attributes, had[1], edition[1]), own))
    else:
        return cls
    _made[id(cls)] = itself, edition
    return cls


def _renewed(
    cls: type, attributes: dict[str, Any], had: dict[str, bytes], has: dict[str, bytes]
) -> dict[str, Any]:
    """What the script has deleted goes. What it has left alone stays, whatever tasks keep there; so does what an initializer has assigned."""
    kept = _script.assigned_to(cls)
    for name in had.keys() - has.keys() - kept:
        if name in vars(cls):
            delattr(cls, name)
    return {n: attributes[n] for n, digest in has.items() if had.get(n) != digest and n not in kept}
