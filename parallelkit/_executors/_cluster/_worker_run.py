"""One run on one dask worker: gives its batches to the worker processes, and reports what becomes of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from math import inf
from threading import Lock, Thread

from parallelkit._executors._cluster._pending import Pending
from parallelkit._executors._cluster._wire import Order, Report, pack_died, pack_record, pack_span
from parallelkit._executors._process._endings import await_ends
from parallelkit._executors._process._handle import Worker
from parallelkit._executors._process._holding import LOOK
from parallelkit._executors._process._lane import Died, Lane, Record, Span
from parallelkit._executors._process._payload import Payload, payload_of
from parallelkit._executors._process._supervisor import Supervisor
from parallelkit._executors._shared import Numbers
from parallelkit._locks import careful
from parallelkit._named_tuple import NamedTuple
from parallelkit._raised import describe_error
from parallelkit._system import monotonic

FIRST_LOOK = 0.004  # seconds from a change to the next look at what runs; then doubled each time, up to ...
LAST_LOOK = 1.0  # ... this

_numbers = Numbers(1)


class Sight(NamedTuple):
    """What a look has found: the attempts that run, and those taken back from behind them."""

    running: list[tuple[int, float, str]]
    withdrawn: list[int]
    more: bool  # whether a further look may see more


class WorkerRun:
    """Threads of the dask worker bring batches to ``run``; a thread of its own reports what has ended."""

    def __init__(
        self,
        run: str,
        exact: bool,
        supervisor: Supervisor,
        host: str,
        tell: Callable[[str, bytes, list[str], dict[str, int]], list[str]],
    ) -> None:
        self._run = run
        self.supervisor = supervisor
        self._tell = tell
        self._lane = Lane(_numbers.draw(), b"", exact)
        self._learning = careful(Lock)
        self._taught = False
        self._pendings: dict[str, Pending] = {}
        self._owners: dict[int, Pending] = {}
        self._begun: set[int] = set()  # attempts that were reported as begun
        self._report = Report(host)
        self._over: list[str] = []
        self._changed = False
        self._told_at = 0.0
        self._rest = 0.0  # seconds between two reports, unless a batch is over or needs a grant
        self._look_at = inf
        self._pause = FIRST_LOOK
        self._patience = 0.0  # seconds that an attempt may run before what waits behind it is given back
        self._thread = Thread(target=self._watch, name="parallelkit-worker-run", daemon=True)
        self._thread.start()

    # In a thread of the dask worker

    def run(self, order: Order, fetch: Callable[[bytes | str], bytes]) -> None:
        """Run a batch, of which the first portion was granted; return when each attempt has ended or was given back."""
        payloads: list[Payload] | None = None
        try:
            self._learn(order.job, fetch)
            if order.payloads is not None:
                payloads = [payload_of(fetch(payload)) for payload in order.payloads]
        except Exception:  # what dask kept is gone, with the worker that had it
            self._give_back(order)
            return
        pending = Pending(order.key, order.tickets(), payloads, order.portion)
        self._patience, self._rest = order.expected, order.rest
        self._owners.update(dict.fromkeys(order.indices, pending))
        self._pendings[order.key] = pending
        self._changed = True
        self.supervisor.offer(pending.part(self._lane, 0, order.portion))
        self._lane.gate.open()
        if self._lane.closed:
            return
        pending.over.wait()

    def _learn(self, job: bytes | str, fetch: Callable[[bytes | str], bytes]) -> None:
        with self._learning:
            if not self._taught:
                self._lane.job = payload_of(fetch(job))
                self.supervisor.ask(self._enter)
                self._taught = True
                if self.supervisor.broken is not None:
                    self._lane.fail(self.supervisor.broken)

    def _enter(self) -> None:
        """Have the worker processes take what is queued; in the supervisor's thread, as ``drop`` may come at the same time."""
        if not self._lane.closed:
            self.supervisor.pool.lanes.append(self._lane)

    def _give_back(self, order: Order) -> None:
        report = Report(self._report.host, unbegun=list(order.indices), missing=True)
        self._tell(self._run, report.seal(), [order.key], {})

    # In its own thread

    def _watch(self) -> None:
        try:
            while not self._lane.closed:
                self._turn()
        except Exception as error:  # no memory, say: the client must not wait for ever
            why = f"what has ended cannot be reported ({describe_error(error)})"
            self._tell(self._run, Report(self._report.host, broken=why).seal(), [], {})

    def _turn(self) -> None:
        until = min(self._look_at, self._told_at + self._rest if self._report else inf)
        self._lane.gate.wait(self._has_news, None if until == inf else max(0.0, until - monotonic()))
        now = monotonic()
        if self._gather():
            self._pause = FIRST_LOOK
            self._look_at = now + FIRST_LOOK if self._owners else inf
        elif now >= self._look_at:
            self._look(now)
        wanted = self._find_wanted()
        if self._over or wanted or (self._report and now >= self._told_at + self._rest):
            self._send(wanted)

    def _has_news(self) -> bool:
        broken = self._lane.broken is not None and self._report.broken is None
        return bool(self._lane.events) or self._changed or broken or self._lane.closed

    def _gather(self) -> bool:
        """Put what has come in into the report; return whether anything has."""
        changed, self._changed = self._changed, False
        events, lane = self._lane.events, self._lane
        if lane.broken is not None and self._report.broken is None:
            cause = lane.broken.cause
            because = "" if cause is None else f" ({describe_error(cause)})"
            self._report.broken = lane.broken.reason + because
            self._over += self._pendings
        while events:
            changed = True
            self._accept(events.popleft())
        return changed

    def _accept(self, event: Span | Died | Record) -> None:
        host = self._report.host
        if isinstance(event, Record):
            self._report.records.append(pack_record(event))
            return
        if isinstance(event, Died):
            self._report.died.append(pack_died(event, host))
        else:
            self._report.spans.append(pack_span(event, host))
        self._settle([ticket[0] for ticket in event.batch.tickets])

    def _settle(self, indices: list[int]) -> None:
        self._begun.difference_update(indices)
        for pending, done in Counter(map(self._owners.pop, indices)).items():
            pending.count(done)
            self._close_if_over(pending)

    def _close_if_over(self, pending: Pending) -> None:
        if pending.is_over:
            self._over.append(pending.key)
            del self._pendings[pending.key]
            pending.over.set()

    def _find_wanted(self) -> dict[str, int]:
        """Return how many attempts of each batch should be granted next, in all; empty unless a batch is low."""
        pendings = list(self._pendings.values())
        if not any(pending.is_low for pending in pendings):
            return {}
        return {pending.key: pending.wanted for pending in pendings if pending.wanted > pending.granted}

    def _send(self, wanted: dict[str, int]) -> None:
        report, self._report = self._report, Report(self._report.host)
        over, self._over = self._over, []
        self._report.broken = report.broken
        self._told_at = monotonic()
        granted = self._tell(self._run, report.seal(), over, wanted)
        if self._lane.closed:
            return
        for key, upto in wanted.items():
            pending = self._pendings[key]
            if key in granted:
                self.supervisor.offer(pending.grant(self._lane, upto))
            else:
                self._withdraw(pending)

    def _withdraw(self, pending: Pending) -> list[int]:
        """Take out the attempts of a batch that were not granted, and return their indices."""
        indices = pending.withdraw()
        for index in indices:
            del self._owners[index]
        self._close_if_over(pending)
        return indices

    # Looking

    def _look(self, now: float) -> None:
        """See which attempts have begun, and give back those that wait behind one that takes long."""
        sight = self.supervisor.ask(lambda: self._inspect(now))
        for index, started, label in sight.running:
            if index not in self._begun:
                self._begun.add(index)
                self._report.begun.append((index, started, f"{label} on {self._report.host}"))
            if now - started >= self._patience:
                self._report.unbegun += self._withdraw(self._owners[index])
        self._report.unbegun += sight.withdrawn
        self._settle(sight.withdrawn)
        self._pause = min(2 * self._pause, LAST_LOOK)
        more = sight.more or len(self._begun) < len(self._owners)
        self._look_at = now + self._pause if more else inf

    def _inspect(self, now: float) -> Sight:
        """Look at the worker processes; runs in the supervisor's thread."""
        pool, lane = self.supervisor.pool, self._lane
        workers = [worker for worker in pool.workers if worker.lane is lane]
        running = [
            (found[0][0], found[1], worker.label)
            for worker in workers
            if (found := worker.running()) is not None
        ]
        for worker in workers:
            if self._is_stuck(worker, now):
                _uncover(worker, lane, now)
        withdrawn = []
        full = len(pool.workers) >= self.supervisor.max_workers
        if lane.queue and full and all(self._is_stuck(worker, now) for worker in pool.workers):
            withdrawn = [ticket[0] for batch in lane.queue for ticket in batch.tickets]
            lane.queue.clear()
        behind = bool(lane.queue) or any(worker.pending > 1 for worker in workers)
        return Sight(running, withdrawn, behind)

    def _is_stuck(self, worker: Worker, now: float) -> bool:
        """Whether a worker process has been at one attempt for as long as a whole batch should take."""
        return not worker.wire.loading and now - worker.stuck_since() >= self._patience

    # The end

    def end(self) -> bytes | None:
        """Kill what runs; return a report of what was committed and not yet reported."""
        self.supervisor.ask(lambda: None)  # it drains all rings before it answers
        self.drop()
        self._thread.join()
        self._gather()
        return self._report.seal() if self._report else None

    def drop(self) -> None:
        """Kill what runs, and release the threads of the dask worker."""
        self._lane.closed = True
        self._lane.gate.open()
        victims = self.supervisor.ask(lambda: self.supervisor.pool.drop(self._lane))
        for pending in list(self._pendings.values()):
            pending.over.set()
        await_ends(victims)


def _uncover(worker: Worker, lane: Lane, now: float) -> None:
    """Take back what waits in a worker process behind an attempt that takes long; takes two looks."""
    if worker.pending <= 1:
        return
    if worker.held is None:
        worker.hold(now)
    elif now >= worker.held_at + LOOK:
        lane.queue.extendleft(reversed(worker.take_back()))
