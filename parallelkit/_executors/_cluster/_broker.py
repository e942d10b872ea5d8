"""What runs in the dask scheduler: it gives each batch away once, and passes on what the guards tell.

The client sends this module by value, so that no scheduler needs parallelkit; it imports nothing of ours.
Everything here runs in the scheduler's event loop, one step at a time. What is told stays opaque bytes.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

PREFIX = "parallelkit-batch-"
"""Of the keys of batches: prefix, run, number."""

SETTLE = 0.01  # seconds between two looks at batches that wait behind others while threads are free
END_LIMIT = 1.5  # seconds that a worker has to end what it runs of a run
POLL_LIMIT = 20.0  # seconds after which a client that waits for news is answered in any case

WAITING, VOID, OVER = "waiting", "void", "over"  # else a batch belongs to the worker of that address

News = tuple[Any, ...]


class Run:
    """What the broker knows of a client's run."""

    def __init__(self, client: str, width: Callable[[], tuple[int, list[str]]]) -> None:
        self.client = client
        self._width = width
        self._width_changed = False
        self.batches: dict[str, str] = {}
        self.granted: dict[str, int] = {}  # of batches that belong to a worker: how many it may have begun
        self.guards: set[str] = set()  # workers that have begun something of it
        self.closing = False
        self._news: list[News] = []
        self._told = asyncio.Event()

    def tell(self, *news: Any) -> None:
        self._news.append(news)
        self._told.set()

    def note_width(self) -> None:
        """Workers came or went; told once, however many did."""
        self._width_changed = True
        self._told.set()

    async def take(self) -> list[News]:
        try:
            await asyncio.wait_for(self._told.wait(), POLL_LIMIT)
        except TimeoutError:
            pass
        return self.take_now()

    def take_now(self) -> list[News]:
        self._told.clear()
        news, self._news = self._news, []
        if self._width_changed:
            self._width_changed = False
            news.append(("width", *self._width()))
        return news

    def tell_lost(self, worker: str, keys: list[str]) -> None:
        """A worker will not end what it has of these batches; how far it may have come."""
        self.tell("lost", worker, [(key, self.granted.pop(key)) for key in keys])

    def belonging_to(self, worker: str) -> list[str]:
        return [key for key, owner in self.batches.items() if owner == worker]


class Broker:
    """The part of the plugin that is ours; ``install`` makes a SchedulerPlugin of it."""

    def __init__(self, scheduler: Any, name: str) -> None:
        self.scheduler = scheduler
        self._name = name
        self.runs: dict[str, Run] = {}
        self._seen: set[str] = set()  # batches that waited behind others at the last look
        self._looking = False
        self._closers: set[asyncio.Task[Any]] = set()

    # For clients

    async def open(self, run: str, client: str) -> tuple[int, list[str]]:
        """Register a run; how many threads there are, and which workers."""
        if not self.runs:
            self.scheduler.add_plugin(self, name=self._name)
        self.runs[run] = Run(client, self._width)
        return self._width()

    async def take(self, run: str) -> list[News] | None:
        """Wait for news of a run; None where it is closed."""
        known = self.runs.get(run)
        return None if known is None else await known.take()

    async def close(self, run: str) -> list[News]:
        """End a run on all workers; what had been committed there and was not told yet."""
        known = self.runs.get(run)
        if known is None:
            return []
        known.closing = True
        blobs = await asyncio.gather(*(self._end_on(worker, run) for worker in known.guards))
        news = known.take_now() + [("told", blob) for blob in blobs if blob is not None]
        self.runs.pop(run, None)
        known.tell()  # whoever waits for news need not wait longer
        if not self.runs and self._name in self.scheduler.plugins:
            self.scheduler.remove_plugin(name=self._name)
        return news

    async def _end_on(self, worker: str, run: str) -> bytes | None:
        if worker not in self.scheduler.workers:
            return None
        try:
            blob = await asyncio.wait_for(self.scheduler.rpc(worker).parallelkit_end(run=run), END_LIMIT)
        except Exception:
            # It is gone, or does not answer, and its lifelines end what it runs; or it failed, which its own
            # log tells. What others have to tell last must not be lost with it.
            return None
        return blob if isinstance(blob, bytes) else None

    # For guards

    async def claim(self, key: str, worker: str, granted: int) -> bool:
        """Whether the batch is this worker's to run, so many of its attempts for the moment: true once at most."""
        run = self._run_of(key)
        if run is None or run.closing or worker not in self.scheduler.workers:
            return False
        if run.batches.get(key) != WAITING:  # one that is not known was given up by the client
            return False
        run.batches[key] = worker
        run.granted[key] = granted
        run.guards.add(worker)
        self._look_later()
        return True

    async def tell(
        self, run: str, worker: str, blob: bytes, over: list[str], wanted: dict[str, int]
    ) -> list[str] | None:
        """Pass on what a guard has to tell, and let it begin so many of each batch as it wants.

        The batches that it may go on with; None where nobody wants to hear of the run any more.
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
        run.batches[key] = OVER  # no later claim is granted; a key that is not known has none either
        if key not in self.scheduler.tasks:
            del run.batches[key]

    def _run_of(self, key: str) -> Run | None:
        return self.runs.get(key[len(PREFIX) :].partition("-")[0])

    # What the scheduler tells

    def transition(self, key: Any, start: str, finish: str, *args: Any, **kwargs: Any) -> None:
        """Note where a batch is; for any other task this is one comparison."""
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
        """Dask will not run this batch any more. A guard that has it goes on all the same, and tells."""
        owner = run.batches.get(key, WAITING)
        if owner == WAITING:
            run.batches[key] = VOID
            run.tell("returned", [key], *self._refusal(key))
        elif owner not in (VOID, OVER) and finish == "erred" and owner in self.scheduler.workers:
            run.batches[key] = OVER  # its guard failed
            run.tell_lost(owner, [key])
        if finish == "forgotten" and run.batches[key] in (VOID, OVER):
            del run.batches[key]

    def _refusal(self, key: str) -> tuple[str, list[str]]:
        """Why a guard did not even ask for a batch, and where; empty where no guard was asked."""
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
        """It is gone: nothing that it had running shall go on."""
        for name, run in list(self.runs.items()):
            if run.client == client:
                run.closing = True
                closer = asyncio.ensure_future(self.close(name))
                self._closers.add(closer)
                closer.add_done_callback(self._closers.discard)

    def valid_workers_downscaling(self, scheduler: Any, workers: list[Any]) -> list[Any]:
        """A worker that is at work is not one to close."""
        busy = {owner for run in self.runs.values() for owner in run.batches.values()}
        return [worker for worker in workers if worker.address not in busy]

    async def retire(self, original: Callable[..., Awaitable[Any]], **kwargs: Any) -> Any:
        """Retire workers, but let them end what they have begun of ours."""
        chosen = {key: kwargs[key] for key in ("workers", "names") if kwargs.get(key) is not None}
        if self.runs and chosen:
            leaving = set(await original(**chosen, close_workers=False, remove=False))
            # An event for each worker would cost every batch, and few workers are retired.
            while any(run.belonging_to(worker) for run in self.runs.values() for worker in leaving):  # noqa: ASYNC110  # see above
                await asyncio.sleep(SETTLE)
        return await original(**kwargs)

    # Evening out

    def _look_later(self) -> None:
        if not self._looking:
            self._looking = True
            asyncio.get_running_loop().call_later(SETTLE, self._look)

    def _look(self) -> None:
        """Give back batches that wait behind others while threads are free elsewhere; dask places them anew."""
        self._looking = False
        stuck = self._stuck() if self.runs else {}
        free = sum(max(0, ws.nthreads - len(ws.processing)) for ws in self.scheduler.idle.values())
        for key in [key for key in stuck if key in self._seen][:free]:
            stuck[key].batches[key] = VOID
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
    """Open the broker of this name in this scheduler, unless it is open; run there by the client.

    A scheduler may live longer than a version of ours: each has a broker of its own.
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
