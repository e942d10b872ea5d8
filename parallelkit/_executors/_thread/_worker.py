"""One thread of a thread engine: it serves the ports in turns, and rests where there is nothing to do."""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Collection, Container
from contextlib import suppress
from typing import Protocol

from parallelkit._executors._contract import Ended, Ticket, ended_early
from parallelkit._executors._gate import Gate
from parallelkit._executors._thread._lending import Around, enter_thread, here, take_claim
from parallelkit._executors._thread._port import Current, ThreadPort
from parallelkit._forked import end_child
from parallelkit._logger import logger
from parallelkit._system import monotonic

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

    def wake_one(self) -> bool:
        """Wake an idle thread, if there is one; whether there was."""

    def is_spent(self) -> bool:
        """Whether a thread that finds nothing to do may end: nothing new will come."""

    def dismiss(self, worker: ThreadWorker) -> bool:
        """Whether this thread is one too many, and must end."""

    def end(self, worker: ThreadWorker) -> None:
        """Take note that this thread ends."""

    def is_abandoned(self, worker: ThreadWorker) -> bool:
        """Whether a run has given up on this thread."""

    def rouse(self) -> None:
        """Let everybody look again for what there is to do."""


def tell_of_room(ports: tuple[ThreadPort, ...]) -> None:
    """A slot has come free, and nobody has taken it yet: those that could use it may look again."""
    for port in ports:
        port.hear_of_room()


class ThreadWorker:
    """One thread.

    ``current`` is what it runs: port, ticket, and the claim on its outcome; ``depth`` how many tasks of
    the engine wait for that, each for the next. ``ticket`` is what it has taken from ``port`` and not
    settled. ``failed``: an attempt of it has, which may be tried again, and had best be in here. ``stopped``:
    it was abandoned as its run was stopped, not for a timeout. ``forked``: it is that of a child of its task.

    An exception may be raised anywhere in here: Python lets others send one into a thread, and a task may
    set a trace function that raises. So a ticket is at every moment in a queue, in ``ticket`` or settled:
    Python raises nothing of the kind between the steps of ``for`` or ``+=`` and the assignment after it.
    """

    __slots__ = (
        "current", "depth", "engine", "failed", "forked", "gate", "ident", "name", "number", "port", "stopped",
        "thread", "ticket",
    )  # fmt: skip

    def __init__(self, engine: Owner, prefix: str, number: int) -> None:
        self.engine = engine
        self.number: int | None = number  # None once it has ended
        self.name = name = f"{prefix}_{number}"
        self.gate = Gate()
        self.current: Current | None = None
        self.port: ThreadPort | None = None
        self.ticket: Ticket | None = None
        self.depth: int | None = None
        self.failed = self.stopped = self.forked = False
        self.ident: int | None = None
        self.thread = threading.Thread(target=self._work, name=name, daemon=True)

    def _work(self) -> None:
        try:
            try:
                self.ident = threading.get_ident()
                if self.engine.initialize(self):
                    enter_thread(self)
                    self._serve()
                if self.forked:
                    end_child(None)
                self.engine.end(self)
            except BaseException as error:  # nothing of ours: it came from outside
                self._end_early(error)
        except BaseException as error:  # another one meanwhile
            self._end_early(error)

    def _end_early(self, error: BaseException) -> None:
        """Settle what is in hand, and leave. Idempotent."""
        if self.port is not None and self.ticket is not None:
            if self.current is None:
                self.port.take_back(self.ticket, self.depth)
            else:
                self._lose(self.current, error)
            self.current = self.ticket = None
        self.engine.end(self)
        self.engine.rouse()
        logger.warning(
            "the thread %s ended, since something raised %r in it, outside of any task", self.name, error
        )

    def _lose(self, current: Current, error: BaseException) -> None:
        """The attempt has failed, unless somebody has given up on it."""
        port, ticket, claim = current
        ended = monotonic()
        started = claim[0] if claim else ended
        if take_claim(claim) or not self.engine.is_abandoned(self):
            lost = ended_early(port.label(ticket[0]), error)
            port.give_up(Ended(ticket[0], lost, "", started, ended, self.name))

    def disown(self) -> None:
        """In a forked child of its task: what that returns or raises here is nobody's."""
        self.forked = True
        if self.current is not None:
            take_claim(self.current[2])

    def around(self) -> Around | None:
        """The attempt that this thread runs, for what it does within."""
        if self.current is None or self.depth is None:
            return None
        claim = self.current[2]
        return Around(self.engine, claim, self.depth) if claim else None

    def between(self, engine: object) -> Around | None:
        """Its slot may be lent outside of attempts as well: a finalizer that is called there may wait."""
        if self.engine is not engine or (self.current and self.current[2]) or self.engine.is_abandoned(self):
            return None
        with suppress(ValueError):
            self.engine.idle.remove(self)  # nobody shall wake it meanwhile, and think that it works
            self.gate.force()  # and it looks again afterwards
        return Around(engine, [0.0], 0)

    def _serve(self) -> None:
        engine = self.engine
        turn = 0
        while not (engine.surplus and engine.dismiss(self)):
            ports = engine.ports
            for offset in range(len(ports)):  # ports take turns
                port = self.port = ports[(turn + offset) % len(ports)]
                if engine.lending:
                    if engine.take(self, port) is None:
                        continue
                else:
                    self.depth = port.depth
                    try:
                        for self.ticket in port.drawn:  # see above
                            break
                    except IndexError:
                        continue
                turn += 1
                if port.queue and engine.idle:
                    engine.wake_one()
                if not port.execute(self):
                    return  # abandoned: another thread has this one's slot
                break
            else:
                self.depth = None
                tell_of_room(ports)
                ports, port, self.port = (), None, None  # an idle thread keeps no run alive that is over
                if engine.closed or engine.broken is not None or self._is_spent() or not self._rest():
                    return

    def _is_spent(self) -> bool:
        """Whether it is not wanted any more, so that it may end while others still work, and nobody waits for it."""
        failed, self.failed = self.failed, False
        return not failed and self.engine.is_spent()

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


def end_each(workers: Collection[ThreadWorker], abandoned: Container[ThreadWorker]) -> None:
    """Let these end, now that their engine is closed, and wait for their end, but for that of abandoned ones."""
    try:
        for worker in workers:  # one by one: a thousand at once would get in each other's way twice as long
            worker.gate.open()
            if worker not in abandoned and worker.ident != threading.get_ident():
                worker.thread.join()
    finally:
        for worker in workers:  # Ctrl-C may have come: then nobody waits for them, but they end all the same
            worker.gate.open()


def _disown_in_child() -> None:
    worker = here()
    if isinstance(worker, ThreadWorker):
        worker.disown()


os.register_at_fork(after_in_child=_disown_in_child)
