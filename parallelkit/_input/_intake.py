"""The intake, where the caller's input becomes tasks.

Input is read lazily, in the caller's thread, in small portions: ``Intake.read`` stops after a
millisecond, so that a slow input never keeps results waiting for longer than its own next item. If
reading may block (``may_block``), what was read should be handed over before more is read. A
``Prefetch`` reads in a thread of its own and knows what has come, so that taking from it never blocks.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from math import inf
from typing import Any

from parallelkit._errors import InputError
from parallelkit._input._naming import Naming
from parallelkit._input._portion import Portion
from parallelkit._input._prefetch import Prefetch
from parallelkit._input._shape import TASKS_AMONG_ITEMS, Shape, all_of, broken_after
from parallelkit._marks import UNSET
from parallelkit._numbers import length_of
from parallelkit._raised import add_note, describe_error, is_of_signal
from parallelkit._system import monotonic
from parallelkit._tasks import check_keys_agree, check_tasks, is_task

PORTION = 0.001  # seconds that one portion of reading may take
MOMENT = 0.05  # seconds for counting what was not read


class Intake:
    """Reads the caller's input, and makes tasks of its items.

    ``size``: its length, where known; once it is read, the true one. ``error``: what ended it early. ``seconds``:
    the time spent on reading, calls of ``key``, ``by`` and ``priority`` included. The constructor takes the keys of
    a mapping and, unless ``lazily`` (in streams), makes those of sized input; others are made as items are read.
    """

    def __init__(
        self,
        source: Iterable[Any],
        shape: Shape,
        clock: Callable[[], float] = monotonic,
        *,
        lazily: bool = False,
    ) -> None:
        self._clock = clock
        self.ended_early: Callable[[], None] = lambda: None  # called when ``error`` is set
        self.error: InputError | None = None
        self.exhausted = False
        self.read_so_far = 0
        self.seconds = 0.0
        self.shape = shape
        self.keys: list[Any] | None = None  # of all the input, where they are known before the run
        items: list[Any] | None = None  # all of them, where they are checked here
        if isinstance(source, Mapping):
            if shape.tasks:
                check_tasks(source.values())
                check_keys_agree(source)
            self.keys = [shape.checked(key, position) for position, key in enumerate(all_of(source))]
            source = map(source.__getitem__, self.keys)
        elif length_of(source) is not None and (shape.tasks or (shape.key is not None and not lazily)):
            source = items = all_of(source)
        self.size = length_of(source if self.keys is None else self.keys)
        positional = shape.key is None and not shape.tasks and self.keys is None
        self.naming = Naming(size=self.size, grows=shape.grows, positional=positional)
        if self.keys is not None:
            self.naming.give(self.keys)
        elif items is not None:
            self._check_at_the_door(items, keys=not lazily)
        self._source = source
        self.prefetch = source if isinstance(source, Prefetch) else None
        self._iterator: Iterator[Any] | None = None
        # All items are there, so that reading costs nothing. No subclasses, which may do anything.
        self.at_hand = type(source) in (list, tuple, range)
        self._stride = 1
        self._whole = shape.ranked and self.size is not None  # to be read at once: any item may come first
        self._at_once = self.at_hand and not any(shape.bys)  # but to call ``by`` may be slow

    def _check_at_the_door(self, items: list[Any], *, keys: bool) -> None:
        if self.shape.tasks:
            check_tasks(items)
        if keys:
            self.keys = self.naming.of_items(self.shape.keys_of(items))
        elif self.shape.check_key is not None:
            self.shape.keys_of(items)  # only checks them: in a stream, a key may come again

    @property
    def may_block(self) -> bool:
        """Whether reading an item may take any time, so that what was read must be handed over before."""
        return self.size is None and self.prefetch is None

    @property
    def ready(self) -> bool:
        """Whether there is something to read; True where the input cannot tell."""
        return self.prefetch is None or self.prefetch.available() > 0

    def read(self, limit: int) -> Portion | None:
        """Up to ``limit`` tasks, or what can be read in a millisecond; None where there is nothing.

        If the input, or a callable that is asked about an item, raises, the input ends and ``error`` is set.
        """
        if self.exhausted:
            return None
        began = self._clock()
        try:
            return self._read(limit)
        finally:
            self.seconds += self._clock() - began

    def _read(self, limit: int) -> Portion | None:
        first = self.read_so_far
        items = self._take_at_once(limit) if self._at_once else self._take(limit)
        if self.shape.plain and (self.keys is not None or self.shape.key is None):
            portion = Portion(list(items))
            if self.keys is not None:
                portion.keys = self.keys[first : first + len(portion.items)]
        else:
            portion = self._shaped(items, first)
        self.read_so_far = first + len(portion.items)
        if self.exhausted and self.size is not None and self.error is None:
            self.size = self.read_so_far  # whatever its ``len`` has said
        return portion if portion.items else None

    def _take_at_once(self, limit: int) -> list[Any]:
        """As ``_take``, at a tenth of the cost; that they are no ``Task`` objects was checked at the door."""
        self._iterator = self._iterator or iter(self._source)
        items = list(islice(self._iterator, limit))
        self._ended_at(len(items), limit)
        return items

    def _take(self, limit: int) -> Iterator[Any]:
        """Up to ``limit`` items, or what can be read in a millisecond."""
        # No task of a portion starts before it is complete, so a slow input is read item by item.
        limit, self._stride = limit if self._whole else min(limit, self._stride), 1
        if self.prefetch is not None:
            limit = min(limit, self.prefetch.available())
        return self._items(limit, inf if self._whole else self._clock() + PORTION)

    def _items(self, limit: int, end: float) -> Iterator[Any]:
        """Items one by one, so that none is read after a bad one, until the instant ``end``; an error of the input ends it."""
        before, count = self.read_so_far, 0
        try:
            if self._iterator is None:
                self._iterator = iter(self._source)
            for item in islice(self._iterator, limit):
                if not (before or count or self.shape.tasks) and is_task(item):
                    self.fail(TASKS_AMONG_ITEMS, TypeError(TASKS_AMONG_ITEMS))
                    return
                count += 1
                yield item
                if self._clock() >= end:
                    return
            self._stride = 2 * limit
            self._ended_at(count, limit)
        except Exception as error:
            self.fail(broken_after(before + count, error), error)

    def _ended_at(self, count: int, limit: int) -> None:
        if count < limit:  # never set to False: a stream's other thread may have ended the input meanwhile
            self.exhausted = True

    @property
    def flows(self) -> bool:
        """Whether to read by ``flow``, and hand over each item before the next is read, which may wait for its task.

        Only for items that are tasks as they are: with limits or priorities it would cost a run half as much again.
        """
        return self.may_block and self.shape.plain

    @property
    def keyed(self) -> bool:
        """Whether the caller gave a ``key`` function."""
        return self.shape.key is not None

    def flow(self, most: int) -> Iterator[tuple[Any, Any]]:
        """Keys and items, one by one, for a millisecond; UNSET stands for a position. What raises ends the input."""
        began, keyed = self._clock(), self.keyed
        try:
            for item in self._items(most, began + PORTION):
                key = self._key(item, self.read_so_far) if keyed else UNSET
                self.read_so_far += 1
                yield key, item
        except Exception as error:
            self._end_by(error)
        finally:
            self.seconds += self._clock() - began

    def _key(self, item: Any, position: int) -> Any:
        return self.naming.of_item(self.shape.key_of(item, position), position)

    def _shaped(self, items: Iterable[Any], first: int) -> Portion:
        """Make tasks of items, up to the first bad one, which ends the input."""
        portion = Portion(keys=[], traits=[] if self.shape.gated else None)
        try:
            for position, item in enumerate(items, first):
                key = self._key(item, position) if self.keys is None else self.keys[position]
                portion.add(self.shape, item, key, position)
        except Exception as error:
            self._end_by(error)
        return portion

    def _end_by(self, error: Exception) -> None:
        """End the input because an item is bad; ``error`` says why."""
        if isinstance(error, InputError):
            self.end(error)
        elif type(error) in (TypeError, ValueError):
            self.fail(str(error), error)
        else:  # the item's own ``repr`` raised it, called for the message
            self.fail(f"an item is bad, and describing it raised {describe_error(error)}", error)

    def adopt(self, children: Iterable[Any], parent: Any, index: int) -> Portion:
        """Return the tasks that ``then`` made of the outcome under the key ``parent``; raise if one is bad."""
        portion = Portion(keys=[], traits=[], parent=parent)
        shape = self.shape._replace(tasks=True)
        for position, task in enumerate(children, index):
            key = self.naming.of_child(shape.key_of(task, position), position, self.read_so_far)
            portion.add(shape, task, key, position)
        return portion

    def number(self, portion: Portion, first: int) -> None:
        """Key tasks that have no key yet and are about to be admitted, the first of them as the run's ``first``-th.

        If a key is taken already, the portion is cut off at that task, and the input ends.
        """
        if portion.keys is None or not self.naming.late:
            return
        try:
            self.naming.number(portion.keys, first)
        except ValueError as error:
            self.fail(str(error), error)
            portion.cut(portion.keys.index(UNSET))

    def count_unread(self, *, look: bool = True) -> int:
        """Return how many items of sized input were never read.

        A list may have grown since the run began. Other input may report a wrong length, so its items are counted,
        but at most as many as are missing, or one if none is; if that takes more than a moment, or without ``look``,
        the reported length is believed.
        """
        if self.size is None or self.exhausted:
            return 0
        size = length_of(self._source) if self.at_hand else self.size
        left = max(0, (size or 0) - self.read_so_far)
        return self._count(max(1, left)) if look and not self.at_hand and self.keys is None else left

    def _count(self, most: int) -> int:
        count, end = 0, self._clock() + MOMENT
        try:
            for _ in islice(self._iterator or iter(self._source), most):
                count += 1
                if self._clock() >= end:
                    return most
        except Exception as error:  # of items that are not wanted any more: those before it count
            if is_of_signal(error):
                raise
        return count

    def unread_keys(self, count: int) -> Sequence[Any] | None:
        """The keys of the next ``count`` items of sized input; None where their indices will do."""
        unread = range(self.read_so_far, self.read_so_far + count)
        if self.keys is not None:
            return self.keys[unread.start : unread.stop]
        return unread if self.shape.grows else None

    def fail(self, message: str, error: Exception) -> None:
        """End the input because of ``error``; if a signal handler raised that, raise it instead."""
        if is_of_signal(error):
            raise error
        wrong = InputError(message)
        wrong.__cause__ = error
        self.end(wrong)

    def end(self, error: InputError) -> None:
        """End the input with this error: nothing more is read, and ``then`` is not called again. An earlier error stays."""
        if self.error is not None:
            add_note(self.error, f"besides, {error}")
        self.error, self.exhausted = self.error or error, True
        self.ended_early()

    def close(self) -> None:
        """Close a generator given as input, so that its ``finally`` runs now; an error of that ends the input."""
        self.exhausted = True
        try:
            if isinstance(self._iterator, Generator):  # anything else, a file say, is the caller's to close
                self._iterator.close()
        except Exception as error:
            self.fail(f"closing the input raised {describe_error(error)}", error)
