"""An object with a thread of its own, which other threads wake and ask."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable
from math import inf
from threading import Lock, RLock, get_ident
from typing import TypeVar

from parallelkit._conditions import Thread
from parallelkit._locks import careful

T = TypeVar("T")


class WakeUp:
    """An eventfd with a lock, so that nobody writes to it once it is closed, when its number may be another file's."""

    _open: list[int] | None = None  # its descriptor, until it is closed; None: there is no lock yet

    def __init__(self) -> None:
        self._lock = careful(RLock)  # reentrant: a finalizer may call ``set`` while this thread does
        made: list[int] = []
        self._open = made
        # One call makes and keeps it, for a signal handler may raise after each.
        made.extend(map(os.eventfd, (0,), (os.EFD_NONBLOCK | os.EFD_CLOEXEC,)))
        self.fd = made[0]

    def clear(self) -> None:
        """Reset it once the thread is awake."""
        os.eventfd_read(self.fd)

    def set(self) -> None:
        with self._lock:
            if self._open:
                os.eventfd_write(self.fd, 1)

    def close(self) -> None:
        with self._lock:
            if self._open:
                os.close(self._open.pop())

    def __del__(self) -> None:
        if self._open:
            self.close()  # Ctrl-C may have kept its engine from being made


class Actor(ABC):
    """The thread starts with the first ``poke``, and makes turns in ``_run`` until ``closing`` is set.

    Nobody waits for an answer in vain: once the thread has ended, the asking threads answer themselves.
    """

    def __init__(self, name: str) -> None:
        self.closing = False
        self._poked = self._asleep = False
        self._due = inf  # when the thread makes a turn even if nobody pokes it; infinity if that is not soon
        self._wake_up = WakeUp()
        self._requests: deque[Callable[[], object]] = deque()
        self._ended = False
        self._name = name
        self._thread: Thread | None = None
        self._starting = careful(RLock)  # reentrant: a finalizer may call ``poke`` as a thread is being made

    @abstractmethod
    def _run(self) -> None:
        """Run in the thread. Before it sleeps it sets ``_asleep``, and then looks at ``_poked``. In the end it calls ``_end``."""

    def poke(self) -> None:
        """Have the thread make a turn."""
        self._poked = True
        if self._asleep:
            self._wake_up.set()
        elif self._thread is None:
            self._start()

    def _start(self) -> None:
        with self._starting:
            if self._thread is None and not self.closing:
                thread = Thread(target=self._begin, name=self._name, daemon=True)
                thread.start()  # raises if the system has no thread to give; the next call tries again
                self._thread = thread

    def _begin(self) -> None:
        with self._starting:
            if not self.is_own_thread():  # a signal handler raised while ``_start`` was starting this
                return
        self._run()

    def ask(self, question: Callable[[], T]) -> T:
        """Have the thread answer within a turn; wait for the answer."""
        if self._is_here():
            return question()
        answer: list[T] = []
        answered = Lock()
        answered.acquire()

        def reply() -> None:
            try:
                answer.append(question())
            finally:
                answered.release()

        self.post(reply)
        answered.acquire()
        return answer[0]

    def post(self, request: Callable[[], object], *, at_once: bool = True) -> None:
        """Have the thread do this within a turn, or when the next is due; do not wait for that."""
        if self._is_here():
            request()
            return
        self._requests.append(request)
        # Read after the request was added: ``_answer_at`` resets it first, and then does what is there.
        if at_once or self._due == inf:
            self.poke()
        # Read after the request was added: ``_end`` sets it first, and then does what is there.
        if self._ended:
            self._answer()

    def _answer_at(self, now: float) -> None:
        """Do all that is asked for; what comes later must poke, if this is the turn that was due."""
        if now >= self._due:
            self._due = inf
        self._answer()

    def _answer(self) -> None:
        """Do all that is asked for."""
        while self._requests:
            try:
                request = self._requests.popleft()
            except IndexError:  # another thread took it
                return
            request()

    def _end(self) -> None:
        """Do the last of it: the thread is about to end."""
        self._ended = True
        self._answer()

    def _is_here(self) -> bool:
        """Whether the caller may do the thread's work: it is the thread, or there is none."""
        thread = self._thread
        return thread is None or self.is_own_thread() or not thread.is_alive()

    def is_own_thread(self) -> bool:
        """Whether the thread itself calls, as from a finalizer that runs in it: it must not wait for workers."""
        thread = self._thread
        # Not ``current_thread``: a test may have mocked that as this module was imported, for ever then.
        return thread is not None and thread.ident == get_ident() and thread.is_alive()

    def join(self) -> None:
        """Wait until the thread has ended."""
        with self._starting:
            thread = self._thread
        if thread is not None and not self.is_own_thread():
            thread.join()
