"""Ctrl-C during a run: a flag that the loop obeys at its one safe point."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType


@dataclass(slots=True)
class Interrupt:
    """Ctrl-C as a flag that the loop obeys where no outcome can be lost.

    While the caller's own code runs (``exposed``), and from the second Ctrl-C on, it is raised at once.
    """

    wake: Callable[[], None] = lambda: None
    asked: bool = False
    raised: bool = False
    exposed: bool = False

    def __call__(self, signum: int, frame: FrameType | None) -> None:
        at_once = self.exposed or self.asked or self.raised
        self.asked = True
        if at_once:
            self.obey()
        self.wake()

    def obey(self) -> None:
        """Raise what was asked for, if it was."""
        if self.asked:
            self.asked, self.raised = False, True
            raise KeyboardInterrupt

    @contextmanager
    def user_code(self) -> Iterator[None]:
        """Code of the caller's runs in this block."""
        before, self.exposed = self.exposed, True
        try:
            self.obey()
            yield
        finally:
            self.exposed = before


@contextmanager
def catch_interrupt(interrupt: Interrupt) -> Iterator[None]:
    """Turn SIGINT into the flag, in the main thread, where nobody has taken the signal but a run around this one."""
    before = signal.getsignal(signal.SIGINT)
    main = threading.current_thread() is threading.main_thread()
    if not main or not (before is signal.default_int_handler or isinstance(before, Interrupt)):
        yield
        return
    signal.signal(signal.SIGINT, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
    if interrupt.asked:  # too late for the loop, and nobody else has heard of it
        raise KeyboardInterrupt
