"""Many calls of a function that are sent as one task."""

from __future__ import annotations

from collections.abc import Callable

from parallelkit._raised import name_of
from parallelkit._worker._faults import capture

TYPE_CHECKING = False  # importing typing would cost a worker a third of its start
if TYPE_CHECKING:
    from typing import Any


class Chunk:
    """Calls the function with each tuple of arguments, and returns the values; the first call that raises is the last.

    A ``Raised`` then stands in place of its value.
    """

    def __init__(self, fn: Callable[..., Any]) -> None:
        self.fn = fn
        self.__qualname__ = f"{name_of(fn)} (a chunk of calls)"  # for messages

    def __call__(self, calls: list[tuple[Any, ...]]) -> list[Any]:
        values: list[Any] = []
        for args in calls:
            try:
                values.append(self.fn(*args))
            except BaseException as error:  # as ``_serve`` does
                values.append(Raised(capture(error)))
                break
        return values


class Raised:
    """The error of a call, as bytes for ``_faults.restore``."""

    def __init__(self, blob: bytes) -> None:
        self.blob = blob
