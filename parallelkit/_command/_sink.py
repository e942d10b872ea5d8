"""Outcomes as JSON Lines: one line an outcome, in the file or down the pipe before the next is looked at."""

from __future__ import annotations

import json
import math
import os
import select
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from parallelkit._lost import describe
from parallelkit._outcomes import Outcome


class OutputError(Exception):
    """The output cannot be written any more: the disk is full, say."""


PAGE = 4096
"""Bytes that a pipe takes at once if it has room at all."""


@contextmanager
def signals_heard() -> Iterator[int]:
    """A descriptor that can be read once a signal has come; for the main thread."""
    heard, told = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    before = signal.set_wakeup_fd(told, warn_on_full_buffer=False)
    try:
        yield heard
    finally:
        signal.set_wakeup_fd(before)
        os.close(told)
        os.close(heard)


class Sink:
    """Writes to a descriptor, which it does not own; each line is one ``write`` to the system.

    There is always room for what it writes: a Ctrl-C on the way into a ``write`` that blocks would be seen only when
    somebody reads. ``heard`` can be read when one has come.

    So whatever kills the program, what was written are whole lines: only a line longer than a page of
    memory (4 KiB) can be cut, and only as the last one.
    """

    def __init__(self, fd: int, heard: int) -> None:
        self._fd, self._heard = fd, heard
        self._poll = select.poll()
        self._poll.register(fd, select.POLLOUT)
        self._poll.register(heard, select.POLLIN)

    def write(self, outcome: Outcome[Any, Any]) -> None:
        """Write one line; raises ``OutputError``, or BrokenPipeError where nobody reads any more."""
        rest = memoryview(line_of(outcome))
        try:
            while rest:
                self._wait_for_room()
                rest = rest[os.write(self._fd, rest[:PAGE]) :]
        except BrokenPipeError:
            raise
        except OSError as error:
            raise OutputError(f"the output cannot be written: {error.strerror}") from None

    def _wait_for_room(self) -> None:
        ready: dict[int, int] = {}
        while self._fd not in ready:
            ready = dict(self._poll.poll())
            if self._heard in ready:
                os.read(self._heard, PAGE)  # the signal's handler is about to be called


def line_of(outcome: Outcome[Any, Any]) -> bytes:
    """One outcome as a line of JSON.

    ``repr`` is true where something in it is no JSON, and stands there as Python shows it.
    """
    row: dict[str, Any] = {"key": outcome.key, "ok": outcome.ok}
    if outcome.ok:
        row["value"] = outcome.value
    else:
        row["error"] = describe(outcome.error)
        row["error_type"] = type(outcome.error).__name__
    row["attempts"] = outcome.attempts
    row["seconds"] = round(outcome.duration, 6)
    return as_json(row) + b"\n"


def as_json(row: dict[str, Any]) -> bytes:
    """The row as JSON on one line; see ``line_of``."""
    foreign = Foreign()
    try:
        text = dump(row, foreign)
        if foreign.seen:
            text = dump({**row, "repr": True}, foreign)
    except Exception:  # no JSON even so
        text = dump_shown(row)
    try:
        return text.encode()
    except UnicodeEncodeError:  # half of a surrogate pair, or a byte that was no UTF-8: as an escape
        return json.dumps(json.loads(text)).encode()


def dump_shown(row: dict[str, Any]) -> str:
    """The row with the text of every NaN and infinity; with that of a whole field, where it is a cycle or has keys that are no text."""
    foreign = Foreign()
    try:
        return dump({**finite(row), "repr": True}, lambda thing: finite(foreign(thing)))
    except Exception:
        shown = {name: field if is_plain(field) else show(field) for name, field in row.items()}
        return dump({**shown, "repr": True}, foreign)


def dump(thing: Any, foreign: Callable[[Any], Any] | None = None) -> str:
    return json.dumps(thing, ensure_ascii=False, allow_nan=False, default=foreign)


def finite(thing: Any) -> Any:
    """The same with a text in place of every NaN and infinity."""
    if isinstance(thing, float):
        return thing if math.isfinite(thing) else float.__repr__(thing)
    if isinstance(thing, dict):
        return {key: finite(value) for key, value in thing.items()}
    if isinstance(thing, (list, tuple)):
        return [finite(value) for value in thing]
    return thing


class Foreign:
    """Stands in for what is no JSON: numpy's arrays and numbers become lists and numbers, all else its ``repr``."""

    seen = False

    def __call__(self, thing: Any) -> Any:
        if hasattr(thing, "tolist") and hasattr(thing, "dtype"):
            return thing.tolist()
        self.seen = True
        return show(thing)


def is_plain(field: Any) -> bool:
    """Whether it is JSON just as it is; a whole number of some thousand digits is none."""
    try:
        dump(field)
    except Exception:
        return False
    return True


def show(thing: Any) -> str:
    """Its ``repr``, also where that fails."""
    try:
        return repr(thing)
    except Exception as broken:
        return f"<{type(thing).__name__}, whose repr raised {type(broken).__name__}>"
