"""Gives each task of a run its key, and sees to it that keys are unique."""

from __future__ import annotations

from collections.abc import Iterable
from operator import index
from typing import Any

from parallelkit._marks import UNSET
from parallelkit._raised import describe_error, is_of_signal


class Naming:
    """Gives every task its key, and refuses a key that another task has.

    An item without a key is keyed by its position in the input. A task made by ``then`` (in a run that
    ``grows``) without a key is numbered on from the end of the input, in order of admission. If that end is
    not known (``size`` is None), every task without a key is keyed by its place in the order of admission:
    those of the input when they are admitted, by ``number``.

    If all items are keyed by position (``positional``), the positions of items that are still unread are
    taken, too. In a stream, two threads use this object at once: the one that reads and the loop's.
    """

    def __init__(self, *, size: int | None = None, grows: bool = False, positional: bool = False) -> None:
        self._size = size
        self._grows = grows
        self._positional = positional
        self._unnamed = 0
        self._seen: dict[Any, int] = {}  # key → position in the input, or ~place in the order of admission

    @property
    def late(self) -> bool:
        """Whether items without a key get one only when they are admitted."""
        return self._grows and self._size is None

    def give(self, keys: Iterable[Any]) -> None:
        """Register keys that are known to be unique, such as those of a mapping; only ``then`` could repeat one."""
        if self._grows:
            self._seen = {key: position for position, key in enumerate(keys)}

    def of_item(self, key: Any, position: int) -> Any:
        """The key of an item of the input; UNSET if its index in the run will be its key."""
        if key is not UNSET:
            self._note(key, position)
            return key
        if self.late or (self._positional and not self._grows):  # then no other task could have this key
            return UNSET
        self._note(position, position)
        return position if self._grows else UNSET

    def of_items(self, keys: list[Any]) -> list[Any]:
        """The keys of all items of the input."""
        try:
            distinct = set(keys)
        except Exception as error:  # below, the first to blame is found
            if is_of_signal(error):
                raise
            distinct = set()
        if len(distinct) == len(keys) and UNSET not in distinct:
            self.give(keys)
            return keys
        return [self.of_item(key, position) for position, key in enumerate(keys)]

    def of_child(self, key: Any, index: int, read_so_far: int) -> Any:
        """The key of a task made by ``then`` that will have the index ``index``."""
        if key is UNSET:
            key = index if self._size is None else self._size + self._unnamed
            self._unnamed += 1
        elif self._is_unread(key, read_so_far):
            raise ValueError(
                f"key must be unique, got {key!r}, which is the key of an item of the input, by its position"
            )
        self._note(key, ~index, "; keep the keys that then has given in a set, and skip those")
        return key

    def number(self, keys: list[Any], first: int) -> None:
        """Give items without a key their index as key; ``first`` is the index of the first item.

        Raises ValueError at the first whose key another task has.
        """
        for place, key in enumerate(keys, first):
            if key is UNSET:
                self._note(place, ~place)
                keys[place - first] = place

    def forget(self, key: Any) -> None:
        """The task was yielded by a stream: its key may be used again."""
        self._seen.pop(key, None)

    def _is_unread(self, key: Any, read_so_far: int) -> bool:
        position = as_position(key) if self._positional else None
        return (
            position is not None and read_so_far <= position and (self._size is None or position < self._size)
        )

    def _note(self, key: Any, position: int, hint: str = "") -> None:
        try:
            earlier = self._seen.setdefault(key, position)
        except TypeError:
            raise TypeError(f"key must be hashable, got {key!r} at position {shown(position)}") from None
        except Exception as error:  # raised by the key's own ``__hash__`` or ``__eq__``
            if is_of_signal(error):
                raise
            raised = describe_error(error)
            raise ValueError(
                f"key must hash and compare, got {key!r} at position {shown(position)}, which raised {raised}"
            ) from error
        if earlier != position:
            raise ValueError(
                f"key must be unique, got {key!r} at positions {shown(earlier)} and {shown(position)}{hint}"
            )


def shown(place: int) -> str:
    """A position in the input, or (``~place``) a place in the order of admission.

    >>> shown(3), shown(~3)
    ('3', '3 of the run')
    """
    return str(place) if place >= 0 else f"{~place} of the run"


def as_position(key: Any) -> int | None:
    """The position that equals this key, or None.

    >>> as_position(3), as_position(3.0), as_position(3.5), as_position("3")
    (3, 3, None, None)
    """
    if isinstance(key, float):
        return int(key) if key.is_integer() else None
    try:
        return index(key)
    except TypeError:
        return None
