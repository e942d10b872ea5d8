"""Checks a dask cluster before a run: a scheduler or worker that does not fit is refused before anything is sent."""

from __future__ import annotations

import pickle
import platform
import sys
from collections.abc import Callable, Iterable
from threading import Lock
from typing import Any
from weakref import WeakKeyDictionary

from parallelkit._executors._cluster import _broker
from parallelkit._executors._cluster._guard import Question, compare
from parallelkit._executors._cluster._wire import broker_name, versions
from parallelkit._locks import careful

_vetted: WeakKeyDictionary[Any, set[str]] = WeakKeyDictionary()  # for each client, the workers that fit
_registry = careful(Lock)  # around changes to cloudpickle's registry


def check_cluster(client: Any) -> int:
    """Check the scheduler and each new worker, install the broker, and return how many threads the cluster has.

    Raises ValueError if anything does not fit.
    """
    if client.asynchronous:
        raise ValueError(f"executor must be a synchronous Client, got {client!r}")
    if client.status != "running":
        raise ValueError(f"executor must be a Client that is connected, got {client!r}")
    if client not in _vetted:
        _check_scheduler(client)
    threads = client.nthreads()
    _check_workers(client, set(threads))
    return sum(threads.values())


def _check_scheduler(client: Any) -> None:
    theirs = client.run_on_scheduler(platform.python_version)
    ours = platform.python_version()
    if _minor(theirs) != _minor(ours):
        raise ValueError(
            f"executor: the scheduler of {client!r} runs Python {theirs}, this program {ours}; "
            "scheduler, workers and client need the same minor version"
        )
    client.run_on_scheduler(ByValue(_broker.install), broker_name())


def _minor(version: str) -> list[str]:
    return version.split(".")[:2]


def _check_workers(client: Any, present: set[str]) -> None:
    known = _vetted.setdefault(client, set())
    if new := present - known:
        faults = {worker: _fault(client, worker, answer) for worker, answer in _ask(client, new).items()}
        wrong = {worker: fault for worker, fault in faults.items() if fault}
        if wrong:
            worker, fault = next(iter(wrong.items()))
            others = f" (and {len(wrong) - 1} more)" if len(wrong) > 1 else ""
            raise ValueError(f"executor: the dask worker {worker}{others} does not fit this program: {fault}")
        present = present - {worker for worker, fault in faults.items() if fault is None}
    _vetted[client] = present


def _ask(client: Any, workers: Iterable[str]) -> dict[str, Any]:
    """The answer of each worker to ``Question``, or the error in its place."""
    answers: dict[str, Any] = client.run(
        pickle.loads, pickle.dumps(Question(), 5), workers=list(workers), on_error="return"
    )
    return answers


def _fault(client: Any, worker: str, answer: Any) -> str | None:
    """Say what is wrong with a worker, by its answer to ``Question``; empty if nothing is, None if it has left."""
    if isinstance(answer, OSError):  # it may also close the connection because it cannot import parallelkit
        if worker not in client.nthreads():
            return None
        answer = _ask(client, [worker]).get(worker)
    if isinstance(answer, BaseException):
        python = client.run(platform.python_version, workers=[worker], on_error="return").get(worker)
        if isinstance(answer, OSError) and not isinstance(python, str):
            return None
        if isinstance(python, str) and _minor(python) != _minor(platform.python_version()):
            return f"Python is {python} there and {platform.python_version()} here"
        return (
            f"parallelkit {versions()['parallelkit']} cannot be imported there "
            f"({type(answer).__name__}: {answer}); install it with pip install 'parallelkit[dask]'"
        )
    return compare(versions(), answer)


class ByValue:
    """Pickles as a function of ours together with its module, so that the other side does not need parallelkit."""

    def __init__(self, fn: Callable[..., Any]) -> None:
        import cloudpickle

        module = sys.modules[fn.__module__]
        with _registry:
            cloudpickle.register_pickle_by_value(module)
            try:
                self._blob = cloudpickle.dumps(fn)
            finally:
                cloudpickle.unregister_pickle_by_value(module)

    def __call__(self) -> None:
        """Do nothing; only a callable can stand where dask expects a function."""

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[bytes]]:
        return pickle.loads, (self._blob,)
