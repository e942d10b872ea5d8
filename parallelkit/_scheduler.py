"""Decides what may start, what is tried again and what is settled; never waits, never runs anything.

Instants come in as arguments, decisions go out as values. An attempt is in one place at a time; *running* is what the
executor has, whether it has begun or not:

    none yet  a journal or a cache has its outcome → settled, without a start
    ready     a slot, every rate and cap allow it  → running
    running   it has not begun, and is put back    → ready
    running   success, or failure with no try left → settled
    running   failure, timeout or death            → delayed until its instant
    delayed   its instant comes                    → ready
    ready     it is a retry past its max_time      → settled (with the failure it had)
    any       the run is stopped                   → settled (cancelled)

An ordinary task takes one place in a deque, one in ``Unsettled`` and one in the columns of its block. Only
a task that has failed, has options of its own, or is under limits or priorities has entries anywhere else.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Hashable, Iterable, Mapping, Sequence
from operator import call
from typing import Any

from parallelkit._book import Book, Failed, News, news_of_cancelled, news_of_lapsed
from parallelkit._executors._contract import Block, Ended, Running, Ticket
from parallelkit._executors._tickets import FirstTries
from parallelkit._interrupt import UserCall
from parallelkit._lost import Lost, cut_off, uncounted
from parallelkit._policies import RetryPolicy
from parallelkit._scheduling._delayed import Delayed
from parallelkit._scheduling._fifo import Fifo
from parallelkit._scheduling._ready import Gated, Ready
from parallelkit._scheduling._stopping import NEVER, StopRule
from parallelkit._scheduling._tries import Tries
from parallelkit._scheduling._unawaited import holds_coroutine, refuse_coroutines
from parallelkit._scheduling._unsettled import Unsettled
from parallelkit._tasks import Own


class Scheduler:
    """The state of every attempt of one run."""

    def __init__(
        self,
        book: Book,
        *,
        label: Callable[[int], str] = "task {}".format,
        timeout: float | None = None,
        policy: RetryPolicy | None = None,
        stop_rule: StopRule = NEVER,
        gated: Gated | None = None,
        call_user: UserCall = call,
    ) -> None:
        self._book = book
        self._timeout = timeout
        self._stop_rule = stop_rule
        self._gated = gated
        self._ready: Ready = Fifo() if gated is None else gated
        self.delayed = Delayed()
        self._items = Unsettled()
        self._made: set[int] = set()  # the unsettled tasks that ``then`` made
        self._tries = Tries(policy, label, stop_rule.end_at, call_user)
        self.started = 0
        self.succeeded = 0
        self.failed = 0
        self.stopped: str | None = None
        self.first_error: BaseException | None = None
        self.news: list[News] | None = None  # what has ended; None if there is no observer

    @property
    def admitted(self) -> int:
        """How many tasks have been admitted."""
        return self._items.admitted

    @property
    def settled(self) -> int:
        """How many tasks have an outcome, not counting cancelled ones."""
        return self.succeeded + self.failed

    @property
    def open(self) -> int:
        """How many admitted tasks have no outcome yet."""
        return len(self._items)

    @property
    def unsettled_input(self) -> int:
        """How many tasks of the input have no outcome yet."""
        return len(self._items) - len(self._made)

    @property
    def retried(self) -> int:
        """How many failed attempts have been, or will be, followed by another."""
        return self._tries.retried

    def admit(
        self,
        items: list[Any],
        own: dict[int, Own] | None = None,
        traits: Sequence[tuple[float, tuple[Hashable, ...]]] | None = None,
        known: Collection[int] = (),
        made: bool = False,
    ) -> None:
        """Admit tasks, which become ready; their indices follow those of earlier tasks.

        ``own``: options of single tasks, by offset. ``traits``: the priority and groups of each, in a gated run. ``known``:
        offsets of tasks that ``recall`` will settle, so they do not become ready. ``made``: whether ``then`` made them.
        """
        first, end = self.admitted, self.admitted + len(items)
        self._items.admit(items)
        if made:
            self._made.update(range(first, end))
        if self._gated is not None:
            assert traits is not None, "a gated run knows the priority and groups of every task"
            for index, trait in zip(range(first, end), traits, strict=True):
                self._gated.describe(index, *trait)
        if own or known:
            self._tries.adopt({first + offset: options for offset, options in (own or {}).items()})
            ready = [index for index in range(first, end) if index - first not in known]
            self._ready.push([self._ticket(index) for index in ready])
        elif items:
            self._ready.push(FirstTries(first, items, self._timeout))

    def first_ticket(self, index: int, item: Any) -> Ticket:
        """The ticket for the first attempt of an ordinary task that ``admit_started`` will admit."""
        return index, 1, item, self._timeout

    def admit_started(self, items: Sequence[Any]) -> None:
        """Admit tasks that have been started already, with tickets from ``first_ticket``."""
        assert self._gated is None, "with priorities or limits, nothing starts before it is admitted"
        self._items.admit(items)
        self.started += len(items)

    def _ticket(self, index: int) -> Ticket:
        own = self._tries.own.get(index)
        timeout = self._timeout if own is None or own.timeout is None else own.timeout
        return index, self._tries.made(index) + 1, self._items[index], timeout

    def start_due(self, now: float, room: int) -> Sequence[Ticket]:
        """The attempts that may start now, at most ``room`` of them; retries come first."""
        self._ready_again(now)
        due = self._ready.pop(now, room)
        self.started += len(due)
        if not isinstance(due, FirstTries):
            if last := self._tries.last:  # a task counts once
                self.started -= sum(index in last for index, _, _, _ in due)
            self.delayed.started(index for index, _, _, _ in due)
        return due

    def _ready_again(self, now: float) -> None:
        for index in self.delayed.due(now):
            self._ready.push_again(self._ticket(index))

    def lapse(self, now: float) -> bool:
        """Settle the retries that could not start within their ``max_time``; return whether there were any."""
        self._ready_again(now)
        late = self.delayed.lapsed(now)
        if not late:
            return False
        self._ready.withdraw(late, now)
        for index in late:
            lost = self._tries.lapse(index)
            if self.news is not None:
                self.news.append(news_of_lapsed(index, lost, now))
            self._settle_failure(index, lost)
        return True

    def wants_reports(self, now: float) -> bool:
        """Whether ``begun`` must be called now: a rate limit counts a start from its report."""
        return self._gated is not None and self._gated.wants_reports(now)

    def begun(self, running: Iterable[tuple[int, float, str]], now: float) -> None:
        """Note which attempts are running at ``now``, each with its index, start and worker."""
        assert self._gated is not None, "nothing else wants reports"
        for index, started, _ in running:
            self._gated.begun(index, started)
        self._gated.looked(now)

    def take_request(self) -> bool:
        """Whether, since the last call, another run has asked for starts: what has not begun may be ``put_back``."""
        return self._gated is not None and self._gated.take_request()

    def put_back(self, tickets: Iterable[Ticket], now: float) -> None:
        """Make attempts ready again that ``start_due`` returned and that have not begun; others may have their starts."""
        if self._gated is None:
            return
        for ticket in tickets:
            self._gated.put_back(ticket, now)
            self.delayed.waits(ticket[0], self._tries.start_by(ticket[0]))
            self.started -= ticket[0] not in self._tries.last

    def wake_at(self) -> float | None:
        """The next instant at which there is something to decide even without news from the executor."""
        instants = (self._stop_rule.end_at, self._ready.wake_at(), self.delayed.wake_at())
        return min((at for at in instants if at is not None), default=None)

    def finish(self, events: Iterable[Block | Ended], now: float) -> None:
        """Process attempts that have ended; afterwards, ``stop_reason`` may call for a stop."""
        for event in events:
            if not isinstance(event, Block):
                self._lose(event, now)
            elif holds_coroutine(event):
                self.finish(refuse_coroutines(event), now)
            else:
                self._succeed(event, now)

    def _succeed(self, block: Block, now: float) -> None:
        if self._tries.choosy:
            block, refused = self._tries.sift(block)
            for ended in refused:
                self._lose(ended, now)
        self._items.settle(block.indices)
        if self._made:
            self._made.difference_update(block.indices)
        for index, number in self._tries.settled(block.indices):
            self._book.succeed_again(index, number)
        if self._gated is not None:
            self._gated.settled(block.indices, block.started, now)
        self.succeeded += len(block.indices)
        if self.news is not None:
            self.news.append(block)
        self._book.succeed(block)

    def take_news(self) -> list[News]:
        """What has ended since the last call."""
        news, self.news = self.news or [], []
        return news

    def recall(self, lost: Mapping[int, Lost], known: Block) -> None:
        """Settle tasks whose outcomes, failures and then values, were known before they could start."""
        for index, failure in lost.items():
            self._settle_failure(index, failure)
        self._forget(known.indices)
        self.succeeded += len(known.indices)
        for index in known.indices:
            self._book.succeed_again(index, 0)
        self._book.succeed(known)

    def _forget(self, indices: Sequence[int]) -> None:
        self._items.settle(indices)
        self._made.difference_update(indices)
        for index in indices:
            self._tries.forget(index)
            if self._gated is not None:
                self._gated.forget(index)

    def _lose(self, ended: Ended, now: float) -> None:
        index = ended.index
        if self._gated is not None:
            self._gated.begun(index, now if ended.started is None else ended.started)
            self._gated.ended(index, now)
        verdict = self._tries.judge(ended, now, self.started)
        if verdict.pause is not None and self._gated is not None:
            self._gated.pause(index, now + verdict.pause)
        if self.news is not None:
            self.news.append(Failed(index, verdict.lost, verdict.delay, verdict.counted))
        if verdict.delay is None:
            self._settle_failure(index, verdict.lost if verdict.counted else uncounted(verdict.lost))
            return
        self.delayed.delay(index, now + verdict.delay, verdict.start_by)
        if verdict.counted:
            self._book.try_again(index, verdict.lost)

    def _settle_failure(self, index: int, lost: Lost) -> None:
        self._forget((index,))
        self.failed += 1
        if self.first_error is None:
            self.first_error = lost.error
        self._book.fail(index, lost)

    def stop_reason(self, now: float) -> str | None:
        """Why the run must stop now, if it must."""
        return self._stop_rule.reason(now, self.failed, self.settled)

    def stop(
        self,
        reason: str,
        now: float,
        running: Iterable[Running] = (),
        stacks: Mapping[int, str] | None = None,
        cause: BaseException | None = None,
    ) -> None:
        """Cancel every task that is not settled, because of ``cause`` if an error has stopped the run.

        ``running``: the attempts that had begun. ``stacks``: where they were in their code, by index.
        """
        self.stopped = reason
        self._book.stop(reason, cause)
        last = {index: lost for index, lost in self._tries.last.items() if lost.number}
        running = [attempt for attempt in running if attempt[0] in self._items]
        for index, started, worker in running:
            last[index] = cut_off(started, now, worker, last.get(index), (stacks or {}).get(index))
        if self.news is not None:
            begun = {**self._tries.last, **last}  # also those that were told to wait, which is no attempt
            self.news += news_of_cancelled(reason, begun, {index for index, _, _ in running}, now)
        self._book.cancel(list(self._items), last)
        self._items.clear()
        self._made.clear()
        self.delayed.clear()
        self._ready.clear(now)
