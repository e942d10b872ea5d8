"""Ends a process that a task has forked as it leaves the task: all that follows is for its parent to do."""

from __future__ import annotations

import os
import sys

TYPE_CHECKING = False  # importing typing would cost a worker a third of its start
if TYPE_CHECKING:
    from typing import NoReturn


def end_child(error: BaseException | None) -> NoReturn:
    """End this process as a program ends that raises this error, or None: with the same exit status and message.

    What it has printed and not flushed is dropped, because the buffer may also hold what its parent had printed.
    """
    status = 0
    try:
        if isinstance(error, SystemExit):
            status = _status_of(error.code)
        elif error is not None:
            status = 1
            sys.excepthook(type(error), error, error.__traceback__)
            sys.stderr.flush()
    except BaseException:  # stderr is closed, or the task's own error or exit code raises when it is shown
        status = status or 1
    finally:
        os._exit(status)


def _status_of(code: object) -> int:
    if code is None:
        return 0
    if isinstance(code, int):
        number = int.__index__(code)
        return number & 0xFF if -(1 << 63) <= number < 1 << 63 else 255
    sys.stderr.write(f"{code}\n")
    return 1
