"""``drive``: the one loop that joins input, scheduler, executor, clock and progress.

It blocks in one place, ``port.wait``, for exactly as long as nothing can be decided.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from parallelkit._executors._contract import Block, Ended, Port
from parallelkit._input._intake import PORTION
from parallelkit._input._portion import Portion
from parallelkit._input._recall import Recall, Recalled, parted
from parallelkit._input._source import DirectSource, Source
from parallelkit._interrupt import Interrupt
from parallelkit._marks import UNSET
from parallelkit._progress import Silent
from parallelkit._raised import describe_error
from parallelkit._scheduler import Scheduler

if TYPE_CHECKING:
    from parallelkit._events import Observer

Clock = Callable[[], float]


class Loop:
    """Drives one run: joins the parts that it is made of."""

    def __init__(self, scheduler: Scheduler, port: Port, source: Source, clock: Clock) -> None:
        self.scheduler = scheduler
        self.port = port
        self.source = source
        self.clock = clock
        self.bar = Silent()
        self.total: Callable[[], int | None] = lambda: None
        self.interrupt = Interrupt()
        self.grow: Callable[[], bool] | None = None
        """Calls ``then`` for settled tasks; whether that gave new tasks."""
        self.recalls: Sequence[Recall] = ()
        """What knows outcomes of tasks before they start."""
        self.observer: Observer | None = None
        self.asked: str | None = None
        """Why the run is to stop, if anything has asked for that."""
        self.unseen = False
        """Whether nobody will look at the outcomes of what a stop cuts off."""
        self.flows = False
        """Whether items are best handed over one by one (see ``Intake``)."""
        self.flowing: DirectSource | None = None
        """The source, if its items may be started before they are admitted."""
        self.be_exact: Callable[[], None] | None = None
        """To be called once a task of the input calls for an order."""
        self.lapsed = False
        """Whether in this step a task failed because it was too late to try it again."""
        self.handed = False
        """Whether in this step something was handed over that had been admitted before."""
        self.stirred = False
        """Whether the last wait ended because something had happened."""

    def drive(self) -> None:
        """Run until every task is settled or the run is stopped."""
        while self.step():
            pass

    def step(self) -> bool:
        """Read what may be read, start what may start, wait, settle; False when there is no more to do."""
        scheduler = self.scheduler
        self.lapsed = self.handed = False
        grew = self.grow is not None and self.grow()
        read = self._read() if self.flowing is None else self._follow(self.flowing)
        again = grew or read
        self._obey(settled=again)  # a recalled failure may already stop the run
        if scheduler.stopped is not None:
            return False
        self._report_starts()
        self._hand_over()
        again = again or self.lapsed
        if not (scheduler.open or again) and self.source.exhausted:
            return False
        scheduler.finish(self._wait(self._until(again)), self.clock())
        self._tell()
        self.show()
        self._obey(settled=True)
        return scheduler.stopped is None

    def _report_starts(self) -> None:
        """Report what has begun, where a rate limit waits for it; if another run does, give back what has not."""
        scheduler, now = self.scheduler, self.clock()
        if not scheduler.wants_reports(now):
            return
        asked = scheduler.take_request()  # before the look, so that no later request is lost
        scheduler.begun(self.port.running(), now)
        if asked:
            scheduler.put_back(self.port.give_back(), now)

    @property
    def singly(self) -> bool:
        """Whether what was read is handed over before the next item is read: the port must take single tickets
        at little cost.
        """
        return self.flows and self.port.eager

    def _read(self) -> bool:
        """Read and admit a portion, or, if singly, item by item for a moment; return whether there was anything."""
        scheduler, source = self.scheduler, self.source
        if self.singly:
            self._hand_over()  # what was read before, and may have had to wait for a retry
            if self.lapsed or self.port.room() <= 0:
                return False
        portion = source.next(scheduler.unsettled_input, single=self.singly)
        if portion is None:
            return False
        self.admit(portion)
        end = self.clock() + PORTION
        while self.singly and self._hand_over() and self.port.room() > 0 and self.clock() < end:
            portion = source.next(scheduler.unsettled_input, single=True)
            if portion is None:
                break
            self.admit(portion)
        return True

    def _follow(self, source: DirectSource) -> bool:
        """As ``_read``, at a third of the cost: tasks are started as they are read, and admitted together later."""
        self._hand_over()  # tasks tried again go first
        scheduler, port, first = self.scheduler, self.port, self.scheduler.admitted
        if self.lapsed or port.room() <= 0:
            return False
        portion = Portion(keys=[] if source.keyed else None, read_at=array("d"))
        assert portion.read_at is not None, "made just now"
        try:
            for key, item in source.flow(scheduler.unsettled_input):
                portion.read_at.append(self.clock())
                portion.items.append(item)
                if portion.keys is not None:
                    portion.keys.append(key)
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
        """Start what may start; return whether there was anything. If retries lapsed, nothing starts before that is seen."""
        now = self.clock()
        self.lapsed = self.lapsed or self.scheduler.lapse(now)
        due = () if self.lapsed else self.scheduler.start_due(now, self.port.room())
        self.port.start(due)
        self.handed = self.handed or bool(due)
        return bool(due)

    def admit(self, portion: Portion) -> None:
        """Admit new tasks, of the input or of ``then``."""
        if self.be_exact is not None and portion.is_ordered:
            self.be_exact()
        scheduler = self.scheduler
        first = scheduler.admitted
        known: dict[int, Recalled] = {}
        try:
            for recall in self.recalls:
                with self.interrupt.user_code():
                    known.update(recall(portion, first))
        finally:  # also when interrupted: the tasks are in the book already, and need their outcomes
            made = portion.parent is not UNSET
            scheduler.admit(portion.items, portion.own, portion.traits, known, made)
            if self.observer is not None:
                self.observer.admitted(
                    index for index in range(first, scheduler.admitted) if index - first not in known
                )
            for lost, block in parted(known, first, self.clock()) if known else ():
                scheduler.recall(lost, block)

    def _wait(self, until: float | None) -> list[Block | Ended]:
        ended = self.port.wait(until)
        if self.observer is not None:
            self.stirred = bool(ended) or until is None or self.clock() < until
        return ended

    def _until(self, again: bool) -> float | None:
        """The latest instant to wait until: now, if there may be more to read or ``then`` to call."""
        if again:
            return self.clock()
        at = self.scheduler.wake_at()
        if self.observer is None:
            return at
        return self.observer.look_at(self.clock(), at, self.handed or self.stirred)

    def _tell(self) -> None:
        """Tell the observer what has begun and what has ended."""
        if self.observer is None:
            return
        running = self.port.running()
        # Entering raises a Ctrl-C that has come already: then the stop that follows tells the news.
        with self.interrupt.user_code():
            try:
                self.observer.ended(self.scheduler.take_news())
                self.observer.begun(running)
            except KeyboardInterrupt:
                self.observer = None  # so that it cannot delay the stop that follows
                raise

    def ask_to_stop(self, reason: str) -> None:
        """Stop at the next safe point; may be called by any thread."""
        self.asked = reason
        self.port.wake()

    def _obey(self, *, settled: bool) -> None:
        """The one safe point: everything that has come in is settled, nothing is half done.

        ``settled``: whether that may be something of which ``then`` has yet to hear, so that more tasks could follow.
        """
        self.interrupt.exposed = False  # again, in case a signal handler raised just before that was done
        self.interrupt.obey()
        if self.scheduler.open or not self.source.exhausted or (settled and self.grow is not None):
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
        stacks: dict[int, str] = {} if self.unseen else self.port.stacks()
        now = self.clock()
        running = self.port.running()
        self.scheduler.put_back(self.port.give_back(), now)
        self.port.close()
        ended = self.port.wait(now)
        self.scheduler.finish(ended, now)  # what was committed before the close is delivered
        failure = self.port.failure
        over = {index for one in ended for index in (one.indices if isinstance(one, Block) else (one.index,))}
        running = [one for one in running if one[0] not in over]  # some may have ended since this was asked
        known = over.union(index for index, *_ in running)
        late = [(index, min(at, now), worker) for index, at, worker in self.port.late if index not in known]
        self.scheduler.stop(reason, now, running + late, stacks, failure and failure.__cause__)
        self._tell()

    def show(self) -> None:
        """Bring the bar up to date."""
        scheduler = self.scheduler
        self.bar.show(self.total(), scheduler.settled, scheduler.failed, scheduler.retried)


def reason_of(failure: Exception) -> str:
    """Why nothing can run any more, with the cause of that, if the text does not name it yet."""
    text = str(failure) or describe_error(failure)
    because = "" if failure.__cause__ is None else describe_error(failure.__cause__)
    return text if because in text else f"{text} ({because})"
