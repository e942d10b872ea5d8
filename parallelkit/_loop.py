"""``drive``: the one loop that joins input, scheduler, executor, clock and progress.

It blocks in one place, ``port.wait``, for exactly as long as nothing can be decided.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from sys import maxsize
from typing import TYPE_CHECKING, Any, Protocol

from parallelkit._executors._contract import Block, Ended, Port
from parallelkit._intake import PORTION, Intake
from parallelkit._interrupt import Interrupt
from parallelkit._lost import describe
from parallelkit._marks import UNSET
from parallelkit._portion import Portion
from parallelkit._progress import Silent
from parallelkit._recall import Recall, Recalled
from parallelkit._scheduler import Scheduler

if TYPE_CHECKING:
    from parallelkit._events import Observer

WINDOW = 32  # tasks read ahead, for each worker
WIDEST = 5_000  # how far the default window grows with what is done
AT_HAND = 1_000  # tasks read ahead of a list, tuple or range, where reading neither costs nor keeps anything
NOTHING = (UNSET, UNSET)  # instead of a key and an item

Clock = Callable[[], float]


class Source(Protocol):
    """Where the loop gets its tasks: read here and now, or handed over by another thread."""

    @property
    def exhausted(self) -> bool:
        """Whether no more will come."""

    def next(self, ahead: int) -> Portion | None:
        """What may be admitted now, with ``ahead`` tasks of the input not settled; None: nothing now."""


@dataclass(eq=False, repr=False, slots=True)
class Window:
    """How far the input is read ahead of what is done (``buffersize``)."""

    workers: int
    size: int | None = None
    at_hand: int = AT_HAND
    """Of a list, tuple or range. 0 where a failure may stop the run, and what was handed over may have run for nothing."""

    def room(self, ahead: int, done: int, at_hand: bool = False) -> int:
        """How many more may be read, with ``ahead`` of them read and not yet done; what ``then`` makes is not read."""
        least = max(WINDOW * self.workers, self.at_hand if at_hand else 0)
        size = self.size or max(least, min(done, WIDEST))
        return min(size, maxsize) - ahead  # who wants no bound may have said so by a larger one


@dataclass(eq=False, repr=False, slots=True)
class DirectSource:
    """Reads the caller's input in the thread of the loop, a portion at a time, or ``one_by_one``."""

    intake: Intake
    window: Window
    interrupt: Interrupt
    admit: Callable[[Portion], None]
    one_by_one: Callable[[], bool] = lambda: False

    @property
    def exhausted(self) -> bool:
        return self.intake.exhausted

    def next(self, ahead: int) -> Portion | None:
        room = self._room(ahead)
        if room <= 0:
            return None
        with self.interrupt.user_code():
            portion = self.intake.read(1 if self.one_by_one() else room)
        if portion is not None:
            self.admit(portion)
        return portion

    def _room(self, ahead: int) -> int:
        if self.intake.exhausted:
            return 0
        return self.window.room(ahead, self.intake.read_so_far - ahead, self.intake.at_hand)

    def flow(self, ahead: int) -> Iterator[Any]:
        """What may be read now, item by item, where they have no keys; whoever takes them admits them."""
        room, interrupt = self._room(ahead), self.interrupt
        items = self.intake.flow(room) if room > 0 else iter(())
        while True:
            interrupt.exposed = True  # as in ``user_code``, which would cost more than all the rest
            try:
                interrupt.obey()
                _, item = next(items, NOTHING)
            finally:
                interrupt.exposed = False
            if item is UNSET:
                return
            yield item


@dataclass(eq=False, repr=False, slots=True)
class Loop:
    """What one run is made of."""

    scheduler: Scheduler
    port: Port
    source: Source
    clock: Clock
    bar: Silent = field(default_factory=Silent)
    total: Callable[[], int | None] = lambda: None
    interrupt: Interrupt = field(default_factory=Interrupt)
    grow: Callable[[], bool] = lambda: False  # makes new tasks of what has been settled; whether it did
    recalls: Sequence[Recall] = ()  # what knows outcomes of tasks before they start
    observer: Observer | None = None
    asked: str | None = None  # why somebody else wants the run to stop
    may_block: bool = False  # whether asking the input for an item may take any time
    flowing: DirectSource | None = None  # the source, where that may be done before it is admitted
    lapsed: bool = False  # whether in this step a task failed since it was too late for it to be tried again
    handed: bool = False  # whether in this step something was handed over that had been admitted before
    stirred: bool = False  # whether something had happened when the last wait ended

    def drive(self) -> None:
        """Run until every task is settled or the run is stopped."""
        while self.step():
            pass

    def step(self) -> bool:
        """Read what may be read, start what may start, wait, settle; False when there is no more to do."""
        scheduler, port = self.scheduler, self.port
        self.lapsed = self.handed = False
        read = self._read() if self.flowing is None else self._follow(self.flowing)
        grew = self.grow()
        self._obey()  # what was recalled may be reason enough to start nothing
        if scheduler.stopped is not None:
            return False
        now = self.clock()
        if scheduler.wants_reports(now):
            scheduler.begun(port.running(), now)
        self._hand_over()
        again = grew or self.lapsed
        if not (scheduler.open or again) and self.source.exhausted:
            return False
        until = self._until(again or read, self.handed or (read and self.eager))
        scheduler.finish(self._wait(until), self.clock())
        self._tell()
        self.show()
        self._obey()
        return scheduler.stopped is None

    @property
    def eager(self) -> bool:
        """Whether what was read is to be handed over before the next item is asked for.

        An input may wait for what its last item does. The port says whether it takes tickets one by one
        as well as many at a time.
        """
        return self.may_block and getattr(self.port, "eager", False)

    def _read(self) -> bool:
        """Read and admit a portion, or for a moment item by item; whether there was anything."""
        scheduler, source = self.scheduler, self.source
        if self.eager:
            self._hand_over()  # what was read before; it may have had to wait for a task that was tried again
            if self.lapsed or self.port.room() <= 0:
                return False
        portion = source.next(scheduler.unsettled_input)
        if portion is None:
            return False
        self.admit(portion)
        end = self.clock() + PORTION
        while self.eager and self._hand_over() and self.port.room() > 0 and self.clock() < end:
            portion = source.next(scheduler.unsettled_input)
            if portion is None:
                break
            self.admit(portion)
        return True

    def _follow(self, source: DirectSource) -> bool:
        """As ``_read``, at a third of the cost: the tasks are on their way at once, and admitted together."""
        self._hand_over()  # tasks tried again go first
        scheduler, port, first = self.scheduler, self.port, self.scheduler.admitted
        if self.lapsed or port.room() <= 0:
            return False
        portion = Portion(read_at=array("d"))
        assert portion.read_at is not None, "made just now"
        try:
            for item in source.flow(scheduler.unsettled_input):
                portion.read_at.append(self.clock())
                portion.items.append(item)
                port.start((scheduler.first_ticket(first + len(portion.items) - 1, item),))
                if port.room() <= 0:
                    break
        finally:  # also when interrupted
            source.admit(portion)
            scheduler.admit_started(portion.items)
            if self.observer is not None:
                self.observer.admitted(range(first, scheduler.admitted))
        return bool(portion.items)

    def _hand_over(self) -> bool:
        """Start what may start; whether there was anything. What is too late for that goes first, and is seen first."""
        now = self.clock()
        self.lapsed = self.lapsed or self.scheduler.lapse(now)
        due = () if self.lapsed else self.scheduler.start_due(now, self.port.room())
        self.port.start(due)
        self.handed = self.handed or bool(due)
        return bool(due)

    def admit(self, portion: Portion) -> None:
        """New tasks, of the input or of ``then``."""
        scheduler = self.scheduler
        first = scheduler.admitted
        known: dict[int, Recalled] = {}
        try:
            for recall in self.recalls:
                with self.interrupt.user_code():
                    known.update(recall(portion, first))
        finally:  # also when interrupted: these tasks have their rows, and need their outcomes
            made = portion.parent is not UNSET
            scheduler.admit(portion.items, portion.own, portion.traits, known, made)
            if self.observer is not None:
                self.observer.admitted(
                    index for index in range(first, scheduler.admitted) if index - first not in known
                )
            for offset, recalled in known.items():
                scheduler.recall(first + offset, recalled, self.clock())

    def _wait(self, until: float | None) -> list[Block | Ended]:
        ended = self.port.wait(until)
        if self.observer is not None:
            self.stirred = bool(ended) or until is None or self.clock() < until
        return ended

    def _until(self, again: bool, handed: bool) -> float | None:
        """When to come back at the latest: at once where there may be more to read, or to grow."""
        if again:
            return self.clock()
        at = self.scheduler.wake_at()
        return (
            at if self.observer is None else self.observer.look_at(self.clock(), at, handed or self.stirred)
        )

    def _tell(self) -> None:
        """Tell the observer what has begun and what has ended."""
        if self.observer is None:
            return
        news, running = self.scheduler.take_news(), self.port.running()
        try:
            with self.interrupt.user_code():
                self.observer.ended(news)
                self.observer.begun(running)
        except KeyboardInterrupt:
            self.observer = None  # lest it hold up the stop that follows
            raise

    def _obey(self) -> None:
        """The one safe point: everything that has come in is settled, nothing is half done."""
        self.interrupt.exposed = False  # also where the exception of a signal came just before that was said
        self.interrupt.obey()
        if self.scheduler.open or not self.source.exhausted:
            reason = self._stop_reason()
            if reason is not None:
                self.stop(reason)

    def _stop_reason(self) -> str | None:
        if self.asked is not None:
            return self.asked
        if self.port.failure is not None:
            return reason_of(self.port.failure)
        return self.scheduler.stop_reason(self.clock())

    def stop(self, reason: str) -> None:
        """The stop rule: withdraw what is queued, kill or abandon what runs, wait for nothing."""
        # Whoever asks for the stop looks at no outcome of what runs.
        stacks: dict[int, str] = {} if self.asked is not None else getattr(self.port, "stacks", dict)()
        now = self.clock()
        running = self.port.running()
        self.port.close()
        self.scheduler.finish(self.port.wait(now), now)  # what was committed before the close is delivered
        self._tell()
        failure = self.port.failure
        self.scheduler.stop(reason, now, running, stacks, failure and failure.__cause__)
        self._tell()

    def show(self) -> None:
        """Bring the bar up to date."""
        scheduler = self.scheduler
        self.bar.show(self.total(), scheduler.settled, scheduler.failed, scheduler.retried)


def reason_of(failure: Exception) -> str:
    """Why nothing can run any more, with what caused it, where that is not said yet."""
    because = "" if failure.__cause__ is None else describe(failure.__cause__)
    return f"{failure}" if because in str(failure) else f"{failure} ({because})"
