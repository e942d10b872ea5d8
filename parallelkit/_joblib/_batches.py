"""Sends the batches of one ``joblib.Parallel`` to worker processes, and settles them, in a thread of its own."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from itertools import count
from pickle import PicklingError
from reprlib import Repr
from typing import Any

from parallelkit._conditions import Thread
from parallelkit._executors._contract import Block, Ended, Engine, Job, Port, Ticket
from parallelkit._joblib._packing import Packer
from parallelkit._joblib._worker import run
from parallelkit._raised import attribute_or_none, describe_error, repr_of

GRACE = 1.0  # seconds that ``close`` waits for the thread, which may be in a callback
IN_THREADS = "executor='threads'"  # how an error of ours ends that advises a run against processes
SHOWN = 3  # how many calls of a batch, and arguments of a call, a message shows


class Sent:
    """A batch that was submitted. When it is done, its callback is called.

    The callback refers to its batch and to the ``Parallel``, so it is dropped then: a cycle would keep the
    workers alive longer than both.
    """

    def __init__(self, calls: Any, callback: Callable[[Sent], object] | None) -> None:
        self.calls = calls
        self._callback = callback
        self._value: Any = None
        self._error: BaseException | None = None

    def settle(self, value: Any, error: BaseException | None) -> None:
        """Note that it is done, and call the callback, which reads on in the caller's input."""
        self._value, self._error = value, error
        callback = self._callback
        self.forget()
        if callback is not None:
            try:
                callback(self)
            except BaseException as raised:
                hand_on(callback, raised)

    def forget(self) -> None:
        """Drop arguments, which may be large, and callback: it is done, or never will be."""
        self.calls = self._callback = None

    def result(self) -> Any:
        """Return the values of its calls, or raise the error of the first that failed."""
        if self._error is not None:
            raise self._error
        return self._value


class Batches:
    """Hands batches to the workers of an engine, and settles them.

    Nothing is started before the first batch: until then joblib terminates no backend if a signal handler raises.
    """

    def __init__(self, engine: Engine, max_nbytes: int | None) -> None:
        self._engine = engine
        self._packer = Packer(max_nbytes)
        self._inbox: deque[Sent | None] = deque()  # None: forget the arrays sent so far
        self._flying: dict[int, Sent] = {}
        self._label = labels_of(self._flying)
        self._port: Port | None = None
        self._numbers = count()
        self._closing = False
        self._failure: BaseException | None = None  # why no batch can be run any more
        self._thread = Thread(target=self._work, name="parallelkit_joblib", daemon=True)

    def submit(self, calls: Any, callback: Callable[[Sent], object] | None) -> Sent:
        """Add a batch, from any thread, but the first from the caller's."""
        sent = Sent(calls, callback)
        self._inbox.append(sent)
        if self._port is None:
            self._port = self._engine.open(Job(run, label=self._label))
            self._thread.start()
        else:
            self._port.wake()
        if self._failure is not None:  # else ``_break``, which sets it first, finds this batch
            sent.settle(None, self._failure)
        return sent

    def forget_arrays(self) -> None:
        """From now on, send each array anew. Called while no batch is under way."""
        self._inbox.append(None)

    def let_go(self) -> None:
        """Have the thread end soon; takes no lock, as the garbage collector may call it."""
        self._closing = True
        if self._port is not None:
            self._port.wake()

    def close(self) -> None:
        """Kill the batches that run, and drop all that are not done."""
        self.let_go()
        if self._port is None or self._thread is threading.current_thread():  # if a callback closes
            return
        if self._thread.is_alive():
            self._thread.join(GRACE)
        if self._thread.is_alive() or not self._thread.ident:
            # Its callback waits for the caller's iterator, and it ends after that; or a signal handler has raised out of
            # its start.
            self._port.close()

    def _work(self) -> None:
        port = self._port
        assert port is not None, "the thread is started once there is a port"
        try:
            while not self._closing:
                self._hand_over(port)
                self._settle(port.wait(None))
                if port.failure is not None:
                    self._break(port.failure)
        except BaseException as error:
            self._break(error)  # a bug of ours must not leave joblib waiting for ever
        finally:
            port.close()
            self._packer.close()
            for sent in self._left():
                sent.forget()

    def _hand_over(self, port: Port) -> None:
        tickets: list[Ticket] = []
        room = port.room()
        while self._inbox and len(tickets) < room:
            sent = self._inbox.popleft()
            if sent is None:
                self._packer.close()
                continue
            if (mistake := undelayed(sent.calls.items)) is not None:
                sent.settle(None, mistake)
                continue
            try:
                packed = self._packer.pack(sent.calls)
            except BaseException as error:  # SystemExit of a __reduce__, too
                sent.settle(None, refusal(describe_calls(sent.calls.items), error))
                continue
            number = next(self._numbers)
            self._flying[number] = sent
            tickets.append((number, 1, packed, None))
        port.start(tickets)

    def _settle(self, events: list[Block | Ended]) -> None:
        for event in events:
            if isinstance(event, Block):
                for index, value in zip(event.indices, event.values, strict=True):
                    self._flying.pop(index).settle(value, None)
            else:
                error = as_joblib_has_it(event, self._label(event.index))
                self._flying.pop(event.index).settle(None, error)

    def _break(self, failure: BaseException) -> None:
        """No worker can be started any more: fail all batches."""
        self._failure = failure
        for sent in self._left():
            sent.settle(None, failure)
        self._closing = True

    def _left(self) -> list[Sent]:
        """Take out all batches that are not done."""
        left = [*self._flying.values(), *filter(None, self._inbox)]
        self._flying.clear()
        self._inbox.clear()
        return left


def hand_on(callback: Any, error: BaseException) -> None:
    """Have the ``Parallel`` raise what its callback raised, as it does by itself if the input raises an ``Exception``.

    After anything else, such as the SystemExit of an input, it would wait for ever.
    """
    from joblib.parallel import TASK_ERROR

    parallel = callback.parallel
    with parallel._lock:
        if parallel._call_id == callback.parallel_call_id:
            failed = type(callback)(0, 0, parallel)
            if parallel.return_ordered:  # else the next line does it
                parallel._jobs.append(failed)
            failed._register_outcome({"status": TASK_ERROR, "result": error})


def labels_of(flying: dict[int, Sent]) -> Callable[[int], str]:
    """Return the function that names a batch in messages; a closure over no more, as a cycle would keep workers alive."""
    return lambda number: describe_calls(flying[number].calls.items)


def as_joblib_has_it(ended: Ended, label: str) -> BaseException:
    """Return the error of a batch as joblib's users expect it.

    That of a dead worker says what it was running, that of a value that cannot be pickled what ``Parallel`` takes.
    """
    from parallelkit._died import WorkerDied

    error = ended.error
    if isinstance(error, WorkerDied):
        text = f"{error}, while it ran {label}"
        return WorkerDied(text, error.exitcode, error.signal, error.pid, error.may_have_run)
    if ended.final and str(error).endswith(IN_THREADS):
        return type(error)(str(error).removesuffix(IN_THREADS) + "backend='threading'")
    if ended.traceback:  # as a note, since joblib drops the error's traceback
        with suppress(Exception):  # an error class may override add_note; the error itself is what matters
            error.add_note(f"in the worker process:\n{ended.traceback.rstrip()}")
    return error


def refusal(label: str, error: BaseException) -> PicklingError:
    """The error of a batch that cannot be pickled, of the class that joblib raises."""
    refused = PicklingError(
        f"the task to send to a worker process cannot be pickled, {label}: {describe_error(error)}"
    )
    refused.__cause__ = error
    return refused


def undelayed(calls: list[Any]) -> TypeError | None:
    """The error of a batch with something that ``delayed`` has not made: most often the value of a call that was made already."""
    for call in calls:
        if not isinstance(call, tuple | list) or len(call) != 3:
            return TypeError(
                f"Parallel must be given calls that delayed has made, got {repr_of(call, Repr().repr)}; "
                "in place of f(x), write delayed(f)(x)"
            )
    return None


def describe_calls(calls: list[tuple[Any, tuple[Any, ...], dict[str, Any]]]) -> str:
    """Return a batch as text.

    >>> describe_calls([(pow, (2, 5), {}), (pow, (3, 5), {"mod": 7})])
    'a batch of 2 calls: pow(2, 5), pow(3, 5, mod=7)'
    """
    shown = ", ".join(describe_call(*call) for call in calls[:SHOWN])
    more = f" and {len(calls) - SHOWN} more" if len(calls) > SHOWN else ""
    return f"a batch of {len(calls)} call{'s' * (len(calls) != 1)}: {shown}{more}"


def describe_call(fn: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> str:
    """Return a call as shortened text; an argument whose ``repr`` raises is shown as its type."""
    short = Repr()
    short.maxother = short.maxstring = 40
    shown = [repr_of(arg, short.repr) for arg in args[:SHOWN]]
    shown += [
        f"{name}={repr_of(arg, short.repr)}" for name, arg in list(kwargs.items())[: SHOWN - len(shown)]
    ]
    shown += ["…"] if len(args) + len(kwargs) > len(shown) else []
    name = attribute_or_none(fn, "__name__")
    return f"{name if isinstance(name, str) else repr_of(fn, short.repr)}({', '.join(shown)})"
