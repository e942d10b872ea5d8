"""The zygote of a program's first run in processes: it starts while this process still loads what a run needs.

To load the modules of a run takes some fifty milliseconds, and a fresh interpreter forty until it has loaded
what it unpacks a function of the script with. Side by side they take as long as the longer.
"""

from __future__ import annotations

import os

from parallelkit._executors._process._preload import SCRIPT, UNPACKING, homes_of, needs
from parallelkit._executors._process._startable import check_startable, check_watchable
from parallelkit._executors._process._zygote import Zygote
from parallelkit._interrupt import Interrupt, catch_interrupt

_ahead: list[tuple[int, Zygote]] = []  # with the process whose child it is


class started_ahead:  # noqa: N801  # used as a function; contextlib's would set an attribute of a task's error
    """Have a zygote for the first engine of this block that starts a worker; it ends with the block if none takes it."""

    def __init__(self, fn: object) -> None:
        self._fn = fn
        self._entry: tuple[int, Zygote] | None = None

    def __enter__(self) -> None:
        try:
            with catch_interrupt(Interrupt()):  # later starts and ends are in a thread, where no Ctrl-C comes
                self._entry = _start(self._fn)
        except BaseException:
            self.__exit__()
            raise

    def __exit__(self, *raised: object) -> None:
        try:
            with catch_interrupt(Interrupt()):
                _end(self._entry)
        finally:
            _end(self._entry)  # if Ctrl-C came just before it was caught


def _start(fn: object) -> tuple[int, Zygote] | None:
    homes = homes_of(fn)
    try:
        check_watchable()
        check_startable()
        entry = os.getpid(), Zygote(sorted(UNPACKING) if SCRIPT in homes else needs(homes))
    except (OSError, RuntimeError):  # the engine will do without, or say what is lacking
        return None
    _ahead.append(entry)
    return entry


def _end(entry: tuple[int, Zygote] | None) -> None:
    if entry is None:
        return
    try:
        _ahead.remove(entry)
    except ValueError:
        pass  # an engine has it
    else:
        entry[1].close()


def take() -> Zygote | None:
    """The zygote that was started ahead, if there is one that nobody has taken: now it is the caller's to close."""
    try:
        owner, zygote = _ahead.pop()
    except IndexError:
        return None
    return zygote if owner == os.getpid() else None
