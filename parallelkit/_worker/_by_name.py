"""Plain pickle for objects of the script's classes, once these are known at the other end: cloudpickle takes three times as long."""

from __future__ import annotations

from _pickle import Pickler, PicklingError
from io import BytesIO
from types import MethodType

from parallelkit._worker._storages import with_storages

TYPE_CHECKING = False  # importing typing would cost a worker a third of its start
if TYPE_CHECKING:
    from _pickle import PickleBuffer
    from collections.abc import Callable
    from typing import Any

SPOILED: set[type] = {MethodType}
"""Types of objects that plain pickle may spoil, so that they must be pickled by value.

Of a method it writes down the name, under which the object may have another method, or none: that of a base class
(``super().run``), a private or a decorated one.
"""


class _Referring(Pickler):
    """Pickles by name, but for classes that have something that stands for them, by their ids."""

    known: dict[int, Any]

    def reducer_override(self, obj: Any) -> Any:
        if type(obj) in SPOILED and not _is_method_of_its_name(obj):
            raise PicklingError("plain pickle would make another object of it")
        return self.known.get(id(obj), NotImplemented)


def _is_method_of_its_name(obj: Any) -> bool:
    return type(obj) is MethodType and getattr(obj.__self__, obj.__name__, None) == obj


def dump_by_name(thing: object, apart: Callable[[PickleBuffer], bool] | None, known: dict[int, Any]) -> bytes:
    """Pickle the thing by plain pickle, with ``known`` in place of these classes; raises PicklingError if that would spoil it."""
    file = BytesIO()
    make: Any = _Referring if known else Pickler
    pickler = (make if apart is None else with_storages(make))(file, 5, buffer_callback=apart)
    if known:
        pickler.known = known
    pickler.dump(thing)
    return file.getvalue()
