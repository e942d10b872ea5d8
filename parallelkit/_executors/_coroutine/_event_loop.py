"""An event loop in a thread of its own, on which attempts run concurrently.

Two claims decide who handles an attempt (see ``take_claim``). ``unbegun``: the loop that begins it, or the run that
takes it back. ``claim``: the loop that finished it, or the run that gave up on it.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Generator
from contextvars import Context
from functools import partial
from types import CoroutineType, coroutine
from typing import Any, Protocol

from parallelkit._conditions import Event, Thread
from parallelkit._coroutine_functions import awaited
from parallelkit._executors._contract import Ticket
from parallelkit._executors._thread._lending import take_claim
from parallelkit._executors._thread._stacks import await_stack, stack_of
from parallelkit._forked import end_child
from parallelkit._logger import logger
from parallelkit._raised import give_traceback, traceback_of
from parallelkit._system import monotonic

GRACE = 0.1  # seconds that a coroutine may take to end once it was cancelled
LONG = 0.05  # seconds; a step between two awaits that takes longer counts as blocking the loop

_forks: list[None] = []  # as many as lead from the first process to this one
os.register_at_fork(after_in_child=partial(_forks.append, None))


class Flight:
    """An attempt on an event loop."""

    stopped = False  # as ``Hung``: a stopped run cancels its attempts, so one that is abandoned has overrun its timeout

    __slots__ = (
        "asked", "cancelled", "claim", "coroutine", "loop", "stack", "started", "task", "ticket", "unbegun", "worker",
    )  # fmt: skip

    def __init__(self, ticket: Ticket, loop: EventLoop, worker: str) -> None:
        self.ticket = ticket
        self.loop = loop
        self.worker = worker
        self.unbegun = [0.0]
        self.claim: list[float] = []  # holds the instant of the start once it has begun
        self.started = 0.0
        self.asked = False  # whether the run asked for its cancellation
        self.cancelled = False  # whether the loop has cancelled it
        self.stack = ""
        self.task: Any = None
        self.coroutine: Any = None

    def place(self) -> str:
        """Its current stack, as text."""
        steps = self.loop.stepping is not None and self.loop.stepping[0] is self
        return stack_of(self.loop.thread) if steps else await_stack(self.coroutine)


class Home(Protocol):
    """The port whose attempts run on a loop, as the loop sees it."""

    def take(self, loop: EventLoop) -> Flight | None:
        """The next attempt, if there is a slot for it."""

    def call(self, item: Any) -> Any:
        """Make the coroutine of an attempt."""

    def context(self) -> Context:
        """The context variables of an attempt."""

    def begun(self, flight: Flight) -> None:
        """Called when an attempt has begun."""

    def land(self, flight: Flight, value: Any, error: BaseException | None) -> None:
        """Called when an attempt has ended."""

    def fail(self, error: BaseException) -> None:
        """Called when the loop has broken, so that nothing can run here any more."""


class EventLoop:
    """Runs the attempts of its home, until it is closed, or was retired and has finished what it had."""

    def __init__(self, home: Home, name: str) -> None:
        self.stepping: tuple[Flight, float] | None = None  # the attempt that executes now, and since when
        self.flights: set[Flight] = set()
        self._blocked = 0.0
        self._longest: tuple[float, int] = (0.0, -1)
        self._home = home
        self._asked = False  # whether a call of ``_fill`` is pending
        self._retired = self._closing = self._over = False
        self._end: Any = None
        self._forks = len(_forks)  # more in a child that a coroutine has forked, where this is a copy
        self._loop: Any = None
        self._made = Event()  # set once the loop is there, or cannot be made
        self._lack: BaseException | None = None  # why it cannot
        self.thread = Thread(target=self._serve, name=name, daemon=True)

    # From any thread.

    def start(self) -> None:
        """Start the thread, and wait for its loop; raises RuntimeError if the system has no thread, OSError if it has no descriptor."""
        self.thread.start()
        self._made.wait()
        if self._lack is not None:
            raise self._lack

    def offer(self) -> None:
        """Have the loop look for attempts to take."""
        if not self._asked:
            self._asked = True
            self._call(self._fill)

    def cancel(self, flight: Flight) -> None:
        """Cancel an attempt that is past its timeout."""
        self._call(self._cancel, flight)

    def retire(self) -> None:
        """Take no more attempts, and end once those that run have ended."""
        self._retired = True  # what was given up last has yet to end: the loop looks at this then

    def close(self) -> None:
        """Cancel all attempts, and end; returns at once."""
        self._closing = True
        self._call(self._wind_up)

    def join(self, until: float) -> None:
        """Wait for a closed loop to end; if it is blocked, abandon it with a warning."""
        if self.thread is threading.current_thread() or not self.thread.is_alive():
            return
        self.thread.join(max(0.0, until - monotonic()))
        if not self.thread.is_alive():
            return
        if self._loop is not None and self._loop.is_closed():
            logger.warning("what a coroutine gave to asyncio.to_thread still runs, and was not waited for")
        else:
            place = "".join(stack_of(self.thread).splitlines(keepends=True)[-8:])  # four frames
            logger.warning("a coroutine blocks its event loop, whose thread was abandoned, at\n%s", place)

    def blocked(self) -> tuple[float, float, int]:
        """Seconds for which long steps blocked this loop in all, those of the longest, and its task's index (-1: none)."""
        stepping = self.stepping
        if stepping is not None:
            self._note(stepping[0], monotonic() - stepping[1])  # it is still blocked
        return self._blocked, *self._longest

    def _call(self, function: Callable[..., object], *args: Any) -> None:
        if (loop := self._loop) is None:
            return  # it is not made yet, and will look at everything first
        try:
            loop.call_soon_threadsafe(function, *args)
        except RuntimeError:
            assert self._over, "only a loop that has ended takes no calls"

    # In the thread of the loop.

    def _make(self) -> None:
        import asyncio
        from concurrent.futures import ThreadPoolExecutor

        loop = asyncio.new_event_loop()
        self._task = partial(asyncio.Task, loop=loop)  # not ``create_task``, which may make eager ones
        self._pool = ThreadPoolExecutor(thread_name_prefix=self.thread.name)  # for asyncio.to_thread
        loop.set_default_executor(self._pool)
        loop.call_soon(self._fill)
        self._loop = loop
        if self._closing:  # read after the loop was set: ``close`` sees it, or we see the flag
            self._wind_up()

    def _serve(self) -> None:
        try:
            self._make()  # here, where no signal handler can raise, which would leave its descriptors open
        except BaseException as error:
            self._lack = error.with_traceback(None)  # it refers to this frame, a cycle
            return
        finally:
            self._made.set()
        while not self._over:
            try:
                self._loop.run_forever()
            except (SystemExit, KeyboardInterrupt) as error:  # of an asyncio task that an attempt has started
                logger.error(
                    "something in the background of an event loop raised %r; the loop goes on", error
                )
            except BaseException as error:
                self._over = True
                self._home.fail(error)
        self._loop.close()
        self._pool.shutdown()

    def _fill(self) -> None:
        """Start as many attempts as there are slots."""
        self._asked = False  # before the look, so that whoever adds work afterwards calls again
        while (flight := self._home.take(self)) is not None:
            self.flights.add(flight)
            self._launch(flight)
        if self._retired and not self.flights:
            self._wind_up()

    def _launch(self, flight: Flight) -> None:
        flight.task = self._task(self._fly(flight), context=self._home.context())
        flight.task.add_done_callback(partial(self._check_begun, flight))

    def _check_begun(self, flight: Flight, _: object) -> None:
        """Launch an attempt again whose asyncio task was cancelled before its first step, by code that cancels all tasks, say."""
        if flight.unbegun:
            self._launch(flight)

    async def _fly(self, flight: Flight) -> None:
        value, error = None, None
        flight.started = monotonic()
        flight.claim.append(flight.started)  # first, so that a run which cannot take it back sees its start
        if not take_claim(flight.unbegun):  # the run has taken it back meanwhile
            self._landed(flight)
            return
        self._home.begun(flight)
        try:
            made = self._home.call(flight.ticket[2])
            flight.coroutine = made if isinstance(made, CoroutineType) else awaited(made)
            value = await self._steps(flight)
        except BaseException as caught:  # SystemExit, too, which would end the loop
            error = caught
        if len(_forks) > self._forks:
            end_child(error)
        self._home.land(flight, value, error)
        del error  # its traceback refers to this frame, a cycle
        self._landed(flight)

    def _landed(self, flight: Flight) -> None:
        self.flights.discard(flight)
        self._fill()

    @coroutine
    def _steps(self, flight: Flight) -> Generator[Any, Any, Any]:
        """Await the coroutine of an attempt, and note the steps that block the loop. This costs 0.3 µs a step."""
        advance, argument = flight.coroutine.send, None
        while True:
            began = monotonic()
            self.stepping = (flight, began)
            try:
                signal = advance(argument)
            except StopIteration as stop:
                return stop.value
            finally:
                self.stepping = argument = ours = None  # an error that was thrown in refers to this frame
                step = monotonic() - began
                if step > LONG:
                    self._note(flight, step)
            if len(_forks) > self._forks:
                raise RuntimeError("a forked process must not await: the event loop belongs to its parent")
            try:
                argument = yield signal
                advance = flight.coroutine.send
            except BaseException as error:
                if flight.coroutine.cr_frame is None:  # the collector ended it first: both are garbage
                    raise
                ours = traceback_of(error)  # its first frame is this one, amid the user's
                advance, argument = flight.coroutine.throw, give_traceback(error, ours and ours.tb_next)

    def _note(self, flight: Flight, step: float) -> None:
        if step > LONG:
            self._blocked += step
            self._longest = max(self._longest, (step, flight.ticket[0]))

    def _cancel(self, flight: Flight) -> None:
        flight.cancelled = True  # also if the run has given up on it, since the loop was blocked until now
        flight.stack = await_stack(flight.coroutine)
        flight.task.cancel()

    def _wind_up(self) -> None:
        if self._end is None:
            self._end = self._task(self._finish())

    async def _finish(self) -> None:
        """End everything here as ``asyncio.run`` does, but do not wait for tasks that refuse to end."""
        import asyncio

        try:
            rest = asyncio.all_tasks() - {self._end}
            for task in rest:
                task.cancel()
            if rest:
                _, rest = await asyncio.wait(rest, timeout=GRACE)
            self._leave(rest)
            await asyncio.wait_for(self._loop.shutdown_asyncgens(), GRACE)
        except TimeoutError:
            logger.warning("an async generator did not end when it was closed, and was abandoned")
        finally:
            self._over = True
            self._loop.stop()

    def _leave(self, tasks: set[Any]) -> None:
        ours = {flight.task: flight.coroutine for flight in self.flights}
        for task in tasks:
            stack = await_stack(ours.get(task) or task.get_coro())
            logger.warning("a coroutine did not end when it was cancelled, and was abandoned at\n%s", stack)
            task._log_destroy_pending = False  # asyncio would log the same again
