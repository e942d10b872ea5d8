"""Runs on a dask cluster: in our own worker processes beside each dask worker, fed through its scheduler.

How it works, and why this way: docs/design/dask-engine.md.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

from parallelkit._executors._cluster._client_run import NOBODY_YET, ClientRun
from parallelkit._executors._cluster._compatibility import check_cluster
from parallelkit._executors._cluster._in_flight import Vanished
from parallelkit._executors._contract import Block, Ended, Job, close_port
from parallelkit._executors._process._carried import CarriedClasses
from parallelkit._executors._process._culprit import pack_job
from parallelkit._executors._process._decode import decode_died
from parallelkit._executors._process._lane import Died, Lane, Record, Span
from parallelkit._executors._process._packing import Packing, taken_by
from parallelkit._executors._processes import ProcessPort
from parallelkit._worker._editions import Editions
from parallelkit._worker._travel import pack, pack_by_value

ADVICE = (
    "this was raised on a dask worker: install the module there, send its file by client.upload_file(), "
    "or have it sent along by cloudpickle.register_pickle_by_value()"
)


class DaskEngine:
    """The workers that a ``distributed.Client`` is connected to; client and cluster remain the caller's.

    ``max_workers``: how many attempts may run at a time; by default as many as the cluster has threads.
    """

    def __init__(self, client: Any, max_workers: int | None) -> None:
        threads = check_cluster(client)
        self.client = client
        self.cap = max_workers
        self.max_workers = max_workers or max(1, threads)

    def open(self, job: Job) -> DaskPort:
        """Open a port; raises TypeError if the function or its arguments cannot be pickled."""
        with job.guard():
            packed = pack_job(job)
            if by_value():
                packed = pack_for_afar((job.fn, job.args, dict(job.kwargs), job.star), Editions())
        port = DaskPort(self, Lane(0, packed, job.exact), packed, job)
        try:
            with job.guard():  # which the scheduler may keep waiting
                port.client_run.open()
        except BaseException:
            close_port(port)
            raise
        return port

    def widen(self, threads: int) -> None:
        """Note how many threads the cluster has now."""
        self.max_workers = self.cap or max(1, threads)

    def close(self) -> None:
        """Do nothing: each port ends what is its own, and the cluster is the caller's."""


class DaskPort(ProcessPort):
    """Packs and unpacks as for local processes, but hands tasks to a ``ClientRun`` in place of a supervisor."""

    def __init__(self, engine: DaskEngine, lane: Lane, packed: bytes, job: Job) -> None:
        self.client_run = ClientRun(engine.client, lane, packed, engine.cap, engine.widen)
        super().__init__(cast(Any, engine), cast(Any, self.client_run), lane, job)

    def room(self) -> int:
        """Return the free slots for an exact job; else as many that no worker runs out of work."""
        if not self._lane.exact or self._lane.closed or self._lane.broken is not None:
            room = super().room()
            return max(room, NOBODY_YET - self._pending) if room and not self.client_run.threads else room
        return max(self._engine.max_workers - self._pending, 0 if self._pending else 1)

    def _new_packing(self, width: Callable[[], int]) -> Packing:
        return Packing(width, pack_for_afar, self._job)

    def _open(self, event: Span | Died | Record | Vanished) -> tuple[list[Block | Ended], tuple[int, int]]:
        if isinstance(event, Vanished):
            return [_vanished(event)], taken_by(event.batch)
        if isinstance(event, Died):
            ended = decode_died(event, self._job.label)
            host = event.worker.rpartition(" on ")[2]
            ended.error.args = (f"{ended.error.args[0]} on {host}", *ended.error.args[1:])
            return [ended], taken_by(event.batch)
        outcomes, taken = super()._open(event)
        for outcome in outcomes:
            if isinstance(outcome, Ended) and isinstance(outcome.error, ModuleNotFoundError):
                outcome.error.add_note(ADVICE)
        return outcomes, taken

    def running(self) -> list[tuple[int, float, str]]:
        """Return the attempts that are known to have begun and not ended: index, instant of the start, worker."""
        return [(index, *told) for index, told in list(self.client_run.begun.items())]

    def stacks(self) -> dict[int, str]:
        """Return none: asking every node for them would delay the stop."""
        return {}

    def close(self) -> None:
        """Withdraw the queued attempts, and kill those that run on the workers."""
        if self._lane.closed:
            return
        self._lane.queue.clear()
        self.client_run.close()
        self._lane.closed = True


def by_value() -> bool:
    """Whether the caller has registered modules with cloudpickle to be pickled by value."""
    from cloudpickle import list_registry_pickle_by_value

    return bool(list_registry_pickle_by_value())


def pack_for_afar(thing: object, editions: Editions | CarriedClasses) -> bytes:
    """As ``pack``, but pickle registered modules by value. Runs that overlap share worker processes, hence ``editions``."""
    return pack_by_value(thing, None, editions=editions) if by_value() else pack(thing, editions=editions)


def _vanished(event: Vanished) -> Ended:
    from parallelkit._died import WorkerDied

    error = WorkerDied(
        f"the dask worker was lost while it had this task, which may have run ({event.worker})",
        may_have_run=True,
    )
    return Ended(event.batch.tickets[0][0], error, "", event.started, event.ended, event.worker)
