"""Decides what may start, what is tried again and what is settled; never waits, never runs anything.

Instants come in as arguments, decisions go out as values. An attempt is in one place at a time:

    ready     until a slot is free                 → running
    running   success, or failure with no try left → settled
    running   failure, timeout or death            → delayed until its instant
    delayed   its instant comes                    → ready
    any       the run is stopped                   → settled (cancelled)

The ordinary task costs a tuple in a deque, an entry in a dict and a place in its block's columns;
only what has failed, or has options of its own, has an entry anywhere else.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from heapq import heappop, heappush
from itertools import repeat
from typing import Any, Protocol

from parallelkit._errors import TaskExited
from parallelkit._executors._contract import Block, Ended, Ticket
from parallelkit._ledger import Lost, cut_off
from parallelkit._retry import Retry, RetryPolicy
from parallelkit._tasks import Own

LEAST_RETRIES = 10  # that a budget always allows
LEAST_OUTCOMES = 20  # before a share of failures is looked at


class Book(Protocol):
    """Where outcomes are written: a ``Ledger``, or the outbox of a stream."""

    stopped: str | None

    def succeed(
        self,
        indices: Sequence[int],
        values: Sequence[Any],
        started: Sequence[float],
        ended: Sequence[float],
        workers: Sequence[str],
    ) -> None:
        """Settle successes."""

    def succeed_again(self, index: int, number: int) -> None:
        """Note, before it is settled, that a success took ``number`` attempts."""

    def fail(self, index: int, lost: Lost) -> None:
        """Settle a failure."""

    def try_again(self, index: int, lost: Lost) -> None:
        """Note an attempt that failed and will be followed by another."""

    def cancel(self, indices: Sequence[int], last: dict[int, Lost]) -> None:
        """Settle what the stop of the run left undone."""


class Scheduler:
    """The state of every attempt of one run."""

    def __init__(
        self,
        book: Book,
        *,
        label: Callable[[int], str] = "task {}".format,
        timeout: float | None = None,
        policy: RetryPolicy | None = None,
        end_at: float | None = None,
        end_reason: str = "run_timeout",
        raise_first: bool = False,
        max_failures: float | None = None,
    ) -> None:
        self._book = book
        self._label = label
        self._timeout = timeout
        self._policy = policy
        self._end_at = end_at
        self._end_reason = end_reason
        self._raise_first = raise_first
        self._max_failures = max_failures
        self._ready: deque[Ticket] = deque()
        self._delayed: list[tuple[float, int]] = []
        self._items: dict[int, Any] = {}  # admitted and not settled: all that a further try needs
        self._last: dict[int, Lost] = {}  # the last failed attempt of tasks that are not settled
        self._first_start: dict[int, float] = {}
        self._own: dict[int, Own] = {}
        self.admitted = 0
        self.started = 0
        self.succeeded = 0
        self.failed = 0
        self.retried = 0
        self.stopped: str | None = None
        self.first_error: BaseException | None = None

    @property
    def settled(self) -> int:
        """How many tasks have their outcome, the cancelled ones not counted."""
        return self.succeeded + self.failed

    @property
    def open(self) -> int:
        """How many admitted tasks have no outcome yet."""
        return len(self._items)

    def admit(self, items: Sequence[Any], own: dict[int, Own] | None = None) -> None:
        """New tasks become ready; their indices follow those of the tasks before."""
        first, end = self.admitted, self.admitted + len(items)
        self.admitted = end
        self._items.update(zip(range(first, end), items, strict=True))
        if not own:
            self._ready.extend(zip(range(first, end), repeat(1), items, repeat(self._timeout)))
            return
        for offset, options in own.items():
            self._own[first + offset] = options
        self._ready.extend(self._ticket(index, 1) for index in range(first, end))

    def _ticket(self, index: int, number: int) -> Ticket:
        own = self._own.get(index)
        timeout = self._timeout if own is None or own.timeout is None else own.timeout
        return index, number, self._items[index], timeout

    def start_due(self, now: float, room: int) -> list[Ticket]:
        """The attempts that may start now, at most ``room`` of them; tasks tried again go first."""
        while self._delayed and self._delayed[0][0] <= now:
            index = heappop(self._delayed)[1]
            self._ready.appendleft(self._ticket(index, self._last[index].number + 1))
        if room >= len(self._ready):
            due = list(self._ready)
            self._ready.clear()
        else:
            due = [self._ready.popleft() for _ in range(room)]
        self.started += len(due)
        return due

    def wake_at(self) -> float | None:
        """The next instant at which there is something to decide without news from the executor."""
        instants = [self._end_at] if self._end_at is not None else []
        if self._delayed:
            instants.append(self._delayed[0][0])
        return min(instants, default=None)

    def finish(self, events: Iterable[Block | Ended], now: float) -> None:
        """Take in what has ended; afterwards ``stop_reason`` may ask for a stop."""
        for event in events:
            if isinstance(event, Block):
                self._succeed(event)
            else:
                self._lose(event, now)

    def _succeed(self, block: Block) -> None:
        for index in block.indices:
            del self._items[index]
        if self._last or self._own:
            for index in block.indices:
                before = self._last.pop(index, None)
                self._own.pop(index, None)
                if before is not None:
                    self._book.succeed_again(index, before.number + 1)
        self.succeeded += len(block.indices)
        self._book.succeed(*block)

    def _lose(self, ended: Ended, now: float) -> None:
        index, before = ended.index, self._last.get(ended.index)
        number = 1 if before is None else before.number + 1
        error = as_exception(ended.error)
        lost = Lost(error, number, ended.started, ended.ended, ended.worker, ended.traceback, ended.stack)
        if ended.started is None and ended.final:
            lost.number -= 1  # it never began
        delay = None if ended.final else self._delay(index, lost)
        add_note(error, f"{self._label(index)}, attempt {number}{self._of(index)}")
        if delay is None:
            self._settle_failure(index, lost)
        else:
            self.retried += 1
            self._last[index] = lost
            self._book.try_again(index, lost)
            heappush(self._delayed, (now + delay, index))

    def _policy_of(self, index: int) -> RetryPolicy | None:
        own = self._own.get(index)
        return own.policy if own is not None and own.has_policy else self._policy

    def _of(self, index: int) -> str:
        policy = self._policy_of(index)
        return f" of {policy.retries + 1}" if isinstance(policy, Retry) else " of 1" if policy is None else ""

    def _delay(self, index: int, lost: Lost) -> float | None:
        policy = self._policy_of(index)
        if policy is None or lost.error is None:
            return None
        if policy.budget is not None and self.retried >= max(LEAST_RETRIES, policy.budget * self.started):
            return None
        began = self._first_start.setdefault(index, lost.ended if lost.started is None else lost.started)
        return policy.delay_after(lost.number, lost.error, lost.ended - began)

    def _settle_failure(self, index: int, lost: Lost) -> None:
        for table in (self._items, self._last, self._own, self._first_start):
            table.pop(index, None)
        self.failed += 1
        self.first_error = self.first_error or lost.error
        self._book.fail(index, lost)

    def stop_reason(self, now: float) -> str | None:
        """Why the run must stop now, if it must."""
        if self._end_at is not None and now >= self._end_at:
            return self._end_reason
        if not self.failed:
            return None
        if self._raise_first:
            return "a task failed, and on_error is 'raise'"
        limit = self._max_failures
        if limit is None:
            return None
        if isinstance(limit, int):
            return f"max_failures of {limit} reached" if self.failed >= limit else None
        if self.settled >= LEAST_OUTCOMES and self.failed >= limit * self.settled:
            return f"max_failures of {limit:g} reached: {self.failed} of {self.settled} outcomes are failures"
        return None

    def stop(self, reason: str, now: float, running: Iterable[tuple[int, float, str]] = ()) -> None:
        """Cancel everything that is not settled; ``running`` are the attempts that had begun."""
        self.stopped = self._book.stopped = reason
        last = dict(self._last)
        for index, started, worker in running:
            if index in self._items:
                last[index] = cut_off(started, now, worker, self._last.get(index))
        self._book.cancel(sorted(self._items), last)
        for table in (self._items, self._last, self._own, self._first_start, self._delayed, self._ready):
            table.clear()


def as_exception(error: BaseException) -> Exception:
    """What a task raised, as an ``Exception``: anything else could end the caller's program."""
    if isinstance(error, Exception):
        return error
    exited = TaskExited(f"the task raised {type(error).__name__}: {error}")
    exited.__cause__ = error
    return exited


def add_note(error: BaseException, note: str) -> None:
    """Note the task on its error; an object raised by many tasks keeps only the last one's note."""
    marked = "parallelkit: "
    notes = getattr(error, "__notes__", None)
    if isinstance(notes, list):
        notes[:] = [old for old in notes if not (isinstance(old, str) and old.startswith(marked))]
    with suppress(Exception):  # an error class may override add_note; the error itself is what counts
        error.add_note(marked + note)
