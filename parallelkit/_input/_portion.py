"""``Portion``: a few tasks, on their way from the intake to the scheduler."""

from __future__ import annotations

from array import array
from typing import Any

from parallelkit._input._shape import Shape, Trait
from parallelkit._marks import UNSET
from parallelkit._policies import is_bounded
from parallelkit._tasks import Own, own_options


class Portion:
    """Tasks just read from the input, or made by ``then``, in columns.

    ``keys``: None if the keys are positions. ``own``: options of single tasks, by offset. ``traits``: None
    in a run without limits or priorities. ``parent``: the key of the task from whose outcome ``then`` made
    these; UNSET for the input. ``read_at``: when each was read; None for just now.
    """

    def __init__(
        self,
        items: list[Any] | None = None,
        keys: list[Any] | None = None,
        traits: list[Trait] | None = None,
        parent: Any = UNSET,
        read_at: array[float] | None = None,
    ) -> None:
        self.items: list[Any] = [] if items is None else items
        self.keys = keys
        self.own: dict[int, Own] = {}
        self.traits = traits
        self.parent = parent
        self.read_at = read_at

    def add(self, shape: Shape, item: Any, key: Any, position: int) -> None:
        """Add the task that an item becomes; raises if anything is wrong with the item."""
        assert self.keys is not None, "shaped portions have keys"
        call = shape.call_of(item, position)
        own = own_options(item) if shape.tasks else None
        if self.traits is not None:
            self.traits.append(shape.trait_of(item, position))
        if own is not None:
            self.own[len(self.items)] = own
        self.keys.append(key)
        self.items.append(call)

    @property
    def is_ordered(self) -> bool:
        """Whether a task of these has a priority, or retries that must start by a certain time."""
        return any(priority for priority, _ in self.traits or ()) or any(
            is_bounded(own.policy) for own in self.own.values()
        )

    def extend(self, more: Portion) -> None:
        """Append the next portion of the same run."""
        self.own.update((len(self.items) + offset, own) for offset, own in more.own.items())
        self.items += more.items
        for column, others in ((self.keys, more.keys), (self.traits, more.traits)):
            if column is not None and others is not None:
                column += others

    def cut(self, end: int) -> None:
        """Drop the tasks from the offset ``end`` on."""
        for column in (self.items, self.keys, self.traits):
            if column is not None:
                del column[end:]
        self.own = {offset: own for offset, own in self.own.items() if offset < end}
