"""Ctrl-C during a run: a flag that the loop obeys at its one safe point."""

from __future__ import annotations

import threading
from _signal import (  # type: ignore[import-not-found]  # the wrappers in ``signal`` take ten times as long
    SIGINT,
    default_int_handler,
    getsignal,
    signal,
)
from collections.abc import Callable
from contextlib import AbstractContextManager
from math import nan
from types import FrameType
from typing import Any, TypeAlias

Guard: TypeAlias = Callable[[], AbstractContextManager[object]]
"""Entered around the caller's code, or what takes long: Ctrl-C may be raised there alone."""

UserCall: TypeAlias = Callable[[Callable[[], Any]], Any]
"""Calls the caller's code, and returns what that returns, or UNSET if Ctrl-C cut it off (see ``InterruptibleCall``)."""


class Interrupt:
    """Ctrl-C as a flag that the loop obeys where no outcome can be lost.

    While the caller's own code runs (``exposed``), and from the second Ctrl-C on, it is raised at once.
    """

    __slots__ = ("asked", "exposed", "times", "wake")

    def __init__(self, wake: Callable[[], None] = lambda: None) -> None:
        self.wake = wake
        self.asked = self.exposed = False
        self.times = 0  # how often it was raised

    def __call__(self, signum: int, frame: FrameType | None) -> None:
        at_once = self.exposed or self.asked or self.times
        self.asked = True
        if at_once:
            self.obey()
        self.wake()

    def obey(self) -> None:
        """Raise KeyboardInterrupt, if Ctrl-C has come since it was last raised."""
        if self.asked:
            self.asked = False
            self.times += 1
            raise KeyboardInterrupt

    def user_code(self) -> UserCode:
        """A block in which the caller's code runs: Ctrl-C is raised at once."""
        return UserCode(self)


class UserCode:
    """See ``Interrupt.user_code``. A class, since ``contextmanager`` sets attributes of errors, which some refuse."""

    __slots__ = ("_before", "_interrupt")

    def __init__(self, interrupt: Interrupt) -> None:
        self._interrupt = interrupt
        self._before = interrupt.exposed

    def __enter__(self) -> None:
        self._interrupt.exposed = True
        try:
            self._interrupt.obey()
        except BaseException:
            self._interrupt.exposed = self._before
            raise

    def __exit__(self, *raised: object) -> None:
        self._interrupt.exposed = self._before


def times_raised() -> float:
    """How often Ctrl-C was raised in this thread: if that stays the same, a KeyboardInterrupt is the code's own.

    NaN, which differs from itself, where another handler is installed, which may raise what it likes.
    """
    if threading.current_thread() is not threading.main_thread():
        return 0
    handler = getsignal(SIGINT)
    if isinstance(handler, Interrupt):
        return handler.times
    return nan if callable(handler) else 0  # 0: the signal is ignored, as in a background job


class catch_interrupt:  # noqa: N801  # used as a function
    """Turn SIGINT into the flag, in the main thread, unless a handler is set that is not that of an enclosing run."""

    def __init__(self, interrupt: Interrupt) -> None:
        self._interrupt = interrupt
        self._before: Callable[[int, FrameType | None], Any] | None = None

    def __enter__(self) -> Callable[[], UserCode]:
        before = getsignal(SIGINT)
        main = threading.current_thread() is threading.main_thread()
        if main and (before is default_int_handler or isinstance(before, Interrupt)):
            self._before = before
            signal(SIGINT, self._interrupt)
        return self._interrupt.user_code

    def __exit__(self, kind: object, *raised: object) -> None:
        if self._before is None:
            return
        if getsignal(SIGINT) is self._interrupt:
            signal(SIGINT, self._before)
        else:  # the caller's code has set a handler of its own, which stays, and may call the one that it found
            self._interrupt.exposed = True
        if kind is None and self._interrupt.asked:  # it came too late for the loop to obey it
            raise KeyboardInterrupt


class hold_interrupt(catch_interrupt):  # noqa: N801  # used as a function
    """Delay a Ctrl-C to the end of this block, in the main thread, where it would otherwise be raised within.

    ``as`` gives a guard: in a block entered by that, it is raised at once all the same.
    """

    def __init__(self) -> None:
        super().__init__(Interrupt())

    def __enter__(self) -> Callable[[], UserCode]:
        if getsignal(SIGINT) is default_int_handler:  # an Interrupt decides by itself when to raise
            super().__enter__()
        return self._interrupt.user_code
