"""The intake, where the caller's input becomes tasks.

Input is read lazily, in the caller's thread, in small portions: ``Intake.read`` stops after a
millisecond, so that a slow input never keeps results waiting for longer than its own next item. Where
an input ``may_block``, what was read is best handed over before more is asked for. An
``Inlet`` has a thread that reads, and can tell whether there is something: it keeps nobody waiting.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence, Sized
from itertools import islice
from math import inf
from typing import Any

from parallelkit._errors import InputError
from parallelkit._inlet import Inlet
from parallelkit._marks import UNSET
from parallelkit._naming import Naming
from parallelkit._portion import Portion
from parallelkit._raised import describe_error, is_of_signal
from parallelkit._shape import TASKS_AMONG_ITEMS, Shape, replace_form
from parallelkit._system import monotonic
from parallelkit._tasks import Task, check_keys_agree, check_tasks

PORTION = 0.001  # seconds that one portion of reading may take
MOMENT = 0.05  # seconds for counting what was not read


class Intake:
    """Reads the caller's input. ``size`` is its length where known (the true one at its end), ``error`` what ended it early.

    ``seconds`` is the time that reading has taken, with the callables that are asked about items.
    Sized input that has keys is keyed here, at the door; all else, and in streams (``lazily``) all,
    as it is read.
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
        self.ended_early: Callable[[], None] = lambda: None  # is told when ``error`` is set
        self.error: InputError | None = None
        self.exhausted = False
        self.read_so_far = 0
        self.seconds = 0.0
        self.shape = shape
        self.keys: list[Any] | None = None  # of all the input, where they are known before the run
        items: list[Any] | None = None  # all of it, where they are looked at here
        if isinstance(source, Mapping):
            if shape.tasks:
                check_tasks(source.values())
                check_keys_agree(source)
            self.keys = [shape.checked(key, position) for position, key in enumerate(source)]
            source = map(source.__getitem__, self.keys)
        elif isinstance(source, Sized) and (shape.tasks or (shape.key is not None and not lazily)):
            source = items = list(source)
        given = source if self.keys is None else self.keys  # the true length then, whatever ``len`` has said
        self.size: int | None = len(given) if isinstance(given, Sized) else None
        positional = shape.key is None and not shape.tasks and self.keys is None
        self.naming = Naming(size=self.size, grows=shape.grows, positional=positional)
        if self.keys is not None:
            self.naming.give(self.keys)
        elif items is not None:
            self._check_at_the_door(items, keys=not lazily)
        self._source = source
        self.inlet = source if isinstance(source, Inlet) else None
        self._iterator: Iterator[Any] | None = None
        # All of it, so that reading costs nothing; who knows what those do that are derived from these.
        self.at_hand = type(source) in (list, tuple, range)
        self._stride = 1
        self._whole = shape.ranked and self.size is not None  # any of it may come first
        self._asks = any(shape.bys) and shape.priority is None  # somebody who may be slow, about each item

    def _check_at_the_door(self, items: list[Any], *, keys: bool) -> None:
        if self.shape.tasks:
            check_tasks(items)
        if keys:
            self.keys = self.naming.of_items(self.shape.keys_of(items))

    @property
    def may_block(self) -> bool:
        """Whether asking for an item may take any time, so that what was read must not wait for that."""
        return self.size is None and self.inlet is None and not self.shape.gated

    @property
    def ready(self) -> bool:
        """Whether there is something to read, where the input can tell; else that is tried."""
        return self.inlet is None or self.inlet.available() > 0

    def read(self, limit: int) -> Portion | None:
        """Up to ``limit`` tasks, or what can be read in a millisecond; None where there is nothing.

        An input, or a callable that is asked about an item, that raises ends the input and sets ``error``.
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
        if self.shape.plain and (self.keys is not None or self.shape.key is None):
            portion = Portion(self._take_at_hand(limit) if self.at_hand else list(self._take(limit)))
            if self.keys is not None:
                portion.keys = self.keys[first : first + len(portion.items)]
        else:
            at_once = self.at_hand and not self._asks
            portion = self._shaped(self._take_at_hand(limit) if at_once else self._take(limit), first)
        self.read_so_far = first + len(portion.items)
        if self.exhausted and self.size is not None and self.error is None:
            self.size = self.read_so_far  # whatever its ``len`` has said
        return portion if portion.items else None

    def _take_at_hand(self, limit: int) -> list[Any]:
        """As ``_take``, at a tenth of the cost; whether they are tasks was seen at the door."""
        self._iterator = self._iterator or iter(self._source)
        items = list(islice(self._iterator, limit))
        self._ended_at(len(items), limit)
        return items

    def _take(self, limit: int) -> Iterator[Any]:
        """Items one by one, so that none is read behind one about which something is wrong; what raises ends the input."""
        first, count = self.read_so_far == 0 and not self.shape.tasks, 0
        # Nothing of a portion starts before it is whole: an input that is slow is read one by one.
        limit, self._stride = limit if self._whole else min(limit, self._stride), 1
        if self.inlet is not None:
            limit = min(limit, self.inlet.available())
        end = inf if self._whole else self._clock() + PORTION
        try:
            if self._iterator is None:
                self._iterator = iter(self._source)
            for item in islice(self._iterator, limit):
                if first and isinstance(item, Task):
                    self._refuse_tasks()
                    return
                first = False
                count += 1
                yield item
                if self._clock() >= end:
                    return
            self._stride = 2 * limit
            self._ended_at(count, limit)
        except Exception as error:
            self._fail_after(self.read_so_far + count, error)

    def _ended_at(self, count: int, limit: int) -> None:
        if count < limit:  # else it stays as it is: a stream's other thread may have ended it meanwhile
            self.exhausted = True

    @property
    def flows(self) -> bool:
        """Whether items may block, and are tasks just as they are: so ``flow`` will do."""
        return self.may_block and self.shape.plain

    @property
    def keyed(self) -> bool:
        """Whether the caller has said how items are keyed."""
        return self.shape.key is not None

    def flow(self, most: int) -> Iterator[tuple[Any, Any]]:
        """Items one by one, with their keys (UNSET: positions), for a millisecond; what raises ends the input."""
        began, first, keyed = self._clock(), self.read_so_far, self.keyed
        try:
            if self._iterator is None:
                self._iterator = iter(self._source)
            for item in islice(self._iterator, most):
                if self.read_so_far == 0 and isinstance(item, Task):
                    self._refuse_tasks()
                    return
                key = UNSET
                if keyed:
                    try:
                        key = self._key(item, self.read_so_far)
                    except Exception as error:
                        self._end_by(error)
                        return
                self.read_so_far += 1
                yield key, item
                if self._clock() >= began + PORTION:
                    return
            self._ended_at(self.read_so_far - first, most)
        except Exception as error:
            self._fail_after(self.read_so_far, error)
        finally:
            self.seconds += self._clock() - began

    def _key(self, item: Any, position: int) -> Any:
        return self.naming.of_item(self.shape.key_of(item, position), position)

    def _shaped(self, items: Iterable[Any], first: int) -> Portion:
        """Items one by one, up to the first about which something is wrong."""
        portion = Portion(keys=[], traits=[] if self.shape.gated else None)
        try:
            for position, item in enumerate(items, first):
                key = self._key(item, position) if self.keys is None else self.keys[position]
                portion.add(self.shape, item, key, position)
        except Exception as error:
            self._end_by(error)
        return portion

    def _end_by(self, error: Exception) -> None:
        """An item about which something is wrong ends the input."""
        if isinstance(error, InputError):
            self.end(error)
        elif type(error) in (TypeError, ValueError):
            self.fail(str(error), error)
        else:  # its own ``repr``, for the message
            self.fail(f"a bad item, and to say what is wrong raised {describe_error(error)}", error)

    def adopt(self, children: Iterable[Any], parent: Any, index: int) -> Portion:
        """Tasks that ``then`` made of the outcome under the key ``parent``; raises what is wrong with them."""
        portion = Portion(keys=[], traits=[], parent=parent)
        shape = replace_form(self.shape)
        for position, task in enumerate(children, index):
            key = shape.checked(task.key if isinstance(task, Task) else UNSET, position)
            key = self.naming.of_child(key, position, self.read_so_far)
            portion.add(shape, task, key, position)
        return portion

    def number(self, portion: Portion, first: int) -> None:
        """Key what is about to be admitted as the run's ``first``-th task and following, where that is yet to be done.

        From a task on whose key another has, the portion is cut off, and the input ends.
        """
        if portion.parent is not UNSET or portion.keys is None or not self.naming.late:
            return
        try:
            self.naming.number(portion.keys, first)
        except ValueError as error:
            self.fail(str(error), error)
            portion.cut(portion.keys.index(UNSET))

    def count_unread(self, *, look: bool = True) -> int:
        """How many items of sized input were never read.

        That of lists is known. Anything else may have said a wrong length: so its items are counted, as
        far as that is done in a moment, and then it is believed (at once without ``look``).
        """
        if self.size is None or self.exhausted:
            return 0
        left = max(0, self.size - self.read_so_far)
        return self._count(left) if look and not self.at_hand and self.keys is None else left

    def _count(self, most: int) -> int:
        count, end = 0, self._clock() + MOMENT
        try:
            for _ in islice(self._iterator or iter(self._source), most):
                count += 1
                if self._clock() >= end:
                    return most
        except Exception as error:  # nobody wants these items any more: there are as many as came before it
            if is_of_signal(error):
                raise
        return count

    def unread_keys(self, count: int) -> Sequence[Any] | None:
        """The keys of the next ``count`` items of sized input; None where their indices will do."""
        unread = range(self.read_so_far, self.read_so_far + count)
        if self.keys is not None:
            return self.keys[unread.start : unread.stop]
        return unread if self.shape.grows else None

    def _refuse_tasks(self) -> None:
        self.fail(TASKS_AMONG_ITEMS, TypeError(TASKS_AMONG_ITEMS))

    def _fail_after(self, items: int, error: Exception) -> None:
        self.fail(
            f"the input raised {describe_error(error, f'after {items} item' + 's' * (items != 1))}", error
        )

    def fail(self, message: str, error: Exception) -> None:
        """The input has come to a bad end, because of ``error``; that is raised where it is no fault of the input."""
        if is_of_signal(error):
            raise error
        wrong = InputError(message)
        wrong.__cause__ = error
        self.end(wrong)

    def end(self, error: InputError) -> None:
        """Nothing more is read, and ``then`` not asked again."""
        self.error, self.exhausted = error, True
        self.ended_early()

    def close(self) -> None:
        """Close a generator given as input, so that its ``finally`` runs now; what that raises is the input's error."""
        self.exhausted = True
        try:
            if isinstance(self._iterator, Generator):  # others, a file say, are the caller's to close
                self._iterator.close()
        except Exception as error:
            self.fail(f"closing the input raised {describe_error(error)}", error)
