"""Makes values and errors of what came out of a worker's ring; in the run's thread, for it runs the user's code."""

from __future__ import annotations

import gc
from _pickle import loads
from array import array
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from parallelkit._executors._blocks import load_leased
from parallelkit._executors._contract import Block, Ended, timed_out
from parallelkit._executors._lane import Columns, Lost, Span, Why
from parallelkit._worker import _faults
from parallelkit._worker._channel import (
    BIG_FAILED,
    BIG_VALUE,
    BUFFERED,
    FAILED,
    FALSE,
    FLOAT,
    HEAP,
    INT,
    LENGTH_MASK,
    NONE,
    PLACE,
    TRUE,
    VALUE,
)
from parallelkit._worker._tracebacks import detached
from parallelkit._worker._travel import describe_error, unpack

Label = Callable[[int], str]


def decode(span: Span, label: Label) -> list[Block | Ended]:
    """What a span holds: one block of all that succeeded, and each failure by itself."""
    columns = span.columns
    tickets = span.batch.tickets
    indices = [index for index, _, _, _ in tickets]
    values, failures = _values(columns)
    if not failures:
        return [Block(indices, values, columns.started, columns.ended, [span.worker] * len(indices))]
    ended: list[Block | Ended] = []
    for at, failure in failures.items():
        ended.append(_ended(failure, indices[at], label, columns.started[at], columns.ended[at], span.worker))
    good = [at for at in range(len(indices)) if at not in failures]
    if good:
        ended.append(
            Block(
                [indices[at] for at in good],
                [values[at] for at in good],
                array("d", [columns.started[at] for at in good]),
                array("d", [columns.ended[at] for at in good]),
                [span.worker] * len(good),
            )
        )
    return ended


def _uniform_values(columns: Columns) -> list[Any] | None:
    """The values, where all are None, or all int, or all float: then no cell need be looked at."""
    kinds = columns.kinds
    first = kinds[0]
    if first not in (NONE, INT, FLOAT) or kinds.strip(kinds[:1]):
        return None
    if first == NONE:
        return [None] * len(kinds)
    return array("q" if first == INT else "d", columns.words).tolist()


Failure = bytes | BaseException
"""A packed error of the task, or what unpickling its value raised."""


def _values(columns: Columns) -> tuple[list[Any], dict[int, Failure]]:
    """The value of each slot, and the failures by their place."""
    if (uniform := _uniform_values(columns)) is not None:
        return uniform, {}
    if not columns.kinds.strip(_VALUES):
        return _pickled_values(columns)
    words, floats, kinds = array("q", columns.words), array("d", columns.words), columns.kinds
    blobs = _blobs(columns, words)
    load = unpack if columns.files or b"cloudpickle" in columns.heap else loads
    values: list[Any] = [None] * len(kinds)
    failures: dict[int, Failure] = {}
    for at, kind in enumerate(kinds):
        if kind in (VALUE, BIG_VALUE, BUFFERED):
            try:
                values[at] = load(blobs[at]) if kind != BUFFERED else load_leased(*blobs[at])
            except KeyboardInterrupt:
                raise
            except BaseException as error:  # whatever a class does when it is unpickled
                failures[at] = detached(error)
        elif kind in (FAILED, BIG_FAILED):
            failures[at] = bytes(blobs[at])
        elif kind in (INT, FLOAT):
            values[at] = words[at] if kind == INT else floats[at]
        else:
            values[at] = CONSTANTS[kind]
    return values, failures


_VALUES = bytes([VALUE])


def _pickled_values(columns: Columns) -> tuple[list[Any], dict[int, Failure]]:
    """The same where all are pickles in the heap, in a loop without anything else."""
    heap, base = columns.heap, columns.heap_from
    load = unpack if b"cloudpickle" in heap else loads
    words = array("I", columns.words)
    places = zip(words[1::2], words[::2], strict=True)  # a word is a length and, above it, a place
    values: list[Any] = []
    failures: dict[int, Failure] = {}
    with _collector_paused():
        while len(values) < len(columns.kinds):
            try:
                for place, length in places:
                    start = place - base if place >= base else place - base + HEAP
                    values.append(load(heap[start : start + length]))
            except KeyboardInterrupt:
                raise
            except BaseException as error:  # whatever a class does when it is unpickled
                failures[len(values)] = detached(error)
                values.append(None)
    return values, failures


@contextmanager
def _collector_paused() -> Iterator[None]:
    """Hundreds of new objects that will stay make the cycle collector look at them over and over: half of the time."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


CONSTANTS = {NONE: None, TRUE: True, FALSE: False}


def _blobs(columns: Columns, words: array[int]) -> dict[int, Any]:
    """The pickles by their place, out of the heap's copy and out of files."""
    heap, base, files = columns.heap, columns.heap_from, iter(columns.files)
    blobs: dict[int, Any] = {}
    for at, kind in enumerate(columns.kinds):
        if kind in (VALUE, FAILED, BUFFERED):
            start = (words[at] >> PLACE) - base
            if start < 0:  # it lies where the heap begins again
                start += HEAP
            blobs[at] = heap[start : start + (words[at] & LENGTH_MASK)]
            if kind == BUFFERED:
                blobs[at] = blobs[at], next(files)
        elif kind in (BIG_VALUE, BIG_FAILED):
            blobs[at] = next(files)
    return blobs


def _ended(failure: Failure, index: int, label: Label, started: float, ended: float, worker: str) -> Ended:
    if isinstance(failure, bytes):
        error, text, final = _faults.restore(failure, lambda: label(index))
        return Ended(index, error, text, started, ended, worker, final=final)
    error = TypeError(f"the value of {label(index)} cannot be unpickled ({describe_error(failure)})")
    error.__cause__ = failure
    return Ended(index, error, "", started, ended, worker, final=True)


def decode_lost(lost: Lost, label: Label) -> Ended:
    """The failure of an attempt whose worker ended under it."""
    index, _, _, timeout = lost.batch.tickets[0]
    error: Exception
    if lost.why is Why.OVERDUE:
        assert timeout is not None, "only what has a timeout is overdue"
        error = timed_out(label(index), timeout, "its process was killed", killed=True)
    else:
        error = _death(lost)
    return Ended(index, error, "", lost.started, lost.ended, lost.worker, stack=_own_frames(lost.stack))


def _own_frames(stack: str) -> str | None:
    """The task's part of a stack; None where there is none."""
    lines = [line for line in stack.splitlines() if "/parallelkit/_worker/" not in line]
    return "\n".join(lines) or None


def _death(lost: Lost) -> Exception:
    from parallelkit._died import WorkerDied

    if lost.why is Why.GARBAGE:
        return WorkerDied(f"worker process {lost.pid} overwrote its channel to the parent", pid=lost.pid)
    if lost.status is None:
        return WorkerDied(f"worker process {lost.pid} ended; other code took its status", pid=lost.pid)
    return WorkerDied.from_status(lost.status, lost.pid)
