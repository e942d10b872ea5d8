"""One thread of a thread engine: it serves the ports in turns, and rests where there is nothing to do."""

from __future__ import annotations

import threading
from collections import deque
from typing import Protocol

from parallelkit._executors._contract import Ticket
from parallelkit._executors._gate import Gate
from parallelkit._executors._lending import Around, enter_thread
from parallelkit._executors._thread_port import Current, ThreadPort

IDLE = 5.0  # seconds after which an idle thread retires


class Owner(Protocol):
    """The engine, as its threads see it."""

    broken: Exception | None
    closed: bool
    surplus: int
    lending: bool
    ports: tuple[ThreadPort, ...]
    idle: deque[ThreadWorker]

    def initialize(self, worker: ThreadWorker) -> bool:
        """Run the initializer; False where the thread must end."""

    def take(self, worker: ThreadWorker, port: ThreadPort) -> Ticket | None:
        """The next ticket of a port, if a free thread may have it: asked once slots are lent."""

    def serves(self, port: ThreadPort) -> bool:
        """Whether a free thread may take a ticket of this port."""

    def wake_one(self) -> None:
        """Wake an idle thread, if there is one."""

    def dismiss(self, worker: ThreadWorker) -> bool:
        """Whether this thread is one too many, and must end."""

    def end(self, worker: ThreadWorker) -> None:
        """Take note that this thread ends."""


class ThreadWorker:
    """One thread.

    ``current`` is what it runs: port, ticket, and the claim on its outcome; ``depth`` how many tasks of
    the engine wait for that, each for the next.
    """

    __slots__ = ("current", "depth", "engine", "gate", "ident", "name", "number", "thread")

    def __init__(self, engine: Owner, prefix: str, number: int) -> None:
        self.engine = engine
        self.number = number
        self.name = name = f"{prefix}_{number}"
        self.gate = Gate()
        self.current: Current | None = None
        self.depth: int | None = None
        self.ident: int | None = None
        self.thread = threading.Thread(target=self._work, name=name, daemon=True)

    def _work(self) -> None:
        self.ident = threading.get_ident()
        enter_thread(self)
        try:
            if self.engine.initialize(self):
                self._serve()
        finally:
            self.engine.end(self)

    def around(self) -> Around | None:
        """The attempt that this thread runs, for what it does within."""
        if self.current is None or self.depth is None:
            return None
        claim = self.current[2]
        return Around(self.engine, claim, self.depth) if claim else None

    def _serve(self) -> None:
        engine = self.engine
        turn = 0
        while not (engine.surplus and engine.dismiss(self)):
            ports = engine.ports
            for offset in range(len(ports)):  # ports take turns
                port = ports[(turn + offset) % len(ports)]
                if engine.lending:
                    ticket = engine.take(self, port)
                    if ticket is None:
                        continue
                else:
                    self.depth = port.depth
                    try:
                        ticket = port.queue.popleft()
                    except IndexError:
                        continue
                turn += 1
                if port.queue and engine.idle:
                    engine.wake_one()
                if not port.execute(self, ticket):
                    return  # abandoned: another thread has this one's slot
                del ticket  # an idle thread keeps no argument alive
                break
            else:
                self.depth = None
                ports, port = (), None  # nor a run that is over
                if engine.closed or engine.broken is not None or not self._rest():
                    return

    def _rest(self) -> bool:
        """Wait for work; False when there has been none for long."""
        engine = self.engine
        engine.idle.append(self)
        in_time = self.gate.wait(self._wanted, IDLE)
        try:
            engine.idle.remove(self)
        except ValueError:
            return True  # somebody took this worker off the deque: there is work for it
        return in_time

    def _wanted(self) -> bool:
        return self.engine.closed or any(map(self.engine.serves, self.engine.ports))
