"""Runs in the dask scheduler: grants each batch to one guard only, and passes on to the client what guards report.

The client sends this module by value, so that the scheduler does not need parallelkit; it imports none of it.
Everything here runs in the scheduler's event loop. Reports remain opaque bytes.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

PREFIX = "parallelkit-batch-"
"""The key of a batch is this prefix, the run, a hyphen and a number."""

SETTLE = 0.01  # seconds between two looks at batches that wait behind others while threads are free
END_LIMIT = 1.5  # seconds that a worker has to end its part of a run
POLL_LIMIT = 20.0  # seconds after which a client that waits for news is answered in any case

WAITING, OVER = "waiting", "over"
"""Where a batch is: to be claimed, or not any more. Else it is the address of the worker that claimed it."""

News = tuple[Any, ...]


class Run:
    """What the broker knows about a client's run. ``width``: gives the cluster's threads and its workers."""

    def __init__(self, client: str, width: Callable[[], tuple[int, list[str]]]) -> None:
        self.client = client
        self._width = width
        self._width_changed = False
        self.batches: dict[str, str] = {}  # by key: WAITING, OVER or the worker's address
        self.granted: dict[str, int] = {}  # of claimed batches: how many attempts may have begun
        self.guards: set[str] = set()  # workers that have claimed batches of it
        self.closing = False
        self._news: list[News] = []
        self.answer_due = asyncio.Event()  # set when a client that waits for news is to be answered

    def tell(self, *news: Any) -> None:
        self._news.append(news)
        self.answer_due.set()

    def note_width(self) -> None:
        """Note that workers came or went; the client is told once, however many did."""
        self._width_changed = True
        self.answer_due.set()

    async def take(self) -> list[News]:
        try:
            await asyncio.wait_for(self.answer_due.wait(), POLL_LIMIT)
        except TimeoutError:
            pass
        return self.take_now()

    def take_now(self) -> list[News]:
        self.answer_due.clear()
        news, self._news = self._news, []
        if self._width_changed:
            self._width_changed = False
            news.append(("width", *self._width()))
        return news

    def tell_lost(self, worker: str, keys: list[str]) -> None:
        """Tell the client that a worker will not end these batches, and how many attempts of each it may have begun."""
        self.tell("lost", worker, [(key, self.granted.pop(key)) for key in keys])

    def belonging_to(self, worker: str) -> list[str]:
        return [key for key, owner in self.batches.items() if owner == worker]


class Broker:
    """Our part of the scheduler's plugin; ``install`` combines it with SchedulerPlugin."""

    def __init__(self, scheduler: Any, name: str) -> None:
        self.scheduler = scheduler
        self._name = name
        self.runs: dict[str, Run] = {}
        self._seen: set[str] = set()  # batches that waited behind others at the last look
        self._looking = False
        self._closers: set[asyncio.Task[Any]] = set()

    # For clients

    async def open(self, run: str, client: str) -> tuple[int, list[str]]:
        """Register a run; return how many threads there are, and the workers."""
        if not self.runs:
            self.scheduler.add_plugin(self, name=self._name)
        self.runs[run] = Run(client, self._width)
        return self._width()

    async def take(self, run: str) -> list[News] | None:
        """Wait for news of a run; None if it is closed."""
        known = self.runs.get(run)
        return None if known is None else await known.take()

    async def close(self, run: str) -> list[News]:
        """End a run on all workers; return its last news, with what was committed there and not yet reported."""
        known = self.runs.get(run)
        if known is None:
            return []
        known.closing = True
        blobs = await asyncio.gather(*(self._end_on(worker, run) for worker in known.guards))
        news = known.take_now() + [("told", blob) for blob in blobs if blob is not None]
        self.runs.pop(run, None)
        known.answer_due.set()
        if not self.runs and self._name in self.scheduler.plugins:
            self.scheduler.remove_plugin(name=self._name)
        return news

    async def _end_on(self, worker: str, run: str) -> bytes | None:
        try:
            blob = await asyncio.wait_for(self.scheduler.rpc(worker).parallelkit_end(run=run), END_LIMIT)
        except Exception:
            # The worker is gone or does not answer, and then its lifelines end what it runs; or it failed, which
            # its own log shows. The last reports of the other workers must not be lost with it.
            return None
        return blob if isinstance(blob, bytes) else None

    # For guards

    async def claim(self, key: str, worker: str, granted: int) -> bool:
        """Grant a batch to a worker, the first ``granted`` attempts for now; False if it is not, or no longer, to be had."""
        run = self._run_of(key)
        if run is None or run.closing or worker not in self.scheduler.workers:
            return False
        if run.batches.get(key) != WAITING:  # an unknown key is one that the client gave up
            return False
        run.batches[key] = worker
        run.granted[key] = granted
        run.guards.add(worker)
        self._look_later()
        return True

    async def tell(
        self, run: str, worker: str, blob: bytes, over: list[str], wanted: dict[str, int]
    ) -> list[str] | None:
        """Pass on a guard's report, close the batches that are over, and grant as many attempts of others as wanted.

        Return the keys of those that may go on; None if nobody wants to hear of the run any more.
        """
        known = self.runs.get(run)
        if known is None or worker not in self.scheduler.workers:
            return None
        over = [key for key in over if known.batches.get(key) == worker]
        known.tell("told", blob, over)
        for key in over:
            self._close_batch(known, key)
        self._look_later()
        mine = [key for key in wanted if known.batches.get(key) == worker and not known.closing]
        known.granted.update((key, wanted[key]) for key in mine)
        return mine

    def _close_batch(self, run: Run, key: str) -> None:
        run.granted.pop(key, None)
        run.batches[key] = OVER  # so that no later claim is granted
        if key not in self.scheduler.tasks:  # dask has forgotten it; an unknown key is not granted either
            del run.batches[key]

    def _run_of(self, key: str) -> Run | None:
        return self.runs.get(key[len(PREFIX) :].partition("-")[0])

    # Called by the scheduler

    def transition(self, key: Any, start: str, finish: str, *args: Any, **kwargs: Any) -> None:
        """Note the new state of a batch; any other task costs one comparison."""
        if not isinstance(key, str) or not key.startswith(PREFIX):
            return
        run = self._run_of(key)
        if run is None or run.closing:
            return
        if finish in ("processing", "queued", "no-worker"):
            run.batches.setdefault(key, WAITING)
            self._look_later()
        elif finish in ("erred", "forgotten"):
            self._give_up(run, key, finish)

    def _give_up(self, run: Run, key: str, finish: str) -> None:
        """Dask will not run this batch any more. A guard that has claimed it goes on all the same, and reports."""
        owner = run.batches.get(key, WAITING)
        if owner == WAITING:
            run.batches[key] = OVER
            run.tell("returned", [key], *self._refusal(key))
        elif finish == "erred" and owner in self.scheduler.workers:
            run.batches[key] = OVER  # its guard failed
            run.tell_lost(owner, [key])
        if finish == "forgotten" and run.batches[key] == OVER:
            del run.batches[key]

    def _refusal(self, key: str) -> tuple[str, list[str]]:
        """Return the error with which workers refused a batch unclaimed, and which they are; empty if none did."""
        task = self.scheduler.tasks.get(key)
        text = getattr(task, "exception_text", "") or ""
        return ("", []) if "KilledWorker" in text else (text, sorted(getattr(task, "erred_on", None) or ()))

    def add_worker(self, scheduler: Any, worker: str) -> None:
        self._note_width()

    def remove_worker(self, scheduler: Any, worker: str, **kwargs: Any) -> None:
        for run in self.runs.values():
            run.guards.discard(worker)
            lost = run.belonging_to(worker)
            if lost and not run.closing:
                run.tell_lost(worker, lost)
            for key in lost:
                self._close_batch(run, key)
        self._note_width()

    def _note_width(self) -> None:
        for run in self.runs.values():
            run.note_width()

    def _width(self) -> tuple[int, list[str]]:
        return int(self.scheduler.total_nthreads), list(self.scheduler.workers)

    def remove_client(self, scheduler: Any, client: str) -> None:
        """A client is gone: end its runs."""
        for name, run in list(self.runs.items()):
            if run.client == client:
                run.closing = True
                closer = asyncio.ensure_future(self.close(name))
                self._closers.add(closer)
                closer.add_done_callback(self._closers.discard)

    def valid_workers_downscaling(self, scheduler: Any, workers: list[Any]) -> list[Any]:
        """Keep an adaptive cluster from closing a worker that has work."""
        busy = {owner for run in self.runs.values() for owner in run.batches.values()}
        return [worker for worker in workers if worker.address not in busy]

    async def retire(self, original: Callable[..., Awaitable[Any]], **kwargs: Any) -> Any:
        """Retire workers, but let them first finish what they have claimed of ours."""
        chosen = {key: kwargs[key] for key in ("workers", "names") if kwargs.get(key) is not None}
        if self.runs and chosen:
            leaving = set(await original(**chosen, close_workers=False, remove=False))
            # Polled: an event for each worker would add a cost to every batch, and workers are seldom retired.
            while any(run.belonging_to(worker) for run in self.runs.values() for worker in leaving):  # noqa: ASYNC110  # see above
                await asyncio.sleep(SETTLE)
        return await original(**kwargs)

    # Load balancing

    def _look_later(self) -> None:
        if not self._looking:
            self._looking = True
            asyncio.get_running_loop().call_later(SETTLE, self._look)

    def _look(self) -> None:
        """Return batches to the client that wait behind others while threads are free elsewhere; it submits them anew."""
        self._looking = False
        stuck = self._stuck() if self.runs else {}
        free = sum(max(0, ws.nthreads - len(ws.processing)) for ws in self.scheduler.idle.values())
        for key in [key for key in stuck if key in self._seen][:free]:
            stuck[key].batches[key] = OVER
            stuck[key].tell("returned", [key], "", [])
        self._seen = set(stuck)
        if stuck and free:
            self._look_later()

    def _stuck(self) -> dict[str, Run]:
        found = {}
        for run in self.runs.values():
            for key in [key for key, owner in run.batches.items() if owner == WAITING]:
                worker = getattr(self.scheduler.tasks.get(key), "processing_on", None)
                if worker is not None and len(worker.processing) > worker.nthreads:
                    found[key] = run
        return found


def install(name: str, dask_scheduler: Any) -> None:
    """Install the broker of this name in the scheduler, unless there is one; the client has this run there.

    Each version of parallelkit has a broker of its own, since a scheduler may outlive several.
    """
    if f"{name}_claim" in dask_scheduler.handlers:
        return
    from distributed import SchedulerPlugin

    broker = type("ParallelkitBroker", (Broker, SchedulerPlugin), {})(dask_scheduler, name)
    original = dask_scheduler.handlers["retire_workers"]

    async def retire_workers(**kwargs: Any) -> Any:
        return await broker.retire(original, **kwargs)

    dask_scheduler.handlers["retire_workers"] = retire_workers
    for answer in (broker.open, broker.take, broker.close, broker.claim, broker.tell):
        dask_scheduler.handlers[f"{name}_{answer.__name__}"] = answer
