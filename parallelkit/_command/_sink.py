"""Writes outcomes as JSON Lines: each line is in the file or the pipe before the next outcome is looked at."""

from __future__ import annotations

import json
import math
import os
import select
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from parallelkit._outcomes import Outcome
from parallelkit._raised import describe_error, repr_of


class OutputError(Exception):
    """The output cannot be written any more; the disk may be full."""


LAST = 0.5
"""Seconds that a full pipe is waited for after Ctrl-C."""

PAGE = 4096
"""Bytes that a pipe takes without blocking if it has room at all."""


@contextmanager
def signals_heard() -> Iterator[int]:
    """Within the block, provide a descriptor that becomes readable when a signal arrives; for the main thread only."""
    heard, told = os.pipe()  # not pipe2, which macOS lacks
    os.set_blocking(told, False)
    before = signal.set_wakeup_fd(told, warn_on_full_buffer=False)
    try:
        yield heard
    finally:
        signal.set_wakeup_fd(before)
        os.close(told)
        os.close(heard)


class Sink:
    """Writes to a descriptor, which it does not own: each line, up to a page (4 KiB), by one system call.

    So whatever kills the program, the output consists of whole lines; only a longer one can be cut, and
    only if it is the last.

    It writes only when there is room. A Ctrl-C just before a ``write`` that blocks would be noticed only
    once somebody reads; so it waits for room and for signals together. ``heard`` is the descriptor that
    ``signals_heard`` provides. ``stale``: the file has contents to be removed before the first line.
    """

    def __init__(self, fd: int, heard: int, stale: bool = False) -> None:
        self._fd, self._heard, self._stale = fd, heard, stale
        self._poll = select.poll()
        self._poll.register(fd, select.POLLOUT)
        self._poll.register(heard, select.POLLIN)
        self._patience: float | None = None
        self._given_up = False
        self._state: tuple[Outcome[Any, Any] | None, memoryview, list[int]] = (None, memoryview(b""), [])
        """The outcome that is to be made a line; or None, what is left of the line, and how much of that was written.

        It is replaced as a whole: wherever Ctrl-C comes, ``finish`` writes each byte once.
        """

    def hurry(self) -> None:
        """Wait no longer than ``LAST`` for room from now on; then nobody reads: a line may be cut, and all others are dropped."""
        self._patience = LAST * 1000

    def write(self, outcome: Outcome[Any, Any]) -> None:
        """Write one line; raises ``OutputError``, or BrokenPipeError if the reader has closed the pipe."""
        self.finish()
        self._state = (outcome, memoryview(b""), [])
        self.finish()

    def finish(self) -> None:
        """Write what is left of the last line, if Ctrl-C cut that off."""
        if self._given_up:
            return
        outcome, line, written = self._state
        if outcome is not None:
            line = memoryview(line_of(outcome))
        try:
            self.renew()
            while line := line[sum(written) :]:
                written = []
                self._state = (None, line, written)
                self._given_up = not self._has_room()
                if self._given_up:
                    return
                # In C, lest Ctrl-C come between writing and counting.
                written.extend(map(os.write, (self._fd,), (line[:PAGE],)))
        except BrokenPipeError:
            raise
        except OSError as error:
            raise OutputError(f"the output cannot be written: {error.strerror}") from None

    def renew(self) -> None:
        """Remove what the file had before this run, if that has not been done yet."""
        if self._stale:
            self._stale = False
            os.ftruncate(self._fd, 0)

    def _has_room(self) -> bool:
        """Wait for room; False if there is none in time."""
        while ready := dict(self._poll.poll(self._patience)):
            if self._heard in ready:
                os.read(self._heard, PAGE)  # Python calls the signal's handler right after
            if self._fd in ready:
                return True
        return False


def line_of(outcome: Outcome[Any, Any]) -> bytes:
    """Return an outcome as a line of JSON; its ``repr`` is true if something in it is shown by its ``repr``."""
    row: dict[str, Any] = {"key": outcome.key, "ok": outcome.ok}
    if outcome.ok:
        row["value"] = outcome.value
    else:
        row["error"] = describe_error(outcome.error)
        row["error_type"] = type(outcome.error).__name__
    row["attempts"] = outcome.attempts
    row["seconds"] = round(outcome.duration, 6)
    return as_json(row) + b"\n"


def as_json(row: dict[str, Any]) -> bytes:
    """Return the row as JSON on one line; see ``line_of``."""
    foreign = Foreign()
    try:
        text = dump(row, foreign)
        if foreign.seen:
            text = dump({**row, "repr": True}, foreign)
    except Exception:  # NaN, a cycle, a key that is no str, a number of too many digits
        text = dump_shown(row)
    return text.encode(errors="backslashreplace")  # which is JSON's escape, too, for what was not UTF-8


def dump_shown(row: dict[str, Any]) -> str:
    """Return the row with every NaN and infinity as text; where that does not do (a cycle, say), with whole fields as text."""
    foreign = Foreign()
    try:
        return dump({**finite(row), "repr": True}, lambda thing: finite(foreign(thing)))
    except Exception:
        shown = {name: field if is_plain(field) else repr_of(field) for name, field in row.items()}
        return dump({**shown, "repr": True}, foreign)


def dump(thing: Any, foreign: Callable[[Any], Any] | None = None) -> str:
    return json.dumps(thing, ensure_ascii=False, allow_nan=False, default=foreign)


def finite(thing: Any) -> Any:
    """Return the thing with a text in place of every NaN and infinity."""
    if isinstance(thing, float):
        return thing if math.isfinite(thing) else float.__repr__(thing)
    if isinstance(thing, dict):
        return {key: finite(value) for key, value in thing.items()}
    if isinstance(thing, (list, tuple)):
        return [finite(value) for value in thing]
    return thing


class Foreign:
    """Converts what JSON cannot hold: arrays and numpy's numbers to lists and numbers, all else to its ``repr``."""

    seen = False

    def __call__(self, thing: Any) -> Any:
        if hasattr(thing, "tolist"):
            return thing.tolist()
        self.seen = True
        return repr_of(thing)


def is_plain(field: Any) -> bool:
    """Whether a field is JSON as it is, within a row; a whole number of thousands of digits is not."""
    try:
        dump({"": field})
    except Exception:
        return False
    return True
