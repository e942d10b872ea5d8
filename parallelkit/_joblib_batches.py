"""The batches of one ``joblib.Parallel`` on their way to worker processes and back, in a thread of their own."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from itertools import count
from pickle import PicklingError
from reprlib import Repr
from typing import Any

from parallelkit._executors._contract import Block, Ended, Engine, Job, Ticket
from parallelkit._joblib_packing import Packer
from parallelkit._joblib_worker import run
from parallelkit._logger import logger
from parallelkit._lost import describe

GRACE = 1.0  # seconds that the end of a call waits for the thread of its callbacks
SHOWN = 3  # calls of a batch, and arguments of a call, that a message has room for


class Sent:
    """A batch on its way. It is done when its callback comes.

    That refers to its batch, and to the ``Parallel``: kept longer, it would be a cycle by which workers outlive both.
    """

    def __init__(self, calls: Any, callback: Callable[[Sent], object] | None) -> None:
        self.calls = calls
        self._callback = callback
        self._value: Any = None
        self._error: BaseException | None = None

    def settle(self, value: Any, error: BaseException | None) -> None:
        """It is done. What the callback raises is nobody's to catch but ours."""
        self._value, self._error = value, error
        callback = self._callback
        self.forget()
        if callback is not None:
            try:
                callback(self)
            except Exception:
                logger.exception("joblib's callback raised")

    def forget(self) -> None:
        """It is done, or never will be: nobody needs its arguments any more, which may be large, nor its callback."""
        self.calls = self._callback = None

    def result(self) -> Any:
        """The values of its calls, or the error of the first that failed."""
        if self._error is not None:
            raise self._error
        return self._value


class Batches:
    """Hands batches to workers, and settles them."""

    def __init__(self, engine: Engine, max_nbytes: int | None) -> None:
        self._packer = Packer(max_nbytes)
        self._inbox: deque[Sent | None] = deque()  # None: forget the arrays
        self._flying: dict[int, Sent] = {}
        self._label = labels_of(self._flying)
        self._port = engine.open(Job(run, label=self._label))
        self._numbers = count()
        self._closing = False
        self._thread = threading.Thread(target=self._work, name="parallelkit_joblib", daemon=True)
        self._thread.start()

    def submit(self, calls: Any, callback: Callable[[Sent], object] | None) -> Sent:
        """From any thread: one more."""
        sent = Sent(calls, callback)
        self._inbox.append(sent)
        self._port.wake()
        return sent

    def forget_arrays(self) -> None:
        """Send arrays anew from now on. Nothing is on its way now."""
        self._inbox.append(None)

    def close(self) -> None:
        """Kill what runs. What is not done will never be."""
        self._closing = True
        self._port.wake()
        if self._thread is not threading.current_thread():  # a callback may be what closes
            self._thread.join(GRACE)
            if (
                self._thread.is_alive()
            ):  # a callback waits for the caller's iterator: the thread ends after that
                self._port.close()

    def _work(self) -> None:
        port = self._port
        try:
            while not self._closing:
                self._hand_over()
                self._settle(port.wait(None))
                if port.failure is not None:
                    self._break(port.failure)
        except Exception as error:
            self._break(error)  # a fault of ours must not leave joblib waiting for ever
        finally:
            port.close()
            self._packer.close()
            for sent in self._left():
                sent.forget()

    def _hand_over(self) -> None:
        tickets: list[Ticket] = []
        room = self._port.room()
        while self._inbox and len(tickets) < room:
            sent = self._inbox.popleft()
            if sent is None:
                self._packer.close()
                continue
            try:
                packed = self._packer.pack(sent.calls)
            except Exception as error:
                sent.settle(None, refusal(describe_calls(sent.calls.items), error))
                continue
            number = next(self._numbers)
            self._flying[number] = sent
            tickets.append((number, 1, packed, None))
        self._port.start(tickets)

    def _settle(self, events: list[Block | Ended]) -> None:
        for event in events:
            if isinstance(event, Block):
                for index, value in zip(event.indices, event.values, strict=True):
                    self._flying.pop(index).settle(value, None)
            else:
                error = as_joblib_has_it(event, self._label(event.index))
                self._flying.pop(event.index).settle(None, error)

    def _break(self, failure: Exception) -> None:
        """No worker can be had any more: all that waits fails."""
        for sent in self._left():
            sent.settle(None, failure)
        self._closing = True

    def _left(self) -> list[Sent]:
        """Those that are not done, for the last time."""
        left = [*self._flying.values(), *filter(None, self._inbox)]
        self._flying.clear()
        self._inbox.clear()
        return left


def labels_of(flying: dict[int, Sent]) -> Callable[[int], str]:
    """What names a batch in messages; it holds nothing else, for by a cycle workers would outlive their backend."""
    return lambda number: describe_calls(flying[number].calls.items)


def as_joblib_has_it(ended: Ended, label: str) -> BaseException:
    """The error of a batch, of the kind that users of joblib catch; a death says what the worker was running."""
    from parallelkit._died import WorkerDied

    error = ended.error
    if isinstance(error, WorkerDied):
        text = f"{error}, while it ran {label}"
        return WorkerDied(text, error.exitcode, error.signal, error.pid, error.may_have_run)
    if ended.traceback:  # joblib will drop the traceback itself
        with suppress(Exception):  # an error class may override add_note; the error itself is what counts
            error.add_note(f"in the worker process:\n{ended.traceback.rstrip()}")
    return error


def refusal(label: str, error: Exception) -> PicklingError:
    """The error of a batch that cannot be sent, of joblib's kind."""
    refused = PicklingError(
        f"the task to send to a worker process cannot be pickled, {label}: {describe(error)}"
    )
    refused.__cause__ = error
    return refused


def describe_calls(calls: list[tuple[Any, tuple[Any, ...], dict[str, Any]]]) -> str:
    """A batch as text.

    >>> describe_calls([(pow, (2, 5), {}), (pow, (3, 5), {"mod": 7})])
    'a batch of 2 calls: pow(2, 5), pow(3, 5, mod=7)'
    """
    shown = ", ".join(describe_call(*call) for call in calls[:SHOWN])
    more = f" and {len(calls) - SHOWN} more" if len(calls) > SHOWN else ""
    return f"a batch of {len(calls)} call{'s' * (len(calls) != 1)}: {shown}{more}"


def describe_call(fn: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> str:
    """A call as text, shortened; an argument whose ``repr`` raises is its type."""
    short = Repr()
    short.maxother = short.maxstring = 40
    shown = [short.repr(arg) for arg in args[:SHOWN]]
    shown += [f"{name}={short.repr(arg)}" for name, arg in list(kwargs.items())[: SHOWN - len(shown)]]
    shown += ["…"] if len(args) + len(kwargs) > len(shown) else []
    return f"{getattr(fn, '__name__', short.repr(fn))}({', '.join(shown)})"
