"""Both ends of a stream's loop: ``OutcomeQueue``, where outcomes wait to be yielded, and ``QueuedSource`` for its input."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from parallelkit._executors._gate import Gate
from parallelkit._input._portion import Portion
from parallelkit._ledger import Columns, numbered
from parallelkit._lost import Lost, cancelled, failure
from parallelkit._marks import UNSET
from parallelkit._outcomes import Outcome, Success


class OutcomeQueue:
    """The book of a stream: an outcome becomes ``ready`` when its turn comes, and is dropped when it is yielded.

    With ``raising``, the first failure is raised by the stream: it never becomes ready, nor do the tasks
    that are cancelled by the stop it causes.
    """

    def __init__(self, in_order: bool, raising: bool) -> None:
        self.ready: deque[Outcome[Any, Any]] = deque()
        self.gate = Gate()
        self._stopped: str | None = None
        self._stopped_by: BaseException | None = None
        self.began = 0.0  # set as the run begins
        self._in_order = in_order
        self._raising = raising
        self._only_values = False
        self._next = 0
        self._early: dict[int, Outcome[Any, Any]] = {}
        self._keys: dict[int, tuple[Any, float]] = {}
        self._numbers: dict[int, int] = {}
        self._admitted = 0
        self._parents: dict[int, Any] = {}
        self._made: set[int] = set()  # tasks made by ``then``, and not yielded yet
        self.input_yielded = 0
        self._settled: list[Outcome[Any, Any]] | None = None

    def __len__(self) -> int:
        """How many tasks have been admitted."""
        return self._admitted

    def admit(self, keys: Sequence[Any] | None, count: int, now: float, parent: Any = UNSET) -> None:
        """Admit ``count`` tasks; ``parent`` is the key of the task from whose outcome ``then`` made them."""
        first = self._admitted
        self._admitted += count
        indices = range(first, first + count)
        if parent is not UNSET:
            self._parents.update(dict.fromkeys(indices, parent))
            self._made.update(indices)
        for index, key in zip(indices, indices if keys is None else numbered(keys, first), strict=True):
            self._keys[index] = (key, now)

    def take(self) -> Outcome[Any, Any]:
        """Remove and return the next ready outcome."""
        outcome = self.ready[0]
        if outcome.index in self._made:
            self._made.discard(outcome.index)
        else:
            self.input_yielded += 1
        del self.ready[0]  # last, and no call: Ctrl-C is raised after a call, and would lose the outcome
        return outcome

    def keep_settled(self) -> None:
        """From now on, keep settled outcomes for ``take_settled``."""
        self._settled = []

    def take_settled(self) -> list[Outcome[Any, Any]]:
        """The outcomes settled since the last call."""
        settled, self._settled = self._settled or [], []
        return settled

    def forget(self) -> None:
        """Let go of what was not yielded: the frames in a failure's traceback lead back to the run, a cycle."""
        self.ready.clear()
        self._settled = None

    def cancel_rest(self) -> None:
        """Cancel every task that has no outcome yet, after a stop."""
        self.cancel(list(self._keys), {})

    def key(self, index: int) -> Any:
        """The key of a task that is not settled; of any other, its index."""
        return self._keys[index][0] if index in self._keys else index

    def succeed(self, block: Columns) -> None:
        began, numbers = self.began, self._numbers
        for index, value, start, end, worker in zip(*block, strict=True):
            key, queued = self._keys.pop(index)
            number = numbers.pop(index, 1) if numbers else 1
            parent = self._parents.pop(index, None) if self._parents else None
            self._put(
                Success(key, index, value, number, queued - began, start - began, end - start, worker, parent)
            )
        self.gate.open()

    def succeed_again(self, index: int, number: int) -> None:
        self._numbers[index] = number

    def fail(self, index: int, lost: Lost) -> None:
        self._only_values = self._raising
        self._lose(index, lost)

    def _lose(self, index: int, lost: Lost) -> None:
        key, queued = self._keys.pop(index)
        self._put(failure(key, index, lost, queued, self.began, self._parents.pop(index, None)))
        self.gate.open()

    def try_again(self, index: int, lost: Lost) -> None:
        """Do nothing: a stream keeps no log of attempts."""

    def stop(self, reason: str, cause: BaseException | None) -> None:
        self._stopped, self._stopped_by = reason, cause

    def cancel(self, indices: Sequence[int], last: dict[int, Lost]) -> None:
        for index in indices:
            self._lose(index, cancelled(self._stopped, last.get(index), self._stopped_by))

    def _put(self, outcome: Outcome[Any, Any]) -> None:
        if self._settled is not None:
            self._settled.append(outcome)
        if not self._in_order:
            self._leave(outcome)
            return
        self._early[outcome.index] = outcome
        while self._next in self._early:
            self._leave(self._early.pop(self._next))
            self._next += 1

    def _leave(self, outcome: Outcome[Any, Any]) -> None:
        if outcome.ok or not self._only_values:
            self.ready.append(outcome)


class QueuedSource:
    """A queue of what the caller's thread has read, for the loop's thread.

    A run hands over either portions or single items, never both.
    """

    def __init__(self, enter: Callable[[Portion], None]) -> None:
        self.ended = False
        self._enter = enter
        self._portions: deque[Portion] = deque()
        self._items: deque[tuple[Any, Any]] = deque()

    @property
    def exhausted(self) -> bool:
        return self.ended and not (self._portions or self._items)

    def hand(self, portion: Portion) -> None:
        """Hand over a portion; called by the caller's thread."""
        self._portions.append(portion)

    def hand_item(self, key: Any, item: Any) -> None:
        """Hand over a single item, whose key is its position if ``key`` is UNSET; called by the caller's thread."""
        self._items.append((key, item))

    def next(self, ahead: int, *, single: bool = False) -> Portion | None:
        if self._items:
            items, keys = list[Any](), list[Any]()
            for _ in range(len(self._items)):
                key, item = self._items.popleft()
                keys.append(key)
                items.append(item)
            portion = Portion(items, keys)
        elif self._portions:
            portion = self._portions.popleft()
            while self._portions:
                portion.extend(self._portions.popleft())
        else:
            return None
        self._enter(portion)
        return portion
