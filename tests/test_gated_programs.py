"""Random programs whose calls begin and end one at a time: after each step all futures are as those of ThreadPoolExecutor.

Every call waits at a gate until the program lets it go on. So it is known at every moment which calls run, and which wait.
"""

import logging
import random
import sys
from concurrent.futures import (
    ALL_COMPLETED,
    FIRST_COMPLETED,
    FIRST_EXCEPTION,
    BrokenExecutor,
    ThreadPoolExecutor,
    as_completed,
    wait,
)
from contextlib import suppress
from functools import partial
from threading import Event, Semaphore

import pytest
from patience import PATIENCE, wait_until

from parallelkit import ThreadExecutor

ERRORS = {
    "ValueError": ValueError,
    "StopIteration": StopIteration,
    "TimeoutError": TimeoutError,
    "SystemExit": SystemExit,
}
SMALL = ["value", "value", *ERRORS]
ENDS = [*SMALL, "submits", "submits", "maps", "cancels", "waits", "looks", "shuts down"]
CALLBACKS = ["notes", "raises", "cancels", "submits", "adds another", "asks", "shuts down"]
NEW_MAP = sys.version_info >= (3, 14)  # which has a ``buffersize``


def outcome(call):
    """What a call returns or raises, in a form that can be compared."""
    try:
        return call()
    except AssertionError:
        raise
    except BrokenExecutor as error:
        return type(error)
    except BaseException as error:
        return type(error), str(error)


class Call:
    """A call that begins, waits at its gate, and then does what its ``end`` says."""

    def __init__(self, number, end):
        self.number, self.end = number, end
        self.begun, self.gate = Event(), Event()
        self.future = None
        self.callbacks = self.called = 0


class Program:
    """What a seed chooses to do; ``seen`` is all that can be observed, in ``running`` and ``waiting`` are calls in their order."""

    def __init__(self, seed, make):
        self.chance = random.Random(seed)
        self.width = self.chance.randint(1, 3)
        # If it ``breaks``, the next thread after so many fails as it begins, once it may.
        self.breaks, self.threads = self.chance.random() < 0.2, self.chance.randrange(self.width)
        self.failing, self.places = Event(), Semaphore(self.threads)
        self.executor = make(self.width, initializer=self.initialize)
        self.submit_really = self.executor.submit
        self.executor.submit = self.submit  # which ``map`` calls as well
        self.calls, self.waiting, self.running, self.maps, self.seen = [], [], [], [], []
        self.dropping = False  # whether a shutdown cancels what has not begun

    def run(self):
        often = [self.add, self.let_go, self.step]
        steps = [
            self.add,
            self.add,
            self.map,
            self.cancel,
            self.observe,
            self.add_callback,
            self.close,
            self.shut_down,
        ]
        with self.executor:
            try:
                self.start_threads()
                for _ in range(self.chance.randint(5, 40)):
                    step = self.chance.choice(often + often + steps)
                    self.see(step.__name__, outcome(step))
                    self.settle()
                while self.running:
                    self.let_go(self.running[0])
                    self.settle()
            finally:
                for call in self.calls:
                    call.gate.set()
        self.maps.clear()
        return self.seen

    def start_threads(self):
        """Start all, for which of them idle is known to nobody; or as many as begin well, and then one that fails."""
        for _ in range(self.threads if self.breaks else self.width):
            self.add()
            self.settle()
        if self.breaks:
            self.failing.set()
            self.see(outcome(lambda: self.submit_really(abs, -1).result(PATIENCE)))
            wait_until(lambda: isinstance(outcome(lambda: self.submit_really(abs, -1)), type))

    def initialize(self):
        if self.breaks and not self.places.acquire(blocking=False):
            assert self.failing.wait(PATIENCE)
            raise LookupError

    def see(self, *what):
        self.seen.append(what)

    def settle(self):
        """Wait until all calls have begun for which there is room; see how all are."""
        self.waiting = [call for call in self.waiting if not call.future.done()]
        while self.waiting and len(self.running) < self.width:
            call = self.waiting.pop(0)
            assert call.begun.wait(PATIENCE), "it never begins"
            self.running.append(call)
        assert not any(call.begun.is_set() for call in self.waiting), "it began too early"
        self.see([state(call.future) for call in self.calls])

    # Calls

    def add(self):
        self.executor.submit(self.make, self.chance.choice(ENDS))

    def submit(self, fn, end):
        """In place of the executor's ``submit``: know of each call."""
        call = Call(len(self.calls), end)
        call.future = self.submit_really(fn, call)
        self.calls.append(call)
        self.waiting.append(call)
        return call.future

    def make(self, call):
        call.begun.set()
        assert call.gate.wait(PATIENCE)
        if call.end in ERRORS:
            raise ERRORS[call.end](call.number)
        self.do(call.end)
        return call.number

    def do(self, what):
        """Something that a call or a callback does with the executor, or with other calls."""
        if what == "submits":
            self.see(outcome(lambda: self.executor.submit(self.make, self.chance.choice(SMALL)) and None))
        elif what == "maps":
            self.map()
        elif what == "cancels":
            self.cancel(self.waiting[1:])  # one more may have begun already
        elif what == "looks":
            self.observe()
        elif what == "waits":
            self.wait_within()
        elif what == "shuts down" and self.chance.random() < 0.2:
            self.executor.shutdown(wait=False)

    def wait_within(self):
        """If another thread is free, a call may wait for one that needs no gate; else the standard pool would wait for ever."""
        if len(self.running) + len(self.waiting) < self.width:
            self.see(outcome(lambda: self.submit_really(abs, -1).result(PATIENCE)))

    def let_go(self, call=None):
        """Let a running call end, and wait until its callbacks were called."""
        call = call or (self.running and self.chance.choice(self.running))
        if call:
            call.gate.set()
            wait_until(lambda: call.future.done() and call.called == call.callbacks)
            self.running.remove(call)
            self.see(outcome(partial(call.future.result, 0)))

    def cancel(self, among=None):
        among = self.calls if among is None else [*among, *self.running]
        if among:
            call = self.chance.choice(among)
            self.see(call.number, call.future.cancel(), call.future.cancel())

    # map

    def map(self):
        """Some calls by ``map``; the time that they have is over, or without end."""
        ends = self.chance.choices(SMALL, k=self.chance.randint(0, 5))
        options = {"timeout": self.chance.choice([None, 0, -1, PATIENCE])}
        if NEW_MAP:
            options["buffersize"] = self.chance.choice([None, 1, 2])
        read = []
        given = (read.append(end) or end for end in ends)
        values = outcome(lambda: self.executor.map(self.make, given, **options))
        if not hasattr(values, "__next__"):
            self.see(values)
        else:
            self.maps.append((values, options["timeout"], read))
        self.see(len(read))

    def step(self):
        """Ask a ``map`` for its next value, if that does not wait."""
        if self.maps:
            values, timeout, read = self.chance.choice(self.maps)
            ready = not self.running and not self.waiting
            if ready or timeout in (0, -1):
                self.see(outcome(partial(next, values)))
            self.see(len(read))

    def close(self):
        """Leave a ``map`` before its end, or drop it."""
        if self.maps:
            values, _, _ = self.maps.pop(self.chance.randrange(len(self.maps)))
            if self.chance.random() < 0.5:
                values.close()

    # Futures

    def observe(self):
        """Ask without waiting. Calls that were cancelled while they waited are left out: there the standard pool is late."""
        calls = [call for call in self.calls if not call.future.cancelled()]
        futures = {
            call.future: call.number for call in self.chance.sample(calls, self.chance.randint(0, len(calls)))
        }
        timeout = self.chance.choice([0, -1])
        for future in futures:
            self.see(outcome(partial(future.result, timeout)), state(future))
            with suppress(TimeoutError):
                self.see(type(future.exception(timeout)))
        for until in (FIRST_COMPLETED, FIRST_EXCEPTION, ALL_COMPLETED):
            self.see([sorted(futures[future] for future in some) for some in wait(futures, timeout, until)])
        done = []
        with suppress(TimeoutError):
            done += (futures[future] for future in as_completed(futures, timeout))
        self.see(sorted(done))

    def add_callback(self, call=None):
        call = call or (self.calls and self.chance.choice(self.calls))
        if call:
            call.callbacks += 1
            what = self.chance.choice(CALLBACKS)
            call.future.add_done_callback(partial(self.call_back, call, what))

    def call_back(self, call, what, future):
        assert future is call.future
        try:
            if self.dropping:  # in any order, and the standard pool holds its lock meanwhile
                return
            self.see(call.number, what, state(future))
            if what == "raises":
                raise ArithmeticError(call.number)
            if what == "asks":
                self.see(outcome(future.result), repr(outcome(partial(future.exception, 0))))
            elif what == "adds another":
                self.add_callback(call)
            else:
                self.do(what)
        finally:
            call.called += 1

    def shut_down(self):
        if self.chance.random() < 0.5:
            self.dropping = self.chance.random() < 0.5
            self.executor.shutdown(wait=False, cancel_futures=self.dropping)
            self.dropping = False


def state(future):
    return future.running(), future.done(), future.cancelled()


@pytest.mark.parametrize(
    "seed", [*range(15), *(pytest.param(seed, marks=pytest.mark.all) for seed in range(15, 500))]
)
def test_calls_are_at_every_moment_as_those_of_the_standard_pool(seed, caplog):
    """States, values, errors, what callbacks see, what is logged and what is refused, whatever is asked in callbacks and calls."""
    seen = []
    for make in (ThreadPoolExecutor, ThreadExecutor):
        with caplog.at_level(logging.ERROR, "concurrent.futures"):
            caplog.clear()
            seen.append(Program(seed, make).run())
            seen[-1].append(
                [repr(record.exc_info[1]) for record in caplog.records if "callback" in record.message]
            )
    assert seen[0] == seen[1]
