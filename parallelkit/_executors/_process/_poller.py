"""The one ``epoll`` in which the supervisor's thread waits: for a wake-up, workers' ends and sockets, and a zygote."""

from __future__ import annotations

import select

from parallelkit._executors._process._actor import WakeUp
from parallelkit._executors._process._handle import Worker

LONGEST = 1e6  # seconds; epoll takes less than 2 ** 31 milliseconds


class Poller:
    """Knows which worker each descriptor belongs to, and listens to a worker only while there is reason to."""

    def __init__(self, wake_up: WakeUp) -> None:
        self.poll = select.epoll()
        self.workers: dict[int, Worker] = {}
        self.poll.register(wake_up.fd, select.EPOLLIN)

    def wait(self, seconds: float) -> list[tuple[int, int]]:
        """Block until something happens, but not longer than this; return what has, by descriptor."""
        return self.poll.poll(max(0.0, min(seconds, LONGEST)))

    def add(self, worker: Worker) -> None:
        """Listen for its end, and to what it sends; raises OSError if the system has no room for that."""
        self.poll.register(worker.pidfd, select.EPOLLIN)
        self._listen(worker, select.EPOLLIN)
        self.workers[worker.pidfd] = self.workers[worker.wire.socket.fileno()] = worker

    def remove(self, worker: Worker) -> None:
        """Stop listening to what a worker sends, before its socket is closed."""
        self._listen(worker, 0)
        del self.workers[worker.wire.socket.fileno()]

    def forget(self, worker: Worker) -> None:
        """Stop listening for the end of a worker, which has come."""
        self.poll.unregister(worker.pidfd)
        del self.workers[worker.pidfd]

    def update(self, worker: Worker) -> None:
        """Send what was queued for a worker in this turn; listen for what its socket may bring, or take, now."""
        worker.wire.flush()
        events = 0 if worker.wire.at_end or worker.killed else select.EPOLLIN
        if worker.wire.is_full:
            events |= select.EPOLLOUT
        if worker.awaited != events:
            self._listen(worker, events)

    def _listen(self, worker: Worker, events: int) -> None:
        """Register for these events; unregister for none, as epoll would go on to report that the other end is closed."""
        socket = worker.wire.socket
        if worker.awaited and events:
            self.poll.modify(socket, events)
        elif events:
            self.poll.register(socket, events)
        elif worker.awaited:
            self.poll.unregister(socket)
        worker.awaited = events
