"""The opening of an executor's port, by the thread that serves it, while the first call waits."""

from __future__ import annotations

import threading
from collections.abc import Callable

from parallelkit._executors._thread._lending import take_claim

PATIENCE = 1.0  # seconds that anybody waits for the thread to open the port, or to begin


class Opening:
    """``thread`` does ``work``, unless it was given up before. ``error``: why there is no port."""

    def __init__(self, work: Callable[[Opening], None]) -> None:
        self.thread = threading.Thread(target=work, args=(self,), name="parallelkit_futures", daemon=True)
        self.error: BaseException | None = None
        self._claim = [0.0]
        self._begun = False
        self._done = threading.Event()

    def start(self) -> None:
        """Start the thread, and wait until the port is open; raises where it cannot be.

        The main thread may end after ``submit``, whereupon some Pythons (3.12.0 to 3.12.2) start no more,
        and the call would be lost. No lock may be held here, and the wait has its bound: the caller may be
        a finalizer (``__del__``) in the midst of what the opening waits for, such as the start of a thread.
        """
        self.thread.start()
        self._done.wait(PATIENCE)
        if self.error is not None:
            raise self.error

    def begin(self) -> bool:
        """In the thread; False where it was given up."""
        self._begun = take_claim(self._claim)
        return self._begun

    def give_up(self) -> bool:
        """The thread was not started, or a signal handler raised meanwhile; False where it runs."""
        return take_claim(self._claim)

    def end(self, error: BaseException | None = None) -> None:
        """The port is open, or there is none."""
        self.error = error
        self._done.set()

    def join(self) -> None:
        """Wait until the thread has ended; not for one that does not even begin."""
        if not self._begun:
            self._done.wait(PATIENCE)
        if self._begun:
            self.thread.join()
