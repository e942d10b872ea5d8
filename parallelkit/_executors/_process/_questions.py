"""Calls that other threads have one thread make, within its turns."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from threading import Lock
from typing import TypeVar

T = TypeVar("T")


class Questions:
    """Nobody waits for an answer in vain: once the thread has ended, the asking threads make the calls themselves."""

    def __init__(self) -> None:
        self._open: deque[Callable[[], object]] = deque()
        self._ended = False

    def ask(self, question: Callable[[], T], poke: Callable[[], object]) -> T:
        """Have the thread call this, and wait for what it returns; ``poke`` wakes the thread."""
        answer: list[T] = []
        answered = Lock()
        answered.acquire()

        def reply() -> None:
            try:
                answer.append(question())
            finally:
                answered.release()

        self.post(reply, poke)
        answered.acquire()
        return answer[0]

    def post(self, request: Callable[[], object], poke: Callable[[], object]) -> None:
        """Have the thread call this soon; do not wait for that."""
        self._open.append(request)
        poke()
        # Read after the request was added: ``end`` sets it first, and then answers what is there.
        if self._ended:
            self.answer()

    def answer(self) -> None:
        """Make all calls that are asked for."""
        while self._open:
            try:
                reply = self._open.popleft()
            except IndexError:  # another thread took it
                return
            reply()

    def end(self) -> None:
        """Make the last calls: the thread is about to end."""
        self._ended = True
        self.answer()
