"""The guard in each dask worker: runs batches in worker processes of ours, which can be killed and blamed.

The dask worker itself sees only bytes, never a function, an item or a value. The guard reports to the
broker in the scheduler (``_broker``), which passes the reports on to the client.
"""

from __future__ import annotations

import asyncio
import socket
from collections import deque
from collections.abc import Callable
from pickle import loads
from threading import Lock
from typing import Any

from parallelkit._executors._cluster._wire import Order, broker_name, versions
from parallelkit._executors._cluster._worker_run import WorkerRun
from parallelkit._executors._process._supervisor import Supervisor
from parallelkit._locks import careful

PLUGIN = "parallelkit-guard"


def facts() -> dict[str, str]:
    """Return the versions at this end, for ``_compatibility``."""
    return versions()


def enter(expected: dict[str, str], blob: bytes) -> None:
    """Run a batch that has arrived. Called by the unpickling of a ``Call``, in a thread of a dask worker."""
    from distributed import get_worker

    worker = get_worker()
    differences = compare(expected, versions())
    if differences:
        raise RuntimeError(f"worker {worker.address} does not fit the client: {differences}")
    guard_of(worker).run(Order(*loads(blob)))


def compare(ours: dict[str, str], theirs: dict[str, str]) -> str:
    """Say which versions differ; empty if none does."""
    return ", ".join(
        f"{name} is {theirs.get(name, 'missing')} there and {version} here"
        for name, version in ours.items()
        if theirs.get(name) != version
    )


_guards: dict[str, Guard] = {}
_guards_lock = careful(Lock)


def guard_of(worker: Any) -> Guard:
    """Return the one guard of a dask worker, made when first asked for."""
    with _guards_lock:
        guard = _guards.get(worker.id)
        if guard is None:
            guard = _guards[worker.id] = Guard(worker)
            worker.handlers["parallelkit_end"] = guard.end_run
            worker.plugins[PLUGIN] = guard
        return guard


class Guard:
    """Owns the worker processes: as many as the dask worker has threads, as long as there is a run."""

    def __init__(self, worker: Any) -> None:
        self.host = socket.gethostname()
        self._worker = worker
        self._width: int = worker.state.nthreads
        self._lock = careful(Lock)
        self._supervisors: list[Supervisor] = []
        """The last is for new runs; others are broken, and have runs yet."""
        self._worker_runs: dict[str, WorkerRun] = {}
        self._ended: deque[str] = deque(maxlen=1000)
        self._closed = False

    # In threads of the dask worker

    def run(self, order: Order) -> None:
        """Run a batch if it can be claimed; return when all that was begun has ended."""
        if not self.ask("claim", key=order.key, worker=self._worker.address, granted=order.portion):
            return
        worker_run = self._worker_run_of(order)
        if worker_run is not None:
            worker_run.run(order, self.fetch)

    def ask(self, question: str, **about: Any) -> Any:
        """Ask the broker, from any thread but that of the event loop."""
        from distributed.utils import sync

        answers = getattr(self._worker.scheduler, f"{broker_name()}_{question}")
        return sync(self._worker.loop, answers, **about)

    def _worker_run_of(self, order: Order) -> WorkerRun | None:
        with self._lock:
            if self._closed or order.run in self._ended:
                return None
            worker_run = self._worker_runs.get(order.run)
            if worker_run is None:
                if not self._supervisors or self._supervisors[-1].broken is not None:
                    self._supervisors.append(Supervisor(self._width, None, None))
                worker_run = WorkerRun(order.run, order.exact, self._supervisors[-1], self.host, self._tell)
                self._worker_runs[order.run] = worker_run
            return worker_run

    def fetch(self, thing: bytes | str) -> bytes:
        """Return bytes that came with the batch, or fetch those that dask keeps under a key, here or at another worker."""
        if isinstance(thing, bytes):
            return thing
        from distributed.utils import sync

        return bytes(sync(self._worker.loop, self._fetch, thing))

    async def _fetch(self, key: str) -> Any:
        """In the event loop; raises KeyError if no worker has it any more."""
        if key not in self._worker.data:
            await self._worker.gather(await self._worker.scheduler.who_has(keys=[key]))
        return self._worker.data[key]

    def _tell(self, run: str, blob: bytes, over: list[str], wanted: dict[str, int]) -> list[str]:
        """Report to the broker, and return which batches may go on; if nobody listens any more, end the run here."""
        try:
            heard = self.ask(
                "tell", run=run, worker=self._worker.address, blob=blob, over=over, wanted=wanted
            )
        except Exception:  # however the connection to the scheduler fails, nobody listens any more
            heard = None
        if heard is None:
            self._let_go(run)
        return list(heard or ())

    # The end

    async def end_run(self, run: str) -> bytes | None:
        """The broker ends a run: kill what it runs here, and return a report of what was committed and not yet reported."""
        return await asyncio.to_thread(self._end, run)

    def _end(self, run: str) -> bytes | None:
        worker_run = self._forget(run)
        try:
            return None if worker_run is None else worker_run.end()
        finally:
            self._close_unused()

    def _let_go(self, run: str) -> None:
        """End a run of which nobody wants a report; its own thread may call this."""
        worker_run = self._forget(run)
        if worker_run is not None:
            worker_run.drop()
        self._close_unused()

    def _forget(self, run: str) -> WorkerRun | None:
        with self._lock:
            self._ended.append(run)
            return self._worker_runs.pop(run, None)

    def _close_unused(self) -> None:
        with self._lock:
            used = [worker_run.supervisor for worker_run in self._worker_runs.values()]
            unused = [supervisor for supervisor in self._supervisors if supervisor not in used]
            self._supervisors = [supervisor for supervisor in self._supervisors if supervisor in used]
        for supervisor in unused:
            supervisor.stop()
            supervisor.join()

    async def teardown(self, worker: Any) -> None:
        """End all runs here: the dask worker is closing."""
        with _guards_lock:
            _guards.pop(worker.id, None)
        with self._lock:  # a run that is being made is among them, and later none is
            self._closed = True
            runs = list(self._worker_runs)
        for run in runs:  # a thread only if there is one: as the interpreter ends, and with it a local cluster, none can be had
            await asyncio.to_thread(self._let_go, run)


class Call:
    """Pickles as a call of ``enter``, which happens when and where it is unpickled."""

    def __init__(self, expected: dict[str, str], order: bytes) -> None:
        self._call = (enter, (expected, order))

    def __reduce__(self) -> tuple[Callable[..., None], tuple[Any, ...]]:
        return self._call


class Question:
    """Pickles as a call of ``facts``."""

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return facts, ()
