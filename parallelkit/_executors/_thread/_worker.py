"""One thread of a thread engine: serves the ports in turn, and waits while there is nothing to do."""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Collection, Container
from contextlib import suppress
from typing import Protocol

from parallelkit._conditions import Thread
from parallelkit._errors import ParallelKitError
from parallelkit._executors._contract import Ended, Ticket
from parallelkit._executors._gate import Gate
from parallelkit._executors._thread._lending import Enclosing, current_worker, enter_thread, take_claim
from parallelkit._executors._thread._port import Current, ThreadPort
from parallelkit._executors._thread._queue import OWN
from parallelkit._forked import end_child
from parallelkit._logger import logger
from parallelkit._system import monotonic

IDLE = 5.0  # seconds after which an idle thread retires, if it has no initializer


class Owner(Protocol):
    """The engine, as its threads see it."""

    broken: Exception | None
    closed: bool
    initializes: bool
    surplus: int
    lending: bool
    ports: tuple[ThreadPort, ...]
    workers: set[ThreadWorker]
    idle: deque[ThreadWorker]
    spares: dict[ThreadWorker, None]

    def initialize(self, worker: ThreadWorker) -> bool:
        """Run the initializer; False if the thread must end."""

    def take(self, worker: ThreadWorker, port: ThreadPort) -> Ticket | None:
        """The next ticket of a port, if a free thread may take it; used once a slot was ever lent."""

    def serves(self, port: ThreadPort) -> bool:
        """Whether a free thread may take a ticket of this port."""

    def wake_one(self) -> bool:
        """Wake an idle thread, if there is one; whether there was."""

    def is_spent(self) -> bool:
        """Whether a thread that finds nothing to do may end, because no new tasks will come."""

    def dismiss(self, worker: ThreadWorker) -> bool:
        """Strike off this thread if there is one too many, and keep some of those as spares; whether it was struck off."""

    def recall(self, worker: ThreadWorker) -> bool:
        """In a thread that was struck off: it is no spare any more; whether it has a slot again."""

    def end(self, worker: ThreadWorker) -> None:
        """Note that this thread ends."""

    def is_abandoned(self, worker: ThreadWorker) -> bool:
        """Whether a run has given up on this thread."""

    def rouse(self) -> None:
        """Have all threads and ports look again for work."""


def tell_of_room(ports: tuple[ThreadPort, ...]) -> None:
    """Tell the ports that a slot is free which no thread has filled."""
    for port in ports:
        port.hear_of_room()


def wake_each(ports: tuple[ThreadPort, ...]) -> None:
    """Have the runs of these ports look again for what has changed."""
    for port in ports:
        port.wake()


class ThreadWorker:
    """One thread.

    - ``ticket``: what it has taken from ``port`` and not settled.
    - ``current``: what it runs: port, ticket, and the claim on the outcome.
    - ``slot``: the slot that it has for that; ``urgent``: a task waits for that call.
    - ``failed``: an attempt has failed here; its retry had best run in this thread, which therefore stays.
    - ``stopped``: it was abandoned because its run was stopped, not because of a timeout.
    - ``forked``: this is a copy, in a child process that the task has forked.

    An exception may strike anywhere in here: other code can send one into a thread
    (``PyThreadState_SetAsyncExc``), and a task may set a trace function that raises. So at every moment a
    ticket is in a queue, in ``ticket`` or settled. That holds because Python raises no such exception
    between the step of a ``for`` or ``+=`` and the assignment that follows it.
    """

    __slots__ = (
        "current", "engine", "failed", "forked", "gate", "name", "number", "port", "slot", "stopped", "thread", "ticket",
        "urgent",
    )  # fmt: skip

    def __init__(self, engine: Owner, prefix: str, number: int) -> None:
        self.engine = engine
        self.number: int | None = number  # None once it has ended
        self.name = name = f"{prefix}_{number}"
        self.gate = Gate()
        self.current: Current | None = None
        self.port: ThreadPort | None = None
        self.ticket: Ticket | None = None
        self.slot = OWN
        self.urgent = self.failed = self.stopped = self.forked = False
        self.thread: threading.Thread = Thread(target=self._work, name=name, daemon=True)

    def _work(self) -> None:
        try:
            try:
                if self.engine.initialize(self):
                    enter_thread(self)
                    self._serve()
                if self.forked:
                    end_child(None)
                self.engine.end(self)
            except BaseException as error:  # sent in from outside
                self._end_early(error)
        except BaseException as error:  # another one, meanwhile
            self._end_early(error)

    def _end_early(self, error: BaseException) -> None:
        """Settle or return the ticket in hand, and leave. Idempotent."""
        if self.port is not None and self.ticket is not None:
            if self.current is None:
                self.port.take_back(self.ticket, self.urgent)
            else:
                self._lose(self.current, error)
            self.current = self.ticket = None
        self.engine.end(self)
        self.engine.rouse()
        logger.warning(
            "the thread %s ended, since something raised %r in it, outside of any task", self.name, error
        )

    def _lose(self, current: Current, error: BaseException) -> None:
        """Report the attempt as failed, unless its run has given up on it."""
        port, ticket, claim = current
        ended = monotonic()
        started = claim[0] if claim else ended
        if take_claim(claim) or not self.engine.is_abandoned(self):
            what = f"something raised {type(error).__name__} in its thread, outside of the task"
            lost = ParallelKitError(f"{port.label(ticket[0])} has no outcome: {what}")
            lost.__cause__ = error
            port.give_up(Ended(ticket[0], lost, "", started, ended, self.name))

    def disown(self) -> None:
        """In a child process that the task has forked: give up the claim, for its outcome there counts for nobody."""
        self.forked = True
        if self.current is not None:
            take_claim(self.current[2])

    def attempt(self) -> Enclosing | None:
        """The attempt that this thread runs; None between attempts."""
        claim = self.current[2] if self.current is not None else None
        return Enclosing(self.engine, claim) if claim else None

    def stand_in(self, engine: object) -> Enclosing | None:
        """A stand-in for an attempt, between attempts: a finalizer called there may wait too, and lend the slot."""
        if self.engine is not engine or self not in self.engine.workers:
            return None  # it has no slot
        with suppress(ValueError):
            self.engine.idle.remove(self)  # so that nobody wakes it meanwhile and counts on it
            self.gate.force()  # it looks for work again afterwards
        return Enclosing(engine, [0.0])

    def _serve(self) -> None:
        engine = self.engine
        turn = 0
        while not (engine.surplus and engine.dismiss(self)) or self._stand_by():
            ports = engine.ports
            for offset in range(len(ports)):  # ports take turns
                port = self.port = ports[(turn + offset) % len(ports)]
                if engine.lending:
                    if engine.take(self, port) is None:
                        continue
                else:
                    try:
                        for self.ticket in port.drawn:  # not popleft(): see the class
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
                tell_of_room(ports)
                ports, port, self.port = (), None, None  # so that an idle thread keeps no finished run alive
                if engine.closed or engine.broken is not None or self._is_spent() or not self._rest():
                    return

    def _is_spent(self) -> bool:
        """Whether it may end now, while other threads still work: so no one waits for it when the run closes."""
        failed, self.failed = self.failed, False
        return not failed and self.engine.is_spent()

    def _rest(self) -> bool:
        """Wait for work; False if there was none for ``IDLE`` seconds. What an initializer has set up is kept, however long."""
        engine = self.engine
        in_time = self.gate.wait(self._idle, None if engine.initializes else IDLE)
        try:
            engine.idle.remove(self)
        except ValueError:
            return True  # somebody took this worker off the deque: there is work for it
        return in_time

    def _stand_by(self) -> bool:
        """Wait as a spare for a slot; False if none was lent for ``IDLE`` seconds. To start a thread takes longer."""
        engine = self.engine
        self.gate.wait(self._is_settled, None if engine.initializes else IDLE)
        return engine.recall(self)

    def _is_settled(self) -> bool:
        return self.engine.closed or self not in self.engine.spares

    def _idle(self) -> bool:
        """Become idle, once this thread would notice that it is woken; True if there is work for it already."""
        self.engine.idle.append(self)
        return self.engine.closed or any(map(self.engine.serves, self.engine.ports))


def end_each(workers: Collection[ThreadWorker], abandoned: Container[ThreadWorker]) -> None:
    """Wake the threads of a closed engine so that they end, and join all but the abandoned ones."""
    try:
        for worker in workers:  # one by one: a thousand that end at once take twice as long
            worker.gate.open()
            if worker not in abandoned and worker.thread.ident != threading.get_ident():
                worker.thread.join()
    finally:
        for worker in workers:  # after Ctrl-C nobody joins them, but they end all the same
            worker.gate.open()


def _disown_in_child() -> None:
    worker = current_worker()
    if isinstance(worker, ThreadWorker):
        worker.disown()


os.register_at_fork(after_in_child=_disown_in_child)
