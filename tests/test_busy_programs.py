"""Random programs of several threads that use one executor at a time: whatever they do to it, each call has one end, the right one.

What is asked for at random moments cannot be compared with the standard pools step by step. So it is compared with what the calls
have noted: each that was not cancelled was made once, and came to what its future has.
"""

import builtins
import random
import sys
import threading
import time
from collections import Counter
from concurrent.futures import BrokenExecutor, CancelledError, as_completed, wait
from contextlib import contextmanager, suppress
from functools import partial
from itertools import count, islice

import pytest
from remote_tasks import end_as, fail_after

from parallelkit import ProcessExecutor, ThreadExecutor, WorkerDied

ENDS = ["value", "value", "value", "naps", "ValueError", "StopIteration", "SystemExit", "KeyboardInterrupt"]
IN_THREADS = ["submits", "waits", "waits", "maps", "cancels", "shuts down"]
IN_PROCESSES = ["exits", "exits", "handles SIGTERM", "returns a lock", "takes a lock"]
CALLBACKS = ["does nothing", "raises", "submits", "cancels", "asks", "shuts down", "ends workers"]
PAUSES = [0, 0.0005, 0.002]
NEW_MAP = sys.version_info >= (3, 14)  # which has a ``buffersize``


class Call:
    """A submitted call: how it is to end; whether a ``cancel`` of it was told True; how often each callback was called."""

    def __init__(self, number, end):
        self.number, self.end = number, end
        self.future, self.cancelled = None, False
        self.callbacks = []

    def comes_to(self):
        """The type of its error, and its text or that of its value."""
        return getattr(builtins, self.end, type(None)), str(self.number)


class Program:
    """What a seed chooses to do with an executor, in one to three threads; a subclass says with which."""

    can_end = False  # whether its workers can be ended

    def __init__(self, seed, folder):
        self.seed, self.chance = seed, random.Random(seed)
        self.folder, self.width = folder, self.chance.randint(1, 3)
        self.calls, self.errors, self.numbers, self.lock = [], [], count(), threading.Lock()
        self.may_shut = self.may_end = self.chance.random() < 0.5
        self.shut = self.ended = self.over = False
        self.fails = self.chance.choice([None] * 9 + [0, 1])  # after how many workers an initializer does
        self.executor = self.open()

    def run(self):
        threads = [
            threading.Thread(target=self.drive, args=[random.Random(f"{self.seed}.{number}")])
            for number in range(self.chance.randint(1, 3))
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.over = True
        self.executor.shutdown()
        assert [] == self.errors
        self.check()

    def drive(self, chance):
        steps = [self.cancel, self.ask, self.map, self.wait, self.complete, self.add_callback]
        steps += [self.shut_down, self.end_workers, self.pause] + [self.submit] * len(steps)
        with self.noting_errors():
            for _ in range(chance.randint(3, 20)):
                chance.choice(steps)(chance)

    @contextmanager
    def noting_errors(self):
        try:
            yield
        except BaseException as error:
            self.errors.append(error)

    def check(self):
        began = Counter(self.began())
        for call in self.calls:
            self.check_call(call, began[call.number])
        others = [call.future for call in self.calls if call.end != "exits" and not call.future.cancelled()]
        lost = sum(isinstance(future.exception(), BrokenExecutor) for future in others)
        assert self.fails is not None or lost <= (self.width + 1) * self.ended

    def check_call(self, call, began):
        assert call.future.done()
        assert {1}.issuperset(call.callbacks), "a callback was lost, or called twice"
        if call.future.cancelled():
            assert not began
            assert call.cancelled or self.shut or self.ended
            return
        assert not call.cancelled
        error = call.future.exception()
        if type(error) is WorkerDied:
            assert began <= 1
            assert call.end == "exits" or self.ended or self.fails is not None
        elif isinstance(error, BrokenExecutor):
            assert self.ended or self.fails is not None
            assert not began or self.fails is not None
        elif call.end.endswith("lock"):
            assert (TypeError, call.end != "takes a lock") == (type(error), began)
        else:
            came = call.future.result() if error is None else error
            assert (1, *call.comes_to()) == (began, type(error), str(came))

    # Steps

    def submit(self, chance, ends=None):
        call = Call(next(self.numbers), chance.choice(ends or self.ends))
        try:
            call.future = self.submit_call(call, chance)
        except RuntimeError as error:
            self.check_refusal(error)
            return None
        with self.lock:
            self.calls.append(call)
        return call

    def check_refusal(self, error):
        broken = self.fails is not None and isinstance(error, BrokenExecutor)
        assert self.shut or self.ended or self.over or broken

    def some(self, chance):
        with self.lock:
            return chance.sample(self.calls, min(len(self.calls), chance.randint(1, 5)))

    def cancel(self, chance):
        for call in self.some(chance):
            if call.future.cancel():
                call.cancelled = True

    def ask(self, chance):
        for call in self.some(chance):
            self.ask_one(call, chance)

    def ask_one(self, call, chance):
        asked = chance.choice([call.future.result, call.future.exception])
        with suppress(Exception, CancelledError, SystemExit, KeyboardInterrupt):
            asked(chance.choice([-1, *PAUSES, None]))

    def wait(self, chance):
        wait([call.future for call in self.some(chance)], chance.choice([*PAUSES, None]))

    def complete(self, chance):
        with suppress(TimeoutError):
            for future in as_completed(
                [call.future for call in self.some(chance)], chance.choice([*PAUSES, None])
            ):
                assert future.done()

    def map(self, chance):
        more = {"buffersize": chance.randint(1, 3)} if NEW_MAP and chance.random() < 0.5 else {}
        size, got = chance.randint(0, 7), []
        try:
            values = self.executor.map(
                abs,
                range(size),
                timeout=chance.choice([None, *PAUSES]),
                chunksize=chance.randint(1, 3),
                **more,
            )
            got.extend(islice(values, chance.choice([None, 0, 1])))
        except TimeoutError:
            pass
        except CancelledError:
            assert self.shut or self.ended
        except RuntimeError as error:
            self.check_refusal(error)
        assert [*range(len(got))] == got

    def add_callback(self, chance):
        for call in self.some(chance):
            with self.lock:
                call.callbacks.append(0)
                place = len(call.callbacks) - 1
            what, then = chance.choice(CALLBACKS), random.Random(chance.random())
            call.future.add_done_callback(partial(self.call_back, call, place, what, then))

    def call_back(self, call, place, what, chance, future):
        with self.noting_errors():
            assert future is call.future
            call.callbacks[place] += 1
            if what == "asks":
                self.ask_one(call, chance)
            self.do(what, chance)
        if what == "raises":
            raise ArithmeticError(what)

    def do(self, what, chance):
        known = {
            "submits": self.submit,
            "cancels": self.cancel,
            "maps": self.map,
            "shuts down": self.shut_down,
            "ends workers": self.end_workers,
        }
        if what in known:
            known[what](chance)

    def shut_down(self, chance):
        if self.may_shut and chance.random() < 0.2:
            self.shut = True
            self.executor.shutdown(wait=chance.random() < 0.5, cancel_futures=chance.random() < 0.5)

    def end_workers(self, chance):
        if self.can_end and self.may_end and chance.random() < 0.3:
            self.ended = True
            chance.choice([self.executor.terminate_workers, self.executor.kill_workers])()
            with pytest.raises(RuntimeError):
                self.executor.submit(abs, -1)

    def pause(self, chance):
        time.sleep(chance.choice(PAUSES))


class InThreads(Program):
    """Its calls use the executor, too: they submit others, and wait for those."""

    ends = ENDS + IN_THREADS

    def open(self):
        self.made, self.begins = [], count()
        return ThreadExecutor(self.width, initializer=None if self.fails is None else self.initialize)

    def initialize(self):
        if next(self.begins) >= self.fails:
            raise LookupError

    def submit_call(self, call, chance):
        return self.executor.submit(self.make, call, random.Random(chance.random()))

    def began(self):
        return self.made

    def make(self, call, chance):
        self.made.append(call.number)
        error, _ = call.comes_to()
        if error is not type(None):
            raise error(call.number)
        if call.end == "naps":
            self.pause(chance)
        elif call.end == "waits":
            self.wait_for_others(chance)
        else:
            self.do(call.end, chance)
        return call.number

    def wait_for_others(self, chance):
        """Not for calls that wait themselves for this one."""
        for call in [self.submit(chance, ENDS) for _ in range(chance.randint(1, 3))]:
            if call is not None:
                self.ask_one(call, chance)


class InProcesses(Program):
    """Its workers may be ended while calls run, and calls may end their workers."""

    ends = ENDS + IN_PROCESSES
    can_end = True

    def open(self):
        self.path = str(self.folder / "calls")
        options = {"max_tasks_per_child": self.chance.choice([None, None, 1, 3])}
        if self.fails is not None:
            options |= {"initializer": fail_after, "initargs": (self.fails, str(self.folder / "starts"))}
        return ProcessExecutor(self.width, **options)

    def submit_call(self, call, chance):
        argument = threading.Lock() if call.end == "takes a lock" else None
        return self.executor.submit(end_as, self.path, call.number, call.end, argument)

    def began(self):
        with suppress(FileNotFoundError), open(self.path) as lines:
            return [*map(int, lines)]
        return []


SOME_THEN_MANY = [*range(10), *(pytest.param(seed, marks=pytest.mark.all) for seed in range(10, 500))]


@pytest.mark.parametrize("seed", SOME_THEN_MANY)
def test_each_call_in_threads_has_one_end(seed, tmp_path):
    """Whatever is asked for, in several threads, in calls and in callbacks, in the midst of a shutdown or a failure."""
    InThreads(seed, tmp_path).run()


@pytest.mark.all
@pytest.mark.parametrize("seed", range(60))
def test_each_call_in_processes_has_one_end(seed, tmp_path):
    """The same where workers die, and are ended by ``terminate_workers`` and ``kill_workers``; at most ``max_workers`` + 1 fail by that."""
    InProcesses(seed, tmp_path).run()
