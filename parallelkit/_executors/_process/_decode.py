"""Turns what came out of a worker's ring into values and errors, in the run's thread: unpickling runs the user's code."""

from __future__ import annotations

from _pickle import loads
from _signal import SIGKILL  # type: ignore[import-not-found]  # see _killing.py
from array import array
from collections.abc import Callable
from itertools import islice
from typing import Any

from parallelkit._executors._contract import Block, Ended, PlainBlock, timed_out, unloaded
from parallelkit._executors._process._blocks import load_leased
from parallelkit._executors._process._crash_stack import as_stack
from parallelkit._executors._process._killing import PATIENCE
from parallelkit._executors._process._lane import Died, RawColumns, Span, Why
from parallelkit._executors._process._reserve import is_shortage, shortage
from parallelkit._executors._tickets import indices_of
from parallelkit._lost import note_where
from parallelkit._raised import describe_error, is_of_signal
from parallelkit._worker import _faults
from parallelkit._worker._channel import (
    BIG_FAILED,
    BIG_VALUE,
    BOOL,
    BUFFERED,
    DICT,
    FAILED,
    FALSE,
    FLOAT,
    FLOAT32,
    FLOAT64,
    HEAP,
    INT,
    INT64,
    LENGTH_MASK,
    NONE,
    PLACE,
    TRUE,
    VALUE,
)
from parallelkit._worker._dicts import read_all, read_one
from parallelkit._worker._numpy_numbers import read_number, read_numbers
from parallelkit._worker._result_classes import reading
from parallelkit._worker._tracebacks import detached
from parallelkit._worker._travel import unpack

Label = Callable[[int], str]


class Decoding:
    """A span whose results are being unpickled.

    ``finish`` returns the outcomes. If Ctrl-C interrupts it in the caller's own code, the result concerned counts as one
    that cannot be unpickled, and the next ``finish`` goes on after it. If ``cautious``, that runs no more of the caller's
    code, which may hang as the interrupted code did.
    """

    def __init__(self, span: Span, label: Label) -> None:
        self.span = span
        self._label = label
        self._columns = span.columns
        self._values: list[Any] = []
        self._plain = False
        self._failures: dict[int, Ended] = {}
        self._lacking = any(isinstance(content, OSError) for content in span.columns.files)

    def finish(self, cautious: bool = False) -> list[Block | Ended]:
        """One block with all successes, and each failure by itself."""
        self._cautious = cautious
        uniform = _uniform_values(self._columns)
        if uniform is not None:
            self._values, self._plain = uniform, True
        go_on = self._unpickle if not (cautious or self._columns.kinds.strip(_VALUES)) else self._open
        while len(self._values) < len(self._columns.kinds):
            outer = reading.told  # the code of a result may run tasks of its own
            reading.told = self._columns.classes
            try:
                go_on(len(self._values))
            except KeyboardInterrupt as error:
                if self._next_calls_code():  # else Ctrl-C has come just then, and the value is read again
                    self._give_up(error)
                raise
            except BaseException as error:  # whatever a class does when it is unpickled
                if is_of_signal(error):
                    raise
                self._give_up(error)
            finally:
                reading.told = outer
        return self._outcomes()

    def _unpickle(self, first: int) -> None:
        """Go on with a span of nothing but pickles in the heap: the shortest loop."""
        heap, base, values = self._columns.heap, self._columns.heap_from, self._values
        load = unpack if heap.rfind(b"cloudpickle") >= 0 else loads
        words = array("I", self._columns.words)
        # A word holds a length in its lower half and a place in its upper half.
        places = islice(zip(words[1::2], words[::2], strict=True), first, None)
        for place, length in places:
            start = place - base if place >= base else place - base + HEAP
            values.append(load(heap[start : start + length]))

    def _open(self, first: int) -> None:
        """Go on with a span that holds results of any kind."""
        columns, values = self._columns, self._values
        words, floats = array("q", columns.words), array("d", columns.words)
        blobs = _blobs(columns, words)
        for at in range(first, len(columns.kinds)):
            kind = columns.kinds[at]
            if self._lacking and (lack := _lack_of(blobs.get(at))) is not None:
                self._failures[at] = self._ended(at, self._lost(at, lack), "", False)
                values.append(None)
                continue
            if self._cautious and at in blobs and _calls_code(blobs[at]):
                raise InterruptedError("the run was interrupted before its turn came")
            if kind in _ERRORS:
                self._failures[at] = self._failed(at, bytes(blobs[at]))
                values.append(None)
            elif kind == BUFFERED:
                values.append(load_leased(*blobs[at]))
            elif kind == DICT:
                values.append(read_one(columns.keys, blobs[at]))
            elif kind in (VALUE, BIG_VALUE):
                values.append(unpack(blobs[at]))
            elif kind in (INT, FLOAT):
                values.append(words[at] if kind == INT else floats[at])
            elif kind in _NUMBERS:
                values.append(read_number(kind, words[at], floats[at]))
            else:
                values.append(CONSTANTS[kind])

    def _next_calls_code(self) -> bool:
        """Whether unpickling the next result may call anything."""
        blob = _blobs(self._columns, array("q", self._columns.words)).get(len(self._values))
        return blob is not None and _calls_code(blob)

    def _failed(self, at: int, blob: bytes) -> Ended:
        index = self._index(at)
        error, text, final = _faults.restore(blob, lambda: self._label(index))
        return self._ended(at, error, text, final)

    def _lost(self, at: int, lack: BaseException) -> OSError:
        """The error for a value that this process had no room to receive; neither the value nor its worker is to blame."""
        return shortage(lack, f"the value of {self._label(self._index(at))} was lost on its way")

    def _give_up(self, cause: BaseException) -> None:
        """Record that the next result cannot be unpickled."""
        at = len(self._values)
        if is_shortage(cause):
            self._failures[at] = self._ended(at, self._lost(at, cause), "", False)
        else:
            name = self._label(self._index(at))
            error = TypeError(f"the value of {name} cannot be unpickled ({describe_error(cause)})")
            error.__cause__ = detached(cause)
            self._failures[at] = self._ended(at, error, "", True)
        self._values.append(None)

    def _index(self, at: int) -> int:
        return self.span.batch.tickets[at][0]

    def _ended(self, at: int, error: BaseException, text: str, final: bool) -> Ended:
        started, ended = self._columns.started[at], self._columns.ended[at]
        return Ended(self._index(at), error, text, started, ended, self.span.worker, final=final)

    def _outcomes(self) -> list[Block | Ended]:
        indices = indices_of(self.span.batch.tickets)
        columns, values, failures = self._columns, self._values, self._failures
        if not failures:
            kind = PlainBlock if self._plain else Block
            return [kind(indices, values, columns.started, columns.ended, [self.span.worker] * len(indices))]
        good = [at for at in range(len(indices)) if at not in failures]
        block = Block(
            [indices[at] for at in good],
            [values[at] for at in good],
            array("d", [columns.started[at] for at in good]),
            array("d", [columns.ended[at] for at in good]),
            [self.span.worker] * len(good),
        )
        return [*failures.values(), block] if good else list(failures.values())


_NUMBERS = (INT64, FLOAT32, FLOAT64, BOOL)
_UNIFORM = (NONE, INT, FLOAT, DICT, *_NUMBERS)
_VALUES = bytes([VALUE])
_ERRORS = (FAILED, BIG_FAILED)
STILL_THERE = f", and is still there {PATIENCE:g} s later: it probably hangs in a call to a driver or file system, which no signal interrupts"
CONSTANTS = {NONE: None, TRUE: True, FALSE: False}


def _lack_of(blob: Any) -> OSError | None:
    """Why a result could not be received; None if it was."""
    content = blob[1] if isinstance(blob, tuple) else blob
    return content if isinstance(content, OSError) else None


def _calls_code(blob: Any) -> bool:
    """Whether unpickling may call anything: a pickle, also of an error, looks up what it calls by STACK_GLOBAL."""
    return isinstance(blob, tuple) or blob.find(b"\x93") >= 0


def _uniform_values(columns: RawColumns) -> list[Any] | None:
    """The values, if all are None, numbers of one type or small dicts: these are read together, not cell by cell. Else None."""
    kinds = columns.kinds
    first = kinds[0]
    if first not in _UNIFORM or kinds.strip(kinds[:1]):
        return None
    if first == NONE:
        return [None] * len(kinds)
    if first == DICT:
        return _dicts(columns)
    if first in _NUMBERS:
        return read_numbers(first, columns.words)
    return array("q" if first == INT else "d", columns.words).tolist()


def _dicts(columns: RawColumns) -> list[Any] | None:
    """All small dicts, read by one call; None if that fails, so that they are read one by one to find the bad one."""
    words = array("I", columns.words)
    lengths, places = words[::2], words[1::2]
    start, total = _start(columns, places[0]), sum(lengths)
    if total > len(columns.heap):
        return None
    if places[-1] + lengths[-1] - places[0] == total:
        pickles = columns.heap[start : start + total]
    else:  # there is a hole between them, where the heap has wrapped around
        starts = (_start(columns, place) for place in places)
        pickles = b"".join(
            [columns.heap[at : at + length] for at, length in zip(starts, lengths, strict=True)]
        )
    try:
        values = read_all(columns.keys, pickles)
    except Exception:
        return None
    return values if len(values) == len(lengths) else None


def _start(columns: RawColumns, place: int) -> int:
    """Translate a place in the circular heap to an offset in the span's copy of it."""
    start = place - columns.heap_from
    return start if start >= 0 else start + HEAP  # after the heap has wrapped around


def _blobs(columns: RawColumns, words: array[int]) -> dict[int, Any]:
    """The pickles by their index in the span, from the copy of the heap and from files."""
    heap, files = columns.heap, iter(columns.files)
    blobs: dict[int, Any] = {}
    for at, kind in enumerate(columns.kinds):
        if kind in (VALUE, FAILED, BUFFERED, DICT):
            start = _start(columns, words[at] >> PLACE)
            blobs[at] = heap[start : start + (words[at] & LENGTH_MASK)]
            if kind == BUFFERED:
                blobs[at] = blobs[at], next(files)
        elif kind in (BIG_VALUE, BIG_FAILED):
            blobs[at] = next(files)
    return blobs


def decode_died(died: Died, label: Label) -> Ended:
    """The failure of an attempt whose worker ended during it."""
    index, _, _, timeout = died.batch.tickets[0]
    error: Exception
    if died.why in (Why.OVERDUE, Why.UNENDED):
        assert timeout is not None, "only what has a timeout is overdue"
        unended = died.why is Why.UNENDED
        how = "its process was killed" + STILL_THERE * unended
        error = timed_out(label(index), timeout, how, killed=True, abandoned=unended)
    elif died.why is Why.UNLOADED:
        error = unloaded(label(index), died.ended - died.started)
    else:
        error = _death(died)
    stack = as_stack(died.stack)
    return Ended(index, note_where(error, stack), "", died.started, died.ended, died.worker, stack)


def _death(died: Died) -> Exception:
    from parallelkit._died import WorkerDied

    if died.why is Why.GARBAGE:
        return WorkerDied(f"worker process {died.pid} overwrote its channel to the parent", pid=died.pid)
    if died.why is Why.ASKED and died.status in (None, -SIGKILL):  # else it ended just before
        how = "was killed by kill_workers(), or terminate_workers() had not ended it"
        return WorkerDied(f"worker process {died.pid} {how}", signal=SIGKILL, pid=died.pid)
    return death_of(died.pid, died.status)


def death_of(pid: int, status: int | None) -> Exception:
    """The error for a worker that ended with this status."""
    from parallelkit._died import WorkerDied, died_with

    if status is None:
        return WorkerDied(f"worker process {pid} ended; other code took its status", pid=pid)
    return died_with(status, pid)
