"""Starts the zygote of a program's first run in processes while this process still imports what a run needs.

The imports of a run take about 50 ms; a fresh interpreter takes 15 ms until it can fork, and twice that if it loads what
unpacks the script's classes. Side by side they take as long as the longer.
"""

from __future__ import annotations

import os
from collections.abc import Callable

from parallelkit._executors._process._preload import modules_for, needs_ahead
from parallelkit._executors._process._startable import check_startable, check_watchable
from parallelkit._executors._process._zygote import Zygote
from parallelkit._interrupt import Interrupt, catch_interrupt

_ahead: list[tuple[int, Zygote]] = []  # each with the id of the process that started it


class started_ahead:  # noqa: N801  # used as a function; contextlib's would set an attribute of a task's error
    """Start a zygote for the first engine in this block that starts workers; end it with the block if none has taken it.

    ``load`` imports what the block needs, while the zygote starts. No garbage is collected then: that would find none, and
    take a tenth of the time.
    """

    def __init__(self, fn: object, load: Callable[[], object]) -> None:
        self._fn, self._load = fn, load
        self._entry: tuple[int, Zygote] | None = None

    def __enter__(self) -> None:
        try:
            # Other zygotes are started and ended in a thread, where no Ctrl-C comes.
            with catch_interrupt(Interrupt()):
                self._entry = _start(self._fn)
            from parallelkit._collector import without_collector  # late: the zygote is not to wait for it

            without_collector(self._load)
        except BaseException:
            self.__exit__()
            raise

    def __exit__(self, *raised: object) -> None:
        try:
            with catch_interrupt(Interrupt()):
                _end(self._entry)
        finally:
            _end(self._entry)  # again, if Ctrl-C came just before it could be caught


def _start(fn: object) -> tuple[int, Zygote] | None:
    modules = modules_for(fn)
    try:
        check_watchable()
        check_startable()
        entry = os.getpid(), Zygote(needs_ahead(modules))
    except (OSError, RuntimeError):  # the engine will do without one, or say what is wrong
        return None
    _ahead.append(entry)
    return entry


def _end(entry: tuple[int, Zygote] | None) -> None:
    if entry is None:
        return
    try:
        _ahead.remove(entry)
    except ValueError:
        pass  # an engine has taken it
    else:
        entry[1].close()


def take() -> Zygote | None:
    """Take the zygote that was started ahead, if there is one left; the caller then has to close it."""
    try:
        owner, zygote = _ahead.pop()
    except IndexError:
        return None
    return zygote if owner == os.getpid() else None
