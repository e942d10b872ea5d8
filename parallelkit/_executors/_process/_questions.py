"""What other threads ask of one thread, which answers between two turns."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from threading import Lock
from typing import TypeVar

T = TypeVar("T")


class Questions:
    """Nobody waits for an answer in vain: once the thread has ended, those who ask answer for themselves."""

    def __init__(self) -> None:
        self._open: deque[Callable[[], object]] = deque()
        self._ended = False

    def ask(self, question: Callable[[], T], poke: Callable[[], object]) -> T:
        """Have it answered; ``poke`` tells the thread that there is something."""
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
        """Have it done soon; does not wait for that."""
        self._open.append(request)
        poke()
        # Looked at when the request is there: ``end`` says so first, and then looks for requests.
        if self._ended:
            self.answer()

    def answer(self) -> None:
        """Answer all there are."""
        while self._open:
            try:
                reply = self._open.popleft()
            except IndexError:  # another thread took it
                return
            reply()

    def end(self) -> None:
        """The thread will not come again."""
        self._ended = True
        self.answer()
