"""``NamedTuple`` as of ``typing``, whose types of fields are for type checkers alone.

That of ``typing`` makes an object of each type that is written as text. A class takes it twice as long, and a run in processes
waits for nearly twenty at its start; since Python 3.14, also for ``ast``.
"""

from __future__ import annotations

from collections import namedtuple
from typing import TYPE_CHECKING, Any

__all__ = ["NamedTuple"]

if TYPE_CHECKING:
    from typing import NamedTuple
else:

    class _Named(type):
        def __new__(cls, name: str, bases: tuple[type, ...], body: dict[str, Any]) -> type:
            if not bases:
                return super().__new__(cls, name, bases, body)
            fields = body["__annotations__"]  # texts, in the order of the fields
            defaults = [body.pop(field) for field in fields if field in body]
            plain = namedtuple(name, fields, defaults=defaults, module=body["__module__"])
            return type(name, (plain,), {"__slots__": (), **body})

    class NamedTuple(metaclass=_Named):
        """The base of a class that has annotated fields; the class itself is a tuple, and not of this type."""
