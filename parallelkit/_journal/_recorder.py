"""Records the outcomes of a run in a journal, and recalls those that are already there.

Why it works as it does: docs/design/checkpoint.md.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from parallelkit._book import Book
from parallelkit._checkpoint import Checkpoint
from parallelkit._errors import ParallelKitError
from parallelkit._input._keys import key_text
from parallelkit._input._portion import Portion
from parallelkit._input._recall import Recalled
from parallelkit._interrupt import Guard, UserCall
from parallelkit._journal._file import Journal, Record, another_function
from parallelkit._journal._identity import difference, identity_of
from parallelkit._journal._lock import check_place
from parallelkit._journal._payload import SOURCE, Payloads, recalled, unreadable
from parallelkit._journal._writer import JournalWriter
from parallelkit._ledger import Columns
from parallelkit._logger import logger
from parallelkit._lost import Lost
from parallelkit._numbers import length_of
from parallelkit._raised import describe_error, is_of_signal
from parallelkit._tasks import as_call, function_of
from parallelkit._unrecorded import Unrecorded


class Recording(Unrecorded):
    """The recording of one run. ``fn``: the run's function, or None for a run of ``tasks``.

    ``args``, ``kwargs``: what the run passes to every task. ``calls``: whether every admitted task brings its
    own function.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        fn: Callable[..., Any] | None,
        tasks: Any,
        args: Sequence[Any],
        kwargs: Mapping[str, Any],
        calls: bool,
    ) -> None:
        self._path = _whole(os.fspath(checkpoint.path))
        self._rerun_failed = checkpoint.rerun_failed
        self._fn, self._function = fn, identity_of(fn, args, kwargs)
        self._own = None if fn is None else identity_of(fn)
        self._calls = calls
        self._tasks = dict(functions_of(tasks)) if fn is None and length_of(tasks) is not None else {}
        self._journal: Journal | None = None
        self._writer: JournalWriter | None = None
        self._stop: Callable[[str], None] = stop_nobody

    def check(self, guard: Guard) -> None:
        if os.path.lexists(self._path):
            try:
                self.open(guard, whole=False)
            finally:
                try:
                    self.close()
                finally:
                    self.close()  # again, in case a signal handler has raised in the first
        else:
            check_place(self._path)

    def open(self, guard: Guard, *, whole: bool = True) -> None:
        # In two steps, as a signal handler may raise between them: what it has interrupted can be closed.
        self._journal = Journal(self._path, self._function)
        self._journal.open(guard, whole=whole)
        with guard():
            for record in self._journal.find(list(self._tasks)):
                if (why := difference(record.function, self._tasks[record.key], "this task")) is not None:
                    raise another_function(self._path, record.key, why)

    def record(self, book: Book, refuse: Callable[[str, Exception], None], call_user: UserCall) -> Book:
        assert self._journal is not None, "opened before the run begins"
        self._tasks = {}  # all were compared as the journal was opened, and there may be a million
        self._writer = JournalWriter(self._journal, self._fail)
        name = self._identity_of_call if self._calls else None
        recorder = Recorder(book, self._journal, self._writer, name, self._rerun_failed, refuse, call_user)
        self.recalls = (recorder,)
        return recorder

    def _identity_of_call(self, call: Any) -> str | None:
        fn = function_of(call)
        if fn is self._fn:  # even if what it captures has changed since
            return None
        identity = identity_of(fn)
        return None if identity == self._own else identity

    def stop_by(self, stop: Callable[[str], None]) -> None:
        self._stop = stop

    def _fail(self, error: Exception) -> None:
        text = f"the checkpoint {self._path} could not be written: {describe_error(error)}"
        self.failure = ParallelKitError(text)
        self.failure.__cause__ = error
        logger.error("%s", text)
        self._stop(text)

    def close(self) -> None:
        writer, journal = self._writer, self._journal
        self.recalls, self._stop = (), stop_nobody  # the old ones refer to the run, and so to all its values
        try:
            if writer is not None:
                close_whole(writer)
        finally:
            if journal is not None:
                journal.close()
        # Only now: if a signal handler has raised above, the next call does it again.
        self._writer = self._journal = None


class Recorder:
    """A ``Book`` that records outcomes before it passes them on, and a ``Recall`` of those already recorded.

    ``name`` gives the identity of a call's function, or None if it is the journal's; it is None itself if tasks
    bring no functions. ``refuse`` ends the input with an error.
    """

    def __init__(
        self,
        book: Book,
        journal: Journal,
        writer: JournalWriter,
        name: Callable[[Any], str | None] | None,
        rerun_failed: bool,
        refuse: Callable[[str, Exception], None],
        call_user: UserCall,
    ) -> None:
        self._book = book
        self._journal = journal
        self._writer = writer
        self._name = name
        self._rerun_failed = rerun_failed
        self._refuse = refuse
        self._refused = False
        self._payloads = Payloads(journal.path, call_user)
        self._open: dict[int, tuple[str, str | None]] = {}  # key and function of each task to be recorded

    # As a ``Recall``.

    def __call__(self, portion: Portion, first: int) -> dict[int, Recalled]:
        assert portion.keys is not None, "a run with a checkpoint was checked to have keys"
        texts = list(map(key_text, portion.keys))
        waiting = self._writer.find(texts)  # first: a record may move from here to the journal meanwhile
        try:
            found = {record.key: record for record in self._journal.find(texts)} | waiting
        except ValueError as error:  # the disk has failed
            return dict.fromkeys(range(len(texts)), self._reject(error))
        known = {}
        for offset, text in enumerate(texts):
            function = None if self._name is None else self._name(portion.items[offset])
            recalled = self._recall(found[text], function) if text in found else None
            if recalled is None:
                self._open[first + offset] = (text, function)
            else:
                known[offset] = recalled
        return known

    def _recall(self, record: Record, function: str | None) -> Recalled | None:
        """The recorded outcome; None if the task is to be run again."""
        if (why := difference(record.function, function, "this task")) is not None:
            return self._reject(another_function(self._journal.path, record.key, why))
        if not record.ok and self._rerun_failed:
            return None
        try:
            return recalled(record)
        except Exception as error:
            if is_of_signal(error):
                raise
            return self._reject(unreadable(self._journal.path, record, error))

    def _reject(self, error: ValueError) -> Recalled:
        """Neither run a task nor use its record: it fails with this error. The first also ends the input."""
        if not self._refused:
            self._refused = True
            self._refuse(str(error), error)
        return Recalled(None, SOURCE, Lost(error, 0, None, 0.0, SOURCE))

    # As a ``Book``.

    def succeed(self, block: Columns) -> None:
        # Pickle now: later, the caller may have changed a value.
        tasks = [
            (*task, value)
            for index, value in zip(*block[:2], strict=True)
            if (task := self._open.pop(index, None)) is not None
        ]
        payloads = self._payloads.of_values([key for key, _, _ in tasks], [value for _, _, value in tasks])
        records = [
            Record(key, function, True, payload)
            for (key, function, _), payload in zip(tasks, payloads, strict=True)
            if payload is not None
        ]
        if records:
            self._writer.put(records)
        self._book.succeed(block)

    def fail(self, index: int, lost: Lost) -> None:
        task = self._open.pop(index, None)
        if task is not None and (payload := self._payloads.of_error(task[0], lost)) is not None:
            self._writer.put([Record(*task, False, payload)])
        self._book.fail(index, lost)

    def succeed_again(self, index: int, number: int) -> None:
        self._book.succeed_again(index, number)

    def try_again(self, index: int, lost: Lost) -> None:
        self._book.try_again(index, lost)

    def stop(self, reason: str, cause: BaseException | None) -> None:
        self._book.stop(reason, cause)

    def cancel(self, indices: Sequence[int], last: dict[int, Lost]) -> None:
        """Cancel tasks without recording them: they are to be run when the run is resumed."""
        self._book.cancel(indices, last)


def stop_nobody(reason: str) -> None:
    """Do nothing: the run has not begun, or is over."""


def close_whole(writer: JournalWriter) -> None:
    """Close the writer; if Ctrl-C or another signal raises, still write all that is done first. Only a second one gives that up."""
    try:
        writer.close()
    except BaseException:
        writer.close()
        raise


def functions_of(tasks: Any) -> Iterator[tuple[str, str]]:
    """The key of each task, as text, and the identity of its function; each was checked to have a key."""
    pairs = tasks.items() if isinstance(tasks, Mapping) else ((task.key, task) for task in tasks)
    for key, task in pairs:
        yield key_text(key), identity_of(as_call(task)[0])


def _whole(path: str) -> str:
    try:
        return os.path.realpath(path)
    except FileNotFoundError as error:
        raise ValueError(
            f"checkpoint must be in a folder that exists, got {path}: the current folder was removed"
        ) from error
