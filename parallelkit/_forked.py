"""How a child ends that a task has forked, and that comes back from the task: the parent has that, and all behind it."""

from __future__ import annotations

import os
import sys

TYPE_CHECKING = False  # importing typing would cost a worker a third of its start
if TYPE_CHECKING:
    from typing import NoReturn


def end_child(error: BaseException | None) -> NoReturn:
    """End this process with the status, and with what is said, of a program that raises this; or nothing.

    What it has printed and not flushed is dropped: in the same buffer is what its parent had.
    """
    status = 0
    try:
        if isinstance(error, SystemExit):
            status = _status_of(error.code)
        elif error is not None:
            status = 1
            sys.excepthook(type(error), error, error.__traceback__)
            sys.stderr.flush()
    except (
        BaseException
    ):  # the stream is closed, or what is shown is the task's own and raises: it must end all the same
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
