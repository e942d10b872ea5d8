"""What has settled, in columns; an ``Outcome`` is built when somebody looks at it.

A Python object for every outcome costs more time and memory than all the rest of a run together:
a million of them take 224 MiB as objects and a quarter of that as columns.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, TypeAlias

from parallelkit._facts import Facts
from parallelkit._lost import Lost, cancelled, failure
from parallelkit._marks import CANCELLED, FAILED, OPEN, UNSET, Mark

if TYPE_CHECKING:
    from parallelkit._outcomes import Attempt, Outcome

Columns: TypeAlias = tuple[Sequence[int], Sequence[Any], Sequence[float], Sequence[float], Sequence[str]]
"""Successes as columns of equal length: indices, values, starts, ends, workers (see ``Block``)."""

_being_sealed: ContextVar[tuple[Ledger, ...]] = ContextVar("parallelkit_being_sealed", default=())
"""See ``Ledger.sealed``."""


class Ledger:
    """The columns of a run, one row a task, in order of admission."""

    def __init__(
        self,
        facts: Facts | None = None,
        *,
        keys: list[Any] | None = None,
        places: list[int] | None = None,
        completion: array[int] | None = None,
        stopped: str | None = None,
    ) -> None:
        self.facts = facts or Facts()
        self.values: list[Any] = []
        self.queued = array("d")
        self.started = array("d")
        self.ended = array("d")
        self.workers: list[str | None] = []
        self.keys = keys
        self.places = places  # indices in the run, if only part of it is here
        self.failed: dict[int, Lost] = {}
        self.cancelled: dict[int, Lost | None] = {}
        self.retried: dict[int, int] = {}  # the attempts of a success, if not 1; 0: its value was known
        self.log: list[tuple[int, Lost]] = []  # attempts after which another was to follow
        self.parents: dict[int, Any] = {}
        self.completion = completion
        self.stopped = stopped
        self.stopped_by: BaseException | None = None
        self.settled: list[int] | None = None
        """What has settled since ``take_settled`` was last called; None without a ``then``."""

    def __len__(self) -> int:
        return len(self.values)

    def key(self, index: int) -> Any:
        """The key of a task: its position, unless the caller gave it one."""
        return index if self.keys is None else self.keys[index]

    def admit(
        self,
        keys: Sequence[Any] | None,
        count: int,
        now: float,
        parent: Any = UNSET,
        read_at: array[float] | None = None,
    ) -> None:
        """Open ``count`` new rows.

        ``parent``: the key of the task whose outcome they came from, if they did. ``read_at``: when each
        was read, where that was not ``now``.
        """
        first = len(self.values)
        if keys is not None:
            kinds = set(map(type, keys))
            keys = numbered(keys, first) if Mark in kinds else keys
            if self.keys is None and not (kinds <= {int, Mark} and are_indices(keys, first)):
                self.keys = list(range(first))
        if self.keys is not None:
            self.keys.extend(range(first, first + count) if keys is None else keys)
        if parent is not UNSET:
            self.parents.update(dict.fromkeys(range(first, first + count), parent))
        self.values.extend([OPEN] * count)
        self.workers.extend([None] * count)
        self.queued.extend(read_at or array("d", (now,)) * count)
        self.started.frombytes(bytes(8 * count))
        self.ended.frombytes(bytes(8 * count))

    def succeed(self, block: Columns) -> None:
        """Settle successes, a block at a time."""
        indices, values, started, ended, workers = block
        if isinstance(indices, range):
            first, end = indices.start, indices.stop
            self.values[first:end] = values
            self.started[first:end] = array("d", started)
            self.ended[first:end] = array("d", ended)
            self.workers[first:end] = workers
        else:
            for index, value, start, stop, worker in zip(*block, strict=True):
                self.values[index] = value
                self.started[index] = start
                self.ended[index] = stop
                self.workers[index] = worker
        self._note_settled(indices)

    def _note_settled(self, indices: Sequence[int]) -> None:
        if self.completion is not None:
            self.completion.extend(indices)
        if self.settled is not None:
            self.settled.extend(indices)

    def keep_settled(self) -> None:
        """From now on, note what is settled, for ``then``."""
        self.settled = []

    def take_settled(self) -> list[Outcome[Any, Any]]:
        """The outcomes settled since the last call."""
        settled, self.settled = self.settled or [], []
        return [self.outcome(index) for index in settled]

    def succeed_again(self, index: int, number: int) -> None:
        """Note that a success took another number of attempts than 1."""
        self.retried[index] = number

    def fail(self, index: int, lost: Lost) -> None:
        """Settle a failure for good."""
        self.values[index] = FAILED
        self.failed[index] = lost
        self._note_settled((index,))

    def try_again(self, index: int, lost: Lost) -> None:
        """Log an attempt that failed and is not the last; it is after all if it is given to ``fail`` later."""
        self.log.append((index, lost))

    @property
    def tried(self) -> list[tuple[int, Lost]]:
        """The attempts that failed and were not the last, with their tasks."""
        return [(index, lost) for index, lost in self.log if self.failed.get(index) is not lost]

    def stop(self, reason: str, cause: BaseException | None) -> None:
        """Note why the run was stopped, and the error behind that, if any."""
        self.stopped, self.stopped_by = reason, cause

    def cancel(self, indices: Sequence[int], last: dict[int, Lost]) -> None:
        """Settle tasks that the stop of the run left undone; ``last`` has earlier attempts of theirs."""
        for index in indices:
            self.values[index] = CANCELLED
            self.cancelled[index] = last.get(index)
        if self.completion is not None:
            self.completion.extend(indices)

    def outcome(self, index: int) -> Outcome[Any, Any]:
        """The outcome of one task, built anew at each call."""
        value, place = self.values[index], self._place(index)
        if value is FAILED or value is CANCELLED:
            key, queued, parent = self.key(index), self.queued[index], self.parents.get(index)
            return failure(key, place, self.lost(index), queued, self.facts.began_at, parent)
        assert value is not OPEN, f"task {index} has no outcome yet"
        from parallelkit._outcomes import Success

        began = self.facts.began_at
        return Success(
            self.key(index),
            place,
            value,
            self.retried.get(index, 1),
            self.queued[index] - began,
            self.started[index] - began,
            self.ended[index] - self.started[index],
            self.workers[index] or "",
            self.parents.get(index),
        )

    def lost(self, index: int) -> Lost:
        """What is noted of a task that gave no value; its traceback is formatted only if it is asked for."""
        lost = self.failed.get(index)
        return lost or cancelled(self.stopped, self.cancelled[index], self.stopped_by)

    def input_first(self) -> list[int] | None:
        """The indices of the input, then those of what ``then`` made; None if that is the order of admission."""
        if not self.parents:
            return None
        return [*(index for index in range(len(self)) if index not in self.parents), *self.parents]

    def attempts(self) -> list[Attempt[Any]]:
        """Every attempt, by the time it started; those that never began come last."""
        from parallelkit._outcomes import Attempt

        log = [self._attempt(index, lost) for index, lost in self.tried]
        log += [self._attempt(index, lost) for index, lost in self.failed.items()]
        log += [self._attempt(index, cancelled(self.stopped, lost)) for index, lost in self.cut_off()]
        began, retried, recalled = self.facts.began_at, self.retried, self.recalled()
        for index, value in enumerate(self.values):
            if type(value) is not Mark and index not in recalled:  # ``isinstance`` asks a proxy for its class
                start = self.started[index]
                duration = self.ended[index] - start
                worker, number = self.workers[index], retried.get(index, 1)
                place = self._place(index)
                log.append(Attempt(self.key(index), place, number, start - began, duration, worker, None))
        return sorted(log, key=_start_of)

    def recalled(self) -> set[int]:
        """The successes that were known before the task started, so that there was no attempt."""
        return {index for index, number in self.retried.items() if not number}

    def cut_off(self) -> Iterator[tuple[int, Lost]]:
        """The attempts that were running when the run stopped, with their tasks."""
        known = {(index, lost.number) for index, lost in self.tried}
        for index, last in self.cancelled.items():
            # The last attempt of a task that was waiting for its next one is in the log already.
            if last is not None and last.started is not None and (index, last.number) not in known:
                yield index, last

    def sealed(self, change: Callable[[Any], Any]) -> Ledger:
        """A copy with ``change`` applied to every error: into bytes before it is pickled, and back afterwards."""
        before = _being_sealed.set((*_being_sealed.get(), self))
        try:
            made = Ledger()
            vars(made).update(vars(self))
            made.failed = {index: lost.sealed(change) for index, lost in self.failed.items()}
            made.cancelled = {index: lost and lost.sealed(change) for index, lost in self.cancelled.items()}
            made.stopped_by = None if self.stopped_by is None else change(self.stopped_by)
            made.log = [(index, lost.sealed(change)) for index, lost in self.tried]
        finally:
            _being_sealed.reset(before)
        return made

    def is_being_sealed(self) -> bool:
        """Whether one of its errors is being changed in this context, and has led back here."""
        return self in _being_sealed.get()

    def _place(self, index: int) -> int:
        return index if self.places is None else self.places[index]

    def _attempt(self, index: int, lost: Lost) -> Attempt[Any]:
        from parallelkit._outcomes import Attempt

        start, began = lost.started, self.facts.began_at
        at, duration = (None, 0.0) if start is None else (start - began, lost.ended - start)
        key, place = self.key(index), self._place(index)
        return Attempt(key, place, lost.number, at, duration, lost.worker, lost.error)


def numbered(keys: Iterable[Any], first: int) -> list[Any]:
    """The keys, with the task's index in place of each that was not given."""
    return [index if key is UNSET else key for index, key in enumerate(keys, first)]


def are_indices(keys: Sequence[Any], first: int) -> bool:
    """Whether these ints are the indices of their tasks, and so need not be kept."""
    return list(range(first, first + len(keys))) == list(keys)


def _start_of(attempt: Attempt[Any]) -> float:
    return float("inf") if attempt.started_at is None else attempt.started_at
