"""Opening an executor's port: the dispatcher's thread does it, while the first ``submit`` waits."""

from __future__ import annotations

import threading
from collections.abc import Callable

from parallelkit._conditions import Event, Thread
from parallelkit._executors._submit._exit import finish_at_child_exit
from parallelkit._executors._thread._lending import take_claim

PATIENCE = 1.0  # seconds to wait for the thread to open the port, or to begin


class Opening:
    """A thread that does ``work``, unless the opening is given up first. ``error``: why the port could not be opened."""

    def __init__(self, work: Callable[[Opening], None]) -> None:
        self.thread = Thread(target=work, args=(self,), name="parallelkit_futures", daemon=True)
        self.error: BaseException | None = None
        self._claim = [0.0]
        self._begun = False
        self._done = Event()

    def start(self) -> None:
        """Start the thread, and wait until the port is open, but no longer than ``PATIENCE``; raise ``error`` if there is one.

        The wait is needed because the main thread may end right after ``submit``: some Pythons (3.12.0 to
        3.12.2) then start no more threads, and the call would be lost. The wait is bounded, and the caller
        holds no lock, because the caller may be a finalizer (``__del__``) that interrupts just what the
        opening waits for, such as the start of a thread.
        """
        finish_at_child_exit()
        self.thread.start()
        self._done.wait(PATIENCE)
        if self.error is not None:
            raise self.error

    def begin(self) -> bool:
        """Claim the work, in the thread itself; False if the opening was given up."""
        self._begun = take_claim(self._claim)
        return self._begun

    def give_up(self) -> bool:
        """Keep the thread from beginning, after its start failed or a signal handler raised; False if it has begun."""
        return take_claim(self._claim)

    def end(self, error: BaseException | None = None) -> None:
        """Wake ``start``: the port is open or, with ``error``, cannot be opened."""
        self.error = error
        self._done.set()

    def is_own_thread(self) -> bool:
        """Whether the caller is the thread that does the work."""
        return self.thread.ident == threading.get_ident()

    def join(self) -> None:
        """Wait until the thread has ended, unless it does not begin within ``PATIENCE``."""
        if not self._begun:
            self._done.wait(PATIENCE)
        if self._begun:
            self.thread.join()
