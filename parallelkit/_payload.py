"""The payload of a journal record: an outcome's value or error as bytes, and the outcome read back from them."""

from __future__ import annotations

from _pickle import dumps, loads
from itertools import islice, repeat
from typing import Any

from parallelkit._journal import Record
from parallelkit._lost import Lost, describe
from parallelkit._raised import is_of_signal
from parallelkit._recall import Recalled
from parallelkit._worker._faults import capture_here, restore

SOURCE = "checkpoint"  # the ``worker`` of a recalled outcome


def pickle_on(values: list[Any], made: list[bytes | None]) -> None:
    """Append to ``made`` the pickles of the values that it lacks, up to and with the first that needs cloudpickle.

    Plain pickle comes first: it names a class of ``__main__``, so that a second run of the script gets its own class
    back. The loop is in C: a Ctrl-C that arrives while plain data is pickled is raised only afterwards.
    """
    try:
        made.extend(map(dumps, islice(values, len(made), None), repeat(5)))
    except Exception as error:
        if is_of_signal(error):
            raise
        import cloudpickle

        made.append(cloudpickle.dumps(values[len(made)], 5))


def pickle_error(lost: Lost) -> bytes:
    """The payload of a failure: its error, captured, and its traceback as text."""
    assert lost.error is not None, "a failure that is settled has its error"
    return dumps((capture_here(lost.error), lost.traceback), 5)


def recalled(record: Record) -> Recalled:
    """The outcome in a record; raises whatever unpickling raises."""
    if record.ok:
        return Recalled(loads(record.payload), SOURCE)
    packed, text = loads(record.payload)
    error, _, _ = restore(packed, lambda: f"task {record.key}")
    return Recalled(None, SOURCE, Lost(error, 0, None, 0.0, SOURCE, text))


def unreadable(path: str, record: Record, error: Exception) -> ValueError:
    """The error for a record that cannot be unpickled, because its class is gone, say."""
    return ValueError(
        f"checkpoint must hold outcomes that can be unpickled, got {path}, key {record.key}: {describe(error)}; "
        "the modules and classes that they need must be importable, as when they were recorded"
    )
