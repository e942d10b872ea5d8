"""Threads that Ctrl-C strikes as they are started: the system has them, and Python does not know yet."""

import signal
import threading
import time

PATIENCE = 30.0


class LateThreads:
    """Those of one name; the first is interrupted, and begins when it is let go."""

    def __init__(self, monkeypatch, name):
        self.may_go_on, self.ended = threading.Event(), threading.Event()
        self._name, self._struck = name, False
        late = self

        class Thread(threading.Thread):
            def _bootstrap(self):
                if not late._is_struck(self.name):
                    super()._bootstrap()
                    return
                time.sleep(0.02)  # until its starter blocks, whom a signal of just before would not wake
                signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)
                late.may_go_on.wait(PATIENCE)
                super()._bootstrap()
                late.ended.set()

        monkeypatch.setattr(threading, "Thread", Thread)

    def _is_struck(self, name):
        struck, self._struck = not self._struck and name == self._name, self._struck or name == self._name
        return struck

    def ends_soon(self):
        """Let it go; whether it ends."""
        self.may_go_on.set()
        return self.ended.wait(PATIENCE)
