"""The payloads of journal records: an outcome's value or error as bytes, and the outcome read back from them."""

from __future__ import annotations

from _pickle import dumps, loads
from collections.abc import Sequence
from functools import partial
from itertools import islice, repeat
from typing import Any

from parallelkit._input._recall import Recalled
from parallelkit._interrupt import UserCall
from parallelkit._journal._file import Record
from parallelkit._logger import logger
from parallelkit._lost import Lost
from parallelkit._marks import UNSET
from parallelkit._raised import describe_error, is_of_signal
from parallelkit._worker._faults import capture_here, restore
from parallelkit._worker._travel import pack_by_value, unpack

SOURCE = "checkpoint"  # the ``worker`` of a recalled outcome
LARGEST = 900_000_000  # bytes of a payload; SQLite allows a row at most a billion
NAMING = b"\x93"  # the opcode that names a class; plain data has it at most by chance, in a text or a number


class Payloads:
    """Makes the payloads of one run; the first value or error that cannot be recorded is warned of.

    ``path``: the journal's, for the warning.
    """

    def __init__(self, path: str, call_user: UserCall) -> None:
        self._path = path
        self._call_user = call_user
        self._cut_off = False  # Ctrl-C came while something was being pickled
        self._warned = False

    def of_values(self, keys: Sequence[str], values: list[Any]) -> list[bytes | None]:
        """A payload for each value; None in place of one that cannot be recorded."""
        made: list[bytes | None] = []
        while len(made) < len(values) and not self._cut_off:
            try:
                answer = self._call_user(partial(pickle_on, values, made))
                if answer is UNSET and len(made) < len(values):
                    self._give_up("value", keys[len(made)])
            except BaseException as error:  # the value's own code may even exit
                if is_of_signal(error):
                    raise
                self._warn("value", keys[len(made)], f"it cannot be pickled ({describe_error(error)})")
                made.append(None)
        made += [None] * (len(values) - len(made))
        return [
            payload
            if payload is not None and self._fits("value", key, payload) and self._is_readable(key, payload)
            else None
            for key, payload in zip(keys, made, strict=True)
        ]

    def of_error(self, key: str, lost: Lost) -> bytes | None:
        """The payload of a failure; None if it cannot be recorded."""
        if self._cut_off:
            return None
        payload: Any = self._call_user(partial(pickle_error, lost))
        if payload is UNSET:
            self._give_up("error", key)
            return None
        return payload if self._fits("error", key, payload) else None

    def _give_up(self, what: str, key: str) -> None:
        """Record nothing more: pickling the next might hang, too."""
        self._cut_off = True
        self._warn(what, key, "Ctrl-C came as it was being pickled")

    def _fits(self, what: str, key: str, payload: bytes) -> bool:
        if len(payload) > LARGEST:
            self._warn(what, key, f"it takes {len(payload):,} bytes, and at most {LARGEST:,} are possible")
        return len(payload) <= LARGEST

    def _is_readable(self, key: str, payload: bytes) -> bool:
        """Whether the value can be had back; that of a class of the user's may not, such as an error with its own ``__init__``."""
        if NAMING not in payload:
            return True
        if self._cut_off:
            return False
        try:
            cut_off = self._call_user(partial(unpack, payload)) is UNSET
        except BaseException as error:
            if is_of_signal(error):
                raise
            self._warn("value", key, f"its pickle cannot be unpickled ({describe_error(error)})")
            return False
        if cut_off:
            self._give_up("value", key)
        return not cut_off

    def _warn(self, what: str, key: str, why: str) -> None:
        if not self._warned:
            self._warned = True
            logger.warning(
                "the %s of task %s cannot be recorded in %s, and the task will be run again when the run is "
                "resumed, because %s; further ones are not reported",
                what,
                key,
                self._path,
                why,
            )


def pickle_on(values: list[Any], made: list[bytes | None]) -> None:
    """Append to ``made`` the pickles of the values that it lacks, up to and with the first that must go by value.

    Plain pickle comes first: it names a class of ``__main__``, so that a second run of the script gets its own class
    back. The loop is in C: a Ctrl-C that arrives while plain data is pickled is raised only afterwards.
    """
    try:
        made.extend(map(dumps, islice(values, len(made), None), repeat(5)))
    except Exception as error:
        if is_of_signal(error):
            raise
        made.append(pack_by_value(values[len(made)], None))


def pickle_error(lost: Lost) -> bytes:
    """The payload of a failure: its error, captured, and its traceback as text where that came as text.

    Else the captured error has the text. A class of the script goes by name, as in values.
    """
    assert lost.error is not None, "a failure that is settled has its error"
    return dumps((capture_here(lost.error, by_name=True), lost.text and lost.traceback), 5)


def recalled(record: Record) -> Recalled:
    """The outcome in a record; raises whatever unpickling raises."""
    if record.ok:
        return Recalled(unpack(record.payload), SOURCE)
    packed, text = loads(record.payload)
    error, shown, _ = restore(packed, lambda: f"task {record.key}")
    return Recalled(None, SOURCE, Lost(error, 0, None, 0.0, SOURCE, text or shown))


def unreadable(path: str, record: Record, error: Exception) -> ValueError:
    """The error for a record that cannot be unpickled, because its class is gone, say."""
    return ValueError(
        f"checkpoint must hold outcomes that can be unpickled, got {path}, key {record.key}: {describe_error(error)}; "
        "the modules and classes that they need must be importable, as when they were recorded; "
        "to have the task run again, delete its row from the table outcomes of this SQLite file"
    )
