"""The intake, where the caller's input becomes tasks.

Input is read lazily, in the caller's thread, in small portions: ``Intake.read`` stops after a
millisecond, so that a slow input never keeps results waiting for longer than its own next item.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Hashable, Iterable, Iterator, Mapping, Sized
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Any

from parallelkit._coroutine_functions import check_plain
from parallelkit._errors import InputError
from parallelkit._marks import UNSET
from parallelkit._tasks import Own, Task, as_call, call_star, check_tasks, own_options

PORTION = 0.001  # seconds that one portion of reading may take

Trait = tuple[float, tuple[Hashable, ...]]
"""What decides when a ready task may start: its priority, and its group under each limit."""


@dataclass(slots=True)
class Portion:
    """Tasks just read, in columns.

    ``keys`` None: positions. ``own``: options of their own, by offset. ``traits`` None: no limits, no
    priorities. ``parent``: the key of the task that they came from.
    """

    items: list[Any] = field(default_factory=list)
    keys: list[Any] | None = None
    own: dict[int, Own] = field(default_factory=dict)
    traits: list[Trait] | None = None
    parent: Any = None


@dataclass(frozen=True, slots=True)
class Shape:
    """How an item becomes a task.

    ``tasks``: items are callables or ``Task`` objects. ``gated``: priority and groups are wanted, by
    ``priority`` and ``bys``. ``fn``: every item becomes a call of its own (a run with ``then``).
    ``only_plain``: the executor, where it cannot run coroutine functions. ``check_key`` raises for a key
    (or UNSET) that will not do, given its position.
    """

    tasks: bool = False
    key: Callable[[Any], Any] | None = None
    gated: bool = False
    priority: Callable[[Any], float] | None = None
    bys: tuple[Callable[[Any], Hashable] | None, ...] = ()
    fn: Callable[..., Any] | None = None
    star: bool = False
    only_plain: Any = None
    check_key: Callable[[Any, int], None] | None = None

    @property
    def plain(self) -> bool:
        """Whether an item is a task just as it is."""
        return not (self.tasks or self.gated or self.fn is not None)

    def key_of(self, item: Any, position: int) -> Any:
        """The task's key, or UNSET where its index will do."""
        if isinstance(item, Task) and (self.tasks or self.fn is not None):
            return self.checked(item.key, position)
        if self.tasks or self.key is None:
            return self.checked(UNSET, position)
        return self.checked(asked("key", self.key, item, position), position)

    def checked(self, key: Any, position: int) -> Any:
        """The key itself; raises where it will not do."""
        if self.check_key is not None:
            self.check_key(key, position)
        return key

    def call_of(self, item: Any) -> Any:
        """What the executor is given."""
        if self.tasks:
            call = as_call(item)
            if self.only_plain is not None:
                check_plain("tasks", call[0], self.only_plain)
            return call
        if self.fn is None:
            return item
        return (call_star, (self.fn, item), {}) if self.star else (self.fn, (item,), {})

    def trait_of(self, item: Any, position: int) -> Trait:
        """Priority and groups; a ``Task`` among plain items is looked at by its first argument."""
        subject = item.args[0] if isinstance(item, Task) and self.fn is not None and item.args else item
        return self._priority_of(item, subject, position), tuple(
            None if by is None else hashable(asked("by", by, subject, position), position) for by in self.bys
        )

    def _priority_of(self, item: Any, subject: Any, position: int) -> float:
        if isinstance(item, Task) and item.priority is not None:
            return item.priority
        if self.priority is None:
            return 0.0
        return comparable(asked("priority", self.priority, subject, position), position)


class Intake:
    """Reads the caller's input. ``size`` is its length where known, ``error`` what ended it early.

    ``seconds`` is the time that reading has taken, with the callables that are asked about items.
    Sized input that has keys is keyed here, at the door; all else, and in streams (``lazily``) all,
    as it is read.
    """

    def __init__(
        self,
        source: Iterable[Any],
        shape: Shape,
        clock: Callable[[], float] = time.monotonic,
        *,
        lazily: bool = False,
    ) -> None:
        self._clock = clock
        self.error: InputError | None = None
        self.exhausted = False
        self.read_so_far = 0
        self.seconds = 0.0
        self.shape = shape
        self.size: int | None = len(source) if isinstance(source, Sized) else None
        self.keys: list[Any] | None = None  # of all the input, where they are known before the run
        self._seen: dict[Any, int] = {}
        if isinstance(source, Mapping):
            if shape.tasks:
                check_tasks(source.values())
            self.keys = [shape.checked(key, position) for position, key in enumerate(source)]
            self._seen = {key: position for position, key in enumerate(self.keys)}
            source = map(source.__getitem__, self.keys)
        elif self.size is not None and (shape.tasks or (shape.key is not None and not lazily)):
            source = self._check_at_the_door(source, keys=not lazily)
        self._source = source
        self._iterator: Iterator[Any] | None = None
        self._bulk, self._stride = isinstance(source, (list, tuple, range)), 1

    def _check_at_the_door(self, source: Iterable[Any], *, keys: bool) -> list[Any]:
        items = list(source)
        if self.shape.tasks:
            check_tasks(items)
        if not keys:
            return items
        self.keys = [self.shape.key_of(item, position) for position, item in enumerate(items)]
        for position, key in enumerate(self.keys):
            self._note(position if key is UNSET else key, position)
        return items

    def read(self, limit: int) -> Portion | None:
        """Up to ``limit`` tasks, or what can be read in a millisecond; None where there is nothing.

        An input, or a callable that is asked about an item, that raises ends the input; ``error`` is
        set then.
        """
        if self.exhausted:
            return None
        began = self._clock()
        try:
            return self._read(limit)
        finally:
            self.seconds += self._clock() - began

    def _read(self, limit: int) -> Portion | None:
        items = self._take(limit)
        first = self.read_so_far
        if self.shape.plain and (self.keys is not None or self.shape.key is None):
            keys = None if self.keys is None else self.keys[first : first + len(items)]
            portion = Portion(items, keys)
        else:
            portion = self._shaped(items, first)
        self.read_so_far = first + len(portion.items)
        return portion if portion.items else None

    def _take(self, limit: int) -> list[Any]:
        if self._bulk:
            self._iterator = self._iterator or iter(self._source)
            items = list(islice(self._iterator, limit))
            self.exhausted = len(items) < limit
            return items
        # Nothing of a portion starts before it is whole: an input that is slow is read one by one.
        items, limit, self._stride = [], min(limit, self._stride), 1
        end = self._clock() + PORTION
        try:
            if self._iterator is None:
                self._iterator = iter(self._source)
            for item in islice(self._iterator, limit):
                items.append(item)
                if self._clock() >= end:
                    return items
            self.exhausted, self._stride = len(items) < limit, 2 * limit
        except Exception as error:
            count = self.read_so_far + len(items)
            self.fail(f"the input raised {type(error).__name__} after {count} items", error)
        return items

    def _shaped(self, items: Iterable[Any], first: int) -> Portion:
        """Items one by one, up to the first about which something is wrong."""
        portion = Portion(keys=[], traits=[] if self.shape.gated else None)
        try:
            for position, item in enumerate(items, first):
                key = self.shape.key_of(item, position) if self.keys is None else self.keys[position]
                if self.keys is None:
                    self._note(position if key is UNSET else key, position)
                self._add(portion, self.shape, item, key, position)
        except InputError as error:
            self.error, self.exhausted = error, True
        except (TypeError, ValueError) as error:
            self.fail(str(error), error)
        return portion

    def _add(self, portion: Portion, shape: Shape, item: Any, key: Any, position: int) -> None:
        assert portion.keys is not None, "shaped portions have keys"
        trait = shape.trait_of(item, position) if portion.traits is not None else None
        call = shape.call_of(item)
        own = own_options(item) if shape.tasks else None
        if own is not None:
            portion.own[len(portion.items)] = own
        if portion.traits is not None and trait is not None:
            portion.traits.append(trait)
        portion.keys.append(key)
        portion.items.append(call)

    def adopt(self, children: Iterable[Any], parent: Any, index: int) -> Portion:
        """Tasks that ``then`` made of the outcome under the key ``parent``; raises what is wrong with them."""
        portion = Portion(keys=[], traits=[], parent=parent)
        shape = replace_form(self.shape)
        for position, task in enumerate(children, index):
            key = shape.checked(task.key if isinstance(task, Task) else UNSET, position)
            if key is not UNSET:
                self._note(key, position)
            self._add(portion, shape, task, key, position)
        return portion

    def _note(self, key: Any, position: int) -> None:
        try:
            earlier = self._seen.setdefault(key, position)
        except TypeError:
            raise TypeError(f"key must be hashable, got {key!r} at position {position}") from None
        if earlier != position:
            raise ValueError(f"key must be unique, got {key!r} at positions {earlier} and {position}")

    def forget(self, key: Any) -> None:
        """The task was yielded: its key may come again (streams)."""
        self._seen.pop(key, None)

    def fail(self, message: str, error: Exception) -> None:
        """The input has come to a bad end."""
        self.exhausted = True
        self.error = InputError(message)
        self.error.__cause__ = error

    def close(self) -> None:
        """Close a generator given as input, so that its ``finally`` runs now; what that raises is the input's error."""
        self.exhausted = True
        try:
            if isinstance(self._iterator, Generator):  # others, a file say, are the caller's to close
                self._iterator.close()
        except Exception as error:
            self.fail(f"closing the input raised {type(error).__name__}", error)


def replace_form(shape: Shape) -> Shape:
    """The shape of tasks that come in among items of the map form."""
    return replace(shape, tasks=True, key=None, gated=True, star=False)


def asked(name: str, question: Callable[[Any], Any], item: Any, position: int) -> Any:
    """What the caller's callable says of an item; if it raises, that is the end of the input."""
    try:
        return question(item)
    except Exception as error:
        message = f"{name} raised {type(error).__name__} for the item at position {position}"
        raise InputError(message) from error


def hashable(group: Any, position: int) -> Hashable:
    """A group, which must be hashable."""
    try:
        hash(group)
    except TypeError:
        raise TypeError(f"by must give a hashable group, got {group!r} at position {position}") from None
    return group  # type: ignore[no-any-return]  # hashed just above


def comparable(priority: Any, position: int) -> float:
    """A priority, which must be a number."""
    if isinstance(priority, bool) or not isinstance(priority, (int, float)) or priority != priority:
        raise TypeError(f"priority must be a number, got {priority!r} at position {position}")
    return priority
