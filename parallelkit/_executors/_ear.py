"""What the supervisor's thread waits for, in one ``epoll``: its bell, the ends and the sockets of workers, a zygote."""

from __future__ import annotations

import select

from parallelkit._executors._bell import Bell
from parallelkit._executors._handle import Worker


class Ear:
    """Knows whose each descriptor is, and listens to a worker only as long as that makes sense."""

    def __init__(self, bell: Bell) -> None:
        self.poll = select.epoll()
        self.workers: dict[int, Worker] = {}
        self.poll.register(bell.fd, select.EPOLLIN)

    def add(self, worker: Worker) -> None:
        """Listen for its end, and to what it sends."""
        for fd in (worker.pidfd, worker.wire.socket.fileno()):
            self.workers[fd] = worker
            self.poll.register(fd, select.EPOLLIN)

    def remove(self, worker: Worker) -> None:
        """It has ended, and its descriptors are about to be closed."""
        for fd in (worker.pidfd, worker.wire.socket.fileno()):
            self.poll.unregister(fd)
            del self.workers[fd]

    def heed(self, worker: Worker) -> None:
        """Send what was written in this turn; listen to its socket as far as that makes sense now."""
        worker.wire.flush()
        events = 0 if worker.wire.deaf or worker.garbage else select.EPOLLIN
        if worker.wire.stuffed:
            events |= select.EPOLLOUT
        if worker.awaited != events:
            worker.awaited = events
            self.poll.modify(worker.wire.socket, events)
