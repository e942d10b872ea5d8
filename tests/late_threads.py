"""Threads whose start Ctrl-C interrupts: the operating system has created them, but ``start`` has not returned."""

import signal
import threading
import time

PATIENCE = 30.0


class LateThreads:
    """Patch threading so that Ctrl-C comes during the start of the first thread of this name.

    That thread begins to run only when ``ends_soon`` releases it.
    """

    def __init__(self, monkeypatch, name):
        self.may_go_on, self.ended = threading.Event(), threading.Event()
        self._name, self._struck = name, False
        bootstrap = threading.Thread._bootstrap

        def begin(thread):
            if not self._is_struck(thread.name):
                bootstrap(thread)
                return
            time.sleep(0.02)  # until the starter blocks: a signal just before that would not wake it
            signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)
            self.may_go_on.wait(PATIENCE)
            bootstrap(thread)
            self.ended.set()

        monkeypatch.setattr(threading.Thread, "_bootstrap", begin)

    def _is_struck(self, name):
        struck, self._struck = not self._struck and name == self._name, self._struck or name == self._name
        return struck

    def ends_soon(self):
        """Release the thread; return whether it ends."""
        self.may_go_on.set()
        return self.ended.wait(PATIENCE)
